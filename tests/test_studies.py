"""Simulated studies: how often the comparison finds a difference where there is none, and where one was planted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import experiment, tables
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
