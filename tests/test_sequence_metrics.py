"""Metrics of text, against plain Python, scikit-learn, and the definitions of others computed another way."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import sequence_metrics
from benchmarks.metrics import cross_entropy
from benchmarks.sequence_metrics import balanced_accuracy, bits_per_character, entities, entity_f1, perplexity
from models.sequences import SequenceBatch, valid_steps


def batch(targets: list[list[int]], scored: torch.Tensor | None = None) -> SequenceBatch:
    lengths = torch.tensor([len(row) for row in targets])
    longest = int(lengths.max())
    values = torch.tensor([row + [0] * (longest - len(row)) for row in targets])
    return SequenceBatch(values, values, lengths, valid_steps(lengths, longest) if scored is None else scored)


def one_hot(answers: list[list[int]], n: int) -> torch.Tensor:
    longest = max(map(len, answers))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in answers])
    return torch.nn.functional.one_hot(rows, n).float()


def test_bits_and_perplexity_are_functions_of_the_cross_entropy() -> None:
    outputs, split = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)), batch([[0, 1, 2, 3], [4, 0]])
    nats = cross_entropy.value(cross_entropy.parts(outputs, split))
    assert bits_per_character.value(bits_per_character.parts(outputs, split)) == pytest.approx(nats / math.log(2))
    assert perplexity.value(perplexity.parts(outputs, split)) == pytest.approx(math.exp(nats))


def test_uniform_predictions_have_the_bits_and_the_perplexity_of_their_number() -> None:
    outputs, split = torch.zeros(1, 4, 8), batch([[0, 1, 2, 3]])
    assert bits_per_character.value(bits_per_character.parts(outputs, split)) == pytest.approx(3)
    assert perplexity.value(perplexity.parts(outputs, split)) == pytest.approx(8)


def test_a_perplexity_beyond_all_numbers_is_large_and_no_error() -> None:
    outputs = torch.tensor([[[0.0, 1e6]]])
    assert perplexity.value(perplexity.parts(outputs, batch([[0]]))) > 1e300


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_balanced_accuracy_is_that_of_scikit_learn(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.metrics import balanced_accuracy_score
    generator = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(4), generator.choice(4, 30, p=[0.7, 0.2, 0.05, 0.05])])
    outputs = torch.from_numpy(generator.normal(size=(34, 1, 4)))
    metric = balanced_accuracy(np.bincount(classes).tolist())
    split = batch([[int(k)] for k in classes])
    expected = balanced_accuracy_score(classes, outputs[:, 0].argmax(-1).numpy())
    assert metric.value(metric.parts(outputs, split)) == pytest.approx(expected)
    outputs[3] = math.nan
    assert math.isnan(metric.value(metric.parts(outputs, split)))


TAGS = ["O", "B-a", "I-a", "B-b", "I-b", "B-c", "I-c"]


def entities_by_text(tags: list[int]) -> set[tuple[int, int, str]]:
    """The rule of seqeval's default mode, on names of tags: a chunk goes on over I tags of its kind, and over no other."""
    found, row = set(), [TAGS[tag] for tag in tags]
    for first in range(len(row)):
        kind = row[first][2:]
        begins = row[first].startswith("B-") or (
            row[first].startswith("I-") and (first == 0 or row[first - 1][2:] != kind)
        )
        if begins:
            last = first
            while last + 1 < len(row) and row[last + 1] == f"I-{kind}":
                last += 1
            found.add((first, last, kind))
    return found


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15))
def test_entities_and_their_f1_follow_the_definition(pairs: list[tuple[int, int]]) -> None:
    true, predicted = map(list, zip(*pairs, strict=True))
    for row in (true, predicted):
        assert {(x.first, x.last, "abc"[x.kind]) for x in entities(row)} == entities_by_text(row)
    a, b = entities_by_text(true), entities_by_text(predicted)
    parts = entity_f1.parts(one_hot([predicted], 7), batch([true]))
    assert parts.over.tolist() == [2 * len(a & b)] and parts.under.tolist() == [len(a) + len(b)]
    if a & b:
        precision, recall = len(a & b) / len(b), len(a & b) / len(a)
        assert entity_f1.value(parts) == pytest.approx(2 * precision * recall / (precision + recall))


def test_entities_of_a_worked_example() -> None:
    # B-a I-a I-b O I-c B-c: an I of another kind begins anew, and so does a B beside its own kind.
    assert entities([1, 2, 4, 0, 6, 5]) == {(0, 1, 0), (2, 2, 1), (4, 4, 2), (5, 5, 2)}
    assert entities([]) == entities([0, 0]) == set()


def test_only_scored_steps_are_looked_at_and_a_nan_there_is_no_answer() -> None:
    split = batch([[1, 2, 0], [1]])
    outputs = one_hot([[1, 2, 0], [1, 1, 1]], 7)
    assert entity_f1.value(entity_f1.parts(outputs, split)) == 1
    outputs[1, 2] = math.nan  # padding
    assert entity_f1.value(entity_f1.parts(outputs, split)) == 1
    outputs[1, 0] = math.nan
    assert math.isnan(entity_f1.value(entity_f1.parts(outputs, split)))


def test_all_sentences_count_together() -> None:
    split = batch([[1, 0], [1, 0], [0, 0]])
    outputs = one_hot([[1, 0], [0, 1], [1, 0]], 7)
    assert entity_f1.value(entity_f1.parts(outputs, split)) == pytest.approx(2 * 1 / (3 + 2))


def distance(a: list[int], b: list[int]) -> int:
    """Levenshtein's, by its recursion over prefixes."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


words = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(words, st.one_of(words, st.just([]))), min_size=1, max_size=4))
def test_answers_are_compared_with_the_truth_without_its_stop(rows: list[tuple[list[int], list[int]]]) -> None:
    stop, longest = 0, max(len(answer) for _, answer in rows)
    # Two steps of question before each answer, which are not scored.
    split = batch([[3, 3, *truth, stop] for truth, _ in rows])
    split.scored[:, :2] = False
    answers = torch.tensor([answer + [-1] * (max(1, longest) - len(answer)) for _, answer in rows])
    match, edits = sequence_metrics.exact_match(stop), sequence_metrics.error_rate("character", stop)
    assert match.decoded and edits.decoded and edits.name == "character_error_rate"
    exact = [truth == answer for truth, answer in rows]
    assert match.value(match.parts(answers, split)) == pytest.approx(np.mean(exact))
    total = sum(distance(answer, truth) for truth, answer in rows)
    assert edits.value(edits.parts(answers, split)) == pytest.approx(total / sum(len(truth) for truth, _ in rows))
