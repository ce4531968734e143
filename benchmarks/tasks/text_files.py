"""Formats of text files, as functions from bytes to sentences, words and tags.

Each raises ValueError with a sentence that names the file and the line at which it is not what it should be.
"""

from __future__ import annotations

import csv
import io
import struct
import zlib
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile


class Tagged(NamedTuple):
    """A sentence: its words, and the tag of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


class Labelled(NamedTuple):
    """A text and its class."""

    text: str
    label: str


class Inflection(NamedTuple):
    """A dictionary form, a form of it, and the features that this form has: V, PST, 3 …"""

    lemma: str
    form: str
    features: tuple[str, ...]


def text(data: bytes, file: str, encoding: str = "utf-8") -> str:
    """The characters of a file."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line}: not {encoding}, byte {data[error.start]:#04x}") from error


def lines(data: bytes, file: str, encoding: str = "utf-8") -> list[str]:
    """The lines of a file without blanks around them; empty ones are left out."""
    stripped = (line.strip() for line in text(data, file, encoding).split("\n"))
    return [line for line in stripped if line]


def archived(data: bytes, file: str, member: str) -> bytes:
    """One file of a zip archive."""
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            return archive.read(member)
    except (BadZipFile, KeyError, OSError, RuntimeError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{file}: no zip archive that holds {member} ({error})") from error


def conllu(data: bytes, file: str) -> list[Tagged]:
    """Sentences with their universal parts of speech, columns FORM and UPOS of https://universaldependencies.org/format.html.

    Comments, words that are also given in parts (1-2), and words that are only understood (1.1) are no tokens of a sentence.
    """
    sentences: list[Tagged] = []
    tokens: list[tuple[str, str]] = []
    for number, line in enumerate(text(data, file).split("\n"), 1):
        if not line.strip():
            sentences += _sentence(tokens)
            tokens = []
        elif not line.startswith("#"):
            fields = line.split("\t")
            if len(fields) != 10 or not all(fields):
                raise ValueError(f"{file}, line {number}: a token has 10 columns separated by tabs, none of them empty")
            if fields[0].isdecimal():
                tokens.append((fields[1], fields[3]))
            elif not fields[0].replace("-", "").replace(".", "").isdecimal():
                raise ValueError(f"{file}, line {number}: {fields[0][:20]!r} is no number of a token")
    return sentences + _sentence(tokens)


def words_with_tags(data: bytes, file: str) -> list[Tagged]:
    """Sentences of a file with a word, a tab and its IOB2 tag per line, and a blank line after each sentence.

    IOB2: B-kind at the first word of an entity, I-kind at the further ones, O outside.
    """
    sentences: list[Tagged] = []
    tokens: list[tuple[str, str]] = []
    for number, line in enumerate(text(data, file).split("\n"), 1):
        if not line.strip():
            sentences += _sentence(tokens)
            tokens = []
            continue
        word, _, tag = (field.strip() for field in line.partition("\t"))
        if not word or not (tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)):
            raise ValueError(f"{file}, line {number}: expected a word, a tab and O, B-kind or I-kind")
        if tag.startswith("I-") and (not tokens or tokens[-1][1][1:] != tag[1:]):
            raise ValueError(f"{file}, line {number}: {tag} follows no word of such an entity")
        tokens.append((word, tag))
    return sentences + _sentence(tokens)


def labelled_texts(data: bytes, file: str) -> list[Labelled]:
    """The rows of a csv file with the columns text and category; a quoted text may hold line breaks."""
    reader = csv.reader(io.StringIO(text(data, file), newline=""), strict=True)
    rows: list[Labelled] = []
    try:
        if next(reader, None) != ["text", "category"]:
            raise ValueError(f"{file}, line 1: the columns should be text and category")
        for row in filter(None, reader):
            if len(row) != 2 or not all(field.strip() for field in row):
                raise ValueError(f"{file}, line {reader.line_num}: expected a text and its category")
            rows.append(Labelled(row[0].strip(), row[1].strip()))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from error
    return rows


def inflections(data: bytes, file: str) -> list[Inflection]:
    """The lines of a file with lemma, form and features, separated by tabs; features by semicolons."""
    rows = []
    for number, line in enumerate(text(data, file).split("\n"), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"{file}, line {number}: expected lemma, form and features, separated by tabs")
        rows.append(Inflection(fields[0], fields[1], tuple(fields[2].split(";"))))
    return rows


def _sentence(tokens: list[tuple[str, str]]) -> list[Tagged]:
    """The tokens as one sentence, none where there are none."""
    return [Tagged(*zip(*tokens, strict=True))] if tokens else []
