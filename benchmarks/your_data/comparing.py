"""``rnnbench compare``: a file is looked at, a suite is made of it, and the suite is run like any other.

The suite lies beside its report, results/<name>/suite.yaml, for a person to change and run again. Every fit has the same time
by the clock, such that all of them end within the minutes that were given.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.execution.supervisor import cores, workers_for
from benchmarks.records import write_atomically
from benchmarks.running import RESULTS, Options, complete
from benchmarks.tasks.your_data import YourData, recorded
from benchmarks.trial import resolve_device
from benchmarks.your_data.kinds import question
from benchmarks.your_data.reading import Roles, Source, locate, sequence_numbers
from benchmarks.your_data.recording import Recording, bad, counted, listed, one_line
from models import registry

MODELS = (
    *("rnn", "lstm", "gru", "bilstm", "deep_lstm", "feed_forward", "fcn", "tcn", "transformer", "hmm"),
    *("linear", "boosted_trees", "minirocket", "nearest_neighbour"),
    *("seasonal_naive", "exponential_smoothing", "arima", "ngram", "frequent_tag", "floor"),
)
"""What is compared unless a person names models: those of the default suite and the simple ones of every kind of question, less
those that refuse the question."""
BUDGET = 11_500
SEEDS = 3
STEPS = 1_000_000
"""Optimiser steps that no fit reaches: the clock ends it."""
START_S = 75.0
"""To start the processes that run trials, and to make the report: on a machine with other work; an idle one takes a third."""
TRIAL_S = 11.0
"""Of a trial, all but its fit: its process, its data, the test split and its figures; and"""
BYTES_PER_S = 4e6
"""what is read of the file in a second."""
LEAST_S = 2.0
"""A shorter fit would say nothing."""


@dataclass(frozen=True)
class Asked:
    """How the file shall be read and compared. models: by name; None: those of `MODELS` that can do what is asked. minutes: in
    all. workers: trials at a time; None: one per core."""

    roles: Roles
    kind: str = "auto"
    horizon: int | None = None
    causal: bool = False
    models: tuple[str, ...] | None = None
    minutes: float = 10.0
    workers: int | None = None


@dataclass(frozen=True)
class Plan:
    """A suite to be written and run. told: what was found in the file, line by line."""

    name: str
    content: str
    told: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What came of it. told: what was found in the file. advice: what to use, how sure, within which limits. table: as a
    terminal takes it. matrix: a row per model, see `benchmarks.tables.matrix`. report: the page. suite: its file, to change and
    run again. n_failed: trials that gave no result."""

    told: tuple[str, ...]
    advice: tuple[str, ...]
    table: str
    matrix: pd.DataFrame
    report: Path
    suite: Path
    n_failed: int

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in (*self.advice, f"Report: {self.report}"))


def compare(
    file: str | Path,
    target: str | None = None,
    *,
    sequence_id: str | None = None,
    time: str | None = None,
    kind: str = "auto",
    horizon: int | None = None,
    causal: bool = False,
    minutes: float = 10.0,
    split: str | None = None,
    group: str | None = None,
    ignore: Iterable[str] = (),
    models: Iterable[str] | None = None,
    workers: int | None = None,
    device: str = "auto",
    results: str | Path | None = None,
    say: Callable[[str], object] = print,
) -> Comparison:
    """Compares models on a file; the options are those of ``rnnbench compare``. say: told what is found before anything runs.

    Raises BadInput with one sentence where the file cannot be used, and Stopped where the trials cannot go on.
    """
    from benchmarks.report import open_study
    from benchmarks.your_data.recommending import recommendation

    roles = Roles(target, sequence_id, group, time, split, tuple(ignore))
    workers = workers or workers_for(resolve_device(device))
    asked = Asked(roles, kind, horizon, causal, tuple(models) if models is not None else None, minutes, workers)
    plan = look(file, asked)
    for line in plan.told:
        say(line)
    folder = Path(results) if results is not None else RESULTS
    suite = folder / plan.name / "suite.yaml"
    suite.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(suite, plan.content)
    outcome = complete(str(suite), device, Options(folder, workers))
    assert outcome is not None and outcome.report is not None  # neither a dry run nor one without a report
    study = open_study(folder, plan.name)
    advice = tuple(recommendation(study))
    return Comparison(plan.told, advice, outcome.table, study.matrix, Path(outcome.report), suite, outcome.n_failed)


