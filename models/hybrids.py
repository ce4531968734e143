"""Hybrids of a gated recurrent network: convolutions before it, attention over its own past after it.

Convolutions before recurrent layers: Sainath et al. 2015 (doi 10.1109/ICASSP.2015.7178838); before GRUs: Amodei et al. 2015
(arXiv 1512.02595). Attention: Bahdanau et al. 2015 (arXiv 1409.0473); its multiplicative form: Luong et al. 2015 (arXiv
1508.04025), scaled as by Vaswani et al. 2017 (arXiv 1706.03762). GRU: Cho et al. 2014 (arXiv 1406.1078).

    cnn_gru         u_t = relu(b + Σ_i W_i x_(t-i)), i < k, once or twice;   h_t = GRU(u_t, h_(t-1))
    gru_attention   h_t = GRU(x_t, h_(t-1));   a_tj = softmax over j of h_t · A h_j / √H, t - context < j ≤ t
                    c_t = Σ_j a_tj h_j;   y_t = tanh(W [c_t; h_t])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State
from models.convolutional import CausalConvolution
from models.precision import in_float32
from models.predictor import Backbone, NeuralPredictor, required_width
from models.recurrent import initialise
from models.sequences import InputSpec, TargetSpec
from models.windows import reachable, remember


@dataclass(frozen=True)
class CNNGRUConfig:
    """width: H, channels of each convolution and units of the GRU; None: set by the parameter budget.

    kernel_size: k ≥ 1, steps that a convolution sees. n_convolutions: how many stand before the GRU, at least one.
    dropout: share of values dropped in training after each convolution.
    """

    width: int | None = None
    kernel_size: int = 3
    n_convolutions: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self, {"kernel_size": 1, "n_convolutions": 1})


class CNNGRU(Backbone):
    """Causal convolutions D → H, a GRU and a projection H → D.

    State: the last k - 1 inputs of each convolution, (B, k - 1, D) and (B, k - 1, H), zeros at first; then h, (B, 1, H).
    """

    causal = True

    def __init__(self, features: int, config: CNNGRUConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.past = config.kernel_size - 1
        self.channels = [features] + [width] * (config.n_convolutions - 1)
        self.convolutions = nn.ModuleList(CausalConvolution(n, width, config.kernel_size, 1) for n in self.channels)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self.gru, "orthogonal", 0.0)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        *pasts, hidden = state or self.initial_state(len(features))
        after = []
        for convolution, past in zip(self.convolutions, pasts, strict=True):
            features, past = convolution(features, past, lengths)  # (B, T, D) → (B, T, H)
            features = self.dropout(F.relu(features))
            after.append(past)
        outputs = run(self.gru, features, hidden)  # (B, T, H)
        return self.projection(outputs), (*after, remember(hidden, outputs, 1, lengths))  # (B, T, H) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.projection.weight.new_zeros
        pasts = (zeros(batch_size, self.past, channels) for channels in self.channels)
        return (*pasts, zeros(batch_size, 1, self.gru.hidden_size))

    def state_bytes(self, t: int) -> int:
        return (self.past * sum(self.channels) + self.gru.hidden_size) * self.projection.weight.element_size()


@dataclass(frozen=True)
class GRUAttentionConfig:
    """width: H, units of the GRU; None: set by the parameter budget.

    context: attention reaches at most this many steps back, its own included; at least 2. dropout: share of values dropped
    in training before the projection.
    """

    width: int | None = None
    context: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self, {"context": 2})  # with 1 there is no past to attend to, and it were a GRU


class GRUAttention(Backbone):
    """A GRU that attends to its own past states, and a projection H → D.

    What is attended to are the states themselves, so one vector a step is carried, half of what keys and values would be.

    State: steps seen so far, (B,) int64, and the recent states of the GRU, (B, P, H), newest last and 1 ≤ P < context. The
    newest is where the GRU goes on from. Rows before a sequence's beginning are zeros, as the GRU's initial state is, and
    are never attended to.
    """

    causal = True

    def __init__(self, features: int, config: GRUAttentionConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.context = config.context
        self.gru = nn.GRU(features, width, batch_first=True)
        self.queries = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width)
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self.gru, "orthogonal", 0.0)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        n_steps = features.shape[1]
        seen, past = state or self.initial_state(len(features))
        hidden = run(self.gru, features, past[:, -1:])  # (B, T, D) → (B, T, H)
        begins = state is None and n_steps <= self.context  # then there is nothing to copy together, nor to mask
        attended = hidden if begins else torch.cat([past, hidden], dim=1)  # (B, P + T, H)
        mask = None if begins else reachable(seen, past.shape[1], n_steps, self.context)
        context = F.scaled_dot_product_attention(
            self.queries(hidden), attended, attended, attn_mask=mask, is_causal=mask is None
        )  # (B, T, H)
        outputs = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))  # (B, T, 2H) → (B, T, H)
        kept = min(self.context - 1, past.shape[1] + (n_steps if lengths is None else int(lengths.max())))
        seen = seen + (n_steps if lengths is None else lengths.to(seen.device))
        return self.projection(self.dropout(outputs)), (seen, remember(past, hidden, kept, lengths))  # (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        like = self.projection.weight
        seen = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return seen, like.new_zeros(batch_size, 1, self.gru.hidden_size)

    def state_bytes(self, t: int) -> int:
        kept = min(t + 1, self.context - 1)
        return 8 + kept * self.gru.hidden_size * self.projection.weight.element_size()


@in_float32
def run(gru: nn.GRU, inputs: Tensor, hidden: Tensor) -> Tensor:
    """States (B, T, H) of a GRU of one layer over inputs (B, T, D), from hidden (B, 1, H).

    A GRU's output is its state, so the state after step lengths[b] is among the outputs, and padding needs no packing.
    """
    return gru(inputs, hidden.transpose(0, 1).contiguous())[0]


def require(config: Any, least: Mapping[str, int]) -> None:
    """Raises ValueError where a field of the configuration is below the least that it can be, or dropout is no share."""
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ValueError(f"{name} must be at least {bound}, got {getattr(config, name)}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {config.dropout}")


def build_cnn_gru(inputs: InputSpec, target: TargetSpec, causal: bool, config: CNNGRUConfig) -> Predictor:
    return NeuralPredictor(inputs, target, CNNGRU(inputs.features, config))


def build_gru_attention(inputs: InputSpec, target: TargetSpec, causal: bool, config: GRUAttentionConfig) -> Predictor:
    return NeuralPredictor(inputs, target, GRUAttention(inputs.features, config))


ENTRIES = [
    ModelEntry(
        name="cnn_gru",
        family="hybrid",
        config=CNNGRUConfig(),
        build=build_cnn_gru,
        fit=Fit.GRADIENT,
        source="Sainath et al. 2015; Amodei et al. 2015",
        summary="a causal convolution of three steps, then a GRU",
        width="width",
        learning_rate=5e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "kernel_size": Choice((3, 5, 9)),
            "n_convolutions": Choice((1, 2)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state="(kernel_size - 1) * (D + (n_convolutions - 1) * H) + H",
    ),
    ModelEntry(
        name="gru_attention",
        family="hybrid",
        config=GRUAttentionConfig(),
        build=build_gru_attention,
        fit=Fit.GRADIENT,
        source="Bahdanau et al. 2015; Luong et al. 2015",
        summary="GRU that attends to its own past states",
        width="width",
        learning_rate=5e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state="1 + H * min(t + 1, context - 1)",
    ),
]
