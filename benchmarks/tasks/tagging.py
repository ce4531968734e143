"""A tag for every word of a sentence: parts of speech, and entities.

The whole sentence is there before the tags are due. Words that training has fewer than twice are told apart by what they look
like, and no more: digits, capitals, an English ending (`shape`); so a new word of a known shape is not wholly unknown.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch

from benchmarks import datasets
from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import entity_f1
from benchmarks.tasks import text_files
from benchmarks.tasks.counted import usual_tags
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.text_files import Tagged
from benchmarks.tasks.vocabulary import Vocabulary, a_class_a_step
from models.sequences import Classes, SequenceBatch, TokenInput

ENDINGS = ("ing", "ed", "ly", "ion", "er", "est", "al", "ous", "able", "ive", "y", "'s", "s")
"""English endings that say something of a word's part of speech; the first that fits is taken."""


def shape(word: str) -> str:
    """What a word looks like, in angle brackets: capitals, digits, the sign it begins with, and its ending."""
    if any(character.isdigit() for character in word):
        return "<number>" if not any(character.isalpha() for character in word) else "<letters and digits>"
    if word[0] in "@#" and len(word) > 1:
        return f"<{word[0]}…>"
    if "://" in word or word.startswith("www."):
        return "<address>"
    if not any(character.isalpha() for character in word):
        return "<marks>"
    case = "UPPER" if word.isupper() and len(word) > 1 else "Title" if word[0].isupper() else "lower"
    lower = word.lower()
    ending = next((end for end in ENDINGS if lower.endswith(end) and len(word) > len(end) + 2), "")
    return f"<{case}{'-' if ending else ''}{ending}>"


class Corpus(NamedTuple):
    """Distinct sentences by use. validation None: a tenth of train, drawn by the seed."""

    train: tuple[Tagged, ...]
    validation: tuple[Tagged, ...] | None
    test: tuple[Tagged, ...]

    def development(self) -> tuple[Tagged, ...]:
        return self.train + (self.validation or ())


def without_repeats(corpus: Corpus) -> Corpus:
    """Test as it is; of the rest, sentences that are in test, in train, or came before are left out."""
    seen = {sentence.words for sentence in corpus.test}

    def new(sentences: Sequence[Tagged]) -> Iterator[Tagged]:
        for sentence in sentences:
            if sentence.words not in seen:
                seen.add(sentence.words)
                yield sentence

    train = tuple(new(corpus.train))
    return Corpus(train, None if corpus.validation is None else tuple(new(corpus.validation)), corpus.test)


class TaggingTask(Task):
    """What the tasks of this module share. Vocabulary and tags are those of ``corpus().train``."""

    n_words: int
    group: ClassVar[str] = "tagging"
    picture: ClassVar[Literal["tags"]] = "tags"
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"n_words": 2})

    @abstractmethod
    def corpus(self) -> Corpus:
        """Cached."""

    @property
    def vocabulary(self) -> Vocabulary:
        return _vocabulary(self)

    @property
    def tags(self) -> Vocabulary:
        return _tags(self)

    @property
    def input_symbols(self) -> tuple[str, ...]:
        return self.vocabulary.symbols

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.tags.symbols

    @property
    def input(self) -> TokenInput:
        corpus = self.corpus()
        return TokenInput(
            len(self.vocabulary), max(len(x.words) for part in (corpus.development(), corpus.test) for x in part)
        )

    @property
    def target(self) -> Classes:
        return Classes(len(self.tags))

    def splits(self, seed: int) -> Splits:
        train, validation, test = self.corpus()
        if validation is None:
            order = numpy_generator("data", self.name, seed).permutation(len(train))
            n_validation = len(train) // 10
            validation = tuple(train[i] for i in order[:n_validation])
            train = tuple(train[i] for i in order[n_validation:])
        return Splits(self._batch(train), self._batch(validation), self._batch(test))

    @property
    def reference(self) -> Reference:
        return Reference(_rival(self), "computed: each word's most frequent tag")

    def _batch(self, sentences: Sequence[Tagged]) -> SequenceBatch:
        """A step whose tag training never has is not scored; no test sentence has one."""
        known, numbers = self.vocabulary.numbers, self.tags.numbers
        batch = a_class_a_step(
            [self.vocabulary.encode(word if word in known else shape(word) for word in x.words) for x in sentences],
            [np.array([numbers.get(tag, -1) for tag in x.tags]) for x in sentences],
        )
        unknown = batch.targets < 0
        batch.scored[unknown], batch.targets[unknown] = False, 0
        return batch


