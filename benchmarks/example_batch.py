"""Random sequences that a model must take: what it does with them matters, not what they say."""

from __future__ import annotations

import torch
from torch import Tensor

from models.sequences import (
    Actions,
    Binary,
    Classes,
    InputSpec,
    RealInput,
    SequenceBatch,
    Step,
    TargetSpec,
    Transcript,
    last_steps,
    valid_steps,
)


def random_batch(
    spec: InputSpec, target: TargetSpec, lengths: Tensor, dtype: torch.dtype, generator: torch.Generator
) -> SequenceBatch:
    """Inputs and targets under the specs for sequences of these lengths, (B,) int64; dtype: of real values."""
    n_sequences, n_steps = len(lengths), int(lengths.max())
    valid = valid_steps(lengths, n_steps)
    shape = (n_sequences, n_steps)
    if isinstance(spec, RealInput):
        values = torch.randn(*shape, spec.channels, generator=generator)
        frames = isinstance(target, Binary) and target.future  # then the inputs are yes/no too
        inputs = (values > 0 if frames else values).to(dtype) * valid[..., None]
    else:
        inputs = torch.randint(spec.vocabulary, shape, generator=generator) * valid
    scored = valid if target.scope == "step" else last_steps(lengths, n_steps)
    if isinstance(target, Transcript):
        symbols = torch.randint(1, target.n + 1, (n_sequences, 2), generator=generator)
        return SequenceBatch(inputs, symbols, lengths, scored, torch.full((n_sequences,), 2).clamp(max=lengths))
    if isinstance(target, Classes):
        targets = torch.randint(target.n, shape, generator=generator)
    elif isinstance(target, Actions):
        actions = torch.randint(target.n, (*shape, 1), generator=generator).to(dtype)
        targets = torch.cat([actions, torch.randn(*shape, len(Step) - 1, generator=generator).to(dtype)], dim=-1)
    else:
        targets = torch.randint(2, (*shape, target.n), generator=generator).to(dtype)
    return SequenceBatch(inputs, targets, lengths, scored)
