"""Seasonal ARIMA: each channel as an autoregression with moving average of its differences, orders chosen by AICc.

Box & Jenkins 1970; orders stepwise, as in Hyndman & Khandakar 2008, doi:10.18637/jss.v027.i03; estimated by statsmodels.
With B the step back in time and m the period,

    z_t = (1 - B)^d (1 - B^m)^D x_t        φ(B) Φ(B^m) (z_t - μ) = θ(B) Θ(B^m) e_t

φ, Φ, θ, Θ of degrees p, P, q, Q. AICc cannot compare differences d and D, so validation chooses them, among models of
small orders, and whether there is a season; then the orders are varied one by one. Parameters come from the series that the
training windows cover (`models.seasonal.joined`), of which the last ``max_steps`` count; stretches that do not meet are
separated by missing values.

It is run by `models.innovations`. With a = φ Φ and b = θ Θ multiplied out, a(B) = 1 - Σ a_i B^i and b(B) = 1 + Σ b_i B^i,
the state holds u, μ and the values x_(t-1) … that differences need:

    z_t = u_(t-1)[1] + μ + e_t        u_t[i] = a_i u_(t-1)[1] + u_(t-1)[i+1] + (a_i + b_i) e_t

At first u has its stationary distribution, and the values before the beginning are unknown; so is μ where d = D = 0, because
windows are relative to their last value. A season longer than the training windows is not considered: such forecasts have none.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor
from models.innovations import LAST_VALUE, VAGUE, InnovationsForecaster, System
from models.seasonal import full_windows, joined, periods, refuses, squared_errors
from models.sequences import InputSpec, Real, RealInput, SequenceBatch, TargetSpec

LEAST_STEPS = 20
"""Differenced values without which nothing is estimated; the last value is forecast then."""

LONG_SEASON = 12
"""Steps up to which estimating a model takes less than a second."""


@dataclass(frozen=True)
class ArimaConfig:
    """max_order: p and q at most; P, Q, d and D are at most 1. period: m, in steps; 1: no season; None: what
    `models.seasonal.periods` finds, or no season, as validation has it. max_period: the longest season looked for.

    max_steps: the values that parameters are estimated on, at most, of each channel. max_models: models estimated while
    orders are varied, shared among the channels; fewer, in proportion to the square of the season, where one is longer than
    12 steps, because the time of one grows so.
    """

    max_order: int = 3
    period: int | None = None
    max_period: int = 60
    max_steps: int = 500
    max_models: int = 24

    def __post_init__(self) -> None:
        least = min(self.max_order, self.max_models, 1 if self.period is None else self.period)
        if least < 1 or self.max_period < 2:
            raise ValueError("max_order, period and max_models must be at least 1 and max_period at least 2")
        if self.max_steps < LEAST_STEPS:
            raise ValueError(f"max_steps must be at least {LEAST_STEPS}, got {self.max_steps}")


@dataclass(frozen=True)
class Orders:
    """p, d, q, and seasonal P, D, Q with the period m, 1 without a season. constant: whether μ is estimated."""

    p: int = 0
    d: int = 0
    q: int = 0
    seasonal_p: int = 0
    seasonal_d: int = 0
    seasonal_q: int = 0
    period: int = 1
    constant: bool = True

    def differences(self) -> np.ndarray:
        """The coefficients of (1 - B)^d (1 - B^m)^D, by power of B."""
        season = np.zeros(self.period + 1)
        season[0], season[-1] = 1.0, -1.0
        result = np.array([1.0])
        for part, times in (([1.0, -1.0], self.d), (season, self.seasonal_d)):
            for _ in range(times):
                result = np.convolve(result, part)
        return result

    def n_parameters(self) -> int:
        return self.p + self.q + self.seasonal_p + self.seasonal_q + self.constant

    def neighbours(self, max_order: int) -> list[Orders]:
        """What differs by one in p, q, both, P, Q, both, or in the constant."""
        season = int(self.period > 1)
        changes = [(1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1)]
        moved = [
            replace(
                self,
                p=self.p + sign * p,
                q=self.q + sign * q,
                seasonal_p=self.seasonal_p + sign * seasonal_p,
                seasonal_q=self.seasonal_q + sign * seasonal_q,
            )
            for p, q, seasonal_p, seasonal_q in changes
            for sign in (-1, 1)
        ]
        if self.d + self.seasonal_d == 1:
            moved.append(replace(self, constant=not self.constant))
        return [
            x
            for x in moved
            if min(x.p, x.q, x.seasonal_p, x.seasonal_q) >= 0
            and max(x.p, x.q) <= (min(max_order, self.period - 1) if season else max_order)
            and max(x.seasonal_p, x.seasonal_q) <= season
        ]


class Estimate(NamedTuple):
    """ar, ma: a and b of the module's docstring, by power of B from 0, with their signs. mean: μ. aicc: corrected information
    criterion of Akaike, to be compared between models of the same differences."""

    orders: Orders
    ar: np.ndarray
    ma: np.ndarray
    mean: float
    aicc: float

    def system(self) -> System:
        r = max(len(self.ar), len(self.ma), 2) - 1
        a, b, delta = np.zeros(r), np.zeros(r), -self.orders.differences()[1:]
        a[: len(self.ar) - 1], b[: len(self.ma) - 1] = -self.ar[1:], self.ma[1:]
        q = r + 1 + len(delta)
        transition, gain = np.zeros((q, q)), np.zeros(q)
        transition[:r, 0] = a
        transition[np.arange(r - 1), np.arange(1, r)] = 1.0
        gain[:r] = a + b
        first = _stationary(transition[:r, :r], gain[:r])
        weights = np.zeros(q)
        weights[[0, r]] = 1.0
        weights[r + 1 :] = delta
        transition[r, r] = 1.0
        mean, covariance = np.zeros(q), np.diag(np.full(q, VAGUE))
        if len(delta):
            transition[r + 1], gain[r + 1] = weights, 1.0
            transition[np.arange(r + 2, q), np.arange(r + 1, q - 1)] = 1.0
            mean[r], covariance[r, r] = self.mean, 0.0
        covariance[:r, :r] = first
        return System(transition, weights, gain, mean, covariance)


def _stationary(transition: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """P = F P F' + g g'."""
    from scipy.linalg import solve_discrete_lyapunov

    return np.asarray(solve_discrete_lyapunov(transition, np.outer(gain, gain)))


def estimated(pieces: list[np.ndarray], orders: Orders) -> Estimate | None:
    """The likeliest parameters for the stretches of a series, (T,) each.

    None where they are too short, do not change, or lead to the edge of what is stationary, where the likelihood ends.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    filters = orders.differences()
    level = orders.d + orders.seasonal_d == 0
    differenced = [np.convolve(x, filters, "valid") for x in pieces if len(x) >= len(filters)]
    n = sum(map(len, differenced))
    if n < max(LEAST_STEPS, 3 * orders.n_parameters()) or max(np.ptp(x) for x in differenced) < 1e-9:
        return None
    gap = np.full(2 * orders.period + 2 * orders.p + 10, np.nan)
    parts = [part for x in differenced for part in (gap, x - x.mean() * level)]
    values = np.concatenate(parts[1:])
    scale = np.nanstd(values)
    model = SARIMAX(
        values / scale,
        order=(orders.p, 0, orders.q),
        seasonal_order=_seasonal(orders),
        trend="c" if orders.constant and not level else None,
        concentrate_scale=True,
    )
    if len(differenced) == 1 and orders.period > LONG_SEASON:
        model.ssm.filter_chandrasekhar = True  # half the time for many states; it takes no missing values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an optimiser that stopped early has a worse AICc, no more
        try:
            fit = model.fit(disp=False, cov_type="none", maxiter=50) if model.k_params else model.filter([])
        except np.linalg.LinAlgError:
            return None
    ar, ma = fit.polynomial_reduced_ar, fit.polynomial_reduced_ma
    if not np.isfinite(fit.llf) or np.abs(np.roots(ar)).max(initial=0.0) > 1 - 1e-6:
        return None
    k = orders.n_parameters() + 1
    return Estimate(orders, ar, ma, _mean(fit, ar) * scale, float(-2 * fit.llf + 2 * k * n / max(n - k - 1, 1)))


