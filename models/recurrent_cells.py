"""Recurrent cells as their equations read, one step at a time, for what torch's fused layers cannot do.

With W x_t + b and U h_(t-1) + b' written x and u, gate by gate:

    vanilla  h_t = f(x + u),  f = tanh or relu
    LSTM     c_t = σ(x_f + u_f) c_(t-1) + σ(x_i + u_i) tanh(x_g + u_g),  h_t = σ(x_o + u_o) tanh(c_t)
    GRU      r = σ(x_r + u_r),  z = σ(x_z + u_z),  n = tanh(x_n + r u_n),  h_t = (1 - z) n + z h_(t-1)

Layer normalisation, Ba et al. 2016 (arXiv 1607.06450): x = α LN(W x_t) + b and u = α' LN(U h_(t-1)) + b', over all gates of
the LSTM together and over the GRU's (r, z) and n apart; the LSTM reads its cell through LN(c_t) too.
    # differs from Ba et al., who normalise the sum W x_t + U h_(t-1) of the vanilla cell: because in the form that they
    # give the LSTM and the GRU, W x_t is normalised for all steps at once.

Variational dropout, Gal & Ghahramani 2016 (arXiv 1512.05287): U acts on m h_(t-1), with one mask m for all steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import State

Kind = Literal["rnn", "rnn_relu", "lstm", "gru"]
Weights = Sequence[Tensor]
"""W (G·H, in), U (G·H, H), b and b' (G·H,) of one layer in one direction, its G gates stacked in torch's order."""

Cell = Callable[[Tensor, Tensor, State, nn.Module], State]


def tanh_cell(x: Tensor, u: Tensor, before: State, norm: nn.Module) -> State:
    """x, u: (B, H). before: h, (B, H)."""
    return (torch.tanh(x + u),)


def relu_cell(x: Tensor, u: Tensor, before: State, norm: nn.Module) -> State:
    """As `tanh_cell`."""
    return (torch.relu(x + u),)


def lstm_cell(x: Tensor, u: Tensor, before: State, norm: nn.Module) -> State:
    """x, u: (B, 4H). before: h and c, (B, H) each. norm: what the cell is read through."""
    i, f, g, o = (x + u).chunk(4, dim=-1)  # (B, 4H) → (B, H) each
    c = torch.sigmoid(f) * before[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(norm(c)), c


def gru_cell(x: Tensor, u: Tensor, before: State, norm: nn.Module) -> State:
    """x, u: (B, 3H). before: h, (B, H)."""
    x_r, x_z, x_n = x.chunk(3, dim=-1)  # (B, 3H) → (B, H) each
    u_r, u_z, u_n = u.chunk(3, dim=-1)
    r, z = torch.sigmoid(x_r + u_r), torch.sigmoid(x_z + u_z)
    n = torch.tanh(x_n + r * u_n)
    return ((1 - z) * n + z * before[0],)


def _fused_step(step: Callable[..., Tensor], x: Tensor, before: list[Tensor], weights: Weights) -> State:
    return (step(x, before[0], *weights),)


def _fused_lstm_step(x: Tensor, before: list[Tensor], weights: Weights) -> State:
    return torch.lstm_cell(x, before, *weights)


class Architecture(NamedTuple):
    """A kind of recurrent layer in its three forms, all on the same weights.

    layers: torch's, fused over time. step: torch's, fused over the gates, (B, in) features and the state to the next state.
    cell: readable. groups: the gates that are normalised together, their number group by group. n_states: h, or h and c.
    """

    layers: Callable[..., nn.RNNBase]
    step: Callable[[Tensor, list[Tensor], Weights], State]
    cell: Cell
    groups: tuple[int, ...]
    n_states: int = 1


ARCHITECTURES: dict[Kind, Architecture] = {
    "rnn": Architecture(nn.RNN, partial(_fused_step, torch.rnn_tanh_cell), tanh_cell, (1,)),
    "rnn_relu": Architecture(
        partial(nn.RNN, nonlinearity="relu"), partial(_fused_step, torch.rnn_relu_cell), relu_cell, (1,)
    ),
    "lstm": Architecture(nn.LSTM, _fused_lstm_step, lstm_cell, (4,), n_states=2),
    "gru": Architecture(nn.GRU, partial(_fused_step, torch.gru_cell), gru_cell, (2, 1)),
}


class GateNorm(nn.Module):
    """Each group of gates of (…, G·H) brought to mean 0 and variance 1, times a gain. The layer's own bias comes after."""

    def __init__(self, groups: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.sizes = [n_gates * width for n_gates in groups]
        self.gain = nn.Parameter(torch.ones(sum(self.sizes)))

    def forward(self, gates: Tensor) -> Tensor:
        parts = [F.layer_norm(part, part.shape[-1:]) for part in gates.split(self.sizes, dim=-1)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)) * self.gain


class Norms(nn.Module):
    """What one layer in one direction normalises: W x, U h and the LSTM's cell; or, where not ``enabled``, nothing."""

    def __init__(self, architecture: Architecture, width: int, enabled: bool) -> None:
        super().__init__()
        self.inputs = GateNorm(architecture.groups, width) if enabled else nn.Identity()
        self.recurrent = GateNorm(architecture.groups, width) if enabled else nn.Identity()
        self.cell = nn.LayerNorm(width) if enabled and architecture.n_states == 2 else nn.Identity()


def unroll(
    cell: Cell,
    weights: Weights,
    norms: Norms,
    inputs: Tensor,
    before: State,
    mask: Tensor | None,
    valid: Tensor | None,
) -> tuple[Tensor, State]:
    """One layer in one direction over time, step by step: (B, T, in) → (B, T, H), and the state after the last valid step.

    before: the parts of the state, (B, H) each. mask: (B, H), on the recurrent state, or None. valid: (B, T, 1) bool, or None
    where nothing is padded; at other steps the state stands.
    """
    w, recurrent, bias, recurrent_bias = weights
    x = norms.inputs(F.linear(inputs, w)) + bias  # (B, T, in) → (B, T, G·H): all steps at once
    state, outputs = before, []
    for t, x_t in enumerate(x.unbind(1)):  # (B, G·H)
        seen = state[0] if mask is None else state[0] * mask  # (B, H)
        u = norms.recurrent(F.linear(seen, recurrent)) + recurrent_bias  # (B, H) → (B, G·H)
        after = cell(x_t, u, state, norms.cell)
        if valid is not None:
            after = tuple(torch.where(valid[:, t], new, old) for new, old in zip(after, state, strict=True))
        state = after
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state  # T × (B, H) → (B, T, H)


def reverse(steps: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, T, D) with each sequence's valid steps in reverse order and its padding in place."""
    if lengths is None:
        return steps.flip(1)
    t = torch.arange(steps.shape[1], device=steps.device)
    ends = lengths.to(steps.device)[:, None]  # (B, 1)
    index = torch.where(t < ends, ends - 1 - t, t)  # (B, T)
    return steps.gather(1, index[..., None].expand_as(steps))
