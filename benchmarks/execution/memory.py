"""Whether the system has killed processes because its memory ran out."""

from __future__ import annotations

from pathlib import Path

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
