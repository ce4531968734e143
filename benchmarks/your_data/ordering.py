"""Rows in order: the column that says when each was taken, recognised or named, and times that occur twice."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.your_data import cells
from benchmarks.your_data.recording import Recording, counted, first, one_line, sequence_numbers

FEW_REPEATED = 0.05
"""Of the rows that share the time of another up to which a column of dates still orders the rest."""
FEW_UNDATED = 0.01
"""Of the rows, or two of them, up to which those without a date are left out of a table with a column of dates."""
MANY_REPEATED = 0.5
"""Of the rows that share key and time from which the key names no single sequence."""
PRESENT = 0.5
"""Of a sequence's times at which a further key occurs, on average: series side by side do, kinds of events do not."""


def in_order(recording: Recording, keys: tuple[str, ...] = ()) -> Recording:
    """Sequences one after another in order of their ids, so that the order of the file says nothing, each in order of
    time. keys: the columns of ``--sequence-id``.

    Raises BadInput for an unreadable time, and where the times of a sequence show that it is several.
    """
    if recording.time is not None:
        times = times_of(recording, recording.time)
        made = replace(recording, frame=recording.frame.assign(**{recording.time: times}))
        recording = _with_clock(_without_copies(made), recording.time)
    elif recording.counted == "row":
        recording = _with_recognised_time(recording)
    number = _ranks(recording)
    times = [] if recording.time is None else [recording.frame[recording.time].to_numpy()]
    order = np.lexsort([*times, number])
    if recording.time is not None:
        recording = _with_repeated_times(recording, number, order, keys)
    return _reordered(recording, order)


def _ranks(recording: Recording) -> np.ndarray:
    """(N,) int64: the place of each row's sequence among the sorted ids; all 0 where no column names them."""
    number = sequence_numbers(recording.frame, recording.sequence)
    if recording.sequence is None:
        return number
    ids = recording.frame[recording.sequence].iloc[np.unique(number, return_index=True)[1]]
    names = ids.astype(str).to_numpy(dtype=object)
    # Short ones first, so that 9 comes before 10.
    order = np.lexsort([pd.factorize(names, sort=True)[0], [len(name) for name in names]])
    return np.argsort(order)[number]


def times_of(recording: Recording, column: str) -> pd.Series:
    """(N,) numbers or dates without a time zone."""
    values = recording.frame[column]
    if values.isna().any():
        raise recording.bad("a missing value, where each row needs one", column, first(values.isna()))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return values.dt.tz_convert(None)
    if pd.api.types.is_datetime64_any_dtype(values):
        return values
    if pd.api.types.is_numeric_dtype(values):
        wrong = ~np.isfinite(values.to_numpy(dtype=float))
        if wrong.any():
            raise recording.bad(f"the time {values[wrong].iloc[0]} is not finite", column, first(wrong))
        days = cells.eight_digit_dates(values)
        return values if days is None else days
    texts = values.astype(str)
    numbers = pd.to_numeric(texts, errors="coerce")
    read = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    wrong = min((numbers.isna(), read.isna()), key=lambda missing: int(missing.sum()))
    if wrong.any():
        row = first(wrong)
        shown = one_line(texts.iloc[row])[:40]
        raise recording.bad(f"{shown!r} is no time; write numbers, or dates like 2024-12-31 23:59", column, row)
    return read.dt.tz_convert(None) if not read.isna().any() else numbers


def _reordered(recording: Recording, order: np.ndarray) -> Recording:
    if (order == np.arange(len(order))).all():
        return recording
    return replace(recording, frame=recording.frame.iloc[order].reset_index(drop=True), rows=recording.rows[order])


def _with_clock(recording: Recording, column: str) -> Recording:
    """Days that repeat within a sequence, joined with the times of day, or hours, of another column."""
    days = recording.frame[column]
    clocks = [name for name in recording.inputs if name in recording.clocks or _is_hour(name, recording.frame[name])]
    if not clocks or not pd.api.types.is_datetime64_any_dtype(days) or recording.frame[clocks[0]].isna().any():
        return recording
    number = sequence_numbers(recording.frame, recording.sequence)
    if not (days == days.dt.normalize()).all() or not _repeated(days, number).any():
        return recording
    clock = clocks[0]
    joined = days + pd.to_timedelta(recording.frame[clock], unit="s" if clock in recording.clocks else "h")
    made = replace(
        recording, frame=recording.frame.assign(**{column: joined}), ignored=(*recording.ignored, clock), time=column
    )
    return made.remarked(f"columns {one_line(column)} and {one_line(clock)} together are read as the time")


