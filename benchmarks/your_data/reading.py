"""From a path to a `Recording`: the format by the file's name, the roles of columns as asked, rows in order of time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.your_data import archive, arrays, plain, tables
from benchmarks.your_data.keys import with_group_in_key
from benchmarks.your_data.recording import Recording, bad, listed, one_line

FORMATS = (".csv", ".tsv", ".parquet", ".ts", ".npz", ".conll", ".conllu", ".txt")


class Source(NamedTuple):
    """A file, or a folder with the two of a problem in the .ts format. path: what was given. paths: one, or train and test."""

    path: Path
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        return one_line(" and ".join(path.name for path in self.paths))

    def digest(self) -> str:
        """The sha256, in hexadecimal, over the names and contents."""
        digest = hashlib.sha256()
        for path in self.paths:
            with path.open("rb") as file:
                digest.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Roles:
    """What the user says about the columns, and how to read them.

    target: to be predicted. sequence_id: names a row's sequence; several columns are one key. group: sequences of one group
    stay in one split. time: orders a sequence's rows. split: train, validation or test. ignore: no inputs. missing: values
    that stand for a missing one, as written in the file. wide: each row is a sequence. channels_first: X is (N, C, T).
    across_gaps: windows may run across gaps in time. end: a sequence ends with a symbol of its own.
    """

    target: str | None = None
    sequence_id: tuple[str, ...] | str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wide: bool = False
    channels_first: bool = False
    across_gaps: bool = False
    end: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that together name a row's sequence."""
        if self.sequence_id is None:
            return ()
        return (self.sequence_id,) if isinstance(self.sequence_id, str) else tuple(self.sequence_id)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Each option and a column that it names."""
        keys = [("--sequence-id", column) for column in self.keys]
        others = [("--group", self.group), ("--time", self.time), ("--split", self.split)]
        named = [("--target", self.target), *keys, *others]
        return tuple((option, column) for option, column in named if column is not None)


def locate(path: str | Path) -> Source:
    """Raises BadInput where there is no file in a known format."""
    path = Path(path)
    name = one_line(path.name or str(path))
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise bad(ascii(path.name), "the file's name is not valid text; rename the file") from None
    if path.is_dir():
        return _problem(path, name)
    if not path.is_file():
        raise bad(one_line(str(path)), "there is no such file")
    if path.suffix.lower() not in FORMATS:
        raise bad(name, f"unknown format {path.suffix or 'without an ending'}; known are {', '.join(FORMATS)}")
    return Source(path.resolve(), (path.resolve(),))


def _problem(folder: Path, name: str) -> Source:
    """The two files of a problem of the archive: of several those that are named as their folder is."""
    train, test = (
        sorted(folder.glob(f"{escape(folder.name)}_{split}.ts")) or sorted(folder.glob(f"*_{split}.ts"))
        for split in ("TRAIN", "TEST")
    )
    if len(train) != 1 or len(test) != 1:
        raise bad(
            name,
            f"a folder must hold one file *_TRAIN.ts and one *_TEST.ts, and this one holds {len(train)} and {len(test)}",
        )
    return Source(folder.resolve(), (train[0].resolve(), test[0].resolve()))


def read(source: Source, roles: Roles) -> Recording:
    """Raises BadInput."""
    recording = _with_roles(_read(source, roles), roles)
    if not len(recording.inputs) and recording.target is None:
        raise recording.bad("no column is left")
    recording = _without_row_numbers(recording)
    for column in recording.inputs:
        tables.require_numbers(recording, column)
    return _in_order(with_group_in_key(recording))


def _read(source: Source, roles: Roles) -> Recording:
    if len(source.paths) == 2:
        splits = ("train", "test")
        pairs = zip(source.paths, splits, strict=True)
        return archive.ts([archive.File(path.read_bytes(), one_line(path.name), split) for path, split in pairs])
    path = source.paths[0]
    name, data = source.name, path.read_bytes()
    match path.suffix.lower():
        case ".parquet":
            return tables.parquet(data, name)
        case ".ts":
            return archive.ts([archive.File(data, name, None)])
        case ".npz":
            return arrays.npz(data, name)
        case ".txt":
            return plain.characters(data, name)
        case ".conll" | ".conllu":
            return plain.conll(data, name, roles.target)
        case ".tsv" if plain.has_sentences(data[:100_000].decode("utf-8", "replace")):
            return plain.conll(data, name, roles.target)
        case _:
            return tables.csv(data, name)


def _with_roles(recording: Recording, roles: Roles) -> Recording:
    """Each option names a column that exists, and no column has two roles."""
    found = list(recording.frame.columns)
    for option, column in [*roles.columns, *(("--ignore", column) for column in roles.ignore)]:
        if column not in found:
            if column in recording.ignored:
                raise recording.bad(f"{option}: the column is empty", column)
            near = get_close_matches(column, found, n=1, cutoff=0.5)
            hint = f"did you mean {one_line(near[0])!r}?" if near else f"the columns are {listed(found)}"
            raise recording.bad(f"{option}: there is no column {one_line(column)!r}; {hint}")
    for i, (option, column) in enumerate(roles.columns):
        for other, same in roles.columns[:i]:
            if column == same:
                raise recording.bad(f"{other} and {option} name the same column", column)
    made = replace(
        recording,
        target=roles.target or recording.target,
        sequence=roles.keys[0] if roles.keys else recording.sequence,
        group=roles.group or recording.group,
        time=roles.time or recording.time,
        split=roles.split or recording.split,
        ignored=(*recording.ignored, *(column for column in roles.ignore if column != roles.target)),
    )
    if made.target is None:
        raise recording.bad(f"name the column to be predicted with --target; the columns are {listed(found)}")
    return made


def _without_row_numbers(recording: Recording) -> Recording:
    """A column that counts the rows of the file tells nothing, unless they are sorted by the answer: then it tells that."""
    counting = []
    for column in recording.inputs:
        values = recording.frame[column]
        if pd.api.types.is_integer_dtype(values) and len(values) > 2 and (values.diff().iloc[1:] == 1).all():
            counting.append(column)
    if recording.counted != "row" or not counting:
        return recording
    made = replace(recording, ignored=(*recording.ignored, *counting))
    return made.remarked(f"left out, because they number the rows: {listed(counting)}")


def _in_order(recording: Recording) -> Recording:
    """Sequences one after another as they first appear, each in order of time; rows without a sequence are refused."""
    frame = recording.frame
    for column in (recording.sequence, recording.group, recording.time):
        if column is not None and frame[column].isna().any():
            raise recording.bad("a missing value, where each row needs one", column, _first(frame[column].isna()))
    if recording.time is not None:
        frame = frame.assign(**{recording.time: _times(recording, recording.time)})
    number = sequence_numbers(frame, recording.sequence)
    keys = [number] if recording.time is None else [frame[recording.time].to_numpy(), number]
    order = np.lexsort(keys)
    if recording.time is not None:
        _refuse_mixed(recording, frame, number, order)
    if (order == np.arange(len(order))).all():
        return replace(recording, frame=frame)
    return replace(recording, frame=frame.iloc[order].reset_index(drop=True), rows=recording.rows[order])


def sequence_numbers(frame: pd.DataFrame, sequence: str | None) -> np.ndarray:
    """(N,) int64: 0, 1, 2 … in the order in which sequences first appear; all 0 where no column names them."""
    return np.zeros(len(frame), dtype=np.int64) if sequence is None else pd.factorize(frame[sequence])[0]


def _refuse_mixed(recording: Recording, frame: pd.DataFrame, number: np.ndarray, order: np.ndarray) -> None:
    """Equal times in a table without sequences mean that it has some."""
    if recording.sequence is not None:
        return
    assert recording.time is not None
    times = frame[recording.time].to_numpy()[order]
    same = np.flatnonzero(times[1:] == times[:-1])
    if len(same):
        row = int(order[same[0] + 1])
        raise recording.bad(
            f"the same time as row {recording.rows[order[same[0]]]:,}; if rows belong to different sequences, name their "
            "column with --sequence-id",
            recording.time,
            row,
        )


def _times(recording: Recording, column: str) -> pd.Series:
    """Numbers or dates."""
    values = recording.frame[column]
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return values.dt.tz_convert(None)
    if pd.api.types.is_datetime64_any_dtype(values):
        return values
    if pd.api.types.is_numeric_dtype(values):
        wrong = ~np.isfinite(values.to_numpy(dtype=float))
        if wrong.any():
            raise recording.bad(f"the time {values[wrong].iloc[0]} is not finite", column, _first(wrong))
        return values
    texts = values.astype(str)
    numbers = pd.to_numeric(texts, errors="coerce")
    read = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    wrong = min((numbers.isna(), read.isna()), key=lambda missing: int(missing.sum()))
    if wrong.any():
        row = _first(wrong)
        shown = one_line(texts.iloc[row])[:40]
        raise recording.bad(f"{shown!r} is no time; write numbers, or dates like 2024-12-31 23:59", column, row)
    return read.dt.tz_convert(None)


def _first(wrong: pd.Series | np.ndarray) -> int:
    return int(np.flatnonzero(np.asarray(wrong))[0])
