"""The command line: what it imports, what it refuses and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.execution.display import expected_seconds
from benchmarks.execution.plan import Plan, plan
from benchmarks.provenance import code_digest
from benchmarks.records import Result, Status, run_folder, write_result
from benchmarks.suite import load
from benchmarks.tasks.registry import TASKS
from benchmarks.trial import Trial
from models import registry

TINY = """# Command: make bench SUITE=tiny.yaml
# Time: seconds
# Expected: a row per trial
name: tiny
description: Two trials, one of them refused.
seeds: 1
grids:
  - {models: [floor, hmm], tasks: [{name: adding, parameters: {length: 10}}]}
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`main` with these arguments, in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["rnnbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def finish(trial: Trial, results: Path, status: Status = Status.OK) -> Result:
    """A valid result of today's code in the trial's run folder."""
    folder = run_folder(results, trial.id)
    folder.mkdir(parents=True)
    spec = json.loads(json.dumps(vars(trial)))
    numbers = {"primary": "mse", "test": {"mse": 0.2}, "floor": 0.2, "score": 0.0, "seconds": {"train": 2.0}}
    result = Result(trial.id, spec, status, code_digest(trial.task, trial.model), **numbers)  # type: ignore[arg-type]
    write_result(folder, result)
    return result


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smok"], "unknown suite 'smok'; did you mean 'smoke'?"),
        (["run", "smoke", "--models", "lsmt"], "unknown model of suite smoke 'lsmt'; did you mean 'lstm'?"),
        (["run", "smoke", "--tasks", "addin"], "unknown task of suite smoke 'addin'; did you mean 'adding'?"),
        (["run", "smoke", "--models", "rnn", "--tasks", "digits"], "no grid has one of these models on one of these"),
        (["report", "defualt"], "unknown suite 'defualt'; did you mean 'default'?"),
        (["check", "gruu"], "unknown model 'gruu'; did you mean 'gru'?"),
        (["check", "LSTM"], "unknown model 'LSTM'; did you mean 'lstm'?"),
        (["check", "deep-lstm"], "unknown model 'deep-lstm'; did you mean 'deep_lstm'?"),
        (["prepare", "Speech"], "unknown suite 'Speech'; did you mean 'speech'?"),
        (["sync", "smok"], "unknown suite 'smok'; did you mean 'smoke'?"),
        (["verify", "party"], "unknown task with a published result 'party'; did you mean 'parity'?"),
        (
            ["tune", "default", "--trials", "2", "--models", "gruu"],
            "unknown model of suite default 'gruu'; did you mean 'gru'?",
        ),
        (
            ["tune", "default", "--trials", "2", "--tasks", "ading"],
            "unknown task of suite default 'ading'; did you mean 'adding'?",
        ),
    ],
)
def test_a_misspelt_name_ends_with_exit_code_2_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["run", "smoke", "--sedes", "3"], "--seeds"),
        (["run", "smoke", "--seeds", "0"], "for '--seeds'"),
        (["run", "smoke", "--device", "cdua"], "'auto', 'cpu', 'cuda'"),
        (["list", "modles"], "'models', 'tasks', 'suites'"),
        (["ran"], "'ran'"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2_and_says_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert "Usage" in told and message in " ".join(told.replace("│", " ").split()), told


def test_a_broken_suite_file_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    tiny.write_text(TINY.replace("models: [floor", "models: [flor"))
    assert call(monkeypatch, "run", str(tiny), "--results", str(tmp_path / "results")) == 2
    assert capsys.readouterr().err == "tiny.yaml: line 8: unknown model 'flor'; did you mean 'floor'?\n"
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "--no-such-option"]])
def test_help_and_wrong_options_come_without_importing_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['rnnbench', *sys.argv[1:]]\n"
        "from benchmarks.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    heavy = {'torch', 'pandas', 'mlflow', 'papermill'} & set(sys.modules)\n"
        "    sys.stderr.write(f'heavy: {sorted(heavy)}')"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ended.stderr.endswith("heavy: []"), ended.stderr


@pytest.mark.parametrize(
    ("what", "names"), [("models", list(registry.entries())), ("tasks", list(TASKS)), ("suites", ["default", "smoke"])]
)
def test_list_names_all_that_is_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, names: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, "list", what) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_check_prints_what_holds_and_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "check", "floor") == 0
    assert "floor keeps the contract" in capsys.readouterr().out


def test_a_dry_run_says_what_would_run_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert call(monkeypatch, "run", str(tiny), "--results", str(results), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "0 done, 2 missing, 0 stale, 0 torn" in shown and "at most 240 s" in shown
    assert not results.exists()


def test_the_expected_time_is_that_of_earlier_trials_of_the_same_model_and_task(tmp_path: Path) -> None:
    trials = load("smoke").trials(models=["rnn"], seeds=4, device="cpu")
    digests = {trial.id: code_digest(trial.task, trial.model) for trial in trials}
    finish(trials[0], tmp_path)
    assert expected_seconds(plan(trials, digests, tmp_path)) == (6.0, 0.0)
    assert expected_seconds(Plan([], trials, [], [])) == (0.0, 4 * trials[0].fit["max_seconds"])


def test_with_nothing_to_run_neither_papermill_nor_mlflow_is_imported(tiny: Path, tmp_path: Path) -> None:
    trials = load(str(tiny)).trials(device="cpu")
    finish(trials[0], tmp_path)
    finish(trials[1], tmp_path, Status.SKIPPED)
    code = (
        "import sys; from benchmarks import __main__ as c, tracking\n"
        "tracking.Tracker.submit = lambda *_: None\n"
        "sys.argv = ['rnnbench', *sys.argv[1:]]\n"
        "try:\n    c.main()\n"
        'finally:\n    sys.stderr.write(f\'heavy: {sorted({"mlflow", "papermill", "seaborn"} & set(sys.modules))}\')'
    )
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        str(tiny),
        "--results",
        str(tmp_path),
        "--no-report",
        "--device",
        "cpu",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.endswith("heavy: []"), ended.stderr
    assert ended.returncode == 0 and "2 trials: 1 ok, 1 skipped" in ended.stdout


@pytest.mark.slow
def test_a_suite_runs_to_a_table_and_the_second_run_has_nothing_to_do(tiny: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks", "run", str(tiny), "--results", str(results), "--no-report"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "2 trials: 1 ok, 1 skipped" in first.stdout
    files = sorted((results / "runs").glob("*/result.json"))
    times = [path.stat().st_mtime_ns for path in files]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0 and "2 trials: 1 ok, 1 skipped" in second.stdout
    assert [path.stat().st_mtime_ns for path in files] == times


@pytest.mark.slow
def test_a_read_only_results_folder_ends_with_exit_code_3(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "run",
        str(tiny),
        "--results",
        str(tmp_path / "results"),
        "--no-report",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 3 and "cannot write to" in ended.stderr and "Traceback" not in ended.stderr
