"""What is left to run: trials with no result, or a stale or torn one; and those whose model cannot do the task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records import FAILED, RERUN, Result, Status, TornResult, read_result, run_folder
from benchmarks.tasks.registry import task as build_task
from benchmarks.trial import Trial
from models import registry
from models.names import UnknownName


@dataclass(frozen=True)
class Plan:
    """The trials of a suite by the state of their results. `to_run` holds all but the done ones.

    missing: never run to an end, or ended in a way that says nothing of the model. stale: made with other code.
    torn: with a result that cannot be trusted, and why.
    """

    done: list[tuple[Trial, Result]]
    missing: list[Trial]
    stale: list[Trial]
    torn: list[tuple[Trial, str]]

    @property
    def to_run(self) -> list[Trial]:
        return [*self.missing, *self.stale, *(trial for trial, _ in self.torn)]


def plan(trials: Sequence[Trial], digests: Mapping[str, str], results: Path, retry: Set[Status] = frozenset()) -> Plan:
    """Reads the results folder and changes nothing. digests: trial id → digest of the code it would run with now. retry:
    results with these statuses count as missing."""
    made = Plan([], [], [], [])
    for trial in trials:
        try:
            result = read_result(run_folder(results, trial.id))
        except TornResult as error:
            made.torn.append((trial, str(error)))
            continue
        if result is None or result.status in RERUN or result.status in retry:
            made.missing.append(trial)
        elif result.code_digest != digests[trial.id]:
            made.stale.append(trial)
        else:
            made.done.append((trial, result))
    return made


def retried(names: Sequence[str]) -> frozenset[Status]:
    """Statuses of failures by their names; "all" names every one. Raises UnknownName for any other."""
    found: set[Status] = set()
    for name in names:
        if name != "all" and name not in FAILED:
            raise UnknownName("status to retry", name, ["all", *map(str, FAILED)])
        found |= FAILED if name == "all" else {Status(name)}
    return frozenset(found)


def quarantine(results: Path, trial_id: str) -> Path:
    """Moves a run folder that cannot be trusted out of the way, for a person to look at; returns where it is now."""
    target = results / "quarantine" / f"{trial_id}-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 1_000_000:06d}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return run_folder(results, trial_id).rename(target)


def refusal(trial: Trial) -> str | None:
    """Why the trial's model cannot do the trial's task, or None; None also where the model fails to say: its trial then asks
    it again, and ends with what it raises."""
    task = build_task(trial.task, trial.task_parameters)
    try:
        return registry.entry(trial.model).refuses(task.input, task.target, task.causal)
    except (Exception, SystemExit):  # noqa: BLE001
        return None
