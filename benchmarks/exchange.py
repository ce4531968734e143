"""A suite's records are taken out of one results folder, `export`, and into another, `merge`: see `benchmarks.portable`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from benchmarks import provenance, records, report
from benchmarks.execution.lock import locked
from benchmarks.execution.plan import quarantine
from benchmarks.parameters import InvalidParameter
from benchmarks.portable import (
    LARGEST_UNPACKED,
    MANIFEST,
    OUTCOMES,
    PIECE,
    RUN_FILES,
    SUITE,
    Archive,
    BadArchive,
    Manifest,
    Member,
    Run,
    all_runs,
    describe,
    open_archive,
    read_run,
)
from benchmarks.records import RERUN, Result, TornResult
from benchmarks.suite import Suite
from benchmarks.tasks.registry import BY_NAME
from benchmarks.trial import Trial
from models import registry

STAGING = ".import"
"""Folder in the results where a run is unpacked, to be moved when whole. What a killed import left there the next removes."""


class Exported(NamedTuple):
    """torn: trials that were left out, each with the reason. n_missing: those without a result."""

    manifest: Manifest
    torn: list[str]
    n_missing: int


class Verdict(StrEnum):
    """What becomes of an imported run. CONFLICT: ours stays, though theirs tells something else."""

    ADDED = "added"
    REPLACED = "put in place of one that would be run again"
    SAME = "already here"
    CONFLICT = "in conflict"


class Merged(NamedTuple):
    """verdicts: by trial id. conflicts: the trials whose result here tells something else, with both. n_stale: made with other
    code than is here. machines: that ran the same trials but for the seed, here and in the archive. suite: where the suite's
    file now lies, None where the project has one of that name."""

    verdicts: Mapping[str, Verdict]
    conflicts: list[str]
    n_stale: int
    machines: frozenset[str]
    suite: Path | None

    @property
    def told(self) -> str:
        counts = Counter(self.verdicts.values())
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])

    @property
    def remarks(self) -> Iterator[str]:
        """What a person should know of the trials that were imported."""
        if self.n_stale:
            yield (
                f"{self.n_stale} of {len(self.verdicts)} were made with other code than is here: they are stale, and "
                "`rnnbench run` runs them again"
            )
        if len(self.machines) > 1:
            yield (
                f"trials of one model and task were run on {len(self.machines)} machines ({'; '.join(sorted(self.machines))}): "
                "times and memory in the table are means over them; cost keeps them apart"
            )


def export(results: Path, suite: Suite, trials: Sequence[Trial], output: Path) -> Exported:
    """Writes the archive, whole or not at all, and reads it back before it takes its name. The report is built where it is
    missing or older than a result. Raises InvalidParameter where there is nothing to export, FolderInUse while trials run."""
    if not results.is_dir():
        raise InvalidParameter(f"{results}: no such folder; --results names the one that holds the runs")
    with locked(results):
        runs, torn = _trusted(results, trials)
        if not runs:
            raise InvalidParameter(
                f"{results} holds no result of {suite.name} on {trials[0].device}, so there is nothing to export; run it "
                "first, or name another --results or --device"
            )
        if not report.is_current(results, suite, list(trials)):
            report.build(results, suite, list(trials))
        sources = _sources(results, suite, runs)
        n_bytes = sum(source.stat().st_size for source in sources.values())
        if n_bytes > LARGEST_UNPACKED:
            raise InvalidParameter(
                f"{results}: the {len(sources)} files to export have {n_bytes:,} bytes, and an archive may hold "
                f"{LARGEST_UNPACKED:,}; export fewer trials, or remove what their notebooks and logs hold in excess"
            )
        manifest = _write(output, sources, suite.name, runs)
    return Exported(manifest, torn, len(trials) - len(runs) - len(torn))


def merge(archive: Archive, results: Path) -> Merged:
    """Checks the archive, then moves what is not here yet into the run folders, each whole: a kill leaves nothing half.

    Replaced, the old folder going into quarantine, is what would be run again: a result that is torn, that says nothing of the
    model, or that other code made where the new one was made by ours. Any other result of ours stays. Raises BadArchive, also
    where numbers would stand side by side that must not; FolderInUse while trials run.
    """
    runs = archive.check()
    results.mkdir(parents=True, exist_ok=True)
    with locked(results):
        machines = _refuse_to_mix(archive, runs, results)
        stale = {trial_id for trial_id, run in runs.items() if _is_stale(run)}
        verdicts = {trial_id: _judge(results, run, trial_id in stale) for trial_id, run in runs.items()}
        _move_in(
            archive, [x for x, verdict in verdicts.items() if verdict in (Verdict.ADDED, Verdict.REPLACED)], results
        )
        suite = _keep_suite(archive, results)
        conflicts = [_told(results, runs[x]) for x, verdict in verdicts.items() if verdict == Verdict.CONFLICT]
    return Merged(verdicts, conflicts, len(stale), machines, suite)


def _trusted(results: Path, trials: Sequence[Trial]) -> tuple[dict[str, Run], list[str]]:
    runs: dict[str, Run] = {}
    torn = []
    for trial in trials:
        try:
            run = read_run(results, trial.id)
        except TornResult as error:
            torn.append(f"{trial.title} ({trial.id}): {error}")
            continue
        if run is not None:
            runs[trial.id] = run
    return runs, torn


def _sources(results: Path, suite: Suite, runs: Mapping[str, Run]) -> dict[str, Path]:
    """Path in the archive → file on the disk, of those that are there."""
    found = {SUITE: suite.path, f"suite/tuned/{suite.name}.yaml": suite.tuned_file}
    found |= {f"report/{name}": results / suite.name / name for name in OUTCOMES}
    found |= {f"runs/{x}/{name}": records.run_folder(results, x) / name for x in runs for name in RUN_FILES}
    return {path: found[path] for path in sorted(found) if found[path].is_file()}


def _write(output: Path, sources: Mapping[str, Path], suite: str, runs: Mapping[str, Run]) -> Manifest:
    part = output.with_name(output.name + ".part")
    try:
        with part.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                files = tuple(_add(archive, path, source) for path, source in sources.items())
                manifest = describe(suite, runs, provenance.git_commit(), files)
                archive.writestr(_entry(MANIFEST), json.dumps(asdict(manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        with open_archive(part) as written:
            written.check()
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return manifest


def _entry(path: str) -> zipfile.ZipInfo:
    """No time and no owner: the same records give the same bytes."""
    entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _add(archive: zipfile.ZipFile, path: str, source: Path) -> Member:
    entry, digest, size = _entry(path), hashlib.sha256(), 0
    entry.file_size = source.stat().st_size
    with source.open("rb") as file, archive.open(entry, "w") as member:
        while piece := file.read(PIECE):
            member.write(piece)
            digest.update(piece)
            size += len(piece)
    return Member(path, size, digest.hexdigest())


def _refuse_to_mix(archive: Archive, runs: Mapping[str, Run], results: Path) -> frozenset[str]:
    """The machines that ran the same trials but for their seeds, here and in the archive.

    Raises BadArchive where some were run here on another device class, or with a budget by the clock on another machine.
    """
    cells: dict[str, set[str | None]] = {}
    for run in runs.values():
        cells.setdefault(_cell(run.trial), set()).add(run.machine)
    shared = [(cells[_cell(run.trial)], run) for run in all_runs(results) if _cell(run.trial) in cells]
    suite, device = archive.manifest.suite, archive.manifest.device
    for theirs, ours in shared:
        mixed: tuple[str, str] | None = None
        if ours.trial.device != device:
            mixed = (device, ours.trial.device)
        elif ours.trial.fit.get("seconds") is not None and theirs != {ours.machine}:
            mixed = (", ".join(archive.manifest.machines) or "another machine", ours.machine or "another machine")
        if mixed is not None:
            raise BadArchive(
                f"{archive.name} holds trials of {suite} run on {mixed[0]}, and {results} the same run on {mixed[1]}, which "
                "must not be put together; give another folder with --results"
            )
    met = {ours.machine for _, ours in shared} | {x for theirs, _ in shared for x in theirs}
    return frozenset(x for x in met if x is not None)


def _cell(trial: Trial) -> str:
    """What trials have in common that one mean is taken over, and that on another device class."""
    return replace(trial, seed=0, device="cpu", machine={}).id


def _is_stale(run: Run) -> bool:
    """Whether it was made by other code than is here; so is a model or a task that is not here."""
    if run.trial.model not in registry.entries() or run.trial.task not in BY_NAME:
        return True
    return run.result.code_digest != provenance.code_digest(run.trial.task, run.trial.model, run.trial.mode)


def _judge(results: Path, theirs: Run, stale: bool) -> Verdict:
    """stale: whether theirs was made by other code than is here."""
    try:
        ours = read_run(results, theirs.trial.id)
    except TornResult:
        return Verdict.REPLACED
    if ours is None:
        return Verdict.ADDED
    if ours.content == theirs.content or theirs.result.status in RERUN:
        return Verdict.SAME
    if ours.result.status in RERUN or (_is_stale(ours) and not stale):
        return Verdict.REPLACED
    return Verdict.SAME if _finding(ours.result) == _finding(theirs.result) else Verdict.CONFLICT


def _finding(result: Result) -> Result:
    """A result without what differs each time that a trial is run: the clock, memory, the curve, whose rows have times, and how
    the terms were compressed."""
    same = replace(result, seconds={}, memory={}, timing_valid=False, cost=None, code_digest="")
    return replace(same, curve_digest=None, terms_digest=None)


def _told(results: Path, theirs: Run) -> str:
    ours = records.read_result(records.run_folder(results, theirs.trial.id))
    assert ours is not None  # it is in conflict
    return f"{theirs.trial.title} ({theirs.trial.id}): ours {_outcome(ours)}; theirs {_outcome(theirs.result)}"


def _outcome(result: Result) -> str:
    value = result.test.get(result.primary or "")
    return str(result.status) if value is None else f"{result.status}, {result.primary} {value:.6g}"


def _move_in(archive: Archive, trial_ids: Sequence[str], results: Path) -> None:
    staging = results / STAGING
    n_bytes = sum(archive.members[f"runs/{x}/{name}"].size for x in trial_ids for name in archive.files_of(x))
    free = shutil.disk_usage(results).free
    if n_bytes > free:
        raise OSError(errno.ENOSPC, f"{n_bytes:,} bytes are to be unpacked and {free:,} are free", str(results))
    _remove(staging)
    try:
        for trial_id in trial_ids:
            for name in archive.files_of(trial_id):
                _unpack(archive, f"runs/{trial_id}/{name}", staging / trial_id / name)
            target = records.run_folder(results, trial_id)
            if target.exists():
                quarantine(results, trial_id)
            target.parent.mkdir(exist_ok=True)
            (staging / trial_id).rename(target)
    finally:
        _remove(staging)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _unpack(archive: Archive, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for piece in archive.pieces(path):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())  # or a power failure could leave a run folder with empty files


def _keep_suite(archive: Archive, results: Path) -> Path | None:
    """The file of a suite that the project lacks, put where `rnnbench compare` leaves its own; one that is there stays."""
    name = archive.manifest.suite
    if name in Suite.names():
        return None
    folder = results / name
    for path in (f"suite/tuned/{name}.yaml", SUITE):
        target = folder / path.removeprefix("suite/")
        if path in archive.members and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            _unpack(archive, path, part)
            part.replace(target)
    return folder / Path(SUITE).name
