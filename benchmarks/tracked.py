"""What MLflow is told of a trial and of a cell, a model on a task: tags, parameters and numbers, under the same names for every
model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import cost_tables, records, tables
from benchmarks.records import Result, Status
from benchmarks.timing import Cost
from benchmarks.trial import Trial
from models import registry as models


def run_status(status: Status) -> str:
    """How MLflow calls such an end."""
    if status == Status.INTERRUPTED:
        return "KILLED"
    return "FAILED" if status in records.FAILED else "FINISHED"


def tags(trial: Trial, result: Result, folder: Path) -> dict[str, str]:
    """What runs are searched and grouped by."""
    commit = records.read_environment(folder).get("git_commit")
    return {
        **{"trial_id": trial.id, "task": trial.task, "model": trial.model, "seed": str(trial.seed)},
        **{"family": models.entry(trial.model).family, "status": str(result.status), "device": trial.device},
        **{"reason": (result.reason or "")[:4000], "git_commit": commit or "unknown"},
        **{"group": tables.describe_task(trial)["group"], "mode": trial.mode},
    }


_MEMORY = {
    "peak_bytes": "peak_memory_mb",
    "increment_bytes": "peak_memory_increment_mb",
    "gpu_allocated_bytes": "gpu_peak_allocated_mb",
    "gpu_reserved_bytes": "gpu_peak_reserved_mb",
}
"""`Result.memory` → the metric's name."""


def metrics(result: Result) -> dict[str, float]:
    """The last numbers of a trial, under the same names for every model."""
    named: dict[str, float | None] = {f"test_{name}": value for name, value in result.test.items()}
    named |= {f"validation_{name}": value for name, value in result.validation.items()}
    named |= {f"seconds_{phase}": value for phase, value in result.seconds.items()}
    named |= {f"parameters_{part}": float(count) for part, count in result.parameters.items()}
    sizes = ("state_bytes", "weight_bytes", "steps")
    named |= {name: getattr(result, name) for name in ("score", "floor", "ceiling", "reference", *sizes)}
    named["primary"] = result.test.get(result.primary) if result.primary else None
    if result.seconds:
        named["seconds_total"] = sum(result.seconds.values())
    if result.cost is not None:
        named |= _cost_metrics(result.cost)
    named |= {_MEMORY[name]: float(value) / 1e6 for name, value in result.memory.items() if name in _MEMORY}
    return _finite(named)


def _finite(named: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in named.items() if value is not None and math.isfinite(value)}


def _cost_metrics(cost: Cost) -> dict[str, float | None]:
    timed = {"training_step": cost.training_step, "streaming_step": cost.streaming_step, "evaluation": cost.evaluation}
    named: dict[str, float | None] = {"training_flops": cost.training_flops, "matrix_share": cost.matrix_share}
    for name, repeated in timed.items():
        if repeated is not None:
            named |= {f"{name}_s": repeated.median_s, f"{name}_p90_s": repeated.p90_s, f"{name}_p99_s": repeated.p99_s}
    named |= {"sequences_per_s": cost.sequences_per_s, "steps_per_s": cost.steps_per_s}
    memory = {"training_memory_mb": cost.training_memory, "inference_memory_mb": cost.inference_memory}
    return named | {name: cost_tables.peak_mb(peak) for name, peak in memory.items()}


def parameters(trial: Trial, result: Result) -> Mapping[str, object]:
    """The trial's specification, flat."""
    return {
        **{"task": trial.task, "model": trial.model, "seed": trial.seed, "device": trial.device, "mode": trial.mode},
        **{"parameter_budget": trial.parameter_budget, "primary_metric": result.primary},
        **{f"task.{name}": value for name, value in trial.task_parameters.items()},
        **{f"model.{name}": value for name, value in (result.model_config or trial.model_config).items()},
        **{f"fit.{name}": value for name, value in trial.fit.items()},
        **{f"machine.{name}": value for name, value in trial.machine.items()},
    }


@dataclass(frozen=True)
class Summary:
    """What the trials of a cell say together. metrics: ``n``, how many they are over, among them. failures: "" for none."""

    name: str
    metrics: Mapping[str, float]
    failures: str


def qualities(results: Path, trials: list[Trial]) -> Iterator[tuple[str, Summary]]:
    """`Trial.cell` of the trials that are not timed and its summary over seeds, as in the table."""
    judged = [trial for trial in trials if trial.mode != "timing"]
    cells = {label: trial.cell for trial, label in zip(judged, tables.labels(judged), strict=True)}
    for _, row in tables.matrix(tables.frame(results, judged)).iterrows():
        named = {"primary": row["mean"], "primary_low": row["low"], "primary_high": row["high"]}
        named |= {f"test_{row['metric']}": row["mean"], "n": row["n"], "n_failed": row["failed"]}
        same = ("seconds_train", "peak_memory_increment_mb", "score", "floor", "ceiling", "reference")
        named |= {name: row[name] for name in same} | {"parameters_backbone": row["parameters"]}
        name = f"{row['model']} on {row['task']}"
        yield cells[row["task"], row["model"]], Summary(name, _finite(named), row["failures"])


def costs(results: Path, trials: list[Trial]) -> Iterator[tuple[str, Summary]]:
    """`Trial.cell` of the timing trials, which are named as the others are, and the medians of their numbers over the
    processes that may be put together."""
    timed = [trial.cell for trial in trials if trial.mode == "timing"]
    runs = cost_tables.runs(results, trials).assign(cell=timed)
    for cell, rows in runs.groupby("cell", sort=False):
        usable = [
            records.read_result(records.run_folder(results, name)) for name in cost_tables.usable(rows)["trial_id"]
        ]
        medians = pd.DataFrame([metrics(result) for result in usable if result]).median()
        failed = len(cost_tables.failed(rows))
        failures = f"{failed} of {len(rows)} failed" if failed else ""
        name = f"{rows['model'].iloc[0]} on {rows['task'].iloc[0]}, timing"
        yield str(cell), Summary(name, {**medians, "n": len(usable), "n_failed": failed}, failures)
