"""A finished suite says the same again without looking, and looks again as soon as anything it follows from has changed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from benchmarks import finished
from benchmarks.finished import Outcome, Run

OUTCOME = Outcome("a table\n", 1, "results/tiny/report.html")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run over one trial, in a project of its own."""
    root, results = tmp_path / "project", tmp_path / "results"
    suites = ("benchmarks/suites/tiny.yaml", "benchmarks/suites/tuned/tiny.yaml")
    for file in (
        "models/lstm.py",
        "benchmarks/fitting.py",
        "benchmarks/datasets.csv",
        *suites,
        "notebooks/trial.ipynb",
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("name: tiny")
    for file in ("tiny/report.html", "tiny/mlflow.json", "runs/a1/result.json", "runs/a1/metrics.jsonl", "mlflow.db"):
        (results / file).parent.mkdir(parents=True, exist_ok=True)
        (results / file).write_text("{}")
    monkeypatch.setattr(finished, "ROOT", root)
    run = Run("tiny", "cpu", results)
    assert run.recall() is None
    run.remember(["a1"], OUTCOME)
    return run


def test_an_untouched_run_is_recalled(run: Run) -> None:
    assert run.recall() == OUTCOME


@pytest.mark.parametrize(
    "changed",
    [
        *("project/models/lstm.py", "project/benchmarks/fitting.py", "project/benchmarks/suites/tiny.yaml"),
        "project/benchmarks/datasets.csv",
        *("project/notebooks/trial.ipynb", "results/runs/a1/result.json", "results/runs/a1/metrics.jsonl"),
        *("results/tiny/report.html", "results/tiny/mlflow.json", "project/benchmarks/suites/tuned/tiny.yaml"),
    ],
)
@pytest.mark.parametrize("how", ["rewritten", "deleted", "a folder"])
def test_any_change_makes_a_run_look_again(run: Run, tmp_path: Path, changed: str, how: str) -> None:
    path = tmp_path / changed
    if how == "deleted":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text("name: tiny\n# otherwise")
    assert run.recall() is None


def test_a_new_module_another_device_or_another_store_makes_a_run_look_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Run("tiny", "cuda", run.results).recall() is None
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        assert run.recall() is None
    assert run.recall() == OUTCOME
    (tmp_path / "results" / "mlflow.db").unlink()
    assert run.recall() is None
    (tmp_path / "results" / "mlflow.db").write_text("{}")
    (tmp_path / "project" / "models" / "gru.py").write_text("")
    assert run.recall() is None


def test_with_a_plug_in_a_run_looks_again_for_its_code_may_have_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("memoryless", "memoryless:ENTRIES", "rnnbench.models")
    monkeypatch.setattr(finished, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    assert run.recall() is None


@pytest.mark.parametrize(
    "torn", ["", "{", "[]", '{"fingerprint": 1}', '{"fingerprint": 1, "trials": [3], "outcome": 1}']
)
def test_a_torn_memory_is_none(run: Run, torn: str) -> None:
    (run.results / "tiny" / "finished.json").write_text(torn)
    assert run.recall() is None


def test_an_unknown_suite_is_not_recalled_but_left_to_be_explained(run: Run) -> None:
    assert Run("tinny", "cpu", run.results).recall() is None


@pytest.mark.slow
def test_a_second_run_imports_no_torch_and_prints_what_the_first_printed(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(
        "# Command: none\n# Time: seconds\n# Expected: a row per trial\nname: tiny\ndescription: Two trials, one refused.\n"
        "seeds: 1\ngrids:\n  - {models: [floor, hmm], tasks: [{name: adding, parameters: {length: 10}}]}\n"
    )
    code = (
        "import sys; from benchmarks import __main__ as c\n"
        "sys.argv = ['rnnbench', *sys.argv[1:]]\n"
        "try:\n    c.main()\n"
        "finally:\n    sys.stderr.write('torch' if 'torch' in sys.modules else 'no torch')"
    )
    command = [sys.executable, "-c", code, "run", str(suite), "--results", str(tmp_path / "results")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert "2 trials: 1 ok, 1 skipped" in second.stdout and first.stdout.endswith(second.stdout)
    assert second.stderr == "no torch"