@cache
def _vocabulary(task: TaggingTask) -> Vocabulary:
    """The most frequent words of train, and the shapes of the others."""
    words = [word for sentence in task.corpus().train for word in sentence.words]
    frequent = Vocabulary.of_words(words, task.n_words, least=2)
    shapes = {shape(word) for word in words if word not in frequent.numbers}
    return Vocabulary((*frequent.symbols, *sorted(shapes - set(frequent.symbols))))


@cache
def _tags(task: TaggingTask) -> Vocabulary:
    """By the alphabet, but O first, and B before I of every kind, as `entity_f1` has them."""
    tags = {tag for sentence in task.corpus().train for tag in sentence.tags}
    return Vocabulary(tuple(sorted(tags, key=lambda tag: (tag != "O", tag[1:] if "-" in tag else tag, tag))))


@cache
def _rival(task: TaggingTask) -> float:
    """The primary metric, on test, of each word's most frequent tag."""
    corpus, metric, test = task.corpus(), task.metrics[0], task.splits(0).test
    known = corpus.train  # and not what only validates, for models do not learn from it
    answers = usual_tags([x.words for x in known], [x.tags for x in known], [x.words for x in corpus.test])
    outputs = torch.zeros(*test.inputs.shape, len(task.tags))  # (B, T, K)
    for row, tags in enumerate(answers):
        for step, tag in enumerate(tags):
            outputs[row, step, task.tags.numbers[tag]] = 1
    return metric.value(metric.parts(outputs, test))


def _treebank(names: Sequence[str], data: str) -> list[tuple[Tagged, ...]]:
    return [tuple(text_files.conllu(datasets.path(data, name).read_bytes(), name)) for name in names]


@dataclass(frozen=True)
class PosAtis(TaggingTask):
    """The part of speech of every word of a question to an air travel information service, 13 kinds.

        word      what   is    the   cost   of    a     round   trip   flight
        target    PRON   AUX   DET   NOUN   ADP   DET   NOUN    NOUN   NOUN

    The treebank's own split, 4,274, 572 and 586 sentences, which repeats one sentence of training; that is dropped: the same
    for every seed. A tag that only validation has (SYM) is not scored. Floor: the most frequent tag, about 0.24. Ceiling:
    unknown, somewhat below 1, for people disagree. Reference: each word's most frequent tag, computed on the test sentences,
    which is near 0.96: questions are alike.

    n_words: words of the vocabulary at most.
    """

    n_words: int = 2_000

    name: ClassVar[str] = "pos_atis"
    summary: ClassVar[str] = "the part of speech of every word of a question about flights"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    source: ClassVar[str] = "UD English-ATIS, github.com/UniversalDependencies/UD_English-Atis"
    datasets: ClassVar[tuple[str, ...]] = ("ud_english_atis",)

    def corpus(self) -> Corpus:
        return _atis()


@cache
def _atis() -> Corpus:
    names = [f"en_atis-ud-{part}.conllu" for part in ("train", "dev", "test")]
    return without_repeats(Corpus(*_treebank(names, "ud_english_atis")))


