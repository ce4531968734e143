"""Stand-ins for worker processes that have written an invented result as soon as they are started.

What a run costs its coordinator, trial by trial, shows within seconds this way, and a suite of thousands ends within a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from synthetic_runs import write_run

from benchmarks.execution.worker import Job

NOBODY = 2**31 - 1
"""The number of no process: a signal to it finds none."""


class InstantWorker:
    """What the supervisor asks of a process. seconds_inside: of this thread, spent by all of them, not by the supervisor."""

    exitcode = 0
    pid = NOBODY
    seconds_inside = 0.0

    def __init__(self, target: Callable[[Job], None], args: tuple[Job]) -> None:
        (self.job,) = args
        self.sentinel, writing = os.pipe()
        os.close(writing)  # a pipe that nobody writes to is ready at once, like a process that has ended

    def start(self) -> None:
        started = time.thread_time()
        write_run(self.job.folder.parents[1], self.job.trial, n_validations=20)
        InstantWorker.seconds_inside += time.thread_time() - started

    def kill(self) -> None:
        """It has ended."""

    def join(self) -> None:
        """It has ended."""

    def __del__(self) -> None:
        os.close(self.sentinel)


class InstantContext:
    """In the place of a context of `multiprocessing`."""

    Process: Any = InstantWorker
