"""Piano rolls from MATLAB files: a 0 or 1 for every key and frame."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

N_KEYS = 88


class Rolls(NamedTuple):
    """Pieces by split, each (T, 88) uint8, T unequal."""

    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]


_NAMES = {"train": "traindata", "validation": "validdata", "test": "testdata"}


def read_rolls(data: bytes, name: str) -> Rolls:
    """The three splits of a MATLAB 5 file; ValueError, naming file, split and piece, for anything else."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    broken = (ValueError, TypeError, LookupError, ArithmeticError, OSError, AttributeError, MemoryError)
    try:
        table = loadmat(io.BytesIO(data), variable_names=list(_NAMES.values()))
    except (*broken, NotImplementedError, MatReadError, zlib.error, struct.error) as error:
        raise ValueError(f"{name}: this is no MATLAB 5 file ({type(error).__name__}: {error})") from error
    return Rolls(**{split: pieces(table, split, name) for split in Rolls._fields})


def pieces(table: dict[str, Any], split: str, name: str) -> list[np.ndarray]:
    """The pieces (T, 88) of a split of what the file holds; ValueError where they are no piano rolls of two frames."""
    if _NAMES[split] not in table:
        raise ValueError(f"{name}: there is no {_NAMES[split]}")
    found = []
    for number, roll in enumerate(np.asarray(table[_NAMES[split]]).ravel()):
        where = f"{name}: {_NAMES[split]}, piece {number}"
        if not isinstance(roll, np.ndarray) or roll.ndim != 2 or roll.shape[1] != N_KEYS:
            raise ValueError(f"{where}: expected frames of {N_KEYS} keys, got shape {np.shape(roll)}")
        if len(roll) < 2:
            raise ValueError(f"{where}: a piece needs two frames for one to follow another, and this has {len(roll)}")
        if roll.dtype.kind not in "buif" or not np.isin(roll, (0, 1)).all():
            raise ValueError(f"{where}: a key is neither 0 nor 1")
        found.append(roll.astype(np.uint8))
    if not found:
        raise ValueError(f"{name}: {_NAMES[split]} has no piece")
    return found
