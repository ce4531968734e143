"""Models compared over several tasks: aggregates, ranks, and the probability that one is better.

Everything random takes a generator. Scores are (tasks, seeds) arrays, 0 at a task's floor and 1 at its ceiling or
reference; what a model cannot do is left out before, never filled in.

Aggregates: Agarwal et al. 2021, arXiv 2108.13264 (interquartile mean, stratified bootstrap, performance profiles,
probability of improvement). Ranks: Demšar 2006, JMLR 7:1-30, with Holm 1979 in place of Nemenyi as Benavoli, Corani and
Mangili 2016, JMLR 17(5) advise. The Bayesian signed-rank test: Benavoli et al. 2014, ICML; Benavoli, Corani, Demšar and
Zaffalon 2017, JMLR 18(77). Tuning curves: Tang et al. 2020, arXiv 2004.13705.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.statistics import Interval

Statistic = Callable[[np.ndarray], np.ndarray]
"""(R, tasks, seeds) → (R,): one number for each resample."""


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """(R, tasks, seeds) → (R,): the mean of the middle half of all runs; a quarter is cut, rounded down, at each end."""
    runs = np.sort(scores.reshape(len(scores), -1), axis=1)
    cut = runs.shape[1] // 4
    return runs[:, cut : runs.shape[1] - cut].mean(1)


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic,
    generator: np.random.Generator,
    resample_tasks: bool = False,
    n_resamples: int = 5_000,
    confidence: float = 0.95,
) -> Interval:
    """The statistic of (tasks, seeds) scores with a percentile interval.

    Seeds are resampled within each task: how much another set of seeds could change it. With ``resample_tasks`` tasks are
    resampled too: whether it would hold on other tasks of the same kind.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError("scores must be a full (tasks, seeds) table of finite numbers")
    n_tasks, n_seeds = values.shape
    tasks = np.arange(n_tasks)[None, :, None]
    if resample_tasks:
        tasks = generator.integers(0, n_tasks, (n_resamples, n_tasks, 1))
    seeds = generator.integers(0, n_seeds, (n_resamples, n_tasks, n_seeds))
    drawn = statistic(values[tasks, seeds])  # (R, tasks, seeds) → (R,)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(statistic(values[None])[0]), float(low), float(high))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """(tasks, seeds) scores, (N,) thresholds → (N,): the share of runs that score more than each."""
    runs = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    return 1 - np.searchsorted(runs, np.asarray(thresholds), side="right") / len(runs)


