"""The one training loop, for every model that is fitted by gradient.

Backpropagation through time over length-bucketed batches, gradient clipping, early stopping on validation, and the best
checkpoint by validation kept. It is given the training and validation splits and nothing else, so it cannot see the test.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from benchmarks.captured_steps import CapturedSteps, CUDARecorder, Take
from benchmarks.evaluation import Evaluation, Problem, evaluate
from benchmarks.metrics import Metric
from models.contract import Predictor, State
from models.precision import Precision
from models.sequences import SequenceBatch, TargetSpec

VALIDATIONS = 20
"""In a fit with a budget by the clock: enough to choose among, few enough to cost little."""

POOL = 16
"""Batches sorted by length together: enough to make batches of like lengths, few enough to keep their order random."""


LONGEST_S = 366 * 24 * 3600.0
"""Of a fit: a system's timers do not take any number."""


@dataclass(frozen=True)
class FitConfig:
    """How a model is fitted by gradient. A suite may vary any field.

    window: truncated backpropagation through time: an update every so many steps, the state going on without its gradient
    (Williams and Peng 1990, doi:10.1162/neco.1990.2.4.490); None: the task's own window, or else whole sequences.
    learning_rate: the model's own default unless set. schedule: the learning rate constant, or falling to zero along half a
    cosine over n_steps. momentum: for sgd. weight_decay: decoupled for adamw, an L2 penalty for the others.
    clip_norm: bound on the global norm of the gradient; clip_value: on each element; None: unbounded. batch_size: sequences.
    n_steps: the budget, in optimiser steps. evaluate_every: steps between validations. patience: validations without
    improvement after which the fit stops early; None: never. max_seconds: a cap on the whole fit; reaching it is the status
    ``timeout``, never a normal end. seconds: a budget by the clock, validation included, at which a fit ends normally and
    keeps its best checkpoint; validations are then spread over it, and such a fit does not repeat bit for bit; None: none. A
    model that fits itself is stopped at max_seconds where seconds is set, and else not by the clock.
    precision: of the model's matrix products, in training and evaluation alike, see `models.precision`. step: how a GPU is
    given an update, kernel by kernel or as a CUDA graph, see `benchmarks.captured_steps`; on a CPU there is no difference.
    """

    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    window: int | None = None
    batch_size: int = 64
    n_steps: int = 500
    evaluate_every: int = 50
    patience: int | None = None
    max_seconds: float = 120.0
    seconds: float | None = None
    precision: Precision = "float32"
    step: Literal["eager", "graph"] = "eager"

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_steps", "evaluate_every", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("learning_rate", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("clip_norm", "clip_value", "patience", "window", "seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, or null for none, got {value}")
        if self.max_seconds > LONGEST_S:
            raise ValueError(f"max_seconds must be at most {LONGEST_S:,.0f}, a year, got {self.max_seconds:g}")
        if self.seconds is not None and self.seconds >= self.max_seconds:
            raise ValueError(f"seconds must be less than max_seconds, {self.max_seconds:g}, got {self.seconds:g}")


class Diverged(RuntimeError):
    """The loss or the validation metric was not finite; the message names the first bad step."""


class FitTimeout(RuntimeError):
    """The fit reached max_seconds."""


class Row(NamedTuple):
    """One validation. seconds: the training clock, which stands still during validation and logging.

    train_loss and gradient_norm (before clipping): means over the steps since the last row, None before the first step.
    validation: the primary metric. best: whether this is the checkpoint to beat.
    """

    step: int
    seconds: float
    train_loss: float | None
    gradient_norm: float | None
    validation_loss: float
    validation: float
    best: bool


class Fitted(NamedTuple):
    """steps: taken. best_step: of the checkpoint that the predictor now holds. seconds: training alone, and validating.
    ended_by: the field of the configuration that ended the fit. environment_steps: played to train, where the training data
    are episodes. note: how the steps were taken, where graphs were asked for."""

    steps: int
    best_step: int
    train_seconds: float
    validate_seconds: float
    ended_by: Literal["n_steps", "patience", "seconds"] = "n_steps"
    environment_steps: int | None = None
    note: str | None = None


