"""The .ts format of the time series archives (https://timeseriesclassification.com): from text to rows.

After ``@data`` a line per case: its channels and then its class or value, separated by colons; steps by commas, a missing
one as ``?``. The header says whether a case has a class (``@classLabel true a b c``) or a value (``@targetLabel true``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import (
    MOST_CELLS,
    MOST_COLUMNS,
    Recording,
    bad,
    counted,
    is_number,
    listed,
    text_of,
    without_comments,
)

CASE, STEP, SPLIT, CLASS, VALUE = "case", "step", "split", "class", "value"


class Header(NamedTuple):
    """answer: what stands last on a line, "class" or "value". names: of the classes, where they are listed. n_lines: up to
    and with ``@data``."""

    answer: str
    names: tuple[str, ...]
    n_lines: int


class Case(NamedTuple):
    """values: (T, C) float64, missing ones NaN. answer: the class or value as written. line: where."""

    values: np.ndarray
    answer: str
    line: int


class File(NamedTuple):
    """split: train or test; None where the file does not say."""

    data: bytes
    name: str
    split: str | None


def ts(files: Sequence[File]) -> Recording:
    """One file, or the two of a problem. Raises BadInput."""
    name = " and ".join(file.name for file in files)
    parts, answers, widths = [], set(), set()
    n_before = 0
    for file in files:
        text = text_of(without_comments(file.data, rb"#[^\n]*$"), file.name)
        header = read_header(text, file.name)
        cases = read_cases(text, header, file.name)
        parts.append(_rows(cases, header.answer, file, n_before))
        n_before += len(cases)
        answers.add(header.answer)
        widths.add(cases[0].values.shape[1])
    if len(answers) > 1 or len(widths) > 1:
        raise bad(name, "the two files do not belong together: they differ in channels, or in class and value")
    frame = pd.concat(parts, ignore_index=True)
    (answer,) = answers
    rows = frame.pop("line").to_numpy()
    split = None if files[0].split is None else SPLIT
    return Recording(name, frame, rows, "line", answer, CASE, split=split, ignored=(STEP,))


def read_header(text: str, file: str) -> Header:
    """Raises BadInput."""
    answer: str | None = None
    names: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        tag = words[0].lower()
        if not tag.startswith("@"):
            raise bad(file, "values before a line @data", row=number)
        if tag == "@timestamps" and words[1:2] and words[1].lower() == "true":
            raise bad(
                file, "values with time stamps; write such a series as a CSV table with a time column", row=number
            )
        if tag == "@data":
            if answer is None:
                raise bad(
                    file, "the header says neither @classLabel true nor @targetLabel true: there is nothing to predict"
                )
            return Header(answer, names, number)
        if tag == "@classlabel" and words[1:2] and words[1].lower() == "true":
            answer, names = CLASS, tuple(words[2:])
        elif tag == "@targetlabel" and words[1:2] and words[1].lower() == "true":
            answer = VALUE
    raise bad(file, "there is no line @data; is this a .ts file?")


def read_cases(text: str, header: Header, file: str) -> list[Case]:
    """Raises BadInput."""
    cases: list[Case] = []
    n_values = 0
    for number, line in enumerate(text.split("\n")[header.n_lines :], header.n_lines + 1):
        if not line.strip() or line.startswith("#"):
            continue
        *channels, answer = line.split(":")
        if not channels:
            raise bad(file, f"no colon: expected the channels and then the {header.answer}", row=number)
        if len(channels) > MOST_COLUMNS:
            raise bad(file, f"{len(channels):,} channels; at most {MOST_COLUMNS:,} can be used", row=number)
        read = [_numbers(channel, file, number) for channel in channels]
        if len({len(steps) for steps in read}) > 1:
            raise bad(
                file, f"channels of {listed(len(steps) for steps in read)} steps; they must be equally long", row=number
            )
        if cases and len(read) != cases[0].values.shape[1]:
            raise bad(
                file,
                f"{counted(len(read), 'channel')}, where the first case has {cases[0].values.shape[1]}",
                row=number,
            )
        answer = answer.strip()
        if header.names and answer not in header.names:
            raise bad(file, f"class {answer[:40]!r} is none of @classLabel: {listed(header.names)}", row=number)
        if not answer:
            raise bad(file, f"the {header.answer} is missing after the last colon", row=number)
        n_values += sum(map(len, read))
        if n_values > MOST_CELLS:
            raise bad(file, f"more than {MOST_CELLS:,} values; write fewer cases or steps", row=number)
        cases.append(Case(np.column_stack(read), answer, number))
    if not cases:
        raise bad(file, "no case follows @data")
    return cases


def _numbers(channel: str, file: str, line: int) -> np.ndarray:
    values = channel.replace("?", "nan").split(",")
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        wrong = next(value for value in values if not is_number(value))
        raise bad(file, f"{wrong.strip()[:40]!r} is no number", row=line) from None


def _rows(cases: list[Case], answer: str, file: File, n_before: int) -> pd.DataFrame:
    """One row per step of every case."""
    lengths = np.array([len(case.values) for case in cases])
    values = np.concatenate([case.values for case in cases])  # (all steps, C)
    which = np.repeat(np.arange(len(cases)), lengths)
    for case in cases if answer == VALUE else ():
        if not is_number(case.answer):
            raise bad(file.name, f"{case.answer[:40]!r} is no number", row=case.line)
    columns: dict[str, object] = {
        CASE: which + n_before + 1,
        STEP: np.concatenate([np.arange(length) for length in lengths]),
        **{f"channel {c + 1}": values[:, c] for c in range(values.shape[1])},
        answer: _answers(cases, answer, which),
        **({} if file.split is None else {SPLIT: file.split}),
        "line": np.array([case.line for case in cases])[which],
    }
    return pd.DataFrame(columns)


def _answers(cases: list[Case], answer: str, which: np.ndarray) -> pd.Series:
    """(steps,) values, or classes of which each name is kept once, however long it is."""
    if answer == VALUE:
        return pd.Series(np.array([case.answer for case in cases], dtype=np.float64)[which])
    codes, names = pd.factorize(np.array([case.answer for case in cases], dtype=object), sort=True)
    return pd.Series(pd.Categorical.from_codes(codes[which], pd.Index(names, dtype=object)))
