"""Forecasts by a linear innovations state space model of each channel: what exponential smoothing and ARIMA share.

Hyndman, Koehler, Ord & Snyder 2008, doi:10.1007/978-3-540-71918-2. With a state v of q numbers and one source of error,

    x_t = w·v_(t-1) + e_t        v_t = F v_(t-1) + g e_t        forecast of x_(t+h) = w·F^(h-1) v_t

In a short window the difficulty is what to start from. Here v_0 is Gaussian, with a large variance where nothing is known, and
v_t its mean given the steps so far: a Kalman filter, in which only the gain g changes, to one that depends on t alone and
tends to g,

    k_t = (F P w + g) / (w·P w + 1)        P ← F P F' + g g' - k_t k_t' (w·P w + 1)        from P = covariance of v_0

so that it is tabulated once for all sequences. For an unknown v_0 that equals choosing it by least squares in every window, yet
needs no second pass over the window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.contract import SelfFitting, State
from models.sequences import Real, RealInput
from models.windows import blank_padding

VAGUE = 1e6
"""The variance of a first level that is unknown, in that of the innovations. Ten times as large, or infinite, it changes the
third digit of the errors on CO2 and sunspots."""


class System(NamedTuple):
    """The model of one channel: F (q, q), w (q,), g (q,), and mean (q,) and covariance (q, q) of v_0.

    The covariance is in units of the innovations' variance. Values are relative to the first one of a sequence.
    """

    transition: np.ndarray
    weights: np.ndarray
    gain: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


LAST_VALUE = System(np.ones((1, 1)), np.ones(1), np.ones(1), np.zeros(1), np.full((1, 1), VAGUE))
"""The forecast that needs nothing: a random walk."""


class InnovationsForecaster(SelfFitting):
    """Each channel by itself. The outputs at t are E[x_(t+h) | x_1 … x_t] - x_t, h = 1 … horizon, step-major.

    State, in float64: v_t of each channel (B, C, n_state), of which a model may use the first q, relative to the
    channel's first value; that value (B, C); and t (B, 1).
    """

    causal = True
    transitions: Tensor
    weights: Tensor
    means: Tensor
    gains: Tensor
    forecasts: Tensor

    def __init__(self, inputs: RealInput, target: Real, n_state: int) -> None:
        super().__init__()
        self.n_channels, self.horizon, self.n_state = inputs.channels, target.n // inputs.channels, n_state
        for name in ("transitions", "weights", "means", "gains", "forecasts"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self.install([LAST_VALUE] * inputs.channels, 1)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        carried, first, count = self.initial_state(len(inputs)) if state is None else state
        n, length, used = len(inputs), inputs.shape[1], self.weights.shape[1]
        estimate, unused = carried[..., :used], carried[..., used:]
        ends = torch.full((n,), length) if lengths is None else lengths
        ends = ends.to(inputs.device)[:, None]  # (B, 1)
        values = blank_padding(inputs, lengths).double()  # (B, T, C)
        first = torch.where(count == 0, values[:, 0], first)  # (B, C), zeros where length is 0
        values = values - first[:, None]
        gains = self.gains[(count.long() + torch.arange(length, device=inputs.device)).clamp(max=len(self.gains) - 1)]
        estimates = []
        for t in range(length):  # gains is (B, T, C, q)
            errors = values[:, t] - (estimate * self.weights).sum(-1)  # (B, C)
            later = torch.einsum("bcq,cpq->bcp", estimate, self.transitions) + gains[:, t] * errors[..., None]
            estimate = torch.where((t < ends)[..., None], later, estimate)
            estimates.append(estimate)
        ahead = torch.einsum("tbcq,chq->bthc", torch.stack(estimates), self.forecasts)  # (B, T, horizon, C)
        outputs = (ahead - values[:, :, None]).flatten(2).to(inputs.dtype)  # (B, T, K)
        return outputs, (torch.cat([estimate, unused], -1), first, count + ends)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.weights.new_zeros
        estimate = torch.cat([self.means, zeros(self.n_channels, self.n_state - self.means.shape[1])], 1)
        return estimate.expand(batch_size, -1, -1), zeros(batch_size, self.n_channels), zeros(batch_size, 1)

    def state_bytes(self, t: int) -> int:
        return sum(part.numel() * part.element_size() for part in self.initial_state(1))

    def install(self, systems: list[System], n_steps: int) -> None:
        """The model of each channel, with its gains for the first ``n_steps`` steps; the last serves from then on."""
        used = max(len(system.weights) for system in systems)

        def padded(parts: list[np.ndarray]) -> Tensor:
            """(q,) or (q, q) of each channel → (C, q) or (C, q, q), with zeros."""
            return torch.from_numpy(np.stack([np.pad(part, (0, used - len(part))) for part in parts])).double()

        transitions, weights, limits, means, covariances = (padded(list(parts)) for parts in zip(*systems, strict=True))
        gains = []
        for _ in range(n_steps):
            seen = (covariances @ weights[..., None])[..., 0]  # (C, q): P w
            variance = (weights * seen).sum(-1)[:, None] + 1  # (C, 1)
            gain = ((transitions @ seen[..., None])[..., 0] + limits) / variance
            moved = transitions @ covariances @ transitions.mT + limits[:, :, None] * limits[:, None]
            covariances = moved - gain[:, :, None] * gain[:, None] * variance[..., None]
            gains.append(gain)
        rows = [weights]
        for _ in range(self.horizon - 1):
            rows.append((rows[-1][:, None] @ transitions)[:, 0])
        device = self.weights.device
        self.transitions, self.weights, self.means = (x.to(device) for x in (transitions, weights, means))
        # (N, C, q), (C, horizon, q)
        self.gains, self.forecasts = torch.stack(gains).to(device), torch.stack(rows, 1).to(device)