def fit(
    predictor: Predictor,
    problem: Problem,
    train: SequenceBatch,
    validation: SequenceBatch,
    config: FitConfig,
    generator: torch.Generator,
    log: Callable[[Row], None],
) -> Fitted:
    """Fits ``predictor`` in place and leaves it with its best checkpoint by validation, in evaluation mode.

    generator: a CPU one; the order of the batches depends on nothing else. Raises Diverged or FitTimeout.
    """
    device = _device(predictor)
    train, validation = train.to(device), validation.to(device)
    optimiser = make_optimiser(predictor, config)
    take = make_step(predictor, problem.target, optimiser, config)
    updates = _updates(predictor, problem, train, config, optimiser, take, generator)
    selecting = problem.selecting()
    fitted = optimise(
        predictor, updates, lambda: evaluate(predictor, selecting, validation, device), problem.metrics[0], config, log
    )
    return fitted._replace(note=take.note) if isinstance(take, CapturedSteps) else fitted


def optimise(
    predictor: Predictor,
    updates: Iterator[Update],
    validate: Callable[[], Evaluation],
    primary: Metric,
    config: FitConfig,
    log: Callable[[Row], None],
) -> Fitted:
    """Takes n_steps of the ``updates``, each made as it is asked for, and keeps the best checkpoint, as `fit` says."""
    device = _device(predictor)
    best_key: tuple[float, float] | None = None
    best_step, best_weights, stale = 0, copy.deepcopy(predictor.state_dict()), 0
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    train_seconds = validate_seconds = 0.0
    ended_by: Literal["n_steps", "patience", "seconds"] = "n_steps"
    budget = math.inf if config.seconds is None else config.seconds
    clock = time.perf_counter()
    step = 0
    for step, update in zip(range(1, config.n_steps + 1), updates, strict=False):
        losses.append(update.loss)
        norms.append(update.norm)
        since = time.perf_counter() - clock  # the last validation
        spent = train_seconds + validate_seconds + since
        if spent > config.max_seconds:
            raise FitTimeout(f"the fit reached its cap of {config.max_seconds:g} s at step {step} of {config.n_steps}")
        is_due = step % config.evaluate_every == 0 if config.seconds is None else since >= budget / VALIDATIONS
        if not is_due and spent < budget and step != config.n_steps:
            continue
        train_loss, norm_mean = _means(losses, norms, step)
        synchronise(device)
        now = time.perf_counter()
        train_seconds += now - clock
        result = validate()
        value = result.values[primary.name]
        if not all(map(math.isfinite, (value, result.loss))):
            raise Diverged(f"validation gave {primary.name} {value} and loss {result.loss} at step {step}")
        key = (value if primary.direction == "higher" else -value, -result.loss)
        improved = best_key is None or key > best_key
        if improved:
            best_key, best_step, stale = key, step, 0
            best_weights = copy.deepcopy(predictor.state_dict())
        log(Row(step, train_seconds, train_loss, norm_mean, result.loss, value, improved))
        losses, norms = [], []
        clock = time.perf_counter()
        validate_seconds += clock - now
        stale += not improved
        if config.patience is not None and stale >= config.patience:
            ended_by = "patience"
            break
        if train_seconds + validate_seconds >= budget:
            ended_by = "seconds"
            break
    predictor.load_state_dict(best_weights)
    predictor.eval()
    return Fitted(step, best_step, train_seconds, validate_seconds, ended_by)


def _updates(
    predictor: Predictor,
    problem: Problem,
    train: SequenceBatch,
    config: FitConfig,
    optimiser: torch.optim.Optimizer,
    take: Take,
    generator: torch.Generator,
) -> Iterator[Update]:
    """Update after update from the training split, for ever."""
    scheduler = make_schedule(optimiser, config)
    window = config.window or problem.window
    chunks = _chunks(train, bucketed_batches(train.lengths, config.batch_size, generator), window)
    state: State | None = None
    while True:
        predictor.train()
        batch, state = _next_scored(predictor, chunks, state, window is None)
        update = take(batch, state)
        scheduler.step()
        state = update.state
        yield update


class Update(NamedTuple):
    """loss: before the update. norm: the gradient's, before clipping. state: after the batch. None has a gradient."""

    loss: Tensor
    norm: Tensor
    state: State


def training_step(
    predictor: Predictor,
    target: TargetSpec,
    batch: SequenceBatch,
    optimiser: torch.optim.Optimizer,
    config: FitConfig,
    state: State | None = None,
    weight: float = 1.0,
) -> Update:
    """One update from a batch, which goes on from ``state`` where one is given. weight: of its loss."""
    optimiser.zero_grad(set_to_none=True)
    outputs, after = predictor(batch.inputs, state, batch.lengths)  # (B, T, K)
    loss = weight * target.loss(outputs, batch)
    loss.backward()
    norm = clip_gradients(list(predictor.parameters()), config)
    optimiser.step()
    return Update(loss.detach(), norm, tuple(tensor.detach() for tensor in after))


