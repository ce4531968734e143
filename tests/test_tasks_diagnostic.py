"""Diagnostic tasks of memory and of formal languages: answers recomputed in plain Python, floors and ceilings by argument."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parameters import InvalidParameter
from benchmarks.tasks.diagnostic import truncated_means
from benchmarks.tasks.registry import task
from models.sequences import SequenceBatch

LANGUAGES = [
    *("parity", "even_pairs", "cycle_navigation", "modular_arithmetic"),
    *("bracket_depth", "reverse_string", "duplicate_string"),
]
FEW = {"n_train": 60, "n_validation": 20, "n_test": 20}
MANY = {"n_train": 20_000, "n_validation": 1, "n_test": 20_000}


def rows(batch: SequenceBatch) -> list[tuple[list, list]]:
    """Each sequence's valid inputs, and its scored targets in order."""
    return [
        (inputs[:length].tolist(), targets[scored].tolist())
        for inputs, targets, scored, length in zip(
            batch.inputs, batch.targets, batch.scored, batch.lengths.tolist(), strict=True
        )
    ]


def evaluated(tokens: list[int], modulus: int) -> int:
    """The string as Python reads it."""
    text = "".join("+-*"[token - modulus] if token >= modulus else str(token) for token in tokens)
    return eval(text) % modulus


def depths(tokens: list[int]) -> list[int]:
    found, depth = [], 0
    for token in tokens:
        depth += {0: 1, 1: -1, 2: 0}[token]
        found.append(depth)
    return found


