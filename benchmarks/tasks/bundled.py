"""Data files that the dependencies carry, read where they lie without importing the packages.

Importing aeon.datasets, sklearn.datasets and statsmodels.datasets costs 8 s together, reading their files 0.2 s. Tests
hold what is read here equal to what the packages' own loaders give.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Labelled(NamedTuple):
    """values: (B, T, C) float64, zero in the padding. lengths: (B,) int64. labels: (B,) int64."""

    values: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed package; raises FileNotFoundError if either is missing."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed; it carries {'/'.join(parts)}")
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(
            f"{package} no longer carries {'/'.join(parts)}; install the version in constraints.txt"
        )
    return path


@cache
def time_series_archive(problem: str, split: str) -> Labelled:
    """One split (TRAIN or TEST) of a problem that aeon carries; classes are numbered in the order of the file's header.

    The .ts format: after ``@data`` a line per case, channels and then the label separated by colons, steps by commas.
    """
    path = package_file("aeon", "datasets", "data", problem, f"{problem}_{split}.ts")
    header, _, data = path.read_text(encoding="utf-8").partition("@data\n")
    names = next(line.split()[2:] for line in header.splitlines() if line.startswith("@classLabel"))
    cases = [line.split(":") for line in data.splitlines() if line]
    series = [np.array([channel.split(",") for channel in case[:-1]], dtype=np.float64).T for case in cases]  # (T, C)
    lengths = np.array([len(steps) for steps in series])
    values = np.zeros((len(series), lengths.max(), series[0].shape[1]))
    for i, steps in enumerate(series):
        values[i, : len(steps)] = steps
    return Labelled(values, lengths, np.array([names.index(case[-1].strip()) for case in cases]))


@cache
def digit_images() -> Labelled:
    """The 1,797 images of 8 × 8 pixels, 0 … 16, that scikit-learn carries: row by row, a pixel per step."""
    table = np.loadtxt(package_file("sklearn", "datasets", "data", "digits.csv.gz"), delimiter=",")
    return Labelled(table[:, :-1, None], np.full(len(table), 64), table[:, -1].astype(np.int64))


@cache
def monthly_co2() -> np.ndarray:
    """(526,) float64 monthly means of the weekly CO2 at Mauna Loa in ppm, 1958-03 … 2001-12, from statsmodels.

    A month's mean is over the weeks, named by their Saturday, that have a value. Five months have none (1958-06,
    1958-10, 1964-02 to 1964-04). They are filled from the past only, as it would be done on arrival: the value a year
    before plus the growth over the year that ended with the last month; the last month itself where that reaches before
    1958-03.
    """
    sums: dict[str, list[float]] = {}
    with package_file("statsmodels", "datasets", "co2", "co2.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            weeks = sums.setdefault(row["date"][:6], [])
            if row["co2"]:
                weeks.append(float(row["co2"]))
    means: list[float] = []
    for _, weeks in sorted(sums.items()):
        means.append(float(np.mean(weeks)) if weeks else _expected_next(means))
    return np.array(means)


def _expected_next(past: list[float]) -> float:
    """See `monthly_co2`."""
    return past[-12] + past[-1] - past[-13] if len(past) >= 13 else past[-1]


@cache
def yearly_sunspots() -> np.ndarray:
    """(309,) float64 yearly mean sunspot numbers, 1700 … 2008, from statsmodels."""
    path = package_file("statsmodels", "datasets", "sunspots", "sunspots.csv")
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=1)


@cache
def monthly_el_nino() -> np.ndarray:
    """(732,) float64 monthly sea surface temperature of the Niño 1+2 region in °C, 1950 … 2010, from statsmodels."""
    path = package_file("statsmodels", "datasets", "elnino", "elnino.csv")
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, 1:].reshape(-1)  # a year per row


N_GROWING = 5
"""The first channels of `quarterly_economy`; the others are rates."""


@cache
def quarterly_economy() -> np.ndarray:
    """(202, 7) float64 of the United States, 1959-Q2 … 2009-Q3, in percent, from statsmodels.

    Annual growth, 400 times the change of the logarithm, of real output, consumption, investment, disposable income and
    consumer prices; then the rate of unemployment and of three-month treasury bills.
    """
    path = package_file("statsmodels", "datasets", "macrodata", "macrodata.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("realgdp", "realcons", "realinv", "realdpi", "cpi", "unemp", "tbilrate")
    table = np.array([[float(row[name]) for name in names] for row in rows])
    growth = 400 * np.diff(np.log(table[:, :N_GROWING]), axis=0)
    return np.column_stack([growth, table[1:, N_GROWING:]])
