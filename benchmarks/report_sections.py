"""What the report says beside its figures: sentences and tables computed from the records, as HTML with all text escaped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import cost_tables, overall, records, tables
from benchmarks.figures.drawing import Style, seeds_text, styles
from benchmarks.figures.report_figures import Curves, read_curves
from benchmarks.overall import Field
from benchmarks.records import Status
from benchmarks.seeding import numpy_generator
from benchmarks.statistics import t_interval
from benchmarks.tables import number, signed
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.your_data import YourData
from benchmarks.trial import Trial
from benchmarks.tuned import Tuning
from benchmarks.verdicts import SURE, Estimate, State, difference, simulated_coverage
from models import registry as models


@dataclass(frozen=True)
class Study:
    """A suite and what its run folders hold. trials, frame, matrix: of quality; timed: one row per timing trial."""

    name: str
    description: str
    expected: str
    parameter_budget: int | None
    results: Path
    trials: list[Trial]
    frame: pd.DataFrame
    matrix: pd.DataFrame
    tuned: Tuning | None = None
    state_budget: int | None = None
    timed: pd.DataFrame = field(default_factory=lambda: cost_tables.runs(Path(), []))

    @cached_property
    def costs(self) -> pd.DataFrame:
        return cost_tables.costs(self.timed)

    @cached_property
    def standings(self) -> dict[str, dict[str, tuple[State, Estimate]]]:
        """Task → model → state and difference to the best mean, which comes first."""
        return tables.standings(self.frame)

    @cached_property
    def field(self) -> Field:
        """The models that are compared over all tasks together."""
        return overall.field(self.frame)

    @cached_property
    def curves(self) -> Curves:
        return read_curves(self.frame, self.results)

    @cached_property
    def look(self) -> dict[str, Style]:
        return styles(self.frame)


@dataclass(frozen=True)
class Html:
    """A piece of a page that shows itself in a notebook."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


