"""Sound sample by sample: a generative model of one spoken word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import bits
from benchmarks.tasks import sound, speech
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, SequenceBatch, TokenInput, valid_steps

N_LEVELS = 256
N_TEST = 5
"""Of the 50 clips; FSDD's own test split."""
N_VALIDATION = 5
ORDER = 16
"""Samples that linear prediction looks back: two for each kilohertz, as is usual."""
NARROWEST = 2e-4
"""Of the spread about a prediction: about the distance of the two levels nearest to silence."""
FAR = 1e6
"""An amplitude that never comes."""
KEPT = 1 / 4000
"""Of the probability, for all levels alike."""

bits_per_sample = replace(
    cross_entropy,
    name="bits_per_sample",
    unit="bits per sample",
    definition="mean negative binary logarithm of the probability of the next level",
    margin=0.02,
    link=bits,
)


class Recordings(NamedTuple):
    """Levels (n,) int64 of each clip: of those for training and validation, and of those for test."""

    development: list[np.ndarray]
    test: list[np.ndarray]


@lru_cache(maxsize=2)
def recordings(digit: int, speaker: str) -> Recordings:
    """The 50 clips, each scaled to fill the range, so that quiet clips use all levels too."""
    clips = [clip for clip in speech.clips() if (clip.digit, clip.speaker) == (digit, speaker)]
    clips.sort(key=lambda clip: clip.take)
    levels = [sound.mu_law(clip.samples / np.abs(clip.samples).max()) for clip in clips]
    return Recordings(levels[N_TEST:], levels[:N_TEST])


def next_sample_batch(clips: list[np.ndarray]) -> SequenceBatch:
    """Inputs are all samples but the last, targets all but the first."""
    lengths = torch.tensor([len(levels) - 1 for levels in clips])
    inputs, targets = (torch.zeros(len(clips), int(lengths.max()), dtype=torch.int64) for _ in range(2))
    for row, levels in enumerate(clips):
        inputs[row, : len(levels) - 1] = torch.from_numpy(levels[:-1])
        targets[row, : len(levels) - 1] = torch.from_numpy(levels[1:])
    return SequenceBatch(inputs, targets, lengths, valid_steps(lengths, inputs.shape[1]))


def predicted(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) samples, (ORDER,) weights of those before, oldest first → (n - 1,) predictions of samples 1 … n - 1."""
    return _before(samples) @ weights


def _before(samples: np.ndarray) -> np.ndarray:
    """(n - 1, ORDER): what stands before samples 1 … n - 1; before the first stands silence."""
    return sliding_window_view(np.pad(samples, (ORDER - 1, 0)), ORDER)[:-1]


def recent_error(errors: np.ndarray, first: float) -> np.ndarray:
    """(n,) errors → (n,) the mean size of those before each, a sample counting 0.9 times as much as the one after it."""
    sizes = np.empty(len(errors))
    size = first
    for i, error in enumerate(np.abs(errors)):
        sizes[i] = size
        size = 0.9 * size + 0.1 * error
    return sizes


def student_cumulative(t: np.ndarray) -> np.ndarray:
    """P(T ≤ t) of Student's distribution with three degrees of freedom."""
    scaled = t / np.sqrt(3)
    return 0.5 + (scaled / (1 + scaled**2) + np.arctan(scaled)) / np.pi


@lru_cache(maxsize=2)
def by_linear_prediction(digit: int, speaker: str) -> float:
    """Bits per test sample of linear prediction (Makhoul 1975, doi:10.1109/PROC.1975.9792), learned from all other clips.

    The amplitude is predicted as a weighted sum of the 16 before, by least squares; what comes is spread about that by
    Student's distribution, as wide as the latest errors were large. A level has the probability of the amplitudes that
    `sound.mu_law` gives it, and one in 4,000 is kept for all levels alike.
    """
    development, test = recordings(digit, speaker)
    known = [sound.mu_law_inverse(levels) for levels in development]
    past, come = np.concatenate([_before(samples) for samples in known]), np.concatenate([x[1:] for x in known])
    weights = np.linalg.lstsq(past, come, rcond=None)[0]
    usual = float(np.abs(come - past @ weights).mean())
    # Where the level changes, in amplitude; beyond the outermost levels there are no others.
    edges = np.concatenate([[-FAR], sound.mu_law_inverse(np.arange(N_LEVELS - 1) + 0.5), [FAR]])
    logarithms = []
    for levels in test:
        samples = sound.mu_law_inverse(levels)
        middle = predicted(samples, weights)
        width = np.maximum(recent_error(samples[1:] - middle, usual), NARROWEST)
        lower, upper = ((edges[levels[1:] + side] - middle) / width for side in (0, 1))
        chance = student_cumulative(upper) - student_cumulative(lower)
        logarithms.append(np.log2((1 - KEPT) * chance + KEPT / N_LEVELS))
    return float(-np.concatenate(logarithms).mean())


@dataclass(frozen=True)
class Waveform(Task):
    """The next sample of a spoken digit: 8,000 a second, each one of 256 levels, fine where it is quiet (mu-law).

        sample        0     1     2     3   …  3605      of a clip of 0.45 s: th- is noise
        amplitude   .03  -.11  -.04   .06   …  -.03
        input       177    51    72   193   …    77      levels of the amplitude, 128 just above zero
        target       51    72   193    33   …    78      the input one step ahead, scored at every step

    One digit, said fifty times by one speaker: a model of one word in one voice, from which that word can be drawn.
    Clips 0 to 4 are the test split, as in the data set itself; 5 of the others, drawn by the seed, validation; 40
    training. No clip is in two splits; the voice is meant to be the same. Clips are read 400 samples at a time, the
    state being carried on. Floor: the shares of the levels, 7.8 bits. Ceiling: unknown. Reference: linear prediction from
    the last 16 samples, the classical model of speech, computed on the same test clips, 5.4 bits; it is told that levels
    are amplitudes, which a model here must find out.

    digit: the digit said, 0 … 9. speaker: george, jackson, lucas, nicolas, theo or yweweler.
    """

    digit: int = 3
    speaker: str = "jackson"

    name: ClassVar[str] = "waveform"
    group: ClassVar[str] = "speech"
    summary: ClassVar[str] = "the next sample of the sound of one word in one voice; what it learns can be listened to"
    licence: ClassVar[str] = speech.LICENCE
    source: ClassVar[str] = f"{speech.CORPUS}; levels: ITU-T G.711"
    picture: ClassVar[Literal["waveform"]] = "waveform"
    datasets: ClassVar[tuple[str, ...]] = ("fsdd",)
    causal: ClassVar[bool] = True
    window: ClassVar[int] = 400

    def __post_init__(self) -> None:
        require_integers(self, {"digit": 0})
        if self.digit >= speech.N_DIGITS:
            raise InvalidParameter(f"{self.name}: digit must be at most 9, got {self.digit}")
        speech.require_speaker(self, "speaker")

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=N_LEVELS)

    @property
    def target(self) -> Classes:
        return Classes(N_LEVELS, scope="step", future=True)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (bits_per_sample, accuracy)

    def splits(self, seed: int) -> Splits:
        development, test = recordings(self.digit, self.speaker)
        order = numpy_generator("data", self.name, seed).permutation(len(development))
        validation, train = ([development[i] for i in sorted(part)] for part in np.split(order, [N_VALIDATION]))
        return Splits(*map(next_sample_batch, (train, validation, test)))

    @property
    def reference(self) -> Reference:
        value = by_linear_prediction(self.digit, self.speaker)
        return Reference(value, "computed: linear prediction from the last 16 samples")
