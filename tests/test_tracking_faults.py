"""MLflow's store down, slow, locked, opened by many at once, or left half-written by a kill: trials never wait, nothing is lost
or there twice."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from slow_server import Store, serving
from synthetic_runs import trials, write_run
from test_command_line import TINY, call, finish

from benchmarks import records, tracking
from benchmarks.records import Status
from benchmarks.suite import load
from benchmarks.tracking import StoreUnreachable, Tracker, sync

ROOT = Path(__file__).resolve().parents[1]
PLANNED = trials(("lstm", "hmm"), ("recall",), 2)
WRITES = ("create_run", "delete_run", "log_batch", "log_artifact", "set_tag", "set_terminated")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder whose first trial is in the store, for its schema takes seconds to make."""
    results = tmp_path_factory.mktemp("template")
    write_run(results, PLANNED[0], 0.5)
    assert sync(results, "suite", PLANNED) == 1
    return results


@pytest.fixture
def results(template: Path, tmp_path: Path) -> Path:
    """Four results, of which the store has an older one of the first."""
    return filled(template, tmp_path / "results")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Four results, for a server that has none."""
    for trial in PLANNED:
        write_run(tmp_path / "results", trial)
    return tmp_path / "results"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is given up after a second, as the environment may ask for."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def filled(template: Path, results: Path) -> Path:
    shutil.copytree(template, results)
    for trial in PLANNED:
        write_run(results, trial)
    return results


def mirror(results: Path) -> Tracker:
    tracker = Tracker(results, "suite", PLANNED)
    for trial in PLANNED:
        result = records.read_result(records.run_folder(results, trial.id))
        assert result is not None
        tracker.submit(trial, result)
    return tracker


def assert_whole(results: Path) -> None:
    """Every trial once, as its folder has it; every run ended; every parent with its mean."""
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    experiment = client.get_experiment_by_name("suite")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [run for run in found if "trial_id" in run.data.tags]
    assert sorted(run.data.tags["trial_id"] for run in children) == sorted(trial.id for trial in PLANNED)
    assert len(found) == len(PLANNED) + 2 and {run.info.status for run in found} == {"FINISHED"}
    for run in children:
        folder = records.run_folder(results, run.data.tags["trial_id"])
        assert run.data.tags["result_digest"] == records.file_digest(folder / "result.json")
        result = records.read_result(folder)
        assert result is not None and run.data.metrics["primary"] == result.test["accuracy"]
        points = client.get_metric_history(run.info.run_id, "validation")
        assert [point.step for point in points] == [row["step"] for row in records.read_curve(folder)]
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["notebook.ipynb"]
    assert all(run.data.metrics["n"] == 2 for run in found if run not in children)
    assert set(tracking.Ledger(results, "suite").logged) == {trial.id for trial in PLANNED}


def assert_served(store: Store) -> None:
    """The same of the server's store."""
    found = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in store.children()]
    assert Counter(tags["trial_id"] for tags in found) == {trial.id: 1 for trial in PLANNED}
    assert all("result_digest" in tags for tags in found)
    assert {run["info"]["status"] for run in store.children()} == {"FINISHED"}


