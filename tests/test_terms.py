"""The terms of a metric by test sequence, and the standard error they give."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import terms
from benchmarks.metrics import Parts
from benchmarks.terms import Terms, standard_error


def test_terms_are_read_as_they_were_written_and_the_bytes_repeat(tmp_path: Path) -> None:
    parts = {
        "f1": Parts(torch.rand(7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)),
        "accuracy": Parts(torch.ones(7).double(), torch.full((7,), 3.0).double()),
    }
    for name in ("a.npz", "b.npz"):
        terms.write(tmp_path / name, parts)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for metric, each in parts.items():
        found = terms.read(tmp_path / "a.npz", metric)
        assert found is not None and len(found) == 7
        np.testing.assert_allclose([found.over, found.under], [each.over, each.under], rtol=1e-6)
    assert terms.read(tmp_path / "a.npz", "other") is None
    assert terms.read(tmp_path / "absent.npz", "f1") is None


def test_the_error_of_a_mean_is_its_deviation_over_the_root_of_n_paired_by_sequence() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 100))
    ours, theirs = ([Terms(x, np.ones(100))] for x in (a, b))
    assert standard_error(ours) == pytest.approx(a.std(ddof=1) / 10)
    assert standard_error(ours, theirs) == pytest.approx((a - b).std(ddof=1) / 10)
    assert standard_error(ours, ours) == 0
    assert math.isnan(standard_error([])) and math.isnan(standard_error([Terms(a[:1], np.ones(1))]))


def test_another_number_of_test_sequences_is_compared_unpaired() -> None:
    rng = np.random.default_rng(0)
    a, b = Terms(rng.random(100), np.ones(100)), Terms(rng.random(50), np.ones(50))
    assert standard_error([a], [b]) == pytest.approx(math.hypot(standard_error([a]), standard_error([b])))


def test_the_bootstrap_of_a_ratio_agrees_with_its_linearisation() -> None:
    rng = np.random.default_rng(1)
    under = rng.integers(1, 30, 400).astype(float)
    over = under * rng.uniform(0.2, 0.9, 400)
    found = standard_error([Terms(over, under)])
    ratio = over.sum() / under.sum()
    linear = (over - ratio * under).std(ddof=1) / under.mean() / math.sqrt(400)
    assert found == pytest.approx(linear, rel=0.1)
    rooted = standard_error([Terms(over, under, math.sqrt)])
    assert rooted == pytest.approx(linear / (2 * math.sqrt(ratio)), rel=0.1)


def test_blocks_widen_the_error_where_neighbouring_windows_are_alike() -> None:
    """Errors that are moving means over a horizon of 12: the truth is known from many such series."""
    rng, n, horizon = np.random.default_rng(2), 240, 12

    def series() -> np.ndarray:
        return np.convolve(rng.normal(size=n + horizon - 1), np.ones(horizon) / horizon, "valid")

    true = np.std([series().mean() for _ in range(4_000)])
    blocked = np.mean([standard_error([Terms(series(), np.ones(n), block=2 * horizon)]) for _ in range(40)])
    single = np.mean([standard_error([Terms(series(), np.ones(n))]) for _ in range(40)])
    assert single < 0.4 * true
    assert 0.75 * true < blocked < 1.15 * true


def test_a_resample_without_anything_to_score_is_left_out() -> None:
    found = standard_error([Terms(np.array([1.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]))])
    assert math.isfinite(found)


@pytest.mark.parametrize("link", [float, math.sqrt])
def test_scaled_terms_have_a_scaled_error(link) -> None:
    rng = np.random.default_rng(3)
    own = Terms(rng.random(60), rng.integers(1, 4, 60).astype(float), link)
    assert standard_error([own.scaled(3.0)]) == pytest.approx(3 * standard_error([own]))
