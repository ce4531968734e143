"""Simulated studies: how often the comparison finds a difference where there is none, and where one was planted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import cost, cost_tables, experiment, tables
from benchmarks.records import Status
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
    found = [tables.difference(dict(enumerate(x)), dict(enumerate(y))) for x, y in zip(a, b, strict=True)]
    return sum(not low <= 0 <= high for _, low, high, _ in found)


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


def seconds(model: str, process: int, folder: Path) -> float:
    """The median training step, measured as a timing trial does."""
    timing = {"n_blocks": 1, "n_streamed": 1, "throughput_batch": 1}
    fit, small = {"batch_size": 16}, {"n_train": 500, "n_validation": 10, "n_test": 10}
    run_folder = str(folder / f"{model}-{process}")
    trial = cost.prepare("parity", model, process, 2000, "cpu", small, None, fit, timing, run_folder=run_folder)
    step = trial.measure().training_step
    assert step is not None
    return step.median_s


@pytest.mark.slow
def test_equal_costs_are_told_apart_no_more_often_than_chance_has_it_and_a_quarter_more_nearly_always(
    twin: str, tmp_path: Path
) -> None:
    numbers = range(N_STUDIES * N_SEEDS)
    times = np.array([[seconds(model, number, tmp_path) for model in ("gru", twin)] for number in numbers])  # in turns
    gru, same = times.T.reshape(2, N_STUDIES, N_SEEDS)
    false_alarms, found = n_dearer(gru, same), n_dearer(1.25 * gru, same)
    sys.stdout.write(
        f"{N_STUDIES} studies of {N_SEEDS} processes: equal costs told apart in {false_alarms}, a quarter more in {found}\n"
    )
    assert false_alarms <= 3 and found >= 16


def n_dearer(a: np.ndarray, b: np.ndarray) -> int:
    """a, b: (studies, processes) seconds. In how many studies the report would call the two different."""
    found = 0
    for pair in zip(a, b, strict=True):
        runs = pd.concat(
            pd.DataFrame({"task": "parity", "model": name, "process": range(N_SEEDS), "training_step_s": values})
            for name, values in zip(("a", "b"), pair, strict=True)
        ).assign(status=Status.OK, stale=False, evaluation_s=1.0)
        _, low, high = cost_tables.ratio(runs, "parity", "a", "b")
        found += not low <= 1 <= high
    return found