def _is_hour(name: str, values: pd.Series) -> bool:
    is_named = re.fullmatch(r"(?i)hours?|hr|stunde|heure|hora|ora|hour.?of.?day", name.strip()) is not None
    return is_named and pd.api.types.is_integer_dtype(values) and bool(values.between(0, 24).all())


def _with_recognised_time(recording: Recording) -> Recording:
    """The first column of dates that differ within each sequence is the time."""
    dates = [
        name
        for name in recording.inputs
        if pd.api.types.is_datetime64_any_dtype(recording.frame[name])
        and recording.frame[name].isna().sum() <= max(2, FEW_UNDATED * len(recording.frame))
    ]
    if dates and recording.frame[dates[0]].isna().any():
        recording = _without_undated(recording, dates[0])
    dates = [name for name in dates if recording.frame[name].notna().all()]
    number = sequence_numbers(recording.frame, recording.sequence)
    if dates and recording.sequence is None:
        recording = _without_copies(recording)
        number = sequence_numbers(recording.frame, None)
    for column in dates:
        made = replace(recording, frame=recording.frame.assign(**{column: times_of(recording, column)}))
        joined = _with_clock(made, column)
        if not _repeated(joined.frame[column], number).any():
            if joined.time is not None:
                return joined
            return replace(made, time=column).remarked(
                f"column {one_line(column)} is read as the time; name another with --time, or leave it out with --ignore"
            )
    for column in dates:
        further = _further_keys(replace(recording, time=column), number, of_text=True)
        if further and recording.sequence is None:
            return recording.remarked(
                f"warning: column {one_line(column)} holds each time once per value of column {one_line(further[0])}; if "
                f"rows belong to different sequences, use --sequence-id {one_line(further[0])}"
            )
        if further:
            return replace(recording, time=column)
        times = times_of(recording, column)
        falls = _falls(times, number)
        if falls or float(_repeated(times, number).mean()) <= FEW_REPEATED:
            return _roughly_ordered(recording, column, falls)
    return recording


def _without_undated(recording: Recording, column: str) -> Recording:
    """A row without a date among dated ones, such as one of units or totals, is no step."""
    is_dated = recording.frame[column].notna().to_numpy()
    if is_dated.sum() < 2:
        return recording
    made = replace(recording, frame=recording.frame[is_dated].reset_index(drop=True), rows=recording.rows[is_dated])
    row = recording.rows[~is_dated][0]
    n = counted(int((~is_dated).sum()), "row")
    return made.remarked(f"left out: {n} without a date in column {one_line(column)} (the first is row {row:,})")


def _without_copies(recording: Recording) -> Recording:
    """In one series by time, a row that equals another in every column is an export's mistake."""
    is_copy = recording.frame.duplicated().to_numpy()
    if recording.sequence is not None or not is_copy.any():
        return recording
    made = replace(recording, frame=recording.frame[~is_copy].reset_index(drop=True), rows=recording.rows[~is_copy])
    row = recording.rows[is_copy][0]
    n = counted(int(is_copy.sum()), "row")
    return made.remarked(f"left out: {n} equal to another in every column (the first is row {row:,})")


def _roughly_ordered(recording: Recording, column: str, falls: bool) -> Recording:
    """By a column of dates of which some are equal: such rows stay in the order of the file, or in its reverse."""
    turned = _reordered(recording, np.arange(len(recording.frame))[::-1]) if falls else recording
    number = sequence_numbers(turned.frame, turned.sequence)
    ordered = _reordered(turned, np.lexsort([times_of(turned, column).to_numpy(), number]))
    if (ordered.rows == recording.rows).all():
        return recording
    return ordered.remarked(f"rows are put in order of column {one_line(column)}, in which some times occur twice")


