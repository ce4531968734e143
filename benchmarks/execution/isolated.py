"""Work in a copy of this process: whatever it does, this process goes on, and no copy outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.execution import fork_server
from benchmarks.execution.lifeline import die_with_parent, name_process

T = TypeVar("T")


class Ended(RuntimeError):
    """The work raised, or its process ended without an answer; the message says how."""


def isolated(work: Callable[[], T], name: str) -> T:
    """What ``work`` returns. Where this process cannot be copied, it does the work itself. name: of the copy, at most 15 bytes.

    Raises Ended.
    """
    if not fork_server.may_copy():
        try:
            return work()
        except (Exception, SystemExit) as error:
            raise Ended(_told(error)) from error
    # Not a Pool, which waits for ever for a process that was killed, and whose queues need a /dev/shm that can be written.
    context: Any = multiprocessing.get_context("fork")
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, name, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    try:
        failure, answer = answers.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        raise Ended(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None
    finally:
        answers.close()
        process.kill()
        process.join()
    if failure is not None:
        raise Ended(failure)
    return answer


def _answer(work: Callable[[], object], name: str, answers: Connection, parent: int) -> None:
    name_process(name)
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches this process too, and has nothing to say here
    try:
        answers.send((None, work()))
    # All that the work may raise is an answer.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        answers.send((_told(error), None))


def _told(error: BaseException) -> str:
    """Class and message, on one line and short."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
