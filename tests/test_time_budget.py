"""A budget by the clock: a fit by gradient ends normally with its best checkpoint, a procedure of a model's own is stopped."""

import contextlib
import math
import time

import pytest
import torch
import torch._dynamo  # what the first optimiser would import within the budget: seconds

from benchmarks import fitting
from benchmarks.experiment import Experiment, prepare
from benchmarks.fitting import FitConfig, FitTimeout, time_limit

ADDING = {"length": 10, "n_train": 64, "n_validation": 16, "n_test": 16}


def trial(folder, model="rnn", **fit) -> Experiment:
    return prepare("adding", model, 0, 500, "cpu", ADDING, {}, {"batch_size": 8, **fit}, str(folder))


def test_a_fit_ends_when_its_time_is_up_and_keeps_its_best_checkpoint(tmp_path):
    experiment = trial(tmp_path, n_steps=10**6, evaluate_every=10**6, seconds=0.5)
    experiment.fit()
    experiment.evaluate()
    result = experiment.finish()
    assert result.ended_by == "seconds" and result.spec["fit"]["seconds"] == 0.5
    best = min(experiment.curve, key=lambda row: (row["validation"], row["validation_loss"]))
    assert result.best_step == best["step"] and result.validation["mse"] == pytest.approx(best["validation"])
    spent = result.seconds["train"] + result.seconds["validate"]
    assert 0.5 <= spent < 5 and 2 <= len(experiment.curve) <= fitting.VALIDATIONS + 1


def test_a_fit_that_finishes_earlier_is_the_same_with_and_without_a_budget_by_the_clock(tmp_path):
    curves = []
    for i, seconds in enumerate((None, 60.0)):
        experiment = trial(tmp_path / str(i), n_steps=12, evaluate_every=12, seconds=seconds)
        experiment.fit()
        assert experiment.ended_by == "n_steps"
        curves.append([(row["step"], row["train_loss"], row["validation"]) for row in experiment.curve])
    assert curves[0] == curves[1]


def test_without_a_budget_by_the_clock_patience_ends_a_fit(tmp_path):
    experiment = trial(tmp_path, n_steps=1000, evaluate_every=1, patience=1, learning_rate=0.5)
    experiment.fit()
    assert experiment.ended_by == "patience" and experiment.steps < 1000


@pytest.mark.parametrize(("seconds", "message"), [(0.0, "seconds must be positive"), (120.0, "less than max_seconds")])
def test_a_budget_that_cannot_be_kept_is_refused(seconds, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(seconds=seconds)


def test_a_procedure_that_takes_too_long_is_stopped_though_it_catches_every_error():
    started = time.perf_counter()
    with pytest.raises(FitTimeout, match=r"took more than the 0\.1 s"), time_limit(0.1):
        for _ in range(100):
            with contextlib.suppress(Exception):
                time.sleep(0.5)
    assert time.perf_counter() - started < 5
    with time_limit(10), time_limit(None):
        assert math.isclose(float(torch.ones(1)), 1.0)
    time.sleep(0.15)  # and no alarm is left behind


def test_a_model_that_fits_itself_times_out(tmp_path):
    experiment = prepare(
        "hidden_source", "hmm", 0, None, "cpu", {}, {}, {"seconds": 0.005, "max_seconds": 0.01}, str(tmp_path)
    )
    with pytest.raises(FitTimeout):
        experiment.fit()


def test_a_model_that_fits_itself_is_stopped_at_the_cap_and_not_at_the_time_of_a_fit_by_gradient(tmp_path):
    fit = {"seconds": 0.005, "max_seconds": 60.0}
    experiment = prepare("hidden_source", "hmm", 0, None, "cpu", {}, {}, fit, str(tmp_path))
    experiment.fit()
    assert experiment.seconds["train"] > 0.005
