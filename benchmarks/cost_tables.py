"""Tables of what models cost, from timing trials alone: one row per process, then one per model and shape.

A shape is a task with its parameters and the batch size. Processes are put together only where they ran on the same machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import provenance, records
from benchmarks.records import Result, Status, TornResult
from benchmarks.statistics import Interval, paired_t_interval
from benchmarks.tables import MISSING, labels
from benchmarks.timing import exponent
from benchmarks.trial import Trial
from models import registry as models

TIMED = {
    "training_step_s": "s",
    "training_step_p90_s": "s",
    "training_step_compared": "fixed work, or s on a GPU",
    "fit_s": "s",
    "evaluation_s": "s",
    "sequences_per_s": "1/s",
    "steps_per_s": "1/s",
    "streaming_step_s": "s",
    "streaming_step_p90_s": "s",
    "streaming_step_p99_s": "s",
    "data_s": "s",
    "build_s": "s",
    "warm_up_s": "s",
    "training_memory_mb": "MB",
    "inference_memory_mb": "MB",
    "matrix_share": "share",
}
"""What differs from process to process, and its unit."""
SHAPED = ("batch_size", "length", "inference_batch", "inference_length", "inference_steps")
COUNTED = (*SHAPED, "parameters", "weight_bytes", "state_bytes")
SHAPE = ("task", "model", "family", "machine")


def runs(results: Path, trials: list[Trial]) -> pd.DataFrame:
    """One row per timing trial among ``trials``, in their order; labels as in `tables.frame` where the suite has the same
    there.

    Columns: trial_id, task, model, family, machine, process; status, reason, stale; n_processes is 1; those of TIMED and
    COUNTED, training_flops; noise (tuple of texts), sweep (list of rows), sweep_note. Numbers that a trial did not get to are
    nan.
    """
    rows = []
    digests: dict[tuple[str, str], str] = {}
    for trial, (task, model) in _labelled(trials):
        pair = (trial.task, trial.model)
        if pair not in digests:
            digests[pair] = provenance.code_digest(*pair, "timing")
        rows.append(
            {"trial_id": trial.id, "task": task, "model": model, "family": models.entry(trial.model).family}
            | {"machine": ", ".join(f"{name} {value}" for name, value in trial.machine.items() if value != "")}
            | {"process": trial.seed}
            | _outcome(*_read(results, trial), digests[pair])
        )
    columns = (*("trial_id", *SHAPE, "process", "status", "reason", "stale"), *TIMED, *COUNTED, "training_flops")
    return pd.DataFrame(rows, columns=[*columns, "noise", "sweep", "sweep_note"])


def _labelled(trials: list[Trial]) -> Iterator[tuple[Trial, tuple[str, str]]]:
    timed = [trial for trial in trials if trial.mode == "timing"]
    others = [trial for trial in trials if trial.mode != "timing"]
    known = {_shape(trial): label for trial, label in zip(others, labels(others), strict=True)}
    for trial, label in zip(timed, labels(timed), strict=True):
        yield trial, known.get(_shape(trial), label)


def _shape(trial: Trial) -> str:
    """What a quality trial and a timing trial must have in common to be about the same."""
    parts = (trial.task, dict(trial.task_parameters), trial.model, dict(trial.model_config), trial.parameter_budget)
    return json.dumps([*parts, trial.fit.get("batch_size"), trial.device], sort_keys=True)


def _read(results: Path, trial: Trial) -> tuple[Result | None, str | None]:
    folder = records.run_folder(results, trial.id)
    try:
        return records.read_result(folder), None
    except TornResult as error:
        return None, f"unreadable result: {error}".replace(str(folder), trial.id)


def _outcome(result: Result | None, problem: str | None, code_digest: str) -> dict[str, Any]:
    if result is None:
        return {"status": MISSING, "reason": problem, "stale": False, "noise": (), "sweep": []}
    ended = {"status": str(result.status), "reason": result.reason, "stale": result.code_digest != code_digest}
    cost = result.cost
    if cost is None or not result.timing_valid:
        return {**ended, "noise": (), "sweep": []}
    step, streamed = cost.training_step, cost.streaming_step
    return {
        **ended,
        "training_step_s": step.median_s if step else math.nan,
        "training_step_p90_s": step.p90_s if step else math.nan,
        "training_step_compared": step.compared if step else math.nan,
        "evaluation_s": cost.evaluation.median_s,
        **{"sequences_per_s": cost.sequences_per_s, "steps_per_s": cost.steps_per_s},
        "streaming_step_s": streamed.median_s if streamed else math.nan,
        "streaming_step_p90_s": streamed.p90_s if streamed else math.nan,
        "streaming_step_p99_s": streamed.p99_s if streamed else math.nan,
        **{f"{phase}_s": result.seconds.get(phase, math.nan) for phase in ("data", "build", "warm_up", "fit")},
        "training_memory_mb": peak_mb(cost.training_memory),
        "inference_memory_mb": peak_mb(cost.inference_memory),
        "matrix_share": cost.matrix_share,
        **{name: getattr(cost, name) for name in SHAPED},
        **{"parameters": result.parameters["backbone"], "weight_bytes": result.weight_bytes},
        **{"state_bytes": result.state_bytes, "training_flops": cost.training_flops},
        **{"noise": cost.noise, "sweep": [asdict(row) for row in cost.sweep], "sweep_note": cost.sweep_note},
    }


def peak_mb(memory: Mapping[str, float | str]) -> float:
    """The peak of a pass on the device that did it, in MB; nan where it was not taken."""
    return float(memory.get("gpu_allocated_bytes", memory.get("increment_bytes", math.nan))) / 1e6


def failed(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows that ended otherwise than they should."""
    return runs[runs["status"].isin(records.FAILED)]


