"""Faults of a trial that the supervisor must notice by itself, and what a person is then told."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faulty
import psutil
import pytest
from typer.testing import CliRunner

from benchmarks import failures_section, tables
from benchmarks.__main__ import app
from benchmarks.execution import capped_output, memory, notebook_run, supervisor
from benchmarks.execution.liveness import Sign, processor_seconds
from benchmarks.execution.order import Expected, Queue
from benchmarks.execution.plan import plan, retried
from benchmarks.execution.supervisor import Summary
from benchmarks.execution.waiting_kernel import WaitingKernel
from benchmarks.records import Result, Status, failure, read_result, run_folder, write_result
from benchmarks.report_sections import Study
from benchmarks.trial import Overrides, Trial, specify
from models.names import UnknownName

pytestmark = pytest.mark.usefixtures("plugin")


def execute(trials: list[Trial], results: Path, notebook: Path, **options: object) -> Summary:
    digests = {trial.id: "digest" for trial in trials}
    return supervisor.run(trials, digests, results, 2, notebook=notebook, deadline_s=60.0, **options)  # type: ignore[arg-type]


def test_a_notebook_that_prints_without_end_is_cut_with_a_marker(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("loud")
    (result,) = execute([trial], tmp_path, notebook).results
    assert result.status == Status.OK
    written = run_folder(tmp_path, trial.id) / "notebook.ipynb"
    assert written.stat().st_size < 2 * capped_output.CAP
    assert written.read_text().count("characters is left out") == 1


def test_a_trial_without_a_sign_of_life_is_warned_of_and_then_ended(tmp_path: Path, notebook: Path) -> None:
    trials, warnings = [faulty.trial("stopped"), faulty.trial("none")], []
    summary = execute(trials, tmp_path, notebook, stall_s=4.0, on_warning=warnings.append)
    statuses = {result.trial_id: result for result in summary.results}
    assert statuses[trials[1].id].status == Status.OK
    ended = statuses[trials[0].id]
    assert ended.status == Status.TIMEOUT and "used no processor" in str(ended.reason)
    (warning,) = warnings
    assert trials[0].id in warning and "will be ended" in warning


def test_silence_is_counted_from_the_last_use_of_a_processor() -> None:
    sign = Sign(processor_s=1.0, at=100.0)
    assert sign.see(1.0, 110.0) == 10.0
    assert sign.see(1.005, 120.0) == 20.0, "what an idle kernel uses for itself is no sign of life"
    assert sign.see(1.5, 130.0) == 0.0
    assert sign.see(0.2, 135.0) == 0.0, "a process that ended takes its share with it"


BUSY = "import time\nwhile time.process_time() < 1: pass\ntime.sleep(60)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {BUSY!r}]); time.sleep(60)"


def test_the_processor_time_of_a_trial_is_that_of_all_it_has_started() -> None:
    started = [subprocess.Popen([sys.executable, "-c", code]) for code in (PARENT, "import time; time.sleep(60)")]
    pids = [process.pid for process in started]
    try:
        end = time.monotonic() + 20
        while processor_seconds(pids)[pids[0]] < 0.5 and time.monotonic() < end:
            time.sleep(0.1)
        used = processor_seconds(pids)
        assert used[pids[0]] >= 0.5 and used[pids[1]] == 0.0
    finally:
        for process in [*psutil.Process(pids[0]).children(recursive=True), *started]:
            process.kill()
        for process in started:
            process.wait()


def test_a_killed_worker_is_a_row_and_its_kernel_goes_with_it(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("worker_killed"), faulty.trial("none")]
    started = time.monotonic()
    results = {result.trial_id: result for result in execute(trials, tmp_path, notebook).results}
    assert time.monotonic() - started < 50, "its kernel would sleep for a minute"
    assert results[trials[0].id].status == Status.KERNEL_DIED and "SIGKILL" in str(results[trials[0].id].reason)
    assert results[trials[1].id].status == Status.OK


class _Kernel:
    """As much of a dead kernel as is asked for its exit code."""

    def __init__(self, exitcode: int | None) -> None:
        self.process = self
        self.exitcode = exitcode


@pytest.mark.parametrize(
    ("exitcode", "n_kills", "status"),
    [(-9, 1, Status.OOM_CPU), (None, 1, Status.OOM_CPU), (-9, 0, Status.KERNEL_DIED), (-11, 1, Status.KERNEL_DIED)],
)
def test_a_kernel_that_the_system_killed_for_want_of_memory_is_told_from_any_other(
    exitcode: int | None, n_kills: int, status: Status
) -> None:
    found, reason = notebook_run._death(_Kernel(exitcode), n_kills)  # type: ignore[arg-type]
    assert found == status and ("memory" in reason) == (status == Status.OOM_CPU)


def test_kills_for_want_of_memory_are_read_where_the_system_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, whole = tmp_path / "memory.events", tmp_path / "vmstat"
    monkeypatch.setattr(memory, "COUNTERS", (own, whole))
    assert memory.oom_kills() == 0
    whole.write_text("nr_free_pages 12\noom_kill 7\n")
    assert memory.oom_kills() == 7
    own.write_text("oom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory.oom_kills() == 2


def test_want_of_memory_is_not_tried_again(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("memory")
    execute([trial], tmp_path, notebook)
    assert plan([trial], {trial.id: "digest"}, tmp_path).to_run == []


def test_what_a_diverged_trial_had_reached_is_kept_apart(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("diverged")
    (result,) = execute([trial], tmp_path, notebook).results
    assert result.best_before == {"step": 0, "validation": 0.25}
    assert result.test == result.validation == {} and result.score is None


def test_the_best_row_of_a_curve_is_the_last_that_was_best_and_finite() -> None:
    trial = faulty.trial("none")
    rows = [{"step": 1, "validation": 0.5, "best": True}, {"step": 2, "validation": 0.7, "best": True}]
    worse = {"step": 3, "validation": 0.1, "best": False}
    assert failure(trial, Status.DIVERGED, "", "", [*rows, worse]).best_before == {"step": 2, "validation": 0.7}
    assert failure(trial, Status.DIVERGED, "", "", [{**rows[0], "validation": float("nan")}]).best_before == {"step": 1}
    assert failure(trial, Status.ERROR, "", "").best_before == {}


def test_the_report_lists_failures_with_their_reason_and_notebook(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("diverged"), faulty.trial("error")]
    execute(trials, tmp_path, notebook)
    frame = tables.frame(tmp_path, trials)
    study = Study("invented", "", "", None, tmp_path, trials, frame, tables.matrix(frame))
    shown = failures_section.failures(study)
    assert shown is not None
    assert "0.250 at step 0" in shown.text and "bad luck" in shown.text
    assert shown.text.count(f"../runs/{trials[1].id}/notebook.ipynb") == 1
    assert failures_section.failures(replace(study, frame=frame.iloc[:0])) is None


def test_failed_trials_are_tried_again_when_asked(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial(fault) for fault in ("none", "error", "memory")]
    execute(trials, tmp_path, notebook)

    def tried(*names: str) -> set[str]:
        return {result.trial_id for result in execute(trials, tmp_path, notebook, retry=retried(names)).results}

    assert tried() == set()
    assert tried("oom_cpu") == {trials[2].id}
    assert tried("all") == {trials[1].id, trials[2].id}


def test_a_mistyped_status_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="did you mean 'timeout'"):
        retried(["timeuot"])
    with pytest.raises(UnknownName, match="'ok'"):
        retried(["ok"])


def test_the_option_to_retry_needs_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as command_line

    asked = []
    monkeypatch.setattr(command_line, "complete", lambda suite, device, options, narrowed: asked.append(narrowed.retry))
    for arguments in (["--retry-failed"], ["--retry-failed=timeout,error"], []):
        monkeypatch.setattr(sys, "argv", ["rnnbench", "run", "smoke", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        assert ended.value.code == 0
    assert [list(retry) for retry in asked] == [["all"], ["timeout", "error"], []]
    assert "--retry-failed" in CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output


def _ended(trial: Trial, seconds: float) -> tuple[Trial, Result]:
    return trial, Result(trial.id, {}, Status.OK, "", seconds={"train": seconds})


def test_the_longest_expected_trial_comes_first_and_one_of_each_unknown_cell_before() -> None:
    def trials(model: str) -> list[Trial]:
        return [specify("parity", model, seed, None, "cpu") for seed in range(3)]

    short, long, unknown = trials("floor"), trials("hmm"), trials("feed_forward")
    expected = Expected([_ended(short[0], 1.0), _ended(long[0], 9.0)])
    queue = Queue([*short[1:], *long[1:], *unknown], expected)
    assert len(queue) == 7
    order = [queue.take() for _ in range(3)]
    assert order == [unknown[0], *long[1:]]
    expected.learn(*_ended(unknown[0], 5.0))
    assert [queue.take() for _ in range(4)] == [*unknown[1:], *short[1:]]
    assert not queue


def test_packing_is_the_share_of_time_in_which_workers_had_a_trial(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("short", seed) for seed in range(4)]
    packing = execute(trials, tmp_path, notebook).packing
    assert packing is not None and 0.3 < packing <= 1.0
    assert execute(trials, tmp_path, notebook).packing is None


def _timing(*faults: str) -> list[Trial]:
    return [
        specify("casino", "faulty", process, None, "cpu", Overrides(model_config={"fault": fault}), mode="timing")
        for process, fault in enumerate(faults)
    ]


@pytest.mark.slow
def test_timing_trials_start_together_as_new_interpreters_and_measure_one_after_the_other(
    tmp_path: Path, notebook: Path
) -> None:
    results = execute([faulty.trial("none"), *_timing("short", "error", "short", "short")], tmp_path, notebook).results
    assert [result.status for result in results] == [Status.OK, Status.OK, Status.ERROR, Status.OK, Status.OK]
    copy, first, _, third, fourth = (result.parameters for result in results)
    assert copy["forked"] == 1 and first["forked"] == third["forked"] == fourth["forked"] == 0
    assert first["ended"] < third["made"], "nobody starts while one measures"
    assert max(third["made"], fourth["made"]) < third["began"] < third["ended"] < fourth["began"]


@pytest.mark.slow
def test_a_timing_trial_whose_turn_has_not_come_when_the_run_is_stopped_is_interrupted_and_runs_again(
    tmp_path: Path, notebook: Path
) -> None:
    trials = _timing("none", "none")
    summary = execute(trials, tmp_path, notebook, on_result=lambda *row: os.kill(os.getpid(), signal.SIGINT))
    assert [result.trial_id for result in summary.results] == [trial.id for trial in trials]
    assert [result.status for result in summary.results] == [Status.OK, Status.INTERRUPTED]
    assert summary.stopped_by == signal.SIGINT
    assert not [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    assert execute(trials[1:], tmp_path, notebook).counts == {"ok": 1}


def test_the_clocks_of_a_trial_begin_with_its_turn(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    ours, theirs = multiprocessing.Pipe()
    (trial,) = _timing("none")
    running = supervisor._Running(trial, process, allowed_s=0.0, turn=ours)
    watch = supervisor._Supervisor(
        digests={}, results=tmp_path, on_result=_ignore, on_warning=_fail, notebook=None, deadline_s=None, stall_s=0.0,
        scratch=tmp_path, forked=True, expected=Expected(), running={process.sentinel: running}
    )  # fmt: skip
    try:
        theirs.send("ready")
        watch._look()
        watch._escalate()
        assert running.waits and not running.sent, "neither silent nor late"
        before = running.started
        running.sent, running.late = 1, "it was slow to import"
        watch._give_turn(storage_failed=False)
        assert (running.sent, running.late) == (0, supervisor.LATE)
        assert theirs.recv() == "begin" and not running.waits and running.started > before
        watch._escalate()
        assert running.sent == 1, "all that is allowed has passed"
    finally:
        process.kill()
        process.join()


def _ignore(trial: Trial, result: Result) -> None:
    """A row."""


def _fail(warning: str) -> None:
    raise AssertionError(warning)


def test_a_kernel_that_dies_during_its_imports_cannot_start() -> None:
    kernel = WaitingKernel(forked=False)
    kernel.send(signal.SIGKILL)
    kernel.wait_for_imports()
    with pytest.raises(RuntimeError, match="before its notebook began"):
        kernel.start([], ".")
    kernel.stop()


@pytest.mark.slow
def test_32_kernels_start_at_once(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("short", seed) for seed in range(32)]
    digests = {trial.id: "digest" for trial in trials}
    summary = supervisor.run(trials, digests, tmp_path, workers=32, notebook=notebook)
    assert [result.status for result in summary.results] == [Status.OK] * 32


@pytest.mark.slow
def test_a_real_full_disk_stops_the_run_and_the_same_call_goes_on_when_there_is_space(
    tmp_path: Path, notebook: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        filler = disk / "filler"
        trials = [faulty.trial("short", seed) for seed in range(3)]
        execute(trials[:1], disk, notebook)
        filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - 12_000))
        with pytest.raises(supervisor.StorageError, match="finished trials are kept"):
            execute(trials, disk, notebook)
        for trial in trials:
            result = read_result(run_folder(disk, trial.id))  # valid or none, never torn
            assert result is None or result.status == Status.OK
        filler.unlink()
        summary = execute(trials, disk, notebook)
        assert summary.n_reused >= 1
        assert all(read_result(run_folder(disk, trial.id)).status == Status.OK for trial in trials)  # type: ignore[union-attr]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_row_that_cannot_be_written_stops_the_run(
    tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, result: Result) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(supervisor, "write_result", full)
    with pytest.raises(supervisor.StorageError, match="No space left"):
        execute([specify("japanese_vowels", "faulty", 0, None, "cpu")], tmp_path, notebook)
    monkeypatch.setattr(supervisor, "write_result", write_result)
    assert execute([specify("japanese_vowels", "faulty", 0, None, "cpu")], tmp_path, notebook).counts == {"skipped": 1}
