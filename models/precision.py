"""Mixed precision: matrix products in bfloat16, everything else in float32.

Micikevicius et al. 2018 (arXiv 1710.03740); bfloat16, whose range is float32's, so that no loss needs scaling: Kalamkar et al.
2019 (arXiv 1905.12322). torch's autocast chooses the type of each operation.

Weights, gradients, the state carried from chunk to chunk and the outputs stay float32, and so does all arithmetic of a
recurrence, whose rounding errors would add up step by step, and of the read-out. For torch's fused recurrent layers there is a
second reason: on a GPU autocast runs them in float16 whatever type it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from models.contract import Predictor, State, Wrapped

Precision = Literal["float32", "bfloat16"]

Owner = TypeVar("Owner")
Others = ParamSpec("Others")
Answer = TypeVar("Answer")


class MixedPrecision(Wrapped):
    """A network whose matrix products are taken in bfloat16, in training and when it answers."""

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs, after = self.network(inputs, state, lengths)
        return widened(outputs), tuple(map(widened, after))


def in_precision(predictor: Predictor, precision: Precision) -> Predictor:
    """The predictor as it is, or with its matrix products in bfloat16; its weights are the same tensors."""
    return MixedPrecision(predictor) if precision == "bfloat16" else predictor


def in_float32(
    function: Callable[Concatenate[Owner, Tensor, Others], Answer],
) -> Callable[Concatenate[Owner, Tensor, Others], Answer]:
    """A function of a module and its inputs, or a method of the inputs, that autocast leaves alone: the inputs are widened
    and all is computed in their type. Without autocast the function is as it was, and costs a fraction of a microsecond more.
    """

    @wraps(function)
    def outside(owner: Owner, inputs: Tensor, *others: Others.args, **named: Others.kwargs) -> Answer:
        # For any device at once: to ask for that of the inputs takes a microsecond, which a streaming step would feel.
        if not torch._C._is_any_autocast_enabled():
            return function(owner, inputs, *others, **named)
        with torch.autocast(inputs.device.type, enabled=False):
            return function(owner, widened(inputs), *others, **named)

    return outside


def widened(values: Tensor) -> Tensor:
    """A tensor of 16 bits as float32; any other as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
