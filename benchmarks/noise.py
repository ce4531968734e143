"""What else went on while a clock ran: other work on the cores, throttling, another process on the GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

SCHEDULED = Path("/proc/self/schedstat")
"""Nanoseconds run, nanoseconds ready but waiting for a core, time slices: of the main thread."""
CGROUP = Path("/sys/fs/cgroup/cpu.stat")
CORES = Path("/sys/devices/system/cpu")
WAITED = 0.02
"""Share of the time spent waiting for a core above which it is called noise."""


class Noise:
    """Watches from its creation on; `warnings` says in words what speaks against a time taken meanwhile."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.started = time.perf_counter()
        self.waited = _waited_s()
        self.throttled = _throttled()

    def warnings(self) -> list[str]:
        """Empty where nothing was seen. What the system does not show is not said."""
        found = []
        cores = os.cpu_count() or 1
        waited, elapsed = _waited_s(), time.perf_counter() - self.started
        if waited is not None and self.waited is not None:
            share = (waited - self.waited) / elapsed
            if share > WAITED:
                found.append(f"more work than {cores} cores: it waited for one {share:.0%} of the time")
        elif os.getloadavg()[0] > cores:
            found.append(f"more work than {cores} cores: the load was {os.getloadavg()[0]:.1f}")
        if _throttled() > self.throttled:
            found.append("the processor was throttled meanwhile")
        if self.device == "cuda" and (others := _others_on_gpu()):
            found.append(f"{others} other process{'es' * (others > 1)} on the GPU")
        return found


def _waited_s() -> float | None:
    """Seconds that this process was ready to run and another was running; None where the system does not tell."""
    return int(SCHEDULED.read_text().split()[1]) / 1e9 if SCHEDULED.exists() else None


def _throttled() -> int:
    """How often the processor, for its heat, or this container, for its quota, has been slowed down; 0 where unknown."""
    counts = [int(path.read_text()) for path in CORES.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    if CGROUP.exists():
        fields = dict(line.split() for line in CGROUP.read_text().splitlines())
        counts.append(int(fields.get("nr_throttled", 0)))
    return sum(counts)


def _others_on_gpu() -> int:
    """Computing processes on the GPUs beside this one, by the driver's own tool; 0 where it is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    query = [tool, "--query-compute-apps=pid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    # Inside a container process numbers are not the driver's: then this process is one of those listed.
    return len([pid for pid in listed if pid != str(os.getpid())]) - (str(os.getpid()) not in listed and bool(listed))
