"""Figures of one trial, for trial.ipynb: functions of an `Experiment`, each returning one figure or a small table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.experiment import Experiment
from benchmarks.figures import sound_figures
from benchmarks.figures.control_figures import episode
from benchmarks.figures.drawing import (
    LINES,
    MUTED,
    SMALL,
    Drawing,
    bounds,
    colour,
    drawing,
    head,
    message,
    trained_span,
)
from benchmarks.figures.text_figures import answers as written_answers
from benchmarks.figures.text_figures import continuation, shown, spelt, tags
from benchmarks.figures.vision_figures import Seen, frames, images, mistakes, paths
from benchmarks.metrics import StepMetric
from benchmarks.provenance import environment
from benchmarks.tables import number
from benchmarks.tasks.task import Task

N_EXAMPLES = 6
"""Sequences shown one by one: as many as fit a screen."""
WRONG = "#d55e00"
MOST_CLASSES = 40
"""Of a confusion matrix; one with more could not be read."""
MOST_COUNTED = 12
"""Classes of a confusion matrix whose counts are written in it."""
MAX_STEPS = 60
"""Steps of a sequence of symbols that are shown: more could not be read."""


def learning_curve(experiment: Experiment) -> Drawing:
    """Training loss, and the validation metric with floor and ceiling, against steps; the best step marked."""
    rows = pd.DataFrame(experiment.curve)
    if len(rows) < 2:
        return message("This model fits itself: it has no learning curve.")
    primary = experiment.task.metrics[0]
    best = rows[rows["best"]].iloc[-1]
    title = (
        f"Best validation {primary.name} {number(best['validation'])}, at step {best['step']} of {rows['step'].max()}"
    )
    figure, (left, right) = drawing(title, 2, (5.2, 3.0))
    shade = colour(experiment.entry.family)
    left.plot(rows["step"], rows["train_loss"].astype(float), color=MUTED, label="training")
    left.plot(rows["step"], rows["validation_loss"], color=shade, label="validation")
    left.legend(frameon=False, fontsize=SMALL)
    head(left, "loss that is minimised", "optimiser steps", "loss")
    lines = {
        "floor": experiment.result.floor,
        "ceiling": experiment.result.ceiling,
        "reference": experiment.result.reference,
    }
    known = {name: value for name, value in lines.items() if value is not None}
    log, low, high = bounds([*rows["validation"], *known.values()], primary.direction)
    right.plot(rows["step"], rows["validation"], color=shade)
    right.plot(best["step"], best["validation"], "o", color=shade)
    right.set_ylim(low, high)
    right.set_yscale("log" if log else "linear")
    for name, value in known.items():
        if low <= value <= high:
            _level(right, name, value)
    head(right, f"validation, {primary.direction} is better", "optimiser steps", f"{primary.name} ({primary.unit})")
    return figure


def compare_curves(*experiments: Experiment) -> Drawing:
    """Validation of several trials on one task, against steps, with the task's floor and ceiling."""
    primary, result = experiments[0].task.metrics[0], experiments[0].result
    best = (max if primary.direction == "higher" else min)(experiments, key=lambda x: x.result.test[primary.name])
    value = number(best.result.test[primary.name])
    figure, (ax,) = drawing(f"Best on test: {best.trial.model}, {primary.name} {value}", 1, (7.5, 3.6))
    levels = [x for x in (result.floor, result.ceiling, result.reference) if x is not None]
    log, low, high = bounds([*(row["validation"] for x in experiments for row in x.curve), *levels], primary.direction)
    for experiment, line in zip(experiments, LINES, strict=False):
        rows = pd.DataFrame(experiment.curve)
        ax.plot(rows["step"], rows["validation"], color=colour(experiment.entry.family), linestyle=line)
        ax.annotate(
            f" {experiment.trial.model}", tuple(rows[["step", "validation"]].iloc[-1]), va="center", fontsize=SMALL
        )
    ax.set_ylim(low, high)
    ax.set_yscale("log" if log else "linear")
    for name in ("floor", "ceiling", "reference"):
        level = getattr(result, name)
        if level is not None and low <= level <= high:
            _level(ax, name, level)
    head(ax, f"validation, {primary.direction} is better", "optimiser steps", f"{primary.name} ({primary.unit})")
    return figure


