"""The clock: how something is timed again and again, and the record of what that gave.

Warm-ups first, then the median with percentiles: a mean would be a tale of the worst repeat. On a GPU work is only handed over
by a call, so events on the device mark its steps, and the host waits for it before a clock of its own is read.

A machine's own speed changes: a virtual one was seen to go from one to two within seconds, with nothing else running. So
fixed work is timed before each repeat on a CPU, and two models are compared by what their steps take in units of it.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.fitting import synchronise

LONG = 10
"""Times the fixed work: after a step of so much the next work was seen to take twice its time, and the one after it its own;
presumably the allocator tidies up what the step has freed, for its `malloc_trim` in between does away with it too."""
SPREAD, EXTREME = 0.10, 0.50
"""Shares of the median: an interquartile range and a slowest repeat beyond which a time is called noisy."""

LEFT, RIGHT = torch.linspace(-1, 1, 32 * 64).reshape(32, 64), torch.linspace(-1, 1, 64 * 192).reshape(64, 192)
"""What the fixed work multiplies,"""
WEIGHTS = tuple(torch.linspace(-0.2, 0.2, rows * 128).reshape(128, rows) for rows in (16, 32))
SEQUENCES = torch.linspace(-1, 1, 16 * 20 * 16).reshape(16, 20, 16)
"""and the LSTM of 32 units and the (B, T, C) that it differentiates."""


@dataclass(frozen=True)
class TimingConfig:
    """How a timing trial measures. A suite's timing grid may vary any field.

    n_warmup, n_repeats: of a training step and of an inference pass. n_builds: how many copies of the model share the repeats
    of the training step, for where in memory a copy lies changes its time. n_blocks: repeats of a whole evaluation, after one
    warm-up. throughput_batch: sequences at once when throughput is measured. n_streamed: steps of a stream whose latencies are
    kept, after n_warmup. threads: that torch may use, on the CPU. lengths: T of the scaling sweep, upwards; none, no sweep.
    sweep_batch, sweep_warmup, sweep_repeats: of the sweep. sweep_stop_s: a training step that takes longer is the sweep's
    last.
    """

    n_warmup: int = 10
    n_repeats: int = 30
    n_builds: int = 3
    n_blocks: int = 3
    throughput_batch: int = 64
    n_streamed: int = 200
    threads: int = 1
    lengths: tuple[int, ...] = ()
    sweep_batch: int = 4
    sweep_warmup: int = 3
    sweep_repeats: int = 5
    sweep_stop_s: float = 5.0

    def __post_init__(self) -> None:
        for name in (
            "n_repeats",
            "n_builds",
            "n_blocks",
            "throughput_batch",
            "n_streamed",
            "threads",
            "sweep_batch",
            "sweep_repeats",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("n_warmup", "sweep_warmup"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.sweep_stop_s <= 0:
            raise ValueError(f"sweep_stop_s must be positive, got {self.sweep_stop_s}")
        if any(length < 2 for length in self.lengths) or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must be at least 2, rising, each once; got {list(self.lengths)}")


@dataclass(frozen=True)
class Repeated:
    """Seconds of one thing done n times. spread: the interquartile range as a share of the median.

    relative: the median of its times, each divided by that of the fixed work just before; drift: the spread of the fixed
    work's own times. None where none was done.
    """

    median_s: float
    p90_s: float
    p99_s: float
    fastest_s: float
    slowest_s: float
    spread: float
    n: int
    relative: float | None = None
    drift: float | None = None

    @property
    def compared(self) -> float:
        """What ratios between models are made of: relative to fixed work where some was done, else seconds."""
        return self.median_s if self.relative is None else self.relative

    def noise(self, what: str) -> list[str]:
        """What its repeats say against it, in words."""
        found = []
        if self.spread > SPREAD:
            found.append(f"{what}: half of {self.n} repeats spread over {self.spread:.0%} of the median")
        if self.slowest_s > (1 + EXTREME) * self.median_s:
            found.append(
                f"{what}: the slowest of {self.n} repeats took {self.slowest_s / self.median_s:.1f} times the median"
            )
        if self.drift is not None and self.drift > SPREAD:
            found.append(f"speed of the machine: fixed work beside {what} spread over {self.drift:.0%} of its median")
        return found


def summary(seconds: Sequence[float], fixed: Sequence[float] = ()) -> Repeated:
    """(n,) seconds, n ≥ 1. fixed: (n,) seconds of fixed work, each just before one of them; or none."""
    quarter, median, three_quarters, p90, p99 = map(float, np.quantile(seconds, [0.25, 0.5, 0.75, 0.9, 0.99]))
    spread = (three_quarters - quarter) / median
    return Repeated(
        *(median, p90, p99, min(seconds), max(seconds), spread, len(seconds)),
        relative=float(np.median(np.divide(seconds, fixed))) if fixed else None,
        drift=summary(fixed).spread if fixed else None,
    )


def fixed_work() -> None:
    """About four milliseconds of what a small model's step is made of on a CPU: matrix products, Python, and a recurrence with
    its gradient. Each alone follows some models' steps and not others when the machine's speed changes."""
    for _ in range(40):
        torch.tanh(LEFT @ RIGHT)
    total = 0
    for i in range(20_000):
        total += i
    weights = [weight.requires_grad_() for weight in WEIGHTS]
    start = (SEQUENCES.new_zeros(1, 16, 32), SEQUENCES.new_zeros(1, 16, 32))
    outputs = torch.lstm(SEQUENCES, start, weights, False, 1, 0.0, True, False, True)[0]
    torch.autograd.grad(outputs.square().mean(), weights)


def time_steps(copies: Sequence[Callable[[], object]], n_warmup: int, n_repeats: int, device: torch.device) -> Repeated:
    """One call after the other, as in training: a GPU is not waited for in between. On a CPU with fixed work before each.

    copies: the same step, made anew for each; they take equal shares of the repeats, one copy after the other, rounded up."""
    each = math.ceil(n_repeats / len(copies))
    seconds: list[float] = []
    fixed: list[float] = []
    for call in copies:
        for _ in range(n_warmup):
            call()
        synchronise(device)
        with _undisturbed():
            if device.type == "cuda":
                marks = [torch.cuda.Event(enable_timing=True) for _ in range(each + 1)]
                marks[0].record()
                for mark in marks[1:]:
                    call()
                    mark.record()
                synchronise(device)
                seconds += [first.elapsed_time(last) / 1e3 for first, last in itertools.pairwise(marks)]
                continue
            fixed_work()
            for _ in range(each):
                if seconds and seconds[-1] > LONG * fixed[-1]:
                    fixed_work()
                fixed.append(seconds_of(fixed_work, device))
                seconds.append(seconds_of(call, device))
    return summary(seconds, fixed)


def time_blocks(call: Callable[[], object], n_warmup: int, n_repeats: int, device: torch.device) -> Repeated:
    """Each call to its end, as someone waits who needs its answer."""
    for _ in range(n_warmup):
        call()
    with _undisturbed():
        return summary([seconds_of(call, device) for _ in range(n_repeats)])


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    synchronise(device)
    started = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - started


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Python's collector of cyclic garbage, which comes when it likes (as timeit does it)."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def matrix_rate(device: torch.device, repeats: int = 7) -> float:
    """FLOP/s of a large float32 matrix product here and now, with torch's threads: the median over the repeats."""
    n = 4096 if device.type == "cuda" else 512
    a, b = torch.rand(2, n, n, device=device)
    out = torch.empty_like(a)
    return 2 * n**3 / time_steps([lambda: torch.mm(a, b, out=out)], 2, repeats, device).median_s


