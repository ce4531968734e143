"""Forecasting of several channels, of drawn windows and of the longer recordings: windows, references and counts."""

import warnings

import numpy as np
import pytest
import torch

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import bundled, forecasting, medicine, monitoring
from benchmarks.tasks.forecasting import Economy, ElNino, in_training_deviations, windows
from benchmarks.tasks.medicine import Electrocardiogram
from benchmarks.tasks.monitoring import TransformerTemperature
from benchmarks.tasks.registry import task

needs_ett = pytest.mark.skipif(not datasets.is_here("ett_small_h"), reason="ETTh1 is not in RNNBENCH_DATA")
needs_ecg = pytest.mark.skipif(not datasets.is_here("ecg_scipy"), reason="the ECG is not in RNNBENCH_DATA")


def test_the_bundled_series_read_as_statsmodels_reads_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's imports, which are not ours to mend
        from statsmodels.datasets import elnino, macrodata
    sea = elnino.load_pandas().data
    np.testing.assert_array_equal(bundled.monthly_el_nino(), sea.iloc[:, 1:].to_numpy().reshape(-1))
    table = macrodata.load_pandas().data
    ours = bundled.quarterly_economy()
    names = ["realgdp", "realcons", "realinv", "realdpi", "cpi"]
    np.testing.assert_allclose(ours[:, :5], 400 * np.log(table[names]).diff().to_numpy()[1:])
    np.testing.assert_array_equal(ours[:, 5:], table[["unemp", "tbilrate"]].to_numpy()[1:])
    np.testing.assert_allclose(ours[:, 4], table["infl"][1:], atol=0.02)  # the file's own, rounded


@pytest.mark.parametrize("name", ["co2", "sunspots", "elnino", "macro"])
def test_a_task_knows_how_long_its_series_is_without_reading_it(name: str) -> None:
    built = task(name, {})
    series = built.series()  # type: ignore[attr-defined]
    assert series.reshape(len(series), -1).shape == (built.n_values, built.channels)  # type: ignore[attr-defined]


def test_windows_of_several_channels_are_each_relative_to_its_own_last_value() -> None:
    series = np.arange(20.0)[:, None] * [1, 10] + [0, 500]
    known, future = windows(series, np.array([5, 9]), look_back=3, horizon=2)
    assert known.tolist() == [[[-2, -20], [-1, -10], [0, 0]]] * 2
    assert future.tolist() == [[[1, 10], [2, 20]]] * 2


def test_the_targets_of_several_channels_are_step_major() -> None:
    built = Economy()
    series, splits = built.series(), built.splits(0)
    scale = series[121 - 1 + 1 : 121 + 4] - series[120]  # the first validation window
    target = splits.validation.targets[0, -1].reshape(built.horizon, built.channels)
    ratio = scale / target.double().numpy()
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    assert splits.validation.inputs.shape[1:] == (16, 7) and not splits.validation.inputs[:, -1].any()


def test_the_deviations_of_a_series_are_those_of_its_training_part() -> None:
    series = np.random.default_rng(0).normal(5, 3, (100, 2))
    changed = series.copy()
    changed[60:] += 100
    np.testing.assert_array_equal(in_training_deviations(series)[:60], in_training_deviations(changed)[:60])
    np.testing.assert_allclose(in_training_deviations(series)[:60].std(0), 1)


def test_autoregression_of_two_channels_equals_that_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.linear_model import LinearRegression
    built = Economy()
    x, at = built.series(), built.origins
    known, future = (
        [np.array([x[t - 1 : t + 1].ravel() for t in part]) for part in (at.train, at.test)],
        [np.array([x[t + 1 : t + 5].ravel() for t in part]) for part in (at.train, at.test)],
    )
    forecast = LinearRegression().fit(known[0], future[0]).predict(known[1])
    assert built.autoregression(2) == pytest.approx(np.abs(forecast - future[1]).mean())


def test_the_reference_of_the_economy_keeps_growing_as_over_the_look_back() -> None:
    built, errors = Economy(), []
    x = built.series()
    for t in built.origins.test:
        forecast = np.r_[x[t - 15 : t + 1, :5].mean(0), x[t, 5:]]
        errors.append(np.abs(x[t + 1 : t + 5] - forecast).mean())
    assert built.reference.value == pytest.approx(np.mean(errors))


