"""The local supervisor: keeps the cores busy with single-threaded trials, each in its own process, and loses none.

Trials that measure cost come last and one at a time, with nothing beside them.

Whatever happens to a trial becomes a row; whatever happens to the supervisor, the run folders say what is left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from benchmarks import provenance
from benchmarks.execution import fork_kernel
from benchmarks.execution.lifeline import COORDINATOR
from benchmarks.execution.lock import locked
from benchmarks.execution.plan import plan, quarantine, refusal
from benchmarks.execution.worker import STORAGE_ERRORS, STORAGE_EXIT, Job, ending, fresh_folder, last_lines, main
from benchmarks.records import RESULT, Result, Status, TornResult, failure, read_result, run_folder, write_result
from benchmarks.trial import Trial

TRIES = 3
"""How often a trial is started whose kernel does not start, or whose worker breaks."""

MARGIN_S = 120.0
"""What a trial may take beyond its fit's own cap: data, evaluation, plots."""

ESCALATION = ((0.0, signal.SIGINT), (4.0, signal.SIGTERM), (8.0, signal.SIGKILL))
"""Seconds after the deadline, and what is sent then. Python code stops at the first, most others at the second."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


class StorageError(RuntimeError):
    """The results folder cannot be written."""


class ClusterError(RuntimeError):
    """What runs trials elsewhere cannot be reached, or cannot run what is left; the message says why and how to mend it."""


class Rows(Protocol):
    """The rows of a run, and whether it is to stop: all that who runs trials elsewhere needs.

    digests: trial id → digest of the code. stopped_by: the signal after which nothing new begins; kill: nor goes on.
    """

    digests: Mapping[str, str]
    results: Path
    stopped_by: signal.Signals | None
    kill: bool

    def record(self, trial: Trial, status: Status, reason: str) -> Result:
        """Writes the row of a trial that gave no numbers."""

    def note(self, trial: Trial, result: Result) -> Result:
        """Adds a row that lies in its run folder."""


@dataclass(frozen=True)
class Summary:
    """How a run ended. results: those of this run, in the order they came; n_reused: valid ones from earlier runs.

    quarantined: where folders with torn results were put. stopped_by: the signal that ended the run early, or None.
    """

    results: list[Result]
    n_reused: int
    quarantined: list[Path]
    stopped_by: signal.Signals | None

    @property
    def counts(self) -> Counter[Status]:
        return Counter(result.status for result in self.results)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    trials: Sequence[Trial],
    digests: Mapping[str, str],
    results: Path,
    workers: int | None = None,
    on_result: Callable[[Trial, Result], None] = lambda trial, result: None,
    on_reused: Callable[[Trial, Result], None] = lambda trial, result: None,
    before_timing: Callable[[], None] = lambda: None,
    notebook: Path | None = None,
    deadline_s: float | None = None,
    forked: bool | None = None,
    elsewhere: Callable[[Rows, Sequence[Trial]], None] | None = None,
) -> Summary:
    """Runs what has no valid result.

    digests: trial id → digest of the code. workers: trials at a time; None: one per core. on_result is called in this thread
    with each new row, on_reused with each valid one from before. before_timing is called once, where there are trials that
    measure cost, when all others have ended: whatever else the caller does should then be over. notebook: None: the one of the
    trial's mode. deadline_s: for the whole trial; None: its fit's max_seconds and a margin. forked: whether kernels are
    forked; None: where the platform allows it. elsewhere: what runs the trials that measure no cost, and adds their rows;
    None: workers on this machine, which measures cost in any case.

    Raises FolderInUse or StorageError. Ctrl-C once finishes what is running, twice or SIGTERM kills it; either way the
    call returns, with `Summary.stopped_by`.
    """
    with _storage_checked(results):
        results.mkdir(parents=True, exist_ok=True)
        with locked(results), tempfile.TemporaryDirectory(prefix="rnnbench-") as scratch:
            found = plan(trials, digests, results)
            for trial, result in found.done:
                on_reused(trial, result)
            moved = [quarantine(results, trial.id) for trial, _ in found.torn]
            supervisor = _Supervisor(
                digests, results, on_result, notebook and notebook.resolve(), deadline_s, Path(scratch), _forked(forked)
            )
            with supervisor.listening():
                untimed = [trial for trial in found.to_run if trial.mode != "timing"]
                if elsewhere is None:
                    supervisor.work(untimed, workers or cores())
                else:
                    elsewhere(supervisor, [trial for trial in untimed if not supervisor.skipped(trial)])
                timed = round_robin(trial for trial in found.to_run if trial.mode == "timing")
                if timed and not supervisor.stopped_by:
                    before_timing()
                    supervisor.work(timed, workers=1)
            return Summary(supervisor.rows, len(found.done), moved, supervisor.stopped_by)


def round_robin(timed: Iterable[Trial]) -> list[Trial]:
    """The first process of every model, then the second: what changes on a machine over minutes falls on all models alike."""
    return sorted(timed, key=lambda trial: trial.seed)


def _forked(wanted: bool | None) -> bool:
    if wanted is None:
        return fork_kernel.is_available()
    return wanted


@contextmanager
def _storage_checked(results: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.errno not in STORAGE_ERRORS:
            raise
        raise StorageError(
            f"cannot write to {results}: {error.strerror or error}; free some space or mend the folder, then run the "
            "same command again: finished trials are kept"
        ) from error


@dataclass
class _Running:
    """A worker at work. deadline: on the monotonic clock. sent: how many steps of `ESCALATION` it was given."""

    trial: Trial
    process: BaseProcess
    deadline: float
    sent: int = 0

    def signal(self, signum: int) -> None:
        """To the worker, which passes it on; SIGKILL goes to the whole process group."""
        if signum != signal.SIGKILL:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, signum)
            return
        self.process.kill()
        self.sweep()

    def sweep(self) -> None:
        """Kills what is left of the trial's process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


