"""The contract of tasks. A task is: predict y_t at the *scored* steps.

A concrete task is a frozen dataclass whose fields are its parameters and whose docstring shows a worked example, argues
the floor and the ceiling, and names source and licence. Tasks never import models.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from benchmarks.decoding import Decoding, constant_answer
from benchmarks.evaluation import Problem
from benchmarks.metrics import Metric, Parts, accuracy, cross_entropy
from benchmarks.parameters import InvalidParameter
from models.sequences import InputSpec, SequenceBatch, TargetSpec


class Splits(NamedTuple):
    """What `Task.splits` returns. Test is the same for every seed; train and validation may depend on it."""

    train: SequenceBatch
    validation: SequenceBatch
    test: SequenceBatch


@dataclass(frozen=True)
class Reference:
    """The best known value of the primary metric, or a strong simple method's, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Lengths:
    """For a task with a length knob: the longest trained length and the lengths tested by `Task.test_at`."""

    trained: int
    tested: tuple[int, ...]


class Task(ABC):
    """One task under the one contract; see the module."""

    name: ClassVar[str]
    """As in suites and tables."""
    group: ClassVar[str]
    """diagnostic, speech, sensors, vision, forecasting …"""
    summary: ClassVar[str]
    """One line for people: what goes in, what must come out."""
    licence: ClassVar[str]
    source: ClassVar[str]
    picture: ClassVar[
        Literal[
            "answers",
            "confusion",
            "continuation",
            "episode",
            "forecast",
            "frames",
            "images",
            "paths",
            "piano_roll",
            "scatter",
            "symbols",
            "tags",
            "transcript",
            "waveform",
        ]
    ]
    """How a person looks at one trial; `benchmarks.figures.trial_figures` draws each kind."""
    datasets: ClassVar[tuple[str, ...]] = ()
    """What `benchmarks.datasets` must have before the task can be used; a task without needs no download."""
    causal: ClassVar[bool]
    """Predictions are due as the sequence arrives: the one at t may use inputs at ≤ t only."""

    @property
    @abstractmethod
    def input(self) -> InputSpec: ...

    @property
    @abstractmethod
    def target(self) -> TargetSpec: ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The first is primary: it selects on validation and stands in the matrix. By default a classifier's."""
        return (accuracy, cross_entropy)

    @abstractmethod
    def splits(self, seed: int) -> Splits:
        """Train and validation drawn by ``seed_for("data", name, seed)``, test by ``seed_for("test", name)``."""

    def check_installed(self) -> None:
        """Raises InvalidParameter, saying what to do, where an optional package is missing or a user's file cannot be used."""
        return  # most need none

    def ceiling(self) -> float | None:
        """The primary metric of the Bayes-optimal predictor on the test split, or None where it is unknown."""
        return None

    @property
    def reference(self) -> Reference | None:
        """A value to beat where no ceiling is known."""
        return None

    @property
    def solved(self) -> float | None:
        """The value of the primary metric from which a run has found the rule; None where there is no rule to find."""
        return None

    @property
    def overlap(self) -> int:
        """How many neighbouring test sequences have targets in common: 1 where they are independent."""
        return 1

    def optimal_outputs(self, batch: SequenceBatch) -> Tensor | None:
        """The Bayes-optimal outputs (B, T, K) for a batch, where the source of the data is known exactly."""
        return None

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Names of the target classes, or None: their numbers."""
        return None

    @property
    def input_symbols(self) -> tuple[str, ...] | None:
        """Names of the input tokens, or None: their numbers."""
        return self.symbols if self.target.future else None

    @property
    def origin(self) -> float:
        """What a real target of zero stands for, in the unit of the error: figures show values, not differences from it."""
        return 0.0

    @property
    def window(self) -> int | None:
        """For long streams: the steps read at a time, the state being carried on; None: sequences are read whole."""
        return None

    @property
    def decoding(self) -> Decoding | None:
        """When an answer that is fed back symbol by symbol ends; None for a task that is never decoded."""
        return None

    @property
    def problem(self) -> Problem:
        """What is asked, for training and evaluation, which know nothing else of the task."""
        return Problem(self.target, self.metrics, self.window, self.decoding)

    @property
    def lengths(self) -> Lengths | None:
        """The length knob, where the task has one."""
        return None

    def test_at(self, length: int) -> SequenceBatch:
        """Test sequences of ``length``, the same for every seed; only for tasks whose `lengths` is not None."""
        raise ValueError(f"{self.name} has no length knob")

    def floor(self, seed: int) -> float:
        """The primary metric, on test, of the best constant prediction that the training split of ``seed`` gives.

        The constant is the target spec's own: class frequencies, base rates, the mean, or zero where targets are
        differences from the last value. The model ``floor`` scores exactly this; a test holds it.
        """
        splits, metric, decoding = self.splits(seed), self.metrics[0], self.decoding
        constant = self.target.best_constant(splits.train)  # (K,)
        constant = constant.to(torch.get_default_dtype())  # the precision in which models answer
        if decoding is not None and metric.decoded:
            return metric.value(metric.parts(constant_answer(constant, len(splits.test), decoding), splits.test))
        over, under = torch.zeros(2, len(splits.test), dtype=torch.float64)
        for chunk in splits.test.windows(self.window):  # whole, a long text with many classes would fill the memory
            parts = metric.parts(constant.expand(*chunk.inputs.shape[:2], -1), chunk)
            over, under = over + parts.over, under + parts.under
        return metric.value(Parts(over, under))


def require_integers(task: Task, least: Mapping[str, int]) -> None:
    """Raises InvalidParameter unless each named field of ``task`` is an integer of at least the given value."""
    for name, minimum in least.items():
        value = getattr(task, name)
        if type(value) is not int or value < minimum:  # a bool is no count, though it is an int to isinstance
            raise InvalidParameter(f"{task.name}: {name} must be an integer of at least {minimum}, got {value!r}")


def data_digest(splits: Splits) -> str:
    """The sha256, in hexadecimal, over name, type, shape and bytes of every tensor of the three splits."""
    digest = hashlib.sha256()
    for split, batch in zip(splits._fields, splits, strict=True):
        for field in fields(batch):
            tensor: Tensor | None = getattr(batch, field.name)
            if tensor is not None:
                digest.update(f"{split}.{field.name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                # A dimension of stride 0 shows one value at every place: hashed once, as it is stored.
                stored = tensor[tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())]
                digest.update(stored.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
