"""CONTRIBUTING.md's way of adding a model, followed to the letter."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from benchmarks import checking, experiment
from models import registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def memoryless(tmp_path, monkeypatch):
    """The file that CONTRIBUTING.md shows, beside the other models, and its line in the registry's table."""
    source = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    (tmp_path / "memoryless.py").write_text(source)
    monkeypatch.setattr(sys.modules["models"], "__path__", [*sys.modules["models"].__path__, str(tmp_path)])
    module = importlib.import_module("models.memoryless")
    monkeypatch.setattr(registry, "ENTRIES", [*registry.ENTRIES, *module.ENTRIES])
    registry.entries.cache_clear()
    yield module
    registry.entries.cache_clear()
    del sys.modules["models.memoryless"]


def test_the_documented_model_keeps_the_contract(memoryless):
    findings = list(checking.check("memoryless"))
    assert len(findings) > 50
    assert not [finding for finding in findings if not finding.passed]


def test_the_documented_model_runs_a_trial_and_cannot_do_what_needs_memory(memoryless, tmp_path):
    trial = experiment.prepare(
        "adding", "memoryless", 0, 2000, "cpu", {"length": 10}, {}, {"n_steps": 40}, str(tmp_path / "run")
    )
    trial.fit()
    trial.evaluate()
    result = trial.finish()
    assert result.parameters["backbone"] == pytest.approx(2000, rel=0.02)
    assert abs(result.score) < 0.1


def test_the_model_itself_takes_ten_lines(memoryless):
    body = re.search(r"class Memoryless\(.*?(?=\n\n\ndef )", Path(memoryless.__file__).read_text(), re.DOTALL)[0]
    assert len([line for line in body.splitlines() if line.strip()]) <= 11
