"""Handwritten digits of MNIST as sequences: pixel by pixel, row by row, or pixel by pixel in a fixed random order.

LeCun et al. 1998, doi:10.1109/5.726791; as sequences: Le, Jaitly and Hinton 2015, arXiv 1504.00941. Each task comes twice. The
full one trains on the 60,000 training images and is tested on the file's own 10,000. The small one needs the file of test
images alone, a sixth of the download: it trains on the first 8,000 of them and is tested on the last 2,000. In the full one
nobody wrote both training and test images; in the small one somebody may have, for the file does not say who wrote what.

Ink is divided by 255: nothing is fitted to any image. No two of the 10,000 test images are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vision_files import idx_array
from models.sequences import Classes, RealInput, SequenceBatch, last_steps

SIDE = 28
SEARCHED = 10_000
"""Images among which the reference looks for the nearest: among all 60,000 it would take a minute."""


class Images(NamedTuple):
    """pixels: (n, 784) uint8, row by row. labels: (n,) int64."""

    pixels: np.ndarray
    labels: np.ndarray

    def at(self, index: np.ndarray | slice) -> Images:
        return Images(self.pixels[index], self.labels[index])


@cache
def mnist(part: Literal["train", "t10k"]) -> Images:
    """The training or the test images, checked against their labels."""
    images = f"{part}-images-idx3-ubyte.gz"
    path = datasets.path("mnist_train" if part == "train" else "mnist_t10k", images)
    pixels = idx_array(path.read_bytes(), images)
    file = f"{part}-labels-idx1-ubyte.gz"
    labels = idx_array(datasets.path("mnist_t10k", file).read_bytes(), file)
    if pixels.shape[1:] != (SIDE, SIDE) or labels.shape != pixels.shape[:1] or labels.max() > 9:
        raise ValueError(f"{images}: {pixels.shape} pixels do not go with {labels.shape} labels from 0 to 9")
    return Images(pixels.reshape(len(pixels), -1), labels.astype(np.int64))


@dataclass(frozen=True)
class Mnist(Task):
    """One digit per image, due at its last step.

    Of the images for development, n_validation drawn by the seed are validation and n_train others training; the test images
    are the first n_test of those for test. small: whether the file of test images must do for all. step: pixels that a
    step shows. permuted: in a random order, the same for all images, models and seeds.
    """

    n_train: int = 55_000
    n_validation: int = 5_000
    n_test: int = 10_000

    group: ClassVar[str] = "vision"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    source: ClassVar[str] = "LeCun et al. 1998, doi:10.1109/5.726791; by pixels: Le et al. 2015, arXiv 1504.00941"
    picture: ClassVar[Literal["images"]] = "images"
    symbols: ClassVar[tuple[str, ...]] = tuple(str(i) for i in range(10))
    datasets: ClassVar[tuple[str, ...]] = ("mnist_t10k", "mnist_train")
    causal: ClassVar[bool] = False
    small: ClassVar[bool] = False
    step: ClassVar[int] = 1
    permuted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"n_train": 1, "n_validation": 1, "n_test": 1})
        n_development, n_test = (8_000, 2_000) if self.small else (60_000, 10_000)
        if self.n_train + self.n_validation > n_development:
            raise InvalidParameter(f"{self.name}: n_train + n_validation must be at most {n_development}")
        if self.n_test > n_test:
            raise InvalidParameter(f"{self.name}: n_test must be at most {n_test}, got {self.n_test}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=self.step, max_length=SIDE**2 // self.step)

    @property
    def target(self) -> Classes:
        return Classes(10, scope="sequence")

    def splits(self, seed: int) -> Splits:
        development, test = images_for(self.small)
        order = numpy_generator("data", self.name, seed).permutation(len(development.labels))
        validation, train = order[: self.n_validation], order[self.n_validation : self.n_validation + self.n_train]
        parts = (development.at(train), development.at(validation), test.at(slice(self.n_test)))
        return Splits(*map(self._batch, parts))

    @property
    def reference(self) -> Reference:
        among = "8,000 images for development" if self.small else f"first {SEARCHED:,} training images"
        return Reference(nearest_image_accuracy(self.small, self.n_test), f"computed: nearest of the {among}")

    def _batch(self, images: Images) -> SequenceBatch:
        n, length = len(images.labels), SIDE**2 // self.step
        pixels = images.pixels[:, pixel_order()] if self.permuted else images.pixels
        lengths = torch.full((n,), length)
        scored = last_steps(lengths, length)
        return SequenceBatch(
            inputs=torch.from_numpy(pixels.astype(np.float32) / 255).reshape(n, length, self.step),
            targets=torch.from_numpy(images.labels)[:, None] * scored,  # (B, 1) → (B, T)
            lengths=lengths,
            scored=scored,
        )


def images_for(small: bool) -> tuple[Images, Images]:
    """Those for development and those for test."""
    if small:
        return mnist("t10k").at(slice(8_000)), mnist("t10k").at(slice(8_000, None))
    return mnist("train"), mnist("t10k")


@cache
def pixel_order() -> np.ndarray:
    """(784,): which pixel stands at each step of the permuted tasks."""
    return numpy_generator("order of pixels", "mnist_permuted").permutation(SIDE**2)


@lru_cache(maxsize=4)
def nearest_image_accuracy(small: bool, n_test: int) -> float:
    """Accuracy of the digit of the image that differs least in the sum of squares over pixels; no order changes that."""
    development, test = (images_for(small)[0].at(slice(SEARCHED)), images_for(small)[1].at(slice(n_test)))
    known = development.pixels.astype(np.float64)  # sums of whole numbers below 2 to the 53: exact
    squares = (known**2).sum(1)
    right = 0
    for start in range(0, n_test, 500):
        part = test.at(slice(start, start + 500))
        distances = squares - 2 * part.pixels.astype(np.float64) @ known.T  # (500, n), less each image's own square
        right += int((development.labels[distances.argmin(1)] == part.labels).sum())
    return right / n_test


@dataclass(frozen=True)
class MnistPixels(Mnist):
    """Which digit an image of 28 × 28 pixels shows, from its pixels one by one: the top row from left to right, then the next.

        step        0   1  …  202  203  204  …  783
        ink         0   0  …   84  185  159  …    0         of 255: the first test image
        target      ·   ·  …    ·    ·    ·  …    7         at the last of the 784 steps alone

    784 steps are slow for a model that reads step by step: with 32 sequences a batch, an optimiser step takes a recurrent
    model of 11,500 parameters half a second to a second on one core.

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the first 10,000 training images,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 60,000 for development and the 10,000 for test.
    """

    name: ClassVar[str] = "mnist_pixels"
    summary: ClassVar[str] = "which digit was written, from its 784 pixels one by one"


@dataclass(frozen=True)
class MnistRows(Mnist):
    """Which digit an image of 28 × 28 pixels shows, from its rows one by one: 28 steps of 28 channels.

        step        0  …    7                                8  …   27
        ink         0  …    0 … 84 185 159 151 60 36 …       …       0         of 255: the first test image
        target      ·  …    ·                                ·  …    7         at the last of the 28 steps alone

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the first 10,000 training images,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 60,000 for development and the 10,000 for test.
    """

    name: ClassVar[str] = "mnist_rows"
    summary: ClassVar[str] = "which digit was written, from its 28 rows one by one"
    step: ClassVar[int] = SIDE


@dataclass(frozen=True)
class MnistPermuted(Mnist):
    """Which digit an image shows, from its 784 pixels in a random order, which is one and the same for all images.

        step        0    1    2  …  783
        pixel     p_0  p_1  p_2  …  p_783       p is one permutation of 0 … 783
        target      ·    ·    ·  …    7         at the last of the 784 steps alone

    Neighbouring pixels lie far apart in time, so only a memory over hundreds of steps brings them together; the nearest image
    is the same in any order.

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the first 10,000 training images,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 60,000 for development and the 10,000 for test.
    """

    name: ClassVar[str] = "mnist_permuted"
    summary: ClassVar[str] = "which digit was written, from its 784 pixels in a fixed random order"
    permuted: ClassVar[bool] = True


@dataclass(frozen=True)
class MnistSmall(Mnist):
    """Train, validation and test from the file of test images."""

    n_train: int = 7_500
    n_validation: int = 500
    n_test: int = 2_000

    datasets: ClassVar[tuple[str, ...]] = ("mnist_t10k",)
    small: ClassVar[bool] = True


@dataclass(frozen=True)
class MnistPixelsSmall(MnistSmall):
    """As mnist_pixels, on the 10,000 images of one file: 8,000 for development, the last 2,000 for test.

        step        0   1  …  202  203  204  …  783
        ink         0   0  …   84  185  159  …    0         of 255: the first image of the file
        target      ·   ·  …    ·    ·    ·  …    7         at the last of the 784 steps alone

    784 steps are slow: n_train bounds an epoch, n_validation and n_test what every evaluation costs.

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the 8,000 images for development,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 8,000 for development and the 2,000 for test.
    """

    name: ClassVar[str] = "mnist_pixels_small"
    summary: ClassVar[str] = "which digit was written, from its 784 pixels one by one; 8,000 images to learn from"


@dataclass(frozen=True)
class MnistRowsSmall(MnistSmall):
    """As mnist_rows, on the 10,000 images of one file: 8,000 for development, the last 2,000 for test.

        step        0  …    7                                8  …   27
        ink         0  …    0 … 84 185 159 151 60 36 …       …       0         of 255: the first image of the file
        target      ·  …    ·                                ·  …    7         at the last of the 28 steps alone

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the 8,000 images for development,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 8,000 for development and the 2,000 for test.
    """

    name: ClassVar[str] = "mnist_rows_small"
    summary: ClassVar[str] = "which digit was written, from its 28 rows one by one; 8,000 images to learn from"
    step: ClassVar[int] = SIDE


@dataclass(frozen=True)
class MnistPermutedSmall(MnistSmall):
    """As mnist_permuted, on the 10,000 images of one file: 8,000 for development, the last 2,000 for test.

        step        0    1    2  …  783
        pixel     p_0  p_1  p_2  …  p_783       p is the permutation of mnist_permuted
        target      ·    ·    ·  …    7         at the last of the 784 steps alone

    Floor: the most frequent digit, about 1/10. Ceiling: unknown. Reference: the nearest of the 8,000 images for development,
    computed on the same test images.

    n_train, n_validation, n_test: images used of the 8,000 for development and the 2,000 for test.
    """

    name: ClassVar[str] = "mnist_permuted_small"
    summary: ClassVar[str] = "which digit was written, from its 784 pixels in a fixed order; 8,000 images to learn from"
    permuted: ClassVar[bool] = True
