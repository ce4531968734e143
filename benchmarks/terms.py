"""The terms of a metric, one pair per test sequence, as every trial keeps them beside its result.

A metric is a ratio of two sums over the test sequences, or a statistic of their scores and classes. With the terms of both two
models can be compared sequence by sequence, and an interval can say what another draw of test sequences would have changed.

What they are turned into is the standard error over test sequences: the standard deviation of the terms over √N where the
metric is a mean of independent sequences, else the bootstrap over sequences (Efron 1979, doi:10.1214/aos/1176344552), which
draws blocks of neighbours where forecast windows overlap (Künsch 1989, doi:10.1214/aos/1176347265).
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics import Parts, Statistic
from benchmarks.seeding import numpy_generator

N_RESAMPLES = 1_000
"""Draws of the bootstrap: its standard error is then known to two percent."""
LARGEST = 64 * 2**20
"""Bytes that a file of terms unpacks to at most."""
LARGEST_N = 2_000_000
"""Test sequences at most whose terms are kept: beyond, the bootstrap takes minutes, and seeds differ more than sequences do."""
AT_ONCE = 20_000_000
"""Counts of the bootstrap that are in memory at once, eight bytes each."""


@dataclass(frozen=True, eq=False)
class Terms:
    """over, under: (N,), what each test sequence adds above and below the line. link: from the ratio to the metric, as in
    `benchmarks.metrics.Metric`. block: how many neighbouring sequences are drawn together, 1 where they are independent.
    statistic: instead of the ratio, for a metric that is none."""

    over: np.ndarray
    under: np.ndarray
    link: Callable[[float], float] = float
    block: int = 1
    statistic: Statistic | None = None

    def __len__(self) -> int:
        return len(self.over)

    def scaled(self, factor: float) -> Terms:
        """Of the metric times ``factor``: its terms where the metric is a mean, else its link is scaled."""
        if self.link is float and self.statistic is None:
            return replace(self, over=self.over * factor)
        return replace(self, link=lambda ratio: factor * self.link(ratio))

    @property
    def is_mean(self) -> bool:
        """Whether the metric is the plain mean of independent sequences."""
        is_ratio = self.link is float and self.statistic is None
        return is_ratio and self.block == 1 and bool((self.under == self.under[0]).all())

    @cached_property
    def resampled(self) -> np.ndarray:
        """(N_RESAMPLES,): the metric on each resample. Trials with equally many test sequences share the draws, so that the
        difference of two of them is paired."""
        values = np.concatenate([self._values(counts) for counts in _draws(len(self), self.block)])  # (R,)
        return np.array([self.link(float(value)) if np.isfinite(value) else np.nan for value in values])

    def _values(self, counts: np.ndarray) -> np.ndarray:
        """(r, N) → (r,): the metric before its link, where each sequence occurs so often."""
        if self.statistic is not None:
            return self.statistic(counts, self.over, self.under)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where no drawn sequence has anything to score
            return np.asarray((counts @ self.over) / (counts @ self.under))


def _draws(n: int, block: int) -> Iterator[np.ndarray]:
    """(r, N) each, N_RESAMPLES rows together: how often each sequence is drawn, in blocks of neighbours that wrap around the
    end."""
    at_once = max(1, AT_ONCE // n)
    if at_once >= N_RESAMPLES:
        return iter([_all_draws(n, block)])
    generator = numpy_generator("sequences", n, block)
    return (_drawn(generator, n, block, min(at_once, N_RESAMPLES - r)) for r in range(0, N_RESAMPLES, at_once))


@lru_cache(maxsize=2)
def _all_draws(n: int, block: int) -> np.ndarray:
    return _drawn(numpy_generator("sequences", n, block), n, block, N_RESAMPLES)


def _drawn(generator: np.random.Generator, n: int, block: int, n_rows: int) -> np.ndarray:
    size = min(block, n)
    starts = generator.integers(0, n, (n_rows, -(-n // size)))  # (r, blocks)
    drawn = (starts[..., None] + np.arange(size)) % n  # (r, blocks, size)
    drawn = drawn.reshape(n_rows, -1)[:, :n]  # (r, N)
    rows = np.arange(n_rows)[:, None]
    return np.bincount((rows * n + drawn).ravel(), minlength=n_rows * n).reshape(n_rows, n).astype(np.float64)


def standard_error(ours: Sequence[Terms], theirs: Sequence[Terms] = ()) -> float:
    """Of the mean metric over seeds, minus that of ``theirs``, over the choice of test sequences; paired where both have the
    same number of them. NaN without terms, or with a single test sequence."""
    every = (*ours, *theirs)
    if not ours or any(len(terms) < 2 for terms in every):
        return float("nan")
    if len({(len(terms), terms.block) for terms in every}) > 1:  # another test set: nothing to pair
        if not theirs:
            return float("nan")
        return float(np.hypot(standard_error(ours), standard_error(theirs)))
    if all(terms.is_mean for terms in every):
        values = _mean([terms.over / terms.under for terms in ours]) - _mean([t.over / t.under for t in theirs])  # (N,)
        return float(np.std(values, ddof=1) / np.sqrt(len(ours[0])))
    draws = _mean([terms.resampled for terms in ours]) - _mean([terms.resampled for terms in theirs])  # (R,)
    return float(np.nanstd(draws, ddof=1))


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(values, axis=0) if values else np.zeros(1)


def write(path: Path, parts: Mapping[str, Parts]) -> None:
    """Writes the parts of each metric, (B,) each, in float32 where their values fit; a term that all sequences share is written
    once. Writes nothing for more than LARGEST_N sequences."""
    arrays: dict[str, Any] = {}
    for name, terms in parts.items():
        for side, values in zip(Parts._fields, terms, strict=True):
            wide = values.numpy()
            if len(wide) > LARGEST_N:
                return
            with np.errstate(over="ignore"):
                narrow = wide.astype(np.float32)
            column = narrow if np.isfinite(narrow).all() else wide
            arrays[f"{name}.{side}"] = column[:1] if len(column) and (column == column[0]).all() else column
            arrays[f"{name}.n"] = np.array(len(column))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.write_bytes(content.getvalue())


def check(content: bytes) -> None:
    """Raises ValueError, in one sentence, for what `write` cannot have written. Nothing is allocated that a header claims."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > LARGEST:
                raise ValueError(f"it unpacks to {unpacked:,} bytes, more than {LARGEST:,}")
            arrays = {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"not a zip, or damaged: {error}") from error
    lengths = {name.removesuffix(".n"): array for name, array in arrays.items() if name.endswith(".n")}
    for metric, length in lengths.items():
        if length.shape != () or length.dtype.kind not in "iu" or not 0 <= (n := int(length)) <= LARGEST_N:
            raise ValueError(f"{metric}.n is no number of test sequences up to {LARGEST_N:,}")
        for side in Parts._fields:
            column = arrays.pop(f"{metric}.{side}", None)
            if column is None or column.dtype.kind != "f" or column.shape not in {(n,), (min(n, 1),)}:
                raise ValueError(f"{metric}.{side} does not hold one number per test sequence")
            if not np.isfinite(column).all():
                raise ValueError(f"{metric}.{side} holds a number that is not finite")
            if side == "under" and n and not column.any():
                raise ValueError(f"{metric}.{side} is zero for each test sequence")
        arrays.pop(f"{metric}.n")
    if arrays:
        raise ValueError(f"{min(arrays)[:40]!r} is no term of a metric")


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """A member, of at most the size that the directory says. Raises ValueError for objects, and for any but a plain array."""
    packed = io.BytesIO(archive.read(entry))
    version = np.lib.format.read_magic(packed)
    if version != (1, 0):
        raise ValueError(f"{entry.filename[:40]!r} has version {version} of the format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(packed)
    values = packed.read()
    if dtype.hasobject or dtype.itemsize * math.prod(shape) != len(values):
        raise ValueError(f"{entry.filename[:40]!r} does not hold the numbers that its header says")
    return np.frombuffer(values, dtype).reshape(shape)


def read(
    path: Path,
    metric: str,
    link: Callable[[float], float] = float,
    block: int = 1,
    statistic: Statistic | None = None,
) -> Terms | None:
    """The terms that `write` kept of a metric; None where there is no such file, or it has no such metric. The file is one
    that `check` has passed: that of a result which was read."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if f"{metric}.n" not in arrays:
            return None
        n = int(arrays[f"{metric}.n"])
        over, under = (np.broadcast_to(arrays[f"{metric}.{side}"].astype(np.float64), n) for side in Parts._fields)
    return Terms(over, under, link, block, statistic)
