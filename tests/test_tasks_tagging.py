"""Tasks of tagging, against the files and plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.tasks import text_files
from benchmarks.tasks.counted import usual_tags
from benchmarks.tasks.registry import task
from benchmarks.tasks.tagging import Corpus, TaggingTask, shape, without_repeats
from benchmarks.tasks.text_files import Tagged
from models.sequences import valid_steps

SETS = {
    "pos_atis": "ud_english_atis",
    "pos_ewt_small": "ud_english_ewt_r2.7_devtest",
    "entities": "wnut17",
    "pos_ewt": "ud_english_ewt_r2.7_train",
}


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not datasets.is_here(name)]
    return pytest.mark.skipif(bool(missing), reason=f"RNNBENCH_DATA lacks {', '.join(missing)}")


every_task = pytest.mark.parametrize("name", [pytest.param(name, marks=needs(data)) for name, data in SETS.items()])


def built(name: str) -> TaggingTask:
    found = task(name, {})
    assert isinstance(found, TaggingTask)
    return found


def sentences(*words: str) -> tuple[Tagged, ...]:
    return tuple(Tagged(tuple(row.split()), tuple("x" for _ in row.split())) for row in words)


def test_what_is_in_test_or_came_before_is_left_out_elsewhere() -> None:
    corpus = without_repeats(Corpus(sentences("a b", "c", "a b"), sentences("a b", "d", "d"), sentences("c", "c")))
    assert corpus == Corpus(sentences("a b"), sentences("d"), sentences("c", "c"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("1984", "<number>"), ("3.5", "<number>"), ("R2D2", "<letters and digits>"), ("@someone", "<@…>"), ("#tag", "<#…>"),
        ("http://t.co/x", "<address>"), ("...", "<marks>"), ("@", "<marks>"), ("NATO", "<UPPER>"), ("Running", "<Title-ing>"),
        ("Paris", "<Title-s>"), ("blandly", "<lower-ly>"), ("ring", "<lower>"), ("I", "<Title>"), ("Ünal", "<Title>"),
    ],
)  # fmt: skip
def test_a_rare_word_is_what_it_looks_like(word: str, expected: str) -> None:
    assert shape(word) == expected


@given(st.text(min_size=1))
def test_every_word_looks_like_something(word: str) -> None:
    assert shape(word).startswith("<") and shape(word).endswith(">")


def test_the_usual_tag_of_a_word_is_its_most_frequent_and_of_a_new_word_that_of_all() -> None:
    words, tags = [["a", "b", "a"], ["a", "c"]], [["x", "y", "x"], ["y", "y"]]
    assert usual_tags(words, tags, [["a", "b", "new"]]) == [["x", "y", "y"]]


@every_task
def test_batches_hold_the_words_and_tags_of_the_files(name: str) -> None:
    x = built(name)
    corpus, splits = x.corpus(), x.splits(0)
    counts = Counter(word for sentence in corpus.train for word in sentence.words)
    for part, batch in ((corpus.validation, splits.validation), (corpus.test, splits.test)):
        if part is None:
            continue
        assert len(part) == len(batch)
        for row, sentence in enumerate(part):
            n = int(batch.lengths[row])
            words = [x.input_symbols[token] for token in batch.inputs[row, :n].tolist()]
            for word, read in zip(sentence.words, words, strict=True):
                assert read in (word, shape(word), "<unk>")
                assert read != word or counts[word] >= 2 or shape(word) == word
            tags = [x.symbols[tag] for tag in batch.targets[row, :n].tolist()]
            known = batch.scored[row, :n].tolist()
            assert all(tag == true for tag, true, is_known in zip(tags, sentence.tags, known, strict=True) if is_known)
            assert all(is_known == (true in x.symbols) for true, is_known in zip(sentence.tags, known, strict=True))
    assert torch.equal(splits.test.scored, valid_steps(splits.test.lengths, splits.test.inputs.shape[1]))


@every_task
def test_no_sentence_is_in_two_splits(name: str) -> None:
    corpus = built(name).corpus()
    parts = [{sentence.words for sentence in part or ()} for part in corpus]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    splits = built(name).splits(3)
    assert len(splits.train) + len(splits.validation) == len(parts[0]) + len(parts[1])


@needs("ud_english_atis")
def test_the_treebank_of_questions_is_all_there() -> None:
    names = [f"en_atis-ud-{part}.conllu" for part in ("train", "dev", "test")]
    files = [text_files.conllu(datasets.path("ud_english_atis", name).read_bytes(), name) for name in names]
    assert [len(file) for file in files] == [4_274, 572, 586]
    tags = [{tag for sentence in file for tag in sentence.tags} for file in files]
    assert [len(kinds) for kinds in tags] == [13, 14, 13] and tags[1] - tags[0] == {"SYM"}
    splits = built("pos_atis").splits(0)
    assert [len(split) for split in splits] == [4_273, 572, 586]
    validation = splits.validation
    assert int((valid_steps(validation.lengths, 42) & ~validation.scored).sum()) == sum(
        tag == "SYM" for sentence in files[1] for tag in sentence.tags
    )


@needs("ud_english_ewt_r2.7_devtest")
def test_the_treebank_of_the_web_is_all_there_and_every_training_part_has_every_tag() -> None:
    name = "ud_english_ewt_r2.7_devtest"
    for file, n in (("en_ewt-ud-dev.conllu", 2_002), ("en_ewt-ud-test.conllu", 2_077)):
        assert len(text_files.conllu(datasets.path(name, file).read_bytes(), file)) == n
    x = built("pos_ewt_small")
    assert len(x.symbols) == 17 and len(x.corpus().test) == 2_077
    for seed in range(5):
        splits = x.splits(seed)
        assert len(splits.validation) == (len(splits.train) + len(splits.validation)) // 10
        assert len(splits.train.targets[splits.train.scored].unique()) == 17


@needs("wnut17")
def test_the_messages_are_all_there_and_tags_are_numbered_as_the_metric_has_them() -> None:
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    files = [text_files.words_with_tags(datasets.path("wnut17", name).read_bytes(), name) for name in names]
    assert [len(file) for file in files] == [3_394, 1_009, 1_287]
    symbols = built("entities").symbols
    kinds = ["corporation", "creative-work", "group", "location", "person", "product"]
    assert symbols == ("O", *(f"{place}-{kind}" for kind in kinds for place in "BI"))


@needs("wnut17")
def test_the_floor_of_entities_finds_none_and_the_truth_finds_all() -> None:
    x = built("entities")
    test = x.splits(0).test
    assert x.floor(0) == 0
    truth = torch.nn.functional.one_hot(test.targets, 13).float()
    for metric in x.metrics[:2]:
        assert metric.value(metric.parts(truth, test)) == 1
    # A tenth of the tags wrong is far more than a tenth of the entities.
    noise = torch.rand(test.targets.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    worse = torch.nn.functional.one_hot(torch.where(noise, 0, test.targets), 13).float()
    assert 0.7 < x.metrics[0].value(x.metrics[0].parts(worse, test)) < 0.95


@every_task
def test_the_reference_is_each_words_most_frequent_tag(name: str) -> None:
    x = built(name)
    if x.metrics[0].name != "accuracy":
        pytest.skip("the F1 of its rival is that of its metric, which has tests of its own")
    corpus = x.corpus()
    counts: dict[str, Counter[str]] = {}
    for sentence in corpus.train:
        for word, tag in zip(*sentence, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    total = sum(counts.values(), Counter())
    right = [
        max(counts.get(word, total).items(), key=lambda item: (item[1], item[0]))[0] == tag
        for sentence in corpus.test
        for word, tag in zip(*sentence, strict=True)
    ]
    assert x.reference.value == pytest.approx(np.mean(right))
