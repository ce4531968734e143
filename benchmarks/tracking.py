"""MLflow as a mirror of the run folders: the only file that imports mlflow, and the only writer of its store.

Experiment = suite; parent run = model on task, with what its trials say together; child run = trial. All of it can be
rebuilt from the run folders by `sync`, without duplicates: a child is known by its tag ``trial_id``, and the digest of
its result.json, the last that is written of it, says that it is whole. A lock lets one process at a time open the store.

MLflow creates the schema of a new database in dozens of steps that no transaction holds together. It is therefore created
beside the store and renamed; a local store that cannot be read is set aside and rebuilt from the run folders.

Importing mlflow and opening a fresh SQLite store takes seconds, so a process of its own does both while trials run; a ledger
beside the report remembers what is logged, so that a run with nothing new does neither.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from benchmarks import records, tables, tracked
from benchmarks.execution import fork_server
from benchmarks.execution.lifeline import die_with_parent, name_process
from benchmarks.records import Result
from benchmarks.trial import Trial
from models import registry as models

if TYPE_CHECKING:
    from mlflow import MlflowClient

Item = tuple[Trial, Result]
Say = Callable[[str], None]

# A server that is down must cost seconds, not mlflow's default of minutes. What a person has set is left alone.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
BATCH = 900
"""Metrics per request: the server takes at most 1,000 entities."""
DRAIN_SECONDS = 60.0
"""How long `Tracker.close` waits for a slow store before it leaves the rest to `sync`, and one writer for another."""
JOIN_SECONDS = 5.0
"""How long a thread may take to notice that the process it writes to has ended."""
LEDGER = "mlflow.json"
"""In the folder of a suite."""
PART = ".mlflow.db.part-"
"""How the names of new databases begin that are not complete."""
LOCK = ".mlflow.lock"
"""In the results folder."""
BROKEN = re.compile(
    r"table .{1,80} already exists|duplicate column|no such (table|column)|malformed|file is not a database"
    r"|out-of-date database schema|Can't locate revision|failed to initiali[sz]e|unsupported file format"
)
"""What SQLite and MLflow say of a database that no retry can repair, unlike one that is locked or on a full disk."""


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or SQLite in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(_database(results))


def _database(results: Path) -> Path:
    return (results / "mlflow.db").resolve()


def _is_local(results: Path) -> bool:
    return tracking_uri(results) == _sqlite_uri(_database(results))


def _sqlite_uri(database: Path) -> str:
    """SQLAlchemy unquotes the path. MLflow creates the parent folder of a plain ``sqlite:///`` path without unquoting it, but
    leaves a URI that names the driver alone."""
    odd = re.search("[%?#]", str(database))
    return f"sqlite+pysqlite:///{quote(str(database))}" if odd else f"sqlite:///{database}"


class StoreUnreachable(RuntimeError):
    """MLflow's store cannot be written; the message says which, and why."""


@contextlib.contextmanager
def writing(results: Path) -> Iterator[None]:
    """One writer of the store at a time, over all processes; the operating system frees the lock with its owner, however that
    ends. Raises TimeoutError where another writes for longer than DRAIN_SECONDS."""
    results.mkdir(parents=True, exist_ok=True)
    lock = FileLock(results / LOCK)
    try:
        lock.acquire(timeout=DRAIN_SECONDS)
    except Timeout as error:
        raise TimeoutError(f"another process has been writing it for {DRAIN_SECONDS:g} s") from error
    try:
        yield
    finally:
        lock.release()


class Ledger:
    """trial id → digest of the result that is logged; one file per suite, void once its store is another or is gone."""

    def __init__(self, results: Path, suite: str) -> None:
        self.path = results / suite / LEDGER
        self.uri = tracking_uri(results)
        self.logged: dict[str, str] = {}
        store_is_gone = _is_local(results) and not _database(results).exists()
        if self.path.is_file() and not store_is_gone:
            # A torn ledger is no ledger: the store itself says what it holds.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                content = records.parse_json(self.path.read_bytes())
                self.logged = dict(content["logged"]) if content["uri"] == self.uri else {}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomically(self.path, json.dumps({"uri": self.uri, "logged": self.logged}))