@dataclass(frozen=True)
class SweepRow:
    """One length of the scaling sweep. Seconds are medians, the same as `Repeated.compared` where exponents are fitted; bytes
    are what one pass adds to the process at its peak. None for what the model has not: a training step where it fits itself."""

    length: int
    training_step_s: float | None
    inference_s: float
    training_bytes: float | None
    inference_bytes: float
    training_step_compared: float | None
    inference_compared: float


@dataclass(frozen=True)
class Cost:
    """What a timing trial measured.

    batch_size, length: B and padded T of the training step. training_step: None for a model that fits itself. evaluation: of
    the validation split. inference: of inference_batch sequences padded to inference_length steps; inference_steps: how many
    steps those sequences have without padding, None where the record is too old to say. streaming_step: one step at batch 1;
    None for a model that takes whole sequences. training_memory, inference_memory: what one step or pass adds
    to the process, see `benchmarks.profiling`. state_bytes: carried per sequence after so many steps. training_flops: of one
    step, matrix products and convolutions, a multiplication and an addition being two; None as training_step. matrix_rate:
    FLOP/s that a large matrix product reached in the same trial. sweep_note: why the sweep ended before its last length, or
    None. noise: what speaks against the times.
    """

    batch_size: int
    length: int
    training_step: Repeated | None
    evaluation: Repeated
    inference: Repeated
    inference_batch: int
    inference_length: int
    streaming_step: Repeated | None
    training_memory: dict[str, float | str]
    inference_memory: dict[str, float | str]
    state_bytes: dict[str, int]
    training_flops: int | None
    matrix_rate: float
    sweep: tuple[SweepRow, ...] = ()
    sweep_note: str | None = None
    noise: tuple[str, ...] = ()
    inference_steps: int | None = None

    @property
    def sequences_per_s(self) -> float:
        return self.inference_batch / self.inference.median_s

    @property
    def steps_per_s(self) -> float | None:
        """Valid steps: padding is work, but no sequence asked for it."""
        return None if self.inference_steps is None else self.inference_steps / self.inference.median_s

    @property
    def matrix_share(self) -> float | None:
        """The share of the matrix rate that the training step reaches."""
        if self.training_step is None or self.training_flops is None:
            return None
        return self.training_flops / self.training_step.median_s / self.matrix_rate


def exponent(lengths: Sequence[float], values: Sequence[float]) -> float:
    """k of values ∝ lengths^k, by least squares in log-log over the upper half of the lengths, where constant costs have faded.

    Lengths rise; an odd number counts its middle one in. nan for fewer than two positive values there.
    """
    upper = [(n, value) for n, value in list(zip(lengths, values, strict=True))[len(lengths) // 2 :] if value > 0]
    if len(upper) < 2:
        return float("nan")
    x, y = np.log(np.array(upper, dtype=np.float64)).T
    return statistics.linear_regression(x.tolist(), y.tolist()).slope
