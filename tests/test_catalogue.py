"""The table of models: read off the registry, and the same in the documents."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import catalogue
from benchmarks.__main__ import app
from models import registry

PAGE = Path(__file__).resolve().parents[1] / "models" / "README.md"


@pytest.fixture(scope="module")
def rows():
    return {row.model: row for row in catalogue.rows()}


def test_the_documents_hold_the_table_of_the_registry():
    assert PAGE.read_text() == catalogue.markdown(), "run: rnnbench list models --markdown > models/README.md"


def test_every_registered_model_is_described(rows):
    assert list(rows) == list(registry.entries())
    assert all(all(row) for row in rows.values())


def test_what_the_table_says_is_what_the_models_are(rows):
    assert (rows["lstm"].causal, rows["lstm"].streams, rows["lstm"].state) == ("yes", "in constant state", "2 · L · H")
    assert (rows["bilstm"].causal, rows["bilstm"].streams) == ("no", "no")
    assert rows["transformer"].streams == "in a state that grows to a bound"
    assert rows["hmm"].causal == "as the task asks" and rows["hmm"].parameters == "by its fit"
    assert rows["gru"].accepts == "numbers and symbols: anything"
    assert "transcripts" not in rows["hmm"].accepts


def test_the_page_is_of_models_alone():
    ended = CliRunner().invoke(app, ["list", "tasks", "--markdown"])
    assert ended.exit_code == 2 and "only models" in ended.output
