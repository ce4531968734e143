"""Classification of whole sequences: one class per sequence, scored at its last valid step.

The file's own test split is the test split. A fifth of the rest, or the share that a task names, drawn by the seed within
each class, is validation; where nothing is held out, validation is the training split once more. Channels are standardised
with mean and standard deviation over all valid steps outside the test split, training and validation together: so the test
split is the same, bit for bit, for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch

from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.bundled import Labelled, digit_images, time_series_archive
from benchmarks.tasks.task import Reference, Splits, Task
from models.sequences import Classes, RealInput, SequenceBatch, last_steps


class Parts(NamedTuple):
    """All sequences for training and validation, and those for test."""

    development: Labelled
    test: Labelled


def archive_parts(problem: str) -> Parts:
    """The two splits of a problem that aeon carries."""
    return Parts(time_series_archive(problem, "TRAIN"), time_series_archive(problem, "TEST"))


def standardised(parts: Parts) -> Parts:
    """Both, channel by channel, with mean and standard deviation of ``development``; the padding stays zero."""
    steps = parts.development.values[_valid(parts.development)]  # (all valid steps, C)
    mean, deviation = steps.mean(0), steps.std(0)

    def scaled(part: Labelled) -> Labelled:
        return part._replace(values=(part.values - mean) / deviation * _valid(part)[..., None])

    return Parts(scaled(parts.development), scaled(parts.test))


def held_out(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """(B,) labels → (B,) bool, true for a random ``share`` of each class, rounded."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen[members[: round(share * len(members))]] = True
    return chosen


def classification_splits(parts: Parts, generator: np.random.Generator, share: float = 0.2) -> Splits:
    """The splits of the module docstring; share: of each class, for validation."""
    development, test = standardised(parts)
    if share == 0:
        every = labelled_batch(development)
        return Splits(every, every, labelled_batch(test))
    validation = held_out(development.labels, share, generator)
    train_part, validation_part = (
        Labelled(*(field[rows] for field in development)) for rows in (~validation, validation)
    )
    return Splits(labelled_batch(train_part), labelled_batch(validation_part), labelled_batch(test))


def nearest_neighbour_accuracy(distances: np.ndarray, parts: Parts) -> float:
    """Accuracy, on test, of the class of the nearest development sequence; distances: (test, development)."""
    return float((parts.development.labels[distances.argmin(1)] == parts.test.labels).mean())


