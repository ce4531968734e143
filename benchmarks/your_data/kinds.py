"""What is asked of a file: classes, tags, numbers, forecasts or the next symbol; and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from benchmarks.your_data.recording import Recording, bad, one_line, sequence_numbers
from models.sequences import Scope

Kind = Literal["classification", "tagging", "regression", "forecasting", "next_symbol"]
KINDS: tuple[str, ...] = get_args(Kind)

SEQUENCE_TO_SEQUENCE = ("sequence_to_sequence", "seq2seq", "translation", "transduction", "transcription")
"""What users call the kind of question that is not supported."""
FEW_VALUES = 20
"""Different whole numbers up to which they are taken for classes."""
MOST_CLASSES = 500


@dataclass(frozen=True)
class Question:
    """kind: what is asked. scope: one answer per sequence or per step. why: the reason, for people. horizon: steps to
    forecast."""

    kind: Kind
    scope: Scope
    why: str
    horizon: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case "classification":
                return "classification: a class per sequence"
            case "tagging":
                return "tagging: a class per step"
            case "regression":
                return f"regression: a number per {self.scope}"
            case "forecasting":
                return (
                    f"forecasting: the next {self.horizon} steps" if self.horizon != 1 else "forecasting: the next step"
                )
            case "next_symbol":
                return "next symbol: each from those before it"


def question(recording: Recording, kind: str = "auto", horizon: int | None = None) -> Question:
    """Raises BadInput where the target cannot answer what is asked."""
    if kind.replace("-", "_").lower() in SEQUENCE_TO_SEQUENCE:
        raise bad(
            recording.file,
            "sequence to sequence (an answer of its own length) is not supported; a class or a number per step, "
            "--kind tagging or regression, is",
        )
    if kind not in ("auto", *KINDS):
        raise bad(recording.file, f"--kind {one_line(kind)!r} is unknown; known are auto, {', '.join(KINDS)}")
    if horizon is not None and horizon < 1:
        raise bad(recording.file, f"--horizon must be at least 1, got {horizon}")
    if horizon is not None and kind not in ("auto", "forecasting"):
        raise bad(recording.file, f"--horizon is for forecasting, not for {kind}")
    assert recording.target is not None
    values = recording.frame[recording.target]
    _require_known(recording, values)
    chosen, why = _chosen(recording, values, kind, horizon)
    varying = _first_change(recording, values)
    if chosen == "classification" and varying is not None:
        name = recording.sequence or "the whole table"
        raise recording.bad(
            f"the class changes within its sequence ({one_line(name)}); use --kind tagging for a class per step",
            recording.target,
            varying,
        )
    per_step = chosen in ("tagging", "next_symbol") or (chosen == "regression" and varying is not None)
    if chosen in ("regression", "forecasting"):
        _require_numbers(recording, values, chosen)
    else:
        _require_classes(recording, values, chosen)
    return Question(
        chosen, "step" if per_step else "sequence", why, (horizon or 1) if chosen == "forecasting" else None
    )


def _chosen(recording: Recording, values: pd.Series, kind: str, horizon: int | None) -> tuple[Kind, str]:
    """The kind and the reason for it."""
    target = f"target {one_line(str(recording.target))!r}"
    if kind != "auto":
        return kind, "as --kind says"  # type: ignore[return-value]
    if horizon is not None:
        return "forecasting", "--horizon was given"
    inputs = recording.inputs
    is_class, holds = _looks_like_classes(values)
    if _is_series(recording, values, bool(inputs)):
        return "forecasting", (
            f"the rows are one series in the order of {one_line(str(recording.time))!r}, and {target} holds numbers"
            + (
                " (to predict each from the other columns of its row, give --kind regression or tagging)"
                if inputs
                else ""
            )
        )
    if is_class and not inputs:
        return "next_symbol", f"{target} holds {holds}, and there is no other column to predict it from"
    if not is_class and not inputs:
        return "forecasting", f"{target} holds {holds}, and there is no other column to predict it from"
    changes = _first_change(recording, values) is not None
    within = "changes within sequences" if changes else "is constant within each sequence"
    if recording.sequence is None:
        within = "changes from row to row, which are one sequence (name a column with --sequence-id if they are not)"
    if is_class:
        return "tagging" if changes else "classification", f"{target} holds {holds} and {within}"
    return "regression", f"{target} holds {holds} and {within}; to forecast it, give --horizon"


def _is_series(recording: Recording, values: pd.Series, has_inputs: bool) -> bool:
    """Whether the table is one series of numbers in order of time; two values beside other columns are a state."""
    is_one = recording.sequence is None and recording.time is not None
    return is_one and pd.api.types.is_numeric_dtype(values) and (values.nunique() > 2 or not has_inputs)


def _looks_like_classes(values: pd.Series) -> tuple[bool, str]:
    """And what it holds, in words."""
    known = values.dropna()
    n = known.nunique()
    if not pd.api.types.is_numeric_dtype(values):
        return True, f"text of {n:,} kinds"
    is_whole = bool((known == known.round()).all())
    if is_whole and n <= FEW_VALUES and n < len(known):
        return True, f"{n} different whole numbers"
    return False, f"{n:,} different numbers"


def _first_change(recording: Recording, values: pd.Series) -> int | None:
    """The first row whose target differs from the one before it in its sequence, missing ones aside."""
    codes = pd.factorize(values)[0]  # -1: missing
    known = np.flatnonzero(codes >= 0)
    number = sequence_numbers(recording.frame, recording.sequence)[known]
    changed = (codes[known][1:] != codes[known][:-1]) & (number[1:] == number[:-1])
    return int(known[1:][changed][0]) if changed.any() else None


def _require_known(recording: Recording, values: pd.Series) -> None:
    if not values.notna().any():
        raise recording.bad("the target is missing in every row", recording.target)
    if values.nunique() < 2:
        shown = one_line(str(values.dropna().iloc[0]))[:40]
        raise recording.bad(f"the target is {shown!r} everywhere: there is nothing to learn", recording.target)


def _require_numbers(recording: Recording, values: pd.Series, kind: str) -> None:
    if not pd.api.types.is_numeric_dtype(values):
        row = int(np.flatnonzero(values.notna())[0])
        shown = one_line(str(values.iloc[row]))[:40]
        raise recording.bad(f"{kind} needs numbers, and this is {shown!r}", recording.target, row)
    wrong = np.isinf(values.to_numpy(dtype=float))
    if wrong.any():
        raise recording.bad("the target is infinite", recording.target, int(np.flatnonzero(wrong)[0]))


def _require_classes(recording: Recording, values: pd.Series, kind: str) -> None:
    if pd.api.types.is_datetime64_any_dtype(values):
        raise recording.bad("the target holds dates, which are neither classes nor numbers", recording.target)
    n = values.nunique()
    if kind == "classification" and _are_phrases(recording, values, n):
        raise recording.bad(
            "the target is a text of several words per sequence: sequence to sequence is not supported; name a column of "
            "classes or of numbers",
            recording.target,
        )
    if n > MOST_CLASSES and kind != "next_symbol":
        hint = "; use --kind regression" if pd.api.types.is_numeric_dtype(values) else ""
        raise recording.bad(
            f"{kind} with {n:,} classes is not supported: at most {MOST_CLASSES} are{hint}", recording.target
        )


def _are_phrases(recording: Recording, values: pd.Series, n: int) -> bool:
    """Whether the target is text with blanks in it, and mostly another one for each sequence."""
    if pd.api.types.is_numeric_dtype(values):
        return False
    n_sequences = int(sequence_numbers(recording.frame, recording.sequence)[-1]) + 1
    texts = pd.Series(values.dropna().unique().astype(str))
    return n > max(n_sequences / 2, FEW_VALUES) and bool(texts.str.strip().str.contains(r"\s").mean() > 0.5)
