"""Transformers: causal with a sliding key/value cache of bounded length, and bidirectional over whole sequences.

Vaswani et al. 2017 (arXiv 1706.03762), whose positions are the sinusoidal ones; pre-norm: Xiong et al. 2020 (arXiv 2002.04745);
rotary positions: Su et al. 2021 (arXiv 2104.09864); learned positions: Gehring et al. 2017 (arXiv 1705.03122);
bidirectional: Devlin et al. 2019 (arXiv 1810.04805).

    a = x + O softmax(R_i q_i · R_j k_j / √d) v_j over the steps j with i - context < j ≤ i;   y = a + FF(norm(a))

Bidirectional: over the steps j with |i - j| < context. Learned and sinusoidal positions are added to the features before the
first block, and R is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, LogRange, ModelEntry, Predictor, State, accepts_all, refuses_causal
from models.predictor import Backbone, NeuralPredictor, required_width
from models.sequences import InputSpec, Scope, TargetSpec
from models.windows import blank_padding, reachable, remember

PositionKind = Literal["rotary", "learned", "sinusoidal"]


@dataclass(frozen=True)
class TransformerConfig:
    """width: H, a multiple of 2 × n_heads; None: set by the parameter budget. n_layers: L. n_heads: attention heads.

    positions: ``rotary``, queries and keys are turned by their step, so that attention sees distances; ``learned``, a table
    with a row for each step of the task's longest sequence, part of the backbone's parameters; or ``sinusoidal``, fixed waves.
    context: attention reaches at most this many steps back, its own included; if bidirectional, as many to either side.
    dropout: share of values dropped in training after attention and feed-forward.
    """

    width: int | None = None
    n_layers: int = 2
    n_heads: int = 2
    positions: PositionKind = "rotary"
    context: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class Positions(nn.Module):
    """Tells the blocks where steps stand: by what is added to their features, or by how queries and keys are turned.

    Position p has the angles p · 10000^(-2i/d), with d the width of a head for ``rotary`` and H for ``sinusoidal``, which adds
    sin and cos of angle i as features 2i and 2i + 1.
    """

    frequencies: Tensor

    def __init__(self, kind: PositionKind, width: int, n_heads: int, max_length: int | None) -> None:
        super().__init__()
        self.kind = kind
        repeats = n_heads if kind == "rotary" else 1
        span = width // repeats
        frequencies = 10_000.0 ** (-torch.arange(0, span, 2, dtype=torch.float64) / span)
        self.register_buffer("frequencies", frequencies.repeat(repeats), persistent=False)  # (H / 2,)
        if kind == "learned":
            if max_length is None:
                raise ValueError(
                    "learned positions need to know the longest sequence, which this task leaves open; "
                    "set positions to rotary or sinusoidal"
                )
            # Small beside the features, so that they do not drown what is read at the beginning of training.
            self.table = nn.Parameter(0.02 * torch.randn(max_length, width))

    def forward(self, features: Tensor, seen: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """features (B, T, H) after ``seen`` steps, (B,) or (1,) → features, and the rotation (2, B or 1, T, H / 2) or None.

        Raises ValueError where a sequence goes on for longer than there are learned positions.
        """
        positions = seen[:, None] + torch.arange(features.shape[1], device=seen.device)  # (B or 1, T)
        if self.kind == "learned":
            last = int((seen.cpu() + (features.shape[1] if lengths is None else lengths)).max())
            if last > len(self.table):
                raise ValueError(
                    f"there are {len(self.table)} learned positions, and a sequence of {last} steps; "
                    "set positions to rotary or sinusoidal for sequences longer than the task's max_length"
                )
            return features + self.table[positions.clamp(max=len(self.table) - 1)], None
        # Angles grow with position, so that float32 would lose their fraction.
        angles = positions[..., None] * self.frequencies.double()  # (B or 1, T, H / 2)
        if self.kind == "sinusoidal":
            waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)  # (B or 1, T, H)
            return features + waves.to(features.dtype), None
        return features, torch.stack([angles.cos(), angles.sin()]).to(
            torch.promote_types(features.dtype, torch.float32)
        )


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised input and added to it."""

    def __init__(self, width: int, config: TransformerConfig, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.n_heads = config.n_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, inputs: Tensor, past_keys: Tensor, past_values: Tensor, rotation: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """inputs (B, T, H), past (B, P, H), rotation as for `rotate`, mask (B or 1, 1, T, P + T) of what each query may see,
        None: all but the future if causal, else all → outputs, keys, values (B, T, H)."""
        queries, keys, values = self.queries_keys_values(self.attention_norm(inputs)).chunk(3, dim=-1)
        if rotation is not None:
            queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        begins = past_keys.shape[1] == 0  # then there is nothing to copy together
        attended = F.scaled_dot_product_attention(
            self._heads(queries),
            self._heads(keys if begins else torch.cat([past_keys, keys], dim=1)),
            self._heads(values if begins else torch.cat([past_values, values], dim=1)),
            attn_mask=mask,
            is_causal=self.causal and mask is None,
        )  # (B, heads, T, H / heads)
        attended = attended.transpose(1, 2).flatten(2)  # (B, T, H)
        outputs = inputs + self.dropout(self.attention_out(attended))
        return outputs + self.dropout(self.feed_forward(outputs)), keys, values

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B, T, H) → (B, heads, T, H / heads)


