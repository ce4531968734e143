"""Tables of results, rebuilt from the run folders: one row per trial, then one per model and task.

Nothing is averaged over a hole: failures, skips, missing and stale trials are counted and shown beside the mean of
those that finished.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from benchmarks import provenance, records, terms, verdicts
from benchmarks.metrics import Metric
from benchmarks.records import FAILED, Result, Status, TornResult
from benchmarks.tasks import registry as tasks
from benchmarks.terms import Terms
from benchmarks.trial import Trial
from benchmarks.verdicts import Estimate, Scores, State
from models import registry as models

MISSING = "missing"
"""The status of a trial without a valid result, beside those of `records.Status`."""

MARKS = {State.BEST: "*", State.UNDECIDED: "?", State.WORSE: "", State.NONE: ""}
RISING = "↗"
"""Marks a fit that was still improving when its budget was spent."""
FEW = 5
"""Seeds up to which a cell lists them where their t interval would leave the range of the metric."""

CAPTION = (
    "Mean ± half of its 95 % interval, which covers other seeds and other test sequences. * best: the best mean of a task, "
    "and the next ones that equal it within the metric's margin with a probability of at least 0.95. No mark: worse, by a "
    "difference that is significant (paired 95 % interval, not corrected for many comparisons) and larger than the margin. "
    f"? undecided: neither best nor worse. {RISING} still improving: the last third of the steps improved validation by more "
    "than the margin, or a bound on iterations ended the fit, so a longer fit may change the order. A cell with an unfinished "
    "seed is not compared. A cell that lacks a seed which another model of the task has names its own: their means are over "
    "different draws. Solved: the task says which value of the metric counts. = floor: no better than a constant prediction."
)


def frame(results: Path, trials: list[Trial]) -> pd.DataFrame:
    """One row per trial, in the order of ``trials``, but for timing trials, which have a table of their own (`cost_tables`).

    Columns: trial_id; task, model (with the parameters that tell variants apart); task_name, model_name, group,
    family, seed, device; status (of `records.Status`, or "missing"), reason, stale (made by other code); metric, unit,
    margin, direction, bounds (least and greatest value), solved (threshold or None); value (primary metric on test),
    validation (the same on validation), accuracy (on test, where it is measured), terms (its
    `benchmarks.terms.Terms`, or None), score, floor, ceiling, reference, equals_floor; gap, gap_low, gap_high (excess over the
    Bayes optimum); parameters (backbone), parameters_total, weight_bytes, state_bytes, peak_memory_increment_mb, seconds_train,
    seconds_total; steps, best_step, improving (whether the fit was still improving; None where unknown), length_sweep
    (length → value), trained_length. Numbers that a trial did not get to are nan or None.
    """
    trials = [trial for trial in trials if trial.mode != "timing"]
    digests: dict[tuple[str, str, str], str] = {}
    described: dict[str, dict[str, Any]] = {}
    readers: dict[str, Callable[[Path], Terms | None]] = {}
    rows = []
    for trial, (task, model) in zip(trials, labels(trials), strict=True):
        pair = (trial.task, trial.model, trial.mode)
        if pair not in digests:
            digests[pair] = provenance.code_digest(*pair)
        key = json.dumps([trial.task, trial.task_parameters], sort_keys=True)
        if key not in described:
            described[key] = describe_task(trial)
            readers[key] = _terms_reader(trial)
        folder = records.run_folder(results, trial.id)
        result, problem = _read(folder, trial.id)
        rows.append(
            {"trial_id": trial.id, "task": task, "model": model, "model_name": trial.model, "seed": trial.seed}
            | {"family": models.entry(trial.model).family, "device": trial.device}
            | described[key]
            | _outcome(result, problem, digests[pair])
            | {"terms": readers[key](folder) if result is not None and result.status == Status.OK else None}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("trial_id", "task", "model", "task_name", "model_name", "group", "family", "seed", "device", "status", "reason"),
    *(
        "stale",
        "metric",
        "unit",
        "margin",
        "direction",
        "bounds",
        "solved",
        "value",
        "validation",
        "accuracy",
        "terms",
        "score",
        "floor",
        "ceiling",
        "reference",
        "equals_floor",
    ),
    *(
        "gap",
        "gap_low",
        "gap_high",
        "parameters",
        "parameters_total",
        "weight_bytes",
        "state_bytes",
        "peak_memory_increment_mb",
        "seconds_train",
    ),
    *("seconds_total", "steps", "best_step", "improving", "length_sweep", "trained_length"),
]


def _read(folder: Path, trial_id: str) -> tuple[Result | None, str | None]:
    try:
        return records.read_result(folder), None
    except TornResult as error:
        return None, f"unreadable result: {error}".replace(str(folder), trial_id)


def describe_task(trial: Trial) -> dict[str, Any]:
    """The columns of `frame` that the task itself fixes."""
    task = tasks.task(trial.task, trial.task_parameters)
    primary = task.metrics[0]
    return {
        **{"task_name": task.name, "group": task.group, "metric": primary.name, "unit": primary.unit},
        **{"margin": primary.margin, "bounds": primary.bounds, "solved": task.solved},
        **{"direction": primary.direction, "trained_length": task.lengths.trained if task.lengths else None},
    }


def _terms_reader(trial: Trial) -> Callable[[Path], Terms | None]:
    """From a run folder to the terms of the task's primary metric."""
    task = tasks.task(trial.task, trial.task_parameters)
    primary: Metric = task.metrics[0]
    # Errors of windows that overlap are alike over one horizon; blocks of two keep most of that.
    block = 2 * task.overlap if task.overlap > 1 else 1
    return lambda folder: terms.read(folder / records.TERMS, primary.name, primary.link, block, primary.statistic)


