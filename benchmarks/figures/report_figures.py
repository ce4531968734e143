"""The report's figures: functions of the tables, each returning one figure with its message as the title."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from benchmarks import records, tables
from benchmarks.figures.drawing import (
    GRID,
    MUTED,
    SMALL,
    Drawing,
    Style,
    bounds,
    drawing,
    head,
    label_right,
    message,
    reference_lines,
    seeds_text,
    styles,
    trained_span,
)
from benchmarks.records import Status
from benchmarks.verdicts import State

Curves = Mapping[tuple[str, str], pd.DataFrame]
"""(task, model) → validation metric, steps × seeds."""


def scores(frame: pd.DataFrame, matrix: pd.DataFrame) -> Drawing:
    """A panel per task: each model's seeds as points, their mean with its 95 % t interval, floor and ceiling."""
    if not (frame["status"] == Status.OK).any():
        return message("No trial has finished: there are no scores to show yet.")
    look = styles(frame)
    tasks = list(dict.fromkeys(frame["task"]))
    claim = _decided(matrix)
    reading = f"Points: seeds. Bar: mean and 95 % interval over seeds and test sequences. {seeds_text(frame)}."
    figure, axes = drawing(claim, len(tasks), (4.0, 1.0 + 0.2 * len(look)), reading=reading)
    finished = frame[frame["status"] == Status.OK]
    for index, (ax, task) in enumerate(zip(axes, tasks, strict=True)):
        ok = finished[finished["task"] == task]
        values = dict(list(ok.groupby("model")["value"]))
        cells = matrix[matrix["task"] == task].set_index("model")
        first = cells.iloc[0]
        log, low, high = bounds([*ok["value"], *ok["floor"], *ok["ceiling"]], first["direction"])
        ax.set_xlim(low, high)
        if log:
            ax.set_xscale("log", nonpositive="clip")
        ax.set_ylim(len(look) - 0.5, -0.5)
        reference_lines(ax, ok, vertical=True)
        for row, model in enumerate(look):
            if model in cells.index:
                _score_row(ax, row, values.get(model, ()), cells.loc[model], look[model])
        ax.grid(visible=False, axis="y")
        ax.hlines(range(len(look)), 0, 1, transform=ax.get_yaxis_transform(), color=GRID, linewidth=0.6, zorder=0)
        names = list(look) if index % 3 == 0 else []
        ax.set_yticks(range(len(names)), names)
        way = f"{first['direction']} is better{', log' if log else ''}"
        head(ax, task, f"{first['metric']} ({first['unit']}), {way}", pad=16)
    return figure


def _decided(matrix: pd.DataFrame) -> str:
    """On how many tasks every model is either best or worse."""
    compared = matrix[matrix["state"] != State.NONE]
    if compared.empty:
        return "No task is complete"
    open_tasks = compared.loc[compared["state"] == State.UNDECIDED, "task"].nunique()
    n_tasks = compared["task"].nunique()
    if n_tasks == 1:
        return "Some models are undecided" if open_tasks else "Every compared model is either best or worse"
    return f"{n_tasks - open_tasks} of {n_tasks} tasks are decided: no compared model is left between best and worse"


def _score_row(ax: Axes, row: int, values: Sequence[float], cell: pd.Series, style: Style) -> None:
    ax.plot(values, [row] * len(values), style.marker, color=style.colour, alpha=0.45, markersize=5, mew=0)
    if cell["n"] > 1:
        ax.plot([cell["low"], cell["high"]], [row, row], color=style.colour, linewidth=1.6, solid_capstyle="butt")
    if cell["n"]:
        ax.plot([cell["mean"]], [row], "|", color=style.colour, markersize=9, markeredgewidth=2)
    absent = [f"{cell[kind]} {kind}" for kind in ("failed", "skipped", "missing", "stale") if cell[kind]]
    if absent:
        place = 1.01 if cell["n"] else 0.02
        text = ", ".join(absent)
        over_lines = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text(
            place, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=MUTED, bbox=over_lines
        )


SCORE_BOTTOM = -0.5
"""Scores far below the floor are drawn here: they would squeeze all others."""
COSTS = {
    "parameters": "backbone parameters (count)",
    "state_bytes": "state carried per sequence (bytes)",
    "seconds_train": "training time (s), shared machine, indicative",
    "peak_memory_increment_mb": "peak memory above that of the imports (MB), shared machine, indicative",
}


