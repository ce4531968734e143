"""One run at a time over a results folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderInUse(RuntimeError):
    """Another run works in the results folder; the message names it."""


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """An exclusive lock on the folder. The operating system frees it with its owner, however that ends."""
    with (results / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise FolderInUse(
                f"process {file.read().strip() or 'unknown'} is running trials in {results}; wait for it, or give "
                "another folder with --results"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
