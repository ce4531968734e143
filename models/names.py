"""How a name that cannot be used is refused: an unknown one with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 100
"""Characters of a name that are compared and quoted; to compare takes time that grows with their square."""


class UnknownName(ValueError):
    """A name that is not known; the message names the nearest one that is."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        choices = {choice.casefold(): choice for choice in sorted(known)}
        written = str(name)
        name = name if len(written) <= LONGEST else f"{written[:LONGEST]}…"
        near = difflib.get_close_matches(written[:LONGEST].casefold(), choices, n=1, cutoff=0.5)
        hint = f"did you mean {choices[near[0]]!r}?" if near else f"known: {', '.join(choices.values())}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class BrokenPlugin(ValueError):
    """A package's entry point that does not load, or that takes another's name; the message names it."""
