"""Arrays in .npz: X (B, T) or (B, T, C), y (B,) or (B, T), and lengths (B,) where sequences are unequal. Never a pickle."""

from __future__ import annotations

import io
import struct
import zlib
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import BadInput, Recording, bad, listed

SEQUENCE, STEP, TARGET = "sequence", "step", "y"
_UNREADABLE = (
    *(BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, ValueError, SyntaxError, TypeError),
    *(NotImplementedError, RuntimeError, MemoryError),
)
"""What a broken archive, or a header of an array that is none, makes numpy raise."""


def npz(data: bytes, file: str) -> Recording:
    """Raises BadInput."""
    arrays = _load(data, file)
    for name in ("X", "y"):
        if name not in arrays:
            raise bad(file, f"there is no array {name}; the arrays are {listed(arrays) or 'none'}")
    x, y = arrays["X"], arrays["y"]
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3) or not x.size:
        raise bad(file, f"X must be numbers of shape (B, T) or (B, T, C), not {x.dtype} of shape {x.shape}")
    x = x.reshape(*x.shape[:2], -1)
    n, longest = x.shape[:2]
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
    target = np.broadcast_to(y[:, None] if y.ndim == 1 else y, valid.shape)[valid]
    answers = pd.Series(target)
    columns = {
        SEQUENCE: sequence,
        STEP: step,
        **{f"X[:, :, {c}]": x[:, :, c][valid].astype(np.float64) for c in range(x.shape[2])},
        TARGET: answers.astype("category") if y.dtype.kind == "U" else answers,
    }
    return Recording(file, pd.DataFrame(columns), step + 1, "step", TARGET, SEQUENCE, ignored=(STEP,))


def _load(data: bytes, file: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise bad(file, "one array; write X and y with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except BadInput:
        raise
    except _UNREADABLE as error:
        if "pickle" in str(error).lower():
            raise bad(
                file, "an array of Python objects, which could run code; write numbers or text of one type"
            ) from error
        raise bad(file, f"no .npz file that can be read ({(str(error).splitlines() or [''])[0][:200]})") from error
