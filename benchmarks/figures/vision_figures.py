"""Test inputs as a person sees them, for figures of trials: images, frames of a clip, the path of a pen or a hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from benchmarks.figures.drawing import MUTED, SMALL, head

WRONG = "#d55e00"
COLUMNS = 3
N_FRAMES = 5
"""Of a clip, evenly spaced."""
N_MISTAKES = 12


class Seen(NamedTuple):
    """inputs: (T, C), without padding. truth, answer: names of classes."""

    inputs: Tensor
    truth: str
    answer: str


def images(ax: Axes, examples: Sequence[Seen]) -> None:
    """Sequences that are a square image, its pixels or its rows one after another."""
    for number, seen in enumerate(examples):
        side = math.isqrt(seen.inputs.numel())
        _square(ax, _place(number), seen.inputs.reshape(side, side).numpy())
        _caption(ax, _place(number), seen)
    _finish(ax, len(examples), "images, dark is large; orange: wrong")


def frames(ax: Axes, examples: Sequence[Seen]) -> None:
    """Sequences each step of which is a square image, one clip per row."""
    for row, seen in enumerate(examples):
        side = math.isqrt(seen.inputs.shape[1])
        shown = np.linspace(0, len(seen.inputs) - 1, min(N_FRAMES, len(seen.inputs))).round().astype(int)
        for column, step in enumerate(shown):
            _square(ax, (column, -row), seen.inputs[step].reshape(side, side).numpy())
            ax.text(column + 0.05, 0.88 - row, str(step), fontsize=6, color=MUTED, va="top")
        good = seen.truth == seen.answer
        told = seen.truth if good else f"{seen.truth},\npredicted {seen.answer}"
        ax.text(len(shown) + 0.1, 0.5 - row, told, color=MUTED if good else WRONG, fontsize=SMALL, va="center")
    ax.set_xlim(0, N_FRAMES + 1.6)
    ax.set_ylim(1 - len(examples), 1)
    _bare(ax, "clips, some numbered frames; orange: wrong")


def paths(ax: Axes, examples: Sequence[Seen]) -> None:
    """Sequences whose first two channels are x and y; where a third is positive at a later step, a new stroke begins."""
    for number, seen in enumerate(examples):
        points = seen.inputs[:, :2].numpy()
        low, high = points.min(0), points.max(0)
        points = (points - (low + high) / 2) / max((high - low).max(), 1e-9) * 0.75 + 0.45 + np.array(_place(number))
        begins: np.ndarray | list[int] = (
            np.flatnonzero(seen.inputs[1:, 2].numpy() > 0) + 1 if seen.inputs.shape[1] > 2 else []
        )
        shade = "black" if seen.truth == seen.answer else WRONG
        for stroke in np.split(points, begins):
            ax.plot(*stroke.T, color=shade, linewidth=1.2, marker="." if len(stroke) == 1 else None)
        ax.plot(*points[0], "o", color=shade, markersize=4)
        _caption(ax, _place(number), seen)
    _finish(ax, len(examples), "paths, with a dot at the start; orange: wrong")


def mistakes(ax: Axes, truth: Sequence[str], answer: Sequence[str]) -> None:
    """The commonest wrong answers as bars: what is left of a confusion matrix that has too many classes to be read."""
    counts = Counter(pair for pair in zip(truth, answer, strict=True) if pair[0] != pair[1]).most_common(N_MISTAKES)
    ax.barh([f"{true}, predicted {predicted}" for (true, predicted), _ in counts], [n for _, n in counts], color=WRONG)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    head(ax, "the commonest mistakes", "test answers")


def _place(number: int) -> tuple[int, int]:
    """Left and lower edge of an example's unit square."""
    return number % COLUMNS, -(number // COLUMNS)


def _square(ax: Axes, place: tuple[int, int], values: np.ndarray) -> None:
    x, y = place
    extent = (x + 0.04, x + 0.96, y + 0.04, y + 0.9)
    ax.imshow(values, cmap="Greys", extent=extent, aspect="auto", interpolation="nearest")
    left, right, low, high = extent
    ax.plot([left, right, right, left, left], [low, low, high, high, low], color="#cccccc", linewidth=0.5)


def _caption(ax: Axes, place: tuple[int, int], seen: Seen) -> None:
    good = seen.truth == seen.answer
    told = seen.truth if good else f"{seen.truth},\npredicted {seen.answer}"
    ax.text(place[0] + 0.5, place[1] + 0.94, told, color=MUTED if good else WRONG, fontsize=6, ha="center", va="bottom")


def _finish(ax: Axes, n: int, title: str) -> None:
    ax.set_xlim(0, COLUMNS)
    ax.set_ylim(-((n - 1) // COLUMNS), 1.15)
    _bare(ax, title)


def _bare(ax: Axes, title: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    head(ax, title, "")
