"""Arrays in .npz: X (B, T) or (B, T, C), y (B,) or (B, T), and lengths (B,) where sequences are unequal. Never a pickle."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import (
    MOST_BYTES,
    MOST_CELLS,
    MOST_COLUMNS,
    BadInput,
    Recording,
    bad,
    counted,
    listed,
)

SEQUENCE, STEP, TARGET = "sequence", "step", "y"
_UNREADABLE = (
    *(BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, ValueError, SyntaxError, TypeError),
    *(NotImplementedError, RuntimeError, MemoryError),
)
"""What a broken archive, or a header of an array that is none, makes numpy raise."""


def npz(data: bytes, file: str, channels_first: bool = False) -> Recording:
    """channels_first: X is (B, C, T). Raises BadInput."""
    arrays = _load(data, file)
    x, y = arrays["X"], arrays["y"]
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3) or not x.size:
        raise bad(file, f"X must be numbers of shape (B, T) or (B, T, C), not {x.dtype} of shape {x.shape}")
    if channels_first and x.ndim == 2:
        raise bad(file, f"--channels-first needs X of shape (B, C, T), not {x.shape}")
    remarks = tuple(_shape_question(x, y, arrays, channels_first))
    x = x.swapaxes(1, 2) if channels_first else x.reshape(*x.shape[:2], -1)  # (B, T, C)
    if x.shape[2] > MOST_COLUMNS:
        raise bad(file, f"X has {x.shape[2]:,} channels; at most {MOST_COLUMNS:,} can be used")
    n, longest = x.shape[:2]
    if y.shape == (n, 1):
        y = y[:, 0]
    if y.dtype.kind not in "fiubU" or y.shape not in ((n,), (n, longest)):
        raise bad(
            file, f"y must be numbers or text of shape ({n},) or ({n}, {longest}), not {y.dtype} of shape {y.shape}"
        )
    lengths = arrays.get("lengths", np.full(n, longest))
    if lengths.dtype.kind not in "iu" or lengths.shape != (n,):
        raise bad(file, f"lengths must be {n} whole numbers, not {lengths.dtype} of shape {lengths.shape}")
    wrong = np.flatnonzero((lengths < 1) | (lengths > longest))
    if len(wrong):
        raise bad(file, f"lengths[{wrong[0]}] is {lengths[wrong[0]]}, which is not in 1 … {longest}")
    valid = np.arange(longest) < lengths[:, None]  # (B, T)
    sequence, step = np.nonzero(valid)
    columns = {
        SEQUENCE: sequence,
        STEP: step,
        **{f"X[:, :, {c}]": x[:, :, c][valid].astype(np.float64) for c in range(x.shape[2])},
        TARGET: _answers(y, valid),
    }
    return Recording(file, pd.DataFrame(columns), step + 1, "step", TARGET, SEQUENCE, ignored=(STEP,), remarks=remarks)


def _answers(y: np.ndarray, valid: np.ndarray) -> pd.Series:
    """(B,) or (B, T) answers of the valid steps, as classes where they are text or truth; each class name is kept once."""
    if y.dtype.kind not in "Ub":
        kind = np.float64 if y.dtype.kind == "f" else np.uint64 if y.dtype.kind == "u" else np.int64
        y = y.astype(kind)
        return pd.Series(np.broadcast_to(y[:, None] if y.ndim == 1 else y, valid.shape)[valid])
    names, codes = np.unique(y, return_inverse=True)
    codes = codes.reshape(y.shape)
    codes = np.broadcast_to(codes[:, None] if y.ndim == 1 else codes, valid.shape)[valid]
    stripped, which = np.unique(np.array([str(name).strip() for name in names], dtype=object), return_inverse=True)
    classes = pd.Categorical.from_codes(which[codes], pd.Index(stripped, dtype=object))
    return pd.Series(classes.remove_categories([""]) if "" in stripped else classes)


def _shape_question(x: np.ndarray, y: np.ndarray, arrays: dict[str, np.ndarray], channels_first: bool) -> Iterator[str]:
    """Whether few steps of many channels are channels and steps the other way round."""
    if channels_first:
        n, channels, steps = x.shape
        yield f"--channels-first: X {x.shape} is read as {n:,} sequences of {steps:,} steps and {channels:,} channels"
        return
    if x.ndim == 2 or x.shape[2] <= x.shape[1]:
        return
    if "lengths" in arrays or (y.ndim == 2 and y.shape[1] == x.shape[1]):
        return
    n, steps, channels = x.shape
    yield (
        f"warning: X {x.shape} is read as {n:,} sequences of {counted(steps, 'step')} and {channels:,} channels; if it is "
        "(sequences, channels, steps), use --channels-first"
    )


def _load(data: bytes, file: str) -> dict[str, np.ndarray]:
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            for name in ("X", "y"):
                if name not in names:
                    raise bad(file, f"there is no array {name}; the arrays are {listed(names) or 'none'}")
            wanted = {name: names[name] for name in ("X", "y", "lengths") if name in names}
            for name, member in wanted.items():
                _require_size(archive, name, member, file)
            return {name: _array(archive, member) for name, member in wanted.items()}
    except BadInput:
        raise
    except _UNREADABLE as error:
        if data[:6] == np.lib.format.MAGIC_PREFIX:
            raise bad(file, "one array; write X and y with numpy.savez") from error
        if "pickle" in str(error).lower():
            raise bad(
                file, "an array of Python objects, which could run code; write numbers or text of one type"
            ) from error
        raise bad(file, f"no .npz file that can be read ({(str(error).splitlines() or [''])[0][:200]})") from error


def _require_size(archive: ZipFile, name: str, member: str, file: str) -> None:
    """Raises BadInput, before anything is unpacked, for an array that would not fit into memory or is not there as a whole."""
    n_bytes = archive.getinfo(member).file_size
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(stream)
        if kind.hasobject:
            raise bad(file, "an array of Python objects, which could run code; write numbers or text of one type")
        n_values = math.prod(shape)
        if n_values * max(kind.itemsize, 1) > n_bytes:
            raise bad(file, f"{name} is broken: it should hold {n_values:,} values, and there are {n_bytes:,} bytes")
    most = MOST_BYTES // 8 if kind.kind == "U" else MOST_BYTES  # text is sorted in copies
    if n_values > MOST_CELLS or n_bytes > most:
        raise bad(
            file,
            f"{name} unpacks to {n_values:,} values in {n_bytes:,} bytes; at most {MOST_CELLS:,} values in {most:,} "
            "bytes can be read; write fewer sequences or steps",
        )


def _array(archive: ZipFile, member: str) -> np.ndarray:
    """In the byte order of this machine."""
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
