"""MiniRocket: shares of positive values after fixed convolutions, and a ridge regression on them.

Dempster, Schmidt & Webb 2021 (arXiv 2012.08791); several channels as in the authors' published code, where each kernel and
dilation reads a random few of them. The 84 kernels have nine weights, 2 at three places and -1 at the other six, so that a
constant has no effect. With dilations d and biases b, which are quantiles of the convolution of a random training sequence,

    c_t = Σ_(i=-4…4) w_i x_(t + i d)        feature = share of steps t with c_t > b

where x is zero outside the sequence and every other kernel counts only the steps 4 d or more from both ends.

Shares change in jumps, so that the last bit of c_t may matter, and with it the order of summation. Inputs are therefore
rounded to multiples of 2^-24 of about the largest training input: every sum is then exact in float64, and a batch, its
members and a GPU agree. The transform in aeon gives the same features, but is compiled on first use, which
takes longer than a trial.

The read-out and the confidence of its classes are those of `models.ridge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State, refuses_causal
from models.ridge import confidence, ridge
from models.sequences import Classes, InputSpec, Real, RealInput, SequenceBatch, TargetSpec, valid_steps
from models.windows import blank_padding

N_KERNELS = 84
"""Ways to place three 2s among nine weights."""
BLOCK = 64
"""Sequences transformed at a time; it bounds memory and changes no number."""


@dataclass(frozen=True)
class MiniRocketConfig:
    """n_features: P, shares of positive values, a multiple of 84; the paper has 9,996, which changed little here.

    max_dilations: different dilations at most, between 1 and what the longest training sequence allows.
    max_sequences: at most so many training sequences are used, evenly spaced; time grows with their cube.
    """

    n_features: int = 2016
    max_dilations: int = 32
    max_sequences: int = 2000

    def __post_init__(self) -> None:
        if self.n_features < N_KERNELS or self.n_features % N_KERNELS:
            raise ValueError(f"n_features must be a positive multiple of {N_KERNELS}, got {self.n_features}")
        if min(self.max_dilations, self.max_sequences) < 1:
            raise ValueError("max_dilations and max_sequences must be at least 1")


def dilations(longest: int, per_kernel: int, max_dilations: int) -> tuple[np.ndarray, np.ndarray]:
    """Dilations (n,) for sequences of up to ``longest`` steps, evenly spaced in their logarithm, and how many of the
    ``per_kernel`` features of each kernel belong to each."""
    n = min(per_kernel, max_dilations)
    largest = max(0.0, np.log2((longest - 1) / 8)) if longest > 1 else 0.0
    exact = np.logspace(0, largest, n, base=2).astype(np.int32)
    values, repeats = np.unique(exact, return_counts=True)
    shares = (repeats * (per_kernel / n)).astype(np.int32)
    shares[: per_kernel - shares.sum()] += 1  # what rounding left over, to the small dilations
    return values, shares


class PositiveShares(nn.Module):
    """The transform: sequences (B, C, T), in whole units of the grid, to features (B, P)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.dilations: list[int] = []
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()  # (84, C, 9) and (84, n), by dilation

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        features = []
        for d, weight, bias in zip(self.dilations, self.weights, self.biases, strict=True):
            sums = self.convolve(inputs, lengths, d, weight)  # (B, 84, T)
            n_steps = (sums > -torch.inf).sum(-1)  # (B, 84)
            counts = [torch.count_nonzero(sums > b[:, None], dim=-1) for b in bias.T]  # n of (B, 84)
            features.append((torch.stack(counts, -1) / n_steps[..., None].double()).flatten(1))  # (B, 84 n)
        return torch.cat(features, 1)

    def convolve(self, inputs: Tensor, lengths: Tensor, dilation: int, weight: Tensor) -> Tensor:
        """(B, 84, T) sums, -inf at the steps that do not count. Sequences too short to have steps away from both ends
        count all of theirs."""
        sums = weight.flatten(1) @ shifted(inputs, dilation)  # (84, 9 C) @ (B, 9 C, T)
        step, ends = torch.arange(inputs.shape[2], device=inputs.device), lengths[:, None]
        valid = step < ends  # (B, T)
        inner = (step >= 4 * dilation) & (step < ends - 4 * dilation) | valid & (ends <= 8 * dilation)
        alternate = (torch.arange(N_KERNELS, device=inputs.device) + self.dilations.index(dilation)) % 2
        counted = torch.where(alternate[:, None] == 0, valid[:, None], inner[:, None])  # (B, 84, T)
        return sums.masked_fill(~counted, -torch.inf)

    def fit(self, inputs: Tensor, lengths: Tensor, config: MiniRocketConfig, generator: torch.Generator) -> None:
        """Draws channels, and biases from the inputs."""
        per_kernel = config.n_features // N_KERNELS
        values, shares = dilations(int(lengths.max()), per_kernel, config.max_dilations)
        kernels = torch.full((N_KERNELS, 9), -1.0, dtype=torch.float64)
        for row, places in zip(kernels, combinations(range(9), 3), strict=True):
            row[list(places)] = 2.0
        golden = torch.arange(1, config.n_features + 1, dtype=torch.float64) * ((5**0.5 + 1) / 2) % 1
        self.dilations = values.tolist()
        start = 0
        for d, n in zip(self.dilations, shares.tolist(), strict=True):
            chosen = draw_channels(N_KERNELS, self.n_channels, generator)  # (84, C)
            weight = kernels[:, None] * chosen[..., None]  # (84, C, 9)
            levels = golden[start : start + N_KERNELS * n].view(N_KERNELS, n)
            start += N_KERNELS * n
            examples = torch.randint(len(inputs), (N_KERNELS,), generator=generator)
            sums = weight.flatten(1)[:, None] @ shifted(inputs[examples], d)  # (84, 1, 9 C) @ (84, 9 C, T)
            biases = quantiles_of(sums[:, 0], lengths[examples], levels)
            self.weights.append(nn.Parameter(weight, requires_grad=False))
            self.biases.append(nn.Parameter(biases, requires_grad=False))


