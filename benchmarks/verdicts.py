"""What the trials of one task say about two models: the difference, how sure it is, and who is best, worse or undecided.

A difference has two independent sources of uncertainty, and its interval adds their halves in quadrature: Student's t over
seeds, paired by seed (1908, doi:10.2307/2331554), and a normal part for the draw of test sequences, paired by sequence
(`benchmarks.terms`). How often such intervals cover the truth is simulated in ``tests/test_verdicts.py``.

Best, worse and undecided are three states. The leader, whose mean is the best, is best; going down the means, so is each next
model as long as it is practically equal to the leader: their true difference lies within the metric's margin with a probability
of at least 0.95. A model is worse if its difference to the leader is significant and larger than the margin. All others are
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from benchmarks.metrics import Metric
from benchmarks.terms import Terms, standard_error

SURE = 0.95
"""The probability at which models count as practically equal, and the confidence of every interval."""
_NORMAL = NormalDist().inv_cdf((1 + SURE) / 2)
"""The normal quantile of that confidence."""
_NODES = 401
"""Quantiles of a normal distribution over which a probability is averaged: it is then right to a quarter of a percent."""


class State(StrEnum):
    """Of a model on a task. NONE: not compared, because a seed failed, is missing or stale."""

    BEST = "best"
    WORSE = "worse"
    UNDECIDED = "undecided"
    NONE = ""


@dataclass(frozen=True)
class Scores:
    """A model on a task. values: seed → the primary metric on test. terms: seed → what it is made of; seeds whose run folder
    has none are absent."""

    values: Mapping[int, float]
    terms: Mapping[int, Terms] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return math.fsum(self.values.values()) / len(self.values)


class Estimate(NamedTuple):
    """A mean over seeds, or a mean of differences. seeds, sequences: its standard errors over seeds, with n - 1 degrees of
    freedom, and over test sequences; NaN where unknown: with one seed, and without per-sequence terms. degrees: of freedom of
    the first."""

    mean: float
    seeds: float
    sequences: float
    n: int
    degrees: float

    @property
    def seed_half(self) -> float:
        """Half of the 95 % t interval over seeds; NaN for one seed."""
        return _t_quantile(self.degrees) * self.seeds if self.n > 1 else math.nan

    @property
    def sequence_half(self) -> float:
        """Half of the 95 % normal interval over test sequences; 0 where it is unknown."""
        return 0.0 if math.isnan(self.sequences) else _NORMAL * self.sequences

    @property
    def half(self) -> float:
        """Half of the 95 % interval; NaN for one seed, whose spread over seeds is unknown."""
        return math.hypot(self.seed_half, self.sequence_half)

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def is_significant(self) -> bool:
        """Whether the 95 % interval excludes zero; never for one seed, nor where no spread is known at all."""
        if self.seeds == 0 and math.isnan(self.sequences):
            return False
        return self.low > 0 or self.high < 0

    def probability_within(self, margin: float) -> float:
        """That the true value lies within ±margin: a scaled t variable for the seeds plus a normal one for the sequences, with
        flat priors. NaN for one seed, and where no spread is known of two results that differ."""
        if self.n < 2:
            return math.nan
        if self.seeds == 0 and math.isnan(self.sequences):
            return 1.0 if self.mean == 0 else math.nan
        from scipy import special  # here, because it takes 0.3 s to import

        sequences = 0.0 if math.isnan(self.sequences) else self.sequences
        nodes = special.ndtri((np.arange(_NODES) + 0.5) / _NODES) * sequences  # (nodes,)
        above, below = margin - self.mean - nodes, -margin - self.mean - nodes  # (nodes,)
        if self.seeds > 0:
            within = special.stdtr(self.degrees, above / self.seeds) - special.stdtr(self.degrees, below / self.seeds)
        else:
            within = (above >= 0) & (below <= 0)
        return float(np.mean(within))


NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 0)
"""What no seed says."""


def _t_quantile(degrees: float) -> float:
    from scipy import special

    return float(special.stdtrit(degrees, (1 + SURE) / 2))


def estimate(scores: Scores) -> Estimate:
    """The mean of a model on a task. Raises ValueError without any seed."""
    return _estimate([scores.values[seed] for seed in scores.values], standard_error(list(scores.terms.values())))


def difference(a: Scores, b: Scores) -> Estimate:
    """a - b over the seeds that both have; n is 0 and all else NaN where there is none."""
    seeds = sorted(a.values.keys() & b.values.keys())
    if not seeds:
        return NOTHING
    paired = [seed for seed in seeds if seed in a.terms and seed in b.terms]
    error = (
        standard_error([a.terms[seed] for seed in paired], [b.terms[seed] for seed in paired]) if paired else math.nan
    )
    return _estimate([a.values[seed] - b.values[seed] for seed in seeds], error)


def _estimate(values: Sequence[float], sequences: float) -> Estimate:
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError("a value is not finite; count it as a failure instead of averaging it")
    if sample.size > 1 and sample.min() == sample.max():  # rounding in the mean must not look like spread
        return Estimate(float(sample[0]), 0.0, sequences, sample.size, sample.size - 1)
    seeds = float(sample.std(ddof=1) / math.sqrt(sample.size)) if sample.size > 1 else math.nan
    return Estimate(float(sample.mean()), seeds, sequences, sample.size, sample.size - 1)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, one per task for example; degrees of freedom as in Satterthwaite 1946,
    doi:10.2307/3002019."""
    k = len(estimates)
    variances = [estimate.seeds**2 for estimate in estimates]
    weights = math.fsum(v**2 / e.degrees for v, e in zip(variances, estimates, strict=True) if v > 0)
    total, n = math.fsum(variances), min(estimate.n for estimate in estimates)
    sequences = math.sqrt(math.fsum(e.sequences**2 for e in estimates if not math.isnan(e.sequences)))
    return Estimate(
        mean=math.fsum(estimate.mean for estimate in estimates) / k,
        seeds=math.sqrt(total) / k,
        sequences=sequences / k,
        n=n,
        degrees=total**2 / weights if weights else n - 1,
    )


