"""Standard output that cannot be written must not stop a run, and must not be taken for a results folder that cannot."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


class _Forgiving(io.FileIO):
    """A stream that takes everything once it can pass on nothing. failure: the first error."""

    failure: OSError | None = None

    def write(self, content: Any) -> int:
        """All of ``content`` counts as written after a failure."""
        if self.failure is None:
            try:
                return super().write(content) or 0
            except OSError as error:
                self.failure = error
        return memoryview(content).nbytes


class StandardOutput:
    """In the place of `sys.stdout`, unless somebody, such as a test, has replaced that already."""

    def __init__(self) -> None:
        self._raw: _Forgiving | None = None
        stream = sys.__stdout__
        if stream is None or sys.stdout is not stream:
            return
        self._raw = _Forgiving(os.dup(stream.fileno()), "w")
        self._stream = sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(self._raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=self._raw.isatty(),
            write_through=True,
        )

    def failure(self) -> str | None:
        """What kept output from being written, in one sentence; None also for a reader that has seen enough, such as head."""
        if self._raw is None:
            return None
        self._stream.flush()
        failure = self._raw.failure
        if failure is None or failure.errno == errno.EPIPE:
            return None
        return f"standard output could not be written: {failure.strerror or failure}; all else was done, and results are safe"