def _level(ax: Axes, name: str, value: float) -> None:
    ax.axhline(value, color=MUTED, linestyle="--" if name == "floor" else ":", linewidth=1)
    ax.annotate(name, (1, value), xycoords=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=7, color=MUTED)


def answers(experiment: Experiment) -> Drawing:
    """The test answers in the way that suits the task: `Task.picture` says which."""
    return _PICTURES[experiment.task.picture](experiment)


def _class_names(experiment: Experiment, n: int) -> list[str]:
    return [shown(name) for name in experiment.task.symbols or map(str, range(n))]


def _confusion(experiment: Experiment, draw: Callable[[Axes, Sequence[Seen]], None] | None = None) -> Drawing:
    """True class × predicted class as shares of the true class, recall beside it, and a few test inputs, drawn by ``draw``."""
    test, outputs = experiment.splits.test, experiment.outputs
    n = outputs.shape[-1]
    truth, answer = test.targets[test.scored], outputs[test.scored].argmax(-1)  # (N,), (N,)
    counts = torch.bincount(truth * n + answer, minlength=n * n).reshape(n, n).numpy()
    names = _class_names(experiment, n)
    title = f"{(truth == answer).sum()} of {len(truth)} test answers are right"
    figure, axes = drawing(title, 2, (5.2, max(3.4, 0.9 + 0.28 * n) if n <= MOST_CLASSES else 4.5))
    if n <= MOST_CLASSES:
        _matrix(axes[0], counts, names)
    else:
        mistakes(axes[0], *([names[k] for k in classes.tolist()] for classes in (truth, answer)))
    if draw is None:
        _examples(experiment, axes[1], truth, answer, names)
    else:
        sequence = test.scored.nonzero()[:, 0]  # (N,)
        chosen = _chosen(truth, answer).tolist()
        inputs = [test.inputs[i, : int(test.lengths[i])].cpu() for i in sequence[chosen].tolist()]
        draw(axes[1], [Seen(x, names[truth[k]], names[answer[k]]) for x, k in zip(inputs, chosen, strict=True)])
    return figure


def _matrix(ax: Axes, counts: np.ndarray, names: list[str]) -> None:
    """counts: (n, n), true × predicted."""
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    labels = [
        f"{name}  (recall {share:.2f}, n = {total})"
        for name, share, total in zip(names, shares.diagonal(), totals[:, 0], strict=True)
    ]
    ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    ax.invert_yaxis()
    ax.grid(visible=False)
    for row, column in zip(*counts.nonzero(), strict=True) if len(names) <= MOST_COUNTED else ():
        shade = "white" if shares[row, column] > 0.6 else "black"
        count = ax.text(
            column + 0.5, row + 0.5, str(counts[row, column]), color=shade, fontsize=SMALL, ha="center", va="center"
        )
        count.set_in_layout(False)
    middles = np.arange(len(names)) + 0.5
    ax.set_xticks(middles, names, rotation=90)
    ax.set_yticks(middles, labels)
    ax.tick_params(length=0)
    head(ax, "counts; colour: share of the true class", "predicted", "true")


