"""Metrics of unbalanced classes and of text: classes found, entities found, and answers written symbol by symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from benchmarks.metrics import POSITIVE, SHARE, Metric, Parts, accuracy, cross_entropy
from models.sequences import SequenceBatch

LARGEST = 700.0
"""The exponential of more overflows."""


def exponential(nats: float) -> float:
    """Of at most `LARGEST`."""
    return math.exp(min(nats, LARGEST))


def bits(nats: float) -> float:
    return nats / math.log(2)


bits_per_character = replace(
    cross_entropy,
    name="bits_per_character",
    unit="bits per character",
    definition="mean negative binary logarithm of the probability of the character",
    margin=0.01,
    link=bits,
)
perplexity = replace(
    cross_entropy,
    name="perplexity",
    unit="equally likely words",
    definition="exponential of the mean negative log-probability of the word",
    margin=1.0,
    link=exponential,
    bounds=(1.0, math.inf),
)


@dataclass(frozen=True, kw_only=True)
class BalancedAccuracy(Metric):
    """The mean over classes of the share of each that is found: Brodersen et al. 2010, doi:10.1109/ICPR.2010.764.

    counts: of each class in the split that it is exact for; on another, classes weigh as their shares there differ.
    """

    counts: tuple[int, ...]

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        weights = 1 / torch.tensor(self.counts, dtype=torch.float64).clamp(min=1)  # (K,)
        under, over = (torch.zeros(batch.scored.shape, dtype=torch.float64) for _ in range(2))  # (B, T)
        scored, classes = batch.scored.cpu(), batch.targets[batch.scored]
        under[scored] = weights[classes.cpu()]
        over[scored] = under[scored] * accuracy.terms(outputs[batch.scored], classes).cpu()
        return Parts(over.sum(1), under.sum(1))


def balanced_accuracy(counts: Sequence[int]) -> BalancedAccuracy:
    """counts: (K,), of each class in the test split."""
    definition = "mean over classes of the share of a class whose largest logit is that class"
    return BalancedAccuracy(
        "balanced_accuracy", "mean recall", "higher", definition, 0.02, bounds=SHARE, counts=tuple(counts)
    )


def average_precisions(counts: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(R, N) how often each sequence counts, (N,) scores, (N,) 1 for the class in question else 0 → (R,).

    The sum over thresholds of precision times the gain in recall, as in scikit-learn's ``average_precision_score``: no
    interpolation (Flach and Kull 2015, NeurIPS), sequences of equal score taken together. NaN without a positive sequence.
    """
    if np.isnan(scores).any():
        return np.full(len(counts), np.nan)
    order = np.argsort(-scores, kind="stable")
    last = np.append(
        scores[order][1:] != scores[order][:-1], True
    )  # (N,): where a threshold takes no more equal scores
    values = np.empty(len(counts))
    for rows in range(0, len(counts), RESAMPLES_AT_A_TIME):
        drawn = counts[rows : rows + RESAMPLES_AT_A_TIME, order]  # (r, N)
        taken = np.cumsum(drawn, axis=1)[:, last]  # (r, thresholds)
        hits = np.cumsum(drawn * positive[order], axis=1)[:, last]
        gain = np.diff(hits, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(taken > 0, hits / taken, 0.0)
            values[rows : rows + len(drawn)] = (precision * gain).sum(axis=1) / hits[:, -1]
    return values


RESAMPLES_AT_A_TIME = 50
"""It bounds memory."""


@dataclass(frozen=True, kw_only=True)
class AveragePrecision(Metric):
    """How well sequences of one of two classes are ranked before those of the other. positive: that class."""

    positive: int

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        scores, classes = torch.zeros(2, *batch.scored.shape, dtype=torch.float64)  # (B, T) each
        scored = batch.scored.cpu()
        logits = outputs[batch.scored].cpu()  # (B, 2): one step of each sequence is scored
        scores[scored] = (logits[:, self.positive] - logits[:, 1 - self.positive]).double()
        classes[scored] = (batch.targets[batch.scored].cpu() == self.positive).double()
        return Parts(scores.sum(1), classes.sum(1))


def average_precision(positive: int, name: str) -> AveragePrecision:
    """name: of the class, for people."""
    definition = f"mean precision over the thresholds at which another sequence of class {name} is found"
    return AveragePrecision(
        "average_precision",
        "mean precision",
        "higher",
        definition,
        0.02,
        bounds=SHARE,
        statistic=average_precisions,
        positive=positive,
    )


class Entity(NamedTuple):
    """The steps first … last, and the kind."""

    first: int
    last: int
    kind: int


def entities(tags: Sequence[int]) -> set[Entity]:
    """What a row of IOB2 tags marks: 0 is O, 2k + 1 is B-k, 2k + 2 is I-k.

    An I that follows no word of its kind begins an entity, as in the scorer of the CoNLL shared tasks (Tjong Kim Sang and
    De Meulder 2003, aclanthology.org/W03-0419), so that no answer is without meaning.
    """
    found: set[Entity] = set()
    first: int | None = None
    for t, tag in enumerate([*tags, 0]):
        before = tags[t - 1] if t else 0
        goes_on = tag > 0 and tag % 2 == 0 and before > 0 and (tag - 1) // 2 == (before - 1) // 2
        if first is not None and not goes_on:
            found.add(Entity(first, t - 1, (before - 1) // 2))
            first = None
        if tag > 0 and not goes_on:
            first = t
    return found


@dataclass(frozen=True, kw_only=True)
class EntityF1(Metric):
    """Twice the entities found with both ends and kind right, over those predicted and those there."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        answers, targets, scored = outputs.argmax(-1).cpu(), batch.targets.cpu(), batch.scored.cpu()
        over, under = [], []
        for answer, target, mask in zip(answers, targets, scored, strict=True):
            predicted, true = entities(answer[mask].tolist()), entities(target[mask].tolist())
            over.append(2.0 * len(predicted & true))
            under.append(float(len(predicted) + len(true)))
        is_nan = (outputs.isnan().any(-1) & batch.scored).any(1).cpu()  # argmax would call NaN the largest
        return Parts(
            torch.tensor(over, dtype=torch.float64).masked_fill(is_nan, torch.nan),
            torch.tensor(under, dtype=torch.float64),
        )


entity_f1 = EntityF1(
    "entity_f1",
    "F1 of entities",
    "higher",
    "harmonic mean of the share of predicted entities that are right and the share of true ones that are found",
    0.01,
    bounds=SHARE,
)


@dataclass(frozen=True, kw_only=True)
class AnswerMetric(Metric):
    """Of what a predictor says going on by itself. stop: the symbol that ends an answer, no part of it.

    terms(answer, truth): what a sequence adds above and below the line.
    """

    stop: int
    terms: Callable[[list[int], list[int]], tuple[float, float]]
    decoded: ClassVar[bool] = True

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        targets, scored = batch.targets.cpu(), batch.scored.cpu()
        terms = []
        for answer, target, mask in zip(outputs.tolist(), targets, scored, strict=True):
            truth = [symbol for symbol in target[mask].tolist() if symbol != self.stop]
            terms.append(self.terms([symbol for symbol in answer if symbol >= 0], truth))
        return Parts(*torch.tensor(terms, dtype=torch.float64).T)


def exact_match(stop: int) -> AnswerMetric:
    """The share of answers that are right symbol by symbol, their end included."""
    definition = "share of decoded answers that equal the true one"
    return AnswerMetric(
        "exact_match", "fraction correct", "higher", definition, 0.01, bounds=SHARE, stop=stop, terms=_equal
    )


def error_rate(symbol: str, stop: int) -> AnswerMetric:
    """Edits that mend the answers, per symbol of the true ones. symbol: character, word …"""
    name, definition = f"{symbol}_error_rate", f"Levenshtein distance of decoded to true answer per true {symbol}"
    return AnswerMetric(
        name, f"edits per {symbol}", "lower", definition, 0.01, bounds=POSITIVE, stop=stop, terms=_edits
    )


def _equal(answer: list[int], truth: list[int]) -> tuple[float, float]:
    return float(answer == truth), 1.0


def _edits(answer: list[int], truth: list[int]) -> tuple[float, float]:
    return float(Levenshtein.distance(answer, truth)), float(len(truth))
