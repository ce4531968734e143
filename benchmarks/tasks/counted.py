"""What counting alone achieves: the simple, strong rivals by which text and tags are judged.

Each is fitted on what does not depend on the seed: training, and validation too where the seed draws that from it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np


def pieces(symbols: Sequence[str], longest: int) -> set[tuple[str, ...]]:
    """The runs of 1 … ``longest`` symbols."""
    return {tuple(symbols[i : i + n]) for n in range(1, longest + 1) for i in range(len(symbols) - n + 1)}


def naive_bayes(
    texts: Sequence[Sequence[str]], labels: np.ndarray, asked: Iterable[Sequence[str]], longest: int
) -> np.ndarray:
    """The classes of the texts ``asked``, (N,), by multinomial naive Bayes on which runs of symbols a text has.

    Binarised, with one count added to each: the baseline of Wang and Manning 2012, aclanthology.org/P12-2018. longest: of the
    runs of symbols. labels: (B,) classes 0 … K - 1 of ``texts``.
    """
    n_classes = int(labels.max()) + 1
    numbers: dict[tuple[str, ...], int] = {}
    pairs = [
        numbers.setdefault(piece, len(numbers)) * n_classes + label
        for symbols, label in zip(texts, labels.tolist(), strict=True)
        for piece in pieces(symbols, longest)
    ]
    counts = np.bincount(pairs, minlength=len(numbers) * n_classes).reshape(-1, n_classes) + 1.0  # (pieces, K)
    logs = np.log(counts / counts.sum(0))
    prior = np.log(np.bincount(labels) / len(labels))
    answers = []
    for symbols in asked:
        known = [numbers[piece] for piece in pieces(symbols, longest) if piece in numbers]
        answers.append(int((prior + logs[known].sum(0)).argmax()))
    return np.array(answers)


def next_symbol_nats(rows: Sequence[np.ndarray], asked: Sequence[np.ndarray], order: int, vocabulary: int) -> float:
    """Mean negative log-probability of the symbols of ``asked`` after their first ones, by counts in ``rows``.

    An interpolated n-gram after ``order`` symbols at most (Witten and Bell 1991, doi:10.1109/18.87000, method C): with c how
    often a context came, c_y how often y came after it and n how many different symbols did, p_j(y) = (c_y + n p_(j-1)(y)) /
    (c + n), where p_(-1) = 1 / V and j counts the symbols of context. rows, asked: (T,) int64; no context reaches past a
    row's beginning.
    """
    probabilities = np.full(sum(len(row) - 1 for row in asked), 1 / vocabulary)
    for j in range(order + 1):
        contexts, following = _contexts(rows, j, vocabulary)
        wanted, next_ones = _contexts(asked, j, vocabulary)
        keys, counts = np.unique(contexts, return_counts=True)
        pairs, pair_counts = np.unique(contexts * vocabulary + following, return_counts=True)
        kinds = np.unique(pairs // vocabulary, return_counts=True)[1]  # of symbols after each of the keys
        c, n = _looked_up(keys, counts, wanted), _looked_up(keys, kinds, wanted)
        c_y = _looked_up(pairs, pair_counts, wanted * vocabulary + next_ones)
        probabilities = np.where(c > 0, (c_y + n * probabilities) / np.maximum(c + n, 1), probabilities)
    return float(-np.log(probabilities).mean())


def _contexts(rows: Sequence[np.ndarray], length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Each symbol but the first of each row, (N,), and the number of the ``length`` symbols before it, (N,) int64.

    Before a row's beginning stands the extra symbol V.
    """
    if (vocabulary + 1) ** (length + 1) >= 2**63:
        raise ValueError(f"contexts of {length} of {vocabulary} symbols cannot be numbered in 64 bits")
    numbers = []
    for row in rows:
        number = np.zeros(len(row) - 1, dtype=np.int64)
        before = np.concatenate([np.full(length, vocabulary), row])  # (length + T,)
        for back in range(length, 0, -1):
            number = number * (vocabulary + 1) + before[length + 1 - back : length + len(row) - back]
        numbers.append(number)
    return np.concatenate(numbers), np.concatenate([row[1:] for row in rows])


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values at the wanted keys (N,), 0 where there is none; keys: sorted."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def usual_tags(
    sentences: Iterable[Sequence[str]], tags: Iterable[Sequence[str]], asked: Iterable[Sequence[str]]
) -> list[list[str]]:
    """The tags of the sentences ``asked``, each word having the one it had most often, a new word the most frequent."""
    by_word: dict[str, Counter[str]] = defaultdict(Counter)
    for words, row in zip(sentences, tags, strict=True):
        for word, tag in zip(words, row, strict=True):
            by_word[word][tag] += 1
    total = sum(by_word.values(), Counter())
    default = max(total, key=lambda tag: (total[tag], tag))
    usual = {word: max(counts, key=lambda tag: (counts[tag], tag)) for word, counts in by_word.items()}
    return [[usual.get(word, default) for word in words] for words in asked]


def suffix_rules(
    pairs: Iterable[tuple[str, str, tuple[str, ...]]], asked: Iterable[tuple[str, tuple[str, ...]]]
) -> list[str]:
    """The forms of the lemmas ``asked``: with the same features, the change of the longest ending that was ever seen.

    pairs: lemma, form and features. A rule takes any ending of the lemma that holds all that changes, to what stands for it
    in the form; of several changes of one ending the most frequent is taken; without a rule the form is the lemma.
    """
    rules: dict[tuple[tuple[str, ...], str], Counter[str]] = defaultdict(Counter)
    for lemma, form, features in pairs:
        same = next(
            (i for i, (a, b) in enumerate(zip(lemma, form, strict=False)) if a != b), min(len(lemma), len(form))
        )
        for start in range(same + 1):
            rules[features, lemma[start:]][form[start:]] += 1
    answers = []
    for lemma, features in asked:
        found = ((start, rules.get((features, lemma[start:]))) for start in range(len(lemma) + 1))
        start, changes = next(((start, changes) for start, changes in found if changes), (len(lemma), Counter({"": 1})))
        answers.append(lemma[:start] + max(changes, key=lambda form: (changes[form], form)))
    return answers
