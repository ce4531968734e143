"""Our results beside published ones: the trials that are missing are run, every claim is judged, and the table is shown."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from benchmarks.published import Claim, Finding, claims, judge, metric, trials
from benchmarks.records import Result, read_result, run_folder, write_atomically
from benchmarks.running import Narrowed, Options, complete
from benchmarks.tables import number
from benchmarks.trial import Device, resolve_device
from models.contract import Fit
from models.names import UnknownName
from models.registry import entry

PAGE = "verify.html"
PAGE_WIDTH = 150
"""Columns of the page: wide enough that no name is broken."""

COLOURS = {"reproduced": "green", "fails as published": "yellow", "not reproduced": "red", "not run": "dim"}
CAPTION = (
    "Published: (standard deviation over runs); ° second-hand, quoted by others and not read in the paper. Ours: mean over "
    "seeds ± half of the 95 % t interval; floor: a constant answer. First: the verdict on the first run that was kept; * "
    "settings were changed after it had been seen."
)
SIGNS = {"higher": "≥", "lower": "≤"}


def verify(task: str | None, device: str, options: Options, dry_run: bool = False) -> list[Finding] | None:
    """Runs what is missing for the claims about a task, or for all, judges them and writes the page; None for a dry run.

    What only a GPU can bear is run where ``device`` is one, and is otherwise shown as not run. Raises what
    `benchmarks.running.complete` raises, and UnknownName, with the nearest known one, for a task without a claim.
    """
    chosen, on = about(task), resolve_device(device)
    bearable = [claim for claim in chosen if claim.device in ("cpu", on)]
    for suite in dict.fromkeys(claim.suite for claim in bearable):
        tasks = list(dict.fromkeys(claim.task for claim in bearable if claim.suite == suite))
        complete(suite, on, options, Narrowed(tasks=tasks, dry_run=dry_run, report=False))
    if dry_run:
        return None
    found = [
        find(claim, on, options.results)
        if claim in bearable
        else Finding(claim, None, None, 0, "not run", "needs a GPU")
        for claim in chosen
    ]
    _write_page(found, options.results)
    return found


def about(task: str | None) -> list[Claim]:
    """The claims about a task, or all. Raises UnknownName for a task without any."""
    every = claims()
    if task is not None and task not in (known := {claim.task for claim in every}):
        raise UnknownName("task with a published result", task, known)
    return [claim for claim in every if task in (None, claim.task)]


def find(claim: Claim, device: Device, results: Path) -> Finding:
    """The verdict on a claim from what lies in the results folder."""
    ours = [read_result(run_folder(results, trial.id)) for trial in trials(claim, device)]
    return judge(claim, metric(claim).direction, ours)._replace(made=made(claim, ours))


def made(claim: Claim, results: Sequence[Result | None]) -> str:
    """How ours was made, as the records have it: seeds, size, steps, optimiser."""
    finished = [result for result in results if result is not None and result.parameters]
    if not finished:
        return ""
    size = finished[0].parameters.get("backbone", 0)
    parts = [f"{len(finished)} seed{'s' if len(finished) > 1 else ''}", f"{size:,} backbone parameters"]
    if entry(claim.model).fit is Fit.GRADIENT:
        fit = finished[0].spec["fit"]
        parts.append(f"{fit['n_steps']:,} steps of {fit['optimiser']} on batches of {fit['batch_size']}")
        is_chosen = fit["evaluate_every"] < fit["n_steps"]
        parts.append("checkpoint chosen on validation" if is_chosen else "the last checkpoint, none chosen")
    return ", ".join(parts)


def render(found: Sequence[Finding]) -> Group:
    """For a rich console: a row per claim, then what is different in ours, once for all rows that share it, and what was
    changed after a verdict."""
    table = Table(show_lines=True)
    for title in ("what", "published", "ours", "declared", "verdict"):
        table.add_column(title, no_wrap=title in ("what", "ours"), min_width=len("reproduced"), overflow="fold")
    notes: dict[str, int] = {}
    for finding in found:
        claim = finding.claim
        note = notes.setdefault(_note(finding), len(notes) + 1)
        verdict = "\n".join(filter(None, (finding.verdict, finding.reason, _first(claim), f"see {note}")))
        what = "\n".join(filter(None, (claim.task, claim.variant, f"{claim.model}, {claim.metric}")))
        row = (what, _published(claim), _ours(finding), _declared(claim))
        table.add_row(*map(Text, row), Text(verdict, COLOURS[finding.verdict]))
    numbered = (Text(f"{i}. {note}") for note, i in notes.items())
    changes = (Text(line) for line in _changes([finding.claim for finding in found]))
    return Group(table, Text(CAPTION), *numbered, *changes, Text(_total(found), "bold"))


def _total(found: Sequence[Finding]) -> str:
    """How many of the results that were run are reproduced; published failures are counted apart."""
    counts = Counter(finding.verdict for finding in found)
    run = Counter(finding.claim.rule == "fails within" for finding in found if finding.verdict != "not run")
    parts = [f"{counts['reproduced']} of {run[False]} published results reproduced"] if run[False] else []
    if run[True]:
        parts.append(f"{counts['fails as published']} of {run[True]} published failures fail as published")
    parts += [f"{counts[verdict]} {verdict}" for verdict in ("not reproduced", "not run") if counts[verdict]]
    return "; ".join(parts)


def _first(claim: Claim) -> str:
    """The verdict on the first run that was kept, and its value."""
    if not claim.first_verdict:
        return "first not kept *" if claim.changed else ""
    value = f" {claim.first}" if claim.first else ""
    return f"first{value}: {claim.first_verdict}{' *' if claim.changed else ''}"


def _changes(of: Sequence[Claim]) -> list[str]:
    """A line per suite and its tasks: whether settings were changed after a verdict had been seen, and which."""
    lines = []
    for suite in dict.fromkeys(claim.suite for claim in of):
        claims = [claim for claim in of if claim.suite == suite]
        named = f"{suite} ({', '.join(dict.fromkeys(claim.task for claim in claims))})"
        changed = [f"{claim.model} on {claim.title}, {claim.changed}" for claim in claims if claim.changed]
        if changed:
            lines.append(f"* {named}: changed after a verdict had been seen: {'. '.join(changed)}.")
        elif any(claim.first_verdict for claim in claims):
            lines.append(f"{named}: nothing was changed after a verdict had been seen.")
        else:
            lines.append(f"{named}: no run has been kept.")
    return lines


def _note(finding: Finding) -> str:
    claim = finding.claim
    ours = "; ".join(filter(None, (finding.made, claim.differences)))
    return f"Theirs: {claim.protocol}. Ours: {ours}. {claim.source}"


def _published(claim: Claim) -> str:
    spread = "" if claim.spread is None else f" ({claim.spread:.2g})"
    return number(claim.value) + spread + ("" if claim.status == "verified" else "°")


def _ours(finding: Finding) -> str:
    if finding.ours is None or finding.best is None:
        return "–"
    mean, low, high = finding.ours
    half = "" if math.isnan(low) else f" ± {(high - low) / 2:.2g}"
    floor = "" if finding.floor is None else f"\nfloor {number(finding.floor)}"
    return f"{number(mean)}{half}\nbest {number(finding.best)}\nn = {finding.n}{floor}"


def _declared(claim: Claim) -> str:
    """The rule as a reader takes it: "mean 7.90 … 8.30", "best ≥ 0.990"."""
    if claim.rule in ("mean within", "fails within"):
        fails = "fails, " if claim.rule == "fails within" else ""
        return f"{fails}mean {number(claim.value - claim.tolerance)} … {number(claim.value + claim.tolerance)}"
    direction = metric(claim).direction
    limit = claim.value - claim.tolerance if direction == "higher" else claim.value + claim.tolerance
    return f"{claim.rule.split()[0]} {SIGNS[direction]} {number(limit)}"


def _write_page(found: Sequence[Finding], results: Path) -> None:
    console = Console(record=True, width=PAGE_WIDTH, file=io.StringIO(), force_jupyter=False)
    console.print(render(found))
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / PAGE, console.export_html())
