"""What the report says of trials that failed: each with its reason, what it had reached, and its notebook."""

from __future__ import annotations

from html import escape

import pandas as pd

from benchmarks import records
from benchmarks.records import FAILED
from benchmarks.report_sections import Html, Study, paragraphs, table
from benchmarks.tables import number

MOST = 50
"""Rows that are shown: a fault of the machine can fail thousands of trials alike."""


def failures(study: Study) -> Html | None:
    """The section with its heading; None where nothing failed."""
    columns = ["trial_id", "task", "model", "status", "reason"]
    parts = [part[[*columns, seed]].rename(columns={seed: "seed"}) for part, seed in _parts(study) if len(part)]
    failed = pd.concat(parts) if parts else pd.DataFrame(columns=[*columns, "seed"])
    failed = failed[failed["status"].isin(FAILED)]
    if failed.empty:
        return None
    rows = [
        (row.task, row.model, row.seed, row.status, row.reason, *_left(study, str(row.trial_id)))
        for row in failed.head(MOST).itertuples()
    ]
    more = f" The first {MOST} of {len(failed)} are listed." if len(failed) > MOST else ""
    told = (
        "What a trial had reached, its best validation so far, is kept apart and enters no mean: it counts as failed. Links "
        f"work where this page lies in its results folder. To try them again: the same command with --retry-failed.{more}"
    )
    body = table(("task", "model", "seed", "status", "reason", "reached on validation", "notebook"), rows)
    return Html(f"<h2>Failures</h2>{body.text}{paragraphs([told]).text}")


def _parts(study: Study) -> list[tuple[pd.DataFrame, str]]:
    return [(study.frame, "seed"), (study.timed, "process")]


def _left(study: Study, trial_id: str) -> tuple[str, Html | str]:
    """The best validation of a failed trial with its step, and a link to its notebook."""
    folder = records.run_folder(study.results, trial_id)
    try:
        result = records.read_result(folder)
    except records.TornResult:
        result = None
    best = result.best_before if result else {}
    reached = f"{number(best['validation'])} at step {best['step']:.0f}" if "validation" in best else "–"
    if not (folder / "notebook.ipynb").exists():
        return reached, "–"
    return reached, Html(f'<a href="../runs/{escape(trial_id)}/notebook.ipynb">{escape(trial_id)}</a>')
