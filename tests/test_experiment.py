"""One trial from end to end, what it may look at, and that it repeats to the bit."""

import dataclasses
import json

import pytest
import torch

from benchmarks import experiment, records
from benchmarks.experiment import InvalidMetric, prepare
from benchmarks.records import Status
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.task import Splits


def whole_trial(folder, task="adding", model="gru", seed=0, **given):
    overrides = {"task_parameters": {"length": 10}, "fit": {"n_steps": 30, "evaluate_every": 10}} | given
    trial = prepare(task, model, seed, 2000, "cpu", run_folder=str(folder), **overrides)
    folder = trial.folder
    trial.fit()
    trial.evaluate()
    return trial, trial.finish()


def run_folder(tmp_path, name, **given):
    """The run folder must bear the trial's id."""
    from benchmarks.trial import Overrides, specify

    parameters = {"length": 10} if "task_parameters" not in given else given["task_parameters"]
    fit = given.get("fit", {"n_steps": 30, "evaluate_every": 10})
    trial = specify(
        given.get("task", "adding"),
        given.get("model", "gru"),
        given.get("seed", 0),
        2000,
        "cpu",
        Overrides(parameters, {}, fit),
    )
    return tmp_path / name / trial.id


def test_a_trial_leaves_a_folder_that_says_everything(tmp_path):
    folder = run_folder(tmp_path, "a")
    trial, result = whole_trial(folder)
    assert records.read_result(folder) == result
    assert result.status is Status.OK and result.selected_on == "validation"
    assert set(result.test) == {metric.name for metric in trial.task.metrics}
    assert result.score == pytest.approx((result.test["mse"] - result.floor) / (0 - result.floor))
    assert set(result.seconds) == {"data", "build", "train", "validate", "test"}
    assert result.parameters["backbone"] == pytest.approx(2000, rel=0.1)
    assert result.model_config["width"] and result.state_bytes == result.model_config["width"] * 4
    assert result.memory["increment_bytes"] >= 0 and result.timing_valid is False
    assert [row["step"] for row in records.read_curve(folder)] == [10, 20, 30]


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(tmp_path):
    results = [
        whole_trial(run_folder(tmp_path, name, seed=seed), seed=seed)[1]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert results[0].test == results[1].test and results[0].validation == results[1].validation
    assert results[0].data_digest == results[1].data_digest
    assert results[0].test != results[2].test and results[0].data_digest != results[2].data_digest


def test_nothing_before_the_evaluation_looks_at_the_test_split(tmp_path, monkeypatch):
    """A poisoned test split: any look at its values would make the fit's numbers NaN."""
    fitted = {}
    for poisoned in (False, True):
        trial = prepare(
            "adding", "gru", 0, 2000, "cpu", {"length": 10}, {}, {"n_steps": 30, "evaluate_every": 10},
            str(run_folder(tmp_path, str(poisoned))),
        )  # fmt: skip
        if poisoned:
            test = trial.splits.test
            nan = torch.full_like(test.inputs, float("nan"))
            trial.splits = Splits(trial.splits.train, trial.splits.validation, dataclasses.replace(test, inputs=nan))
        trial.fit()
        fitted[poisoned] = [row | {"seconds": 0} for row in trial.curve]
        if poisoned:
            with pytest.raises(InvalidMetric, match="mse is nan"):
                trial.evaluate()
    assert fitted[True] == fitted[False]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_floor_model_scores_the_floor_exactly(tmp_path, task):
    folder = run_folder(tmp_path, "floor", task=task, model="floor", task_parameters={}, seed=1)
    _, result = whole_trial(folder, task, "floor", 1, task_parameters={})
    assert result.test[result.primary] == result.floor
    assert result.equals_floor and (result.score == 0 or result.score is None)


def test_a_gap_to_the_optimum_is_the_difference_of_the_means(tmp_path):
    given = {"task": "hidden_source", "model": "rnn", "task_parameters": {}}
    trial, result = whole_trial(run_folder(tmp_path, "gap", **given), "hidden_source", "rnn", task_parameters={})
    gap = result.optimum_gap
    assert gap.n == len(trial.splits.test)
    assert gap.mean == pytest.approx(result.test["cross_entropy"] - result.ceiling, abs=1e-9)
    assert gap.low < gap.mean < gap.high


def test_a_length_sweep_holds_every_tested_length(tmp_path):
    given = {"task": "parity", "model": "rnn", "task_parameters": {}}
    trial, result = whole_trial(run_folder(tmp_path, "sweep", **given), "parity", "rnn", task_parameters={})
    assert list(map(int, result.length_sweep)) == list(trial.task.lengths.tested)


def test_a_model_that_cannot_do_a_task_says_why(tmp_path):
    with pytest.raises(ValueError, match="hmm cannot do adding: "):
        prepare("adding", "hmm", 0, 2000, "cpu", run_folder=str(tmp_path / "x"))


def test_a_trial_by_hand_keeps_its_folder_under_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "BY_HAND", tmp_path)
    trial = prepare("adding", "floor", 0, None, "cpu", {"length": 10})
    trial.fit()
    trial.evaluate()
    trial.finish()
    assert records.read_result(tmp_path / trial.trial.id).status is Status.OK
    assert json.loads((tmp_path / trial.trial.id / "spec.json").read_text())["model"] == "floor"
