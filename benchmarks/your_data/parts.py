"""Which rows train, choose and test: as a column of the file says, by group, or by time; never the same group in two.

Groups are the sequences (equal ones are one group, so that a copy cannot be on both sides), or what ``--group`` names. Where
there are too few of them, or the future is asked for, time is cut instead: 60 % training, 20 % validation, 20 % test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.seeding import numpy_generator
from benchmarks.your_data.kinds import Question
from benchmarks.your_data.reading import sequence_numbers
from benchmarks.your_data.recording import Recording, counted, one_line

TRAIN, VALIDATION, TEST, DEVELOPMENT = range(4)
"""Development is training or validation, as the seed says."""
NAMES: Mapping[str, int] = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
SHARE = 0.2
"""Of all groups for test, and of the rest for validation."""
CUTS = (0.6, 0.8)
LEAST_GROUPS = 5
"""Fewer could not give three to train on."""
LEAST_PER_CLASS = 3


@dataclass(frozen=True)
class Parts:
    """rows: (N,) int8, the part of each row. groups: (N,) int64, what must stay together. told: in words."""

    rows: np.ndarray
    groups: np.ndarray
    told: str


def parts(recording: Recording, question: Question) -> Parts:
    """Raises BadInput where there is too little to split, or a column splits what belongs together."""
    number = sequence_numbers(recording.frame, recording.sequence)
    groups = _groups(recording, question, number)
    n_groups = len(np.unique(groups))
    if recording.split is not None:
        return _as_given(recording, question, number, groups)
    if question.kind == "forecasting":
        return _by_time(recording, number, groups, "the future is asked for")
    if n_groups >= LEAST_GROUPS:
        return _by_group(recording, question, groups)
    if question.scope == "step" and number[-1] + 1 < LEAST_GROUPS:
        return _by_time(recording, number, groups, f"there are fewer than {LEAST_GROUPS} sequences to split by")
    what = "sequences" if recording.group is None else "groups"
    raise recording.bad(
        f"{n_groups} different {what}; {question.kind} needs at least {LEAST_GROUPS}"
        + ("; name the column that tells them apart with --sequence-id" if recording.sequence is None else ""),
        recording.sequence,
    )


def drawn(strata: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """(n,) strata → (n,) bool: a random ``share`` of each, rounded, but at least one of a stratum of two or more."""
    chosen = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        chosen[members[: max(round(share * len(members)), int(len(members) > 1))]] = True
    return chosen


def strata(recording: Recording, question: Question, groups: np.ndarray) -> np.ndarray:
    """(N,) → (groups,) int64: the class of each group where a group has one, else 0 for all."""
    values, first = np.unique(groups, return_index=True)
    if question.kind != "classification" or recording.group is not None:
        return np.zeros(len(values), dtype=np.int64)
    assert recording.target is not None
    frame = recording.frame
    known = frame[recording.target].groupby(groups).first()  # of a group's rows, the first that is not missing
    return pd.factorize(known.loc[groups[first]])[0]


def _groups(recording: Recording, question: Question, number: np.ndarray) -> np.ndarray:
    if recording.group is not None:
        return pd.factorize(recording.frame[recording.group])[0]
    if recording.sequence is None or question.kind == "forecasting":
        return number
    read = [recording.target] if question.kind == "next_symbol" else recording.inputs
    _, groups = np.unique(_fingerprints(recording.frame[read], number), return_inverse=True)
    return groups[number]


def _fingerprints(rows: pd.DataFrame, number: np.ndarray) -> np.ndarray:
    """(sequences,) uint64: equal for sequences that are equal row by row. Rows of a sequence stand together."""
    hashes = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    steps = np.arange(len(number)) - starts[number]
    # Multiplied by an odd number of its step, a row counts for where it stands.
    weights = (steps.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    return np.add.reduceat(hashes * weights, starts)


def _by_group(recording: Recording, question: Question, groups: np.ndarray) -> Parts:
    classes = strata(recording, question, groups)
    if question.kind == "classification" and recording.group is None:
        counts = np.bincount(classes)
        if counts.min() < LEAST_PER_CLASS:
            _, first = np.unique(groups, return_index=True)
            row = int(first[np.flatnonzero(classes == counts.argmin())[0]])
            name = one_line(str(recording.frame[recording.target].iloc[row]))[:40]
            raise recording.bad(
                f"class {name!r} has {counted(counts.min(), 'different sequence')}; each needs at least "
                f"{LEAST_PER_CLASS}, to train, to choose and to test; join it with another or leave it out",
                recording.target,
                row,
            )
    test = drawn(classes, SHARE, numpy_generator("test", "your_data"))  # (groups,)
    what = "sequence" if recording.group is None else f"group ({one_line(recording.group)})"
    share = f"{100 * SHARE:.0f} %"
    told = (
        f"by {what}: {share} for test, the same for every seed; {share} of the rest, drawn by the seed, for validation"
    )
    return Parts(np.where(test[groups], TEST, DEVELOPMENT).astype(np.int8), groups, told)


def _by_time(recording: Recording, number: np.ndarray, groups: np.ndarray, why: str) -> Parts:
    """Cut at common times where sequences run by a common clock, else at shares of each sequence's own rows."""
    if recording.time is not None and _is_common_clock(recording, number):
        times = recording.frame[recording.time].to_numpy()
        times = (times - times.min()).astype(np.float64)
        first, second = np.quantile(times, CUTS)
        rows = np.where(times <= first, TRAIN, np.where(times <= second, VALIDATION, TEST))
        told = f"at common times of column {one_line(recording.time)}"
    else:
        lengths = np.bincount(number)
        starts = np.cumsum(lengths) - lengths
        position = (np.arange(len(number)) - starts[number] + 0.5) / lengths[number]
        rows = np.where(position <= CUTS[0], TRAIN, np.where(position <= CUTS[1], VALIDATION, TEST))
        told = "in the order of the rows" if len(lengths) == 1 else "within each sequence"
    for part, name in ((TRAIN, "training"), (VALIDATION, "validation"), (TEST, "test")):
        if not (rows == part).any():
            raise recording.bad(f"{len(rows)} rows are too few to be cut in three by time: no row is left for {name}")
    told = f"by time, {told}, because {why}: first 60 % training, then 20 % validation, then 20 % test"
    return Parts(rows.astype(np.int8), groups, told)


