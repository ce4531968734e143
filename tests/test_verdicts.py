"""Best, worse and undecided: the rule on random tables, and its error rates in simulated comparisons.

With `-s` the simulated rates are printed; CONTRIBUTING.md has them.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.metrics import accuracy, squared_error
from benchmarks.terms import Terms
from benchmarks.verdicts import (
    Estimate,
    Scores,
    State,
    average,
    difference,
    estimate,
    simulated_coverage,
    states,
    still_improving,
)

N_STUDIES = 1_000
DEVIATIONS = {
    "japanese_vowels": (0.01, 0.0053, 0.118, 370),
    "digits": (0.01, 0.0277, 0.399, 450),
    "co2": (0.01, 0.0248, 0.241, 95),
}
"""Of tasks of the default suite: margin, standard deviation over seeds, standard deviation over test sequences of what two
models differ by there, number of test sequences. Means over seven networks, as measured in a run of the suite."""


def means(values: np.ndarray) -> Terms:
    return Terms(values, np.ones(len(values)))


def study(rng: np.random.Generator, task: str, n_seeds: int, shift: float) -> tuple[Scores, Scores]:
    """Two models on one task, the second better by ``shift`` in truth: seeds and test sequences are drawn."""
    _, seed_deviation, sequence_deviation, n = DEVIATIONS[task]
    base = rng.normal(0.8, 0.3, n)  # what both models find easy or hard
    own = rng.normal(0, sequence_deviation / math.sqrt(2), (2, n))  # how the two differ, sequence by sequence
    made = []
    for index in range(2):
        effects = rng.normal(0, seed_deviation, n_seeds)
        terms = {seed: means(base + own[index] + index * shift + effects[seed]) for seed in range(n_seeds)}
        made.append(Scores({seed: float(t.over.mean()) for seed, t in terms.items()}, terms))
    return made[0], made[1]


def noise(task: str, n_seeds: int) -> tuple[float, float]:
    """Of a difference whose deviations are known: half of its 95 % interval, and its standard error."""
    _, seed_deviation, sequence_deviation, n = DEVIATIONS[task]
    seeds, sequences = seed_deviation * math.sqrt(2 / n_seeds), sequence_deviation / math.sqrt(n)
    half = math.hypot(stats.t.ppf(0.975, n_seeds - 1) * seeds, stats.norm.ppf(0.975) * sequences)
    return half, math.hypot(seeds, sequences)


@pytest.mark.parametrize("task", DEVIATIONS)
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_equal_models_are_rarely_called_worse_and_clear_differences_mostly_are(task: str, n_seeds: int) -> None:
    """Clear is a difference of two margins beyond the noise: half of the interval, and one standard error by which the estimate
    itself may fall short."""
    rng, margin = np.random.default_rng(7), DEVIATIONS[task][0]
    half, error = noise(task, n_seeds)
    shifts = {"equal": 0.0, "half + 2 margins": half + 2 * margin, "noise + 2 margins": half + error + 2 * margin}
    worse = {}
    for name, shift in shifts.items():
        pairs = (study(rng, task, n_seeds, shift) for _ in range(N_STUDIES))
        found = [states(dict(zip("ab", pair, strict=True)), "higher", margin) for pair in pairs]
        worse[name] = sum(state is State.WORSE for each in found for state, _ in each.values()) / N_STUDIES
        if shift:
            assert all(each["b"][0] is State.BEST for each in found if each["a"][0] is State.WORSE)
    rates = ", ".join(f"{name} ({shifts[name]:.3f}): {rate:.3f}" for name, rate in worse.items())
    sys.stdout.write(f"\n{task}, n = {n_seeds}: called worse: {rates}\n")
    assert worse["equal"] <= 0.06
    assert worse["noise + 2 margins"] >= 0.80


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_interval_of_a_difference_covers_the_truth(n_seeds: int) -> None:
    rng = np.random.default_rng(n_seeds)
    for task in DEVIATIONS:
        found = [difference(*study(rng, task, n_seeds, 0.1)) for _ in range(N_STUDIES)]
        covered = np.mean([apart.low <= -0.1 <= apart.high for apart in found])
        sys.stdout.write(f"\n{task}, n = {n_seeds}: the 95 % interval covers the true difference in {covered:.3f}\n")
        assert covered >= 0.93


def test_the_coverage_that_a_report_prints_is_that_of_whole_simulated_studies() -> None:
    rng = np.random.default_rng(3)
    found = [difference(*study(rng, "digits", 3, 0.0)) for _ in range(300)]
    covered = np.mean([apart.low <= 0 <= apart.high for apart in found])
    told = simulated_coverage([Estimate(0, 0.0277 * math.sqrt(2 / 3), 0.399 / math.sqrt(450), 3, 2)], 3, rng)
    assert told == pytest.approx(covered, abs=0.03)
    assert simulated_coverage([Estimate(0, 0.1, 0.0, 3, 2)], 3, rng) == pytest.approx(0.95, abs=0.01)
    with pytest.raises(ValueError, match="two seeds or more"):
        simulated_coverage([Estimate(0, math.nan, 0.1, 1, 0)], 3, rng)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Scores], str, float]:
    """A task's models with random means, spreads and test sets."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_seeds, n_sequences = draw(st.integers(1, 6)), draw(st.sampled_from([0, 1, 2, 40]))
    models = {}
    for name in "abcdefgh"[: draw(st.integers(1, 8))]:
        level, spread = rng.normal(0, 1), 10 ** rng.uniform(-4, 1) * rng.integers(0, 2)
        first = int(rng.integers(0, 2)) if n_seeds > 2 else 0  # models of one task may have other seeds
        values = {seed: level + spread * float(rng.normal()) for seed in range(first, first + n_seeds)}
        kept = {seed: means(value + rng.normal(0, 1, n_sequences)) for seed, value in values.items() if n_sequences}
        models[name] = Scores(values, kept)
    return models, draw(st.sampled_from(["higher", "lower"])), 10 ** draw(st.floats(-3, 0.5))


