"""Tuned configurations as data: `rnnbench tune` writes suites/tuned/SUITE.yaml, a suite with ``tuned: true`` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from benchmarks import yaml_files
from benchmarks.parameters import InvalidParameter
from benchmarks.plain_text import plain
from benchmarks.records import write_atomically


@dataclass(frozen=True)
class Choice:
    """A model or a task by name, and what differs from its defaults. settings: model's config, or task's parameters. line: of
    the suite's file, for messages."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = field(default=None, compare=False)

    @property
    def written(self) -> dict[str, Any]:
        """Settings and fit flat, the latter as "fit.FIELD"."""
        return {**self.settings, **{f"fit.{name}": value for name, value in self.fit.items()}}


@dataclass(frozen=True)
class Tuned:
    """One model on one task.

    task_settings, model_settings: all that the suite writes of each; what it writes of the model was not tuned. Fields of the
    fit are called "fit.FIELD", as in a search space. fields: those that were tuned. changed: what won, where it differs from
    the default configuration; empty where the default won. default, tuned: the primary metric on validation, before and after.
    values: the same of every trial in order, the default first, an equal point as often as it was asked for; None where a
    trial failed. git_commit: of the checkout that tuned it. losses: the validation loss of each trial, which decides between
    equal values; empty where it did not. shared: of the validation sequences, the share that the suite's first seed trains or
    selects on; None where nobody looked.
    """

    task: str
    task_settings: Mapping[str, Any]
    model: str
    model_settings: Mapping[str, Any]
    fields: tuple[str, ...]
    changed: Mapping[str, Any]
    default: float | None
    tuned: float | None
    values: tuple[float | None, ...]
    git_commit: str | None
    losses: tuple[float | None, ...] = ()
    shared: float | None = None

    def is_of(self, task: Choice, model: Choice) -> bool:
        written = (task.name, task.written, model.name, model.written)
        return (self.task, self.task_settings, self.model, self.model_settings) == written

    @property
    def labels(self) -> tuple[str, str]:
        """Task with its parameters, and model with its settings, as the suite writes them."""
        parameters = {name: x for name, x in self.task_settings.items() if not name.startswith("fit.")}
        return _label(self.task, parameters), _label(self.model, self.model_settings)

    @property
    def told(self) -> str:
        """What was changed, in words."""
        if self.tuned is None:
            return "nothing: no trial finished"
        changed = ", ".join(f"{name}={value}" for name, value in self.changed.items())
        if self.decisive_losses is not None:
            changed += "; by the loss, {:.3g} instead of {:.3g}".format(*self.decisive_losses)
        return changed or "nothing: the default is best"

    @property
    def decisive_losses(self) -> tuple[float, float] | None:
        """Of the configuration that won and of the default, on validation, where the loss decided between equal values."""
        equal = [loss for value, loss in zip(self.values, self.losses, strict=False) if value == self.tuned]
        known = [loss for loss in equal if loss is not None]
        if not self.changed or self.default != self.tuned or not known or self.losses[0] is None:
            return None
        return min(known), self.losses[0]


@dataclass(frozen=True)
class Tuning:
    """What a suite's tuning found and how. trials: spent on each model and task. seed: of their data, initial weights and batch
    order. machine: processor or GPU."""

    suite: str
    trials: int
    seed: int
    sampler: str
    torch: str
    machine: str
    studies: tuple[Tuned, ...]

    def find(self, task: Choice, model: Choice) -> Tuned | None:
        """What was tuned for exactly this, the budget that the suite writes for it included, or None."""
        return next((study for study in self.studies if study.is_of(task, model)), None)


def path_of(suite_file: Path, name: str) -> Path:
    """Where the tuned configurations of the suite ``name`` are kept, beside the suite's file."""
    return suite_file.parent / "tuned" / f"{name}.yaml"


def read(path: Path) -> Tuning:
    """Raises InvalidParameter, in one sentence, for a file that is not there or not right."""
    name = path.stem
    if not path.is_file():
        raise InvalidParameter(f"tuned: {path} is not there; make it with: rnnbench tune {name} --trials 16")
    try:
        return TypeAdapter(Tuning).validate_python(yaml_files.read(path).content)
    except InvalidParameter as error:
        error.args = (f"{path}: {error}; make it again with: rnnbench tune {name}",)
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(plain(str(part), 40) for part in first["loc"]) or "the file"
        raise InvalidParameter(f"{path}: {where}: {first['msg']}; make it again with: rnnbench tune {name}") from error


def write(path: Path, tuning: Tuning, command: str) -> None:
    """The file with, as its first line, the command that made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(asdict(tuning), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    write_atomically(path, f"# Made by: {command}\n{text}")


def _label(name: str, settings: Mapping[str, Any]) -> str:
    return " ".join([name, ", ".join(f"{key}={value}" for key, value in settings.items())]).strip()
