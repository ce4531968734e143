"""The life of one trial, as notebooks/trial.ipynb walks through it: prepare, fit, evaluate, finish.

experiment = prepare(task="adding", model="lstm", …)
experiment.fit()         # the curve grows in metrics.jsonl
experiment.evaluate()    # the test split, once, on the checkpoint that validation chose
experiment.finish()      # result.json, last

A tuning trial, as notebooks/tuning.ipynb walks through it, leaves `evaluate` out and lets go of the test split.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from benchmarks import evaluation, fitting, policy_gradient, provenance, terms
from benchmarks.fitting import FitConfig, Fitted, Row
from benchmarks.metrics import Parts
from benchmarks.parameters import configure
from benchmarks.profiling import PeakMemory, occupy, peak_told
from benchmarks.records import (
    BESIDE,
    CURVE,
    LARGEST_NUMBER,
    PENDING,
    RESULT,
    TERMS,
    Gap,
    Result,
    Status,
    file_digest,
    write_atomically,
    write_result,
)
from benchmarks.seeding import seed_for, torch_generator
from benchmarks.statistics import t_interval
from benchmarks.tasks.control import ControlTask
from benchmarks.tasks.registry import task as build_task
from benchmarks.tasks.task import Splits, Task, data_digest
from benchmarks.trial import Mode, Overrides, Trial, specify
from benchmarks.verdicts import still_improving
from models import registry
from models.contract import Fit, ModelEntry, Predictor, SelfFitting
from models.precision import in_precision
from models.sequences import SequenceBatch
from models.sizing import size_to_budget

BY_HAND = provenance.ROOT / "results" / "by-hand"


class InvalidMetric(RuntimeError):
    """A metric that is not finite."""


def prepare(
    task: str,
    model: str,
    seed: int,
    parameter_budget: int | None,
    device: str = "auto",
    task_parameters: Mapping[str, Any] | None = None,
    model_config: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    run_folder: str = "",
    code_digest: str = "",
    mode: Mode = "quality",
    tuned: Mapping[str, int] | None = None,
) -> Experiment:
    """Data drawn, model built and sized. Without a run folder, as when opened by hand, one is made under results/by-hand.

    Raises UnknownName or InvalidParameter for a trial that cannot be, ValueError where the model cannot do the task.
    """
    # Trials share the machine: one thread each, set here so that a trial by hand computes the same bits.
    torch.set_num_threads(1)
    overrides = Overrides(task_parameters or {}, model_config or {}, fit or {})
    trial = specify(task, model, seed, parameter_budget, device, overrides, mode, tuned)
    occupy(torch.device(trial.device))
    registry.entry(model).do_imports()
    folder = Path(run_folder) if run_folder else BY_HAND / trial.id
    folder.mkdir(parents=True, exist_ok=True)
    if not run_folder:
        write_atomically(folder / "spec.json", json.dumps(asdict(trial), indent=1))
        write_atomically(folder / "env.json", json.dumps(provenance.environment(), indent=1))
    return Experiment(
        trial, folder, code_digest or provenance.code_digest(task, model, mode), supervised=bool(run_folder)
    )


class Experiment:
    """One trial under way. What `fit` and `evaluate` find is kept for the figures, and for `finish`."""

    def __init__(self, trial: Trial, folder: Path, code_digest: str, supervised: bool) -> None:
        self.trial = trial
        self.folder = folder
        self.supervised = supervised
        self.code_digest = code_digest
        self.device = torch.device(trial.device)
        self.memory = PeakMemory(self.device)
        self.seconds: dict[str, float] = {}
        self.curve: list[dict[str, Any]] = []
        self.ended_by: str | None = None
        self.environment_steps: int | None = None
        self.fit_note: str | None = None
        self.entry: ModelEntry = registry.entry(trial.model)
        self.task: Task = build_task(trial.task, trial.task_parameters)
        reason = self.entry.refuses(self.task.input, self.task.target, self.task.causal)
        if reason is not None:
            raise ValueError(f"{trial.model} cannot do {trial.task}: {reason}")
        started = time.perf_counter()
        self.splits: Splits = self.task.splits(trial.seed)
        if trial.mode == "tuning":
            # Nothing that follows can see the test split: what stands in its place is validation.
            self.splits = self.splits._replace(test=self.splits.validation)
        self.seconds["data"] = time.perf_counter() - started
        started = time.perf_counter()
        self.config, self.sizing_note = self._sized()
        self.predictor = self._built()
        self.seconds["build"] = time.perf_counter() - started
        for name in BESIDE:
            (folder / name).unlink(missing_ok=True)

    def __str__(self) -> str:
        counts, sizes = self.predictor.parameter_counts(), [len(split) for split in self.splits]
        seen = "episodes of its own for training" if isinstance(self.task, ControlTask) else f"{sizes[0]:,} training"
        tested = "no" if self.trial.mode == "tuning" else f"{sizes[2]:,}"
        return (
            f"{self.trial.title}, on {self.device.type}\n"
            f"{self.entry.summary}: {counts.backbone:,} backbone parameters, {counts.encoder:,} encoder, "
            f"{counts.readout:,} read-out{f' ({self.sizing_note})' if self.sizing_note else ''}\n"
            f"{seen}, {sizes[1]:,} validation and {tested} test sequences\n"
            f"kept in {self.folder}"
        )

    def _sized(self) -> tuple[Any, str | None]:
        config = configure(f"model {self.trial.model}", self.entry.config, self.trial.model_config)
        task = self.task
        return size_to_budget(self.entry, task.input, task.target, task.causal, config, self.trial.parameter_budget)

    def _built(self) -> Predictor:
        task, trial = self.task, self.trial
        seed = seed_for("init", trial.task, trial.model, trial.seed)
        predictor = registry.build(self.entry, task.input, task.target, task.causal, self.config, seed)
        by_gradient = self.entry.fit is Fit.GRADIENT  # others have a precision of their own
        return in_precision(predictor.to(self.device), trial.fit["precision"] if by_gradient else "float32")

    @peak_told()
    def fit(self) -> None:
        """By the one training loop, or by the model's own procedure. Raises Diverged, FitTimeout, or InvalidMetric where a
        metric is not finite on validation."""
        if self.entry.fit is Fit.GRADIENT:
            config = configure("fit", FitConfig(), self.trial.fit)
            order = torch_generator("batch", self.trial.task, self.trial.seed)
            # Dropout draws from torch's global generator: seeded here, so that a trial by hand draws the same.
            torch.manual_seed(seed_for("dropout", self.trial.task, self.trial.model, self.trial.seed))
            fitted = self._fit_by_gradient(config, order)
            self.steps, self.best_step, self.ended_by = fitted.steps, fitted.best_step, fitted.ended_by
            self.environment_steps, self.fit_note = fitted.environment_steps, fitted.note
            self.seconds |= {"train": fitted.train_seconds, "validate": fitted.validate_seconds}
        else:
            self._fit_own(cast(SelfFitting, self.predictor))
        self.validation = self._evaluate(self._answered("validation"), "the validation split").values
        if self.trial.mode == "tuning":
            self.result = self._validated()

    def _fit_by_gradient(self, config: FitConfig, generator: torch.Generator) -> Fitted:
        task, trial = self.task, self.trial
        if isinstance(task, ControlTask):
            environment, beginnings = task.environment(config.batch_size), task.beginnings("validation", trial.seed)
            return policy_gradient.fit(
                self.predictor, task.problem, environment, beginnings, config, generator, self._log
            )
        train, validation, _ = self.splits
        return fitting.fit(self.predictor, task.problem, train, validation, config, generator, self._log)

    def _fit_own(self, predictor: SelfFitting) -> None:
        train, validation, _ = self.splits
        started = time.perf_counter()
        # Counting and EM work on the CPU, wherever the predictor answers afterwards.
        predictor.cpu()
        generator = torch_generator("fit", self.trial.task, self.trial.model, self.trial.seed)
        # Such a model ends when it is done; with a budget by the clock it is stopped at the cap, not at the budget.
        is_timed = self.trial.fit.get("seconds") is not None
        with fitting.time_limit(self.trial.fit["max_seconds"] if is_timed else None):
            predictor.fit(train, validation, generator)
        self.fit_note = predictor.fit_note
        predictor.to(self.device)
        self.seconds["train"] = time.perf_counter() - started
        predictor.eval()
        started = time.perf_counter()
        result = self._evaluate(validation, "the validation split")
        self.seconds["validate"] = time.perf_counter() - started
        value = result.values[self.task.metrics[0].name]
        self.steps = self.best_step = 0
        self._log(Row(0, self.seconds["train"], None, None, result.loss, value, True))

    @peak_told()
    def evaluate(self) -> None:
        """The test split, for the first and only time. Raises InvalidMetric where a metric is not finite."""
        if self.trial.mode == "tuning":
            raise RuntimeError("a tuning trial ends with validation; what it chose is evaluated by another trial")
        task, primary = self.task, self.task.metrics[0]
        started = time.perf_counter()
        evaluated = self._evaluate(self.tested, "the test split")
        self.seconds["test"] = time.perf_counter() - started
        terms.write(self.folder / TERMS, evaluated.parts)
        values = evaluated.values
        floor, ceiling, reference = task.floor(self.trial.seed), task.ceiling(), task.reference
        goal = ceiling if ceiling is not None else reference.value if reference is not None else None
        tested = task.lengths.tested if task.lengths else ()
        self.result = replace(
            self._validated(),
            test=values,
            floor=floor,
            ceiling=ceiling,
            reference=reference.value if reference else None,
            score=None if goal is None or goal == floor else (values[primary.name] - floor) / (goal - floor),
            # Sums over a long text may be taken in another order.
            equals_floor=math.isclose(values[primary.name], floor, rel_tol=1e-9),
            length_sweep={
                str(n): self._evaluate(task.test_at(n), f"the test split of length {n}").values[primary.name]
                for n in tested
            },
            optimum_gap=self._gap(evaluated.parts[primary.name]),
        )

    def _validated(self) -> Result:
        """What is known once the model is fitted."""
        return Result(
            trial_id=self.trial.id,
            spec=asdict(self.trial),
            status=Status.OK,
            code_digest=self.code_digest,
            primary=self.task.metrics[0].name,
            validation=self.validation,
            selected_on="validation",
        )

    def _gap(self, ours: Parts) -> Gap | None:
        """Excess over the Bayes optimum, paired over the test sequences."""
        test, primary = self.splits.test, self.task.metrics[0]
        optimal = self.task.optimal_outputs(test)
        if optimal is None or len(test) < 2:
            return None
        best, mine = primary.parts(optimal, test).per_sequence(), ours.per_sequence()  # (B,), (B,)
        mean, low, high = t_interval((mine - best if primary.direction == "lower" else best - mine).numpy())
        return Gap(mean, low, high, len(test))

    def finish(self) -> Result:
        """Completes the result with what it cost and what made it, and writes it, last."""
        streams = (
            self.predictor.causal and self.trial.mode != "tuning"
        )  # the longest test sequence is not tuning's to know
        self.result = replace(
            self.result,
            model_config=json.loads(json.dumps(asdict(self.config))),
            parameters=self.predictor.parameter_counts()._asdict(),
            sizing_note=self.sizing_note,
            weight_bytes=self.predictor.weight_bytes(),
            state_bytes=self.predictor.state_bytes(self.tested.inputs.shape[1]) if streams else None,
            steps=self.steps,
            best_step=self.best_step,
            ended_by=self.ended_by,
            still_improving=self._still_improving(),
            environment_steps=self.environment_steps,
            fit_note=self.fit_note,
            seconds=self.seconds,
            memory=self.memory.read(),
            data_digest=data_digest(self.splits),
            curve_digest=file_digest(self.folder / CURVE),
            terms_digest=file_digest(self.folder / TERMS),
        )
        # Run by the harness, the notebook itself is still to be saved: the worker makes the result valid after that.
        write_result(self.folder, self.result, PENDING if self.supervised else RESULT)
        return self.result

    def _still_improving(self) -> bool | None:
        if self.entry.fit is Fit.OWN:
            return cast(SelfFitting, self.predictor).is_capped
        return still_improving(self.curve, self.task.metrics[0])

    @cached_property
    def tested(self) -> SequenceBatch:
        """The sequences that the test metrics are about: the test split, or the episodes played from its beginnings."""
        return self._answered("test")

    @cached_property
    def outputs(self) -> Tensor:
        """Outputs (B, T, K) for `tested`, on the CPU, for figures."""
        return evaluation.predict(self.predictor, self.task.problem, self.tested, self.device)

    def _answered(self, split: Literal["validation", "test"]) -> SequenceBatch:
        """The sequences to judge: those of the split, or the episodes that the predictor plays where it is to act."""
        if isinstance(self.task, ControlTask):
            return policy_gradient.answer(self.predictor, self.task.beginnings(split, self.trial.seed))
        return getattr(self.splits, split)

    def _evaluate(self, split: SequenceBatch, named: str) -> evaluation.Evaluation:
        evaluated = evaluation.evaluate(self.predictor, self.task.problem, split, self.device)
        for name, value in evaluated.values.items():
            if not abs(value) < LARGEST_NUMBER:  # nan is not, either
                raise InvalidMetric(f"{name} is {value} on {named}")
        return evaluated

    def _log(self, row: Row) -> None:
        self.curve.append(row._asdict())
        with (self.folder / CURVE).open("a") as file:
            file.write(json.dumps(row._asdict()) + "\n")