def shifted(inputs: Tensor, dilation: int) -> Tensor:
    """(B, C, T) → (B, 9 C, T): each channel moved by -4 … 4 dilations, zeros coming in. With a matrix product this is a
    convolution, and exact on every device, unlike those by Fourier transform."""
    n_steps, reach = inputs.shape[2], 4 * dilation
    padded = F.pad(inputs, (reach, reach))
    return torch.stack([padded[..., i * dilation : i * dilation + n_steps] for i in range(9)], 2).flatten(1, 2)


def quantiles_of(sums: Tensor, lengths: Tensor, levels: Tensor) -> Tensor:
    """(84, T) sums of sequences of their own lengths (84,), levels (84, n) → quantiles (84, n) over the valid steps."""
    valid = sums.masked_fill(~valid_steps(lengths, sums.shape[1]), torch.nan)
    return torch.stack([row.nanquantile(level) for row, level in zip(valid, levels, strict=True)])


def draw_channels(n: int, n_channels: int, generator: torch.Generator) -> Tensor:
    """(n, C) float64, one at the channels that each kernel reads: 2^u of them, rounded down, u uniform from zero up to
    the logarithm of the number of channels and one, at most nine channels."""
    largest = np.log2(min(n_channels, 9) + 1)
    sizes = (2 ** (torch.rand(n, generator=generator, dtype=torch.float64) * largest)).long().clamp(max=n_channels)
    ranks = torch.rand(n, n_channels, generator=generator).argsort(1).argsort(1)
    return (ranks < sizes[:, None]).double()


