"""A suite's records as one file, to take elsewhere: what lies in it, and what must hold before anything of it is used.

    suite/suite.yaml  suite/tuned/NAME.yaml     what was asked
    runs/<trial id>/…                           the run folders, see `benchmarks.records`
    report/…                                    report.html, report.ipynb, suite.json, table.csv
    manifest.json                               size and sha256 of all of these; device class, machines, commit, statuses

It is a zip, not a tar.gz: its directory names every member with its size before a byte is unpacked, so that a bomb or a stray
member is refused unread; one file can be read without the others; and every system opens it. `benchmarks.exchange` writes and
merges it.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from benchmarks import records
from benchmarks.records import RERUN, Result, TornResult
from benchmarks.suite import is_name
from benchmarks.trial import Device, Trial

SCHEMA = 1
MANIFEST = "manifest.json"
SUITE = "suite/suite.yaml"
RUN_FILES = ("env.json", "metrics.jsonl", "notebook.ipynb", records.RESULT, "spec.json", "stderr.log", records.TERMS)
READ = ("env.json", records.RESULT, "spec.json", *records.BESIDE)
"""Those that are read as a whole, and checked."""
OUTCOMES = ("report.html", "report.ipynb", "suite.json", "table.csv")
"""What is taken of results/<suite>/: the rest is about MLflow's store, and about what this terminal printed last."""
LARGEST_READ = records.LARGEST
"""Bytes of a file that is read as a whole."""
LARGEST_UNPACKED = 32 * 2**30
"""Bytes that an archive may unpack to, and what an export may hold: some 100,000 trials with their notebooks."""
PIECE = 2**20
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What the library raises at reading an archive with wrong bytes in it."""


class BadArchive(ValueError):
    """Not what an export writes, or not to be merged here; the message names the file and is one sentence."""


@dataclass(frozen=True)
class Member:
    """A file in the archive. size: bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What lies in the archive. machines: processor, cores and GPU of those that ran the trials. git_commit: of the checkout
    that exported; each run's own is in its env.json. statuses: how many trials ended how. files: by path, but the manifest."""

    schema: int
    suite: str
    device: Device
    machines: tuple[str, ...]
    git_commit: str | None
    statuses: Mapping[str, int]
    files: tuple[Member, ...]

    @property
    def told(self) -> str:
        """In a line."""
        ended = ", ".join(f"{n} {status}" for status, n in self.statuses.items())
        where = "; ".join(self.machines) or "an unknown machine"
        size = f"{len(self.files)} files of {sum(member.size for member in self.files) / 1e6:.1f} MB"
        return f"{sum(self.statuses.values())} trials of {self.suite} on {self.device}: {ended}; run on {where}; {size}"


_MANIFEST = TypeAdapter(Manifest)
_TRIAL = TypeAdapter(Trial)


class Run(NamedTuple):
    """A run folder that can be trusted. machine: None where it left no environment. content: its result.json."""

    trial: Trial
    result: Result
    machine: str | None
    content: bytes


def run_of(trial_id: str, files: Mapping[str, bytes], where: Path) -> Run:
    """files: name → content of those of READ that the folder has, result.json among them. Raises TornResult."""
    beside = {name: files.get(name) for name in records.BESIDE}
    result = records.parse_result(files[records.RESULT], where / records.RESULT, trial_id, beside)
    try:
        trial = _TRIAL.validate_json(json.dumps(result.spec), strict=True)
    except ValidationError as error:
        raise TornResult(f"{where}: no specification of a trial: {error.errors()[0]['msg']}") from error
    if trial.id != trial_id or asdict(trial) != result.spec:
        raise TornResult(f"{where}: the trial's id is not the hash of its specification")
    if "spec.json" in files and _json(files["spec.json"], where / "spec.json") != result.spec:
        raise TornResult(f"{where}: spec.json and result.json tell of different trials")
    environment = _json(files.get("env.json", b"{}"), where / "env.json")
    if environment is not None and not isinstance(environment, dict):
        raise TornResult(f"{where}: env.json holds no names and values")
    return Run(trial, result, machine(environment or {}), files[records.RESULT])


