"""Run folders with invented numbers, for tests of what is built from them."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance, records, terms
from benchmarks.metrics import Parts
from benchmarks.records import Gap, Result, Status, file_digest, write_result
from benchmarks.tasks import registry as tasks
from benchmarks.timing import Cost, SweepRow, summary
from benchmarks.trial import Trial, specify

N_TEST = 60
"""Test sequences of every task."""
MODELS = ("rnn", "lstm", "gru", "bilstm", "deep_lstm", "tcn", "transformer", "feed_forward", "hmm", "floor")
TASKS = ("japanese_vowels", "adding", "recall", "parity", "hidden_source")
GOALS = {"japanese_vowels": 0.99, "adding": 1e-5, "recall": 1.0, "parity": 1.0, "hidden_source": 1.03, "co2": 0.4}
FLOORS = {"japanese_vowels": 0.238, "adding": 1 / 6, "recall": 0.125, "parity": 0.5, "hidden_source": 1.37, "co2": 2.0}


def floor_and_goal(trial: Trial) -> tuple[float, float]:
    """Of the task's primary metric; invented for tasks without an entry above."""
    metric = tasks.task(trial.task, trial.task_parameters).metrics[0]
    invented = (0.2, 1.0) if metric.direction == "higher" else (1.0, 0.1)
    return FLOORS.get(trial.task, invented[0]), GOALS.get(trial.task, invented[1])


def trials(models: tuple[str, ...] = MODELS, names: tuple[str, ...] = TASKS, n_seeds: int = 3) -> list[Trial]:
    return [specify(task, model, seed, 20_000, "cpu") for task in names for model in models for seed in range(n_seeds)]


def skill_of(trial: Trial) -> float:
    """Between 0, the floor, and 1, the goal: fixed per model and task, with a little noise per seed."""
    if trial.model == "floor":
        return 0.0
    level = random.Random(f"{trial.task} {trial.model}").uniform(0.3, 1.0)
    return min(1.0, max(0.0, level + random.Random(trial.id).gauss(0, 0.02)))


