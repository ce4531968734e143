"""Exponential smoothing: level, trend and season of each channel, carried from step to step. And the seasonal naive forecast.

Holt 1957, doi:10.1016/j.ijforecast.2003.09.015; Winters 1960, doi:10.1287/mnsc.6.3.324; as innovations state space models,
Hyndman, Koehler, Ord & Snyder 2008, doi:10.1007/978-3-540-71918-2. With level l, trend b, season s of period m,

    x_t = l_(t-1) + φ b_(t-1) + s_(t-m) + e_t
    l_t = l_(t-1) + φ b_(t-1) + α e_t        b_t = φ b_(t-1) + β e_t        s_t = s_(t-m) + γ e_t

which is v_t = F v_(t-1) + g e_t with x_t = w·v_(t-1) + e_t, and forecasts w·F^(h-1) v_t. The difficulty in a short window is
what to start from. Here v_0 is Gaussian and vague, and v_t its mean given the steps so far: a Kalman filter, in which only
the gain g changes, to one that depends on t alone and tends to g,

    k_t = (F P w + g) / (w·P w + 1)        P ← F P F' + g g' - k_t k_t' (w·P w + 1)        from P = covariance of v_0

so that it is tabulated once. That equals choosing v_0 by least squares in every window, yet needs no second look at it.

Parameters are estimated by statsmodels on some training windows, and their medians taken. The seasonal naive forecast, the
value one period ago, is the same recursion with γ = 1 and all else 0.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State
from models.sequences import InputSpec, Real, RealInput, SequenceBatch, TargetSpec
from models.windows import blank_padding

N_PERIODS = 3
"""Periods tried: in a short window the autocorrelation does not always peak at the true one."""
LEAST_STEPS = 10
"""What statsmodels needs to begin; of shorter windows the last value is forecast."""
VAGUE = (1e6, 1.0, 1e2)
"""Variances of the first level, trend and season, in those of the innovations. Ten times as large, or infinite, they change
the third digit of the errors on CO2 and sunspots."""


@dataclass(frozen=True)
class ExponentialSmoothingConfig:
    """method: "holt_winters", with or without trend, damped or not, with or without season, as validation has it; or
    "seasonal_naive", the value one period ago.

    max_period: the longest season looked for, in steps. n_windows: training windows that parameters are estimated on,
    shared among the channels, each of which gets one at least.
    """

    method: Literal["holt_winters", "seasonal_naive"] = "holt_winters"
    max_period: int = 24
    n_windows: int = 12

    def __post_init__(self) -> None:
        if self.method not in ("holt_winters", "seasonal_naive"):
            raise ValueError(f"method must be holt_winters or seasonal_naive, not {self.method!r}")
        if self.max_period < 2 or self.n_windows < 1:
            raise ValueError("max_period must be at least 2 and n_windows at least 1")


class Smoothing(NamedTuple):
    """The model of one channel. period: m, 0 without a season. The parameters as in the module's docstring; trend, season:
    whether there is one to start with."""

    level: float
    trend: float = 0.0
    season: float = 0.0
    damping: float = 0.0
    period: int = 0
    vague: tuple[float, float, float] = (VAGUE[0], 0.0, 0.0)

    def system(self, max_period: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """F (q, q), w (q,), g (q,) and the first covariance (q, q), for q = 2 + max_period: level, trend, and the season's
        values, the newest first."""
        q = 2 + max_period
        transition, weights, gain = np.zeros((q, q)), np.zeros(q), np.zeros(q)
        transition[0, :2] = weights[:2] = 1.0, self.damping
        transition[1, 1] = self.damping
        gain[:2] = self.level, self.trend
        variances = np.zeros(q)
        variances[:2] = self.vague[:2]
        if self.period:
            oldest = 1 + self.period
            transition[2, oldest] = weights[oldest] = 1.0
            transition[np.arange(3, oldest + 1), np.arange(2, oldest)] = 1.0
            gain[2] = self.season
            variances[2 : oldest + 1] = self.vague[2]
        return tuple(torch.from_numpy(x) for x in (transition, weights, gain, np.diag(variances)))  # type: ignore[return-value]


LAST_VALUE = Smoothing(level=1.0)


class ExponentialSmoothing(SelfFitting):
    """Each channel by itself. The outputs at t are E[x_(t+h) | x_1 … x_t] - x_t, h = 1 … horizon, step-major.

    State, in float64: v_t of each channel (B, C, q), relative to its first value, that value (B, C), and t (B, 1).
    """

    causal = True
    transitions: Tensor
    weights: Tensor
    gains: Tensor
    forecasts: Tensor

    def __init__(self, inputs: RealInput, target: Real, config: ExponentialSmoothingConfig) -> None:
        super().__init__()
        self.config, self.n_channels, self.horizon = config, inputs.channels, target.n // inputs.channels
        for name in ("transitions", "weights", "gains", "forecasts"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self._install([LAST_VALUE] * inputs.channels, 1)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        estimate, first, count = self.initial_state(len(inputs)) if state is None else state
        n, length = inputs.shape[:2]
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
        return outputs, (estimate, first, count + ends)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.weights.new_zeros
        return (
            zeros(batch_size, *self.weights.shape),
            zeros(batch_size, self.n_channels),
            zeros(batch_size, 1),
        )

    def state_bytes(self, t: int) -> int:
        return sum(part.numel() * part.element_size() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        """Per channel α, β, γ, φ and the period, whether or not validation uses them all; the period alone if naive."""
        return ParameterCounts(backbone=self.n_channels * (5 if self.config.method == "holt_winters" else 1))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Parameters from the longest training windows; validation chooses trend, damping and period. Needs no chance."""
        longest = int(train.lengths.max())
        windows = train.inputs[train.lengths == longest, :longest].double().numpy()  # (n, T, C)
        candidates = [self._candidates(windows[:, :, c]) for c in range(self.n_channels)]
        goals = validation.targets[validation.scored].double().unflatten(1, (self.horizon, -1))  # (N, horizon, C)
        errors = []
        for models in zip(*candidates, strict=True):
            self._install(list(models), longest)
            outputs, _ = self(validation.inputs.double(), None, validation.lengths)
            forecasts = outputs[validation.scored].view_as(goals)
            errors.append((forecasts - goals).square().mean((0, 1)))  # (C,)
        best = torch.stack(errors).argmin(0).tolist()
        self._install([models[index] for models, index in zip(candidates, best, strict=True)], longest)

    def _candidates(self, windows: np.ndarray) -> list[Smoothing]:
        """What validation chooses from, for one channel (n, T): always as many."""
        found = periods(windows, self.config.max_period)
        if self.config.method == "seasonal_naive":
            return [Smoothing(0.0, season=1.0, period=m, vague=(0.0, 0.0, 0.0)) if m else LAST_VALUE for m in found]
        n = max(1, self.config.n_windows // self.n_channels)
        varied = windows[windows.std(1) > 0]
        chosen = varied[np.linspace(0, len(varied) - 1, min(n, len(varied))).round().astype(int)]
        shapes = ((False, False), (True, False), (True, True))
        return [LAST_VALUE, *(estimated(chosen, m, *shape) for m in dict.fromkeys((0, *found)) for shape in shapes)]

    def _install(self, models: list[Smoothing], n_steps: int) -> None:
        """The recursion of each channel, with its gains for the first ``n_steps`` steps; the last serves from then on."""
        systems = zip(*(model.system(self.config.max_period) for model in models), strict=True)
        transitions, weights, limits, covariances = (torch.stack(parts) for parts in systems)  # (C, q, q), (C, q), …
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
        self.transitions, self.weights = transitions, weights
        self.gains, self.forecasts = torch.stack(gains), torch.stack(rows, 1)  # (N, C, q), (C, horizon, q)


def periods(windows: np.ndarray, max_period: int) -> list[int]:
    """The lags (N_PERIODS of them, 0 where there are too few) at which the differences of (n, T) windows correlate most,
    among those that a window holds twice."""
    differences = np.diff(windows, axis=1)
    differences = differences - differences.mean(1, keepdims=True) if differences.size else differences
    lags = [m for m in range(2, max_period + 1) if windows.shape[1] >= max(2 * m, LEAST_STEPS + m)]
    products = [(differences[:, m:] * differences[:, :-m]).mean() for m in lags]
    best = sorted(zip(products, lags, strict=True), reverse=True)[:N_PERIODS]
    return [lag for _, lag in best] + [0] * (N_PERIODS - len(best))


def estimated(windows: np.ndarray, period: int, trend: bool, damped: bool) -> Smoothing:
    """Medians of the likeliest parameters for each window (n, T); the last value where windows are too short."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    if windows.shape[1] < LEAST_STEPS or not len(windows):
        return LAST_VALUE
    names = ("smoothing_level", "smoothing_trend", "smoothing_seasonal", "damping_trend")
    fits = []
    for window in windows / windows.std(1, keepdims=True):
        model = ETSModel(
            window,
            trend="add" if trend else None,
            damped_trend=damped,
            seasonal="add" if period else None,
            seasonal_periods=period or None,
            initialization_method="heuristic",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some window's optimiser stopped early; the median bears it
            parameters = dict(zip(model.param_names, model.fit(disp=False).params, strict=True))
        fits.append([parameters.get(name, 0.0) for name in names])
    level, slope, season, damping = (float(x) for x in np.median(fits, axis=0))
    vague = (VAGUE[0], VAGUE[1] if trend else 0.0, VAGUE[2] if period else 0.0)
    return Smoothing(level, slope, season, damping if damped else float(trend), period, vague)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if not isinstance(target, Real) or not target.future:
        return "exponential smoothing continues its inputs, and this target is not their future"
    if not isinstance(inputs, RealInput) or target.n % inputs.channels:
        return "exponential smoothing forecasts the channels it reads, and these are not the targets"
    return None


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: ExponentialSmoothingConfig) -> Predictor:
    if not isinstance(inputs, RealInput) or not isinstance(target, Real) or _refuses(inputs, target, causal):
        raise ValueError(_refuses(inputs, target, causal))
    return ExponentialSmoothing(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="exponential_smoothing",
        family="non-neural",
        config=ExponentialSmoothingConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Holt 1957; Winters 1960; Hyndman, Koehler, Ord & Snyder 2008, doi:10.1007/978-3-540-71918-2",
        imports=("statsmodels.tsa.exponential_smoothing.ets",),
        summary="level, trend and season of each channel, smoothed exponentially; or the value one period ago",
        refuses=_refuses,
        search_space={"method": Choice(("holt_winters", "seasonal_naive"))},
        state="C * (max_period + 3) + 1",
    )
]
