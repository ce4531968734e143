"""Video: digits that move over a small canvas.

The digits are those that scikit-learn carries, on a canvas whose edges are joined, so that a clip can be of any length
and no place on it is special: after Srivastava, Mansimov and Salakhutdinov 2015, arXiv 1502.04681, whose digits bounce.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.bundled import Labelled
from benchmarks.tasks.classification import Digits, digit_parts, held_out
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, RealInput, SequenceBatch, last_steps

SIDE, DIGIT = 16, 8
"""Pixels along the canvas and along a digit; twice the digit, so that no shift of a digit looks like another shift."""
MOVES = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])
DIRECTIONS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left")


@dataclass(frozen=True)
class MovingDigits(Task):
    """Clips of one digit that moves a pixel a frame in one of eight directions.

    anywhere: it begins at a random place, or else in the middle. Training, validation and test clips show different images:
    the test images are the last 450 of the file, a fifth of the others are for validation. Ink is 0 … 1.
    """

    n_frames: int = 12
    hidden: float = 0.0
    n_train: int = 3_000
    n_validation: int = 500
    n_test: int = 1_000

    group: ClassVar[str] = "vision"
    licence: ClassVar[str] = "CC BY 4.0 (the digits)"
    source: ClassVar[str] = (
        "this project's own, after Srivastava et al. 2015, arXiv 1502.04681, with the digits of doi:10.24432/C50P49"
    )
    picture: ClassVar[Literal["frames"]] = "frames"
    causal: ClassVar[bool] = False
    anywhere: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integers(self, {"n_frames": 2, "n_train": 1, "n_validation": 1, "n_test": 1})
        if type(self.hidden) not in (int, float) or not 0 <= self.hidden < 1:
            raise InvalidParameter(f"{self.name}: hidden must be a number from 0 to less than 1, got {self.hidden!r}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=SIDE**2, max_length=self.n_frames)

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        development, test = digit_parts()
        validation = held_out(development.labels, 0.2, generator)
        train_images, validation_images = (
            Labelled(*(field[rows] for field in development)) for rows in (~validation, validation)
        )
        return Splits(
            self._draw(train_images, self.n_train, generator),
            self._draw(validation_images, self.n_validation, generator),
            self._draw(test, self.n_test, numpy_generator("test", self.name)),
        )

    @abstractmethod
    def answers(self, digits: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Which of the two, (B,) each, the task asks for."""

    def _draw(self, images: Labelled, n: int, generator: np.random.Generator) -> SequenceBatch:
        shown = generator.integers(0, len(images.labels), n)
        directions = generator.integers(0, len(MOVES), n)
        start = generator.integers(0, SIDE, (n, 1, 2)) if self.anywhere else np.full((n, 1, 2), (SIDE - DIGIT) // 2)
        places = start + np.arange(self.n_frames)[:, None] * MOVES[directions][:, None]  # (B, T, 2)
        rows, columns = (places[..., axis, None] + np.arange(DIGIT) for axis in (0, 1))  # (B, T, 8)
        clips = np.zeros((n, self.n_frames, SIDE, SIDE), dtype=np.float32)
        ink = images.values[shown].reshape(n, 1, DIGIT, DIGIT) / 16
        clip, frame = np.ogrid[:n, : self.n_frames]
        clips[
            clip[..., None, None], frame[..., None, None], rows[..., :, None] % SIDE, columns[..., None, :] % SIDE
        ] = ink
        if self.hidden:
            clips *= generator.random(clips.shape, dtype=np.float32) >= self.hidden
        lengths = torch.full((n,), self.n_frames)
        scored = last_steps(lengths, self.n_frames)
        classes = torch.from_numpy(self.answers(images.labels[shown], directions))
        inputs = torch.from_numpy(clips.reshape(n, self.n_frames, -1))
        return SequenceBatch(inputs, classes[:, None] * scored, lengths, scored)


@dataclass(frozen=True)
class MovingDigitsDirection(MovingDigits):
    """Which way a digit moves: eight directions, a pixel a frame, on 16 × 16 pixels whose edges are joined.

        frame       0        1        2     …   11
                  . . . .  . . . .  . # . .
                  . . . .  . # . .  . # . .                 a corner of the canvas; # is ink
                  . # . .  . # . .  . . . .
        target      ·        ·        ·     …   up          at the last of n_frames frames alone

    A single frame tells nothing, since every place is equally likely whatever the direction: what counts is the difference
    between frames.

    Floor: directions are uniform, so a constant is right 1/8 of the time in expectation. Ceiling: 1 if nothing is hidden: a
    digit fits into half the canvas, so two frames determine by which shift one becomes the other. With hidden pixels it is
    unknown; Reference: none.

    n_frames: of a clip. hidden: share of the pixels that are blank, drawn anew for each frame. n_train, n_validation, n_test:
    clips.
    """

    name: ClassVar[str] = "moving_digits_direction"
    summary: ClassVar[str] = "which of eight ways a digit moves over a small canvas"
    symbols: ClassVar[tuple[str, ...]] = DIRECTIONS

    @property
    def target(self) -> Classes:
        return Classes(len(DIRECTIONS), scope="sequence")

    def ceiling(self) -> float | None:
        return None if self.hidden else 1.0

    def answers(self, digits: np.ndarray, directions: np.ndarray) -> np.ndarray:
        return directions


@dataclass(frozen=True)
class MovingDigitsDigit(MovingDigits):
    """Which digit moves over the canvas, of which each frame shows a few pixels.

        frame       0        1        2     …   11
                  . . . .  . . . .  . . . .
                  . . . .  . # . .  . . . .                 a corner of the canvas; # is ink
                  . # . .  . . . .  . . . #
        target      ·        ·        ·     …    1          at the last of n_frames frames alone

    The digit begins in the middle. With three pixels in four hidden, no frame suffices: what was seen at one place must be put
    together with what is seen at another, along the motion, in one of eight directions.

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest neighbour on the 64 pixels of the
    digit itself, still and whole, computed on the same test images: about what can be told from the ink alone.

    n_frames: of a clip. hidden: share of the pixels that are blank, drawn anew for each frame. n_train, n_validation, n_test:
    clips.
    """

    hidden: float = 0.75

    anywhere: ClassVar[bool] = False
    name: ClassVar[str] = "moving_digits_digit"
    summary: ClassVar[str] = "which digit moves over a small canvas, most of it hidden in every frame"
    symbols: ClassVar[tuple[str, ...]] = tuple(str(i) for i in range(10))

    @property
    def target(self) -> Classes:
        return Classes(10, scope="sequence")

    @property
    def reference(self) -> Reference:
        return Reference(Digits().reference.value, "computed: nearest neighbour on the still digit's 64 pixels")

    def answers(self, digits: np.ndarray, directions: np.ndarray) -> np.ndarray:
        return digits
