"""What a suite says over all its tasks together: who takes part, on which tasks, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from benchmarks.comparison import (
    Ranking,
    Verdict,
    bayesian_signed_rank,
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    ranking,
)
from benchmarks.records import FAILED, Status
from benchmarks.seeding import numpy_generator
from benchmarks.statistics import Interval
from benchmarks.tables import MISSING, with_defaults

N_STUDIES = 500
"""Simulated studies behind a stated coverage: a standard error of about one percent."""
HONEST = 0.92
"""A nominal 95 % interval that covers less often than this in simulation is not called one."""


@dataclass(frozen=True)
class Field:
    """The models that did every task of a suite that has scores, and their scores.

    scores: model → (tasks, seeds), 0 the floor, 1 the ceiling or reference. merits: model → (tasks,) mean metric in units of
    the metric's margin of practical equality, higher the better. imputed: model → failed trials, which count as the worst
    score that any model has on their task. left_out: model → why it is not compared over tasks.
    """

    tasks: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    merits: Mapping[str, np.ndarray]
    imputed: Mapping[str, int]
    left_out: Mapping[str, str]

    @property
    def n_seeds(self) -> int:
        return next(iter(self.scores.values())).shape[1] if self.scores else 0

    @property
    def is_comparable(self) -> bool:
        return len(self.scores) > 1 and len(self.tasks) > 1

    @cached_property
    def ranking(self) -> Ranking:
        return ranking({model: scores.mean(1) for model, scores in self.scores.items()})

    @cached_property
    def aggregates(self) -> dict[str, tuple[Interval, Interval]]:
        """Model → interquartile mean with the interval over seeds, and over seeds and tasks; in order of rank."""
        found = {}
        for model in self.ranking.ranks:
            generator = numpy_generator("aggregate", model)
            scores = self.scores[model]
            over_seeds = bootstrap_interval(scores, interquartile_mean, generator)
            found[model] = over_seeds, bootstrap_interval(scores, interquartile_mean, generator, resample_tasks=True)
        return found

    def improvement(self, a: str, b: str) -> float:
        """The probability that a run of a scores more than a run of b, over the tasks."""
        return probability_of_improvement(list(self.scores[a]), list(self.scores[b]))

    def verdict(self, a: str, b: str) -> Verdict:
        """The probability that a is better than b on another such task, equal within its margin, or worse."""
        return bayesian_signed_rank(self.merits[a] - self.merits[b], numpy_generator("verdict", a, b))

    def coverage(self, n_seeds: int) -> float:
        """How often the interval over seeds covers the truth in simulated studies of so many seeds.

        A study draws normal scores with this suite's own means and spreads (pooled over its models); the truth is the
        interquartile mean of very many seeds.
        """
        model = next(iter(self.ranking.ranks))
        means = self.scores[model].mean(1)  # (tasks,)
        spread = np.sqrt(np.mean([scores.var(1, ddof=1) for scores in self.scores.values()], axis=0))  # (tasks,)
        generator = numpy_generator("coverage", n_seeds)

        def draw(n: int) -> np.ndarray:
            return means[:, None] + spread[:, None] * generator.standard_normal((len(means), n))

        truth = float(interquartile_mean(draw(20_000)[None])[0])
        intervals = (
            bootstrap_interval(draw(n_seeds), interquartile_mean, generator, n_resamples=400) for _ in range(N_STUDIES)
        )
        return float(np.mean([low <= truth <= high for _, low, high in intervals]))


def field(frame: pd.DataFrame) -> Field:
    """The field of a suite, from the table of its trials; floors take no part, nor do default configurations beside tuned ones:
    a rival twice over would cost all others power."""
    scored = frame[frame["score"].notna() & (frame["status"] == Status.OK)]
    tasks = tuple(task for task in dict.fromkeys(frame["task"]) if (scored["task"] == task).any())
    worst, worst_merits = scored.groupby("task")["score"].min(), _worst_merits(frame)
    rows = frame[frame["task"].isin(tasks) & (frame["family"] != "floor")]
    scores, merits, imputed, left_out = {}, {}, {}, {}
    for model, own in rows.groupby("model", sort=False):
        reason = _absence(own, tasks)
        if reason is not None:
            left_out[str(model)] = reason
            continue
        failed = own["status"] != Status.OK
        own = own.assign(score=own["score"].where(~failed, own["task"].map(worst)).astype(float))
        table = own.pivot_table(index="task", columns="seed", values="score").loc[list(tasks)]
        if table.isna().any().any():
            left_out[str(model)] = "has other seeds on some tasks"
            continue
        scores[str(model)] = table.to_numpy()
        by_task = dict(list(own[["task", "status", "value", "direction", "margin"]].groupby("task", sort=False)))
        merits[str(model)] = np.array([_merit(by_task[task], worst_merits[task]) for task in tasks])
        if failed.any():
            imputed[str(model)] = int(failed.sum())
    for default in filter(None, map(with_defaults, list(scores))):
        if scores.pop(default, None) is not None:
            left_out[default] = "its tuned configuration is compared in its place"
            del merits[default]
            imputed.pop(default, None)
    return Field(tasks, scores, merits, imputed, left_out)


def without_failures(frame: pd.DataFrame) -> Field:
    """The field on those tasks alone on which none that it compares has failed: nothing in it is imputed."""
    lost = frame.loc[frame["status"].isin(FAILED) & frame["model"].isin(list(field(frame).imputed)), "task"]
    return field(frame[~frame["task"].isin(lost)])


def _absence(own: pd.DataFrame, tasks: tuple[str, ...]) -> str | None:
    """Why a model cannot be compared over all these tasks, or None."""
    for status, told in ((Status.SKIPPED, "cannot do"), (MISSING, "has not finished")):
        where = list(dict.fromkeys(own.loc[own["status"] == status, "task"]))
        if where:
            return f"{told} {', '.join(where)}"
    stale = list(dict.fromkeys(own.loc[own["stale"].astype(bool), "task"]))
    if stale:
        return f"is stale on {', '.join(stale)}"
    absent = [task for task in tasks if task not in set(own["task"])]
    return f"was not run on {', '.join(absent)}" if absent else None


def _merits(rows: pd.DataFrame) -> pd.Series:
    """The metric of each trial, its sign turned where lower is better."""
    return rows["value"].astype(float) * rows["direction"].map({"lower": -1.0}).fillna(1.0)


def _worst_merits(frame: pd.DataFrame) -> pd.Series:
    """Of any model, by task."""
    ok = frame.loc[frame["status"] == Status.OK, ["task", "value", "direction"]]
    return _merits(ok).groupby(ok["task"]).min()


def _merit(own: pd.DataFrame, worst: float) -> float:
    """The mean metric on one task in units of its margin, higher the better; a failure has the worst value of any model."""
    return float(_merits(own).where(own["status"] == Status.OK, worst).mean() / own["margin"].iloc[0])


def reading(field: Field) -> Iterator[str]:
    """Sentences: who is compared, and how far the suite can tell models apart."""
    if not field.is_comparable:
        yield "Fewer than two models did at least two scored tasks: nothing is said over tasks."
        return
    told = field.ranking
    best = next(iter(told.ranks))
    yield (
        f"{len(told.ranks)} models did all of the {told.n_tasks} tasks that have scores; {best} has the best mean rank "
        f"({told.ranks[best]:.1f}). Friedman test of no difference at all: p = {told.friedman:.2g}."
    )
    if told.underpowered:
        yield f"Pairs: {told.underpowered}; so a pair that is not told apart here may well differ."
    for model, n in field.imputed.items():
        yield f"{model}: {n} failed trial{'s' if n > 1 else ''} counted as the worst score of the task."
