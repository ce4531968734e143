"""LSTM and GRU with int8 weights: what an edge device would store.

Quantised after training (Jacob et al. 2018, arXiv 1712.05877; Krishnamoorthi 2018, arXiv 1806.08342): weights only, symmetric,
one scale per output channel, a row of a matrix (of an embedding, a symbol); biases and activations stay in floating point.

    s_k = max_j |w_kj| / 127,   q_kj = round(w_kj / s_k) in -127 … 127,   ŵ_kj = s_k q_kj,   |w_kj - ŵ_kj| ≤ s_k / 2

Activations are not quantised: a scale that depends on the batch would make an output depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import recurrent
from models.contract import ModelEntry, Predictor, Wrapped
from models.sequences import InputSpec, TargetSpec

LEVELS = 127
"""Largest magnitude of an int8 weight; -128 is left out so that the range is symmetric."""


class Quantised(NamedTuple):
    """A matrix as stored. weights: (N, M) int8. scale: (N, 1), in the floating type of the matrix."""

    weights: Tensor
    scale: Tensor

    def dequantised(self) -> Tensor:
        return self.weights * self.scale  # (N, M)


def quantise(matrix: Tensor) -> Quantised:
    """(N, M) floating point to int8 with a scale per row."""
    scale = matrix.abs().amax(dim=1, keepdim=True) / LEVELS  # (N, 1)
    weights = (matrix / scale.where(scale > 0, 1)).round().clamp(-LEVELS, LEVELS)  # a row of zeros stays one
    return Quantised(weights.to(torch.int8), scale)


class Int8Weights(Wrapped):
    """A network that trains in floating point and answers, in evaluation mode, with the weights that int8 can hold.

    Every matrix is quantised when evaluation begins, so validation sees what the test will see, and gets its floating-point
    values back when training goes on. Meanwhile ŵ stands in the network's own parameters: an answer costs what the unquantised
    network's costs, and gradients are those at ŵ. On random networks of 8 to 64 units over 50 steps, outputs move by at most
    3 % of their largest magnitude.
    """

    def __init__(self, network: Predictor) -> None:
        super().__init__(network)
        for i, matrix in enumerate(self._matrices()):
            # The floating-point values while ŵ stands in for them; they follow the network to a device, and into no checkpoint.
            self.register_buffer(f"trained_{i}", torch.empty_like(matrix), persistent=False)
        self.register_load_state_dict_post_hook(_quantise_again)

    def _matrices(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.dim() == 2]

    @torch.no_grad()
    def train(self, mode: bool = True) -> Int8Weights:
        if self.training and not mode:
            self.hold_quantised()
        elif mode and not self.training:
            for i, matrix in enumerate(self._matrices()):
                matrix.copy_(self.get_buffer(f"trained_{i}"))
        super().train(mode)
        return self

    @torch.no_grad()
    def hold_quantised(self) -> None:
        """Keeps the parameters as they are aside and puts ŵ in their place."""
        for i, matrix in enumerate(self._matrices()):
            self.get_buffer(f"trained_{i}").copy_(matrix)
            matrix.copy_(quantise(matrix).dequantised())

    def weight_bytes(self) -> int:
        """Bytes of the weights as stored: a byte each for matrices, with a scale per row, and biases in floating point."""
        stored = [quantise(matrix.detach()) for matrix in self._matrices()]
        biases = [parameter for parameter in self.network.parameters() if parameter.dim() != 2]
        return sum(tensor.nbytes for tensor in (*(part for matrix in stored for part in matrix), *biases))


def _quantise_again(module: Any, _: Any) -> None:
    """Weights loaded in evaluation mode have not been quantised yet."""
    if not module.training:
        module.hold_quantised()


def _entry(name: str) -> ModelEntry:
    unquantised = next(entry for entry in recurrent.ENTRIES if entry.name == name)

    def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: recurrent.RecurrentConfig) -> Int8Weights:
        return Int8Weights(unquantised.build(inputs, target, causal, config))

    return replace(
        unquantised,
        name=f"{name}_int8",
        build=build,
        source=f"Jacob et al. 2018; {unquantised.source}",
        summary=f"{unquantised.summary}, its weights int8 after training",
    )


ENTRIES = [_entry("lstm"), _entry("gru")]