def probability_of_improvement(a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> float:
    """The mean over tasks of P(a run of A scores more than a run of B), ties counting half (Mann and Whitney 1947).

    a, b: for each task the scores of each model's seeds.
    """
    shares = []
    for ours, theirs in zip(a, b, strict=True):
        difference = np.asarray(ours, dtype=np.float64)[:, None] - np.asarray(theirs, dtype=np.float64)[None, :]
        shares.append(float(((difference > 0) + 0.5 * (difference == 0)).mean()))
    return math.fsum(shares) / len(shares)


EXACT = 16
"""Tasks up to which the signed-rank test looks at every choice of signs."""


class Ranking(NamedTuple):
    """Models compared on the tasks that all of them can do.

    ranks: model → mean rank, 1 the best, ties shared, best first. friedman: p of "all are equal". p: pair → Holm-adjusted
    p of the Wilcoxon signed-rank test over tasks. groups: the largest sets of neighbours in rank no two of which are told
    apart. n_tasks: how many. underpowered: why no pair could be told apart whatever the numbers, or None.
    """

    ranks: Mapping[str, float]
    friedman: float
    p: Mapping[tuple[str, str], float]
    groups: tuple[tuple[str, ...], ...]
    n_tasks: int
    underpowered: str | None


def separable_models(n_tasks: int, alpha: float = 0.05) -> int:
    """The most models of which every pair could still be told apart over so many tasks.

    The smallest two-sided p of a signed-rank test is 2^(1 - n), and Holm's first step multiplies it by the number of pairs.
    """
    n_pairs = math.floor(alpha / 2.0 ** (1 - n_tasks) + 1e-9)
    return max(1, math.floor((1 + math.sqrt(1 + 8 * n_pairs)) / 2))


def ranking(scores: Mapping[str, ArrayLike], alpha: float = 0.05) -> Ranking:
    """model → (tasks,) mean scores, higher the better. Raises ValueError for fewer than two models or two tasks."""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    table = np.array([np.asarray(values, dtype=np.float64) for values in scores.values()])  # (models, tasks)
    n_models, n_tasks = table.shape
    if n_models < 2 or n_tasks < 2:
        raise ValueError("a ranking needs at least two models and two tasks")
    mean_ranks = stats.rankdata(-table, axis=0).mean(1)
    order = np.argsort(mean_ranks, kind="stable")
    names = [list(scores)[index] for index in order]
    pairs = list(itertools.combinations(names, 2))
    of = dict(zip(scores, table, strict=True))
    adjusted = multipletests([signed_rank_p(of[a], of[b]) for a, b in pairs], method="holm")[1]
    p = dict(zip(pairs, map(float, adjusted), strict=True))
    most = separable_models(n_tasks, alpha)
    return Ranking(
        ranks={name: float(mean_ranks[index]) for name, index in zip(names, order, strict=True)},
        friedman=_friedman(table),
        p=p,
        groups=_groups(names, p, alpha),
        n_tasks=n_tasks,
        underpowered=None
        if n_models <= most
        else f"underpowered: {n_tasks} tasks can tell {f'at most {most} models' if most > 1 else 'no two models'} apart, "
        f"and here are {n_models}",
    )


def signed_rank_p(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945) over tasks; zeros are ranked and then left out (Pratt 1959).

    Up to 16 tasks exactly, ties included, by all sign changes (scipy does so without ties only, and its permutations take
    seconds); beyond by the normal approximation.
    """
    from scipy import stats

    difference = a - b
    if not difference.any():
        return 1.0
    if len(difference) > EXACT:
        return float(stats.wilcoxon(difference, zero_method="pratt", method="approx").pvalue)
    ranks = stats.rankdata(np.abs(difference))[difference != 0]
    far = abs(float(ranks[difference[difference != 0] > 0].sum()) - ranks.sum() / 2)
    signs = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1  # (2^n, n), every choice of signs
    return float((np.abs(signs @ ranks - ranks.sum() / 2) >= far - 1e-9).mean())


def _friedman(table: np.ndarray) -> float:
    from scipy import stats

    if len(table) < 3:  # with two models the signed-rank test says all there is
        return signed_rank_p(*table)
    if (table == table[0]).all():
        return 1.0
    return float(stats.friedmanchisquare(*table).pvalue)


def _groups(names: list[str], p: Mapping[tuple[str, str], float], alpha: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of neighbours in rank, two models or more, no two of which differ."""
    runs: list[tuple[int, int]] = []
    for first in range(len(names)):
        last = first
        while last + 1 < len(names) and all(p[names[i], names[last + 1]] >= alpha for i in range(first, last + 1)):
            last += 1
        if last > first and not any(start <= first and last <= end for start, end in runs):
            runs.append((first, last))
    return tuple(tuple(names[first : last + 1]) for first, last in runs)


class Verdict(NamedTuple):
    """Probabilities that A is better, practically equal, or worse; they sum to one."""

    better: float
    equal: float
    worse: float


def bayesian_signed_rank(
    differences: ArrayLike, generator: np.random.Generator, prior: float = 0.5, n_samples: int = 50_000
) -> Verdict:
    """What (tasks,) differences A - B, in units of each task's margin of practical equality, say of the next task.

    A Dirichlet process whose prior puts the weight ``prior`` on one pseudo-difference of 0. For each draw of weights the mean
    of a pair of tasks is above +1, within ±1, or below -1 with some probability; the verdict is how often each is largest.
    """
    values = np.concatenate([[0.0], np.asarray(differences, dtype=np.float64)])
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite")
    means = (values[:, None] + values[None, :]) / 2  # (n + 1, n + 1)
    weights = generator.dirichlet([prior, *np.ones(len(values) - 1)], n_samples)  # (N, n + 1)
    above, below = (_paired_weight(weights, region) for region in (means > 1, means < -1))
    shares = np.stack([above, 1 - above - below, below])  # (3, N)
    winners = np.bincount(shares.argmax(0), minlength=3) / n_samples
    return Verdict(*map(float, winners))


def _paired_weight(weights: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(N, n) weights, (n, n) region → (N,): the sum of w_i w_j over the region."""
    return np.einsum("ni,ij,nj->n", weights, region.astype(np.float64), weights, optimize=True)


def expected_best(values: ArrayLike) -> np.ndarray:
    """(n,) validation scores of tuning trials, higher the better → (n,): the expected best of 1 … n of them.

    Over all subsets without replacement, hence unbiased: E_k = Σ_i C(i-1, k-1) / C(n, k) v_(i), v sorted upwards.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    curve = [
        math.fsum(math.comb(i, k - 1) / math.comb(n, k) * value for i, value in enumerate(ordered))
        for k in range(1, n + 1)
    ]
    return np.array(curve)


def pareto_front(costs: ArrayLike, qualities: ArrayLike) -> np.ndarray:
    """(n,) bool: the points than which none is both cheaper and better, or one of the two and equal in the other."""
    cost, quality = np.asarray(costs, dtype=np.float64), np.asarray(qualities, dtype=np.float64)
    no_worse = (cost[None] <= cost[:, None]) & (quality[None] >= quality[:, None])  # (n, n): column beats or equals row
    better = (cost[None] < cost[:, None]) | (quality[None] > quality[:, None])
    return np.asarray(~(no_worse & better).any(1))
