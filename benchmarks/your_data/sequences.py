"""From a recording to what can be learned from: numbers scaled on the development part, symbols numbered on it, windows cut.

Sequences that are asked for one answer each are kept whole; where they are longer than `LONGEST`, their steps are averaged in
blocks. Where each step has an answer they are cut into windows of `WINDOWS` steps. A forecast is made from the last
`look_back` steps; inputs and targets are then differences from the target's last value, as in `benchmarks.tasks.forecasting`.
More steps than `MOST_STEPS` are not used: a fit of minutes would not see them, and evaluating them would take its time.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd

from benchmarks import tables_to_sequences
from benchmarks.seeding import numpy_generator
from benchmarks.tables_to_sequences import Kind as ColumnKind
from benchmarks.your_data.kinds import Question
from benchmarks.your_data.parts import DEVELOPMENT, TEST, TRAIN, VALIDATION, Parts
from benchmarks.your_data.plain import SENTENCE
from benchmarks.your_data.prepared import Answers, Prepared, Steps, Windows
from benchmarks.your_data.recording import Recording, counted, listed, sequence_numbers

LONGEST = 512
WINDOWS = (16, 128)
"""Steps of a window: a 32nd of what trains, so that a batch holds different ones, but no fewer and no more than these."""
LEAD = 128
"""Steps that a window reads before those it is scored at."""
GAP = 7.0
"""A step of more than so many median steps is a gap: a week in a series of days."""
MOST_STEPS = {False: 440_000, True: 200_000}
"""For training and validation together, and for test."""
MOST_VALUES = 60_000_000
"""Steps times channels, which bounds the memory."""
MOST_SYMBOLS = 5_000
LEAST_SEEN = 2
"""A symbol that the development part holds less often is read as another: fewer would not settle its weights."""
LONGEST_ENDING, ENDING_SEEN = 4, 5
"""Letters of an ending at most, and how many rare words of the development part must have it."""
OTHER = "<other>"
END = "<end>"
"""After the last symbol of a sequence, where it is asked for."""
REGULAR = 1.2
"""The longest time between two rows over the shortest, up to which they come regularly: months have 28 to 31 days."""
LOOK_BACK = (32, 128)
"""Three horizons, but no fewer steps than the first and no more than the second."""


def prepare(
    recording: Recording, question: Question, split: Parts, *, across_gaps: bool = False, end: bool = False
) -> Prepared:
    """across_gaps: windows of a forecast may run across gaps in time. end: a sequence of symbols ends with one of its own.

    Raises BadInput where too little is left to learn from.
    """
    number = sequence_numbers(recording.frame, recording.sequence)
    development = split.rows != TEST
    remarks: tuple[str, ...] = ()
    if question.kind == "next_symbol":
        steps = _symbols(recording.frame[recording.target], development, END if end else None)
        answers = Answers(_following(steps, number), steps.symbols)
        if recording.inputs:
            remarks = (
                f"left out, because the next symbol is predicted from those before it alone: {listed(recording.inputs)}",
            )
    else:
        answers = _answers(recording, question, number, development)
        steps, remarks = _steps(recording, question, development)
    made = Prepared(question, steps, answers, _no_windows(), split.told, (*recording.remarks, *split.remarks, *remarks))
    if question.kind == "forecasting":
        made = _forecasts(made, recording, number, split, across_gaps)
    elif question.scope == "sequence":
        made = _whole(made, recording, number, split)
    else:
        made = _cut(made, recording, number, split, end)
    return _bounded(_require_parts(made, recording))


def _answers(recording: Recording, question: Question, number: np.ndarray, development: np.ndarray) -> Answers:
    values = recording.frame[recording.target]
    if question.kind in ("classification", "tagging"):
        # As texts they are sorted, as categories they would stand as they first appear in the file.
        is_text = isinstance(values.dtype, pd.CategoricalDtype)
        codes, names = pd.factorize(values.astype(object) if is_text else values, sort=True)
        if question.scope == "sequence":
            codes = _spread(number, codes, codes >= 0)
        return Answers(codes.astype(np.int64), tuple(_text(name) for name in names))
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    if question.kind == "forecasting":
        return Answers(numbers)
    if question.scope == "sequence":
        numbers = _spread(number, numbers, np.isfinite(numbers))
    known = numbers[development & np.isfinite(numbers)]
    if not len(known) or known.min() == known.max():
        raise recording.bad(
            "the target does not vary outside the test split: there is nothing to learn", recording.target
        )
    return Answers(numbers, None, float(known.mean()), float(known.std()))


def _spread(number: np.ndarray, answers: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The one answer of each sequence at all of its rows; where it has none, what ``answers`` holds at its first."""
    found = answers[np.flatnonzero(np.diff(number, prepend=-1))]
    found[number[known]] = answers[known]
    return found[number]


