"""What every format is read into, and the one sentence that says why a file cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.parameters import InvalidParameter

MOST_CELLS = 40_000_000
"""Steps times columns that are read, and"""
MOST_COLUMNS = 2_000
MOST_BYTES = 1 << 29
"""bytes that an array or a table may unpack to: more would not fit beside the copies that learning needs."""


class BadInput(InvalidParameter):
    """A file that cannot be used as asked: one sentence that names the file and, where there is one, column and row."""


@dataclass(frozen=True)
class Recording:
    """One row per step, in the order of the file.

    file: its name, for messages. frame: N rows; the index is 0 … N-1. rows: (N,) int64, the number of each row in the file,
    counted from 1 below a table's header. counted: what these numbers count, "row" or "line". target: the column to be
    predicted; None where it is still to be named. sequence, group, time, split: the columns that say to which sequence a row
    belongs, which sequences must stay together, when it was taken, and in which split it is; None where there is none.
    ignored: columns that are no inputs. remarks: what was done in reading that a person should know. clocks: columns of times
    of day, in seconds.
    """

    file: str
    frame: pd.DataFrame
    rows: np.ndarray
    counted: str = "row"
    target: str | None = None
    sequence: str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    ignored: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    clocks: tuple[str, ...] = ()

    @property
    def inputs(self) -> list[str]:
        """The columns that are neither ignored nor have another role, in the order of the file."""
        roles = {self.target, self.sequence, self.group, self.time, self.split, *self.ignored}
        return [column for column in self.frame.columns if column not in roles]

    def bad(self, message: str, column: str | None = None, row: int | None = None) -> BadInput:
        """The sentence about a column and the row at position ``row`` of the frame."""
        return bad(self.file, message, column, None if row is None else int(self.rows[row]), self.counted)

    def remarked(self, remark: str) -> Recording:
        return replace(self, remarks=(*self.remarks, remark))


def bad(file: str, message: str, column: str | None = None, row: int | None = None, counted: str = "line") -> BadInput:
    """``file, column x, row 17: message``, on one line whatever the names are."""
    where = [file, *([] if column is None else [f"column {column}"]), *([] if row is None else [f"{counted} {row:,}"])]
    return BadInput(one_line(f"{', '.join(where)}: {message}"))


def sequence_numbers(frame: pd.DataFrame, sequence: str | None) -> np.ndarray:
    """(N,) int64: 0, 1, 2 … in the order in which sequences first appear; all 0 where no column names them."""
    return np.zeros(len(frame), dtype=np.int64) if sequence is None else pd.factorize(frame[sequence])[0]


def first(wrong: pd.Series | np.ndarray) -> int:
    """The position of the first True."""
    return int(np.flatnonzero(np.asarray(wrong))[0])


def one_line(text: str) -> str:
    """Without line breaks and control characters, which a hostile name may hold, and not longer than a screen."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= 500 else f"{shown[:499]}…"


def counted(n: int, thing: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def listed(names: Iterable[object], most: int = 8) -> str:
    """``a, b, c and 12 more``."""
    texts = [one_line(str(name)) for name in names]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most:,} more"


def without_comments(data: bytes, pattern: bytes) -> bytes:
    """The lines that match as a whole are replaced by ``# `` where they are not UTF-8: what a comment says need not be read."""
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        data = data.replace(b"\r\n", b"\n")
        return re.sub(rb"(?m)^" + pattern, b"# ", data)
    return data


WESTERN = frozenset(b"\x80\x84\x91\x92\x93\x94\x95\x96\x97\x99") | frozenset(range(0xA0, 0xFF))
"""The bytes above ASCII that occur in files of Windows-1252 and its subset Latin-1."""


def western_text_of(data: bytes, file: str) -> tuple[str, bool]:
    """As `text_of`, and whether the file is Windows-1252, as spreadsheets in western Europe save it: it has a byte that is not
    UTF-8, but neither a longer UTF-8 sequence, which would make that byte an error, nor bytes that Windows-1252 lacks."""
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        high = set(data) - set(range(128))
        if high <= WESTERN and re.search(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", data) is None:
            return text_of(data.decode("cp1252").encode(), file), True
    return text_of(data, file), False


def text_of(data: bytes, file: str) -> str:
    """A file's characters, UTF-8 or, after its byte-order mark, UTF-16; line breaks become ``\\n``. Raises BadInput."""
    if not data.strip():
        raise bad(file, "the file is empty")
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if is_utf16:
            raise bad(file, "the file begins like UTF-16 and is not; save the file as UTF-8", row=line) from error
        raise bad(file, f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8", row=line) from error
    if not text:
        raise bad(file, "the file is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise bad(file, "a zero byte: this is no text", row=line)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_number(text: str) -> bool:
    """Whether Python reads the text as a number, infinite and nan included."""
    try:
        float(text)
    except ValueError:
        return False
    return True
