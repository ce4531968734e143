"""Monitoring machines and rooms: a transformer's load and temperature, a turbofan's remaining life, a room's occupancy.

What is tested comes from other machines, or another time, than what is trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks import datasets
from benchmarks.metrics import POSITIVE, Metric, Parts, StepMetric, absolute_error, squared_error
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tables_to_sequences import Preparation, fit, padded
from benchmarks.tasks.forecasting import SeriesTask, in_training_deviations, require_windows
from benchmarks.tasks.sensor_files import (
    Rows,
    remaining_cycles,
    room_occupancy,
    transformer_temperature,
    turbofan_cycles,
)
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, Real, RealInput, SequenceBatch, last_steps, valid_steps

N_HOURS = 14_400
"""Of the 17,420 hours the literature uses twenty months of 30 days: twelve, four and four."""


@lru_cache(maxsize=1)
def transformer_hours() -> np.ndarray:
    """(14400, 7) float64, in deviations over the training part."""
    path = datasets.path("ett_small_h", "ETTh1.csv")
    return in_training_deviations(transformer_temperature(path.read_text(), path.name)[:N_HOURS])


@dataclass(frozen=True)
class TransformerTemperature(SeriesTask):
    """Six loads of an electricity transformer and its oil temperature over the next day, hour by hour, from the two weeks
    before.

        hour                -3      -2      -1       0  |    +1     +2  …       the first test window, in deviations
        high useful load  0.03   -0.13   -0.14    0.21  |  0.35   0.06
        oil temperature  -0.81   -0.92   -0.90   -0.89  | -0.86  -0.87
        target               ·       ·       ·  ( 0.14, … )                     7 values an hour; at the last step alone

    Channels have mean 0 and deviation 1 over the training hours. Rows 8,640 / 2,880 / 2,880, and all 2,880 - horizon + 1
    windows of the test rows, as is usual (Zhou et al. 2021); many published numbers drop the last, incomplete batch,
    these do not. Training draws ``n_train`` windows by the seed; validation takes a window a day.

    Floor: the last values stay. Ceiling: unknown. Reference: vector autoregression, direct: for each hour ahead least
    squares, with intercept, on the last two days of all channels, fitted on all training windows; computed on the test windows.

    look_back: hours seen. horizon: hours predicted; 24 and 96 are usual. n_train: training windows.
    """

    look_back: int = 336
    horizon: int = 24
    n_train: int = 1000

    name: ClassVar[str] = "etth1"
    group: ClassVar[str] = "forecasting"
    summary: ClassVar[str] = "loads and oil temperature of a transformer over the next day from the two weeks before"
    licence: ClassVar[str] = "CC BY-ND 4.0"
    source: ClassVar[str] = "Zhou et al. 2021, arXiv 2012.07436; github.com/zhouhaoyi/ETDataset, ETTh1"
    datasets: ClassVar[tuple[str, ...]] = ("ett_small_h",)
    unit: ClassVar[str] = "deviations"
    n_values: ClassVar[int] = N_HOURS
    channels: ClassVar[int] = 7
    strides: ClassVar[tuple[int, int, int]] = (1, 24, 1)

    def __post_init__(self) -> None:
        require_windows(self)
        require_integers(self, {"n_train": 1})

    def series(self) -> np.ndarray:
        return transformer_hours()

    @property
    def drawn(self) -> int:
        return self.n_train

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """As published: squared errors first."""
        return super().metrics[::-1]

    @property
    def reference(self) -> Reference:
        source = "computed: direct least-squares vector autoregression on the last 48 hours"
        return Reference(_transformer_reference(self), source)


@lru_cache(maxsize=4)
def _transformer_reference(task: TransformerTemperature) -> float:
    return task.autoregression(48)


LIFE_CAP = 125
"""Cycles. An engine shows no wear before; the literature predicts no more."""


@dataclass(frozen=True)
class Engines:
    """table: a row per cycle, columns engine, the three settings and 21 sensors. life: (N,) cycles left, capped."""

    table: pd.DataFrame
    life: np.ndarray


@lru_cache(maxsize=1)
def engines() -> tuple[Engines, Engines]:
    """The hundred engines that were run to failure, and the hundred test engines whose records end before."""
    folder = "cmapss_fd001"
    names = ["engine", "cycle", *(f"setting {i}" for i in range(1, 4)), *(f"sensor {i}" for i in range(1, 22))]
    parts = []
    for file in ("train_FD001.txt", "test_FD001.txt"):
        cycles = turbofan_cycles(datasets.path(folder, file).read_text(), file)
        table = pd.DataFrame(cycles, columns=names).astype({"engine": int})
        left = np.zeros(table["engine"].iloc[-1])  # run to failure
        if file.startswith("test"):
            left = remaining_cycles(datasets.path(folder, "RUL_FD001.txt").read_text(), "RUL_FD001.txt")
        last = table.groupby("engine")["cycle"].transform("max").to_numpy()
        life = left[table["engine"].to_numpy() - 1] + last - table["cycle"].to_numpy()
        parts.append(Engines(table, np.minimum(life, LIFE_CAP)))
    return parts[0], parts[1]


@lru_cache(maxsize=1)
def engine_preparation() -> Preparation:
    """Fitted on the engines that were run to failure; seven columns never change and are left out."""
    table = engines()[0].table
    return fit(table, dict.fromkeys(table.columns[2:], "number"), sequence="engine")


class FinalError(StepMetric):
    """The error at the last step of each sequence alone."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        return super().parts(outputs, replace(batch, scored=batch.scored & _last(batch)))


