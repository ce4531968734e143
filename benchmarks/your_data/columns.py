"""What becomes of a recording's columns before it is put in order: keys, wide rows, missing values, row numbers, warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.your_data import tables
from benchmarks.your_data.recording import Recording, counted, first, is_number, listed, one_line, sequence_numbers

MANY = 8
"""Columns with the same name but for a number from which a row may be a sequence."""
LEAST_ROWS = 10
"""Fewer rows do not show that a column numbers them, or that a value lies outside the rest."""
OFTEN = 0.002
"""Of the rows that hold a value from which it may stand for a missing one."""
FAR = 3.0
"""Distance from the rest, in spreads of the rest, from which a value lies far outside; a quarter of it for a usual code."""
_USUAL = re.compile(r"-?9{2,}|-200")


def wide(recording: Recording) -> Recording:
    """Each row of numbers (N, T) as a sequence of T steps and one channel, without the missing values at its end."""
    if recording.counted != "row":
        raise recording.bad("--wide reads each row of a table as a sequence, and this file is no table")
    if recording.time is not None:
        raise recording.bad("--wide reads each row as a sequence, whose columns are its steps; leave out --time")
    frame = recording.frame
    if recording.sequence == recording.group:  # a group is several rows, and each of them is a sequence
        recording = replace(recording, sequence=None)
    steps = [name for name in recording.inputs if pd.api.types.is_numeric_dtype(frame[name])]
    if len(steps) < 2:
        raise recording.bad(f"--wide needs at least two columns of numbers as steps; there are {len(steps)}")
    roles = [recording.target, recording.sequence, recording.group, recording.split]
    kept = list(dict.fromkeys(name for name in roles if name is not None))
    sequence, step, value = (_free(name, kept) for name in ("sequence", "step", "value"))
    if recording.sequence is not None and frame[recording.sequence].duplicated().any():
        row = first(frame[recording.sequence].duplicated())
        raise recording.bad("--wide reads each row as a sequence, and this one occurs twice", recording.sequence, row)
    values = frame[steps].to_numpy(dtype=float, na_value=np.nan)  # (N, T)
    known = ~np.isnan(values)
    lengths = np.where(known.any(axis=1), len(steps) - known[:, ::-1].argmax(axis=1), 1)
    valid = np.arange(len(steps)) < lengths[:, None]  # (N, T)
    rows, at = np.nonzero(valid)
    columns = {sequence: pd.Series(rows), step: pd.Series(at), value: pd.Series(values[valid])}
    columns.update({name: frame[name].take(rows).reset_index(drop=True) for name in kept})
    others = [name for name in recording.inputs if name not in steps]
    shown = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    made = replace(
        recording,
        frame=pd.DataFrame(columns),
        rows=recording.rows[rows],
        sequence=recording.sequence or sequence,
        ignored=(*recording.ignored, step, *([sequence] if recording.sequence is not None else []), *others),
    ).remarked(f"--wide: each row is read as a sequence of {shown} steps and one channel")
    return made.remarked(f"left out, because they are no numbers: {listed(others)}") if others else made


def with_keys(recording: Recording, keys: tuple[str, ...]) -> Recording:
    """Several key columns as one column that names the sequences; a group belongs to the key where a sequence's name occurs
    in several groups. Raises BadInput for a row without a key or group."""
    for column in dict.fromkeys((*keys, recording.sequence, recording.group)):
        if column is not None and recording.frame[column].isna().any():
            row = first(recording.frame[column].isna())
            raise recording.bad("a missing value, where each row needs one", column, row)
    if recording.sequence is None:
        return recording
    keys = keys or (recording.sequence,)
    group, remark = recording.group, ""
    if group is not None and group not in keys:
        pairs = recording.frame[[*keys, group]].drop_duplicates()
        if len(pairs) > len(pairs[[*keys]].drop_duplicates()):
            keys = (group, *keys)
            key = " and ".join(map(one_line, keys))
            remark = f"the same {one_line(keys[-1])} occurs in several groups, so {key} together name a sequence"
    if len(keys) == 1:
        return recording
    codes = np.zeros(len(recording.frame), dtype=np.int64)
    for key in keys:
        column, different = pd.factorize(recording.frame[key])
        codes = pd.factorize(codes * len(different) + column)[0]
    _, rows = np.unique(codes, return_index=True)
    parts = [recording.frame[key].iloc[rows] for key in keys]
    names = [", ".join(tables.name_of(value) for value in values) for values in zip(*parts, strict=True)]
    unique, which = np.unique(np.array(names, dtype=object), return_inverse=True)
    if len(unique) < len(names):  # "a, b" and "c" against "a" and "b, c"
        unique, which = np.array([f"{name} ({i})" for i, name in enumerate(names)], dtype=object), np.arange(len(names))
    joined = _free(", ".join(keys), list(recording.frame.columns))
    frame = recording.frame.assign(**{joined: pd.Categorical.from_codes(which[codes], pd.Index(unique, dtype=object))})
    ignored = (*recording.ignored, *(key for key in keys if key not in recording.ignored))
    made = replace(recording, frame=frame, sequence=joined, ignored=ignored)
    return made.remarked(remark) if remark else made


def without_values(recording: Recording, missing: tuple[str, ...]) -> Recording:
    """The values of ``--missing`` as missing ones, in inputs and target; numbers are compared as numbers."""
    numbers = [float(text) for text in missing if is_number(text)]
    changed = {}
    for column in _quantities(recording) if numbers else ():
        values = recording.frame[column]
        is_missing = values.isin(numbers)
        if is_missing.any():
            changed[column] = values.astype(float).mask(is_missing)
            n = counted(int(is_missing.sum()), "value")
            recording = recording.remarked(f"read as missing, as --missing says: {n} in column {one_line(column)}")
    if missing and not any("--missing says" in remark for remark in recording.remarks):
        recording = recording.remarked(f"--missing: no value is equal to {listed(map(repr, missing))}")
    return replace(recording, frame=recording.frame.assign(**changed)) if changed else recording


def without_infinite(recording: Recording) -> Recording:
    """Infinite inputs as missing ones."""
    changed, total = {}, 0
    for column in recording.inputs:
        values = recording.frame[column]
        if pd.api.types.is_float_dtype(values):
            is_infinite = np.isinf(values.to_numpy(dtype=float, na_value=np.nan))
            if is_infinite.any():
                changed[column], total = values.mask(is_infinite), total + int(is_infinite.sum())
    if not changed:
        return recording
    made = replace(recording, frame=recording.frame.assign(**changed))
    where = f"in {'column' if len(changed) == 1 else 'columns'} {listed(changed)}"
    return made.remarked(f"read as missing, because infinite: {counted(total, 'value')} {where}")


def without_row_numbers(recording: Recording) -> Recording:
    """A column that numbers the rows says nothing, unless they are sorted by the answer: then it gives the answer away."""
    if recording.counted != "row":
        return recording
    number = sequence_numbers(recording.frame, recording.sequence)
    order = np.lexsort([np.arange(len(number)), number])
    if recording.time is not None and pd.api.types.is_numeric_dtype(recording.frame[recording.time]):
        order = np.lexsort([recording.frame[recording.time].to_numpy(), number])
    counting = [
        column
        for column in recording.inputs
        if pd.api.types.is_integer_dtype(recording.frame[column])
        and not recording.frame[column].isna().any()
        and _is_row_number(recording.frame[column].to_numpy(), number, order)
    ]
    if not counting:
        return recording
    made = replace(recording, ignored=(*recording.ignored, *counting))
    return made.remarked(f"left out, because they number the rows: {listed(counting)}")


def _is_row_number(values: np.ndarray, number: np.ndarray, order: np.ndarray) -> bool:
    """(N,) whole numbers, the sequence of each row, and the rows by sequence and time."""
    n, n_sequences = len(values), int(number.max(initial=-1)) + 1
    if n < 3:
        return False
    steps = np.diff(values)
    if (steps == 1).all():
        return True
    if n_sequences < 3:
        return False
    if (steps > 0).all():
        return True
    # The rows of the file may be in another order than that in which they were numbered.
    within = number[order][1:] == number[order][:-1]
    rises = bool((np.diff(values[order])[within] > 0).all()) and bool(within.any())
    if n < LEAST_ROWS or not rises or len(np.unique(values)) < n:
        return False
    by_value = number[np.argsort(values)]
    is_one_after_another = np.count_nonzero(np.diff(by_value)) == n_sequences - 1
    return float(values.max()) - float(values.min()) <= (10 if is_one_after_another else 2) * n


def with_warnings(recording: Recording, is_wide: bool) -> Recording:
    """Remarks on what may be read otherwise than it was meant."""
    warnings = [*_outliers(recording), *_aliases(recording), *([] if is_wide else _wide_question(recording))]
    for warning in warnings:
        recording = recording.remarked(warning)
    return recording


def _wide_question(recording: Recording) -> Iterator[str]:
    """Whether each row of a table without sequences and times is a sequence."""
    if recording.counted != "row" or recording.sequence is not None or recording.time is not None:
        return
    inputs = [name for name in recording.inputs if pd.api.types.is_numeric_dtype(recording.frame[name])]
    patterns = pd.Series([re.sub(r"\d+", "0", name) for name in inputs], dtype=object)
    n = int(patterns.value_counts().max()) if len(patterns) else 0
    if n >= MANY and n >= 0.8 * len(recording.inputs) and patterns.mode().iloc[0] != "":
        yield (
            f"warning: each row is read as one step of {counted(len(inputs), 'channel')}; if each row is a sequence of "
            f"{len(inputs)} steps, use --wide"
        )


def _outliers(recording: Recording) -> Iterator[str]:
    """Values that occur often and lie far outside, such as -200 or 9999."""
    for column in _quantities(recording):
        values = recording.frame[column].to_numpy(dtype=float, na_value=np.nan)
        values = values[np.isfinite(values)]
        for extreme in (values.min(), values.max()) if len(values) else ():
            rest = values[values != extreme]
            n = len(values) - len(rest)
            if n < max(2, OFTEN * len(values)) or len(rest) < max(LEAST_ROWS, n) or extreme != round(extreme):
                continue
            low, high = np.quantile(rest, [0.01, 0.99])
            usual = _USUAL.fullmatch(f"{extreme:.0f}") is not None
            far = (FAR / 4 if usual else FAR) * (high - low)
            if high > low and np.abs(rest - extreme).min() > far:
                yield (
                    f"warning: {extreme:g} occurs in {counted(n, 'row')} of column {one_line(column)}, far outside the rest "
                    f"({rest.min():.4g} to {rest.max():.4g}); if it stands for a missing value, use --missing {extreme:g}"
                )


def _aliases(recording: Recording) -> Iterator[str]:
    """Columns of which each value occurs with one value of the target only, or that are the target on another scale."""
    target = recording.target
    if target is None or recording.counted == "line":  # a word may well determine its tag
        return
    answers = recording.frame[target]
    codes = pd.factorize(answers)[0]
    number = sequence_numbers(recording.frame, recording.sequence)
    is_constant = recording.sequence is not None and _n_pairs(number, codes) == number.max() + 1
    for column in recording.inputs:
        values = recording.frame[column]
        if pd.api.types.is_datetime64_any_dtype(values):
            continue
        others = pd.factorize(values)[0]
        known = (codes >= 0) & (others >= 0)
        n_values = len(np.unique(others[known]))
        n_units = len(np.unique(number[known])) if is_constant else int(known.sum())
        determines = (
            2 <= n_values <= n_units / 3
            and _n_pairs(others[known], codes[known]) == n_values
            and len(np.unique(codes[known])) > 1
        )
        if determines or _is_scaled(values, answers):
            yield (
                f"warning: column {one_line(column)} determines the target {one_line(target)}; if it is not known when a "
                f"prediction is due, use --ignore {one_line(column)}"
            )


def _is_scaled(values: pd.Series, answers: pd.Series) -> bool:
    """Whether numbers are a linear function of a numeric target."""
    if not (pd.api.types.is_numeric_dtype(values) and pd.api.types.is_float_dtype(answers)):
        return False
    x, y = (column.to_numpy(dtype=float, na_value=np.nan) for column in (values, answers))
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < LEAST_ROWS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return False
    x, y = ((column - column.mean()) / (np.ptp(column)) for column in (x, y))
    slope = (x @ y) / (x @ x)
    return bool(np.abs(y - slope * x).max() < 1e-6)


def _n_pairs(one: np.ndarray, other: np.ndarray) -> int:
    return len(np.unique(one.astype(np.int64) * (int(other.max(initial=0)) + 2) + other + 1))


def _quantities(recording: Recording) -> list[str]:
    """The columns of numbers that are inputs or the target."""
    names = [*recording.inputs, *([] if recording.target is None else [recording.target])]
    return [name for name in names if pd.api.types.is_numeric_dtype(recording.frame[name])]


def _free(name: str, taken: list[str]) -> str:
    """The name, with a number where a column has it already."""
    return (
        name
        if name not in taken
        else next(f"{name} {i}" for i in range(2, len(taken) + 3) if f"{name} {i}" not in taken)
    )
