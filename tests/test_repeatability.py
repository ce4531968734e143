"""The same seed twice, through the supervisor as in a suite: the same bits, whatever else the machine has to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.execution import supervisor
from benchmarks.provenance import code_digest
from benchmarks.records import Result, Status, read_curve, run_folder
from benchmarks.trial import Overrides, Trial, specify


@contextmanager
def busy() -> Iterator[None]:
    """Every core has something else to do as well."""
    work = "import numpy as np\nx = np.ones((500, 500))\nwhile True: x @ x"
    others = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run(trials: list[Trial], results: Path, workers: int) -> list[tuple[Result, list[dict[str, object]]]]:
    digests = {trial.id: code_digest(trial.task, trial.model) for trial in trials}
    summary = supervisor.run(trials, digests, results, workers)
    made = {result.trial_id: result for result in summary.results}
    assert {result.status for result in made.values()} == {Status.OK}, made
    return [(made[trial.id], read_curve(run_folder(results, trial.id))) for trial in trials]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_alone_and_on_a_busy_machine(tmp_path: Path) -> None:
    short = Overrides({"length": 12}, fit={"n_steps": 40, "evaluate_every": 10})
    trials = [specify("adding", model, 0, 2000, "cpu", short) for model in ("lstm", "transformer")]
    trials += [specify("japanese_vowels", model, 0, None, "cpu") for model in ("hmm", "minirocket")]
    trials += [specify("japanese_vowels", "mlp", 0, 2000, "cpu", Overrides(fit={"n_steps": 40}))]  # with dropout
    alone = run(trials, tmp_path / "alone", workers=1)
    with busy():
        beside = run(trials, tmp_path / "beside", workers=3)
    for (one, curve), (other, again) in zip(alone, beside, strict=True):
        assert (one.test, one.validation, one.score) == (other.test, other.validation, other.score)
        assert (one.steps, one.best_step, one.length_sweep) == (other.steps, other.best_step, other.length_sweep)
        assert one.data_digest == other.data_digest
        assert len(curve) > 0 and [row | {"seconds": 0} for row in curve] == [row | {"seconds": 0} for row in again]
