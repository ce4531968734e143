"""Simulated studies: how often the comparison finds a difference where there is none, and where one was planted.

With `-s` the numbers are printed; CONTRIBUTING.md has them.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import experiment
from benchmarks.comparison import bayesian_signed_rank, bootstrap_interval, interquartile_mean, ranking, signed_rank_p
from benchmarks.statistics import paired_t_interval, t_interval
from benchmarks.verdicts import Scores, difference
from models import registry

N_STUDIES, N_SEEDS = 20, 5
TASK = ("hidden_source", {"n_train": 256, "n_validation": 64, "n_test": 64, "length": 20})


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The GRU under a second name: its weights begin elsewhere, as do those of any other model."""
    monkeypatch.setattr(registry, "ENTRIES", [*registry.ENTRIES, replace(registry.entry("gru"), name="gru_twin")])
    registry.entries.cache_clear()
    yield "gru_twin"
    registry.entries.cache_clear()


def fitted(model: str, seed: int, folder: Path) -> float:
    """The primary metric on test."""
    fit = {"n_steps": 40, "evaluate_every": 20, "batch_size": 32}
    trial = experiment.prepare(TASK[0], model, seed, 1000, "cpu", TASK[1], {}, fit, str(folder / f"{model}-{seed}"))
    trial.fit()
    trial.evaluate()
    return trial.finish().test["cross_entropy"]


def n_different(a: np.ndarray, b: np.ndarray) -> int:
    """a, b: (studies, seeds). In how many studies the report would call the two different."""
    pairs = ((Scores(dict(enumerate(x))), Scores(dict(enumerate(y)))) for x, y in zip(a, b, strict=True))
    return sum(difference(*pair).is_significant for pair in pairs)


@pytest.mark.slow
def test_equal_models_are_told_apart_no_more_often_than_chance_has_it_and_unequal_ones_nearly_always(
    twin: str, tmp_path: Path
) -> None:
    gru, same = (
        np.array(
            [[fitted(model, N_SEEDS * study + seed, tmp_path) for seed in range(N_SEEDS)] for study in range(N_STUDIES)]
        )
        for model in ("gru", twin)
    )
    assert not np.array_equal(gru, same)
    false_alarms = n_different(gru, same)
    spread = (gru - same).std(ddof=1)
    found = n_different(gru + 2 * spread, same)
    sys.stdout.write(
        f"{N_STUDIES} studies of {N_SEEDS} seeds: equal models told apart in {false_alarms}, two deviations in {found}\n"
    )
    assert false_alarms <= 3 and found >= 16


N_SIMULATED = 500
TASKS, MODELS = 10, 7
"""As many models as ten tasks can tell apart."""


def share(hits: list[bool], what: str) -> float:
    """The share of simulated studies, printed with its standard error."""
    found = float(np.mean(hits))
    sys.stdout.write(f"{what}: {found:.3f} ± {np.sqrt(found * (1 - found) / len(hits)):.3f} of {len(hits)} studies\n")
    return found


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_t_intervals_over_seeds_hold_what_they_promise(n_seeds: int) -> None:
    generator = np.random.default_rng(n_seeds)
    means = [t_interval(generator.standard_normal(n_seeds)) for _ in range(4 * N_SIMULATED)]
    pairs = [paired_t_interval(*generator.standard_normal((2, n_seeds))) for _ in range(4 * N_SIMULATED)]
    covered = share([low <= 0 <= high for _, low, high in means], f"t interval of a mean covers it, n = {n_seeds}")
    alarms = share([not low <= 0 <= high for _, low, high in pairs], f"equal models differ by it, n = {n_seeds}")
    assert 0.93 < covered < 0.97 and 0.03 < alarms < 0.07


@pytest.mark.parametrize(("n_seeds", "least", "most"), [(3, 0.75, 0.90), (5, 0.83, 0.94), (10, 0.88, 0.97)])
def test_the_bootstrap_over_seeds_covers_less_than_it_says_with_few_of_them(
    n_seeds: int, least: float, most: float
) -> None:
    """Why the report simulates its coverage and calls it 95 % only where it is near that."""
    generator = np.random.default_rng(n_seeds)
    intervals = [
        bootstrap_interval(generator.standard_normal((TASKS, n_seeds)), interquartile_mean, generator, n_resamples=500)
        for _ in range(N_SIMULATED)
    ]
    covered = share([low <= 0 <= high for _, low, high in intervals], f"bootstrap over seeds covers, n = {n_seeds}")
    assert least < covered < most


@pytest.mark.slow
def test_ranks_over_tasks_raise_false_alarms_no_more_often_than_they_say_and_see_a_model_that_always_wins() -> None:
    generator = np.random.default_rng(0)
    names = "abcdefg"
    friedman, any_pair, pair, found = [], [], [], []
    gc.freeze()  # statsmodels collects garbage in every correction
    for study in range(N_SIMULATED):
        equal = dict(zip(names, generator.standard_normal((MODELS, TASKS)), strict=True))
        told = ranking(equal)
        friedman.append(told.friedman < 0.05)
        any_pair.append(min(told.p.values()) < 0.05)
        pair.append(signed_rank_p(equal["a"], equal["b"]) < 0.05)
        if study % 5 == 0:
            better = ranking({**equal, "a": equal["a"] + 4.0})
            found.append(all(p < 0.05 for (one, other), p in better.p.items() if "a" in (one, other)))
    gc.unfreeze()
    assert share(friedman, "Friedman: equal models") < 0.08
    assert 0.02 < share(pair, "signed-rank test of one pair, uncorrected: equal models") < 0.08
    assert share(any_pair, f"any of {len(list(itertools.combinations(names, 2)))} pairs, Holm: equal models") < 0.08
    assert share(found, "all pairs of a model that is 4 deviations better, Holm") > 0.8


@pytest.mark.slow
def test_the_bayesian_verdict_is_seldom_sure_of_a_difference_that_is_not_there() -> None:
    generator = np.random.default_rng(0)
    verdicts = {
        planted: [
            bayesian_signed_rank(planted + generator.standard_normal(TASKS), generator, n_samples=4_000)
            for _ in range(N_SIMULATED)
        ]
        for planted in (0.0, 3.0)
    }
    wrong = share([max(v.better, v.worse) > 0.95 for v in verdicts[0.0]], "Bayesian verdict above 0.95: no difference")
    right = share([v.better > 0.95 for v in verdicts[3.0]], "Bayesian verdict above 0.95: three margins better")
    assert wrong < 0.05 and right > 0.8