def _repeated(times: pd.Series, number: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a row before it has the same sequence and time."""
    return pd.DataFrame({"number": number, "time": times.to_numpy()}).duplicated().to_numpy()


def _falls(times: pd.Series, number: np.ndarray) -> bool:
    """Whether the newest row of each sequence comes first."""
    values = times.to_numpy().astype("datetime64[ns]").astype(np.int64)
    order = np.argsort(number, kind="stable")
    steps = np.diff(values[order])[number[order][1:] == number[order][:-1]]
    return bool((steps <= 0).all() and (steps < 0).any())


def _with_repeated_times(
    recording: Recording, number: np.ndarray, order: np.ndarray, keys: tuple[str, ...]
) -> Recording:
    """Equal times in one sequence mean that it is several, or that clocks were set back. Raises BadInput then; else, as in a
    log of events, rows of one time stay in the order of the file."""
    assert recording.time is not None
    times = recording.frame[recording.time]
    ordered, numbers = times.to_numpy()[order], number[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (numbers[1:] == numbers[:-1]))
    if not len(same):
        return recording
    before, row = int(order[same[0]]), int(order[same[0] + 1])
    shown = one_line(_shown(times.iloc[row]))[:40]
    if _is_clock_change(times.iloc[order[same + 1]]):
        raise recording.bad(
            f"{shown} occurs twice, also in row {recording.rows[before]:,}, probably because clocks were set back from "
            "daylight-saving time; write times in UTC or with their offset, like 2024-10-27 02:00+01:00",
            recording.time,
            row,
        )
    further = _further_keys(recording, number)
    if recording.sequence is None:
        such = f", such as --sequence-id {one_line(further[0])}" if further else ""
        raise recording.bad(
            f"the same time as row {recording.rows[before]:,}; if rows belong to different sequences, name their column "
            f"with --sequence-id{such}",
            recording.time,
            row,
        )
    if further or len(same) > MANY_REPEATED * len(order):
        key = one_line(str(recording.frame[recording.sequence].iloc[row]))[:40]
        advice = " ".join(f"--sequence-id {one_line(name)}" for name in (*keys, *(further[:1] or ["COLUMN"])))
        raise recording.bad(
            f"{shown} occurs twice in {one_line(recording.sequence)} {key}, also in row {recording.rows[before]:,}; name "
            f"further key columns, like {advice}",
            recording.time,
            row,
        )
    return recording.remarked(
        f"{counted(len(same), 'row')} with the same sequence and time as another (the first is row "
        f"{recording.rows[row]:,}): they stay in the order of the file"
    )


def _is_clock_change(times: pd.Series) -> bool:
    """Whether all repeated times are within one hour of a weekend's night, as where clocks are set back."""
    if not pd.api.types.is_datetime64_any_dtype(times):
        return False
    days = times.dt.normalize()
    spans = times.groupby(days).agg(lambda day: day.max() - day.min())
    is_night = times.dt.hour.isin([0, 1, 2, 3, 23]) & times.dt.weekday.isin([5, 6])
    has_clock = bool((times != days).any())
    return has_clock and bool(is_night.all()) and bool((spans <= pd.Timedelta(hours=1)).all())


def _further_keys(recording: Recording, number: np.ndarray, of_text: bool = False) -> list[str]:
    """The columns that, beside the key, would leave no time twice, and whose values occur at most of a sequence's times.
    of_text: only columns of text."""
    assert recording.time is not None
    times = times_of(recording, recording.time)
    n_times = len(pd.DataFrame({"number": number, "time": times}).drop_duplicates())
    n_sequences = int(number.max()) + 1
    keys = []
    for column in recording.inputs:
        values = recording.frame[column]
        is_name = isinstance(values.dtype, pd.CategoricalDtype)
        is_name = is_name or (not of_text and pd.api.types.is_integer_dtype(values))
        if not is_name or values.isna().any():
            continue
        codes = pd.factorize(values)[0]
        finer = pd.factorize(number * (int(codes.max()) + 1) + codes)[0]
        n_finer = int(finer.max()) + 1
        n_present = len(times) / n_finer
        if not _repeated(times, finer).any() and n_present >= max(2, PRESENT * n_times / n_sequences):
            keys.append(column)
    return keys


def _shown(value: object) -> str:
    """A time as text."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
    return f"{value}"
