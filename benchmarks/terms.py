"""The terms of a metric, one pair per test sequence, as every trial keeps them beside its result.

A metric is a ratio of two sums over the test sequences, or a statistic of their scores and classes. With the terms of both two
models can be compared sequence by sequence, and an interval can say what another draw of test sequences would have changed.

What they are turned into is the standard error over test sequences: the standard deviation of the terms over √N where the
metric is a mean of independent sequences, else the bootstrap over sequences (Efron 1979, doi:10.1214/aos/1176344552), which
draws blocks of neighbours where forecast windows overlap (Künsch 1989, doi:10.1214/aos/1176347265).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics import Parts, Statistic
from benchmarks.seeding import numpy_generator

N_RESAMPLES = 1_000
"""Draws of the bootstrap: its standard error is then known to two percent."""


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
        counts = _draws(len(self), self.block)  # (R, N)
        if self.statistic is not None:
            values = self.statistic(counts, self.over, self.under)  # (R,)
        else:
            with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where no drawn sequence has anything to score
                values = (counts @ self.over) / (counts @ self.under)  # (R,)
        return np.array([self.link(float(value)) if np.isfinite(value) else np.nan for value in values])


@lru_cache(maxsize=2)
def _draws(n: int, block: int) -> np.ndarray:
    """(R, N): how often each sequence is drawn, in blocks of neighbours that wrap around the end."""
    generator = numpy_generator("sequences", n, block)
    size = min(block, n)
    starts = generator.integers(0, n, (N_RESAMPLES, -(-n // size)))  # (R, blocks)
    drawn = (starts[..., None] + np.arange(size)) % n  # (R, blocks, size)
    drawn = drawn.reshape(N_RESAMPLES, -1)[:, :n]  # (R, N)
    rows = np.arange(N_RESAMPLES)[:, None]
    return np.bincount((rows * n + drawn).ravel(), minlength=N_RESAMPLES * n).reshape(N_RESAMPLES, n).astype(np.float64)


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
    """Writes the parts of each metric, (B,) each, in float32; a term that all sequences share is written once."""
    arrays: dict[str, Any] = {}
    for name, terms in parts.items():
        for side, values in zip(Parts._fields, terms, strict=True):
            column = values.numpy().astype(np.float32)
            arrays[f"{name}.{side}"] = column[:1] if len(column) and (column == column[0]).all() else column
            arrays[f"{name}.n"] = np.array(len(column))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.write_bytes(content.getvalue())


def read(
    path: Path,
    metric: str,
    link: Callable[[float], float] = float,
    block: int = 1,
    statistic: Statistic | None = None,
) -> Terms | None:
    """The terms that `write` kept of a metric; None where there is no such file, or it has no such metric."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if f"{metric}.n" not in arrays:
            return None
        n = int(arrays[f"{metric}.n"])
        over, under = (np.broadcast_to(arrays[f"{metric}.{side}"].astype(np.float64), n) for side in Parts._fields)
    return Terms(over, under, link, block, statistic)
