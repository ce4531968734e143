"""Parsers of recorded sensors: text or bytes of a published file to arrays.

Each raises ValueError with a sentence that names file and line where the content is not what the format promises.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """values: (T, C) float64. labels: (T,) int64."""

    values: np.ndarray
    labels: np.ndarray


def zipped_texts(path: Path, wanted: Callable[[str], bool]) -> dict[str, str]:
    """The wanted text files of an archive, by name, without what macOS adds to archives."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if wanted(name) and not name.startswith("__MACOSX")]
        return {name: archive.read(name).decode("utf-8") for name in names}


def transformer_temperature(text: str, file: str) -> np.ndarray:
    """ETDataset: a header, then date and seven numbers a line → (n, 7) float64."""
    return _numbers(((line, fields[1:]) for line, fields in _comma_separated(text, file, 8)), 7, file)


def turbofan_cycles(text: str, file: str) -> np.ndarray:
    """C-MAPSS: 26 numbers a line between blanks, the first two engine and cycle → (n, 26) float64.

    Engines are numbered 1, 2, …, and the cycles of each again, without a gap.
    """
    cycles = _numbers(_blank_separated(text), 26, file)
    engine, cycle = cycles[:, 0], cycles[:, 1]
    same = np.r_[False, engine[1:] == engine[:-1]]
    expected_engine = np.r_[1.0, engine[:-1] + ~same[1:]]
    expected_cycle = np.where(same, np.r_[0.0, cycle[:-1]] + 1, 1.0)
    wrong = np.flatnonzero((engine != expected_engine) | (cycle != expected_cycle))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{file}: row {row + 1} is cycle {cycle[row]:g} of engine {engine[row]:g}, after which cycle "
            f"{expected_cycle[row]:g} of engine {expected_engine[row]:g} was due"
        )
    return cycles


def remaining_cycles(text: str, file: str) -> np.ndarray:
    """C-MAPSS: one number a line, the cycles left after an engine's last → (n,) float64."""
    return _numbers(_blank_separated(text), 1, file)[:, 0]


def room_occupancy(text: str, file: str) -> Rows:
    """Occupancy detection: a header without the index column, then index, date, five numbers and 0 or 1.

    Values are temperature °C, humidity %, light lux, CO2 ppm and humidity ratio.
    """
    table = _numbers(((line, fields[2:]) for line, fields in _comma_separated(text, file, 8)), 6, file)
    return Rows(table[:, :5], _whole(table[:, 5], (0, 1), file))


def signal_strengths(text: str, file: str) -> np.ndarray:
    """Indoor movement: a comment, then four numbers a line → (T, 4) float64."""
    return _numbers(_blank_separated(text), 4, file)


def numbered_labels(text: str, file: str) -> dict[int, int]:
    """Indoor movement: a comment, then a sequence's number and a label a line."""
    table = _whole(_numbers(_blank_separated(text), 2, file), None, file)
    if len(np.unique(table[:, 0])) < len(table):
        raise ValueError(f"{file}: a sequence is labelled twice")
    return {int(number): int(label) for number, label in table}


def body_sensors(text: str, file: str) -> np.ndarray:
    """AReM: comments, then milliseconds and six numbers a line, between commas or blanks → (T, 6) float64."""
    return _numbers(_blank_separated(text), 7, file)[:, 1:]


def electrocardiogram(content: bytes, file: str) -> np.ndarray:
    """A numpy archive with one array, ``ecg``, of 11-bit counts: 200 to the millivolt around 1024 → (n,) float64 mV."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            counts = archive["ecg"]
    except (
        ValueError, KeyError, OSError, EOFError, RuntimeError, TypeError, AttributeError, SyntaxError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(f"{file}: not a numpy archive with an array ecg ({error})") from error
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError(f"{file}: ecg must be a row of whole numbers, not {counts.dtype} of shape {counts.shape}")
    return (counts.astype(np.float64) - 1024) / 200


def _comma_separated(text: str, file: str, n: int) -> Iterable[tuple[int, list[str]]]:
    """Line numbers and fields of all lines but the header, quotation marks taken off."""
    for number, line in enumerate(text.splitlines(), 1):
        if number == 1 or not line.strip():
            continue
        fields = line.replace('"', "").split(",")
        if len(fields) != n:
            raise ValueError(f"{file}: line {number} has {len(fields)} fields, not {n}")
        yield number, fields


def _blank_separated(text: str) -> Iterable[tuple[int, list[str]]]:
    """Line numbers and fields, commas being as good as blanks; without comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, re.split(r"[,\s]+", line.strip(", \t"))


def _numbers(lines: Iterable[tuple[int, list[str]]], n_columns: int, file: str) -> np.ndarray:
    """Numbered lines of fields → (n rows, n_columns) float64, all of them finite."""
    rows = []
    for number, fields in lines:
        try:
            row = [float(field) for field in fields]
        except ValueError as error:
            raise ValueError(f"{file}: line {number}: {error}") from error
        if len(row) != n_columns:
            raise ValueError(f"{file}: line {number} has {len(row)} numbers, not {n_columns}")
        if not all(map(math.isfinite, row)):
            raise ValueError(f"{file}: line {number} holds a number that is not finite")
        rows.append(row)
    if not rows:
        raise ValueError(f"{file}: there is no row of numbers in it")
    return np.array(rows)


def _whole(values: np.ndarray, allowed: tuple[int, ...] | None, file: str) -> np.ndarray:
    """As int64."""
    whole = np.abs(values) < 2**53
    whole &= np.mod(values, 1) == 0
    if allowed is not None:
        whole &= np.isin(values, allowed)
    if not whole.all():
        wanted = "a whole number" if allowed is None else " or ".join(map(str, allowed))
        raise ValueError(f"{file}: {values[~whole][0]:g} is not {wanted}")
    return values.astype(np.int64)
