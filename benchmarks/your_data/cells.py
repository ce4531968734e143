"""What the cells of a column of text mean: numbers however they are written, dates, times of day, or categories.

A column is looked at as a whole, by its different texts: ``1,154`` is a thousand where the column also holds ``1,154.00``, and
``03/04/2024`` is a date only where another row says which of the two numbers is the month.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

MISSING = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "NULL", "null", "None", "?")
)
"""What stands for a missing value, except in columns of classes, ids and groups."""
NEARLY = 0.9
"""A column of text of which so much reads as numbers holds numbers, whatever the rest is; and"""
MOSTLY = 0.5
"""one of which more than so much does, where the rest are a few words."""
FEW_WORDS = 3
FEW = 20
"""Different values up to which a column may be a code, with letters and digits as it likes."""
FEW_FRACTIONS = 5
"""The same where values have a fraction, which codes seldom have."""

SAMPLE = 2_000
"""Different texts of a column that are looked at first: where they are no quantities, the others are not looked at."""

_GROUPS = {False: r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", True: r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?"}
_SPACED = {
    False: r"[1-9]\d{0,2}(?:[ \u00a0\u202f'’]\d{3})+(?:\.\d+)?",
    True: r"[1-9]\d{0,2}(?:[ \u00a0\u202f'’]\d{3})+(?:,\d+)?",
}
_SIMPLE = {False: r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", True: r"(?:\d+,?\d*|,\d+)(?:[eE][-+]?\d+)?"}
_WRITTEN = {
    comma: re.compile(
        rf"(?P<sign>[-+−]?)(?P<before>[$€£¥]?)\s?(?P<digits>{_GROUPS[comma]}|{_SPACED[comma]}|{_SIMPLE[comma]})"
        r"\s?(?P<unit>%|[KkMB]|Mio|bn)?\s?(?P<after>[$€£¥]?)",
        re.ASCII,
    )
    for comma in (False, True)
}
"""A number as people write it, with a decimal point (False) or a decimal comma (True)."""
_FACTORS = {"K": 1e3, "k": 1e3, "M": 1e6, "Mio": 1e6, "B": 1e9, "bn": 1e9}
_CLOCK = re.compile(r"(\d{1,2})(?:([:.])(\d{2})\2(\d{2}(?:\.\d+)?)|:(\d{2}))\s?([AaPp][Mm])?", re.ASCII)
_YEAR_FIRST = re.compile(r"\d{4}([-/.])\d{1,2}(\1\d{1,2}([ T].*)?)?", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:,?[ T]\s*(.+))?", re.ASCII)
_NAMED_MONTHS = ("%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y %H:%M")


class Meaning(NamedTuple):
    """How a column's different texts are read. values: (n,) float64 numbers or seconds of the day, NaN where missing, or
    datetime64 dates; None for categories. written: what was left off the numbers, in words. words: read as missing."""

    kind: Literal["number", "date", "clock", "category"]
    values: np.ndarray | None = None
    written: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def meaning(texts: np.ndarray, counts: np.ndarray, comma: bool) -> Meaning:
    """(n,) different texts, stripped, none of them missing, and how often each occurs; comma: whether ``1,154`` and ``1.154``
    are read with a decimal comma where the column itself does not say."""
    if (
        len(texts) > SAMPLE
        and meaning(texts[:: len(texts) // SAMPLE][:SAMPLE], np.ones(SAMPLE), comma).kind == "category"
    ):
        return Meaning("category")
    if not len(texts):
        return Meaning("category")
    decimal, thousands = comma_evidence(texts, counts)
    values, written = numbers(texts, decimal > thousands if decimal != thousands else comma)
    is_number = ~np.isnan(values)
    if is_number.all():
        return Meaning("category") if _is_code(values, written) else Meaning("number", values, written)
    if not is_number.any():
        seconds = times_of_day(texts)
        if seconds is not None:
            return Meaning("clock", seconds)
        return _dates_and_words(texts, counts)
    if _is_mostly(values, is_number, texts, counts):
        return Meaning("number", values, written, tuple(texts[~is_number]))
    return Meaning("category")


def comma_evidence(texts: np.ndarray, counts: np.ndarray) -> tuple[int, int]:
    """How many values can only be read with a decimal comma, and how many only with a decimal point."""
    evidence = [0, 0]
    for text, count in zip(texts, counts, strict=True):
        if "," in text or "." in text:
            point, decimal = (_WRITTEN[comma].fullmatch(text) is not None for comma in (False, True))
            if point != decimal:
                evidence[point] += int(count)
    return evidence[0], evidence[1]


def numbers(texts: np.ndarray, comma: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) texts → (n,) float64, NaN for one that is no number; and what was left off, in words."""
    values = np.full(len(texts), np.nan) if comma else _plain(texts)
    written = set()
    for i in np.flatnonzero(np.isnan(values)):
        match = _WRITTEN[comma].fullmatch(texts[i])
        if match is None:
            continue
        digits, unit = match["digits"], match["unit"]
        if re.search(r"[ \u00a0\u202f'’]", digits) or (re.fullmatch(_GROUPS[comma], digits) is not None):
            written.add("thousands separators")
        if comma and "," in digits:
            written.add("decimal commas")
        if unit is not None:
            written.add("%" if unit == "%" else "K, M or B")
        if match["before"] or match["after"]:
            written.add("a currency")
        digits = re.sub(r"[ \u00a0\u202f'’]|\." if comma else r"[ \u00a0\u202f'’]|,", "", digits).replace(",", ".")
        number = float(digits) * _FACTORS.get(unit or "", 1.0)
        values[i] = -number if match["sign"] in ("-", "−") else number
    return values, tuple(sorted(written))


