"""Convolutional networks over time: dilated and causal in residual blocks (TCN), and fully convolutional with batch norm (FCN).

TCN: Bai, Kolter & Koltun 2018 (arXiv 1803.01271). Each block is two causal convolutions of the same dilation,
weight-normalised, each followed by ReLU and dropout, added to the block's input; dilation doubles from block to block, so that
the receptive field is 1 + 2 (k - 1)(2^L - 1) steps for kernel size k and L blocks.

FCN: Wang, Yan & Oates 2017 (arXiv 1611.06455). Three convolutions that look both ways, each followed by batch normalisation
(Ioffe & Szegedy 2015, arXiv 1502.03167) and ReLU; the answer for a sequence is read from the mean over its steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State, refuses_causal
from models.predictor import Backbone, NeuralPredictor, required_width
from models.sequences import InputSpec, Scope, TargetSpec, valid_steps
from models.windows import TimeConvolution, blank_padding, remember


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

    def __post_init__(self) -> None:
        if self.kernel_size < 2:
            raise ValueError(f"kernel_size must be at least 2, got {self.kernel_size}")
        if self.n_blocks is not None and self.n_blocks < 1:
            raise ValueError(f"n_blocks must be at least 1, or null for enough to cover the task, got {self.n_blocks}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


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
        convolution = TimeConvolution(n_in, n_out, kernel_size, dilation=dilation)
        # differs from the paper, whose N(0, 0.01) fixes only a direction under weight normalisation: He et al. 2015 (arXiv
        # 1502.01852), because torch's own weights let a convolution and its ReLU keep a sixth of their input's power, and
        # what lies far back has to pass through many: adding then stays at one of its two numbers for long.
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        self.convolution = weight_norm(convolution)

    def forward(self, inputs: Tensor, past: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        joined = torch.cat([past, inputs], dim=1)  # (B, P + T, in)
        return self.convolution(joined), remember(past, inputs, self.past, lengths)  # (B, T, out)


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


KERNEL_SIZES = (8, 5, 3)
"""Steps that each convolution of the FCN sees, as in the paper; of an even number one more lies ahead than behind."""


@dataclass(frozen=True)
class FCNConfig:
    """width: H, channels of the first and third convolution, half of the second's; None: set by the parameter budget.

    dropout: share of values dropped in training after each convolution; the paper has none.
    """

    width: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class FullyConvolutional(Backbone):
    """Convolutions D → H → 2H → H, and a projection H → D of each step, or of the mean over the steps for one answer.

    Padding is zero before every convolution, and not among the values that batch normalisation takes its statistics from.
    """

    causal = False

    def __init__(self, features: int, scope: Scope, config: FCNConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.scope = scope
        channels = (features, width, 2 * width, width)
        # differs from the paper: no bias, which the normalisation after it would take away again.
        self.convolutions = nn.ModuleList(
            TimeConvolution(n_in, n_out, k, padding=k // 2, bias=False)
            for n_in, n_out, k in zip(channels, channels[1:], KERNEL_SIZES, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in channels[1:])
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        n_steps = features.shape[1]
        rows = None if lengths is None else valid_steps(lengths, n_steps).flatten().nonzero()[:, 0].to(features.device)
        hidden = blank_padding(features, lengths)  # (B, T, D)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # An even kernel, padded evenly, gives one step more.
            steps = convolution(hidden)[:, -n_steps:].flatten(0, 1)  # (B × T, n)
            if rows is None:
                steps = F.relu(norm(steps))
            else:  # the statistics are of valid steps alone; the others stay zero
                valid = F.relu(norm(steps.index_select(0, rows)))
                steps = torch.zeros_like(steps).index_copy(0, rows, valid)
            hidden = self.dropout(steps.unflatten(0, (-1, n_steps)))  # (B, T, n)
        if self.scope == "step":
            return self.projection(hidden), ()  # (B, T, H) → (B, T, D)
        n_valid = n_steps if lengths is None else lengths.clamp(min=1).to(hidden.device)[:, None]
        answer = self.projection(hidden.sum(1) / n_valid)  # (B, T, H) → (B, H) → (B, D)
        return answer[:, None].expand(-1, n_steps, -1), ()  # (B, D) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0


def build_tcn(inputs: InputSpec, target: TargetSpec, causal: bool, config: TCNConfig) -> Predictor:
    n_blocks = config.n_blocks or blocks_to_cover(inputs.max_length, config.kernel_size)
    return NeuralPredictor(inputs, target, TemporalConvolutional(inputs.features, n_blocks, config))


def build_fcn(inputs: InputSpec, target: TargetSpec, causal: bool, config: FCNConfig) -> Predictor:
    return NeuralPredictor(inputs, target, FullyConvolutional(inputs.features, target.scope, config))


ENTRIES = [
    ModelEntry(
        name="tcn",
        family="convolutional",
        config=TCNConfig(),
        build=build_tcn,
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
        # T: the task's longest sequence; bit_length gives the blocks that cover it where n_blocks is not set.
        state="(kernel_size - 1) * (D + ((2 << (n_blocks or ((T - 2) // (2 * kernel_size - 2) + 1).bit_length())) - 3) * H)",
    ),
    ModelEntry(
        name="fcn",
        family="convolutional",
        config=FCNConfig(),
        build=build_fcn,
        fit=Fit.GRADIENT,
        source="Wang, Yan & Oates 2017",
        summary="three batch-normalised convolutions that look both ways; one answer is read from the mean over the steps",
        refuses=refuses_causal,
        width="width",
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
    ),
]
