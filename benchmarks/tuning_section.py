"""What the report says of tuning: what it moved, what it cost, and what was not tuned."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.execution.plan import refusal
from benchmarks.report_sections import Html, Study, paragraphs, table
from benchmarks.tables import finished, signed, with_defaults
from benchmarks.trial import Trial
from benchmarks.tuned import Tuned, Tuning
from benchmarks.verdicts import Scores, difference
from models import registry as models


def tuning(study: Study) -> Html | None:
    """The section with its heading; None for a suite without tuned configurations."""
    found = study.tuned
    if found is None:
        return None
    columns = ("task", "model", "default", "tuned", "change", "what was changed", "trials that failed")
    values = finished(study.frame)
    labelled = zip(study.frame["task"], study.frame["model"], strict=True)
    kinds = dict(zip(labelled, study.trials, strict=True))  # seeds are alike
    on_test = [_on_test(kinds, each, values) for each in found.studies]
    shown = set(on_test) != {"–"}
    body = table(
        (*columns, "test: tuned − default") if shown else columns,
        [(*_row(each), *([moved] if shown else [])) for each, moved in zip(found.studies, on_test, strict=True)],
    )
    return Html("<h2>Tuning</h2>" + paragraphs([_told(found)]).text + body.text + paragraphs(_reading(study)).text)


def _row(each: Tuned) -> tuple[object, ...]:
    known = each.default is not None and each.tuned is not None
    change = signed(each.tuned - each.default) if known else "–"  # type: ignore[operator]
    failed = f"{each.values.count(None)} of {len(each.values)}"
    return (*each.labels, each.default, each.tuned, change, each.told, failed)


def _on_test(kinds: Mapping[tuple[str, str], Trial], each: Tuned, values: Mapping[tuple[str, str], Scores]) -> str:
    """What tuning moved of the metric on test, paired by seed; a dash where the suite does not run both configurations.

    kinds: task and model, as labelled → one of the trials. values: as `tables.finished` gives them."""
    for (task, model), trial in kinds.items():
        default = with_defaults(model)
        if default is None or not _is_of(trial, each) or (task, default) not in values:
            continue
        moved = difference(values[task, model], values[task, default])
        if not moved.n:
            return "–"
        apart = ", significant" if moved.is_significant else ""
        bounds = "no uncertainty" if moved.n < 2 else f"{signed(moved.low, 2)} … {signed(moved.high, 2)}{apart}"
        return f"{signed(moved.mean)}\n{bounds}\nn = {moved.n}"
    return "–"


def _is_of(trial: Trial, each: Tuned) -> bool:
    """Whether a trial runs what was tuned."""
    task = {**trial.task_parameters, **{f"fit.{name}": value for name, value in trial.fit.items()}}
    model = {**trial.model_config, **{f"fit.{name}": value for name, value in trial.fit.items()}}
    same = (trial.task, trial.model) == (each.task, each.model) and each.model_settings.items() <= model.items()
    return same and each.task_settings.items() <= task.items()


def _told(found: Tuning) -> str:
    commits = sorted({each.git_commit for each in found.studies if each.git_commit})
    commit = f" at commit {' and '.join(commits)}" if commits else ""
    return (
        f"Each model got {found.trials} trials on each task, its default configuration first, by {found.sampler} over the "
        f"search space that the model declares, with seed {found.seed}, on validation alone{commit}; torch {found.torch}, "
        f"{found.machine}."
        + " Of equal metrics on validation the lower loss won; the default stayed where its loss was practically the same."
        * any(each.losses for each in found.studies)
    )


def _draws(found: Tuning) -> str:
    """How far the data of the tuning are other data than those of the suite's own trials."""
    shares = {each.labels[0]: each.shared for each in found.studies if each.shared is not None}
    if not shares:
        return ""
    some = ", ".join(f"{task} {share:.0%}" for task, share in shares.items() if share)
    none = ", ".join(task for task, share in shares.items() if not share)
    return (
        "Validation sequences of the tuning that the suite's first seed also trains or selects on: "
        + "; ".join(filter(None, (some, f"none on {none}" if none else "")))
        + "."
    )


def _reading(study: Study) -> list[str]:
    """How to read the table, and which models run with their defaults because nobody tuned them."""
    lines = [_draws(study.tuned)] if study.tuned and _draws(study.tuned) else []
    lines += [
        "Values are of the primary metric on validation. The tuned one is the best of many and so flattered by chance, the "
        "more the noisier the task; whether tuning helped is for the test scores to say. Where a suite runs both "
        "configurations, a last column has the difference of the metric on test with its 95 % interval, paired by seed and "
        "test sequence."
    ]
    tuned: dict[str, bool] = {}
    for trial, task, model in zip(study.trials, study.frame["task"], study.frame["model"], strict=True):
        if models.entry(trial.model).search_space and refusal(trial) is None:
            cell = f"{with_defaults(model) or model} on {task}"
            tuned[cell] = tuned.get(cell, False) or bool(trial.tuned)
    untuned = [cell for cell, is_tuned in tuned.items() if not is_tuned]
    if untuned:
        lines.append(f"Not tuned, hence run with their defaults: {', '.join(untuned)}.")
    return lines
