"""What models cost, drawn: one timing trial for its notebook, and the timing trials of a suite for its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks.comparison import pareto_front
from benchmarks.cost_tables import SWEPT, exponents, peak_mb
from benchmarks.figures.drawing import (
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
)
from benchmarks.records import Result
from benchmarks.tables import number, on_tasks
from benchmarks.timing import Cost, Repeated
from models import registry as models


def _repeated(cost: Cost) -> dict[str, Repeated]:
    """What was timed again and again, by name."""
    named = {
        f"training step, {cost.batch_size} sequences padded to {cost.length} steps": cost.training_step,
        "evaluation of the validation split": cost.evaluation,
        f"inference, {cost.inference_batch} sequences padded to {cost.inference_length} steps": cost.inference,
        "streaming step, one sequence": cost.streaming_step,
    }
    return {name: repeated for name, repeated in named.items() if repeated is not None}


def summary(result: Result) -> pd.DataFrame:
    """The numbers of a timing trial, a row each: value and unit."""
    cost = _cost_of(result)
    rows: list[tuple[str, Any, str]] = [
        (f"{phase.replace('_', ' ')}, once", x, "s") for phase, x in result.seconds.items()
    ]
    for name, times in _repeated(cost).items():
        rows += [(name, 1e3 * times.median_s, "ms"), (f"{name}: p90", 1e3 * times.p90_s, "ms")]
    if cost.streaming_step:
        rows.append(("streaming step, one sequence: p99", 1e3 * cost.streaming_step.p99_s, "ms"))
    rows += [("throughput", cost.sequences_per_s, "sequences/s"), ("throughput", cost.steps_per_s, "valid steps/s")]
    rows += [("peak memory of a training step", peak_mb(cost.training_memory), "MB added")] * bool(cost.training_memory)
    rows.append(("peak memory of inference", peak_mb(cost.inference_memory), "MB added"))
    rows += [(f"parameters, {part}", count, "count") for part, count in result.parameters.items()]
    rows.append(("weights", result.weight_bytes, "bytes, as stored"))
    rows += [(f"state after {t} steps", n, "bytes per sequence") for t, n in cost.state_bytes.items()]
    rows.append(("training step", cost.training_flops, "FLOPs"))
    rows.append(("large matrix product, here and now", cost.matrix_rate / 1e9, "GFLOP/s"))
    rows.append(("share of that in a training step", cost.matrix_share, "share"))
    known = [(what, f"{x:,}" if type(x) is int else number(x), unit) for what, x, unit in rows if x is not None]
    return pd.DataFrame(known, columns=["what", "value", "unit"]).set_index("what")


def repeats(result: Result) -> Drawing:
    """Fastest to slowest repeat of each thing that was timed, its middle half thick and its median marked."""
    cost = _cost_of(result)
    timed = _repeated(cost)
    worst, times = max(timed.items(), key=lambda pair: pair[1].spread)
    colour = _look_of(result).colour
    figure, (ax,) = drawing(
        f"The noisiest, {worst}, spreads over {times.spread:.0%} of its median",
        *(1, (8.0, 1.0 + 0.35 * len(timed))),
        reading="Line: fastest to slowest repeat. Mark: median; tick: p90.",
    )
    for row, repeated in enumerate(timed.values()):
        ax.plot([1e3 * repeated.fastest_s, 1e3 * repeated.slowest_s], [row, row], color=colour, lw=1.2, alpha=0.6)
        ax.plot(1e3 * repeated.median_s, row, "o", color=colour)
        ax.plot(1e3 * repeated.p90_s, row, "|", color=colour, markersize=9)
    ax.set_xscale("log")
    ax.set_yticks(range(len(timed)), [f"{name} (n = {repeated.n})" for name, repeated in timed.items()])
    ax.set_ylim(len(timed) - 0.5, -0.5)
    head(ax, "", "ms, log")
    return figure


def scaling(result: Result) -> Drawing | None:
    """A trial's sweep over lengths; None where it has none."""
    cost = _cost_of(result)
    if not cost.sweep:
        return None
    name = str(result.spec["model"])
    rows = pd.DataFrame([asdict(row) for row in cost.sweep], dtype=float).assign(
        model=name, task=result.spec["task"], n=1
    )
    return scalings(rows.assign(family=models.entry(name).family, machine=""))