def _outcome(result: Result | None, problem: str | None, code_digest: str) -> dict[str, Any]:
    if result is None:
        return {"status": MISSING, "reason": problem, "stale": False, "equals_floor": False, "length_sweep": {}}
    peak = result.memory.get("increment_bytes", math.nan)
    value = result.test.get(result.primary) if result.primary else None
    status, reason = result.status, result.reason
    if status == Status.OK and value is None:  # by a notebook that was edited: a mean must not meet it
        status, reason = Status.INVALID_METRIC, "the result holds no primary metric"
    return {
        "status": str(status),
        "reason": reason,
        "stale": result.code_digest != code_digest,
        "value": value,
        "validation": result.validation.get(result.primary) if result.primary else None,
        "accuracy": result.test.get("accuracy"),
        **{name: getattr(result, name) for name in ("score", "floor", "ceiling", "reference", "equals_floor")},
        "gap": result.optimum_gap.mean if result.optimum_gap else None,
        "gap_low": result.optimum_gap.low if result.optimum_gap else None,
        "gap_high": result.optimum_gap.high if result.optimum_gap else None,
        "parameters": result.parameters.get("backbone"),
        "parameters_total": sum(result.parameters.values()) if result.parameters else None,
        "weight_bytes": result.weight_bytes,
        "state_bytes": result.state_bytes,
        "peak_memory_increment_mb": float(peak) / 1e6,
        "seconds_train": result.seconds.get("train"),
        "seconds_total": sum(result.seconds.values()) if result.seconds else None,
        **{name: getattr(result, name) for name in ("steps", "best_step")},
        "improving": result.still_improving,
        "length_sweep": {int(length): value for length, value in result.length_sweep.items()},
    }


def labels(trials: list[Trial]) -> Iterator[tuple[str, str]]:
    """Task and model of each trial, with the parameters that tell variants apart: a mean is over seeds alone."""
    kinds = [
        json.dumps(
            [trial.task, trial.model, _settings(trial), dict(trial.task_parameters), bool(trial.tuned)], sort_keys=True
        )
        for trial in trials
    ]
    # Seeds tell nothing apart, so each kind is compared once: with every trial the work would grow with their square.
    different = dict(zip(kinds, trials, strict=True))
    by_task: dict[str, list[dict[str, Any]]] = {}
    by_model: dict[tuple[str, str], list[Trial]] = {}
    for trial in different.values():
        by_task.setdefault(trial.task, []).append(dict(trial.task_parameters))
        by_model.setdefault(_cell(trial), []).append(trial)
    named = {}
    for kind, trial in different.items():
        task = trial.task + _distinction(dict(trial.task_parameters), by_task[trial.task])
        rivals = by_model[_cell(trial)]
        alike = [rival for rival in rivals if bool(rival.tuned) == bool(trial.tuned)]
        tuned = TUNED if trial.tuned and len(alike) < len(rivals) else ""
        named[kind] = task, trial.model + tuned + _distinction(_settings(trial), [_settings(rival) for rival in alike])
    return iter([named[kind] for kind in kinds])


TUNED = " tuned"
"""What is behind a model's name where its tuned and its default configuration stand side by side."""


def with_defaults(model: str) -> str | None:
    """The label of the default configuration of a model labelled as tuned, None for any other label."""
    return model.replace(TUNED, "", 1) if TUNED in model else None


def _cell(trial: Trial) -> tuple[str, str]:
    return json.dumps([trial.task, trial.task_parameters], sort_keys=True), trial.model


