"""Two problems of the UCR archive (Dau et al. 2018, arXiv 1810.07758) on which every classifier of series has been tried.

The archive's own training and test files are kept apart; a fifth of the training file is validation, as in
`benchmarks.tasks.classification`. Every series of the archive has mean 0 and a standard deviation of about 1 as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.seeding import numpy_generator
from benchmarks.tasks.classification import archive_parts, classification_splits
from benchmarks.tasks.task import Reference, Splits, Task
from models.sequences import Classes, RealInput


class ArchiveProblem(Task):
    """What the problems share. file: its name in the archive. steps: T of every series."""

    file: ClassVar[str]
    steps: ClassVar[int]
    symbols: ClassVar[tuple[str, ...]]
    group: ClassVar[str] = "sensors"
    source: ClassVar[str] = "Dau et al. 2018, arXiv 1810.07758, as bundled with aeon"
    licence: ClassVar[str] = "not stated by the archive; bundled with aeon (BSD-3-Clause)"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    causal: ClassVar[bool] = False

    @property
    def input(self) -> RealInput:
        return RealInput(channels=1, max_length=self.steps)

    @property
    def target(self) -> Classes:
        return Classes(len(self.symbols), scope="sequence")

    def splits(self, seed: int) -> Splits:
        return classification_splits(archive_parts(self.file), numpy_generator("data", self.name, seed))


@dataclass(frozen=True)
class GunPoint(ArchiveProblem):
    """Whether an actor draws a gun or points a finger: where the right hand is, from left to right, at 150 steps.

        step        0     1     2   …   75   …   149
        place     -.65  -.64  -.64  …  1.8   …  -.64       the first series of the file
        target      ·     ·     ·   …    ·   …   point     the last step alone is scored

    50 series for training and validation (40 and 10), 150 for test. Floor: one class for all, about 1/2. Ceiling: unknown.
    Reference: a published convolutional network.
    """

    name: ClassVar[str] = "gun_point"
    file: ClassVar[str] = "GunPoint"
    steps: ClassVar[int] = 150
    summary: ClassVar[str] = "whether a hand draws a gun or points, from 150 steps of its place"
    symbols: ClassVar[tuple[str, ...]] = ("gun", "point")

    @property
    def reference(self) -> Reference:
        return Reference(1.0, "FCN, mean of 10 runs: Fawaz et al. 2019, doi:10.1007/s10618-019-00619-1")


@dataclass(frozen=True)
class ItalyPower(ArchiveProblem):
    """Whether a day of Italy's demand for electric power is one of winter or of summer: 24 hourly values.

        hour        0     1     2   …    9   …   23
        demand    -.71  -1.2  -1.4  …   1.1  …  -.27       the first series of the file
        target      ·     ·     ·   …    ·   …  winter     the last step alone is scored

    67 series for training and validation, 1,029 for test. Winter is October to March. Floor: one class for all, about 1/2.
    Ceiling: unknown. Reference: a published convolutional network.
    """

    name: ClassVar[str] = "italy_power"
    file: ClassVar[str] = "ItalyPowerDemand"
    steps: ClassVar[int] = 24
    summary: ClassVar[str] = "whether a day's demand for power is of winter or summer, from 24 hours"
    symbols: ClassVar[tuple[str, ...]] = ("winter", "summer")

    @property
    def reference(self) -> Reference:
        return Reference(0.961, "FCN, mean of 10 runs: Fawaz et al. 2019, doi:10.1007/s10618-019-00619-1")
