"""What to do with one's own data after a comparison: which model, how sure that is, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.records import Status
from benchmarks.report_sections import Study
from benchmarks.tables import RISING, number, rising
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.your_data import YourData
from benchmarks.verdicts import State
from benchmarks.your_data.recording import BadInput
from models import registry as models
from models.contract import Fit

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
            f"{_constant(study)} {number(leader['floor'])}: it does not significantly beat a constant prediction. "
            "More rows, more --minutes or more informative columns may change that.",
            *_limits(study),
        ]
    return [
        f"Recommendation: {leader['model']}{rising(leader)}. {_value(leader)} on the test split, where "
        f"{_rival(study, leader, whole)}{_constant(study)} has {number(leader['floor'])}.",
        _how_sure(leader, whole),
        *_limits(study),
    ]


def _rival(study: Study, leader: Cell, whole: Sequence[Cell]) -> str:
    """The best of the models that need no training by gradient, or, if that is the leader, the best network."""
    fits = {
        label: models.entry(name).fit for label, name in study.frame[["model", "model_name"]].itertuples(index=False)
    }
    is_simple = fits[leader["model"]] is Fit.OWN
    rivals = [cell for cell in whole if (fits[cell["model"]] is Fit.OWN) != is_simple]
    if not rivals:
        return ""
    sign = -1 if leader["direction"] == "lower" else 1
    best = max(rivals, key=lambda cell: sign * cell["mean"])
    kind = "the best network" if is_simple else "the best simple model"
    return f"{kind}, {best['model']}{rising(best)}, has {number(best['mean'])} and "


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


def _how_sure(leader: Cell, whole: Sequence[Cell]) -> str:
    if leader["n"] < 2:
        return "How sure: one seed has no interval, so not at all; run more seeds."
    of = {state: [cell for cell in whole if cell["state"] == state and cell is not leader] for state in State}
    parts = []
    if of[State.BEST]:
        equal = [leader, *of[State.BEST]]
        parts.append(f"{_named(of[State.BEST])} {_verb(of[State.BEST])} practically equal to it")
        cheapest = min(equal, key=lambda cell: cell["seconds_train"])
        smallest = min(equal, key=lambda cell: cell["parameters"])
        if cheapest is not leader and cheapest["seconds_train"] < 0.5 * leader["seconds_train"]:
            parts.append(f"of these {cheapest['model']} was fitted in the least time")
        elif smallest is not leader and smallest["parameters"] < 0.5 * leader["parameters"]:
            parts.append(f"of these {smallest['model']} has the fewest parameters")
    if of[State.UNDECIDED]:
        parts.append(f"it is not decided whether it is better than {_named(of[State.UNDECIDED])}")
    if of[State.WORSE]:
        nearest = min(of[State.WORSE], key=lambda cell: abs(cell["to_best"]))
        parts.append(
            f"it is better than {_named(of[State.WORSE])}, significantly and by more than the margin "
            f"(than {nearest['model']} by {number(abs(nearest['to_best']))})"
        )
    note = f" {RISING}: fits that were still improving when their time was spent." if any(map(rising, whole)) else ""
    return f"How sure: {'; '.join(parts) or 'there is no other model to compare it with'}.{note}"


def _named(cells: Sequence[Cell]) -> str:
    return ", ".join(f"{cell['model']}{rising(cell)}" for cell in cells)


def _verb(cells: Sequence[Cell]) -> str:
    return "is" if len(cells) == 1 else "are"


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
