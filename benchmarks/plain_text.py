"""Text from elsewhere, made safe to show: without control characters, which a terminal would obey, and of bounded length."""

from __future__ import annotations

LONGEST = 2_000
"""Characters of a reason or message; the whole of it is in the trial's notebook and log."""


def plain(text: str, longest: int = LONGEST) -> str:
    """The text with U+FFFD for each character that cannot be printed, line breaks and tabs excepted. Of a longer text the
    first three quarters and the last are kept, and how much is missing is said between them."""
    if len(text) > longest:
        head, tail = longest - longest // 4, longest // 4
        text = f"{text[:head]} … {len(text) - longest:,} characters … {text[-tail:]}"
    return "".join(x if x.isprintable() or x in "\n\t" else "\N{REPLACEMENT CHARACTER}" for x in text)
