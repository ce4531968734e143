"""Tables to sequences: one row per step becomes one vector per step, finite and on one scale, gaps and all.

A `Preparation` is fitted on training rows alone and then applied to any rows with the same columns:

    number     the last value known in its sequence, the training mean before the first; (value - mean) / deviation
    category   one channel per frequent value, 0 or 1, and one for all others; nothing is set before the first known
    time       log(1 + Δt / unit), standardised: Δt since the step before in the sequence (0 at its first), unit the
               median Δt in training
    …, known   for a number or category that training lacks somewhere: 1 where the row itself has it, 0 where it is
               carried forward (the mask of Che et al. 2018, doi:10.1038/s41598-018-24271-9)

What does not vary over the training rows makes no channel: nothing can be learned from it, it has no scale, and its
variance of zero is a singular density to a model that estimates one. Infinite numbers count as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

Kind = Literal["number", "category"]
MOST_CATEGORIES = 20
"""Values of a category with a channel of their own, at most; rarer ones share the last."""
LEAST_ROWS = 10
"""Training rows that a value must have for a channel of its own: fewer would not settle its weights."""


@dataclass(frozen=True)
class Number:
    """column: its name. mean, deviation: over the known training values; a deviation of 0 makes no channel. masked:
    whether some were missing."""

    column: str
    mean: float
    deviation: float
    masked: bool

    @property
    def channels(self) -> tuple[str, ...]:
        value = (self.column,) if self.deviation else ()
        return value + ((f"{self.column}, known",) if self.masked else ())

    def apply(self, rows: pd.DataFrame, sequences: pd.Series) -> np.ndarray:
        """(N rows) → (N, channels) float64."""
        values = _numbers(rows, self.column)
        known = values.notna().to_numpy()
        if not known.all():
            values = values.groupby(sequences, sort=False, dropna=False).ffill().fillna(self.mean)
        parts = [(values.to_numpy() - self.mean) / self.deviation] if self.deviation else []
        return np.column_stack([*parts, known] if self.masked else parts)


@dataclass(frozen=True)
class Category:
    """values: those with a channel of their own, as text. other: whether the rest of training has one; where it has not,
    a value that training never held sets no channel. masked: whether some were missing."""

    column: str
    values: tuple[str, ...]
    other: bool
    masked: bool

    @property
    def channels(self) -> tuple[str, ...]:
        named = tuple(f"{self.column} = {value}" for value in self.values)
        other = (f"{self.column} = other",) if self.other else ()
        return named + other + ((f"{self.column}, known",) if self.masked else ())

    def apply(self, rows: pd.DataFrame, sequences: pd.Series) -> np.ndarray:
        """(N rows) → (N, channels) float64."""
        values = _texts(rows, self.column)
        known = values.notna().to_numpy()
        if not known.all():
            values = values.groupby(sequences, sort=False, dropna=False).ffill()
        codes = pd.Index(self.values, dtype=object).get_indexer(pd.Index(values))  # -1: none of them
        codes = np.where(codes < 0, len(self.values), codes)
        hot = codes[:, None] == np.arange(len(self.values) + self.other)  # (N, values)
        hot &= values.notna().to_numpy()[:, None]
        return np.column_stack([hot, known] if self.masked else [hot]).astype(float)


@dataclass(frozen=True)
class Gap:
    """column: numbers or dates. unit: the median time between steps in training, in the column's unit or seconds.
    mean, deviation: of log(1 + Δt / unit)."""

    column: str
    unit: float
    mean: float
    deviation: float
    masked: ClassVar[bool] = False

    @property
    def channels(self) -> tuple[str, ...]:
        return (f"{self.column} since the step before",)

    def apply(self, rows: pd.DataFrame, sequences: pd.Series) -> np.ndarray:
        """(N rows) → (N, 1) float64."""
        scaled = np.log1p(gaps(rows[self.column], sequences) / self.unit)
        return ((scaled - self.mean) / self.deviation)[:, None]


@dataclass(frozen=True)
class Preparation:
    """What `fit` found. sequence: the column that names a row's sequence; None: all rows are one. columns: how each is
    turned into channels, in the order of the channels. constant: the columns that make none."""

    sequence: str | None
    columns: tuple[Number | Category | Gap, ...]
    constant: tuple[str, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """A name for each channel, C of them."""
        return tuple(name for column in self.columns for name in column.channels)

    @property
    def masks(self) -> tuple[int, ...]:
        """The channels that say whether a value is known."""
        masks, n_channels = [], 0
        for column in self.columns:
            n_channels += len(column.channels)
            if column.masked:
                masks.append(n_channels - 1)
        return tuple(masks)

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """(N rows) → (N, C) float32, row by row in the order given; steps of a sequence must be in order of time.

        Raises ValueError with a sentence for a missing column, an unreadable number or time running backwards.
        """
        sequences = self.sequences(rows)
        parts = [column.apply(rows, sequences) for column in self.columns]
        return np.column_stack([np.empty((len(rows), 0)), *parts]).astype(np.float32)

    def sequences(self, rows: pd.DataFrame) -> pd.Series:
        """The sequence that each row belongs to, (N,)."""
        return _sequences(rows, self.sequence)


def fit(
    rows: pd.DataFrame, kinds: Mapping[str, Kind], sequence: str | None = None, time: str | None = None
) -> Preparation:
    """Fits a preparation on training rows: the columns in ``kinds``, in that order, and then the time between steps.

    Raises ValueError with a sentence for an unusable column.
    """
    sequences = _sequences(rows, sequence)
    if not len(rows):
        raise ValueError("the training rows are empty, so nothing can be scaled by them")
    fitted: list[Number | Category | Gap] = []
    for column, kind in kinds.items():
        fitted.append(_fit_number(rows, column) if kind == "number" else _fit_category(rows, column))
    if time is not None:
        fitted.extend(_fit_gap(rows, time, sequences))
    kept = tuple(column for column in fitted if column.channels)
    named = [*kinds, *([] if time is None else [time])]
    constant = tuple(column for column in named if column not in {x.column for x in kept})
    return Preparation(sequence, kept, constant)


def gaps(times: pd.Series, sequences: pd.Series) -> np.ndarray:
    """(N,) float64: the time since the step before in the same sequence, 0 at its first; dates in seconds.

    Raises ValueError where a time is missing or earlier than the one before.
    """
    if times.isna().any():
        raise ValueError(f"column {times.name}: row {_row(times.isna())} has no time")
    if pd.api.types.is_datetime64_any_dtype(times):
        times = (times - times.iloc[0]).dt.total_seconds().rename(times.name)
    try:
        numbers = times.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {times.name}: times must be numbers or dates ({error})") from error
    since = numbers.groupby(sequences, sort=False, dropna=False).diff().fillna(0.0)
    if (since < 0).any():
        raise ValueError(f"column {times.name}: row {_row(since < 0)} is earlier than the row before in its sequence")
    return since.to_numpy()


def padded(values: np.ndarray, sequences: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) or (N,) row by row → (B, T, C) or (B, T) by sequence, zero in the padding, and lengths (B,) int64.

    Sequences come in the order in which they first appear, their steps in the order of the rows.
    """
    which, names = pd.factorize(sequences, use_na_sentinel=False)
    steps = pd.Series(which).groupby(which, sort=False).cumcount().to_numpy()
    lengths = np.bincount(which, minlength=len(names))
    placed = np.zeros((len(names), lengths.max(initial=0), *values.shape[1:]), dtype=values.dtype)
    placed[which, steps] = values
    return placed, lengths


