"""One class for a sentence, from its words, or for a surname, from its letters; scored at the last step.

Where a set has no split of its own, a tenth of each class is for test, the same for every run; of the rest a tenth of each
class, drawn by the seed, is for validation. The vocabulary is that of training and validation together, so that the test
split is the same, token for token, whatever the seed. What occurs twice is kept once, and nothing is in two splits.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from benchmarks import datasets
from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import balanced_accuracy
from benchmarks.tasks import text_files
from benchmarks.tasks.classification import held_out
from benchmarks.tasks.counted import naive_bayes
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vocabulary import UNKNOWN, Vocabulary, one_class_each
from models.sequences import Classes, TokenInput


class Texts(NamedTuple):
    """The symbols of each text, and their classes, (B,) int64."""

    rows: tuple[tuple[str, ...], ...]
    labels: np.ndarray

    def select(self, chosen: np.ndarray) -> Texts:
        """Those where ``chosen``, (B,) bool, is true."""
        return Texts(tuple(self.rows[i] for i in np.flatnonzero(chosen)), self.labels[chosen])


class Parts(NamedTuple):
    """All texts for training and validation, and those for test."""

    development: Texts
    test: Texts


class TextClassTask(Task):
    """What the tasks of this module share."""

    group: ClassVar[str] = "text"
    picture: ClassVar[Literal["confusion"]] = "confusion"
    causal: ClassVar[bool] = False
    longest_piece: ClassVar[int] = 2
    """Of the runs of symbols that the reference, naive Bayes, counts."""

    @abstractmethod
    def parts(self) -> Parts:
        """Cached, in an order that depends on nothing."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary: ...

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]: ...

    @property
    def input_symbols(self) -> tuple[str, ...]:
        return self.vocabulary.symbols

    @property
    def input(self) -> TokenInput:
        return TokenInput(len(self.vocabulary), max(len(row) for part in self.parts() for row in part.rows))

    @property
    def target(self) -> Classes:
        return Classes(len(self.symbols), scope="sequence")

    def splits(self, seed: int) -> Splits:
        development, test = self.parts()
        chosen = self.validation(development, numpy_generator("data", self.name, seed))
        train, validation = development.select(~chosen), development.select(chosen)
        encode = self.vocabulary.encode
        return Splits(*(one_class_each([encode(row) for row in x.rows], x.labels) for x in (train, validation, test)))

    def validation(self, development: Texts, generator: np.random.Generator) -> np.ndarray:
        """(B,) bool: which of the texts are for validation."""
        return held_out(development.labels, 0.1, generator)

    @property
    def reference(self) -> Reference:
        source = "computed: multinomial naive Bayes; Wang and Manning 2012, aclanthology.org/P12-2018"
        return Reference(_rival(self), source)


@cache
def _rival(task: TextClassTask) -> float:
    development, test = task.parts()
    answers = naive_bayes(development.rows, development.labels, test.rows, task.longest_piece)
    return float((answers == test.labels).mean())


class WordsTask(TextClassTask):
    """Sentences whose tokens are words, the rarest being one symbol."""

    n_words: int

    def __post_init__(self) -> None:
        require_integers(self, {"n_words": 2})

    @property
    def vocabulary(self) -> Vocabulary:
        return _words(self)


@cache
def _words(task: WordsTask) -> Vocabulary:
    return Vocabulary.of_words((word for row in task.parts().development.rows for word in row), task.n_words, least=2)


@cache
def _pang_lee(archive: str, files: tuple[str, str]) -> Parts:
    """Two files of the archive, a class each, a sentence a line; a tenth of either class for test."""
    rows: list[tuple[str, ...]] = []
    labels: list[int] = []
    data = datasets.path("mr_subj_nltk", f"{archive}.zip").read_bytes()
    for label, file in enumerate(files):
        member = text_files.archived(data, f"{archive}.zip", f"{archive}/{file}")
        sentences = dict.fromkeys(text_files.lines(member, file, encoding="latin-1"))
        rows += [tuple(sentence.split()) for sentence in sentences]
        labels += [label] * len(sentences)
    every = Texts(tuple(rows), np.array(labels))
    chosen = held_out(every.labels, 0.1, numpy_generator("test", archive))
    return Parts(every.select(~chosen), every.select(chosen))


@dataclass(frozen=True)
class Sentiment(WordsTask):
    """Whether a sentence of a film review is for the film or against it.

        word      simplistic   ,   silly   and   tedious   .
        target    ·            ·   ·       ·     ·         negative        at the last step alone

    10,662 different sentences, half of either class, 1,066 for test. Floor: one class for all, 1/2. Ceiling: unknown.
    Reference: naive Bayes on words and pairs of words, computed on the same test sentences.

    n_words: symbols of the vocabulary at most; words seen once are <unk>.
    """

    n_words: int = 5_000

    name: ClassVar[str] = "sentiment"
    summary: ClassVar[str] = "whether a sentence of a film review is for or against the film"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Pang and Lee 2005, aclanthology.org/P05-1015, as distributed with NLTK"
    datasets: ClassVar[tuple[str, ...]] = ("mr_subj_nltk",)
    symbols: ClassVar[tuple[str, ...]] = ("negative", "positive")

    def parts(self) -> Parts:
        return _pang_lee("sentence_polarity", ("rt-polarity.neg", "rt-polarity.pos"))


