"""Tables, one row per time step, in CSV and Parquet: from bytes to columns that are numbers, dates or categories."""

from __future__ import annotations

import csv as lines_of
import io
import re
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.your_data.recording import BadInput, Recording, bad, listed, text_of

MOST_COLUMNS = 2_000
MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?"]
"""What stands for a missing value."""
NEARLY = 0.9
"""A column of text of which so much reads as numbers was meant to hold numbers."""
FEW = 20
"""Different values up to which a column may be a code, with letters and digits as it likes."""
DELIMITERS = ",;\t|"


def csv(data: bytes, file: str) -> Recording:
    """A table with a header line; its delimiter is the one that the header has most of. Raises BadInput."""
    whole = text_of(data, file)
    text = whole.lstrip("\n")
    delimiter = max(DELIMITERS, key=text.split("\n", 1)[0].count)
    header, n_lines = _header(text, delimiter, file)
    body = text.split("\n", n_lines)[n_lines:]
    if not body or not body[0].strip():
        raise bad(file, "the table has a header and no rows")
    # Where columns are set apart by semicolons, numbers are often written with a comma.
    comma = delimiter == ";" and re.search(r"(^|;)-?\d+,\d+(;|$)", text[:100_000], re.MULTILINE) is not None
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(body[0].encode()),
            pyarrow.csv.ReadOptions(column_names=header),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in text),
            pyarrow.csv.ConvertOptions(
                null_values=MISSING, strings_can_be_null=True, decimal_point="," if comma else "."
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _broken(whole, delimiter, len(header), file, error) from error
    return _recording(table, file)


def parquet(data: bytes, file: str) -> Recording:
    """Raises BadInput."""
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise bad(file, f"no Parquet file that can be read ({str(error).splitlines()[0]})") from error
    repeated = [name for name, count in Counter(table.column_names).items() if count > 1]
    if repeated:
        raise bad(file, "two columns have this name; rename one", repeated[0])
    return _recording(table, file)


def _header(text: str, delimiter: str, file: str) -> tuple[list[str], int]:
    """The columns' names, and the lines that they take; a name that is empty becomes the column's number."""
    reader = lines_of.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader)]
    except lines_of.Error as error:
        raise bad(file, f"the header cannot be read ({error})", row=1) from error
    if all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", name, re.IGNORECASE) for name in names):
        raise bad(file, "the first line holds numbers; it must name the columns", row=1)
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise bad(file, "two columns have this name; rename one", repeated[0], 1)
    return names, reader.line_num


def _broken(text: str, delimiter: str, n_columns: int, file: str, error: Exception) -> BadInput:
    """The line at which a table stops being one, looked for row by row."""
    reader = lines_of.reader(io.StringIO(text), delimiter=delimiter)
    try:
        for cells in reader:
            if cells and len(cells) != n_columns:
                return bad(file, f"{len(cells)} values, but the header names {n_columns} columns", row=reader.line_num)
    except lines_of.Error as wrong:
        return bad(file, str(wrong), row=reader.line_num)
    return bad(file, f"the table cannot be read ({str(error).splitlines()[0]})")


def _recording(table: pa.Table, file: str) -> Recording:
    if table.num_columns > MOST_COLUMNS:
        raise bad(file, f"{table.num_columns:,} columns; at most {MOST_COLUMNS:,} can be used")
    if not table.num_rows:
        raise bad(file, "the table has a header and no rows")
    frame = pd.DataFrame({name: _column(table[name], name, file) for name in table.column_names})
    empty = [name for name in frame.columns if frame[name].isna().all()]
    remarks = (f"left out, because they are empty: {listed(empty)}",) if empty else ()
    return Recording(
        file, frame.drop(columns=empty), np.arange(1, len(frame) + 1), ignored=tuple(empty), remarks=remarks
    )


def _column(values: pa.ChunkedArray, name: str, file: str) -> pd.Series:
    """Numbers as they are, truth as 0 and 1, dates as dates, anything else as categories."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise bad(file, f"values of the type {kind} cannot be used; write numbers, dates or text", name)
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_time(kind) or pa.types.is_duration(kind):
        values = values.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(pa.float64())
    elif pa.types.is_date(kind):
        values = values.cast(pa.timestamp("s"))
    try:
        return values.to_pandas(strings_to_categorical=True)
    except pa.ArrowException as error:
        raise bad(file, f"the values cannot be read ({str(error).splitlines()[0]})", name) from error


def require_numbers(recording: Recording, column: str) -> None:
    """Raises BadInput at the first row that is no number where nearly all of a column of text reads as numbers."""
    values = recording.frame[column]
    if not isinstance(values.dtype, pd.CategoricalDtype) or len(values.cat.categories) < FEW:
        return
    read = pd.to_numeric(pd.Series(values.cat.categories.astype(str)), errors="coerce").isna().to_numpy()
    wrong = np.append(read, False)[values.cat.codes]  # the code of a missing value, -1, reads the last
    if 0 < wrong.sum() <= (1 - NEARLY) * values.notna().sum():
        row = int(np.flatnonzero(wrong)[0])
        shown = str(values.iloc[row])[:40]
        raise recording.bad(f"{shown!r} is no number, as the rest is; leave a missing value empty", column, row)