def _steps(recording: Recording, question: Question, development: np.ndarray) -> tuple[Steps, tuple[str, ...]]:
    """The inputs of every row, and what to say of them."""
    frame, columns = recording.frame, recording.inputs
    dates = [column for column in columns if pd.api.types.is_datetime64_any_dtype(frame[column])]
    columns = [column for column in columns if column not in dates]
    remarks = (
        [f"left out, because they are dates: {listed(dates)}; --time names one that orders the rows"] if dates else []
    )
    kinds: dict[str, ColumnKind] = {
        column: "number" if pd.api.types.is_numeric_dtype(frame[column]) else "category" for column in columns
    }
    if question.kind != "forecasting" and list(kinds.values()) == ["category"]:
        symbols = frame[columns[0]]
        if question.kind == "tagging" and recording.sequence == SENTENCE:
            symbols = _spelled(symbols, development)
        return _symbols(symbols, development), tuple(remarks)
    if question.kind == "forecasting":
        assert recording.target is not None
        kinds = {recording.target: "number", **kinds}
    time = None if _is_regular(recording) else recording.time
    names = [*kinds, *(column for column in (time, recording.sequence) if column is not None)]
    prepared = tables_to_sequences.fit(frame.loc[development, names], kinds, recording.sequence, time)
    constant = [column for column in prepared.constant if column != time]
    if question.kind == "forecasting" and recording.target in constant:
        raise recording.bad(
            "the target does not vary outside the test split: there is nothing to learn", recording.target
        )
    if constant:
        remarks.append(f"left out, because they do not vary outside the test split: {listed(constant)}")
    if not prepared.channels:
        raise recording.bad(
            f"no column is left to predict {recording.target} from; name the column that orders the rows with --time to "
            "forecast it from its own past, or give --kind next_symbol to predict each symbol from those before it"
        )
    missing = sum(int(frame[column].isna().sum()) for column in kinds)
    if missing:
        remarks.append(
            f"{missing:,} missing values are filled with the last one known, and a channel says where; a column's mean "
            "stands before the first"
        )
    return Steps(prepared.apply(frame), prepared.channels, masks=prepared.masks), tuple(remarks)


def _is_regular(recording: Recording) -> bool:
    """Whether rows come at nearly equal times, as months do, so that there is nothing to tell of them."""
    if recording.time is None:
        return True
    number = pd.Series(sequence_numbers(recording.frame, recording.sequence))
    since = tables_to_sequences.gaps(recording.frame[recording.time], number)[number.duplicated().to_numpy()]
    return not len(since) or bool(since.max() <= REGULAR * since.min())


def _following(steps: Steps, number: np.ndarray) -> np.ndarray:
    """(N,): the symbol after each row, the last one where a sequence ends; it is scored only where it stands for the end."""
    assert steps.symbols is not None
    is_end = np.append(number[1:] != number[:-1], True)
    return np.where(is_end, len(steps.symbols) - 1, np.append(steps.values[1:], 0))


