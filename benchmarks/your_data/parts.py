"""Which rows train, choose and test: as a column of the file says, by group, or by time; never the same group in two.

Groups are what ``--group`` names, else the sequences. Copies of one recording are one group, so that a copy cannot be on both
sides; sequences of symbols that are equal are no copies: they are cases that occur often. Where there are too few groups, or
the future is asked for, time is cut instead: 60 % training, 20 % validation, 20 % test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.seeding import numpy_generator
from benchmarks.your_data.kinds import FEW_VALUES, Question
from benchmarks.your_data.recording import Recording, counted, one_line, sequence_numbers

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
    """rows: (N,) int8, the part of each row. groups: (N,) int64, what must stay together. told: in words. remarks: what was
    done about copies."""

    rows: np.ndarray
    groups: np.ndarray
    told: str
    remarks: tuple[str, ...] = ()


def parts(recording: Recording, question: Question) -> Parts:
    """Raises BadInput where there is too little to split, or a column splits what belongs together."""
    number = sequence_numbers(recording.frame, recording.sequence)
    groups, remarks = _groups(recording, question, number)
    split = _parts(recording, question, number, groups)
    if recording.split is not None and recording.group is None and remarks:
        remarks = (_in_two_splits(split, number, groups, remarks[0]),)
    return replace(split, remarks=remarks)


def _in_two_splits(split: Parts, number: np.ndarray, groups: np.ndarray, remark: str) -> str:
    """The remark on copies where a column, not this module, says in which split each is."""
    development = np.where(split.rows == TEST, TEST, DEVELOPMENT)
    n_parts = pd.DataFrame({"group": groups, "part": development}).drop_duplicates()["group"].value_counts()
    n = int((n_parts > 1).sum())
    return remark.partition(" and stay")[0] + (
        f"; {n:,} recordings have copies on both sides of the test split, as the file says" if n else ""
    )


def _parts(recording: Recording, question: Question, number: np.ndarray, groups: np.ndarray) -> Parts:
    n_groups = int((_sizes(recording, question, number, groups) > 0).sum())
    if recording.split is not None:
        return _as_given(recording, question, number, groups)
    if question.kind == "forecasting" and recording.group is None:
        return _by_time(recording, number, groups, "the future is asked for")
    if n_groups >= LEAST_GROUPS:
        return _by_group(recording, question, number, groups)
    if question.scope == "step" and recording.group is None and number[-1] + 1 < LEAST_GROUPS:
        return _by_time(recording, number, groups, f"there are fewer than {LEAST_GROUPS} sequences to split by")
    what = "sequences" if recording.group is None else "groups"
    raise recording.bad(
        f"{n_groups} different {what}; {question.kind} needs at least {LEAST_GROUPS}"
        + ("; name the column that tells them apart with --sequence-id" if recording.sequence is None else ""),
        recording.sequence,
    )


def drawn(
    strata: np.ndarray, sizes: np.ndarray, share: float, generator: np.random.Generator, least: int = 1
) -> np.ndarray:
    """(n,) strata, (n,) sizes → (n,) bool: at random, of each stratum members that hold about ``share`` of its size.

    A member is left out where the share is nearer without it. Of a stratum of two or more at least ``least`` are drawn, and
    one is not. What rounding leaves of one stratum is made up for in the next, so that the whole has its share too.
    """
    chosen = np.zeros(len(strata), dtype=bool)
    owed = 0.0
    for stratum in np.unique(strata):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        if len(members) < 2:
            owed += share * sizes[members].sum()
            continue
        wanted, n = share * sizes[members].sum() + owed, 0
        for member in members:
            if n < len(members) - 1 and abs(wanted - sizes[member]) < abs(wanted):
                chosen[member] = True
                wanted -= sizes[member]
                n += 1
        while n < min(least, len(members) - 1):
            member = min(members[~chosen[members]], key=lambda one: sizes[one])
            chosen[member] = True
            wanted -= sizes[member]
            n += 1
        owed = wanted
    return chosen


def strata(recording: Recording, question: Question, groups: np.ndarray) -> np.ndarray:
    """(N,) → (groups,) int64: the class of each group, of several the rarest, -1 without any; else 0 for all."""
    n_groups = int(groups.max()) + 1
    if question.kind != "classification":
        return np.zeros(n_groups, dtype=np.int64)
    codes, of = _classes(recording, groups)
    rank = np.argsort(np.argsort(np.bincount(codes), kind="stable"))  # 0: the rarest
    order = np.argsort(rank[codes], kind="stable")
    found = np.full(n_groups, -1)
    found[of[order][::-1]] = codes[order][::-1]  # the rarest is written last
    return found


def _classes(recording: Recording, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,), (M,): the code of the class and the group of each known target."""
    assert recording.target is not None
    codes = pd.factorize(recording.frame[recording.target])[0]
    return codes[codes >= 0], groups[codes >= 0]


