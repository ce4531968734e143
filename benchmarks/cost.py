"""The life of a timing trial, as notebooks/profile.ipynb walks through it: prepare, measure, sweep, finish.

cost = prepare(task="adding", model="lstm", …)
cost.measure()   # seconds, apart: data, build, warm-up, training step, evaluation, inference, streaming
cost.sweep()     # over the lengths that the trial asks for
cost.finish()    # result.json, last

Every process of a model on a task does the same work: the data draw, the initial weights and the batch are those of seed 0.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks import evaluation, provenance
from benchmarks.captured_steps import CapturedSteps
from benchmarks.example_batch import random_batch
from benchmarks.fitting import FitConfig, bucketed_batches, make_optimiser, make_step, synchronise, time_limit
from benchmarks.flops import training_flops
from benchmarks.noise import Noise
from benchmarks.parameters import configure
from benchmarks.profiling import PeakMemory, peak_told
from benchmarks.records import PENDING, RESULT, Result, Status, write_atomically, write_result
from benchmarks.seeding import seed_for, torch_generator
from benchmarks.tasks.registry import task as build_task
from benchmarks.tasks.task import Splits, Task, data_digest
from benchmarks.timing import (
    Cost,
    Repeated,
    SweepRow,
    TimingConfig,
    matrix_rate,
    seconds_of,
    time_blocks,
    time_steps,
)
from benchmarks.trial import Overrides, Trial, specify
from models import registry
from models.contract import Fit, ModelEntry, Predictor, SelfFitting, State
from models.precision import in_precision
from models.sequences import SequenceBatch
from models.sizing import size_to_budget

BY_HAND = provenance.ROOT / "results" / "by-hand"
STATES = (1, 16, 64, 256, 1024, 4096)
"""Steps after which the size of the state is told."""


def prepare(
    task: str,
    model: str,
    seed: int,
    parameter_budget: int | None,
    device: str = "auto",
    task_parameters: Mapping[str, Any] | None = None,
    model_config: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    timing: Mapping[str, Any] | None = None,
    run_folder: str = "",
    code_digest: str = "",
    tuned: Mapping[str, int] | None = None,
) -> CostTrial:
    """Data drawn, model built and sized. Without a run folder, as when opened by hand, one is made under results/by-hand.

    Raises UnknownName or InvalidParameter for a trial that cannot be, ValueError where the model cannot do the task.
    """
    overrides = Overrides(task_parameters or {}, model_config or {}, fit or {}, timing or {})
    trial = specify(task, model, seed, parameter_budget, device, overrides, "timing", tuned)
    torch.set_num_threads(trial.timing["threads"])
    registry.entry(model).do_imports()
    gc.freeze()  # what imports have made is never garbage, and to look through it takes half a second each time
    folder = Path(run_folder) if run_folder else BY_HAND / trial.id
    folder.mkdir(parents=True, exist_ok=True)
    if not run_folder:
        write_atomically(folder / "spec.json", json.dumps(asdict(trial), indent=1))
        write_atomically(folder / "env.json", json.dumps(provenance.environment(), indent=1))
    return CostTrial(
        trial, folder, code_digest or provenance.code_digest(task, model, "timing"), supervised=bool(run_folder)
    )


class CostTrial:
    """One timing trial under way. What it finds is kept for the figures, and for `finish`."""

    def __init__(self, trial: Trial, folder: Path, code_digest: str, supervised: bool) -> None:
        self.trial = trial
        self.folder = folder
        self.code_digest = code_digest
        self.supervised = supervised
        self.device = torch.device(trial.device)
        self.noise = Noise(trial.device)
        self.timing = configure("timing", TimingConfig(), trial.timing)
        self.fit_config = configure("fit", FitConfig(), trial.fit)
        self.entry: ModelEntry = registry.entry(trial.model)
        self.task: Task = build_task(trial.task, trial.task_parameters)
        reason = self.entry.refuses(self.task.input, self.task.target, self.task.causal)
        if reason is not None:
            raise ValueError(f"{trial.model} cannot do {trial.task}: {reason}")
        self.seconds: dict[str, float] = {}
        started = time.perf_counter()
        self.splits: Splits = self.task.splits(0)
        self.seconds["data"] = time.perf_counter() - started
        self.config, self.sizing_note = self._sized()
        self.seconds["build"] = seconds_of(self._built, self.device)
        self.predictor = self._built()
        self.rows: list[SweepRow] = []
        self.sweep_note: str | None = None
        self.captured: CapturedSteps | None = None
        self.fit_note: str | None = None

    def __str__(self) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in self.trial.machine.items() if value)
        return f"{self.trial.title}\n{self.entry.summary}\non {machine}\nkept in {self.folder}"

    @property
    def by_gradient(self) -> bool:
        return self.entry.fit is Fit.GRADIENT

    def _sized(self) -> tuple[Any, str | None]:
        config = configure(f"model {self.trial.model}", self.entry.config, self.trial.model_config)
        task = self.task
        return size_to_budget(self.entry, task.input, task.target, task.causal, config, self.trial.parameter_budget)

    def _built(self) -> Predictor:
        task, seed = self.task, seed_for("init", self.trial.task, self.trial.model, 0)
        built = registry.build(self.entry, task.input, task.target, task.causal, self.config, seed).to(self.device)
        return in_precision(built, self.fit_config.precision if self.by_gradient else "float32")

    @cached_property
    def batch(self) -> SequenceBatch:
        """What the training step is timed on: of an epoch's full batches the one of median length, in its first window with
        something to score where the fit reads in windows."""
        train, size = self.splits.train, min(self.fit_config.batch_size, len(self.splits.train))
        order = bucketed_batches(train.lengths, size, torch_generator("batch", self.trial.task, 0))
        epoch = [index for index in itertools.islice(order, math.ceil(len(train) / size)) if len(index) == size]
        chosen = sorted(epoch, key=lambda index: int(train.lengths[index].max()))[len(epoch) // 2]
        windows = train.select(chosen).windows(self.fit_config.window or self.task.problem.window)
        return next(window for window in windows if bool(window.scored.any())).to(self.device)

    @cached_property
    def answered(self) -> SequenceBatch:
        """What inference is timed on: the first test sequences, or as many as there are, a window of them."""
        index = torch.arange(min(self.timing.throughput_batch, len(self.splits.test)))
        return next(self.splits.test.select(index).windows(self.task.window)).to(self.device)

    @peak_told()
    def measure(self) -> Cost:
        """All but the sweep: memory first, while the heap is small, in passes of its own; then times; then what is counted."""
        timing, device = self.timing, self.device
        if not self.by_gradient:
            self._fit_own(cast(SelfFitting, self.predictor))
        predictor = self.predictor.eval()
        training_memory = self._peak(lambda: self._training(self._built(), self.batch)) if self.by_gradient else {}
        inference_memory = self._peak(lambda: self._inference(self.answered))
        step = self._time_training() if self.by_gradient else None
        validated = self.task.problem.selecting()
        self.measured = Cost(
            batch_size=len(self.batch),
            length=self.batch.inputs.shape[1],
            training_step=step,
            evaluation=time_blocks(
                lambda: evaluation.evaluate(predictor, validated, self.splits.validation, device),
                *(1, timing.n_blocks, device),
            ),
            inference=time_steps([self._inference(self.answered)], timing.n_warmup, timing.n_repeats, device),
            inference_batch=len(self.answered),
            inference_length=self.answered.inputs.shape[1],
            inference_steps=int(self.answered.lengths.sum()),
            streaming_step=self._time_streaming() if predictor.causal else None,
            training_memory=training_memory,
            inference_memory=inference_memory,
            state_bytes={str(t): predictor.state_bytes(t) for t in STATES} if predictor.causal else {},
            training_flops=self._count() if self.by_gradient else None,
            matrix_rate=matrix_rate(device),
        )
        return self.measured

    @peak_told()
    def sweep(self) -> tuple[SweepRow, ...]:
        """Training step, inference and memory over the lengths asked for, on random sequences under the task's specs. Ends
        after the first step that takes longer than it may."""
        timing = self.timing
        for length in timing.lengths:
            self.rows.append(self._at(length))
            longest = max(self.rows[-1].inference_s, self.rows[-1].training_step_s or 0.0)
            if longest > timing.sweep_stop_s and length != timing.lengths[-1]:
                allowed = f"{longest:.1f} s, more than {timing.sweep_stop_s:g} s"
                self.sweep_note = f"the sweep ended at {length} steps, where one pass took {allowed}"
                break
        return tuple(self.rows)

    def _at(self, length: int) -> SweepRow:
        timing, task = self.timing, self.task
        settings = timing.sweep_warmup, timing.sweep_repeats, self.device
        lengths = torch.full((timing.sweep_batch,), length)
        generator = torch_generator("sweep", self.trial.task, length)
        batch = random_batch(task.input, task.target, lengths, torch.get_default_dtype(), generator).to(self.device)
        step = weight = None
        if self.by_gradient:
            weight = _increment(self._peak(lambda: self._training(self._built(), batch)))
            step = time_steps([self._training(self._built(), batch)], *settings)
        inference_weight = _increment(self._peak(lambda: self._inference(batch)))
        inference = time_steps([self._inference(batch)], *settings)
        return SweepRow(
            length=length,
            training_step_s=step.median_s if step else None,
            inference_s=inference.median_s,
            training_bytes=weight,
            inference_bytes=inference_weight,
            training_step_compared=step.compared if step else None,
            inference_compared=inference.compared,
        )

    def finish(self) -> Result:
        """Completes the record with what speaks against its times, and writes it, last."""
        measured = self.measured
        timed = {"training step": measured.training_step, "inference": measured.inference}
        noise = [line for what, repeated in timed.items() if repeated for line in repeated.noise(what)]
        self.measured = replace(
            measured, sweep=tuple(self.rows), sweep_note=self.sweep_note, noise=(*noise, *self.noise.warnings())
        )
        predictor = self.predictor
        self.result = Result(
            trial_id=self.trial.id,
            spec=asdict(self.trial),
            status=Status.OK,
            code_digest=self.code_digest,
            model_config=json.loads(json.dumps(asdict(self.config))),
            parameters=predictor.parameter_counts()._asdict(),
            sizing_note=self.sizing_note,
            fit_note=self.fit_note,
            weight_bytes=predictor.weight_bytes(),
            state_bytes=predictor.state_bytes(self.splits.test.inputs.shape[1]) if predictor.causal else None,
            seconds=self.seconds,
            memory=measured.training_memory or measured.inference_memory,
            # By hand nobody sees to it that nothing else is running.
            timing_valid=self.supervised,
            cost=self.measured,
            data_digest=data_digest(self.splits),
        )
        write_result(self.folder, self.result, PENDING if self.supervised else RESULT)
        return self.result

    def _fit_own(self, predictor: SelfFitting) -> None:
        train, validation, _ = self.splits
        predictor.cpu()  # where counting and EM work
        generator = torch_generator("fit", self.trial.task, self.trial.model, 0)
        started = time.perf_counter()
        with time_limit(self.trial.fit.get("seconds")):
            predictor.fit(train, validation, generator)
        self.seconds["fit"] = time.perf_counter() - started
        predictor.to(self.device)

    def _training(self, predictor: Predictor, batch: SequenceBatch) -> Callable[[], object]:
        """One update after the other from the same batch, by the step of the training loop."""
        predictor.train()
        optimiser = make_optimiser(predictor, self.fit_config)
        take = make_step(predictor, self.task.target, optimiser, self.fit_config)
        self.captured = take if isinstance(take, CapturedSteps) else None
        return lambda: take(batch, None)

    def _inference(self, batch: SequenceBatch) -> Callable[[], object]:
        def answer() -> None:
            with torch.no_grad():
                self.predictor(batch.inputs, None, batch.lengths)

        return answer

    def _time_training(self) -> Repeated:
        timing = self.timing
        copies = [self._training(self._built(), self.batch) for _ in range(timing.n_builds)]

        def warm_up() -> None:
            for _ in range(timing.n_warmup):
                copies[0]()

        self.seconds["warm_up"] = seconds_of(warm_up, self.device)
        timed = time_steps(copies, timing.n_warmup, timing.n_repeats, self.device)
        self.fit_note = self.captured.note if self.captured else None
        return timed

    def _time_streaming(self) -> Repeated:
        """Single steps of the test sequences at batch 1, one sequence after another, the state carried on in each."""
        steps = itertools.cycle(self._streamed())
        state: State | None = None

        def step() -> None:
            nonlocal state
            inputs, begins = next(steps)
            _, state = self.predictor(inputs, None if begins else state, None)

        with torch.no_grad():
            return time_blocks(step, self.timing.n_warmup, self.timing.n_streamed, self.device)

    def _streamed(self) -> list[tuple[Tensor, bool]]:
        """Inputs of one step each, (1, 1, C) or (1, 1), and whether a sequence begins; cut before the clock runs."""
        wanted = self.timing.n_warmup + self.timing.n_streamed
        found: list[tuple[Tensor, bool]] = []
        for sequence, length in zip(self.splits.test.inputs, self.splits.test.lengths.tolist(), strict=True):
            found += [(x[None, None].to(self.device), t == 0) for t, x in enumerate(sequence[: min(length, wanted)])]
            if len(found) >= wanted:
                break
        return found

    def _count(self) -> int:
        """FLOPs of the timed training step. They do not depend on the device, and the counter is trusted on the CPU."""
        return training_flops(
            self._built().cpu(), self.task.target, self.batch.to(torch.device("cpu")), self.fit_config
        )

    def _peak(self, prepared: Callable[[], Callable[[], object]]) -> dict[str, float | str]:
        """Peak memory of the call that ``prepared`` makes, over that of the process just before it: data and weights are in it
        already, gradients and the optimiser's moments are not. A first call, of another copy, has left behind what torch makes
        once and keeps."""
        prepared()()
        _release()
        call = prepared()
        memory = PeakMemory(self.device)
        call()
        synchronise(self.device)
        return memory.read()


def _increment(memory: Mapping[str, float | str]) -> float:
    """Bytes on the device that did the work."""
    return float(memory.get("gpu_allocated_bytes", memory["increment_bytes"]))


def _release() -> None:
    """Gives freed memory back to the system: what the allocator keeps for later would hide what is then allocated."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's alone
    if trim is not None:
        trim(0)
