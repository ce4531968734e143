"""Memory: what has been seen must be kept over a delay, picked out from among distractors, or found again by its key.

copy_memory: Hochreiter and Schmidhuber 1997 in the form of Arjovsky, Shah and Bengio 2016, arXiv 1511.06464, scored as by
Bai, Kolter and Koltun 2018, arXiv 1803.01271. selective_copy: Jing et al. 2019, arXiv 1706.02761, in the form of Gu and Dao
2023, arXiv 2312.00752. associative_recall: Ba et al. 2016, arXiv 1610.06258, with several queries as by Arora et al. 2023,
arXiv 2312.04927.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks.diagnostic import Generated
from models.sequences import Classes, SequenceBatch, TokenInput


@dataclass(frozen=True)
class CopyMemory(Generated):
    """Answer blank until a delay is over, then repeat the symbols seen before it; every step counts.

        input    3  0  5   _  _  _   >  _  _  _         here n_items = 3, delay = 4; > ends the delay
        target   _  _  _   _  _  _   _  3  0  5         scored at every step

    T = delay is the delay of the literature: the sequence has T + 2 n_items steps. A predictor without memory that knows
    when the answer begins answers blank before it and then every kind alike: its cross-entropy is n_items ln(n_kinds) / (T +
    2 n_items), 10 ln 8 / 70 = 0.297 by default. What counts as memory is what is better than that.

    Floor: the class frequencies, blank and n_kinds symbols, without knowing when: 0.707 by default. Ceiling: 0, for the targets
    are a function of the inputs so far.

    n_items: symbols to keep. delay: T, from the last symbol to the step before the answer. n_kinds: different symbols; blank
    is token and class n_kinds, the end of the delay token n_kinds + 1. n_train, n_validation, n_test: sequences.
    """

    n_items: int = 10
    delay: int = 50
    n_kinds: int = 8

    name: ClassVar[str] = "copy_memory"
    summary: ClassVar[str] = "blank until a delay is over, then the symbols seen before it; by cross-entropy"
    source: ClassVar[str] = (
        "Arjovsky, Shah and Bengio 2016, arXiv 1511.06464; Bai, Kolter and Koltun 2018, arXiv 1803.01271"
    )
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"n_items": 1, "delay": 1, "n_kinds": 2}

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=self.n_kinds + 2, max_length=2 * self.n_items + self.delay)

    @property
    def target(self) -> Classes:
        return Classes(self.n_kinds + 1, scope="step")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.n_kinds)), "_")

    @property
    def input_symbols(self) -> tuple[str, ...]:
        return (*self.symbols, ">")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (cross_entropy, accuracy)

    def ceiling(self) -> float:
        return 0.0

    def draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        longest = 2 * self.n_items + self.delay
        symbols = torch.from_numpy(generator.integers(0, self.n_kinds, (n, self.n_items)))
        inputs = torch.full((n, longest), self.n_kinds)
        targets = inputs.clone()
        inputs[:, : self.n_items] = targets[:, -self.n_items :] = symbols
        inputs[:, self.n_items + self.delay - 1] = self.n_kinds + 1
        return SequenceBatch(inputs, targets, torch.full((n,), longest), torch.ones((n, longest), dtype=torch.bool))


@dataclass(frozen=True)
class SelectiveCopy(Generated):
    """Repeat, in order, the symbols that stood somewhere among noise.

        input    c  3  a  a  0  b  5  a   c  b   >  >  >        here n_items = 3, among 8 steps, delay = 2; a b c is noise
        target   ·  ·  ·  ·  ·  ·  ·  ·   ·  ·   3  0  5        scored on the part after the delay alone

    Places are uniform, so nothing but a symbol's kind tells that it counts: a memory that keeps what stood a fixed number of
    steps ago, as a linear recurrence or a convolution does, cannot do it.

    Floor: symbols are uniform and independent, so any constant is right 1/n_kinds of the time, in expectation. Ceiling:
    1, for the targets are a function of the inputs so far.

    n_items: symbols to keep. among: steps over which they are scattered. delay: further steps of noise. n_kinds: different
    symbols. noise: different symbols of noise, tokens n_kinds and up; go is the token after them. n_train, n_validation,
    n_test: sequences.
    """

    n_items: int = 6
    among: int = 30
    delay: int = 10
    n_kinds: int = 8
    noise: int = 4

    name: ClassVar[str] = "selective_copy"
    summary: ClassVar[str] = "repeat the symbols that stood at random places among noise"
    source: ClassVar[str] = "Jing et al. 2019, arXiv 1706.02761; Gu and Dao 2023, arXiv 2312.00752"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"n_items": 1, "among": 1, "delay": 0, "n_kinds": 2, "noise": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.among < self.n_items:
            raise InvalidParameter(f"{self.name}: among must be at least n_items, {self.n_items}, got {self.among}")

    @property
    def input(self) -> TokenInput:
        longest = self.among + self.delay + self.n_items
        return TokenInput(vocabulary=self.n_kinds + self.noise + 1, max_length=longest)

    @property
    def input_symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.n_kinds)), *["·"] * self.noise, ">")

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
        longest = self.among + self.delay + self.n_items
        symbols = generator.integers(0, self.n_kinds, (n, self.n_items))
        tokens = self.n_kinds + generator.integers(0, self.noise, (n, longest))
        places = np.sort(generator.random((n, self.among)).argsort(1)[:, : self.n_items], axis=1)
        np.put_along_axis(tokens, places, symbols, axis=1)
        tokens[:, -self.n_items :] = self.n_kinds + self.noise
        return answered_last(tokens, symbols)


@dataclass(frozen=True)
class AssociativeRecall(Generated):
    """Pairs of key and value, and later the keys alone, in another order: each asks for its value.

        input    k 3  q 0  c 5   _  _   q  c  k         here n_pairs = 3, delay = 2; letters are keys
        target   · ·  · ·  · ·   ·  ·   0  5  3         scored on the queries alone

    No key occurs in two pairs; values may. What is asked is the binding: a model that knows the values but not whose they
    are is right 1/n_pairs + (1 - 1/n_pairs)/n_values of the time by guessing one of them.

    Floor: values are uniform and independent, so any constant is right 1/n_values of the time, in expectation. Ceiling: 1,
    for the targets are a function of the inputs so far.

    n_pairs: pairs, and queries. delay: blanks between. n_keys, n_values: different keys, tokens 0 and up, and values, the
    tokens after them; blank is the last token. n_train, n_validation, n_test: sequences.
    """

    n_pairs: int = 4
    delay: int = 4
    n_keys: int = 16
    n_values: int = 16

    name: ClassVar[str] = "associative_recall"
    summary: ClassVar[str] = "pairs of key and value, then the keys in another order: each asks for its value"
    source: ClassVar[str] = "Ba et al. 2016, arXiv 1610.06258; Arora et al. 2023, arXiv 2312.04927"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"n_pairs": 1, "delay": 0, "n_keys": 1, "n_values": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_keys < self.n_pairs:
            raise InvalidParameter(f"{self.name}: n_keys must be at least n_pairs, {self.n_pairs}, got {self.n_keys}")

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=self.n_keys + self.n_values + 1, max_length=3 * self.n_pairs + self.delay)

    @property
    def input_symbols(self) -> tuple[str, ...]:
        keys = (f"k{key}" for key in range(self.n_keys))
        return (*keys, *map(str, range(self.n_values)), "_")

    @property
    def target(self) -> Classes:
        return Classes(self.n_values, scope="step")

    def ceiling(self) -> float:
        return 1.0

    @property
    def solved(self) -> float:
        """At most one item in a hundred is wrong."""
        return 0.99

    def draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        keys = generator.random((n, self.n_keys)).argsort(1)[:, : self.n_pairs]
        values = generator.integers(0, self.n_values, (n, self.n_pairs))
        order = generator.random((n, self.n_pairs)).argsort(1)
        tokens = np.full((n, 3 * self.n_pairs + self.delay), self.n_keys + self.n_values)
        tokens[:, : 2 * self.n_pairs : 2] = keys
        tokens[:, 1 : 2 * self.n_pairs : 2] = self.n_keys + values
        tokens[:, -self.n_pairs :] = np.take_along_axis(keys, order, axis=1)
        return answered_last(tokens, np.take_along_axis(values, order, axis=1))


def answered_last(tokens: np.ndarray, answers: np.ndarray) -> SequenceBatch:
    """(B, T) inputs whose last steps are scored, (B, U) being the classes due there."""
    targets = np.zeros_like(tokens)
    targets[:, -answers.shape[1] :] = answers
    scored = np.zeros(tokens.shape, dtype=bool)
    scored[:, -answers.shape[1] :] = True
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return SequenceBatch(torch.from_numpy(tokens), torch.from_numpy(targets), lengths, torch.from_numpy(scored))