def warping_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, T, C) and (M, T, C) → (N, M) squared dynamic time warping distances, without a window.

    Sakoe and Chiba 1978, doi:10.1109/TASSP.1978.1163055, all channels warped alike:
    D(i, j) = |a_i - b_j|² + min(D(i-1, j), D(i, j-1), D(i-1, j-1)). One pass per anti-diagonal i + j serves all pairs.
    """
    a, b = a.swapaxes(0, 1), b.swapaxes(0, 1)  # (T, N, C), (T, M, C)
    length = len(a)
    before = np.full((length + 1, a.shape[1], b.shape[1]), np.inf)  # row i + 1 holds D(i, ·) two diagonals ago
    last = before.copy()  # and one ago
    before[0] = 0.0  # D(-1, -1), where every path begins
    for diagonal in range(2 * length - 1):
        i = np.arange(max(0, diagonal - length + 1), min(diagonal, length - 1) + 1)
        p, q = a[i], b[diagonal - i]  # (n, N, C), (n, M, C)
        squares = (p**2).sum(-1)[:, :, None] + (q**2).sum(-1)[:, None, :]
        costs = squares - 2 * p @ q.swapaxes(1, 2)  # (n, N, M)
        current = np.full_like(last, np.inf)
        current[i + 1] = costs + np.minimum(np.minimum(last[i], last[i + 1]), before[i])
        before, last = last, current
    return last[-1]


def _valid(part: Labelled) -> np.ndarray:
    """(B, T) bool."""
    return np.arange(part.values.shape[1]) < part.lengths[:, None]


def labelled_batch(part: Labelled) -> SequenceBatch:
    """Scored at the last valid step of each sequence."""
    longest = int(part.lengths.max())
    lengths = torch.from_numpy(part.lengths)
    scored = last_steps(lengths, longest)
    return SequenceBatch(
        inputs=torch.from_numpy(part.values[:, :longest].astype(np.float32)),
        targets=torch.from_numpy(part.labels)[:, None] * scored,  # (B, 1) → (B, T)
        lengths=lengths,
        scored=scored,
    )


@dataclass(frozen=True)
class JapaneseVowels(Task):
    """Which of nine men spoke the vowels a and e: 12 cepstral coefficients per frame, 7 to 29 frames.

        frame             0     1     2   …   19
        coefficient 1   1.9   1.9   1.9   …  1.3        before standardisation: the first sequence of the file
        coefficient 2   -.2   -.2   -.2   …  -.6
        target            ·     ·     ·   …    0        speaker 1; the last frame of each sequence alone is scored

    270 sequences, 30 per speaker, for training and validation (216 and 54), 370 for test. Floor: one speaker for all;
    training is balanced, so which one is arbitrary (the first). Ceiling: unknown. Reference: a published convolutional
    network.

    held_out: share of each speaker's 30 sequences for validation; 0: all 270 train, as in published results, and validation
    is those same sequences, which can choose nothing but the best fit to them.
    """

    held_out: float = 0.2

    name: ClassVar[str] = "japanese_vowels"
    group: ClassVar[str] = "speech"
    summary: ClassVar[str] = "which of nine men spoke two vowels, from 12 coefficients per frame"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Kudo, Toyama and Shimbo 1999, doi:10.1016/S0167-8655(99)00077-X, as bundled with aeon"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = tuple(f"speaker {i}" for i in range(1, 10))
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        share = self.held_out
        if type(share) not in (int, float) or not (share == 0 or 1 / 30 <= share <= 0.9):
            raise InvalidParameter(
                f"{self.name}: held_out must be 0, or a share from 1/30, one sequence of each speaker, to 0.9, got {share!r}"
            )

    @property
    def input(self) -> RealInput:
        return RealInput(channels=12, max_length=29)

    @property
    def target(self) -> Classes:
        return Classes(9, scope="sequence")

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        return classification_splits(archive_parts("JapaneseVowels"), generator, self.held_out)

    @property
    def reference(self) -> Reference:
        return Reference(0.993, "FCN, mean of 10 runs: Fawaz et al. 2019, doi:10.1007/s10618-019-00619-1")


@dataclass(frozen=True)
class BasicMotions(Task):
    """Standing, running, walking or badminton: a smart watch's acceleration and rotation, 6 channels, 100 steps of 0.1
    s.

        step                0     1     2   …    99
        acceleration x    .08   .08  -.90   …  -.21        before standardisation: the first sequence of the file
        target              ·     ·     ·   …     0        standing; the last step alone is scored

    40 sequences, 10 per class, for training and validation (32 and 8), 40 for test: few enough that an interval matters
    more than a mean. Floor: one class for all, 1/4. Ceiling: unknown. Reference: the nearest neighbour under dynamic
    time warping, computed on the same test sequences.
    """

    name: ClassVar[str] = "basic_motions"
    group: ClassVar[str] = "sensors"
    summary: ClassVar[str] = "which of four activities a smart watch saw, from ten seconds of six sensors"
    licence: ClassVar[str] = "not stated by the archive; bundled with aeon (BSD-3-Clause)"
    source: ClassVar[str] = "Bagnall et al. 2018, arXiv 1811.00075, as bundled with aeon"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = ("standing", "running", "walking", "badminton")
    causal: ClassVar[bool] = False

    @property
    def input(self) -> RealInput:
        return RealInput(channels=6, max_length=100)

    @property
    def target(self) -> Classes:
        return Classes(4, scope="sequence")

    def splits(self, seed: int) -> Splits:
        return classification_splits(archive_parts("BasicMotions"), numpy_generator("data", self.name, seed))

    @property
    def reference(self) -> Reference:
        return Reference(_motions_reference(), "computed: nearest neighbour under dynamic time warping")


@lru_cache(maxsize=1)
def _motions_reference() -> float:
    parts = archive_parts("BasicMotions")  # in original units, as the archive's own benchmark has it
    return nearest_neighbour_accuracy(warping_distances(parts.test.values, parts.development.values), parts)


def digit_parts() -> Parts:
    """All but the last 450 images of the file, and those 450."""
    images = digit_images()
    return Parts(Labelled(*(field[:-450] for field in images)), Labelled(*(field[-450:] for field in images)))


@dataclass(frozen=True)
class Digits(Task):
    """Which digit a hand wrote: 8 × 8 pixels, row by row, one per step.

        row 0     0  0  5 13  9  1  0  0        before standardisation: the first image of the file, ink 0 … 16;
        row 1     0  0 13 15 10 15  5  0        the sequence is row 0, row 1, … row 7, 64 steps
        target    ·  ·  ·  ·  ·  ·  ·  0        at the last of the 64 steps alone

    1,347 images for training and validation, the last 450 of the file for test, which is harder than a shuffled test:
    the file goes from writer to writer. Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the
    nearest neighbour on the 64 pixels, computed on the same test images.
    """

    name: ClassVar[str] = "digits"
    group: ClassVar[str] = "vision"
    summary: ClassVar[str] = "which digit was written, from its 64 pixels one by one"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Alpaydin and Kaynak 1998, doi:10.24432/C50P49, as bundled with scikit-learn"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = tuple(str(i) for i in range(10))
    causal: ClassVar[bool] = False

    @property
    def input(self) -> RealInput:
        return RealInput(channels=1, max_length=64)

    @property
    def target(self) -> Classes:
        return Classes(10, scope="sequence")

    def splits(self, seed: int) -> Splits:
        return classification_splits(digit_parts(), numpy_generator("data", self.name, seed))

    @property
    def reference(self) -> Reference:
        parts = digit_parts()
        a, b = parts.test.values[:, :, 0], parts.development.values[:, :, 0]
        distances = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)  # (450, 1347), exact: pixels are integers
        value = nearest_neighbour_accuracy(distances, parts)
        return Reference(value, "computed: nearest neighbour on the 64 pixels")
