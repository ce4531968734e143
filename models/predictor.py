"""Encoder, backbone, read-out: what every neural model shares.

The encoder (linear, or an embedding of symbols) makes D features of an input, the backbone turns D features over time into
D features, and a linear read-out makes the K outputs. Only the backbone differs between models, and only it is counted by
the parameter budget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import ParameterCounts, Predictor, State
from models.precision import in_float32
from models.sequences import InputSpec, RealInput, TargetSpec
from models.windows import blank_padding


class Backbone(nn.Module, ABC):
    """Features (B, T, D) to features (B, T, D) over time, with the state and lengths of `Predictor`."""

    causal: bool

    @abstractmethod
    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """``state`` None: the beginning; ``lengths`` None: nothing is padded. Padded rows are finite, and unspecified."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State: ...

    @abstractmethod
    def state_bytes(self, t: int) -> int: ...


class NeuralPredictor(Predictor):
    """A backbone between the encoder and the read-out that the task's specs ask for."""

    def __init__(self, inputs: InputSpec, target: TargetSpec, backbone: Backbone) -> None:
        super().__init__()
        width = inputs.features
        self.encoder = (
            nn.Linear(inputs.channels, width)
            if isinstance(inputs, RealInput)
            else nn.Embedding(inputs.vocabulary, width)
        )
        self.encode = affine if isinstance(inputs, RealInput) else embed
        self.backbone = backbone
        self.readout = nn.Linear(width, target.n_outputs)
        self.causal = backbone.causal

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state and not self.causal:
            raise ValueError("a non-causal model takes whole sequences; it carries no state from chunk to chunk")
        if lengths is not None:
            if bool((lengths == inputs.shape[1]).all()):
                lengths = None  # nothing is padded: backbones have a shorter way
            else:
                inputs = blank_padding(inputs, lengths)
        parts = self._modules
        features = self.encode(parts["encoder"], inputs)  # (B, T, C) or (B, T) → (B, T, D)
        features, state = self.backbone(features, state or None, lengths)  # (B, T, D)
        return read_out(parts["readout"], features), state  # (B, T, D) → (B, T, K)

    def initial_state(self, batch_size: int) -> State:
        return self.backbone.initial_state(batch_size)

    def state_bytes(self, t: int) -> int:
        return self.backbone.state_bytes(t)

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(count(self.backbone), count(self.encoder), count(self.readout))


def affine(layer: Any, inputs: Tensor) -> Tensor:
    """A linear layer without the cost of a module's call, which for one step is more than that of its product."""
    weights = layer._parameters
    return F.linear(inputs, weights["weight"], weights["bias"])


read_out = in_float32(affine)
"""The same, whatever the precision of what it reads."""


def embed(layer: Any, tokens: Tensor) -> Tensor:
    """An embedding, likewise."""
    return F.embedding(tokens, layer._parameters["weight"])


def count(module: nn.Module) -> int:
    """Trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def required_width(width: int | None) -> int:
    """The width as an int; raises where neither the configuration nor a budget gave one."""
    if width is None:
        raise ValueError("width is not set; give the trial a parameter_budget or the model a width")
    return width
