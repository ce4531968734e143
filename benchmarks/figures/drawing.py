"""The look of all figures: one colour per family, a marker and a line style per model, names beside what they name.

Colours are those of seaborn's "colorblind" palette (Waskom 2021, doi:10.21105/joss.03021), so no figure depends on
telling red from green; models of one family differ by marker, line style and a label of their own.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import tables

_PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
"""Written out, for to import seaborn takes each new kernel over a second; a test holds the two equal."""
FAMILIES = {
    "recurrent": _PALETTE[0],
    "efficient recurrence": _PALETTE[9],
    "hybrid": _PALETTE[5],
    "attention": _PALETTE[3],
    "convolutional": _PALETTE[2],
    "feed-forward": _PALETTE[4],
    "markov": _PALETTE[1],
    "non-neural": "#332288",
    "floor": _PALETTE[7],
}
"""Family → colour, in the order in which figures list them. A family that is not here is drawn in OTHER."""
OTHER = "#222222"
MUTED = "#6b6b6b"
GRID = "#e6e6e6"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_DASHES = ((9, 3), (9, 1, 1, 1, 1, 1), (1, 4), (2, 1), (12, 2, 3, 2))
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", *((0, dashes) for dashes in _DASHES))
DPI = 130
SMALL = 8.5
"""Points: the smallest text of a figure."""
N_TICKS = 6
"""Intervals between the ticks of a linear axis, at most: panels are small, and the ticks take most of the time of a figure."""


class Drawing(Figure):
    """A figure that shows itself in a notebook once, whatever the backend, with its title as the alternative text.

    pyplot does not know of it, so nothing is drawn twice and nothing stays open.
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        canvas, buffer = FigureCanvasAgg(self), io.BytesIO()
        canvas.draw()  # savefig would draw twice, the first time only to lay out
        # 256 colours are all that a figure needs, and a third of the bytes. This way of choosing them was off by 5 of 255 where
        # the usual one was by 40, and takes half the time.
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, "PNG", dpi=(DPI, DPI))
        alternative = {"image/png": {"alt": self.get_suptitle() or "figure"}}
        return {"image/png": base64.b64encode(buffer.getvalue()).decode()}, alternative


class Style(NamedTuple):
    """How one model is drawn, in every figure of a report."""

    colour: str
    marker: str
    line: Any


def colour(family: str) -> str:
    return FAMILIES.get(family, OTHER)


def styles(frame: pd.DataFrame) -> dict[str, Style]:
    """Model → style, in the order in which figures list models: by family, then as in the suite.

    What is tuned gets the clearest styles, for it stands in figures that its default is not in."""
    families = dict(zip(frame["model"], frame["family"], strict=True))
    order = [*FAMILIES, *sorted(set(families.values()) - set(FAMILIES))]
    listed = sorted(families, key=lambda model: order.index(families[model]))
    replaced = set(map(tables.with_defaults, families))
    used: Counter[str] = Counter()
    chosen = {}
    for model in sorted(listed, key=lambda model: model in replaced):
        index = used[families[model]]
        used[families[model]] += 1
        chosen[model] = Style(colour(families[model]), MARKERS[index % len(MARKERS)], LINES[index % len(LINES)])
    return {model: chosen[model] for model in listed}


