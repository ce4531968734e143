"""``rnnbench compare``: a file is looked at, a suite is made of it, and the suite is run like any other.

The suite lies beside its report, results/<name>/suite.yaml, for a person to change and run again. Every fit by gradient has the
same time by the clock. Models that fit themselves run first and end when they are done; then it is known how much time is left
to the others, and what a trial takes on this machine beside its fit.
"""

from __future__ import annotations

import json
import math
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.execution.supervisor import cores, workers_for
from benchmarks.records import RESULT, read_result, run_folder, write_atomically
from benchmarks.running import RESULTS, Narrowed, Options, complete
from benchmarks.suite import load
from benchmarks.tasks.your_data import UNBALANCED, YourData, recorded
from benchmarks.trial import Trial, resolve_device
from benchmarks.your_data.kinds import question
from benchmarks.your_data.reading import Roles, Source, locate, sequence_numbers
from benchmarks.your_data.recording import Recording, bad, counted, listed, one_line
from models import registry
from models.contract import Fit

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
START_S = 20.0
"""To start the processes that run trials, before this is measured."""
REPORT_S = 15.0
"""To make the table and the report at the end, which cannot be measured before."""
TRIAL_S = 4.0
"""Of a trial, all but its fit (its process, its data, the test split and its figures), before this is measured; and"""
BYTES_PER_S = 4e6
"""what is read of the file in a second."""
LEAST_S = 2.0
"""A shorter fit would say nothing."""
OWN_SHARES = 2.0
"""Equal shares of the time after which a model that fits itself is stopped; most need less than one."""


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
    """Suites to be written and run. told: what was found in the file, line by line. parameters: of the task. own, by_gradient:
    the models that fit themselves, and those that get the same time by the clock. share_s: of each trial, if all took equally
    long; it is what a fit by gradient is given until what is left to it is measured. workers: trials at a time."""

    name: str
    told: tuple[str, ...]
    parameters: Mapping[str, Any]
    own: tuple[str, ...]
    by_gradient: tuple[str, ...]
    share_s: float
    minutes: float
    workers: int

    @property
    def content(self) -> str:
        """The suite, as estimated."""
        return self.suite(self.share_s)

    def suite(self, seconds: float | None) -> str:
        """seconds: for each fit by gradient; None: the suite of the models that fit themselves alone, to be run first."""
        cap = OWN_SHARES * self.share_s
        grids = [self._grid(self.own, self.share_s, cap)] if self.own else []
        if seconds is not None and self.by_gradient:
            grids.append(self._grid(self.by_gradient, seconds, 2 * seconds + 60))
        content = {
            "name": self.name,
            "description": " ".join(f"{line.partition('; change with')[0]}." for line in self.told[:-1]),
            "parameter_budget": BUDGET,
            "seeds": SEEDS,
            "fit": {"batch_size": 32, "n_steps": STEPS},
            "grids": grids,
        }
        header = f"# Command: rnnbench run <results>/{self.name}/suite.yaml\n# Time: within {self.minutes:g} minutes\n"
        header += "# Expected: nothing is known of these data before\n"
        return header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)

    def _grid(self, models: Sequence[str], seconds: float, cap: float) -> dict[str, Any]:
        fit = {"seconds": seconds, "max_seconds": cap}
        task = {"name": YourData.name, "parameters": dict(self.parameters), "fit": fit}
        return {"models": list(models), "tasks": [task]}


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
    sequence_id: str | Iterable[str] | None = None,
    time: str | None = None,
    kind: str = "auto",
    horizon: int | None = None,
    causal: bool = False,
    minutes: float = 10.0,
    split: str | None = None,
    group: str | None = None,
    ignore: Iterable[str] = (),
    missing: Iterable[str] = (),
    wide: bool = False,
    channels_first: bool = False,
    across_gaps: bool = False,
    end: bool = False,
    models: Iterable[str] | None = None,
    workers: int | None = None,
    device: str = "auto",
    results: str | Path | None = None,
    say: Callable[[str], object] = print,
) -> Comparison:
    """Compares models on a file; the options are those of ``rnnbench compare``. say: given what is found before anything runs.

    Raises BadInput with one sentence where the file cannot be used, and Stopped where the trials cannot go on.
    """
    roles = Roles(
        target=target,
        sequence_id=sequence_id if isinstance(sequence_id, str) else tuple(sequence_id or ()),
        group=group,
        time=time,
        split=split,
        ignore=tuple(ignore),
        missing=tuple(missing),
        wide=wide,
        channels_first=channels_first,
        across_gaps=across_gaps,
        end=end,
    )
    workers = workers or workers_on(device)
    plan = look(
        file, Asked(roles, kind, horizon, causal, tuple(models) if models is not None else None, minutes, workers)
    )
    for line in plan.told:
        say(line)
    return carry_out(plan, device, Path(results) if results is not None else RESULTS)


