"""Formal languages: trained on short strings, tested on strings five times as long as any in training.

What a model must carry grows along the hierarchy of Chomsky, as Delétang et al. 2022, arXiv 2207.02098, arrange such tasks:
a finite number of states (parity, even_pairs, cycle_navigation, modular_arithmetic, and bracket_depth up to a bound), a
stack (reverse_string), or a tape that is read twice (duplicate_string). The primary metric is the accuracy at a length never
seen; `Task.test_at` measures it from the trained length on.

Every answer is a function of the string, so the ceiling is 1 throughout. Training sets are finite and drawn once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Lengths, Splits, Task, require_integers
from models.sequences import Classes, SequenceBatch, TokenInput, last_steps


@dataclass(frozen=True)
class FormalLanguage(Task):
    """Training and validation strings have lengths uniform on 1 … max_length; test strings are longer.

    A subclass draws strings of given lengths and answers them, in `draw`. least: the smallest value of each of its own
    integer fields. vocabulary, n_answers: tokens and classes. steps: of a sequence for each symbol of its string, the
    answer included. test_length: of the test strings; None: five times max_length.
    """

    max_length: int = 20
    n_train: int = 20_000
    n_validation: int = 1_000
    n_test: int = 1_000
    test_length: int | None = None

    group: ClassVar[str] = "diagnostic"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "Delétang et al. 2022, arXiv 2207.02098"
    picture: ClassVar[Literal["confusion", "symbols"]] = "confusion"
    causal: ClassVar[bool] = False
    least: ClassVar[Mapping[str, int]] = {}
    steps: ClassVar[int] = 1

    @property
    @abstractmethod
    def vocabulary(self) -> int: ...

    @property
    @abstractmethod
    def n_answers(self) -> int: ...

    def __post_init__(self) -> None:
        require_integers(self, {**self.least, "max_length": 1, "n_train": 1, "n_validation": 1, "n_test": 1})
        if self.test_length is not None:
            require_integers(self, {"test_length": self.max_length})

    @property
    def input(self) -> TokenInput:
        return TokenInput(self.vocabulary, max_length=self.steps * max(self.lengths.tested))

    @property
    def target(self) -> Classes:
        return Classes(self.n_answers, scope="step" if self.causal else "sequence")

    @property
    def lengths(self) -> Lengths:
        longest = self.test_length or 5 * self.max_length
        tested = (self.max_length, min(2 * self.max_length, longest), longest)
        return Lengths(self.max_length, tuple(dict.fromkeys(tested)))

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self.draw(generator.integers(1, self.max_length + 1, self.n_validation), generator)
        train = self.draw(generator.integers(1, self.max_length + 1, self.n_train), generator)
        return Splits(train, validation, self.test_at(max(self.lengths.tested)))

    def test_at(self, length: int) -> SequenceBatch:
        longest = max(self.lengths.tested)
        if not 1 <= length <= longest:
            raise ValueError(f"{self.name}: can be tested at lengths 1 … {longest}, not {length}")
        return self.draw(np.full(self.n_test, length), numpy_generator("test", self.name, length))

    def ceiling(self) -> float:
        return 1.0

    @property
    def solved(self) -> float:
        """As in the source: nine answers of ten."""
        return 0.9

    @abstractmethod
    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        """Strings of the given lengths, (B,), with their answers."""


def judged(tokens: np.ndarray, lengths: np.ndarray, answers: np.ndarray) -> SequenceBatch:
    """(B, T) strings, padded with zeros, and one class each, (B,), due at their last step."""
    scored = last_steps(torch.from_numpy(lengths), tokens.shape[1])
    targets = torch.from_numpy(answers)[:, None] * scored  # (B, 1) → (B, T)
    return SequenceBatch(torch.from_numpy(tokens), targets, torch.from_numpy(lengths), scored)


def uniform_strings(n_kinds: int, lengths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(B, T) int64: independent uniform symbols, zero in the padding."""
    longest = int(lengths.max())
    symbols = generator.integers(0, n_kinds, (len(lengths), longest))
    symbols[np.arange(longest) >= lengths[:, None]] = 0
    return symbols


