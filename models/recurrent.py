"""Recurrent networks: vanilla (tanh), LSTM and GRU; bidirectional; deep. torch's fused implementations.

Vanilla: Elman 1990 (doi 10.1207/s15516709cog1402_1). LSTM: Hochreiter & Schmidhuber 1997 (doi 10.1162/neco.1997.9.8.1735)
with the forget gate of Gers et al. 2000 (doi 10.1162/089976600300015015). GRU: Cho et al. 2014 (arXiv 1406.1078).
Bidirectional: Schuster & Paliwal 1997 (doi 10.1109/78.650093). Forget bias 1: Jozefowicz et al. 2015. Orthogonal recurrent
weights: Saxe et al. 2013 (arXiv 1312.6120).

    tanh   h_t = tanh(W x_t + U h_(t-1) + b)
    LSTM   i, f, o = σ(W x_t + U h_(t-1) + b),  g = tanh(W x_t + U h_(t-1) + b),  c_t = f c_(t-1) + i g,  h_t = o tanh(c_t)
    GRU    r, z = σ(W x_t + U h_(t-1) + b),  n = tanh(W x_t + b + r (U h_(t-1) + b')),  h_t = (1 - z) n + z h_(t-1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.contract import (
    Choice,
    Fit,
    InputSpec,
    LogRange,
    ModelEntry,
    Predictor,
    Scope,
    State,
    TargetSpec,
    accepts_all,
    refuses_causal,
)
from models.predictor import Backbone, NeuralPredictor, required_width

Kind = Literal["rnn", "lstm", "gru"]
LAYERS: dict[Kind, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class RecurrentConfig:
    """Options of a recurrent backbone.

    width: H, units per layer and direction; None: set by the parameter budget. n_layers: L.
    initialisation: ``orthogonal`` recurrent and Xavier input weights per gate with zero biases; ``xavier`` for both; or
    ``default``, torch's uniform. forget_bias: initial bias of the LSTM's forget gate, where initialisation is not default.
    input_dropout: share of the backbone's input features dropped in training; layer_dropout: of the features between layers.
    """

    width: int | None = None
    n_layers: int = 1
    initialisation: Literal["orthogonal", "xavier", "default"] = "orthogonal"
    forget_bias: float = 1.0
    input_dropout: float = 0.0
    layer_dropout: float = 0.0


class Recurrent(Backbone):
    """A stack of fused recurrent layers and a projection H → D.

    State: h, (B, L, H), and for the LSTM c, (B, L, H).
    """

    def __init__(self, kind: Kind, features: int, scope: Scope, bidirectional: bool, config: RecurrentConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        self.causal = not bidirectional
        self.scope = scope
        self.n_states = 2 if kind == "lstm" else 1
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.layers = LAYERS[kind](
            features,
            width,
            config.n_layers,
            batch_first=True,
            dropout=config.layer_dropout if config.n_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.projection = nn.Linear(width * (2 if bidirectional else 1), features)
        if config.initialisation != "default":
            initialise(self.layers, config.initialisation, config.forget_bias)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        before = None if state is None else tuple(part.transpose(0, 1).contiguous() for part in state)  # (L, B, H)
        hidden = before if before is None or self.n_states == 2 else before[0]
        features = self.input_dropout(features)
        if lengths is None:
            outputs, hidden = self.layers(features, hidden)  # (B, T, D) → (B, T, H)
            after = hidden if self.n_states == 2 else (hidden,)
        else:
            outputs, after = self._ragged(features, hidden, lengths)
        if not self.causal:
            return self.projection(self._whole_sequence(outputs)), ()  # (B, T, 2H) → (B, T, D)
        return self.projection(outputs), tuple(part.transpose(0, 1) for part in after)  # (B, T, H) → (B, T, D)

    def _ragged(
        self, features: Tensor, hidden: Tensor | tuple[Tensor, ...] | None, lengths: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Packed, so that the state is the one after each sequence's own last step, and padding costs nothing."""
        packed = pack_padded_sequence(features, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        outputs, hidden_after = self.layers(packed, hidden)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=features.shape[1])  # (B, T, H)
        after = hidden_after if self.n_states == 2 else (hidden_after,)
        if bool((lengths == 0).any()):
            # A packed sequence has at least one step, so sequences without one get the state they came with.
            empty = (lengths == 0).to(features.device)[:, None]  # (B, 1)
            before = tuple(torch.zeros_like(part) for part in after) if hidden is None else hidden
            before = before if isinstance(before, tuple) else (before,)
            after = tuple(torch.where(empty, old, new) for old, new in zip(before, after, strict=True))
        return outputs, after

    def _whole_sequence(self, outputs: Tensor) -> Tensor:
        """For one answer per sequence the backward pass counts where it ends, at step 0: it has then read everything."""
        if self.scope == "step":
            return outputs
        forward, backward = outputs.chunk(2, dim=-1)  # (B, T, H) each
        return torch.cat([forward, backward[:, :1].expand_as(backward)], dim=-1)  # (B, T, 2H)

    def initial_state(self, batch_size: int) -> State:
        if not self.causal:
            return ()
        like = self.projection.weight
        shape = (batch_size, self.layers.num_layers, self.layers.hidden_size)
        return tuple(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(self.n_states))

    def state_bytes(self, t: int) -> int:
        if not self.causal:
            return 0
        return self.n_states * self.layers.num_layers * self.layers.hidden_size * self.projection.weight.element_size()