def workers_on(device: str) -> int:
    """Trials at a time where nobody says. Raises NoGPU where a GPU is asked for and there is none."""
    return workers_for(resolve_device(device))


def carry_out(plan: Plan, device: str, results: Path) -> Comparison:
    """Runs a plan: first the models that fit themselves, which end when they are done, then the others in the time left.

    Every fit by gradient gets the same time. What a trial takes beside its fit is measured on the first ones. A plan that was
    carried out before, or begun, goes on with the times that it had.
    """
    from benchmarks.report import open_study
    from benchmarks.your_data.recommending import recommendation

    suite = results / plan.name / "suite.yaml"
    suite.parent.mkdir(parents=True, exist_ok=True)
    options = Options(results, plan.workers)
    if not _is_whole(suite, plan):
        seconds = plan.share_s
        if plan.own and plan.by_gradient:
            began = time.time()  # as the clock of files, with which it is compared
            write_atomically(suite, plan.suite(None))
            complete(str(suite), device, options, Narrowed(report=False))
            start, beside = overhead(results, load(str(suite)).trials(device=device), began)
            left = 60 * plan.minutes - (time.time() - began) - start - REPORT_S
            seconds = seconds_per_fit(left, SEEDS * len(plan.by_gradient), plan.workers, beside)
        write_atomically(suite, plan.suite(seconds))
    outcome = complete(str(suite), device, options)
    assert outcome is not None and outcome.report is not None  # neither a dry run nor one without a report
    study = open_study(results, plan.name)
    advice = tuple(recommendation(study))
    return Comparison(plan.told, advice, outcome.table, study.matrix, Path(outcome.report), suite, outcome.n_failed)


def _is_whole(suite: Path, plan: Plan) -> bool:
    """Whether the file is the suite of this plan with the times of all its fits."""
    if not suite.is_file():
        return False
    written = yaml.safe_load(suite.read_text())
    return sum(len(grid["models"]) for grid in written["grids"]) == len(plan.own) + len(plan.by_gradient)


def overhead(results: Path, trials: Sequence[Trial], began: float) -> tuple[float, float]:
    """Seconds from ``began`` to the first trial, and the median of what a trial took beside its fit."""
    starts, beside = [], []
    for trial in trials:
        folder = run_folder(results, trial.id)
        result = read_result(folder)
        if result is None:
            continue
        start, end = ((folder / name).stat().st_mtime for name in ("spec.json", RESULT))
        if start >= began:  # not from an earlier run
            starts.append(start)
            beside.append(end - start - result.seconds.get("train", 0.0))
    if not starts:
        return START_S, TRIAL_S
    return max(0.0, min(starts) - began), max(0.0, median(beside))


