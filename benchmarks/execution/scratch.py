"""A folder for sockets and what else does not outlive a run: short, and removed at the next start if its owner was killed."""

from __future__ import annotations

import fcntl
import multiprocessing.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = "rnnbench-run-"
OWNER = "owner"
"""A file that its owner keeps locked; the operating system frees the lock with it."""
LONGEST = 60
"""Characters of the folder's path: that of a socket in it, of which the system takes 107, is some 40 longer."""
NEW_S = 600.0
"""Seconds for which a folder without an owner is taken to be one that is just being made."""


class NoScratch(RuntimeError):
    """No temporary folder will do; the message says why and what to do."""


@cache
def folder() -> Path:
    """This process's own, made at the first call and removed at exit. Raises NoScratch."""
    for parent in _parents():
        if len(str(parent)) + len(PREFIX) + 8 > LONGEST:
            continue
        with suppress(OSError):
            _remove_abandoned(parent)
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            descriptor = os.open(made / OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # After multiprocessing has removed what it has there, at -100.
            multiprocessing.util.Finalize(None, _remove, (made,), exitpriority=-200)
            return made
    chosen = os.environ.get("TMPDIR")
    raise NoScratch(
        "no temporary folder can hold the sockets of a run: /tmp cannot be written, and TMPDIR "
        f"{'is not set' if chosen is None else f'is {chosen!r}, which is too long or cannot be written either'}; set it to a "
        f"folder whose path has at most {LONGEST - 20} characters"
    )


def keep_sockets_short() -> None:
    """Has multiprocessing make its sockets in `folder`; by itself it uses TMPDIR, however long, and leaves them when killed."""
    chosen, before = folder(), tempfile.tempdir
    tempfile.tempdir = str(chosen)
    try:
        multiprocessing.util.get_temp_dir()  # remembers what it answered
    finally:
        tempfile.tempdir = before


def _parents() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # where nothing that it knows can be written
        yield Path(tempfile.gettempdir())
    for other in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm"):
        if other:
            yield Path(other)


def _remove(made: Path) -> None:
    shutil.rmtree(made, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders whose owners are gone."""
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or removed meanwhile
            if left.is_symlink() or left.stat().st_uid != os.getuid():
                continue
            if not (left / OWNER).exists():
                if time.time() - left.stat().st_mtime > NEW_S:
                    shutil.rmtree(left, ignore_errors=True)
                continue
            with (left / OWNER).open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
