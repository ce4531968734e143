"""What tuning gained, drawn from the tuned configurations of a suite."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from benchmarks.comparison import expected_best
from benchmarks.figures.drawing import Drawing, bounds, drawing, head, label_right, message, styles
from benchmarks.metrics import Metric
from benchmarks.tasks import registry as tasks
from benchmarks.tuned import Tuned, Tuning
from models import registry as models


def curves(tuning: Tuning | None) -> Drawing | None:
    """A panel per task: each model's expected best validation metric against tuning trials; None where nothing was tuned."""
    if tuning is None:
        return None
    by_task: dict[str, dict[str, Tuned]] = {}
    for study in tuning.studies:
        if study.tuned is not None:
            task, model = study.labels
            by_task.setdefault(task, {})[model] = study
    if not by_task:
        return message("No tuning trial finished: there is nothing to draw.")
    rows = [(label, models.entry(x.model).family) for own in by_task.values() for label, x in own.items()]
    look = styles(pd.DataFrame(rows, columns=["model", "family"]))
    failed = sum(value is None for own in by_task.values() for x in own.values() for value in x.values)
    reading = (
        f"Line: mean best of so many of the {tuning.trials} trials, over all choices of them; one tuning run, no interval. "
        "Exact for trials drawn independently; this sampler learns from the first. Hollow: the default, which is one trial."
    )
    if failed:
        reading += f" {failed} failed trials count as the worst finished one of their task."
    size = (5.0, max(3.0, 0.9 + 0.16 * len(look)))
    figure, axes = drawing(_message(by_task), len(by_task), size, columns=2, reading=reading)
    for ax, (task, own) in zip(axes, by_task.items(), strict=True):
        primary = _primary(next(iter(own.values())))
        drawn = {model: _expected(study, own) for model, study in own.items()}
        defaults = {model: x.default for model, x in own.items() if x.default is not None}
        shown = [value for curve in drawn.values() for value in curve]
        log, low, high = bounds([*shown, *defaults.values()], primary.direction)
        if log:
            ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(low, high)
        ax.set_xlim(0.5, tuning.trials + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ends: dict[str, tuple[float, float]] = {}
        for model, curve in sorted(drawn.items(), key=lambda item: list(look).index(item[0])):
            style, steps = look[model], range(1, len(curve) + 1)
            ax.plot(steps, curve, color=style.colour, linestyle=style.line, linewidth=1.4)
            if model in defaults:
                ax.plot(1, defaults[model], style.marker, color=style.colour, markerfacecolor="white", markersize=5)
            ends[model] = (len(curve), curve[-1])
        label_right(ax, ends, look)
        metric = f"validation {primary.name} ({primary.unit})"
        head(ax, f"{task}: {primary.direction} is better", "tuning trials", metric)
    return figure


def _primary(study: Tuned) -> Metric:
    parameters = {name: x for name, x in study.task_settings.items() if not name.startswith("fit.")}
    return tasks.task(study.task, parameters).metrics[0]


def _expected(study: Tuned, rivals: dict[str, Tuned]) -> np.ndarray:
    """The curve of a study, (n,), in the metric itself; a failure counts as the worst value of its task."""
    sign = 1.0 if _primary(study).direction == "higher" else -1.0
    worst = min(sign * value for rival in rivals.values() for value in rival.values if value is not None)
    return sign * expected_best([worst if value is None else sign * value for value in study.values])


def _message(by_task: dict[str, dict[str, Tuned]]) -> str:
    """Whether tuning changes who leads."""
    changed = Counter(not _leaders(own, "default") & _leaders(own, "tuned") for own in by_task.values() if len(own) > 1)
    if not changed.total():
        moved = [bool(x.changed) for own in by_task.values() for x in own.values()]
        return f"Tuning found a better configuration than the default in {sum(moved)} of {len(moved)} studies"
    n = changed.total()
    return f"Tuning changes which model leads on validation on {changed[True]} of {n} task{'s' if n > 1 else ''}"


def _leaders(own: dict[str, Tuned], when: str) -> set[str]:
    """The models with the best default or tuned value."""
    values = {model: getattr(x, when) for model, x in own.items() if getattr(x, when) is not None}
    sign = 1.0 if _primary(next(iter(own.values()))).direction == "higher" else -1.0
    best = max((sign * value for value in values.values()), default=None)
    return {model for model, value in values.items() if sign * value == best}
