"""How much memory a trial may take, and whether the system has killed processes because its memory ran out."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import psutil

COUNTERS = tuple(
    map(Path, ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat"))
)
"""Where Linux counts such kills: of this container or service where there is one, else of the whole machine."""


def oom_kills() -> int:
    """How many there were so far; 0 where nobody counts."""
    for path in COUNTERS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


LIMITS = tuple(map(Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")))
"""What this container or service may use, if that is limited."""

TRIALS_PART = 0.9
"""Of the machine's memory; the rest is for the coordinator, its helpers and the system."""


def machine_bytes() -> int:
    """Of memory that this process and its children may use together."""
    total = psutil.virtual_memory().total
    for path in LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            total = min(total, int(path.read_text()))
    return total


def share_bytes(n_places: int) -> int:
    """Of memory for each of so many trials at a time."""
    return int(TRIALS_PART * machine_bytes()) // n_places


def address_space_limit() -> int | None:
    """Bytes, None where there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def preferred_victim() -> None:
    """Where memory runs out all the same, Linux is to kill this process rather than the coordinator."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
