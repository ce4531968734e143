"""What models are asked: the specs of inputs and targets, and sequences of unequal length in one batch.

Letters in shapes are those of `models.contract`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Scope = Literal["step", "sequence"]


@dataclass(frozen=True)
class RealInput:
    """Real-valued channels: inputs are (B, T, C) float.

    channels: C. max_length: the longest sequence the task will ever pass, or None where there is no bound.
    features: D, the width of the encoder's output and of the read-out's input. The task fixes it, so that a large
    vocabulary or horizon cannot eat a model's parameter budget. masks: channels that only say, 1 or 0, whether a value
    is known or carried forward. A model of the inputs' density leaves them out: one that never changes in a class
    would have an infinite density there, and outweigh all that was measured.
    """

    channels: int
    max_length: int | None = None
    features: int = 32
    masks: tuple[int, ...] = ()

    @property
    def measured(self) -> tuple[int, ...]:
        """The channels that are no masks."""
        return tuple(channel for channel in range(self.channels) if channel not in self.masks)


@dataclass(frozen=True)
class TokenInput:
    """Symbols 0 … V-1: inputs are (B, T) int64. Fields as in `RealInput`; vocabulary: V."""

    vocabulary: int
    max_length: int | None = None
    features: int = 32


InputSpec = RealInput | TokenInput


@dataclass(frozen=True)
class Classes:
    """One of n classes at every scored step: targets (B, T) int64, outputs (B, T, n) logits, cross-entropy in nats.

    future: the class is the input's own next symbol, so n = V and y_t = x_(t+1). Markov and counting models need to
    know this; others need not.
    """

    n: int
    scope: Scope = "step"
    future: bool = False

    @property
    def n_outputs(self) -> int:
        return self.n

    def loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        return F.cross_entropy(batch.at_scored(outputs), batch.at_scored(batch.targets))

    def best_constant(self, batch: SequenceBatch) -> Tensor:
        """(n,) float64: `log_frequencies`."""
        return log_frequencies(batch.targets[batch.scored], self.n)


@dataclass(frozen=True)
class Binary:
    """n independent yes/no answers: targets (B, T, n) float in {0, 1}, outputs logits, Bernoulli loss in nats per step."""

    n: int
    scope: Scope = "step"
    future: bool = False

    @property
    def n_outputs(self) -> int:
        return self.n

    def loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            batch.at_scored(outputs), batch.at_scored(batch.targets), reduction="none"
        )  # (N, n)
        return losses.sum(-1).mean()

    def best_constant(self, batch: SequenceBatch) -> Tensor:
        """(n,) float64: the logit of each base rate, with half a count added to either side."""
        targets = batch.targets[batch.scored]  # (N, n)
        rates = (targets.double().sum(0) + 0.5) / (len(targets) + 1)
        return rates.logit()


@dataclass(frozen=True)
class Real:
    """n real values: targets and outputs (B, T, n) float, mean squared error.

    future: the values are the next ``n / C`` steps of the C input channels, step-major, each as the difference from the
    last value of its channel, in the inputs' own units. Zero is then the last-value forecast.
    """

    n: int
    scope: Scope = "step"
    future: bool = False

    @property
    def n_outputs(self) -> int:
        return self.n

    def loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        return F.mse_loss(batch.at_scored(outputs), batch.at_scored(batch.targets))

    def best_constant(self, batch: SequenceBatch) -> Tensor:
        """(n,) float64: the mean, or zero, the last-value forecast, where the targets are differences."""
        mean = batch.targets[batch.scored].double().mean(0)
        return torch.zeros_like(mean) if self.future else mean


@dataclass(frozen=True)
class Transcript:
    """A shorter string of n symbols without alignment: targets (B, U) int64 in 1 … n, padded with -1.

    Outputs are (B, T, n + 1) logits with blank 0; the loss is CTC (Graves et al. 2006) over the valid steps, in nats
    per target symbol. The one exception to "y_t at the scored steps"; ``batch.target_lengths`` must be set.
    """

    n: int
    scope: Scope = "step"
    future: Literal[False] = False

    @property
    def n_outputs(self) -> int:
        return self.n + 1

    def loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        if batch.target_lengths is None:
            raise ValueError("a Transcript needs target_lengths in its batch")
        return F.ctc_loss(
            outputs.log_softmax(-1).transpose(0, 1),  # (B, T, K) → (T, B, K)
            batch.targets.clamp(min=0),
            batch.lengths,
            batch.target_lengths,
            zero_infinity=True,
        )

    def best_constant(self, batch: SequenceBatch) -> Tensor:
        """(n + 1,) float64: always blank, the empty transcript."""
        return F.one_hot(torch.tensor(0), self.n + 1).double()


@dataclass(frozen=True)
class Actions:
    """One of n actions at every step of an episode, learned from rewards alone.

    Outputs are (B, T, n + 1): the logits of the actions and, last, the value, the discounted mean of the rewards expected from
    there on. Targets are (B, T, 5) float, in the order of `Step`: what happened when the episode was played.

    The loss is that of proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), with r = p(action) now over then:

        - min(r advantage, clamp(r, 1 - clip, 1 + clip) advantage) + value_weight (value - return)² - entropy_weight entropy

    in the mean over steps.
    """

    n: int
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    scope: Literal["step"] = "step"
    future: Literal[False] = False

    @property
    def n_outputs(self) -> int:
        return self.n + 1

    def loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        action, _, before, advantage, value = batch.targets[batch.scored].unbind(-1)  # (N,) each
        log_p = outputs[batch.scored][:, :-1].log_softmax(-1)  # (N, n)
        ratio = (log_p.gather(1, action.long()[:, None])[:, 0] - before).exp()  # (N,)
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
        error = (outputs[batch.scored][:, -1] - value).square()
        entropy = -(log_p.exp() * log_p).sum(-1)
        return (self.value_weight * error - gain - self.entropy_weight * entropy).mean()

    def best_constant(self, batch: SequenceBatch) -> Tensor:
        """(n + 1,) float64: every action as likely as another, and the mean return."""
        value = batch.targets[batch.scored][:, Step.RETURN].double().mean()
        return torch.cat([value.new_zeros(self.n), value[None]])


class Step(IntEnum):
    """What is known of one step of an episode: the last dimension of the targets of `Actions`.

    ACTION, the one taken, 0 … n-1. REWARD, received for it. LOG_PROBABILITY, of the action when it was taken. ADVANTAGE, how
    much better than expected it went on, over all steps with mean 0 and deviation 1. RETURN, the value to learn.
    """

    ACTION = 0
    REWARD = 1
    LOG_PROBABILITY = 2
    ADVANTAGE = 3
    RETURN = 4


def log_frequencies(classes: Tensor, n: int) -> Tensor:
    """(N,) classes 0 … n-1 → (n,) float64, with half a count added to each so that none is infinite."""
    counts = torch.bincount(classes, minlength=n).double() + 0.5
    return (counts / counts.sum()).log()


TargetSpec = Classes | Binary | Real | Transcript | Actions


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences of unequal length, padded once with zeros.

    inputs: (B, T, C) float or (B, T) int64. targets: (B, T) int64 or (B, T, n) float; (B, U) for a Transcript, (B, T, 5) for
    Actions.
    lengths: (B,) int64 on the CPU, 1 ≤ lengths ≤ T. scored: (B, T) bool, true at the steps that count, all of them valid
    steps; for ``scope="sequence"`` the last valid step alone. target_lengths: (B,) for a Transcript, else None. places: rows
    and steps of what is scored, (N,) int64 each, for those who must not wait for a GPU to count them; else None.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    scored: Tensor
    target_lengths: Tensor | None = None
    places: tuple[Tensor, ...] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def select(self, index: Tensor) -> SequenceBatch:
        """The sequences at ``index`` (int64, on the CPU), cut to the longest of them."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        index = index.to(self.inputs.device)
        transcript = self.target_lengths is not None
        return SequenceBatch(
            inputs=self.inputs[index, :longest],
            targets=self.targets[index] if transcript else self.targets[index, :longest],
            lengths=lengths,
            scored=self.scored[index, :longest],
            target_lengths=None if self.target_lengths is None else self.target_lengths[index.cpu()],
        )

    def windows(self, n_steps: int | None) -> Iterator[SequenceBatch]:
        """The batch cut in time into pieces of n_steps, each with the valid steps that fall into it; None: in one piece."""
        longest = self.inputs.shape[1]
        if n_steps is None or n_steps >= longest:
            yield self
            return
        if self.target_lengths is not None:
            raise ValueError("a transcript has no place in time at which it could be cut")
        for start in range(0, longest, n_steps):
            steps = slice(start, start + n_steps)
            width = min(n_steps, longest - start)
            yield SequenceBatch(
                inputs=self.inputs[:, steps],
                targets=self.targets[:, steps],
                lengths=(self.lengths - start).clamp(0, width),
                scored=self.scored[:, steps],
            )

    def to(self, device: torch.device) -> SequenceBatch:
        """Inputs, targets and mask on ``device``; lengths stay on the CPU, where packing and control flow need them."""
        return replace(
            self, inputs=self.inputs.to(device), targets=self.targets.to(device), scored=self.scored.to(device)
        )

    def at_scored(self, values: Tensor) -> Tensor:
        """Of values (B, T, …) those at the scored steps, (N, …)."""
        return values[self.scored if self.places is None else self.places]

    def validate(self) -> None:
        """Raises ValueError naming the first broken promise of this class."""
        n, longest = self.inputs.shape[:2]
        valid = valid_steps(self.lengths, longest)
        if self.lengths.shape != (n,) or self.scored.shape != (n, longest):
            raise ValueError("lengths must be (B,) and scored (B, T)")
        if int(self.lengths.min()) < 1 or int(self.lengths.max()) > longest:
            raise ValueError(f"lengths must lie in 1 … {longest}")
        if bool((self.scored & ~valid).any()):
            raise ValueError("a padded step is scored")
        if self.inputs.is_floating_point() and not bool(self.inputs.isfinite().all()):
            raise ValueError("an input is not finite")
        if self.target_lengths is None and self.targets.shape[:2] != (n, longest):
            raise ValueError("targets must begin with (B, T)")


def valid_steps(lengths: Tensor, longest: int) -> Tensor:
    """(B,) lengths → (B, longest) bool, true before each sequence's end."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def last_steps(lengths: Tensor, longest: int) -> Tensor:
    """(B,) lengths → (B, longest) bool, true at the last valid step: ``scored`` for ``scope="sequence"``."""
    return torch.arange(longest, device=lengths.device) == lengths[:, None] - 1
