"""Comparisons over tasks, each against a closed form, an enumeration or another library."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.comparison import (
    bayesian_signed_rank,
    bootstrap_interval,
    expected_best,
    interquartile_mean,
    pareto_front,
    performance_profile,
    probability_of_improvement,
    ranking,
    separable_models,
    signed_rank_p,
)

finite = st.floats(-10, 10, allow_nan=False)


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.lists(finite, min_size=1, max_size=30))
def test_the_interquartile_mean_is_that_of_scipy(values):
    expected = stats.trim_mean(values, 0.25)
    assert interquartile_mean(np.array(values).reshape(1, 1, -1))[0] == pytest.approx(expected)


def test_the_bootstrap_of_a_mean_is_that_of_scipy():
    scores = rng(1).normal(size=(1, 12))
    ours = bootstrap_interval(scores, lambda drawn: drawn.mean((1, 2)), rng(2), n_resamples=20_000)
    theirs = stats.bootstrap((scores[0],), np.mean, n_resamples=20_000, method="percentile", rng=rng(3))
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert ours.mean == pytest.approx(scores.mean())


def test_seeds_are_resampled_within_their_task_and_tasks_only_when_asked():
    scores = np.array([[0.0] * 5, [1.0] * 5])

    def mean(drawn):
        return drawn.mean((1, 2))

    assert bootstrap_interval(scores, mean, rng()) == (0.5, 0.5, 0.5)
    assert bootstrap_interval(scores, mean, rng(), resample_tasks=True)[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="full"):
        bootstrap_interval([[1.0, math.nan]], mean, rng())


def test_a_profile_counts_the_runs_above_each_threshold():
    assert performance_profile([[0.1, 0.5], [0.5, 0.9]], [0.0, 0.1, 0.5, 0.95]).tolist() == [1, 0.75, 0.25, 0]


@given(st.lists(finite, min_size=1, max_size=8), st.lists(finite, min_size=1, max_size=8))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(a, b):
    expected = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert probability_of_improvement([a], [b]) == pytest.approx(expected)
    assert probability_of_improvement([a, b], [b, a]) == pytest.approx(0.5)


@pytest.mark.parametrize(("n_tasks", "most"), [(5, 1), (6, 2), (8, 4), (10, 7), (12, 14)])
def test_how_many_models_so_many_tasks_can_tell_apart(n_tasks, most):
    """Counted by hand from the smallest p, 2^(1 - n), times the number of pairs."""
    assert separable_models(n_tasks) == most
    scores = {f"m{k}": k + np.arange(n_tasks) * 1e-3 * k for k in range(most + 1)}
    told = ranking(scores)
    assert (
        told.underpowered is not None
        and ("no two models" if most == 1 else f"at most {most} models") in told.underpowered
    )
    assert min(told.p.values()) == pytest.approx(math.comb(most + 1, 2) * 2.0 ** (1 - n_tasks), rel=1e-9)
    assert min(told.p.values()) > 0.05


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 10), st.integers(0, 10**6))
def test_the_signed_rank_test_without_ties_is_the_exact_one_of_scipy(n, seed):
    a, b = rng(seed).normal(size=(2, n))
    assert signed_rank_p(a, b) == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)


def test_the_signed_rank_test_with_ties_is_the_count_over_all_signs():
    difference = np.array([1.0, 1.0, -1.0, 2.0, 0.0, 3.0])
    ranks = stats.rankdata(np.abs(difference))[difference != 0]  # Pratt: zeros are ranked, then left out
    signs = np.sign(difference[difference != 0])
    total = ranks.sum()
    seen = abs((ranks * (signs > 0)).sum() - total / 2)
    draws = [abs(np.dot(ranks, bits) - total / 2) for bits in itertools.product([0, 1], repeat=len(ranks))]
    expected = np.mean([draw >= seen - 1e-12 for draw in draws])
    assert signed_rank_p(difference, np.zeros(6)) == pytest.approx(expected, abs=1e-9)
    assert signed_rank_p(np.ones(4), np.ones(4)) == 1.0


def test_a_ranking_by_hand():
    scores = {"a": np.linspace(0.5, 0.9, 9), "c": np.zeros(9), "b": np.linspace(0.5, 0.9, 9)[::-1]}
    told = ranking(scores)
    assert list(told.ranks) == ["a", "b", "c"] and told.ranks["c"] == 3
    assert told.ranks["a"] == told.ranks["b"] == 1.5
    assert told.groups == (("a", "b"),) and told.underpowered is None
    assert told.friedman == pytest.approx(stats.friedmanchisquare(*scores.values()).pvalue)
    # Holm: the two smallest, 2^-8 each, times 3 and 2, made monotone; the third is a tie by symmetry.
    assert told.p["a", "c"] == pytest.approx(3 / 2**8) and told.p["b", "c"] == pytest.approx(3 / 2**8)
    with pytest.raises(ValueError, match="two models"):
        ranking({"a": [1.0, 2.0]})


def test_holm_is_a_step_down_and_not_a_constant():
    generator = rng(4)
    base = generator.normal(size=12)
    scores = {"a": base + 3, "b": base + 0.2 * generator.normal(size=12), "c": base - 3}
    told = ranking(scores)
    raw = sorted(signed_rank_p(scores[a], scores[b]) for a, b in told.p)
    stepped = np.maximum.accumulate([min(1.0, p * (len(raw) - i)) for i, p in enumerate(raw)])
    assert sorted(told.p.values()) == pytest.approx(stepped)


def test_the_bayesian_test_on_one_task_has_a_closed_form():
    """Weights (w, 1 - w) with w of Beta(1/2, 1): the difference 4 wins where w² < 1/2, with probability 2^(-1/4)."""
    verdict = bayesian_signed_rank([4.0], rng(), n_samples=200_000)
    assert verdict.better == pytest.approx(2**-0.25, abs=0.004)
    assert verdict.worse == 0 and sum(verdict) == pytest.approx(1)
    mirrored = bayesian_signed_rank([-4.0], rng(), n_samples=200_000)
    assert (mirrored.worse, mirrored.better) == (verdict.better, 0)


def test_the_bayesian_test_knows_equal_better_and_worse():
    assert bayesian_signed_rank(np.full(10, 0.2), rng()).equal > 0.99
    assert bayesian_signed_rank(np.full(10, 5.0), rng()).better > 0.99
    assert bayesian_signed_rank(np.full(10, -5.0), rng()).worse > 0.99
    split = bayesian_signed_rank([5.0, -5.0] * 5, rng())
    assert split.better == pytest.approx(split.worse, abs=0.02)


@given(st.lists(finite, min_size=1, max_size=7))
def test_the_expected_best_is_the_mean_over_every_subset(values):
    curve = expected_best(values)
    for k in range(1, len(values) + 1):
        assert curve[k - 1] == pytest.approx(np.mean([max(chosen) for chosen in itertools.combinations(values, k)]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_on_the_front_are_those_that_none_beats(points):
    cost, quality = np.array(points, dtype=float).T
    for on_front, (c, q) in zip(pareto_front(cost, quality), points, strict=True):
        beaten = any((x <= c and y >= q) and (x < c or y > q) for x, y in points)
        assert on_front == (not beaten)
