"""Recurrences that are parallel over time: minGRU, minLSTM and the linear recurrent unit (LRU).

minGRU, minLSTM: Feng et al. 2024 (arXiv 2410.01201). LRU: Orvieto et al. 2023 (arXiv 2303.06349). Pre-normalised residual
layers: Xiong et al. 2020 (arXiv 2002.04745). No gate and no coefficient looks at the state before, so each layer is a linear
recurrence h_t = a_t h_(t-1) + b_t over numbers known beforehand, which `models.scan` finds for all steps at once. A layer
cannot look at its own past; the layer above it can, so one layer alone is of little use.

    minGRU   z_t = σ(W x_t + b)                                  h_t = (1 - z_t) h_(t-1) + z_t c_t
    minLSTM  z_t = i_t / (f_t + i_t),  f_t, i_t = σ(W x_t + b)   the same, for f_t / (f_t + i_t) = 1 - z_t
             c_t = W x_t + b, or g(W x_t + b) with g(u) = u + 1/2 where u ≥ 0, σ(u) elsewhere
    LRU      h_t = λ h_(t-1) + γ B x_t,  λ = exp(-exp(ν) + i exp(θ)),  y_t = Re(C h_t) + D x_t,  U s_t · σ(V s_t), s = gelu(y)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State
from models.precision import widened
from models.predictor import Backbone, NeuralPredictor, required_width
from models.scan import gated_scan, linear_scan
from models.sequences import InputSpec, TargetSpec


@dataclass(frozen=True)
class MinimalConfig:
    """Options of a minGRU or minLSTM.

    width: H, units per layer; None: set by the parameter budget. n_layers: L. candidate: c_t is ``linear`` in the input, or
    ``positive`` through the paper's g, which its log-space scan needs. forget_bias: initial bias, in logits, towards keeping
    the state. dropout: share of each layer's output dropped in training before it is added to the layer's input.
    """

    width: int | None = None
    n_layers: int = 2
    candidate: Literal["linear", "positive"] = "linear"
    forget_bias: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        validate_stack(self.width, self.n_layers, self.dropout)


@dataclass(frozen=True)
class LRUConfig:
    """Options of the linear recurrent unit.

    width: H, features and complex units per layer; None: set by the parameter budget. n_layers: L. r_min, r_max: |λ| begins
    uniform on the ring between them, 0 ≤ r_min < r_max < 1. max_phase: its angle begins uniform in 0 … max_phase radians.
    dropout: share of each layer's output dropped in training before it is added to the layer's input.
    """

    width: int | None = None
    n_layers: int = 2
    r_min: float = 0.0
    r_max: float = 0.99
    max_phase: float = 2 * math.pi
    dropout: float = 0.0

    def __post_init__(self) -> None:
        validate_stack(self.width, self.n_layers, self.dropout)
        if not 0 <= self.r_min < self.r_max < 1:
            raise ValueError(f"0 ≤ r_min < r_max < 1 must hold; got r_min {self.r_min} and r_max {self.r_max}")
        if not 0 < self.max_phase <= 2 * math.pi:
            raise ValueError(f"max_phase is an angle above 0 and up to 2π; got {self.max_phase}")


def validate_stack(width: int | None, n_layers: int, dropout: float) -> None:
    """Raises ValueError where what all these models have in common is out of range."""
    for name, value in (("width", width), ("n_layers", n_layers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share and must lie in 0 … 1, below 1; got {dropout}")


class Layer(nn.Module, ABC):
    """A recurrence over time, (T, B, H) → (T, B, H)."""

    state_shape: tuple[int, ...]

    @abstractmethod
    def forward(self, inputs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (T, B, H) and the state before them (B, *state_shape) → outputs (T, B, H), states (T, B, *state_shape)."""