def _groups(recording: Recording, question: Question, number: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,), 0, 1, 2 …; and what was done about sequences that are equal."""
    if recording.group is not None:
        return pd.factorize(recording.frame[recording.group])[0], ()
    read = [str(recording.target)] if question.kind == "next_symbol" else recording.inputs
    if recording.sequence is None or question.kind == "forecasting" or not read:
        return number, ()
    _, first, groups = np.unique(_fingerprints(recording.frame[read], number), return_index=True, return_inverse=True)
    n_sequences = int(number[-1]) + 1
    n_equal = n_sequences - len(np.unique(groups))
    if not n_equal:
        return number, ()
    share = f"{n_equal:,} of {n_sequences:,} sequences repeat an earlier one in every input"
    different = recording.frame[np.isin(number, first)]
    if not any(_is_measured(different[column]) for column in read):
        return number, (f"{share}; they are symbols or whole numbers, so they count as cases of their own",)
    return pd.factorize(groups[number])[0], (f"{share}: they are copies of one recording and stay in one split",)


def _is_measured(values: pd.Series) -> bool:
    """Whether a column holds real numbers, two of which are equal by chance only seldom."""
    if not pd.api.types.is_float_dtype(values):
        return False
    known = values[np.isfinite(values)]
    return bool((known != known.round()).mean() > 0.5) and known.nunique() > min(FEW_VALUES, len(known) / 4)


def _fingerprints(rows: pd.DataFrame, number: np.ndarray) -> np.ndarray:
    """(sequences,) uint64: equal for sequences that are equal row by row. Rows of a sequence stand together."""
    hashes = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    steps = np.arange(len(number)) - starts[number]
    # Multiplied by an odd number of its step, a row counts for where it stands.
    weights = (steps.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    return np.add.reduceat(hashes * weights, starts)


def _by_group(recording: Recording, question: Question, number: np.ndarray, groups: np.ndarray) -> Parts:
    classes = strata(recording, question, groups)
    sizes = _sizes(recording, question, number, groups)
    free = np.ones(len(classes), dtype=bool)
    if question.kind == "classification" and recording.group is None:
        _require_members(recording, groups, classes)
    elif question.kind == "classification":
        free = _free(recording, groups)
    test = np.zeros(len(classes), dtype=bool)
    test[free] = drawn(classes[free], sizes[free], min(SHARE * sizes.sum() / sizes[free].sum(), 0.5), _generator())
    if recording.group is not None and question.kind == "classification":
        test = _without_last_of_a_class(recording, groups, test)
    what = "sequence" if recording.group is None else f"group ({one_line(recording.group)})"
    told = f"by {what}: test is the same for every seed, validation is drawn by the seed"
    return Parts(np.where(test[groups], TEST, DEVELOPMENT).astype(np.int8), groups, told)


def _sizes(recording: Recording, question: Question, number: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups,): what each holds that can be scored, sequences where each has one answer, else steps."""
    assert recording.target is not None
    rows = np.flatnonzero(recording.frame[recording.target].notna())
    if question.scope == "sequence" and question.kind != "forecasting":
        rows = rows[np.unique(number[rows], return_index=True)[1]]
    return np.bincount(groups[rows], minlength=int(groups.max()) + 1)


def _generator() -> np.random.Generator:
    return numpy_generator("test", "your_data")


def _require_members(recording: Recording, groups: np.ndarray, classes: np.ndarray) -> None:
    """Raises BadInput for a class of too few sequences."""
    counts = np.bincount(classes[classes >= 0])
    if counts.min() >= LEAST_PER_CLASS:
        return
    _, first = np.unique(groups, return_index=True)
    row = int(first[np.flatnonzero(classes == counts.argmin())[0]])
    name = one_line(str(recording.frame[recording.target].iloc[row]))[:40]
    raise recording.bad(
        f"class {name!r} has {counted(counts.min(), 'different sequence')}; each needs at least "
        f"{LEAST_PER_CLASS}, to train, to choose and to test; join it with another or leave it out",
        recording.target,
        row,
    )


def _free(recording: Recording, groups: np.ndarray) -> np.ndarray:
    """(groups,) bool: whether each class of a group occurs in another group too. Raises BadInput where hardly any is."""
    codes, of = _classes(recording, groups)
    pairs = np.unique(np.column_stack([codes, of]), axis=0)  # (pairs, 2): a class and a group that has it
    holders = np.bincount(pairs[:, 0])
    free = np.ones(int(groups.max()) + 1, dtype=bool)
    free[pairs[holders[pairs[:, 0]] < 2, 1]] = False
    if free.sum() < 2:
        alone = int(np.argmin(holders))
        row = int(np.flatnonzero(pd.factorize(recording.frame[recording.target])[0] == alone)[0])
        name = one_line(str(recording.frame[recording.target].iloc[row]))[:40]
        raise recording.bad(
            f"class {name!r} occurs in one group of column {recording.group} only, as most classes do: the classes of test "
            "would not occur in train; leave --group out, or predict another column",
            recording.target,
            row,
        )
    return free


def _without_last_of_a_class(recording: Recording, groups: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test groups, less those whose removal leaves a class without a group to train on. Raises BadInput if none remains."""
    codes, of = _classes(recording, groups)
    pairs = np.unique(np.column_stack([codes, of]), axis=0)
    test = test.copy()
    trained = np.bincount(pairs[~test[pairs[:, 1]], 0], minlength=int(codes.max()) + 1)
    for group in np.flatnonzero(test):
        own = pairs[pairs[:, 1] == group, 0]
        if (trained[own] == 0).any():
            test[group] = False
            trained[own] += 1
    if not test.any():
        raise recording.bad(
            f"no group of column {recording.group} can be tested: the classes of test would not occur in train; leave "
            "--group out, or predict another column",
            recording.target,
        )
    return test


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
    told = f"by time, {told}, because {why}: training first, then validation, then test"
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
    drawn_too = "" if has_validation else f"; validation is {100 * SHARE:.0f} % of train, drawn by the seed"
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
        raise recording.bad(
            f"class {shown!r} is never in train: the classes of test must occur in train", recording.target, row
        )
