"""Hands in videos: the path of one that signs, and the phases of the gestures of someone who tells a story."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import ClassVar, Literal
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from benchmarks import datasets
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.bundled import Labelled
from benchmarks.tasks.classification import (
    Parts,
    classification_splits,
    held_out,
    nearest_neighbour_accuracy,
    warping_distances,
)
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vision_files import PHASES, Frames, gesture_frames, hand_paths
from models.sequences import Classes, RealInput, SequenceBatch


@cache
def signs() -> Labelled:
    """The 330 different paths of the file, in its order; 30 stand in it twice."""
    file = "movement_libras.data"
    paths, labels = hand_paths(datasets.path("libras_uci", file).read_text(encoding="utf-8"), file)
    first = np.sort(np.unique(paths.reshape(len(paths), -1), axis=0, return_index=True)[1])
    return Labelled(paths[first], np.full(len(first), paths.shape[1]), labels[first])


def sign_parts() -> Parts:
    """A quarter of each class, drawn once and for all, for test."""
    paths = signs()
    test = held_out(paths.labels, 0.25, numpy_generator("test", Libras.name))
    return Parts(*(Labelled(*(field[rows] for field in paths)) for rows in (~test, test)))


@dataclass(frozen=True)
class Libras(Task):
    """Which of 15 movements of Brazilian sign language a hand made: its place in 45 frames of a video.

        frame     0     1     2   …   44
        x       .80   .80   .80   …  .47        as a share of the image's width, before standardisation: the first path
        y       .38   .38   .38   …  .36
        target    ·     ·     ·   …    0        curved swing; the last frame alone is scored

    Of 360 paths 30 are copies of others and are dropped. A quarter of each class is the test, the same whatever the seed.
    The file does not say which of its four people signed what, so the same person is in training and test.

    Floor: the most frequent class, about 1/15. Ceiling: unknown. Reference: the nearest neighbour under dynamic time
    warping, computed on the same test paths.
    """

    name: ClassVar[str] = "libras"
    group: ClassVar[str] = "vision"
    summary: ClassVar[str] = "which of 15 movements of sign language a hand made, from its path in a video"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Dias, Peres and Bíscaro 2009, doi:10.24432/C5GC82"
    picture: ClassVar[Literal["paths"]] = "paths"
    symbols: ClassVar[tuple[str, ...]] = (
        *("curved swing", "horizontal swing", "vertical swing", "anti-clockwise arc", "clockwise arc", "circle"),
        *("horizontal straight-line", "vertical straight-line", "horizontal zigzag", "vertical zigzag"),
        *("horizontal wavy", "vertical wavy", "face-up curve", "face-down curve", "tremble"),
    )
    datasets: ClassVar[tuple[str, ...]] = ("libras_uci",)
    causal: ClassVar[bool] = False

    @property
    def input(self) -> RealInput:
        return RealInput(channels=2, max_length=45)

    @property
    def target(self) -> Classes:
        return Classes(15, scope="sequence")

    def splits(self, seed: int) -> Splits:
        return classification_splits(sign_parts(), numpy_generator("data", self.name, seed))

    @property
    def reference(self) -> Reference:
        return Reference(_signs_reference(), "computed: nearest neighbour under dynamic time warping")


@lru_cache(maxsize=1)
def _signs_reference() -> float:
    parts = sign_parts()
    return nearest_neighbour_accuracy(warping_distances(parts.test.values, parts.development.values), parts)


TRAINING, VALIDATION, TEST = ("a1", "a2", "b1", "b3", "c1"), "a3", "c3"
"""Videos: the letter is the person, the number the story told."""
PAUSE = 1_000
"""Milliseconds between frames above which the recording was interrupted; frames are some 33 apart."""
SPAN = 3
"""Frames over which speed is measured, as in the file's own processed version."""


@cache
def gesture_videos() -> dict[str, Frames]:
    """Each of the seven videos by name."""
    with ZipFile(datasets.path("gesture_phase_uci", "gesture_phase_dataset.zip")) as archive:
        texts = {video: archive.read(f"{video}_raw.csv").decode("utf-8") for video in (*TRAINING, VALIDATION, TEST)}
    return {video: gesture_frames(text, f"{video}_raw.csv") for video, text in texts.items()}


def joint_features(positions: np.ndarray) -> np.ndarray:
    """(T, 6, 3) → (T, 24): hands and wrists relative to the spine, and what that has changed by over `SPAN` frames, or since
    the first."""
    relative = (positions[:, [0, 1, 4, 5]] - positions[:, 3:4]).reshape(len(positions), -1)
    before = relative[np.maximum(np.arange(len(relative)) - SPAN, 0)]
    return np.concatenate([relative, relative - before], axis=1)


