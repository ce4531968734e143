"""What MLflow is told of a trial: tags, parameters and last numbers, under the same names for every model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from benchmarks import records, tables
from benchmarks.records import Result, Status
from benchmarks.timing import Cost
from benchmarks.trial import Trial
from models import registry as models


def run_status(status: Status) -> str:
    """How MLflow calls such an end."""
    if status == Status.INTERRUPTED:
        return "KILLED"
    return "FINISHED" if status in (Status.OK, Status.SKIPPED) else "FAILED"


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
    return {name: float(value) for name, value in named.items() if value is not None and math.isfinite(value)}


def _cost_metrics(cost: Cost) -> dict[str, float | None]:
    timed = {"training_step": cost.training_step, "streaming_step": cost.streaming_step, "evaluation": cost.evaluation}
    named: dict[str, float | None] = {"training_flops": cost.training_flops, "matrix_share": cost.matrix_share}
    for name, repeated in timed.items():
        if repeated is not None:
            named |= {f"{name}_s": repeated.median_s, f"{name}_p90_s": repeated.p90_s, f"{name}_p99_s": repeated.p99_s}
    named |= {"sequences_per_s": cost.sequences_per_s, "steps_per_s": cost.steps_per_s}
    return named | {"inference_memory_mb": float(cost.inference_memory["increment_bytes"]) / 1e6}


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