def usable(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be put together: finished, alone on the machine, and made by the code as it is."""
    return runs[(runs["status"] == Status.OK) & ~runs["stale"].astype(bool) & runs["evaluation_s"].notna()]


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per model, shape and machine, from the usable ``runs``.

    Columns: task, model, family, machine; n (processes); for each of TIMED the median over processes, with the least and the
    greatest in NAME_low and NAME_high; those of COUNTED, training_flops; noise, each with how many processes say it.
    """
    rows = []
    for shape, cell in usable(runs).groupby(list(SHAPE), sort=False):
        row: dict[str, Any] = dict(zip(SHAPE, shape, strict=True)) | {"n": len(cell)}
        for name in TIMED:
            values = cell[name].astype(float).dropna()
            row |= {name: values.median(), f"{name}_low": values.min(), f"{name}_high": values.max()}
        row |= {name: cell[name].iloc[0] for name in (*COUNTED, "training_flops")}
        said = [what for noise in cell["noise"] for what in dict.fromkeys(line.split(":")[0] for line in noise)]
        row["noise"] = tuple(f"{what} ({said.count(what)} of {len(cell)})" for what in dict.fromkeys(said))
        rows.append(row)
    ranges = [column for name in TIMED for column in (name, f"{name}_low", f"{name}_high")]
    return pd.DataFrame(rows, columns=[*SHAPE, "n", *ranges, *COUNTED, "training_flops", "noise"])


def ratio(runs: pd.DataFrame, task: str, model: str, other: str, measure: str = "training_step_compared") -> Interval:
    """How many times what ``other`` costs ``model`` costs on a task: the geometric mean over processes of the same number,
    which ran near each other in time, and its 95 % t interval. nan where no process has both, nan bounds where just one has.

    On a CPU training steps are compared in units of the fixed work between them, see `benchmarks.timing`."""
    of = {
        name: usable(runs)[lambda r, name=name: (r["task"] == task) & (r["model"] == name)].set_index("process")[
            measure
        ]
        for name in (model, other)
    }
    shared = of[model].dropna().index.intersection(of[other].dropna().index)
    if shared.empty:
        return Interval(math.nan, math.nan, math.nan)
    logs = [np.log(of[name].loc[shared].astype(float).to_numpy()) for name in (model, other)]
    return Interval(*(math.exp(bound) for bound in paired_t_interval(*logs)))


SWEPT = {
    "training_step_s": "training_step_compared",
    "inference_s": "inference_compared",
    "training_bytes": "training_bytes",
    "inference_bytes": "inference_bytes",
}
"""What a scaling sweep measures, and what the exponent of each is fitted to."""
SWEEP = tuple(dict.fromkeys((*SWEPT, *SWEPT.values())))


def sweeps(runs: pd.DataFrame) -> pd.DataFrame:
    """The scaling sweeps: task, model, family, machine, length, n, and the median over processes of each of SWEEP."""
    rows = []
    for shape, cell in usable(runs).groupby(list(SHAPE), sort=False):
        for length in sorted({row["length"] for sweep in cell["sweep"] for row in sweep}):
            found = [row for sweep in cell["sweep"] for row in sweep if row["length"] == length]
            known = {name: [row[name] for row in found if row[name] is not None] for name in SWEEP}
            middle = {name: median(values) if values else math.nan for name, values in known.items()}
            rows.append(dict(zip(SHAPE, shape, strict=True)) | {"length": length, "n": len(found)} | middle)
    return pd.DataFrame(rows, columns=[*SHAPE, "length", "n", *SWEEP])


def exponents(sweeps: pd.DataFrame) -> pd.DataFrame:
    """How each of SWEPT grows with the length, a row per task and model: the exponents, and the longest length that was
    reached."""
    rows = []
    for (task, model, family), cell in sweeps.groupby(["task", "model", "family"], sort=False):
        powers = {name: exponent(list(cell["length"]), list(cell[fitted])) for name, fitted in SWEPT.items()}
        rows.append({"task": task, "model": model, "family": family, "longest": cell["length"].max(), **powers})
    return pd.DataFrame(rows, columns=["task", "model", "family", "longest", *SWEPT])


TARGET = 0.9
"""The score, on validation, that counts as having learned a task: nine tenths of the way from floor to ceiling or reference."""


def to_target(frame: pd.DataFrame, curves: Mapping[tuple[str, str], pd.DataFrame], costs: pd.DataFrame) -> pd.DataFrame:
    """What it takes to reach TARGET, a row per task and model of ``frame`` that has a curve and a goal.

    frame: quality, one row per trial. curves: (task, model) → validation metric, steps × seeds. Columns: task, model, family;
    n_reached, n seeds; steps, sequences, seconds, flops: the median over seeds, a seed that never gets there counting as
    infinitely late; None where half of them or more do not. seconds: steps × the median training step of the timing trials, or
    the whole fit of a model that fits itself; None without such trials. A curve is known at its validations: the first past
    the target counts.
    """
    rows = []
    timed = {(row["task"], row["model"]): row for row in costs.to_dict("records")}
    cells = dict(list(frame[["task", "model", "family", "floor", "ceiling", "reference"]].groupby(["task", "model"])))
    for (task, model), curve in curves.items():
        cell = cells[task, model]
        floor, goal = cell["floor"].astype(float).mean(), cell["ceiling"].fillna(cell["reference"]).astype(float).mean()
        if not math.isfinite(goal) or goal == floor:
            continue
        past = (curve - floor) / (goal - floor) >= TARGET  # steps × seeds
        first = [float(past.index[past[seed]][0]) if past[seed].any() else math.inf for seed in curve]
        steps = median(first)
        reached = math.isfinite(steps)
        cost = timed.get((task, model), {})
        by_itself = len(curve) == 1
        seconds = cost.get("fit_s", math.nan) if by_itself else steps * cost.get("training_step_s", math.nan)
        flops = math.nan if by_itself else steps * float(cost.get("training_flops") or math.nan)
        rows.append(
            {"task": task, "model": model, "family": cell["family"].iloc[0], "n": len(first)}
            | {"n_reached": sum(map(math.isfinite, first)), "by_itself": by_itself}
            | {"steps": steps if reached and not by_itself else None}
            | {"sequences": steps * cost["batch_size"] if reached and cost and not by_itself else None}
            | {"seconds": seconds if reached and math.isfinite(seconds) else None}
            | {"flops": flops if reached and math.isfinite(flops) else None}
        )
    columns = ["task", "model", "family", "n", "n_reached", "by_itself", "steps", "sequences", "seconds", "flops"]
    return pd.DataFrame(rows, columns=columns).astype({"seconds": object, "flops": object})
