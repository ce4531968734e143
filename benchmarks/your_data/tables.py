"""Tables, one row per time step, in CSV and Parquet: from bytes to columns that are numbers, dates or categories."""

from __future__ import annotations

import csv as lines_of
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from benchmarks.your_data import cells
from benchmarks.your_data.recording import (
    MOST_BYTES,
    MOST_CELLS,
    MOST_COLUMNS,
    BadInput,
    Recording,
    bad,
    counted,
    listed,
    one_line,
    text_of,
)
from benchmarks.your_data.roles import Roles

MOST_WIDE = 10_000
"""Columns where each row is a sequence."""
DELIMITERS = ",;\t|"
LINES = 20
"""Lines of a table that are looked at to find its delimiter."""
_UNNAMED = re.compile(r"Unnamed: \d+|__index_level_\d+__")
"""What pandas calls a column without a name."""


class Column(NamedTuple):
    """values: (N,). remark: how they are read, where that is worth a remark. is_clock: whether they are times of day."""

    values: pd.Series
    remark: str = ""
    is_clock: bool = False


def csv(data: bytes, file: str, roles: Roles | None = None) -> Recording:
    """A table with a header line, below comments or a spreadsheet's ``sep=;`` where it has such. Raises BadInput."""
    roles = roles or Roles()
    whole = text_of(data, file)
    text = re.sub(r"\A(\s*(sep=.|# [^,;\t|\n]*)\n)*\n*", "", whole)
    if not text:
        raise bad(file, "no line names the columns")
    n_before = whole[: len(whole) - len(text)].count("\n")
    delimiter = _delimiter(text)
    header, unnamed, n_lines = _header(text, delimiter, file)
    _require_size(1, len(header), file, roles)
    body = (text.split("\n", n_lines)[n_lines:] or [""])[0]
    if not body.strip():
        raise bad(file, "the table has a header and no rows")
    named = {roles.target, roles.group, roles.split, *roles.keys}
    as_text = {name for name in header if name in named}
    try:
        table = _table(body, header, delimiter, dict.fromkeys(as_text, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        body = _trimmed(text, n_before, header, unnamed, delimiter, file, error)
        table = _table(body, header, delimiter, dict.fromkeys(as_text, pa.string()))
    _require_size(table.num_rows, table.num_columns, file, roles)
    comma = _has_decimal_commas(table, delimiter)
    if comma:
        # A dot then separates thousands, which a parser takes for a decimal point.
        dotted = {field.name for field in table.schema if pa.types.is_floating(field.type)}
        table = _table(body, header, delimiter, dict.fromkeys(as_text | dotted, pa.string()))
    return _recording(table, file, roles, unnamed, comma)


def parquet(data: bytes, file: str, roles: Roles | None = None) -> Recording:
    """Raises BadInput."""
    roles = roles or Roles()
    try:
        source = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        schema = source.schema_arrow
        _require_size(source.metadata.num_rows, len(schema), file, roles)
        n_bytes = sum(source.metadata.row_group(i).total_byte_size for i in range(source.num_row_groups))
        if n_bytes > MOST_BYTES:
            raise bad(file, f"the columns unpack to {n_bytes:,} bytes; at most {MOST_BYTES:,} can be read")
        for field in schema:
            _require_usable(field, file)
        texts = [field.name for field in schema if _is_text(field.type)]
        # Kept as a dictionary, a long text that many rows share takes its place once.
        source = pyarrow.parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts)
        table = source.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise bad(file, f"no Parquet file that can be read ({(str(error).splitlines() or [''])[0]})") from error
    repeated = [name for name, count in Counter(table.column_names).items() if count > 1]
    if repeated:
        raise bad(file, "two columns have this name; rename one", repeated[0])
    unnamed = tuple(name for name in table.column_names if _UNNAMED.fullmatch(name))
    return _recording(table, file, roles, unnamed, comma=False)


def _table(body: str, header: list[str], delimiter: str, types: dict[str, pa.DataType]) -> pa.Table:
    return pyarrow.csv.read_csv(
        io.BytesIO(body.encode()),
        pyarrow.csv.ReadOptions(column_names=header),
        pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in body),
        pyarrow.csv.ConvertOptions(null_values=sorted(cells.MISSING), strings_can_be_null=False, column_types=types),
    )


def _header(text: str, delimiter: str, file: str) -> tuple[list[str], tuple[str, ...], int]:
    """The columns' names, those that the file leaves empty, numbered here, and the lines that the header takes."""
    reader = lines_of.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader)]
    except lines_of.Error as error:
        raise bad(file, f"the header cannot be read ({error})", row=1) from error
    if all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", name, re.IGNORECASE) for name in names):
        raise bad(file, "the first line holds numbers; it must name the columns", row=1)
    unnamed = tuple(f"column {number}" for number, name in enumerate(names, 1) if not name)
    unnamed = (*unnamed, *(name for name in names if _UNNAMED.fullmatch(name)))
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise bad(file, "two columns have this name; rename one", repeated[0], 1)
    return names, unnamed, reader.line_num