@dataclass(frozen=True)
class PosEwtSmall(TaggingTask):
    """The part of speech of every word of mails, blogs and reviews, 17 kinds, learnt from 1,700 sentences.

        word      From   the   AP    comes   this   story   :
        target    ADP    DET   PROPN VERB    DET    NOUN    PUNCT

    The treebank's validation file without repeated sentences and those of the test file is for training and, a tenth of it
    drawn by the seed, for validation; its test file is test. One word in seven there is new. Floor: the most frequent tag,
    about 0.16. Ceiling: unknown, somewhat below 1, for people disagree. Reference: each word's most frequent tag, computed on
    the test sentences.

    n_words: words of the vocabulary at most.
    """

    n_words: int = 4_000

    name: ClassVar[str] = "pos_ewt_small"
    summary: ClassVar[str] = "the part of speech of every word on the web, learnt from 1,700 sentences"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    source: ClassVar[str] = "UD English-EWT 2.7: Silveira et al. 2014, aclanthology.org/L14-1067"
    datasets: ClassVar[tuple[str, ...]] = ("ud_english_ewt_r2.7_devtest",)

    def corpus(self) -> Corpus:
        return _ewt_small()


@cache
def _ewt_devtest() -> list[tuple[Tagged, ...]]:
    return _treebank(["en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"], "ud_english_ewt_r2.7_devtest")


@cache
def _ewt_small() -> Corpus:
    validation, test = _ewt_devtest()
    return without_repeats(Corpus(validation, None, test))


@dataclass(frozen=True)
class PosEwt(TaggingTask):
    """The part of speech of every word of mails, blogs and reviews, 17 kinds, learnt from the whole treebank.

        word      From   the   AP    comes   this   story   :
        target    ADP    DET   PROPN VERB    DET    NOUN    PUNCT

    The treebank's own split, without sentences that are repeated or in the test file: the same for every seed. Floor: the most
    frequent tag, about 0.16. Ceiling: unknown, somewhat below 1, for people disagree. Reference: each word's most frequent
    tag, computed on the test sentences.

    n_words: words of the vocabulary at most.
    """

    n_words: int = 10_000

    name: ClassVar[str] = "pos_ewt"
    summary: ClassVar[str] = "the part of speech of every word on the web, learnt from 12,000 sentences"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    source: ClassVar[str] = "UD English-EWT 2.7: Silveira et al. 2014, aclanthology.org/L14-1067"
    datasets: ClassVar[tuple[str, ...]] = ("ud_english_ewt_r2.7_train", "ud_english_ewt_r2.7_devtest")

    def corpus(self) -> Corpus:
        return _ewt()


@cache
def _ewt() -> Corpus:
    (train,) = _treebank(["en_ewt-ud-train.conllu"], "ud_english_ewt_r2.7_train")
    return without_repeats(Corpus(train, *_ewt_devtest()))


@dataclass(frozen=True)
class Entities(TaggingTask):
    """Which words of a short message name a person, place, group, firm, product or work, among names never seen before.

        word      stayed   on   Redondo      Beach        Blvd         .
        target    O        O    B-location   I-location   I-location   O        B begins an entity, I goes on

    The shared task's own split, 3,394, 1,009 and 1,287 messages from different places, so that most test entities are new;
    messages that are repeated are dropped from training and validation: the same for every seed. Floor: no entities, 0.
    Ceiling: unknown, well below 1, for people disagree. Reference: each word's most frequent tag, computed on the test
    messages: low, for it can find only what training names.

    n_words: words of the vocabulary at most.
    """

    n_words: int = 4_000

    name: ClassVar[str] = "entities"
    summary: ClassVar[str] = "names of persons, places, firms and more in short messages, most of them new"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "WNUT 2017: Derczynski, Nichols, van Erp and Limsopatham 2017, aclanthology.org/W17-4418"
    datasets: ClassVar[tuple[str, ...]] = ("wnut17",)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (entity_f1, accuracy, cross_entropy)

    def corpus(self) -> Corpus:
        return _messages()


@cache
def _messages() -> Corpus:
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    files = (text_files.words_with_tags(datasets.path("wnut17", name).read_bytes(), name) for name in names)
    return without_repeats(Corpus(*map(tuple, files)))