def _chosen(truth: Tensor, answer: Tensor) -> Tensor:
    """The places of some answers (N,), wrong ones first."""
    wrong, right = (truth != answer).nonzero()[:, 0], (truth == answer).nonzero()[:, 0]
    wrong = _spread(wrong, N_EXAMPLES // 2)
    return torch.cat([wrong, _spread(right, N_EXAMPLES - len(wrong))])


def _examples(experiment: Experiment, ax: Axes, truth: Tensor, answer: Tensor, names: list[str]) -> None:
    """The first channel of some test inputs one above the other, wrong answers first, with true and predicted class."""
    test, words = experiment.splits.test, experiment.task.input_symbols
    sequence = test.scored.nonzero()[:, 0]  # (N,)
    chosen = _chosen(truth, answer)
    for row, index in enumerate(chosen.tolist()):
        length = int(test.lengths[sequence[index]])
        inputs = test.inputs[sequence[index], :length].cpu()
        good = truth[index] == answer[index]
        shade = MUTED if good else WRONG
        if words is not None:
            ax.text(0, 0.3 - row, shown(spelt(words, inputs.tolist())[:44]), color=shade, fontsize=SMALL)
        else:
            channel = (inputs[:, 0] if inputs.ndim == 2 else inputs).double()
            spread = float(channel.max() - channel.min()) or 1.0
            ax.plot((channel - channel.min()) / spread * 0.75 - row, color=shade, linewidth=1)
        told = names[truth[index]] if good else f"{names[truth[index]]}, predicted {names[answer[index]]}"
        ax.text(1.02, 0.3 - row, told, transform=ax.get_yaxis_transform(), color=shade, fontsize=SMALL)
    ax.set_yticks([])
    if words is not None:
        ax.set_ylim(-len(chosen) + 0.5, 1)
        ax.set_xticks([])
    head(ax, f"test inputs{', first channel' if words is None else ''}; orange: wrong", "step" if words is None else "")


def _spread(index: Tensor, n: int) -> Tensor:
    """At most n of the indices (N,), evenly spaced, so that not all are of one class."""
    return index[torch.linspace(0, len(index) - 1, min(n, len(index))).long()]


def _forecast(experiment: Experiment) -> Drawing:
    """Some test windows: look-back, what came, the forecast, and the last value held, which is the floor."""
    test, outputs, task = experiment.splits.test, experiment.outputs, experiment.task
    primary, result = task.metrics[0], experiment.result
    index = torch.linspace(0, len(test) - 1, min(3, len(test))).long()
    scale, unit = _scale(task, outputs.shape[-1])
    n_channels = (
        test.inputs.shape[2] if task.target.future else 1
    )  # else the future of the first channel alone is asked
    held = number(result.floor or 0.0)
    title = f"Test {primary.name} {number(result.test[primary.name])} {primary.unit}; holding the last value: {held}"
    figure, axes = drawing(title, len(index), (4.0, 2.5))
    for ax, window in zip(axes, index.tolist(), strict=True):
        last = int(test.lengths[window]) - 1
        past = scale * (test.inputs[window, : last + 1, 0] - test.inputs[window, last, 0])  # (T,)
        # Differences from the last value of each of C channels, step-major; the first channel is shown.
        truth = scale * test.targets[window, last].reshape(-1, n_channels)[:, 0]  # (n,) → (horizon,)
        answer = scale * outputs[window, last].reshape(-1, n_channels)[:, 0]  # (n,) → (horizon,)
        ahead = range(1, len(truth) + 1)
        ax.plot(range(-last, 1), past, color="black", linewidth=1, label="look-back")
        ax.plot(ahead, truth, color="black", marker=".", linewidth=0.8, label="truth")
        ax.plot(ahead, answer, color=colour(experiment.entry.family), marker=".", label="forecast")
        ax.axhline(0, color=MUTED, linestyle="--", linewidth=0.8, label="last value (floor)")
        head(ax, f"test window {window}", "steps from now", f"change since now ({unit})")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL
    )
    return figure


def _scale(task: Task, n: int) -> tuple[float, str]:
    """What turns the task's values into original units, and the unit: the absolute error of being off by one."""
    for metric in task.metrics:
        if isinstance(metric, StepMetric) and metric.name == "mae":
            return metric(torch.ones(1, n), torch.zeros(1, n)), metric.unit
    return 1.0, "as the model sees it"


