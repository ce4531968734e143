"""A trial's complete specification, and the id that follows from it.

Two trials with the same id are the same experiment: the id is a hash over the task with its parameters, the model with its
full configuration, the fitting configuration, the parameter budget, the seed, the mode and the device class; of a trial that
measures cost also over how it measures, and the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch

from benchmarks.execution.isolated import Ended, isolated
from benchmarks.fitting import FitConfig
from benchmarks.machine import fingerprint
from benchmarks.parameters import InvalidParameter, configure
from benchmarks.tasks.registry import task as build_task
from benchmarks.timing import TimingConfig
from models import registry
from models.broken import NoConfig
from models.contract import Fit
from models.names import UnknownName
from models.sizing import backbone_parameters, size_to_budget, size_to_state

Device = Literal["cpu", "cuda"]
Mode = Literal["quality", "tuning", "timing"]


@dataclass(frozen=True)
class Trial:
    """What is run. Build one with `specify`, which fills in every default, so that a changed default is a new trial.

    parameter_budget: backbone parameters that a model with a width is sized to; None: its configuration's own width.
    seed: chooses the data draw, the initial weights and the batch order. mode: quality judges on test; tuning stops at
    validation; timing measures cost, its seed being the number of the process. tuned: field of the model's configuration, or
    "fit.FIELD" → tuning trials that went into choosing its value; empty where nothing was tuned. timing: how it measures, and
    machine: where, see `benchmarks.machine`; both are empty for the other modes.
    """

    task: str
    task_parameters: Mapping[str, Any]
    model: str
    model_config: Mapping[str, Any]
    fit: Mapping[str, Any]
    parameter_budget: int | None
    seed: int
    device: Device = "cpu"
    mode: Mode = "quality"
    tuned: Mapping[str, int] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits."""
        specification = self.specification
        if self.mode != "timing":
            del specification["timing"], specification["machine"]
        canonical = json.dumps(specification, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def specification(self) -> dict[str, Any]:
        """Field → value; not copied as `asdict` does it, which takes ten times as long."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def cell(self) -> str:
        """What the seeds of one model on one task share: the id of the first."""
        return replace(self, seed=0).id

    @property
    def title(self) -> str:
        if self.mode == "timing":
            return f"{self.model} on {self.task}, timing, process {self.seed}"
        return f"{self.model} on {self.task}, seed {self.seed}"


class NoGPU(InvalidParameter):
    """A GPU was asked for where torch sees none."""


@dataclass(frozen=True)
class Overrides:
    """What a person may write of a trial: the rest is default."""

    task_parameters: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)


def specify(
    task: str,
    model: str,
    seed: int,
    parameter_budget: int | None,
    device: str = "auto",
    overrides: Overrides | None = None,
    mode: Mode = "quality",
    tuned: Mapping[str, int] | None = None,
) -> Trial:
    """A complete, checked trial. Raises UnknownName or InvalidParameter, in one sentence, before anything runs."""
    given = overrides or Overrides()
    entry = registry.entry(model)
    built = build_task(task, given.task_parameters)
    # Of a plug-in that does not load no option is known; its trials are to fail for that reason, not for another.
    loads = not isinstance(entry.config, NoConfig)
    config = (
        _plain(configure(f"model {model}", entry.config, given.model_config)) if loads else dict(given.model_config)
    )
    fit = configure("fit", FitConfig(learning_rate=entry.learning_rate or 0.0), given.fit)
    if fit.precision != "float32" and entry.float32_only is not None:
        raise InvalidParameter(
            f"fit: precision {fit.precision} is not for {model}, for {entry.float32_only}; write float32 for it"
        )
    if type(seed) is not int or seed < 0:
        raise InvalidParameter(f"seed: expected an integer of at least 0, got {seed!r}")
    if parameter_budget is not None and (type(parameter_budget) is not int or parameter_budget < 1):
        raise InvalidParameter(f"parameter_budget: expected a positive integer, got {parameter_budget!r}")
    if mode != "timing" and given.timing:
        raise InvalidParameter(f"timing: only a trial with the mode timing measures; this one has the mode {mode}")
    timing = configure("timing", TimingConfig(), given.timing)
    chosen = resolve_device(device)
    return Trial(
        task=task,
        task_parameters=_plain(built),
        model=model,
        model_config=config,
        fit=_plain(fit),
        parameter_budget=parameter_budget if entry.width else None,
        seed=seed,
        device=chosen,
        mode=mode,
        tuned=dict(tuned or {}),
        timing=_plain(timing) if mode == "timing" else {},
        machine=fingerprint(chosen, timing.threads) if mode == "timing" else {},
    )


def sized_to_state(trial: Trial, state_bytes: int) -> Trial:
    """The trial with the width at which its model carries so many bytes per sequence; as it is where the model has no width or
    cannot do the task. Raises InvalidParameter for a model whose state has nothing to do with a width."""
    if trial.model not in registry.plugins():
        return _sized_to_state(trial, state_bytes)
    try:
        return isolated(partial(_sized_to_state, trial, state_bytes), "rnnb-check")
    except Ended:  # a plug-in's own trial says what is wrong with it
        return trial


def _sized_to_state(trial: Trial, state_bytes: int) -> Trial:
    entry, task = registry.entry(trial.model), build_task(trial.task, trial.task_parameters)
    kind = (task.input, task.target, task.causal)
    if entry.refuses(*kind) is not None:
        return trial
    config = configure(f"model {trial.model}", entry.config, trial.model_config)
    try:
        sized, _ = size_to_state(entry, *kind, config, state_bytes)
    except ValueError as error:
        raise InvalidParameter(f"{trial.model} on {trial.task}: {error}") from error
    return replace(trial, model_config=_plain(sized))


def check_buildable(trials: Sequence[Trial]) -> str | None:
    """Raises InvalidParameter where a model cannot be built for its task, nothing being allocated for it. A warning where that
    could not be found out; such a trial then becomes a row with the reason, as every trial of a plug-in that cannot be built.

    Where this process can be copied a copy looks: torch imports its compiler to build what it does not allocate, and the
    coordinator would carry that, 75 MB, to its end.
    """
    cells = list({trial.cell: trial for trial in trials if trial.model not in registry.plugins()}.values())
    if not cells:
        return None
    try:
        problem = isolated(partial(_unbuildable, cells), "rnnb-check")
    except Ended as error:
        return f"the check that every model can be built ended early ({error}); one that cannot becomes a row with the reason"
    if problem is not None:
        raise InvalidParameter(problem)
    return None


def _unbuildable(cells: list[Trial]) -> str | None:
    """What is wrong with the first of them that cannot be built."""
    try:
        for trial in cells:
            _build(trial)
    except InvalidParameter as error:
        return str(error)
    return None


def _build(trial: Trial) -> None:
    entry, task = registry.entry(trial.model), build_task(trial.task, trial.task_parameters)
    kind = (task.input, task.target, task.causal)
    if entry.fit is not Fit.GRADIENT or entry.refuses(*kind) is not None:
        return
    try:
        config = configure(f"model {trial.model}", entry.config, trial.model_config)
        sized, _ = size_to_budget(entry, *kind, config, trial.parameter_budget)
        backbone_parameters(entry, *kind, sized)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raise InvalidParameter(f"{trial.model} on {trial.task} cannot be built: {error}") from error


def resolve_device(device: str) -> Device:
    """``auto`` is a GPU where torch sees one, else the CPU; raises NoGPU where one was asked for and there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise UnknownName("device", device, ["auto", "cpu", "cuda"])
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise NoGPU("device: cuda was asked for, but torch sees no GPU; use auto or cpu")
    return "cpu"


def _plain(instance: Any) -> dict[str, Any]:
    """A dataclass as JSON values, tuples as lists, so that a spec equals itself read back."""
    return json.loads(json.dumps(asdict(instance)))
