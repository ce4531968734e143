"""Which columns together name a sequence, where an id is used again in another group."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from benchmarks.your_data.recording import Recording, one_line


def with_group_in_key(recording: Recording) -> Recording:
    """Trial 1 of one subject is not trial 1 of another: group and sequence id are the key if an id occurs in several groups."""
    sequence, group, frame = recording.sequence, recording.group, recording.frame
    if group is None:
        return recording
    if sequence is None:
        made = replace(recording, sequence=group)
        return made.remarked(
            f"each value of {one_line(group)} is read as one sequence; --sequence-id names shorter ones"
        )
    ids, groups = pd.factorize(frame[sequence])[0], pd.factorize(frame[group])[0]
    pairs = pd.DataFrame({"id": ids, "group": groups})[(ids >= 0) & (groups >= 0)].drop_duplicates()
    n_shared = int((pairs["id"].value_counts() > 1).sum())
    if not n_shared:
        return recording
    # Codes, not joined texts: "a" and "b c" must differ from "a b" and "c".
    codes = pd.Series(pd.factorize(pd.Series(list(zip(groups, ids, strict=True))))[0], index=frame.index)
    key = f"{group}, {sequence}"
    while key in frame.columns:
        key += "'"
    made = replace(
        recording,
        # A row without a group or an id keeps none, so that it is refused like any other.
        frame=frame.assign(**{key: codes.where((ids >= 0) & (groups >= 0))}),
        sequence=key,
        ignored=(*recording.ignored, sequence),
    )
    return made.remarked(
        f"{one_line(group)} and {one_line(sequence)} together name a sequence, because {n_shared:,} values of "
        f"{one_line(sequence)} occur in several groups"
    )