def _last(batch: SequenceBatch) -> Tensor:
    return last_steps(batch.lengths, batch.inputs.shape[1]).to(batch.scored.device)


_squared = squared_error("cycles", LIFE_CAP)
life_error = replace(_squared, name="rmse", definition="root mean squared error", margin=0.5, link=math.sqrt)
final_life_error = FinalError(
    "rmse_final", "cycles", "lower", "root mean squared error at the last cycle of each engine", 0.5, math.sqrt,
    bounds=POSITIVE, terms=_squared.terms,
)  # fmt: skip


@dataclass(frozen=True)
class RemainingLife(Task):
    """How many flights a turbofan has left, at every flight, from its settings and sensors so far.

        cycle                  1       2   …     190     191     192
        sensor 2          641.82  642.15   …  643.64  643.34  643.54     before standardisation: the first engine
        sensor 3         1589.70 1591.82   … 1599.22 1602.36 1601.41
        target               125     125   …       2       1       0     cycles, at most 125; every step is scored

    100 engines run to failure for training and validation (80 and 20, drawn by the seed), and another 100 whose records of
    31 to 303 cycles end some time before; 17 channels, for seven never change. The model sees an engine's whole past, not
    a window; as the wear at the beginning is unknown, so is the age.

    The first metric counts all 13,096 test cycles. The second, the error at the last cycle of each test engine, is the
    one usually published. Floor: the mean life left in training, at all times. Ceiling: unknown. Reference: least squares,
    with intercept, on the mean of the last 30 cycles, bounded to 0 … 125; computed on the same test cycles.
    """

    name: ClassVar[str] = "remaining_life"
    group: ClassVar[str] = "monitoring"
    summary: ClassVar[str] = "how many flights a turbofan has left, from its sensors so far"
    licence: ClassVar[str] = "US government work"
    source: ClassVar[str] = "Saxena et al. 2008, doi:10.1109/PHM.2008.4711414; NASA C-MAPSS FD001"
    datasets: ClassVar[tuple[str, ...]] = ("cmapss_fd001",)
    picture: ClassVar[Literal["scatter"]] = "scatter"
    causal: ClassVar[bool] = True

    @property
    def input(self) -> RealInput:
        return RealInput(channels=17, max_length=362)

    @property
    def target(self) -> Real:
        return Real(1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (life_error, final_life_error, absolute_error("cycles", LIFE_CAP, 0.5))

    def splits(self, seed: int) -> Splits:
        chosen = numpy_generator("data", self.name, seed).permutation(100)
        development, test = engine_batches()
        train, validation = (development.select(torch.from_numpy(np.sort(rows))) for rows in (chosen[20:], chosen[:20]))
        return Splits(train, validation, test)

    @property
    def reference(self) -> Reference:
        return Reference(_life_reference(), "computed: least squares on the mean of the last 30 cycles")


@lru_cache(maxsize=1)
def engine_batches() -> tuple[SequenceBatch, SequenceBatch]:
    """Development and test, an engine per sequence."""
    preparation = engine_preparation()
    batches = []
    for part in engines():
        sequences = preparation.sequences(part.table)
        inputs, lengths = padded(preparation.apply(part.table), sequences)
        targets, _ = padded((part.life / LIFE_CAP).astype(np.float32)[:, None], sequences)
        batches.append(
            SequenceBatch(
                torch.from_numpy(inputs),
                torch.from_numpy(targets),
                torch.from_numpy(lengths),
                valid_steps(torch.from_numpy(lengths), inputs.shape[1]),
            )
        )
    return batches[0], batches[1]


@lru_cache(maxsize=1)
def _life_reference() -> float:
    (train, known), (test, asked) = ((_recent_means(part), part.life) for part in engines())
    weights, *_ = np.linalg.lstsq(train, known)
    return float(np.sqrt(np.mean((np.clip(test @ weights, 0, LIFE_CAP) - asked) ** 2)))


def _recent_means(part: Engines, cycles: int = 30) -> np.ndarray:
    """(N, 1 + C): a leading 1, and each channel's mean over the last ``cycles`` of its engine, or as many as there are."""
    table = pd.DataFrame(engine_preparation().apply(part.table)).groupby(part.table["engine"].to_numpy())
    means = table.rolling(cycles, min_periods=1).mean().to_numpy()  # engine by engine, as the table is
    return np.column_stack([np.ones(len(means)), means])


LIGHT = 2
"""The channel of `room_occupancy` that a lamp switch answers."""


@dataclass(frozen=True)
class Occupancy(Task):
    """Whether somebody is in an office, minute by minute, from temperature, humidity, light and CO2.

        minute               0      1      2   …   239
        light lux        426.0  429.5  426.0   …     .        before standardisation: the first of the training file
        CO2 ppm            721    714    714   …     .
        target               1      1      1   …     .        somebody is there; every step is scored

    Each file is one record without a gap. The first four fifths of the training file (six days in February 2015) are
    training, in pieces that overlap by three quarters, the rest is validation; both test files, the two days before and the
    week after, are test: 2,665 and 9,752 minutes, in pieces end to end.

    Floor: nobody is ever there, right at 75.7 % of the test minutes. Ceiling: unknown. Reference: somebody is there while
    the light is above the level that separates the training minutes best; computed on the test minutes. That is right at
    about 99 %, so the task asks more than anything whether a model keeps to it where air is another than in training.
    Without the light, what is left drifts from week to week, and models of levels fall to the floor; the reference is
    then least squares, with intercept, on the changes over the last hour, above 1/2.

    length: minutes of a piece. light: whether the light is a channel. The splits are the same for every seed.
    """

    length: int = 240
    light: bool = True

    name: ClassVar[str] = "occupancy"
    group: ClassVar[str] = "monitoring"
    summary: ClassVar[str] = "whether somebody is in an office, minute by minute, from climate and light"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Candanedo and Feldheim 2016, doi:10.1016/j.enbuild.2015.11.071; UCI 357"
    datasets: ClassVar[tuple[str, ...]] = ("occupancy_uci",)
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = ("empty", "occupied")
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integers(self, {"length": 4})
        if self.length > 2_665:
            raise InvalidParameter(f"{self.name}: length must be at most the 2665 minutes of the shorter test file")
        if not isinstance(self.light, bool):
            raise InvalidParameter(f"{self.name}: light must be true or false, got {self.light!r}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=4 + self.light, max_length=self.length)

    @property
    def target(self) -> Classes:
        return Classes(2)

    def rows(self) -> tuple[Rows, Rows, list[Rows]]:
        """Training, validation and the test files, standardised by training, light left out where it is not asked for."""
        training, *tests = (_minutes(file) for file in ("datatraining.txt", "datatest.txt", "datatest2.txt"))
        cut = len(training.labels) * 4 // 5
        mean, deviation = training.values[:cut].mean(0), training.values[:cut].std(0)
        kept = [channel for channel in range(5) if channel != LIGHT or self.light]

        def scaled(rows: Rows) -> Rows:
            return Rows(((rows.values - mean) / deviation)[:, kept], rows.labels)

        whole = scaled(training)
        before, after = (Rows(*(field[part] for field in whole)) for part in (slice(cut), slice(cut, None)))
        return before, after, [scaled(test) for test in tests]

    def splits(self, seed: int) -> Splits:
        """The same for every seed."""
        training, validation, tests = self.rows()
        return Splits(
            _pieces([training], self.length, self.length // 4),
            _pieces([validation], self.length, self.length),
            _pieces(tests, self.length, self.length),
        )

    @property
    def reference(self) -> Reference:
        training, _, tests = self.rows()
        if self.light:
            level = _best_level(training.values[:, LIGHT], training.labels)
            answers = [rows.values[:, LIGHT] > level for rows in tests]
            source = "computed: the light alone, above the level that separates the training minutes best"
        else:
            weights, *_ = np.linalg.lstsq(_hourly_changes(training), training.labels)
            answers = [_hourly_changes(rows) @ weights > 0.5 for rows in tests]
            source = "computed: least squares on the changes over the last hour"
        right = [answer == rows.labels for answer, rows in zip(answers, tests, strict=True)]
        return Reference(float(np.concatenate(right).mean()), source)


def _best_level(values: np.ndarray, labels: np.ndarray) -> float:
    """The lowest level with the most (N,) values on their side: above it where the label is 1, else below or on it."""
    order = np.argsort(values, kind="stable")
    ordered, ones = values[order], labels[order]
    right = (1 - ones).cumsum() + ones.sum() - ones.cumsum()  # with the level at each value
    ends = np.r_[ordered[1:] > ordered[:-1], True]  # equal values are on one side
    return float(ordered[np.where(ends, right, -1).argmax()])


def _hourly_changes(rows: Rows) -> np.ndarray:
    """(T, 1 + C): a leading 1, and each channel's change over the last 60 minutes, or as many as there are."""
    before = rows.values[np.maximum(np.arange(len(rows.values)) - 60, 0)]
    return np.column_stack([np.ones(len(before)), rows.values - before])


@lru_cache(maxsize=3)
def _minutes(file: str) -> Rows:
    return room_occupancy(datasets.path("occupancy_uci", file).read_text(), file)


def _pieces(records: list[Rows], length: int, stride: int) -> SequenceBatch:
    """Pieces of ``length`` steps that begin every ``stride`` steps of a record; its end is in the last, maybe shorter."""
    values, labels = [], []
    for record in records:
        for start in range(0, len(record.labels), stride):
            values.append(record.values[start : start + length])
            labels.append(record.labels[start : start + length])
            if start + length >= len(record.labels):
                break
    which = pd.Series(np.repeat(np.arange(len(labels)), list(map(len, labels))))
    inputs, lengths = padded(np.concatenate(values).astype(np.float32), which)
    targets, _ = padded(np.concatenate(labels), which)
    steps = torch.from_numpy(lengths)
    scored = valid_steps(steps, inputs.shape[1])
    return SequenceBatch(torch.from_numpy(inputs), torch.from_numpy(targets), steps, scored)
