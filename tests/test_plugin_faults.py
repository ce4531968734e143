"""A bug in a package that registers models costs the trials of these models, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from waiting import within

from benchmarks import catalogue
from benchmarks.execution.isolated import Ended, isolated
from benchmarks.execution.plan import refusal
from benchmarks.trial import Overrides, check_buildable, sized_to_state, specify
from models import registry

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = """
import os, signal, sys
from dataclasses import replace
from models import feed_forward, registry

DEFAULT = next(entry for entry in registry.ENTRIES if entry.name == "floor")

def raises(*_): raise RuntimeError("bad <luck>")
def nothing(*_): return None
def exits(*_): sys.exit(0)
def segfaults(*_): os.kill(os.getpid(), signal.SIGSEGV)

RAISES = replace(DEFAULT, name="raises", build=raises)
NOTHING = replace(DEFAULT, name="nothing", build=nothing)
EXITS = replace(DEFAULT, name="exits", build=exits)
SEGFAULTS = replace(DEFAULT, name="segfaults", build=segfaults)
REFUSES = replace(DEFAULT, name="refuses", refuses=raises)
REFUSES_EXITS = replace(DEFAULT, name="refuses_exits", refuses=exits)
GOOD = replace(DEFAULT, name="good")
NO_ENTRY = 42
"""
POINTS = {
    "raises": "buggy:RAISES",
    "nothing": "buggy:NOTHING",
    "exits": "buggy:EXITS",
    "segfaults": "buggy:SEGFAULTS",
    "refuses": "buggy:REFUSES",
    "refuses_exits": "buggy:REFUSES_EXITS",
    "good": "buggy:GOOD",
    "no_entry": "buggy:NO_ENTRY",
    "absent": "buggy:ABSENT",
    "import_exits": "exiting:ENTRY",
}
EXPECTED = {
    "raises": ("error", "RuntimeError: bad <luck>"),
    "nothing": ("error", "build of nothing returned NoneType, not a Predictor"),
    "exits": ("incomplete", "without writing a result"),
    "segfaults": ("kernel_died", "SIGSEGV"),
    "refuses": ("error", "RuntimeError: bad <luck>"),
    "refuses_exits": ("incomplete", "without writing a result"),
    "good": ("ok", ""),
    "no_entry": ("error", "registers an object of type int, not a ModelEntry"),
    "absent": ("error", "does not load: AttributeError"),
    "import_exits": ("error", "does not load: SystemExit"),
    "floor": ("ok", ""),
}
SUITE = f"""# Command: rnnbench run buggy.yaml
# Time: seconds
# Expected: a row per trial
name: buggy
description: Plug-ins with a bug beside a model of the registry.
seeds: 1
grids:
  - models: [{", ".join(EXPECTED)}]
    tasks: [{{name: adding, parameters: {{length: 10, n_train: 64, n_validation: 64, n_test: 64}}}}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package whose models have bugs."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "buggy.py").write_text(PLUGIN)
    (folder / "exiting.py").write_text("import sys\nsys.exit(0)\n")
    metadata = folder / "buggy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: buggy\nVersion: 1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in POINTS.items())
    (metadata / "entry_points.txt").write_text(f"[rnnbench.models]\n{points}")
    return folder


@pytest.fixture
def plugged(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process sees the package."""
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield
    _forget()


def _forget() -> None:
    registry.entries.cache_clear()


def test_a_plugin_that_cannot_be_registered_has_a_stand_in_with_the_reason(plugged: None) -> None:
    assert set(POINTS) == registry.plugins()
    assert "not a ModelEntry" in registry.entry("no_entry").summary
    trial = specify("adding", "absent", 0, 2000, "cpu", Overrides(model_config={"width": 3}))
    assert trial.model_config == {"width": 3}, "none of its options is known to be wrong"


def test_a_plugins_bug_stops_neither_the_check_before_a_run_nor_the_plan(plugged: None) -> None:
    trials = [specify("adding", name, 0, 2000, "cpu") for name in EXPECTED]
    assert check_buildable(trials) is None
    assert [refusal(trial) for trial in trials] == [None] * len(trials)
    assert [sized_to_state(trial, 4000) for trial in trials if trial.model in ("raises", "refuses")] == [
        trial for trial in trials if trial.model in ("raises", "refuses")
    ]


def test_the_list_of_models_has_a_row_for_each_broken_plugin(plugged: None) -> None:
    rows = {row.model: row.summary for row in catalogue.rows()}
    assert "bad <luck>" in rows["raises"] and "SIGSEGV" in rows["segfaults"] and "SystemExit" in rows["exits"]
    assert (
        "not a Predictor" in rows["nothing"] and "bad <luck>" in rows["refuses"] and "does not load" in rows["absent"]
    )
    assert rows["good"] == rows["floor"]


@pytest.mark.parametrize("content", [None, 3, object, "lstm", [None], {"a": 1}, dataclasses.field()])
def test_an_entry_point_may_hold_anything(monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    points = EntryPoints([EntryPoint("other", "other:ENTRY", "rnnbench.models")])
    monkeypatch.setattr(EntryPoint, "load", lambda self: content)
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    _forget()
    try:
        assert registry.plugins() == {"other"} and "plug-in 'other:ENTRY'" in registry.entry("other").summary
    finally:
        _forget()


def _exit() -> None:
    sys.exit(0)


def _kill() -> None:
    os.kill(os.getpid(), 9)


def _raise() -> None:
    raise ValueError("a\nb" * 1000)


@pytest.mark.parametrize(("work", "told"), [(_exit, "SystemExit"), (_kill, "SIGKILL"), (_raise, "ValueError: a b")])
def test_work_in_a_copy_that_ends_early_is_a_sentence(work: Callable[[], None], told: str) -> None:
    with pytest.raises(Ended, match=told) as ended:
        isolated(work, "test")
    assert len(str(ended.value)) < 600 and str(ended.value).isprintable()
    assert isolated(lambda: 3, "test") == 3


def test_a_killed_check_costs_a_warning_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.trial._unbuildable", lambda cells: _kill())
    warning = check_buildable([specify("adding", "lstm", 0, 2000, "cpu")])
    assert warning is not None and "SIGKILL" in warning and "becomes a row" in warning


def test_a_check_dies_with_its_coordinator(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom benchmarks.execution.isolated import isolated\n"
        "def work(): Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)\n"
        "isolated(work, 'check')"
    )
    pid_file = tmp_path / "pid"
    coordinator = subprocess.Popen([sys.executable, "-c", code, str(pid_file)], cwd=ROOT)
    assert within(30, lambda: pid_file.exists() and pid_file.read_text() != "")
    pid = int(pid_file.read_text())
    coordinator.kill()
    coordinator.wait()
    assert within(10, lambda: not Path(f"/proc/{pid}").exists())


def _rnnbench(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "COLUMNS": "200"}
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.mark.slow
def test_each_bug_of_a_plugin_is_a_row_with_the_reason_and_siblings_list_and_report_go_on(
    site: Path, tmp_path: Path
) -> None:
    suite, results = tmp_path / "buggy.yaml", tmp_path / "results"
    suite.write_text(SUITE)
    ran = _rnnbench(site, "run", suite, "--results", results, "--device", "cpu")
    assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    rows = [json.loads(path.read_text()) for path in results.glob("runs/*/result.json")]
    found = {row["spec"]["model"]: (row["status"], row["reason"] or "") for row in rows}
    assert set(found) == set(EXPECTED)
    for model, (status, reason) in EXPECTED.items():
        assert found[model][0] == status and reason in found[model][1], (model, found[model])
    listed = _rnnbench(site, "list", "models")
    assert listed.returncode == 0 and "good" in listed.stdout and "broken" in listed.stdout
    checked = _rnnbench(site, "check", "segfaults")
    assert checked.returncode == 1 and "the process that checked it died" in checked.stdout
    report = _rnnbench(site, "report", suite, "--results", results, "--device", "cpu")
    assert report.returncode == 0 and "bad &lt;luck&gt;" in (results / "buggy" / "report.html").read_text()