class Minimal(Layer):
    """minGRU and minLSTM, which differ in the logit of z_t alone. State: h, (H,)."""

    def __init__(self, width: int, n_gates: int, config: MinimalConfig) -> None:
        super().__init__()
        self.state_shape = (width,)
        self.positive = config.candidate == "positive"
        projections = [nn.Linear(width, width) for _ in range(n_gates + 1)]
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        # The one gate of the minGRU lets the input in; the first of the minLSTM is the forget gate, which keeps the state.
        nn.init.constant_(projections[0].bias, config.forget_bias if n_gates == 2 else -config.forget_bias)
        self.gates = nn.ModuleList(projections[:-1])
        self.candidate = projections[-1]

    def forward(self, inputs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        gates = [gate(inputs) for gate in self.gates]  # (T, B, H) each
        # i / (f + i) = σ(log i - log f), which stays finite where both gates are shut.
        logits = gates[0] if len(gates) == 1 else F.logsigmoid(gates[1]) - F.logsigmoid(gates[0])
        candidates = self.candidate(inputs)  # (T, B, H)
        if self.positive:
            candidates = torch.where(candidates >= 0, candidates + 0.5, candidates.sigmoid())
        states = gated_scan(logits, candidates, start)
        return states, states


class LinearRecurrentUnit(Layer):
    """The complex diagonal recurrence, then GELU and a gated linear unit. State: h, (H, 2), real and imaginary parts.

    Complex weights are kept as real ones, so that a change of precision changes all of them.
    """

    def __init__(self, width: int, config: LRUConfig) -> None:
        super().__init__()
        self.state_shape = (width, 2)
        # Away from 0, whose logarithms below are infinite.
        areas, turns = torch.rand(2, width).clamp(min=1e-4)
        radius = (config.r_min**2 + areas * (config.r_max**2 - config.r_min**2)).sqrt()
        self.log_nu = nn.Parameter((-radius.log()).log())
        self.log_theta = nn.Parameter((config.max_phase * turns).log())
        self.log_gamma = nn.Parameter((1 - radius**2).sqrt().log())
        self.project_in = nn.Linear(width, 2 * width, bias=False)  # B, real and imaginary parts by turns
        # Re(C h) = Re C Re h - Im C Im h, the sign in the weight.
        self.project_out = nn.Linear(2 * width, width, bias=False)
        self.feedthrough = nn.Parameter(torch.randn(width))  # D
        self.glu = nn.Linear(width, 2 * width)
        # Glorot's variances; that of B is halved since each input is used twice, by the real and the imaginary part.
        nn.init.normal_(self.project_in.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.project_out.weight, std=width**-0.5)

    def forward(self, inputs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.log_gamma.exp().repeat_interleave(2)[:, None]  # (2H, 1)
        pairs = widened(F.linear(inputs, scale * self.project_in.weight))  # (T, B, H) → (T, B, 2H)
        driven = torch.view_as_complex(pairs.unflatten(-1, self.state_shape))  # (T, B, H)
        eigenvalues = torch.polar(torch.exp(-self.log_nu.exp()), self.log_theta.exp())  # (H,)
        states = linear_scan(eigenvalues.expand_as(driven), driven, torch.view_as_complex(start))
        pairs = torch.view_as_real(states)  # (T, B, H, 2)
        outputs = self.project_out(pairs.flatten(2)) + self.feedthrough * inputs  # (T, B, 2H) → (T, B, H)
        return F.glu(self.glu(F.gelu(outputs))), pairs


class Stack(Backbone):
    """Projections D → H and H → D around L layers, x + dropout(layer(norm(x))). State: that of each layer, (B, L, …).

    differs from both papers: layer normalisation, since batch normalisation makes an output depend on its batch; one width for
    features and units, since sizing turns one; the minimal layers stand alone, without convolution, expansion or MLP, so that
    the recurrence is what is compared; and the LRU's eigenvalues learn at the rate of everything else.
    """

    causal = True

    def __init__(self, features: int, width: int, layers: list[Layer], dropout: float) -> None:
        super().__init__()
        self.project_in = nn.Linear(features, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, features)
        self.state_shape = (len(layers), *layers[0].state_shape)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        (before,) = state or self.initial_state(len(features))
        after = []
        hidden = self.project_in(
            features.transpose(0, 1).contiguous()
        )  # (B, T, D) → (T, B, H), as the scan would have it
        for norm, layer, start in zip(self.norms, self.layers, before.unbind(1), strict=True):
            outputs, states = layer(norm(hidden), start)
            hidden = hidden + self.dropout(outputs)
            after.append(at_the_end(states, start, lengths))
        outputs = self.project_out(self.norm(hidden)).transpose(0, 1)  # (T, B, H) → (B, T, D)
        return outputs, (torch.stack(after, dim=1),)

    def initial_state(self, batch_size: int) -> State:
        return (self.project_in.weight.new_zeros(batch_size, *self.state_shape),)

    def state_bytes(self, t: int) -> int:
        return math.prod(self.state_shape) * self.project_in.weight.element_size()


def at_the_end(states: Tensor, start: Tensor, lengths: Tensor | None) -> Tensor:
    """The state after each sequence's own last step, ``start`` where it has none. states: (T, B, …). start: (B, …)."""
    if lengths is None:
        return states[-1]
    lengths = lengths.to(states.device)
    last = states[(lengths - 1).clamp(min=0), torch.arange(len(start), device=states.device)]  # (B, …)
    return torch.where((lengths == 0).view(-1, *[1] * (start.dim() - 1)), start, last)


def _entry(
    name: str,
    summary: str,
    source: str,
    config: MinimalConfig | LRUConfig,
    layer: Callable[[int, Any], Layer],
    learning_rate: float,
    state: str,
    choices: Mapping[str, Choice],
) -> ModelEntry:
    """layer: makes one of the L layers from the width and the configuration. choices: what else tuning may vary."""

    def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: MinimalConfig | LRUConfig) -> Predictor:
        width = required_width(config.width)
        layers = [layer(width, config) for _ in range(config.n_layers)]
        return NeuralPredictor(inputs, target, Stack(inputs.features, width, layers, config.dropout))

    return ModelEntry(
        name=name,
        family="efficient recurrence",
        config=config,
        build=build,
        fit=Fit.GRADIENT,
        source=source,
        summary=summary,
        width="width",
        learning_rate=learning_rate,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "n_layers": Choice((1, 2, 3)),
            "dropout": Choice((0.0, 0.1, 0.3)),
            **choices,
        },
        state=state,
    )


