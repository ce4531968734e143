"""The trials of a suite as a results folder holds them that another machine may have filled: to be looked at, not to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.portable import all_runs
from benchmarks.records import RESULT, run_folder
from benchmarks.suite import Suite
from benchmarks.trial import Trial


def recorded(suite: Suite, device: str, results: Path) -> list[Trial]:
    """The suite's trials in its order. device: as for `Suite.trials`, but cuda also where there is no GPU.

    Trials that measure cost are this machine's; where it has measured none, those of the machines that the folder knows.
    """
    absent = device == "cuda" and not torch.cuda.is_available()
    planned = suite.trials(device="cpu" if absent else device)
    if absent:
        planned = [replace(trial, device="cuda") for trial in planned]
    timed = [trial for trial in planned if trial.mode == "timing"]
    measured_here = any((run_folder(results, trial.id) / RESULT).exists() for trial in timed)
    if not timed or measured_here:
        return planned
    found = [_on(machine, trial) for machine in _machines(results, timed) for trial in timed]
    judged = [trial for trial in planned if trial.mode != "timing"]
    return [*judged, *found] if found or absent else planned


def _machines(results: Path, timed: list[Trial]) -> list[Mapping[str, Any]]:
    """Those with a result of one of these trials."""
    wanted = {replace(trial, machine={}).id for trial in timed}
    runs = (run.trial for run in all_runs(results))
    found = [{**trial.machine, "threads": 0} for trial in runs if replace(trial, machine={}).id in wanted]
    return [machine for n, machine in enumerate(found) if machine not in found[:n]]


def _on(machine: Mapping[str, Any], trial: Trial) -> Trial:
    """The trial on a machine, with its own number of threads."""
    return replace(trial, machine={**machine, "threads": trial.machine["threads"]})