def _seasonal(orders: Orders) -> tuple[int, int, int, int]:
    used = orders.seasonal_p + orders.seasonal_q
    return (orders.seasonal_p, 0, orders.seasonal_q, orders.period if used else 0)


def _mean(fit: Any, ar: np.ndarray) -> float:
    """μ from the intercept of statsmodels, which is a(1) μ."""
    parameters = dict(zip(fit.param_names, fit.params, strict=True))
    return float(parameters.get("intercept", 0.0) / ar.sum())


class Arima(InnovationsForecaster):
    """A seasonal ARIMA of each channel."""

    def __init__(self, inputs: RealInput, target: Real, config: ArimaConfig) -> None:
        longest = config.period or config.max_period
        super().__init__(inputs, target, n_state=config.max_order + 2 * longest + 2)
        self.config = config
        self.estimates: list[Estimate | None] = [None] * inputs.channels

    def parameter_counts(self) -> ParameterCounts:
        """Of each channel p, d, q, P, D, Q, m, and the coefficients that they allow, whether or not all are used."""
        return ParameterCounts(backbone=self.n_channels * (7 + 2 * self.config.max_order + 3))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Differences by validation, orders by AICc, coefficients by likelihood. Needs no chance."""
        windows = full_windows(train)  # (n, T, C)
        longest = windows.shape[1]
        series = [
            shortened([piece[:, c] for piece in joined(windows)], self.config.max_steps)
            for c in range(windows.shape[2])
        ]
        candidates = [self._starts(pieces, longest) for pieces in series]
        errors = []
        for choice in zip(*candidates, strict=True):
            self._use(list(choice), longest)
            errors.append(squared_errors(self, validation, self.horizon))
        best = torch.stack(errors).argmin(0).tolist()
        chosen = [estimates[i] for estimates, i in zip(candidates, best, strict=True)]
        self._use([self._varied(pieces, start) for pieces, start in zip(series, chosen, strict=True)], longest)

    def _starts(self, pieces: list[np.ndarray], longest: int) -> list[Estimate | None]:
        """What validation chooses from, for one channel: always as many. None is the last value."""
        plain = [Orders(1, d, 1, constant=d == 0) for d in (0, 1)]
        seasonal = [
            Orders(min(1, m - 1), d, min(1, m - 1), 1 - seasonal_d, seasonal_d, 1, m, constant=d + seasonal_d == 0)
            for m in self._seasons(pieces, longest)
            for d in (0, 1)
            for seasonal_d in ((0, 1) if m <= LONG_SEASON else (1,))
        ]
        fitted = [estimated(pieces, orders) for orders in (*plain, *seasonal)]
        return [None, *fitted, *[None] * (10 - len(fitted))]

    def _seasons(self, pieces: list[np.ndarray], longest: int) -> list[int]:
        """Those to be tried: the given one, or the two likeliest."""
        if self.config.period is not None:
            proposed = [self.config.period]
        else:
            proposed = periods(pieces, min(self.config.max_period, longest))[:2]
        return [m for m in proposed if 1 < m <= longest]

    def _varied(self, pieces: list[np.ndarray], start: Estimate | None) -> Estimate | None:
        """From ``start`` to a neighbour of lower AICc, again and again, until there is none, or enough were tried."""
        if start is None:
            return None
        slowness = max(1.0, start.orders.period / LONG_SEASON) ** 2
        left = int(self.config.max_models / self.n_channels / slowness)
        best, tried = start, {start.orders}
        untried = best.orders.neighbours(self.config.max_order)
        while untried and left > 0:
            orders, left = untried.pop(0), left - 1
            tried.add(orders)
            other = estimated(pieces, orders)
            if other is not None and other.aicc < best.aicc:
                best = other
                untried = [x for x in best.orders.neighbours(self.config.max_order) if x not in tried]
        return best

    def _use(self, estimates: list[Estimate | None], n_steps: int) -> None:
        self.estimates = estimates
        self.install([LAST_VALUE if x is None else x.system() for x in estimates], n_steps)


def shortened(pieces: list[np.ndarray], max_steps: int) -> list[np.ndarray]:
    """Of stretches (T,), longest first, the ends of as many as make ``max_steps`` values."""
    kept = []
    for piece in pieces:
        if max_steps < 2:
            break
        kept.append(piece[-max_steps:])
        max_steps -= len(kept[-1])
    return kept


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: ArimaConfig) -> Predictor:
    if not isinstance(inputs, RealInput) or not isinstance(target, Real) or refuses(inputs, target, causal):
        raise ValueError(refuses(inputs, target, causal))
    return Arima(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="arima",
        family="non-neural",
        config=ArimaConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Box & Jenkins 1970; Hyndman & Khandakar 2008, doi:10.18637/jss.v027.i03; estimated by statsmodels",
        imports=("statsmodels.tsa.statespace.sarimax", "scipy.linalg"),
        summary="seasonal ARIMA of each channel, orders by AICc and differences by validation",
        refuses=refuses,
        search_space={"max_order": Choice((1, 2, 3, 5))},
        state="C * (max_order + 2 * (period or max_period) + 3) + 1",
    )
]