class Transformer(Backbone):
    """L blocks between projections D → H and H → D; bidirectional with one answer per sequence: of the mean over its steps.

    State if causal: steps seen so far, (B,) int64, then keys and values of each layer, (B, P, H), newest last and P < context.
    A sequence that has seen fewer than P steps has its own at the end and rows to be masked before them.
    """

    def __init__(
        self, features: int, scope: Scope, max_length: int | None, bidirectional: bool, config: TransformerConfig
    ) -> None:
        super().__init__()
        self.causal = not bidirectional
        self.scope = scope
        self.width = required_width(config.width)
        if self.width % (2 * config.n_heads):
            raise ValueError(f"transformer: width {self.width} is not a multiple of 2 × n_heads = {2 * config.n_heads}")
        self.context = config.context
        self.project_in = nn.Linear(features, self.width)
        self.blocks = nn.ModuleList(Block(self.width, config, self.causal) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(self.width)
        self.project_out = nn.Linear(self.width, features)
        self.positions = Positions(config.positions, self.width, config.n_heads, max_length)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        hidden = self.project_in(features)  # (B, T, D) → (B, T, H)
        if not self.causal:
            return self._whole_sequence(hidden, lengths), ()
        n_steps = hidden.shape[1]
        seen, *past = state or self._beginning(len(hidden))
        n_past = past[0].shape[1]
        hidden, rotation = self.positions(hidden, seen if state else seen[:1], lengths)
        mask = None  # of what each query may see, where that is not simply all before it
        if n_past > 0 or n_steps > self.context:
            mask = reachable(seen, n_past, n_steps, self.context)[:, None]  # (B, 1, T, P + T)
        kept = min(self.context - 1, n_past + (n_steps if lengths is None else int(lengths.max())))
        after = [seen + (n_steps if lengths is None else lengths.to(seen.device))]
        for block, past_keys, past_values in zip(self.blocks, past[::2], past[1::2], strict=True):
            hidden, keys, values = block(hidden, past_keys, past_values, rotation, mask)
            after += [remember(past_keys, keys, kept, lengths), remember(past_values, values, kept, lengths)]
        return self.project_out(self.norm(hidden)), tuple(after)  # (B, T, H) → (B, T, D)

    def _whole_sequence(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        n_steps = hidden.shape[1]
        start = torch.zeros(1, dtype=torch.int64, device=hidden.device)
        hidden, rotation = self.positions(hidden, start, lengths)
        all_seen = lengths is None and n_steps <= self.context
        mask = None if all_seen else self._whole_mask(lengths, n_steps, hidden.device)
        nothing = hidden[:, :0]
        for block in self.blocks:
            hidden, _, _ = block(hidden, nothing, nothing, rotation, mask)
        hidden = self.norm(hidden)
        if self.scope == "step":
            return self.project_out(hidden)  # (B, T, H) → (B, T, D)
        total = blank_padding(hidden, lengths).sum(1, keepdim=True)  # (B, 1, H)
        n_valid = n_steps if lengths is None else lengths.clamp(min=1).to(total.device)[:, None, None]
        return self.project_out(total / n_valid).expand(-1, n_steps, -1)  # (B, 1, H) → (B, T, D)

    def _whole_mask(self, lengths: Tensor | None, n_steps: int, device: torch.device) -> Tensor:
        """(B or 1, 1, T, T) bool: query t may look at key j, neither in the padding, nor out of context."""
        step = torch.arange(n_steps, device=device)
        ends = torch.tensor([n_steps]) if lengths is None else lengths.clamp(min=1)
        last = ends.to(device)[:, None, None] - 1  # (B or 1, 1, 1)
        # A padded query looks from the last valid step: a softmax over nothing would be no number.
        in_reach = (step[:, None].minimum(last) - step).abs() < self.context  # (B or 1, T, T)
        return (in_reach & (step <= last))[:, None]

    def initial_state(self, batch_size: int) -> State:
        return self._beginning(batch_size) if self.causal else ()

    def _beginning(self, batch_size: int) -> State:
        like = self.project_in.weight
        seen = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return (seen, *(like.new_zeros(batch_size, 0, self.width) for _ in range(2 * len(self.blocks))))

    def state_bytes(self, t: int) -> int:
        if not self.causal:
            return 0
        kept = min(t, self.context - 1)
        return 8 + 2 * len(self.blocks) * kept * self.width * self.project_in.weight.element_size()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Each pair of neighbouring features of x (B, T, H) turned by its angle; rotation: cos and sin, (2, B or 1, T, H / 2)."""
    wide = torch.promote_types(x.dtype, torch.float32)  # there are no complex numbers of 16 bits
    # As complex numbers, pairs turn in one product: three times as fast as sums of products of every other feature.
    pairs = torch.view_as_complex(x.to(wide).unflatten(2, (-1, 2)))  # (B, T, H) → (B, T, H / 2)
    turned = pairs * torch.complex(*rotation.to(wide))
    return torch.view_as_real(turned).flatten(2).to(x.dtype)  # (B, T, H)


def _entry(name: str, summary: str, source: str, bidirectional: bool, learning_rate: float, state: str) -> ModelEntry:
    def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: TransformerConfig) -> Predictor:
        backbone = Transformer(inputs.features, target.scope, inputs.max_length, bidirectional, config)
        return NeuralPredictor(inputs, target, backbone)

    return ModelEntry(
        name=name,
        family="attention",
        config=TransformerConfig(),
        build=build,
        fit=Fit.GRADIENT,
        source=source,
        summary=summary,
        refuses=refuses_causal if bidirectional else accepts_all,
        width="width",
        width_multiple=4,
        learning_rate=learning_rate,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 1e-2),
            "n_layers": Choice((1, 2, 3)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
        state=state,
    )


ENTRIES = [
    _entry(
        "transformer",
        "causal Transformer of two layers, two heads, rotary positions",
        "Vaswani et al. 2017; rotary positions: Su et al. 2021",
        bidirectional=False,
        learning_rate=2e-3,
        state="1 + 2 * L * min(t, context - 1) * H",
    ),
    _entry(
        "bitransformer",
        "Transformer of two layers, two heads, that looks both ways; one answer is read from the mean over the steps",
        "Vaswani et al. 2017; bidirectional: Devlin et al. 2019",
        bidirectional=True,
        learning_rate=2e-3,
        state="0",
    ),
]
