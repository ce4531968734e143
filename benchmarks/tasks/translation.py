"""From one string of symbols to another, as a single causal stream: the question, a separator, the answer, a stop.

    step      s_1  …  s_n   <sep>   y_1  …  y_m
    target    ·    ·  ·     y_1     y_2  …  <stop>        scored from the separator on

Training predicts each symbol from the true ones before it. What counts is the answer that the model writes by itself, its
likeliest symbol being the next input, until it stops: `benchmarks.decoding`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from benchmarks import datasets
from benchmarks.decoding import Decoding
from benchmarks.metrics import Metric, cross_entropy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import numpy_generator
from benchmarks.sequence_metrics import error_rate, exact_match
from benchmarks.tasks import text_files
from benchmarks.tasks.counted import suffix_rules
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from benchmarks.tasks.vocabulary import Vocabulary, a_class_a_step
from models.sequences import Classes, SequenceBatch, TokenInput, valid_steps

STOP, SEPARATOR = "<stop>", "<sep>"


class Pair(NamedTuple):
    """The symbols of a question, and those of its answer."""

    question: tuple[str, ...]
    answer: tuple[str, ...]


class TranslationTask(Task):
    """What the tasks of this module share."""

    group: ClassVar[str] = "translation"
    picture: ClassVar[Literal["answers"]] = "answers"
    causal: ClassVar[bool] = True

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """`STOP`, `SEPARATOR`, and what questions and answers are made of."""

    @property
    @abstractmethod
    def longest(self) -> tuple[int, int]:
        """Symbols of the longest question, and of the longest answer."""

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.vocabulary.symbols

    @property
    def input(self) -> TokenInput:
        question, answer = self.longest
        return TokenInput(len(self.vocabulary), max_length=question + 1 + answer)

    @property
    def target(self) -> Classes:
        return Classes(len(self.vocabulary), future=True)

    @property
    def decoding(self) -> Decoding:
        """An answer may be as long as the longest true one, and is then cut off before its stop."""
        return Decoding(self.vocabulary.numbers[STOP], self.longest[1] + 1)

    @property
    def unit(self) -> str:
        """What a symbol of an answer is."""
        return "character"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        stop = self.decoding.stop
        return (exact_match(stop), error_rate(self.unit, stop), cross_entropy)

    def batch(self, pairs: Sequence[Pair]) -> SequenceBatch:
        """The streams of the module docstring."""
        rows = [self.vocabulary.encode((*x.question, SEPARATOR, *x.answer, STOP)) for x in pairs]
        batch = a_class_a_step([row[:-1] for row in rows], [row[1:] for row in rows])
        asked = np.array([len(x.question) for x in pairs])
        batch.scored[valid_steps(batch.lengths.new_tensor(asked), batch.scored.shape[1])] = False
        return batch


@dataclass(frozen=True)
class NumberWords(TranslationTask):
    """A number in English words, to be said in German; numbers of test are never in training.

        input     two   hundred   and   thirty   four   <sep>   zwei      hundert   vier   und       dreißig
        target    ·     ·         ·     ·        ·      zwei    hundert   vier      und    dreißig   <stop>

    German says ones before tens, so the order changes, and endings depend on place (ein, eins). Test numbers are drawn once,
    uniformly from 0 … largest, the others by the seed. Floor: one symbol for ever, no answer right, 0. Ceiling: 1, for the
    answer is a function of the question.

    largest: the greatest number, at most 999,999. tokens: words (German ones in parts: zwei, hundert, und …) or characters.
    n_train, n_validation, n_test: different numbers.
    """

    largest: int = 9_999
    tokens: Literal["words", "characters"] = "words"
    n_train: int = 3_000
    n_validation: int = 300
    n_test: int = 500

    name: ClassVar[str] = "number_words"
    summary: ClassVar[str] = "a number's English words into its German ones, written symbol by symbol"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "words of numbers: num2words, github.com/savoirfairelinux/num2words"

    def __post_init__(self) -> None:
        require_integers(self, {"largest": 2, "n_train": 1, "n_validation": 1, "n_test": 1})
        if self.tokens not in ("words", "characters"):
            raise InvalidParameter(f"{self.name}: tokens must be words or characters, got {self.tokens!r}")
        n = self.n_train + self.n_validation + self.n_test
        if self.largest > 999_999 or n > self.largest + 1:
            raise InvalidParameter(
                f"{self.name}: largest must be at most 999999 and give all {n} numbers, got {self.largest}"
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return _number_symbols(self.tokens)

    @property
    def longest(self) -> tuple[int, int]:
        return _longest_number(self)

    @property
    def unit(self) -> str:
        return "word" if self.tokens == "words" else "character"

    def splits(self, seed: int) -> Splits:
        n_known = self.n_train + self.n_validation
        test = numpy_generator("test", self.name).choice(self.largest + 1, self.n_test, replace=False)
        drawn = numpy_generator("data", self.name, seed).choice(self.largest + 1, n_known + self.n_test, replace=False)
        known = drawn[~np.isin(drawn, test)][:n_known]
        parts = (known[self.n_validation :], known[: self.n_validation], test)
        return Splits(*(self.batch([self.pair(int(number)) for number in part]) for part in parts))

    def ceiling(self) -> float:
        return 1.0

    def pair(self, number: int) -> Pair:
        return Pair(tuple(_english(number, self.tokens)), tuple(_german(number, self.tokens)))


def _english(number: int, tokens: str) -> Sequence[str]:
    words = _spoken(number, "en")
    return words if tokens == "characters" else re.findall("[a-z]+", words)


def _german(number: int, tokens: str) -> Sequence[str]:
    words = _spoken(number, "de")
    return words if tokens == "characters" else re.findall(_german_parts(), words)


@cache
def _spoken(number: int, language: str) -> str:
    from num2words import num2words  # imports a module for each language of the world

    return str(num2words(number, lang=language))


SIMPLE_NUMBERS = (*range(21), *range(30, 100, 10))
"""Whose words are not made of others, but for endings."""


@cache
def _german_parts() -> str:
    """A pattern of what German numbers are made of, the longest first: neunzig goes before neun."""
    words = {_spoken(number, "de") for number in SIMPLE_NUMBERS} | {"ein", "und", "hundert", "tausend"}
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


@cache
def _number_symbols(tokens: str) -> Vocabulary:
    """All symbols up to 999,999."""
    numbers = (*SIMPLE_NUMBERS, 21, 101, 999_999)
    symbols = {symbol for number in numbers for say in (_english, _german) for symbol in say(number, tokens)}
    return Vocabulary((STOP, SEPARATOR, *sorted(symbols)))


@cache
def _longest_number(task: NumberWords) -> tuple[int, int]:
    """Thousands and the rest add up, so the longest of either make the longest of all."""

    def longest(say: Callable[[int, str], Sequence[str]]) -> int:
        rest = max(range(min(1_000, task.largest + 1)), key=lambda number: len(say(number, task.tokens)))
        return max(len(say(1_000 * thousands + rest, task.tokens)) for thousands in range(task.largest // 1_000 + 1))

    return longest(_english), longest(_german)


@dataclass(frozen=True)
class Inflection(TranslationTask):
    """A form of a word from its dictionary form and the features wanted, letter by letter; English or German.

        input     e  n  w  i  n  d  <V>  <PST>  <sep>  e  n  w  o  u  n  d
        target    ·  ·  ·  ·  ·  ·  ·    ·      e      n  w  o  u  n  d  <stop>

    The shared task's own files: 100, 1,000 or 10,000 forms for training, 1,000 each for validation and test: the same for
    every seed. No lemma comes with the same features in two of them; a third of the English test lemmas, half of the German,
    come in training with others. Symbols are those of the greatest training file. Floor: one letter for ever, no form right, 0.
    Ceiling: unknown, near 1. Reference: the change of the longest ending that training has with these features, computed on
    the test forms.

    language: en or de. setting: low, medium or high, the size of the training file.
    """

    language: Literal["en", "de"] = "en"
    setting: Literal["low", "medium", "high"] = "high"

    name: ClassVar[str] = "inflection"
    summary: ClassVar[str] = "the inflected form of a word from its lemma and features, letter by letter"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    source: ClassVar[str] = "SIGMORPHON 2017, task 1: Cotterell et al. 2017, aclanthology.org/K17-2001"
    datasets: ClassVar[tuple[str, ...]] = ("sigmorphon2017_task1",)

    def __post_init__(self) -> None:
        for name, known in (("language", ("en", "de")), ("setting", ("low", "medium", "high"))):
            if getattr(self, name) not in known:
                raise InvalidParameter(
                    f"{self.name}: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    @property
    def vocabulary(self) -> Vocabulary:
        return _letters_and_features(self.language)

    @property
    def longest(self) -> tuple[int, int]:
        return _longest_form(self.language)

    def splits(self, seed: int) -> Splits:
        """The same for every seed."""
        files = (f"train-{self.setting}", *FILES)
        return Splits(*(self.batch([_pair(row) for row in _forms(self.language, file)]) for file in files))

    @property
    def reference(self) -> Reference:
        return Reference(_endings(self.language, self.setting), "computed: the change of the longest known ending")


FILES = ("dev", "uncovered-test")
"""Validation and test."""
LANGUAGES = {"en": "english", "de": "german"}


@cache
def _forms(language: str, file: str) -> list[text_files.Inflection]:
    name = f"{LANGUAGES[language]}-{file}"
    return text_files.inflections(datasets.path("sigmorphon2017_task1", name).read_bytes(), name)


def _pair(row: text_files.Inflection) -> Pair:
    return Pair((*row.lemma, *(f"<{feature}>" for feature in row.features)), tuple(row.form))


@cache
def _letters_and_features(language: str) -> Vocabulary:
    pairs = map(_pair, _forms(language, "train-high"))
    return Vocabulary((STOP, SEPARATOR, *sorted({symbol for pair in pairs for part in pair for symbol in part})))


@cache
def _longest_form(language: str) -> tuple[int, int]:
    """Symbols of the longest question, and of the longest answer, in any file."""
    pairs = [_pair(row) for file in (*FILES, "train-high") for row in _forms(language, file)]
    return max(len(pair.question) for pair in pairs), max(len(pair.answer) for pair in pairs)


@cache
def _endings(language: str, setting: str) -> float:
    """Exact match on test."""
    test = _forms(language, "uncovered-test")
    answers = suffix_rules(_forms(language, f"train-{setting}"), [(row.lemma, row.features) for row in test])
    return float(np.mean([answer == row.form for answer, row in zip(answers, test, strict=True)]))
