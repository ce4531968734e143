"""Interpolated n-gram: class frequencies after the last few symbols, longer contexts smoothed by shorter ones.

Witten & Bell 1991, doi:10.1109/18.87000, method C, in the interpolated form of Chen & Goodman 1999,
doi:10.1006/csla.1999.0128. With h_j the last j symbols (the present one included), c(h_j, y) the times that y was the class
after them, c(h_j) the sum of these and n(h_j) the number of different classes seen,

    p_j(y | h_j) = (c(h_j, y) + n(h_j) p_(j-1)(y | h_(j-1))) / (c(h_j) + n(h_j))        p_(-1)(y) = 1 / K

A context never seen leaves p_(j-1) as it is. The same formula predicts the next symbol and tags the present one. With j at
most 1 that is the most frequent tag of each symbol, the usual baseline of taggers, a model of its own here.

A context is numbered by its place among those seen that share its length, found by bisection from the number of the context
one symbol shorter and the symbol before that; so tables hold what was seen, whatever V^j is, and nothing loops over
sequences or steps. Before the beginning stands the extra symbol V.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State
from models.sequences import Classes, InputSpec, SequenceBatch, TargetSpec, TokenInput
from models.windows import blank_padding, remember

BLOCK = 2**22
"""Probabilities computed at a time when judging on validation; it bounds memory."""


@dataclass(frozen=True)
class NGramConfig:
    """order: symbols of context at most; validation chooses fewer where more do not help."""

    order: int = 8

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ValueError(f"order must be at least 1, got {self.order}")


class Contexts(nn.Module):
    """The contexts of one length, and the classes seen after each. M contexts, E pairs of context and class.

    keys: (M,) sorted, made of the shorter context and the symbol before it. starts: (M + 1,) where the pairs of each
    context begin. classes, counts: (E,).
    """

    keys: Tensor
    starts: Tensor
    classes: Tensor
    counts: Tensor

    def __init__(self, keys: Tensor, starts: Tensor, classes: Tensor, counts: Tensor) -> None:
        super().__init__()
        for name, table in (("keys", keys), ("starts", starts), ("classes", classes), ("counts", counts)):
            self.register_buffer(name, table)

    @classmethod
    def counted(cls, keys: Tensor, answers: Tensor, n_classes: int) -> tuple[Contexts, Tensor]:
        """From the keys and classes (N,) of training steps; also gives the number of each step's context, (N,)."""
        seen, numbers = keys.unique(return_inverse=True)  # (M,), (N,)
        pairs, counts = (numbers * n_classes + answers).unique(return_counts=True)  # (E,), sorted by context
        starts = torch.searchsorted(pairs, torch.arange(len(seen) + 1) * n_classes)
        return cls(seen, starts, pairs % n_classes, counts.double()), numbers

    def find(self, keys: Tensor) -> Tensor:
        """(N,) keys → (N,) numbers of their contexts, -1 where a context was never seen."""
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[places] == keys, places, -1)

    def refine(self, shorter: Tensor, numbers: Tensor) -> Tensor:
        """p_(j-1) of N steps, (N, K), and the numbers of their contexts, (N,) → p_j (N, K)."""
        place = numbers.clamp(min=0)
        first = self.starts[place]  # (N,)
        n_kinds = torch.where(numbers >= 0, self.starts[place + 1] - first, 0)  # (N,)
        rows = torch.arange(len(numbers), device=numbers.device).repeat_interleave(n_kinds)  # (pairs of all N steps,)
        within = torch.arange(len(rows), device=rows.device) - (n_kinds.cumsum(0) - n_kinds)[rows]
        pairs = first[rows] + within
        seen = torch.zeros_like(shorter)
        seen[rows, self.classes[pairs]] = self.counts[pairs]
        weight = n_kinds.clamp(min=1)[:, None]  # for a context never seen, c = 0 and any weight leaves p_(j-1)
        return (seen + weight * shorter) / (seen.sum(1, keepdim=True) + weight)


