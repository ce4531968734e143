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

from benchmarks import provenance, records
from benchmarks.records import FAILED, Result, Status, TornResult
from benchmarks.statistics import paired_t_interval, t_interval
from benchmarks.tasks import registry as tasks
from benchmarks.trial import Trial
from models import registry as models

MISSING = "missing"
"""The status of a trial without a valid result, beside those of `records.Status`."""

CAPTION = (
    "Mean ± half of the 95 % t interval over seeds. * marks the best mean of a task and every model that these seeds do "
    "not tell from it: the paired 95 % t interval of their difference includes zero (not corrected for many "
    "comparisons). Cells with an unfinished seed are left out. A cell that lacks a seed which another model of the task has "
    "names its own: their means are over different draws. = floor: a constant learned as much."
)


def frame(results: Path, trials: list[Trial]) -> pd.DataFrame:
    """One row per trial, in the order of ``trials``, but for timing trials, which have a table of their own (`cost_tables`).

    Columns: trial_id; task, model (with the parameters that tell variants apart); task_name, model_name, group,
    family, seed, device; status (of `records.Status`, or "missing"), reason, stale (made by other code); metric, unit,
    margin, direction; value (primary metric on test), score, floor, ceiling, reference, equals_floor; gap, gap_low, gap_high
    (excess over the Bayes optimum); parameters (backbone), parameters_total, weight_bytes, state_bytes,
    peak_memory_increment_mb, seconds_train, seconds_total; steps, best_step, length_sweep (length → value),
    trained_length. Numbers that a trial did not get to are nan or None.
    """
    trials = [trial for trial in trials if trial.mode != "timing"]
    digests: dict[tuple[str, str, str], str] = {}
    described: dict[str, dict[str, Any]] = {}
    rows = []
    for trial, (task, model) in zip(trials, labels(trials), strict=True):
        pair = (trial.task, trial.model, trial.mode)
        if pair not in digests:
            digests[pair] = provenance.code_digest(*pair)
        key = json.dumps([trial.task, trial.task_parameters], sort_keys=True)
        if key not in described:
            described[key] = describe_task(trial)
        result, problem = _read(records.run_folder(results, trial.id), trial.id)
        rows.append(
            {"trial_id": trial.id, "task": task, "model": model, "model_name": trial.model, "seed": trial.seed}
            | {"family": models.entry(trial.model).family, "device": trial.device}
            | described[key]
            | _outcome(result, problem, digests[pair])
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
        "value",
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
    *("seconds_total", "steps", "best_step", "length_sweep", "trained_length"),
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
        "margin": primary.margin,
        **{"direction": primary.direction, "trained_length": task.lengths.trained if task.lengths else None},
    }


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
    """One row per task and model: the mean over seeds with its 95 % t interval, and all that is not in it.

    Columns: task, model, family, group, metric, unit, direction; n_trials, n (finished), mean, low, high, floor,
    ceiling, reference, score; parameters, weight_bytes, state_bytes, seconds_train,
    peak_memory_increment_mb (medians); failed (how many),
    failures ("2 of 3 failed: diverged"), skipped, missing, stale; at_floor (finished trials of a model that is no floor itself
    whose metric is the floor's: nothing was learned); seeds (finished ones, where the models of the task have different ones:
    "seeds 0, 1"); reasons; complete (every seed finished, by today's code); best.
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
    values = finished(frame)
    for row in rows:
        rivals = [rival for rival in rows if rival["task"] == row["task"] and rival["complete"]]
        leader = _leader(rivals) if row["complete"] else row
        apart = (
            difference(values[row["task"], row["model"]], values[leader["task"], leader["model"]]) if rivals else None
        )
        # With one seed there is no interval: the best is marked alone, or with its equals.
        row["best"] = row["complete"] and apart is not None and (apart[0] == 0 or apart[1] <= 0 <= apart[2])
    return pd.DataFrame(rows, columns=[*SUMMARY, "best"]).astype({"best": bool, "complete": bool})


def _leader(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The cell with the best mean."""
    sign = -1 if cells[0]["direction"] == "lower" else 1
    return max(cells, key=lambda cell: sign * cell["mean"])


def finished(frame: pd.DataFrame) -> dict[tuple[str, str], dict[int, float]]:
    """(task, model) → seed → primary metric of the trials that finished, stale ones left out: what may be compared."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for task, model in frame[["task", "model"]].itertuples(index=False):
        found.setdefault((task, model), {})
    for task, model, seed, value in usable(frame)[["task", "model", "seed", "value"]].itertuples(index=False):
        found[task, model][seed] = value
    return found


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be compared: finished, and made by the code as it is."""
    return frame[(frame["status"] == Status.OK) & ~frame["stale"].astype(bool)]


SUMMARY = [
    *("task", "model", "family", "group", "metric", "unit", "direction", "n_trials", "n", "mean", "low", "high"),
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
    mean, low, high = t_interval([row["value"] for row in ok]) if ok else (math.nan,) * 3
    stale = sum(row["stale"] for row in cell)
    reasons = dict.fromkeys(_first_line(row["reason"]) for row in cell if _known(row["reason"]))
    return {
        **{name: cell[0][name] for name in SUMMARY[:7]},
        **{"n_trials": len(cell), "n": len(ok), "mean": mean, "low": low, "high": high},
        # The floor, a constant fitted to the training split, can move a little from seed to seed.
        **{name: _over(fmean, ok, name) for name in ("floor", "ceiling", "reference", "score")},
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


def _known(value: Any) -> bool:
    return value is not None and value == value  # pandas writes a missing text as nan, which differs from itself


def _over(summary: Callable[[list[float]], float], rows: list[dict[str, Any]], name: str) -> float:
    values = [float(row[name]) for row in rows if _known(row[name])]
    return summary(values) if values else math.nan


def _first_line(reason: str) -> str:
    line = (reason.strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else line[:159] + "…"


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, float, int]:
    """Mean of a - b over the seeds that both finished, its 95 % t interval, and their number. a, b: seed → metric."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return math.nan, math.nan, math.nan, 0
    return *paired_t_interval([a[seed] for seed in seeds], [b[seed] for seed in seeds]), len(seeds)


def differences(frame: pd.DataFrame, matrix: pd.DataFrame) -> pd.DataFrame:
    """Each model against the best mean of its task, paired by seed: task, model, best, difference, low, high, n.

    A difference is model - best in the metric, not in merit: for an error, positive is worse.
    """
    values = finished(frame)
    rows = []
    shown = matrix[matrix["n"] > 0].to_dict("records")
    for task in dict.fromkeys(cell["task"] for cell in shown):
        cells = [cell for cell in shown if cell["task"] == task]
        leader = _leader([cell for cell in cells if cell["complete"]] or cells)["model"]
        for model in (cell["model"] for cell in cells if cell["model"] != leader):
            rows.append((task, model, leader, *difference(values[task, model], values[task, leader])))
    return pd.DataFrame(rows, columns=["task", "model", "best", "difference", "low", "high", "n"])


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
        lines.append(number(cell["mean"]) + ("*" if cell["best"] else ""))
        half = (cell["high"] - cell["low"]) / 2
        lines.append("n = 1, no uncertainty" if cell["n"] == 1 else f"± {half:.2g}")
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
                bold = [cell is not None and bool(cell["best"]) for cell in row]
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
