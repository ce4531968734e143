"""A file ready to be learned from: every step as numbers or a symbol, the windows that are read, and what is due in them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Splits
from benchmarks.your_data.kinds import Question
from benchmarks.your_data.parts import DEVELOPMENT, SHARE, TEST, VALIDATION, drawn
from models.sequences import InputSpec, RealInput, SequenceBatch, TokenInput

VALIDATION_STEPS = 20_000
"""At most: validation is looked at twenty times in a fit."""


@dataclass(frozen=True)
class Steps:
    """values: (N, C) float32, or (N,) int64 of symbols. channels: their names. symbols: names of symbols, or None.
    masks: the channels that only say whether a value is known."""

    values: np.ndarray
    channels: tuple[str, ...] = ()
    symbols: tuple[str, ...] | None = None
    masks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Windows:
    """Stretches of rows. start, length, part, group, stratum, lead: (P,) each; a forecast is of the rows after its window. The
    first ``lead`` steps are read for the state that they leave, and not scored."""

    start: np.ndarray
    length: np.ndarray
    part: np.ndarray
    group: np.ndarray
    stratum: np.ndarray
    lead: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def select(self, chosen: np.ndarray) -> Windows:
        return Windows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def bounded(self, n_steps: int, generator: np.random.Generator) -> Windows:
        """Windows of at most so many steps in all, drawn at random, in their order; one at least."""
        if self.length.sum() <= n_steps:
            return self
        order = generator.permutation(len(self))
        n = max(1, int(np.searchsorted(np.cumsum(self.length[order]), n_steps, side="right")))
        return self.select(np.sort(order[:n]))


@dataclass(frozen=True)
class Answers:
    """What is due. classes: their names, or None where numbers are due. values: (N,) int64 classes, -1 where unknown, or
    float64 numbers, NaN where unknown; of the next symbol, the one after the row. mean, scale: numbers are learned as
    (value - mean) / scale."""

    values: np.ndarray
    classes: tuple[str, ...] | None = None
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Prepared:
    """A file ready to be learned from. look_back: of forecasts. level: the channel of the forecast column, shown as differences
    from its last value, and the factor that turns its channel's unit into the scale of the answers."""

    question: Question
    steps: Steps
    answers: Answers
    windows: Windows
    told: str
    remarks: tuple[str, ...]
    look_back: int | None = None
    level: tuple[int, float] | None = None

    @property
    def input(self) -> InputSpec:
        longest = int(self.windows.length.max())
        if self.steps.symbols is not None:
            return TokenInput(len(self.steps.symbols), longest)
        return RealInput(self.steps.values.shape[1], longest, masks=self.steps.masks)

    def counts(self) -> tuple[int, int, int]:
        """Sequences or windows of the three splits."""
        return tuple(len(part) for part in self.choose(0))  # type: ignore[return-value]

    def choose(self, seed: int) -> tuple[Windows, Windows, Windows]:
        """Those of the three splits; validation is drawn by the seed where it is not fixed.

        In training every step that is read is scored: what one window reads first is learned from there too. Of symbols each
        is read once, because counts of them must not grow by reading twice.
        """
        train, validation, test = self._members(seed)
        if self.question.kind == "next_symbol":
            train = replace(train, start=train.start + train.lead, length=train.length - train.lead)
        return replace(train, lead=np.zeros_like(train.lead)), validation, test

    def _members(self, seed: int) -> tuple[Windows, Windows, Windows]:
        parts = self.windows.part
        is_validation = parts == VALIDATION
        open_to = np.flatnonzero(parts == DEVELOPMENT)
        if len(open_to):
            _, first, where = np.unique(self.windows.group[open_to], return_index=True, return_inverse=True)
            members = self.windows.select(open_to)
            counted = members.length - members.lead if self.is_per_step else np.ones(len(members))
            held = drawn(
                members.stratum[first], np.bincount(where, counted), SHARE, numpy_generator("data", "your_data", seed)
            )
            is_validation = is_validation.copy()
            is_validation[open_to[held[where]]] = True
        validation = self.windows.select(is_validation).bounded(
            VALIDATION_STEPS, numpy_generator("steps", "your_data", seed)
        )
        return self.windows.select(~is_validation & (parts != TEST)), validation, self.windows.select(parts == TEST)

    def splits(self, seed: int) -> Splits:
        return Splits(*(self.batch(windows) for windows in self.choose(seed)))

    def batch(self, windows: Windows) -> SequenceBatch:
        """Windows → a padded batch, zero in the padding."""
        longest = int(windows.length.max())
        steps = np.arange(longest)
        valid = steps < windows.length[:, None]  # (B, T)
        rows = np.minimum(windows.start[:, None] + steps, len(self.steps.values) - 1)  # (B, T)
        inputs = self.steps.values[rows]  # (B, T, C) or (B, T)
        last = windows.start + windows.length - 1  # (B,)
        if self.level is not None:
            channel, factor = self.level
            inputs[..., channel] = (inputs[..., channel] - self.steps.values[last, channel][:, None]) * factor
        inputs = np.where(valid[..., None] if inputs.ndim == 3 else valid, inputs, 0)
        targets, scored = self._targets(windows, rows, valid, last)
        return SequenceBatch(
            inputs=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            lengths=torch.from_numpy(windows.length),
            scored=torch.from_numpy(scored),
        )

    def _targets(
        self, windows: Windows, rows: np.ndarray, valid: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets (B, T) or (B, T, n), and (B, T) bool where they are scored."""
        values, is_last = self.answers.values, np.arange(valid.shape[1]) == windows.length[:, None] - 1
        if self.question.kind == "forecasting":
            horizon = self.question.horizon or 1
            ahead = values[last[:, None] + np.arange(1, horizon + 1)] - values[last, None]  # (B, horizon)
            return ((ahead / self.answers.scale)[:, None] * is_last[..., None]).astype(np.float32), is_last
        due = values[rows]  # (B, T)
        scored = is_last if self.question.scope == "sequence" else valid & ~self._leads(windows, valid)
        if self.answers.classes is not None:
            known = valid & (due >= 0)
            return np.where(known, due, 0), scored & known
        scored = scored & np.isfinite(due)
        standard = (due - self.answers.mean) / self.answers.scale
        return np.where(scored, standard, 0)[..., None].astype(np.float32), scored

    def _leads(self, windows: Windows, valid: np.ndarray) -> np.ndarray:
        """(B, T) bool: the steps that are read and not scored."""
        return np.arange(valid.shape[1]) < windows.lead[:, None]

    def shares(self) -> tuple[float, float, float]:
        """Of what the three splits hold together: sequences, windows, or steps where each step is scored."""
        held = [
            float((part.length - part.lead).sum()) if self.is_per_step else float(len(part))
            for part in self._members(0)
        ]
        return tuple(each / sum(held) for each in held)  # type: ignore[return-value]

    @property
    def is_per_step(self) -> bool:
        return self.question.scope == "step"

    @property
    def majority(self) -> float:
        """The share of the most frequent class outside the test split; 0 where numbers are due."""
        counts = self.class_counts(self.windows.part != TEST)
        return float(counts.max() / counts.sum()) if self.answers.classes is not None and counts.sum() else 0.0

    def class_counts(self, chosen: np.ndarray) -> np.ndarray:
        """(P,) bool → (K,): how often each class is due in the chosen windows."""
        if self.answers.classes is None:
            return np.zeros(0, dtype=np.int64)
        windows = self.windows.select(chosen)
        last = windows.start + windows.length
        first = windows.start + windows.lead if self.is_per_step else last - 1
        due = np.zeros(len(self.answers.values) + 1, dtype=np.int64)
        np.add.at(due, first, 1)
        np.add.at(due, last, -1)
        times = np.cumsum(due[:-1])  # how many windows score each row
        known = self.answers.values >= 0
        return np.bincount(
            self.answers.values[known], weights=times[known], minlength=len(self.answers.classes)
        ).astype(int)
