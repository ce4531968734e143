"""Temporal convolutional network: dilated causal convolutions in residual blocks.

Bai, Kolter & Koltun 2018 (arXiv 1803.01271): each block is two causal convolutions of the same dilation, weight-normalised,
each followed by ReLU and dropout, added to the block's input; dilation doubles from block to block, so that the receptive
field is 1 + 2 (k - 1)(2^L - 1) steps for kernel size k and L blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from models.contract import Choice, Fit, InputSpec, LogRange, ModelEntry, Predictor, State, TargetSpec
from models.predictor import Backbone, NeuralPredictor, required_width
from models.windows import remember


@dataclass(frozen=True)
class TCNConfig:
    """width: H, channels; None: set by the parameter budget. kernel_size: k ≥ 2 steps.

    n_blocks: L; None: the fewest whose receptive field covers the task's longest sequence (8 where that is unknown).
    dropout: share of channels' values dropped in training after each convolution.
    """

    width: int | None = None
    kernel_size: int = 5
    n_blocks: int | None = None
    dropout: float = 0.0


def receptive_field(kernel_size: int, n_blocks: int) -> int:
    """Steps that an output depends on, its own included."""
    return 1 + 2 * (kernel_size - 1) * (2**n_blocks - 1)


def blocks_to_cover(length: int | None, kernel_size: int) -> int:
    """The fewest blocks whose receptive field is at least ``length``; 8 where no length is known."""
    if length is None:
        return 8
    return max(1, math.ceil(math.log2((length - 1) / (2 * (kernel_size - 1)) + 1)))


class CausalConvolution(nn.Module):
    """A dilated convolution over the past, (B, T, in) → (B, T, out); it carries its last (k - 1)·dilation inputs."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.past = (kernel_size - 1) * dilation
        convolution = nn.Conv1d(n_in, n_out, kernel_size, dilation=dilation)
        self.convolution = weight_norm(convolution)

    def forward(self, inputs: Tensor, past: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        joined = torch.cat([past, inputs], dim=1).transpose(1, 2)  # (B, in, P + T)
        return self.convolution(joined).transpose(1, 2), remember(past, inputs, self.past, lengths)  # (B, T, out)


class TemporalConvolutional(Backbone):
    """L residual blocks and a projection H → D. State: the recent inputs of each convolution, zeros at first."""

    causal = True

    def __init__(self, features: int, n_blocks: int, config: TCNConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        channels = [features] + [width] * (2 * n_blocks - 1)
        dilations = [2 ** (i // 2) for i in range(len(channels))]
        self.convolutions = nn.ModuleList(
            CausalConvolution(n_in, width, config.kernel_size, dilation)
            for n_in, dilation in zip(channels, dilations, strict=True)
        )
        # Steps and channels that each convolution carries from chunk to chunk.
        self.carried = [((config.kernel_size - 1) * d, n) for d, n in zip(dilations, channels, strict=True)]
        self.shortcut = nn.Linear(features, width)
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        pasts = state or self.initial_state(len(features))
        after = []
        hidden, residual = features, self.shortcut(features)  # (B, T, D), (B, T, H)
        for i, (convolution, past) in enumerate(zip(self.convolutions, pasts, strict=True)):
            hidden, past = convolution(hidden, past, lengths)  # (B, T, H)
            hidden = self.dropout(F.relu(hidden))
            after.append(past)
            if i % 2 == 1:
                hidden = residual = F.relu(hidden + residual)
        return self.projection(hidden), tuple(after)  # (B, T, H) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.projection.weight.new_zeros
        return tuple(zeros(batch_size, past, channels) for past, channels in self.carried)

    def state_bytes(self, t: int) -> int:
        return sum(past * channels for past, channels in self.carried) * self.projection.weight.element_size()


def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: TCNConfig) -> Predictor:
    n_blocks = config.n_blocks or blocks_to_cover(inputs.max_length, config.kernel_size)
    return NeuralPredictor(inputs, target, TemporalConvolutional(inputs.features, n_blocks, config))


ENTRIES = [
    ModelEntry(
        name="tcn",
        family="convolutional",
        config=TCNConfig(),
        build=build,
        fit=Fit.GRADIENT,
        source="Bai, Kolter & Koltun 2018",
        summary="dilated causal convolutions in residual blocks, receptive field as long as the task",
        width="width",
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "kernel_size": Choice((3, 5, 7)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
    )
]