def killed_before_write(n: int, work: Callable[[], object]) -> bool:
    """Does the work in a process that is killed just before its n-th write to the store; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        count = itertools.count()

        def counted(write: Callable[..., object]) -> Callable[..., object]:
            def instead(*arguments: object, **named: object) -> object:
                if next(count) == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*arguments, **named)

            return instead

        try:
            for name in WRITES:
                setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def made_good(template: Path, results: Path, n: int) -> bool:
    """Kills a writer before its n-th write, and has the next run or `sync` make it good; whether the writer was killed."""
    filled(template, results)
    killed = killed_before_write(n, lambda: sync(results, "suite", PLANNED))
    if n % 2:
        assert mirror(results).close() is None
    else:
        sync(results, "suite", PLANNED)
    assert_whole(results)
    return killed


@pytest.mark.parametrize("n", [2, 5])
def test_a_kill_in_the_middle_is_made_good_by_the_next_run_or_by_sync(template: Path, tmp_path: Path, n: int) -> None:
    assert made_good(template, tmp_path / "results", n)


@pytest.mark.slow
def test_a_kill_before_any_write_is_made_good(template: Path, tmp_path: Path) -> None:
    n = 0
    while made_good(template, tmp_path / str(n), n):
        n += 1
    assert n > 20


def test_a_finished_suite_that_the_store_lacks_is_filled_in_by_running_it_again(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, results = tmp_path / "tiny.yaml", tmp_path / "results"
    suite.write_text(TINY)
    shutil.copytree(template, results)
    planned = load(str(suite)).trials(device="cpu")
    finish(planned[0], results)
    finish(planned[1], results, Status.SKIPPED)
    arguments = ("run", str(suite), "--results", str(results), "--device", "cpu", "--no-report")
    assert call(monkeypatch, *arguments) == 0
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert {run.data.tags["trial_id"] for run in found if "trial_id" in run.data.tags} == {x.id for x in planned}


def test_what_a_failed_summary_left_out_is_written_by_the_next_run(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(tracking.Store, "summarise", lambda *_: 1 / 0)
        warning = mirror(results).close()
        assert warning is not None and "ZeroDivisionError" in warning
    assert mirror(results).close() is None
    assert_whole(results)


def test_the_writer_is_another_process_whose_death_costs_a_warning(results: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_tracking_faults import *\n"
        "mirrored = mirror(Path(sys.argv[1])); (writer,) = multiprocessing.active_children()\n"
        "print(writer.pid); writer.kill(); print(mirrored.close())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "its writer died with exit code -9; results are safe, catch up with: rnnbench sync" in done.stdout
    assert sync(results, "suite", PLANNED) > 0
    assert_whole(results)


def test_a_writer_dies_with_its_coordinator(results: Path, locked: Callable[[], None]) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_tracking_faults import *\n"
        "mirrored = mirror(Path(sys.argv[1])); (writer,) = multiprocessing.active_children()\n"
        "print(writer.pid, flush=True); time.sleep(600)"
    )
    coordinator = subprocess.Popen([sys.executable, "-c", code, str(results)], stdout=subprocess.PIPE, cwd=ROOT)
    assert coordinator.stdout is not None
    writer = int(coordinator.stdout.readline())
    assert Path(f"/proc/{writer}").exists()
    coordinator.kill()
    coordinator.communicate()
    until = time.monotonic() + 10
    while Path(f"/proc/{writer}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{writer}").exists()


# ----- a server ------------------------------------------------------------------------------------------------------


def test_trials_never_wait_for_a_slow_server(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "artifacts", delay_s=0.2)
    with serving(store) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        tracker = mirror(remote)
        assert time.monotonic() - started < 1.0  # for four trials, whose requests take more than four seconds
        assert tracker.close() is None
        assert time.monotonic() - started > 3.0
    assert_served(store)


@pytest.mark.slow
def test_the_end_of_a_run_over_a_slow_server_is_bounded_and_sync_writes_the_rest(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "artifacts", delay_s=0.5)
    with serving(store) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        code = (
            "import sys, time; sys.path.insert(0, 'tests'); from pathlib import Path\n"
            "from benchmarks import tracking; from test_tracking_faults import mirror\n"
            "tracker = mirror(Path(sys.argv[1])); time.sleep(3); tracking.DRAIN_SECONDS = 1\n"
            "begun = time.monotonic(); print(tracker.close()); print(time.monotonic() - begun)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(remote)], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0 and "Fatal" not in done.stderr, done.stderr
        warning, seconds = done.stdout.splitlines()
        assert "still busy after 1 s" in warning and "rnnbench sync suite" in warning and float(seconds) < 2
        assert 0 < len(store.children()) < len(PLANNED)
        store.delay_s = 0
        assert sync(remote, "suite", PLANNED) > 0
    assert_served(store)


@pytest.mark.parametrize("n", [0, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 13))])
@pytest.mark.parametrize("how", ["dies", "falls silent"])
def test_a_server_lost_in_the_middle_costs_a_warning_and_the_next_run_fills_in(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None, how: str, n: int
) -> None:
    lost = {"dies_after": n} if how == "dies" else {"silent_after": n}
    store = Store(tmp_path / "artifacts", **lost)  # type: ignore[arg-type]
    with serving(store) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        tracker = mirror(remote)
        assert time.monotonic() - started < 1.0
        warning = tracker.close()
        assert warning is not None and "rnnbench sync suite" in warning and "\n" not in warning
        assert time.monotonic() - started < tracking.DRAIN_SECONDS / 2  # given up, not waited for
        with pytest.raises(StoreUnreachable, match="results are safe"):
            sync(remote, "suite", PLANNED)
        store.dies_after = store.silent_after = None
        assert mirror(remote).close() is None
    assert_served(store)


def test_without_a_server_a_run_ends_with_0_and_a_warning_and_sync_with_3_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    suite, results = tmp_path / "tiny.yaml", tmp_path / "results"
    suite.write_text(TINY)
    planned = load(str(suite)).trials(device="cpu")
    finish(planned[0], results)
    finish(planned[1], results, Status.SKIPPED)
    common = (str(suite), "--results", str(results), "--device", "cpu")
    assert call(monkeypatch, "run", *common, "--no-report") == 0
    told = capsys.readouterr()
    assert "2 trials: 1 ok, 1 skipped" in told.out
    assert told.err.count("\n") == 1 and "catch up with: rnnbench sync tiny" in told.err
    assert call(monkeypatch, "sync", *common) == 3
    told = capsys.readouterr()
    assert told.err.startswith("MLflow at http://127.0.0.1:9: ") and told.err.count("\n") == 1


# ----- SQLite --------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(results: Path) -> Iterator[Callable[[], None]]:
    """The database, locked by another program until this is called."""
    code = (
        "import sqlite3, sys, time; other = sqlite3.connect(sys.argv[1]); other.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True); time.sleep(600)"
    )
    call = [sys.executable, "-c", code, str(results / "mlflow.db")]
    with subprocess.Popen(call, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield other.kill
        other.kill()


def test_a_database_that_is_locked_for_a_while_is_waited_for(results: Path, locked: Callable[[], None]) -> None:
    started = time.monotonic()
    tracker = mirror(results)
    assert time.monotonic() - started < 1.0
    threading.Timer(2.0, locked).start()
    assert tracker.close() is None
    assert_whole(results)


def test_a_database_that_stays_locked_costs_a_warning_and_is_filled_in_later(
    results: Path, locked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "DRAIN_SECONDS", 1.0)
    started = time.monotonic()
    warning = mirror(results).close()
    assert warning is not None and "rnnbench sync suite" in warning and time.monotonic() - started < 3
    with pytest.raises(StoreUnreachable, match="database is locked"):
        sync(results, "suite", PLANNED)
    locked()
    sync(results, "suite", PLANNED)
    assert_whole(results)


def test_a_store_that_another_command_writes_is_left_to_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "DRAIN_SECONDS", 0.1)
    with (
        tracking.writing(results),
        pytest.raises(StoreUnreachable, match="another process has been writing it"),
    ):
        sync(results, "suite", PLANNED)


def test_many_that_open_a_new_store_at_once_make_one(remote: Path) -> None:
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=sync, args=(remote, "suite", PLANNED)) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join(120)
        assert other.exitcode == 0
    assert_whole(remote)


def test_a_torn_ledger_is_none(results: Path) -> None:
    path = tracking.Ledger(results, "suite").path
    for content in (b"", b"{", b"[]", b"3", b'{"uri": 1}', b'{"logged": 3}', b"\xff"):
        path.write_bytes(content)
        assert tracking.Ledger(results, "suite").logged == {}
