"""Sensors on and around people: who changes the room, who does what, and what is left when a sensor fails.

Sequences recorded together stay together: a set of rooms, or a recording, is in one split only. Channels are
standardised over all valid steps outside the test split, as in `classification`, whose batches these are.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import datasets
from benchmarks.metrics import SHARE, Metric, Parts, accuracy, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks import classification
from benchmarks.tasks.bundled import Labelled
from benchmarks.tasks.classification import classification_splits, held_out, labelled_batch, standardised
from benchmarks.tasks.sensor_files import body_sensors, numbered_labels, signal_strengths, zipped_texts
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, RealInput, SequenceBatch


def labelled(sequences: list[np.ndarray], labels: list[int]) -> Labelled:
    """Sequences of (T, C), padded with zeros."""
    lengths = np.array([len(steps) for steps in sequences])
    values = np.zeros((len(sequences), lengths.max(), sequences[0].shape[1]))
    for row, steps in enumerate(sequences):
        values[row, : len(steps)] = steps
    return Labelled(values, lengths, np.array(labels))


def summary_neighbour(parts: classification.Parts) -> float:
    """Test accuracy of the nearest neighbour on mean and deviation of each channel, each in its own deviations."""
    known, asked = (
        np.array([np.r_[v[:n].mean(0), v[:n].std(0)] for v, n in zip(part.values, part.lengths, strict=True)])
        for part in parts
    )  # (B, 2 C) each
    spread = known.std(0)
    distances = ((asked[:, None] / spread - known / spread) ** 2).sum(-1)  # (test, development)
    return classification.nearest_neighbour_accuracy(distances, parts)


class SensorTask(Task):
    """One class for a whole sequence of sensor values."""

    group: ClassVar[str] = "sensors"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    causal: ClassVar[bool] = False

    @abstractmethod
    def parts(self) -> classification.Parts:
        """Development and test, in original units."""

    @property
    def target(self) -> Classes:
        return Classes(len(self.symbols or ()), scope="sequence")

    def judged_parts(self) -> classification.Parts:
        """What the reference is computed on."""
        return self.parts()

    @property
    def reference(self) -> Reference:
        return Reference(_reference(self), "computed: nearest neighbour on mean and deviation of each channel")


@lru_cache(maxsize=8)
def _reference(task: SensorTask) -> float:
    return summary_neighbour(task.judged_parts())


class Walk(NamedTuple):
    """signals: (T, 4) float64. changes: whether it leads to another room. rooms: the pair of rooms, 1 … 3."""

    signals: np.ndarray
    changes: bool
    rooms: int


@lru_cache(maxsize=1)
def walks() -> list[Walk]:
    """All 314, in the order of their numbers."""
    archive = datasets.path("indoor_movement", "IndoorMovement.zip")
    texts = zipped_texts(archive, lambda name: name.endswith(".csv"))
    labels, rooms = (
        numbered_labels(texts[name], name)
        for name in ("dataset/MovementAAL_target.csv", "groups/MovementAAL_DatasetGroup.csv")
    )
    names = {number: f"dataset/MovementAAL_RSS_{number}.csv" for number in sorted(labels)}
    return [
        Walk(signal_strengths(texts[name], name), labels[number] == 1, rooms[number]) for number, name in names.items()
    ]


@dataclass(frozen=True)
class IndoorMovement(SensorTask):
    """Whether a walk leads into another room, from the radio signal between the walker and four anchors, 8 times a
    second.

        step            0     1     2   …   26
        anchor 1     -.90  -.57  -.38   …    .        before standardisation: the first walk of the file
        anchor 2     -.48  -.32  -.28   …    .
        target          ·     ·     ·   …    1        room changed; the last step alone is scored

    314 walks of 19 to 129 steps, about half of each kind, through three pairs of rooms; all walks stop at the same place.
    Test is one pair of rooms, never seen in training: another building's walls and furniture. A fifth of each class of
    the others, drawn by the seed, is validation.

    Floor: one class for all, about 1/2. Ceiling: unknown. Reference: the nearest neighbour on mean and deviation of each
    channel, computed on the same test walks.

    test_rooms: the pair of rooms that is tested, 1 … 3.
    """

    test_rooms: int = 3

    name: ClassVar[str] = "indoor_movement"
    summary: ClassVar[str] = "whether a walk leads into another room, from four radio signals, in rooms never seen"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Bacciu et al. 2014, doi:10.1007/s00521-013-1364-4; UCI 348"
    datasets: ClassVar[tuple[str, ...]] = ("indoor_movement",)
    symbols: ClassVar[tuple[str, ...]] = ("same room", "other room")

    def __post_init__(self) -> None:
        require_integers(self, {"test_rooms": 1})
        if self.test_rooms > 3:
            raise InvalidParameter(f"{self.name}: test_rooms must be 1, 2 or 3, got {self.test_rooms}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=4, max_length=129)

    def parts(self) -> classification.Parts:
        def part(chosen: list[Walk]) -> Labelled:
            return labelled([walk.signals for walk in chosen], [int(walk.changes) for walk in chosen])

        return classification.Parts(
            part([walk for walk in walks() if walk.rooms != self.test_rooms]),
            part([walk for walk in walks() if walk.rooms == self.test_rooms]),
        )

    def splits(self, seed: int) -> Splits:
        return classification_splits(self.parts(), numpy_generator("data", self.name, seed))


ACTIVITIES = ("bending", "cycling", "lying", "sitting", "standing", "walking")


class Recording(NamedTuple):
    """values: (T, 6) float64. activity: its number."""

    values: np.ndarray
    activity: int
    is_test: bool


@lru_cache(maxsize=1)
def recordings() -> list[Recording]:
    """The 81 that are not a copy, in whole or shifted, of one with a lower number (cycling 15, lying 10 to 15); of each
    folder the first three are test, of the two small ones of bending two."""
    texts = zipped_texts(datasets.path("arem_uci", "AReM.zip"), lambda name: name.endswith(".csv"))
    found = []
    for name, text in texts.items():
        folder, file = name.split("/")[-2:]
        number = int(re.sub(r"\D", "", file))
        activity = ACTIVITIES.index(folder.rstrip("12"))
        n_test = 2 if folder.startswith("bending") else 3
        found.append((folder, number, Recording(body_sensors(text, name), activity, number <= n_test)))
    found.sort(key=lambda entry: entry[:2])
    seen: set[bytes] = set()
    kept = []
    for *_, recording in found:
        runs = varied_runs(recording.values)
        if not runs & seen:
            kept.append(recording)
        seen |= runs
    return kept


def varied_runs(values: np.ndarray, length: int = 40) -> set[bytes]:
    """All runs of ten seconds in which something changes at every other step or more: no two recordings share one by
    chance."""
    changes = np.r_[0, (np.diff(values, axis=0) != 0).any(1)].cumsum()
    starts = [
        start
        for start in range(len(values) - length + 1)
        if 2 * (changes[start + length - 1] - changes[start]) >= length
    ]
    return {values[start : start + length].tobytes() for start in starts}


def pieces(chosen: list[Recording], length: int) -> tuple[Labelled, np.ndarray]:
    """Recordings cut one after another into pieces of ``length`` steps, the last maybe shorter; and the recording of each
    piece, (B,) int64. A rest of less than half a piece is left out."""
    sequences, labels, origin = [], [], []
    for index, recording in enumerate(chosen):
        for start in range(0, len(recording.values), length):
            piece = recording.values[start : start + length]
            if 2 * len(piece) >= length or len(recording.values) < length:
                sequences.append(piece)
                labels.append(recording.activity)
                origin.append(index)
    return labelled(sequences, labels), np.array(origin)


@lru_cache(maxsize=4)
def activity_parts(length: int) -> tuple[classification.Parts, np.ndarray]:
    """Development and test in pieces, and the recording of each development piece."""
    development, origin = pieces([r for r in recordings() if not r.is_test], length)
    test, _ = pieces([r for r in recordings() if r.is_test], length)
    return classification.Parts(development, test), origin


def recording_splits(parts: classification.Parts, origin: np.ndarray, generator: np.random.Generator) -> Splits:
    """A fifth of the recordings of each class, drawn, is validation, with all their pieces. origin: (B,), the recording of
    each development piece."""
    development, test = standardised(parts)
    first = np.unique(origin, return_index=True)[1]
    validation = held_out(development.labels[first], 0.2, generator)[origin]
    train_part, validation_part = (
        Labelled(*(field[rows] for field in development)) for rows in (~validation, validation)
    )
    return Splits(labelled_batch(train_part), labelled_batch(validation_part), labelled_batch(test))


class ActivityTask(SensorTask):
    """What both tasks on the recordings of body sensors share."""

    length: int
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Palumbo et al. 2016, doi:10.3233/AIS-160372; UCI 366"
    datasets: ClassVar[tuple[str, ...]] = ("arem_uci",)
    symbols: ClassVar[tuple[str, ...]] = ACTIVITIES

    def require_length(self) -> None:
        require_integers(self, {"length": 2})
        if self.length > 480:
            raise InvalidParameter(f"{self.name}: a recording has 480 steps; length must be at most that")

    def parts(self) -> classification.Parts:
        return activity_parts(self.length)[0]


@dataclass(frozen=True)
class Activity(ActivityTask):
    """Which of six activities, from the strength of the radio signal between three sensors worn on the body.

        step               0      1      2   …   119
        mean, 1 to 2   39.25  39.25  39.25   …     .     before standardisation: the first recording
        spread, 1 to 2  0.43   0.43   0.43   …     .
        target             ·      ·      ·   …     0     bending; the last step alone is scored

    88 recordings of two minutes, 4 steps a second, less seven copies: mean and deviation of the signal over each quarter
    second for the three pairs of chest and ankles, 6 channels. They are cut into pieces of half a minute; all pieces of a
    recording are in one split. Test is the first recordings of each folder (19, 76 pieces); a fifth of the others of each
    activity, drawn by the seed, is validation.

    Floor: one activity for all, 12/76. Ceiling: unknown; standing and sitting still look alike. Reference: the nearest
    neighbour on mean and deviation of each channel, computed on the same test pieces.

    length: steps of a piece.
    """

    length: int = 120

    name: ClassVar[str] = "activity"
    summary: ClassVar[str] = "which of six activities, from half a minute of radio signals between sensors on the body"

    def __post_init__(self) -> None:
        self.require_length()

    @property
    def input(self) -> RealInput:
        return RealInput(channels=6, max_length=self.length)

    def splits(self, seed: int) -> Splits:
        return recording_splits(*activity_parts(self.length), numpy_generator("data", self.name, seed))


N_SENSORS = 3
"""Pairs of sensors on the body, each with two channels: mean and deviation."""


@dataclass(frozen=True)
class AccuracyAfterFailure(Metric):
    """Accuracy over the sequences in which a sensor has failed by the end, as the last channels tell."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        whole = accuracy.parts(outputs, batch)
        last = batch.inputs[torch.arange(len(batch)), batch.lengths.to(batch.inputs.device) - 1]  # (B, C)
        failed = (last[:, -N_SENSORS:] == 0).any(1).double().cpu()  # (B,)
        return Parts(torch.where(failed > 0, whole.over, 0.0), whole.under * failed)


