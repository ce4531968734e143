"""Multi-layer perceptrons: over a window of the last W steps, the memoryless baseline, and over a whole sequence at once.

Window: the time delay network of Waibel et al. 1989 (doi 10.1109/29.21701) in its simplest form: what lies further back than W
steps cannot matter. Whole sequence: Wang, Yan & Oates 2017 (arXiv 1611.06455): all steps as one long vector, three hidden
layers of ReLUs, dropout before each layer; every step has weights of its own, so that a pattern learned at one time is not
known at another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State, refuses_causal
from models.predictor import Backbone, NeuralPredictor, required_width
from models.sequences import InputSpec, RealInput, TargetSpec
from models.windows import TimeConvolution, blank_padding, remember


@dataclass(frozen=True)
class FeedForwardConfig:
    """width: H, units of each of the two hidden layers; None: set by the parameter budget. window: W ≥ 1 steps seen.
    dropout: share of hidden units dropped in training."""

    width: int | None = None
    window: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class FeedForward(Backbone):
    """W steps of D features → H → H → D, at every step. State: the last W - 1 steps, (B, W - 1, D), zeros at first."""

    causal = True

    def __init__(self, features: int, config: FeedForwardConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.features = features
        self.past = config.window - 1
        # A convolution over time is the first dense layer at every step at once.
        self.first = TimeConvolution(features, width, config.window)
        self.second = nn.Linear(width, width)
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        (past,) = state or self.initial_state(len(features))
        joined = torch.cat([past, features], dim=1)  # (B, W - 1 + T, D)
        hidden = self.dropout(F.relu(self.first(joined)))  # (B, T, H)
        hidden = self.dropout(F.relu(self.second(hidden)))
        return self.projection(hidden), (remember(past, features, self.past, lengths),)  # (B, T, H) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        return (self.projection.weight.new_zeros(batch_size, self.past, self.features),)

    def state_bytes(self, t: int) -> int:
        return self.past * self.features * self.projection.weight.element_size()


@dataclass(frozen=True)
class MLPConfig:
    """width: H, units of each of the three hidden layers; None: set by the parameter budget.

    step_features: at most so many numbers of each step go in, by a linear map of its features, for the first layer has a
    weight for each of them at each step of the longest sequence; real inputs of fewer channels give as many as they have.
    input_dropout, hidden_dropout, output_dropout: shares dropped in training before the first layer, the other hidden ones
    and the projection.
    """

    width: int | None = None
    step_features: int = 4
    input_dropout: float = 0.1
    hidden_dropout: float = 0.2
    output_dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.step_features < 1:
            raise ValueError(f"step_features must be at least 1, got {self.step_features}")
        for name in ("input_dropout", "hidden_dropout", "output_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


class WholeSequence(Backbone):
    """T steps of D features → T × step_features → H → H → H → D, once; zeros stand for steps after a sequence's end."""

    causal = False

    def __init__(self, features: int, max_length: int, step_features: int, config: MLPConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.max_length = max_length
        self.step_projection = nn.Linear(features, step_features)
        self.first = nn.Linear(max_length * step_features, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, width)
        self.projection = nn.Linear(width, features)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        n_steps = features.shape[1]
        if n_steps > self.max_length:
            raise ValueError(f"mlp: built for sequences of at most {self.max_length} steps, got {n_steps}")
        steps = blank_padding(self.step_projection(features), lengths).flatten(1)  # (B, T, D) → (B, T × step_features)
        # Zeros up to max_length would add nothing: the weights of later steps are left out instead.
        weight = self.first.weight[:, : steps.shape[1]]
        hidden = F.relu(F.linear(self.input_dropout(steps), weight, self.first.bias))  # (B, H)
        hidden = F.relu(self.second(self.hidden_dropout(hidden)))
        hidden = F.relu(self.third(self.hidden_dropout(hidden)))
        answer = self.projection(self.output_dropout(hidden))  # (B, H) → (B, D)
        return answer[:, None].expand(-1, n_steps, -1), ()  # (B, D) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0


def refuses_mlp(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """All but one answer for a whole sequence of bounded length."""
    if target.scope == "step":
        return "gives one answer per sequence, but the task asks for one at every step"
    if inputs.max_length is None:
        return "has weights for every step of the longest sequence, but the task sets no bound to it"
    return refuses_causal(inputs, target, causal)


def build_feed_forward(inputs: InputSpec, target: TargetSpec, causal: bool, config: FeedForwardConfig) -> Predictor:
    return NeuralPredictor(inputs, target, FeedForward(inputs.features, config))


def build_mlp(inputs: InputSpec, target: TargetSpec, causal: bool, config: MLPConfig) -> Predictor:
    if inputs.max_length is None:
        raise ValueError("mlp: needs max_length, the longest sequence")
    # Encoder and step projection are linear: more numbers than channels would say nothing more.
    channels = inputs.channels if isinstance(inputs, RealInput) else config.step_features
    step_features = min(config.step_features, channels)
    return NeuralPredictor(inputs, target, WholeSequence(inputs.features, inputs.max_length, step_features, config))


ENTRIES = [
    ModelEntry(
        name="feed_forward",
        family="feed-forward",
        config=FeedForwardConfig(),
        build=build_feed_forward,
        fit=Fit.GRADIENT,
        source="Waibel et al. 1989",
        summary="two-layer perceptron over the last 16 steps",
        width="width",
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "window": Choice((4, 8, 16, 32)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state="(W - 1) * D",
    ),
    ModelEntry(
        name="mlp",
        family="feed-forward",
        config=MLPConfig(),
        build=build_mlp,
        fit=Fit.GRADIENT,
        source="Wang, Yan & Oates 2017",
        summary="three-layer perceptron over the whole sequence, zeros after its end, with weights of its own for every step",
        refuses=refuses_mlp,
        width="width",
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "step_features": Choice((2, 4, 8)),
            "hidden_dropout": Choice((0.0, 0.2)),
        },
    ),
]
