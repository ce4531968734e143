"""Faults whose cause is easily mistaken: each row and each sentence names the right one, and what a trial leaves is ended."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import faulty
import psutil
import pytest
from waiting import within

from benchmarks.execution import family, memory, notebook_run, scratch, supervisor
from benchmarks.execution.lifeline import COORDINATOR
from benchmarks.execution.plan import plan
from benchmarks.execution.supervisor import StorageError, Summary
from benchmarks.records import Status, read_result, run_folder
from benchmarks.trial import Trial

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("plugin")


def execute(trials: list[Trial], results: Path, notebook: Path, **options: object) -> Summary:
    digests = {trial.id: "digest" for trial in trials}
    return supervisor.run(trials, digests, results, 2, notebook=notebook, deadline_s=120.0, **options)  # type: ignore[arg-type]


def by_trial(summary: Summary, trials: list[Trial]) -> list[tuple[Status, str]]:
    results = {result.trial_id: result for result in summary.results}
    return [(results[trial.id].status, str(results[trial.id].reason)) for trial in trials]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ----- blame -----------------------------------------------------------------------------------------------------------


def test_a_model_that_removes_its_run_folder_is_an_error_and_the_others_go_on(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("removes_folder"), faulty.trial("none")]
    (status, reason), sibling = by_trial(execute(trials, tmp_path, notebook), trials)
    assert status == Status.ERROR and "run folder was removed" in reason
    assert sibling[0] == Status.OK
    assert plan(trials, {trial.id: "digest" for trial in trials}, tmp_path).to_run == []


def test_a_model_that_raises_keyboard_interrupt_is_an_error_and_is_not_run_again(
    tmp_path: Path, notebook: Path
) -> None:
    trial = faulty.trial("keyboard")
    ((status, reason),) = by_trial(execute([trial], tmp_path, notebook), [trial])
    assert status == Status.ERROR and "KeyboardInterrupt" in reason
    assert plan([trial], {trial.id: "digest"}, tmp_path).to_run == []


def test_want_of_address_space_is_want_of_memory_and_the_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "could not create a primitive"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert notebook_run._status_of("RuntimeError", message) == Status.ERROR
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4_000_000_000,) * 2)
    assert notebook_run._status_of("RuntimeError", message) == Status.OOM_CPU
    assert notebook_run._status_of("OSError", "[Errno 12] Cannot allocate memory") == Status.OOM_CPU
    assert notebook_run._status_of("ValueError", "bad luck") == Status.ERROR


CODE = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], "tests"]
{before}
import faulty
from benchmarks.execution import supervisor
trials = [faulty.trial(fault) for fault in {faults}]
digests = {{trial.id: "digest" for trial in trials}}
summary = supervisor.run(trials, digests, Path(sys.argv[2]), 1, notebook=Path(sys.argv[3]))
for result in summary.results:
    print(result.status, result.reason)
"""