def _create_database(results: Path) -> None:
    """A new local store, whole or not at all. What was logged into an earlier one is forgotten."""
    from mlflow import MlflowClient

    database = _database(results)
    for left in results.glob(f"{PART}*"):  # by a process that was killed, with its journal
        left.unlink()
    # A name of its own, because MLflow remembers which databases this process has initialised.
    part = database.with_name(f"{PART}{time.time_ns()}")
    MlflowClient(tracking_uri=_sqlite_uri(part)).search_experiments(max_results=1)
    _forget_ledgers(results)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(database)


def _set_aside(results: Path) -> Path:
    """Renames the local store, which cannot be read; returns where it is now."""
    database = _database(results)
    broken = database.with_name(f"mlflow-broken-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 1_000_000:06d}.db")
    _forget_ledgers(results)
    for suffix in ("-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(broken.with_name(broken.name + suffix))
    return database.rename(broken)


def _forget_ledgers(results: Path) -> None:
    for path in results.glob(f"*/{LEDGER}"):
        path.unlink()


class Store:
    """One experiment of an MLflow store, open for writing."""

    def __init__(self, results: Path, suite: str) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        local = _is_local(results)
        if local:
            # An engine that keeps no connection open can be left behind when its file is renamed.
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.results = results
        uri = tracking_uri(results)
        if local and not _database(results).exists():
            _create_database(results)
        self.client: MlflowClient = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(suite)
        if found is None:
            # A server keeps artifacts where it is told to; the local store keeps them beside its database.
            location = (results / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite") else None
            # Where the page goes by the kind, this opens it on the table of runs, not on traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            self.experiment = self.client.create_experiment(suite, location, tags)
        else:
            self.experiment = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)
        self.children: dict[str, tuple[str, str]] = {}
        self.parents: dict[str, str] = {}
        self._read_runs()

    def _read_runs(self) -> None:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                if tags.get("trial_id") in self.children:  # what a killed writer had begun again
                    self.client.delete_run(run.info.run_id)
                elif "trial_id" in tags:
                    self.children[tags["trial_id"]] = (run.info.run_id, tags.get("result_digest", ""))
                elif "cell" in tags:
                    self.parents[tags["cell"]] = run.info.run_id
            token = page.token
            if not token:
                return

    def log(self, trial: Trial, result: Result) -> bool:
        """Makes the trial's run what its folder says; whether there was anything to do."""
        folder = records.run_folder(self.results, trial.id)
        digest = records.result_digest(folder) or ""
        old = self.children.get(trial.id)
        if old is not None:
            if old[1] == digest:
                return False
            self.client.delete_run(old[0])
        end = int((folder / "result.json").stat().st_mtime * 1000)
        start = end - int(1000 * sum(result.seconds.values()))
        parent = self._parent(trial, start)
        tags = tracked.tags(trial, result, folder) | {"mlflow.parentRunId": parent, "kind": "trial"}
        run = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=trial.title)
        self._log_numbers(run.info.run_id, trial, result, records.read_curve(folder), end)
        notebook = folder / "notebook.ipynb"
        if notebook.exists():
            self.client.log_artifact(run.info.run_id, str(notebook))
        self.client.set_terminated(run.info.run_id, tracked.run_status(result.status), end)
        self.client.set_terminated(parent, end_time=end)  # a parent lasts from its first trial to its last
        self.client.set_tag(run.info.run_id, "result_digest", digest)
        self.children[trial.id] = (run.info.run_id, digest)
        return True

    def _log_numbers(self, run_id: str, trial: Trial, result: Result, curve: list[dict[str, Any]], end: int) -> None:
        from mlflow.entities import Metric, Param

        points = [
            Metric(name, float(row[name]), end, int(row["step"]))
            for row in curve
            for name in ("train_loss", "gradient_norm", "validation_loss", "validation")
            if row.get(name) is not None and math.isfinite(row[name])
        ]
        points += [Metric(name, value, end, 0) for name, value in tracked.metrics(result).items()]
        parameters = [Param(name, str(value)[:6000]) for name, value in tracked.parameters(trial, result).items()]
        for start in range(0, max(len(points), 1), BATCH):
            first = start == 0
            self.client.log_batch(run_id, points[start : start + BATCH], parameters[:100] if first else [])

    def _parent(self, trial: Trial, start: int) -> str:
        cell = trial.cell
        if cell not in self.parents:
            tags = {"kind": "model on task", "cell": cell, "task": trial.task, "model": trial.model, "mode": trial.mode}
            tags |= {"family": models.entry(trial.model).family, "group": tables.describe_task(trial)["group"]}
            name = f"{trial.model} on {trial.task}" + (", timing" if trial.mode == "timing" else "")
            run = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=name)
            self.parents[cell] = run.info.run_id
        return self.parents[cell]

    def summarise(self, trials: list[Trial]) -> None:
        """Writes to each parent run what its trials say together: over seeds mean, interval, n and failures; over the processes
        of timing trials the medians."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        for cell, summary in [*tracked.qualities(self.results, trials), *tracked.costs(self.results, trials)]:
            run_id = self.parents.get(cell)
            if run_id is None:
                continue
            points = [Metric(name, value, now, 0) for name, value in summary.metrics.items()]
            tags = [RunTag("mlflow.runName", summary.name), RunTag("status", summary.failures or "no failure")]
            self.client.log_batch(run_id, points, tags=tags)
            if summary.failures and not summary.metrics["n"]:
                self.client.update_run(run_id, status="FAILED")  # a tick would say that there is something to see


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


class Tracker:
    """Mirrors results while trials run. `submit` returns at once; one process beside this one is the only writer.

    Nothing that the store does can hurt a trial: the first error ends the mirroring, and `close` says how to catch up.
    """

    def __init__(self, results: Path, suite_name: str, trials: list[Trial]) -> None:
        """trials: those of the whole suite, over which the parent runs are summarised."""
        self.results = results
        self.suite = suite_name
        self.trials = trials
        self.ledger = Ledger(results, suite_name)
        self._writer: _Writer | None = None

    def start(self) -> None:
        """Starts the writer; quick while this process has one thread, for then it is a copy."""
        self._writer = self._writer or _Writer(self)

    def submit(self, trial: Trial, result: Result) -> None:
        """Hands over a trial whose result.json is written."""
        if not self.is_logged(trial):
            self.start()
            assert self._writer is not None
            self._writer.put((trial, result))

    def is_logged(self, trial: Trial) -> bool:
        """Whether the store holds the trial's result as it is: a look at one small file and at the ledger."""
        digest = records.result_digest(records.run_folder(self.results, trial.id))
        return digest is None or self.ledger.logged.get(trial.id) == digest

    def close(self) -> str | None:
        """Waits until all is written, at most DRAIN_SECONDS; a warning in one line if it was not."""
        writer, self._writer = self._writer, None
        if writer is None:
            return None
        problem, remarks = writer.close()
        self.ledger = Ledger(self.results, self.suite)
        if problem is not None:
            remarks.append(
                f"MLflow at {self.ledger.uri}: {problem}; results are safe, catch up with: rnnbench sync {self.suite} "
                "and the same --results and --device"
            )
        return ". ".join(remarks) or None