def times_of_day(texts: np.ndarray) -> np.ndarray | None:
    """(n,) float64 seconds of the day; None where a text is no time of day."""
    seconds = np.empty(len(texts))
    for i, text in enumerate(texts):
        match = _CLOCK.fullmatch(text)
        if match is None:
            return None
        hour, minute, second = int(match[1]), int(match[3] or match[5]), float(match[4] or 0)
        if match[6]:
            hour = hour % 12 + 12 * (match[6].lower() == "pm")
        if hour > 24 or minute > 59 or second >= 61:
            return None
        seconds[i] = 3600 * hour + 60 * minute + second
    return seconds


def dates(texts: np.ndarray) -> np.ndarray | None:
    """(n,) datetime64; None where a text is no date, or where day and month cannot be told apart."""
    if all(_YEAR_FIRST.fullmatch(text) for text in texts):
        plain = [re.sub(r" ?(UTC|GMT)$", "+00:00", re.sub(r"[/.]", "-", text[:10]) + text[10:]) for text in texts]
        return _parsed(plain, "ISO8601")
    matches = [_YEAR_LAST.fullmatch(text) for text in texts]
    if all(matches):
        return _year_last([match for match in matches if match is not None])
    for form in _NAMED_MONTHS:
        if _parsed([str(texts[0])], form) is not None:
            return _parsed(list(texts), form)
    return None


def _dates_and_words(texts: np.ndarray, counts: np.ndarray) -> Meaning:
    """Dates, but for a few cells such as a unit or ``Total``; or categories."""
    is_date = np.array([bool(_YEAR_FIRST.fullmatch(text) or _YEAR_LAST.fullmatch(text)) for text in texts])
    if is_date.all() or not is_date.any() or counts[is_date].sum() < NEARLY * counts.sum():
        days = dates(texts)
        return Meaning("category") if days is None else Meaning("date", days)
    days = dates(texts[is_date])
    if days is None:
        return Meaning("category")
    values = np.full(len(texts), np.datetime64("NaT"), dtype=days.dtype)
    values[is_date] = days
    return Meaning("date", values, words=tuple(texts[~is_date]))


def eight_digit_dates(values: pd.Series) -> pd.Series | None:
    """Whole numbers such as 20240131 as dates; None where one of them is no date from 1900 to 2100."""
    if not pd.api.types.is_integer_dtype(values) or values.isna().any() or not len(values):
        return None
    if values.min() < 19_000_101 or values.max() > 21_001_231:
        return None
    read = pd.to_datetime(values.astype("int64").astype(str), format="%Y%m%d", errors="coerce")
    return None if read.isna().any() else read


def _plain(texts: np.ndarray) -> np.ndarray:
    """As Python reads numbers, NaN for the rest."""
    # As a list: what pandas makes of an array of text depends on its dtype.
    return np.array(pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce"), dtype=np.float64)


def _is_code(values: np.ndarray, written: tuple[str, ...]) -> bool:
    """Whether a few whole thousands or millions are more likely sizes, durations or other codes, such as 3M and 6M."""
    return written == ("K, M or B",) and len(values) < FEW_FRACTIONS


def _is_mostly(values: np.ndarray, is_number: np.ndarray, texts: np.ndarray, counts: np.ndarray) -> bool:
    read = values[is_number & np.isfinite(values)]
    n_different = len(np.unique(read))
    has_fractions = bool((read != np.round(read)).any())
    if n_different < (FEW_FRACTIONS if has_fractions else FEW):
        return False
    share = counts[is_number].sum() / counts.sum()
    words = texts[~is_number]
    are_words = len(words) <= FEW_WORDS and not any(re.search(r"\d", word) for word in words)
    return bool(share >= NEARLY or (share > MOSTLY and are_words))


def _year_last(matches: list[re.Match[str]]) -> np.ndarray | None:
    first, second = (np.array([int(match[group]) for match in matches]) for group in (1, 3))
    day_first = first.max() > 12 or all(match[2] == "." for match in matches)
    if day_first == (second.max() > 12):  # neither, or both
        return None
    days, months = (first, second) if day_first else (second, first)
    midnight = np.zeros(len(matches))
    clocks = [match[5] for match in matches]
    seconds = times_of_day(np.array([clock or "00:00" for clock in clocks], dtype=object)) if any(clocks) else midnight
    years = [match[4] for match in matches]
    read = _parsed([f"{year}-{month:02}-{day:02}" for year, month, day in zip(years, months, days, strict=True)], None)
    if read is None or seconds is None:
        return None
    return read + (seconds * 1000).astype("timedelta64[ms]")


def _parsed(texts: list[str], form: str | None) -> np.ndarray | None:
    read = pd.to_datetime(pd.Series(texts, dtype=object), format=form or "%Y-%m-%d", errors="coerce", utc=True)
    return None if read.isna().any() else read.dt.tz_convert(None).to_numpy()
