"""What one example of a task looks like: its inputs over time, and below them what must come out and where."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.figures.drawing import SMALL, Drawing, drawing, head
from benchmarks.tasks.task import Task
from models.sequences import Actions, Binary, Classes, Real, SequenceBatch, Step, Transcript

MAX_SYMBOLS = 48
"""Steps of a row of symbols; more would not be legible."""
MAX_STEPS = 1000
MAX_LINES = 8
"""Channels drawn as lines; more are drawn as an image."""
TARGET = "#d55e00"
LINES = ("black", *(shade for shade in sns.color_palette("colorblind").as_hex() if shade.lower() != TARGET))


def example(task: Task, row: int = 0) -> Drawing:
    """One training sequence of a task: inputs above, targets at the scored steps below."""
    batch = task.splits(0).train.select(torch.tensor([row]))
    symbols = not batch.inputs.is_floating_point()
    n_steps = min(int(batch.lengths[0]), MAX_SYMBOLS if symbols else MAX_STEPS)
    cut = "" if n_steps == int(batch.lengths[0]) else f" (the first {n_steps} of {int(batch.lengths[0]):,} steps)"
    below = _has_row_of_targets(task, batch, n_steps)
    figure, axes = drawing(f"{task.name}: {task.summary}", 1 + below, (9.0, 1.1 if symbols else 2.0), columns=1)
    inputs, ahead = batch.inputs[0, :n_steps], 0
    if symbols:
        _row(axes[0], inputs, task.input_symbols, "black")
        head(axes[0], f"input{cut}", "" if below else "step")
    elif inputs.shape[1] <= MAX_LINES:
        _lines(axes[0], inputs)
        head(axes[0], f"input{cut}", "" if below else "step", "as the model sees it")
        ahead = 0 if cut else _draw_future(axes[0], task, batch, inputs)
    else:
        _image(axes[0], inputs)
        head(axes[0], f"input{cut}, dark is large", "" if below else "step", "channel")
    if below:
        _targets(axes[1], task, batch, n_steps)
    elif not ahead:
        text = f"target, {_place(task)}: {_answer(task, batch)}"
        axes[0].set_title(text, loc="right", fontsize=SMALL, color=TARGET)
    for ax in axes:
        ax.set_xlim(-0.7, n_steps + ahead - 0.3)
    return figure


def _place(task: Task) -> str:
    return "somewhere in it" if isinstance(task.target, Transcript) else "at the last step"


def _draw_future(ax: Axes, task: Task, batch: SequenceBatch, inputs: Tensor) -> int:
    """Where the target is how the inputs go on: draws that on, and returns by how many steps."""
    if not (isinstance(task.target, Real) and task.target.future):
        return 0
    changes = batch.targets[0][batch.scored[0]][-1].reshape(-1, inputs.shape[1])  # (n,) → (horizon, C)
    ahead = np.arange(len(inputs), len(inputs) + len(changes))
    for channel in range(inputs.shape[1]):
        label = "target" if channel == 0 else None
        ax.plot(ahead, inputs[-1, channel] + changes[:, channel], ".-", color=TARGET, linewidth=0.9, label=label)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7)
    return len(changes)


def _has_row_of_targets(task: Task, batch: SequenceBatch, n_steps: int) -> bool:
    return not isinstance(task.target, Transcript) and int(batch.scored[0, :n_steps].sum()) > 1


def _answer(task: Task, batch: SequenceBatch) -> str:
    target, values = task.target, batch.targets[0]
    if isinstance(target, Transcript):
        return " ".join(_name(task.symbols, int(v) - 1) for v in values[values > 0].tolist())
    last = values[batch.scored[0]]
    if not len(last):
        return "after what is shown"
    if isinstance(target, Classes):
        return _name(task.symbols, int(last[-1]))
    shown = ", ".join(f"{value:.2f}" for value in last[-1].tolist()[:6])
    return f"{shown}{', …' if last.shape[-1] > 6 else ''} (as the model sees it)"


def _targets(ax: Axes, task: Task, batch: SequenceBatch, n_steps: int) -> None:
    values, scored = batch.targets[0, :n_steps], batch.scored[0, :n_steps]
    if isinstance(task.target, Classes) and (task.target.n > 12 or not batch.inputs.is_floating_point()):
        steps = scored.nonzero()[:, 0]
        keep = steps[torch.linspace(0, len(steps) - 1, min(len(steps), MAX_SYMBOLS)).long()].unique()
        _row(ax, values, task.symbols, TARGET, keep)
    elif isinstance(task.target, Classes):
        ax.plot(np.flatnonzero(scored), values[scored], ".", color=TARGET, markersize=4)
        ax.set_yticks(range(task.target.n), [_name(task.symbols, k)[:16] for k in range(task.target.n)])
    elif isinstance(task.target, Binary) and task.target.n > 1:
        _image(ax, values * scored[:, None])
    elif isinstance(task.target, Actions):
        ax.plot(np.flatnonzero(scored), values[scored][:, Step.ACTION], ".", color=TARGET, markersize=4)
        ax.set_yticks(range(task.target.n), [_name(task.symbols, k)[:16] for k in range(task.target.n)])
        head(ax, "actions drawn by chance, whose return is the floor", "step")
        return
    elif isinstance(task.target, Real | Binary):
        ax.plot(np.flatnonzero(scored), values[scored], ".-", color=TARGET, markersize=3, linewidth=0.8)
    unit = "channel" if isinstance(task.target, Binary) and task.target.n > 1 else ""
    head(ax, "target, at the scored steps", "step", unit)


def _name(names: tuple[str, ...] | None, symbol: int) -> str:
    name = str(symbol) if names is None else names[symbol]
    return {"\n": "↵", " ": "␣"}.get(name, name).replace("$", r"\$")


def _row(ax: Axes, values: Tensor, names: tuple[str, ...] | None, shade: str, steps: Tensor | None = None) -> None:
    """Symbols one beside the other; long ones slanted."""
    shown = range(len(values)) if steps is None else steps.tolist()
    texts = [_name(names, int(values[t])) for t in shown]
    slant = any(len(text) > 2 for text in texts)
    for t, text in zip(shown, texts, strict=True):
        ax.text(
            t, 0.1 if slant else 0.5, text[:14], color=shade, fontsize=SMALL, va="bottom" if slant else "center",
            ha="left" if slant else "center", rotation=50 if slant else 0, rotation_mode="anchor", clip_on=False,
        )  # fmt: skip
    ax.set_yticks([])
    ax.grid(visible=False)


def _lines(ax: Axes, values: Tensor) -> None:
    for channel in range(values.shape[1]):
        ax.plot(values[:, channel], linewidth=0.9, color=LINES[channel], label=f"channel {channel}")
    if values.shape[1] > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7)


def _image(ax: Axes, values: Tensor) -> None:
    """Channels upwards, time to the right."""
    ax.imshow(values.T.numpy(), aspect="auto", origin="lower", cmap="Greys", interpolation="nearest")
    ax.grid(visible=False)
