"""Tuning with an equal budget: every model of a suite gets the same number of trials on each task, by the same sampler.

A study, one model on one task, starts from the model's default configuration and asks Optuna's tree-structured Parzen
estimator (Bergstra et al. 2011, NeurIPS; Akiba et al. 2019, arXiv 1907.10902) for the rest, over the search space that the
model declares. Its trials are ordinary ones that end with validation, and are ordered by the primary metric there, equal ones
by the loss. Optuna keeps nothing: a study is rebuilt from the run folders, a batch at a time, however many ran side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import typer
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from benchmarks import provenance
from benchmarks.execution.lock import FolderInUse
from benchmarks.execution.plan import Plan, plan, refusal
from benchmarks.metrics import cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.records import RERUN, Result, Status, read_curve, read_result, run_folder
from benchmarks.running import INFRASTRUCTURE, Options, Stopped, code_digests, prepare, supervise
from benchmarks.seeding import seed_for
from benchmarks.suite import Grid, Suite
from benchmarks.tasks import registry as tasks
from benchmarks.trial import Trial, check_buildable
from benchmarks.tuned import Choice, Tuned, Tuning, read
from models import registry
from models.contract import Choice as OneOf
from models.contract import LogRange
from models.sequences import SequenceBatch

BATCH = 4
"""Trials of a study that are asked for before the next are told: few enough to learn from, enough to keep cores busy. Only the
first batch is random: the sampler's own ten random trials would be most of a budget of sixteen."""


class Asked(NamedTuple):
    """What is to be tuned. n_trials: of each model on each task. seed: of data, initial weights and batch order, for all."""

    n_trials: int
    seed: int
    models: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    device: str = "auto"


@dataclass
class Study:
    """One model on one task under way. default: its trial as the suite writes it; n_trials: the budget.

    asked: every trial so far, the default first; points: what was drawn for each. values, losses: of those told, the primary
    metric and the loss on validation, None for a failure.
    """

    suite: Suite
    grid: Grid
    task: Choice
    model: Choice
    default: Trial
    n_trials: int
    asked: list[Trial] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.direction = tasks.task(self.default.task, self.default.task_parameters).metrics[0].direction
        known = {**self.default.model_config, **{f"fit.{name}": value for name, value in self.default.fit.items()}}
        space = registry.entry(self.model.name).search_space
        self.start = {name: known[name] for name in space if name not in self.model.written}
        self.space = {name: _distribution(self.title, name, space[name], self.start[name]) for name in self.start}

    @property
    def title(self) -> str:
        return f"{self.model.name} on {self.task.name}"

    def ask(self) -> list[Trial]:
        """The next trials, at most a batch; as many as are left of the budget."""
        search = self._search()
        batch = []
        for _ in range(min(BATCH, self.n_trials - len(self.asked))):
            drawn = search.ask(self.space).params
            point = {name: self._readable(name, value) for name, value in drawn.items()}
            changed = {name: value for name, value in point.items() if value != self.start[name]}
            trial = self.suite.trial(self.grid, self.task, self.model, self.default.device, changed)
            batch.append(replace(trial, seed=self.default.seed, mode="tuning"))
            self.points.append(drawn)
            self.changes.append(changed)
        self.asked += batch
        return batch

    def _search(self) -> optuna.Study:
        """Optuna's study as it is before the next batch. It is told each trial's place, since it makes nothing of a value but
        its place among the others."""
        axes = ("tuning", self.default.task, self.default.model, self.default.seed, len(self.values))
        sampler = optuna.samplers.TPESampler(seed=seed_for(*axes) % 2**32, n_startup_trials=BATCH)
        search = optuna.create_study(direction="minimize", sampler=sampler)
        for point, place in zip(self.points, self.places(), strict=True):
            search.add_trial(create_trial(params=point, distributions=self.space, value=place))
        if not self.points:
            search.enqueue_trial(self.start)
        return search

    def _readable(self, name: str, value: Any) -> Any:
        """A number drawn from a range with three digits, so that people can read it and other machines agree."""
        drawn = isinstance(self.space[name], FloatDistribution) and value != self.start[name]
        return float(f"{value:.3g}") if drawn else value

    def tell(self, results: Iterable[tuple[Result, float | None]]) -> None:
        """The results of the last batch, in order, each with the loss of its checkpoint on validation."""
        for result, loss in results:
            ok = result.status == Status.OK
            self.values.append(_rounded(result.validation[result.primary or ""]) if ok else None)
            self.losses.append(_rounded(loss) if ok and loss is not None else None)

    def places(self) -> list[int]:
        """Of each trial told, 0 for the best: by the primary metric, equal ones by the loss; a failure is behind all others."""
        keys = [self._key(value, loss) for value, loss in zip(self.values, self.losses, strict=True)]
        order = sorted(set(keys))
        return [order.index(key) for key in keys]

    def _key(self, value: float | None, loss: float | None) -> tuple[float, float]:
        """The less, the better."""
        if value is None:
            return math.inf, math.inf
        return -value if self.direction == "higher" else value, math.inf if loss is None else loss

    def outcome(self, shared: float | None = None) -> Tuned:
        """The best on validation; of equal ones the first. The default stays where it has the same metric and a loss that is
        practically the same. shared: as `Tuned` has it."""
        places = self.places()
        best = places.index(0)
        if self.values[0] is not None and self.values[0] == self.values[best]:
            default, least = (math.inf if loss is None else loss for loss in (self.losses[0], self.losses[best]))
            best = 0 if default <= least + cross_entropy.margin else best
        return Tuned(
            task=self.task.name,
            task_settings=self.task.written,
            model=self.model.name,
            model_settings=self.model.written,
            fields=tuple(self.space),
            changed=self.changes[best],
            default=self.values[0],
            tuned=self.values[best],
            values=tuple(self.values),
            losses=tuple(self.losses),
            shared=shared,
            git_commit=provenance.git_commit(),
        )