def elsewhere(
    plugin: Path, results: Path, notebook: Path, before: str, *faults: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs trials in a process with a setting of its own."""
    command = [sys.executable, "-c", CODE.format(before=before, faults=faults), plugin, results, notebook]
    path = os.pathsep.join(map(str, (plugin, ROOT, ROOT / "tests")))
    return subprocess.run(
        list(map(str, command)),
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_under_a_limit_of_the_address_space_the_row_names_it(tmp_path: Path, notebook: Path, plugin: Path) -> None:
    before = "resource.setrlimit(resource.RLIMIT_AS, (40_000_000_000,) * 2)"
    done = elsewhere(plugin, tmp_path, notebook, before, "primitive")
    assert "oom_cpu" in done.stdout and "limited to 40.0 GB (ulimit -v)" in done.stdout, done.stderr


def test_an_address_space_that_is_too_small_to_start_with_is_one_sentence(
    tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(supervisor.BaseProcess):
        def start(self) -> None:
            raise EOFError("unexpected EOF")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_200_000_000,) * 2)
    monkeypatch.setattr(supervisor.fork_server.context(True), "Process", Refused)
    with pytest.raises(supervisor.ServerDied, match=r"died 3 times .* limited to 1.2 GB \(ulimit -v\)"):
        execute([faulty.trial("none")], tmp_path, notebook)


def test_a_long_tmpdir_is_no_obstacle(tmp_path: Path, notebook: Path, plugin: Path) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    done = elsewhere(plugin, tmp_path / "results", notebook, "", "none", TMPDIR=str(long))
    assert done.stdout == "ok None\n", done.stderr


def test_where_no_folder_can_hold_sockets_the_sentence_names_tmpdir(
    tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(scratch, "_parents", lambda: iter([Path("/nowhere"), Path("/" + "t" * 100)]))
    scratch.folder.cache_clear()
    try:
        with pytest.raises(StorageError, match="TMPDIR is '/nowhere'"):
            execute([faulty.trial("none")], tmp_path, notebook)
    finally:
        scratch.folder.cache_clear()


def test_a_shared_memory_that_cannot_be_written_is_no_obstacle(tmp_path: Path, notebook: Path, plugin: Path) -> None:
    before = (
        "import _multiprocessing, errno\n"
        "def refused(*_): raise OSError(errno.EROFS, 'Read-only file system')\n"
        "_multiprocessing.SemLock = refused\n"
        "from benchmarks.trial import check_buildable, specify\n"
        "assert check_buildable([specify('adding', 'lstm', 0, 2000, 'cpu')]) is None"
    )
    done = elsewhere(plugin, tmp_path, notebook, before, "none")
    assert done.stdout == "ok None\n", done.stderr


def test_a_full_standard_output_is_named_and_results_are_written(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(
        "# Command: rnnbench run tiny.yaml\n# Time: seconds\n# Expected: one row\nname: tiny\n"
        "description: One trial.\nseeds: 1\ngrids:\n  - models: [floor]\n"
        "    tasks: [{name: adding, parameters: {length: 10, n_train: 64, n_validation: 64, n_test: 64}}]\n"
    )
    command = [sys.executable, "-m", "benchmarks", "run", str(suite), "--device", "cpu", "--no-report"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--results", str(tmp_path / "results")], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode == 3 and "standard output could not be written: No space left" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert len(list((tmp_path / "results").glob("runs/*/result.json"))) == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m benchmarks list tasks | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == ""


# ----- memory ----------------------------------------------------------------------------------------------------------


def test_a_trial_that_leaks_is_ended_at_its_share_of_memory_and_the_others_go_on(
    tmp_path: Path, notebook: Path
) -> None:
    trials = [faulty.trial("leak"), faulty.trial("short", 1), faulty.trial("short", 2)]
    rows = by_trial(execute(trials, tmp_path, notebook, memory_bytes=1_000_000_000), trials)
    assert rows[0][0] == Status.OOM_CPU and "more than its share of this machine's, 1.0 GB" in rows[0][1]
    assert [status for status, _ in rows[1:]] == [Status.OK] * 2
    assert "died in this cell" not in rows[0][1]
    saved = (run_folder(tmp_path, trials[0].id) / "notebook.ipynb").read_text()
    assert '"status": "failed"' in saved and '"status": "pending"' in saved


def test_the_share_of_a_trial_is_its_part_of_what_this_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n")
    assert memory.share_bytes(1) == int(0.9 * psutil.virtual_memory().total)
    limit.write_text("1000000\n")
    assert memory.share_bytes(3) == 300_000


# ----- what is left behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["strays", "strays_killed"])
def test_what_a_trial_starts_in_sessions_of_its_own_ends_with_it(tmp_path: Path, notebook: Path, fault: str) -> None:
    pids_file = notebook.parent / "strays.pids"
    pids_file.unlink(missing_ok=True)
    trial = faulty.trial(fault)
    ((status, _),) = by_trial(execute([trial], tmp_path, notebook), [trial])
    assert status == (Status.OK if fault == "strays" else Status.KERNEL_DIED)
    pids = [int(line) for line in pids_file.read_text().split()]
    assert len(pids) == 2 and within(10, lambda: not any(map(is_alive, pids))), pids


def test_what_a_killed_run_left_is_ended_at_the_next_start() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    marked = {
        name: subprocess.Popen(["sleep", "600"], env=os.environ | {COORDINATOR: str(pid)}, start_new_session=True)
        for name, pid in (("abandoned", gone.pid), ("ours", os.getpid()))
    }
    try:
        assert within(10, lambda: family._is_abandoned(str(marked["abandoned"].pid)))
        assert family.end_abandoned() >= 1
        assert marked["abandoned"].wait(10) == -signal.SIGKILL
        assert marked["ours"].poll() is None
    finally:
        for process in marked.values():
            process.kill()
            process.wait()


def test_scratch_folders_of_killed_runs_are_removed_at_the_next_start(tmp_path: Path) -> None:
    code = (
        "import time; from benchmarks.execution import scratch, fork_server\n"
        "print(scratch.folder(), flush=True); fork_server.context(True); time.sleep(600)"
    )
    base = Path("/tmp") / f"rb{os.getpid()}"
    base.mkdir()
    try:
        owners = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(base)},
            )
            for _ in range(2)
        ]
        folders = [Path(owner.stdout.readline().strip()) for owner in owners]  # type: ignore[union-attr]
        assert all(within(10, lambda folder=folder: any(folder.glob("pymp-*"))) for folder in folders)
        owners[0].kill()
        owners[0].wait()
        scratch._remove_abandoned(base)
        assert [folder.exists() for folder in folders] == [False, True]
        owners[1].kill()
        for owner in owners:
            owner.communicate()
    finally:
        shutil.rmtree(base)


def test_a_scratch_folder_is_locked_by_its_owner() -> None:
    with (scratch.folder() / scratch.OWNER).open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_row_of_a_removed_folder_is_a_whole_result(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("removes_folder")
    execute([trial], tmp_path, notebook)
    folder = run_folder(tmp_path, trial.id)
    assert read_result(folder) is not None and {"spec.json", "env.json"} <= {path.name for path in folder.iterdir()}