@dataclass
class _Supervisor:
    digests: Mapping[str, str]
    results: Path
    on_result: Callable[[Trial, Result], None]
    notebook: Path | None
    deadline_s: float | None
    scratch: Path
    forked: bool
    rows: list[Result] = field(default_factory=list)
    stopped_by: signal.Signals | None = None
    kill: bool = False
    tries: Counter[str] = field(default_factory=Counter)
    running: dict[int, _Running] = field(default_factory=dict)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM set flags that `work` looks at."""
        before = {signum: signal.signal(signum, self._on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.kill = self.kill or self.stopped_by is not None or signum == signal.SIGTERM
        self.stopped_by = signal.Signals(signum)

    def work(self, trials: Sequence[Trial], workers: int) -> None:
        queue = deque(trial for trial in trials if not self.skipped(trial))
        if not queue:
            return
        context = _context(self.forked)
        environment = provenance.environment() | {"threads": 1}
        storage_failed = False
        try:
            while self.running or (queue and not self.stopped_by and not storage_failed):
                while queue and len(self.running) < workers and not self.stopped_by and not storage_failed:
                    self._start(queue.popleft(), context, environment)
                wait(list(self.running), timeout=0.2)
                for sentinel in [x for x, running in self.running.items() if running.process.exitcode is not None]:
                    ended = self.running.pop(sentinel)
                    ended.sweep()
                    storage_failed = storage_failed or ended.process.exitcode == STORAGE_EXIT
                    if ended.process.exitcode != STORAGE_EXIT and self._collect(ended) is None:
                        queue.append(ended.trial)
                self._escalate()
        finally:
            self._kill_all()
        if storage_failed:
            raise OSError(None, "a trial could not write its run folder; is the disk full or read-only?")

    def skipped(self, trial: Trial) -> bool:
        reason = refusal(trial)
        if reason is None:
            return False
        folder = run_folder(self.results, trial.id)
        fresh_folder(folder)
        self.record(trial, Status.SKIPPED, reason)
        return True

    def _start(self, trial: Trial, context: BaseContext, environment: Mapping[str, Any]) -> None:
        self.tries[trial.id] += 1
        # A worker that dies before it has begun must not leave an older result to be taken for its own.
        (run_folder(self.results, trial.id) / RESULT).unlink(missing_ok=True)
        job = Job(
            trial=trial,
            code_digest=self.digests[trial.id],
            folder=run_folder(self.results.resolve(), trial.id),
            notebook=self.notebook or provenance.notebook(trial.mode),
            environment=environment,
            scratch=self.scratch,
            forked=self.forked,
        )
        process = context.Process(target=main, args=(job,))  # type: ignore[attr-defined]
        # The fork server starts with the first trial, and takes its environment from here.
        with _environment({**ONE_THREAD, COORDINATOR: str(os.getpid())}):
            process.start()
        allowed = self.deadline_s or float(trial.fit["max_seconds"]) + MARGIN_S
        self.running[process.sentinel] = _Running(trial, process, time.monotonic() + allowed)

    def _collect(self, ended: _Running) -> Result | None:
        """The row of a worker that has ended, None where the trial shall be tried again."""
        trial, exitcode = ended.trial, ended.process.exitcode
        folder = run_folder(self.results, trial.id)
        try:
            result = read_result(folder)
        except TornResult as error:
            quarantine(self.results, trial.id)
            return self.record(trial, Status.INCOMPLETE, str(error))
        if result is not None and result.status in (Status.OK, Status.TIMEOUT):
            return self.note(trial, result)
        if self.kill:
            return self.record(trial, Status.INTERRUPTED, "the run was stopped")
        if ended.sent:
            last = ESCALATION[ended.sent - 1][1].name
            return self.record(trial, Status.TIMEOUT, f"the trial passed its deadline; ended by {last}")
        if result is None:
            assert exitcode is not None
            status = Status.KERNEL_DIED if exitcode < 0 else Status.INFRA_ERROR
            log = last_lines(folder / "stderr.log")
            result = self._row(
                trial, status, f"the worker ended with {ending(exitcode)}; {log or 'stderr.log is empty'}"
            )
        if result.status == Status.INFRA_ERROR and self.tries[trial.id] < TRIES and not self.stopped_by:
            return None
        write_result(folder, result)
        return self.note(trial, result)

    def _row(self, trial: Trial, status: Status, reason: str) -> Result:
        return failure(trial, status, reason, self.digests[trial.id])

    def record(self, trial: Trial, status: Status, reason: str) -> Result:
        folder = run_folder(self.results, trial.id)
        folder.mkdir(parents=True, exist_ok=True)
        result = self._row(trial, status, reason)
        write_result(folder, result)
        return self.note(trial, result)

    def note(self, trial: Trial, result: Result) -> Result:
        self.rows.append(result)
        self.on_result(trial, result)
        return result

    def _escalate(self) -> None:
        """Sends each trial past its deadline the next signal that is due; every trial SIGKILL where `kill` is set."""
        for running in self.running.values():
            late = time.monotonic() - running.deadline
            if self.kill:
                running.signal(signal.SIGKILL)
            elif running.sent < len(ESCALATION) and late > ESCALATION[running.sent][0]:
                running.signal(ESCALATION[running.sent][1])
                running.sent += 1

    def _kill_all(self) -> None:
        for running in self.running.values():
            running.signal(signal.SIGKILL)
            running.process.join()


def _context(forked: bool) -> BaseContext:
    """Workers come from a fork server that has done the imports; where forking is unsafe each imports for itself."""
    if not forked:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.execution.preload"])
    return context


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
