"""The local supervisor: keeps the cores busy with single-threaded trials, each in its own process, and loses none.

Trials that measure cost come last and one at a time, with nothing beside them, each in a new interpreter: so the processes of a
model differ as those of a user do. Interpreters take seconds to start, so a few start together, and then they measure in turn.

Whatever happens to a trial becomes a row; whatever happens to the supervisor, the run folders say what is left.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from benchmarks import provenance
from benchmarks.execution import fork_server
from benchmarks.execution.family import (
    Process,
    descendants,
    end,
    end_abandoned,
    end_descendants,
    parent_of,
    private_bytes,
    snapshot,
)
from benchmarks.execution.liveness import LOOK_S, STALL_S, WARN_S, Sign, processor_seconds
from benchmarks.execution.lock import locked
from benchmarks.execution.memory import address_space_limit, share_bytes
from benchmarks.execution.order import Expected, Queue, Rounds
from benchmarks.execution.plan import plan, quarantine, refusal
from benchmarks.execution.scratch import NoScratch
from benchmarks.execution.scratch import folder as scratch_folder
from benchmarks.execution.slots import Slot, Slots, default_workers, memory_bytes, visible_gpus
from benchmarks.execution.worker import STORAGE_ERRORS, STORAGE_EXIT, Job, ending, fresh_folder, last_lines, main
from benchmarks.records import (
    RESULT,
    Result,
    Status,
    TornResult,
    failure,
    read_curve,
    read_result,
    run_folder,
    write_result,
)
from benchmarks.trial import Trial

TRIES = 3
"""How often a trial is started whose kernel does not start, or whose worker breaks."""

MARGIN_S = 120.0
"""What a trial may take beyond its fit's own cap: data, evaluation, plots."""

NOT_FORKED = "this system cannot copy a process safely: each trial imports for itself, which takes it seconds more"

LATE = "the trial passed its deadline"
"""Why a trial is ended, where nothing else is said."""

MEMORY_LOOK_S = 0.5
"""How often to look at the memory of trials: one that leaks may take a gigabyte in a second."""

TOGETHER = 4
"""Interpreters at most that start together before their trials measure in turn: each waits with some 400 MB."""

ESCALATION = ((0.0, signal.SIGINT), (4.0, signal.SIGTERM), (8.0, signal.SIGKILL))
"""Seconds after the deadline, and what is sent then. Python code stops at the first, most others at the second."""


class StorageError(RuntimeError):
    """The results folder cannot be written."""


class ServerDied(RuntimeError):
    """The process that workers are copied from does not stay alive."""


class ClusterError(RuntimeError):
    """What runs trials elsewhere cannot be reached, or cannot run what is left; the message says why and how to mend it."""


class Rows(Protocol):
    """The rows of a run, and whether it is to stop: all that who runs trials elsewhere needs.

    digests: trial id → digest of the code. expected: what trials take, as far as rows have told. stopped_by: the signal after
    which nothing new begins; kill: nor goes on.
    """

    digests: Mapping[str, str]
    results: Path
    expected: Expected
    stopped_by: signal.Signals | None
    kill: bool

    def record(self, trial: Trial, status: Status, reason: str) -> Result:
        """Writes the row of a trial that gave no numbers."""

    def note(self, trial: Trial, result: Result) -> Result:
        """Adds a row that lies in its run folder."""


