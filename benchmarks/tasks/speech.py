"""Speech: the Free Spoken Digit Dataset, ten digits said fifty times by each of six speakers, 8 kHz.

Where the question is which digit was said, the speaker of the test split is heard in no other, and the speaker of the
validation split, drawn by the seed from the other five, is heard in validation alone. A share of the training speakers'
clips would be the easier validation and the wrong one: it would choose the checkpoint that knows those voices best,
while the test asks for a voice never heard. Every clip is scaled to the same level, and those over a second (20 of
3,000) end there. Each speaker has a microphone of his own, so cepstral coefficients are taken less their mean over the clip.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks import sound
from benchmarks.tasks.bundled import Labelled
from benchmarks.tasks.classification import Parts, labelled_batch, standardised
from benchmarks.tasks.task import Reference, Splits, Task
from models.sequences import Classes, RealInput

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
N_DIGITS = 10
MAX_FRAMES = 100
"""Of 10 ms: one second."""
CORPUS = "Free Spoken Digit Dataset, github.com/Jakobovski/free-spoken-digit-dataset"
LICENCE = "CC BY-SA 4.0"


class Clip(NamedTuple):
    """One recording. samples: (n,) float64 in [-1, 1). take: 0 … 49 among those of the digit and speaker."""

    samples: np.ndarray
    digit: int
    speaker: str
    take: int


def clip_name(name: str) -> tuple[int, str, int]:
    """Digit, speaker and take of "7_jackson_32.wav"; ValueError for another name."""
    match = re.fullmatch(r"([0-9])_([a-z]+)_([0-9]{1,3})\.wav", name)
    if match is None:
        raise ValueError(f"{name}: a recording is named digit_speaker_take.wav")
    return int(match[1]), match[2], int(match[3])


@cache
def clips() -> tuple[Clip, ...]:
    """All 3,000 recordings, sorted by the names of their files."""
    paths = sorted(datasets.path("fsdd", "recordings/").iterdir())
    return tuple(Clip(sound.decode_wave(path.read_bytes(), path.name), *clip_name(path.name)) for path in paths)


def speech(clip: Clip) -> np.ndarray:
    """(n,) samples of at most a second at unit level."""
    return sound.levelled(clip.samples[: MAX_FRAMES * sound.HOP - 1])  # a sample more would begin another frame


def require_speaker(task: Task, field: str) -> None:
    """Raises InvalidParameter unless that field names a speaker."""
    value = getattr(task, field)
    if value not in SPEAKERS:
        raise InvalidParameter(f"{task.name}: {field} must be one of {', '.join(SPEAKERS)}, got {value!r}")


def validation_speaker(task: str, test_speaker: str, seed: int) -> str:
    """One of the five others, by the seed."""
    return str(numpy_generator("data", task, seed).choice([name for name in SPEAKERS if name != test_speaker]))


@cache
def cepstra() -> tuple[np.ndarray, ...]:
    """The coefficients (T, 13) of every clip, less their mean over the clip, in the order of `clips`."""
    return tuple(sound.mean_removed(sound.cepstrum(speech(clip))) for clip in clips())


def time_normalised(steps: np.ndarray, n: int = 20) -> np.ndarray:
    """(T, C) → (n · C,): n steps, evenly spaced and interpolated, so that every clip is as long."""
    places = np.linspace(0, len(steps) - 1, n)
    return np.stack([np.interp(places, np.arange(len(steps)), channel) for channel in steps.T], axis=1).ravel()


@lru_cache(maxsize=len(SPEAKERS))
def discriminant_answers(test_speaker: str) -> np.ndarray:
    """(500,) digits that a linear discriminant hears in the clips of a speaker, learned from the other five.

    Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x, on 20 evenly spaced frames of 13 coefficients; the common
    covariance is drawn half-way to a multiple of the identity (Friedman 1989, doi:10.1080/01621459.1989.10478752).
    """
    values = np.stack([time_normalised(steps) for steps in cepstra()])  # (3000, 260)
    digits = np.array([clip.digit for clip in clips()])
    test = np.array([clip.speaker == test_speaker for clip in clips()])
    values = values / values[~test].std(0)
    means = np.stack([values[~test & (digits == digit)].mean(0) for digit in range(N_DIGITS)])  # (10, 260)
    residuals = values[~test] - means[digits[~test]]
    covariance = residuals.T @ residuals / len(residuals)
    n = len(covariance)
    directions = np.linalg.solve(covariance / 2 + np.trace(covariance) / (2 * n) * np.eye(n), means.T)  # (260, 10)
    return (values[test] @ directions - (means.T * directions).sum(0) / 2).argmax(1)


class DigitTask(Task):
    """What the tasks of one clip share; see the module docstring."""

    test_speaker: str
    group: ClassVar[str] = "speech"
    licence: ClassVar[str] = LICENCE
    datasets: ClassVar[tuple[str, ...]] = ("fsdd",)
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = tuple(map(str, range(N_DIGITS)))
    causal: ClassVar[bool] = False

    @abstractmethod
    def parts(self) -> Parts:
        """The clips of the other five speakers and those of `test_speaker`, each in the order of `clips`."""

    @property
    def target(self) -> Classes:
        return Classes(N_DIGITS, scope="sequence")

    def splits(self, seed: int) -> Splits:
        development, test = self.parts()
        held_out = validation_speaker(self.name, self.test_speaker, seed)
        speakers = np.array([clip.speaker for clip in clips() if clip.speaker != self.test_speaker])
        rows = [speakers != held_out, speakers == held_out]
        train, validation = (Labelled(*(field[chosen] for field in development)) for chosen in rows)
        return Splits(*map(labelled_batch, (train, validation, test)))

    @property
    def reference(self) -> Reference:
        digits = np.array([clip.digit for clip in clips() if clip.speaker == self.test_speaker])
        value = float((discriminant_answers(self.test_speaker) == digits).mean())
        return Reference(value, "computed: linear discriminant on 20 frames of cepstral coefficients")


def labelled(steps: tuple[np.ndarray, ...], test_speaker: str) -> Parts:
    """Of the (T, C) steps of every clip, in the order of `clips`: those of the other speakers, and the test speaker's."""
    lengths = np.array([len(values) for values in steps])
    padded = np.zeros((len(steps), lengths.max(), steps[0].shape[1]), steps[0].dtype)
    for row, values in zip(padded, steps, strict=True):
        row[: len(values)] = values
    digits = np.array([clip.digit for clip in clips()])
    test = np.array([clip.speaker == test_speaker for clip in clips()])
    return Parts(*(Labelled(padded[rows], lengths[rows], digits[rows]) for rows in (~test, test)))