def test_a_reference_depends_on_the_parameters() -> None:
    assert ElNino(horizon=1).reference.value < ElNino(horizon=6).reference.value


@needs_ett
def test_the_transformer_has_the_usual_rows_and_every_test_window() -> None:
    series = monitoring.transformer_hours()
    assert series.shape == (14_400, 7)
    np.testing.assert_allclose(series[:8_640].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(series[:8_640].std(0), 1)
    built = TransformerTemperature(n_train=20)
    splits = built.splits(0)
    assert [len(split) for split in splits] == [20, 120, 2_880 - 24 + 1]
    scale = float(splits.test.targets[0, -1, 0]) / (series[11_520, 0] - series[11_519, 0])
    np.testing.assert_allclose(
        splits.test.targets[:, -1, :7] / scale, series[11_520:-23] - series[11_519:-24], atol=1e-5
    )
    mse, mae = built.metrics
    assert (mse.name, mae.name) == ("mse", "mae")
    outputs = splits.test.targets[:, -1].double() + 2 * scale
    assert mse(outputs, splits.test.targets[:, -1]) == pytest.approx(4, rel=1e-5)  # type: ignore[operator]


@needs_ett
def test_long_targets_take_no_memory_for_steps_that_are_not_scored() -> None:
    test = TransformerTemperature(n_train=1).splits(0).test
    assert test.targets.shape == (2_857, 336, 168) and test.targets.untyped_storage().nbytes() == 2_857 * 168 * 4


@needs_ett
def test_training_windows_are_drawn_by_the_seed_and_end_before_validation_begins() -> None:
    built = TransformerTemperature(n_train=30)
    first, again, other = (built.splits(seed).train for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs) and not torch.equal(first.inputs, other.inputs)
    assert built.origins.train.max() + built.horizon < 8_640 <= built.origins.validation.min() + 1
    assert built.origins.validation.max() + built.horizon < 11_520 <= built.origins.test.min() + 1


@needs_ecg
def test_every_sample_of_the_test_minute_is_predicted_once() -> None:
    built = Electrocardiogram(n_train=5)
    ahead = built.origins.test[:, None] + np.arange(1, 37)
    assert ahead.ravel().tolist() == list(range(86_400, 108_000))
    assert medicine.five_minutes().shape == (108_000,)


@needs_ecg
def test_the_analogues_of_a_heart_are_the_ten_nearest() -> None:
    built = Electrocardiogram(horizon=5)
    x, at = medicine.five_minutes(), built.origins
    known, asked = ([x[t - 71 : t + 1] - x[t] for t in part] for part in (at.train, at.test[:40]))
    forecast = []
    for q in asked:
        nearest = at.train[np.argsort(((known - q) ** 2).sum(1).round(6), kind="stable")[:10]]
        forecast.append(np.mean([x[t + 1 : t + 6] - x[t] for t in nearest], axis=0))
    truth = [x[t + 1 : t + 6] - x[t] for t in at.test[:40]]
    medicine._analogue_error.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Electrocardiogram, "origins", property(lambda self: at._replace(test=at.test[:40])))
        assert medicine._analogue_error(built) == pytest.approx(np.abs(np.subtract(forecast, truth)).mean())
    medicine._analogue_error.cache_clear()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("etth1", {"look_back": 9_000}, "etth1: look_back \\+ horizon must be at most 8639"),
        ("etth1", {"n_train": 0}, "etth1: n_train must be an integer of at least 1, got 0"),
        ("ecg", {"horizon": 1.5}, "ecg: horizon must be an integer of at least 1"),
        ("macro", {"look_back": 1}, "macro: look_back must be an integer of at least 2"),
        ("elnino", {"horizon": 200}, "horizon at most 146"),
    ],
)
def test_wrong_parameters_are_refused_without_reading_data(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        task(name, parameters)


def test_building_a_task_reads_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("data were read")

    for module, name in ((forecasting, "monthly_co2"), (monitoring, "transformer_hours"), (medicine, "five_minutes")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(datasets, "path", refuse)
    for name in ("co2", "etth1", "ecg", "remaining_life", "occupancy", "indoor_movement", "activity", "sensor_fusion",
                 "splice", "protein_structure", "clinical_visits"):  # fmt: skip
        built = task(name, {})
        assert built.summary and built.symbols != () and str(built)
