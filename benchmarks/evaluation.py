"""Predictions and metrics of a fitted predictor on a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.decoding import Decoding, decode
from benchmarks.metrics import Metric, Parts
from models.contract import Predictor
from models.sequences import SequenceBatch, TargetSpec

EVALUATION_BATCH = 256
"""Sequences per call at most,"""
EVALUATION_STEPS = 2**16
"""and steps: both bound memory and change no number."""


@dataclass(frozen=True)
class Problem:
    """What is asked and how an answer is judged, without any data.

    metrics: the first is primary. window: long streams are read so many steps at a time, the state carried from window to
    window; None: sequences are read whole. decoding: for metrics of what the predictor says when it goes on by itself.
    """

    target: TargetSpec
    metrics: tuple[Metric, ...]
    window: int | None = None
    decoding: Decoding | None = None

    def selecting(self) -> Problem:
        """The same with the primary metric alone, which is all that choosing a checkpoint needs."""
        return replace(self, metrics=self.metrics[:1])


class Evaluation(NamedTuple):
    """loss: the target's own, per batch weighted by scored steps. values: by metric. parts: the same, sequence by sequence."""

    loss: float
    values: dict[str, float]
    parts: dict[str, Parts]


@torch.no_grad()
def evaluate(predictor: Predictor, problem: Problem, split: SequenceBatch, device: torch.device) -> Evaluation:
    """Every scored step of the split counts, the last, smaller batch and window included."""
    losses, weights = [], []
    kept: dict[str, list[Parts]] = {metric.name: [] for metric in problem.metrics}
    for whole in _batches(predictor, split, device):
        sums: dict[str, list[Parts]] = {metric.name: [] for metric in problem.metrics}
        for batch, outputs in read(predictor, whole, problem.window):
            if not bool(batch.scored.any()):
                continue
            losses.append(problem.target.loss(outputs, batch))
            weights.append(batch.scored.sum())
            for metric in problem.metrics:
                if not metric.decoded:
                    sums[metric.name].append(metric.parts(outputs, batch))
        answers = None
        for metric in problem.metrics:
            if metric.decoded:
                if problem.decoding is None:
                    raise ValueError(f"{metric.name} judges decoded answers, but the task does not say when they end")
                answers = decode(predictor, whole, problem.decoding) if answers is None else answers
                sums[metric.name].append(metric.parts(answers, whole))
            over, under = zip(*sums[metric.name], strict=True)
            kept[metric.name].append(Parts(torch.stack(over).sum(0), torch.stack(under).sum(0)))
    weight = torch.stack(weights).double()
    loss = float((torch.stack(losses).double() * weight).sum() / weight.sum())
    parts = {name: Parts(*map(torch.cat, zip(*some, strict=True))) for name, some in kept.items()}
    return Evaluation(loss, {metric.name: metric.value(parts[metric.name]) for metric in problem.metrics}, parts)


@torch.no_grad()
def predict(predictor: Predictor, problem: Problem, split: SequenceBatch, device: torch.device) -> Tensor:
    """Outputs (B, T, K) on the CPU, zeros in the padding."""
    n, longest = split.inputs.shape[:2]
    answers = torch.zeros(n, longest, problem.target.n_outputs)
    first = 0
    for whole in _batches(predictor, split, device):
        start = 0
        for batch, outputs in read(predictor, whole, problem.window):
            steps = outputs.shape[1]
            padded = torch.arange(steps) >= batch.lengths[:, None]  # (B, T)
            shown = outputs.cpu().masked_fill(padded[..., None], 0)
            answers[first : first + len(batch), start : start + steps] = shown
            start += steps
        first += len(whole)
    return answers


def read(predictor: Predictor, batch: SequenceBatch, window: int | None) -> Iterator[tuple[SequenceBatch, Tensor]]:
    """The windows of a batch one after another, each with the outputs (B, T, K), the state carried on between them."""
    state = None
    for chunk in batch.windows(window):
        outputs, state = predictor(chunk.inputs, state, chunk.lengths)
        yield chunk, outputs


def _batches(predictor: Predictor, split: SequenceBatch, device: torch.device) -> Iterator[SequenceBatch]:
    """Batches of the split in its own order, the predictor being in evaluation mode meanwhile."""
    was_training = predictor.training
    predictor.eval()
    size = max(1, min(EVALUATION_BATCH, EVALUATION_STEPS // split.inputs.shape[1]))
    for index in torch.arange(len(split)).split(size):
        yield split.select(index).to(device)
    predictor.train(was_training)
