"""Every notebook that people open runs from top to bottom as it stands, but for smaller settings."""

import json
from pathlib import Path

import papermill
import pytest

from benchmarks import datasets

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {
    "generation": {
        **{fit: {"n_steps": 2, "evaluate_every": 2} for fit in ("text_fit", "music_fit", "sound_fit")},
        "parameter_budget": 500,
        "folder": "FOLDER",
    },
    "start_here": {"task_parameters": {"length": 10}, "fit": {"n_steps": 20, "evaluate_every": 10}},
    "tasks": {"groups": ["diagnostic", "forecasting"]},
    "your_data": {"minutes": 2, "models": ["gru", "floor"], "file": "FOLDER/machines.csv", "results": "FOLDER/results"},
    "profile": {"task_parameters": {"length": 10}, "timing": {"n_repeats": 3, "n_streamed": 5, "lengths": [16, 32]}},
    "trial": {"task_parameters": {"length": 10}, "fit": {"n_steps": 20, "evaluate_every": 10}},
}
NEEDED = {"generation": ("tinyshakespeare", "poly_music_tcn", "fsdd")}
"""Data sets, by notebook."""


def _placed(value, folder):
    """Whatever a notebook writes goes into the test's own folder."""
    return value.replace("FOLDER", str(folder)) if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_as_it_stands(name, tmp_path, monkeypatch):
    if not all(map(datasets.is_here, NEEDED.get(name, ()))):
        pytest.skip("its data are not in RNNBENCH_DATA")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = {key: _placed(value, tmp_path) for key, value in SMALL[name].items()}
    executed = tmp_path / f"{name}.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", executed, small, kernel_name="python3", cwd=NOTEBOOKS, progress_bar=False
    )
    outputs = [output for cell in json.loads(executed.read_text())["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_every_notebook_is_run_by_a_test():
    elsewhere = {"report", "tuning"}  # executed by every test that builds a report, and by those that tune
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL) | elsewhere
