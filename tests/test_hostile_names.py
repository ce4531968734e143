"""Names made to do harm, of models, suites, files and columns: refused, or shown as they are; no path leaves the results."""

from __future__ import annotations

import dataclasses
import io
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from synthetic_runs import trials, write_failure, write_run

from benchmarks import __main__ as command_line
from benchmarks import tables
from benchmarks.execution.display import Progress, closing_table
from benchmarks.parameters import InvalidParameter
from benchmarks.records import Status, run_folder
from benchmarks.suite import load
from benchmarks.your_data.comparing import Comparison, _name
from benchmarks.your_data.reading import Source
from benchmarks.your_data.recording import bad
from models import registry

HTML = "<script>alert('x')</script>"
MARKUP = "[red]x[/red] [/] [link=http://evil.example]y[/link]"
PATHS = ("../up", "/etc/passwd", "a/b", "..", ".", "a\\b", "C:", "~", "$HOME", "")
names = st.one_of(
    st.text(max_size=30), st.sampled_from([HTML, MARKUP, *PATHS, "é😀", "\x1b[31m", "a\nb", "\0", "a" * 999])
)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch):
    """Registers the floor once more, under another name, as a package elsewhere would."""

    def install(name: str) -> None:
        entry = dataclasses.replace(registry.ENTRIES[-1], name=name)
        point = EntryPoint("other", "other:ENTRY", "rnnbench.models")
        monkeypatch.setattr(EntryPoint, "load", lambda self: entry)
        monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([point]))
        registry.entries.cache_clear()

    yield install
    registry.entries.cache_clear()


@pytest.mark.parametrize(
    "name", [HTML, MARKUP, *PATHS, "a b", "a,b", "$x$", "a\nb", "\x1b[31m", "-rf", "ünicode", "a.", "lstm\n"]
)
def test_a_model_of_such_a_name_is_not_registered(plugin, name: str) -> None:
    plugin(name)
    assert name not in registry.entries()
    reason = registry.entry("other").summary
    assert "a name is made of letters, digits, and" in reason and reason.isprintable()


def test_every_model_of_the_project_has_a_name_that_a_plug_in_may_have(plugin) -> None:
    assert all(re.fullmatch(registry.NAME, entry.name) for entry in registry.ENTRIES)
    plugin("my-model_2.0")
    assert "my-model_2.0" in registry.entries()


@given(names)
def test_a_suites_folder_is_one_folder_of_the_results_or_the_suite_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    grid = {"models": ["floor"], "tasks": ["parity"]}
    content = {"name": name, "description": HTML, "seeds": 1, "grids": [grid]}
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_text("# Command: a\n# Time: b\n# Expected: c\n" + yaml.safe_dump(content), encoding="utf-8")
    try:
        suite = load(str(path))
    except InvalidParameter as error:
        assert "\n" not in str(error)
    else:
        assert (Path("results") / suite.name).parent == Path("results") and re.fullmatch(r"[a-z0-9_-]+", suite.name)


@given(names, names)
def test_whatever_a_file_and_its_columns_are_called_their_folder_lies_in_the_results(file: str, column: str) -> None:
    made = _name(Source(Path(file), (Path(file),)), {"target_column": column}, ())
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{6}", made) and len(made) < 60
    assert re.fullmatch(r"[0-9a-f]{16}", trials(("floor",), ("adding",), 1)[0].id)


@given(names, names)
def test_a_sentence_about_a_file_is_one_line_without_control_characters(file: str, column: str) -> None:
    assert str(bad(file, "is bad", column, 3)).isprintable()


def test_a_terminal_shows_hostile_names_and_reasons_letter_by_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = [
        dataclasses.replace(trial, model_config={**trial.model_config, MARKUP: trial.seed})
        for trial in trials(("lstm",), ("adding",), 2)
    ]
    write_run(tmp_path, planned[0])
    failed = write_failure(tmp_path, planned[1], Status.ERROR, f"ValueError: {MARKUP}")
    console = Console(file=io.StringIO(), width=200)
    frame = tables.frame(tmp_path, planned)
    console.print(tables.render(tables.matrix(frame), frame))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"lstm {MARKUP}=0" in shown and f"ValueError: {MARKUP}" in shown
    monkeypatch.setenv("COLUMNS", "300")
    assert f"ValueError: {MARKUP}" in closing_table(planned, tmp_path)[0]
    progress = Progress(1)
    with progress._bar.console.capture() as captured:
        progress.advance(planned[1], failed)
    assert MARKUP in captured.get().replace("\n", "")


def test_a_list_of_models_shows_what_a_plug_in_says_of_itself_letter_by_letter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = dataclasses.replace(registry.ENTRIES[-1], name="odd", summary=MARKUP)
    monkeypatch.setattr(registry, "entries", lambda: {"odd": odd})
    monkeypatch.setenv("COLUMNS", "300")
    command_line.list_registered(command_line.Registry.MODELS)
    assert MARKUP in capsys.readouterr().out


def test_a_notebook_shows_hostile_advice_as_text() -> None:
    empty = tables.matrix(tables.frame(Path(), []))
    shown = Comparison((), (f"use {HTML}",), "", empty, Path(HTML), Path(), 0)._repr_html_()
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 2
    assert run_folder(Path("results"), "a1").parent == Path("results/runs")
