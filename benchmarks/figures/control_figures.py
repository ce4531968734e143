"""Figures of tasks that are acted in: how long the test episodes went on, and one of them step by step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes

from benchmarks.experiment import Experiment
from benchmarks.figures.drawing import LINES, MUTED, SMALL, Drawing, colour, drawing, head
from benchmarks.tables import number
from benchmarks.tasks.control import ControlTask
from models.sequences import Step

ACTION = "#d55e00"
MAX_STEPS = 150
"""Of an episode that are shown: its last ones, where it fails if it does."""


def episode(experiment: Experiment) -> Drawing:
    """The returns of all test episodes, and of the one with the median return what was observed and what was done."""
    tested, primary, result = experiment.tested, experiment.task.metrics[0], experiment.result
    returns = primary.parts(experiment.outputs, tested).per_sequence()  # (B,)
    row = int(returns.argsort()[(len(returns) - 1) // 2])
    length = int(tested.lengths[row])
    shown = slice(max(0, length - MAX_STEPS), length)
    title = f"Test {primary.name} {number(result.test[primary.name])} {primary.unit}; at random: {number(result.floor or 0.0)}"
    figure, axes = drawing(title, 3, (9.0, 2.0), columns=1)
    _returns(axes[0], experiment, returns.numpy())
    part = "" if shown.start == 0 else f", its last {MAX_STEPS} steps"
    _observations(axes[1], experiment, row, shown)
    head(axes[1], f"observed in the median episode{part}", "step", "share of the limit")
    _actions(axes[2], experiment, row, shown)
    for ax in axes[1:]:
        ax.set_xlim(shown.start - 1, shown.stop)
    return figure


def _returns(ax: Axes, experiment: Experiment, returns: np.ndarray) -> None:
    primary, result = experiment.task.metrics[0], experiment.result
    ax.plot(range(1, len(returns) + 1), np.sort(returns), ".", color=colour(experiment.entry.family))
    for name, line in (("floor", "--"), ("ceiling", ":")):
        level = getattr(result, name)
        if level is not None:
            ax.axhline(level, color=MUTED, linestyle=line, linewidth=1)
            ax.annotate(
                name, (1, level), xycoords=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=7, color=MUTED
            )
    ax.set_ylim(0, None)
    head(ax, "all test episodes, the worst first", "rank", f"{primary.name} ({primary.unit})")


def _observations(ax: Axes, experiment: Experiment, row: int, shown: slice) -> None:
    task = cast(ControlTask, experiment.task)
    steps = range(shown.start, shown.stop)
    for channel, (name, unit) in enumerate(zip(task.channels, task.units, strict=True)):
        ax.plot(
            steps, experiment.tested.inputs[row, shown, channel], color="black", linestyle=LINES[channel],
            linewidth=1, label=f"{name}, 1 is {unit}",
        )  # fmt: skip
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=SMALL)


def _actions(ax: Axes, experiment: Experiment, row: int, shown: slice) -> None:
    """How probable each action but the first was, and which one was taken."""
    steps = np.arange(shown.start, shown.stop)
    chances = experiment.outputs[row, shown, :-1].softmax(-1)  # (T, n)
    n = chances.shape[-1]
    names = experiment.task.symbols or tuple(map(str, range(n)))
    for action in range(1, n):
        ax.plot(
            steps, chances[:, action], color=colour(experiment.entry.family), linestyle=LINES[action - 1], linewidth=1,
            label=f"probability of {names[action]}",
        )  # fmt: skip
    taken = experiment.tested.targets[row, shown, Step.ACTION] / (n - 1)
    ax.plot(steps, taken, "|", color=ACTION, markersize=5, label="taken")
    ax.set_yticks(torch.linspace(0, 1, n).tolist(), names)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=SMALL)
    head(ax, "what was done", "step", "action")