def _settings(trial: Trial) -> dict[str, Any]:
    """All but task and seed, flat. What tuning chose is left out: it differs from task to task, and tells no variants apart."""
    settings = {
        **trial.model_config,
        **{f"fit.{name}": value for name, value in trial.fit.items()},
        **{"budget": trial.parameter_budget, "device": trial.device, "mode": trial.mode},
    }
    return {name: value for name, value in settings.items() if name not in trial.tuned}


def _distinction(own: Mapping[str, Any], rivals: list[dict[str, Any]]) -> str:
    names = [name for name in own if any(rival.get(name) != own[name] for rival in rivals)]
    return " " + ", ".join(f"{name}={own[name]}" for name in names) if names else ""


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task and model: the mean over seeds with its 95 % interval, its state, and all that is not in it.

    Columns: task, model, family, group, metric, unit, direction, margin; n_trials, n (finished), mean, low, high (over
    seeds and test sequences, within the bounds of the metric), seed_half, sequence_half (their two parts), n_sequences (of
    the test split), validation (mean over seeds), values (of the seeds on test, as text), solved (how many, NaN where the
    task does not say what that means), improving (fits that were still improving), floor, ceiling, reference, score;
    parameters, weight_bytes, state_bytes, seconds_train, peak_memory_increment_mb (medians); failed (how many), failures
    ("2 of 3 failed: diverged"), skipped, missing, stale; at_floor (finished trials of a model that is no floor itself whose
    metric is the floor's: nothing was learned); seeds (finished ones, where the models of the task have different ones:
    "seeds 0, 1"); reasons; complete (every seed finished, by today's code); state (a `verdicts.State`); to_best,
    to_best_low, to_best_high, to_best_n (minus the best mean of the task, in the metric, over the seeds that both have).
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        cells.setdefault((row["task"], row["model"]), []).append({str(name): value for name, value in row.items()})
    rows = [_summary(cell) for cell in cells.values()]
    done = frame[frame["status"] == Status.OK]
    every_seed = {str(task): set(own["seed"]) for task, own in done.groupby("task")}
    for row, cell in zip(rows, cells.values(), strict=True):
        seeds = sorted(other["seed"] for other in cell if other["status"] == Status.OK)
        partial = seeds and set(seeds) != every_seed[row["task"]]
        row["seeds"] = f"seed{'s' if len(seeds) > 1 else ''} {_listed(map(str, seeds))}" if partial else ""
    found = standings(frame)
    for row in rows:
        state, to_best = found.get(row["task"], {}).get(row["model"], _UNCOMPARED)
        row |= {"state": str(state), "to_best": to_best.mean, "to_best_low": to_best.low, "to_best_high": to_best.high}
        row["to_best_n"] = to_best.n
    return pd.DataFrame(rows, columns=[*SUMMARY, *STANDING]).astype({"complete": bool, "state": str})


_UNCOMPARED = State.NONE, verdicts.NOTHING
STANDING = ("state", "to_best", "to_best_low", "to_best_high", "to_best_n")


def standings(frame: pd.DataFrame) -> dict[str, dict[str, tuple[State, Estimate]]]:
    """Task → model → its state and its difference to the best mean; models with an unfinished or stale seed are left out."""
    values = finished(frame)
    whole: dict[str, dict[str, Scores]] = {}
    facts: dict[str, tuple[str, float]] = {}
    for (task, model), cell in frame.groupby(["task", "model"], sort=False):
        if len(values[task, model].values) == len(cell):
            whole.setdefault(task, {})[model] = values[task, model]
            facts[task] = cell["direction"].iloc[0], float(cell["margin"].iloc[0])
    return {task: verdicts.states(models_of, *facts[task]) for task, models_of in whole.items()}


def finished(frame: pd.DataFrame) -> dict[tuple[str, str], Scores]:
    """(task, model) → the trials that finished, stale ones left out: what may be compared."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    kept: dict[tuple[str, str], dict[int, Terms]] = {}
    for task, model in frame[["task", "model"]].itertuples(index=False):
        values[task, model], kept[task, model] = {}, {}
    columns = ["task", "model", "seed", "value", "terms"]
    for task, model, seed, value, own in usable(frame)[columns].itertuples(index=False):
        values[task, model][seed] = value
        if isinstance(own, Terms):
            kept[task, model][seed] = own
    return {key: Scores(values[key], kept[key]) for key in values}


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be compared: finished, and made by the code as it is."""
    return frame[(frame["status"] == Status.OK) & ~frame["stale"].astype(bool)]


SUMMARY = [
    *("task", "model", "family", "group", "metric", "unit", "direction", "margin"),
    *(
        "n_trials",
        "n",
        "mean",
        "low",
        "high",
        "seed_half",
        "sequence_half",
        "n_sequences",
        "values",
        "solved",
        "improving",
    ),
    "validation",
    *(
        "floor",
        "ceiling",
        "reference",
        "score",
        "parameters",
        "weight_bytes",
        "state_bytes",
        "seconds_train",
        "peak_memory_increment_mb",
    ),
    *("failed", "failures", "skipped", "missing", "stale", "at_floor", "seeds", "reasons", "complete"),
]


def _summary(cell: list[dict[str, Any]]) -> dict[str, Any]:
    ok = [row for row in cell if row["status"] == Status.OK]
    kinds = Counter(row["status"] for row in cell if row["status"] in FAILED)
    failed = kinds.total()
    listed = ", ".join(kind if len(kinds) == 1 else f"{count} {kind}" for kind, count in kinds.items())
    stale = sum(row["stale"] for row in cell)
    reasons = dict.fromkeys(_first_line(row["reason"]) for row in cell if _known(row["reason"]))
    return {
        **{name: cell[0][name] for name in SUMMARY[:8]},
        **{"n_trials": len(cell), "n": len(ok), **_measured(ok)},
        # The floor, a constant fitted to the training split, can move a little from seed to seed.
        **{name: _over(fmean, ok, name) for name in ("validation", "floor", "ceiling", "reference", "score")},
        **{
            name: _over(median, ok, name)
            for name in ("parameters", "weight_bytes", "state_bytes", "seconds_train", "peak_memory_increment_mb")
        },
        **{"failed": failed, "failures": f"{failed} of {len(cell)} failed: {listed}" if failed else ""},
        "skipped": sum(row["status"] == Status.SKIPPED for row in cell),
        "missing": sum(row["status"] == MISSING for row in cell),
        "at_floor": sum(bool(row["equals_floor"]) for row in ok) if cell[0]["family"] != "floor" else 0,
        **{"stale": stale, "reasons": "; ".join(reasons), "complete": len(ok) == len(cell) and not stale},
    }


_NUMBERS = ("mean", "low", "high", "seed_half", "sequence_half", "n_sequences", "solved")


def _measured(ok: list[dict[str, Any]]) -> dict[str, Any]:
    """The primary metric of a cell's finished trials: the mean, its interval within the metric's bounds, and the seeds."""
    if not ok:
        return {**dict.fromkeys(_NUMBERS, math.nan), "values": "", "improving": 0}
    kept = {row["seed"]: row["terms"] for row in ok if isinstance(row["terms"], Terms)}
    estimate = verdicts.estimate(Scores({row["seed"]: row["value"] for row in ok}, kept))
    least, greatest = ok[0]["bounds"]
    sign, threshold = (1 if ok[0]["direction"] == "higher" else -1), ok[0]["solved"]
    is_solved = [sign * (row["value"] - threshold) >= 0 for row in ok] if _known(threshold) else []
    return {
        **{"mean": estimate.mean, "low": max(estimate.low, least), "high": min(estimate.high, greatest)},
        **{"seed_half": estimate.seed_half, "sequence_half": estimate.sequence_half if kept else math.nan},
        "n_sequences": len(next(iter(kept.values()))) if kept else math.nan,
        "values": " ".join(number(row["value"]) for row in sorted(ok, key=lambda row: row["seed"])),
        "solved": sum(is_solved) if is_solved else math.nan,
        "improving": sum(row["improving"] is True for row in ok),
    }


def _known(value: Any) -> bool:
    return value is not None and value == value  # pandas writes a missing text as nan, which differs from itself


def _over(summary: Callable[[list[float]], float], rows: list[dict[str, Any]], name: str) -> float:
    values = [float(row[name]) for row in rows if _known(row[name])]
    return summary(values) if values else math.nan


def _first_line(reason: str) -> str:
    line = (reason.strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else line[:159] + "…"


def number(value: float) -> str:
    """Three significant digits, thousands without decimals."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def signed(value: float, digits: int = 3) -> str:
    """A difference, with its sign; what is left of equal numbers after rounding is none. The minus never ends a line."""
    return "0" if abs(value) < 1e-12 else f"{value:+.{digits}g}".replace("-", "−")


def count(value: float) -> str:
    """A number of things, which a median can halve."""
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def on_tasks(n: int, of: int) -> str:
    """ "on 3 of 7 tasks", or "on the one task"."""
    return f"on {n} of {of} tasks" if of > 1 else "on the one task"


def cell_lines(cell: pd.Series) -> list[str]:
    """What a table shows of one model on one task, a line each."""
    lines = []
    if cell["n"]:
        lines.append(number(cell["mean"]) + MARKS[State(cell["state"])] + rising(cell))
        lines.append(spread(cell))
    if cell["n"] not in (0, 1, cell["n_trials"]):
        lines.append(f"n = {cell['n']}")
    lines += [cell["seeds"]] if cell["seeds"] else []
    if cell["at_floor"]:
        lines.append("= floor" if cell["at_floor"] == cell["n"] else f"{cell['at_floor']} of {cell['n']} = floor")
    lines += [cell["failures"]] if cell["failed"] else []
    for kind in ("skipped", "missing", "stale"):
        if cell[kind]:
            lines.append(kind if cell[kind] == cell["n_trials"] else f"{cell[kind]} of {cell['n_trials']} {kind}")
    return lines


def rising(cell: Mapping[str, Any] | pd.Series) -> str:
    """The flag of fits that were still improving, with how many of them where not all were; empty where none was."""
    if not cell["improving"]:
        return ""
    return f" {RISING}" if cell["improving"] == cell["n"] else f" {RISING} {cell['improving']} of {cell['n']}"


def spread(cell: Mapping[str, Any] | pd.Series) -> str:
    """How sure the mean of a cell is: half of its interval, or the seeds where it would leave the metric's bounds."""
    n, sequences = int(cell["n"]), cell["sequence_half"] if _known(cell["sequence_half"]) else 0.0
    if n == 1:
        return "n = 1, no uncertainty"
    if cell["seed_half"] == 0:
        drawn = f", ± {sequences:.2g} from {cell['n_sequences']:,.0f} test sequences" if sequences else ""
        return f"equal in {n} seeds{drawn}"
    half = math.hypot(cell["seed_half"], sequences)
    if cell["high"] - cell["low"] > 2 * half * (1 - 1e-9):
        return f"± {half:.2g}"
    if _known(cell["solved"]):
        return f"{cell['solved']:.0f} of {n} solved"
    return f"seeds {cell['values']}" if n <= FEW else f"{number(cell['low'])} to {number(cell['high'])}"


def notes(frame: pd.DataFrame) -> list[str]:
    """One line per reason for which trials gave no number: "skipped: hmm on adding: …"."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for row in frame[(frame["status"] != Status.OK) & frame["reason"].notna()].itertuples():
        reasons.setdefault((row.status, _first_line(row.reason)), {})[f"{row.model} on {row.task}"] = None
    return [f"{status}: {_listed(where)}: {reason}" for (status, reason), where in reasons.items()]


def _listed(texts: Iterable[str]) -> str:
    names = list(texts)
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


class MatrixTable:
    """The matrix for a terminal, models × tasks, in as many blocks as its width asks for."""

    def __init__(self, matrix: pd.DataFrame) -> None:
        self.matrix = matrix

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = list(dict.fromkeys(self.matrix["model"]))
        tasks = list(dict.fromkeys(self.matrix["task"]))
        n_columns = max(1, (options.max_width - max(map(len, names), default=0) - 3) // 14)
        for start in range(0, len(tasks), n_columns):
            yield self._block(names, tasks[start : start + n_columns])

    def _block(self, names: list[str], tasks: list[str]) -> Table:
        cells = {(row["model"], row["task"]): row for _, row in self.matrix.iterrows()}
        table = Table("model", show_lines=True)
        for task in tasks:
            metric, direction = next((row["metric"], row["direction"]) for (_, t), row in cells.items() if t == task)
            arrow = "↑" if direction == "higher" else "↓"
            table.add_column(Text(f"{task}\n{metric} {arrow}".replace("_", "_\n")), max_width=12, overflow="fold")
        for name in names:
            row = [cells.get((name, task)) for task in tasks]
            if any(cell is not None for cell in row):
                lines = [[] if cell is None else cell_lines(cell) for cell in row]
                bold = [cell is not None and cell["state"] == State.BEST for cell in row]
                table.add_row(
                    Text(name), *(Text("\n".join(x), "bold" if b else "") for x, b in zip(lines, bold, strict=True))
                )
        return table


def render(matrix: pd.DataFrame, frame: pd.DataFrame) -> Group:
    """For a rich console: the matrix, how to read it, and the reasons for what is not in it."""
    if matrix.empty:
        return Group(Text("no trial to show"))
    return Group(MatrixTable(matrix), Text(CAPTION), *(Text(line) for line in notes(frame)))


def write_csv(matrix: pd.DataFrame, path: Path) -> None:
    """The matrix as CSV, one row per task and model, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomically(path, matrix.to_csv(index=False))
