"""Causal Transformer: pre-norm blocks, rotary positions, a sliding key/value cache of bounded length.

Vaswani et al. 2017 (arXiv 1706.03762); pre-norm: Xiong et al. 2020 (arXiv 2002.04745); rotary positions: Su et al. 2021
(arXiv 2104.09864).

    a = x + O softmax(R_i q_i · R_j k_j / √d) v_j over the steps j with i - context < j ≤ i;   y = a + FF(norm(a))
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
class TransformerConfig:
    """width: H, a multiple of 2 × n_heads; None: set by the parameter budget. n_layers: L. n_heads: attention heads.

    context: attention reaches at most this many steps back, its own included. dropout: share of values dropped in training
    after attention and feed-forward.
    """

    width: int | None = None
    n_layers: int = 2
    n_heads: int = 2
    context: int = 1024
    dropout: float = 0.0


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised input and added to it."""

    def __init__(self, width: int, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, inputs: Tensor, past_keys: Tensor, past_values: Tensor, rotation: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """inputs (B, T, H), past (B, P, H), mask (B, 1, T, P + T), None for causal → outputs, keys, values (B, T, H)."""
        queries, keys, values = self.queries_keys_values(self.attention_norm(inputs)).chunk(3, dim=-1)
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        begins = past_keys.shape[1] == 0  # then there is nothing to copy together
        attended = F.scaled_dot_product_attention(
            self._heads(queries),
            self._heads(keys if begins else torch.cat([past_keys, keys], dim=1)),
            self._heads(values if begins else torch.cat([past_values, values], dim=1)),
            attn_mask=mask,
            is_causal=mask is None,
        )  # (B, heads, T, H / heads)
        attended = attended.transpose(1, 2).flatten(2)  # (B, T, H)
        outputs = inputs + self.dropout(self.attention_out(attended))
        return outputs + self.dropout(self.feed_forward(outputs)), keys, values

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B, T, H) → (B, heads, T, H / heads)


class Transformer(Backbone):
    """L blocks between projections D → H and H → D.

    State: steps seen so far, (B,) int64, then keys and values of each layer, (B, P, H), newest last and P < context. A
    sequence that has seen fewer than P steps has its own at the end and rows to be masked before them.
    """

    causal = True
    frequencies: Tensor

    def __init__(self, features: int, config: TransformerConfig) -> None:
        super().__init__()
        self.width = required_width(config.width)
        if self.width % (2 * config.n_heads):
            raise ValueError(f"transformer: width {self.width} is not a multiple of 2 × n_heads = {2 * config.n_heads}")
        self.context = config.context
        self.project_in = nn.Linear(features, self.width)
        self.blocks = nn.ModuleList(Block(self.width, config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(self.width)
        self.project_out = nn.Linear(self.width, features)
        head_width = self.width // config.n_heads
        frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        self.register_buffer("frequencies", frequencies.repeat(config.n_heads), persistent=False)  # (H / 2,)

    def forward(self, features: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        n_steps = features.shape[1]
        seen, *past = state or self.initial_state(len(features))
        n_past = past[0].shape[1]
        rotation = self._rotation(seen, n_steps, features.dtype, fresh=state is None)
        mask = None if n_past == 0 and n_steps <= self.context else self._mask(seen, n_past, n_steps)
        kept = min(self.context - 1, n_past + (n_steps if lengths is None else int(lengths.max())))
        after = [seen + (n_steps if lengths is None else lengths.to(seen.device))]
        hidden = self.project_in(features)  # (B, T, D) → (B, T, H)
        for block, past_keys, past_values in zip(self.blocks, past[::2], past[1::2], strict=True):
            hidden, keys, values = block(hidden, past_keys, past_values, rotation, mask)
            after += [remember(past_keys, keys, kept, lengths), remember(past_values, values, kept, lengths)]
        return self.project_out(self.norm(hidden)), tuple(after)  # (B, T, H) → (B, T, D)

    def _rotation(self, seen: Tensor, n_steps: int, dtype: torch.dtype, fresh: bool) -> Tensor:
        """cos and sin of position × frequency, (2, B or 1, T, H / 2); angles in float64, for they grow with position."""
        start = seen[:1] * 0 if fresh else seen
        positions = start[:, None] + torch.arange(n_steps, device=seen.device)  # (B or 1, T)
        angles = positions[..., None] * self.frequencies.double()  # (B or 1, T, H / 2)
        return torch.stack([angles.cos(), angles.sin()]).to(dtype)

    def _mask(self, seen: Tensor, n_past: int, n_steps: int) -> Tensor:
        """(B, 1, T, P + T) bool: query t may look at key j, neither later, nor out of context, nor before the beginning."""
        query = torch.arange(n_past, n_past + n_steps, device=seen.device)[:, None]  # (T, 1)
        key = torch.arange(n_past + n_steps, device=seen.device)  # (P + T,)
        in_reach = (key <= query) & (key > query - self.context)  # (T, P + T)
        begun = key >= n_past - seen[:, None]  # (B, P + T)
        return (in_reach & begun[:, None])[:, None]

    def initial_state(self, batch_size: int) -> State:
        like = self.project_in.weight
        seen = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return (seen, *(like.new_zeros(batch_size, 0, self.width) for _ in range(2 * len(self.blocks))))

    def state_bytes(self, t: int) -> int:
        kept = min(t, self.context - 1)
        return 8 + 2 * len(self.blocks) * kept * self.width * self.project_in.weight.element_size()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Each pair of neighbouring features of x (B, T, H) turned by its angle; rotation: cos and sin, (2, B or 1, T, H / 2)."""
    cos, sin = rotation
    even, odd = x[..., 0::2], x[..., 1::2]  # (B, T, H / 2)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(2)  # (B, T, H)


def build(inputs: InputSpec, target: TargetSpec, causal: bool, config: TransformerConfig) -> Predictor:
    return NeuralPredictor(inputs, target, Transformer(inputs.features, config))


ENTRIES = [
    ModelEntry(
        name="transformer",
        family="attention",
        config=TransformerConfig(),
        build=build,
        fit=Fit.GRADIENT,
        source="Vaswani et al. 2017; rotary positions: Su et al. 2021",
        summary="causal Transformer of two layers, two heads, rotary positions",
        width="width",
        width_multiple=4,
        learning_rate=2e-3,
        search_space={
            "fit.learning_rate": LogRange(3e-4, 1e-2),
            "n_layers": Choice((1, 2, 3)),
            "dropout": Choice((0.0, 0.1, 0.3)),
        },
    )
]