@torch.no_grad()
def initialise(layers: nn.RNNBase, scheme: Literal["orthogonal", "xavier"], forget_bias: float) -> None:
    """Initial weights gate by gate, since a gate, not the stacked matrix of all gates, is what acts on the state."""
    for name, parameter in layers.named_parameters():
        if parameter.is_meta:
            continue
        gates = parameter.view(-1, layers.hidden_size, *parameter.shape[1:])  # (gates, H, …)
        if "bias" in name:
            parameter.zero_()
            if isinstance(layers, nn.LSTM) and "bias_ih" in name:
                gates[1] = forget_bias  # torch's order of gates: input, forget, cell, output
        else:
            recurrent = "weight_hh" in name
            for gate in gates:
                if recurrent and scheme == "orthogonal":
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.xavier_uniform_(gate)


def _entry(
    name: str,
    summary: str,
    source: str,
    kind: Kind,
    learning_rate: float,
    n_layers: int = 1,
    bidirectional: bool = False,
) -> ModelEntry:
    def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: RecurrentConfig) -> Predictor:
        backbone = Recurrent(kind, inputs.features, target.scope, bidirectional, config)
        return NeuralPredictor(inputs, target, backbone)

    return ModelEntry(
        name=name,
        family="recurrent",
        config=RecurrentConfig(n_layers=n_layers),
        build=build,
        fit=Fit.GRADIENT,
        source=source,
        summary=summary,
        refuses=refuses_causal if bidirectional else accepts_all,
        width="width",
        learning_rate=learning_rate,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "input_dropout": Choice((0.0, 0.1, 0.3)),
            "initialisation": Choice(("orthogonal", "xavier", "default")),
        },
    )


# Learning rates by hand, on adding and japanese_vowels at 20,000 parameters: the plain network diverges or stalls above 1e-3.
ENTRIES = [
    _entry("rnn", "vanilla recurrent network, tanh", "Elman 1990", "rnn", 1e-3),
    _entry("lstm", "long short-term memory", "Hochreiter & Schmidhuber 1997; Gers et al. 2000", "lstm", 5e-3),
    _entry("gru", "gated recurrent unit", "Cho et al. 2014", "gru", 5e-3),
    _entry("bilstm", "LSTM read in both directions", "Schuster & Paliwal 1997", "lstm", 5e-3, bidirectional=True),
    _entry("deep_lstm", "LSTM of three layers", "Graves et al. 2013", "lstm", 5e-3, n_layers=3),
]
