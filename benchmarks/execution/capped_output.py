"""What a notebook may print: up to a cap, at the source, so that no process has to hold more."""

from __future__ import annotations

from ipykernel.iostream import OutStream

CAP = 1_000_000
"""Characters of each stream, standard output and standard error, of one trial."""

MARKER = f"\n[rnnbench: what was printed beyond {CAP:,} characters is left out]\n"


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
