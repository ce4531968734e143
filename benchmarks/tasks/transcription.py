"""Speech to text without alignment: which digits were said, not when.

A step is three frames of 10 ms side by side, which shortens sequences to a third and takes nothing away (Sak et al. 2015,
arXiv 1507.06947).

Strings of digits are put together from the clips of `benchmarks.tasks.speech`, each string by one speaker, with digital
silence between. Speakers are split as there: one for test, one of the others, drawn by the seed, for validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from benchmarks.metrics import Metric
from benchmarks.seeding import numpy_generator
from benchmarks.tasks import sound, speech
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.transcripts import label_error_rate
from models.sequences import RealInput, SequenceBatch, Transcript, valid_steps

STACK = 3
"""Frames a step."""


class DigitString(NamedTuple):
    """members: numbers of the clips, in the order of `speech.clips`. gaps: frames of silence after each but the last."""

    members: list[int]
    gaps: list[int]


def draw_strings(
    speakers: list[str], n: int, max_digits: int, max_gap: int, generator: np.random.Generator
) -> list[DigitString]:
    """n strings: a speaker, the number of digits, the clips and the gaps, each drawn evenly."""
    clips = speech.clips()
    own = {name: [i for i, clip in enumerate(clips) if clip.speaker == name] for name in speakers}
    strings = []
    for _ in range(n):
        members = generator.choice(own[str(generator.choice(speakers))], generator.integers(1, max_digits + 1))
        gaps = generator.integers(0, max_gap + 1, len(members) - 1)
        strings.append(DigitString(members.tolist(), gaps.tolist()))
    return strings


def spoken(string: DigitString) -> np.ndarray:
    """(n,) samples."""
    pieces = []
    for member, gap in zip(string.members, [*string.gaps, 0], strict=True):
        pieces += [speech.speech(speech.clips()[member]), np.zeros(gap * sound.HOP)]
    return np.concatenate(pieces)


def stacked(steps: np.ndarray) -> np.ndarray:
    """(T, C) frames → (⌈T / STACK⌉, STACK · C), the last filled up with zeros."""
    return np.pad(steps, ((0, -len(steps) % STACK), (0, 0))).reshape(-1, STACK * steps.shape[1])


@lru_cache(maxsize=2)
def _scale(test_speaker: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (13,) of the coefficients over the clips of all speakers but that one."""
    kept = zip(speech.cepstra(), speech.clips(), strict=True)
    steps = np.concatenate([values for values, clip in kept if clip.speaker != test_speaker])
    return steps.mean(0), steps.std(0)


