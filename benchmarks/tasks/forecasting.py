"""Forecasting: a look-back window, scored at its last step, where the whole horizon is predicted at once.

The series is cut in time, 60 % training, 20 % validation, 20 % test. Windows have stride 1; all targets of a window lie
inside its split, while its look-back may reach into the split before, as it would in use. With x_t the window's last
value and s the scale,

    input_i = (x_i - x_t) / s,   i = t - look_back + 1 … t          target_k = (x_(t+k) - x_t) / s,   k = 1 … horizon

so a window does not depend on the level of a series that grows, zero is the last-value forecast, and inputs and targets
share their unit. s is the standard deviation of x_(t+k) - x_t over the training windows alone. Metrics are in original
units.

There is one recorded history, so the splits are the same for every seed.
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
from benchmarks.tasks.bundled import monthly_co2, yearly_sunspots
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.contract import Real, RealInput, SequenceBatch, last_steps


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


def windows(series: np.ndarray, at: np.ndarray, look_back: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """A series (n,), origins (B,) → inputs (B, look_back), targets (B, horizon): differences from the last value."""
    last = series[at, None]  # (B, 1)
    known = sliding_window_view(series, look_back)[at - look_back + 1]  # (B, look_back)
    future = sliding_window_view(series, horizon)[at + 1]  # (B, horizon)
    return known - last, future - last


def window_splits(series: np.ndarray, look_back: int, horizon: int) -> tuple[Splits, float]:
    """The three splits of a series (n,) and the scale s that both sides were divided by."""
    cut = [windows(series, at, look_back, horizon) for at in origins(len(series), look_back, horizon)]
    scale = float(cut[0][1].std())
    return Splits(*(_batch(inputs / scale, targets / scale) for inputs, targets in cut)), scale


def _batch(inputs: np.ndarray, targets: np.ndarray) -> SequenceBatch:
    """Inputs (B, T) and targets (B, horizon) → a batch scored at the last step."""
    n, length = inputs.shape
    placed = torch.zeros((n, length, targets.shape[1]))
    placed[:, -1] = torch.from_numpy(targets)
    lengths = torch.full((n,), length)
    return SequenceBatch(
        inputs=torch.from_numpy(inputs).float().unsqueeze(-1),  # (B, T) → (B, T, 1)
        targets=placed,
        lengths=lengths,
        scored=last_steps(lengths, length),
    )


class SeriesTask(Task):
    """What the forecasting tasks of one series share; see the module docstring."""

    look_back: int
    horizon: int
    unit: ClassVar[str]
    group: ClassVar[str] = "forecasting"
    picture: ClassVar[Literal["forecast"]] = "forecast"
    causal: ClassVar[bool] = False

    @abstractmethod
    def series(self) -> np.ndarray:
        """(n,) float64 in original units."""

    @property
    def input(self) -> RealInput:
        return RealInput(channels=1, max_length=self.look_back)

    @property
    def target(self) -> Real:
        return Real(self.horizon, scope="sequence", future=True)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        scale = prepared(self)[1]
        return (absolute_error(self.unit, scale), squared_error(f"{self.unit}²", scale))

    def splits(self, seed: int) -> Splits:
        """The same for every seed."""
        return prepared(self)[0]


def require_windows(task: SeriesTask) -> None:
    """Raises InvalidParameter unless training has two windows and the other splits have one."""
    require_integers(task, {"look_back": 2, "horizon": 1})
    n = len(task.series())
    first, second = bounds(n)
    longest = min(second - first, n - second)
    if task.look_back + task.horizon >= first or task.horizon > longest:  # the scale needs two training windows
        raise InvalidParameter(
            f"{task.name}: look_back + horizon must be at most {first - 1} and horizon at most {longest}, "
            f"got {task.look_back} and {task.horizon}; the series has {n} values"
        )


@lru_cache(maxsize=4)
def prepared(task: SeriesTask) -> tuple[Splits, float]:
    """Splits and scale of a task, cut once."""
    return window_splits(task.series(), task.look_back, task.horizon)


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

    def __post_init__(self) -> None:
        require_windows(self)

    def series(self) -> np.ndarray:
        return yearly_sunspots()

    @property
    def reference(self) -> Reference:
        series, order = self.series(), 9
        at = origins(len(series), max(self.look_back, order), self.horizon)

        def design(t: np.ndarray) -> np.ndarray:
            lags = series[t[:, None] - np.arange(order)]  # (B, order)
            return np.column_stack([np.ones(len(t)), lags])  # (B, order) → (B, 1 + order)

        ahead = np.arange(1, self.horizon + 1)
        weights, *_ = np.linalg.lstsq(design(at.train), series[at.train[:, None] + ahead])  # (1 + order, horizon)
        error = series[at.test[:, None] + ahead] - design(at.test) @ weights  # (B, horizon)
        source = "computed: direct least-squares autoregression of order 9; Yule 1927, doi:10.1098/rsta.1927.0007"
        return Reference(float(np.abs(error).mean()), source)