@dataclass(frozen=True)
class Parity(FormalLanguage):
    """Whether a string of bits holds an even or an odd number of ones; trained on short strings, tested on long ones.

        input    1  0  1  1        0  1  1
        target   ·  ·  · odd       ·  · even        scored at the last step alone

    Floor: a uniform string is even half of the time, and so is every part of it: any constant, and any predictor that
    misses a single bit, is right 1/2 of the time in expectation. Ceiling: 1, for two states suffice.

    max_length: the longest training string; every test string has five times as many bits. n_train,
    n_validation, n_test: strings. test_length: of test strings, if not that.
    """

    name: ClassVar[str] = "parity"
    summary: ClassVar[str] = "an even or odd number of ones, in strings five times as long as any in training"
    symbols: ClassVar[tuple[str, ...]] = ("even", "odd")
    input_symbols: ClassVar[tuple[str, ...]] = ("0", "1")
    vocabulary: ClassVar[int] = 2
    n_answers: ClassVar[int] = 2

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        bits = uniform_strings(2, lengths, generator)
        return judged(bits, lengths, bits.sum(1) % 2)


@dataclass(frozen=True)
class EvenPairs(FormalLanguage):
    """Whether a string changes between its two symbols an even or an odd number of times.

        input    0  1  1  0        0  1  1
        target   ·  ·  · even      ·  · odd         changes 0 → 1 → 0 are two, 0 → 1 is one; the last step alone

    The number is even exactly where the last symbol equals the first: two states suffice, but they must last.

    Floor: from length 2 on, first and last symbol are independent, so any constant is right 1/2 of the time in expectation.
    Ceiling: 1, for the answer is a function of the string.

    max_length: the longest training string; test strings are five times as long. n_train, n_validation, n_test: strings.
    test_length: of test strings, if not that.
    """

    name: ClassVar[str] = "even_pairs"
    summary: ClassVar[str] = "an even or odd number of changes in strings five times as long as any in training"
    symbols: ClassVar[tuple[str, ...]] = ("even", "odd")
    input_symbols: ClassVar[tuple[str, ...]] = ("0", "1")
    vocabulary: ClassVar[int] = 2
    n_answers: ClassVar[int] = 2

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        bits = uniform_strings(2, lengths, generator)
        return judged(bits, lengths, bits[:, 0] ^ bits[np.arange(len(bits)), lengths - 1])


@dataclass(frozen=True)
class CycleNavigation(FormalLanguage):
    """Where a walk around a circle ends: each symbol stays (0), goes one place on (1) or one back (2).

        input    1  1  0  2  1
        place    1  2  2  1  2          never shown; the walk begins at place 0 of n_places = 5
        target   ·  ·  ·  ·  2          scored at the last step alone

    Floor: after many steps every place is equally likely, so a constant is right 1/n_places of the time in expectation.
    Ceiling: 1, for n_places states suffice.

    n_places: on the circle. max_length: the longest training walk; test walks are five times as long. n_train, n_validation,
    n_test: walks. test_length: of test walks, if not that.
    """

    n_places: int = 5

    name: ClassVar[str] = "cycle_navigation"
    summary: ClassVar[str] = "where a walk around a circle ends, five times as long as any in training"
    input_symbols: ClassVar[tuple[str, ...]] = ("0", "+", "-")
    least: ClassVar[Mapping[str, int]] = {"n_places": 2}
    vocabulary: ClassVar[int] = 3

    @property
    def n_answers(self) -> int:
        return self.n_places

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        moves = uniform_strings(3, lengths, generator)
        return judged(moves, lengths, ((moves == 1).sum(1) - (moves == 2).sum(1)) % self.n_places)


