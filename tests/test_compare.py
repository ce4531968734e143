"""`rnnbench compare`: what it refuses, in one sentence each; what it says; and that each kind of file ends in results."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow
import pytest
import yaml
from bad_files import BAD, conll, npz, table

from benchmarks import __main__ as command_line
from benchmarks.experiment import prepare
from benchmarks.figures import trial_figures
from benchmarks.suite import load
from benchmarks.tasks import registry as registry_of_tasks
from benchmarks.your_data import comparing
from benchmarks.your_data.comparing import MODELS, Asked, look
from benchmarks.your_data.reading import Roles
from benchmarks.your_data.recording import BadInput
from models import registry
from models.names import UnknownName

HOSTILE = "<script>alert('x')</script> $\\frac{ {{x}} ../../é😀\n\"&amp;"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`main` with these arguments, in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["rnnbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_ends_with_one_sentence_and_exit_code_2(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, options, message = BAD[what]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(comparing, "complete", None)  # nothing may run
    results = tmp_path / "results"
    assert call(monkeypatch, "compare", str(tmp_path / name), "--results", str(results), *options) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1 and name in told and not results.exists()


def test_the_list_of_bad_files_is_long() -> None:
    assert len(BAD) >= 50


def test_a_mistyped_model_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text(table()))
    with pytest.raises(UnknownName, match=r"^unknown model 'Lsmt'; did you mean 'lstm'\?$"):
        look(tmp_path / "a.csv", Asked(Roles("y", "id"), models=("gru", "Lsmt")))


def disordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Dates instead of numbers, rows in no order."""
    dates = pd.Timestamp("2024-02-28") + pd.to_timedelta(frame["t"], unit="D")
    return frame.assign(t=dates.astype(str)).sample(frac=1, random_state=0)


