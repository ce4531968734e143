"""A suite from its name to its outcome: what is missing is run, MLflow brought up to date, the report built.

What costs time to import (torch, papermill, mlflow) is imported where it is needed: a finished suite needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import typer

from benchmarks.parameters import InvalidParameter

if TYPE_CHECKING:
    from benchmarks.execution.plan import Plan
    from benchmarks.execution.supervisor import Summary
    from benchmarks.finished import Outcome
    from benchmarks.records import Result, Status
    from benchmarks.suite import Suite
    from benchmarks.tracking import Tracker
    from benchmarks.trial import Trial

RESULTS = Path(__file__).resolve().parents[1] / "results"
INFRASTRUCTURE = 3


class Stopped(RuntimeError):
    """A run that could not go on: the folder is in use, the disk is full, or a signal came. exit_code: for a shell."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Options(NamedTuple):
    """Where and how wide to run. executor: "local", or "ray" for the nodes of a Ray cluster, whose head has the address."""

    results: Path
    workers: int | None
    executor: str = "local"
    address: str | None = None


class Narrowed(NamedTuple):
    """Which part of a suite is asked for; by default all of it, run and reported. retry: statuses of failed trials that shall
    be tried again, or "all" of them."""

    models: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: int | None = None
    dry_run: bool = False
    report: bool = True
    retry: Sequence[str] = ()


def complete(suite: str, device: str, options: Options, asked: Narrowed | None = None) -> Outcome | None:
    """Runs what is missing of a suite, named or by its file's path, and tells its outcome; None for a dry run.

    Raises Stopped, DataMissing, UnknownName or InvalidParameter, each with one sentence.
    """
    from benchmarks.finished import Outcome, Run

    asked = asked or Narrowed()
    whole_run = Run(suite, device, options.results) if asked == Narrowed() else None
    kept = whole_run.recall() if whole_run else None
    if kept is not None:
        return kept

    from benchmarks.execution.display import closing_table, show_plan
    from benchmarks.execution.plan import plan, retried
    from benchmarks.suite import load
    from benchmarks.tracking import Tracker
    from benchmarks.trial import check_buildable

    chosen = load(suite)
    whole = chosen.trials(device=device)
    narrowed = (asked.models, asked.tasks, asked.seeds)
    trials = whole if narrowed == (None, None, None) else chosen.trials(*narrowed, device)
    if not trials:
        raise InvalidParameter(f"{chosen.file}: no grid has one of these models on one of these tasks")
    retry = retried(asked.retry)
    prepare(trials)
    digests = code_digests(trials)
    found = plan(trials, digests, options.results, retry)
    if asked.dry_run:
        show_plan(found, options.results)
        return None
    _warn(check_buildable(found.to_run))
    tracker = Tracker(options.results, chosen.name, whole)
    summary = _execute(tracker, trials, found, digests, options, retry)
    if summary is not None and summary.stopped_by is not None:
        raise Stopped(f"stopped by {summary.stopped_by.name}; the same command resumes", 128 + summary.stopped_by)
    table, n_failed = closing_table(trials, options.results)
    page = _refresh_report(chosen, whole, options.results) if asked.report else None
    outcome = Outcome(table, n_failed, str(page) if page else None)
    if whole_run and all(map(tracker.is_logged, trials)):
        whole_run.remember([trial.id for trial in trials], outcome)
    return outcome


def _execute(
    tracker: Tracker,
    trials: list[Trial],
    found: Plan,
    digests: dict[str, str],
    options: Options,
    retry: Set[Status],
) -> Summary | None:
    """Runs what is left, and brings MLflow up to date with all of it; None where there was nothing to run."""
    from benchmarks.execution.lock import FolderInUse, locked

    try:
        if found.to_run:
            tracker.start()
            return supervise(trials, found, digests, options, tracker.submit, lambda: _warn(tracker.close()), retry)
        if not all(tracker.is_logged(trial) for trial, _ in found.done):
            with locked(options.results):
                for trial, result in found.done:
                    tracker.submit(trial, result)
                _warn(tracker.close())
        return None
    except FolderInUse as error:
        raise Stopped(str(error), INFRASTRUCTURE) from error
    finally:
        _warn(tracker.close())