@dataclass(frozen=True)
class Subjectivity(WordsTask):
    """Whether a sentence tells what happens in a film or what someone thinks of it.

        word      smart   and   alert   ,   thirteen   conversations   …   .
        target    ·       ·     ·       ·   ·          ·                   opinion        at the last step alone

    10,000 different sentences, half of either class, 1,000 for test. Floor: one class for all, 1/2. Ceiling: unknown.
    Reference: naive Bayes on words and pairs of words, computed on the same test sentences.

    n_words: symbols of the vocabulary at most; words seen once are <unk>.
    """

    n_words: int = 5_000

    name: ClassVar[str] = "subjectivity"
    summary: ClassVar[str] = "whether a sentence tells the plot of a film or an opinion"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Pang and Lee 2004, aclanthology.org/P04-1035, as distributed with NLTK"
    datasets: ClassVar[tuple[str, ...]] = ("mr_subj_nltk",)
    symbols: ClassVar[tuple[str, ...]] = ("plot", "opinion")

    def parts(self) -> Parts:
        return _pang_lee("subjectivity", ("plot.tok.gt9.5000", "quote.tok.gt9.5000"))


@dataclass(frozen=True)
class Intent(WordsTask):
    """What a bank's customer wants, one of 77 intents.

        word      how   do   i   locate   my   card   ?
        target    ·     ·    ·   ·        ·    ·      card_arrival        at the last step alone

    The set's own split: 10,003 queries for training and validation, of which 16 are left out because they occur twice or in
    the test split, and 3,080 for test, 40 of each intent. Floor: the most frequent intent, 1/77. Ceiling: unknown. Reference:
    naive Bayes on words and pairs of words, computed on the same test queries.

    n_words: symbols of the vocabulary at most; words seen once are <unk>.
    """

    n_words: int = 2_000

    name: ClassVar[str] = "intent"
    summary: ClassVar[str] = "which of 77 things a bank's customer wants"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Banking77: Casanueva et al. 2020, arXiv 2003.04807"
    datasets: ClassVar[tuple[str, ...]] = ("banking77",)

    @property
    def symbols(self) -> tuple[str, ...]:
        return _queries()[0]

    def parts(self) -> Parts:
        return _queries()[1]


@cache
def _queries() -> tuple[tuple[str, ...], Parts]:
    """The intents, and the queries in lower case, words and marks apart."""
    intents = tuple(json.loads(datasets.path("banking77", "categories.json").read_bytes()))
    test, train = (
        [(tuple(re.findall(r"\w+|[^\w\s]", row.text.lower())), row.label) for row in
         text_files.labelled_texts(datasets.path("banking77", file).read_bytes(), file)]
        for file in ("test.csv", "train.csv")
    )  # fmt: skip
    asked = {words for words, _ in test}
    kept = {words: label for words, label in train if words not in asked}
    return intents, Parts(_numbered(tuple(kept.items()), intents), _numbered(test, intents))


def _numbered(rows: Sequence[tuple[tuple[str, ...], str]], classes: tuple[str, ...]) -> Texts:
    return Texts(tuple(row for row, _ in rows), np.array([classes.index(label) for _, label in rows]))


@dataclass(frozen=True)
class Surnames(TextClassTask):
    """The language that a surname comes from, one of 18, from its letters.

        letter    <  A  b  e  >
        target    ·  ·  ·  ·  Japanese        at the last step alone

    18,012 pairs of a name and a language that has it, 9,340 of them Russian and 71 Vietnamese, so balanced accuracy is
    given too. 469 names belong to several languages, and no answer is right for all their pairs; all pairs of a name
    are in one split. A tenth of the names is for test. Floor: always Russian, about 0.52. Ceiling: unknown, below 1. Reference:
    naive Bayes on runs of one to four letters, computed on the same test names.
    """

    name: ClassVar[str] = "surnames"
    summary: ClassVar[str] = "which of 18 languages a surname comes from, from its letters"
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = "Robertson 2017, github.com/spro/practical-pytorch"
    datasets: ClassVar[tuple[str, ...]] = ("names_18lang",)
    longest_piece: ClassVar[int] = 4
    symbols: ClassVar[tuple[str, ...]] = (
        "Arabic", "Chinese", "Czech", "Dutch", "English", "French", "German", "Greek", "Irish", "Italian", "Japanese",
        "Korean", "Polish", "Portuguese", "Russian", "Scottish", "Spanish", "Vietnamese",
    )  # fmt: skip

    def parts(self) -> Parts:
        return _surnames()

    @property
    def vocabulary(self) -> Vocabulary:
        return _letters()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        counts = np.bincount(self.parts().test.labels, minlength=len(self.symbols))
        return (accuracy, balanced_accuracy(counts.tolist()), cross_entropy)

    def validation(self, development: Texts, generator: np.random.Generator) -> np.ndarray:
        return _by_name(development, generator)


@cache
def _surnames() -> Parts:
    rows, labels = [], []
    for label, language in enumerate(Surnames.symbols):
        file = f"names/{language}.txt"
        names = dict.fromkeys(text_files.lines(datasets.path("names_18lang", file).read_bytes(), file))
        rows += [("<", *name, ">") for name in names]
        labels += [label] * len(names)
    every = Texts(tuple(rows), np.array(labels))
    chosen = _by_name(every, numpy_generator("test", Surnames.name))
    return Parts(every.select(~chosen), every.select(chosen))


def _by_name(texts: Texts, generator: np.random.Generator) -> np.ndarray:
    """(B,) bool: a tenth of the names of each language, with all their pairs; a name counts for its first language."""
    first = dict(reversed(list(zip(texts.rows, texts.labels.tolist(), strict=True))))
    chosen = held_out(np.array(list(first.values())), 0.1, generator)
    names = {name for name, is_chosen in zip(first, chosen, strict=True) if is_chosen}
    return np.array([row in names for row in texts.rows])


@cache
def _letters() -> Vocabulary:
    letters = Counter(letter for row in _surnames().development.rows for letter in row)
    return Vocabulary((UNKNOWN, *sorted(letters)))
