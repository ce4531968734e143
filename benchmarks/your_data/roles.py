"""What the user says about the columns of a file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roles:
    """What the user says about the columns, and how to read them.

    target: to be predicted. sequence_id: names a row's sequence; several columns are one key. group: sequences of one group
    stay in one split. time: orders a sequence's rows. split: train, validation or test. ignore: no inputs. missing: values
    that stand for a missing one, as written in the file. wide: each row is a sequence. channels_first: X is (N, C, T).
    across_gaps: windows may run across gaps in time. end: a sequence ends with a symbol of its own.
    """

    target: str | None = None
    sequence_id: tuple[str, ...] | str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wide: bool = False
    channels_first: bool = False
    across_gaps: bool = False
    end: bool = False

    def __post_init__(self) -> None:
        if (
            isinstance(self.sequence_id, tuple) and len(self.sequence_id) < 2
        ):  # one column is the same key in either form
            object.__setattr__(self, "sequence_id", self.sequence_id[0] if self.sequence_id else None)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that together name a row's sequence."""
        if self.sequence_id is None:
            return ()
        return (self.sequence_id,) if isinstance(self.sequence_id, str) else self.sequence_id

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Each option and a column that it names."""
        keys = [("--sequence-id", column) for column in self.keys]
        others = [("--group", self.group), ("--time", self.time), ("--split", self.split)]
        named = [("--target", self.target), *keys, *others]
        return tuple((option, column) for option, column in named if column is not None)