def look(file: str | Path, asked: Asked) -> Plan:
    """Reads the file, finds out what it asks, and plans trials that fit into the minutes. Raises BadInput."""
    source = locate(file)
    if not 0 < asked.minutes < 10**6:
        raise bad(source.name, f"--minutes must be positive, got {asked.minutes:g}")
    digest = source.digest()
    recording = recorded(source, digest, asked.roles)
    found = question(recording, asked.kind, asked.horizon)
    task = YourData(
        file=str(source.path),
        sha256=digest,
        target_column=asked.roles.target,
        sequence_id=asked.roles.sequence_id,
        group_column=asked.roles.group,
        time=asked.roles.time,
        split=asked.roles.split,
        ignore=asked.roles.ignore,
        kind=found.kind,
        horizon=found.horizon,
        causal=asked.causal or found.kind == "next_symbol",
    )
    names = asked.models or tuple(name for name in MODELS if _refusal(name, task) is None)
    seconds, n_trials = _seconds_per_fit(source, task, names, asked)
    parameters = {
        name: value for name, value in asdict(task).items() if value != YourData.__dataclass_fields__[name].default
    }
    told = tuple(_told(recording, task, found.why))
    workers = asked.workers or cores()
    time = (
        f"time: {n_trials} trials ({SEEDS} seeds), {workers} at a time, {seconds:g} s by the clock for each fit, "
        f"within {asked.minutes:g} minutes in all; change with --minutes"
    )
    name = _name(source, parameters)
    content = {
        "name": name,
        "description": " ".join(f"{line.partition('; change with')[0]}." for line in told),
        "parameter_budget": BUDGET,
        "seeds": SEEDS,
        "fit": {"batch_size": 32, "n_steps": STEPS, "seconds": seconds, "max_seconds": 2 * seconds + 60},
        "grids": [{"models": list(names), "tasks": [{"name": YourData.name, "parameters": parameters}]}],
    }
    header = f"# Command: rnnbench run <results>/{name}/suite.yaml\n# Time: within {asked.minutes:g} minutes\n"
    header += "# Expected: nothing is known of these data before\n"
    return Plan(name, header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120), (*told, time))


def _refusal(name: str, task: YourData) -> str | None:
    return registry.entry(name).refuses(task.input, task.target, task.causal)


def _seconds_per_fit(source: Source, task: YourData, names: Sequence[str], asked: Asked) -> tuple[float, int]:
    """The same time for every fit, such that all trials end in time; and the number of trials that will run."""
    able = [name for name in names if _refusal(name, task) is None]
    n_trials = SEEDS * len(able)
    if not n_trials:
        raise bad(source.name, f"none of {listed(names)} can do this")
    rounds = -(-n_trials // (asked.workers or cores()))
    beside = TRIAL_S + sum(path.stat().st_size for path in source.paths) / BYTES_PER_S
    seconds = math.floor((60 * asked.minutes - START_S) / rounds - beside)
    if seconds < LEAST_S:
        least = math.ceil((rounds * (LEAST_S + beside) + START_S) / 60)
        raise bad(
            source.name, f"--minutes {asked.minutes:g} is too little for {n_trials} trials; give at least {least}"
        )
    return float(seconds), n_trials


def _told(recording: Recording, task: YourData, why: str) -> Iterator[str]:
    """What was found, and how to change it."""
    made = task.prepared
    n_sequences = sequence_numbers(recording.frame, recording.sequence)[-1] + 1
    lengths = np.bincount(sequence_numbers(recording.frame, recording.sequence))
    steps = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    yield (
        f"read: {recording.file}: {len(recording.frame):,} rows, {counted(n_sequences, 'sequence')} of {steps} steps"
        f"; read as inputs: {_inputs(task)}"
    )
    when = "predictions are due as the sequence arrives" if task.causal else "models may look at whole sequences"
    change = "" if task.kind == "next_symbol" or task.causal else " (--causal forbids it)"
    yield f"found: {made.question}, because {why}; {when}{change}; change with --kind"
    sizes = "{:,} to train, {:,} to choose, {:,} to test".format(*made.counts())
    yield f"splits: {made.told}: {sizes}; change with --split"
    yield from made.remarks


def _inputs(task: YourData) -> str:
    made = task.prepared
    if made.steps.symbols is not None:
        return f"{one_line(made.steps.channels[0])}, as {len(made.steps.symbols):,} symbols"
    return f"{counted(len(made.steps.channels), 'channel')} ({listed(made.steps.channels, 6)})"


def _name(source: Source, parameters: Mapping[str, Any]) -> str:
    """Letters, digits and hyphens of the file's name, and six digits that tell other data and other questions apart."""
    plain = unicodedata.normalize("NFKD", source.path.stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "data"
    return f"{slug}-{sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:6]}"
