"""What to do with one's own data after a comparison: which model, how sure that is, and within which limits.

The model is chosen on validation and reported on test: the best of many test values is better than any of these models is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.records import Status
from benchmarks.report_sections import Study
from benchmarks.tables import RISING, finished, number, rising, usable
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.your_data import YourData
from benchmarks.verdicts import SURE, Estimate, Scores, difference
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
    chosen = best_on_validation(whole)
    if not beats_constant(study, chosen):
        return [
            f"Recommendation: none of these models. The best of them on validation, {chosen['model']}, has "
            f"{_value(study, chosen)} on test and {_constant(study)} {number(chosen['floor'])}: it does not significantly beat "
            "a constant prediction. More rows, more --minutes or more informative columns may change that.",
            *_limits(study),
        ]
    return [
        f"Recommendation: {chosen['model']}{rising(chosen)}, the best on validation. {_value(study, chosen)} on the test "
        f"split, where {_rival(study, chosen, whole)}{_constant(study)} has {number(chosen['floor'])}.",
        _how_sure(study, chosen, whole),
        *_limits(study),
    ]


def best_on_validation(cells: Sequence[Cell]) -> Cell:
    """The model whose mean over seeds of the primary metric on validation is best, the smaller one of equals."""
    sign = -1 if cells[0]["direction"] == "lower" else 1
    return max(cells, key=lambda cell: (sign * cell["validation"], -cell["parameters"]))


def beats_constant(study: Study, cell: Cell) -> bool:
    """Whether the test interval of a model, over seeds and test sequences, lies beyond the constant prediction.

    Where the constant is among the models of the study it must also lose in the paired comparison.
    """
    sign = -1 if cell["direction"] == "lower" else 1
    bound = cell["high"] if cell["direction"] == "lower" else cell["low"]
    if not sign * (cell["mean"] - cell["floor"]) > 0 or (bound == bound and sign * (bound - cell["floor"]) <= 0):
        return False
    floors = set(study.frame[study.frame["family"] == "floor"]["model"])
    rivals = [scores for (_, model), scores in finished(study.frame).items() if model in floors and scores.values]
    to_floor = [difference(_scores(study, cell), floor) for floor in rivals]
    return all(sign * each.mean > 0 and (each.n < 2 or each.is_significant) for each in to_floor if each.n)


def _scores(study: Study, cell: Cell) -> Scores:
    return finished(study.frame)[cell["task"], cell["model"]]


def _rival(study: Study, chosen: Cell, whole: Sequence[Cell]) -> str:
    """On validation the best of the models that need no training by gradient, or, if that is chosen, the best network."""
    fits = {
        label: models.entry(name).fit for label, name in study.frame[["model", "model_name"]].itertuples(index=False)
    }
    is_simple = fits[chosen["model"]] is Fit.OWN
    rivals = [cell for cell in whole if (fits[cell["model"]] is Fit.OWN) != is_simple]
    if not rivals:
        return ""
    best = best_on_validation(rivals)
    kind = "the best network" if is_simple else "the best simple model"
    return f"{kind}, {best['model']}{rising(best)}, has {number(best['mean'])} and "


def _constant(study: Study) -> str:
    """What the floor does."""
    is_forecast = study.trials[0].task_parameters.get("kind") == "forecasting"
    return "always giving the same change from the last value" if is_forecast else "always giving the same answer"


def _value(study: Study, cell: Cell) -> str:
    bounds = f"{number(cell['low'])} to {number(cell['high'])}"
    spread = "" if math.isnan(cell["low"]) else f", 95 % interval {bounds}"
    seeds = f"mean of {cell['n']} seeds" if cell["n"] > 1 else "one seed"
    return f"{cell['metric']} {number(cell['mean'])}{spread} ({cell['unit']}, {seeds}){_also(study, cell)}"


def _also(study: Study, cell: Cell) -> str:
    """The accuracy beside a cross-entropy, which few can picture."""
    if cell["metric"] != "cross_entropy":
        return ""
    own = usable(study.frame)
    values = [
        float(accuracy)
        for accuracy in own[own["model"] == cell["model"]]["accuracy"]
        if accuracy is not None and accuracy == accuracy
    ]
    return f", accuracy {number(math.fsum(values) / len(values))}" if values else ""


def _how_sure(study: Study, chosen: Cell, whole: Sequence[Cell]) -> str:
    """How the chosen model compares with the others on test."""
    if chosen["n"] < 2:
        return "How sure: one seed has no interval, so not at all; run more seeds."
    sign = -1 if chosen["direction"] == "lower" else 1
    ours = _scores(study, chosen)
    lead: dict[str, Estimate] = {}  # by how much the chosen one is better
    for cell in whole:
        if cell is not chosen:
            apart = difference(ours, _scores(study, cell))
            lead[cell["model"]] = apart._replace(mean=sign * apart.mean)
    margin = chosen["margin"]
    equal: list[Cell] = []
    beaten: list[Cell] = []
    better: list[Cell] = []
    undecided: list[Cell] = []
    for cell in whole:
        if cell is chosen:
            continue
        apart = lead[cell["model"]]
        if apart.probability_within(margin) >= SURE:
            equal.append(cell)
        elif apart.is_significant and abs(apart.mean) > margin:
            (beaten if apart.mean > 0 else better).append(cell)
        else:
            undecided.append(cell)
    parts = []
    if equal:
        parts.append(f"{_named(equal)} {_verb(equal)} practically equal to it")
        parts += _cheaper(chosen, equal)
    if undecided:
        parts.append(f"it is not decided whether it is better than {_named(undecided)}")
    if beaten:
        nearest = min(beaten, key=lambda cell: lead[cell["model"]].mean)
        parts.append(
            f"it is better than {_named(beaten)}, significantly and by more than the margin "
            f"(than {nearest['model']} by {number(lead[nearest['model']].mean)})"
        )
    if better:
        parts.append(f"{_named(better)} {_verb(better)} significantly better than it, though not on validation")
    note = f" {RISING}: fits that were still improving when their time was spent." if any(map(rising, whole)) else ""
    return f"How sure: on test, {'; '.join(parts) or 'there is no other model to compare it with'}.{note}"


def _cheaper(chosen: Cell, equal: Sequence[Cell]) -> Iterator[str]:
    """Which model that is practically equal to the chosen one costs less than half."""
    cheapest = min(equal, key=lambda cell: cell["seconds_train"])
    smallest = min(equal, key=lambda cell: cell["parameters"])
    if cheapest["seconds_train"] < 0.5 * chosen["seconds_train"]:
        yield f"of these {cheapest['model']} was fitted in the least time"
    elif smallest["parameters"] < 0.5 * chosen["parameters"]:
        yield f"of these {smallest['model']} has the fewest parameters"


def _named(cells: Sequence[Cell]) -> str:
    return ", ".join(f"{cell['model']}{rising(cell)}" for cell in cells)


def _verb(cells: Sequence[Cell]) -> str:
    return "is" if len(cells) == 1 else "are"


def _limits(study: Study) -> Iterator[str]:
    seconds = max((trial.fit.get("seconds") or 0.0 for trial in study.trials), default=0.0)
    size = (
        f"models of about {study.parameter_budget:,} parameters"
        if study.parameter_budget
        else "models of their own size"
    )
    time = f", each fit by gradient given {seconds:g} s" if seconds else ""
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
            if task.metrics[0].name == "accuracy" and not task.prepared.is_per_step
            else "."
        )
    )