def _delimiter(text: str) -> str:
    """The one that splits the first lines into equally many columns; of several, or of none, the one that the header has most
    of."""
    sample = text[:100_000].split("\n")[:LINES]
    n_columns = {}
    for delimiter in DELIMITERS:
        try:
            rows = [len(row) for row in lines_of.reader(sample, delimiter=delimiter) if row]
        except lines_of.Error:
            rows = []
        n_columns[delimiter] = rows[0] if len(set(rows[:-1])) == 1 else 0
    most = max(n_columns.values())
    return max(DELIMITERS, key=lambda delimiter: (most > 1 and n_columns[delimiter] > 1, sample[0].count(delimiter)))


def _trimmed(
    text: str, n_before: int, header: list[str], unnamed: tuple[str, ...], delimiter: str, file: str, error: Exception
) -> str:
    """The rows without the empty cells that stand beyond the header's columns. Raises BadInput at the first row that holds
    more or fewer values than the header names. n_before: lines of the file before the header."""
    reader = lines_of.reader(io.StringIO(text), delimiter=delimiter)
    least = len(header)
    while header[least - 1] in unnamed and least > 1:
        least -= 1
    output = io.StringIO()
    writer = lines_of.writer(output, delimiter=delimiter, lineterminator="\n")
    try:
        rows = (row for row in reader if row)
        next(rows)
        for row in rows:
            if not least <= len(row) <= len(header) and any(cell.strip() for cell in row[len(header) :] or row):
                n_values = counted(len(row), "value")
                raise bad(
                    file, f"{n_values}, but the header names {len(header)} columns", row=n_before + reader.line_num
                )
            writer.writerow((row + [""] * len(header))[: len(header)])
    except lines_of.Error as wrong:
        raise bad(file, str(wrong), row=n_before + reader.line_num) from wrong
    trimmed = output.getvalue()
    try:
        _table(trimmed, header, delimiter, {})
    except pa.ArrowException:
        raise bad(file, f"the table cannot be read ({str(error).splitlines()[0]})") from error
    return trimmed


def _has_decimal_commas(table: pa.Table, delimiter: str) -> bool:
    """Whether the file as a whole writes 1,5 for one and a half."""
    decimal = thousands = neither = 0
    for column in table.columns:
        if pa.types.is_string(column.type):
            encoded = pa.compute.value_counts(column.filter(pa.compute.match_substring(column, ",")))
            texts = np.array([str(text).strip() for text in encoded.field("values").to_pylist()], dtype=object)
            evidence = cells.comma_evidence(texts, encoded.field("counts").to_numpy())
            decimal, thousands = decimal + evidence[0], thousands + evidence[1]
            neither += sum(re.fullmatch(r"-?\d{1,3},\d{3}", text) is not None for text in texts)
    return decimal > thousands or (decimal == thousands == 0 and delimiter == ";" and neither > 0)


def _require_size(n_rows: int, n_columns: int, file: str, roles: Roles) -> None:
    most = MOST_WIDE if roles.wide else MOST_COLUMNS
    if n_columns > most:
        raise bad(file, f"{n_columns:,} columns; at most {most:,} can be used")
    if n_rows < 1 or n_columns < 1:
        raise bad(file, "the table has a header and no rows")
    if n_rows * n_columns > MOST_CELLS:
        raise bad(
            file,
            f"{n_rows:,} rows of {counted(n_columns, 'column')}; at most {MOST_CELLS:,} values can be read; write fewer rows",
        )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _require_usable(field: pa.Field, file: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_usable = (
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null),
        *(pa.types.is_temporal, _is_text, pa.types.is_string_view),
    )
    if not any(test(kind) for test in is_usable) or pa.types.is_interval(kind):
        raise bad(file, f"values of the type {kind} cannot be used; write numbers, dates or text", field.name)


