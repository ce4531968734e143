"""MLflow as a mirror: complete, without duplicates, rebuilt at will, and never in the way of a trial."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from synthetic_runs import STEPS_S, timing_trials, trials, write_cost, write_failure, write_run

from benchmarks import records, tables, tracking
from benchmarks.records import Status
from benchmarks.tracking import Tracker, sync

ROOT = Path(__file__).resolve().parents[1]
PLANNED = trials(("lstm", "hmm"), ("adding", "recall"), 2)

_NOTHING_NEW = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from synthetic_runs import trials
from benchmarks import records
from benchmarks.tracking import Tracker
results = Path(sys.argv[1])
tracker = Tracker(results, "suite", trials(("lstm", "hmm"), ("adding", "recall"), 2))
for trial in trials(("lstm", "hmm"), ("adding", "recall"), 2):
    tracker.submit(trial, records.read_result(records.run_folder(results, trial.id)))
assert tracker.close() is None
assert "mlflow" not in sys.modules
"""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A results folder whose store is initialised once: the schema's migration takes seconds."""
    results = tmp_path_factory.mktemp("results")
    for trial in PLANNED:
        if (trial.model, trial.task) == ("hmm", "adding"):
            write_failure(results, trial, Status.SKIPPED, "cannot add")
        elif (trial.model, trial.seed) == ("lstm", 1) and trial.task == "recall":
            write_failure(results, trial, Status.DIVERGED, "loss nan at step 7")
        else:
            write_run(results, trial)
    tracker = mirror(results, "suite", PLANNED)
    assert tracker.close() is None
    return results


def mirror(results, suite, planned):
    tracker = Tracker(results, suite, planned)
    for trial in planned:
        tracker.submit(trial, records.read_result(records.run_folder(results, trial.id)))
    return tracker


def runs(results, suite="suite"):
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    return client.search_runs([client.get_experiment_by_name(suite).experiment_id], max_results=1000)


def children(results, suite="suite"):
    return {run.data.tags["trial_id"]: run for run in runs(results, suite) if "trial_id" in run.data.tags}


def parents(results, suite="suite"):
    found = [run for run in runs(results, suite) if "cell" in run.data.tags]
    return {(run.data.tags["task"], run.data.tags["model"]): run for run in found}


def test_every_trial_is_a_child_of_its_model_on_its_task(store):
    found = children(store)
    assert set(found) == {trial.id for trial in PLANNED}
    above = parents(store)
    assert len(above) == 4
    for trial in PLANNED:
        tags = found[trial.id].data.tags
        assert tags["mlflow.parentRunId"] == above[trial.task, trial.model].info.run_id
        assert (tags["seed"], tags["git_commit"]) == (str(trial.seed), "0123456789ab")


def test_a_run_ends_as_its_trial_did(store):
    ended = Counter(run.info.status for run in children(store).values())
    assert ended == {"FINISHED": 7, "FAILED": 1}
    assert all(run.info.status == "FINISHED" for run in parents(store).values())


def test_a_model_of_which_no_seed_finished_has_failed(store):
    failing = trials(("rnn",), ("adding",), 2)
    for trial in failing:
        write_failure(store, trial, Status.DIVERGED, "loss nan at step 7")
    assert mirror(store, "failing", failing).close() is None
    assert [run.info.status for run in parents(store, "failing").values()] == ["FAILED"]


def test_a_child_holds_curve_metrics_phases_parameters_and_notebook(store):
    trial = PLANNED[0]
    result = records.read_result(records.run_folder(store, trial.id))
    run = children(store)[trial.id]
    expected = {"primary": result.test["mse"], "test_mse": result.test["mse"], "score": result.score}
    expected |= {"seconds_train": result.seconds["train"], "peak_memory_mb": result.memory["peak_bytes"] / 1e6}
    expected |= {"parameters_backbone": result.parameters["backbone"]}
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    assert run.data.params["fit.learning_rate"] == "0.005"
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    curve = client.get_metric_history(run.info.run_id, "validation")
    assert [point.step for point in curve] == [
        row["step"] for row in records.read_curve(records.run_folder(store, trial.id))
    ]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["notebook.ipynb"]
    assert (store / "mlartifacts").exists()