def _spelled(words: pd.Series, development: np.ndarray) -> pd.Series:
    """Words as they are, but for rare ones, which a tagger will meet again under other names: those stand for their case and
    their longest ending that rare words of the development part have often enough (Brants 2000, doi:10.3115/974147.974178)."""
    texts = words.astype(str)
    counts = texts[development].value_counts()
    is_rare = ~texts.isin(counts.index[counts >= LEAST_SEEN])
    rare = texts[is_rare]
    case = np.select([rare.str.contains(r"\d"), rare.str.isupper(), rare.str.istitle()], ["1", "AA", "Aa"], "a")
    spelled = pd.Series(OTHER, rare.index)
    for length in range(1, LONGEST_ENDING + 1):
        forms = "<" + pd.Series(case, rare.index) + " -" + rare.str.lower().str[-length:] + ">"
        seen = forms[development[is_rare.to_numpy()]].value_counts()
        spelled = forms.where(forms.isin(seen.index[seen >= ENDING_SEEN]), spelled)
    return texts.mask(is_rare, spelled).rename(words.name)


def _symbols(values: pd.Series, development: np.ndarray, end: str | None = None) -> Steps:
    """Numbered by frequency in the development part; 0 is any other, and a missing one. end: the last symbol, in no row."""
    codes, names = pd.factorize(values)  # -1: missing
    counts = np.bincount(codes[development & (codes >= 0)], minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:MOST_SYMBOLS]
    kept = order[counts[order] >= LEAST_SEEN]
    numbers = np.zeros(len(names) + 1, dtype=np.int64)  # the last is for -1
    numbers[kept] = np.arange(1, len(kept) + 1)
    named = (OTHER, *(_text(names[code]) for code in kept), *([] if end is None else [end]))
    return Steps(numbers[codes], (str(values.name),), named)


def _text(value: object) -> str:
    """A name for people: 1.0 is 1, and no longer than fits a figure."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if text in ("\n", "\t", " "):
        return text
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable if len(printable) <= 40 else f"{printable[:39]}…"


def _no_windows() -> Windows:
    return Windows(*(np.zeros(0, dtype=np.int64) for _ in range(6)))


def _runs(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rows agree with the row before in every column: starts and lengths of the runs."""
    changed = np.zeros(len(columns[0]), dtype=bool)
    changed[0] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changed)
    return starts, np.diff(starts, append=len(changed))