class _Writer:
    """The process that writes a tracker's store: what mlflow needs, 100 MB, is not the coordinator's to carry. It dies with the
    coordinator, and is killed where it hangs: a store cut short is made good by the next writer."""

    def __init__(self, tracker: Tracker) -> None:
        # A copy imports nothing anew.
        context: Any = multiprocessing.get_context("fork" if fork_server.may_copy() else "spawn")
        # Pipes, not a multiprocessing.Queue, whose semaphores need a /dev/shm that can be written.
        waiting, self._sends = context.Pipe(duplex=False)
        self._told, tells = context.Pipe(duplex=False)
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._feeder: threading.Thread | None = None
        mirrored = (tracker.results, tracker.suite, tracker.trials)
        self._process = context.Process(target=_mirror, args=(*mirrored, waiting, tells, os.getpid()), daemon=True)
        self._process.start()
        waiting.close()
        tells.close()

    def put(self, item: Item | None) -> None:
        """Returns at once: a thread waits where the writer is slow. It starts with the first item, because a process with
        threads cannot be copied."""
        self._queue.put(item)
        if self._feeder is None:
            self._feeder = threading.Thread(target=self._feed, daemon=True)
            self._feeder.start()

    def _feed(self) -> None:
        item: Item | None = self._queue.get()
        with contextlib.suppress(OSError):  # the writer has died, which `close` reports
            while item is not None:
                self._sends.send(item)
                item = self._queue.get()
            self._sends.send(None)

    def close(self) -> tuple[str | None, list[str]]:
        """Waits for the end, unless Ctrl-C ends the wait; what went wrong, if anything did, and what else there is to say."""
        self.put(None)
        try:
            self._process.join(DRAIN_SECONDS)
        finally:
            ended = self._ended()
            assert self._feeder is not None
            self._feeder.join(JOIN_SECONDS)
            self._sends.close()
        return ended

    def _ended(self) -> tuple[str | None, list[str]]:
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return f"the store was still busy after {DRAIN_SECONDS:g} s", []
        try:
            return self._told.recv()
        except EOFError:
            return f"its writer died with exit code {self._process.exitcode}", []


