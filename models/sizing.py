"""The width that meets a budget: of parameters, or of the state carried from step to step.

Counts come from models built on torch's meta device, which allocates and initialises nothing, so there is no second formula
to keep in step with the code; a bisection takes about twenty of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from models.contract import ModelEntry, Predictor
from models.sequences import InputSpec, TargetSpec

TOLERANCE = 0.02
"""The share of a budget by which a model may miss it without a note."""
UNBOUNDED = 1_024
"""Steps after which the state is counted where the task's sequences have no greatest length."""


def backbone_parameters(entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any) -> int:
    """Parameters of the backbone of a model that is never allocated."""
    return _unallocated(entry, inputs, target, causal, config).parameter_counts().backbone


def _unallocated(entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any) -> Predictor:
    with torch.device("meta"):
        return entry.build(inputs, target, causal, config)


def size_to_budget(
    entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any, budget: int | None
) -> tuple[Any, str | None]:
    """The configuration whose backbone comes nearest to ``budget`` parameters, and a note where that is off by more than 2 %.

    A model without a width, or with one set by hand in ``config``, is left as it is. Raises ValueError where even the
    smallest width is more than half as large again as the budget.
    """
    if budget is None or not _is_open(entry, config):
        return config, None
    return _sized(
        *(entry, config, budget, "backbone parameters"),
        lambda sized: backbone_parameters(entry, inputs, target, causal, sized),
    )


def size_to_state(
    entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any, budget: int
) -> tuple[Any, str | None]:
    """The configuration that carries nearest to ``budget`` bytes per sequence after the task's longest one, and a note as
    `size_to_budget` gives it.

    Left as it is, like there: a model without a width or with one set by hand. Raises ValueError, with the reason, for a model
    that takes whole sequences, or carries the same at any width.
    """
    if not _is_open(entry, config):
        return config, None

    def carried(sized: Any) -> int:
        predictor = _unallocated(entry, inputs, target, causal, sized)
        if not predictor.causal:
            raise ValueError(f"{entry.name} takes whole sequences and carries no state; leave it out of a state budget")
        return predictor.state_bytes(inputs.max_length or UNBOUNDED)

    if carried(_of_width(entry, config, 1)) == carried(_of_width(entry, config, 2)):
        raise ValueError(f"{entry.name} carries the same state at any width; leave it out of a state budget")
    return _sized(entry, config, budget, "bytes of state", carried)


def _is_open(entry: ModelEntry, config: Any) -> bool:
    """Whether the width is for sizing to choose."""
    return entry.width is not None and getattr(config, entry.width) is None


def _of_width(entry: ModelEntry, config: Any, units: int) -> Any:
    assert entry.width is not None
    return replace(config, **{entry.width: units * entry.width_multiple})


def _sized(
    entry: ModelEntry, config: Any, budget: int, what: str, count: Callable[[Any], int]
) -> tuple[Any, str | None]:
    """The configuration whose count, which grows with its width, is nearest to the budget; and a note where that is far off."""

    def counted(units: int) -> int:
        return count(_of_width(entry, config, units))

    high = 1
    while counted(high) < budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if counted(middle) < budget else (low, middle)
    units = min((u for u in (low, high) if u > 0), key=lambda u: abs(counted(u) - budget))
    actual = counted(units)
    if actual > 1.5 * budget:
        raise ValueError(
            f"{entry.name} has {actual} {what} at its smallest width, over the budget of {budget}; raise it"
        )
    off = actual / budget - 1
    note = f"{actual} {what}, {off:+.1%} off the budget: its width goes in steps of {entry.width_multiple}"
    return _of_width(entry, config, units), note if abs(off) > TOLERANCE else None