class MiniRocket(SelfFitting):
    """The transform and a linear read-out. Takes whole sequences and carries no state.

    Sequences shorter than the longest in training are held at their last step until they are as long: on validation of
    the Japanese vowels that was better than zeros, than stretching, and than shares of the steps there are. Where
    targets are the inputs' future, a window is taken relative to its last value and divided by its largest difference
    from that, and the answer multiplied by it again, for shares know no amplitude. Symbols are one-hot channels.
    """

    causal = False
    grid: Tensor
    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: MiniRocketConfig) -> None:
        super().__init__()
        self.inputs, self.target, self.config = inputs, target, config
        n_channels = inputs.channels if isinstance(inputs, RealInput) else inputs.vocabulary
        self.shares = PositiveShares(n_channels)
        n_features, n_outputs = config.n_features, target.n_outputs
        self.trained_length = 1
        self.register_buffer("grid", torch.ones((), dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(n_features, n_outputs, dtype=torch.float64))
        self.register_buffer("intercepts", torch.zeros(n_outputs, dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state:
            raise ValueError("MiniRocket takes whole sequences; pass no state")
        n, longest = inputs.shape[:2]
        if lengths is None:
            lengths = torch.full((n,), longest)
        signals, amplitudes, ends = self._signals(inputs, lengths)
        answers = self._features(signals, ends) @ self.coefficients + self.intercepts  # (B, P) → (B, K)
        outputs = answers.new_zeros(n, longest, answers.shape[1])
        outputs[torch.arange(n), lengths - 1] = answers * amplitudes[:, None]
        return outputs.to(inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()), ()

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0

    def parameter_counts(self) -> ParameterCounts:
        """The read-out's coefficients and intercepts, and in the backbone the biases; channels are drawn, not chosen."""
        return ParameterCounts(self.config.n_features, 0, self.coefficients.numel() + self.intercepts.numel())

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """The transform by chance, ridge regression with its strength by leave-one-out; needs no validation."""
        n = min(len(train), self.config.max_sequences)
        chosen = train.select(torch.linspace(0, len(train) - 1, n, dtype=torch.float64).round().long())
        self.trained_length = int(train.lengths.max())
        signals, amplitudes, lengths = self._signals(chosen.inputs, chosen.lengths)
        largest = float(signals.abs().max())
        self.grid.fill_(2.0 ** (np.ceil(np.log2(largest)) - 24) if largest > 0 else 1.0)
        rounded = (signals / self.grid).round()
        self.shares = PositiveShares(signals.shape[1])
        self.shares.fit(rounded, lengths, self.config, generator)
        answers = chosen.targets[chosen.scored]  # (N,) or (N, K)
        if isinstance(self.target, Classes):
            goals = 2.0 * F.one_hot(answers, self.target.n).double() - 1
        else:
            goals = answers.double() / amplitudes[:, None]
        coefficients, intercepts, held_out = ridge(self._features(signals, lengths).numpy(), goals.numpy())
        scale = confidence(held_out, answers.numpy()) if isinstance(self.target, Classes) else 1.0
        self.coefficients.copy_(torch.from_numpy(coefficients * scale))
        self.intercepts.copy_(torch.from_numpy(intercepts * scale))

    def _signals(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, T) float64 with each sequence held at its last step up to the trained length and zeros past that, its
        amplitude (B,), and the steps that it has now, on the inputs' device."""
        ends = lengths.to(inputs.device).clamp(min=1)  # (B,)
        rows = torch.arange(len(inputs), device=inputs.device)
        steps = torch.arange(max(inputs.shape[1], self.trained_length), device=inputs.device)
        held = inputs[rows[:, None], steps.minimum(ends[:, None] - 1)]  # (B, T, C) or (B, T)
        if not isinstance(self.inputs, RealInput):
            held = F.one_hot(held, self.inputs.vocabulary)  # (B, T) → (B, T, V)
        signals = held.double()
        amplitudes = signals.new_ones(len(inputs))
        if self.target.future:
            signals = signals - signals[rows, ends - 1, None]
            amplitudes = signals.abs().flatten(1).amax(1)  # a maximum, unlike a mean, does not depend on the padding
            amplitudes = torch.where(amplitudes > 0, amplitudes, 1.0)
            signals = signals / amplitudes[:, None, None]
        ends = ends.clamp(min=self.trained_length)
        return blank_padding(signals, ends).transpose(1, 2), amplitudes, ends

    def _features(self, signals: Tensor, lengths: Tensor) -> Tensor:
        rounded = (signals / self.grid).round()
        parts = [self.shares(*part) for part in zip(rounded.split(BLOCK), lengths.split(BLOCK), strict=True)]
        return torch.cat(parts)  # (B, P)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if target.scope == "step" or not isinstance(target, Classes | Real):
        return (
            "gives one class or one set of real values to a whole sequence, not an answer at every step or yes and no"
        )
    if target.future and not isinstance(inputs, RealInput):
        return "forecasts real values, and these inputs are symbols"
    return refuses_causal(inputs, target, causal)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: MiniRocketConfig) -> Predictor:
    return MiniRocket(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="minirocket",
        family="non-neural",
        config=MiniRocketConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Dempster, Schmidt & Webb 2021, arXiv 2012.08791",
        imports=("sklearn.linear_model", "scipy.optimize"),
        summary="ridge regression on shares of positive values after 84 fixed, dilated convolutions of the whole sequence",
        refuses=_refuses,
        search_space={"n_features": Choice((504, 1008, 2016, 4032))},
    )
]
