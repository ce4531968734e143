"""Figures of a suite's models over all its tasks: aggregates, ranks, pairs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from benchmarks.comparison import performance_profile
from benchmarks.cost_tables import TARGET
from benchmarks.figures.drawing import MUTED, SMALL, Drawing, Style, drawing, head, message
from benchmarks.overall import HONEST, Field
from benchmarks.tables import RISING

MAX_LABELLED = 14
"""Models up to which every tile of a pairwise matrix carries its number."""
ABSENT = "Fewer than two models did at least two scored tasks: nothing to compare over tasks."


def aggregates(field: Field, look: dict[str, Style]) -> Drawing:
    """The interquartile mean of each model's scores with both intervals, best rank first."""
    if not field.is_comparable:
        return message(ABSENT)
    found = field.aggregates
    best = max(found, key=lambda model: found[model][0].mean)
    n = field.n_seeds
    title = f"Interquartile mean score: {field.name(best)} is first at {found[best][0].mean:.2f}{_aside(field, best)}"
    figure, (ax,) = drawing(title, 1, (7.5, 1.0 + 0.24 * len(found)), reading=_intervals_text(field))
    for row, (model, (over_seeds, over_tasks)) in enumerate(found.items()):
        shade = look[model].colour
        ax.plot([over_tasks.low, over_tasks.high], [row, row], color=shade, linewidth=1, alpha=0.7)
        if n > 1:
            ax.plot([over_seeds.low, over_seeds.high], [row, row], color=shade, linewidth=4, solid_capstyle="butt")
        ax.plot([over_seeds.mean], [row], "|", color="black", markersize=11, markeredgewidth=1.6)
    ax.set_yticks(range(len(found)), [field.name(model) for model in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    head(
        ax, f"n = {len(field.tasks)} tasks × {n} seeds", "interquartile mean score (0: floor, 1: ceiling or reference)"
    )
    return figure


def _aside(field: Field, model: str) -> str:
    """Behind what puts a model first by another rule than the headline's."""
    return "" if model in field.candidates else ", though its expected loss is significantly larger than the smallest"


def _intervals_text(field: Field) -> str:
    if field.n_seeds < 2:
        return "Thin bar: bootstrap interval over tasks. One seed: no uncertainty over seeds."
    covered = field.coverage(field.n_seeds)
    name = "95 %" if covered >= HONEST else f"nominal 95 % (covers {covered:.0%} in simulation)"
    others = ", ".join(f"n = {n}: {field.coverage(n):.0%}" for n in (3, 5, 10) if n != field.n_seeds)
    return (
        f"Thick bar: {name} bootstrap interval over seeds. Thin bar: over seeds and tasks, for other tasks of the kind. "
        f"Simulated coverage at this n: {covered:.0%}; {others}."
    )


def profiles(field: Field, look: dict[str, Style]) -> Drawing:
    """The share of each model's runs that score more than a threshold, against the threshold."""
    if not field.is_comparable:
        return message(ABSENT)
    thresholds = np.linspace(-0.1, 1.1, 241)
    shares = {model: performance_profile(field.scores[model], thresholds) for model in field.ranking.ranks}
    at = int(np.searchsorted(thresholds, TARGET))
    best = max(shares, key=lambda model: shares[model][at])
    title = f"{field.name(best)} scores above {TARGET:g} most often, in {shares[best][at]:.0%} of its runs{_aside(field, best)}"
    reading = (
        f"Over n = {len(field.tasks)} tasks × {field.n_seeds} seeds, every run counted alike. Higher is better; where two "
        "lines cross, it depends on what one calls success."
    )
    figure, (ax,) = drawing(title, 1, (8.5, 3.6), reading=reading)
    for model, share in shares.items():
        ax.plot(thresholds, share, color=look[model].colour, linestyle=look[model].line, linewidth=1.4, label=model)
    ax.set(xlim=(thresholds[0], thresholds[-1]), ylim=(0, 1.02))
    ax.legend(fontsize=SMALL, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    head(ax, "", "score (0: floor, 1: ceiling or reference)", "share of runs that score more")
    return figure


def critical_difference(field: Field, look: dict[str, Style]) -> Drawing:
    """Mean ranks on a line; a bar joins neighbours that are not told apart. Demšar 2006; the test behind: Wilcoxon, Holm."""
    if not field.is_comparable:
        return message(ABSENT)
    told = field.ranking
    models = list(told.ranks)
    half = (len(models) + 1) // 2
    apart = sum(p < 0.05 for p in told.p.values())
    first = f"{field.name(models[0])} ranks first{_aside(field, models[0])}"
    title = f"{first}; {apart} of {len(told.p)} pairs differ significantly"
    if told.underpowered:
        title = f"{title}: {told.underpowered.split(':')[0]}"
    reading = (
        f"Mean rank over n = {told.n_tasks} tasks, 1 is best. A bar joins models no two of which differ (Wilcoxon signed-rank "
        f"over tasks, Holm's step-down, 5 %). {RISING}: some of its fits were still improving."
    )
    figure, (ax,) = drawing(title, 1, (8.5, 1.5 + 0.22 * half + 0.13 * len(told.groups)), reading=reading)
    low, high = 1.0, float(len(models))
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.spines["top"].set_visible(True)
    ax.xaxis.set_ticks_position("top")
    ax.xaxis.set_label_position("top")
    ax.set_xlim(low - 0.5, high + 0.5)
    depth = len(told.groups) * 0.6 + half + 0.2
    ax.set_ylim(-depth, 0)
    ax.set_yticks([])
    ax.set_xlabel("mean rank", fontsize=SMALL)
    for index, (first, *_, last) in enumerate(told.groups):
        level = -0.4 - 0.6 * index
        ax.plot([told.ranks[first], told.ranks[last]], [level, level], color="black", linewidth=3.5)
    top = -0.6 * len(told.groups) - 0.3
    for index, model in enumerate(models):
        left = index < half
        level = top - (index if left else len(models) - 1 - index) - 0.2
        _rank_label(ax, told.ranks[model], level, field.name(model), look[model].colour, left)
    return figure


def _rank_label(ax: Axes, rank: float, level: float, model: str, shade: str, left: bool) -> None:
    low, high = ax.get_xlim()
    end = low if left else high
    ax.plot([rank, rank, end], [0, level, level], color=shade, linewidth=0.9)
    text = f"{model} ({rank:.1f}) " if left else f" {model} ({rank:.1f})"
    ax.text(end, level, text, color=shade, fontsize=SMALL, va="center", ha="right" if left else "left")


def pairs(field: Field) -> Drawing:
    """The probability that a run of the row's model scores more than one of the column's, in order of rank."""
    if not field.is_comparable:
        return message(ABSENT)
    models = list(field.ranking.ranks)
    table = np.array([[field.improvement(a, b) if a != b else 0.5 for b in models] for a in models])
    sure = int((np.triu(table, 1) >= 0.75).sum())
    title = (
        f"In {sure} of {len(models) * (len(models) - 1) // 2} pairs the better ranked wins at least three runs of four"
    )
    size = max(4.0, 1.6 + 0.42 * len(models))
    reading = (
        f"Over n = {len(field.tasks)} tasks × {field.n_seeds} seeds; bold: told apart by the signed-rank test with Holm's "
        "correction. Purple: the row wins more often, orange: less."
    )
    figure, (ax,) = drawing(title, 1, (size + 1.2, size), reading=reading)
    ax.grid(visible=False)
    ax.imshow(table, cmap="PuOr", vmin=0, vmax=1)
    ax.set_xticks(range(len(models)), models, rotation=90)
    ax.set_yticks(range(len(models)), models)
    for row, a in enumerate(models):
        for column, b in enumerate(models):
            if a == b or len(models) > MAX_LABELLED:
                continue
            p = field.ranking.p[(a, b) if (a, b) in field.ranking.p else (b, a)]
            strong = not 0.11 < table[row, column] < 0.81  # where white has the higher contrast
            ax.text(
                column, row, f"{table[row, column]:.2f}", ha="center", va="center", fontsize=7,
                color="white" if strong else "black", fontweight="bold" if p < 0.05 else "normal",
            )  # fmt: skip
    head(ax, "probability that the row's model scores more", "against")
    ax.xaxis.label.set_color(MUTED)
    return figure
