"""Recurrent networks: vanilla (tanh, relu), LSTM and GRU; bidirectional; deep. torch's fused layers wherever the options allow.

Vanilla: Elman 1990 (doi 10.1207/s15516709cog1402_1); relu with identity recurrent weights: Le et al. 2015 (arXiv 1504.00941).
LSTM: Hochreiter & Schmidhuber 1997 (doi 10.1162/neco.1997.9.8.1735) with the forget gate of Gers et al. 2000
(doi 10.1162/089976600300015015). GRU: Cho et al. 2014 (arXiv 1406.1078). Bidirectional: Schuster & Paliwal 1997
(doi 10.1109/78.650093). The equations, with layer normalisation and variational dropout, are in `models.recurrent_cells`,
initial weights in `models.recurrent_initialisation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.contract import Choice, Fit, LogRange, ModelEntry, State, accepts_all, refuses_causal
from models.precision import in_float32
from models.predictor import Backbone, NeuralPredictor, affine, required_width
from models.recurrent_cells import ARCHITECTURES, Kind, Norms, Weights, reverse, unroll
from models.recurrent_initialisation import initialise, initialise_chrono
from models.sequences import InputSpec, Scope, TargetSpec, valid_steps


@dataclass(frozen=True)
class RecurrentConfig:
    """Options of a recurrent backbone.

    width: H, units per layer and direction; None: set by the parameter budget. n_layers: L.
    initialisation: recurrent weights ``orthogonal``, ``xavier`` or ``identity``, per gate, with Xavier input weights and zero
    biases; or ``default``, torch's uniform for all. forget_bias: initial bias of the LSTM's forget gate, where initialisation
    is not default. chrono_steps: the longest dependency expected, for the biases of chrono initialisation; None: without it.
    input_dropout: share of the backbone's input features dropped in training; layer_dropout: of the features between layers;
    recurrent_dropout: of the recurrent state, the same units at every step of a sequence. layer_norm: layer normalisation
    inside the cell. residual: each layer after the first adds its input to its output.
    recurrent_dropout in training, and layer_norm, run step by step, two to four times slower than the fused layers.
    """

    width: int | None = None
    n_layers: int = 1
    initialisation: Literal["orthogonal", "xavier", "identity", "default"] = "orthogonal"
    forget_bias: float = 1.0
    chrono_steps: int | None = None
    input_dropout: float = 0.0
    layer_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    layer_norm: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "n_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("input_dropout", "layer_dropout", "recurrent_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share and must lie in 0 … 1, below 1; got {getattr(self, name)}")
        if self.chrono_steps is not None and self.chrono_steps < 3:
            raise ValueError(f"chrono_steps must be at least 3 steps, got {self.chrono_steps}; write null for none")


class Recurrent(Backbone):
    """A stack of recurrent layers and a projection H → D.

    State: h, (B, L, H), and for the LSTM c, (B, L, H). In training with recurrent dropout its mask, (B, L, H), drawn once per
    sequence, goes with them.
    """

    def __init__(self, kind: Kind, features: int, scope: Scope, bidirectional: bool, config: RecurrentConfig) -> None:
        super().__init__()
        self.width = required_width(config.width)
        self.config = config
        self.causal = not bidirectional
        self.steps = self.causal and not config.layer_norm
        self.scope = scope
        self.kind = ARCHITECTURES[kind]
        self.n_directions = 2 if bidirectional else 1
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.layer_dropout = nn.Dropout(config.layer_dropout)
        # One fused block of L layers; with residual connections L blocks of one, for they run between the layers.
        n_blocks, self.depth = (config.n_layers, 1) if config.residual else (1, config.n_layers)
        read = self.width * self.n_directions
        self.fused = tuple(
            self.kind.layers(
                read if i > 0 else features,
                self.width,
                self.depth,
                batch_first=True,
                dropout=config.layer_dropout if self.depth > 1 else 0.0,
                bidirectional=bidirectional,
            )
            for i in range(n_blocks)
        )
        # The same, registered; the plain tuple is read without a search by name.
        self.blocks = nn.ModuleList(self.fused)
        # Tensors of a block: W, U, b and b' of each layer and direction.
        self.n_weights = 4 * self.depth * self.n_directions
        self.projection = nn.Linear(read, features)
        self.norms = nn.ModuleList(
            Norms(self.kind, self.width, config.layer_norm) for _ in range(config.n_layers * self.n_directions)
        )
        for block in self.fused:
            if config.initialisation != "default":
                initialise(block, config.initialisation, config.forget_bias)
            if config.chrono_steps is not None:
                initialise_chrono(block, config.chrono_steps)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        before = None if state is None else state[: self.kind.n_states]
        if self.steps and not self.training and features.shape[1] == 1:
            outputs, after = self._run_step(features, before or self._zeros(len(features)), lengths)
            return affine(self._modules["projection"], outputs), after  # (B, 1, H) → (B, 1, D)
        features = self.input_dropout(features)
        if self.config.layer_norm or self._masked():
            mask = self._mask(state, len(features)) if self._masked() else None
            outputs, after = self._run_cells(features, before or self._zeros(len(features)), mask, lengths)
            after = after if mask is None else (*after, mask)
        else:
            outputs, after = self._run_fused(features, before, lengths)
        if not self.causal:
            return self.projection(self._whole_sequence(outputs)), ()  # (B, T, 2H) → (B, T, D)
        return self.projection(outputs), after  # (B, T, H) → (B, T, D)

    @in_float32
    def _run_fused(self, features: Tensor, before: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """Block by block: features (B, T, D) → (B, T, H), and the state, (B, L, H) each part."""
        hidden, states = features, []
        for i, block in enumerate(self.fused):
            rows = slice(i * self.depth, (i + 1) * self.depth)
            begins = None if before is None else tuple(part[:, rows].transpose(0, 1).contiguous() for part in before)
            outputs, after = self._block(block, self.layer_dropout(hidden) if i > 0 else hidden, begins, lengths)
            hidden = outputs + hidden if i > 0 else outputs
            states.append(after)
        joined = states[0] if len(states) == 1 else tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        after = tuple(part.transpose(0, 1) for part in joined)  # (L, B, H) → (B, L, H)
        return hidden, after if lengths is None else self._keep_where_empty(before, after, lengths)

    def _block(
        self, block: nn.RNNBase, inputs: Tensor, before: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """One fused block, its state (L, B, H). Packed where sequences end early, so that the state is the one after each
        sequence's own last step, and padding costs nothing."""
        hidden = before if before is None or self.kind.n_states == 2 else before[0]
        if lengths is None:
            outputs, after = block(inputs, hidden)  # (B, T, D) → (B, T, H)
        else:
            packed = pack_padded_sequence(inputs, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
            outputs, after = block(packed, hidden)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])  # (B, T, H)
        return outputs, after if self.kind.n_states == 2 else (after,)

    @in_float32
    def _run_step(self, features: Tensor, before: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """A chunk of one step, (B, 1, D) → (B, 1, H), by torch's cells: the same numbers without the cost of a sequence.

        Written for latency: here a microsecond counts, so views are taken by the calls that make them fastest.
        """
        hidden = features.squeeze(1)  # (B, 1, D) → (B, D)
        if self.config.n_layers == 1:
            block: Any = self.fused[0]
            states = self.kind.step(hidden, [part.squeeze(1) for part in before], block._flat_weights)  # (B, H)
            after = tuple([part.unsqueeze(1) for part in states])  # (B, H) → (B, 1, H)
            outputs = after[0]
        else:
            layers = []
            for layer, weights in enumerate(self._weights()):
                step = self.kind.step(hidden, [part.select(1, layer) for part in before], weights)
                hidden = step[0] + hidden if layer > 0 and self.config.residual else step[0]
                layers.append(step)
            after, outputs = _layers(layers), hidden.unsqueeze(1)  # (B, 1, H)
        return outputs, after if lengths is None else self._keep_where_empty(before, after, lengths)

    @in_float32
    def _run_cells(
        self, features: Tensor, before: State, mask: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Layer by layer and step by step, by the readable cells: features (B, T, D) → (B, T, H), and the state (B, L, H)."""
        valid = None
        if lengths is not None:
            valid = valid_steps(lengths, features.shape[1]).to(features.device)[..., None]  # (B, T, 1)
        all_weights = self._weights()
        hidden, states = features, []
        for layer in range(self.config.n_layers):
            inputs = self.layer_dropout(hidden) if layer > 0 else hidden
            passes = []
            for direction in range(self.n_directions):
                row = layer * self.n_directions + direction
                outputs, after = unroll(
                    self.kind.cell,
                    all_weights[row],
                    cast(Norms, self.norms[row]),
                    reverse(inputs, lengths) if direction else inputs,
                    tuple(part[:, row] for part in before),
                    None if mask is None else mask[:, row],
                    valid,
                )
                passes.append(reverse(outputs, lengths) if direction else outputs)
                states.append(after)
            outputs = torch.cat(passes, dim=-1) if len(passes) > 1 else passes[0]  # (B, T, H) or (B, T, 2H)
            hidden = outputs + hidden if self.config.residual and layer > 0 else outputs
        return hidden, _layers(states)

    def _weights(self) -> list[Weights]:
        """Layer by layer, each layer's directions side by side. From torch's own list, which it keeps current when weights
        are moved or replaced: by their names they would take longer to find than a cell takes to compute."""
        blocks: tuple[Any, ...] = self.fused
        return [block._flat_weights[i : i + 4] for block in blocks for i in range(0, self.n_weights, 4)]

    def _keep_where_empty(self, before: State | None, after: State, lengths: Tensor) -> State:
        """Sequences without a valid step in this chunk get the state they came with."""
        if not bool((lengths == 0).any()):
            return after
        empty = (lengths == 0).to(after[0].device)[:, None, None]  # (B, 1, 1)
        before = before or tuple(torch.zeros_like(part) for part in after)
        return tuple(torch.where(empty, old, new) for old, new in zip(before, after, strict=True))

    def _whole_sequence(self, outputs: Tensor) -> Tensor:
        """For one answer per sequence the backward pass counts where it ends, at step 0: it has then read everything."""
        if self.scope == "step":
            return outputs
        forward, backward = outputs.chunk(2, dim=-1)  # (B, T, H) each
        return torch.cat([forward, backward[:, :1].expand_as(backward)], dim=-1)  # (B, T, 2H)

    def _zeros(self, batch_size: int) -> State:
        shape = (batch_size, self.config.n_layers * self.n_directions, self.width)
        return tuple(self.projection.weight.new_zeros(shape) for _ in range(self.kind.n_states))

    def _mask(self, state: State | None, batch_size: int) -> Tensor:
        """The recurrent state's, (B, L, H): 0 for units dropped, 1 / (1 - share) for the others, so that the mean stays. Drawn
        where a sequence begins, or comes from evaluation and has none."""
        if state is not None and len(state) > self.kind.n_states:
            return state[-1]
        shape = (batch_size, self.config.n_layers * self.n_directions, self.width)
        return F.dropout(self.projection.weight.new_ones(shape), self.config.recurrent_dropout)

    def _masked(self) -> bool:
        return self.training and self.config.recurrent_dropout > 0

    def initial_state(self, batch_size: int) -> State:
        if not self.causal:
            return ()
        zeros = self._zeros(batch_size)
        return (*zeros, self._mask(None, batch_size)) if self._masked() else zeros

    def state_bytes(self, t: int) -> int:
        if not self.causal:
            return 0
        parts = self.kind.n_states + self._masked()
        return parts * self.config.n_layers * self.width * self.projection.weight.element_size()


def _layers(states: list[State]) -> State:
    """The states of L layers, (B, H) each part, as one, (B, L, H) each part; of a single layer nothing is copied."""
    if len(states) == 1:
        return tuple([part.unsqueeze(1) for part in states[0]])
    return tuple(torch.stack(parts, dim=1) for parts in zip(*states, strict=True))


def _entry(
    name: str,
    summary: str,
    source: str,
    kind: Kind,
    learning_rate: float,
    config: RecurrentConfig = RecurrentConfig(),
    bidirectional: bool = False,
) -> ModelEntry:
    def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: RecurrentConfig) -> NeuralPredictor:
        return NeuralPredictor(inputs, target, Recurrent(kind, inputs.features, target.scope, bidirectional, config))

    n_states = ARCHITECTURES[kind].n_states
    return ModelEntry(
        name=name,
        family="recurrent",
        config=config,
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
            "initialisation": Choice(
                (*(("identity",) if kind == "rnn_relu" else ()), "orthogonal", "xavier", "default")
            ),
            **(DEEP_SEARCH_SPACE if config.n_layers > 1 else {}),
        },
        state="0" if bidirectional else "2 * L * H" if n_states == 2 else "L * H",
    )


DEEP_SEARCH_SPACE: dict[str, Choice | LogRange] = {
    "layer_dropout": Choice((0.0, 0.1, 0.3)),
    "residual": Choice((False, True)),
}
DEEP = RecurrentConfig(n_layers=3)

# Learning rates by hand, on the validation of adding and japanese_vowels at 20,000 parameters: the tanh network diverges or
# stalls above 1e-3, on its own, stacked and in both directions; relu begins as a sum and takes 3e-3; gates take 2e-3 … 1e-2.
ENTRIES = [
    _entry("rnn", "vanilla recurrent network, tanh", "Elman 1990", "rnn", 1e-3),
    _entry(
        "rnn_relu",
        "vanilla recurrent network, relu, recurrent weights the identity at first",
        "Le et al. 2015",
        "rnn_relu",
        3e-3,
        RecurrentConfig(initialisation="identity"),
    ),
    _entry("lstm", "long short-term memory", "Hochreiter & Schmidhuber 1997; Gers et al. 2000", "lstm", 5e-3),
    _entry("gru", "gated recurrent unit", "Cho et al. 2014", "gru", 5e-3),
    _entry(
        "birnn", "vanilla network read in both directions", "Schuster & Paliwal 1997", "rnn", 1e-3, bidirectional=True
    ),
    _entry("bilstm", "LSTM read in both directions", "Schuster & Paliwal 1997", "lstm", 5e-3, bidirectional=True),
    _entry("bigru", "GRU read in both directions", "Schuster & Paliwal 1997", "gru", 5e-3, bidirectional=True),
    _entry("deep_rnn", "vanilla network of three layers", "Pascanu et al. 2014", "rnn", 1e-3, DEEP),
    _entry("deep_lstm", "LSTM of three layers", "Graves et al. 2013", "lstm", 5e-3, DEEP),
    _entry("deep_gru", "GRU of three layers", "Chung et al. 2015", "gru", 5e-3, DEEP),
]