FOLDED = 40
"""Rows beyond which a table opens at a click: what is read first stands in a figure near it."""


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Cells are escaped, a line break kept; a cell that is `Html` stands as it is. One of more than FOLDED rows is folded."""
    lines = ["".join(f"<th>{escape(name)}</th>" for name in columns)]
    lines += ["".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows]
    if len(lines) == 1:
        return Html("<p>Nothing to list.</p>")
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    whole = f'<div class="wide"><table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table></div>'
    if len(lines) - 1 <= FOLDED:
        return Html(whole)
    return Html(f"<details><summary>Table of {len(lines) - 1} rows</summary>{whole}</details>")


def _cell(value: object) -> str:
    if isinstance(value, Html):
        return value.text
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return escape(number(value) if isinstance(value, float) else str(value)).replace("\n", "<br>")


def paragraphs(lines: Iterable[str]) -> Html:
    return Html("".join(f"<p>{escape(line)}</p>" for line in lines))


def title(study: Study) -> Html:
    return Html(f"<p><b>{escape(study.name)}</b>: {escape(study.description)}</p>")


def answer(study: Study) -> Html:
    """Which architecture came out best, how sure that is, and how much of the suite stands behind it."""
    frame, matrix = study.frame, study.matrix
    if frame.empty and not study.timed.empty:
        return paragraphs(["The suite measures cost alone: which architecture does a task best is not its question."])
    if not (frame["status"] == Status.OK).any():
        return paragraphs([f"No trial has finished, so there is no answer yet. {coverage(frame)}"])
    lines = ["No task is complete yet, so no model is called best."]
    decided = task_verdicts(matrix)
    if decided:
        lines = [overall.headline(study.field)] if len(set(matrix["task"])) > 1 else []
        lines.append(f"By task ({seeds_text(frame)}):")
    listed = Html("".join(f"<li>{escape(line)}</li>" for line in decided))
    last = []
    floors = Counter(
        f"{row.model} on {row.task}" for row in frame.itertuples() if row.equals_floor and row.family != "floor"
    )
    if floors:
        listed_floors = ", ".join(f"{cell} ({n} seed{'s' if n > 1 else ''})" for cell, n in floors.items())
        last.append(f"Exactly the floor's value on test, as a constant prediction has it: {listed_floors}.")
    below = below_floor(matrix)
    if (matrix["n"] > 1).any():
        last.append(f"Worse than the floor by more than noise: {', '.join(below) if below else 'none'}.")
    if {trial.task for trial in study.trials} == {YourData.name}:
        from benchmarks.your_data.recommending import recommendation  # which reads a study

        return paragraphs([*recommendation(study), *last, coverage(frame)])
    return Html(f"{paragraphs(lines).text}<ul>{listed.text}</ul>{paragraphs([*last, coverage(frame)]).text}")


def task_verdicts(matrix: pd.DataFrame) -> list[str]:
    """A line per task with a complete cell: which models are best, which are undecided, and how many are worse."""
    lines = []
    for task, cells in matrix[matrix["state"] != State.NONE].groupby("task", sort=False):
        named = {str(row["model"]): f"{row['model']}{tables.rising(row)}" for row in cells.to_dict("records")}
        of = {state: _once(cells.loc[cells["state"] == state, "model"]) for state in State}
        told = f"best: {', '.join(named[model] for model in of[State.BEST])}"
        if of[State.UNDECIDED]:
            told += f"; undecided: {', '.join(named[model] for model in of[State.UNDECIDED])}"
        worse = len(of[State.WORSE])
        lines.append(f"{task}: {told}{f'; {worse} worse' if worse else ''}")
    return lines


def _once(models: Iterable[str]) -> list[str]:
    """Without the default configurations whose tuned ones are listed too."""
    listed = list(models)
    replaced = set(map(tables.with_defaults, listed))
    return [model for model in listed if model not in replaced]


def below_floor(matrix: pd.DataFrame) -> list[str]:
    """Cells whose whole interval lies on the worse side of the floor."""
    found = []
    for cell in matrix[(matrix["n"] > 1) & (matrix["stale"] == 0) & matrix["floor"].notna()].itertuples():
        worse = cell.high < cell.floor if cell.direction == "higher" else cell.low > cell.floor
        if worse and not math.isclose(cell.mean, cell.floor, rel_tol=1e-6):
            found.append(f"{cell.model} on {cell.task}")
    return found


def coverage(frame: pd.DataFrame) -> str:
    """One sentence: how many trials ended how."""
    counts = Counter(frame["status"])
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none"
    stale = int(frame["stale"].sum())
    return f"Of {len(frame)} trials: {told}{f'; {stale} of them stale, made by other code' if stale else ''}."


def method(study: Study) -> Html:
    """How the comparison was made fair."""
    budget = study.parameter_budget
    seconds = sorted({float(t.fit["seconds"]) for t in study.trials if t.fit.get("seconds")})
    clock = f"time to fit, {', '.join(f'{number(x)} s' for x in seconds)} by the clock beside other trials"
    selected = (
        "The checkpoint was selected on validation; each trial evaluated the test split once, on that checkpoint."
    )
    draws = (
        "Every model saw the same data draws and the same test set; every model fitted by gradient had the same "
        + (f"{clock}." if seconds else "number of optimiser steps per task."),
        selected,
    )
    return paragraphs(
        [
            *(draws if study.trials else ()),
            "Models with a width were sized to "
            + (
                f"{budget:,} backbone parameters"
                if budget
                else f"{study.state_budget:,} bytes of state per sequence"
                if study.state_budget
                else "their own default"
            )
            + "; encoder and read-out have the width that the task fixes and are not counted.",
            f"Expected: {study.expected}",
        ]
    )


def task_list(study: Study) -> Html:
    """Each task with its metric, floor, ceiling or reference, budget, licence and source."""
    rows = []
    for label, trial in _first_by(study, 0).items():
        task = tasks.task(trial.task, trial.task_parameters)
        cells = study.matrix[study.matrix["task"] == label]
        primary = task.metrics[0]
        metric = f"{primary.name} ({primary.unit}), {primary.direction} is better, margin {primary.margin:g}"
        steps = sorted({_effort(t.fit) for t in study.trials if t.task == trial.task})
        floor, ceiling, reference = (
            float(cells[name].astype(float).mean()) for name in ("floor", "ceiling", "reference")
        )
        known = f"{_cell(reference)}\n{task.reference.source}" if task.reference else "–"
        about = (label, task.group, task.summary, metric, ", ".join(steps))
        least = "\n".join([_cell(floor), *_baselines(study, cells)])
        rows.append((*about, least, ceiling, known, f"{task.source}\n{task.licence}"))
    columns = ("task", "group", "what", "metric", "optimiser steps", "floor", "ceiling", "reference")
    return table((*columns, "source, licence"), rows)


def _baselines(study: Study, cells: pd.DataFrame) -> Iterator[str]:
    """What stands beside the floor of a task: the models that cost next to nothing."""
    entries = {label: models.entry(trial.model) for label, trial in _first_by(study, 1).items()}
    for cell in cells[cells["n"] > 0].to_dict("records"):
        if entries[cell["model"]].is_baseline:
            yield f"{cell['model']} {number(cell['mean'])}"


def _effort(fit: Mapping[str, Any]) -> str:
    """Optimiser steps, or the time that ends a fit before them."""
    return f"as many as fit into {fit['seconds']:g} s" if fit.get("seconds") else str(fit.get("n_steps"))


def model_list(study: Study) -> Html:
    """Each model with its family, size, learning rate and source."""
    rows = []
    for label, trial in _first_by(study, 1).items():
        entry = models.entry(trial.model)
        own = study.frame["model"] == label
        sizes = study.frame.loc[own, "parameters"].dropna().astype(int)
        size = " – ".join(f"{size:,}" for size in sorted({sizes.min(), sizes.max()})) if len(sizes) else "–"
        fits = [t.fit for t, is_own in zip(study.trials, own, strict=True) if is_own and entry.learning_rate]
        rates = sorted({fit["learning_rate"] for fit in fits})
        fitted = "learning rate " + _listed_or_range(rates) if rates else "its own procedure"
        rows.append((label, entry.family, entry.summary, size, fitted, entry.source))
    return table(("model", "family", "what", "backbone parameters", "fitted by", "source"), rows)


def _listed_or_range(rates: Sequence[float]) -> str:
    few = ", ".join(f"{rate:g}" for rate in rates)
    return few if len(rates) < 4 else f"{rates[0]:g} to {rates[-1]:g}, task by task"


def _first_by(study: Study, part: int) -> dict[str, Trial]:
    """Label of the task (0) or model (1) → the first trial that bears it."""
    found: dict[str, Trial] = {}
    for trial, labels in zip(study.trials, tables.labels(study.trials), strict=True):
        found.setdefault(labels[part], trial)
    return found


def matrix_table(study: Study) -> Html:
    """The model × task matrix, coloured by family, best in bold, followed by how to read it and the reasons for gaps."""
    if study.matrix.empty:
        return paragraphs(["The suite has no trial."])
    look = styles(study.frame)
    names = list(dict.fromkeys(study.matrix["task"]))
    cells = {(cell["model"], cell["task"]): cell for cell in study.matrix.to_dict("records")}
    rows = []
    for model in look:
        row: list[object] = [Html(f'<b style="color:{look[model].colour}">{escape(model)}</b>')]
        for task in names:
            cell = cells.get((model, task))
            text = "<br>".join(escape(line) for line in tables.cell_lines(cell)) if cell else ""
            row.append(Html(f'<span class="{cell["state"] or "none"}">{text}</span>' if cell else ""))
        rows.append(row)
    heads = study.matrix.drop_duplicates("task").set_index("task")
    arrows = {"higher": "↑", "lower": "↓"}
    columns = [f"{task} {heads.loc[task, 'metric']} {arrows[str(heads.loc[task, 'direction'])]}" for task in names]
    notes = "".join(f"<li>{escape(line)}</li>" for line in tables.notes(study.frame))
    return Html(table(["model", *columns], rows).text + f"<p>{escape(tables.CAPTION)}</p><ul>{notes}</ul>")


def difference_table(study: Study) -> Html:
    """Each model minus the best mean of its task, paired by seed and test sequence, with its state."""
    cells = {(row["model"], row["task"]): row for row in study.matrix.to_dict("records") if row["state"]}
    if not cells:
        return paragraphs(["No model has finished a task with every seed yet."])
    leaders = {task: next(iter(standing)) for task, standing in study.standings.items()}
    tasks_shown = list(dict.fromkeys(task for _, task in cells))
    others = [row["to_best_n"] for (model, task), row in cells.items() if model != leaders.get(task)]
    most = max(others, default=1)
    rows = []
    for model in styles(study.frame):
        line: list[object] = [model]
        for task in tasks_shown:
            row = cells.get((model, task))
            line.append("–" if row is None else Html(_to_best(row, model == leaders.get(task), most)))
        rows.append(line)
    heads = [f"{task}: minus {leaders.get(task, 'the best')}" for task in tasks_shown]
    seeds = f"n = {most} seeds where no other number is given." if most > 1 else "One seed in common: no uncertainty."
    return Html(table(["model", *heads], rows).text + paragraphs([seeds, *_coverage(study)]).text)


def _coverage(study: Study) -> Iterator[str]:
    """What the intervals of differences are worth."""
    standings = study.standings.values()
    apart = [each for standing in standings for _, each in standing.values() if each.n > 1 and each.half > 0]
    if apart:
        generator = numpy_generator("coverage of differences")
        found = ", ".join(f"{simulated_coverage(apart, n, generator):.1%} at n = {n}" for n in (3, 5, 10))
        yield (
            "Simulated with the deviations over seeds and test sequences of this table, as if they were normal, a 95 % "
            f"interval covers the true difference in {found}. Where seeds either solve a task or do not, so few of them say "
            "little, and an interval can be wider than the metric's range."
        )


def _to_best(row: Mapping[str, Any], leads: bool, most: int) -> str:
    if leads:
        return '<span class="best">the best mean</span>'
    if not row["to_best_n"]:
        return f'<span class="{row["state"]}">no seed in common<br>{row["state"]}</span>'
    bounds = (
        "one seed"
        if math.isnan(row["to_best_low"])
        else f"{signed(row['to_best_low'])} … {signed(row['to_best_high'])}"
    )
    n = f"<br>n = {row['to_best_n']}" if row["to_best_n"] != most else ""
    return f'<span class="{row["state"]}">{signed(row["to_best"])}<br>{bounds}<br>{row["state"]}{n}</span>'


def pair_table(study: Study, pairs: Sequence[Sequence[str]]) -> Html:
    """The pairs of models that one asks about, on every task that both finished."""
    values = tables.finished(study.frame)
    rows = []
    for task, own in study.frame.groupby("task", sort=False):
        for a, b in pairs:
            if (task, a) in values and (task, b) in values:
                apart = difference(values[task, a], values[task, b])
                if apart.n:
                    rows.append((task, f"{a} − {b}", *_difference(apart, float(own["margin"].iloc[0]))))
    return table(("task", "difference", "mean", "95 % interval", "seeds", "reading"), rows)


def _difference(apart: Estimate, margin: float) -> tuple[str, str, int, str]:
    if apart.n < 2:
        return signed(apart.mean), "–", apart.n, "one seed: no uncertainty"
    reading = "undecided"
    if apart.is_significant:
        is_small = apart.probability_within(margin) >= SURE
        reading = "different, by less than the margin" if is_small else "different"
    elif apart.probability_within(margin) >= SURE:
        reading = "practically equal"
    return signed(apart.mean), f"{signed(apart.low)} … {signed(apart.high)}", apart.n, reading


def over_tasks(study: Study) -> Html:
    """What the suite says over all its tasks together."""
    field = study.field
    told = paragraphs(overall.reading(field)).text
    if field.is_comparable:
        told += _loss_table(field).text
        best, *others = field.ranking.ranks
        columns = (f"probability that {best}, first by rank, is", "better", "practically equal", "worse")
        rows = [(f"than {other}", *(f"{p:.2f}" for p in field.verdict(best, other))) for other in others]
        told += table(columns, rows).text
    if field.imputed:
        told += _without_failures(field, overall.without_failures(study.frame))
    if field.left_out:
        told += table(("not compared over tasks", "because it"), field.left_out.items()).text
    return Html(told)


def _loss_table(field: Field) -> Html:
    """Each model's loss to the best of each task, and its mean over tasks with its interval."""
    rows = []
    for model, loss in field.losses.items():
        state = (
            "smallest" if model == next(iter(field.losses)) else "undecided" if model in field.candidates else "larger"
        )
        each = [_task_loss(field, model, task) for task in field.tasks]
        half = f"± {loss.half:.2g}" if loss.half else "best of every task"
        rows.append((field.name(model), f"{loss.mean:.3f}", half, state, *each))
    return table(("model", "expected loss", "95 % interval", "beside the smallest", *field.tasks), rows)