@settings(max_examples=1_000, deadline=None)
@given(tables())
def test_a_marked_model_never_has_a_worse_mean_than_an_unmarked_one(
    table: tuple[dict[str, Scores], str, float],
) -> None:
    models, direction, margin = table
    found = states(models, direction, margin)
    merit = {model: (1 if direction == "higher" else -1) * scores.mean for model, scores in models.items()}
    marked = [model for model, (state, _) in found.items() if state is State.BEST]
    others = [model for model in models if model not in marked]
    assert marked and max(merit, key=merit.__getitem__) in marked
    assert not others or min(merit[model] for model in marked) >= max(merit[model] for model in others)
    for state, to_best in found.values():
        assert state in (State.BEST, State.WORSE, State.UNDECIDED)
        if state is State.WORSE:
            sign = 1 if direction == "higher" else -1
            assert to_best.is_significant and sign * to_best.mean < -margin
    if len(next(iter(models.values())).values) == 1:
        assert {state for state, _ in found.values()} <= {State.BEST, State.UNDECIDED}


def test_with_fifty_test_sequences_and_equal_seeds_the_interval_has_the_binomial_width() -> None:
    hits = np.repeat([1.0, 0.0], [45, 5])
    found = estimate(Scores(dict.fromkeys(range(3), 0.9), dict.fromkeys(range(3), means(hits))))
    assert found.seed_half == 0
    assert found.half == pytest.approx(1.96 * math.sqrt(0.9 * 0.1 / 49), rel=1e-4)


def test_a_model_that_is_better_on_the_seeds_both_have_is_never_called_worse() -> None:
    models = {
        "a": Scores({0: 0.80, 1: 0.81, 2: 0.80, 3: 0.99, 4: 0.99}),
        "b": Scores({0: 0.86, 1: 0.87, 2: 0.86}),
    }
    found = states(models, "higher", 0.01)
    assert found["a"][0] is State.BEST and found["b"][0] is State.UNDECIDED and found["b"][1].mean > 0


def test_nothing_is_decided_where_no_spread_is_known_of_results_that_differ() -> None:
    assert not Estimate(0.1, 0.0, math.nan, 2, 1).is_significant
    assert math.isnan(Estimate(0.005, 0.0, math.nan, 2, 1).probability_within(0.01))
    assert Estimate(0.0, 0.0, math.nan, 2, 1).probability_within(0.01) == 1
    assert Estimate(0.1, 0.0, 0.01, 2, 1).is_significant


