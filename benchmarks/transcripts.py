"""What a model that is trained by connectionist temporal classification says, and how far that is from the truth.

Graves et al. 2006, doi:10.1145/1143844.1143891: a model answers every step with a symbol or with blank (0). What it says
is read along the likeliest path: steps that repeat the step before are merged, then blanks are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from benchmarks.metrics import POSITIVE, Metric, Parts
from models.sequences import SequenceBatch

BLANK = 0


def best_path(outputs: Tensor, lengths: Tensor) -> list[list[int]]:
    """(B, T, K) outputs over (B,) valid steps → for each sequence the symbols of its likeliest path."""
    answers = []
    for path, length in zip(outputs.argmax(-1).tolist(), lengths.tolist(), strict=True):
        steps = path[:length]
        changes = (symbol for symbol, before in zip(steps, [BLANK, *steps], strict=False) if symbol != before)
        answers.append([symbol for symbol in changes if symbol != BLANK])
    return answers


def true_symbols(batch: SequenceBatch) -> list[list[int]]:
    """The transcripts of a batch, without padding."""
    if batch.target_lengths is None:
        raise ValueError("a transcript needs target_lengths in its batch")
    return [row[:n] for row, n in zip(batch.targets.tolist(), batch.target_lengths.tolist(), strict=True)]


@dataclass(frozen=True, kw_only=True)
class LabelErrorRate(Metric):
    """Edits over symbols; see `label_error_rate`."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        said, true = best_path(outputs, batch.lengths), true_symbols(batch)
        edits = torch.tensor([Levenshtein.distance(a, b) for a, b in zip(said, true, strict=True)]).double()
        is_nan = (outputs.isnan().any(-1) & batch.scored).any(1).cpu()  # argmax would call NaN the largest
        return Parts(edits.masked_fill(is_nan, torch.nan), torch.tensor(list(map(len, true))).double())


label_error_rate = LabelErrorRate(
    "label_error_rate",
    "edits per symbol",
    "lower",
    "Levenshtein distance from the symbols along the likeliest path to the true ones, per true symbol",
    0.01,
    bounds=POSITIVE,
)
