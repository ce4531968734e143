"""Metrics over the scored steps: name, unit, direction, definition, and the margin within which two values are equal.

Nearly every metric is a ratio of two sums over the sequences of a split, of which `Metric.parts` gives the terms: an error over
steps, edits over symbols, twice the hits over what was found and what was there. So two predictors can be compared
sequence by sequence, and a split can be evaluated in batches of any size. A metric of ranks is no such ratio: its terms are the
score and the class of each sequence, and its `Metric.statistic` turns them into the metric.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.sequences import SequenceBatch

SHARE = (0.0, 1.0)
"""The bounds of a share."""
POSITIVE = (0.0, math.inf)
"""The bounds of an error or a cross-entropy of classes."""


Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(R, N) how often each sequence counts, and its two terms, (N,) each → (R,) values of a metric that is no ratio of sums."""


class Parts(NamedTuple):
    """Above and below the line for each sequence, (B,) float64 on the CPU; of a metric of ranks, its score and its class."""

    over: Tensor
    under: Tensor

    def per_sequence(self) -> Tensor:
        """(B,): each sequence's own ratio, 0 where it has nothing to score."""
        return self.over / self.under.clamp(min=1e-300)


@dataclass(frozen=True)
class Metric(ABC):
    """One number that says how well a predictor did on a split: ``link(sum of over / sum of under)``.

    unit: as printed on axes. direction: which way is better. margin: a difference that is practically none. link: turns
    the ratio into what is reported, as the exponential turns nats into a perplexity; it must be increasing. bounds: the least
    and the greatest value that the metric can take. statistic: instead of the ratio of sums, for a metric that is none.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower"]
    definition: str
    margin: float
    link: Callable[[float], float] = float
    bounds: tuple[float, float] = (-math.inf, math.inf)
    statistic: Statistic | None = None

    decoded: ClassVar[bool] = False
    """Whether `parts` is given what the predictor says when it goes on from its own answers, (B, U) int64 padded with -1,
    instead of its outputs for the true inputs, (B, T, K)."""

    @abstractmethod
    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        """The terms of both sums; a NaN among a sequence's scored outputs makes its term NaN."""

    def value(self, parts: Parts) -> float:
        """The metric over the sequences whose parts these are."""
        if self.statistic is None:
            value = float(parts.over.sum() / parts.under.sum())
        else:
            over, under = parts.over.numpy(), parts.under.numpy()
            value = float(self.statistic(np.ones((1, len(over))), over, under)[0])
        return self.link(value) if math.isfinite(value) else value

    def better(self, a: float, b: float) -> bool:
        """Whether a is strictly better than b."""
        return a > b if self.direction == "higher" else a < b

    def improvement(self, new: float, old: float) -> float:
        """How much better ``new`` is than ``old``, in the metric's unit; negative where it is worse."""
        return new - old if self.direction == "higher" else old - new


@dataclass(frozen=True, kw_only=True)
class StepMetric(Metric):
    """A mean over the scored steps. terms(outputs, targets): (N, K), (N,) or (N, n) at those steps → (N,) float64."""

    terms: Callable[[Tensor, Tensor], Tensor]

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        terms = torch.zeros(batch.scored.shape, dtype=torch.float64, device=outputs.device)  # (B, T)
        terms[batch.scored] = self.terms(outputs[batch.scored], batch.targets[batch.scored])
        return Parts(terms.sum(1).cpu(), batch.scored.sum(1).double().cpu())

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """The metric of (N, K) outputs for (N,) or (N, n) targets."""
        ratio = float(self.terms(outputs, targets).mean())
        return self.link(ratio) if math.isfinite(ratio) else ratio


def _correct(outputs: Tensor, targets: Tensor) -> Tensor:
    correct = (outputs.argmax(-1) == targets).double()
    return correct.masked_fill(outputs.isnan().any(-1), torch.nan)  # argmax would call NaN the largest


def _nats(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.double(), targets, reduction="none")


accuracy = StepMetric(
    "accuracy",
    "fraction correct",
    "higher",
    "share of scored steps whose largest logit is the class",
    0.01,
    bounds=SHARE,
    terms=_correct,
)
cross_entropy = StepMetric(
    "cross_entropy",
    "nats per step",
    "lower",
    "mean negative log-probability of the class",
    0.005,
    bounds=POSITIVE,
    terms=_nats,
)


def squared_error(unit: str = "squared units", scale: float = 1.0, margin: float = 0.001) -> StepMetric:
    """Mean squared error over scored steps and outputs, after multiplying both sides by ``scale``."""

    def terms(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs.double() - targets.double()) * scale).square().mean(-1)

    return StepMetric("mse", unit, "lower", "mean squared error", margin, bounds=POSITIVE, terms=terms)


def absolute_error(unit: str, scale: float = 1.0, margin: float = 0.01) -> StepMetric:
    """Mean absolute error over scored steps and outputs, in original units: both sides times ``scale``."""

    def terms(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs.double() - targets.double()) * scale).abs().mean(-1)

    definition = "mean absolute error over all steps of the horizon"
    return StepMetric("mae", unit, "lower", definition, margin, bounds=POSITIVE, terms=terms)