# Learning rates by hand, on the validation splits of adding, recall and japanese_vowels at 11,500 parameters.
ENTRIES = [
    _entry(
        "mingru",
        "minimal GRU of two layers: a gate that looks at the input alone, trained in parallel over time",
        "Feng et al. 2024",
        MinimalConfig(),
        lambda width, config: Minimal(width, 1, config),
        5e-3,
        "L * H",
        {"candidate": Choice(("linear", "positive")), "forget_bias": Choice((0.0, 1.0, 2.0))},
    ),
    _entry(
        "minlstm",
        "minimal LSTM of two layers: normalised gates that look at the input alone, trained in parallel over time",
        "Feng et al. 2024",
        MinimalConfig(),
        lambda width, config: Minimal(width, 2, config),
        5e-3,
        "L * H",
        {"candidate": Choice(("linear", "positive")), "forget_bias": Choice((0.0, 1.0, 2.0))},
    ),
    _entry(
        "lru",
        "linear recurrent unit of two layers: a complex diagonal recurrence, trained in parallel over time, and gated outputs",
        "Orvieto et al. 2023",
        LRUConfig(),
        LinearRecurrentUnit,
        2e-3,
        "2 * L * H",
        {"r_min": Choice((0.0, 0.5, 0.9))},
    ),
]
