"""What the report says of cost: tables from timing trials alone."""

from __future__ import annotations

import math
from collections import Counter
from html import escape
from typing import Any

import pandas as pd

from benchmarks import cost_tables
from benchmarks.figures.drawing import styles
from benchmarks.report_sections import Html, Study, paragraphs, table
from benchmarks.tables import count, number

NONE = "The suite has no timing trial, so nothing is said of cost beyond what the quality trials indicate."


def coverage(study: Study) -> Html:
    """How many timing trials ended how, on which machine, and how to read their numbers."""
    runs = study.timed
    if runs.empty:
        return paragraphs([NONE])
    counts = ", ".join(f"{n} {status}" for status, n in Counter(runs["status"]).most_common())
    stale = int(runs["stale"].astype(bool).sum())
    machines = "; ".join(dict.fromkeys(runs["machine"]))
    return paragraphs(
        [
            f"Of {len(runs)} timing trials: {counts}{f'; {stale} of them stale, made by other code' if stale else ''}. Each "
            "ran alone, one after the other, in a new interpreter, the first process of every model before the second. Start "
            f"and imports are in no number. Machine: {machines}.",
            *(
                f"{row.status}: {row.model} on {row.task}: {row.reason}"
                for row in cost_tables.failed(runs).itertuples()
            ),
        ]
    )


def by_shape(study: Study) -> Html:
    """A table per shape, a row per model: medians over processes, their range, and what speaks against them."""
    order = list(styles(study.timed))
    parts = []
    for task, cells in study.costs.groupby("task", sort=False):
        rows = sorted(cells.to_dict("records"), key=lambda row: order.index(row["model"]))
        parts.append(f"<h3>{escape(str(task))}</h3>" + paragraphs([_shape(cells)]).text)
        parts.append(table(_COST_COLUMNS, [_cost_row(study, row) for row in rows]).text)
    return Html("".join(parts)) if parts else paragraphs(["No timing trial has finished."])


_COST_COLUMNS = (
    *("model", "processes", "training step, ms", "times the fastest", "whole fit, s", "evaluation, ms", "sequences/s"),
    *("valid steps/s", "streaming step, µs", "its p99, µs", "training step, MB added", "inference, MB added"),
    *("MFLOPs of a training step", "of the matrix rate", "noise, in how many processes"),
)


def _shape(cells: pd.DataFrame) -> str:
    """What one step and one pass of a table's rows are."""
    first = cells.iloc[0]
    valid = f", {count(first['inference_steps'])} steps without padding" if _known(first["inference_steps"]) else ""
    return (
        f"A training step is over {count(first['batch_size'])} sequences, padded to {count(first['length'])} steps, inference "
        f"over {count(first['inference_batch'])}, padded to {count(first['inference_length'])}{valid}. Making the data takes "
        f"{cells['data_s'].median():.2g} s, building the median model {cells['build_s'].median():.2g} s."
    )


def _cost_row(study: Study, cell: dict[str, Any]) -> tuple[object, ...]:
    flops = cell["training_flops"]
    return (
        *(cell["model"], cell["n"], _range(cell, "training_step_s", 1e3), _slower(study, cell)),
        *(_range(cell, "fit_s"), _range(cell, "evaluation_s", 1e3)),
        *(_plain(cell["sequences_per_s"]), _plain(cell["steps_per_s"])),
        *(_range(cell, "streaming_step_s", 1e6), _range(cell, "streaming_step_p99_s", 1e6)),
        *(_range(cell, "training_memory_mb"), _range(cell, "inference_memory_mb")),
        *(_plain(flops / 1e6 if flops else None), _percent(cell["matrix_share"])),
        Html(f'<div style="min-width: 26rem">{escape("; ".join(cell["noise"]) or "none seen")}</div>'),
    )


def target_table(study: Study) -> Html:
    """What it takes to learn a task: sequences, seconds and FLOPs to nine tenths of the way from floor to ceiling."""
    found = cost_tables.to_target(study.frame, study.curves, study.costs)
    rows = [
        (
            *(row["task"], row["model"], f"{row['n_reached']} of {row['n']}"),
            *("its own procedure" if row["by_itself"] else _counted(row["steps"]), _counted(row["sequences"])),
            *(_plain(row["seconds"]), _plain(row["flops"] / 1e9 if _known(row["flops"]) else None)),
        )
        for row in found.to_dict("records")
    ]
    columns = ("task", "model", "seeds that get there", "optimiser steps", "sequences", "seconds", "GFLOPs")
    return table(columns, rows)


def exponent_table(study: Study) -> Html | None:
    """How training step, inference and memory grow with the length; None where the figure says that nothing was swept."""
    found = cost_tables.exponents(cost_tables.sweeps(study.timed))
    rows = [
        (row["task"], row["model"], row["longest"], *(_plain(row[name], 2) for name in cost_tables.SWEPT))
        for row in found.to_dict("records")
    ]
    ended = dict.fromkeys(
        f"{row.model}: {row.sweep_note}" for row in study.timed.itertuples() if _known(row.sweep_note)
    )
    columns = ("task", "model", "longest", "training step", "inference", "training memory", "inference memory")
    return Html(table(columns, rows).text + paragraphs(ended).text) if rows else None


def _slower(study: Study, cell: dict[str, Any]) -> str:
    """A training step beside the fastest model's on the shape, paired over processes."""
    same = study.costs[(study.costs["task"] == cell["task"]) & study.costs["training_step_compared"].notna()]
    if same.empty or not _known(cell["training_step_s"]):
        return "–"
    fastest = same.loc[same["training_step_compared"].astype(float).idxmin(), "model"]
    if fastest == cell["model"]:
        return "fastest"
    mean, low, high = cost_tables.ratio(study.timed, str(cell["task"]), str(cell["model"]), str(fastest))
    if math.isnan(low):
        return f"{mean:.2f}\none process, no uncertainty"
    return f"{mean:.2f}\n{low:.2f} … {high:.2f}" + ("\nnot separable" if low <= 1 <= high else "")


def _range(cell: dict[str, Any], name: str, factor: float = 1.0) -> str:
    """A median over processes, and from the least to the greatest."""
    if not _known(cell[name]):
        return "–"
    middle, low, high = (factor * float(cell[part]) for part in (name, f"{name}_low", f"{name}_high"))
    return f"{number(middle)}\n{number(low)} … {number(high)}" if cell["n"] != 1 else number(middle)


def _plain(value: Any, digits: int = 3) -> str:
    return (
        f"{float(value):,.{digits}g}"
        if digits < 3 and _known(value)
        else number(float(value))
        if _known(value)
        else "–"
    )


def _counted(value: Any) -> str:
    return count(float(value)) if _known(value) else "–"


def _percent(value: Any) -> str:
    return f"{float(value):.1%}" if _known(value) else "–"


def _known(value: Any) -> bool:
    return value is not None and not pd.isna(value)
