"""The seasonal naive forecast: the value one season ago, or the mean of the last few values one season apart.

Hyndman & Athanasopoulos 2021, "Forecasting: Principles and Practice", section 5.2. With period m and k seasons,

    forecast of x_(t+h) = mean of x_(t + h - m (⌈h/m⌉ + j)) over j = 0 … k-1

A period of 1 means no season: the last value, or the mean of the last k. Only values of the sequence itself are averaged; where
none is old enough, the last value is forecast. The strongest simple rival of a series with a season, and what the error of
such a forecast is compared to (the mean absolute scaled error, doi:10.1016/j.ijforecast.2006.03.001).

This module also has what forecasting models need to know of a series: `joined` makes it from training windows, and `periods`
proposes its seasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State
from models.sequences import InputSpec, Real, RealInput, SequenceBatch, TargetSpec
from models.windows import blank_padding, remember

N_PERIODS = 4
"""Periods proposed: the autocorrelation does not always peak at the true one."""
MAX_SEASONS = 4
"""Seasons averaged at most."""
MAX_VALUES = 2**21
"""Values of the training windows that are joined; of more, the last windows are taken. It bounds time and memory."""
MAX_JUDGED = 512
"""Validation sequences that candidates are compared on, at most, evenly spaced: neighbouring windows overlap."""
BLOCK = 64
"""Sequences forecast at a time when validation chooses; it bounds memory."""


@dataclass(frozen=True)
class SeasonalNaiveConfig:
    """period: m, in steps; 1: no season; None: validation chooses between no season and those that `periods` proposes.

    n_seasons: k, the values averaged; None: validation chooses 1 … 4. max_period: the longest season looked for, in steps.
    """

    period: int | None = None
    n_seasons: int | None = None
    max_period: int = 60

    def __post_init__(self) -> None:
        if any(x is not None and x < 1 for x in (self.period, self.n_seasons)) or self.max_period < 2:
            raise ValueError("period and n_seasons must be at least 1 and max_period at least 2")


class SeasonalNaive(SelfFitting):
    """Each channel by itself, with its own period and number of seasons. The outputs at t are the forecasts of x_(t+h) less
    x_t, h = 1 … horizon, step-major.

    State, in float64: the last m k values of the longest m and k considered, (B, m k, C), and t (B, 1).
    """

    causal = True
    chosen: Tensor
    """(2, C) int64: period and number of seasons."""

    def __init__(self, inputs: RealInput, target: Real, config: SeasonalNaiveConfig) -> None:
        super().__init__()
        self.config, self.n_channels, self.horizon = config, inputs.channels, target.n // inputs.channels
        self.n_kept = (config.period or config.max_period) * (config.n_seasons or MAX_SEASONS)
        self.register_buffer("chosen", torch.ones(2, inputs.channels, dtype=torch.int64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        past, count = self.initial_state(len(inputs)) if state is None else state
        length = inputs.shape[1]
        values = blank_padding(inputs, lengths).double()  # (B, T, C)
        series = torch.cat([past, values], 1)  # (B, m k + T, C)
        steps = torch.arange(length, device=inputs.device)
        ahead = torch.arange(1, self.horizon + 1, device=inputs.device)[:, None]  # (horizon, 1)
        period, n_seasons = self.chosen
        # Zeros stand for what is missing: before the beginning, and beyond the number of seasons of a channel.
        total = inputs.new_zeros(len(inputs), length, self.horizon, self.n_channels, dtype=torch.float64)
        n_values = torch.zeros_like(total)
        for j in range(int(n_seasons.max())):
            back = ahead - period * ((ahead - 1) // period + 1 + j)  # (horizon, C), from t: 0 or less
            place = steps[:, None, None] + back  # (T, horizon, C)
            exists = (count[..., None, None] + place >= 0) & (j < n_seasons)  # (B, T, horizon, C)
            rows = (past.shape[1] + place).clamp(min=0).flatten(0, 1)  # (T horizon, C)
            found = series.gather(1, rows.expand(len(inputs), -1, -1)).view_as(total)
            total += torch.where(exists, found - values[:, :, None], 0.0)
            n_values += exists
        outputs = (total / n_values.clamp(min=1)).flatten(2).to(inputs.dtype)  # (B, T, K)
        ends = torch.full((len(inputs),), length) if lengths is None else lengths
        after = remember(past, values, self.n_kept, lengths)
        return outputs, (after, count + ends.to(inputs.device)[:, None])

    def initial_state(self, batch_size: int) -> State:
        new = self.chosen.new_zeros
        return (
            new(batch_size, self.n_kept, self.n_channels, dtype=torch.float64),
            new(batch_size, 1, dtype=torch.float64),
        )

    def state_bytes(self, t: int) -> int:
        return sum(part.numel() * part.element_size() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        """Period and number of seasons of each channel, less what is given."""
        return ParameterCounts(self.n_channels * ((self.config.period is None) + (self.config.n_seasons is None)))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Proposes periods from the training series; validation chooses among them and the numbers of seasons, channel by
        channel. Needs no chance."""
        config, longest = self.config, int(train.lengths.max())
        series = joined(full_windows(train))
        limit = min(config.max_period, longest)
        periods_of = [
            [config.period] if config.period else [1, *periods([piece[:, c] for piece in series], limit)]
            for c in range(self.n_channels)
        ]
        seasons = [config.n_seasons] if config.n_seasons else range(1, MAX_SEASONS + 1)
        candidates = [torch.tensor([[m, k] for m in options for k in seasons]) for options in periods_of]  # (n, 2) each
        errors = []
        for choice in zip(*candidates, strict=True):
            self.chosen.copy_(torch.stack(choice, 1))
            errors.append(squared_errors(self, validation, self.horizon))
        best = torch.stack(errors).argmin(0)  # (C,)
        self.chosen.copy_(torch.stack([rows[i] for rows, i in zip(candidates, best, strict=True)], 1))