def _fit_number(rows: pd.DataFrame, column: str) -> Number:
    values = _numbers(rows, column)
    known = values.dropna()
    if not len(known):
        return Number(column, 0.0, 0.0, masked=False)
    # Equal values may have a deviation of some 1e-17 by rounding.
    varies = known.min() < known.max()
    return Number(column, float(known.mean()), float(known.std(ddof=0)) if varies else 0.0, len(known) < len(values))


def _fit_category(rows: pd.DataFrame, column: str) -> Category:
    values = _texts(rows, column)
    counts = values.value_counts()  # without the missing
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")  # ties in the order of the alphabet
    masked = bool(values.isna().any()) and len(counts) > 0
    if len(counts) < 2:
        return Category(column, (), other=False, masked=masked)
    frequent = counts[counts >= LEAST_ROWS].head(MOST_CATEGORIES)
    return Category(column, tuple(frequent.index), len(frequent) < len(counts) and len(frequent) > 0, masked)


def _fit_gap(rows: pd.DataFrame, column: str, sequences: pd.Series) -> list[Gap]:
    """None where every step comes after the same time."""
    _require(rows, column)
    since = gaps(rows[column], sequences)
    later = since[sequences.duplicated().to_numpy()]  # all but each sequence's first step
    positive = later[later > 0]
    if not len(positive) or np.ptp(later) <= 1e-9 * later.max():
        return []
    unit = float(np.median(positive))
    scaled = np.log1p(since / unit)
    return [Gap(column, unit, float(scaled.mean()), float(scaled.std()))]


def _require(rows: pd.DataFrame, column: str) -> None:
    if column not in rows.columns:
        raise ValueError(f"there is no column {column}; the columns are {', '.join(map(str, rows.columns))}")


def _numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    """Float64, missing and infinite ones as NaN; text that reads as a number is one."""
    _require(rows, column)
    given = rows[column]
    read = pd.to_numeric(given, errors="coerce")
    wrong = read.isna() & given.notna()
    if wrong.any():
        raise ValueError(f"column {column}: row {_row(wrong)} is {given[wrong].iloc[0]!r}, which is no number")
    values = pd.Series(read.to_numpy(dtype=float, na_value=np.nan), index=rows.index)
    return values.where(np.isfinite(values))


def _texts(rows: pd.DataFrame, column: str) -> pd.Series:
    """Every value as text, missing ones as None."""
    _require(rows, column)
    codes, values = pd.factorize(rows[column])  # -1: missing
    names = np.array([*map(_text, values), None], dtype=object)
    return pd.Series(names[codes], index=rows.index, dtype=object)


def _text(value: object) -> str:
    """A column of whole numbers is read as fractions where one is missing: 1.0 is then the 1 of another table."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _sequences(rows: pd.DataFrame, column: str | None) -> pd.Series:
    if column is None:
        return pd.Series(0, index=rows.index)
    _require(rows, column)
    return rows[column]


def _row(wrong: pd.Series) -> int:
    """The number of the first row where ``wrong``, counted from 1."""
    return int(np.flatnonzero(wrong.to_numpy())[0]) + 1
