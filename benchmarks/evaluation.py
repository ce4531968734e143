"""Predictions and metrics of a fitted predictor on a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.metrics import Metric
from models.contract import Predictor, SequenceBatch, TargetSpec

EVALUATION_BATCH = 256
"""Sequences per call; it bounds memory and changes no number."""


class Evaluation(NamedTuple):
    """loss: the target's own, per batch weighted by scored steps. terms: metric name → (N,) float64 over all scored steps."""

    loss: float
    terms: dict[str, Tensor]

    def values(self) -> dict[str, float]:
        return {name: float(terms.mean()) for name, terms in self.terms.items()}


@torch.no_grad()
def evaluate(
    predictor: Predictor, target: TargetSpec, metrics: tuple[Metric, ...], split: SequenceBatch, device: torch.device
) -> Evaluation:
    """Every scored step of the split counts, the last, smaller batch included."""
    losses, weights = [], []
    terms: dict[str, list[Tensor]] = {metric.name: [] for metric in metrics}
    for batch, outputs in _batches(predictor, split, device):
        losses.append(target.loss(outputs, batch))
        weights.append(batch.scored.sum())
        answers, truth = outputs[batch.scored], batch.targets[batch.scored]  # (N, K), (N, …)
        for metric in metrics:
            terms[metric.name].append(metric.terms(answers, truth))
    weight = torch.stack(weights).double()
    loss = float((torch.stack(losses).double() * weight).sum() / weight.sum())
    return Evaluation(loss, {name: torch.cat(parts).cpu() for name, parts in terms.items()})


@torch.no_grad()
def predict(predictor: Predictor, split: SequenceBatch, device: torch.device) -> Tensor:
    """Outputs (B, T, K) on the CPU, zeros in the padding."""
    n, longest = split.inputs.shape[:2]
    whole: Tensor | None = None
    start = 0
    for batch, outputs in _batches(predictor, split, device):
        if whole is None:
            whole = torch.zeros(n, longest, outputs.shape[2], dtype=outputs.dtype)
        steps = outputs.shape[1]
        padded = torch.arange(steps) >= batch.lengths[:, None]  # (B, T)
        whole[start : start + len(batch), :steps] = outputs.cpu().masked_fill(padded[..., None], 0)
        start += len(batch)
    assert whole is not None
    return whole


def _batches(
    predictor: Predictor, split: SequenceBatch, device: torch.device
) -> Iterator[tuple[SequenceBatch, Tensor]]:
    """Batches of the split in its own order, with the predictor's outputs in evaluation mode."""
    was_training = predictor.training
    predictor.eval()
    for index in torch.arange(len(split)).split(EVALUATION_BATCH):
        batch = split.select(index).to(device)
        outputs, _ = predictor(batch.inputs, None, batch.lengths)  # (B, T, K)
        yield batch, outputs
    predictor.train(was_training)