@dataclass(frozen=True)
class DigitStrings(Task):
    """Which digits a voice never heard before said one after another: a transcript, with no word of when.

        frame             0      1   …     39   …     42   …     47     48   …     88       three make a step
        what is said      5      5   …      5   …      ·   …      9      9   …      9       not shown; · is silence
        coefficient 0   -75     29   …    -85   …   -263   …    -18     -7   …    -99       as in spoken_digits
        target          5 9, anywhere along the string

    A string has 1 … max_digits digits of one speaker with 0 … max_gap frames of silence between two. Models answer
    every step with a digit or with blank, and are trained by connectionist temporal classification; what they say is
    read along the likeliest path. The splits are by speaker, as in spoken_digits. Floor: always blank, the empty
    transcript, which takes one edit for every digit: 1. Ceiling: unknown. Reference: the linear discriminant of
    spoken_digits on the same test strings, told where each digit begins and ends, which models must find out.

    max_digits: digits of the longest string. max_gap: frames of 10 ms of the longest silence. n_train, n_validation,
    n_test: strings. test_speaker: who is heard in test alone.
    """

    max_digits: int = 4
    max_gap: int = 20
    n_train: int = 1000
    n_validation: int = 100
    n_test: int = 300
    test_speaker: str = "george"

    name: ClassVar[str] = "digit_strings"
    group: ClassVar[str] = "speech"
    summary: ClassVar[str] = "the digits that a voice never heard before says in a row, without alignment"
    licence: ClassVar[str] = speech.LICENCE
    source: ClassVar[str] = f"{speech.CORPUS}; the loss: Graves et al. 2006, doi:10.1145/1143844.1143891"
    picture: ClassVar[Literal["transcript"]] = "transcript"
    symbols: ClassVar[tuple[str, ...]] = tuple(map(str, range(speech.N_DIGITS)))
    datasets: ClassVar[tuple[str, ...]] = ("fsdd",)
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"max_digits": 1, "max_gap": 0, "n_train": 1, "n_validation": 1, "n_test": 1})
        speech.require_speaker(self, "test_speaker")

    @property
    def input(self) -> RealInput:
        longest = self.max_digits * speech.MAX_FRAMES + (self.max_digits - 1) * self.max_gap
        return RealInput(channels=STACK * sound.N_COEFFICIENTS, max_length=-(-longest // STACK))

    @property
    def target(self) -> Transcript:
        return Transcript(speech.N_DIGITS)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (label_error_rate,)

    def splits(self, seed: int) -> Splits:
        return _splits(self, seed)

    @property
    def reference(self) -> Reference:
        return Reference(
            _told_where(self), "computed: linear discriminant on each digit, told where it begins and ends"
        )

    def test_strings(self) -> list[DigitString]:
        """The same for every seed."""
        return draw_strings(
            [self.test_speaker], self.n_test, self.max_digits, self.max_gap, numpy_generator("test", self.name)
        )

    def batch(self, strings: list[DigitString]) -> SequenceBatch:
        """Scored at every valid step: a transcript may come anywhere."""
        mean, deviation = _scale(self.test_speaker)
        heard = (sound.mean_removed(sound.cepstrum(spoken(string))) for string in strings)
        steps = [stacked((values - mean) / deviation) for values in heard]  # each (T, 39)
        lengths = torch.tensor([len(values) for values in steps])
        inputs = torch.zeros(len(steps), int(lengths.max()), steps[0].shape[1])
        target_lengths = torch.tensor([len(string.members) for string in strings])
        targets = torch.full((len(steps), int(target_lengths.max())), -1)
        for row, (values, string) in enumerate(zip(steps, strings, strict=True)):
            inputs[row, : len(values)] = torch.from_numpy(values)
            # Symbol 0 is blank, so digit d is symbol d + 1.
            targets[row, : len(string.members)] = torch.tensor(digits_of(string)) + 1
        return SequenceBatch(inputs, targets, lengths, valid_steps(lengths, inputs.shape[1]), target_lengths)


def digits_of(string: DigitString) -> list[int]:
    return [speech.clips()[member].digit for member in string.members]


@lru_cache(maxsize=2)
def _splits(task: DigitStrings, seed: int) -> Splits:
    generator = numpy_generator("data", task.name, seed)
    held_out = speech.validation_speaker(task.name, task.test_speaker, seed)
    others = [name for name in speech.SPEAKERS if name not in (task.test_speaker, held_out)]
    train = draw_strings(others, task.n_train, task.max_digits, task.max_gap, generator)
    validation = draw_strings([held_out], task.n_validation, task.max_digits, task.max_gap, generator)
    return Splits(task.batch(train), task.batch(validation), _test_batch(task))


@lru_cache(maxsize=1)
def _test_batch(task: DigitStrings) -> SequenceBatch:
    return task.batch(task.test_strings())


@lru_cache(maxsize=1)
def _told_where(task: DigitStrings) -> float:
    """The label error rate of the reference."""
    own = [i for i, clip in enumerate(speech.clips()) if clip.speaker == task.test_speaker]
    answers = dict(zip(own, speech.discriminant_answers(task.test_speaker).tolist(), strict=True))
    strings = task.test_strings()
    edits = sum(Levenshtein.distance([answers[i] for i in string.members], digits_of(string)) for string in strings)
    return edits / sum(len(string.members) for string in strings)
