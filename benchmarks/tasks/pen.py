"""Pens: digits written on a tablet, and characters of five alphabets drawn stroke by stroke."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import PurePosixPath
from typing import ClassVar, Literal, NamedTuple
from zipfile import ZipFile

import numpy as np
import torch

from benchmarks import datasets
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.bundled import Labelled
from benchmarks.tasks.classification import Parts, classification_splits, labelled_batch, nearest_neighbour_accuracy
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vision_files import pen_digits, pen_strokes
from models.sequences import Classes, RealInput


@cache
def digit_strokes() -> Parts:
    """The 7,494 digits of 30 writers, and the 3,498 of 14 others."""
    points, labels = pen_digits(datasets.path("pendigits_uci", "pendigits.arff").read_text("utf-8"), "pendigits.arff")
    lengths = np.full(len(labels), points.shape[1])
    whole = Labelled(points, lengths, labels)
    return Parts(Labelled(*(field[:7494] for field in whole)), Labelled(*(field[7494:] for field in whole)))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, …) and (M, …) → (N, M)."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)


@dataclass(frozen=True)
class PenDigits(Task):
    """Which digit was written with a pen on a tablet: 8 points along its path, evenly spaced.

        point      0    1    2    3    4    5    6    7
        x         47   27   57   26    0   56  100   40        0 … 100, before standardisation: the first digit of the file
        y        100   81   37    0   23   53   90   98
        target     ·    ·    ·    ·    ·    ·    ·    8        at the last point alone

    7,494 digits of 30 writers for training and validation, 3,498 of 14 other writers for test. Within the first part the file
    does not say who wrote what, so the validation digits are of the same writers as the training digits.

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest neighbour on the 16 coordinates,
    97.74 % as the file itself reports, and computed here.
    """

    name: ClassVar[str] = "pendigits"
    group: ClassVar[str] = "pen"
    summary: ClassVar[str] = "which digit was written, from 8 points of the pen's path; by writers never seen"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Alpaydin and Alimoglu 1996, doi:10.24432/C5MG6K"
    picture: ClassVar[Literal["paths"]] = "paths"
    symbols: ClassVar[tuple[str, ...]] = tuple(str(i) for i in range(10))
    datasets: ClassVar[tuple[str, ...]] = ("pendigits_uci",)
    causal: ClassVar[bool] = False

    @property
    def input(self) -> RealInput:
        return RealInput(channels=2, max_length=8)

    @property
    def target(self) -> Classes:
        return Classes(10, scope="sequence")

    def splits(self, seed: int) -> Splits:
        return classification_splits(digit_strokes(), numpy_generator("data", self.name, seed))

    @property
    def reference(self) -> Reference:
        return Reference(
            _digits_reference(), "computed: nearest neighbour on the 16 coordinates, as in doi:10.24432/C5MG6K"
        )


@lru_cache(maxsize=1)
def _digits_reference() -> float:
    parts = digit_strokes()  # whole numbers, so that the distances are exact
    return nearest_neighbour_accuracy(squared_distances(parts.test.values, parts.development.values), parts)


class Drawing(NamedTuple):
    """drawer: 1 … 20, a number within the alphabet. strokes: (n, 2) float64 each, x to the right, y upwards."""

    alphabet: str
    character: str
    drawer: int
    strokes: tuple[np.ndarray, ...]


@cache
def drawings() -> tuple[Drawing, ...]:
    """The 2,720 drawings, sorted by alphabet, character and drawer."""
    found = []
    with ZipFile(datasets.path("omniglot_strokes_small1", "strokes_background_small1.zip")) as archive:
        for name in sorted(archive.namelist()):
            parts = PurePosixPath(name).parts
            if parts[0] == "__MACOSX" or not name.endswith(".txt"):
                continue
            strokes = pen_strokes(archive.read(name).decode("utf-8"), name)
            _, alphabet, character, file = parts
            found.append(Drawing(alphabet.replace("_", " "), character, int(file[-6:-4]), tuple(strokes)))
    return tuple(found)


def resampled(strokes: tuple[np.ndarray, ...], n: int) -> np.ndarray:
    """(n, 3) float64: n points of x, y and whether a stroke begins; the longer side of the drawing is -1 … 1.

    Every stroke has a point, and the others are shared out by length: within a stroke they are evenly spaced along it, both
    ends included; a stroke that has one point only is there as its middle. Raises ValueError for more strokes than points.
    """
    if len(strokes) > n:
        raise ValueError(f"{len(strokes)} strokes do not fit into {n} points")
    along = [np.r_[0.0, np.hypot(*np.diff(stroke, axis=0).T).cumsum()] for stroke in strokes]
    ink = np.array([distance[-1] for distance in along])
    shares = (n - len(strokes)) * (ink / ink.sum() if ink.sum() > 0 else np.full(len(strokes), 1 / len(strokes)))
    counts = 1 + np.floor(shares).astype(int)
    left = n - counts.sum()
    counts[np.argsort(-(shares % 1), kind="stable")[:left]] += 1
    points = np.zeros((n, 3))
    first = 0
    for stroke, distance, count in zip(strokes, along, counts, strict=True):
        at = np.linspace(0, distance[-1], count) if count > 1 else distance[-1:] / 2
        for axis in (0, 1):
            points[first : first + count, axis] = np.interp(at, distance, stroke[:, axis])
        points[first, 2] = 1
        first += count
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    points[:, :2] = (points[:, :2] - (low + high) / 2) / (max((high - low).max(), 1e-9) / 2)
    return points


@lru_cache(maxsize=4)
def resampled_drawings(n: int) -> np.ndarray:
    """(2720, n, 3) float64."""
    return np.stack([resampled(drawing.strokes, n) for drawing in drawings()])


ALPHABETS = {"Balinese": 24, "Early Aramaic": 22, "Greek": 24, "Korean": 40, "Latin": 26}
"""How many characters each has."""
TRAINED, VALIDATED = 14, 17
"""The last drawers, of 20, whose drawings are for training and for validation."""
MOST_STROKES = 29
"""Of a drawing in the file."""


@dataclass(frozen=True)
class OmniglotStrokes(Task):
    """Which of 136 characters was drawn, from the path of the pen: x, y, and whether a stroke begins.

        point      0     1     2   …   26    27   …   31        the longer side of the drawing is -1 … 1
        x       -1.0   -.9   -.9   …   .4    .6   …  1.0        Balinese 06 by its drawer 3
        y        -.1   -.1   -.3   …   .6    .5   …    .0
        begins     1     0     0   …    0     1   …    0
        target     ·     ·     ·   …    ·     ·   …    5        at the last point alone

    Characters of the Balinese, early Aramaic, Greek, Korean and Latin alphabets, drawn once by each of 20 people: 14 for
    training, 3 for validation and 3 for test, the same for every seed. Of one alphabet nobody is in two splits; whether
    somebody drew in two alphabets the file does not say. The character is asked, not the alphabet: which characters make an
    alphabet can only be learned by heart, so that an alphabet would be told by recognising the character first.

    Floor: every character is equally frequent, so a constant is right 1/136 of the time. Ceiling: unknown. Reference: the
    nearest neighbour, among training and validation, in the x and y of all points, computed on the same test drawings.

    n_points: steps, shared out among the strokes by length.
    """

    n_points: int = 32

    name: ClassVar[str] = "omniglot_strokes"
    group: ClassVar[str] = "pen"
    summary: ClassVar[str] = (
        "which of 136 characters of five alphabets was drawn, from the strokes; by drawers never seen"
    )
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = "Lake, Salakhutdinov and Tenenbaum 2015, doi:10.1126/science.aab3050"
    picture: ClassVar[Literal["paths"]] = "paths"
    symbols: ClassVar[tuple[str, ...]] = tuple(
        f"{alphabet} {number:02}" for alphabet, n in ALPHABETS.items() for number in range(1, n + 1)
    )
    datasets: ClassVar[tuple[str, ...]] = ("omniglot_strokes_small1",)
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"n_points": MOST_STROKES})

    @property
    def input(self) -> RealInput:
        return RealInput(channels=3, max_length=self.n_points)

    @property
    def target(self) -> Classes:
        return Classes(len(self.symbols), scope="sequence")

    def splits(self, seed: int) -> Splits:
        drawers = np.array([drawing.drawer for drawing in drawings()])
        rows = (drawers <= TRAINED, (drawers > TRAINED) & (drawers <= VALIDATED), drawers > VALIDATED)
        return Splits(*(labelled_batch(self._labelled(part)) for part in rows))

    @property
    def reference(self) -> Reference:
        return Reference(_characters_reference(self), "computed: nearest neighbour in x and y of all points")

    def _labelled(self, rows: np.ndarray) -> Labelled:
        labels = character_numbers()[rows]
        return Labelled(resampled_drawings(self.n_points)[rows], np.full(len(labels), self.n_points), labels)


@cache
def character_numbers() -> np.ndarray:
    """(2720,) int64: characters numbered from 0 in the order of the drawings."""
    names = [(drawing.alphabet, drawing.character) for drawing in drawings()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


@lru_cache(maxsize=4)
def _characters_reference(task: OmniglotStrokes) -> float:
    train, validation, test = task.splits(0)
    known = torch.cat([train.inputs, validation.inputs])[..., :2].double().numpy()
    labels = torch.cat([train.targets, validation.targets])[:, -1].numpy()
    nearest = squared_distances(test.inputs[..., :2].double().numpy(), known).argmin(1)
    return float((labels[nearest] == test.targets[:, -1].numpy()).mean())
