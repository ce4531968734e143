"""Diagnostic tasks: synthetic, cheap, and each unsolvable without one particular ability.

adding: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, in the form of Le, Jaitly and Hinton 2015,
arXiv 1504.00941. recall: the copy task of the first paper, in the form of Arjovsky, Shah and Bengio 2016, arXiv
1511.06464, scored on the answer alone. More of memory is in memory.py, generalisation to lengths in formal_languages.py.

Training sets are finite and drawn once, so that an epoch means something, and large enough that no budget of the suites
runs through them often.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.metrics import Metric, squared_error
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Splits, Task, require_integers
from models.sequences import Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps


@dataclass(frozen=True)
class Generated(Task):
    """Sequences that a generator draws independently: a subclass says how, in `draw`.

    least: the smallest value of each of its own integer fields. n_train, n_validation, n_test: sequences.
    """

    n_train: int = 20_000
    n_validation: int = 1_000
    n_test: int = 1_000

    group: ClassVar[str] = "diagnostic"
    licence: ClassVar[str] = "generated, no data"
    least: ClassVar[Mapping[str, int]] = {}

    def __post_init__(self) -> None:
        require_integers(self, {**self.least, "n_train": 1, "n_validation": 1, "n_test": 1})

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self.draw(self.n_validation, generator)
        train = self.draw(self.n_train, generator)
        return Splits(train, validation, self.draw(self.n_test, numpy_generator("test", self.name)))

    @abstractmethod
    def draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        """n independent sequences."""


@dataclass(frozen=True)
class Adding(Generated):
    """The sum of the two marked values, one marked in each half of the sequence.

        t        0    1    2    3    4    5
        value   .9   .2   .4   .7   .1   .8
        marker   0    1    0    0    1    0
        target   ·    ·    ·    ·    ·   .3        .2 + .1, scored at the last step alone

    Floor: values are uniform on [0, 1], so the best constant is about 1 and its squared error the variance of the sum
    of two independent uniforms, 2 · 1/12 = 1/6, in expectation. Ceiling: 0, for the sum is a function of the inputs. With
    noise the values are shown as x = v + σ ε and the target stays the sum of the v; the ceiling is then the error, on the
    test split itself, of the posterior mean of v, which is normal about x and cut off at 0 and 1.

    length: T. noise: σ, the standard deviation of normal noise on every value shown. n_train, n_validation, n_test:
    sequences.
    """

    length: int = 50
    noise: float = 0.0

    name: ClassVar[str] = "adding"
    summary: ClassVar[str] = "the sum of two marked values in a long sequence of distractors"
    source: ClassVar[str] = "Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735"
    picture: ClassVar[Literal["scatter"]] = "scatter"
    causal: ClassVar[bool] = False
    least: ClassVar[Mapping[str, int]] = {"length": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.noise) not in (int, float) or not 0 <= self.noise <= 10:
            raise InvalidParameter(f"{self.name}: noise must be a number from 0 to 10, got {self.noise!r}")

    @property
    def input(self) -> RealInput:
        return RealInput(channels=2, max_length=self.length)

    @property
    def target(self) -> Real:
        return Real(1, scope="sequence")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (squared_error(),)

    def ceiling(self) -> float:
        return _noisy_sum_error(self) if self.noise else 0.0

    @property
    def solved(self) -> float | None:
        """A root mean squared error of 0.1 where the floor's is 0.41; with noise there is no such line."""
        return None if self.noise else 0.01

    def optimal_outputs(self, batch: SequenceBatch) -> Tensor | None:
        """(B, T, 1) float64: the posterior mean of the sum, at every step; None without noise, where nothing is unsure."""
        if not self.noise:
            return None
        shown, markers = batch.inputs.double().unbind(-1)  # (B, T), (B, T)
        means = truncated_means(shown, self.noise)
        return (means * markers).sum(1)[:, None, None].expand(*shown.shape, 1)

    def draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        """n sequences with everything drawn independently."""
        values = generator.random((n, self.length), dtype=np.float32)
        first = generator.integers(0, self.length // 2, n)
        second = generator.integers(self.length // 2, self.length, n)
        rows = np.arange(n)
        markers = np.zeros_like(values)
        markers[rows, first] = markers[rows, second] = 1.0
        targets = np.zeros((n, self.length, 1), dtype=np.float32)
        targets[:, -1, 0] = values[rows, first] + values[rows, second]
        if self.noise:
            values += self.noise * generator.standard_normal(values.shape, dtype=np.float32)
        lengths = torch.full((n,), self.length)
        return SequenceBatch(
            inputs=torch.from_numpy(np.stack([values, markers], axis=-1)),  # two (B, T) → (B, T, 2)
            targets=torch.from_numpy(targets),
            lengths=lengths,
            scored=last_steps(lengths, self.length),
        )


def truncated_means(shown: Tensor, deviation: float) -> Tensor:
    """E[v | v + deviation ε = shown] for v uniform on [0, 1] and ε standard normal, elementwise; float64."""
    low, high = -shown / deviation, (1 - shown) / deviation
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    mass = normal.cdf(high) - normal.cdf(low)
    densities = normal.log_prob(low).exp() - normal.log_prob(high).exp()
    # Without mass, the noise is below the precision of what is shown.
    return torch.where(mass > 1e-12, shown + deviation * densities / mass.clamp(min=1e-12), shown).clamp(0, 1)


@lru_cache(maxsize=4)
def _noisy_sum_error(task: Adding) -> float:
    """The squared error of the optimal outputs on the test split, which is the same for every seed."""
    test, metric = task.splits(0).test, task.metrics[0]
    outputs = task.optimal_outputs(test)
    return 0.0 if outputs is None else metric.value(metric.parts(outputs, test))


@dataclass(frozen=True)
class Recall(Generated):
    """Repeat the symbols seen before a delay, in order, once `go` appears.

        input    3  0  5   _  _  _  _   >  >  >        here n_items = 3, delay = 4; _ is blank, > is go
        target   ·  ·  ·   ·  ·  ·  ·   3  0  5        scored on the part after the delay alone

    Floor: symbols are uniform and independent, so any constant is right 1/n_kinds of the time, in expectation. Ceiling:
    1, for the targets are a function of the inputs so far.

    n_items: symbols to keep. delay: blanks between. n_kinds: different symbols; blank is token n_kinds, go n_kinds + 1.
    n_train, n_validation, n_test: sequences.
    """

    n_items: int = 8
    delay: int = 20
    n_kinds: int = 8

    name: ClassVar[str] = "recall"
    summary: ClassVar[str] = "repeat the symbols seen before a delay"
    source: ClassVar[str] = "Arjovsky, Shah and Bengio 2016, arXiv 1511.06464"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"n_items": 1, "delay": 0, "n_kinds": 2}

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=self.n_kinds + 2, max_length=2 * self.n_items + self.delay)

    @property
    def target(self) -> Classes:
        return Classes(self.n_kinds, scope="step")

    def ceiling(self) -> float:
        return 1.0

    @property
    def solved(self) -> float:
        """At most one item in a hundred is wrong."""
        return 0.99

    def draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        """n sequences of independent symbols."""
        blank, go = self.n_kinds, self.n_kinds + 1
        longest = 2 * self.n_items + self.delay
        symbols = torch.from_numpy(generator.integers(0, self.n_kinds, (n, self.n_items)))
        inputs = torch.full((n, longest), blank)
        inputs[:, : self.n_items] = symbols
        inputs[:, -self.n_items :] = go
        targets = torch.zeros((n, longest), dtype=torch.int64)
        targets[:, -self.n_items :] = symbols
        scored = torch.zeros((n, longest), dtype=torch.bool)
        scored[:, -self.n_items :] = True
        return SequenceBatch(inputs, targets, torch.full((n,), longest), scored)