class NGram(SelfFitting):
    """The outputs are log p_k, k being the order that validation chose. State: the last order - 1 symbols."""

    causal = True
    beginning: Tensor

    def __init__(self, inputs: TokenInput, target: Classes, config: NGramConfig) -> None:
        super().__init__()
        self.vocabulary, self.n_classes, self.order = inputs.vocabulary, target.n, config.order
        self.contexts = nn.ModuleList()  # by length, from 0
        self.register_buffer("beginning", torch.full((config.order - 1,), inputs.vocabulary))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        past = self.initial_state(len(inputs))[0] if state is None else state[0]
        inputs = blank_padding(inputs, lengths)
        histories = self._histories(inputs, past).flatten(0, 1)  # (B, T, order) → (N, order)
        probabilities = self._uniform(histories)
        for longer in self._by_order(histories):
            probabilities = longer
        outputs = probabilities.log().view(*inputs.shape, -1)  # (N, K) → (B, T, K)
        after = remember(past[..., None], inputs[..., None], self.order - 1, lengths)[..., 0]  # (B, order - 1)
        return outputs.to(torch.get_default_dtype()), (after,)

    def initial_state(self, batch_size: int) -> State:
        return (self.beginning.expand(batch_size, -1),)

    def state_bytes(self, t: int) -> int:
        return self.beginning.numel() * self.beginning.element_size()

    def parameter_counts(self) -> ParameterCounts:
        """The counts that are not zero, of the contexts of every length in use."""
        return ParameterCounts(backbone=sum(len(table.counts) for table in self._tables()))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Counts at the scored steps of ``train``; validation chooses the order. Needs no chance."""
        histories, answers = self._steps(train)
        numbers = torch.zeros(len(answers), dtype=torch.int64)
        self.contexts = nn.ModuleList()
        for j in range(self.order + 1):
            table, numbers = Contexts.counted(self._keys(histories, numbers, j), answers, self.n_classes)
            self.contexts.append(table)
        losses = torch.zeros(self.order + 1, dtype=torch.float64)
        block = max(1, BLOCK // self.n_classes)
        for part, right in zip(*(steps.split(block) for steps in self._steps(validation)), strict=True):
            for j, probabilities in enumerate(self._by_order(part)):
                losses[j] -= probabilities.gather(1, right[:, None]).log().sum()
        self.contexts = self.contexts[: int(losses.argmin()) + 1]

    def _by_order(self, histories: Tensor) -> Iterator[Tensor]:
        """p_0, p_1, … of the histories (N, order), each (N, K)."""
        numbers, probabilities = torch.zeros_like(histories[:, 0]), self._uniform(histories)
        for j, table in enumerate(self._tables()):
            numbers = table.find(self._keys(histories, numbers, j))
            probabilities = table.refine(probabilities, numbers)
            yield probabilities

    def _keys(self, histories: Tensor, numbers: Tensor, j: int) -> Tensor:
        """(N,) keys of the contexts of j symbols, from the numbers of those of j - 1; -1 after one never seen."""
        if j == 0:
            return torch.zeros_like(numbers)
        return torch.where(numbers >= 0, numbers * (self.vocabulary + 1) + histories[:, -j], -1)

    def _tables(self) -> list[Contexts]:
        return cast(list[Contexts], list(self.contexts))

    def _uniform(self, histories: Tensor) -> Tensor:
        return torch.full((len(histories), self.n_classes), 1 / self.n_classes, device=histories.device).double()

    def _steps(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Histories (N, order) and classes (N,) of the scored steps."""
        (past,) = self.initial_state(len(batch))
        return self._histories(batch.inputs, past)[batch.scored], batch.targets[batch.scored]

    def _histories(self, inputs: Tensor, past: Tensor) -> Tensor:
        """(B, T, order): the symbols up to each step, the newest last."""
        return torch.cat([past, inputs], 1).unfold(1, self.order, 1)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if not isinstance(inputs, TokenInput):
        return "an n-gram counts symbols, and these inputs are real values"
    if not isinstance(target, Classes):
        return f"an n-gram gives one class at a step, not {type(target).__name__.lower()} targets"
    if target.scope == "sequence":
        return "an n-gram sees the last few symbols, and the class of a whole sequence may depend on all of them"
    return None


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: NGramConfig) -> Predictor:
    if not isinstance(inputs, TokenInput) or not isinstance(target, Classes) or target.scope == "sequence":
        raise ValueError(_refuses(inputs, target, causal))
    return NGram(inputs, target, config)


@dataclass(frozen=True)
class FrequentTagConfig:
    """Nothing to choose."""


def _refuses_but_tags(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    refusal = _refuses(inputs, target, causal)
    if refusal is None and target.future:
        return "tags the present symbol, and the next one is asked for"
    return refusal


def _build_tagger(inputs: InputSpec, target: TargetSpec, causal: bool, config: FrequentTagConfig) -> Predictor:
    # The present symbol and no other: contexts of one symbol and of none.
    return _build(inputs, target, causal, NGramConfig(order=1))


ENTRIES = [
    ModelEntry(
        name="ngram",
        family="non-neural",
        config=NGramConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Witten & Bell 1991, doi:10.1109/18.87000; Chen & Goodman 1999, doi:10.1006/csla.1999.0128",
        summary="counts of classes after the last few symbols, each context smoothed by the one a symbol shorter",
        refuses=_refuses,
        search_space={"order": Choice((2, 4, 8, 12))},
        state="order - 1",
    ),
    ModelEntry(
        name="frequent_tag",
        family="non-neural",
        config=FrequentTagConfig(),
        build=_build_tagger,
        fit=Fit.OWN,
        source="Charniak, Hendrickson, Jacobson & Perkowitz 1993, AAAI; smoothed as the n-gram",
        summary="the most frequent tag of each symbol, smoothed by the frequencies of all tags",
        refuses=_refuses_but_tags,
    ),
]
