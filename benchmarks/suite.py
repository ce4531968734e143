"""A suite: which models on which tasks, with which seeds and budgets, as data in a YAML file.

The header comment of a suite's file says the command, the time it takes and the result to expect (the habit of
google-research/big_vision). Everything is checked before anything runs; messages begin with the file's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import tuned, yaml_files
from benchmarks.parameters import InvalidParameter, shown
from benchmarks.plain_text import plain
from benchmarks.trial import Mode, Overrides, Trial, sized_to_state, specify
from benchmarks.tuned import Choice, Tuning
from models.names import UnknownName

FOLDER = Path(__file__).parent / "suites"

RESERVED = frozenset({"runs", "by-hand", "quarantine", "mlartifacts", "mlruns"})
"""Names of folders in results/ that are no suite's."""
LONGEST_NAME = 64
LARGEST_BUDGETS = {"parameter_budget": 10**9, "state_budget": 2**40}
"""What is more is a mistake: no machine of ours holds such a model."""
MOST_SEEDS = 10_000
MOST_TRIALS = 1_000_000
"""Of a suite: to list as many takes half a minute."""
GRID_MODES: tuple[Mode, ...] = ("quality", "timing")
"""What a grid may be for."""


@dataclass(frozen=True)
class Grid:
    """Every model on every task with every seed. tuned: with the tuned configurations. mode: what its trials are for; timing:
    how they measure, where that is cost."""

    models: tuple[Choice, ...]
    tasks: tuple[Choice, ...]
    seeds: tuple[int, ...]
    tuned: bool = False
    mode: Mode = "quality"
    timing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A checked suite. parameter_budget: of the backbones; or else state_budget: bytes that every model carries per sequence
    after the task's longest one. expected: what its header says to expect. file: where it was read, for messages. tuned_file:
    where its tuned configurations belong; tuned: what they are, None where no grid asks for them."""

    name: str
    description: str
    expected: str
    parameter_budget: int | None
    state_budget: int | None
    fit: Mapping[str, Any]
    grids: tuple[Grid, ...]
    file: str
    tuned_file: Path
    tuned: Tuning | None = None

    @staticmethod
    def names() -> list[str]:
        """The suites that come with the project."""
        return sorted(path.stem for path in FOLDER.glob("*.yaml"))

    @property
    def path(self) -> Path:
        """The suite's file."""
        return self.tuned_file.parent.parent / self.file

    def trials(
        self,
        models: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        seeds: int | None = None,
        device: str = "auto",
    ) -> list[Trial]:
        """The trials, each once: those of quality first, task by task, each model's default beside its tuned configuration;
        tasks and models in the order in which the suite names them. models, tasks: only these; seeds: this many instead of
        the suite's own.

        Raises UnknownName or InvalidParameter for what the registries, or the suite, do not know.
        """
        cells = self.cells(models, tasks)
        if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
            raise InvalidParameter(f"seeds: expected a count from 1 to {MOST_SEEDS:,}, got {seeds}")
        n_trials = sum(len(grid.seeds) if seeds is None else seeds for grid, _, _ in cells)
        if n_trials > MOST_TRIALS:
            raise InvalidParameter(f"{self.file}: it asks for {n_trials:,} trials, more than {MOST_TRIALS:,}")
        found: dict[str, Trial] = {}
        with _located(self.file):
            for grid, task, model in cells:
                # Its seed is 0; the others differ in the seed alone, and checking the rest takes milliseconds.
                with _located(_lines(task, model)):
                    first = self.trial(grid, task, model, device)
                if grid.tuned:
                    first = self._tuned_trial(grid, task, model, device) or first
                for seed in grid.seeds if seeds is None else range(seeds):
                    trial = replace(first, seed=seed)
                    found.setdefault(trial.id, trial)
        places: dict[str, int] = {}
        for trial in found.values():
            for name in (_task_of(trial), trial.model):
                places.setdefault(name, len(places))

        def place(trial: Trial) -> tuple[bool, int, int, bool]:
            return trial.mode == "timing", places[_task_of(trial)], places[trial.model], bool(trial.tuned)

        return sorted(found.values(), key=place)

    def cells(
        self, models: Sequence[str] | None = None, tasks: Sequence[str] | None = None
    ) -> list[tuple[Grid, Choice, Choice]]:
        """Each task with each model, grid by grid; models, tasks: only these. Raises UnknownName for others."""
        self._refuse_unknown("model", models, [choice.name for grid in self.grids for choice in grid.models])
        self._refuse_unknown("task", tasks, [choice.name for grid in self.grids for choice in grid.tasks])
        return [
            (grid, task, model)
            for grid in self.grids
            for task in grid.tasks
            for model in grid.models
            if model.name in (models or [model.name]) and task.name in (tasks or [task.name])
        ]

    def trial(
        self, grid: Grid, task: Choice, model: Choice, device: str, changed: Mapping[str, Any] | None = None
    ) -> Trial:
        """The trial with seed 0. changed: what tuning sets, named as in a search space; it goes before what the suite writes
        for all models, and behind what it writes for this one."""
        fit = {name.removeprefix("fit."): x for name, x in (changed or {}).items() if name.startswith("fit.")}
        config = {name: x for name, x in (changed or {}).items() if not name.startswith("fit.")}
        overrides = Overrides(
            task_parameters=task.settings,
            model_config={**config, **model.settings},
            fit={**self.fit, **task.fit, **fit, **model.fit},
            timing=grid.timing,
        )
        trial = specify(task.name, model.name, 0, self.parameter_budget, device, overrides, grid.mode)
        return trial if self.state_budget is None else sized_to_state(trial, self.state_budget)

    def _tuned_trial(self, grid: Grid, task: Choice, model: Choice, device: str) -> Trial | None:
        """None where the model was not tuned for the task."""
        assert self.tuned is not None
        study = self.tuned.find(task, model)
        if study is None:
            return None
        with _located(str(self.tuned_file)):
            trial = self.trial(grid, task, model, device, study.changed)
        return replace(trial, tuned=dict.fromkeys(study.fields, self.tuned.trials))

    def _refuse_unknown(self, kind: str, wanted: Sequence[str] | None, known: list[str]) -> None:
        if wanted is not None and not wanted:
            raise InvalidParameter(f"{kind}s: name at least one, or leave the option out")
        for name in wanted or ():
            if name not in known:
                raise UnknownName(f"{kind} of suite {self.name}", name, set(known))


