"""Intervals against scipy's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.statistics import paired_t_interval, t_interval

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20).filter(lambda xs: np.std(xs) > 1e-6)


@given(values, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_t_interval_is_the_one_scipy_inverts_from_its_test(sample, confidence):
    expected = stats.ttest_1samp(sample, 0).confidence_interval(confidence)
    mean, low, high = t_interval(sample, confidence)
    assert mean == pytest.approx(np.mean(sample))
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=10))
def test_the_paired_interval_is_the_one_of_the_paired_test(pairs):
    a, b = np.array(pairs).T
    if np.std(a - b) < 1e-6:
        return
    expected = stats.ttest_rel(a, b).confidence_interval()
    _, low, high = paired_t_interval(a, b)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


def test_one_value_has_a_mean_and_no_interval():
    mean, low, high = t_interval([0.7])
    assert mean == 0.7
    assert math.isnan(low)
    assert math.isnan(high)


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for _, low, high in (t_interval(rng.normal(size=3)) for _ in range(2000))]
    assert 0.935 < np.mean(covered) < 0.965


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0, 2.0]], [float("inf"), 1.0]])
def test_what_has_no_mean_is_refused(bad):
    with pytest.raises(ValueError, match=r"value|dimension"):
        t_interval(bad)


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        paired_t_interval([1.0, 2.0], [1.0])
