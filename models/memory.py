"""Recurrence with an external memory, and an associative memory over the past.

gru_memory: the neural Turing machine of Graves et al. 2014 (arXiv 1410.5401), its heads addressing by content alone, with a GRU
as controller. With N slots M(i), and with keys k, an erase vector 0 < e < 1 and an add vector a made of h_t by a linear map:

    h_t = GRU([x_t; r_(t-1)], h_(t-1))
    w(i) = softmax over i of |k| cos(k, M_(t-1)(i)), for the reading and for the writing head
    r_t = Σ_i w_read(i) M_(t-1)(i);   M_t(i) = M_(t-1)(i) ∘ (1 - w_write(i) e) + w_write(i) a;   y_t = W [h_t; r_t]

hopfield: the modern Hopfield network of Ramsauer et al. 2020 (arXiv 2008.02217). The stored patterns k_j, one a step, and the
state ξ that looks for one of them lie in one space, turned there by their positions (R_j; Su et al. 2021, arXiv 2104.09864):

    ξ ← Σ_j p_j R_j k_j,  p = softmax over j of β ξ · R_j k_j,  t - context < j ≤ t,  n_updates times from ξ = R_t q_t
    a_t = u_t + V Σ_j p_j k_j with the last p;   y_t = a_t + FF(norm(a_t))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State
from models.hybrids import require
from models.precision import in_float32
from models.predictor import Backbone, NeuralPredictor, required_width
from models.recurrent import initialise
from models.sequences import InputSpec, TargetSpec, valid_steps
from models.transformer import rotate
from models.windows import TimeConvolution, reachable, remember

SMALLEST_NORM = 1e-6
"""Added to the norms of slots, so that an empty one has a cosine of zero with every key."""


@dataclass(frozen=True)
class GRUMemoryConfig:
    """width: H, units of the controller; None: set by the parameter budget. n_slots: N ≥ 1, slots of the memory.

    slot_width: M ≥ 1, numbers in a slot. dropout: share of values dropped in training before the projection.
    """

    width: int | None = None
    n_slots: int = 16
    slot_width: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self, {"n_slots": 1, "slot_width": 1})


class GRUMemory(Backbone):
    """A GRU that reads from and writes to N slots of M numbers, and a projection H + M → D.

    differs from Graves et al.: without addressing by location, slots that begin alike would stay alike, so what they begin with
    is learnt; a key's length is its strength, which saves a third of a step's operations; and a step reads before it writes, so
    that one comparison with the memory serves both heads.

    State: h, (B, 1, H); the memory, (B, N, M); what was read last, (B, 1, M).
    """

    causal = True

    def __init__(self, features: int, config: GRUMemoryConfig) -> None:
        super().__init__()
        width = required_width(config.width)
        n_slots, slot_width = config.n_slots, config.slot_width
        self.inputs = (features, slot_width)
        self.parts = (2 * width, width, 2 * slot_width, slot_width, slot_width)
        # torch's layer holds the weights, but its loop cannot be used: a step needs what the one before has read.
        self.controller = nn.GRU(features + slot_width, width)
        self.interface = nn.Linear(width, sum(self.parts[2:]))
        self.start = nn.Parameter(torch.randn(n_slots, slot_width) / slot_width**0.5)
        self.projection = nn.Linear(width + slot_width, features)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self.controller, "orthogonal", 0.0)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        found, after = self._recur(features, state, lengths)
        return self.projection(self.dropout(found)), after  # (B, T, H + M) → (B, T, D)

    @in_float32
    def _recur(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """h_t beside r_t, (B, T, H + M), and the state."""
        first_hidden, memory, first_read = state or self.initial_state(len(features))
        hidden, read = first_hidden.squeeze(1), first_read.squeeze(1)  # (B, H), (B, M)
        weight_input, weight_hidden, bias_input, bias_hidden = self.controller.parameters()
        from_features, from_read = weight_input.split(self.inputs, dim=1)  # (3H, D), (3H, M)
        from_read = from_read.T  # (M, 3H)
        steps = F.linear(features, from_features, bias_input).unbind(1)  # (B, T, D) → T × (B, 3H)
        valid = None if lengths is None else valid_steps(lengths, len(steps)).to(features)[..., None].unbind(1)
        # Of each h, what the next step needs and what the heads do are one product.
        weight = torch.cat([weight_hidden, self.interface.weight]).T  # (H, 3H + 4M)
        bias = torch.cat([bias_hidden, self.interface.bias]).expand(len(features), -1)  # (B, 3H + 4M)
        gates_and_candidate = self.parts[:2]
        own_gates, own_candidate = F.linear(hidden, weight_hidden, bias_hidden).split(gates_and_candidate, dim=1)
        outputs, reads = [], []
        for t, step in enumerate(steps):
            gates, candidate = torch.addmm(step, read, from_read).split(gates_and_candidate, dim=1)
            reset, update = torch.sigmoid(gates + own_gates).chunk(2, dim=1)  # (B, H) each
            hidden = torch.lerp(torch.tanh(torch.addcmul(candidate, reset, own_candidate)), hidden, update)
            parts = torch.addmm(bias, hidden, weight).split(self.parts, dim=1)
            own_gates, own_candidate, keys, erase, add = parts
            reading, writing = address(memory, keys.unflatten(1, (2, -1))).unbind(1)
            read = torch.bmm(reading.unsqueeze(1), memory).squeeze(1)  # (B, 1, N) × (B, N, M) → (B, M)
            memory = write(memory, writing if valid is None else writing * valid[t], torch.sigmoid(erase), add)
            outputs.append(hidden)
            reads.append(read)
        all_hidden, all_read = torch.stack(outputs, dim=1), torch.stack(reads, dim=1)  # (B, T, H), (B, T, M)
        after = (remember(first_hidden, all_hidden, 1, lengths), memory, remember(first_read, all_read, 1, lengths))
        return torch.cat([all_hidden, all_read], dim=-1), after

    def initial_state(self, batch_size: int) -> State:
        hidden = self.start.new_zeros(batch_size, 1, self.controller.hidden_size)
        return hidden, self.start.expand(batch_size, -1, -1), self.start.new_zeros(batch_size, 1, self.start.shape[1])

    def state_bytes(self, t: int) -> int:
        n_slots, slot_width = self.start.shape
        return (self.controller.hidden_size + (n_slots + 1) * slot_width) * self.start.element_size()


def address(memory: Tensor, keys: Tensor) -> Tensor:
    """Which share of its attention a head gives to each slot: memory (B, N, M), keys (B, heads, M) → (B, heads, N)."""
    norms = torch.linalg.vector_norm(memory, dim=-1) + SMALLEST_NORM  # (B, N)
    return torch.softmax(torch.bmm(keys, memory.transpose(1, 2)) / norms.unsqueeze(1), dim=-1)


def write(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """M ∘ (1 - w eᵀ) + w aᵀ, taken together as M + w (a - e ∘ M): memory (B, N, M), weights (B, N), erase and add (B, M)."""
    change = torch.addcmul(add.unsqueeze(1), erase.unsqueeze(1), memory, value=-1)  # (B, N, M)
    return torch.addcmul(memory, weights.unsqueeze(2), change)


@dataclass(frozen=True)
class HopfieldConfig:
    """width: H, even, numbers in a pattern; None: set by the parameter budget.

    n_updates: steps of the update rule, at least one; one finds patterns that lie well apart, as the paper proves.
    beta: inverse temperature in units of 1 / √H, above 0: low ones retrieve an average of many patterns, high ones the nearest.
    learn_beta: it is learnt, starting there, or stays there. context: patterns of at most this many steps are stored, the
    current one's included. dropout: share of values dropped in training after retrieval and feed-forward.
    """

    width: int | None = None
    n_updates: int = 1
    beta: float = 1.0
    learn_beta: bool = True
    context: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self, {"n_updates": 1, "context": 1})
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")


class Hopfield(Backbone):
    """A convolution of two steps D → H, retrieval from the patterns of the past, feed-forward, a projection H → D.

    A memory of contents alone could not say what came after what. So each pattern holds a step and the one before it, which
    binds a value to the key that it followed, and patterns are turned by their positions, which tells equal ones apart. The
    convolution starts blind to the step before, and learns to look where that helps: seeing both from the start made the adding
    problem harder to learn. Patterns are layer-normalised to one length, as in the paper, so that the one with the largest
    product is the nearest. Keys and values are both made of them, so one vector a step is carried, half of a Transformer's two.

    State: steps seen so far, (B,) int64; the last step's features, (B, 1, D), zeros at first; the stored patterns, (B, P, H),
    not turned, newest last and P < context.
    """

    causal = True
    frequencies: Tensor
    log_beta: Tensor

    def __init__(self, features: int, config: HopfieldConfig) -> None:
        super().__init__()
        self.features, self.width = features, required_width(config.width)
        self.n_updates, self.context = config.n_updates, config.context
        if self.width % 2:
            raise ValueError(f"hopfield: width {self.width} is not even, and positions turn pairs of numbers")
        self.project_in = TimeConvolution(features, self.width, 2)
        if not self.project_in.weight.is_meta:
            nn.init.zeros_(self.project_in.weight[:, :, 0])
        self.norm = nn.LayerNorm(self.width)
        self.states_patterns = nn.Linear(self.width, 2 * self.width)
        log_beta = torch.tensor(config.beta).log()  # a logarithm, so that it stays above 0
        if config.learn_beta:
            self.log_beta = nn.Parameter(log_beta)
        else:
            self.register_buffer("log_beta", log_beta)
        self.values = nn.Linear(self.width, self.width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(self.width),
            nn.Linear(self.width, 4 * self.width),
            nn.GELU(),
            nn.Linear(4 * self.width, self.width),
        )
        self.norm_out = nn.LayerNorm(self.width)
        self.project_out = nn.Linear(self.width, features)
        self.dropout = nn.Dropout(config.dropout)
        frequencies = 10_000.0 ** (-torch.arange(0, self.width, 2, dtype=torch.float64) / self.width)
        self.register_buffer("frequencies", frequencies, persistent=False)  # (H / 2,)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        n_steps = features.shape[1]
        seen, last, past = state or self.initial_state(len(features))
        n_past = past.shape[1]
        inputs = self.project_in(torch.cat([last, features], dim=1))  # (B, T, H)
        projected = self.states_patterns(self.norm(inputs)).unflatten(2, (2, self.width))  # (B, T, 2, H)
        queries, patterns = F.layer_norm(projected, (self.width,)).unbind(2)  # (B, T, H) each
        stored = patterns if n_past == 0 else torch.cat([past, patterns], dim=1)  # (B, P + T, H)
        mask = None if n_past == 0 and n_steps <= self.context else reachable(seen, n_past, n_steps, self.context)
        rotation = self._rotation(n_past + n_steps, features.dtype)
        beta = self.log_beta.exp() / self.width**0.5
        retrieved = retrieve(queries, stored, rotation, beta, self.n_updates, mask)  # (B, T, H)
        hidden = inputs + self.dropout(self.values(retrieved))
        hidden = hidden + self.dropout(self.feed_forward(hidden))
        kept = min(self.context - 1, n_past + (n_steps if lengths is None else int(lengths.max())))
        seen = seen + (n_steps if lengths is None else lengths.to(seen.device))
        after = (seen, remember(last, features, 1, lengths), remember(past, patterns, kept, lengths))
        return self.project_out(self.norm_out(hidden)), after  # (B, T, H) → (B, T, D)

    def _rotation(self, n_positions: int, dtype: torch.dtype) -> Tensor:
        """cos and sin of position × frequency, (2, 1, P + T, H / 2). Only differences of positions matter, so they count from
        the oldest pattern at hand; angles in float64, for they grow with position."""
        positions = torch.arange(n_positions, device=self.frequencies.device)  # (P + T,)
        angles = positions[None, :, None] * self.frequencies.double()  # (1, P + T, H / 2)
        return torch.stack([angles.cos(), angles.sin()]).to(torch.promote_types(dtype, torch.float32))

    def initial_state(self, batch_size: int) -> State:
        like = self.project_out.weight
        seen = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return seen, like.new_zeros(batch_size, 1, self.features), like.new_zeros(batch_size, 0, self.width)

    def state_bytes(self, t: int) -> int:
        return 8 + (self.features + min(t, self.context - 1) * self.width) * self.project_out.weight.element_size()


def retrieve(
    queries: Tensor, stored: Tensor, rotation: Tensor, beta: Tensor, n_updates: int, mask: Tensor | None
) -> Tensor:
    """What ``n_updates`` steps of the update rule from queries (B, T, H) retrieve from the stored patterns (B, P + T, H).

    rotation: cos and sin, (2, 1, P + T, H / 2), of each pattern's position, those of the queries last. mask: (B, T, P + T),
    where a query may look; None: at itself and before. The patterns are turned where they are compared, not where they are
    the result: what is retrieved does not depend on when it was stored. Returns (B, T, H).
    """
    turned = rotate(stored, rotation)
    states = rotate(queries, rotation[:, :, -queries.shape[1] :])
    for update in range(1, n_updates + 1):
        result = stored if update == n_updates else turned
        states = F.scaled_dot_product_attention(
            beta * states, turned, result, attn_mask=mask, is_causal=mask is None, scale=1.0
        )
    return states


def build_gru_memory(inputs: InputSpec, target: TargetSpec, causal: bool, config: GRUMemoryConfig) -> Predictor:
    return NeuralPredictor(inputs, target, GRUMemory(inputs.features, config))


def build_hopfield(inputs: InputSpec, target: TargetSpec, causal: bool, config: HopfieldConfig) -> Predictor:
    return NeuralPredictor(inputs, target, Hopfield(inputs.features, config))


ENTRIES = [
    ModelEntry(
        name="gru_memory",
        family="hybrid",
        config=GRUMemoryConfig(),
        build=build_gru_memory,
        fit=Fit.GRADIENT,
        source="Graves et al. 2014",
        summary="GRU that reads and writes sixteen slots of an external memory, addressed by content",
        width="width",
        learning_rate=5e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 3e-2),
            "n_slots": Choice((8, 16, 32)),
            "slot_width": Choice((8, 16, 24)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state="H + (n_slots + 1) * slot_width",
    ),
    ModelEntry(
        name="hopfield",
        family="hybrid",
        config=HopfieldConfig(),
        build=build_hopfield,
        fit=Fit.GRADIENT,
        source="Ramsauer et al. 2020; rotary positions: Su et al. 2021",
        summary="modern Hopfield network: retrieves from the patterns of the past, at a learnt temperature",
        width="width",
        width_multiple=2,
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 1e-2),
            "n_updates": Choice((1, 2, 3)),
            "beta": Choice((0.5, 1.0, 2.0)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state="1 + D + H * min(t, context - 1)",
    ),
]
