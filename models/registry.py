"""The one table of models, and how a model is found and built by name.

To add a model: write its file, and add its entry to ``ENTRIES``. A package elsewhere registers a `ModelEntry` (or a list
of them) through the entry-point group ``rnnbench.models``; one that cannot be registered has a stand-in, whose trials fail.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import entry_points

import torch

from models import (
    arima,
    convolutional,
    counting,
    efficient,
    feed_forward,
    floors,
    hidden_markov,
    hybrids,
    linear,
    memory,
    nearest_neighbour,
    neural_markov,
    quantised,
    recurrent,
    rocket,
    seasonal,
    smoothing,
    transformer,
    trees,
)
from models.broken import stand_in
from models.contract import ModelEntry, Predictor
from models.names import BrokenPlugin, UnknownName
from models.sequences import InputSpec, TargetSpec

NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?"
"""A model's name: it stands in commands, tables, pages and figures, where other characters could mean something."""

ENTRIES: list[ModelEntry] = [
    *recurrent.ENTRIES,
    *quantised.ENTRIES,
    *efficient.ENTRIES,
    *hybrids.ENTRIES,
    *memory.ENTRIES,
    *convolutional.ENTRIES,
    *transformer.ENTRIES,
    *feed_forward.ENTRIES,
    *hidden_markov.ENTRIES,
    *neural_markov.ENTRIES,
    *linear.ENTRIES,
    *nearest_neighbour.ENTRIES,
    *rocket.ENTRIES,
    *trees.ENTRIES,
    *seasonal.ENTRIES,
    *smoothing.ENTRIES,
    *arima.ENTRIES,
    *counting.ENTRIES,
    *floors.ENTRIES,
]


@cache
def entries() -> dict[str, ModelEntry]:
    """Every registered model by name: the table above, then plug-ins in the order of their packages' names, then a stand-in for
    each that is broken."""
    table = {entry.name: entry for entry in ENTRIES}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group="rnnbench.models"), key=lambda point: point.name):
        try:
            loaded = point.load()
            for entry in loaded if isinstance(loaded, list) else [loaded]:
                _check_entry(entry, table)
                table[entry.name] = entry
        # Whatever its import does, sys.exit() included, the other models are still there.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            reason = (
                str(error) if isinstance(error, BrokenPlugin) else f"does not load: {type(error).__name__}: {error}"
            )
            broken[point.name] = f"plug-in {point.value!r} {reason}"
    for name, reason in broken.items():
        free = re.fullmatch(NAME, name) and name not in table
        name = name if free else f"broken-plugin-{len(table)}"
        table[name] = stand_in(name, reason)
    return table


def plugins() -> frozenset[str]:
    """The names of the models that packages elsewhere registered: what their code does must not stop other models."""
    return frozenset(entries()) - {entry.name for entry in ENTRIES}


def _check_entry(entry: object, taken: Container[str]) -> None:
    """Raises BrokenPlugin, with the end of a sentence."""
    if not isinstance(entry, ModelEntry):
        raise BrokenPlugin(f"registers an object of type {type(entry).__name__}, not a ModelEntry or a list of them")
    if not isinstance(entry.name, str) or not re.fullmatch(NAME, entry.name):
        raise BrokenPlugin(f"registers {entry.name!r}; a name is made of letters, digits, and - _ . inside")
    if entry.name in taken:
        raise BrokenPlugin(f"registers {entry.name!r}, which is taken; rename it")
    if not is_dataclass(entry.config) or isinstance(entry.config, type):
        raise BrokenPlugin(
            f"registers {entry.name!r} with a config that is no instance of a dataclass: {entry.config!r}"
        )


def entry(name: str) -> ModelEntry:
    """The model registered as ``name``; raises `UnknownName` with the nearest known name."""
    if name not in entries():
        raise UnknownName("model", name, list(entries()))
    return entries()[name]


def build(
    model: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: object, seed: int
) -> Predictor:
    """A predictor whose initial weights depend on ``seed`` alone; torch's global generator is left as it was.

    Raises ValueError with the reason where the model refuses such a task, TypeError where it builds something else.
    """
    reason = model.refuses(inputs, target, causal)
    if reason is not None:
        raise ValueError(reason)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = model.build(inputs, target, causal, config)
    if not isinstance(built, Predictor):
        raise TypeError(f"build of {model.name} returned {type(built).__name__}, not a Predictor")
    return built
