"""The process that workers are forked from: it has done the imports, runs nothing, and has one thread."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

from benchmarks.execution.lifeline import COORDINATOR
from benchmarks.execution.scratch import keep_sockets_short

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


def is_available() -> bool:
    """Whether to fork where nobody says. macOS has fork, but its system libraries do not survive it."""
    return sys.platform == "linux"


def may_copy() -> bool:
    """Whether this process itself may be forked: a copy has no other thread, and waits for ever for what those held."""
    return is_available() and threading.active_count() == 1


def context(forked: bool) -> BaseContext:
    """Workers come from the fork server; where forking is unsafe each imports for itself."""
    if not forked:
        return multiprocessing.get_context("spawn")
    keep_sockets_short()
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["benchmarks.execution.preload"])
    return made


@contextmanager
def main_hidden() -> Iterator[None]:
    """Around the start of a process that would otherwise run the main module anew: the whole command line, or somebody's
    script."""
    main = sys.modules["__main__"].__dict__
    known: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.update(dict.fromkeys(known))
    try:
        yield
    finally:
        main.update(known)


@contextmanager
def environment() -> Iterator[None]:
    """Around the start of a worker: the server starts with the first one, and takes its environment from here."""
    values = {**ONE_THREAD, COORDINATOR: str(os.getpid())}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        with main_hidden():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