def _mirror(
    results: Path,
    suite: str,
    trials: list[Trial],
    waiting: Connection,
    tells: Connection,
    coordinator: int,
) -> None:
    """The life of a writer; at its end it tells what went wrong, or None, and its remarks."""
    name_process("rnnb-writer")
    if fork_server.is_available():
        die_with_parent(coordinator)
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for signum in (signal.SIGINT, signal.SIGTERM):  # meant for the coordinator, which ends this process when it is time
        signal.signal(signum, signal.SIG_IGN)
    remarks: list[str] = []
    try:
        first = waiting.recv()
        if first is not None:
            with writing(results):
                _write(results, suite, trials, itertools.chain([first], iter(waiting.recv, None)), remarks.append)
    # Whatever a store may raise, trials go on, and the coordinator reports it.
    except Exception as error:  # noqa: BLE001
        tells.send((_first_line(error), remarks))
    else:
        tells.send((None, remarks))


def _end_with_parent() -> None:
    """Where the operating system does not see to it."""
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        wait([coordinator.sentinel])
        os._exit(1)


def sync(results: Path, suite_name: str, trials: list[Trial], say: Say = lambda text: None) -> int:
    """Brings an empty, half-filled or outdated store to what the run folders say; how many trials were written.

    Trials without a valid result are left out. say: called with a sentence where the store had to be rebuilt. Raises
    StoreUnreachable with one sentence.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with writing(results):
            return _write(results, suite_name, trials, _recorded(results, trials), say)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = f"MLflow at {tracking_uri(results)}: {_first_line(error)}"
        raise StoreUnreachable(f"{told}; results are safe, and the same command tries again") from error


def _recorded(results: Path, trials: list[Trial]) -> Iterator[Item]:
    """The trials that have a valid result."""
    for trial in trials:
        with contextlib.suppress(records.TornResult):
            result = records.read_result(records.run_folder(results, trial.id))
            if result is not None:
                yield trial, result


def _write(results: Path, suite: str, trials: list[Trial], items: Iterable[Item], say: Say) -> int:
    """Logs the items as they come; how many were new. A broken local store is set aside and rebuilt, once."""
    try:
        return _log_all(results, suite, trials, items)
    except Exception as error:
        if not (_is_local(results) and _database(results).exists() and BROKEN.search(str(error))):
            raise
        reason = _first_line(error)
    broken = _set_aside(results)
    say(
        f"MLflow's database could not be read ({reason}); it is now {broken}, and a new one is built from the run folders"
    )
    # Whatever was logged before, and the item that failed, have their run folders too.
    return _log_all(results, suite, trials, itertools.chain(_recorded(results, trials), items))


def _log_all(results: Path, suite: str, trials: list[Trial], items: Iterable[Item]) -> int:
    store, ledger = Store(results, suite), Ledger(results, suite)
    n_logged = 0
    for trial, result in items:
        n_logged += store.log(trial, result)
        ledger.logged[trial.id] = store.children[trial.id][1]
    store.summarise(trials)
    ledger.save()  # last: what a run cut short has logged, the next one finds in the store
    return n_logged