def _is_common_clock(recording: Recording, number: np.ndarray) -> bool:
    """Dates are; numbers are where sequences begin at different ones."""
    times = recording.frame[recording.time]
    if pd.api.types.is_datetime64_any_dtype(times):
        return True
    starts = times.to_numpy()[np.flatnonzero(np.diff(number, prepend=-1))]
    return len(np.unique(starts)) > 1


def _as_given(recording: Recording, question: Question, number: np.ndarray, groups: np.ndarray) -> Parts:
    """Raises BadInput for an unknown name of a split, and where one sequence or group is in two."""
    assert recording.split is not None
    written = recording.frame[recording.split]
    codes, values = pd.factorize(written)
    known = np.array([NAMES.get(str(value).strip().lower(), -1) for value in values] + [-1])
    rows = known[codes]
    if (rows < 0).any():
        row = int(np.flatnonzero(rows < 0)[0])
        shown = one_line(str(written.iloc[row]))[:40]
        raise recording.bad(f"{shown!r} is no split; write train, validation or test", recording.split, row)
    for part, name in ((TRAIN, "train"), (TEST, "test")):
        if not (rows == part).any():
            raise recording.bad(f"no row is in {name}", recording.split)
    if recording.group is not None:
        _require_undivided(recording, recording.group, groups, rows)
    if recording.sequence is not None and question.scope == "sequence" and question.kind != "forecasting":
        _require_undivided(recording, recording.sequence, number, rows)
    if question.kind == "classification":
        _require_trained_classes(recording, rows)
    has_validation = bool((rows == VALIDATION).any())
    if not has_validation:
        rows = np.where(rows == TRAIN, DEVELOPMENT, rows)
    told = f"as column {one_line(recording.split)} says" if recording.counted == "row" else "as the file says"
    drawn_too = "" if has_validation else f"; {100 * SHARE:.0f} % of train, drawn by the seed, for validation"
    return Parts(rows.astype(np.int8), groups, told + drawn_too)


def _require_undivided(recording: Recording, column: str, together: np.ndarray, rows: np.ndarray) -> None:
    """Raises BadInput at the first row that is in another part than the first row of what it must stay with."""
    _, first, where = np.unique(together, return_index=True, return_inverse=True)
    divided = np.flatnonzero(rows != rows[first][where])
    if len(divided):
        shown = one_line(str(recording.frame[column].iloc[divided[0]]))[:40]
        raise recording.bad(f"{shown!r} is in two splits", column, int(divided[0]))


def _require_trained_classes(recording: Recording, rows: np.ndarray) -> None:
    assert recording.target is not None
    values = recording.frame[recording.target]
    trained = values[rows == TRAIN].dropna().unique()
    new = values.notna() & ~values.isin(trained)
    if new.any():
        row = int(np.flatnonzero(new)[0])
        shown = one_line(str(values.iloc[row]))[:40]
        raise recording.bad(f"class {shown!r} is never in train", recording.target, row)
