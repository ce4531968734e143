"""Ties a process's life to its parent's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

COORDINATOR = "RNNBENCH_COORDINATOR"
"""Environment variable that tells the fork server whose child it is."""

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Linux kills this process, hanging or not, once the thread that started it is gone; other systems cannot.

    parent: its process id; should it be gone already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def name_process(name: str) -> None:
    """What top and ps call this process, at most 15 bytes; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def adopt_orphans() -> None:
    """From now on what this process's descendants leave behind when they end becomes a child of this process, not of init;
    on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