def _whole(made: Prepared, recording: Recording, number: np.ndarray, split: Parts) -> Prepared:
    """Whole sequences; of one longer than `LONGEST` the means over blocks of its steps, or of symbols the beginning."""
    starts, lengths = _runs(number)
    strata = made.answers.values[starts] if made.answers.classes is not None and recording.group is None else None
    windows = Windows(
        starts,
        lengths,
        split.rows[starts],
        split.groups[starts],
        np.zeros(len(starts), dtype=np.int64) if strata is None else strata,
        np.zeros(len(starts), dtype=np.int64),
    )
    answers = made.answers.values[starts]
    has_answer = answers >= 0 if made.answers.classes is not None else np.isfinite(answers)
    if not has_answer.all():
        n = int((~has_answer).sum())
        remark = f"left out: {counted(n, 'sequence')} without a target"
        made = replace(made, remarks=(*made.remarks, remark))
    longest, n_long = int(lengths.max()), int((lengths > LONGEST).sum())
    if not n_long:
        return replace(made, windows=windows.select(has_answer))
    which = f"{counted(n_long, 'sequence')} of more than {LONGEST} steps (the longest has {longest:,})"
    if made.steps.symbols is not None:
        remark = f"of {which} the first {LONGEST} are read"
        windows = replace(windows, length=np.minimum(lengths, LONGEST))
        return replace(made, windows=windows.select(has_answer), remarks=(*made.remarks, remark))
    size = -(-lengths // LONGEST)  # of a block, for each sequence by its own length
    blocks = (np.arange(len(number)) - np.repeat(starts, lengths)) // np.repeat(size, lengths)
    first, _ = _runs(number, blocks)
    sizes = np.diff(first, append=len(number))
    means = np.add.reduceat(made.steps.values, first, axis=0, dtype=np.float64) / sizes[:, None]
    blocks_told = (
        f"{size[size > 1].min()}" if size[size > 1].min() == size.max() else f"{size[size > 1].min()} to {size.max()}"
    )
    remark = f"of {which} the means over blocks of {blocks_told} steps are read; shorter ones are read step by step"
    short = -(-lengths // size)
    return replace(
        made,
        steps=replace(made.steps, values=means.astype(np.float32)),
        answers=replace(made.answers, values=made.answers.values[first]),
        windows=replace(windows, start=np.cumsum(short) - short, length=short).select(has_answer),
        remarks=(*made.remarks, remark),
    )


def _cut(made: Prepared, recording: Recording, number: np.ndarray, split: Parts, end_symbol: bool) -> Prepared:
    """Runs of one sequence and part, cut into windows of nearly equal length; those with nothing to score are left out.

    A window that does not begin its sequence reads up to `LEAD` steps before its own, so that no state begins cold: in its part
    or, cut by time, in those before.
    """
    starts, lengths = _runs(number, split.rows)
    ends = starts + lengths
    if made.question.kind == "next_symbol":
        # The last symbol of a run has none after it, but for the end of its sequence.
        is_end = np.append(number[1:] != number[:-1], True)[ends - 1]
        lengths = lengths - np.where(end_symbol & is_end, 0, 1)
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    window = min(max(int((split.rows != TEST).sum()) // 32, WINDOWS[0]), WINDOWS[1])
    pieces = -(-lengths // window)
    run = np.repeat(np.arange(len(starts)), pieces)
    which = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = starts[run] + which * lengths[run] // pieces[run]
    end = starts[run] + (which + 1) * lengths[run] // pieces[run]
    # In a sequence without a split column parts are in order of time: what comes before may be read.
    readable = _runs(number)[0] if recording.split is None else _runs(number, split.rows)[0]
    earliest = readable[np.searchsorted(readable, begin, side="right") - 1]
    lead = np.minimum(begin - earliest, LEAD)
    windows = Windows(
        begin - lead,
        end - begin + lead,
        split.rows[begin],
        split.groups[begin],
        np.zeros(len(begin), dtype=np.int64),
        lead,
    )
    remarks = made.remarks
    if int(lengths.max(initial=0)) > window:
        remarks = (
            *remarks,
            f"sequences of up to {int(lengths.max()):,} steps are cut into windows of at most {window}; each first reads up to "
            f"{LEAD} steps before its own, which are not scored again",
        )
    if made.question.kind != "next_symbol":
        values = made.answers.values
        known = values >= 0 if made.answers.classes is not None else np.isfinite(values)
        n_known = np.concatenate([[0], np.cumsum(known)])
        windows = windows.select(n_known[end] > n_known[begin])
        if not known.all():
            remarks = (*remarks, f"{int((~known).sum()):,} steps without a target are read and not scored")
    return replace(made, windows=windows, remarks=remarks)


def _forecasts(made: Prepared, recording: Recording, number: np.ndarray, split: Parts, across_gaps: bool) -> Prepared:
    """Windows of stride 1, all targets of a window in its part, its look-back in its part or, cut by time, in those before."""
    assert recording.target is not None
    horizon = made.question.horizon or 1
    target, values = recording.target, made.answers.values
    stretch, remarks = _stretches(recording, number, across_gaps)
    starts, lengths = _runs(stretch)
    train_runs = _runs(stretch, split.rows)
    room = int(train_runs[1][np.isin(split.rows[train_runs[0]], (TRAIN, DEVELOPMENT))].max()) - horizon
    if room < 2:
        raise recording.bad(
            f"a horizon of {horizon} is too long: the longest stretch to train on has {room + horizon} rows", target
        )
    look_back = min(max(3 * horizon, LOOK_BACK[0]), LOOK_BACK[1], max(2, room // 2))
    # The last row of a window, counted in its sequence, has look_back - 1 rows before it and horizon rows after it.
    position = np.arange(len(number)) - np.repeat(starts, lengths)
    left = np.repeat(lengths, lengths) - position - 1
    last = np.flatnonzero((position >= look_back - 1) & (left >= horizon))
    ahead = split.rows[last + 1]
    fits = ahead == split.rows[last + horizon]
    if recording.split is not None:  # whatever order its parts have in time, none may be looked at from another
        fits &= (split.rows[last - look_back + 1] == ahead) & _one_part(split.rows, last - look_back + 1, last)
    known = np.concatenate([[0], np.cumsum(np.isfinite(values))])
    fits &= (known[last + horizon + 1] - known[last + 1] == horizon) & np.isfinite(values[last])
    last, ahead = last[fits], ahead[fits]
    windows = Windows(
        last - look_back + 1,
        np.full(len(last), look_back),
        ahead,
        split.groups[last],
        np.zeros(len(last), dtype=np.int64),
        np.zeros(len(last), dtype=np.int64),
    )
    trained = last[np.isin(ahead, (TRAIN, DEVELOPMENT))]
    if len(trained) < 2 or not (ahead == TEST).any():
        raise recording.bad(
            f"too few rows for windows of {look_back} known and {horizon} forecast steps without a missing target"
            + ("" if not remarks or across_gaps else "; --across-gaps lets windows run across gaps in time"),
            target,
        )
    some = trained[:: 1 + len(trained) * horizon // MOST_VALUES]
    changes = values[some[:, None] + np.arange(1, horizon + 1)] - values[some, None]
    scale = float(changes.std())
    if scale == 0:
        raise recording.bad("the target never changes in training: there is nothing to forecast", target)
    column = made.steps.channels.index(target)
    deviation = float(np.nanstd(values[split.rows != TEST]))
    return replace(
        made,
        windows=windows,
        answers=replace(made.answers, scale=scale),
        remarks=(*made.remarks, *remarks),
        look_back=look_back,
        level=(column, deviation / scale),
    )


def _stretches(recording: Recording, number: np.ndarray, across_gaps: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,), 0, 1, 2 …: sequences cut at gaps in time; and a remark that counts these."""
    if recording.time is None:
        return number, ()
    since = tables_to_sequences.gaps(
        recording.frame[recording.time], pd.Series(number)
    )  # (N,), 0 at a sequence's first
    within = np.append(False, number[1:] == number[:-1])
    if not within.any():
        return number, ()
    is_gap = within & (since > GAP * np.median(since[within]))
    n = int(is_gap.sum())
    if not n:
        return number, ()
    told = f"{counted(n, 'gap')} in {recording.time}: a step of more than {GAP:g} median steps"
    if across_gaps:
        return number, (f"{told}; windows run across, as --across-gaps says",)
    return np.cumsum(is_gap | ~within) - 1, (f"{told}; no window runs across one (--across-gaps allows it)",)


def _one_part(rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether no row from ``first`` to ``last`` is in another part than the one before it."""
    changes = np.concatenate([[0], np.cumsum(rows[1:] != rows[:-1])])
    return changes[first] == changes[last]


def _require_parts(made: Prepared, recording: Recording) -> Prepared:
    """Each split must have something to score, and what is drawn two groups."""
    part = made.windows.part
    for wanted, name in (
        ((TRAIN, DEVELOPMENT), "training"),
        ((VALIDATION, DEVELOPMENT), "validation"),
        ((TEST,), "test"),
    ):
        if not np.isin(part, wanted).any():
            raise recording.bad(f"too few rows with a target: none is left for {name}", recording.target)
    is_open = part == DEVELOPMENT
    if is_open.any() and len(np.unique(made.windows.group[is_open])) < 2:
        raise recording.bad("one sequence to train on cannot give another for validation; name one with --split")
    return made


def _bounded(made: Prepared) -> Prepared:
    """At most `MOST_STEPS`, drawn once, the same for every seed."""
    windows, channels = made.windows, 1 if made.steps.symbols is not None else made.steps.values.shape[1]
    is_test = windows.part == TEST
    kept = [
        windows.select(is_test == test).bounded(
            min(MOST_STEPS[test], MOST_VALUES // channels), numpy_generator("steps", "your_data", str(test))
        )
        for test in (False, True)
    ]
    n_kept, n_steps = sum(map(len, kept)), sum(int(part.length.sum()) for part in kept)
    if n_kept == len(windows):
        return made
    what = "windows" if made.question.scope == "step" or made.look_back else "sequences"
    remark = (
        f"{n_steps:,} of {int(windows.length.sum()):,} steps are used, in {what} drawn at random: a fit of minutes would "
        "not see more"
    )
    joined = Windows(*(np.concatenate([getattr(part, field.name) for part in kept]) for field in fields(windows)))
    return replace(made, windows=joined, remarks=(*made.remarks, remark))