def _scatter(experiment: Experiment) -> Drawing:
    """Predicted against true value at the scored steps; on the diagonal they agree."""
    test, primary, result = experiment.splits.test, experiment.task.metrics[0], experiment.result
    scale, unit = _scale(experiment.task, experiment.outputs.shape[-1])
    origin = experiment.task.origin
    truth = origin + scale * test.targets[test.scored].reshape(-1)  # (N, n) → (N n,)
    answer = origin + scale * experiment.outputs[test.scored].reshape(-1)
    title = f"Test {primary.name} {number(result.test[primary.name])}; always the mean: {number(result.floor or 0.0)}"
    figure, (ax,) = drawing(title, 1, (5.2, 4.4))
    ax.plot(truth, answer, ".", color=colour(experiment.entry.family), alpha=0.4, markersize=4)
    low, high = float(truth.min()), float(truth.max())
    ax.plot([low, high], [low, high], color=MUTED, linewidth=1)
    ax.axhline(float(truth.mean()), color=MUTED, linestyle="--", linewidth=1)
    ax.annotate(
        "mean", (1, float(truth.mean())), xycoords=ax.get_yaxis_transform(), fontsize=7, ha="right", va="bottom"
    )
    head(ax, "on the line, prediction and truth agree", f"true value ({unit})", f"predicted value ({unit})")
    return figure


def _symbols(experiment: Experiment) -> Drawing:
    """A few test sequences as aligned rows of symbols: inputs, truth, prediction; wrong predictions on orange."""
    test, outputs = experiment.splits.test, experiment.outputs
    whole = _class_names(experiment, outputs.shape[-1])
    # As few letters as tell the classes apart.
    size = next((k for k in range(1, 4) if len({name[:k] for name in whole}) == len(whole)), 3)
    names = [name[:size] for name in whole]
    key = "" if names == whole else "; " + ", ".join(f"{a} = {b}" for a, b in zip(names, whole, strict=True))
    right = (outputs.argmax(-1) == test.targets)[test.scored]
    title = f"{right.double().mean():.1%} of {len(right)} scored test symbols are right{key}"
    words, told = experiment.task.input_symbols, test.inputs.ndim == 2 or test.inputs.shape[2] == 1  # one number a step
    n = min(2, len(test))  # a letter takes a millisecond to draw
    longest = min(MAX_STEPS, int(test.lengths[:n].max()))
    figure, axes = drawing(title, n, (max(5.0, 0.16 * longest + 1.4), 1.3), columns=1)
    for row, ax in enumerate(axes):
        length = int(test.lengths[row])
        shown = range(max(0, length - MAX_STEPS), length)
        for column, t in enumerate(shown):
            if told:
                _symbol(ax, column, 0, _input_text(test.inputs[row, t], words), MUTED)
            if test.scored[row, t]:
                true, predicted = int(test.targets[row, t]), int(outputs[row, t].argmax())
                _symbol(ax, column, 1, names[true], "black")
                _symbol(ax, column, 2, names[predicted], "black", wrong=true != predicted)
        ax.set_xlim(-0.6, longest - 0.4)
        ax.set_ylim(2.6, -0.6)
        ax.set_yticks([0, 1, 2], ["input" if told else "", "true", "predicted"])
        ax.set_xticks([])
        ax.grid(visible=False)
        part = "" if len(shown) == length else f", its last {MAX_STEPS} steps"
        head(ax, f"test sequence {row}{part}", "")
    return figure


def _input_text(value: Tensor, words: tuple[str, ...] | None) -> str:
    if value.ndim == 0:
        return words[int(value)] if words else str(int(value))
    return f"{float(value[0]):.0f}"


def _symbol(ax: Axes, x: int, y: int, text: str, shade: str, wrong: bool = False) -> None:
    box = {"boxstyle": "square,pad=0.12", "facecolor": "#f2b8a0", "edgecolor": "none"} if wrong else None
    drawn = ax.text(x, y, text[:3], color=shade, fontsize=7, ha="center", va="center", bbox=box)
    drawn.set_in_layout(False)  # it lies within the axes, and there are hundreds to measure