def score_against(matrix: pd.DataFrame, costs: Sequence[str]) -> Drawing:
    """Mean score over tasks against the median cost over tasks; hollow where a model did not finish every task."""
    done = matrix[(matrix["n"] > 0) & matrix["score"].notna()]
    if done.empty:
        return message("No finished trial has a score: nothing to weigh against cost yet.")
    look = styles(matrix)
    scored = done["task"].nunique()
    costs_of = dict.fromkeys(costs, "median")
    points = done.groupby("model").agg({"score": "mean", "complete": "sum", "family": "first", **costs_of})
    full = points[points["complete"] == scored]
    names = {
        model: model if model in full.index else f"{model} ({row['complete']} of {scored} tasks complete)"
        for model, row in points.iterrows()
    }
    claim = "No model finished every task with every seed"
    if not full.empty:
        claim = (
            f"Mean score over {scored} tasks against what the model needs; the headline says which differences are sure"
        )
    reading = (
        "Score: 0 is the floor, 1 the ceiling or reference. Hollow: not every task is complete, so not comparable."
    )
    figure, axes = drawing(claim, len(costs), (6.0, max(3.6, 0.9 + 0.17 * len(points))), columns=2, reading=reading)
    for ax, cost in zip(axes, costs, strict=True):
        shown = points[points[cost].notna()]
        _, low, high = bounds(shown["score"], "higher")
        ax.set_ylim(max(low, SCORE_BOTTOM), high)
        positive = shown.loc[shown[cost] > 0, cost]
        if not positive.empty and positive.max() > 5 * positive.min():
            ax.set_xscale("symlog", linthresh=float(positive.min()))
        ends, looks = {}, {}
        for model, row in shown.iterrows():
            style, place = look[str(model)], (row[cost], max(row["score"], SCORE_BOTTOM))
            face = style.colour if model in full.index else "white"
            ax.plot(*place, style.marker, color=style.colour, markerfacecolor=face)
            ends[names[model]], looks[names[model]] = place, style
        label_right(ax, ends, looks)
        head(ax, "", COSTS[cost], "mean score over tasks")
    return figure


def learning_curves(frame: pd.DataFrame, curves: Curves) -> Drawing:
    """A panel per task: validation metric against optimiser steps, median over seeds with their range."""
    tasks = [task for task in dict.fromkeys(frame["task"]) if any(key[0] == task for key in curves)]
    if not tasks:
        return message("No trial has a learning curve yet.")
    look = styles(frame)
    reading = (
        f"Line: median over seeds. Band: their range. A level line: a model that fits itself. {seeds_text(frame)}."
    )
    size = (5.0, max(3.0, 0.9 + 0.16 * len(look)))
    title = f"In steps, {_fastest(frame, curves, tasks)}"
    figure, axes = drawing(title, len(tasks), size, columns=2, reading=reading)
    for ax, task in zip(axes, tasks, strict=True):
        own = {model: curve for (name, model), curve in curves.items() if name == task}
        _curves(ax, own, frame[frame["task"] == task], look, "optimiser steps")
    return figure


def learning_costs(frame: pd.DataFrame, curves: Curves, costs: pd.DataFrame) -> Drawing:
    """Two panels per task that has timing trials: validation metric against the time and the operations of its steps.

    costs: as `benchmarks.cost_tables.costs` has them. A step's time is its median where nothing else ran.
    """
    step = costs[costs["training_step_s"].notna()].set_index(["task", "model"])[["training_step_s", "training_flops"]]
    prices = {key: row for key, row in step.iterrows() if key in curves}
    tasks = list(dict.fromkeys(task for task, _ in prices))
    if not tasks:
        return message("No model that learns by gradient was both fitted and timed on one task.")
    look = styles(frame)
    reading = (
        f"Line: median over seeds. Band: their range. Steps × what one costs in a timing trial. {seeds_text(frame)}."
    )
    size = (5.0, max(3.0, 0.9 + 0.16 * len(look)))
    units = (("training_step_s", 1.0, "training time (s)"), ("training_flops", 1e-9, "operations (GFLOP)"))
    priced = {
        price: {key: curves[key].set_axis(curves[key].index * float(prices[key][price]) * scale) for key in prices}
        for price, scale, _ in units
    }
    title = f"In training time, {_fastest(frame, priced['training_step_s'], tasks)}"
    figure, axes = drawing(title, 2 * len(tasks), size, columns=2, reading=reading)
    panels = [(task, *unit) for task in tasks for unit in units]
    for ax, (task, price, _, label) in zip(axes, panels, strict=True):
        own = {model: curve for (name, model), curve in priced[price].items() if name == task}
        _curves(ax, own, frame[frame["task"] == task], look, label)
    return figure