@dataclass(frozen=True)
class ModularArithmetic(FormalLanguage):
    """The value, modulo 5, of a sum of products without brackets; products come before sums.

        input    2  +  3  ×  4        -  1  +  3  ×  2
        target   ·  ·  ·  ·  4        ·  ·  ·  ·  ·  0      2 + 12 = 14 and -1 + 6 = 5, modulo 5; the last step alone

    Digits and operators alternate and are uniform; the last symbol is a digit, so a string of even length begins with a sign.
    The sum so far and the product that is still open, modulo 5, are all that must be carried: 25 states.

    Floor: a product of digits is 0 more often than any other value, but the sum of many is near uniform: 1/modulus in
    expectation at the tested length. Ceiling: 1, for finitely many states suffice.

    modulus: digits are 0 … modulus - 1; plus, minus and times are the next three tokens. max_length: the longest training
    string; test strings are five times as long. n_train, n_validation, n_test: strings.
    test_length: of test strings, if not that.
    """

    modulus: int = 5

    name: ClassVar[str] = "modular_arithmetic"
    summary: ClassVar[str] = "a sum of products modulo 5, five times as long as any in training"
    least: ClassVar[Mapping[str, int]] = {"modulus": 2}

    @property
    def n_answers(self) -> int:
        return self.modulus

    @property
    def vocabulary(self) -> int:
        return self.modulus + 3

    @property
    def input_symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.modulus)), "+", "-", "×")

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        longest, n = int(lengths.max()), len(lengths)
        digits = generator.integers(0, self.modulus, (n, longest))
        operators = generator.integers(0, 3, (n, longest))
        operators[:, 0] = generator.integers(0, 2, n)  # a sign: nothing is there to be multiplied
        ahead = lengths[:, None] - 1 - np.arange(longest)  # (B, T): symbols that still follow
        is_digit = ahead % 2 == 0
        total, product, pending = (np.zeros(n, dtype=np.int64) for _ in range(3))  # pending: 0 +, 1 -, 2 ×
        for t in range(longest):
            valid = ahead[:, t] >= 0
            digit, operator = valid & is_digit[:, t], valid & ~is_digit[:, t]
            closes = digit & (pending < 2)
            total = np.where(closes, total + product, total) % self.modulus
            signed = np.where(pending == 1, -digits[:, t], digits[:, t])
            product = np.where(closes, signed, np.where(digit, product * digits[:, t], product)) % self.modulus
            pending = np.where(operator, operators[:, t], pending)
        tokens = np.where(is_digit, digits, operators + self.modulus) * (ahead >= 0)
        return judged(tokens, lengths, (total + product) % self.modulus)


@dataclass(frozen=True)
class BracketDepth(FormalLanguage):
    """How many brackets are open after every symbol: 0 opens one, 1 closes one, 2 leaves them.

        input    (  (  ·  )  (  (  )  )
        target   1  2  2  1  2  3  2  1         scored at every step, as the symbols arrive

    Each symbol is drawn evenly from those that keep the depth within 0 … max_depth. The bound is what makes it a fair test of
    length: a longer string asks for no class that training did not show. Every step is asked, because the greatest
    depth of a long string is nearly always the bound itself; the symbol without brackets keeps the depth from being told by
    whether the step is even.

    Floor: in the long run a depth has probability 3/(3 · max_depth + 1), the two ends 2/(3 · max_depth + 1); strings begin at
    0, so the commonest depth of the short training strings, 1, is right somewhat more often: about 0.17 over 100 steps.
    Ceiling: 1, for max_depth + 1 states suffice.

    max_depth: of open brackets. max_length: the longest training string; test strings are five times as long. n_train,
    n_validation, n_test: strings. test_length: of test strings, if not that.
    """

    max_depth: int = 8

    name: ClassVar[str] = "bracket_depth"
    summary: ClassVar[str] = (
        "how many brackets are open at every step, in strings five times as long as any in training"
    )
    source: ClassVar[str] = "this project's own; as a counter language: Delétang et al. 2022, arXiv 2207.02098"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    causal: ClassVar[bool] = True
    input_symbols: ClassVar[tuple[str, ...]] = ("(", ")", "·")
    least: ClassVar[Mapping[str, int]] = {"max_depth": 1}
    vocabulary: ClassVar[int] = 3

    @property
    def n_answers(self) -> int:
        return self.max_depth + 1

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        longest = int(lengths.max())
        drawn = generator.integers(0, 6, (len(lengths), longest))  # six: a choice of three, or of two
        tokens, depths = np.empty_like(drawn), np.empty_like(drawn)
        depth = np.zeros(len(lengths), dtype=np.int64)
        for t in range(longest):
            at_bottom, at_top = depth == 0, depth == self.max_depth
            tokens[:, t] = np.where(at_bottom, 2 * (drawn[:, t] % 2), drawn[:, t] % 3)
            tokens[:, t] = np.where(at_top, 1 + drawn[:, t] % 2, tokens[:, t])
            depth = depths[:, t] = depth + np.array([1, -1, 0])[tokens[:, t]]
        valid = np.arange(longest) < lengths[:, None]
        scored = torch.from_numpy(valid)
        inputs, targets = torch.from_numpy(tokens * valid), torch.from_numpy(depths * valid)
        return SequenceBatch(inputs, targets, torch.from_numpy(lengths), scored)