def pieces(video: Frames, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features (T, 24) and phases (T,) of runs of frames without a pause, T at most ``length``; every frame is in one."""
    starts = [0, *(np.flatnonzero(np.diff(video.milliseconds) > PAUSE) + 1), len(video.phases)]
    cut = []
    for start, end in pairwise(starts):
        features = joint_features(video.positions[start:end])
        for first in range(0, end - start, length):
            stop = min(first + length, end - start)
            cut.append((features[first:stop], video.phases[start + first : start + stop]))
    return cut


@dataclass(frozen=True)
class GesturePhase(Task):
    """In which phase of a gesture a person telling a story is, at every frame of a video.

        frame         120   …  154   155   …  167   168   …   179        of video a1
        left hand x    .2   …   .3    .3   …  -.3    .0   …  -1.1        relative to the spine, before standardisation
        target          r   …    r     p   …    p     s   …     s        rest, preparation, stroke; every frame is scored

    The other two phases are hold and retraction. Four joints relative to the spine and how far they have moved in three
    frames, 24 channels, standardised with mean and deviation of the videos that are not for test. Seven videos: c3 is for
    test, a3 for validation, the others for training, the same for every seed. Their three people are also in the training
    videos, telling other stories: what is measured is another video, not another person. In b3 head and spine are a tenth as
    far apart as elsewhere, so joints are on another scale: as test or validation it would say little.

    Each video is cut into sequences of at most ``length`` frames, new ones beginning where the recording was interrupted.

    Floor: the most frequent phase of the training videos. Ceiling: unknown. Reference: the commonest phase among the 15
    frames of the other six videos that are nearest in the 24 channels, computed on the same test frames.

    length: of a sequence, in frames, about 30 a second.
    """

    length: int = 60

    name: ClassVar[str] = "gesture_phase"
    group: ClassVar[str] = "vision"
    summary: ClassVar[str] = "the phase of a gesture at every frame of a video, from where hands and wrists are"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Madeo, Wagner and Peres 2014, doi:10.24432/C5Z32C"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    symbols: ClassVar[tuple[str, ...]] = PHASES
    datasets: ClassVar[tuple[str, ...]] = ("gesture_phase_uci",)
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"length": 1})

    @property
    def input(self) -> RealInput:
        return RealInput(channels=24, max_length=self.length)

    @property
    def target(self) -> Classes:
        return Classes(len(PHASES), scope="step")

    def splits(self, seed: int) -> Splits:
        names = (TRAINING, (VALIDATION,), (TEST,))
        cut = [[piece for video in part for piece in pieces(gesture_videos()[video], self.length)] for part in names]
        known = np.concatenate([features for part in cut[:2] for features, _ in part])
        mean, deviation = known.mean(0), known.std(0)
        return Splits(*(self._batch(part, mean, deviation) for part in cut))

    @property
    def reference(self) -> Reference:
        return Reference(_phases_reference(), "computed: 15 nearest frames of the other six videos")

    def _batch(
        self, part: list[tuple[np.ndarray, np.ndarray]], mean: np.ndarray, deviation: np.ndarray
    ) -> SequenceBatch:
        lengths = torch.tensor([len(phases) for _, phases in part])
        longest = int(lengths.max())
        inputs, targets = torch.zeros(len(part), longest, 24), torch.zeros(len(part), longest, dtype=torch.int64)
        for row, (features, phases) in enumerate(part):
            inputs[row, : len(phases)] = torch.from_numpy(((features - mean) / deviation).astype(np.float32))
            targets[row, : len(phases)] = torch.from_numpy(phases)
        return SequenceBatch(inputs, targets, lengths, torch.arange(longest) < lengths[:, None])


@lru_cache(maxsize=1)
def _phases_reference() -> float:
    """On whole recordings, cut at pauses alone."""
    splits = GesturePhase(length=10_000).splits(0)
    return float((voted_phases(*splits) == splits.test.targets[splits.test.scored]).double().mean())


def voted_phases(train: SequenceBatch, validation: SequenceBatch, test: SequenceBatch) -> Tensor:
    """(N,): for each scored test frame the commonest phase among the 15 nearest of training and validation."""
    known = torch.cat([part.inputs[part.scored] for part in (train, validation)])
    phases = torch.cat([part.targets[part.scored] for part in (train, validation)])
    nearest = torch.cdist(test.inputs[test.scored], known).topk(15, largest=False).indices  # (N, 15)
    return torch.nn.functional.one_hot(phases[nearest], len(PHASES)).sum(1).argmax(-1)