def is_name(name: str) -> bool:
    """Whether a suite may be called so: its name is that of a folder in the results."""
    return re.fullmatch(rf"[a-z0-9][a-z0-9_-]{{,{LONGEST_NAME - 1}}}", name) is not None and name not in RESERVED


def load(name_or_path: str, tuned: bool = True) -> Suite:
    """A suite by name, or from a file by its path. tuned: False leaves tuned configurations out, wherever it asks for them.

    Raises UnknownName, with the nearest known one, for an unknown suite, key, model or task, and InvalidParameter for
    a value of the wrong type; the trials themselves are checked too.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in Suite.names():
            raise UnknownName("suite", name_or_path, Suite.names())
        path = FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        raise InvalidParameter(f"{path}: no such suite file")
    with _located(path.name):
        suite = _parse(path, tuned)
        if suite.name in Suite.names() and path.resolve() != FOLDER / f"{suite.name}.yaml":
            raise InvalidParameter(f"name: {suite.name!r} is a suite of the project; give yours another name")
    suite.trials(seeds=1, device="cpu")
    return suite


def _task_of(trial: Trial) -> str:
    return json.dumps([trial.task, trial.task_parameters], sort_keys=True)


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Begins the message of what is refused inside with a file's name, or a line."""
    try:
        yield
    except (UnknownName, InvalidParameter) as error:
        error.args = (f"{place}: {error}",)
        raise


def _lines(task: Choice, model: Choice) -> str:
    """Where the suite names them."""
    lines = sorted({choice.line for choice in (task, model) if choice.line is not None})
    if not lines:
        return f"{model.name} on {task.name}"
    return f"line{'s' if len(lines) > 1 else ''} {' and '.join(map(str, lines))}"


@dataclass(frozen=True)
class _Place:
    """A part of the file. path: such as "grids[0].tasks"; "" for all of it."""

    path: str
    lines: Mapping[str, int]

    def at(self, key: str | int) -> _Place:
        inner = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else key
        return _Place(self.path + inner, self.lines)

    @property
    def line(self) -> int | None:
        return self.lines.get(self.path)

    def refused(self, problem: str) -> InvalidParameter:
        return InvalidParameter(f"{self._begun}{self.path or 'suite'}: {problem}")

    def unknown_key(self, key: str, known: Sequence[str]) -> UnknownName:
        error = UnknownName(f"key of {self.path or 'suite'}", key, known)
        error.args = (f"{self.at(key)._begun}{error}",)
        return error

    @property
    def _begun(self) -> str:
        return f"line {self.line}: " if self.line else ""


