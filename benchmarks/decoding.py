"""A predictor going on by itself: each answer chooses the next input, step by step, from the state after a prompt.

Greedy for metrics, where the likeliest symbol is fed back; sampled for people, who want to see or hear what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from models.contract import Predictor
from models.sequences import Binary, Classes, SequenceBatch, TargetSpec


@dataclass(frozen=True)
class Decoding:
    """When an answer ends. stop: the symbol that ends it, which is no part of it; max_steps: the longest answer."""

    stop: int
    max_steps: int


def prompt_lengths(batch: SequenceBatch) -> Tensor:
    """(B,) int64 on the CPU: the steps up to the first scored one, where the first symbol of the answer is due."""
    return batch.scored.int().argmax(1).cpu() + 1


@torch.no_grad()
def decode(predictor: Predictor, batch: SequenceBatch, decoding: Decoding) -> Tensor:
    """(B, U) int64 on the CPU, padded with -1: the likeliest symbols, one by one, until ``stop`` or ``max_steps``.

    The input's vocabulary must be the target's, for each answer is the next input.
    """
    lengths = prompt_lengths(batch)
    answers = torch.full((len(batch), decoding.max_steps), -1)
    open_rows = torch.ones(len(batch), dtype=torch.bool)
    prompt = batch.inputs[:, : int(lengths.max())]
    for u, chosen in enumerate(islice(_chosen(predictor, prompt, lengths, _likeliest), decoding.max_steps)):
        symbols = chosen.cpu()  # (B,)
        open_rows &= symbols != decoding.stop
        answers[open_rows, u] = symbols[open_rows]
        if not open_rows.any():
            break
    return answers[:, : max(1, int((answers >= 0).sum(1).max()))]


def constant_answer(constant: Tensor, n: int, decoding: Decoding) -> Tensor:
    """(B, U) int64: what `decode` gives for n sequences and a predictor whose outputs are always ``constant``, (K,)."""
    symbol = int(constant.argmax())
    return torch.full((n, 1), -1) if symbol == decoding.stop else torch.full((n, decoding.max_steps), symbol)


@torch.no_grad()
def sample(
    predictor: Predictor,
    target: TargetSpec,
    prompt: Tensor,
    n_steps: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """n_steps further inputs drawn one by one: (B, P) int64 or (B, P, C) prompt → (B, n_steps) or (B, n_steps, C).

    For targets that are the inputs' future: Classes are drawn by their probabilities, Binary frames key by key.
    temperature: divides the logits; below 1 the likelier is favoured. generator: a CPU one.
    """
    if not target.future or not isinstance(target, Classes | Binary):
        raise ValueError("only classes and frames that are the inputs' own future can be sampled")

    def draw(outputs: Tensor) -> Tensor:
        logits = outputs.double().cpu() / temperature  # (B, K)
        if isinstance(target, Binary):
            return torch.bernoulli(logits.sigmoid(), generator=generator).to(prompt)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].to(prompt)

    lengths = torch.full((len(prompt),), prompt.shape[1])
    return torch.stack(list(islice(_chosen(predictor, prompt, lengths, draw), n_steps)), dim=1)


def _likeliest(outputs: Tensor) -> Tensor:
    return outputs.argmax(-1)


def _chosen(
    predictor: Predictor, prompt: Tensor, lengths: Tensor, choose: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """What ``choose`` makes of the outputs (B, K) after the prompt, then after each of its own choices, for ever."""
    was_training = predictor.training
    predictor.eval()
    try:
        outputs, state = predictor(prompt, None, lengths)  # (B, P, K)
        last = outputs[torch.arange(len(prompt)), lengths - 1]  # (B, K)
        while True:
            choice = choose(last)
            yield choice
            outputs, state = predictor(choice.unsqueeze(1), state)  # (B, 1) or (B, 1, C) → (B, 1, K)
            last = outputs[:, 0]
    finally:
        predictor.train(was_training)