def seconds_per_fit(left_s: float, n_trials: int, workers: int, beside_s: float) -> float:
    """The same time for each of ``n_trials`` fits, such that all trials end in the time that is left; `LEAST_S` at least."""
    rounds = -(-n_trials // workers)
    return max(LEAST_S, math.floor(10 * (left_s / rounds - beside_s)) / 10)


def look(file: str | Path, asked: Asked) -> Plan:
    """Reads the file, finds out what it asks, and plans trials that fit into the minutes. Raises BadInput."""
    source = locate(file)
    if not 0 < asked.minutes < 10**6:
        raise bad(source.name, f"--minutes must be positive, got {asked.minutes:g}")
    digest = source.digest()
    roles = asked.roles
    recording = recorded(source, digest, roles)
    found = question(recording, asked.kind, asked.horizon)
    if roles.end and found.kind != "next_symbol":
        raise bad(source.name, f"--end is for --kind next_symbol, and this is {found.kind}")
    task = YourData(
        file=str(source.path),
        sha256=digest,
        target_column=roles.target,
        sequence_id=roles.sequence_id,
        group_column=roles.group,
        time=roles.time,
        split=roles.split,
        ignore=roles.ignore,
        missing=roles.missing,
        wide=roles.wide,
        channels_first=roles.channels_first,
        across_gaps=roles.across_gaps,
        end=roles.end,
        kind=found.kind,
        horizon=found.horizon,
        causal=asked.causal or found.kind == "next_symbol",
    )
    names = asked.models or tuple(name for name in MODELS if _refusal(name, task) is None)
    workers = asked.workers or cores()
    share_s, n_trials = _share(source, task, names, asked, workers)
    own = tuple(name for name in names if registry.entry(name).fit is Fit.OWN)
    by_gradient = tuple(name for name in names if name not in own)
    parameters = {
        name: value
        for name, value in json.loads(json.dumps(asdict(task))).items()
        if getattr(task, name) != YourData.__dataclass_fields__[name].default
    }
    told = tuple(_told(recording, task, found.why))
    plan = (
        f"plan: {n_trials} trials ({SEEDS} seeds of {listed(names, len(names))}), {workers} at a time, within "
        f"{asked.minutes:g} minutes in all: about {share_s:g} s by the clock for each fit, more where models that fit "
        f"themselves need less; change with --minutes and --models"
    )
    name = _name(source, parameters, (names, asked.minutes, workers))
    return Plan(name, (*told, plan), parameters, own, by_gradient, share_s, asked.minutes, workers)


def _refusal(name: str, task: YourData) -> str | None:
    return registry.entry(name).refuses(task.input, task.target, task.causal)


def _share(source: Source, task: YourData, names: Sequence[str], asked: Asked, workers: int) -> tuple[float, int]:
    """The time of a fit if all took equally long, as estimated before anything is measured; and how many trials will run."""
    able = [name for name in names if _refusal(name, task) is None]
    n_trials = SEEDS * len(able)
    if not n_trials:
        raise bad(source.name, f"none of {listed(names)} can do this")
    rounds = -(-n_trials // workers)
    beside = TRIAL_S + sum(path.stat().st_size for path in source.paths) / BYTES_PER_S
    seconds = math.floor((60 * asked.minutes - START_S - REPORT_S) / rounds - beside)
    if seconds < LEAST_S:
        least = math.ceil((rounds * (LEAST_S + beside) + START_S + REPORT_S) / 60)
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
    sizes = ", ".join(
        f"{n:,} ({100 * share:.0f} %) {name}"
        for n, share, name in zip(made.counts(), made.shares(), ("for training", "validation", "test"), strict=True)
    )
    of = "windows" if made.look_back or made.is_per_step else "sequences"
    measured = ", shares of scored steps" if made.is_per_step else ""
    yield f"splits: {made.told}: {sizes} {of}{measured}; change with --split"
    primary = task.metrics[0]
    if made.majority > UNBALANCED:
        yield (
            f"metric: {primary.name} ({primary.definition}), because one class makes up {100 * made.majority:.0f} % and "
            "accuracy would say little; checkpoints are chosen by it"
        )
    yield from made.remarks


def _inputs(task: YourData) -> str:
    made = task.prepared
    if made.steps.symbols is not None:
        return f"{one_line(made.steps.channels[0])}, as {len(made.steps.symbols):,} symbols"
    return f"{counted(len(made.steps.channels), 'channel')} ({listed(made.steps.channels, 6)})"


def _name(source: Source, parameters: Mapping[str, Any], options: tuple[Any, ...]) -> str:
    """Letters, digits and hyphens of the file's name, and six digits that tell other data, questions and options apart."""
    plain = unicodedata.normalize("NFKD", source.path.stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "data"
    return f"{slug}-{sha256(repr((sorted(parameters.items()), options)).encode()).hexdigest()[:6]}"
