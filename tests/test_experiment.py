"""One trial from end to end, what it may look at, and that it repeats to the bit."""

import dataclasses
import json
import math

import pytest
import torch
from test_tasks import EVERY

from benchmarks import evaluation, experiment, records
from benchmarks.experiment import InvalidMetric, prepare
from benchmarks.records import Status
from benchmarks.tasks import registry as tasks
from models import registry


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a small trial in a folder of its own."""

    def prepare_in(name, task="adding", model="gru", seed=0, task_parameters=None):
        monkeypatch.setattr(experiment, "BY_HAND", tmp_path / name)
        parameters = {"length": 10} if task == "adding" and task_parameters is None else task_parameters
        return prepare(task, model, seed, 2000, "cpu", parameters, {}, {"n_steps": 30, "evaluate_every": 10})

    return prepare_in


@pytest.fixture
def whole(prepared):
    """Runs a small trial from end to end."""

    def run(*given, **named):
        trial = prepared(*given, **named)
        trial.fit()
        trial.evaluate()
        return trial, trial.finish()

    return run


def test_a_trial_leaves_a_folder_that_says_everything(whole):
    trial, result = whole("a")
    assert records.read_result(trial.folder) == result
    assert result.status is Status.OK and result.selected_on == "validation"
    assert set(result.test) == {metric.name for metric in trial.task.metrics}
    assert result.score == pytest.approx((result.test["mse"] - result.floor) / (0 - result.floor))
    assert set(result.seconds) == {"data", "build", "train", "validate", "test"}
    assert result.parameters["backbone"] == pytest.approx(2000, rel=0.1)
    assert result.model_config["width"] and result.state_bytes == result.model_config["width"] * 4
    assert result.weight_bytes == 4 * sum(result.parameters.values())
    assert result.memory["increment_bytes"] >= 0 and result.timing_valid is False
    assert [row["step"] for row in records.read_curve(trial.folder)] == [10, 20, 30]
    assert json.loads((trial.folder / "spec.json").read_text())["model"] == "gru"
    assert "2,0" in str(trial) or "1,9" in str(trial)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(whole):
    results = [whole(name, seed=seed)[1] for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert results[0].test == results[1].test and results[0].validation == results[1].validation
    assert results[0].data_digest == results[1].data_digest
    assert results[0].test != results[2].test and results[0].data_digest != results[2].data_digest


def test_nothing_before_the_evaluation_looks_at_the_test_split(prepared):
    """A poisoned test split: any look at its values would make the fit's numbers NaN."""
    fitted = {}
    for poisoned in (False, True):
        trial = prepared(str(poisoned))
        if poisoned:
            test = trial.splits.test
            nan = torch.full_like(test.inputs, float("nan"))
            trial.splits = trial.splits._replace(test=dataclasses.replace(test, inputs=nan))
        trial.fit()
        fitted[poisoned] = [row | {"seconds": 0} for row in trial.curve]
        if poisoned:
            with pytest.raises(InvalidMetric, match="mse is nan"):
                trial.evaluate()
    assert fitted[True] == fitted[False]


@pytest.mark.parametrize("split", ["validation split", "test split of length"])
def test_a_metric_that_is_not_finite_ends_a_trial_wherever_it_comes_up(prepared, monkeypatch, split):
    """A model that fits itself and then answers nothing: neither may reach a record, which could not hold it."""
    trial = prepared("nan", task="parity", model="floor", task_parameters={})
    sweeps, evaluate = [], evaluation.evaluate

    def poisoned(predictor, problem, batch, device):
        evaluated = evaluate(predictor, problem, batch, device)
        sweeps.append(batch)
        bad = split == "validation split" or len(sweeps) > 3  # validation twice, test, and then the lengths
        return evaluated._replace(values=dict.fromkeys(evaluated.values, math.nan)) if bad else evaluated

    monkeypatch.setattr(evaluation, "evaluate", poisoned)
    with pytest.raises(InvalidMetric, match=f"accuracy is nan on the {split}"):
        trial.fit()
        trial.evaluate()


@pytest.mark.parametrize("task", EVERY)
def test_the_floor_model_scores_the_floor(whole, task):
    built = tasks.task(task, {})
    if registry.entry("floor").refuses(built.input, built.target, built.causal):
        pytest.skip("a constant answers nothing where there is no right answer")
    _, result = whole("floor", task, "floor", 1, {})
    assert result.test[result.primary] == pytest.approx(result.floor, rel=1e-12)
    assert result.equals_floor and (result.score is None or result.score == pytest.approx(0, abs=1e-9))


def test_a_gap_to_the_optimum_is_the_difference_of_the_means(whole):
    trial, result = whole("gap", "hidden_source", "rnn")
    gap = result.optimum_gap
    assert gap.n == len(trial.splits.test)
    assert gap.mean == pytest.approx(result.test["cross_entropy"] - result.ceiling, abs=1e-9)
    assert gap.low < gap.mean < gap.high


def test_a_length_sweep_holds_every_tested_length(whole):
    trial, result = whole("sweep", "parity", "rnn")
    assert list(map(int, result.length_sweep)) == list(trial.task.lengths.tested)


def test_a_model_that_cannot_do_a_task_says_why(prepared):
    with pytest.raises(ValueError, match="hmm cannot do adding: "):
        prepared("refused", "adding", "hmm")


def test_dropout_draws_the_same_whatever_was_drawn_before(prepared):
    metrics = []
    for name in "ab":
        trial = prepared(name, model="mlp")
        assert trial.config.hidden_dropout > 0
        torch.rand(len(metrics) + 1)  # a notebook opened by hand may have drawn anything
        trial.fit()
        metrics.append(trial.validation)
    assert metrics[0] == metrics[1]
