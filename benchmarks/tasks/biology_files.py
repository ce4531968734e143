"""Parsers of biological and clinical tables: text of a published file to records.

Each raises ValueError with a sentence that names file and line where the content is not what the format promises.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import pandas as pd

SPLICE_CLASSES = ("N", "EI", "IE")
SPLICE_BASES = "ACGTNDRS"


class SpliceExample(NamedTuple):
    """entry: of the data bank, without the kind and place of the window. bases: 60 letters. kind: one of SPLICE_CLASSES."""

    entry: str
    bases: str
    kind: str


def splice_examples(text: str, file: str) -> list[SpliceExample]:
    """ARFF: after ``@data`` a line per example: name, 60 bases and the class between commas, padded with blanks."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        raise ValueError(f"{file}: there is no line @data in it")
    examples = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if not line.strip() or line.startswith("%"):
            continue
        fields = [field.strip() for field in line.split(",")]
        name, bases, kind = fields[0], fields[1:-1], fields[-1]
        if len(bases) != 60 or any(len(base) != 1 or base not in SPLICE_BASES for base in bases):
            raise ValueError(f"{file}: line {number} does not hold 60 of the bases {SPLICE_BASES}")
        if kind not in SPLICE_CLASSES:
            raise ValueError(f"{file}: line {number} has the class {kind!r}, not one of {', '.join(SPLICE_CLASSES)}")
        examples.append(SpliceExample(name.split("-")[0], "".join(bases), kind))
    return examples


def fasta(text: str, file: str) -> dict[str, str]:
    """FASTA: a line ``>header``, then lines of letters → letters by header."""
    records: dict[str, list[str]] = {}
    letters: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(">"):
            header = line[1:].strip()
            if not header or header in records:
                raise ValueError(f"{file}: line {number}: a header must be there, and only once")
            letters = records.setdefault(header, [])
        elif line.strip():
            if letters is None:
                raise ValueError(f"{file}: line {number} comes before any header")
            letters.append(line.strip())
    empty = next((header for header, lines in records.items() if not lines), None)
    if empty is not None:
        raise ValueError(f"{file}: {empty} has no sequence")
    return {header: "".join(lines) for header, lines in records.items()}


VISIT_NUMBERS = ("age", "serBilir", "serChol", "albumin", "alkaline", "SGOT", "platelets", "prothrombin", "histologic")
VISIT_CATEGORIES = ("drug", "sex", "ascites", "hepatomegaly", "spiders", "edema")


def liver_visits(text: str, file: str) -> pd.DataFrame:
    """CSV with a row per visit: ``id`` of the patient, ``year`` since the first visit, VISIT_NUMBERS and VISIT_CATEGORIES,
    missing where NA. What is known only later, survival and status, is left out. In order of patients and years."""
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str)
    except ValueError as error:
        raise ValueError(f"{file}: not a table between commas ({error})") from error
    needed = ["id", "year", *VISIT_NUMBERS, *VISIT_CATEGORIES]
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        raise ValueError(f"{file}: line 1 has no column {lacking[0]}")
    table = table[needed].copy()
    for name in ("id", "year", *VISIT_NUMBERS):
        numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
        wrong = (numbers.isna() & table[name].notna()) | (numbers.abs() == float("inf"))
        if name in ("id", "year", "serBilir"):
            wrong |= numbers.isna()
        if name == "id":
            wrong |= (numbers % 1 != 0) | (numbers.abs() > 2**53)
        if name == "serBilir":
            wrong |= numbers <= 0
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(f"{file}: line {row + 2}: {name} cannot be {table[name].iloc[row]!r}")
        table[name] = numbers
    table = table.sort_values(["id", "year"], kind="stable", ignore_index=True)
    return table.astype({"id": int})
