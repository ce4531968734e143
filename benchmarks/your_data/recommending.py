"""What to do with one's own data after a comparison: which model, how sure that is, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import tables
from benchmarks.records import Status
from benchmarks.report_sections import Study
from benchmarks.tables import number
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.your_data import YourData
from benchmarks.your_data.recording import BadInput

Cell = dict[str, Any]
"""A row of `tables.matrix`: a model on the file's task."""


def recommendation(study: Study) -> list[str]:
    """Three sentences or so about the one task of a study: what to use, how sure, within which limits."""
    cells: list[Cell] = [{str(k): v for k, v in row.items()} for row in study.matrix.to_dict("records")]
    whole = [cell for cell in cells if cell["complete"] and cell["family"] != "floor"]
    if not whole:
        return [
            "Recommendation: none. No model has finished with every seed; give more --minutes, or see what failed below."
        ]
    sign = -1 if whole[0]["direction"] == "lower" else 1
    leader = max(whole, key=lambda cell: sign * cell["mean"])
    if sign * (leader["mean"] - leader["floor"]) <= 0 or _reaches(leader, leader["floor"]):
        return [
            f"Recommendation: none of these models. The best of them, {leader['model']}, has {_value(leader)} and "
            f"{_constant(study)} {number(leader['floor'])}: by these seeds it has not learned anything that is sure. "
            "More rows, more --minutes or more telling columns may change that.",
            *_limits(study),
        ]
    return [
        f"Recommendation: {leader['model']}. {_value(leader)} on the test split, where {_constant(study)} "
        f"has {number(leader['floor'])}.",
        _how_sure(study, leader, whole),
        *_limits(study),
    ]


def _constant(study: Study) -> str:
    """What the floor does."""
    is_forecast = study.trials[0].task_parameters.get("kind") == "forecasting"
    return "always giving the same change from the last value" if is_forecast else "always giving the same answer"


def _value(cell: Cell) -> str:
    half = (cell["high"] - cell["low"]) / 2
    spread = "" if math.isnan(half) else f" ± {half:.2g}"
    seeds = f"mean of {cell['n']} seeds" if cell["n"] > 1 else "one seed"
    return f"{cell['metric']} {number(cell['mean'])}{spread} ({cell['unit']}, {seeds})"


def _reaches(cell: Cell, value: float) -> bool:
    """Whether the interval over seeds holds ``value``; without an interval nothing is said."""
    return bool(cell["low"] <= value <= cell["high"])


def _how_sure(study: Study, leader: Cell, whole: Sequence[Cell]) -> str:
    if leader["n"] < 2:
        return "How sure: one seed has no interval, so not at all; run more seeds."
    # tables.matrix marks whom the seeds do not tell from the best.
    even = [cell for cell in whole if cell["best"] and cell is not leader]
    apart = [row for row in tables.differences(study.frame, study.matrix).itertuples() if row.best == leader["model"]]
    told = [row for row in apart if row.n > 1 and not row.low <= 0 <= row.high and row.model != "floor"]
    parts = []
    if even:
        names = ", ".join(str(cell["model"]) for cell in even)
        parts.append(
            f"these seeds do not tell it from {names} (the 95 % intervals of the paired differences include zero)"
        )
        cheapest = min([leader, *even], key=lambda cell: cell["seconds_train"])
        smallest = min([leader, *even], key=lambda cell: cell["parameters"])
        if cheapest is not leader and cheapest["seconds_train"] < 0.5 * leader["seconds_train"]:
            parts.append(f"of these {cheapest['model']} was fitted in the least time")
        elif smallest is not leader and smallest["parameters"] < 0.5 * leader["parameters"]:
            parts.append(f"of these {smallest['model']} has the fewest parameters")
    if told:
        nearest = min(told, key=lambda row: abs(row.difference))
        parts.append(
            f"it is better than {len(told)} other{'s' * (len(told) > 1)} beyond chance, than {nearest.model} by "
            f"{number(abs(nearest.difference))}"
        )
    return f"How sure: {'; '.join(parts) or 'there is no other model to compare it with'}."


def _limits(study: Study) -> Iterator[str]:
    trial = study.trials[0]
    seconds = trial.fit.get("seconds")
    size = (
        f"models of about {study.parameter_budget:,} parameters"
        if study.parameter_budget
        else "models of their own size"
    )
    time = f", each fit given {seconds:g} s" if seconds else ""
    yield (
        f"Within these limits: {size}{time}, learning rates not tuned, one way of splitting this file. Larger models, more "
        "time or tuning may rank otherwise."
    )
    yield from _test_size(study)
    lost = sorted({str(row.model) for row in study.frame.itertuples() if row.status not in (Status.OK, Status.SKIPPED)})
    if lost:
        yield f"Not every seed of {', '.join(lost)} finished: they are not considered."


def _test_size(study: Study) -> Iterator[str]:
    """What the size of the test split alone leaves open: the seeds all see the same one."""
    trial = study.trials[0]
    task = tasks.task(trial.task, trial.task_parameters)
    if not isinstance(task, YourData):
        return
    try:
        n = task.prepared.counts()[2]
    except BadInput:  # the file is gone
        return
    yield (
        f"The test split holds {n:,} {'windows' if task.prepared.look_back else 'sequences'}, the same for every seed"
        + (
            f": an accuracy of 0.9 is known to ± {1.96 * math.sqrt(0.09 / n):.2g} from so many."
            if task.kind == "classification"
            else "."
        )
    )