@lru_cache(maxsize=1)
def cepstral_parts(test_speaker: str) -> Parts:
    return standardised(labelled(cepstra(), test_speaker))


@lru_cache(maxsize=1)
def waveform_parts(test_speaker: str) -> Parts:
    return labelled(tuple(sound.frames(speech(clip)).astype(np.float32) for clip in clips()), test_speaker)


@dataclass(frozen=True)
class SpokenDigits(DigitTask):
    """Which digit a voice never heard before said: 13 cepstral coefficients every 10 ms, 0.14 to 1 s.

        frame             0      1      2   …     29
        coefficient 0    -5    -12     22   …    -35       decibels less the clip's mean; standardised by the five others
        coefficient 1    17      7    -12   …     34
        target            ·      ·      ·   …      0       the last frame of each clip alone is scored

    Six speakers said each digit fifty times: 2,000 clips of four for training, 500 of a fifth for validation, 500 of
    `test_speaker` for test. Speakers differ: the discriminant below finds 0.45 of one speaker's digits and 0.93 of
    another's. Floor: one digit for all, 1/10; training is balanced, so which one is arbitrary (the first). Ceiling:
    unknown. Reference: a linear discriminant on clips stretched to one length, computed on the same test clips.

    test_speaker: who is heard in test alone: george, jackson, lucas, nicolas, theo or yweweler.
    """

    test_speaker: str = "george"

    name: ClassVar[str] = "spoken_digits"
    summary: ClassVar[str] = "which digit a voice never heard before said, from 13 coefficients every 10 ms"
    source: ClassVar[str] = f"{CORPUS}; coefficients: Davis and Mermelstein 1980, doi:10.1109/TASSP.1980.1163420"

    def __post_init__(self) -> None:
        require_speaker(self, "test_speaker")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=sound.N_COEFFICIENTS, max_length=MAX_FRAMES)

    def parts(self) -> Parts:
        return cepstral_parts(self.test_speaker)


@dataclass(frozen=True)
class SpokenDigitsRaw(DigitTask):
    """Which digit a voice never heard before said: the samples themselves, 80 a step, 10 ms.

        frame          0       1       2   …    29
        sample 0    -.51   -1.16    1.04   …   .42       the clip at a root mean square of 1
        sample 1    -.33    -.71     .76   …   .31
        target         ·       ·       ·   …     0       the last frame of each clip alone is scored

    The clips and splits are those of spoken_digits, but what is said must be found without the spectrum, whose phases
    are arbitrary here. Floor: one digit for all, 1/10. Ceiling: unknown. Reference: the linear discriminant of
    spoken_digits, which is given the coefficients; below it, a model has found less than they show.

    test_speaker: who is heard in test alone: george, jackson, lucas, nicolas, theo or yweweler.
    """

    test_speaker: str = "george"

    name: ClassVar[str] = "spoken_digits_raw"
    summary: ClassVar[str] = "which digit a voice never heard before said, from the samples, 80 a step"
    source: ClassVar[str] = CORPUS

    def __post_init__(self) -> None:
        require_speaker(self, "test_speaker")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=sound.HOP, max_length=MAX_FRAMES)

    def parts(self) -> Parts:
        return waveform_parts(self.test_speaker)
