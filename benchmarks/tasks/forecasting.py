"""Forecasting: a look-back window, scored at its last step, where the whole horizon is predicted at once.

The series is cut in time, 60 % training, 20 % validation, 20 % test. Windows have stride 1 unless the task says
otherwise; all targets of a window lie inside its split, while its look-back may reach into the split before, as it would
in use. With x_t the window's last value, C channels, and s the scale,

    input_i = (x_i - x_t) / s,   i = t - look_back + 1 … t          target_k = (x_(t+k) - x_t) / s,   k = 1 … horizon

so a window does not depend on the level of a series that grows, zero is the last-value forecast, and inputs and targets
share their unit. s is the standard deviation of x_(t+k) - x_t over the training windows alone. Metrics are in the units
of `SeriesTask.series`.

There is one recorded history, so the splits are the same for every seed, unless a task draws some of its training windows.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.metrics import Metric, absolute_error, squared_error
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.bundled import (
    N_GROWING,
    monthly_co2,
    monthly_el_nino,
    quarterly_economy,
    yearly_sunspots,
)
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Real, RealInput, SequenceBatch, last_steps


class Origins(NamedTuple):
    """The indices t of the last known value of each window, by split, (n,) int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def bounds(n: int) -> tuple[int, int]:
    """Where validation and test begin in a series of n values."""
    return n * 6 // 10, n * 8 // 10


def origins(n: int, look_back: int, horizon: int) -> Origins:
    """Where the windows of a series of n values stand; see the module docstring."""
    first, second = bounds(n)
    return Origins(
        train=np.arange(look_back - 1, first - horizon),
        validation=np.arange(first - 1, second - horizon),
        test=np.arange(second - 1, n - horizon),
    )


def in_training_deviations(series: np.ndarray) -> np.ndarray:
    """A series (n, C), each channel with mean 0 and deviation 1 over the training part."""
    known = series[: bounds(len(series))[0]]
    return (series - known.mean(0)) / known.std(0)


