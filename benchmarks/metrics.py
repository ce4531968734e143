"""Metrics over the scored steps: name, unit, direction, definition, and the margin within which two values are equal.

Every metric is a mean of *per-sequence or per-step terms* over the scored steps of a split; `Metric.terms` gives the
terms, so that two predictors can be compared pairwise on the same test set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """One number that says how well a predictor did on a split.

    terms(outputs, targets): (N, K), (N,) or (N, n) at the scored steps → (N,) float64 terms, whose mean is the metric.
    A NaN among the outputs makes its term NaN. unit: as printed on axes. direction: which way is better. margin: a
    difference that is practically none.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower"]
    definition: str
    margin: float
    terms: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """The mean over all scored steps, in float64."""
        return float(self.terms(outputs, targets).mean())

    def better(self, a: float, b: float) -> bool:
        """Whether a is strictly better than b."""
        return a > b if self.direction == "higher" else a < b


def _correct(outputs: Tensor, targets: Tensor) -> Tensor:
    correct = (outputs.argmax(-1) == targets).double()
    return correct.masked_fill(outputs.isnan().any(-1), torch.nan)  # argmax would call NaN the largest


def _nats(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.double(), targets, reduction="none")


accuracy = Metric(
    "accuracy", "fraction correct", "higher", "share of scored steps whose largest logit is the class", 0.01, _correct
)
cross_entropy = Metric(
    "cross_entropy", "nats per step", "lower", "mean negative log-probability of the class", 0.005, _nats
)


def squared_error(unit: str = "squared units", scale: float = 1.0, margin: float = 0.001) -> Metric:
    """Mean squared error over scored steps and outputs, after multiplying both sides by ``scale``."""

    def terms(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs.double() - targets.double()) * scale).square().mean(-1)

    return Metric("mse", unit, "lower", "mean squared error", margin, terms)


def absolute_error(unit: str, scale: float = 1.0, margin: float = 0.01) -> Metric:
    """Mean absolute error over scored steps and outputs, in original units: both sides times ``scale``."""

    def terms(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs.double() - targets.double()) * scale).abs().mean(-1)

    return Metric("mae", unit, "lower", "mean absolute error over all steps of the horizon", margin, terms)