def write_run(
    results: Path, trial: Trial, skill: float | None = None, n_validations: int = 10, **changes: Any
) -> Result:
    """A finished trial, as good as ``skill`` says; ``changes`` replace fields of its result."""
    folder = records.run_folder(results, trial.id)
    folder.mkdir(parents=True, exist_ok=True)
    skill = skill_of(trial) if skill is None else skill
    floor, goal = floor_and_goal(trial)
    value = floor * (goal / floor) ** skill
    steps = [50 * k for k in range(1, n_validations + 1)] if trial.model not in ("hmm", "floor") else [0]
    rows = [_row(step, floor + (value - floor) * (k + 1) / len(steps), skill) for k, step in enumerate(steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _write_environment(folder)
    (folder / "notebook.ipynb").write_text("{}")
    primary = tasks.task(trial.task, trial.task_parameters).metrics[0].name
    _write_terms(folder, trial, primary, value)
    rng = random.Random(trial.id + "cost")
    result = Result(
        trial_id=trial.id,
        spec=asdict(trial),
        status=Status.OK,
        code_digest=provenance.code_digest(trial.task, trial.model),
        primary=primary,
        test={primary: value},
        validation={primary: value},
        selected_on="validation",
        floor=floor,
        ceiling=goal,
        score=(value - floor) / (goal - floor),
        equals_floor=trial.model == "floor",
        length_sweep={str(n): floor + (value - floor) * 20 / n for n in (20, 40, 100)}
        if trial.task == "parity"
        else {},
        optimum_gap=Gap(value - goal, value - goal - 0.01, value - goal + 0.01, 500)
        if trial.task == "hidden_source"
        else None,
        model_config=trial.model_config,
        parameters={
            "backbone": 0 if trial.model == "floor" else rng.randint(18_500, 20_000),
            "encoder": 400,
            "readout": 330,
        },
        state_bytes=0 if trial.model == "floor" else rng.choice([256, 512, 1024, 40_000]),
        steps=steps[-1],
        best_step=steps[-1],
        seconds={"data": 0.1, "build": 0.05, "train": rng.uniform(0.5, 9), "validate": 0.4, "test": 0.1},
        memory={"peak_bytes": rng.uniform(3e8, 6e8), "increment_bytes": 4e7, "method": "VmHWM after reset"},
        curve_digest=file_digest(folder / "metrics.jsonl"),
        terms_digest=file_digest(folder / records.TERMS),
    )
    result = replace(result, **changes)
    write_result(folder, result)
    return result


def _write_terms(folder: Path, trial: Trial, primary: str, value: float) -> None:
    """Test sequences that every model of a task finds easy or hard alike, but for a hundredth of their spread."""
    common, own = (torch.Generator().manual_seed(seed) for seed in (len(trial.task), len(trial.id + trial.model)))
    terms_of = [0.1 * torch.randn(N_TEST, generator=common), 0.001 * torch.randn(N_TEST, generator=own)]
    drawn = sum(terms_of, torch.zeros(N_TEST)).double()
    over = value + drawn - drawn.mean()
    terms.write(folder / records.TERMS, {primary: Parts(over, torch.ones(N_TEST).double())})


def _write_environment(folder: Path) -> None:
    content = {"python": "3.12", "git_commit": "0123456789ab", "processor": "<b>cpu</b>"}
    (folder / "env.json").write_text(json.dumps(content))


def _row(step: int, value: float, skill: float) -> dict[str, Any]:
    return {
        **{"step": step, "seconds": step / 100, "train_loss": 2.0 - skill, "gradient_norm": 0.5},
        **{"validation_loss": 2.1 - skill, "validation": value, "best": True},
    }


def write_failure(results: Path, trial: Trial, status: Status, reason: str) -> Result:
    """A trial that gave no numbers."""
    folder = records.run_folder(results, trial.id)
    folder.mkdir(parents=True, exist_ok=True)
    _write_environment(folder)
    result = records.failure(trial, status, reason, provenance.code_digest(trial.task, trial.model))
    write_result(folder, result)
    return result


def write_mixed(results: Path, planned: list[Trial]) -> None:
    """A suite with all that can happen: hmm skips adding, one transformer diverges, one gru is missing, a tcn is stale."""
    for trial in planned:
        match trial.model, trial.task, trial.seed:
            case "hmm", "adding", _:
                write_failure(results, trial, Status.SKIPPED, "an HMM has no real-valued answer to a whole sequence")
            case "transformer", "japanese_vowels", 1:
                write_failure(
                    results, trial, Status.DIVERGED, "validation gave accuracy nan at step 50\n<script>x</script>"
                )
            case "gru", "recall", 2:
                pass
            case "tcn", "parity", 0:
                write_run(results, trial, code_digest="of other code")
            case _:
                write_run(results, trial)


STEPS_S = {"lstm": 0.010, "gru": 0.012, "transformer": 0.030}
NOISE = "training step: half of 20 repeats spread over 20% of the median"


def timing_trials(n_processes=3):
    return [
        specify("parity", model, process, 20_000, "cpu", mode="timing")
        for model in STEPS_S
        for process in range(n_processes)
    ]


def write_cost(results, trial, step_s, slowness=1.0, **changes):
    """A finished timing trial whose training step takes step_s, a little more in later processes. slowness: of the machine."""
    times = summary([slowness * step_s * (1 + 0.01 * trial.seed)] * 20, [slowness * 0.002] * 20)
    memory = {"increment_bytes": 2e6, "peak_bytes": 4e8, "method": "VmHWM after reset"}
    power = 2 if trial.model == "transformer" else 1
    rows = [
        SweepRow(n, 2e-5 * n**power, 1e-6 * n**power, 1e3 * n, 1e3 * n, n**power, n**power) for n in (64, 128, 256, 512)
    ]
    cost = Cost(
        *(32, 20, times, times, times, 64, 100, times, memory, memory),
        *({"1": 512}, 10_000_000, 1e10, tuple(rows), None, (NOISE, NOISE) if trial.seed == 0 else (), 3200),
    )  # fmt: skip
    digest = provenance.code_digest(trial.task, trial.model, "timing")
    result = Result(trial.id, asdict(trial), Status.OK, digest, timing_valid=True, cost=cost)
    result = replace(
        result,
        **{"parameters": {"backbone": 19_000}, "seconds": {"data": 0.1, "build": 0.01}, "state_bytes": 512} | changes,
    )
    folder = records.run_folder(results, trial.id)
    folder.mkdir(parents=True)
    write_result(folder, result)
