"""The n-gram against a dictionary of counts."""

import itertools
import math
from collections import Counter, defaultdict

import pytest
import torch

from models.counting import ENTRIES, NGramConfig
from models.sequences import Classes, RealInput, SequenceBatch, TokenInput, valid_steps

ENTRY = ENTRIES[0]


def random_batch(n, length, vocabulary, n_classes, seed):
    """Sequences of unequal length whose classes depend on the last two symbols, mostly; some steps are not scored."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(vocabulary, (n, length), generator=generator)
    before = torch.cat([inputs[:, :1], inputs[:, :-1]], 1)
    noise = torch.randint(n_classes, (n, length), generator=generator)
    clear = torch.rand(n, length, generator=generator) < 0.8
    targets = torch.where(clear, (2 * inputs + before) % n_classes, noise)
    lengths = torch.randint(1, length + 1, (n,), generator=generator)
    scored = valid_steps(lengths, length) & (torch.rand(n, length, generator=generator) < 0.9)
    return SequenceBatch(inputs, targets, lengths, scored)


def fitted(train, validation, vocabulary, n_classes, order):
    predictor = ENTRY.build(TokenInput(vocabulary), Classes(n_classes), True, NGramConfig(order))
    predictor.fit(train, validation, torch.Generator())
    return predictor


def context(symbols, t, j):
    """The last j symbols up to step t, None before the beginning."""
    return tuple(symbols[i] if i >= 0 else None for i in range(t - j + 1, t + 1))


def counted(batch, order):
    counts = defaultdict(Counter)
    for b, t in batch.scored.nonzero().tolist():
        symbols = batch.inputs[b].tolist()
        for j in range(order + 1):
            counts[context(symbols, t, j)][int(batch.targets[b, t])] += 1
    return counts


def probability(counts, symbols, t, order, n_classes, y):
    p = 1 / n_classes
    for j in range(order + 1):
        seen = counts.get(context(symbols, t, j))
        if seen:
            p = (seen[y] + len(seen) * p) / (seen.total() + len(seen))
    return p


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_are_those_of_counts_in_a_dictionary(order):
    train, other = random_batch(30, 9, 7, 3, 0), random_batch(20, 9, 7, 3, 1)  # 49 pairs of symbols, some never seen
    predictor = fitted(train, other, 7, 3, order)
    counts = counted(train, order)
    losses = [
        -sum(
            math.log(probability(counts, other.inputs[b].tolist(), t, j, 3, int(other.targets[b, t])))
            for b, t in other.scored.nonzero().tolist()
        )
        for j in range(order + 1)
    ]
    chosen = losses.index(min(losses))
    outputs = predictor(other.inputs, None, other.lengths)[0].exp()
    for b, t in itertools.product(range(20), range(9)):
        if t < other.lengths[b]:
            expected = [probability(counts, other.inputs[b].tolist(), t, chosen, 3, y) for y in range(3)]
            assert outputs[b, t].tolist() == pytest.approx(expected, rel=1e-5)
    stored = [len(seen) for known, seen in counts.items() if len(known) <= chosen]
    assert predictor.parameter_counts().backbone == sum(stored)


def test_probabilities_sum_to_one_after_contexts_never_seen_and_for_classes_never_seen():
    train = random_batch(5, 4, 50, 3, 0)
    predictor = fitted(train, train, 50, 7, 3)
    outputs, _ = predictor.double()(torch.randint(50, (40, 20)))
    assert torch.allclose(outputs.exp().sum(-1), torch.ones(40, 20), atol=1e-6)
    assert outputs.isfinite().all()


def test_validation_chooses_the_order_of_the_source():
    train, other = random_batch(200, 20, 4, 4, 0), random_batch(50, 20, 4, 4, 1)
    predictor = fitted(train, other, 4, 4, 6)
    assert len(predictor.contexts) - 1 == 2
    assert predictor.state_bytes(100) == 5 * 8  # what is carried does not depend on what was learnt


def test_tables_hold_what_was_seen_however_many_contexts_there_could_be():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(10_000, (2, 60), generator=generator)
    batch = SequenceBatch(inputs, inputs % 3, torch.tensor([60, 60]), torch.ones(2, 60, dtype=torch.bool))
    predictor = fitted(batch, batch, 10_000, 3, 8)
    assert predictor.parameter_counts().backbone <= 9 * 120
    assert (predictor(inputs)[0].argmax(-1) == inputs % 3).all()


def test_what_it_cannot_do_is_refused():
    assert "real values" in ENTRY.refuses(RealInput(2), Classes(2), True)
    assert "whole sequence" in ENTRY.refuses(TokenInput(2), Classes(2, "sequence"), False)
    with pytest.raises(ValueError, match="real values"):
        ENTRY.build(RealInput(2), Classes(2), True, NGramConfig())
    with pytest.raises(ValueError, match="at least 1"):
        NGramConfig(order=0)


def test_each_symbol_has_the_tag_it_had_most_often_and_a_new_one_the_most_frequent_of_all():
    tagger = next(entry for entry in ENTRIES if entry.name == "frequent_tag")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(5, (200, 6), generator=generator)
    usual = torch.tensor([2, 0, 1, 0, 0])
    targets = torch.where(torch.rand(200, 6, generator=generator) < 0.8, usual[inputs], 2)
    lengths = torch.full((200,), 6)
    batch = SequenceBatch(inputs, targets, lengths, valid_steps(lengths, 6))
    predictor = tagger.build(TokenInput(6), Classes(3), False, tagger.config)
    predictor.fit(batch, batch, torch.Generator())
    counts = torch.zeros(5, 3, dtype=torch.float64)
    for symbol, tag in zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True):
        counts[symbol, tag] += 1
    overall = (counts.sum(0) + 1) / (counts.sum() + 3)  # three kinds of tag, smoothed by a third each
    kinds = (counts > 0).sum(1, keepdim=True)
    known = (counts + kinds * overall) / (counts.sum(1, keepdim=True) + kinds)
    outputs, state = predictor(torch.arange(6)[None])
    assert torch.allclose(outputs[0].double().exp(), torch.cat([known, overall[None]]), atol=1e-6)
    assert outputs[0, :5].argmax(1).tolist() == usual.tolist()
    assert predictor.state_bytes(6) == state[0].numel() == 0
    assert "next one" in tagger.refuses(TokenInput(5), Classes(5, future=True), True)
    assert "whole sequence" in tagger.refuses(TokenInput(5), Classes(5, "sequence"), True)
