"""What a suite says over all its tasks together: which models are compared, on which tasks, and how they differ.

There is one headline, from one rule: the expected loss to the best. On each task a model loses the difference between its
mean score and the best mean score of any model there; the mean over tasks is what one loses by using that model everywhere.
The headline names the model with the smallest loss, and every other model whose loss is not significantly larger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as entry
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
from benchmarks.tables import MISSING, RISING, finished, usable, with_defaults
from benchmarks.verdicts import Estimate, Scores, average, difference

N_STUDIES = 500
"""Simulated studies behind a stated coverage: a standard error of about one percent."""
HONEST = 0.92
"""A nominal 95 % interval that covers less often than this in simulation is not called one."""


@dataclass(frozen=True)
class Field:
    """The models that did every task of a suite that has scores, and their scores.

    scores: model → (tasks, seeds), 0 the floor, 1 the ceiling or reference. merits: model → (tasks,) mean metric in units of
    the metric's margin of practical equality, higher the better. imputed: model → failed trials, which count as the worst
    score that any model has on their task. left_out: model → why it is not compared over tasks. runs: task → model →
    its scores, for every model that finished the task, including those left out. rising: model → on how many tasks a fit was
    still improving.
    """

    tasks: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    merits: Mapping[str, np.ndarray]
    imputed: Mapping[str, int]
    left_out: Mapping[str, str]
    runs: Mapping[str, Mapping[str, Scores]] = entry(default_factory=dict)
    rising: Mapping[str, int] = entry(default_factory=dict)

    @property
    def n_seeds(self) -> int:
        return next(iter(self.scores.values())).shape[1] if self.scores else 0

    @property
    def is_comparable(self) -> bool:
        return len(self.scores) > 1 and len(self.tasks) > 1

    @cached_property
    def losses(self) -> dict[str, Estimate]:
        """Model → its expected loss to the best of each task, in score; the smallest first."""
        best = {task: max(models, key=lambda model: models[model].mean) for task, models in self.runs.items()}
        found = {model: average([self._loss(model, best[task], task) for task in self.tasks]) for model in self.scores}
        return dict(sorted(found.items(), key=lambda item: item[1].mean))

    def _loss(self, model: str, other: str, task: str) -> Estimate:
        """How much less ``model`` scores on a task than ``other``; exactly zero for the same one."""
        to_other = difference(self.runs[task][other], self.runs[task][model])
        return to_other._replace(seeds=0.0, sequences=0.0) if model == other else to_other

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """The model with the smallest expected loss, and those whose loss is not significantly larger."""
        first, *others = self.losses
        apart = {other: average([self._loss(other, first, task) for task in self.tasks]) for other in others}
        return first, *(other for other in others if not apart[other].is_significant)

    @cached_property
    def leader_without(self) -> dict[str, str]:
        """Task → the model with the smallest expected loss over the other tasks."""
        means = {model: scores.mean(1) for model, scores in self.scores.items()}  # (tasks,)
        return {
            # Of equal ones the first in the headline.
            task: max(self.losses, key=lambda model, row=row: round(float(np.delete(means[model], row).mean()), 9))  # type: ignore[misc]
            for row, task in enumerate(self.tasks)
        }

    def name(self, model: str) -> str:
        """With the flag of fits that were still improving."""
        return f"{model} {RISING}" if self.rising.get(model) else model

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
    worst, worst_merits = usable(scored).groupby("task")["score"].min(), _worst_merits(usable(frame))
    rows = frame[frame["task"].isin(tasks) & (frame["family"] != "floor")]
    scores, merits, imputed, left_out = {}, {}, {}, {}
    seeds_of: dict[str, tuple[int, ...]] = {}
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
        seeds_of[str(model)] = tuple(table.columns)
        by_task = dict(list(own[["task", "status", "value", "direction", "margin"]].groupby("task", sort=False)))
        merits[str(model)] = np.array([_merit(by_task[task], worst_merits[task]) for task in tasks])
        if failed.any():
            imputed[str(model)] = int(failed.sum())
    usual = Counter(seeds_of.values()).most_common(1)[0][0] if seeds_of else ()
    for model in [model for model in scores if seeds_of[model] != usual]:
        left_out[model] = "has other seeds than most models"
        del scores[model], merits[model]
        imputed.pop(model, None)
    runs = {task: _runs(own, usual) for task, own in frame[frame["task"].isin(tasks)].groupby("task", sort=False)}
    for model in imputed:  # in a loss too a failure is the worst score
        for row, task in enumerate(tasks):
            runs[task].setdefault(model, Scores(dict(zip(usual, scores[model][row], strict=True))))
    for default in filter(None, map(with_defaults, list(scores))):
        if scores.pop(default, None) is not None:
            left_out[default] = "its tuned configuration is compared in its place"
            del merits[default]
            imputed.pop(default, None)
    risen = rows[rows["improving"].eq(True)]  # None, where nobody knows, is not True
    rising = {str(model): int(own.nunique()) for model, own in risen.groupby("model")["task"]}
    return Field(tasks, scores, merits, imputed, left_out, runs, rising)


def _runs(own: pd.DataFrame, seeds: tuple[int, ...]) -> dict[str, Scores]:
    """The models that finished a task with these seeds, floors apart, with their scores; terms are those of the score, not of
    the metric."""
    found = {}
    for (_, model), scores in finished(own[own["family"] != "floor"]).items():
        cell = own[own["model"] == model]
        if tuple(sorted(scores.values)) == seeds and len(cell) == len(seeds) and cell["score"].notna().all():
            scale = 1 / abs(_goal(cell) - float(cell["floor"].astype(float).mean()))
            values = dict(zip(cell["seed"], cell["score"].astype(float), strict=True))
            found[model] = Scores(values, {seed: terms.scaled(scale) for seed, terms in scores.terms.items()})
    return found


def _goal(cell: pd.DataFrame) -> float:
    """The value of the metric at which the score is 1."""
    return float(cell["ceiling"].astype(float).fillna(cell["reference"].astype(float)).mean())


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


LISTED = 6
"""Models that a sentence names; the rest are counted."""


def headline(field: Field) -> str:
    """The one sentence over all tasks, and what it rests on."""
    if not field.is_comparable:
        return "Fewer than two models did at least two scored tasks: nothing is said over tasks."
    first, *others = field.losses
    unit = f"of the way from floor to ceiling or reference, mean over these {len(field.tasks)} tasks"
    if field.n_seeds < 2:
        return (
            f"Undecided over all tasks: one seed says nothing of other seeds. {field.name(first)} has the smallest loss to the "
            f"best model of each task, {field.losses[first].mean:.2f} {unit}."
        )
    unsure = [model for model in others if model in field.candidates]
    larger = [model for model in others if model not in field.candidates]
    lines = [
        f"{'Undecided over all tasks' if unsure else 'Over all tasks'}: {_losses(field, [first])} has the smallest expected "
        f"loss to the best model of each task, in parts {unit}."
    ]
    if larger:
        lines.append(f"Significantly larger: {_losses(field, larger)}.")
    if unsure:
        lines.append(f"Not decided, because seeds and test sequences leave it open: {_losses(field, unsure)}.")
    lines += _single_tasks(field)
    lines.append("The best model of a task is that of these runs.")
    if any(map(field.rising.get, field.losses)):
        lines.append(f"{RISING}: some of its fits were still improving.")
    return " ".join(lines)


def _losses(field: Field, models: list[str]) -> str:
    """ "gru (0.12 ± 0.03), …", ± half of the 95 % interval over seeds and test sequences; 0.00 alone if best on every task."""
    losses = {model: field.losses[model] for model in models[:LISTED]}
    shown = [
        f"{field.name(model)} ({loss.mean:.2f}{f' ± {loss.half:.2f}' if loss.half else ''})"
        for model, loss in losses.items()
    ]
    more = f" and {len(models) - LISTED} more" if len(models) > LISTED else ""
    return ", ".join(shown) + more


def _single_tasks(field: Field) -> Iterator[str]:
    """Whether one task alone decides which model has the smallest loss."""
    first = next(iter(field.losses))
    for task, model in field.leader_without.items():
        if model != first:
            yield f"Without {task}, {model} would have the smallest loss."


def reading(field: Field) -> Iterator[str]:
    """Sentences: the headline, what the other views say beside it, and how far the suite can tell models apart."""
    yield headline(field)
    if not field.is_comparable:
        return
    result = field.ranking
    by_rank = next(iter(result.ranks))
    by_middle = max(field.aggregates, key=lambda model: field.aggregates[model][0].mean)
    yield (
        f"Mean rank puts {field.name(by_rank)} first ({result.ranks[by_rank]:.1f} of {len(result.ranks)}), the interquartile "
        f"mean {field.name(by_middle)}: {remark(field, by_rank, by_middle)} Friedman test of no difference in rank: "
        f"p = {result.friedman:.2g}."
    )
    if result.underpowered:
        yield f"Pairs: {result.underpowered}; so a pair that the ranks do not separate may well differ."
    for model, n in field.imputed.items():
        yield f"{model}: {n} failed trial{'s' if n > 1 else ''} counted as the worst score of the task."


def remark(field: Field, by_rank: str, by_middle: str) -> str:
    """Whether other views put another model first than the headline, and if so, why."""
    first = next(iter(field.losses))
    reasons = []
    if by_rank != first:
        reasons.append("ranks ignore by how much a model loses")
    if by_middle != first:
        reasons.append("the interquartile mean leaves out the best and the worst quarter of runs")
    if not reasons:
        return "as the headline does."
    why = " and ".join(reasons)
    return f"where they differ from the headline, it is because {why}; the headline counts every loss in full."
