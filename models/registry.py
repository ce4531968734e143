"""The one table of models, and how a model is found and built by name.

To add a model: write its file, and add its entry to ``ENTRIES``. A package elsewhere registers a `ModelEntry` (or a list
of them) through the entry-point group ``rnnbench.models``.
"""

from __future__ import annotations

import re
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
    """Every registered model by name: the table above, then plug-ins in the order of their packages' names."""
    table = {entry.name: entry for entry in ENTRIES}
    for point in sorted(entry_points(group="rnnbench.models"), key=lambda point: point.name):
        try:
            loaded = point.load()
        except Exception as error:
            raise BrokenPlugin(f"plug-in {point.value!r} does not load: {type(error).__name__}: {error}") from error
        for entry in loaded if isinstance(loaded, list) else [loaded]:
            if not re.fullmatch(NAME, entry.name):
                raise BrokenPlugin(
                    f"plug-in {point.value!r} registers {entry.name!r}; a name is made of letters, digits, and - _ . inside"
                )
            if entry.name in table:
                raise BrokenPlugin(f"plug-in {point.value!r} registers {entry.name!r}, which is taken; rename it")
            table[entry.name] = entry
    return table


def entry(name: str) -> ModelEntry:
    """The model registered as ``name``; raises `UnknownName` with the nearest known name."""
    if name not in entries():
        raise UnknownName("model", name, list(entries()))
    return entries()[name]


def build(
    model: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: object, seed: int
) -> Predictor:
    """A predictor whose initial weights depend on ``seed`` alone; torch's global generator is left as it was.

    Raises ValueError with the reason where the model refuses such a task.
    """
    reason = model.refuses(inputs, target, causal)
    if reason is not None:
        raise ValueError(reason)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.build(inputs, target, causal, config)
