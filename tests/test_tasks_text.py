"""Tasks on text: next symbols and classes of sentences, against the files, plain Python and scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.decoding import sample
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import torch_generator
from benchmarks.tasks import counted, text_files
from benchmarks.tasks.registry import task
from benchmarks.tasks.sentences import TextClassTask
from benchmarks.tasks.task import Task
from benchmarks.tasks.text import StreamTask, streams
from benchmarks.tasks.vocabulary import UNKNOWN, Vocabulary, one_class_each
from models import registry
from models.sequences import Classes, SequenceBatch, TokenInput


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not datasets.is_here(name)]
    return pytest.mark.skipif(bool(missing), reason=f"RNNBENCH_DATA lacks {', '.join(missing)}")


def spelt(built: Task, row: torch.Tensor, length: int) -> list[str]:
    names = built.input_symbols
    assert names is not None
    return [names[token] for token in row[:length].tolist()]


@given(st.integers(3, 200), st.integers(1, 12))
def test_streams_have_every_symbol_but_the_first_as_a_target_once_and_in_order(n_tokens: int, n: int) -> None:
    n = min(n, n_tokens - 1)
    tokens = np.arange(n_tokens)
    batch = streams(tokens, n)
    batch.validate()
    assert batch.targets[batch.scored].tolist() == list(range(1, n_tokens))
    assert batch.inputs[batch.scored].tolist() == list(range(n_tokens - 1))
    assert len(batch) == n and int(batch.lengths.max() - batch.lengths.min()) <= 1


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcde"), max_size=40), st.integers(1, 6), st.integers(1, 3))
def test_a_vocabulary_holds_the_most_frequent_words_and_one_symbol_for_all_others(
    words: list[str], size: int, least: int
) -> None:
    vocabulary = Vocabulary.of_words([*words, UNKNOWN], size, least)
    counts = Counter(words)
    assert (
        vocabulary.symbols[0] == UNKNOWN and len(vocabulary) <= size and len(set(vocabulary.symbols)) == len(vocabulary)
    )
    kept = set(vocabulary.symbols[1:])
    left = {word for word in counts if word not in kept and counts[word] >= least}
    assert all(counts[word] >= least for word in kept)
    assert not left or (
        len(vocabulary) == size and max(counts[w] for w in left) <= min((counts[w] for w in kept), default=99)
    )
    assert [vocabulary.symbols[i] for i in vocabulary.encode(words)] == [w if w in kept else UNKNOWN for w in words]


def test_a_vocabulary_without_unknown_words_refuses_them() -> None:
    with pytest.raises(KeyError):
        Vocabulary(("a",)).encode("b")


def test_one_class_each_stands_at_the_last_step() -> None:
    batch = one_class_each([np.array([3, 1]), np.array([2, 2, 2])], np.array([1, 0]))
    batch.validate()
    assert batch.inputs.tolist() == [[3, 1, 0], [2, 2, 2]] and batch.targets.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert batch.scored.tolist() == [[False, True, False], [False, False, True]]


def joined(built: Task, batch: SequenceBatch) -> list[str]:
    """The symbols of a batch of streams, with the target after the last."""
    assert built.symbols is not None
    text = [built.symbols[token] for token in batch.inputs[batch.scored].tolist()]
    return [*text, built.symbols[int(batch.targets[batch.scored][-1])]]


@needs("tinyshakespeare")
def test_characters_are_the_plays_in_order_with_test_at_the_end() -> None:
    built = task("characters", {})
    text = datasets.path("tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    assert len(text) == 1_115_394 and len(set(text)) == 65 and built.symbols == tuple(sorted(set(text)))
    train, validation, test = ("".join(joined(built, batch)) for batch in built.splits(0))
    assert validation == text[953_854:1_003_854] and test == text[1_003_854:] and train == text[3_854:953_854]
    assert built.window == 64 and built.problem.window == 64


@needs("wikitext2_valid_test")
def test_words_small_learns_from_one_file_and_is_tested_on_the_other() -> None:
    built = task("words_small", {"n_words": 50, "n_test": 245_569})
    names = ("valid.txt", "test.txt")
    files = [datasets.path("wikitext2_valid_test", name).read_text(encoding="utf-8") for name in names]
    words = [file.replace("\n", " <eos> ").split() for file in files]
    assert [len(x) for x in words] == [217_646, 245_569]
    kept = {word for word, _ in Counter(words[0]).most_common(50)}  # <unk> among them
    assert set(built.symbols or ()) == kept
    capped = [[word if word in kept else UNKNOWN for word in x] for x in words]
    train, validation, test = (joined(built, batch) for batch in built.splits(0))
    assert train == capped[0][:197_646] and validation == capped[0][197_646:] and test == capped[1]
    short = task("words_small", {"n_words": 50, "n_test": 1_000})
    assert joined(short, short.splits(0).test) == capped[1][:1_000]


@needs("names_makemore")
def test_names_are_different_whole_and_in_one_split_alone() -> None:
    data = datasets.path("names_makemore", "names.txt").read_bytes()
    assert len(text_files.lines(data, "names.txt")) == 32_033
    built = task("names", {"n_train": 99_999})
    parts = []
    for batch in built.splits(0):
        assert torch.equal(batch.targets[:, :-1][batch.scored[:, 1:]], batch.inputs[:, 1:][batch.scored[:, 1:]])
        ends = batch.targets[torch.arange(len(batch)), batch.lengths - 1]
        assert not ends.any() and not batch.inputs[:, 0].any()  # the dot
        parts.append(["".join(spelt(built, *x)[1:]) for x in zip(batch.inputs, batch.lengths.tolist(), strict=True)])
    assert [len(part) for part in parts] == [23_891, 2_654, 2_949]
    every = [name for part in parts for name in part]
    assert len(set(every)) == len(every) == 29_494 and set(every) == set(text_files.lines(data, "names.txt"))
    assert len(task("names", {"n_train": 100}).splits(0).train) == 100


STREAMS = [
    ("characters", "tinyshakespeare", {"n_train": 5_000}),
    ("words_small", "wikitext2_valid_test", {"n_words": 99, "n_test": 3_000}),
]


@pytest.mark.parametrize(("name", "data", "parameters"), STREAMS)
def test_the_floor_of_a_stream_is_its_symbol_frequencies(name: str, data: str, parameters: dict[str, int]) -> None:
    if not datasets.is_here(data):
        pytest.skip(f"RNNBENCH_DATA lacks {data}")
    built = task(name, parameters)
    train, _, test = (batch.targets[batch.scored].numpy() for batch in built.splits(0))
    counts = np.bincount(train, minlength=built.target.n_outputs) + 0.5
    nats = -np.log(counts / counts.sum())[test].mean()
    expected = {"bits_per_character": nats / math.log(2), "perplexity": math.exp(nats)}[built.metrics[0].name]
    assert built.floor(0) == pytest.approx(expected, rel=1e-6)


def test_too_long_a_part_of_a_text_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"characters: n_train \+ n_validation must be at most 1003854"):
        task("characters", {"n_train": 1_000_000})
    with pytest.raises(InvalidParameter, match="words_small: n_streams must be below n_train and n_validation, got 40"):
        task("words_small", {"n_validation": 40, "n_streams": 40})
    with pytest.raises(InvalidParameter, match="words_small: n_words must be an integer of at least 2"):
        task("words_small", {"n_words": 1})


@needs("tinyshakespeare")
def test_text_is_drawn_from_a_model_of_characters() -> None:
    built = task("characters", {"n_train": 2_000})
    assert isinstance(built, StreamTask) and isinstance(built.target, Classes)
    predictor = registry.build(
        registry.entry("ngram"), built.input, built.target, True, registry.entry("ngram").config, 0
    )
    splits = built.splits(0)
    predictor.fit(splits.train, splits.validation, torch.Generator())  # type: ignore[operator]
    prompt = splits.test.inputs[:2, :10]
    drawn = sample(predictor, built.target, prompt, 50, torch_generator("sample"))
    assert drawn.shape == (2, 50) and torch.equal(
        drawn, sample(predictor, built.target, prompt, 50, torch_generator("sample"))
    )
    assert int(drawn.min()) >= 0 and int(drawn.max()) < 65


CLASSES = ("sentiment", "subjectivity", "intent", "surnames")
SETS = {"sentiment": "mr_subj_nltk", "subjectivity": "mr_subj_nltk", "intent": "banking77", "surnames": "names_18lang"}
every_set = pytest.mark.parametrize("name", [pytest.param(name, marks=needs(SETS[name])) for name in CLASSES])


def rows(name: str) -> list[list[tuple[tuple[str, ...], int]]]:
    """Development and test as symbols and class."""
    built = task(name, {})
    assert isinstance(built, TextClassTask)
    return [list(zip(part.rows, part.labels.tolist(), strict=True)) for part in built.parts()]


@every_set
def test_no_text_is_in_two_splits_or_twice_in_one(name: str) -> None:
    development, test = rows(name)
    assert not {row for row, _ in development} & {row for row, _ in test}
    assert len(set(development)) == len(development)
    if name != "intent":  # whose test split is as published
        assert len(set(test)) == len(test)
    sizes = [len(batch) for batch in task(name, {}).splits(1)]
    assert sizes[0] + sizes[1] == len(development) and sizes[2] == len(test)


@every_set
def test_validation_is_a_tenth_of_every_class(name: str) -> None:
    built = task(name, {})
    train, validation, _ = (
        torch.bincount(batch.targets[batch.scored], minlength=built.target.n_outputs) for batch in built.splits(2)
    )
    share = validation / (train + validation)
    assert share.min() >= 0.04 and share.max() <= 0.17  # rounded; among surnames, names of several languages move it
    assert validation.sum() / (train + validation).sum() == pytest.approx(0.1, abs=0.01)


def test_the_vocabulary_and_the_test_split_ignore_the_seed() -> None:
    for name in CLASSES:
        if datasets.is_here(SETS[name]):
            first, second = task(name, {}).splits(0), task(name, {}).splits(1)
            assert torch.equal(first.test.inputs, second.test.inputs)
            assert first.train.inputs.shape != second.train.inputs.shape or not torch.equal(
                first.train.inputs, second.train.inputs
            )


@needs("mr_subj_nltk")
def test_the_sentences_of_pang_and_lee_are_all_there() -> None:
    for name, n in (("sentiment", 5_331), ("subjectivity", 5_000)):
        development, test = rows(name)
        assert Counter(label for _, label in development + test) == {0: n, 1: n}
        assert Counter(label for _, label in test) == {0: round(n / 10), 1: round(n / 10)}
    assert ("simplistic", ",", "silly", "and", "tedious", ".") in {row for part in rows("sentiment") for row, _ in part}


@needs("banking77")
def test_the_queries_of_banking77_keep_their_own_test_split() -> None:
    for file, n in (("train.csv", 10_003), ("test.csv", 3_080)):
        assert len(text_files.labelled_texts(datasets.path("banking77", file).read_bytes(), file)) == n
    development, test = rows("intent")
    assert len(development) == 10_003 - 16 and len(test) == 3_080
    assert set(Counter(label for _, label in test).values()) == {40}
    assert (("how", "do", "i", "locate", "my", "card", "?"), 0) in test  # the first intent of categories.json


@needs("names_18lang")
def test_all_pairs_of_a_surname_are_in_one_split_and_balanced_accuracy_is_exact_on_test() -> None:
    built = task("surnames", {})
    development, test = rows("surnames")
    every = development + test
    assert len(every) == len(set(every)) == 18_012
    languages = Counter(label for _, label in every)
    assert languages[14] == 9_340 and languages[17] == 71 and len(languages) == 18  # Russian, Vietnamese
    several = [name for name, n in Counter(name for name, _ in every).items() if n > 1]
    assert len(several) == 469 and len({name for name, _ in every}) == 17_450
    splits = built.splits(0)
    parts = [{"".join(spelt(built, *x)) for x in zip(b.inputs, b.lengths.tolist(), strict=True)} for b in splits]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    metric, batch = built.metrics[1], splits.test
    always_russian = torch.zeros(*batch.inputs.shape, 18)
    always_russian[..., 14] = 1
    assert metric.name == "balanced_accuracy"
    assert metric.value(metric.parts(always_russian, batch)) == pytest.approx(1 / 18)


def test_naive_bayes_is_that_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.naive_bayes import MultinomialNB
    generator = np.random.default_rng(0)
    texts = [tuple(generator.choice(list("abcdefgh"), generator.integers(1, 8))) for _ in range(200)]
    labels = np.concatenate([np.arange(3), generator.integers(0, 3, 97)])
    counter = CountVectorizer(analyzer=lambda row: sorted(counted.pieces(row, 2)))  # each piece once
    model = MultinomialNB(alpha=1.0).fit(counter.fit_transform(texts[:100]), labels)
    expected = model.predict(counter.transform(texts[100:]))
    assert counted.naive_bayes(texts[:100], labels, texts[100:], 2).tolist() == expected.tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_the_interpolated_n_gram_follows_its_recursion(
    known: list[list[int]], asked: list[list[int]], order: int
) -> None:
    def probability(context: tuple[int, ...], symbol: int) -> float:
        shorter = probability(context[1:], symbol) if context else 1 / 4
        n = len(context)
        after = Counter(
            row[t] for row in known for t in range(1, len(row)) if tuple([4] * n + row)[t : t + n] == context
        )
        total = sum(after.values())
        return (after[symbol] + len(after) * shorter) / (total + len(after)) if total else shorter

    nats = [
        -math.log(probability(tuple([4] * order + row)[t : t + order], row[t]))
        for row in asked
        for t in range(1, len(row))
    ]
    ours = counted.next_symbol_nats([np.array(row) for row in known], [np.array(row) for row in asked], order, 4)
    assert ours == pytest.approx(np.mean(nats))


def test_the_n_gram_refuses_contexts_that_it_cannot_number() -> None:
    with pytest.raises(ValueError, match="cannot be numbered in 64 bits"):
        counted.next_symbol_nats([np.array([0, 1])], [np.array([0, 1])], 8, 5_000)


def test_token_inputs_have_the_size_of_their_vocabulary() -> None:
    for name in CLASSES:
        if datasets.is_here(SETS[name]):
            built = task(name, {})
            assert isinstance(built.input, TokenInput)
            assert len(built.input_symbols or ()) == built.input.vocabulary