ANSWERS = {
    "parity": lambda x: [sum(x) % 2],
    "even_pairs": lambda x: [sum(a != b for a, b in itertools.pairwise(x)) % 2],
    "cycle_navigation": lambda x: [(x.count(1) - x.count(2)) % 5],
    "modular_arithmetic": lambda x: [evaluated(x, 5)],
    "bracket_depth": depths,
    "reverse_string": lambda x: x[: x.index(2)][::-1],
    "duplicate_string": lambda x: x[: x.index(2)] * 2,
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_answer_follows_from_its_string(name: str) -> None:
    for batch in task(name, FEW).splits(0):
        for inputs, targets in rows(batch):
            assert targets == ANSWERS[name](inputs)


@pytest.mark.parametrize("name", LANGUAGES)
def test_training_knows_every_length_up_to_the_longest_and_the_test_five_times_as_long(name: str) -> None:
    built = task(name, {"n_test": 5})
    splits, longest = built.splits(0), built.max_length  # type: ignore[attr-defined]
    assert set(splits.train.lengths.tolist()) == {built.steps * n for n in range(1, longest + 1)}  # type: ignore[attr-defined]
    assert set(splits.test.lengths.tolist()) == {built.steps * 5 * longest}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=f"lengths 1 … {5 * longest}, not {5 * longest + 1}"):
        built.test_at(5 * longest + 1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cycle_navigation", {"n_places": 2}),
        ("modular_arithmetic", {"modulus": 2}),
        ("bracket_depth", {"max_depth": 1}),
        ("copy_memory", {"n_items": 1, "delay": 1, "n_kinds": 2}),
        ("selective_copy", {"n_items": 2, "among": 2, "delay": 0, "n_kinds": 2, "noise": 1}),
        ("associative_recall", {"n_pairs": 1, "delay": 0, "n_keys": 1, "n_values": 2}),
        *((name, {}) for name in LANGUAGES),
        ("adding", {"length": 2, "noise": 10.0}),
        ("adding", {"noise": 1e-9}),
    ],
)
def test_extreme_parameters_that_are_accepted_work(name: str, parameters: dict) -> None:
    sizes = {"n_train": 1, "n_validation": 1, "n_test": 1} | ({"max_length": 1} if name in LANGUAGES else {})
    built = task(name, sizes | parameters)
    for batch in built.splits(0):
        batch.validate()
        assert batch.inputs.shape[1] <= (built.input.max_length or 0)
    assert math.isfinite(built.floor(0)) and math.isfinite(built.ceiling() or 0.0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("adding", {"noise": -0.1}, "noise must be a number from 0 to 10"),
        ("adding", {"noise": float("nan")}, "noise must be a number from 0 to 10"),
        ("adding", {"noise": True}, "noise must be a number from 0 to 10"),
        ("copy_memory", {"delay": 0}, "delay must be an integer of at least 1"),
        ("selective_copy", {"among": 5}, "among must be at least n_items, 6, got 5"),
        ("associative_recall", {"n_keys": 3}, "n_keys must be at least n_pairs, 4, got 3"),
        ("modular_arithmetic", {"modulus": 1}, "modulus must be an integer of at least 2"),
        ("reverse_string", {"max_length": 0}, "max_length must be an integer of at least 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name}: {message}"):
        task(name, parameters)


def depth_probabilities(max_depth: int, n_steps: int) -> np.ndarray:
    """(n_steps, max_depth + 1): exactly, by moving the distribution on from step to step."""
    before = {0: Fraction(1)}
    table = np.zeros((n_steps, max_depth + 1))
    for t in range(n_steps):
        after: Counter = Counter()
        for depth, probability in before.items():
            reached = [d for d in (depth - 1, depth, depth + 1) if 0 <= d <= max_depth]
            for d in reached:
                after[d] += probability / len(reached)
        before = {depth: Fraction(float(probability)) for depth, probability in after.items()}
        table[t] = [float(before.get(depth, 0)) for depth in range(max_depth + 1)]
    return table


def test_simulated_floors_of_languages_come_out_at_their_expectations() -> None:
    # The standard error of 20,000 answers is at most 0.0035; those of one string of brackets depend on one another.
    assert task("even_pairs", MANY).floor(0) == pytest.approx(1 / 2, abs=0.015)
    assert task("cycle_navigation", MANY).floor(0) == pytest.approx(1 / 5, abs=0.012)
    assert task("modular_arithmetic", MANY).floor(0) == pytest.approx(1 / 5, abs=0.012)
    assert task("reverse_string", {"n_test": 2_000}).floor(0) == pytest.approx(1 / 2, abs=0.01)
    assert task("duplicate_string", {"n_test": 2_000}).floor(0) == pytest.approx(1 / 2, abs=0.01)
    short = np.mean([depth_probabilities(8, n).sum(0) for n in range(1, 21)], axis=0)  # steps at each depth, per string
    common = int(short.argmax())
    assert common == 1
    expected = depth_probabilities(8, 100)[:, common].mean()
    assert task("bracket_depth", {"n_test": 4_000}).floor(0) == pytest.approx(expected, abs=0.01)


def test_the_depth_in_the_long_run_is_as_the_docstring_says() -> None:
    long_run = depth_probabilities(8, 1_000)[-1]
    np.testing.assert_allclose(long_run, np.array([2, *[3] * 7, 2]) / 25, atol=1e-6)


def test_what_is_copied_is_what_was_shown() -> None:
    for inputs, targets in rows(task("copy_memory", FEW | {"n_items": 3, "delay": 4, "n_kinds": 6}).splits(0).train):
        assert inputs[3:] == [6, 6, 6, 7, 6, 6, 6] and targets == [6] * 7 + inputs[:3] and max(inputs[:3]) < 6


def test_what_is_copied_selectively_is_all_that_is_no_noise() -> None:
    built = task("selective_copy", FEW | {"n_items": 3, "among": 8, "delay": 2, "n_kinds": 5, "noise": 4})
    places = Counter()
    for inputs, targets in rows(built.splits(0).train):
        assert targets == [token for token in inputs if token < 5] and inputs[10:] == [9] * 3 and len(inputs) == 13
        assert all(5 <= token < 9 for token in inputs[8:10])
        places.update(t for t, token in enumerate(inputs) if token < 5)
    assert set(places) == set(range(8))


def test_what_a_key_recalls_is_what_it_came_with() -> None:
    built = task("associative_recall", FEW | {"n_pairs": 3, "delay": 2, "n_keys": 5, "n_values": 4})
    orders = set()
    for inputs, targets in rows(built.splits(0).train):
        keys, values, queries = inputs[:6:2], inputs[1:6:2], inputs[8:]
        assert len(set(keys)) == 3 and set(keys) == set(queries) and max(keys) < 5 and inputs[6:8] == [9, 9]
        bound = dict(zip(keys, values, strict=True))
        assert targets == [bound[key] - 5 for key in queries]
        orders.add(tuple(keys.index(key) for key in queries))
    assert len(orders) == 6


def test_floors_of_memory_tasks_come_out_at_their_expectations() -> None:
    frequencies = np.array([60 / 70] + [10 / 70 / 8] * 8)
    assert task("copy_memory", {}).floor(0) == pytest.approx(-(frequencies * np.log(frequencies)).sum(), abs=0.002)
    assert task("selective_copy", {"n_test": 20_000}).floor(0) == pytest.approx(1 / 8, abs=0.005)
    assert task("associative_recall", {"n_test": 20_000}).floor(0) == pytest.approx(1 / 16, abs=0.005)


def test_knowing_when_but_not_what_to_copy_costs_what_the_docstring_says() -> None:
    built = task("copy_memory", {"n_test": 50, "n_train": 1})
    test = built.splits(0).test
    outputs = torch.full((*test.inputs.shape, 9), -1e9, dtype=torch.float64)
    outputs[:, :60, 8] = 0
    outputs[:, 60:, :8] = 0
    metric = built.metrics[0]
    assert metric.value(metric.parts(outputs, test)) == pytest.approx(10 * math.log(8) / 70)


def test_guessing_a_value_without_its_key_is_right_as_often_as_the_docstring_says() -> None:
    built = task("associative_recall", MANY)
    test = built.splits(0).test
    guesses = test.inputs[:, 1] - 16  # the first value, whatever is asked
    right = (guesses[:, None] == test.targets)[test.scored].double().mean()
    assert float(right) == pytest.approx(1 / 4 + 3 / 4 / 16, abs=0.006)


@settings(max_examples=30, deadline=None)
@given(shown=st.floats(-0.5, 1.5), deviation=st.floats(0.1, 3))
def test_the_posterior_mean_is_that_of_numerical_integration(shown: float, deviation: float) -> None:
    values = (np.arange(20_000) + 0.5) / 20_000
    weights = np.exp(-(((shown - values) / deviation) ** 2) / 2)
    expected = (values * weights).sum() / weights.sum()
    ours = truncated_means(torch.tensor([shown], dtype=torch.float64), deviation)
    assert float(ours) == pytest.approx(expected, abs=1e-6)


def test_the_ceiling_of_noisy_adding_is_the_error_of_the_posterior_mean_and_nothing_simple_is_better() -> None:
    built = task("adding", {"noise": 0.2, "n_train": 10, "n_test": 4_000})
    test, metric = built.splits(3).test, built.metrics[0]
    optimal = built.optimal_outputs(test)
    assert optimal is not None and optimal.shape == (4_000, 50, 1)
    ceiling = built.ceiling()
    assert ceiling == metric.value(metric.parts(optimal, test))
    naive = (test.inputs[..., 0] * test.inputs[..., 1]).sum(1)[:, None, None].expand(-1, 50, 1)
    clipped = (test.inputs[..., 0].clamp(0, 1) * test.inputs[..., 1]).sum(1)[:, None, None].expand(-1, 50, 1)
    assert metric.value(metric.parts(naive, test)) == pytest.approx(2 * 0.2**2, rel=0.1)
    assert ceiling is not None
    assert ceiling < metric.value(metric.parts(clipped, test)) < metric.value(metric.parts(naive, test))
    assert task("adding", {}).optimal_outputs(test) is None and task("adding", {}).ceiling() == 0.0


def test_noise_changes_what_is_shown_and_nothing_else() -> None:
    plain, noisy = (task("adding", {"noise": noise, **FEW}).splits(0).test for noise in (0, 0.5))
    assert torch.equal(plain.targets, noisy.targets) and torch.equal(plain.inputs[..., 1], noisy.inputs[..., 1])
    assert float((noisy.inputs - plain.inputs)[..., 0].std()) == pytest.approx(0.5, rel=0.1)


def test_formal_languages_are_tested_at_the_length_asked_for() -> None:
    built = task("parity", {"max_length": 4, "test_length": 50, "n_train": 8, "n_test": 3})
    assert built.lengths is not None and built.lengths.tested == (4, 8, 50)
    assert set(built.splits(0).test.lengths.tolist()) == {50} and built.input.max_length == 50
    assert task("parity", {"max_length": 4, "test_length": 4}).lengths.tested == (4,)  # type: ignore[union-attr]
    for wrong in (3, 50.0, True):
        with pytest.raises(InvalidParameter, match="parity: test_length must be an integer of at least 4"):
            task("parity", {"max_length": 4, "test_length": wrong})
