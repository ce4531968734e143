"""The report of a suite: notebooks/report.ipynb executed over the records and exported as one offline HTML page."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tempfile
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from benchmarks import cost_tables, records, tables
from benchmarks.execution import fork_server
from benchmarks.trial import Trial
from benchmarks.tuned import Tuning

if TYPE_CHECKING:
    from benchmarks.report_sections import Study
    from benchmarks.suite import Suite

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "report.ipynb"
TIMEOUT_SECONDS = 300
"""Per cell: far more than any needs."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 78rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
p, li { max-width: 48rem; overflow-wrap: anywhere; } li { font-size: .9rem; }
nav { font-size: .9rem; max-width: 60rem; } nav a { margin-right: .9rem; display: inline-block; }
summary { cursor: pointer; color: #0b5394; margin: .5rem 0; max-width: 60rem; }
.wide, .output_png { overflow-x: auto; margin: 1rem 0; }
img { max-width: 100%; min-width: 42rem; height: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; }
td { min-width: 4.5rem; }
.best { font-weight: 700; } .worse, .none { color: #666; }
th { border-bottom: 2px solid #999; } tr > :first-child { position: sticky; left: 0; background: #fff; }
@media print { body { max-width: none; padding: 0; } img { min-width: 0; } .output_png, tr { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: .6rem; } tr > :first-child { position: static; }
  details::details-content { content-visibility: visible; display: block; } }
"""


def build(results: Path, suite: Suite, trials: list[Trial] | None = None) -> Path:
    """Writes results/<suite>/report.html, with table.csv and the executed report.ipynb; returns the page's path.

    trials: what the report is about, by default all trials of the suite; those without a result are shown as missing.
    """
    folder = results / suite.name
    folder.mkdir(parents=True, exist_ok=True)
    about = suite.trials() if trials is None else trials
    records.write_atomically(folder / "suite.json", _content(suite, about))
    tables.write_csv(tables.matrix(tables.frame(results, about)), folder / "table.csv")
    with tempfile.TemporaryDirectory() as scratch:
        executed = _execute(Path(scratch), results, suite.name, _kinds(about))
        records.write_atomically(folder / "report.html", to_html(executed, f"rnnbench: {suite.name}"))
        shutil.copyfile(executed, folder / "report.ipynb")
    return folder / "report.html"


def is_current(results: Path, suite: Suite, trials: list[Trial]) -> bool:
    """Whether report.html is about these trials and younger than every result that it shows."""
    page, about = results / suite.name / "report.html", results / suite.name / "suite.json"
    if not page.is_file() or not about.is_file() or about.read_bytes() != _content(suite, trials).encode():
        return False
    files = (records.run_folder(results, trial.id) / records.RESULT for trial in trials)
    return all(page.stat().st_mtime >= path.stat().st_mtime for path in files if path.exists())


def _content(suite: Suite, trials: list[Trial]) -> str:
    """suite.json: what a report is about."""
    return json.dumps(
        {
            **{"name": suite.name, "description": suite.description, "expected": suite.expected},
            **{"parameter_budget": suite.parameter_budget, "state_budget": suite.state_budget},
            "trials": [trial.specification for trial in trials],
            "tuned": asdict(suite.tuned) if suite.tuned else None,
        }
    )


def open_study(results: Path | str, suite: str) -> Study:
    """The suite as `build` recorded it in results/<suite>/suite.json, with the tables of its run folders."""
    from benchmarks.report_sections import Study  # with seaborn, which asking `is_current` need not wait for

    path = Path(results) / suite / "suite.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run `rnnbench report {suite}` once")
    content = json.loads(path.read_text())
    trials = TypeAdapter(list[Trial]).validate_python(content.pop("trials"))
    tuned = TypeAdapter(Tuning | None).validate_python(content.pop("tuned"))
    frame, timed = tables.frame(Path(results), trials), cost_tables.runs(Path(results), trials)
    judged = [trial for trial in trials if trial.mode != "timing"]
    made = {"results": Path(results), "trials": judged, "frame": frame, "matrix": tables.matrix(frame)}
    return Study(**content, **made, tuned=tuned, timed=timed)


def _kinds(trials: list[Trial]) -> set[str]:
    """What the trials tell of, of what cells of the notebook are tagged with: `quality`, `cost` over length."""
    kinds = {"quality"} if any(trial.mode != "timing" for trial in trials) else set()
    return kinds | ({"length"} if any(trial.timing.get("lengths") for trial in trials) else set())


def _execute(scratch: Path, results: Path, suite: str, kinds: set[str]) -> Path:
    """Without the sections that these kinds of trials have nothing for."""
    # Imported here: a run that builds no report need not wait for them.
    from benchmarks.execution.waiting_kernel import WaitingKernel, manager_class

    # A copy of this process has the results in memory already, and most of the imports.
    kernel = WaitingKernel(fork_server.may_copy())
    import nbformat
    import papermill

    executed = scratch / "report.ipynb"
    try:
        notebook = nbformat.read(NOTEBOOK, 4)
        silent = {"quality", "length"} - kinds
        notebook.cells = [cell for cell in notebook.cells if not silent.intersection(cell.metadata.get("tags", ()))]
        nbformat.write(notebook, executed)
        papermill.execute_notebook(
            str(executed).replace("{", "{{").replace("}", "}}"),  # papermill would fill in braces
            str(executed),
            parameters={"suite": suite, "results": str(results.resolve())},
            kernel_name="python3",
            cwd=str(scratch),
            progress_bar=False,
            request_save_on_cell_execute=False,  # nobody looks before the end, and pictures make it megabytes to write
            execution_timeout=TIMEOUT_SECONDS,
            kernel_manager_class=manager_class(kernel, scratch / "kernel.json"),
            shutdown_kernel="immediate",
        )
    finally:
        kernel.stop()
    return executed


def to_html(notebook: Path, title: str) -> str:
    """One page that needs no other file and no network: nbconvert's bare body, with contents, in a page with our own style."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_filename(str(notebook))
    headings = re.findall(r"<h2>(.*?)</h2>", body)
    numbered = itertools.count()
    body = re.sub("<h2>", lambda _: f'<h2 id="section-{next(numbered)}">', body)
    contents = " ".join(f'<a href="#section-{index}">{heading}</a>' for index, heading in enumerate(headings))
    body = body.replace("</h1>", f"</h1><nav>{contents}</nav>", 1)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )
