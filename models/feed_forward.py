"""A multi-layer perceptron over a window of the last W steps: the memoryless baseline.

Time delay network of Waibel et al. 1989 (doi 10.1109/29.21701) in its simplest form: what lies further back than W steps
cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, InputSpec, LogRange, ModelEntry, Predictor, State, TargetSpec
from models.predictor import Backbone, NeuralPredictor, required_width
from models.windows import remember


@dataclass(frozen=True)
class FeedForwardConfig:
    """width: H, units of each of the two hidden layers; None: set by the parameter budget. window: W ≥ 1 steps seen.
    dropout: share of hidden units dropped in training."""

    width: int | None = None
    window: int = 16
    dropout: float = 0.0


class FeedForward(Backbone):
    """W steps of D features → H → H → D, at every step. State: the last W - 1 steps, (B, W - 1, D), zeros at first."""

    causal = True

    def __init__(self, features: int, config: FeedForwardConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.features = features
        self.past = config.window - 1
        # A convolution over time is the first dense layer at every step at once.
        self.first = nn.Conv1d(features, width, config.window)
        self.second = nn.Linear(width, width)
        self.projection = nn.Linear(width, features)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        (past,) = state or self.initial_state(len(features))
        window = torch.cat([past, features], dim=1).transpose(1, 2)  # (B, D, W - 1 + T)
        hidden = self.dropout(F.relu(self.first(window))).transpose(1, 2)  # (B, T, H)
        hidden = self.dropout(F.relu(self.second(hidden)))
        return self.projection(hidden), (remember(past, features, self.past, lengths),)  # (B, T, H) → (B, T, D)

    def initial_state(self, batch_size: int) -> State:
        return (self.projection.weight.new_zeros(batch_size, self.past, self.features),)

    def state_bytes(self, t: int) -> int:
        return self.past * self.features * self.projection.weight.element_size()


def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: FeedForwardConfig) -> Predictor:
    return NeuralPredictor(inputs, target, FeedForward(inputs.features, config))


ENTRIES = [
    ModelEntry(
        name="feed_forward",
        family="feed-forward",
        config=FeedForwardConfig(),
        build=build,
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
    )
]
