"""Text from elsewhere, made safe to show: without control characters, which a terminal would obey, and of bounded length."""

from __future__ import annotations

LONGEST = 2_000
"""Characters of a reason or message; the whole of it is in the trial's notebook and log."""


def plain(text: str, longest: int = LONGEST) -> str:
    """The text, `shortened`, with U+FFFD for each character that cannot be printed, line breaks and tabs excepted."""
    text = shortened(text, longest)
    return "".join(x if x.isprintable() or x in "\n\t" else "\N{REPLACEMENT CHARACTER}" for x in text)


def shortened(text: str, longest: int) -> str:
    """The text in at most ``longest`` characters, 40 or more: its beginning and its end, and between them how many are
    missing."""
    if len(text) <= longest:
        return text
    kept = longest - 40
    tail = kept // 4
    return f"{text[: kept - tail]} … {len(text) - kept:,} characters … {text[len(text) - tail :]}"