def noise(result: Result) -> str:
    """What speaks against the times, a line each."""
    cost = _cost_of(result)
    found = [*cost.noise, *([cost.sweep_note] if cost.sweep_note else [])]
    if not result.timing_valid:
        found.append("run by hand: nobody saw to it that nothing else was running, so no table takes these times")
    return "\n".join(found or ["nothing was seen"])


def _cost_of(result: Result) -> Cost:
    if result.cost is None:
        raise ValueError(f"trial {result.trial_id} measured no cost; its mode is {result.spec['mode']}, not timing")
    return result.cost


def _look_of(result: Result) -> Style:
    name = str(result.spec["model"])
    return styles(pd.DataFrame({"model": [name], "family": [models.entry(name).family]}))[name]


PANELS = {
    "training_step_s": "training step (s)",
    "inference_s": "inference (s)",
    "training_bytes": "peak memory, training (bytes added)",
    "inference_bytes": "peak memory, inference (bytes added)",
}


def scalings(sweeps: pd.DataFrame) -> Drawing:
    """A panel per measure, each model a line over the length, named with its exponent; of several tasks the first."""
    if sweeps.empty:
        return message("No timing trial has swept over lengths.")
    task = sweeps["task"].iloc[0]
    shown = sweeps[sweeps["task"] == task]
    look = styles(shown)
    powers = exponents(shown).set_index("model")
    measures = [name for name in SWEPT if (shown[name] > 0).any()]
    size = (6.4, max(3.2, 0.9 + 0.17 * len(look)))
    reading = (
        f"Random sequences under the specs of {task}; median over n = {shown['n'].max()} processes. Number: the exponent, "
        "by least squares in log-log over the upper half of the lengths; dotted: slopes 1 and 2."
    )
    figure, axes = drawing(_steepest(powers), len(measures), size, columns=2, reading=reading)
    for ax, measure in zip(axes, measures, strict=True):
        ends, looks = {}, {}
        ax.set(xscale="log", yscale="log")
        for model in look:
            line = shown[(shown["model"] == model) & (shown[measure] > 0)]
            if line.empty:
                continue
            ax.plot(
                *(line["length"], line[measure], look[model].marker),
                **{"color": look[model].colour, "linestyle": look[model].line, "markersize": 3.5, "linewidth": 1.2},
            )
            power = powers.loc[model, measure]
            name = model if math.isnan(power) else f"{model} {power:.2f}"
            ends[name], looks[name] = (line["length"].iloc[-1], line[measure].iloc[-1]), look[model]
        _slopes(ax)
        label_right(ax, ends, looks)
        lengths = sorted(shown["length"].unique())
        ax.set_xticks(lengths, [str(length) for length in lengths], minor=False)
        ax.minorticks_off()
        head(ax, "", "length (steps), log", f"{PANELS[measure]}, log")
    return figure


