"""The next symbol of text: characters of plays, words of an encyclopaedia, letters of names.

A long text is cut into parallel streams of nearly equal length, which are read a window at a time, the state carried on. The
streams of a split have each symbol but the first of its text as a target exactly once; a stream begins without a past.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np

from benchmarks import datasets
from benchmarks.metrics import Metric, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import bits_per_character, perplexity
from benchmarks.tasks import text_files
from benchmarks.tasks.counted import next_symbol_nats
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vocabulary import Vocabulary, a_class_a_step
from models.sequences import Classes, SequenceBatch, TokenInput

N_TEST_STREAMS = 16


def streams(tokens: np.ndarray, n: int) -> SequenceBatch:
    """A text, (N + 1,) int64, as n streams of N / n steps, rounded up or down: N targets, each once."""
    n_targets = len(tokens) - 1
    bounds = np.arange(n + 1) * n_targets // n
    pieces = [slice(start, end) for start, end in pairwise(bounds)]
    return a_class_a_step([tokens[:-1][piece] for piece in pieces], [tokens[1:][piece] for piece in pieces])


class NextSymbolTask(Task):
    """What tasks share that ask for the next symbol at every step."""

    group: ClassVar[str] = "text"
    picture: ClassVar[Literal["continuation"]] = "continuation"
    causal: ClassVar[bool] = True

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary: ...

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=len(self.vocabulary))

    @property
    def target(self) -> Classes:
        return Classes(len(self.vocabulary), future=True)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.vocabulary.symbols


class StreamTask(NextSymbolTask):
    """What tasks of one long text share: the end of the development part is validation, the ``n_train`` symbols before it
    are training."""

    n_train: int
    n_validation: int
    n_streams: int
    window: int
    n_development: ClassVar[int]

    def __post_init__(self) -> None:
        require_integers(self, {"n_train": 1, "n_validation": 1, "n_streams": 1, "window": 1})
        if self.n_train + self.n_validation > self.n_development:
            raise InvalidParameter(
                f"{self.name}: n_train + n_validation must be at most {self.n_development}, "
                f"got {self.n_train} + {self.n_validation}"
            )
        if self.n_streams >= min(self.n_train, self.n_validation):
            raise InvalidParameter(
                f"{self.name}: n_streams must be below n_train and n_validation, got {self.n_streams}"
            )

    @abstractmethod
    def texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Development part and test part, int64."""

    def splits(self, seed: int) -> Splits:
        """The same for every seed."""
        train, validation, test = self.parts()
        return Splits(
            streams(train, self.n_streams), streams(validation, self.n_streams), streams(test, N_TEST_STREAMS)
        )

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The texts of training, validation and test."""
        development, test = self.texts()
        cut = len(development) - self.n_validation
        return development[cut - self.n_train : cut], development[cut:], test


@dataclass(frozen=True)
class Characters(StreamTask):
    """The next character of Shakespeare's plays: 1,115,394 characters, 65 different ones.

        input     F  i  r  s  t     C  i  t  i  z  e  n  :
        target    i  r  s  t     C  i  t  i  z  e  n  :  ↵        the input one step ahead, scored at every step

    The first 90 % of the text are for training and validation, the rest, whole, for test: the same for every seed. Floor: the
    frequencies of the characters, about 4.8 bits. Ceiling: unknown; people who guess letter by letter need about 1 bit for
    common English (Shannon 1951, doi:10.1002/j.1538-7305.1951.tb01366.x). Reference: an interpolated 5-gram (four characters
    of context) counted on the training part, computed on the test text. Validation is easier than test: part of it ends a play
    that training begins, and the plays of the test text are not in training at all.

    n_train: characters, the last before validation. n_validation: characters at the end of the first 90 %. n_streams: parallel
    streams of training and of validation. window: steps of truncated backpropagation.
    """

    n_train: int = 950_000
    n_validation: int = 50_000
    n_streams: int = 32
    window: int = 64

    name: ClassVar[str] = "characters"
    summary: ClassVar[str] = "the next character of Shakespeare's plays"
    licence: ClassVar[str] = "public domain"
    source: ClassVar[str] = "Shakespeare's plays as collected by Karpathy 2015, github.com/karpathy/char-rnn"
    datasets: ClassVar[tuple[str, ...]] = ("tinyshakespeare",)
    n_development: ClassVar[int] = 1_003_854

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (bits_per_character, cross_entropy)

    @property
    def vocabulary(self) -> Vocabulary:
        return _plays()[0]

    def texts(self) -> tuple[np.ndarray, np.ndarray]:
        tokens = _plays()[1]
        return tokens[: self.n_development], tokens[self.n_development :]

    @property
    def reference(self) -> Reference:
        source = "computed: interpolated 5-gram; Witten and Bell 1991, doi:10.1109/18.87000"
        return Reference(bits_per_character.link(_stream_rival(self, 4)), source)


@cache
def _plays() -> tuple[Vocabulary, np.ndarray]:
    """The characters of the first 90 %, of which the rest has no others, and the whole text."""
    file = datasets.path("tinyshakespeare", "input.txt")
    text = text_files.text(file.read_bytes(), file.name)
    vocabulary = Vocabulary(tuple(sorted(set(text[: Characters.n_development]))))
    return vocabulary, vocabulary.encode(text)


@dataclass(frozen=True)
class WordsSmall(StreamTask):
    """The next word of articles of Wikipedia, from little text: trained on WikiText-2's validation file.

        input     <eos>   =       Homarus   <unk>   =      <eos>        <eos> ends a line, <unk> is a rare word
        target    =       Homarus <unk>     =       <eos>  <eos>        the input one step ahead, scored at every step

    217,646 words for training and validation, the first of 245,569 words of other articles for test: the same for every
    seed. Perplexities compare only at the same vocabulary, and not with published ones, whose models learn from ten times the
    text. Words beyond the vocabulary, which is that of the first file, are one symbol, <unk>. Floor: the frequencies of the
    words. Ceiling: unknown. Reference: an interpolated trigram counted on the training part, computed on the test text.

    n_words: symbols of the vocabulary, <unk> included. n_train: words, the last before validation. n_validation: words at the
    end of the first file. n_test: words of the second, from its beginning. n_streams: parallel streams of training and of
    validation. window: steps of truncated backpropagation.
    """

    n_words: int = 1_000
    n_train: int = 197_646
    n_validation: int = 20_000
    n_test: int = 40_000
    n_streams: int = 32
    window: int = 32

    name: ClassVar[str] = "words_small"
    summary: ClassVar[str] = "the next word of encyclopaedic articles, learnt from 200,000 words"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    source: ClassVar[str] = "WikiText-2: Merity, Xiong, Bradbury and Socher 2016, arXiv 1609.07843"
    datasets: ClassVar[tuple[str, ...]] = ("wikitext2_valid_test",)
    n_development: ClassVar[int] = 217_646

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integers(self, {"n_words": 2, "n_test": N_TEST_STREAMS + 1})

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (perplexity, cross_entropy)

    @property
    def vocabulary(self) -> Vocabulary:
        return _articles(self.n_words)[0]

    def texts(self) -> tuple[np.ndarray, np.ndarray]:
        _, development, test = _articles(self.n_words)
        return development, test[: self.n_test]

    @property
    def reference(self) -> Reference:
        source = "computed: interpolated trigram; Witten and Bell 1991, doi:10.1109/18.87000"
        return Reference(perplexity.link(_stream_rival(self, 2)), source)


@cache
def _articles(n_words: int) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    """The vocabulary of the first file, and the words of both, with <eos> after each line."""
    both = []
    for name in ("valid.txt", "test.txt"):
        text = text_files.text(datasets.path("wikitext2_valid_test", name).read_bytes(), name)
        both.append([word for line in text.removesuffix("\n").split("\n") for word in (*line.split(), "<eos>")])
    vocabulary = Vocabulary.of_words(both[0], n_words)
    return vocabulary, vocabulary.encode(both[0]), vocabulary.encode(both[1])


@cache
def _stream_rival(task: Characters | WordsSmall, order: int) -> float:
    """In nats; counted on what models learn from: validation, from the same play as test, would help much."""
    train, _, test = task.parts()
    return next_symbol_nats([train], [test], order, len(task.vocabulary))


@dataclass(frozen=True)
class Names(NextSymbolTask):
    """The next letter of a first name, and its end; whole names, from which new ones can be made.

        input     .  e  m  m  a
        target    e  m  m  a  .        the input one step ahead; the dot begins and ends a name

    29,494 different names: a tenth of them, drawn once, for test, a tenth of the others, drawn by the seed, for validation.
    Floor: the frequencies of the letters. Ceiling: unknown. Reference: an interpolated 5-gram (four letters of context) counted
    on all names but those for test, computed on these.

    n_train: names at most.
    """

    n_train: int = 24_000

    name: ClassVar[str] = "names"
    summary: ClassVar[str] = "the next letter of a first name, and where it ends"
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = "Karpathy 2022, github.com/karpathy/makemore"
    datasets: ClassVar[tuple[str, ...]] = ("names_makemore",)

    def __post_init__(self) -> None:
        require_integers(self, {"n_train": 1})

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=len(self.vocabulary), max_length=16)  # the dot and the longest name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (bits_per_character, cross_entropy)

    @property
    def vocabulary(self) -> Vocabulary:
        return LETTERS

    def splits(self, seed: int) -> Splits:
        development, test = _first_names()
        order = numpy_generator("data", self.name, seed).permutation(len(development))
        n_validation = len(development) // 10
        validation, train = order[:n_validation], order[n_validation:][: self.n_train]
        return Splits(
            *(_spelt(rows) for rows in ([development[i] for i in train], [development[i] for i in validation], test))
        )

    @property
    def reference(self) -> Reference:
        source = "computed: interpolated 5-gram; Witten and Bell 1991, doi:10.1109/18.87000"
        return Reference(bits_per_character.link(_names_rival()), source)


LETTERS = Vocabulary((".", *"abcdefghijklmnopqrstuvwxyz"))


@cache
def _first_names() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The names for training and validation, and those for test, each between dots."""
    file = datasets.path("names_makemore", "names.txt")
    names = list(dict.fromkeys(text_files.lines(file.read_bytes(), file.name)))
    order = numpy_generator("test", Names.name).permutation(len(names))
    rows = [LETTERS.encode(f".{names[i]}.") for i in order]
    n_test = len(names) // 10
    return rows[n_test:], rows[:n_test]


def _spelt(rows: list[np.ndarray]) -> SequenceBatch:
    return a_class_a_step([row[:-1] for row in rows], [row[1:] for row in rows])


@cache
def _names_rival() -> float:
    return next_symbol_nats(*_first_names(), order=4, vocabulary=len(LETTERS))
