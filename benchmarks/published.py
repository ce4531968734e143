"""Published results as data, and what it takes to say that ours agree.

results/reference/published.csv has a row for each: what was measured and by whom, which trials of which suite are ours, and
the rule that decides. The rule and its tolerance stand there before anything is run. A row also has the first verdict, and what
was changed after it had been seen.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import yaml
from annotated_types import Gt, MinLen
from pydantic import TypeAdapter, ValidationError

from benchmarks.metrics import Metric
from benchmarks.parameters import InvalidParameter
from benchmarks.records import Result, Status
from benchmarks.statistics import Interval, t_interval
from benchmarks.suite import load
from benchmarks.tasks.registry import task as build_task
from benchmarks.trial import Device, Trial

FILE = Path(__file__).resolve().parents[1] / "results" / "reference" / "published.csv"

Text = Annotated[str, MinLen(1)]
Rule = Literal["mean within", "mean reaches", "best reaches", "fails within"]
Verdict = Literal["reproduced", "fails as published", "not reproduced", "not run"]


@dataclass(frozen=True)
class Claim:
    """A published number and which of our trials are to be held against it.

    suite, task, parameters, model: our trials; parameters are those of the task that tell them apart. metric: its name; value
    and spread, the standard deviation over runs where one was published, are in our unit. rule: ``mean within``, our mean is
    at most tolerance away from value; ``mean reaches`` and ``best reaches``, our mean, or our best run, is at most tolerance
    worse than value; ``fails within``, as ``mean within`` for a published failure, which a constant answer matches too. device:
    the least that the trials need. protocol: theirs. differences: what is otherwise in ours. status: ``verified``, read in
    the paper or its authors' repository, or ``second-hand``, read where another quotes it. first_verdict, first: of the first
    run, and the value it was about; "" where no run was kept. changed: what is no longer as it was in that run, although a
    verdict had been seen; "" for nothing.
    """

    suite: Text
    task: Text
    parameters: Mapping[str, Any]
    model: Text
    metric: Text
    value: float
    spread: float | None
    rule: Rule
    tolerance: Annotated[float, Gt(0)]
    device: Device
    protocol: Text
    differences: Text
    source: Text
    status: Literal["verified", "second-hand"]
    first_verdict: Literal["", "reproduced", "fails as published", "not reproduced"] = ""
    first: str = ""
    changed: str = ""

    @property
    def variant(self) -> str:
        """The parameters as tables show them: "delay=1000"."""
        return ", ".join(f"{name}={value}" for name, value in self.parameters.items())

    @property
    def title(self) -> str:
        """The task with its variant."""
        return f"{self.task} {self.variant}".strip()


def claims(file: Path = FILE) -> list[Claim]:
    """The rows of the file, checked. Raises InvalidParameter for a row that is not as `Claim` says, with its line."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    found = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        try:
            written = {str(name): value for name, value in row.items()}
            parameters = yaml.safe_load(written.pop("parameters", "")) or {}
            spread = written.pop("spread", "") or None
            found.append(TypeAdapter(Claim).validate_python({**written, "parameters": parameters, "spread": spread}))
        except (ValidationError, yaml.YAMLError) as error:
            problem = (
                "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors())
                if isinstance(error, ValidationError)
                else f"parameters: {error}"
            )
            raise InvalidParameter(f"{file.name}: row {number}: {' '.join(problem.split())}") from error
    return found


def trials(claim: Claim, device: Device) -> list[Trial]:
    """Our trials, a seed each. Raises InvalidParameter where the suite has none, or several that could be meant."""
    every = load(claim.suite).trials([claim.model], [claim.task], device=device)
    ours = [trial for trial in every if claim.parameters.items() <= trial.task_parameters.items()]
    kinds = {json.dumps({**vars(trial), "seed": 0, "id": ""}, sort_keys=True) for trial in ours}
    if len(kinds) != 1:
        raise InvalidParameter(
            f"{FILE.name}: {claim.model} on {claim.title} has {len(kinds)} configurations in the suite {claim.suite}, not one; "
            "name the parameters that tell them apart"
        )
    return ours


def metric(claim: Claim) -> Metric:
    """The task's metric of that name. Raises InvalidParameter where it has none."""
    metrics = {metric.name: metric for metric in build_task(claim.task, claim.parameters).metrics}
    if claim.metric not in metrics:
        raise InvalidParameter(f"{FILE.name}: {claim.task} has no metric {claim.metric}; it has {', '.join(metrics)}")
    return metrics[claim.metric]


class Finding(NamedTuple):
    """What came of a claim. ours, best: over the n seeds that finished, None where none did. reason: of the verdict, where it
    does not follow from the numbers. made: how ours came about. floor: the metric of a constant answer, mean over the seeds."""

    claim: Claim
    ours: Interval | None
    best: float | None
    n: int
    verdict: Verdict
    reason: str = ""
    made: str = ""
    floor: float | None = None


def judge(claim: Claim, direction: Literal["higher", "lower"], results: Sequence[Result | None]) -> Finding:
    """By the claim's rule, once every seed has ended; None stands for a trial without a result. A failed trial is no
    reproduction, whatever the others say; nor is what a constant answer would pass."""
    finished = [result for result in results if result is not None]
    passed = [result for result in finished if result.status is Status.OK]
    values = [result.test[claim.metric] for result in passed]
    floors = [result.floor for result in passed if result.floor is not None and result.primary == claim.metric]
    ours = t_interval(values) if values else None
    best = None if not values else max(values) if direction == "higher" else min(values)
    floor = statistics.fmean(floors) if floors else None
    failed = [str(result.status) for result in finished if result.status is not Status.OK]
    reason = ""
    verdict: Verdict = "not reproduced"
    if failed:
        reason = f"{len(failed)} of {len(results)} trials ended otherwise: {', '.join(dict.fromkeys(failed))}"
    elif len(values) < len(results) or ours is None or best is None:
        verdict, reason = "not run", f"{len(values)} of {len(results)} seeds"
    elif holds(claim, direction, ours.mean, best):
        verdict = "fails as published" if claim.rule == "fails within" else "reproduced"
        if verdict == "reproduced" and floor is not None and holds(claim, direction, floor, floor):
            verdict, reason = "not reproduced", "a constant answer passes this rule too"
    return Finding(claim, ours, best, len(values), verdict, reason, floor=floor)


def holds(claim: Claim, direction: Literal["higher", "lower"], mean: float, best: float) -> bool:
    """Whether a mean and a best run are what the claim's rule asks for."""
    value = best if claim.rule == "best reaches" else mean
    worse = claim.value - value if direction == "higher" else value - claim.value
    distance = abs(worse) if claim.rule in ("mean within", "fails within") else worse
    return distance <= claim.tolerance or math.isclose(distance, claim.tolerance)
