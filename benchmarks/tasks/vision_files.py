"""Parsers of images, of paths of a hand, of joints in videos and of a pen's strokes: text or bytes to arrays.

Each raises ValueError with a sentence that names file and line where the content is not what the format promises.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Frames(NamedTuple):
    """A video's joints. positions: (T, 6, 3) float64: left hand, right hand, head, spine, left wrist, right wrist, each x, y
    and z. milliseconds: (T,) int64. phases: (T,) int64, the place in PHASES."""

    positions: np.ndarray
    milliseconds: np.ndarray
    phases: np.ndarray


PHASES = ("rest", "preparation", "stroke", "hold", "retraction")
N_CHARACTERS_IN_MESSAGE = 40


def idx_array(content: bytes, file: str) -> np.ndarray:
    """MNIST's format, compressed by gzip: two zeros, the type (8 is uint8), the number of dimensions, each as a big-endian
    32-bit count, then the values row by row → uint8 of that shape."""
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: the file is not compressed by gzip, or torn ({error})") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(
            f"{file}: the first bytes are {raw[:4].hex(' ') or 'missing'}, not those of an idx file of bytes"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"{file}: the file ends within its header")
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if len(raw) - start != math.prod(shape):
        raise ValueError(f"{file}: {len(raw) - start} values follow the header, which promises {math.prod(shape)}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def hand_paths(text: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    """LIBRAS movement: a header, then 45 pairs of coordinates and a class from 1 a line → (n, 45, 2) float64, (n,) int64."""
    lines = list(_lines(text))[1:]
    table = np.array([_numbers(line.split(","), 91, file, number) for number, line in lines]).reshape(-1, 91)
    labels = table[:, -1]
    wrong = np.flatnonzero((labels < 1) | (labels > 15) | (labels % 1 != 0))
    if len(wrong):
        raise ValueError(f"{file}: line {lines[wrong[0]][0]} ends in {labels[wrong[0]]:g}, not in a class from 1 to 15")
    return table[:, :-1].reshape(-1, 45, 2), labels.astype(np.int64) - 1


def gesture_frames(text: str, file: str) -> Frames:
    """Gesture phase segmentation, raw: a header, then 18 coordinates, a time in milliseconds and a phase a line.

    One label of the published files was left in Portuguese, Preparação, by whoever translated the others.
    """
    names = {name: index for index, name in enumerate(PHASES)} | {"preparação": PHASES.index("preparation")}
    rows, phases = [], []
    for number, line in list(_lines(text))[1:]:
        *fields, phase = line.split(",")
        rows.append(_numbers(fields, 19, file, number))
        if phase.strip().lower() not in names:
            raise ValueError(f"{file}: line {number} ends in {_shown(phase)}, which is no phase of a gesture")
        if rows[-1][-1] % 1 or not 0 <= rows[-1][-1] < 2**53:
            raise ValueError(f"{file}: line {number} has the time {rows[-1][-1]:g}, which is no count of milliseconds")
        phases.append(names[phase.strip().lower()])
    table = np.array(rows).reshape(-1, 19)
    times = table[:, -1].astype(np.int64)
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        raise ValueError(f"{file}: frame {backwards[0] + 2} is earlier than the frame before it")
    return Frames(table[:, :-1].reshape(-1, 6, 3), times, np.array(phases, dtype=np.int64))


def pen_digits(text: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Pendigits in ARFF: after @data 8 pairs of coordinates 0 … 100 and a digit a line → (n, 8, 2) float64, (n,) int64."""
    lines = list(_lines(text))
    start = next((place for place, (_, line) in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        raise ValueError(f"{file}: no line reads @data")
    rows = []
    for number, line in lines[start + 1 :]:
        if line.startswith("%"):
            continue
        row = _numbers(line.split(","), 17, file, number)
        if any(value % 1 or not 0 <= value <= 100 for value in row) or row[-1] > 9:
            raise ValueError(f"{file}: line {number} must hold 16 whole numbers from 0 to 100 and a digit")
        rows.append(row)
    table = np.array(rows).reshape(-1, 17)
    return table[:, :-1].reshape(-1, 8, 2), table[:, -1].astype(np.int64)


def pen_strokes(text: str, file: str) -> list[np.ndarray]:
    """A drawing of Omniglot: START, then x, y and milliseconds a line, BREAK after each stroke → (n, 2) float64 each."""
    lines = list(_lines(text))
    if not lines or lines[0][1].strip() != "START":
        raise ValueError(f"{file}: line 1 is not START")
    strokes: list[np.ndarray] = []
    points: list[list[float]] = []
    for number, line in lines[1:]:
        if line.strip() != "BREAK":
            points.append(_numbers(line.split(","), 3, file, number)[:2])
        elif points:
            strokes.append(np.array(points))
            points = []
        else:
            raise ValueError(f"{file}: line {number} ends a stroke without points")
    if points or not strokes:
        raise ValueError(f"{file}: the last line is not the BREAK of a stroke")
    return strokes


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.strip():
            yield number, line


def _numbers(fields: list[str], n: int, file: str, number: int) -> list[float]:
    """Exactly n finite numbers."""
    if len(fields) != n:
        raise ValueError(f"{file}: line {number} has {len(fields)} numbers, not {n}")
    values = []
    for field in fields:
        try:
            values.append(float(field))
        except ValueError:
            raise ValueError(f"{file}: line {number} holds {_shown(field)}, which is no number") from None
        if not math.isfinite(values[-1]):
            raise ValueError(f"{file}: line {number} holds {_shown(field)}, which is not finite")
    return values


def _shown(text: str) -> str:
    return repr(text.strip()[:N_CHARACTERS_IN_MESSAGE])
