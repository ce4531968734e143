"""Metrics, against plain numpy and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from benchmarks.metrics import absolute_error, accuracy, cross_entropy, squared_error

EVERY = [accuracy, cross_entropy, squared_error(), absolute_error("ppm", 2.0)]


def logits_and_classes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(40, 5, generator=generator) * 3, torch.randint(5, (40,), generator=generator)


@given(seed=st.integers(0, 2**31))
def test_accuracy_and_cross_entropy_are_those_of_numpy_and_scipy(seed: int) -> None:
    outputs, targets = logits_and_classes(seed)
    rows = outputs.double().numpy()
    assert accuracy(outputs, targets) == pytest.approx(np.mean(rows.argmax(1) == targets.numpy()))
    expected = -log_softmax(rows, axis=1)[np.arange(40), targets.numpy()].mean()
    assert cross_entropy(outputs, targets) == pytest.approx(expected, rel=1e-12)


@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_log_probabilities_are_valid_logits_and_a_shift_changes_nothing(seed: int, shift: float) -> None:
    outputs, targets = logits_and_classes(seed)
    outputs = outputs.double()
    for same in (outputs.log_softmax(-1), outputs + shift):
        assert cross_entropy(same, targets) == pytest.approx(cross_entropy(outputs, targets), rel=1e-9)


def test_errors_are_in_the_units_of_the_scale() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, -3.0]])
    assert squared_error()(outputs, targets) == (0 + 4 + 1 + 9) / 4
    assert squared_error("ppm²", 10.0)(outputs, targets) == 100 * 14 / 4
    assert absolute_error("ppm", 10.0)(outputs, targets) == 10 * (0 + 2 + 1 + 3) / 4


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_metric_is_the_mean_of_its_terms_in_float64(metric) -> None:  # type: ignore[no-untyped-def]
    outputs, targets = logits_and_classes(0)
    if metric.name in ("mse", "mae"):
        targets = outputs.flip(0)
    terms = metric.terms(outputs, targets)
    assert terms.shape == (40,) and terms.dtype == torch.float64
    assert metric(outputs, targets) == pytest.approx(terms.numpy().mean())
    assert metric.unit and metric.definition and metric.margin > 0


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_nan_among_the_outputs_makes_the_metric_nan(metric) -> None:  # type: ignore[no-untyped-def]
    outputs, targets = logits_and_classes(0)
    outputs[7, 2] = math.nan
    assert not math.isfinite(metric(outputs, torch.zeros_like(outputs) if metric.name in ("mse", "mae") else targets))


def test_a_class_held_impossible_costs_infinitely_much() -> None:
    assert cross_entropy(torch.tensor([[0.0, -math.inf]]), torch.tensor([1])) == math.inf


def test_better_follows_the_direction_and_is_strict() -> None:
    assert accuracy.better(0.9, 0.8) and not accuracy.better(0.8, 0.9) and not accuracy.better(0.8, 0.8)
    assert cross_entropy.better(0.8, 0.9) and not cross_entropy.better(0.9, 0.8) and not cross_entropy.better(0.8, 0.8)