def _slopes(ax: Axes) -> None:
    """Slopes 1 and 2 from the lower left corner."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for power in (1, 2):
        ax.plot([left, right], [low, low * (right / left) ** power], ":", color=MUTED, lw=0.8, zorder=0)
    ax.set(xlim=(left, right), ylim=(low, high))


def _steepest(powers: pd.DataFrame) -> str:
    """The message of the scaling: whose training, or inference, grows fastest and slowest."""
    measure, what = (
        ("training_step_s", "A training step")
        if powers["training_step_s"].notna().any()
        else ("inference_s", "Inference")
    )
    known = powers[measure].dropna()
    if known.empty:
        return "Too few lengths for an exponent"
    if len(known) == 1:
        return f"{what} of {known.index[0]} grows as length^{known.iloc[0]:.2f}"
    least, most = known.idxmin(), known.idxmax()
    return f"{what} grows as length^{known[most]:.2f} for {most}, as length^{known[least]:.2f} for {least}"


PRICES = {
    "streaming_step_s": ("latency of a streaming step (ms)", 1e3),
    "training_step_s": ("training step (ms)", 1e3),
    "training_memory_mb": ("peak memory of a training step (MB added)", 1.0),
    "parameters": ("backbone parameters (count)", 1.0),
}


def pareto(costs: pd.DataFrame, matrix: pd.DataFrame, prices: Sequence[str] = tuple(PRICES)) -> Drawing:
    """Quality against each cost, a row of panels per task that has both; the front is joined and filled."""
    quality = matrix[(matrix["n"] > 0) & matrix["mean"].notna()][
        ["task", "model", "mean", "direction", "metric", "unit", "floor", "ceiling", "reference"]
    ]
    # What learns nothing is cheaper than all that does, and so says nothing on a front: it is a line where the axis reaches it.
    both = costs[costs["family"] != "floor"].merge(quality, on=["task", "model"])
    tasks = list(dict.fromkeys(both["task"]))
    if not tasks:
        return message("No model has both quality and cost on the same task yet.")
    look = styles(matrix)
    size = (4.6, max(3.0, 0.8 + 0.15 * both.groupby("task").size().max()))
    reading = (
        "Filled and joined: no other model is both cheaper and better. Horizontal bars: least to greatest over processes, "
        f"n = {both['n'].max()}; quality is the mean over seeds."
    )
    figure, axes = drawing(_claim(both, tasks), len(tasks) * len(prices), size, columns=2, reading=reading)
    for index, ax in enumerate(axes):
        task, price = tasks[index // len(prices)], prices[index % len(prices)]
        _front(ax, both[(both["task"] == task) & both[price].notna()], price, look)
        ax.set_title(task, loc="left", fontsize=10)
    return figure


def _front(ax: Axes, cell: pd.DataFrame, price: str, look: dict[str, Style]) -> None:
    label, factor = PRICES[price]
    head(ax, "", label)
    if cell.empty:
        ax.text(0.5, 0.5, "no model", transform=ax.transAxes, ha="center", fontsize=SMALL, color=MUTED)
        return
    first = cell.iloc[0]
    sign = 1 if first["direction"] == "higher" else -1
    cell = cell.assign(x=factor * cell[price].astype(float), front=pareto_front(cell[price], sign * cell["mean"]))
    log, low, high = bounds(cell["mean"], first["direction"])
    ax.set_ylim(low, high)
    ax.set_yscale("log" if log else "linear")
    positive = cell.loc[cell["x"] > 0, "x"]
    if len(positive) and positive.max() > 5 * positive.min():
        ax.set_xscale("symlog", linthresh=float(positive.min())) if (cell["x"] <= 0).any() else ax.set_xscale("log")
    joined = cell[cell["front"]].sort_values("x")
    ax.plot(joined["x"], joined["mean"], color=MUTED, lw=0.8, drawstyle="steps-post", zorder=1)
    ends = {}
    for row in cell.to_dict("records"):
        style = look[row["model"]]
        if f"{price}_low" in row:
            ax.plot(
                [factor * row[f"{price}_low"], factor * row[f"{price}_high"]],
                [row["mean"]] * 2,
                color=style.colour,
                lw=1,
            )
        ax.plot(
            row["x"],
            row["mean"],
            style.marker,
            color=style.colour,
            markerfacecolor=style.colour if row["front"] else "white",
        )
        ends[row["model"]] = (row["x"], row["mean"])
    ax.xaxis.set_minor_formatter(NullFormatter())  # beside powers of ten there is no room for more
    ax.margins(x=0.06)
    reference_lines(ax, cell, vertical=False)
    label_right(ax, ends, look)
    ax.set_ylabel(f"{first['metric']} ({first['unit']}), {first['direction']} is better", fontsize=SMALL)


def _claim(both: pd.DataFrame, tasks: list[str]) -> str:
    """The message: who is on the front of quality against streaming latency, on how many tasks."""
    counts: dict[str, int] = {}
    for task in tasks:
        cell = both[(both["task"] == task) & both["streaming_step_s"].notna()]
        sign = 1 if (cell["direction"] == "higher").all() else -1
        for model in cell.loc[pareto_front(cell["streaming_step_s"], sign * cell["mean"]), "model"]:
            counts[model] = counts.get(model, 0) + 1
    names = [model for model, n in counts.items() if n == max(counts.values())]
    if not names:
        return "No model streams"
    shown = f"{', '.join(names)} {'is' if len(names) == 1 else 'are each'}"
    where = on_tasks(max(counts.values()), len(tasks))
    return f"By their means {shown} on the front of quality against streaming latency {where}"