def _rounded(value: float) -> float:
    """With six digits, so that the last bits of another machine decide nothing."""
    return float(f"{value:.6g}")


def _distribution(study: str, name: str, space: OneOf | LogRange, default: Any) -> BaseDistribution:
    """As the model declares it, and wide enough to hold the default, which is the first trial."""
    if not isinstance(space, LogRange):
        return CategoricalDistribution(space.values if default in space.values else (default, *space.values))
    if not isinstance(default, float | int) or default <= 0:
        raise InvalidParameter(
            f"{study}: {name} is tuned on a logarithmic scale, which cannot hold its default {default!r}; "
            "write a value for this model in the suite, and it is left alone"
        )
    return FloatDistribution(min(space.low, default), max(space.high, default), log=True)


def studies(suite: Suite, asked: Asked) -> list[Study]:
    """One for each model on each task that can do it and has something to tune. suite: loaded without tuned configurations.

    Raises InvalidParameter or UnknownName where that cannot be, in one sentence.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if any(asked.seed in grid.seeds for grid in suite.grids):
        raise InvalidParameter(f"seed: {suite.name} is evaluated with seed {asked.seed}; tune with one of your own")
    found: dict[str, Study] = {}
    for grid, task, model in suite.cells(asked.models, asked.tasks):
        if grid.mode != "quality":
            continue
        key = repr((task, model))
        default = replace(suite.trial(grid, task, model, asked.device), seed=asked.seed, mode="tuning")
        if key in found or refusal(default) is not None:
            continue
        study = Study(suite, grid, task, model, default, asked.n_trials)
        if study.space:
            found[key] = study
    if not found:
        raise InvalidParameter(f"{suite.file}: none of these models has anything to tune on one of these tasks")
    return list(found.values())


def tune(under_way: Sequence[Study], options: Options, kept: Sequence[Tuned] = ()) -> Tuning:
    """Runs what is missing of a suite's studies, a batch of each at a time. Raises Stopped, DataMissing or InvalidParameter.

    kept: what was tuned before, as `kept_from` gives it.
    """
    prepare([study.default for study in under_way])
    warning = check_buildable([study.default for study in under_way])
    if warning is not None:
        typer.echo(warning, err=True)
    while any(len(study.values) < study.n_trials for study in under_way):
        batches = [study.ask() for study in under_way]
        done = len(under_way[0].asked)
        typer.echo(f"Trials up to {done} of {under_way[0].n_trials} of {len(under_way)} studies")
        # With those before: what a cluster draws now is held against what it drew then.
        _run(unique(study.asked for study in under_way), options)
        for study, batch in zip(under_way, batches, strict=True):
            study.tell([_told(_result(trial, options.results), options.results) for trial in batch])
    shared = {repr(study.task): _shared(study) for study in {repr(each.task): each for each in under_way}.values()}
    found = [*kept, *(study.outcome(shared[repr(study.task)]) for study in under_way)]
    in_suite = (next(each for each in found if each.is_of(*cell)) for cell in _cells(under_way[0].suite, found))
    return replace(_made(under_way), studies=tuple(in_suite))


def _made(under_way: Sequence[Study]) -> Tuning:
    """How the studies are made, with none of them."""
    return Tuning(
        suite=under_way[0].suite.name,
        trials=under_way[0].n_trials,
        seed=under_way[0].default.seed,
        sampler=f"TPE of optuna {version('optuna')} after {BATCH - 1} random trials",
        torch=version("torch"),
        machine=_machine(under_way[0].default.device),
        studies=(),
    )


def _cells(suite: Suite, of: Sequence[Tuned]) -> list[tuple[Choice, Choice]]:
    """Those of the suite's tasks and models that were tuned, once each, in its order."""
    cells = ((task, model) for grid, task, model in suite.cells() if grid.mode == "quality")
    return list({repr(cell): cell for cell in cells if any(each.is_of(*cell) for each in of)}.values())


