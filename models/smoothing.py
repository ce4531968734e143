"""Exponential smoothing: level, trend and season of each channel, carried from step to step.

Holt 1957, doi:10.1016/j.ijforecast.2003.09.015; Winters 1960, doi:10.1287/mnsc.6.3.324; as innovations state space models,
Hyndman, Koehler, Ord & Snyder 2008, doi:10.1007/978-3-540-71918-2. With level l, trend b, season s of period m,

    x_t = l_(t-1) + φ b_(t-1) + s_(t-m) + e_t
    l_t = l_(t-1) + φ b_(t-1) + α e_t        b_t = φ b_(t-1) + β e_t        s_t = s_(t-m) + γ e_t

which is run, from a first state that is unknown, by `models.innovations`. Parameters are estimated by statsmodels on some
training windows, and their medians taken.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor
from models.innovations import VAGUE, InnovationsForecaster, System
from models.seasonal import full_windows, joined, periods, refuses, squared_errors
from models.sequences import InputSpec, Real, RealInput, SequenceBatch, TargetSpec

LEAST_STEPS = 10
"""What statsmodels needs to begin; of shorter windows the last value is forecast."""
VAGUE_TREND, VAGUE_SEASON = 1.0, 1e2
"""Variances of the first trend and season, in those of the innovations; that of the first level is `innovations.VAGUE`."""


@dataclass(frozen=True)
class ExponentialSmoothingConfig:
    """max_period: the longest season looked for, in steps. n_windows: training windows that parameters are estimated on, shared
    among the channels, each of which gets one at least.
    """

    max_period: int = 24
    n_windows: int = 12

    def __post_init__(self) -> None:
        if self.max_period < 2 or self.n_windows < 1:
            raise ValueError("max_period must be at least 2 and n_windows at least 1")


class Smoothing(NamedTuple):
    """The model of one channel, with the parameters of the module's docstring.

    period: m, 0 without a season. vague: the variances of the first level, trend and season.
    """

    level: float
    trend: float = 0.0
    season: float = 0.0
    damping: float = 0.0
    period: int = 0
    vague: tuple[float, float, float] = (VAGUE, 0.0, 0.0)

    def system(self) -> System:
        """q = 2 + m: level, trend, and the season's values, the newest first."""
        q = 2 + self.period
        transition, weights, gain = np.zeros((q, q)), np.zeros(q), np.zeros(q)
        transition[0, :2] = weights[:2] = 1.0, self.damping
        transition[1, 1] = self.damping
        gain[:2] = self.level, self.trend
        variances = np.full(q, self.vague[2])
        variances[:2] = self.vague[:2]
        if self.period:
            transition[2, -1] = weights[-1] = 1.0
            transition[np.arange(3, q), np.arange(2, q - 1)] = 1.0
            gain[2] = self.season
        return System(transition, weights, gain, np.zeros(q), np.diag(variances))


RANDOM_WALK = Smoothing(level=1.0)
"""The last value is forecast."""


class ExponentialSmoothing(InnovationsForecaster):
    """With or without trend, damped or not, with or without season, as validation has it, for each channel."""

    def __init__(self, inputs: RealInput, target: Real, config: ExponentialSmoothingConfig) -> None:
        super().__init__(inputs, target, n_state=2 + config.max_period)
        self.config = config

    def parameter_counts(self) -> ParameterCounts:
        """Per channel α, β, γ, φ and the period, whether or not validation uses them all."""
        return ParameterCounts(backbone=5 * self.n_channels)

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Parameters from the longest training windows; validation chooses trend, damping and period. Needs no chance."""
        windows = full_windows(train)  # (n, T, C)
        series, longest = joined(windows), windows.shape[1]
        limit = min(
            self.config.max_period, longest // 2, longest - LEAST_STEPS
        )  # a season must fit twice into a window
        candidates = [
            self._candidates(windows[:, :, c], periods([piece[:, c] for piece in series], limit))
            for c in range(self.n_channels)
        ]
        errors = []
        for models in zip(*candidates, strict=True):
            self.install([model.system() for model in models], longest)
            errors.append(squared_errors(self, validation, self.horizon))
        best = torch.stack(errors).argmin(0).tolist()
        self.install([models[index].system() for models, index in zip(candidates, best, strict=True)], longest)

    def _candidates(self, windows: np.ndarray, proposed: list[int]) -> list[Smoothing]:
        """What validation chooses from, for one channel (n, T): always as many."""
        n = max(1, self.config.n_windows // self.n_channels)
        varied = windows[windows.std(1) > 0]
        chosen = varied[np.linspace(0, len(varied) - 1, min(n, len(varied))).round().astype(int)]
        shapes = ((False, False), (True, False), (True, True))
        seasons = [0, *(m if m > 1 else 0 for m in proposed)]
        fitted = {m: [estimated(chosen, m, *shape) for shape in shapes] for m in set(seasons)}
        return [RANDOM_WALK, *(model for m in seasons for model in fitted[m])]


def estimated(windows: np.ndarray, period: int, trend: bool, damped: bool) -> Smoothing:
    """Medians of the likeliest parameters for each window (n, T); the last value where windows are too short."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    if windows.shape[1] < LEAST_STEPS or not len(windows):
        return RANDOM_WALK
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
    vague = (VAGUE, VAGUE_TREND if trend else 0.0, VAGUE_SEASON if period else 0.0)
    return Smoothing(level, slope, season, damping if damped else float(trend), period, vague)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: ExponentialSmoothingConfig) -> Predictor:
    if not isinstance(inputs, RealInput) or not isinstance(target, Real) or refuses(inputs, target, causal):
        raise ValueError(refuses(inputs, target, causal))
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
        summary="level, trend and season of each channel, smoothed exponentially",
        refuses=refuses,
        search_space={"max_period": Choice((12, 24, 60))},
        state="C * (max_period + 3) + 1",
    )
]