def _parse(path: Path, with_tuned: bool) -> Suite:
    text, written, lines = yaml_files.read(path)
    whole = _Place("", lines)
    content = _mapping(whole, written)
    known = ("name", "description", "parameter_budget", "state_budget", "seeds", "fit", "tuned", "grids")
    _check_keys(whole, content, known, required=("name", "description", "seeds", "grids"))
    name = _text(whole.at("name"), content["name"])
    if not is_name(name):
        raise whole.at("name").refused(
            f"{shown(name)} cannot be a suite's name; use up to {LONGEST_NAME} small letters, digits, - and _; not "
            f"{sorted(RESERVED)}"
        )
    budgets = {key: _budget(whole.at(key), content.get(key), most) for key, most in LARGEST_BUDGETS.items()}
    if None not in budgets.values():
        raise whole.at("state_budget").refused(
            "a width meets one budget, and parameter_budget is written too; leave one of them out"
        )
    seeds = _seeds(whole.at("seeds"), content["seeds"])
    tuned_file = tuned.path_of(path, name)
    asked = _flag(whole.at("tuned"), content.get("tuned", False))
    place = whole.at("grids")
    listed = [_grid(place.at(n), grid, seeds, asked) for n, grid in enumerate(_list(place, content["grids"]))]
    grids = tuple(listed if with_tuned else (replace(grid, tuned=False) for grid in listed))
    return Suite(
        name=name,
        description=_text(whole.at("description"), content["description"]),
        expected=_expected(text),
        parameter_budget=budgets["parameter_budget"],
        state_budget=budgets["state_budget"],
        fit=_mapping(whole.at("fit"), content.get("fit", {})),
        grids=grids,
        file=path.name,
        tuned_file=tuned_file,
        tuned=tuned.read(tuned_file) if any(grid.tuned for grid in grids) else None,
    )


def _expected(text: str) -> str:
    """The header comment's last entry. Raises InvalidParameter where the header lacks one of the three."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    header = " ".join(lines)
    match = re.fullmatch(r".*Command: (.+) Time: (.+) Expected: (.+)", header)
    if match is None:
        raise InvalidParameter('the file must begin with a comment that says "Command: …", "Time: …" and "Expected: …"')
    return match[3].strip()


def _grid(place: _Place, written: object, seeds: tuple[int, ...], tuned: bool) -> Grid:
    content = _mapping(place, written)
    known = ("models", "tasks", "seeds", "tuned", "mode", "timing")
    _check_keys(place, content, known, required=("models", "tasks"))
    mode = content.get("mode", "quality")
    if mode not in GRID_MODES:
        raise UnknownName(f"mode of {place.path}", shown(mode), GRID_MODES)
    models, tasks = place.at("models"), place.at("tasks")
    return Grid(
        models=tuple(_choice(models.at(n), x, "config") for n, x in enumerate(_list(models, content["models"]))),
        tasks=tuple(_choice(tasks.at(n), x, "parameters") for n, x in enumerate(_list(tasks, content["tasks"]))),
        seeds=_seeds(place.at("seeds"), content["seeds"]) if "seeds" in content else seeds,
        tuned=_flag(place.at("tuned"), content.get("tuned", tuned)),
        mode=mode,
        timing=_mapping(place.at("timing"), content.get("timing", {})),
    )


def _choice(place: _Place, written: object, settings: str) -> Choice:
    """A bare name, or a mapping with ``name``, ``fit`` and the key that ``settings`` names."""
    if isinstance(written, str):
        return Choice(_text(place, written), line=place.line)
    content = _mapping(place, written, or_else="a name or a mapping")
    _check_keys(place, content, ("name", settings, "fit"), required=("name",))
    return Choice(
        name=_text(place.at("name"), content["name"]),
        settings=_mapping(place.at(settings), content.get(settings, {})),
        fit=_mapping(place.at("fit"), content.get("fit", {})),
        line=place.line,
    )


def _seeds(place: _Place, written: object) -> tuple[int, ...]:
    """A count, 3 for 0, 1, 2, or the seeds themselves."""
    if type(written) is int and 1 <= written <= MOST_SEEDS:
        return tuple(range(written))
    if (
        isinstance(written, list)
        and 1 <= len(written) <= MOST_SEEDS
        and all(type(seed) is int and seed >= 0 for seed in written)
        and len(set(written)) == len(written)
    ):
        return tuple(written)
    raise place.refused(
        f"expected a count from 1 to {MOST_SEEDS:,} or a list of as many different seeds, got {shown(written)}"
    )


def _mapping(place: _Place, written: object, or_else: str = "a mapping") -> Mapping[str, Any]:
    if not isinstance(written, dict):
        raise place.refused(f"expected {or_else}, got {shown(written)}")
    for key in written:
        if not isinstance(key, str):
            raise place.refused(f"expected names as keys, got {shown(key)}")
    return written


def _list(place: _Place, written: object) -> list[Any]:
    if not isinstance(written, list) or not written:
        raise place.refused(f"expected a list with at least one entry, got {shown(written)}")
    return written


def _text(place: _Place, written: object) -> str:
    if not isinstance(written, str) or not written.strip() or plain(written, len(written)) != written:
        raise place.refused(f"expected a text without control characters, got {shown(written)}")
    return written


def _budget(place: _Place, written: object, most: int) -> int | None:
    if written is not None and (type(written) is not int or not 1 <= written <= most):
        raise place.refused(f"expected an integer from 1 to {most:,}, got {shown(written)}")
    return written


def _flag(place: _Place, written: object) -> bool:
    if not isinstance(written, bool):
        raise place.refused(f"expected true or false, got {shown(written)}")
    return written


def _check_keys(place: _Place, content: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    for key in content:
        if key not in known:
            raise place.unknown_key(key, known)
    for key in required:
        if key not in content:
            raise place.refused(f"{key} is missing")
