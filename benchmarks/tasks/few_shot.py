"""Few-shot classification in context: characters never seen before are told apart by what was shown a moment ago.

As a stream: Santoro et al. 2016, arXiv 1605.06065; the drawings: Lake, Salakhutdinov and Tenenbaum 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.pen import ALPHABETS, drawings, resampled
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, RealInput, SequenceBatch

TRAINING, VALIDATION, TEST = ("Balinese", "Greek", "Latin"), ("Early Aramaic",), ("Korean",)
N_DRAWINGS = 20
"""Of every character, each by another person."""


@lru_cache(maxsize=4)
def embedded_drawings(n_points: int) -> np.ndarray:
    """(2720, 2 n_points) float32: x and y of points evenly spaced along the whole path, the pen's leaps drawn through."""
    paths = [resampled((np.concatenate(drawing.strokes),), n_points)[:, :2] for drawing in drawings()]
    return np.stack(paths).reshape(len(paths), -1).astype(np.float32)


@cache
def drawings_of(alphabet: str) -> np.ndarray:
    """(characters, 20) int64: the places of their drawings."""
    return np.array([i for i, drawing in enumerate(drawings()) if drawing.alphabet == alphabet]).reshape(-1, N_DRAWINGS)


@dataclass(frozen=True)
class FewShot(Task):
    """A stream of drawings of a few characters, each to be labelled before its label is shown.

        drawing        A  B  A  C  B  A  …         n_ways = 3 characters of one alphabet, drawn by different people
        label before   _  2  0  2  1  0  …         the right label of the drawing before
        target         ·  ·  2  ·  0  2  …         of a character that has been shown n_shots = 1 time or more

    Which label a character has is drawn anew for every stream, so nothing but the stream itself can tell. Training streams
    are of the Balinese, Greek and Latin alphabets, validation streams of early Aramaic, test streams of Korean: no character
    is in two splits. Whether somebody drew in two alphabets the file does not say.

    Floor: labels are uniform, so a constant is right 1/n_ways of the time in expectation. Ceiling: unknown. Reference: the
    label of the nearest drawing so far in the stream, computed on the same test streams.

    n_ways: characters in a stream. n_shots: times that a character is shown before its label is asked. n_queries: times
    that it is asked. n_points: of a drawing, evenly spaced along its path; a step has 2 n_points + n_ways channels.
    n_train, n_validation, n_test: streams.
    """

    n_ways: int = 5
    n_shots: int = 1
    n_queries: int = 3
    n_points: int = 16
    n_train: int = 10_000
    n_validation: int = 500
    n_test: int = 500

    name: ClassVar[str] = "few_shot"
    group: ClassVar[str] = "pen"
    summary: ClassVar[str] = "label drawings of characters never seen before, by those shown earlier in the stream"
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = (
        "Santoro et al. 2016, arXiv 1605.06065; drawings: Lake, Salakhutdinov and Tenenbaum 2015, doi:10.1126/science.aab3050"
    )
    picture: ClassVar[Literal["symbols"]] = "symbols"
    datasets: ClassVar[tuple[str, ...]] = ("omniglot_strokes_small1",)
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        sizes = {"n_train": 1, "n_validation": 1, "n_test": 1}
        require_integers(self, {"n_ways": 2, "n_shots": 1, "n_queries": 1, "n_points": 2} | sizes)
        fewest = min(ALPHABETS[name] for name in (*TRAINING, *VALIDATION, *TEST))
        if self.n_ways > fewest:
            raise InvalidParameter(f"{self.name}: n_ways must be at most {fewest}, got {self.n_ways}")
        if self.n_shots + self.n_queries > N_DRAWINGS:
            raise InvalidParameter(
                f"{self.name}: n_shots + n_queries must be at most {N_DRAWINGS}, the drawings there are"
            )

    @property
    def input(self) -> RealInput:
        n_steps = self.n_ways * (self.n_shots + self.n_queries)
        return RealInput(channels=2 * self.n_points + self.n_ways, max_length=n_steps)

    @property
    def target(self) -> Classes:
        return Classes(self.n_ways, scope="step")

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        return Splits(
            self._draw(TRAINING, self.n_train, generator),
            self._draw(VALIDATION, self.n_validation, generator),
            self._draw(TEST, self.n_test, numpy_generator("test", self.name)),
        )

    @property
    def reference(self) -> Reference:
        return Reference(_nearest_reference(self), "computed: label of the nearest drawing so far in the stream")

    def streams(
        self, alphabets: tuple[str, ...], n: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """n streams, each of one alphabet: places of drawings and their labels, (n, T) int64 each."""
        n_shown = self.n_shots + self.n_queries
        chosen = generator.integers(0, len(alphabets), n)
        shown = np.empty((n, self.n_ways * n_shown), dtype=np.int64)
        for number, alphabet in enumerate(alphabets):
            places, rows = drawings_of(alphabet), np.flatnonzero(chosen == number)
            characters = generator.random((len(rows), len(places))).argsort(1)[:, : self.n_ways]
            drawers = generator.random((len(rows), self.n_ways, N_DRAWINGS)).argsort(2)[..., :n_shown]
            shown[rows] = places[characters[..., None], drawers].reshape(len(rows), shown.shape[1])
        labels = np.repeat(np.arange(self.n_ways), n_shown)  # the place among the chosen characters, which is random
        order = generator.random(shown.shape).argsort(1)
        return np.take_along_axis(shown, order, axis=1), labels[order]

    def _draw(self, alphabets: tuple[str, ...], n: int, generator: np.random.Generator) -> SequenceBatch:
        shown, drawn_labels = self.streams(alphabets, n, generator)
        labels = torch.from_numpy(drawn_labels)  # (B, T)
        told = torch.nn.functional.one_hot(labels, self.n_ways)  # (B, T, n_ways)
        before = torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], dim=1).float()
        inputs = torch.cat([torch.from_numpy(embedded_drawings(self.n_points)[shown]), before], dim=-1)
        times_shown = (told.cumsum(1) - told).gather(2, labels[..., None])[..., 0]  # before this step
        return SequenceBatch(inputs, labels, torch.full((n,), labels.shape[1]), times_shown >= self.n_shots)


@lru_cache(maxsize=4)
def _nearest_reference(task: FewShot) -> float:
    test = task.splits(0).test
    return float((nearest_labels(test, 2 * task.n_points) == test.targets)[test.scored].double().mean())


def nearest_labels(batch: SequenceBatch, n_coordinates: int) -> Tensor:
    """(B, T): the label of the nearest earlier drawing; at the first step, where there is none, 0."""
    drawn = batch.inputs[..., :n_coordinates]
    distances = torch.cdist(drawn, drawn)  # (B, T, T)
    n_steps = drawn.shape[1]
    later = torch.ones(n_steps, n_steps, dtype=torch.bool).triu()
    nearest = distances.masked_fill(later, torch.inf).argmin(-1)  # (B, T)
    return batch.targets.gather(1, nearest).index_fill(1, torch.tensor([0]), 0)
