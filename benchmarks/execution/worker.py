"""One trial in a process of its own: its notebook is executed in a kernel, every ending becomes a result row.

The worker leads a process group that holds its kernel and whatever that starts: one signal ends the whole trial. The
coordinator imports this file too, and needs neither papermill nor a kernel: they are imported in the worker alone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.execution.family import end_descendants
from benchmarks.execution.lifeline import adopt_orphans, name_process
from benchmarks.execution.slots import Slot
from benchmarks.records import Status, failure, read_curve, write_atomically, write_result
from benchmarks.trial import Trial

STORAGE_EXIT = 74
"""Exit code (sysexits.h: EX_IOERR) of a worker that could not write its run folder."""

STORAGE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EEXIST,
    }
)
"""Errors of a disk that is full or broken, or of a folder that is read-only or gone."""

LOG_BYTES = 4096
"""How much of the end of a log is looked at."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    folder: the run folder. notebook: the one to execute. environment: for env.json. scratch: a short path for sockets.
    forked: whether the kernel is a copy of this process, or a new interpreter. slot: the trial's place on a GPU, None on the
    CPU. turn: where to say that the imports are over, one way or another, and to wait until nothing runs beside; None: at once.
    """

    trial: Trial
    code_digest: str
    folder: Path
    notebook: Path
    environment: Mapping[str, Any]
    scratch: Path
    forked: bool
    slot: Slot | None = None
    turn: Connection | None = None


def main(job: Job) -> None:
    """The worker's whole life. Ends with `STORAGE_EXIT` where the run folder cannot be written."""
    os.setsid()
    name_process("rnnb-worker")
    adopt_orphans()
    try:
        fresh_folder(job.folder)
        _redirect_output(job.folder / "stderr.log")
        if job.slot is not None:
            os.environ.update(job.slot.environment)
        from benchmarks.execution.capped_output import CappedLog
        from benchmarks.execution.notebook_run import execute
        from benchmarks.execution.waiting_kernel import WaitingKernel

        # First of all: what is copied must have one thread and no sockets.
        log = CappedLog(job.folder / "stderr.log")
        with log.inherited():
            kernel = WaitingKernel(job.forked, job.trial)
        log.start()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda number, frame: kernel.send(number))
        write_atomically(job.folder / "spec.json", json.dumps(asdict(job.trial), indent=1))
        write_atomically(job.folder / "env.json", json.dumps(job.environment, indent=1))
        kernel.wait_for_imports()
        if job.turn is not None:
            job.turn.send("ready")
            job.turn.recv()
        ending = execute(job, kernel, log)
        kernel.stop()
        log.finish()
        if ending is not None:
            curve = read_curve(job.folder)
            write_result(job.folder, failure(job.trial, *ending, job.code_digest, curve))
    except Exception as error:
        try:
            if not job.folder.exists() and job.folder.parent.exists():
                _record_removal(job)
                return
        except OSError:
            sys.exit(STORAGE_EXIT)
        if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
            sys.exit(STORAGE_EXIT)
        raise
    finally:
        end_descendants(os.getpid())  # what the trial started in sessions of its own


def _record_removal(job: Job) -> None:
    """The row of a trial that has removed its own run folder, which is no fault of the disk."""
    fresh_folder(job.folder)
    write_atomically(job.folder / "spec.json", json.dumps(asdict(job.trial), indent=1))
    write_atomically(job.folder / "env.json", json.dumps(job.environment, indent=1))
    reason = "the run folder was removed while the trial ran; no other trial's was, so presumably by the trial itself"
    write_result(job.folder, failure(job.trial, Status.ERROR, reason, job.code_digest))


def fresh_folder(folder: Path) -> None:
    """An empty run folder: whatever an earlier attempt left is removed, its result first."""
    (folder / "result.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def ending(exitcode: int) -> str:
    """An exit code in words: the signal's name, or the number."""
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"


def last_lines(log: Path, n: int = 3) -> str:
    """The last n lines of a log that say anything, on one line, of the last few kilobytes: a library may have filled it."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-n:])


def _redirect_output(log: Path) -> None:
    """Both streams, at the level of file descriptors, into the run folder; the kernel inherits them."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _end_with_parent() -> None:
    """Kills the whole trial once the coordinator is gone, however it went."""
    coordinator = parent_process()
    if coordinator is not None:
        wait([coordinator.sentinel])
        end_descendants(os.getpid())
        os.killpg(0, signal.SIGKILL)
