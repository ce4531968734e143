"""A run folder as bytes, so that it can travel from one machine to another without a shared disk."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.records import RESULT, Result, TornResult, read_result, run_folder


class Unusable(ValueError):
    """A packed run folder that must not become a result; the message says why."""


def pack(folder: Path) -> bytes:
    """The files of a run folder as a compressed tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as file:
        file.add(folder, arcname=".")
    return archive.getvalue()


def unpack(packed: bytes, results: Path, trial_id: str, check: Callable[[Result], None]) -> Result:
    """Puts a packed run folder in its place, whole or not at all, and returns the result that it holds.

    It is unpacked beside the run folders, its result checked, and then renamed; a folder that was there before is replaced.
    check: raises Unusable for a result that is not wanted. Raises Unusable also where the bytes hold no result of this trial
    that can be trusted.
    """
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=results) as beside:
        arrived = Path(beside) / trial_id  # a result knows the name of its folder
        arrived.mkdir()
        try:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as file:
                file.extractall(arrived, filter="data")  # nothing outside the folder, no links out of it
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise Unusable(f"the packed run folder is damaged: {error}") from error
        try:
            result = read_result(arrived)
        except TornResult as error:
            raise Unusable(f"a result arrived that cannot be trusted: {error}") from error
        if result is None:
            raise Unusable(f"the packed run folder holds no {RESULT}")
        check(result)
        target = run_folder(results, trial_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            (target / RESULT).unlink(missing_ok=True)
            shutil.rmtree(target)
        arrived.rename(target)
    return result