def full_windows(batch: SequenceBatch) -> np.ndarray:
    """(n, T, C) float64: the inputs of the sequences that are as long as the longest."""
    longest = int(batch.lengths.max())
    return batch.inputs[batch.lengths == longest, :longest].double().numpy()


def joined(windows: np.ndarray) -> list[np.ndarray]:
    """Training windows (n, T, C) of a series, in its order → the stretches of the series that they cover, (T', C) each, longest
    first.

    Two neighbours belong together where the end of the first and the beginning of the second are equal over half a window or
    more, but for a constant per channel, because windows may be given relative to their last value. So levels are relative, to
    the first window of a stretch; windows that do not overlap so are stretches by themselves.
    """
    length = windows.shape[1]
    windows = windows[-max(1, MAX_VALUES // windows[0].size) :]
    strides = np.zeros(len(windows) - 1, dtype=np.int64)
    scale = np.abs(windows).max(initial=0.0) + 1e-300
    for stride in range(1, length // 2 + 1):
        open_pairs = np.flatnonzero(strides == 0)
        if not len(open_pairs):
            break
        apart = windows[open_pairs + 1, :-stride] - windows[open_pairs, stride:]
        strides[open_pairs[np.ptp(apart, axis=1).max(1) <= 1e-5 * scale]] = stride
    pieces, level = [[windows[0]]], np.zeros(windows.shape[2])
    for window, before, step in zip(windows[1:], windows[:-1], strides.tolist(), strict=True):
        if step:
            level = level + (before[step:] - window[:-step]).mean(0)
            pieces[-1].append(window[-step:] + level)
        else:
            level = np.zeros(windows.shape[2])
            pieces.append([window])
    return sorted((np.concatenate(piece) for piece in pieces), key=len, reverse=True)


def periods(pieces: list[np.ndarray], limit: int) -> list[int]:
    """Seasons of 2 … limit steps that the stretches of a series, (T,) each, may have, the likeliest first.

    Peaks of the autocorrelation of differences, in which a season stands out against a level that wanders; and in turn with
    them those of the values about a straight line, in which a smooth season stands out against noise. N_PERIODS different
    ones, 1 where there are too few. A season must fit twice into a stretch.
    """
    longest = max(map(len, pieces), default=0)
    limit = min(limit, longest // 2)
    usable = [piece for piece in pieces if len(piece) > 2]
    lines = [np.polynomial.Polynomial.fit(np.arange(len(x)), x, 1)(np.arange(len(x))) for x in usable]
    sharp = _peaks([np.diff(x) - np.diff(x).mean() for x in usable], limit, False)
    smooth = _peaks([x - line for x, line in zip(usable, lines, strict=True)], limit, True)
    both = [lag for pair in zip_longest(sharp, smooth) for lag in pair if lag is not None]
    return [*dict.fromkeys(both), *[1] * N_PERIODS][:N_PERIODS]


def _peaks(pieces: list[np.ndarray], limit: int, below_zero: bool) -> list[int]:
    """The lags 2 … limit at which the autocorrelation of the stretches peaks, the highest first.

    Only where it is above two standard errors of that of noise. below_zero: only lags after it was negative, so that the
    correlation of neighbouring values is passed.
    """
    lags = np.arange(1, limit + 2)
    # Sums and not means, as in the usual autocorrelation: of a period and its multiples the shortest comes first.
    r = np.array([sum(float(x[lag:] @ x[:-lag]) for x in pieces if len(x) > lag) for lag in lags])
    first = np.argmax(r < 0) if (r < 0).any() else len(r)
    noise = 2 * sum(float(x @ x) for x in pieces) / max(sum(map(len, pieces)), 1) ** 0.5
    places = range(max(1, int(first) if below_zero else 1), len(r) - 1)
    peaks = [i for i in places if r[i] > max(r[i - 1], r[i + 1], noise)]
    return [int(lags[i]) for i in sorted(peaks, key=lambda i: -r[i])]


def squared_errors(predictor: Predictor, batch: SequenceBatch, horizon: int) -> Tensor:
    """(C,) float64: the mean squared error of the forecasts at the scored steps of ``batch``, by channel; of more than
    MAX_JUDGED sequences at those of as many."""
    sums, n = torch.zeros(()), 0
    chosen = torch.linspace(0, len(batch) - 1, min(len(batch), MAX_JUDGED), dtype=torch.float64).round().long()
    for index in chosen.split(BLOCK):
        part = batch.select(index)
        with torch.no_grad():
            outputs, _ = predictor(part.inputs.double(), None, part.lengths)
        errors = outputs[part.scored] - part.targets[part.scored].double()  # (N, K)
        sums = sums + errors.unflatten(1, (horizon, -1)).square().sum((0, 1))
        n += len(errors) * horizon
    return sums / max(n, 1)


def refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """The `ModelEntry.refuses` of models that continue each channel from its own past."""
    if not isinstance(target, Real) or not target.future:
        return "continues its inputs, and this target is not their future"
    if not isinstance(inputs, RealInput) or target.n % inputs.channels:
        return "forecasts the channels it reads, and these are not the targets"
    return None


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: SeasonalNaiveConfig) -> Predictor:
    if not isinstance(inputs, RealInput) or not isinstance(target, Real) or refuses(inputs, target, causal):
        raise ValueError(refuses(inputs, target, causal))
    return SeasonalNaive(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="seasonal_naive",
        family="non-neural",
        config=SeasonalNaiveConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Hyndman & Athanasopoulos 2021, section 5.2, otexts.com/fpp3",
        summary="the value one season ago, or the mean of the last few values one season apart",
        refuses=refuses,
        is_baseline=True,
        search_space={"n_seasons": Choice((1, 2, 4))},
        state="C * (period or max_period) * (n_seasons or 4) + 1",
    )
]
