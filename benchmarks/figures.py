"""The report's figures: functions of the tables, each returning one figure with its message as the title."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from benchmarks import records, tables
from benchmarks.drawing import (
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
    styles,
    trained_span,
)
from benchmarks.records import Status


def seeds_text(frame: pd.DataFrame) -> str:
    """ "n = 3 seeds", or "n = 1 seed, no uncertainty"."""
    n = frame["seed"].nunique()
    return "n = 1 seed, no uncertainty" if n == 1 else f"n = {n} seeds"


def scores(frame: pd.DataFrame, matrix: pd.DataFrame) -> Drawing:
    """A panel per task: each model's seeds as points, their mean with its 95 % t interval, floor and ceiling."""
    if not (frame["status"] == Status.OK).any():
        return message("No trial has finished: there are no scores to show yet.")
    look = styles(frame)
    tasks = list(dict.fromkeys(frame["task"]))
    marked = Counter(matrix.loc[matrix["best"], "model"])
    top = marked.most_common(1)
    claim = (
        f"{top[0][0]} is best or tied with the best on {top[0][1]} of {len(tasks)} tasks"
        if top
        else "No task is complete"
    )
    title = f"{claim}\npoints: seeds; bar: mean and 95 % t interval; {seeds_text(frame)}"
    figure, axes = drawing(title, len(tasks), (4.0, 0.85 + 0.2 * len(look)))
    for index, (ax, task) in enumerate(zip(axes, tasks, strict=True)):
        ok = frame[(frame["task"] == task) & (frame["status"] == Status.OK)]
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
                _score_row(ax, row, ok[ok["model"] == model], cells.loc[model], look[model])
        ax.set_yticks(range(len(look)), list(look) if index % 3 == 0 else [""] * len(look))
        head(ax, task, f"{first['metric']} ({first['unit']}), {first['direction']} is better{', log' if log else ''}")
    return figure


def _score_row(ax: Axes, row: int, ok: pd.DataFrame, cell: pd.Series, style: Style) -> None:
    ax.plot(ok["value"], [row] * len(ok), style.marker, color=style.colour, alpha=0.45, markersize=5, mew=0)
    if cell["n"] > 1:
        ax.plot([cell["low"], cell["high"]], [row, row], color=style.colour, linewidth=1.6, solid_capstyle="butt")
    if cell["n"]:
        ax.plot([cell["mean"]], [row], "|", color=style.colour, markersize=9, markeredgewidth=2)
    absent = [cell["failures"]] if cell["failed"] else []
    absent += [kind for kind in ("skipped", "missing", "stale") if cell[kind]]
    if absent:
        text = ", ".join(absent)
        place, side = (0.02, "left") if not cell["n"] else (0.98, "right")
        ax.text(place, row, text, transform=ax.get_yaxis_transform(), ha=side, va="center", fontsize=7, color=MUTED)


COSTS = {
    "parameters": "backbone parameters (count)",
    "state_bytes": "state carried per sequence (bytes)",
    "seconds_train": "training time (s), shared machine, indicative",
    "peak_memory_mb": "peak memory of the process (MB), shared machine, indicative",
}


def score_against(matrix: pd.DataFrame, costs: Sequence[str]) -> Drawing:
    """Mean score over tasks against the median cost over tasks; hollow where a model did not finish every task."""
    done = matrix[(matrix["n"] > 0) & matrix["score"].notna()]
    if done.empty:
        return message("No finished trial has a score: nothing to weigh against cost yet.")
    look = styles(matrix)
    scored = done["task"].nunique()
    points = done.groupby("model").agg({"score": "mean", "task": "nunique", **dict.fromkeys(costs, "median")})
    names = {
        model: model if row["task"] == scored else f"{model} ({int(row['task'])} of {scored} tasks)"
        for model, row in points.iterrows()
    }
    full = points[points["task"] == scored]
    claim = "No model finished every task"
    if not full.empty:
        claim = (
            f"{full['score'].idxmax()} has the highest mean score over all {scored} tasks: {full['score'].max():.2f}"
        )
    title = (
        f"{claim}\nscore: 0 is the floor, 1 the ceiling or reference; hollow: not every task finished, not comparable"
    )
    figure, axes = drawing(title, len(costs), (6.0, max(3.6, 0.9 + 0.17 * len(points))), columns=2)
    for ax, cost in zip(axes, costs, strict=True):
        shown = points[points[cost].notna()]
        _, low, high = bounds(shown["score"], "higher")
        ax.set_ylim(max(low, -0.6), high)
        ax.set_xscale("symlog", linthresh=1) if (shown[cost] <= 0).any() else ax.set_xscale("log")
        for model, row in shown.iterrows():
            style = look[str(model)]
            face = style.colour if row["task"] == scored else "white"
            ax.plot(row[cost], max(row["score"], -0.58), style.marker, color=style.colour, markerfacecolor=face)
        ends = {names[model]: (row[cost], max(row["score"], -0.58)) for model, row in shown.iterrows()}
        label_right(ax, ends, {names[model]: look[str(model)] for model in shown.index})
        head(ax, "", COSTS[cost], "mean score over tasks")
    return figure


