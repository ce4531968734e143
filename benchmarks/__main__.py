"""The command line: ``rnnbench list | check | run | tune | compare | report | verify | sync | export | import``.

Exit codes: 0 all trials ok or skipped, 1 some failed, a published result was not reproduced, or an archive is wrong or in
conflict, 2 usage, 3 infrastructure, 130 stopped by Ctrl-C, 143 by SIGTERM.
What costs time to import (torch, papermill, mlflow) is imported by the command that needs it.
"""

from __future__ import annotations

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from benchmarks.plain_text import plain
from benchmarks.running import INFRASTRUCTURE, RESULTS, Narrowed, Options, Stopped, complete
from benchmarks.running import prepare as prepare_data
from benchmarks.standard_streams import StandardOutput

if TYPE_CHECKING:
    from benchmarks.finished import Outcome

FAILED, USAGE = 1, 2
RETRY = "--retry-failed"

app = typer.Typer(
    help="Which sequence model for my task, under my limits, and how sure can I be?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Registry(StrEnum):
    """What can be listed."""

    MODELS = "models"
    TASKS = "tasks"
    SUITES = "suites"


class Device(StrEnum):
    """Where trials run; auto is a GPU where torch sees one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Executor(StrEnum):
    """Who runs trials."""

    LOCAL = "local"
    RAY = "ray"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="a suite's name, or the path of a suite's YAML file")]
Results = Annotated[Path, typer.Option(help="the folder that holds every result")]
RunBy = Annotated[Executor, typer.Option(help="who runs trials: this machine, or the nodes of a Ray cluster")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="of the Ray cluster; default: RAY_ADDRESS, or one that runs on this machine, or a new one for this run",
    ),
]
OnDevice = Annotated[Device, typer.Option(help="where trials run; auto is a GPU where torch sees one")]


@app.command("list")
def list_registered(
    what: Registry,
    markdown: Annotated[bool, typer.Option("--markdown", help="models only: as the page models/README.md")] = False,
) -> None:
    """List the registered models or tasks, or the suites."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if markdown:
        from benchmarks.catalogue import markdown as page

        if what is not Registry.MODELS:
            _stop("--markdown: only models have such a page", USAGE)
        typer.echo(page(), nl=False)
        return

    rows: list[tuple[str, ...]]
    if what is Registry.SUITES:
        from benchmarks.suite import Suite, load

        header: tuple[str, ...] = ("suite", "trials", "description")
        rows = [(x.name, str(len(x.trials(device="cpu"))), x.description) for x in map(load, Suite.names())]
    elif what is Registry.MODELS:
        from benchmarks import catalogue

        header, rows = catalogue.HEADER, [tuple(row) for row in catalogue.rows()]
    else:
        from benchmarks.tasks import registry as tasks

        header = ("task", "group", "what it asks", "downloads", "source", "licence")
        rows = [
            (name, x.group, x.summary, ", ".join(x.datasets), x.source, x.licence) for name, x in tasks.TASKS.items()
        ]
    table = Table()
    for i, title in enumerate(header):
        table.add_column(title, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


@app.command()
def check(model: Annotated[str | None, typer.Argument(help="a registered model; default: all")] = None) -> None:
    """Run the contract of models over one model and print what holds; or over all, and print what does not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from benchmarks import checking

    console, n_broken = Console(), 0
    for name, findings in checking.check_all([model] if model else None):
        broken = [finding for finding in findings if not finding.passed]
        table = Table("invariant", "on", "holds", "detail")
        for finding in findings if model else broken:
            verdict = Text("yes") if finding.passed else Text("NO", "red")
            table.add_row(Text(finding.invariant), Text(finding.kind), verdict, Text(finding.detail))
        if table.row_count:
            console.print(table)
        kept = f"keeps the contract: {len(findings)} findings"
        console.print(
            f"{name}: {len(broken)} of {len(findings)} broken" if broken else f"{name} {kept}", highlight=False
        )
        n_broken += len(broken)
    if n_broken:
        raise typer.Exit(FAILED)


@app.command()
def run(
    suite: SuiteName,
    models: Annotated[str | None, typer.Option(help="only these models, separated by commas")] = None,
    tasks: Annotated[str | None, typer.Option(help="only these tasks, separated by commas")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="this many seeds instead of the suite's")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="trials at a time; default: one per core")] = None,
    device: OnDevice = Device.AUTO,
    results: Results = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="build the HTML report at the end")] = True,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            metavar="[=STATUS,…]", help="try failed trials again; =timeout,oom_cpu: only those with these statuses"
        ),
    ] = None,
    executor: RunBy = Executor.LOCAL,
    address: Address = None,
) -> None:
    """Run the trials of a suite that have no valid result, then show the table and build the report."""
    asked = Narrowed(_names(models), _names(tasks), seeds, dry_run, report, _names(retry_failed) or ())
    outcome = complete(suite, device.value, _options(results, workers, executor, address), asked)
    if outcome is not None:
        _show(outcome, results)


@app.command()
def tune(
    suite: SuiteName,
    trials: Annotated[int, typer.Option(min=1, help="for each model on each task, its default configuration included")],
    models: Annotated[str | None, typer.Option(help="only these models, separated by commas")] = None,
    tasks: Annotated[str | None, typer.Option(help="only these tasks, separated by commas")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of data and weights while tuning; one that no run uses")] = 1000,
    workers: Annotated[int | None, typer.Option(min=1, help="trials at a time; default: one per core")] = None,
    device: OnDevice = Device.AUTO,
    results: Results = RESULTS,
    output: Annotated[Path | None, typer.Option(help="default: tuned/SUITE.yaml, beside the suite's file")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
    executor: RunBy = Executor.LOCAL,
    address: Address = None,
) -> None:
    """Tune every model of a suite on each task with the same number of trials, on validation alone."""
    from benchmarks import tuned
    from benchmarks.execution.display import show_plan, show_tuning
    from benchmarks.suite import load
    from benchmarks.tuning import Asked, kept_from, remaining, studies
    from benchmarks.tuning import tune as run_tuning

    chosen = load(suite, tuned=False)
    asked = Asked(trials, seed, _names(models), _names(tasks), device.value)
    under_way, options = studies(chosen, asked), _options(results, workers, executor, address)
    path = output or chosen.tuned_file
    kept = kept_from(path, under_way) if models or tasks else []
    if dry_run:
        show_plan(*remaining(chosen, under_way, options))
        return
    tuning = run_tuning(under_way, options, kept)
    tuned.write(path, tuning, f"rnnbench tune {suite} --trials {trials}" + (f" --seed {seed}" if seed != 1000 else ""))
    show_tuning(tuning)
    typer.echo(f"Tuned configurations: {path}; {chosen.name} uses them where its file says: tuned: true")
    if any(study.tuned is None for study in tuning.studies):
        raise typer.Exit(FAILED)


@app.command()
def compare(
    file: Annotated[
        Path,
        typer.Argument(help=".csv, .parquet, .ts or a folder of its two files, .npz, .conll, .conllu, .txt"),
    ],
    target: Annotated[str | None, typer.Option(help="the column to be predicted")] = None,
    sequence_id: Annotated[
        list[str] | None,
        typer.Option(help="the column that says to which sequence a row belongs; several together are one key"),
    ] = None,
    time: Annotated[str | None, typer.Option(help="the column of numbers or dates that orders the rows")] = None,
    kind: Annotated[
        str, typer.Option(help="auto, or: classification, tagging, regression, forecasting, next_symbol")
    ] = "auto",
    horizon: Annotated[int | None, typer.Option(help="steps to forecast")] = None,
    causal: Annotated[bool, typer.Option("--causal", help="predictions are due as the sequence arrives")] = False,
    split: Annotated[str | None, typer.Option(help="the column that says train, validation or test")] = None,
    group: Annotated[str | None, typer.Option(help="the column whose equal values must stay in one split")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="a column that is no input; may be repeated")] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="what stands for a missing value, as written in the file; may be repeated")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="each row is a sequence of one channel")] = False,
    channels_first: Annotated[
        bool, typer.Option("--channels-first", help=".npz: X has the shape (sequences, channels, steps)")
    ] = False,
    across_gaps: Annotated[
        bool, typer.Option("--across-gaps", help="windows of a forecast may run across gaps in time")
    ] = False,
    end: Annotated[
        bool, typer.Option("--end", help="next_symbol: predict the end of a sequence as a symbol of its own")
    ] = False,
    minutes: Annotated[float, typer.Option(help="for all of it")] = 10.0,
    models: Annotated[
        str | None,
        typer.Option(
            help="these models, separated by commas; default: networks and simple models that fit the question"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="trials at a time; default: one per core")] = None,
    device: OnDevice = Device.AUTO,
    results: Results = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what was read and what would run")] = False,
) -> None:
    """Compare models on a file of your own, and say which to use."""
    from benchmarks.your_data.comparing import Asked, carry_out, look, workers_on
    from benchmarks.your_data.reading import Roles

    roles = Roles(
        target=target,
        sequence_id=tuple(sequence_id or ()),
        group=group,
        time=time,
        split=split,
        ignore=tuple(ignore or ()),
        missing=tuple(missing or ()),
        wide=wide,
        channels_first=channels_first,
        across_gaps=across_gaps,
        end=end,
    )
    names = _names(models)
    chosen = None if names is None else tuple(names)
    plan = look(file, Asked(roles, kind, horizon, causal, chosen, minutes, workers or workers_on(device.value)))
    for line in plan.told:
        typer.echo(line)
    if dry_run:
        return
    found = carry_out(plan, device.value, results)
    typer.echo(found.table, nl=False)
    for line in found.advice:
        typer.echo(line)
    typer.echo(f"Report: {found.report}")
    if found.n_failed:
        raise typer.Exit(FAILED)


@app.command()
def prepare(suite: SuiteName) -> None:
    """Download and check the data sets of a suite, so that it can run without a network."""
    from benchmarks import datasets
    from benchmarks.suite import load

    names = prepare_data(load(suite).trials(device="cpu"))
    where = f": {', '.join(names)}, in {datasets.folder()}" if names else ", for they come with the dependencies"
    typer.echo(f"All data sets of {suite} are here{where}")


@app.command()
def report(suite: SuiteName, device: OnDevice = Device.AUTO, results: Results = RESULTS) -> None:
    """Build the report of a suite from its results, whatever there is."""
    from benchmarks.elsewhere import recorded
    from benchmarks.report import build
    from benchmarks.suite import load

    chosen = load(suite)
    typer.echo(f"Report: {build(results, chosen, recorded(chosen, device.value, results))}")


@app.command()
def verify(
    task: Annotated[str | None, typer.Argument(help="only published results on this task; default: all")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="trials at a time; default: one per core")] = None,
    device: OnDevice = Device.AUTO,
    results: Results = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
) -> None:
    """Hold our results against published ones, after running what is missing for it. Exit code 1: not all agree."""
    from rich.console import Console

    from benchmarks import verifying

    found = verifying.verify(task, device.value, Options(results, workers), dry_run)
    if found is None:
        return
    Console().print(verifying.render(found))
    typer.echo(f"Page: {results / verifying.PAGE}")
    if any(finding.verdict == "not reproduced" for finding in found):
        raise typer.Exit(FAILED)


@app.command()
def sync(suite: SuiteName, device: OnDevice = Device.AUTO, results: Results = RESULTS) -> None:
    """Bring MLflow up to date with the results of a suite."""
    from benchmarks.elsewhere import recorded
    from benchmarks.suite import load
    from benchmarks.tracking import StoreUnreachable
    from benchmarks.tracking import sync as synchronise

    chosen = load(suite)
    try:
        n_logged = synchronise(results, chosen.name, recorded(chosen, device.value, results), say=_remark)
    except StoreUnreachable as error:
        _stop(str(error), INFRASTRUCTURE)
    typer.echo(f"{n_logged} trials of {chosen.name} written to MLflow")


@app.command()
def export(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="a suite's name, or the path of its file; not with --check")
    ] = None,
    device: OnDevice = Device.AUTO,
    results: Results = RESULTS,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="default: SUITE-DEVICE.zip, beside the suite's report")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="export nothing, but verify this archive"),
    ] = None,
) -> None:
    """Put the records, notebooks and report of a suite into one archive; or verify one. Exit code 1: it is not right."""
    if (suite is None) == (check is None) or (check is not None and output is not None):
        raise typer.BadParameter("give either SUITE, to be exported, or --check FILE, to be verified")
    from benchmarks.portable import BadArchive, open_archive

    if check is not None:
        try:
            with open_archive(check) as archive:
                archive.check()
                typer.echo(f"{check.name} is right: {archive.manifest.told}")
        except BadArchive as error:
            _stop(str(error), FAILED)
        return
    from benchmarks.elsewhere import recorded
    from benchmarks.exchange import export as write
    from benchmarks.execution.lock import FolderInUse
    from benchmarks.suite import load

    assert suite is not None
    chosen = load(suite)
    trials = recorded(chosen, device.value, results)
    path = output or results / chosen.name / f"{chosen.name}-{trials[0].device}.zip"
    try:
        exported = write(results, chosen, trials, path)
    except FolderInUse as error:
        _stop(str(error), INFRASTRUCTURE)
    for reason in exported.torn:
        typer.echo(f"left out, for its result is torn: {reason}", err=True)
    missing = f"; {exported.n_missing} of {len(trials)} trials have no result yet" if exported.n_missing else ""
    typer.echo(f"Exported: {exported.manifest.told}{missing}")
    typer.echo(f"Archive: {path}")


@app.command("import")
def import_archive(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="what `rnnbench export` wrote")
    ],
    results: Results = RESULTS,
) -> None:
    """Check an archive and add its trials to a results folder. Exit code 1: it is not right, or in conflict with ours.

    An archive that would unpack to more than 32 GiB is refused before anything is written.
    """
    from benchmarks.exchange import merge
    from benchmarks.execution.lock import FolderInUse
    from benchmarks.portable import BadArchive, open_archive

    try:
        with open_archive(file) as archive:
            typer.echo(f"{file.name}: {archive.size}")
            merged = merge(archive, results)
            manifest = archive.manifest
    except BadArchive as error:
        _stop(str(error), FAILED)
    except FolderInUse as error:
        _stop(str(error), INFRASTRUCTURE)
    typer.echo(f"{file.name}: {manifest.told}")
    typer.echo(f"Into {results}: {merged.told}")
    for line in merged.remarks:
        typer.echo(line)
    typer.echo(f"Next: rnnbench run {merged.suite or manifest.suite} --device {manifest.device} --results {results}")
    for line in merged.conflicts:
        typer.echo(f"conflict, ours is kept: {line}", err=True)
    if merged.conflicts:
        raise typer.Exit(FAILED)


def main() -> None:
    """The console script. What a person mistyped becomes one sentence and exit code 2."""
    from benchmarks.datasets import DataMissing
    from benchmarks.parameters import InvalidParameter
    from models.names import BrokenPlugin, UnknownName

    output = StandardOutput()
    # An option whose value may be left out, which typer does not have.
    arguments = [f"{RETRY}=all" if argument == RETRY else argument for argument in sys.argv[1:]]
    try:
        app(arguments)
    except (UnknownName, InvalidParameter, BrokenPlugin) as error:
        _stop(str(error), USAGE)
    except DataMissing as error:
        _stop(str(error), INFRASTRUCTURE)
    except Stopped as error:
        _stop(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _stop(f"{error}; mend the folder or free some space, then run the same command again", INFRASTRUCTURE)
    finally:
        failure = output.failure()
        if failure is not None:
            _stop(failure, INFRASTRUCTURE)


def _show(outcome: Outcome, results: Path) -> None:
    """The end of a run: its table, where to look further, and the exit code."""
    typer.echo(outcome.table, nl=False)
    if outcome.report:
        typer.echo(f"Report: {outcome.report}")
    elsewhere = "" if results.resolve() == RESULTS.resolve() else f" RESULTS={results.resolve()}"
    typer.echo(f"Metrics, time and memory of all runs, in a browser: make dashboard{elsewhere}, there Model training")
    if outcome.n_failed:
        raise typer.Exit(FAILED)


def _options(results: Path, workers: int | None, executor: Executor, address: str | None) -> Options:
    if address is not None and executor is not Executor.RAY:
        _stop("--address: names a Ray cluster, which only --executor ray uses", USAGE)
    return Options(results, workers, executor.value, address)


def _names(written: str | None) -> list[str] | None:
    return None if written is None else [name.strip() for name in written.split(",") if name.strip()]


def _remark(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(plain(message), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