def supervise(
    trials: list[Trial],
    found: Plan,
    digests: dict[str, str],
    options: Options,
    submit: Callable[[Trial, Result], None] = lambda trial, result: None,
    before_timing: Callable[[], None] = lambda: None,
    retry: Set[Status] = frozenset(),
) -> Summary:
    """Runs what is left under a progress bar; failures are printed as they come. submit: told of every trial's result.
    before_timing: called when only timing trials are left, to bring work to an end that would disturb them. retry: statuses of
    earlier results that shall be tried again.

    Raises Stopped where the folder cannot be written, FolderInUse where another run writes it.
    """
    from benchmarks.execution import supervisor
    from benchmarks.execution.display import Progress

    cluster = _ray_cluster() if options.executor == "ray" else None
    for trial, reason in found.torn:
        typer.echo(f"torn result of {trial.title}, moved to {options.results / 'quarantine'}: {reason}", err=True)
    try:
        timed: list[tuple[Trial, Result]] = []
        with Progress(len(found.to_run)) as progress:

            def note(trial: Trial, result: Result) -> None:
                if trial.mode == "timing":
                    timed.append((trial, result))  # MLflow waits until nothing is measured any more
                else:
                    submit(trial, result)
                progress.advance(trial, result)

            elsewhere = None
            if cluster is not None:
                told = {"say": progress.say, "earlier": found.done}
                elsewhere = partial(cluster.work, address=options.address, workers=options.workers, **told)
            run = supervisor.run(
                trials,
                digests,
                options.results,
                options.workers,
                on_result=note,
                on_reused=submit,
                on_warning=progress.say,
                before_timing=before_timing,
                retry=retry,
                elsewhere=elsewhere,
            )
        for trial, result in timed:
            submit(trial, result)
        if run.packing is not None:
            typer.echo(f"The workers had a trial in {run.packing:.0%} of their time, timing trials left out")
        return run
    except (supervisor.StorageError, supervisor.ServerDied, supervisor.ClusterError) as error:
        raise Stopped(str(error), INFRASTRUCTURE) from error


def _ray_cluster() -> ModuleType:
    """The module that runs trials on a Ray cluster. Raises InvalidParameter where Ray, an optional package, is missing."""
    try:
        from benchmarks.execution import ray_cluster
    except ModuleNotFoundError as error:
        raise InvalidParameter(
            "--executor ray needs ray, which is not installed: pip install 'rnnbench[cluster]'"
        ) from error
    return ray_cluster


def _refresh_report(suite: Suite, trials: list[Trial], results: Path) -> Path:
    """Builds the report of the whole suite unless it is about these trials and younger than every result it shows."""
    from benchmarks.report import build, is_current

    page = results / suite.name / "report.html"
    return page if is_current(results, suite, trials) else build(results, suite, trials)


def _warn(warning: str | None) -> None:
    if warning:
        typer.echo(warning, err=True)


def prepare(trials: list[Trial]) -> list[str]:
    """The names of the data sets that the trials need, once they are here: what is missing, data or an optional package, and a
    user's file that cannot be used as asked, fails once, before any trial."""
    from benchmarks import datasets
    from benchmarks.tasks.registry import BY_NAME
    from benchmarks.tasks.registry import task as build_task

    for trial in {(trial.task, repr(sorted(trial.task_parameters.items()))): trial for trial in trials}.values():
        build_task(trial.task, trial.task_parameters).check_installed()
    names = sorted({name for trial in trials for name in BY_NAME[trial.task].datasets})
    datasets.prepare(names)
    return names


def code_digests(trials: list[Trial]) -> dict[str, str]:
    """Trial id → digest of the code that it would run with now."""
    from benchmarks.provenance import code_digest

    return {trial.id: code_digest(trial.task, trial.model, trial.mode) for trial in trials}