@dataclass(frozen=True)
class Summary:
    """How a run ended. results: those of this run, in the order they came; n_reused: valid ones from earlier runs.

    quarantined: where folders with torn results were put. stopped_by: the signal that ended the run early, or None. packing:
    the share of the workers' time in which they had a trial, timing trials left out; None where none ran.
    """

    results: list[Result]
    n_reused: int
    quarantined: list[Path]
    stopped_by: signal.Signals | None
    packing: float | None = None

    @property
    def counts(self) -> Counter[Status]:
        return Counter(result.status for result in self.results)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(device: str) -> int:
    """Trials at a time where nobody says: one per core, on GPUs as many as they bear."""
    return default_workers(cores(), visible_gpus(), memory_bytes()) if device == "cuda" else cores()


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
    stall_s: float = STALL_S,
    forked: bool | None = None,
    retry: Set[Status] = frozenset(),
    memory_bytes: int | None = None,
    on_warning: Callable[[str], None] = lambda text: None,
    elsewhere: Callable[[Rows, Sequence[Trial]], None] | None = None,
) -> Summary:
    """Runs what has no valid result.

    digests: trial id → digest of the code. workers: trials at a time, and how many of those that measure
    cost start together; None: `workers_for`. on_result is called in this thread
    with each new row, on_reused with each valid one from before. before_timing is called once, where there are trials that
    measure cost, when all others have ended: whatever else the caller does should then be over. notebook: None: the one of the
    trial's mode. deadline_s: for the whole trial; None: its fit's max_seconds and a margin. stall_s: how long a trial may show
    no sign of life. forked: whether kernels are, those that measure cost excepted; None: where the platform allows it. retry:
    statuses of earlier results that shall be tried again. memory_bytes: what the processes of a CPU trial may use together;
    None: the share of the machine that one of so many workers has. on_warning: called with a sentence about what goes slowly.
    elsewhere: what runs the trials that measure no cost, and adds their rows; None: workers on this machine, which in any case
    measures cost.

    Raises FolderInUse, StorageError or ServerDied. Ctrl-C once finishes what is running, twice or SIGTERM kills it; either way
    the call returns, with `Summary.stopped_by`.
    """
    with _storage_checked(results):
        results.mkdir(parents=True, exist_ok=True)
        with locked(results):
            for left in results.glob(".arriving-*"):  # by a run that was killed; this one alone writes here
                shutil.rmtree(left, ignore_errors=True)
            end_abandoned()
            found = plan(trials, digests, results, retry)
            for trial, result in found.done:
                on_reused(trial, result)
            moved = [quarantine(results, trial.id) for trial, _ in found.torn]
            if forked is None and found.to_run and not fork_server.is_available():
                on_warning(NOT_FORKED)
            supervisor = _Supervisor(
                digests=digests,
                results=results,
                on_result=on_result,
                on_warning=on_warning,
                notebook=notebook and notebook.resolve(),
                deadline_s=deadline_s,
                stall_s=stall_s,
                scratch=_scratch(),
                memory_bytes=memory_bytes,
                forked=fork_server.is_available() if forked is None else forked,
                expected=Expected(found.done),
            )
            with supervisor.listening():
                untimed = [trial for trial in found.to_run if trial.mode != "timing"]
                packing = None
                if elsewhere is None:
                    packing = supervisor.work(untimed, workers)
                else:
                    elsewhere(supervisor, [trial for trial in untimed if not supervisor.skipped(trial)])
                timed = [trial for trial in found.to_run if trial.mode == "timing"]
                if timed and not supervisor.stopped_by:
                    before_timing()
                    supervisor.work(timed, min(workers or cores(), TOGETHER), in_turn=True)
            return Summary(supervisor.rows, len(found.done), moved, supervisor.stopped_by, packing)