def test_both_parts_add_in_quadrature() -> None:
    found = Estimate(0.5, 0.01, 0.02, 3, 2)
    assert found.half == pytest.approx(math.hypot(stats.t.ppf(0.975, 2) * 0.01, stats.norm.ppf(0.975) * 0.02))
    assert (found.low, found.high) == pytest.approx((0.5 - found.half, 0.5 + found.half))


@pytest.mark.parametrize(("seeds", "sequences"), [(0.01, 0.02), (0.02, 0.0), (0.0, 0.02), (0.001, 0.02)])
def test_the_probability_of_practical_equality_is_that_of_a_t_plus_a_normal_variable(
    seeds: float, sequences: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = 0.005 + seeds * rng.standard_t(2, 10**6) + sequences * rng.normal(size=10**6)
    share = float((np.abs(drawn) <= 0.01).mean())
    assert Estimate(0.005, seeds, sequences, 3, 2).probability_within(0.01) == pytest.approx(share, abs=3e-3)


def test_a_model_and_its_copy_are_practically_equal_and_one_seed_decides_nothing() -> None:
    same = Scores({0: 0.8, 1: 0.9, 2: 0.7})
    assert {state for state, _ in states({"a": same, "b": same}, "higher", 0.01).values()} == {State.BEST}
    one = {"a": Scores({0: 0.9}), "b": Scores({0: 0.1})}
    assert [state for state, _ in states(one, "higher", 0.01).values()] == [State.BEST, State.UNDECIDED]


def test_high_variance_earns_no_mark() -> None:
    """Seeds as `feed_forward`, `rnn` and `hmm` had on co2, when an interval that holds zero was enough for a mark."""
    models = {
        "feed_forward": Scores({0: 0.49, 1: 0.52, 2: 0.46}),
        "rnn": Scores({0: 0.53, 1: 0.55, 2: 0.53}),
        "hmm": Scores({0: 0.9, 1: 2.3, 2: 1.6}),
    }
    found = {model: state for model, (state, _) in states(models, "lower", 0.02).items()}
    assert found == {"feed_forward": State.BEST, "rnn": State.UNDECIDED, "hmm": State.UNDECIDED}


def test_differences_are_paired_over_the_seeds_that_both_finished() -> None:
    a, b = Scores({0: 0.9, 1: 0.8, 2: 0.4}), Scores({0: 0.7, 1: 0.75, 5: 0.1})
    found = difference(a, b)
    assert found.n == 2 and found.mean == pytest.approx(0.125)
    assert found.seed_half == pytest.approx(stats.t.ppf(0.975, 1) * np.std([0.2, 0.05], ddof=1) / math.sqrt(2))
    assert difference(a, Scores({7: 0.1})).n == 0


def test_the_average_over_tasks_has_the_degrees_of_satterthwaite() -> None:
    found = average([Estimate(0.1, 0.02, 0.01, 3, 2), Estimate(0.3, 0.02, 0.01, 3, 2)])
    assert found == pytest.approx(Estimate(0.2, 0.02 / math.sqrt(2), 0.01 / math.sqrt(2), 3, 4))
    assert average([Estimate(0.1, 0.02, 0.01, 3, 2), Estimate(0.3, 0.0, 0.0, 3, 2)]).degrees == pytest.approx(2)


def test_a_fit_is_still_improving_if_its_last_third_gained_more_than_the_margin() -> None:
    def curve(*values: float) -> list[dict[str, float]]:
        return [{"step": 10 * (index + 1), "validation": value} for index, value in enumerate(values)]

    assert still_improving(curve(0.1, 0.5, 0.6, 0.7, 0.8, 0.85), accuracy) is True
    assert still_improving(curve(0.1, 0.5, 0.6, 0.8, 0.805, 0.79), accuracy) is False
    assert still_improving(curve(0.9, 0.5, 0.1, 0.1, 0.3, 0.8), accuracy) is False  # the best came early
    assert still_improving(curve(1.0, 0.5, 0.2, 0.1, 0.05, 0.04), squared_error()) is True
    assert still_improving(curve(0.9), accuracy) is None and still_improving([], accuracy) is None
