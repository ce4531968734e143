"""Public data sets: where each file comes from, what it must hash to, and where it lies once it is here.

The cache holds ``<data set>/<file>``. It is the folder that the environment variable RNNBENCH_DATA names, or else the
user's cache folder. A file that is there is checked and used; one that is not is downloaded (pooch writes beside it and
moves it into place, so that a broken download is never read), by one process at a time. Sources, hashes and licences are
in datasets.csv; addresses are pinned to a commit where the host has commits.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from platformdirs import user_cache_path

TABLE = Path(__file__).with_name("datasets.csv")
CARRIERS = ("aeon", "scikit-learn", "statsmodels")
"""The packages whose own data files `benchmarks.tasks.bundled` reads: their version is the version of those."""


class DataMissing(RuntimeError):
    """A file of a data set is neither in the cache nor to be had; the message says where to put it."""


class File(NamedTuple):
    """A row of datasets.csv. file: the path below the data set's folder; one that ends with a slash is a folder that an
    archive holds, and its sha256 is over a line ``<sha256>  <name>`` for each of its files, sorted by name."""

    name: str
    file: str
    bytes: int
    sha256: str
    licence: str
    url: str


@cache
def files(name: str) -> dict[str, File]:
    """The files of a data set, by path."""
    with TABLE.open(newline="", encoding="utf-8") as table:
        rows = [File(row[0], row[1], int(row[2]), *row[3:]) for row in csv.reader(table) if row[0] == name]
    if not rows:
        raise KeyError(f"datasets.csv has no data set {name}")
    return {row.file: row for row in rows}


def folder() -> Path:
    """The cache."""
    given = os.environ.get("RNNBENCH_DATA")
    if given:
        return Path(given).expanduser()
    return user_cache_path("rnnbench")


def is_here(name: str) -> bool:
    """Whether every file of the data set is in the cache; nothing is checked or downloaded."""
    return all((folder() / name / file).exists() for file in files(name))


def prepare(names: Iterable[str]) -> None:
    """Downloads what is missing of these data sets, and checks the rest. Raises DataMissing at the first that fails."""
    for name in names:
        for file in files(name):
            path(name, file)


@cache
def path(name: str, file: str) -> Path:
    """A file of a data set in the cache, checked once per process; downloaded first where it is missing.

    Raises DataMissing with a sentence that says what, where and how to mend it.
    """
    row, target = files(name)[file], folder() / name / file
    if target.exists():
        if _digest(target) == row.sha256:
            return target
        raise DataMissing(
            f"data set {name}: {target} is not the file it should be (its sha256 differs from that in datasets.csv); "
            "delete it, and it is downloaded again"
        )
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if not target.exists():
                _download(row, target)
    # no network, no space, a read-only cache, or another file than expected
    except (OSError, ValueError, BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataMissing(
            f"data set {name}: {target} is missing and {row.url} could not be had ({reason}); put the file there, or "
            "name a folder that has it in RNNBENCH_DATA"
        ) from error
    return target


def _download(row: File, target: Path) -> None:
    """Raises BadZipFile, OSError or ValueError."""
    import pooch

    is_folder = row.file.endswith("/")
    fname = f"{target.name}.zip" if is_folder else target.name
    known = None if is_folder else f"sha256:{row.sha256}"
    got = Path(pooch.retrieve(row.url, known_hash=known, fname=fname, path=target.parent))
    if is_folder:
        try:
            _unpack(got, target, row)
        finally:
            got.unlink()  # also a wrong one, which the next attempt would take for its own


def _unpack(got: Path, target: Path, row: File) -> None:
    """Takes the folder ``target`` out of an archive; raises BadZipFile, OSError or ValueError."""
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():  # of an attempt that was killed
        shutil.rmtree(partial)
    partial.mkdir()
    with ZipFile(got) as archive:
        for member in archive.namelist():
            parts = Path(member).parts  # the archive of a repository has one folder around everything
            if len(parts) == 3 and parts[1] == target.name and not member.endswith("/"):
                (partial / parts[2]).write_bytes(archive.read(member))
    if _digest(partial) != row.sha256:
        raise ValueError("the archive holds other files than it should")
    partial.rename(target)


def _digest(path: Path) -> str:
    if path.is_dir():
        lines = (f"{_digest(file)}  {file.name}\n" for file in sorted(path.iterdir()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