def _curves(ax: Axes, own: dict[str, pd.DataFrame], rows: pd.DataFrame, look: dict[str, Style], x: str) -> None:
    """A panel of one task: model → validation metric, (steps × seeds), indexed by what ``x`` names."""
    values = [value for curve in own.values() for value in curve.to_numpy().ravel()]
    log, low, high = bounds([*values, *rows["floor"].dropna(), *rows["ceiling"].dropna()], rows["direction"].iloc[0])
    last = max(curve.index.max() for curve in own.values()) or 1
    if log:
        ax.set_yscale("log", nonpositive="clip")
    ax.set_ylim(low, high)
    ax.set_xlim(0, last)
    reference_lines(ax, rows, vertical=False)
    ends = {model: _curve(ax, own[model], last, look[model]) for model in look if model in own}
    label_right(ax, ends, look)
    metric = f"validation {rows['metric'].iloc[0]} ({rows['unit'].iloc[0]})"
    head(ax, f"{rows['task'].iloc[0]}: {rows['direction'].iloc[0]} is better", x, metric)


def _fastest(frame: pd.DataFrame, curves: Curves, tasks: list[str]) -> str:
    """The message of the learning curves: who is first past nine tenths of the way from floor to ceiling."""
    first: Counter[str] = Counter()
    middles = {key: curve.median(axis=1) for key, curve in curves.items() if len(curve) > 1}
    for task in tasks:
        rows = frame[frame["task"] == task]
        floor, goal = rows["floor"].astype(float).mean(), rows["ceiling"].fillna(rows["reference"]).astype(float).mean()
        crossed = {}
        for (_, model), middle in ((key, middle) for key, middle in middles.items() if key[0] == task):
            way = (middle - floor) / (goal - floor)
            if (way >= 0.9).any():
                crossed[model] = way.index[way >= 0.9][0]
        first.update(model for model, step in crossed.items() if step == min(crossed.values()))
    if not first:
        return "no model fitted by gradient gets nine tenths of the way from floor to ceiling or reference"
    model, n = first.most_common(1)[0]
    where = tables.on_tasks(n, len(tasks))
    return f"{model} is first, or among the first, past nine tenths of the way to ceiling or reference {where}"


def _curve(ax: Axes, curve: pd.DataFrame, last: float, style: Style) -> tuple[float, float]:
    """Draws (steps × seeds) and returns where it ends. A model that fits itself has one row and is drawn as a level."""
    steps, middle = list(curve.index), list(curve.median(axis=1))
    if len(steps) == 1:
        steps, middle = [0, last], middle * 2
    else:
        ax.fill_between(steps, curve.min(axis=1), curve.max(axis=1), color=style.colour, alpha=0.12, linewidth=0)
    ax.plot(steps, middle, color=style.colour, linestyle=style.line, linewidth=1.4)
    return steps[-1], middle[-1]


def read_curves(frame: pd.DataFrame, results: Path) -> Curves:
    """From the run folders of the trials that finished. A seed that stopped early keeps its last value to the end."""
    series: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for trial in tables.usable(frame)[["trial_id", "task", "model", "seed"]].itertuples():
        rows = records.read_curve(records.run_folder(results, trial.trial_id))
        if rows:
            values = {row["step"]: row["validation"] for row in rows}
            series.setdefault((trial.task, trial.model), {})[trial.seed] = values
    return {key: pd.DataFrame(by_seed, dtype=float).sort_index().ffill().bfill() for key, by_seed in series.items()}