def _scratch() -> Path:
    try:
        return scratch_folder()
    except NoScratch as error:
        raise StorageError(str(error)) from error


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
    """A worker at work. allowed_s: for its imports, and anew for its trial. slot: its place on a GPU. turn: our end of the pipe
    over which it says "ready" and is told "begin"; None after that, and where it need not wait. started, deadline: on the
    monotonic clock. sent: how many steps of `ESCALATION` it was given. late: why. over: why its memory is too much, None where
    it is not. sign: of life, its last."""

    trial: Trial
    process: BaseProcess
    allowed_s: float
    slot: Slot | None = None
    turn: Connection | None = None
    started: float = field(default_factory=time.monotonic)
    deadline: float = field(init=False)
    sent: int = 0
    late: str = LATE
    over: str | None = None
    sign: Sign = field(default_factory=Sign)

    def __post_init__(self) -> None:
        self.deadline = self.started + self.allowed_s

    @property
    def waits(self) -> bool:
        """Whether it does nothing until it is told to, and no clock of its runs; or has just died."""
        return self.turn is not None and self.turn.poll()

    def begin(self) -> None:
        """Its turn has come, and its time begins anew."""
        assert self.turn is not None
        with suppress(ConnectionError):  # it ended just now
            self.turn.send("begin")
        self.turn.close()
        self.turn, self.sign, self.sent, self.late = None, Sign(), 0, LATE
        self.started = time.monotonic()
        self.deadline = self.started + self.allowed_s

    def signal(self, signum: int) -> None:
        """To the worker, which passes it on; SIGKILL goes to the whole process group."""
        if signum != signal.SIGKILL:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, signum)
            return
        below = descendants(self.pid, snapshot())  # while the worker is there to lead to them
        self.process.kill()
        end(below)
        self.sweep()

    def sweep(self) -> None:
        """Kills what is left of the trial: what descends from its worker, and the worker's process group."""
        with suppress(ProcessLookupError):  # it has ended, unless the fork server has, and nobody told
            os.kill(self.pid, 0)
            end(descendants(self.pid, snapshot()))
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