def make_step(
    predictor: Predictor, target: TargetSpec, optimiser: torch.optim.Optimizer, config: FitConfig
) -> Take | CapturedSteps:
    """`training_step` as the configuration asks for it."""

    def take(batch: SequenceBatch, state: State | None = None) -> Update:
        return training_step(predictor, target, batch, optimiser, config, state)

    if config.step == "eager":
        return take
    device = _device(predictor)
    return CapturedSteps(predictor, take, CUDARecorder(device) if device.type == "cuda" else None)


def clip_gradients(parameters: list[torch.nn.Parameter], config: FitConfig) -> Tensor:
    """Clips in place, by value and then by norm, between backward and step; returns the norm before."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if config.clip_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, config.clip_value)
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    elif config.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, norm)
    return norm.detach()


def make_optimiser(predictor: Predictor, config: FitConfig) -> torch.optim.Optimizer:
    """The optimiser that the configuration names, over all parameters."""
    parameters, decay = list(predictor.parameters()), config.weight_decay
    graphed = config.step == "graph" and _device(predictor).type == "cuda"
    # What a graph reads lies on the GPU, the rate included, which a schedule changes in place.
    rate = torch.tensor(config.learning_rate, device=_device(predictor)) if graphed else config.learning_rate
    match config.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay, fused=True, capturable=graphed)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True, capturable=graphed)
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, rate, weight_decay=decay, momentum=config.momentum, capturable=graphed
            )
        case "sgd":
            return torch.optim.SGD(parameters, rate, weight_decay=decay, momentum=config.momentum, fused=True)


def _device(predictor: Predictor) -> torch.device:
    return next(predictor.parameters()).device


def make_schedule(optimiser: torch.optim.Optimizer, config: FitConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """Constant, or half a cosine down to zero."""
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.n_steps)
    return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


class _Alarm(BaseException):
    """Not an Exception: no procedure may take it for a failure of its own, and go on."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises FitTimeout once the block has taken so long: for procedures without a checkpoint to keep. None: no limit.

    In the main thread alone, for the clock is the process's alarm.
    """
    if seconds is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Alarm

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Alarm:
        raise FitTimeout(
            f"the model's own procedure took more than the {seconds:g} s that a fit may take at most"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _chunks(
    train: SequenceBatch, batches: Iterator[Tensor], window: int | None
) -> Iterator[tuple[SequenceBatch, bool]]:
    """The windows of one batch after another, for ever, and whether each begins its sequences."""
    for index in batches:
        is_first = True
        for chunk in train.select(index).windows(window):
            yield chunk, is_first
            is_first = False


def _next_scored(
    predictor: Predictor, chunks: Iterator[tuple[SequenceBatch, bool]], state: State | None, whole: bool
) -> tuple[SequenceBatch, State | None]:
    """The next window with something to score, and the state before it: windows without are read, and teach nothing."""
    for chunk, is_first in chunks:
        state = None if is_first else state
        # A whole sequence has a scored step; to look would make a GPU wait.
        if whole or bool(chunk.scored.any()):
            return chunk, state
        with torch.no_grad():
            _, state = predictor(chunk.inputs, state, chunk.lengths)
    raise AssertionError("batches never end")


def bucketed_batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices (B,) for ever: each epoch a new permutation, sorted by length within pools, batches in random order.

    Every sequence comes once an epoch; the last batch of an epoch may be smaller. Lengths all equal: a plain permutation.
    """
    uniform = bool((lengths == lengths[0]).all())
    while True:
        order = torch.randperm(len(lengths), generator=generator)
        if uniform:
            yield from order.split(batch_size)
            continue
        pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(batch_size * POOL)]
        batches = [batch for pool in pools for batch in pool.split(batch_size)]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock may be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _means(losses: list[Tensor], norms: list[Tensor], step: int) -> tuple[float, float]:
    """Means since the last row, looked at once per row: reading a number at every step would wait for a GPU."""
    values = torch.stack(losses).double().cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        first = step - len(values) + 1 + int(bad[0])
        raise Diverged(f"the training loss was {values[bad[0]].item()} at step {first}")
    return float(values.mean()), float(torch.stack(norms).double().mean())