_PICTURES: dict[str, Callable[[Experiment], Drawing]] = {
    "answers": written_answers,
    "confusion": _confusion,
    "continuation": continuation,
    "episode": episode,
    "forecast": _forecast,
    "frames": partial(_confusion, draw=frames),
    "images": partial(_confusion, draw=images),
    "paths": partial(_confusion, draw=paths),
    "scatter": _scatter,
    "symbols": _symbols,
    "tags": tags,
    "piano_roll": sound_figures.piano_roll,
    "transcript": sound_figures.transcript,
    "waveform": sound_figures.waveform,
}


def length_sweep(experiment: Experiment) -> Drawing | None:
    """The primary metric against the tested length; None for a task without a length knob."""
    result, lengths, primary = experiment.result, experiment.task.lengths, experiment.task.metrics[0]
    if lengths is None or not result.length_sweep:
        return None
    tested = {int(length): value for length, value in result.length_sweep.items()}
    last = max(tested)
    title = f"{primary.name} {number(tested[last])} at {last / lengths.trained:g} times the longest trained length"
    figure, (ax,) = drawing(title, 1, (6.0, 3.0))
    ax.plot(list(tested), list(tested.values()), color=colour(experiment.entry.family), marker="o")
    ax.set_xlim(0, last * 1.03)
    trained_span(ax, lengths.trained)
    if result.floor is not None:
        _level(ax, "floor", result.floor)
    head(ax, "", "length tested (steps)", f"{primary.name} ({primary.unit})")
    return figure


def summary(experiment: Experiment) -> pd.DataFrame:
    """The numbers of the trial, a row each: value and unit."""
    result, primary = experiment.result, experiment.task.metrics[0]
    units = {metric.name: f"{metric.unit}, {metric.direction} is better" for metric in experiment.task.metrics}
    rows: list[tuple[str, Any, str]] = [(f"test {name}", value, units[name]) for name, value in result.test.items()]
    rows += [(name, getattr(result, name), units[primary.name]) for name in ("floor", "ceiling", "reference")]
    rows.append(("score", result.score, "0 is the floor, 1 the ceiling or reference"))
    counts = experiment.predictor.parameter_counts()._asdict()
    rows += [(f"parameters, {part}", count, "count") for part, count in counts.items()]
    carried = experiment.predictor.state_bytes(experiment.tested.inputs.shape[1])
    rows.append(("weights", result.weight_bytes, "bytes, as stored"))
    rows.append(("state carried", carried, "bytes per sequence, at the end of the longest"))
    rows.append(("environment steps", result.environment_steps, "played to train"))
    rows += [(phase, seconds, "s, shared machine, indicative") for phase, seconds in experiment.seconds.items()]
    known = [
        (what, f"{value:,}" if type(value) is int else number(value), unit)
        for what, value, unit in rows
        if value is not None
    ]
    return pd.DataFrame(known, columns=["what", "value", "unit"]).set_index("what")


def provenance(experiment: Experiment) -> pd.DataFrame:
    """What the trial was run with: its id, its setting, versions, commit and machine."""
    trial = experiment.trial
    rows = {
        **{"trial id": trial.id, "run folder": experiment.folder.name, "seed": trial.seed, "device": trial.device},
        **{f"task {name}": value for name, value in trial.task_parameters.items()},
        **{f"model {name}": value for name, value in experiment.result.model_config.items()},
        **{f"fit {name}": value for name, value in trial.fit.items()},
        **{"model source": experiment.entry.source, "task source": experiment.task.source},
        **{
            "task licence": experiment.task.licence,
            "sizing": experiment.result.sizing_note,
            "fit": experiment.result.fit_note,
        },
        **environment(),
    }
    return pd.DataFrame({"value": {name: str(value) for name, value in rows.items() if value is not None}})
