"""MLflow as a mirror of the run folders: the only file that imports mlflow, and the only writer of its store.

Experiment = suite; parent run = model on task, with what its trials say together; child run = trial. All of it can be
rebuilt from the run folders by `sync`, without duplicates: a child is known by its tag ``trial_id``, and the digest of
its result.json, the last that is written of it, says that it is whole. A lock lets one process at a time open the store.

Importing mlflow and opening a fresh SQLite store takes seconds, so a process of its own does both while trials run; a ledger
beside the report remembers what is logged, so that a run with nothing new does neither.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from benchmarks import records, tables, tracked
from benchmarks.execution import fork_server
from benchmarks.execution.lifeline import die_with_parent
from benchmarks.records import Result
from benchmarks.trial import Trial
from models import registry as models

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
LOCK = ".mlflow.lock"
"""In the results folder."""


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or SQLite in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'mlflow.db').resolve()}"


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
        self.path = results / suite / "mlflow.json"
        self.uri = tracking_uri(results)
        self.logged: dict[str, str] = {}
        if self.path.is_file() and not self._store_is_gone():
            # A torn ledger is no ledger: the store itself says what it holds.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                content = records.parse_json(self.path.read_bytes())
                self.logged = dict(content["logged"]) if content["uri"] == self.uri else {}

    def _store_is_gone(self) -> bool:
        return self.uri.startswith("sqlite:///") and not Path(self.uri.removeprefix("sqlite:///")).exists()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomically(self.path, json.dumps({"uri": self.uri, "logged": self.logged}))


class Store:
    """One experiment of an MLflow store, open for writing."""

    def __init__(self, results: Path, suite: str) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.results = results
        uri = tracking_uri(results)
        self.client: MlflowClient = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(suite)
        if found is None:
            # A server keeps artifacts where it is told to; the local store keeps them beside its database.
            location = (results / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
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
            self._writer.waiting.put((trial, result))

    def is_logged(self, trial: Trial) -> bool:
        """Whether the store holds the trial's result as it is: a look at one small file and at the ledger."""
        digest = records.result_digest(records.run_folder(self.results, trial.id))
        return digest is None or self.ledger.logged.get(trial.id) == digest

    def close(self) -> str | None:
        """Waits until all is written, at most DRAIN_SECONDS; a warning in one line if it was not."""
        writer, self._writer = self._writer, None
        if writer is None:
            return None
        problem = writer.close()
        self.ledger = Ledger(self.results, self.suite)
        if problem is None:
            return None
        return (
            f"MLflow at {self.ledger.uri}: {problem}; results are safe, catch up with: rnnbench sync {self.suite} "
            "and the same --results and --device"
        )


class _Writer:
    """The process that writes a tracker's store: what mlflow needs, 100 MB, is not the coordinator's to carry. It dies with the
    coordinator, and is killed where it hangs: a store cut short is made good by the next writer."""

    def __init__(self, tracker: Tracker) -> None:
        # A copy imports nothing anew.
        context: Any = multiprocessing.get_context("fork" if fork_server.may_copy() else "spawn")
        self.waiting: Queue[tuple[Trial, Result] | None] = context.Queue()
        self._told, tells = context.Pipe(duplex=False)
        mirrored = (tracker.results, tracker.suite, tracker.trials)
        self._process = context.Process(target=_mirror, args=(*mirrored, self.waiting, tells, os.getpid()), daemon=True)
        self._process.start()
        tells.close()

    def close(self) -> str | None:
        """Waits for the end, unless Ctrl-C ends the wait; what went wrong, if anything did."""
        self.waiting.put(None)
        self.waiting.close()
        try:
            self._process.join(DRAIN_SECONDS)
        finally:
            problem = self._problem()
            if problem is None:
                self.waiting.join_thread()
            else:
                self.waiting.cancel_join_thread()  # what was left unread keeps it waiting
        return problem

    def _problem(self) -> str | None:
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return f"the store was still busy after {DRAIN_SECONDS:g} s"
        try:
            return self._told.recv()
        except EOFError:
            return f"its writer died with exit code {self._process.exitcode}"


def _mirror(
    results: Path,
    suite: str,
    trials: list[Trial],
    waiting: Queue[tuple[Trial, Result] | None],
    tells: Connection,
    coordinator: int,
) -> None:
    """The life of a writer; at its end it tells what went wrong, or None."""
    if fork_server.is_available():
        die_with_parent(coordinator)
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for signum in (signal.SIGINT, signal.SIGTERM):  # meant for the coordinator, which ends this process when it is time
        signal.signal(signum, signal.SIG_IGN)
    try:
        _drain(results, suite, trials, waiting)
    # Whatever a store may raise, trials go on, and the coordinator reports it.
    except Exception as error:  # noqa: BLE001
        tells.send(_first_line(error))
    else:
        tells.send(None)


def _end_with_parent() -> None:
    """Where the operating system does not see to it."""
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        wait([coordinator.sentinel])
        os._exit(1)


def _drain(results: Path, suite: str, trials: list[Trial], waiting: Queue[tuple[Trial, Result] | None]) -> None:
    item = waiting.get()
    if item is None:
        return
    with writing(results):
        store, ledger = Store(results, suite), Ledger(results, suite)
        while item is not None:
            store.log(*item)
            ledger.logged[item[0].id] = store.children[item[0].id][1]
            item = waiting.get()
        store.summarise(trials)
        ledger.save()  # last: what a run cut short has logged, the next one finds in the store


def sync(results: Path, suite_name: str, trials: list[Trial]) -> int:
    """Brings an empty, half-filled or outdated store to what the run folders say; how many trials were written.

    Trials without a valid result are left out. Raises StoreUnreachable with one sentence.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with writing(results):
            return _sync(results, suite_name, trials)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = f"MLflow at {tracking_uri(results)}: {_first_line(error)}"
        raise StoreUnreachable(f"{told}; results are safe, and the same command tries again") from error


def _sync(results: Path, suite_name: str, trials: list[Trial]) -> int:
    store, ledger = Store(results, suite_name), Ledger(results, suite_name)
    n_logged = 0
    for trial in trials:
        try:
            result = records.read_result(records.run_folder(results, trial.id))
        except records.TornResult:
            continue
        if result is not None:
            n_logged += store.log(trial, result)
            ledger.logged[trial.id] = store.children[trial.id][1]
    store.summarise(trials)
    ledger.save()
    return n_logged
