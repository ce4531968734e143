"""Words and characters as numbers, and sentences of unequal length as one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from models.sequences import SequenceBatch, last_steps, valid_steps

UNKNOWN = "<unk>"
"""Stands for every word that a vocabulary lacks."""


@dataclass(frozen=True)
class Vocabulary:
    """symbols: what the tokens 0, 1, … stand for."""

    symbols: tuple[str, ...]

    @classmethod
    def of_words(cls, words: Iterable[str], size: int, least: int = 1) -> Vocabulary:
        """`UNKNOWN`, then the most frequent words, ``size`` symbols in all at most, each seen ``least`` times or more.

        Words as frequent are taken by the alphabet.
        """
        counts = Counter(words)
        counts.pop(UNKNOWN, None)
        frequent = sorted((word for word, count in counts.items() if count >= least), key=lambda w: (-counts[w], w))
        return cls((UNKNOWN, *frequent[: size - 1]))

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> np.ndarray:
        """(T,) int64. What is not in the vocabulary becomes `UNKNOWN`; a vocabulary without that raises KeyError."""
        numbers = self.numbers
        if UNKNOWN not in numbers:
            return np.array([numbers[symbol] for symbol in symbols], dtype=np.int64)
        unknown = numbers[UNKNOWN]
        return np.array([numbers.get(symbol, unknown) for symbol in symbols], dtype=np.int64)


def padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (T_b,) int64 → (B, T) with zeros after the end of each, and their lengths, (B,)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    values[np.arange(values.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return torch.from_numpy(values), torch.from_numpy(lengths)


def one_class_each(rows: Sequence[np.ndarray], labels: np.ndarray) -> SequenceBatch:
    """Token rows and the class of each, (B,), at its last step."""
    inputs, lengths = padded(rows)
    scored = last_steps(lengths, inputs.shape[1])
    return SequenceBatch(inputs, torch.from_numpy(labels)[:, None] * scored, lengths, scored)


def a_class_a_step(rows: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> SequenceBatch:
    """Token rows and the class of each of their steps, every step scored."""
    inputs, lengths = padded(rows)
    return SequenceBatch(inputs, padded(targets)[0], lengths, valid_steps(lengths, inputs.shape[1]))