def _task_loss(field: Field, model: str, task: str) -> str:
    best = max(scores.mean for scores in field.runs[task].values())
    return f"{best - field.runs[task][model].mean:.3f}"


def _without_failures(whole: Field, rest: Field) -> str:
    """Rank and aggregate with failures as the worst score, and on the tasks without any."""
    if not rest.is_comparable:
        return paragraphs(["Without the tasks on which a model failed there is too little left to compare."]).text
    rows = []
    for model, rank in whole.ranking.ranks.items():
        other = rest.ranking.ranks.get(model, math.nan)
        rows.append((model, rank, other, whole.aggregates[model][0].mean, rest.aggregates[model][0].mean))
    kept = f"on the {len(rest.tasks)} tasks without a failure"
    ranks, means = ("mean rank", f"mean rank {kept}"), ("interquartile mean", f"interquartile mean {kept}")
    return table(("model", *ranks, *means), rows).text


def gap_table(study: Study) -> Html:
    """Excess over the Bayes optimum where it is known: mean over seeds, and each seed's own paired interval."""
    done = tables.usable(study.frame)
    ok = done[done["gap"].notna()]
    rows = []
    for (task, model), cell in ok.groupby(["task", "model"], sort=False):
        mean, low, high = t_interval(cell["gap"].astype(float))
        seeds = "one seed" if len(cell) == 1 else f"{signed(low)} … {signed(high)}"
        beaten = int((cell["gap_high"].astype(float) < 0).sum())
        share = mean / abs(float(cell["ceiling"].iloc[0])) if cell["ceiling"].iloc[0] else math.nan
        rows.append((task, model, signed(mean), seeds, f"{share:+.1%}".replace("-", "−"), len(cell), beaten))
    columns = ("task", "model", "mean excess", "95 % t interval over seeds", "share of the optimum", "seeds")
    return table((*columns, "seeds better than the optimum beyond their paired interval"), rows)


def environment_table(study: Study) -> Html:
    """What the trials ran on, from their own records; several values where they differ."""
    found: dict[str, Counter[str]] = {}
    for trial_id in (*study.frame["trial_id"], *study.timed["trial_id"]):
        for name, value in records.read_environment(records.run_folder(study.results, trial_id)).items():
            found.setdefault(name, Counter())[str(value)] += 1
    rows = [
        (name, "\n".join(value if len(values) == 1 else f"{value} ({n} trials)" for value, n in values.most_common()))
        for name, values in found.items()
    ]
    return table(("what", "value"), rows)
