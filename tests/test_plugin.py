"""A package elsewhere that registers a model is in the list, the check, a suite's run and its report."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE = """# Command: rnnbench run plugged.yaml
# Time: seconds
# Expected: a row per trial
name: plugged
description: A model from a package beside one of the registry.
parameter_budget: 2000
seeds: 1
fit: {n_steps: 20, evaluate_every: 10}
grids:
  - {models: [memoryless, floor], tasks: [{name: adding, parameters: {length: 10}}]}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed a package with the model of CONTRIBUTING.md."""
    folder = tmp_path_factory.mktemp("plugin")
    source = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    files = {
        "memoryless_model/__init__.py": source,
        "memoryless_model-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: memoryless-model\nVersion: 1.0\n",
        "memoryless_model-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "memoryless_model-1.0.dist-info/entry_points.txt": "[rnnbench.models]\nmemoryless = memoryless_model:ENTRIES\n",
    }
    files["memoryless_model-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(folder / "memoryless_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        path = Path(wheel.filename)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        folder / "site",
        path,
    ]
    subprocess.run(pip, check=True)
    return folder / "site"


def rnnbench(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.mark.slow
def test_an_installed_package_adds_its_model_everywhere(site, tmp_path):
    listed = rnnbench(site, "list", "models")
    assert listed.returncode == 0 and "memoryless" in listed.stdout
    checked = rnnbench(site, "check", "memoryless")
    assert checked.returncode == 0 and "memoryless keeps the contract" in checked.stdout
    suite, results = tmp_path / "plugged.yaml", tmp_path / "results"
    suite.write_text(SUITE)
    ran = rnnbench(site, "run", suite, "--results", results)
    assert ran.returncode == 0 and "2 trials: 2 ok" in ran.stdout, ran.stderr
    assert "memoryless" in (results / "plugged" / "report.html").read_text()


@pytest.mark.slow
def test_without_the_package_its_model_is_unknown(tmp_path):
    suite = tmp_path / "plugged.yaml"
    suite.write_text(SUITE)
    ran = rnnbench(tmp_path, "run", suite, "--results", tmp_path / "results")
    assert ran.returncode == 2 and "unknown model 'memoryless'" in ran.stderr
