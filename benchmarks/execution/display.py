"""What `rnnbench run` shows on a terminal: the plan, the progress with failures as they come, the table at the end."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from benchmarks import cost_tables, tables
from benchmarks.execution.order import Expected
from benchmarks.execution.plan import Plan
from benchmarks.records import Result, Status, run_folder
from benchmarks.trial import Trial
from benchmarks.tuned import Tuning

_GOOD = (Status.OK, Status.SKIPPED)


class Progress:
    """A bar with the time left, above it one line per failure."""

    def __init__(self, n_trials: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # A notebook shows it as a terminal does, for which no extension is needed.
        console = Console(force_jupyter=False)
        self._bar = Bar(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("trials", total=n_trials)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        # One that was refused before anything began leaves no empty bar above its sentence.
        self._bar.live.transient = not self._bar.tasks[0].completed and error[0] is not None
        self._bar.stop()

    def advance(self, trial: Trial, result: Result) -> None:
        """Counts one trial as done."""
        if result.status not in _GOOD:
            line = f"{result.status}: {trial.title} ({trial.id}): {result.reason}"
            self._bar.console.print(line, style="red", markup=False, highlight=False)
        self._bar.advance(self._task)

    def say(self, sentence: str) -> None:
        """Prints what happened to no single trial above the bar."""
        self._bar.console.print(sentence, style="yellow", markup=False, highlight=False)


def closing_table(trials: list[Trial], results: Path) -> tuple[str, int]:
    """The matrix and the counts by status, as the terminal takes them; and how many trials failed or have no result."""
    frame, timed = tables.frame(results, trials), cost_tables.runs(results, trials)
    counts = Counter(str(status) for status in [*frame["status"], *timed["status"]])
    console = Console()
    with console.capture() as captured:
        console.print(tables.render(tables.matrix(frame), frame))
        if len(timed):
            console.print(f"{len(timed)} of the trials measured cost: the report has their numbers", highlight=False)
            for row in timed[~timed["status"].isin(_GOOD)].itertuples():
                line = f"{row.status}: {row.model} on {row.task}, timing: {row.reason}"
                console.print(line, markup=False, highlight=False)
        console.print(f"{len(trials)} trials: " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    return captured.get(), sum(n for status, n in counts.items() if status not in _GOOD)


def show_plan(plan: Plan, results: Path, alike: Sequence[tuple[Trial, Result]] = ()) -> None:
    """Prints what would run: trials by model and task, and the time and disk to expect. alike: other trials to judge by."""
    console = Console()
    console.print(_counts(plan.to_run))
    states = {"done": len(plan.done), "missing": len(plan.missing), "stale": len(plan.stale), "torn": len(plan.torn)}
    console.print("Trials: " + ", ".join(f"{n} {state}" for state, n in states.items()))
    known, bound = expected_seconds(replace(plan, done=[*plan.done, *alike]))
    if known:
        console.print(f"Time on one core: about {known:.0f} s, by earlier trials with other seeds")
    if bound:
        console.print(f"Time on one core: at most {bound:.0f} s for those without one (their max_seconds)")
    sizes = [_size(run_folder(results, trial.id)) for trial, _ in plan.done]
    if sizes:
        console.print(f"Disk: about {sum(sizes) / len(sizes) * len(plan.to_run) / 1e6:.1f} MB")
    existing = next(folder for folder in (results, *results.resolve().parents) if folder.exists())
    console.print(f"Disk free: {shutil.disk_usage(existing).free / 1e9:.1f} GB")


def show_tuning(tuning: Tuning) -> None:
    """Prints what tuning moved, study by study, as measured on validation."""
    table = Table("task", "model", "default", "tuned")
    table.add_column("what was changed", overflow="fold")
    for study in tuning.studies:
        values = ("failed" if value is None else tables.number(value) for value in (study.default, study.tuned))
        table.add_row(*map(Text, (*study.labels, *values, study.told)))
    Console().print(table)


def expected_seconds(plan: Plan) -> tuple[float, float]:
    """Seconds of one core: for trials that differ from ended ones in the seed alone, and an upper bound for all others."""
    expected = Expected(plan.done)
    known = bound = 0.0
    for trial in plan.to_run:
        seconds = expected.seconds(trial.cell)
        known += seconds or 0.0
        bound += float(trial.fit["max_seconds"]) if seconds is None else 0.0
    return known, bound


def _counts(trials: Sequence[Trial]) -> Table:
    """Trials by task and model; "lstm × 3" is three seeds, or variants."""
    counts = Counter((trial.task, trial.model) for trial in trials)
    table = Table("task", "to run", "models")
    for task in dict.fromkeys(trial.task for trial in trials):
        own = {model: n for (name, model), n in counts.items() if name == task}
        table.add_row(task, str(sum(own.values())), ", ".join(f"{model} × {n}" for model, n in own.items()))
    return table


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