def _recording(table: pa.Table, file: str, roles: Roles, unnamed: tuple[str, ...], comma: bool) -> Recording:
    named = {column for _, column in roles.columns}
    columns = {name: _column(table[name], name, file, roles, comma) for name in table.column_names}
    frame = pd.DataFrame({name: column.values for name, column in columns.items()})
    rows = np.arange(1, len(frame) + 1)
    remarks = [column.remark for column in columns.values() if column.remark]
    empty = [name for name in frame.columns if frame[name].isna().all()]
    is_empty = frame.isna().all(axis=1).to_numpy() if len(frame.columns) > 1 else np.zeros(len(frame), dtype=bool)
    if is_empty.all():
        raise bad(file, "every cell is empty")
    if is_empty.any():
        remarks.append(f"left out, because they are empty: {counted(int(is_empty.sum()), 'row')}")
        frame, rows = frame[~is_empty].reset_index(drop=True), rows[~is_empty]
    empty_named = [name for name in empty if name not in unnamed]
    if empty_named:
        remarks.append(f"left out, because they are empty: {listed(empty_named)}")
    without_name = [name for name in unnamed if name not in named and name not in empty]
    if without_name:
        remarks.append(f"left out, because they have no name: {listed(without_name)}; name a column to use it")
    clocks = tuple(name for name, column in columns.items() if column.is_clock)
    return Recording(
        file,
        frame.drop(columns=[*empty, *without_name]),
        rows,
        ignored=(*empty, *without_name),
        remarks=tuple(_joined(remarks)),
        clocks=clocks,
    )


def _joined(remarks: list[str]) -> Iterator[str]:
    """Remarks that differ only in their column as one, its columns listed."""
    columns: dict[str, list[str]] = {}
    for remark in remarks:
        start, split, column = remark.rpartition(" in column ")
        columns.setdefault(start if split else remark, []).extend([column] if split else [])
    for start, names in columns.items():
        yield f"{start} in {'column' if len(names) == 1 else 'columns'} {listed(names)}" if names else start


def _column(values: pa.ChunkedArray, name: str, file: str, roles: Roles, comma: bool) -> Column:
    """Numbers as they are, dates as dates, truth as 0 and 1 or, as a target, as classes, ids and groups as text, and text as
    what it means."""
    is_name = name in (*roles.keys, roles.group, roles.split)
    kind = values.type
    try:
        if pa.types.is_dictionary(kind) and not _is_text(kind.value_type):
            values, kind = values.cast(kind.value_type), kind.value_type
        if pa.types.is_string_view(kind):
            values, kind = values.cast(pa.string()), pa.string()
        if pa.types.is_dictionary(kind) or _is_text(kind):
            return _text(values, name, roles, is_name, comma)
        if is_name or (pa.types.is_boolean(kind) and name == roles.target):
            return Column(_names(values.to_pandas()))
        if pa.types.is_boolean(kind):
            values = values.cast(pa.int8())
        elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
            values = values.cast(pa.float64())
        elif pa.types.is_time(kind) or pa.types.is_duration(kind):
            whole = values.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(pa.float64())
            per_second = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
            return Column(whole.to_pandas() / per_second, is_clock=pa.types.is_time(kind))
        elif pa.types.is_date(kind):
            values = values.cast(pa.timestamp("s"))
        read = values.to_pandas()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise bad(file, f"the values cannot be read ({(str(error).splitlines() or [''])[0]})", name) from error
    days = cells.eight_digit_dates(read) if name != roles.target and read.nunique() > 2 else None
    return Column(read) if days is None else Column(days, f"numbers of eight digits are read as dates in column {name}")


def _text(values: pa.ChunkedArray, name: str, roles: Roles, is_name: bool, comma: bool) -> Column:
    """A column of text, by what its different texts mean."""
    plain = None if is_name or comma or roles.missing else _plain_numbers(values)
    if plain is not None:
        return _quantities(plain, cells.Meaning("number"), 0, name, roles)
    codes, texts = _factorized(values)
    is_empty = np.array([text == "" or text in roles.missing for text in texts] + [True])
    if is_name:
        return Column(_categories(codes, texts, np.array([text == "" for text in texts] + [True])))
    n_missing = int(np.isin(codes, np.flatnonzero(np.isin(texts, roles.missing))).sum())
    if n_missing:
        remark = f"read as missing, as --missing says: {counted(n_missing, 'value')} in column {name}"
        return _meant(codes, texts, is_empty, name, roles, comma)._replace(remark=remark)
    return _meant(codes, texts, is_empty, name, roles, comma)


def _plain_numbers(values: pa.ChunkedArray) -> pd.Series | None:
    """A long column that nothing need be found out about: numbers as programs write them, or nothing."""
    if len(values) < cells.SAMPLE or not pa.types.is_string(values.type):
        return None
    is_code = pa.compute.match_substring_regex(values, r"^\s*(-?0\d|\d{16})")
    if pa.compute.any(is_code).as_py():
        return None
    trimmed = pa.compute.utf8_trim_whitespace(values)
    trimmed = pa.compute.if_else(pa.compute.equal(trimmed, ""), None, trimmed)
    try:
        return trimmed.cast(pa.float64()).to_pandas()
    except pa.ArrowInvalid:
        return None