after_failure = AccuracyAfterFailure(
    "accuracy_failed",
    "fraction correct",
    "higher",
    "accuracy over the sequences in which a sensor failed",
    0.02,
    bounds=SHARE,
)


def fail(batch: SequenceBatch, share: float, generator: np.random.Generator) -> SequenceBatch:
    """In a random ``share`` of the sequences, rounded, a random sensor fails at a random step but the first: from then on
    both its channels keep their last value. Three channels more tell, at each step, which sensors work: 1, else 0."""
    inputs, lengths = batch.inputs.clone(), batch.lengths.numpy()
    steps = np.arange(inputs.shape[1])
    works = torch.from_numpy(np.repeat((steps < lengths[:, None])[..., None], N_SENSORS, 2)).float()  # (B, T, 3)
    failing = np.flatnonzero(lengths > 1)
    for row in generator.permutation(failing)[: round(share * len(batch))]:
        sensor, since = int(generator.integers(N_SENSORS)), int(generator.integers(1, lengths[row]))
        channels = slice(2 * sensor, 2 * sensor + 2)
        inputs[row, since : lengths[row], channels] = inputs[row, since - 1, channels]
        works[row, since:, sensor] = 0
    return replace(batch, inputs=torch.cat([inputs, works], -1))  # (B, T, 6) → (B, T, 9)