def machine(environment: Mapping[str, object]) -> str | None:
    """Where a run took place, from its env.json; None where it does not say."""
    if "processor" not in environment:
        return None
    cores = f"{environment['cores']} cores" if "cores" in environment else None
    told = (environment["processor"], cores, environment.get("gpu"))
    return "".join(x for x in ", ".join(str(part) for part in told if part) if x.isprintable())


def read_run(results: Path, trial_id: str) -> Run | None:
    """A trial's run folder; None where it has no result. Raises TornResult."""
    folder = records.run_folder(results, trial_id)
    if not (folder / records.RESULT).exists():
        return None
    paths = {name: folder / name for name in READ if (folder / name).is_file()}
    for name, path in paths.items():
        if path.stat().st_size > LARGEST_READ:
            raise TornResult(f"{folder}: {name} has {path.stat().st_size:,} bytes, more than any such file")
    return run_of(trial_id, {name: path.read_bytes() for name, path in paths.items()}, folder)


def all_runs(results: Path) -> Iterator[Run]:
    """What the run folders tell of models: nothing where a result is torn, or would be run again."""
    for path in sorted((results / "runs").glob(f"*/{records.RESULT}")):
        try:
            run = read_run(results, path.parent.name)
        except TornResult:
            continue
        if run is not None and run.result.status not in RERUN:
            yield run


def describe(suite: str, runs: Mapping[str, Run], commit: str | None, files: tuple[Member, ...]) -> Manifest:
    """The manifest of these runs, at least one."""
    statuses = Counter(str(run.result.status) for run in runs.values())
    return Manifest(
        schema=SCHEMA,
        suite=suite,
        device=next(iter(runs.values())).trial.device,
        machines=tuple(sorted({run.machine for run in runs.values() if run.machine})),
        git_commit=commit,
        statuses=dict(sorted(statuses.items())),
        files=files,
    )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Raises BadArchive unless the file is a zip with just the members that its manifest lists, each as an export has it."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except UNREADABLE as error:
            raise BadArchive(f"{path.name}: not a zip, or damaged: {error}") from error
        with archive:
            yield Archive(archive, path.name)


