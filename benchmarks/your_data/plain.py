"""Sentences with a column of tags, and plain text: from text to rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import Recording, bad, counted, listed, text_of

SENTENCE, CHARACTER = "sentence", "character"
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
"""The columns of https://universaldependencies.org/format.html."""
WORDS = 1_000_000
"""What is read of sentences, and"""
CHARACTERS = 5_000_000
"""of text: far more than a fit of minutes sees."""


def has_sentences(text: str) -> bool:
    """Whether blank lines separate groups of rows."""
    return "\n\n" in text.strip("\n").replace("\r\n", "\n")


def conll(data: bytes, file: str, target: str | None = None) -> Recording:
    """A token per line, its columns separated by tabs or spaces, a blank line after each sentence; comments begin with ``#``.

    CoNLL-U has ten named columns, of which FORM is the input and UPOS the default target; elsewhere the columns are numbered
    from 1, the first is the input and the last the default target. Raises BadInput.
    """
    text = text_of(data, file)
    is_universal = file.lower().endswith(".conllu")
    separator = "\t" if is_universal or "\t" in text else None
    words: list[list[str]] = []
    sentences: list[int] = []
    lines: list[int] = []
    sentence, is_open = 0, False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            sentence, is_open = sentence + is_open, False
            continue
        if line.startswith("#") and (is_universal or not is_open):
            continue
        cells = [cell.strip() for cell in line.split(separator)]
        if is_universal and len(cells) == len(CONLLU) and not cells[0].isdecimal():
            continue  # a word that is given in parts too, or only understood
        expected = len(CONLLU) if is_universal else len(words[0]) if words else max(2, len(cells))
        if len(cells) != expected:
            raise bad(file, f"{counted(len(cells), 'column')}, expected {expected}", row=number)
        if not all(cells):
            raise bad(file, "an empty column", str(cells.index("") + 1), number)
        words.append(cells)
        sentences.append(sentence)
        lines.append(number)
        is_open = True
        if len(words) == WORDS:
            break
    if not words:
        raise bad(file, "no line holds a word and its tag")
    names = list(CONLLU) if is_universal else [str(number) for number in range(1, len(words[0]) + 1)]
    frame = pd.DataFrame(words, columns=names, dtype="category")
    frame.insert(0, SENTENCE, sentences)
    word, chosen = ("FORM", target or "UPOS") if is_universal else ("1", target or names[-1])
    others = tuple(name for name in names if name not in (word, chosen))
    remarks = (f"read: column {word} as the word; left out: {listed(others)}",) if others else ()
    if len(words) == WORDS:
        remarks = (*remarks, f"read: the first {WORDS:,} words")
    return Recording(file, frame, np.array(lines), "line", chosen, SENTENCE, ignored=others, remarks=remarks)


def characters(data: bytes, file: str) -> Recording:
    """A text, character by character; the rows are counted in lines. Raises BadInput."""
    text = text_of(data, file)
    whole, text = len(text), text[:CHARACTERS]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    values, which = np.unique(codes, return_inverse=True)
    frame = pd.DataFrame({CHARACTER: pd.Categorical.from_codes(which, [chr(code) for code in values])})
    lines = 1 + np.concatenate([[0], np.cumsum(codes == ord("\n"))[:-1]])
    remarks = (f"read: the first {CHARACTERS:,} of {whole:,} characters",) if whole > CHARACTERS else ()
    return Recording(file, frame, lines, "line", CHARACTER, remarks=remarks)
