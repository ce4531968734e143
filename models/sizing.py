"""The width that meets a parameter budget.

Counts come from models built on torch's meta device, which allocates and initialises nothing, so there is no second formula
to keep in step with the code; a bisection takes about twenty of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from models.contract import ModelEntry
from models.sequences import InputSpec, TargetSpec

TOLERANCE = 0.02
"""The share of the budget by which a backbone may miss it without a note."""


def backbone_parameters(entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any) -> int:
    """Parameters of the backbone of a model that is never allocated."""
    with torch.device("meta"):
        return entry.build(inputs, target, causal, config).parameter_counts().backbone


def size_to_budget(
    entry: ModelEntry, inputs: InputSpec, target: TargetSpec, causal: bool, config: Any, budget: int | None
) -> tuple[Any, str | None]:
    """The configuration whose backbone comes nearest to ``budget``, and a note where that is off by more than 2 %.

    A model without a width, or with one set by hand in ``config``, is left as it is. Raises ValueError where even the
    smallest width is more than half as large again as the budget.
    """
    if entry.width is None or budget is None or getattr(config, entry.width) is not None:
        return config, None

    width = entry.width

    def sized(units: int) -> Any:
        return replace(config, **{width: units * entry.width_multiple})

    def parameters(units: int) -> int:
        return backbone_parameters(entry, inputs, target, causal, sized(units))

    high = 1
    while parameters(high) < budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) < budget else (low, middle)
    units = min((u for u in (low, high) if u > 0), key=lambda u: abs(parameters(u) - budget))
    actual = parameters(units)
    if actual > 1.5 * budget:
        raise ValueError(
            f"{entry.name} has {actual} backbone parameters at its smallest width, over the budget of {budget}; raise it"
        )
    off = actual / budget - 1
    note = f"{actual} backbone parameters, {off:+.1%} off the budget: its width goes in steps of {entry.width_multiple}"
    return sized(units), note if abs(off) > TOLERANCE else None
