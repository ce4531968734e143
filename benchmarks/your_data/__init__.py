"""A person's own file compared like any task: ``from benchmarks.your_data import compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.your_data.comparing import Comparison


def compare(file: str | Path, target: str | None = None, **options: Any) -> Comparison:
    """See `benchmarks.your_data.comparing.compare`, which imports what runs trials; reading a file need not."""
    from benchmarks.your_data.comparing import compare as run

    return run(file, target, **options)
