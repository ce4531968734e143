"""Diagnostic tasks: synthetic, cheap, and each unsolvable without one particular ability.

adding: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, in the form of Le, Jaitly and Hinton 2015,
arXiv 1504.00941. recall: the copy task of the first paper, in the form of Arjovsky, Shah and Bengio 2016, arXiv
1511.06464. parity: as a test of length generalisation, Delétang et al. 2022, arXiv 2207.02098.

Training sets are finite and drawn once, so that an epoch means something, and large enough that no budget of the suites
runs through them often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from benchmarks.metrics import Metric, accuracy, cross_entropy, squared_error
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Lengths, Splits, Task, require_integers
from models.contract import Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps


@dataclass(frozen=True)
class Adding(Task):
    """The sum of the two marked values, one marked in each half of the sequence.

        t        0    1    2    3    4    5
        value   .9   .2   .4   .7   .1   .8
        marker   0    1    0    0    1    0
        target   ·    ·    ·    ·    ·   .3        .2 + .1, scored at the last step alone

    Floor: values are uniform on [0, 1], so the best constant is about 1 and its squared error the variance of the sum
    of two independent uniforms, 2 · 1/12 = 1/6, in expectation. Ceiling: 0, for the sum is a function of the inputs.

    length: T. n_train, n_validation, n_test: sequences.
    """

    length: int = 50
    n_train: int = 20_000
    n_validation: int = 1_000
    n_test: int = 1_000

    name: ClassVar[str] = "adding"
    group: ClassVar[str] = "diagnostic"
    summary: ClassVar[str] = "the sum of two marked values in a long sequence of distractors"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735"
    picture: ClassVar[Literal["scatter"]] = "scatter"
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"length": 2, "n_train": 1, "n_validation": 1, "n_test": 1})

    @property
    def input(self) -> RealInput:
        return RealInput(channels=2, max_length=self.length)

    @property
    def target(self) -> Real:
        return Real(1, scope="sequence")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (squared_error(),)

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self._draw(self.n_validation, generator)
        train = self._draw(self.n_train, generator)
        return Splits(train, validation, self._draw(self.n_test, numpy_generator("test", self.name)))

    def ceiling(self) -> float:
        return 0.0

    def _draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        """n sequences with everything drawn independently."""
        values = generator.random((n, self.length), dtype=np.float32)
        first = generator.integers(0, self.length // 2, n)
        second = generator.integers(self.length // 2, self.length, n)
        rows = np.arange(n)
        markers = np.zeros_like(values)
        markers[rows, first] = markers[rows, second] = 1.0
        targets = np.zeros((n, self.length, 1), dtype=np.float32)
        targets[:, -1, 0] = values[rows, first] + values[rows, second]
        lengths = torch.full((n,), self.length)
        return SequenceBatch(
            inputs=torch.from_numpy(np.stack([values, markers], axis=-1)),  # two (B, T) → (B, T, 2)
            targets=torch.from_numpy(targets),
            lengths=lengths,
            scored=last_steps(lengths, self.length),
        )


@dataclass(frozen=True)
class Recall(Task):
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
    n_train: int = 20_000
    n_validation: int = 1_000
    n_test: int = 1_000

    name: ClassVar[str] = "recall"
    group: ClassVar[str] = "diagnostic"
    summary: ClassVar[str] = "repeat the symbols seen before a delay"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "Arjovsky, Shah and Bengio 2016, arXiv 1511.06464"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        sizes = {"n_train": 1, "n_validation": 1, "n_test": 1}
        require_integers(self, {"n_items": 1, "delay": 0, "n_kinds": 2} | sizes)

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=self.n_kinds + 2, max_length=2 * self.n_items + self.delay)

    @property
    def target(self) -> Classes:
        return Classes(self.n_kinds, scope="step")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (accuracy, cross_entropy)

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self._draw(self.n_validation, generator)
        train = self._draw(self.n_train, generator)
        return Splits(train, validation, self._draw(self.n_test, numpy_generator("test", self.name)))

    def ceiling(self) -> float:
        return 1.0

    def _draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
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


@dataclass(frozen=True)
class Parity(Task):
    """Whether a string of bits holds an even or an odd number of ones; trained on short strings, tested on long ones.

        input    1  0  1  1        0  1  1
        target   ·  ·  · odd       ·  · even        scored at the last step alone

    Training and validation lengths are uniform on 1 … max_length; every test string has 5 · max_length bits, so the
    primary metric is generalisation to a length never seen. `test_at` measures it from the trained length on.

    Floor: a uniform string is even half of the time, and so is every part of it: any constant, and any predictor that
    misses a single bit, is right 1/2 of the time in expectation. Ceiling: 1, for two states suffice.

    max_length: the longest training string. n_train, n_validation, n_test: strings.
    """

    max_length: int = 20
    n_train: int = 20_000
    n_validation: int = 1_000
    n_test: int = 1_000

    name: ClassVar[str] = "parity"
    group: ClassVar[str] = "diagnostic"
    summary: ClassVar[str] = "an even or odd number of ones, in strings five times as long as any in training"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "Delétang et al. 2022, arXiv 2207.02098"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = ("even", "odd")
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"max_length": 1, "n_train": 1, "n_validation": 1, "n_test": 1})

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=2, max_length=max(self.lengths.tested))

    @property
    def target(self) -> Classes:
        return Classes(2, scope="sequence")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (accuracy, cross_entropy)

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.max_length, (self.max_length, 2 * self.max_length, 5 * self.max_length))

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self._draw(generator.integers(1, self.max_length + 1, self.n_validation), generator)
        train = self._draw(generator.integers(1, self.max_length + 1, self.n_train), generator)
        return Splits(train, validation, self.test_at(max(self.lengths.tested)))

    def test_at(self, length: int) -> SequenceBatch:
        longest = max(self.lengths.tested)
        if not 1 <= length <= longest:
            raise ValueError(f"{self.name}: can be tested at lengths 1 … {longest}, not {length}")
        return self._draw(np.full(self.n_test, length), numpy_generator("test", self.name, length))

    def ceiling(self) -> float:
        return 1.0

    def _draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        """Uniform bit strings of the given lengths, (B,)."""
        longest = int(lengths.max())
        bits = generator.integers(0, 2, (len(lengths), longest))
        bits[np.arange(longest) >= lengths[:, None]] = 0
        scored = last_steps(torch.from_numpy(lengths), longest)
        targets = torch.from_numpy(bits.sum(1, keepdims=True) % 2) * scored  # (B, 1) → (B, T)
        return SequenceBatch(torch.from_numpy(bits), targets, torch.from_numpy(lengths), scored)
