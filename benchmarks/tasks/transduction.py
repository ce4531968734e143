"""Strings to be written again, backwards or twice: what a stack and a tape can do and a finite state cannot.

As the formal languages of formal_languages.py, they are trained on short strings and tested on strings five times as long.
The input is a string of bits and then `go` for each bit of the answer, which is due step by step: with nothing fed back, the
model must keep both the string and its own place in it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from benchmarks.tasks.formal_languages import FormalLanguage, uniform_strings
from models.sequences import SequenceBatch

GO = 2


@dataclass(frozen=True)
class Transduction(FormalLanguage):
    """A subclass says at which position of the string each bit of the answer stands. steps: 1 + bits of answer per bit."""

    max_length: int = 10

    picture: ClassVar[Literal["symbols"]] = "symbols"
    symbols: ClassVar[tuple[str, ...]] = ("0", "1")
    input_symbols: ClassVar[tuple[str, ...]] = ("0", "1", ">")
    causal: ClassVar[bool] = True
    vocabulary: ClassVar[int] = 3
    n_answers: ClassVar[int] = 2

    @abstractmethod
    def position(self, answered: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Where in a string of ``length`` bits the answer's bit stands before which ``answered`` bits have been given."""

    def draw(self, lengths: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        strings = uniform_strings(2, lengths, generator)  # (B, longest string)
        length = lengths[:, None]
        answered = np.arange(self.steps * strings.shape[1]) - length  # (B, T): negative while the string is shown
        scored = (answered >= 0) & (answered < (self.steps - 1) * length)
        inputs = np.where(scored, GO, 0)
        inputs[:, : strings.shape[1]] += strings * (answered[:, : strings.shape[1]] < 0)
        positions = np.where(scored, self.position(answered, length), 0)
        targets = np.where(scored, np.take_along_axis(strings, positions, axis=1), 0)
        return SequenceBatch(*map(torch.from_numpy, (inputs, targets, self.steps * lengths, scored)))


@dataclass(frozen=True)
class ReverseString(Transduction):
    """Repeat a string of bits backwards, once it has ended.

        input    1  0  0   >  >  >          > is go, token 2
        target   ·  ·  ·   0  0  1          scored on the answer alone

    Floor: bits are uniform and independent, so any constant is right 1/2 of the time in expectation. A model that keeps
    only the last k bits is right (1 + k/n)/2 of the time on strings of n bits. Ceiling: 1, for the string has been shown.

    max_length: the longest training string; test strings are five times as long. n_train, n_validation, n_test: strings.
    test_length: of test strings, if not that.
    """

    name: ClassVar[str] = "reverse_string"
    summary: ClassVar[str] = "repeat a string backwards, five times as long as any in training"
    steps: ClassVar[int] = 2

    def position(self, answered: np.ndarray, length: np.ndarray) -> np.ndarray:
        return length - 1 - answered


@dataclass(frozen=True)
class DuplicateString(Transduction):
    """Repeat a string of bits twice, once it has ended.

        input    1  0  0   >  >  >  >  >  >         > is go, token 2
        target   ·  ·  ·   1  0  0  1  0  0         scored on the answer alone

    Floor: bits are uniform and independent, so any constant is right 1/2 of the time in expectation. Ceiling: 1, for the
    string has been shown. A queue would do for one copy; the second needs the string to be kept while it is read.

    max_length: the longest training string; test strings are five times as long. n_train, n_validation, n_test: strings.
    test_length: of test strings, if not that.
    """

    name: ClassVar[str] = "duplicate_string"
    summary: ClassVar[str] = "repeat a string twice, five times as long as any in training"
    steps: ClassVar[int] = 3

    def position(self, answered: np.ndarray, length: np.ndarray) -> np.ndarray:
        return answered % length
