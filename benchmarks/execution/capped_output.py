"""What a trial may print, log and raise: up to a cap, at the source, so that no process has to hold more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell

from benchmarks.plain_text import shortened

CAP = 1_000_000
"""Characters of each stream, standard output and standard error, of one trial; and bytes of its stderr.log."""

MARKER = f"\n[rnnbench: what was printed beyond {CAP:,} characters is left out]\n"

LONGEST_MESSAGE = 10_000
"""Characters of an exception's message."""
LONGEST_TRACEBACK = 100_000

TAIL = 16_384
"""Bytes of the end of a log beyond its cap that are kept: a crash reports itself last."""
PIPE = 2**20
"""Bytes that a pipe holds at most, for a process without privileges."""


class CappedStream(OutStream):
    """A kernel's stream that falls silent at the cap, and says so once. What libraries write to the file descriptor comes
    through here too."""

    _left = CAP

    def write(self, string: str) -> int | None:  # type: ignore[override]
        """The number of characters taken from the writer, for whom nothing changes at the cap."""
        if self._left <= 0:
            return len(string)
        kept = string[: self._left]
        self._left -= len(kept)
        super().write(kept if self._left > 0 else kept + MARKER)
        return len(string)


class CappedLog:
    """A file that a kernel and its children write to through their descriptors 1 and 2, up to a cap.

    The descriptors are a pipe, for nothing else bounds what a library writes. A thread of the worker empties it, which `start`
    begins once the kernel has been copied from a process with one thread.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._source, self._target = os.pipe()
        os.set_blocking(self._source, False)
        self._lock = threading.Lock()
        self._left = CAP
        self._tail = b""

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """Processes that start inside write here. This one's descriptors are as before afterwards."""
        before = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(self._target, stream)
        os.close(self._target)
        try:
            yield
        finally:
            for stream, descriptor in zip((1, 2), before, strict=True):
                os.dup2(descriptor, stream)
                os.close(descriptor)

    def start(self) -> None:
        threading.Thread(target=self._empty, daemon=True).start()

    def finish(self) -> None:
        """Returns once all that was written before is in the file, the end of what is beyond the cap included."""
        self._move()
        with self._lock:
            tail, self._tail = self._tail, b""
            self._write(tail)

    def _empty(self) -> None:
        while True:
            wait([self._source])
            if not self._move():
                return

    def _move(self) -> bool:
        """Takes what the pipe holds; whether anybody can still write to it."""
        with self._lock:
            try:
                piece = os.read(self._source, PIPE)
            except BlockingIOError:
                return True
            kept, beyond = piece[: self._left], piece[self._left :]
            if kept:
                self._left -= len(kept)
                self._write(kept if self._left else kept + MARKER.encode())
            self._tail = (self._tail + beyond)[-TAIL:]
            return bool(piece)

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:  # a full disk; it ends the trial where its results are written, and must not block the writers
            self._left = 0


class CappedShell(ZMQInteractiveShell):
    """IPython's shell, whose reports of exceptions are bounded: to format a message of 50 MB takes minutes in each process that
    it passes through."""

    def _get_exc_info(self, exc_tuple: Any = None) -> tuple[type[BaseException], BaseException, TracebackType | None]:
        kind, error, traceback = super()._get_exc_info(exc_tuple)
        is_long = any(len(str(one)) > LONGEST_MESSAGE for one in _chain(error))
        return (kind, _stand_in(error), traceback) if is_long else (kind, error, traceback)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: Sequence[str]) -> None:
        lines = "\n".join(stb)
        bounded = list(stb) if len(lines) <= LONGEST_TRACEBACK else [shortened(lines, LONGEST_TRACEBACK)]
        super()._showtraceback(etype, shortened(str(evalue), LONGEST_MESSAGE), bounded)


class CappedKernel(IPythonKernel):
    """ipykernel's kernel with a `CappedShell`; its replies are bounded too."""

    shell_class = CappedShell

    async def do_execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        reply = await super().do_execute(*args, **kwargs)
        return reply | {"evalue": shortened(reply["evalue"], LONGEST_MESSAGE)} if "evalue" in reply else reply


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and those that it came from, the last first."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    return chain


def _stand_in(error: BaseException) -> BaseException:
    """An exception of the same name with the same traceback and a bounded message, without those that it came from."""
    name = type(error).__name__
    return type(name, (Exception,), {})(shortened(str(error), LONGEST_MESSAGE)).with_traceback(error.__traceback__)