HARMLESS = {
    "gaps in the inputs": lambda frame: frame.assign(x=frame["x"].where(frame.index % 3 != 1), colour=None),
    "NaN spelt out": lambda frame: frame.assign(x=frame["x"].astype(str).where(frame.index % 5 != 1, "NaN")),
    "gaps in the answers": lambda frame: frame.assign(tag=frame["tag"].where(frame.index % 4 != 1)),
    "dates out of order": disordered,
    "sequences of one step": lambda frame: frame[(frame["t"] == 0) | (frame["id"] > "s4")],
    "a column that never changes": lambda frame: frame.assign(x=1.0),
    "huge numbers": lambda frame: frame.assign(x=frame["x"] * 1e30),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_odd_in_a_file_but_can_be_used_ends_in_finite_numbers(what: str, tmp_path: Path) -> None:
    path, suite = tmp_path / "a.csv", tmp_path / "suite.yaml"
    HARMLESS[what](table(20)).to_csv(path, index=False)
    suite.write_text(look(path, Asked(Roles("tag", "id", None, "t"))).content)
    for trial in load(str(suite)).trials(models=["gru", "hmm"], seeds=1, device="cpu"):
        given = (trial.device, trial.task_parameters, {}, {**trial.fit, "n_steps": 3}, str(tmp_path / trial.id))
        experiment = prepare(trial.task, trial.model, 0, 500, *given)
        for batch in experiment.splits:
            batch.validate()
            assert np.isfinite(batch.inputs.numpy()).all()
        experiment.fit()
        experiment.evaluate()
        assert np.isfinite(list(experiment.finish().test.values())).all()


def test_a_million_rows_are_read_and_planned_in_seconds(tmp_path: Path) -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    columns = {"id": np.repeat(np.arange(n // 100), 100), "x": rng.normal(size=n).round(3), "y": rng.integers(0, 3, n)}
    arrow.write_csv(pa.table(columns), tmp_path / "a.csv")
    plan = look(tmp_path / "a.csv", Asked(Roles("y", "id"), minutes=60))
    assert plan.told[0].startswith("read: a.csv: 1,000,000 rows, 10,000 sequences of 100 steps")
    assert any("steps are used" in line for line in plan.told)


def test_a_folder_needs_both_files_of_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a_TRAIN.ts").write_text("@data")
    with pytest.raises(BadInput, match=r"one file \*_TRAIN.ts and one \*_TEST.ts, and this one holds 1 and 0"):
        look(tmp_path, Asked(Roles()))


def machines() -> pd.DataFrame:
    """Unequal lengths, irregular times, missing values and a category; --target wear is a number per machine."""
    rng = np.random.default_rng(1)
    parts = []
    for machine in range(16):
        n, wear = int(rng.integers(4, 12)), rng.uniform()
        load = np.where(rng.random(n) < 0.2, np.nan, rng.normal(wear, 0.1, n))
        times = np.cumsum(rng.exponential(5, n)).round(2)
        rotor = rng.choice(["steel", "brass"], n)
        parts.append(pd.DataFrame({"machine": machine, "minute": times, "load": load, "rotor": rotor, "wear": wear}))
    return pd.concat(parts)


def text(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


SERIES = pd.DataFrame({"y": np.sin(np.arange(160) / 5), "x": np.cos(np.arange(160) / 3)})
GOOD: dict[str, tuple[str, bytes, Asked, str]] = {
    "classification": ("a.csv", text(table()), Asked(Roles("y", "id", None, "t")), "classification: a class per seq"),
    "arrays": ("a.npz", npz(X=np.random.default_rng(0).normal(size=(12, 5, 2)), y=np.arange(12) % 2), Asked(Roles()), "class"),
    "tagging": ("a.csv", text(table()), Asked(Roles("tag", "id", None, "t"), causal=True), "tagging: a class per step"),
    "sentences": ("a.conll", conll(*[f"the/D dog/N x{i % 9}/V" for i in range(30)]), Asked(Roles()), "tagging"),
    "regression": ("a.csv", text(machines()), Asked(Roles("wear", "machine", None, "minute")), "a number per sequence"),
    "regression per step": ("a.csv", text(table()), Asked(Roles("level", "id", None, "t")), "a number per step"),
    "forecasting": ("a.csv", text(SERIES), Asked(Roles("y"), horizon=3), "forecasting: the next 3 steps"),
    "one series": ("a.csv", text(SERIES[["y"]]), Asked(Roles("y")), "forecasting: the next step"),
    "next symbol": ("a.txt", b"to be or not to be, that is the question. " * 20, Asked(Roles()), "next symbol"),
}  # fmt: skip


@pytest.mark.parametrize("what", GOOD)
def test_each_kind_of_file_ends_in_results_for_every_model_that_can_do_it(what: str, tmp_path: Path) -> None:
    name, data, asked, told = GOOD[what]
    (tmp_path / name).write_bytes(data)
    plan = look(tmp_path / name, asked)
    assert told in plan.told[1] and plan.told[0].startswith(f"read: {name}") and "change with --kind" in plan.told[1]
    suite = tmp_path / "suite.yaml"
    suite.write_text(plan.content)
    trials = load(str(suite)).trials(seeds=1, device="cpu")
    task = registry_of_tasks.task(trials[0].task, trials[0].task_parameters)
    able = [name for name in MODELS if registry.entry(name).refuses(task.input, task.target, task.causal) is None]
    assert sorted(trial.model for trial in trials) == sorted(able) and {"gru", "floor"} <= set(able)
    assert all(trial.fit["seconds"] >= 2 for trial in trials)
    for trial in trials:
        if trial.model not in ("gru", "hmm", "floor"):
            continue
        fit = {**trial.fit, "n_steps": 3}
        given = (trial.device, trial.task_parameters, {}, fit, str(tmp_path / trial.id))
        try:
            experiment = prepare(trial.task, trial.model, 0, 500, *given)
        except ValueError as refusal:
            assert trial.model == "hmm" and "cannot do your_data" in str(refusal)
            continue
        experiment.fit()
        experiment.evaluate()
        result = experiment.finish()
        assert np.isfinite(list(result.test.values())).all() and result.floor is not None
        if trial.model == "gru":
            plt.close(trial_figures.answers(experiment))


def test_a_forecast_of_one_series_is_one_that_markov_models_can_make(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    walk = pd.DataFrame({"y": np.cumsum(rng.normal(size=300)), "x": rng.normal(size=300)})
    for columns, future in ((["y"], True), (["y", "x"], False)):
        path = tmp_path / "a.csv"
        walk[columns].to_csv(path, index=False)
        content = look(path, Asked(Roles("y"), horizon=2)).content
        suite = tmp_path / "suite.yaml"
        suite.write_text(content)
        (trial,) = load(str(suite)).trials(models=["floor"], seeds=1, device="cpu")
        experiment = prepare(trial.task, "floor", 0, None, "cpu", trial.task_parameters, {}, {}, str(tmp_path / "run"))
        assert experiment.task.target.future is future
        experiment.fit()
        experiment.evaluate()
        y, last = walk["y"].to_numpy(), np.arange(239, 298)
        held = np.mean([abs(y[t + k] - y[t]) for t in last for k in (1, 2)])
        assert experiment.result.test["mae"] == pytest.approx(held, rel=1e-4 if future else 0.1)


def test_the_error_of_a_regression_is_in_the_unit_of_its_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame = machines().assign(wear=lambda rows: 1000 * rows["wear"])
    frame.to_csv(path, index=False)
    suite = tmp_path / "suite.yaml"
    suite.write_text(look(path, Asked(Roles("wear", "machine", None, "minute"))).content)
    (trial,) = load(str(suite)).trials(models=["floor"], seeds=1, device="cpu")
    experiment = prepare(trial.task, "floor", 0, None, "cpu", trial.task_parameters, {}, {}, str(tmp_path / "run"))
    experiment.fit()
    experiment.evaluate()
    made, (train, _, test) = experiment.task.prepared, experiment.task.prepared.choose(0)  # type: ignore[attr-defined]
    wear = [made.answers.values[part.start + part.length - 1] for part in (train, test)]
    assert experiment.result.test["rmse"] == pytest.approx(np.sqrt(np.mean((wear[1] - wear[0].mean()) ** 2)), rel=1e-5)
    assert experiment.result.test["mae"] == pytest.approx(np.mean(np.abs(wear[1] - wear[0].mean())), rel=1e-5)


def test_the_time_of_a_fit_follows_from_the_minutes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text(table()))

    def seconds(minutes: float, workers: int) -> float:
        plan = look(path, Asked(Roles("y", "id"), minutes=minutes, workers=workers))
        found = re.search(r"([\d.]+) s by the clock", plan.told[-1])
        assert found is not None
        return float(found[1])

    assert seconds(10, 2) < seconds(20, 2) < seconds(20, 4)
    # 15 rounds of two trials each, and what is not a fit, stay within ten minutes.
    assert 10 < seconds(10, 2) < 10 * 60 / 15
    assert look(path, Asked(Roles("y", "id"))).name == look(path, Asked(Roles("y", "id"))).name
    assert look(path, Asked(Roles("y", "id"))).name != look(path, Asked(Roles("tag", "id"))).name


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    folder = tmp_path / "<b>& {x}"
    folder.mkdir()
    path = folder / "..<img src=x>$ é😀.csv"
    frame = table().rename(columns={"x": HOSTILE, "y": "<i>y</i>"}).replace({"odd": HOSTILE})
    frame.to_csv(path, index=False)
    plan = look(path, Asked(Roles("<i>y</i>", "id", None, "t")))
    assert re.fullmatch(r"[a-z0-9-]+", plan.name) and all("\n" not in line for line in plan.told)
    suite = tmp_path / "suite.yaml"
    suite.write_text(plan.content)
    (trial,) = load(str(suite)).trials(models=["floor"], seeds=1, device="cpu")
    experiment = prepare(trial.task, "floor", 0, None, "cpu", trial.task_parameters, {}, {}, str(tmp_path / "run"))
    experiment.fit()
    experiment.evaluate()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # not every font has every sign
        figure = trial_figures.answers(experiment)
        figure.savefig(tmp_path / "answers.png")
    plt.close(figure)


@pytest.mark.slow
def test_a_comparison_ends_in_a_report_with_a_recommendation(tmp_path: Path) -> None:
    path = tmp_path / "<b>own<i> {x}.csv"
    frame = table(40).rename(columns={"x": HOSTILE}).replace({"odd": "<i>odd</i>"})
    frame.to_csv(path, index=False)
    command = [sys.executable, "-m", "benchmarks", "compare", str(path), "--target", "y", "--sequence-id", "id"]
    command += ["--time", "t", "--ignore", "tag", "--ignore", "level", "--ignore", "score", "--minutes", "2"]
    command += ["--models", "gru,floor", "--results", str(tmp_path / "results"), "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Recommendation: gru" in ended.stdout and "How sure: " in ended.stdout and "Within these lim" in ended.stdout
    (page,) = (tmp_path / "results").glob("*/report.html")
    html = page.read_text()
    assert "Recommendation: gru" in html and "<script>alert" not in html and "<b>own" not in html
    assert "&lt;b&gt;own&lt;i&gt;" in html and "by the clock" in html
    assert {path.name for path in tmp_path.iterdir()} == {path.name, "results"}
    files = sorted((tmp_path / "results" / "runs").glob("*/result.json"))
    times = [file.stat().st_mtime_ns for file in files]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "Recommendation: gru" in again.stdout
    assert len(files) == 6 and [file.stat().st_mtime_ns for file in files] == times


def test_the_simple_models_that_fit_a_question_are_compared_unasked(tmp_path: Path) -> None:
    expected = {
        "classification": {"linear", "boosted_trees", "minirocket", "nearest_neighbour", "hmm"},
        "one series": {"linear", "boosted_trees", "seasonal_naive", "exponential_smoothing", "arima"},
        "next symbol": {"ngram"},
    }
    for what, names in expected.items():
        name, data, asked, _ = GOOD[what]
        (tmp_path / name).write_bytes(data)
        grids = yaml.safe_load(look(tmp_path / name, asked).content)["grids"]
        compared = {model for grid in grids for model in grid["models"]}
        assert names <= compared, what
        assert ("arima" in compared) == (what == "one series")
