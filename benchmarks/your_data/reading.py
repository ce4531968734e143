"""From a path to a `Recording`: the format by the file's name, the roles of columns as asked, rows in order of time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.your_data import archive, arrays, columns, ordering, plain, tables
from benchmarks.your_data.recording import Recording, bad, listed, one_line
from benchmarks.your_data.recording import sequence_numbers as sequence_numbers
from benchmarks.your_data.roles import Roles as Roles

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
    recording = columns.with_keys(_with_roles(_read(source, roles), roles), roles.keys)
    if roles.wide:
        recording = columns.wide(recording)
    if not len(recording.inputs) and recording.target is None:
        raise recording.bad("no column is left")
    recording = columns.without_infinite(columns.without_values(recording, roles.missing))
    recording = ordering.in_order(columns.without_row_numbers(recording), roles.keys)
    return columns.with_warnings(recording, roles.wide)


def _read(source: Source, roles: Roles) -> Recording:
    if len(source.paths) == 2:
        splits = ("train", "test")
        pairs = zip(source.paths, splits, strict=True)
        return archive.ts([archive.File(path.read_bytes(), one_line(path.name), split) for path, split in pairs])
    path = source.paths[0]
    name, data = source.name, path.read_bytes()
    match path.suffix.lower():
        case ".parquet":
            return tables.parquet(data, name, roles)
        case ".ts":
            return archive.ts([archive.File(data, name, None)])
        case ".npz":
            return arrays.npz(data, name, roles.channels_first)
        case ".txt":
            return plain.characters(data, name)
        case ".conll" | ".conllu":
            return plain.conll(data, name, roles.target)
        case ".tsv" if plain.has_sentences(data[:100_000].decode("utf-8", "replace")):
            return plain.conll(data, name, roles.target)
        case _:
            return tables.csv(data, name, roles)


def _with_roles(recording: Recording, roles: Roles) -> Recording:
    """Each option names a column that exists, and no column has two roles."""
    found = list(recording.frame.columns)
    for option, column in [*roles.columns, *(("--ignore", column) for column in roles.ignore)]:
        if column not in found:
            if column in recording.ignored and option == "--ignore":
                continue
            if column in recording.ignored:
                raise recording.bad(f"{option}: the column is empty", column)
            near = get_close_matches(column, found, n=1, cutoff=0.5)
            hint = f"did you mean {one_line(near[0])!r}?" if near else f"the columns are {listed(found)}"
            raise recording.bad(f"{option}: there is no column {one_line(column)!r}; {hint}")
    for i, (option, column) in enumerate(roles.columns):
        for other, same in roles.columns[:i]:
            if column == same and {option, other} != {"--group", "--sequence-id"}:
                raise recording.bad(f"{other} and {option} name the same column", column)
    made = replace(
        recording,
        target=roles.target or recording.target,
        # Where a group is named and no sequence, its rows are one.
        sequence=roles.keys[0] if roles.keys else recording.sequence or (None if roles.wide else roles.group),
        group=roles.group or recording.group,
        time=roles.time or recording.time,
        split=roles.split or recording.split,
        ignored=(*recording.ignored, *(column for column in roles.ignore if column != roles.target)),
    )
    if made.target is None:
        raise recording.bad(f"name the column to be predicted with --target; the columns are {listed(found)}")
    return made