def unique(batches: Iterable[Iterable[Trial]]) -> list[Trial]:
    """A point that is asked for again is a trial that has been run."""
    return list({trial.id: trial for batch in batches for trial in batch}.values())


def _run(trials: list[Trial], options: Options) -> None:
    digests = code_digests(trials)
    found = plan(trials, digests, options.results)
    if not found.to_run:
        return
    try:
        summary = supervise(trials, found, digests, options)
    except FolderInUse as error:
        raise Stopped(str(error), INFRASTRUCTURE) from error
    if summary.stopped_by is not None:
        raise Stopped(f"stopped by {summary.stopped_by.name}; the same command resumes", 128 + summary.stopped_by)


def _result(trial: Trial, results: Path) -> Result:
    """Raises Stopped for a trial that ended for a reason which says nothing of the model."""
    result = read_result(run_folder(results, trial.id))
    if result is None or result.status in RERUN:
        reason = "no result" if result is None else f"{result.status}: {result.reason}"
        raise Stopped(f"{trial.title} ({trial.id}): {reason}; the same command tries again", INFRASTRUCTURE)
    return result


def _told(result: Result, results: Path) -> tuple[Result, float | None]:
    """With the validation loss of the checkpoint that was kept."""
    kept = [row["validation_loss"] for row in read_curve(run_folder(results, result.trial_id)) if row["best"]]
    return result, kept[-1] if kept else None


def _shared(study: Study) -> float:
    """See `Tuned.shared`."""
    task = tasks.task(study.default.task, study.default.task_parameters)
    evaluated = task.splits(study.grid.seeds[0])
    own = _contents(task.splits(study.default.seed).validation)
    theirs = set(_contents(evaluated.train)) | set(_contents(evaluated.validation))
    return sum(content in theirs for content in own) / len(own)


def _contents(split: SequenceBatch) -> list[bytes]:
    """The inputs of each sequence without its padding."""
    return [x[:n].numpy().tobytes() for x, n in zip(split.inputs, split.lengths.tolist(), strict=True)]


def remaining(
    suite: Suite, under_way: Sequence[Study], options: Options
) -> tuple[Plan, Path, list[tuple[Trial, Result]]]:
    """For `show_plan`: what is done and what is left; where; and the suite's own trials that say how long one takes.

    Which points are left is not known before others are told: each study's default stands for them.
    """
    prepare([study.default for study in under_way])
    found = Plan([], [], [], [])
    for study in under_way:
        while len(study.values) < study.n_trials:
            batch = study.ask()
            known = plan(batch, code_digests(batch), options.results)
            found.done.extend(known.done)
            if known.to_run:
                found.missing.extend([study.default] * (study.n_trials - len(study.values) - len(known.done)))
                break
            study.tell(_told(result, options.results) for _, result in known.done)
    evaluated = suite.trials(device=under_way[0].default.device)
    return found, options.results, plan(evaluated, code_digests(evaluated), options.results).done


def kept_from(path: Path, under_way: Sequence[Study]) -> list[Tuned]:
    """What a file holds for other models and tasks of the suite, to be written again beside what is tuned anew. What the suite
    no longer has, or has with another budget, is left out.

    Raises InvalidParameter where the two were not tuned alike, for then the models would not be compared on equal terms.
    """
    if not path.exists():
        return []
    before, now = read(path), _made(under_way)
    cells = _cells(under_way[0].suite, before.studies)
    own = [(study.task, study.model) for study in under_way]
    kept = [each for each in before.studies if any(each.is_of(*cell) for cell in cells if cell not in own)]
    names = ("trials", "seed", "sampler", "torch", "machine")
    others = [name for name in names if getattr(before, name) != getattr(now, name)]
    if kept and others:
        told = ", ".join(f"{name} {getattr(before, name)} and not {getattr(now, name)}" for name in others)
        raise InvalidParameter(
            f"{path} holds what was tuned for {kept[0].model} on {kept[0].task}, which this command leaves out, otherwise: "
            f"{told}; give another file with --output, or tune the whole suite"
        )
    return kept


def _machine(device: str) -> str:
    found = provenance.environment()
    return str(found["gpu"] if device == "cuda" else found["processor"])