def _meant(codes: np.ndarray, texts: np.ndarray, is_empty: np.ndarray, name: str, roles: Roles, comma: bool) -> Column:
    """is_empty: (n + 1,) whether a text stands for a missing value; the last is for the code -1."""
    is_target = name == roles.target
    is_missing = is_empty | np.array([text in cells.MISSING for text in texts] + [True])
    known = np.flatnonzero(~is_missing[:-1])
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    found = cells.meaning(texts[known], counts[known], comma)
    is_broken = (is_target and _is_coded(texts[known], found)) or (name == roles.time and found.words)
    if found.values is not None and not is_broken:
        fill = np.datetime64("NaT") if found.kind == "date" else np.nan
        placed = np.full(len(texts) + 1, fill, dtype=found.values.dtype)
        placed[known] = found.values
        return _quantities(pd.Series(placed[codes]), found, int(counts[np.isin(texts, found.words)].sum()), name, roles)
    if is_target:
        # NA, None and so on are classes like any other: only an empty cell is known to be missing.
        odd = [text for text in texts if text in cells.MISSING and text]
        remark = (
            f"{listed(map(repr, odd))} is read as a class, not as missing (--missing changes that) in column {name}"
        )
        return Column(_categories(codes, texts, is_empty), remark if set(odd) - set(roles.missing) else "")
    if len(known) and {text.lower() for text in texts[known]} <= {"true", "false"}:
        is_true = np.array([text.lower() == "true" for text in texts] + [False])
        return Column(pd.Series(is_true[codes].astype(float)).where(~is_missing[codes]))
    return Column(_categories(codes, texts, is_missing))


def _quantities(values: pd.Series, found: cells.Meaning, n_words: int, name: str, roles: Roles) -> Column:
    """Numbers, dates or times of day, and what was done to read them."""
    shown = listed((repr(word[:40]) for word in found.words), 3)
    if found.kind != "number":
        n = "1 value that is no date" if n_words == 1 else f"{n_words:,} values that are no dates"
        remark = f"{n} ({shown}) {'is' if n_words == 1 else 'are'} read as missing in column {name}"
        return Column(values, remark if found.words else "", found.kind == "clock")
    if np.isfinite(values).all() and (values == values.round()).all() and values.abs().max() < 2**53:
        values = values.astype(np.int64)
        days = cells.eight_digit_dates(values) if name != roles.target and values.nunique() > 2 else None
        if days is not None:
            return Column(days, f"numbers of eight digits are read as dates in column {name}")
    if found.words:
        no_numbers = "1 value that is no number" if n_words == 1 else f"{n_words:,} values that are no numbers"
        also = f", and others with {listed(found.written)} as numbers," if found.written else ""
        return Column(
            values, f"{no_numbers} ({shown}) {'is' if n_words == 1 else 'are'} read as missing{also} in column {name}"
        )
    written = f"values with {listed(found.written)} are read as numbers in column {name}"
    return Column(values, written if found.written else "")


def _is_coded(texts: np.ndarray, found: cells.Meaning) -> bool:
    """Whether whole numbers are no quantities: they have leading zeros, or more digits than a number keeps."""
    return found.kind == "number" and any(re.fullmatch(r"-?0\d+|\d{16,}", text) is not None for text in texts)


def _factorized(values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) codes, -1 where missing, and the different texts, without the blanks around them."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    chunks = encoded.chunks
    texts = ["" if text is None else str(text).strip() for text in chunks[0].dictionary.to_pylist()] if chunks else []
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in chunks]
    unique, which = np.unique(np.array([*texts, ""], dtype=object), return_inverse=True)
    placed = np.append(which[:-1], -1)
    return placed[np.concatenate(codes).astype(np.int64)] if codes else np.empty(0, dtype=np.int64), unique


def _categories(codes: np.ndarray, texts: np.ndarray, is_missing: np.ndarray) -> pd.Series:
    kept = np.flatnonzero(~is_missing[:-1])
    placed = np.full(len(is_missing), -1)
    placed[kept] = np.arange(len(kept))
    return pd.Series(pd.Categorical.from_codes(placed[codes], pd.Index(texts[kept], dtype=object)))


def _names(values: pd.Series) -> pd.Series:
    """Values of any type as names, missing ones kept."""
    codes, different = pd.factorize(values)
    texts = [name_of(value) for value in different]
    unique, which = np.unique(np.array([*texts, ""], dtype=object), return_inverse=True)
    placed = np.append(which[:-1], -1)
    return pd.Series(
        pd.Categorical.from_codes(placed[codes], pd.Index(unique, dtype=object)).remove_unused_categories()
    )


def name_of(value: Any) -> str:
    """A column of whole numbers is read as fractions where one is missing: 1.0 is then the 1 of another table."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else one_line(str(value))