def length_sweep(frame: pd.DataFrame) -> Drawing | None:
    """The primary metric against tested length, a panel per task that has lengths; None where no task has."""
    done = tables.usable(frame)
    swept = done[done["length_sweep"].map(bool)]
    if swept.empty:
        return None
    look = styles(frame)
    tasks = list(dict.fromkeys(swept["task"]))
    reading = f"Line: median over seeds. Band: their range. {seeds_text(swept)}."
    size = (6.5, max(3.4, 0.9 + 0.16 * len(look)))
    figure, axes = drawing(_keepers(swept), len(tasks), size, columns=2, reading=reading)
    for ax, task in zip(axes, tasks, strict=True):
        rows = swept[swept["task"] == task]
        by_model = {
            model: pd.DataFrame(list(cell["length_sweep"])).T for model, cell in rows.groupby("model", sort=False)
        }
        values = [value for curve in by_model.values() for value in curve.to_numpy().ravel()]
        log, low, high = bounds([*values, *rows["floor"].dropna()], rows["direction"].iloc[0])
        if log:
            ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(low, high)
        lengths = sorted({length for curve in by_model.values() for length in curve.index})
        ax.set_xlim(0, max(lengths))
        reference_lines(ax, rows, vertical=False)
        trained_span(ax, rows["trained_length"].iloc[0])
        ends = {m: _curve(ax, by_model[m].sort_index(), max(lengths), look[m]) for m in look if m in by_model}
        label_right(ax, ends, look)
        head(ax, task, "length tested (steps)", f"{rows['metric'].iloc[0]} ({rows['unit'].iloc[0]})")
    return figure


def _keepers(swept: pd.DataFrame) -> str:
    """The message of the length sweep: who keeps nine tenths of the way above the floor at the greatest length."""
    told = []
    for task, rows in swept.groupby("task", sort=False):
        last = max(max(sweep) for sweep in rows["length_sweep"])
        goal = rows["ceiling"].fillna(rows["reference"]).astype(float)
        reached = rows["length_sweep"].map(lambda sweep, last=last: sweep[last]).astype(float)
        way = (reached - rows["floor"].astype(float)) / (goal - rows["floor"].astype(float))
        kept = way.groupby(rows["model"], sort=False).median()
        names = list(kept.index[kept >= 0.9])
        times = last / rows["trained_length"].iloc[0]
        told.append(f"{task} at {times:g} times the trained length is solved by {', '.join(names) or 'no model'}")
    return "; ".join(told)


def status_overview(frame: pd.DataFrame) -> Drawing:
    """How every trial ended, models × tasks: all ok, skipped, some failed, missing or stale."""
    if frame.empty:
        return message("The suite has no trial.")
    look, tasks = styles(frame), list(dict.fromkeys(frame["task"]))
    kinds = {"ok": "#cfe8dc", "skipped": "#e4e4e4", "failed": "#f2b8a0", "missing": "#ffffff", "stale": "#f6e3a8"}
    cells: dict[tuple[str, str], Counter[str]] = {}
    for model, task, status, stale in zip(*(frame[name].tolist() for name in _ENDING), strict=True):
        cells.setdefault((model, task), Counter())[_kind(status, stale)] += 1
    counts = sum(cells.values(), Counter())
    told = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind])
    figure, (ax,) = drawing(f"{len(frame)} trials: {told}", 1, (2.2 + 1.15 * len(tasks), 0.8 + 0.27 * len(look)))
    ax.grid(visible=False)
    rows, columns = {model: y for y, model in enumerate(look)}, {task: x for x, task in enumerate(tasks)}
    tiles = []
    for (model, task), found in cells.items():
        x, y = columns[task], rows[model]
        worst = next(kind for kind in ("failed", "stale", "missing", "skipped", "ok") if found[kind])
        tiles.append(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=kinds[worst], edgecolor="#bdbdbd"))
        text = "\n".join(f"{n} {kind}" for kind, n in sorted(found.items()))
        count = ax.text(x, y, text, ha="center", va="center", fontsize=SMALL if len(found) < 2 else 6)
        count.set_in_layout(False)  # it lies within the axes, and to measure hundreds takes seconds
    ax.add_collection(PatchCollection(tiles, match_original=True), autolim=False)
    ax.set_xlim(-0.5, len(tasks) - 0.5)
    ax.set_ylim(len(look) - 0.5, -0.5)
    ax.set_xticks(range(len(tasks)), [task.replace("_", "_\n") for task in tasks])
    ax.set_yticks(range(len(look)), list(look))
    return figure


_ENDING = ("model", "task", "status", "stale")
"""The columns of a frame that `status_overview` counts."""


def _kind(status: str, stale: bool) -> str:
    if status in (Status.OK, Status.SKIPPED):
        return "stale" if stale else str(status)
    return status if status == tables.MISSING else "failed"
