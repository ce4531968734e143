"""Sound sample by sample: a generative model of one spoken word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch

from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import bits
from benchmarks.tasks import sound, speech
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.contract import Classes, SequenceBatch, TokenInput, valid_steps

N_LEVELS = 256
N_TEST = 5
"""Of the 50 clips; FSDD's own test split."""
N_VALIDATION = 5

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


@lru_cache(maxsize=2)
def after_the_last(digit: int, speaker: str) -> float:
    """Bits per test sample of P(y | x) = (c(x, y) + n(x) P(y)) / (c(x) + n(x)), learned from all other clips.

    c counts, n(x) is the number of different levels seen after x, P(y) the share of level y with half a count added to
    each (Witten and Bell 1991, doi:10.1109/18.87000, method C).
    """
    development, test = recordings(digit, speaker)
    counts = np.zeros((N_LEVELS, N_LEVELS))
    for levels in development:
        np.add.at(counts, (levels[:-1], levels[1:]), 1)
    shares = (counts.sum(0) + 0.5) / (counts + 0.5 / N_LEVELS).sum()
    kinds = np.maximum((counts > 0).sum(1, keepdims=True), 1)  # after a level never seen, the shares are all there is
    chances = (counts + kinds * shares) / (counts.sum(1, keepdims=True) + kinds)
    logarithms = np.concatenate([np.log2(chances[levels[:-1], levels[1:]]) for levels in test])
    return float(-logarithms.mean())


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
    state being carried on. Floor: the shares of the levels. Ceiling: unknown. Reference: frequencies of the next level
    after the last one, computed on the same test clips; a model that scores more than 1 looks further back.

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
        value = after_the_last(self.digit, self.speaker)
        return Reference(value, "computed: frequencies of the next level after the last one")
