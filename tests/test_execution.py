"""Whatever happens to a trial becomes a row, and whatever happens to the supervisor, nothing is lost and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faulty
import nbformat
import numpy as np
import psutil
import pytest

from benchmarks.execution import fork_server, supervisor
from benchmarks.execution.lock import FolderInUse, locked
from benchmarks.execution.plan import plan, refusal
from benchmarks.execution.slots import Slots
from benchmarks.execution.supervisor import StorageError, Summary
from benchmarks.records import Status, read_curve, read_result, run_folder
from benchmarks.running import Options, code_digests, supervise
from benchmarks.trial import Trial, specify

pytestmark = pytest.mark.usefixtures("plugin")


def execute(trials: list[Trial], results: Path, notebook: Path, deadline_s: float = 60.0) -> Summary:
    return supervisor.run(trials, _digests(trials), results, 2, notebook=notebook, deadline_s=deadline_s)


def _digests(trials: list[Trial], digest: str = "digest") -> dict[str, str]:
    return {trial.id: digest for trial in trials}


def _statuses(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.metadata.papermill.status for cell in cells if cell.cell_type == "code"]


def test_each_ending_of_a_trial_is_a_row_with_its_status_and_siblings_go_on(tmp_path: Path, notebook: Path) -> None:
    expected = {
        "none": (Status.OK, None),
        "error": (Status.ERROR, "ValueError: bad luck (cell 4 of notebook.ipynb)"),
        "exit": (Status.INCOMPLETE, "without writing a result"),
        "kill": (Status.KERNEL_DIED, "SIGKILL"),
        "segfault": (Status.KERNEL_DIED, "SIGSEGV"),
        "memory": (Status.OOM_CPU, "MemoryError"),
        "gpu_memory": (Status.OOM_GPU, "CUDA out of memory"),
        "diverged": (Status.DIVERGED, "nan at step 7"),
        "fit_timeout": (Status.TIMEOUT, "reached its cap"),
        "invalid_metric": (Status.INVALID_METRIC, "accuracy is nan"),
    }
    trials = [faulty.trial(fault) for fault in expected]
    summary = execute(trials, tmp_path, notebook)
    assert len(summary.results) == len(trials) and summary.stopped_by is None
    for trial, (status, reason) in zip(trials, expected.values(), strict=True):
        result = read_result(run_folder(tmp_path, trial.id))
        assert result is not None and result.status == status, result
        assert (result.reason is None) if reason is None else (reason in str(result.reason))
    assert "Segmentation fault" in (run_folder(tmp_path, trials[4].id) / "stderr.log").read_text()


def test_a_killed_kernels_notebook_says_which_cell_was_running_and_which_never_ran(
    tmp_path: Path, notebook: Path
) -> None:
    trial = faulty.trial("kill")
    execute([trial], tmp_path, notebook)
    folder = run_folder(tmp_path, trial.id)
    assert _statuses(folder / "notebook.ipynb") == ["completed", "completed", "completed", "failed", "pending"]
    assert {path.name for path in folder.iterdir()} == {
        "spec.json",
        "env.json",
        "metrics.jsonl",
        "notebook.ipynb",
        "result.json",
        "stderr.log",
    }


def test_a_trial_runs_on_one_thread_and_the_environment_says_so(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("none")
    (result,) = execute([trial], tmp_path, notebook).results
    assert result.parameters["threads"] == 1
    assert json.loads((run_folder(tmp_path, trial.id) / "env.json").read_text())["threads"] == 1


def test_a_hang_is_a_timeout_and_keeps_the_partial_curve(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("hang")
    summary = execute([trial], tmp_path, notebook, deadline_s=5.0)
    assert [result.status for result in summary.results] == [Status.TIMEOUT]
    assert "SIGINT" in str(summary.results[0].reason)
    assert read_curve(run_folder(tmp_path, trial.id)) == [{"step": 0, "validation": 0.25, "best": True}]
    assert summary.results[0].best_before == {"step": 0, "validation": 0.25}


@pytest.mark.slow
def test_a_hang_that_ignores_signals_is_killed_with_its_children(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("deaf")
    summary = execute([trial], tmp_path, notebook, deadline_s=10.0)
    assert [result.status for result in summary.results] == [Status.TIMEOUT]
    assert "SIGKILL" in str(summary.results[0].reason)
    pids = [int(line) for line in (notebook.parent / "deaf.pids").read_text().split()]
    assert len(pids) == 2
    assert _wait_until(lambda: not any(_is_alive(pid) for pid in pids), 5)
    # Nobody was left to save the notebook: it says what it did while the cell ran.
    saved = _statuses(run_folder(tmp_path, trial.id) / "notebook.ipynb")
    assert saved == ["completed", "completed", "completed", "running", "pending"]


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_second_run_runs_only_what_has_no_valid_result(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("none", seed) for seed in range(4)]
    execute(trials[:2], tmp_path, notebook)
    (run_folder(tmp_path, trials[0].id) / "result.json").write_text('{"trial_id": ')
    summary = execute(trials, tmp_path, notebook)
    assert summary.n_reused == 1
    assert {result.trial_id for result in summary.results} == {trials[0].id, trials[2].id, trials[3].id}
    assert [path.name.split("-")[0] for path in summary.quarantined] == [trials[0].id]
    assert (summary.quarantined[0] / "result.json").read_text() == '{"trial_id": '


def test_a_result_of_other_code_is_stale_and_run_again(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("none")
    execute([trial], tmp_path, notebook)
    assert plan([trial], _digests([trial], "newer"), tmp_path).stale == [trial]
    supervisor.run([trial], _digests([trial], "newer"), tmp_path, 1, notebook=notebook)
    result = read_result(run_folder(tmp_path, trial.id))
    assert result is not None and result.code_digest == "newer"


def test_a_task_that_a_model_cannot_do_is_a_skip_with_the_reason_and_starts_no_kernel(
    tmp_path: Path, notebook: Path
) -> None:
    trial = specify("japanese_vowels", "faulty", 0, None, "cpu")
    assert refusal(trial) == "it would rather not"
    summary = execute([trial], tmp_path, notebook)
    assert [(result.status, result.reason) for result in summary.results] == [(Status.SKIPPED, "it would rather not")]
    assert [path.name for path in run_folder(tmp_path, trial.id).iterdir()] == ["result.json"]


def test_a_kernel_that_does_not_start_is_tried_three_times_and_is_no_fault_of_the_model(
    tmp_path: Path, notebook: Path
) -> None:
    trial = faulty.trial("none")
    broken = notebook.parent / "broken.ipynb"
    broken.write_text("{}")
    tries = []
    start = supervisor._Supervisor._start

    def counted(self: supervisor._Supervisor, *arguments: object) -> None:
        tries.append(arguments)
        start(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor._Supervisor, "_start", counted)
        summary = execute([trial], tmp_path, broken)
    assert [result.status for result in summary.results] == [Status.INFRA_ERROR]
    assert len(tries) == supervisor.TRIES
    assert plan([trial], _digests([trial]), tmp_path).missing == [trial]


def test_a_missing_gpu_is_no_fault_of_the_model_and_each_try_has_its_part_of_a_gpu(
    tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Slots] = []

    def recorded(gpus: list[str], n: int, in_turn: bool = False) -> Slots:
        made.append(Slots(gpus, n, in_turn))
        return made[-1]

    monkeypatch.setattr(supervisor, "visible_gpus", lambda: ["3"])
    monkeypatch.setattr(supervisor, "Slots", recorded)
    trials = [replace(faulty.trial("no_gpu", seed), device="cuda") for seed in range(2)]
    summary = execute(trials, tmp_path, notebook)
    assert [result.status for result in summary.results] == [Status.INFRA_ERROR] * 2
    assert all("not 3, of it 0.5 (cell 4" in str(result.reason) for result in summary.results)
    assert made[-1].taken == {"3": 0}


def test_a_full_disk_stops_the_run_with_a_sentence_and_writes_no_row(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("full_disk")
    with pytest.raises(StorageError, match="run the same command again"):
        execute([trial], tmp_path, notebook)
    assert read_result(run_folder(tmp_path, trial.id)) is None


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path, notebook: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        execute([faulty.trial("none")], tmp_path / "file" / "results", notebook)


def test_a_second_run_over_one_folder_is_refused_and_names_the_first(tmp_path: Path, notebook: Path) -> None:
    with locked(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()} "):
        execute([faulty.trial("none")], tmp_path, notebook)
    assert execute([], tmp_path, notebook).results == []


def test_a_run_that_was_refused_prints_no_empty_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = faulty.trial("none")
    digests = code_digests([trial])
    with locked(tmp_path), pytest.raises(FolderInUse):
        supervise([trial], plan([trial], digests, tmp_path), digests, Options(tmp_path, 1))
    assert capsys.readouterr().out.strip() == ""


def _coordinator(results: Path, notebook: Path, plugin: Path, faults: list[str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(plugin), str(Path(faulty.__file__).parent)])
    environment = os.environ | {"PYTHONPATH": path, "RNNBENCH_TEST": str(results)}
    command = [sys.executable, faulty.__file__, str(results), str(notebook), *faults]
    return subprocess.Popen(command, env=environment)


def _family(results: Path) -> list[int]:
    """Every process that descends from a coordinator over this folder, by a mark in the environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RNNBENCH_TEST") == str(results) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _wait_until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_of_the_coordinator_leave_no_orphan_and_lose_no_result(
    tmp_path: Path, notebook: Path, plugin: Path
) -> None:
    faults = ["short"] * 60
    trials = [faulty.trial(fault, seed) for seed, fault in enumerate(faults)]
    moments = np.random.default_rng(0).uniform(2, 14, size=20)
    done: dict[str, int] = {}
    for moment in moments:
        coordinator = _coordinator(tmp_path, notebook, plugin, faults)
        time.sleep(moment)
        coordinator.kill()
        coordinator.wait()
        assert _wait_until(lambda: not _family(tmp_path), 5), _family(tmp_path)
        files = {trial.id: run_folder(tmp_path, trial.id) / "result.json" for trial in trials}
        now = {name: path.stat().st_mtime_ns for name, path in files.items() if path.exists()}
        assert done.items() <= now.items(), "a finished trial was lost or run again"
        done = now
    assert _coordinator(tmp_path, notebook, plugin, faults).wait() == 0
    for trial in trials:
        result = read_result(run_folder(tmp_path, trial.id))
        assert result is not None and result.test == {"accuracy": float(trial.seed)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"), [([signal.SIGINT], 130), ([signal.SIGINT] * 2, 130), ([signal.SIGTERM], 143)]
)
def test_ctrl_c_drains_twice_or_sigterm_kills_and_all_can_be_resumed(
    tmp_path: Path, notebook: Path, plugin: Path, signals: list[signal.Signals], code: int
) -> None:
    drains = len(signals) == 1 and code == 130
    faults = ["short" if drains else "hang"] * 8
    coordinator = _coordinator(tmp_path, notebook, plugin, faults)
    assert _wait_until(lambda: list((tmp_path / "runs").glob("*/metrics.jsonl")), 60)
    for signum in signals:
        coordinator.send_signal(signum)
        time.sleep(0.5)
    assert coordinator.wait(30) == code
    assert _wait_until(lambda: not _family(tmp_path), 5)
    found = plan([faulty.trial(fault, seed) for seed, fault in enumerate(faults)], _Constant("digest"), tmp_path)
    assert (len(found.done) > 0) is drains and len(found.missing) > 0


