"""Whether trials still do something: the processor time that their processes use.

A fit cannot be asked to give signs of life where the time goes by inside a library, but whatever computes, waits for a GPU or
sleeps for a moment uses some of a processor. What is stopped, deadlocked, or waits for a disk that is gone uses none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

WARN_S, STALL_S = 60.0, 300.0
"""Seconds without a sign of life after which a trial is called silent, and after which it is ended."""

LOOK_S = 5.0
"""How often to look, at most: it reads the whole table of processes."""

IDLE = 1e-3
"""The share of a processor that an idle kernel may use for its own sake."""


@dataclass
class Sign:
    """The last sign of life of one trial: processor seconds then, and when, on the monotonic clock."""

    processor_s: float = 0.0
    at: float = field(default_factory=time.monotonic)
    warned: bool = False

    def see(self, processor_s: float, now: float) -> float:
        """Seconds of silence so far."""
        if processor_s - self.processor_s > IDLE * (now - self.at) or processor_s < self.processor_s:
            self.processor_s, self.at, self.warned = processor_s, now, False
        return now - self.at


def processor_seconds(workers: Iterable[int]) -> dict[int, float]:
    """Worker's process id → user and system seconds of all that descends from it: its kernel, and what that has started."""
    used: dict[int, float] = {}
    parents: dict[int, int] = {}
    for process in psutil.process_iter(["ppid", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:  # a process that ended meanwhile
            used[process.pid], parents[process.pid] = times.user + times.system, process.info["ppid"]
    wanted = set(workers)
    found = dict.fromkeys(wanted, 0.0)
    for pid, seconds in used.items():
        ancestor = parents[pid]
        while ancestor not in wanted and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in wanted:
            found[ancestor] += seconds
    return found