@dataclass(kw_only=True)
class _Supervisor:
    digests: Mapping[str, str]
    results: Path
    on_result: Callable[[Trial, Result], None]
    on_warning: Callable[[str], None]
    notebook: Path | None
    deadline_s: float | None
    stall_s: float
    scratch: Path
    forked: bool
    expected: Expected
    memory_bytes: int | None = None
    rows: list[Result] = field(default_factory=list)
    stopped_by: signal.Signals | None = None
    kill: bool = False
    tries: Counter[str] = field(default_factory=Counter)
    running: dict[int, _Running] = field(default_factory=dict)
    looked: float = 0.0
    looked_at_memory: float = 0.0
    allowed_bytes: int = 0
    server: int | None = None
    busy_s: float = 0.0
    slots: Slots = field(default_factory=lambda: Slots([], 1))

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

    def work(self, trials: Sequence[Trial], workers: int | None, in_turn: bool = False) -> float | None:
        """Runs trials, so many at a time; the share of the workers' time in which they had one, None where there was none.

        in_turn: so many start at a time, each in a new interpreter; when all are ready, one after the other does its work."""
        todo = [trial for trial in trials if not self.skipped(trial)]
        if not todo:
            return None
        queue = Rounds(todo) if in_turn else Queue(todo, self.expected)
        gpus = visible_gpus() if any(trial.device == "cuda" for trial in todo) else []
        workers = workers or workers_for("cuda" if gpus else "cpu")
        self.slots = Slots(gpus, workers, in_turn)
        self.allowed_bytes = self.memory_bytes or share_bytes(1 if in_turn else workers)
        context = fork_server.context(self.forked)
        environment = provenance.environment() | {"threads": 1}
        storage_failed = False
        started, busy_before = time.monotonic(), self.busy_s
        try:
            while self.running or (queue and not self.stopped_by and not storage_failed):
                # In turn, nobody imports beside one that measures: the next start when the last has ended.
                places = 0 if in_turn and self.running else workers - len(self.running)
                while places and not self.stopped_by and not storage_failed:
                    trial = queue.take()
                    if trial is None:
                        break
                    self._start(trial, context, environment, in_turn)
                    places -= 1
                self._give_turn(storage_failed)
                importing = [running.turn for running in self.running.values() if running.turn and not running.waits]
                wait([*self.running, *importing], timeout=0.2)
                for sentinel in [x for x, running in self.running.items() if running.process.exitcode is not None]:
                    ended = self.running.pop(sentinel)
                    self.slots.release(ended.slot)
                    ended.sweep()
                    self.busy_s += time.monotonic() - ended.started
                    storage_failed = storage_failed or ended.process.exitcode == STORAGE_EXIT
                    if ended.process.exitcode != STORAGE_EXIT and self._collect(ended) is None:
                        queue.put(ended.trial)
                self._look()
                self._look_at_memory()
                self._escalate()
        finally:
            self._kill_all()
            server = self._living_server(snapshot())
            if server is not None:  # no worker is left: whatever descends from it was left behind
                end_descendants(server)
        if storage_failed:
            raise OSError(None, "a trial could not write its run folder; is the disk full or read-only?")
        return (self.busy_s - busy_before) / ((time.monotonic() - started) * workers)

    def skipped(self, trial: Trial) -> bool:
        reason = refusal(trial)
        if reason is None:
            return False
        folder = run_folder(self.results, trial.id)
        fresh_folder(folder)
        self.record(trial, Status.SKIPPED, reason)
        return True

    def _give_turn(self, storage_failed: bool) -> None:
        """When all that started are ready, the first of them begins; after a signal, or where nothing can be written, none."""
        before = {sentinel: running for sentinel, running in self.running.items() if running.turn is not None}
        if self.stopped_by or storage_failed:
            for sentinel, running in before.items():
                running.signal(signal.SIGKILL)
                running.process.join()
                self.slots.release(self.running.pop(sentinel).slot)
                if not storage_failed:
                    self.record(running.trial, Status.INTERRUPTED, "the run was stopped before its turn came")
        elif before and len(before) == len(self.running) and all(running.waits for running in before.values()):
            next(iter(before.values())).begin()

    def _start(self, trial: Trial, context: BaseContext, environment: Mapping[str, Any], in_turn: bool) -> None:
        self.tries[trial.id] += 1
        slot = self.slots.acquire() if trial.device == "cuda" else None
        # A worker that dies before it has begun must not leave an older result to be taken for its own.
        (run_folder(self.results, trial.id) / RESULT).unlink(missing_ok=True)
        ours, theirs = multiprocessing.Pipe() if in_turn else (None, None)
        job = Job(
            trial=trial,
            code_digest=self.digests[trial.id],
            folder=run_folder(self.results.resolve(), trial.id),
            notebook=self.notebook or provenance.notebook(trial.mode),
            environment=environment,
            scratch=self.scratch,
            forked=self.forked and not in_turn,
            slot=slot,
            turn=theirs,
        )
        process = context.Process(target=main, args=(job,))  # type: ignore[attr-defined]
        self._start_process(process)
        if theirs is not None:
            theirs.close()
        allowed_s = self.deadline_s or float(trial.fit["max_seconds"]) + MARGIN_S
        if job.forked:
            self.server = parent_of(process.pid) or self.server
        self.running[process.sentinel] = _Running(trial, process, allowed_s, slot, ours)

    def _start_process(self, process: BaseProcess) -> None:
        """Starts a worker, with a new fork server where the last has just died. Raises ServerDied."""
        for _ in range(TRIES):
            try:
                with fork_server.environment():
                    process.start()
                return
            except (EOFError, ConnectionError) as error:
                reason = error
        limit = address_space_limit()
        limited = "" if limit is None else f"; the address space is limited to {limit / 1e9:.1f} GB (ulimit -v)"
        raise ServerDied(
            f"the process that workers are copied from died {TRIES} times as it started{limited}; what it printed is above; "
            "finished trials are kept"
        ) from reason

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
        if ended.over is not None:
            return self.record(trial, Status.OOM_CPU, ended.over)
        if self.kill:
            return self.record(trial, Status.INTERRUPTED, "the run was stopped")
        if ended.sent:
            last = ESCALATION[ended.sent - 1][1].name
            return self.record(trial, Status.TIMEOUT, f"{ended.late}; ended by {last}")
        if result is None:
            assert exitcode is not None
            # One that was killed before its turn had not begun: its trial is not to blame.
            status = Status.KERNEL_DIED if exitcode < 0 and ended.turn is None else Status.INFRA_ERROR
            log = last_lines(folder / "stderr.log")
            result = self._row(
                trial, status, f"the worker ended with {ending(exitcode)}; {log or 'stderr.log is empty'}"
            )
        if result.status == Status.INFRA_ERROR and self.tries[trial.id] < TRIES and not self.stopped_by:
            return None
        if folder.parent.exists():
            folder.mkdir(exist_ok=True)  # a trial may have removed its own
        write_result(folder, result)
        return self.note(trial, result)

    def _row(self, trial: Trial, status: Status, reason: str) -> Result:
        curve = read_curve(run_folder(self.results, trial.id))
        return failure(trial, status, reason, self.digests[trial.id], curve)

    def record(self, trial: Trial, status: Status, reason: str) -> Result:
        folder = run_folder(self.results, trial.id)
        folder.mkdir(parents=True, exist_ok=True)
        result = self._row(trial, status, reason)
        write_result(folder, result)
        return self.note(trial, result)

    def note(self, trial: Trial, result: Result) -> Result:
        self.rows.append(result)
        self.expected.learn(trial, result)
        self.on_result(trial, result)
        return result

    def _look(self) -> None:
        """Looks for signs of life, now and then: a silent trial is warned of, and then is as late as one past its deadline."""
        now = time.monotonic()
        if now - self.looked < min(LOOK_S, self.stall_s / 2) or not self.running:
            return
        self.looked = now
        used = processor_seconds(running.pid for running in self.running.values())
        for running in self.running.values():
            if running.waits:
                continue
            silent = running.sign.see(used[running.pid], now)
            if silent > self.stall_s and not running.sent:
                running.late = f"the trial used no processor for {silent:.0f} s"
                running.deadline = min(running.deadline, now)
            elif silent > min(WARN_S, self.stall_s / 2) and not running.sign.warned:
                running.sign.warned = True
                self.on_warning(
                    f"{running.trial.title} ({running.trial.id}) has used no processor for {silent:.0f} s; it will be ended "
                    f"after {self.stall_s:.0f} s"
                )

    def _look_at_memory(self) -> None:
        """Ends the processes of each CPU trial that uses more than it may, its worker first left to say which cell ran."""
        now = time.monotonic()
        if now - self.looked_at_memory < MEMORY_LOOK_S or not self.running:
            return
        self.looked_at_memory = now
        processes = snapshot()
        self._end_strays(processes)
        for running in self.running.values():
            below = descendants(running.pid, processes)
            family = [pid for pid in (running.pid, *below) if pid in processes]
            if (
                running.trial.device != "cpu"
                or sum(processes[pid].resident_bytes for pid in family) < self.allowed_bytes
            ):
                continue
            used = private_bytes(family)
            if used < self.allowed_bytes:
                continue
            if running.over is not None:
                running.signal(signal.SIGKILL)
                continue
            running.over = (
                f"the trial used {used / 1e9:.1f} GB of memory, more than its share of this machine's, "
                f"{self.allowed_bytes / 1e9:.1f} GB; with fewer --workers a share is larger"
            )
            end(below)

    def _living_server(self, processes: Mapping[int, Process]) -> int | None:
        """The fork server's process, None where it is gone or another's."""
        known = self.server is not None and self.server in processes
        return self.server if known and processes[self.server].parent == os.getpid() else None  # type: ignore[index]

    def _end_strays(self, processes: Mapping[int, Process]) -> None:
        """Ends what workers that were killed have left behind: the fork server has adopted it."""
        server = self._living_server(processes)
        if server is None:
            return
        ours = {running.pid for running in self.running.values()}
        end(pid for pid in descendants(server, {x: y for x, y in processes.items() if x not in ours}))

    def _escalate(self) -> None:
        """Sends each trial past its deadline the next signal that is due; every trial SIGKILL where `kill` is set."""
        for running in self.running.values():
            late = time.monotonic() - running.deadline
            if self.kill:
                running.signal(signal.SIGKILL)
            elif not running.waits and running.sent < len(ESCALATION) and late > ESCALATION[running.sent][0]:
                running.signal(ESCALATION[running.sent][1])
                running.sent += 1

    def _kill_all(self) -> None:
        for running in self.running.values():
            running.signal(signal.SIGKILL)
            running.process.join()
