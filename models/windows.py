"""Padding, bounded memories of the recent past and windows over it, for chunks whose sequences end at different steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sequences import valid_steps


def blank_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Inputs (B, T, C) or (B, T) with zeros past each sequence's end, so that no NaN or stray symbol there gets in."""
    if lengths is None:
        return inputs
    padded = ~valid_steps(lengths, inputs.shape[1]).to(inputs.device)  # (B, T)
    return inputs.masked_fill(padded if inputs.dim() == 2 else padded[..., None], 0)


def remember(past: Tensor, chunk: Tensor, n_steps: int, lengths: Tensor | None) -> Tensor:
    """The last ``n_steps`` steps of ``past`` followed by the chunk's valid steps.

    past: (B, P, D), its newest step last. chunk: (B, T, D). Needs n_steps ≤ P + T; sequence b ends at P + lengths[b], and
    where that is less than n_steps the oldest rows repeat row 0, which callers mask. Returns (B, n_steps, D).
    """
    joined = torch.cat([past, chunk], dim=1)  # (B, P + T, D)
    if lengths is None:
        return joined[:, joined.shape[1] - n_steps :]
    first = past.shape[1] + lengths.to(joined.device) - n_steps  # (B,)
    index = (first[:, None] + torch.arange(n_steps, device=joined.device)).clamp(min=0)  # (B, n_steps)
    return joined.gather(1, index[..., None].expand(-1, -1, joined.shape[2]))


def reachable(seen: Tensor, n_past: int, n_steps: int, context: int) -> Tensor:
    """(B, T, P + T) bool: step t may look at step j of P past ones and T new ones: neither later, nor out of context, nor
    before the beginning of a sequence that has seen (B,) steps."""
    here = torch.arange(n_past, n_past + n_steps, device=seen.device)[:, None]  # (T, 1)
    there = torch.arange(n_past + n_steps, device=seen.device)  # (P + T,)
    in_reach = (there <= here) & (there > here - context)  # (T, P + T)
    begun = there >= n_past - seen[:, None]  # (B, P + T)
    return in_reach & begun[:, None]


class TimeConvolution(nn.Conv1d):
    """The convolution of nn.Conv1d over batches as they lie here, (B, T, D) → (B, T', H).

    It is taken as one of two dimensions, one of which has a single row: such inputs are then "channels last" as they stand, for
    which oneDNN takes between a third and nine tenths of the time of a Conv1d, and the answer is contiguous again.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_size: int, padding: int = 0, dilation: int = 1, bias: bool = True
    ) -> None:
        super().__init__(n_in, n_out, kernel_size, padding=padding, dilation=dilation, bias=bias)
        self.padding_of_rows, self.dilation_of_rows = (0, padding), (1, dilation)

    def forward(self, input: Tensor) -> Tensor:
        rows, weight = input.transpose(1, 2).unsqueeze(2), self.weight.unsqueeze(2)  # (B, D, 1, T), (H, D, 1, k)
        padding, dilation = self.padding_of_rows, self.dilation_of_rows
        answer = F.conv2d(rows, weight, self.bias, padding=padding, dilation=dilation)  # (B, H, 1, T')
        return answer.squeeze(2).transpose(1, 2)