def simulated_coverage(
    differences: Sequence[Estimate], n_seeds: int, generator: np.random.Generator, n_studies: int = 10_000
) -> float:
    """How often the 95 % interval of a difference covers the truth over so many seeds, where the deviations over seeds and test
    sequences are those of ``differences``, drawn at random. Raises ValueError without any."""
    known = [(each.seeds * math.sqrt(each.n), each.sequences) for each in differences if each.n > 1]
    if not known:
        raise ValueError("no difference between models with two seeds or more")
    drawn = np.nan_to_num(np.array(known)[generator.integers(0, len(known), n_studies)])  # (R, 2)
    seeds, sequences = drawn[:, 0] / math.sqrt(n_seeds), drawn[:, 1]
    error = generator.normal(size=n_studies) * np.hypot(seeds, sequences)
    found = seeds * np.sqrt(generator.chisquare(n_seeds - 1, n_studies) / (n_seeds - 1))  # as n_seeds would show it
    half = np.hypot(_t_quantile(n_seeds - 1) * found, _NORMAL * sequences)
    return float(np.mean(np.abs(error) <= half))


def states(models: Mapping[str, Scores], direction: str, margin: float) -> dict[str, tuple[State, Estimate]]:
    """Model → its state and its difference to the leader, best mean first. models: those with every seed finished."""
    sign = 1.0 if direction == "higher" else -1.0
    order = sorted(models, key=lambda model: -sign * models[model].mean)
    found: dict[str, tuple[State, Estimate]] = {}
    still_equal = True
    for model in order:
        to_leader = difference(models[model], models[order[0]])
        if model == order[0]:
            found[model] = State.BEST, to_leader._replace(seeds=0.0, sequences=0.0)
            continue
        still_equal = still_equal and to_leader.probability_within(margin) >= SURE
        worse = to_leader.is_significant and -sign * to_leader.mean > margin
        found[model] = State.BEST if still_equal else State.WORSE if worse else State.UNDECIDED, to_leader
    return found


def still_improving(curve: Sequence[Mapping[str, float]], metric: Metric) -> bool | None:
    """Whether the last third of a fit's steps improved validation by more than the metric's margin.

    curve: the rows of metrics.jsonl, with ``step`` and ``validation``. None where the first two thirds hold no validation, as
    for a model that fits itself.
    """
    if not curve:
        return None
    bound = 2 / 3 * curve[-1]["step"]
    before = [row["validation"] for row in curve if row["step"] <= bound]
    if not before:
        return None
    best = max if metric.direction == "higher" else min
    return metric.improvement(best(row["validation"] for row in curve), best(before)) > metric.margin