def windows(series: np.ndarray, at: np.ndarray, look_back: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """A series (n,) or (n, C), origins (B,) → inputs (B, look_back, C) and targets (B, horizon, C), both as differences
    from the last value."""
    series = series.reshape(len(series), -1)  # (n,) → (n, 1)
    last = series[at, None]  # (B, 1, C)
    known = sliding_window_view(series, look_back, axis=0)[at - look_back + 1]  # (B, C, look_back)
    future = sliding_window_view(series, horizon, axis=0)[at + 1]  # (B, C, horizon)
    return known.swapaxes(1, 2) - last, future.swapaxes(1, 2) - last


def window_scale(series: np.ndarray, train: np.ndarray, horizon: int) -> float:
    """s of the module docstring; train: the origins (B,) of all training windows."""
    return float(windows(series, train, 1, horizon)[1].std())


def window_splits(series: np.ndarray, look_back: int, horizon: int) -> tuple[Splits, float]:
    """The three splits of a series with windows of stride 1, and the scale s that both sides were divided by."""
    at = origins(len(series), look_back, horizon)
    scale = window_scale(series, at.train, horizon)
    return Splits(*(_batch(*windows(series, part, look_back, horizon), scale) for part in at)), scale


def _batch(inputs: np.ndarray, targets: np.ndarray, scale: float) -> SequenceBatch:
    """Inputs (B, T, C) and targets (B, horizon, C) → a batch scored at the last step.

    Every step of a window shows the same target, without a copy: of a long window that asks for hundreds of values, the
    targets of the steps that are not scored would be most of the memory.
    """
    n, length = inputs.shape[:2]
    flat = torch.from_numpy((targets / scale).reshape(n, -1)).float()  # step-major
    lengths = torch.full((n,), length)
    return SequenceBatch(
        inputs=torch.from_numpy(inputs / scale).float(),
        targets=flat[:, None].expand(-1, length, -1),  # (B, n) → (B, T, n)
        lengths=lengths,
        scored=last_steps(lengths, length),
    )


class SeriesTask(Task):
    """What the forecasting tasks of one recorded history share; see the module docstring."""

    look_back: int
    horizon: int
    unit: ClassVar[str]
    n_values: ClassVar[int]
    """Steps in the series: known without reading it."""
    channels: ClassVar[int] = 1
    strides: ClassVar[tuple[int, int, int]] = (1, 1, 1)
    """From window to window in training, validation and test."""
    group: ClassVar[str] = "forecasting"
    picture: ClassVar[Literal["forecast"]] = "forecast"
    causal: ClassVar[bool] = False

    @abstractmethod
    def series(self) -> np.ndarray:
        """(n_values,) or (n_values, C) float64."""

    @property
    def overlap(self) -> int:
        return -(-self.horizon // self.strides[2])

    @property
    def drawn(self) -> int | None:
        """How many of the training windows a seed draws; None: all of them are used."""
        return None

    @property
    def origins(self) -> Origins:
        every = origins(self.n_values, self.look_back, self.horizon)
        return Origins(*(part[::stride] for part, stride in zip(every, self.strides, strict=True)))

    @property
    def input(self) -> RealInput:
        return RealInput(channels=self.channels, max_length=self.look_back)

    @property
    def target(self) -> Real:
        return Real(self.horizon * self.channels, scope="sequence", future=True)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        scale = _scale(self)
        return (absolute_error(self.unit, scale), squared_error(f"{self.unit}²", scale))

    def splits(self, seed: int) -> Splits:
        return _splits(self, 0 if self.drawn is None else seed)

    def autoregression(self, order: int, train: np.ndarray | None = None) -> float:
        """The test error, in the unit of the primary metric, of direct vector autoregression: for each step ahead an
        ordinary least-squares fit with intercept on the last ``order`` values of all channels.

        train: origins (B,) of the windows it is fitted on; None: all training windows that have ``order`` values.
        """
        known, future = self._levels(order, self.origins.train if train is None else train)
        weights, *_ = np.linalg.lstsq(known, future)  # (1 + order C, horizon C)
        known, future = self._levels(order, self.origins.test)
        terms = self.metrics[0].terms  # type: ignore[attr-defined]
        unscaled = _scale(self)
        errors = terms(torch.from_numpy(known @ weights / unscaled), torch.from_numpy(future / unscaled))
        return float(errors.mean())

    def _levels(self, order: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 1 + order C) and (B, horizon C): what is known, with a leading 1, and what comes, as values."""
        at = at[at >= order - 1]
        known, future = windows(self.series(), at, order, self.horizon)
        last = self.series().reshape(self.n_values, -1)[at, None]  # (B, 1, C)
        return np.column_stack([np.ones(len(at)), (known + last).reshape(len(at), -1)]), (future + last).reshape(
            len(at), -1
        )


def require_windows(task: SeriesTask) -> None:
    """Raises InvalidParameter unless training has two windows and the other splits have one."""
    require_integers(task, {"look_back": 2, "horizon": 1})
    n = task.n_values
    first, second = bounds(n)
    longest = min(second - first, n - second)
    if task.look_back + task.horizon >= first or task.horizon > longest:  # the scale needs two training windows
        raise InvalidParameter(
            f"{task.name}: look_back + horizon must be at most {first - 1} and horizon at most {longest}, "
            f"got {task.look_back} and {task.horizon}; the series has {n} values"
        )


@lru_cache(maxsize=8)
def _scale(task: SeriesTask) -> float:
    return window_scale(task.series(), task.origins.train, task.horizon)


@lru_cache(maxsize=4)
def _splits(task: SeriesTask, seed: int) -> Splits:
    at, scale = task.origins, _scale(task)
    if task.drawn is not None and task.drawn < len(at.train):
        generator = numpy_generator("data", task.name, seed)
        at = at._replace(train=np.sort(generator.choice(at.train, task.drawn, replace=False)))
    return Splits(*(_batch(*windows(task.series(), part, task.look_back, task.horizon), scale) for part in at))


@dataclass(frozen=True)
class CO2(SeriesTask):
    """CO2 at Mauna Loa over the next year, month by month, from the three years before.

        month       2000-10   2000-11   2000-12  |  2001-01   2001-02   2001-03  …        here ppm, rounded
        value         366.7     368.1     369.4  |    370.2     371.3     372.1
        input          -2.7      -1.3       0.0  |                                        times 1 / scale
        target            ·         ·       ( +0.7, +1.9, +2.6, … )                       at the last step alone

    Floor: the last value stays. Ceiling: unknown. Reference: the same month a year before plus the growth over the year
    that ended with the last value, computed on the test windows: it knows the season and the trend, but takes both from
    a single year, so a good model beats it. (Without the growth of about 1.5 ppm a year its error would be 2.6 times as
    large, and a score against it would say little.) Missing months are filled from the past only (`monthly_co2`).

    look_back: months seen. horizon: months predicted. The splits are the same for every seed.
    """

    look_back: int = 36
    horizon: int = 12

    name: ClassVar[str] = "co2"
    summary: ClassVar[str] = "monthly CO2 over the next year from the three years before"
    licence: ClassVar[str] = "public domain"
    source: ClassVar[str] = "Keeling and Whorf 2004, Mauna Loa weekly CO2, 1958-2001, as bundled with statsmodels"
    unit: ClassVar[str] = "ppm"
    n_values: ClassVar[int] = 526

    def __post_init__(self) -> None:
        require_windows(self)

    def series(self) -> np.ndarray:
        return monthly_co2()

    @property
    def reference(self) -> Reference:
        series, test = self.series(), origins(len(self.series()), self.look_back, self.horizon).test
        ahead = np.arange(1, self.horizon + 1)
        years = -(-ahead // 12)  # whole years back to a known value: 1 for months 1 … 12, 2 for 13 … 24
        growth = (series[test] - series[test - 12])[:, None]  # (B, 1)
        forecast = series[test[:, None] + ahead - 12 * years] + growth * years  # (B, horizon)
        error = float(np.abs(series[test[:, None] + ahead] - forecast).mean())
        return Reference(error, "computed: the same month a year before plus the growth over the last year")


@dataclass(frozen=True)
class Sunspots(SeriesTask):
    """The yearly sunspot number over the next five years, from three cycles of about eleven years before.

        year         1997   1998   1999  |  2000   2001   2002   2003   2004
        value        21.5   64.3   93.3  | 119.6  111.0  104.0   63.7   40.4
        input       -71.8  -29.0    0.0  |                                         times 1 / scale
        target          ·      ·   ( +26.3, +17.7, +10.7, -29.6, -52.9 )           at the last step alone

    Floor: the last value stays. Ceiling: unknown. Reference: autoregression, the classical yardstick for this series
    since Yule 1927, here of order 9 and direct: for each year ahead an ordinary least-squares fit, with intercept, on
    the last nine values of the training windows; computed on the test windows.

    look_back: years seen. horizon: years predicted. The splits are the same for every seed.
    """

    look_back: int = 33
    horizon: int = 5

    name: ClassVar[str] = "sunspots"
    summary: ClassVar[str] = "yearly sunspot numbers over the next five years from the 33 before"
    licence: ClassVar[str] = "public domain"
    source: ClassVar[str] = "National Geophysical Data Center, yearly sunspots 1700-2008, as bundled with statsmodels"
    unit: ClassVar[str] = "sunspots"
    n_values: ClassVar[int] = 309

    def __post_init__(self) -> None:
        require_windows(self)

    def series(self) -> np.ndarray:
        return yearly_sunspots()

    @property
    def reference(self) -> Reference:
        source = "computed: direct least-squares autoregression of order 9; Yule 1927, doi:10.1098/rsta.1927.0007"
        return Reference(self.autoregression(9), source)


@dataclass(frozen=True)
class ElNino(SeriesTask):
    """The sea surface temperature of the eastern Pacific over the next half year, from the three years before.

        month       2000-04   2000-05   2000-06  |  2000-07   2000-08   2000-09  …        here °C, rounded
        value          25.5      24.3      22.9  |     21.5      20.1      20.6
        input          +2.6      +1.3       0.0  |                                        times 1 / scale
        target            ·         ·       ( -1.5, -2.9, -2.3, … )                       at the last step alone

    Floor: the last value stays. Ceiling: unknown. Reference: autoregression of order 12, direct: least squares, with
    intercept, on the last twelve months, which hold one season; computed on the test windows.

    look_back: months seen. horizon: months predicted. The splits are the same for every seed.
    """

    look_back: int = 36
    horizon: int = 6

    name: ClassVar[str] = "elnino"
    summary: ClassVar[str] = "monthly sea temperature of the eastern Pacific over the next half year"
    licence: ClassVar[str] = "public domain"
    source: ClassVar[str] = "NOAA Climate Prediction Center, Niño 1+2 region, 1950-2010, as bundled with statsmodels"
    unit: ClassVar[str] = "°C"
    n_values: ClassVar[int] = 732

    def __post_init__(self) -> None:
        require_windows(self)

    def series(self) -> np.ndarray:
        return monthly_el_nino()

    @property
    def reference(self) -> Reference:
        return Reference(self.autoregression(12), "computed: direct least-squares autoregression of order 12")


@dataclass(frozen=True)
class Economy(SeriesTask):
    """The economy of the United States over the next year, quarter by quarter, from the four years before: growth of
    output, consumption, investment, income and prices, the rate of unemployment and that of treasury bills.

        quarter              2000-Q1   2000-Q2   2000-Q3  |  2000-Q4  …       % a year; here before standardisation
        output                   1.0       7.7       0.3  |      2.4
        unemployment             4.0       3.9       4.0  |      3.9
        input, output            0.2       1.9       0.0  |                   relative to the last quarter, and scaled
        target                     ·         ·   ( 0.5, … )                   7 values a quarter; at the last step alone

    Growth is 400 times the change of the logarithm. Each series has mean 0 and deviation 1 over the training quarters,
    1959 to 1989, so that none outweighs the rest. 202 quarters: little to learn from, and the test years hold the crisis
    of 2008. (A vector autoregression by least squares is here worse than the floor, whatever its order.)

    Floor: the last values stay. Ceiling: unknown. Reference: growth goes on at its mean over the look-back, and the two
    rates stay; computed on the test windows.

    look_back: quarters seen. horizon: quarters predicted. The splits are the same for every seed.
    """

    look_back: int = 16
    horizon: int = 4

    name: ClassVar[str] = "macro"
    summary: ClassVar[str] = "seven series of the US economy over the next year, jointly"
    licence: ClassVar[str] = "public domain"
    source: ClassVar[str] = "Federal Reserve and Bureau of Labor Statistics, 1959-2009, as bundled with statsmodels"
    unit: ClassVar[str] = "deviations"
    n_values: ClassVar[int] = 202
    channels: ClassVar[int] = 7

    def __post_init__(self) -> None:
        require_windows(self)

    def series(self) -> np.ndarray:
        return in_training_deviations(quarterly_economy())

    @property
    def reference(self) -> Reference:
        series, test = self.series(), self.origins.test
        known, future = windows(series, test, self.look_back, self.horizon)  # both relative to the last quarter
        forecast = np.zeros((len(test), 1, self.channels))
        forecast[:, 0, :N_GROWING] = known.mean(1)[:, :N_GROWING]
        source = "computed: growth as on average over the look-back, rates as in the last quarter"
        return Reference(float(np.abs(future - forecast).mean()), source)