def test_a_parent_holds_what_the_table_says(store):
    matrix = tables.matrix(tables.frame(store, PLANNED))
    for cell in matrix.to_dict("records"):
        run = parents(store)[cell["task"], cell["model"]]
        assert (run.data.metrics["n"], run.data.metrics["n_failed"]) == (cell["n"], cell["failed"])
        assert run.data.metrics.get("primary", None) == (pytest.approx(cell["mean"]) if cell["n"] else None)
        assert run.data.metrics.get("primary_low", None) == (pytest.approx(cell["low"]) if cell["n"] > 1 else None)


def test_a_parent_of_timing_trials_holds_their_medians_under_the_name_that_the_report_gives_it(store):
    tuned = {"fit.learning_rate": 0.02}
    judged = [*trials(("lstm",), ("parity",), 2)]
    judged += [replace(trial, fit={**trial.fit, "learning_rate": 0.02}, tuned=tuned) for trial in judged]
    timed = [trial for trial in timing_trials(3) if trial.model == "lstm"]
    timed = [replace(trial, fit=judged[-1].fit, tuned=tuned) for trial in timed]
    for trial in judged:
        write_run(store, trial)
    for trial in timed:
        write_cost(store, trial, STEPS_S["lstm"])
    assert mirror(store, "timed", [*judged, *timed]).close() is None
    above = [run for run in runs(store, "timed") if run.data.tags.get("cell") in {trial.cell for trial in timed}]
    (run,) = above
    assert run.info.run_name == "lstm tuned on parity, timing" and run.data.tags["status"] == "no failure"
    told = {name: run.data.metrics[name] for name in ("training_step_s", "training_memory_mb", "n", "n_failed")}
    assert told == pytest.approx({"training_step_s": 0.0101, "training_memory_mb": 2.0, "n": 3, "n_failed": 0})


def test_syncing_again_changes_nothing_and_a_changed_result_replaces_its_run(store):
    before = {key: run.info.run_id for key, run in children(store).items()}
    assert sync(store, "suite", PLANNED) == 0
    changed = next(trial for trial in PLANNED if trial.task == "recall" and trial.model == "hmm")
    write_run(store, changed, 0.123)
    assert sync(store, "suite", PLANNED) == 1
    after = {key: run.info.run_id for key, run in children(store).items()}
    assert {key for key in before if before[key] != after[key]} == {changed.id}
    assert len(runs(store)) == len(PLANNED) + 4


def test_a_half_written_run_is_replaced(store):
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    experiment = client.create_experiment("killed")
    half = client.create_run(experiment, tags={"trial_id": PLANNED[0].id})
    assert sync(store, "killed", PLANNED) == len(PLANNED)
    assert len(runs(store, "killed")) == len(PLANNED) + 4
    assert children(store, "killed")[PLANNED[0].id].info.run_id != half.info.run_id


def test_trials_without_a_result_are_left_out(store):
    unrun = trials(("gru",), ("adding",), 1)
    assert sync(store, "unrun", unrun) == 0
    assert runs(store, "unrun") == []


def test_with_nothing_new_mlflow_is_not_even_imported(store):
    sync(store, "suite", PLANNED)
    done = subprocess.run(
        [sys.executable, "-c", _NOTHING_NEW, str(store)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_a_deleted_store_is_filled_again(store):
    ledger = tracking.Ledger(store, "suite")
    assert ledger.logged
    moved = store / "mlflow.db.moved"
    (store / "mlflow.db").rename(moved)
    try:
        assert tracking.Ledger(store, "suite").logged == {}
    finally:
        moved.rename(store / "mlflow.db")


def test_a_server_that_is_down_costs_a_warning_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    write_run(tmp_path, PLANNED[0])
    warning = mirror(tmp_path, "suite", PLANNED[:1]).close()
    assert "rnnbench sync suite" in warning
    assert "\n" not in warning


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        write_run(tmp_path, PLANNED[0])
        assert "rnnbench sync suite" in mirror(tmp_path, "suite", PLANNED[:1]).close()


def test_ctrl_c_ends_the_wait_for_a_slow_store(tmp_path, monkeypatch):
    """Which would else go on at the end of the interpreter, for as long as the store likes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        write_run(tmp_path, PLANNED[0])
        tracker = mirror(tmp_path, "suite", PLANNED[:1])
        writer = tracker._writer._process
        join = writer.join

        def interrupted(timeout=None):
            monkeypatch.setattr(writer, "join", join)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracker.close()
    assert not writer.is_alive() and tracker.close() is None
