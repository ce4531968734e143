"""The processes of a trial, wherever they went: a child that leaves the process group and the session is still a descendant.

On Linux a worker adopts what its descendants leave behind (`lifeline.adopt_orphans`), and so does the fork server for a worker
that was killed, so the tree below them is complete.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.execution.lifeline import COORDINATOR

ROUNDS = 20
"""How often to look again for processes that were forked while others were being killed."""


class Process(NamedTuple):
    """resident_bytes: what is shared with other processes included."""

    parent: int
    resident_bytes: int


def snapshot() -> dict[int, Process]:
    """Process id → process, of all that have not ended."""
    if sys.platform != "linux":
        attributes = ["ppid", "memory_info"]
        return {
            process.pid: Process(process.info["ppid"], process.info["memory_info"].rss)
            for process in psutil.process_iter(attributes)
            if process.info["memory_info"] is not None
        }
    page = os.sysconf("SC_PAGE_SIZE")
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  a few ms for hundreds of processes; psutil takes ten times as long
        if name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    found[int(name)] = Process(int(fields[1]), int(fields[21]) * page)
    return found


def parent_of(pid: int) -> int | None:
    """The parent of a process, None for one that has ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return None


def descendants(pid: int, processes: Mapping[int, Process]) -> list[int]:
    """All that descend from a process, itself left out."""
    children: dict[int, list[int]] = {}
    for child, process in processes.items():
        children.setdefault(process.parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end_descendants(pid: int, spared: Container[int] = ()) -> None:
    """Kills all that descend from a process, what they fork meanwhile included. spared: children that may go on.

    A process that changes its parent while the snapshot is taken can be missed, so it ends with two looks that find nothing.
    """
    quiet = 0
    for _ in range(ROUNDS):
        processes = snapshot()
        living = descendants(pid, {child: x for child, x in processes.items() if child not in spared})
        quiet = 0 if living else quiet + 1
        if quiet == 2:
            return
        end(living)
        time.sleep(0.01)


def end(pids: Iterable[int]) -> None:
    """Kills processes, except those that have ended meanwhile."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def private_bytes(pids: Iterable[int]) -> int:
    """Memory that belongs to these processes alone: copies of one process share most of theirs. Reads page tables, which takes
    milliseconds per process."""
    total = 0
    for pid in pids:
        with suppress(psutil.Error, OSError):
            total += psutil.Process(pid).memory_full_info().uss
    return total


def end_abandoned() -> int:
    """Kills what trials of coordinators that are gone have left, known by its environment; how many processes there were."""
    if sys.platform != "linux":
        return 0
    abandoned = [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_abandoned(name)]  # noqa: PTH208
    end(abandoned)
    return len(abandoned)


def _is_abandoned(pid: str) -> bool:
    process = Path("/proc", pid)
    try:
        if process.stat().st_uid != os.getuid() or int(pid) == os.getpid():
            return False
        marked = [
            x for x in (process / "environ").read_bytes().split(b"\0") if x.startswith(f"{COORDINATOR}=".encode())
        ]
        # A process of another container counts its processes from 1 on, and is not for us to judge.
        if not marked or (process / "ns/pid").readlink() != Path("/proc/self/ns/pid").readlink():
            return False
        coordinator = int(marked[0].partition(b"=")[2])
        begun = psutil.Process(int(pid)).create_time()
        return not psutil.pid_exists(coordinator) or psutil.Process(coordinator).create_time() > begun + 1.0
    except (OSError, ValueError, psutil.Error):
        return False