class Archive:
    """An archive whose directory and manifest agree. Contents are compared with the manifest whenever they are read.
    n_bytes: that it unpacks to, never more."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        if len(self._entries) < len(archive.infolist()):
            raise self._bad("a member is there twice")
        for entry in self._entries.values():
            self._refuse_strange(entry)
        self.n_bytes = sum(entry.file_size for entry in self._entries.values())
        if self.n_bytes > LARGEST_UNPACKED:
            raise self._bad(f"it would unpack to {self.n_bytes:,} bytes, more than the {LARGEST_UNPACKED:,} allowed")
        self.manifest = self._read_manifest()
        self.members = {member.path: member for member in self.manifest.files}
        self._compare()

    def check(self) -> dict[str, Run]:
        """The runs by trial id, once every byte is what the manifest says, and every result one that can be trusted. Raises
        BadArchive."""
        for path in self.members:
            for _ in self.pieces(path):
                pass
        runs = {trial_id: self._run(trial_id) for trial_id in self.trial_ids}
        if not runs:
            raise self._bad("it holds no run")
        described = describe(self.manifest.suite, runs, self.manifest.git_commit, self.manifest.files)
        if described != self.manifest or any(run.trial.device != self.manifest.device for run in runs.values()):
            raise self._bad("device, machines or statuses are not those of its runs")
        return runs

    @property
    def size(self) -> str:
        """What unpacking it takes, in words."""
        return f"{len(self.members)} files, {self.n_bytes / 1e6:,.1f} MB unpacked"

    @property
    def trial_ids(self) -> list[str]:
        return sorted({path.split("/")[1] for path in self.members if path.startswith("runs/")})

    def files_of(self, trial_id: str) -> list[str]:
        """Names of the files in the run folder."""
        return [name for name in RUN_FILES if f"runs/{trial_id}/{name}" in self.members]

    def content(self, path: str) -> bytes:
        """All of a member. Raises BadArchive, also where it is larger than LARGEST_READ."""
        if self.members[path].size > LARGEST_READ:
            raise self._bad(f"{path} has {self.members[path].size:,} bytes, more than any such file")
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """A member, piece by piece. Raises BadArchive after the last one where it is not what the manifest says."""
        digest = hashlib.sha256()
        for piece in self._unpacked(path):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != self.members[path].sha256:
            raise self._bad(f"{path} is not the file that was exported: its sha256 is another")

    def _unpacked(self, path: str) -> Iterator[bytes]:
        """At most as many bytes as the directory says, whatever is packed."""
        try:
            with self._archive.open(self._entries[path]) as member:
                while piece := member.read(PIECE):
                    yield piece
        except UNREADABLE as error:
            raise self._bad(f"{path} is damaged: {error}") from error

    def _run(self, trial_id: str) -> Run:
        folder = f"runs/{trial_id}"
        names = self.files_of(trial_id)
        if records.RESULT not in names:
            raise self._bad(f"{folder} has no {records.RESULT}")
        files = {name: self.content(f"{folder}/{name}") for name in names if name in READ}
        try:
            return run_of(trial_id, files, Path(folder))
        except TornResult as error:
            raise self._bad(str(error)) from error

    def _refuse_strange(self, entry: zipfile.ZipInfo) -> None:
        """Names are compared with those that an export gives, so that none can lead anywhere else."""
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not _is_member(entry.filename):
            raise self._bad(f"{entry.filename!r} is no member of an export")
        if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
            raise self._bad(f"{entry.filename} is no plain file")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._bad(f"{entry.filename} is packed in a way that an export does not use")

    def _read_manifest(self) -> Manifest:
        entry = self._entries.get(MANIFEST)
        if entry is None:
            raise self._bad(f"it has no {MANIFEST}, so it was not made by `rnnbench export`")
        if entry.file_size > LARGEST_READ:
            raise self._bad(f"{MANIFEST} has {entry.file_size:,} bytes, more than any")
        try:
            manifest = _MANIFEST.validate_json(b"".join(self._unpacked(MANIFEST)), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise self._bad(f"{MANIFEST}: {where}: {first['msg']}") from error
        if manifest.schema != SCHEMA:
            raise self._bad(f"it has schema {manifest.schema}, and this version of rnnbench reads {SCHEMA}")
        if not is_name(manifest.suite):
            raise self._bad(f"{manifest.suite!r} cannot be a suite's name")
        return manifest

    def _compare(self) -> None:
        """Members and their sizes with the manifest's."""
        listed, there = set(self.members), set(self._entries) - {MANIFEST}
        if len(listed) < len(self.manifest.files):
            raise self._bad(f"{MANIFEST} lists a file twice")
        for path in sorted(listed ^ there):
            raise self._bad(f"{path!r} is missing" if path in listed else f"{path} is not in {MANIFEST}")
        for path, member in self.members.items():
            if self._entries[path].file_size != member.size:
                raise self._bad(f"{path} has {self._entries[path].file_size:,} bytes instead of {member.size:,}")
        own = {SUITE, f"suite/tuned/{self.manifest.suite}.yaml"}
        if SUITE not in listed or any(path.startswith("suite/") and path not in own for path in listed):
            raise self._bad(f"it does not hold the file of the suite {self.manifest.suite}")

    def _bad(self, problem: str) -> BadArchive:
        """In one line, without what a terminal would obey."""
        return BadArchive(
            f"{self.name}: " + "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in problem)
        )


def _is_member(path: str) -> bool:
    if path in (MANIFEST, SUITE, *(f"report/{name}" for name in OUTCOMES)):
        return True
    tuned = re.fullmatch(r"suite/tuned/([^/]+)\.yaml", path)
    run = re.fullmatch(r"runs/[0-9a-f]{16}/([^/]+)", path)
    return bool(tuned and is_name(tuned[1])) or bool(run and run[1] in RUN_FILES)


def _json(content: bytes, where: Path) -> object:
    """None for what is no JSON, such as a kill leaves. Raises TornResult for what no reader gets to the end of."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise TornResult(f"{where}: nested too deeply") from error
    except ValueError:
        return None