@dataclass(frozen=True)
class SensorFusion(ActivityTask):
    """Which of six activities, while in half of the sequences one of the three pairs of sensors fails on the way.

        step               0      1   …     65     66   …    119
        mean, 1 to 3   22.75  23.00   …  15.25  15.25   …  15.25     before standardisation; fails at step 66
        1 to 3 works       1      1   …      1      0   …      0
        target             ·      ·   …      ·      ·   …      0     bending; the last step alone is scored

    Pieces and splits as in the task ``activity``. A pair that fails keeps its last value; three channels more say which
    still work. What was seen before the failure must be remembered, and the others must do for the rest. Failures of
    training and validation are drawn by the seed; those of test are the same for all.

    Floor: one activity for all, 12/76. Ceiling: unknown. Reference: the nearest neighbour on mean and deviation of each
    channel, failures in both, computed on the same test pieces (development: that of seed 0). The second metric, accuracy
    over the sequences with a failure alone, says how robust a model is.

    length: steps of a piece. failing: the share of sequences in which a pair fails.
    """

    length: int = 120
    failing: float = 0.5

    name: ClassVar[str] = "sensor_fusion"
    summary: ClassVar[str] = "which of six activities, though a sensor may fail on the way and keep its last value"

    def __post_init__(self) -> None:
        self.require_length()
        if isinstance(self.failing, bool) or not isinstance(self.failing, int | float) or not 0 <= self.failing <= 1:
            raise InvalidParameter(f"{self.name}: failing must lie in 0 … 1, got {self.failing!r}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=6 + N_SENSORS, max_length=self.length, masks=(6, 7, 8))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        n_failing = round(self.failing * len(self.parts().test.labels))
        return (accuracy, after_failure, cross_entropy) if n_failing else (accuracy, cross_entropy)

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        train, validation, test = recording_splits(*activity_parts(self.length), generator)
        return Splits(
            fail(train, self.failing, generator),
            fail(validation, self.failing, generator),
            fail(test, self.failing, numpy_generator("test", self.name)),
        )

    def judged_parts(self) -> classification.Parts:
        train, validation, test = (
            Labelled(x.inputs[:, :, :-N_SENSORS].double().numpy(), x.lengths.numpy(), x.targets[x.scored].numpy())
            for x in self.splits(0)
        )
        both = zip(train, validation, strict=True)
        return classification.Parts(Labelled(*(np.concatenate(fields) for fields in both)), test)
