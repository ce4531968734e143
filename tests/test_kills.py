"""Any process of a run is killed at a random moment, again and again; the end is that of a run that nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from waiting import within

from benchmarks import records, tables, tracking
from benchmarks.records import Status, read_result, run_folder
from benchmarks.suite import load
from benchmarks.trial import Trial

ROOT = Path(__file__).resolve().parents[1]
SUITE = """# Command: rnnbench run killed.yaml
# Time: a minute
# Expected: a row per trial
name: killed
description: Short trials, for a test that kills.
parameter_budget: 500
seeds: 2
fit: {n_steps: 20, evaluate_every: 10}
grids:
  - models: [floor, feed_forward, gru]
    tasks: [{name: adding, parameters: {length: 10, n_train: 64, n_validation: 64, n_test: 64}}]
"""
NAMES = {
    "fork server": "rnnb-server",
    "writer": "rnnb-writer",
    "build check": "rnnb-check",
    "worker": "rnnb-worker",
    "kernel": "rnnb-kernel",
}
"""Kind of process → what it calls itself."""
KINDS = ["coordinator", *NAMES]
ENDED_BY_KILLS = f"--retry-failed={Status.KERNEL_DIED}"
MARK = "RNNBENCH_TEST"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


def _start(suite: Path, results: Path, log: Path) -> subprocess.Popen[bytes]:
    arguments = ["run", str(suite), "--results", str(results), "--device", "cpu", "--no-report", ENDED_BY_KILLS]
    environment = os.environ | {MARK: str(results), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *arguments], env=environment, stdout=file, stderr=file, cwd=ROOT
        )


def _family(results: Path) -> dict[int, str]:
    """Every process that descends from a run over this folder, with its name, by a mark in the environment."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(results) and process.status() != psutil.STATUS_ZOMBIE:
                # psutil prefers the command line's; this is what the process calls itself.
                found[process.pid] = Path(f"/proc/{process.pid}/comm").read_text().strip()
        except (psutil.Error, OSError):
            continue
    return found


def _kill(kind: str, coordinator: subprocess.Popen[bytes], results: Path, patience_s: float) -> bool:
    """Kills a process of a kind as soon as there is one; whether there was before the run or the patience ended."""
    end = time.monotonic() + patience_s
    while coordinator.poll() is None and time.monotonic() < end:
        victims = [pid for pid, name in _family(results).items() if name == NAMES.get(kind)]
        if kind == "coordinator":
            victims = [coordinator.pid]
        for pid in victims[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
    return False


def _values(results: Path, trials: list[Trial]) -> list[tuple[object, ...]]:
    """What the table is made of, bit for bit; times and memory left out."""
    frame = tables.frame(results, trials)
    assert set(frame["status"]) == {"ok"}, frame[["model", "status", "reason"]]
    found = []
    for trial in trials:
        result = read_result(run_folder(results, trial.id))
        assert result is not None
        found.append((trial.id, dict(result.test), dict(result.validation), result.score, result.best_step))
    return found


def _assert_mirrored(results: Path, trials: list[Trial]) -> None:
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    experiment = client.get_experiment_by_name("killed")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    assert Counter(run.data.tags["kind"] for run in runs) == {"trial": len(trials), "model on task": 3}
    assert set(children) == {trial.id for trial in trials}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in trials:
        assert children[trial.id].data.tags["result_digest"] == records.result_digest(run_folder(results, trial.id))


def killed_and_resumed(
    tmp_path: Path, n_first: int, n_later: int, seed: int
) -> tuple[Counter[str], Counter[str], list[str]]:
    """Kills within eight seconds of a first run, then later ones at any moment; how many hit which kind, and what is wrong."""
    suite, generator = tmp_path / "killed.yaml", np.random.default_rng(seed)
    suite.write_text(SUITE)
    trials = load(str(suite)).trials(device="cpu")
    undisturbed = tmp_path / "undisturbed"
    started = time.monotonic()
    assert _start(suite, undisturbed, tmp_path / "log").wait(600) == 0, (tmp_path / "log").read_text()
    duration_s = time.monotonic() - started
    expected = _values(undisturbed, trials)
    asked: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    wrong: list[str] = []

    def round_of_kills(results: Path, within_s: float, kind: str) -> None:
        asked[kind] += 1
        # The build check lives for a second or two at the start: the hunt for one begins early.
        moment = generator.uniform(0, min(within_s, 0.8 * duration_s) if kind != "build check" else 0.5)
        coordinator = _start(suite, results, tmp_path / "log")
        try:
            coordinator.wait(moment)
        except subprocess.TimeoutExpired:
            hit[kind] += _kill(kind, coordinator, results, 60.0)
        if kind == "coordinator":
            coordinator.wait(60)
        elif (
            coordinator.poll() is None and generator.random() < 0.7
        ):  # some runs go on to their end, most are cut short too
            time.sleep(generator.uniform(0, 3))
            coordinator.kill()
        try:
            coordinator.wait(300)
        except subprocess.TimeoutExpired:
            wrong.append(f"{kind} killed at {moment:.1f} s: the run hangs")
            coordinator.kill()
            coordinator.wait()
        if not within(5, lambda: not _family(results)):
            wrong.append(f"{kind} killed at {moment:.1f} s: left {_family(results)}")
            for pid in _family(results):
                os.kill(pid, signal.SIGKILL)

    def ends_as_if_undisturbed(results: Path) -> None:
        code = _start(suite, results, tmp_path / "log").wait(600)
        if code != 0:
            wrong.append(f"the last run of {results.name} ended with {code}")
            return
        assert _values(results, trials) == expected
        _assert_mirrored(results, trials)

    for i in range(n_first):
        results = tmp_path / f"first-{i}"
        round_of_kills(results, 8.0, KINDS[i % len(KINDS)])
        if i % 5 == 0 or n_first < 5:
            ends_as_if_undisturbed(results)
        else:
            # Seconds each: only the store, which is what a first run can break for ever.
            assert tracking.sync(results, "killed", trials) >= 0
    results = tmp_path / "later"
    for i in range(n_later):
        round_of_kills(results, 20.0, KINDS[i % len(KINDS)])
        for trial in trials[i % 2 :: 2]:  # else the later kills would find nothing left to run
            (run_folder(results, trial.id) / "result.json").unlink(missing_ok=True)
    ends_as_if_undisturbed(results)
    return asked, hit, wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_six_random_kills_end_as_if_nobody_had_disturbed_the_run(tmp_path: Path) -> None:
    _, hit, wrong = killed_and_resumed(tmp_path, 2, 4, seed=0)
    assert not wrong and sum(hit.values()) >= 3


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_sixty_random_kills_end_as_if_nobody_had_disturbed_the_run(tmp_path: Path) -> None:
    asked, hit, wrong = killed_and_resumed(tmp_path, 20, 40, seed=1)
    assert not wrong, wrong
    assert sum(asked.values()) == 60 and all(hit[kind] for kind in KINDS) and sum(hit.values()) >= 40, hit