def learning_curves(frame: pd.DataFrame, results: Path) -> Drawing:
    """A panel per task: validation metric against optimiser steps, median over seeds with their range."""
    curves = read_curves(frame, results)
    tasks = [task for task in dict.fromkeys(frame["task"]) if any(key[0] == task for key in curves)]
    if not tasks:
        return message("No trial has a learning curve yet.")
    look = styles(frame)
    title = f"Validation during training\nline: median over seeds; band: their range; {seeds_text(frame)}"
    figure, axes = drawing(title, len(tasks), (5.0, max(3.0, 0.9 + 0.16 * len(look))), columns=2)
    for ax, task in zip(axes, tasks, strict=True):
        rows = frame[frame["task"] == task]
        own = {model: curve for (name, model), curve in curves.items() if name == task}
        values = [value for curve in own.values() for value in curve.to_numpy().ravel()]
        log, low, high = bounds(
            [*values, *rows["floor"].dropna(), *rows["ceiling"].dropna()], rows["direction"].iloc[0]
        )
        last = max(curve.index.max() for curve in own.values()) or 1
        if log:
            ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(low, high)
        ax.set_xlim(0, last)
        reference_lines(ax, rows, vertical=False)
        ends = {model: _curve(ax, own[model], last, look[model]) for model in look if model in own}
        label_right(ax, ends, look)
        metric = f"validation {rows['metric'].iloc[0]} ({rows['unit'].iloc[0]})"
        head(ax, f"{task}: {rows['direction'].iloc[0]} is better", "optimiser steps", metric)
    return figure


def _curve(ax: Axes, curve: pd.DataFrame, last: float, style: Style) -> tuple[float, float]:
    """Draws (steps × seeds) and returns where it ends. A model that fits itself has one row and is drawn as a level."""
    steps, middle = list(curve.index), list(curve.median(axis=1))
    if len(steps) == 1:
        steps, middle = [0, last], middle * 2
    else:
        ax.fill_between(steps, curve.min(axis=1), curve.max(axis=1), color=style.colour, alpha=0.12, linewidth=0)
    ax.plot(steps, middle, color=style.colour, linestyle=style.line, linewidth=1.4)
    return steps[-1], middle[-1]


def read_curves(frame: pd.DataFrame, results: Path) -> dict[tuple[str, str], pd.DataFrame]:
    """(task, model) → validation metric, steps × seeds. A seed that stopped early keeps its last value to the end."""
    series: dict[tuple[str, str], dict[int, pd.Series]] = {}
    for trial in frame[frame["status"] == Status.OK].itertuples():
        rows = records.read_curve(records.run_folder(results, trial.trial_id))
        if rows:
            values = pd.Series([row["validation"] for row in rows], [row["step"] for row in rows], dtype=float)
            series.setdefault((trial.task, trial.model), {})[trial.seed] = values
    return {key: pd.DataFrame(by_seed).sort_index().ffill().bfill() for key, by_seed in series.items()}


def length_sweep(frame: pd.DataFrame) -> Drawing | None:
    """The primary metric against tested length, a panel per task that has lengths; None where no task has."""
    swept = frame[(frame["status"] == Status.OK) & frame["length_sweep"].map(bool)]
    if swept.empty:
        return None
    look = styles(frame)
    tasks = list(dict.fromkeys(swept["task"]))
    title = f"Beyond the trained length\nline: median over seeds; band: their range; {seeds_text(swept)}"
    figure, axes = drawing(title, len(tasks), (6.5, max(3.4, 0.9 + 0.16 * len(look))), columns=2)
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
        ax.set_xlim(min(lengths) * 0.95, max(lengths))
        reference_lines(ax, rows, vertical=False)
        trained_span(ax, rows["trained_length"].iloc[0])
        ends = {m: _curve(ax, by_model[m].sort_index(), max(lengths), look[m]) for m in look if m in by_model}
        label_right(ax, ends, look)
        head(ax, task, "length tested (steps)", f"{rows['metric'].iloc[0]} ({rows['unit'].iloc[0]})")
    return figure


def status_overview(frame: pd.DataFrame) -> Drawing:
    """How every trial ended, models × tasks: all ok, skipped, some failed, missing or stale."""
    if frame.empty:
        return message("The suite has no trial.")
    look, tasks = styles(frame), list(dict.fromkeys(frame["task"]))
    kinds = {"ok": "#cfe8dc", "skipped": "#e4e4e4", "failed": "#f2b8a0", "missing": "#ffffff", "stale": "#f6e3a8"}
    counts = Counter(_kind(row.status, row.stale) for row in frame.itertuples())
    told = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind])
    figure, (ax,) = drawing(f"{len(frame)} trials: {told}", 1, (2.2 + 1.15 * len(tasks), 0.8 + 0.27 * len(look)))
    ax.grid(visible=False)
    for (model, task), cell in frame.groupby(["model", "task"], sort=False):
        x, y = tasks.index(task), list(look).index(model)
        found = Counter(_kind(row.status, row.stale) for row in cell.itertuples())
        worst = next(kind for kind in ("failed", "stale", "missing", "skipped", "ok") if found[kind])
        ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=kinds[worst], edgecolor="#bdbdbd"))
        text = "\n".join(f"{n} {kind}" for kind, n in sorted(found.items()))
        ax.text(x, y, text, ha="center", va="center", fontsize=SMALL if len(found) < 2 else 6)
    ax.set_xlim(-0.5, len(tasks) - 0.5)
    ax.set_ylim(len(look) - 0.5, -0.5)
    ax.set_xticks(range(len(tasks)), [task.replace("_", "_\n") for task in tasks])
    ax.set_yticks(range(len(look)), list(look))
    return figure


def _kind(status: str, stale: bool) -> str:
    if status in (Status.OK, Status.SKIPPED):
        return "stale" if stale else str(status)
    return status if status == tables.MISSING else "failed"