def drawing(
    title: str, n_panels: int, panel: tuple[float, float], columns: int = 3, reading: str = ""
) -> tuple[Drawing, list[Axes]]:
    """A figure of ``n_panels`` axes in at most ``columns`` columns.

    title: the message. panel: width and height of one, in inches. reading: what points, lines and bars are, below.
    """
    columns = max(1, min(columns, n_panels))
    rows = max(1, math.ceil(n_panels / columns))
    figure = Drawing(
        figsize=(max(7.0, panel[0] * columns), max(2.4, panel[1] * rows + 0.5)), dpi=DPI, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, hspace=0.04, wspace=0.03)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", wrap=True)
    if reading:
        line = int(figure.get_size_inches()[0] * 72 / (0.52 * SMALL))  # characters, at about half an em each
        figure.supxlabel(textwrap.fill(reading, line), x=0.01, ha="left", fontsize=SMALL, color=MUTED)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(n_panels)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=SMALL)
        ax.grid(visible=True, color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        for axis in (ax.xaxis, ax.yaxis):  # `ax.locator_params` would move the limits as well
            axis.get_major_locator().set_params(nbins=N_TICKS)  # type: ignore[call-arg]
    return figure, axes


def message(text: str) -> Drawing:
    """A figure that says why there is nothing to draw."""
    figure = Drawing(figsize=(7, 0.8), dpi=DPI)
    figure.suptitle(text, fontsize=10, color=MUTED, y=0.6)
    return figure


def head(ax: Axes, title: str, x: str, y: str = "", pad: float = 6.0) -> None:
    ax.set_title(title, loc="left", fontsize=10, pad=pad)
    ax.set_xlabel(x, fontsize=SMALL)
    ax.set_ylabel(y, fontsize=SMALL)


def bounds(values: Iterable[float], direction: str) -> tuple[bool, float, float]:
    """Whether an axis of such metric values should be logarithmic, and its limits, a margin included."""
    finite = np.array([value for value in values if value is not None and math.isfinite(value)])
    if not finite.size:
        return False, 0.0, 1.0
    positive = finite[finite > 0]
    if direction == "lower" and positive.size and positive.max() / positive.min() > 30:
        return True, positive.min() / 1.6, positive.max() * 1.6
    margin = 0.06 * (finite.max() - finite.min()) or 0.05 * abs(finite.max()) or 0.05
    return False, finite.min() - margin, finite.max() + margin


def reference_lines(ax: Axes, cell: pd.DataFrame, vertical: bool) -> None:
    """Floor dashed, ceiling (or, where none is known, the reference) dotted; both named on the line."""
    drawn = [("floor", "--"), ("ceiling", ":") if cell["ceiling"].notna().any() else ("reference", ":")]
    for name, line in drawn:
        value = cell[name].astype(float).mean()
        low, high = ax.get_xlim() if vertical else ax.get_ylim()
        if not low <= value <= high:
            continue
        (ax.axvline if vertical else ax.axhline)(value, color=MUTED, linestyle=line, linewidth=1, zorder=1)
        where = {"xy": (value, 1.01), "xycoords": ax.get_xaxis_transform(), "va": "bottom", "ha": "center"}
        if not vertical:
            where = {"xy": (0, value), "xycoords": ax.get_yaxis_transform(), "va": "bottom", "ha": "left"}
        ax.annotate(name, fontsize=7, color=MUTED, **where)  # type: ignore[arg-type]


def seeds_text(frame: pd.DataFrame) -> str:
    """ "n = 3 seeds", "n = 2 to 3 seeds" where some did not finish, or "n = 1 seed, no uncertainty"."""
    finished = tables.usable(frame)
    counts = finished.groupby(["task", "model"])["seed"].nunique()
    if counts.empty or counts.max() == 1:
        return "n = 1 seed, no uncertainty" if len(counts) else "n = 0 seeds"
    return f"n = {' to '.join(str(n) for n in sorted({counts.min(), counts.max()}))} seeds"


def trained_span(ax: Axes, trained: int) -> None:
    """Shades the lengths seen in training, on a horizontal axis of lengths."""
    ax.axvspan(ax.get_xlim()[0], trained, color="#eeeeee", zorder=0, linewidth=0)
    ax.text(
        trained, 0.98, "trained ", transform=ax.get_xaxis_transform(), fontsize=7, color=MUTED, ha="right", va="top"
    )


def label_right(ax: Axes, ends: dict[str, tuple[float, float]], look: dict[str, Style]) -> None:
    """Names at the right margin, pushed apart so that none overlap, each tied by a thin line to its (x, y) in data."""
    height = ax.figure.get_size_inches()[1] * 72 * 0.7 / max(1, ax.get_subplotspec().get_gridspec().nrows)  # type: ignore[union-attr]
    gap = 9.0 / height
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())  # what is drawn in the margin must not move the axes
    to_axes = ax.transData + ax.transAxes.inverted()
    places = sorted((float(to_axes.transform(end)[1]), model) for model, end in ends.items())
    heights = [place for place, _ in places]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    if heights:
        heights[-1] = min(heights[-1], 1.0)
    for index in range(len(heights) - 2, -1, -1):
        heights[index] = min(heights[index], heights[index + 1] - gap)
    for (_, model), level in zip(places, heights, strict=True):
        x, y = (float(value) for value in to_axes.transform(ends[model]))
        ax.plot(
            [x, 1.03], [y, level], transform=ax.transAxes, color=look[model].colour, lw=0.5, alpha=0.6, clip_on=False
        )
        ax.text(1.04, level, model, transform=ax.transAxes, color=look[model].colour, fontsize=SMALL, va="center")