class _Constant(dict[str, str]):
    """A mapping that has one answer."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def __missing__(self, key: str) -> str:
        return self.answer


@pytest.mark.slow
def test_where_forking_is_unsafe_a_new_interpreter_does_the_same(
    tmp_path: Path, notebook: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), str(Path(faulty.__file__).parent)]))
    monkeypatch.setattr(fork_server, "is_available", lambda: False)
    trials, warnings = [faulty.trial(fault) for fault in ("none", "error", "kill")], []
    summary = supervisor.run(trials, _digests(trials), tmp_path, 2, notebook=notebook, on_warning=warnings.append)
    assert warnings == [supervisor.NOT_FORKED]
    results = {result.trial_id: result for result in summary.results}
    none, error, kill = (results[trial.id] for trial in trials)
    assert (none.status, error.status, kill.status) == (Status.OK, Status.ERROR, Status.KERNEL_DIED)
    assert none.parameters["forked"] == 0 and "SIGKILL" in str(kill.reason)


@pytest.mark.slow
def test_a_script_that_runs_trials_is_not_run_again_by_each_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from benchmarks import provenance\nfrom benchmarks.execution import supervisor\n"
        "from benchmarks.trial import Overrides, specify\n"
        "print('once')\n"
        "small = Overrides({'length': 10, 'n_train': 64, 'n_validation': 64, 'n_test': 64})\n"
        "trial = specify('adding', 'floor', 0, None, 'cpu', small)\n"
        "digests = {trial.id: provenance.code_digest(trial.task, trial.model)}\n"
        "print(*supervisor.run([trial], digests, Path(sys.argv[1]), 1).counts)\n"
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "results")], capture_output=True, text=True)
    assert done.stdout.split() == ["once", "ok"], done.stderr
