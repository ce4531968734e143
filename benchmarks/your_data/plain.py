"""Sentences with a column of tags, and plain text: from text to rows."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import Recording, bad, counted, listed, text_of, without_comments

SENTENCE, CHARACTER = "sentence", "character"
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
"""The columns of https://universaldependencies.org/format.html."""
DOCUMENT = "-DOCSTART-"
"""The first column of a line that begins a document, as in CoNLL-2003 (arXiv:cs/0306050)."""
BLANKS = " \t"
"""All that separates columns: a no-break space belongs to a word."""
_BLANK = re.compile(r"[ \t]+")
MOST_COLUMNS = 100
MOST_LENGTH = 10_000
"""Blanks in a line of columns that they separate."""
WORDS = 1_000_000
"""What is read of sentences, and a tenth of the cells; and"""
CHARACTERS = 5_000_000
"""of text: far more than a fit of minutes sees."""


def has_sentences(text: str) -> bool:
    """Whether blank lines separate groups of rows."""
    return "\n\n" in text.strip("\n").replace("\r\n", "\n")


def conll(data: bytes, file: str, target: str | None = None) -> Recording:
    """A token per line, its columns separated by tabs or, where there are none, by blanks; a blank line after each sentence.

    Comments are lines that start with ``# ``, or with ``#`` and have no tab where the other lines have. CoNLL-U has ten
    named columns, of which FORM is the input and UPOS the default target; elsewhere the columns are numbered from 1, the
    first is the input and the last the default target. Raises BadInput.
    """
    text = text_of(without_comments(data, rb"#(?: [^\t\n]*|[^\t\n ]*)$"), file)
    is_universal = file.lower().endswith(".conllu")
    separator = "\t" if is_universal or "\t" in text else None
    words: list[list[str]] = []
    sentences: list[int] = []
    lines: list[int] = []
    known: dict[str, str] = {}
    sentence, is_open, n_marks = 0, False, 0
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(BLANKS)
        if not stripped:
            sentence, is_open = sentence + is_open, False
            continue
        if line.count("\t") >= MOST_COLUMNS or (separator is None and line.count(" ") >= MOST_LENGTH):
            raise bad(
                file, f"{line.count(separator or ' ') + 1:,} columns; at most {MOST_COLUMNS} can be used", row=number
            )
        cells = [cell.strip(BLANKS) for cell in line.split("\t")] if separator else _BLANK.split(stripped)
        expected = len(CONLLU) if is_universal else len(words[0]) if words else max(2, len(cells))
        if _is_comment(line, separator, is_universal, is_open and len(cells) == expected):
            continue
        if cells[0] == DOCUMENT:
            sentence, is_open, n_marks = sentence + is_open, False, n_marks + 1
            continue
        if is_universal and len(cells) == len(CONLLU) and not cells[0].isdecimal():
            continue  # a word that is given in parts too, or only understood
        if len(cells) != expected:
            uses_blanks = is_universal and "\t" not in line and len(_BLANK.split(stripped)) >= len(CONLLU)
            hint = (
                "; the line uses spaces, and CoNLL-U needs tabs: replace the spaces between columns"
                if uses_blanks
                else ""
            )
            raise bad(file, f"{counted(len(cells), 'column')}, expected {expected}{hint}", row=number)
        if not all(cells):
            raise bad(file, "an empty column", str(cells.index("") + 1), number)
        if len(cells) > MOST_COLUMNS:
            raise bad(file, f"{len(cells):,} columns; at most {MOST_COLUMNS} can be used", row=number)
        words.append([known.setdefault(cell, cell) for cell in cells])
        sentences.append(sentence)
        lines.append(number)
        is_open = True
        if len(words) * len(cells) >= WORDS * 10 or len(words) == WORDS:
            break
    if not words:
        raise bad(file, "no line holds a word and its tag")
    names = list(CONLLU) if is_universal else [str(number) for number in range(1, len(words[0]) + 1)]
    frame = pd.DataFrame(
        {name: pd.Categorical(column) for name, column in zip(names, zip(*words, strict=True), strict=True)}
    )
    frame.insert(0, SENTENCE, sentences)
    word, chosen = ("FORM", target or "UPOS") if is_universal else ("1", target or names[-1])
    others = tuple(name for name in names if name not in (word, chosen))
    remarks = (f"read: column {word} as the word; left out: {listed(others)}",) if others else ()
    if n_marks:
        remarks = (*remarks, f"left out: {counted(n_marks, 'line')} with the document mark {DOCUMENT}")
    if len(words) * len(names) >= WORDS * 10 or len(words) == WORDS:
        remarks = (*remarks, f"read: the first {len(words):,} words")
    return Recording(file, frame, np.array(lines), "line", chosen, SENTENCE, ignored=others, remarks=remarks)


def _is_comment(line: str, separator: str | None, is_universal: bool, is_token: bool) -> bool:
    """is_token: whether the line has as many columns as the others and stands within a sentence."""
    if not line.startswith("#"):
        return False
    if is_universal or line.strip(BLANKS) == "#":
        return True
    if separator is not None:
        return line.startswith("# ") or "\t" not in line
    return line.startswith("# ") and not is_token


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
