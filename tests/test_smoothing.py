"""Exponential smoothing against statsmodels with the same parameters, and least squares on the first state."""

import warnings

import numpy as np
import pytest
import torch
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from models.innovations import VAGUE as VAGUE_LEVEL
from models.sequences import Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps
from models.smoothing import ENTRIES, VAGUE_SEASON, VAGUE_TREND, ExponentialSmoothingConfig, Smoothing, estimated

ENTRY = ENTRIES[0]
HORIZON = 7
VAGUE = (VAGUE_LEVEL, VAGUE_TREND, VAGUE_SEASON)
SHAPES = {
    "level": Smoothing(0.4, vague=(VAGUE[0], 0, 0)),
    "trend": Smoothing(0.4, 0.1, damping=1.0, vague=(VAGUE[0], VAGUE[1], 0)),
    "damped": Smoothing(0.4, 0.1, damping=0.9, vague=(VAGUE[0], VAGUE[1], 0)),
    "season": Smoothing(0.4, season=0.3, period=4, vague=(VAGUE[0], 0, VAGUE[2])),
    "all": Smoothing(0.4, 0.1, 0.3, 0.9, 5, VAGUE),
}


def installed(*models, n_steps=60, max_period=6):
    config = ExponentialSmoothingConfig(max_period=max_period)
    spec, target = RealInput(len(models)), Real(HORIZON * len(models), "sequence", future=True)
    predictor = ENTRY.build(spec, target, False, config)
    predictor.install([model.system() for model in models], n_steps)
    return predictor


def windows_of(series, look_back, horizon=HORIZON):
    """Every window of a series (n, C), scored at its end."""
    series = torch.as_tensor(series)
    starts = range(len(series) - look_back - horizon + 1)
    inputs = torch.stack([series[i : i + look_back] for i in starts])
    futures = torch.stack([series[i + look_back : i + look_back + horizon] for i in starts]) - inputs[:, -1:]
    targets = torch.zeros(len(inputs), look_back, futures[0].numel(), dtype=series.dtype)
    targets[:, -1] = futures.flatten(1)
    lengths = torch.full((len(inputs),), look_back)
    return SequenceBatch(inputs, targets, lengths, last_steps(lengths, look_back))


def fitted(batch, n_channels=1, horizon=HORIZON, **config):
    target = Real(horizon * n_channels, "sequence", future=True)
    predictor = ENTRY.build(RealInput(n_channels), target, False, ExponentialSmoothingConfig(**config))
    predictor.fit(batch, batch, torch.Generator())
    return predictor


def error(predictor, batch):
    return float((predictor(batch.inputs)[0] - batch.targets)[batch.scored].abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_forecasts_are_those_of_statsmodels_from_the_same_start(shape):
    model = SHAPES[shape]._replace(vague=(0, 0, 0))
    values = np.random.default_rng(0).normal(size=40).cumsum()
    start = {"initial_level": values[0]}
    start |= {"initial_trend": 0.0} if model.damping else {}
    start |= {"initial_seasonal": np.zeros(model.period)} if model.period else {}
    reference = ETSModel(
        values,
        trend="add" if model.damping else None,
        damped_trend=0 < model.damping < 1,
        seasonal="add" if model.period else None,
        seasonal_periods=model.period or None,
        initialization_method="known",
        **start,
    )
    given = {
        "smoothing_level": model.level,
        "smoothing_trend": model.trend,
        "smoothing_seasonal": model.season,
        "damping_trend": model.damping,
    }
    first = {"initial_level": values[0]}
    parameters = [given.get(name, first.get(name, 0.0)) for name in reference.param_names]
    expected = reference.smooth(parameters).forecast(HORIZON) - values[-1]
    outputs, _ = installed(model)(torch.tensor(values)[None, :, None])
    np.testing.assert_allclose(outputs[0, -1], expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [3, 30])
def test_a_vague_start_is_least_squares_on_the_first_state(shape, length):
    model = SHAPES[shape]
    values = np.random.default_rng(0).normal(size=length).cumsum()
    transition, weights, gain, _, covariance = model.system()
    live = np.flatnonzero(np.diag(covariance))

    def run(state, x):
        errors = []
        for value in x:
            errors.append(value - weights @ state)
            state = transition @ state + gain * errors[-1]
        ahead = [weights @ np.linalg.matrix_power(transition, h) @ state for h in range(HORIZON)]
        return np.array(errors), np.array(ahead)

    x = values - values[0]
    errors, ahead = run(np.zeros(len(weights)), x)
    moved = [run(unit, np.zeros(length)) for unit in np.eye(len(weights))[live]]  # the recursion is linear
    design = np.concatenate([-np.stack([m[0] for m in moved], 1), np.diag(np.diag(covariance)[live] ** -0.5)])
    first, *_ = np.linalg.lstsq(design, np.concatenate([errors, np.zeros(len(live))]))
    expected = ahead + np.stack([m[1] for m in moved], 1) @ first - x[-1]
    outputs, _ = installed(model)(torch.tensor(values)[None, :, None])
    np.testing.assert_allclose(outputs[0, -1], expected, atol=1e-6)


def test_gains_tend_to_those_of_the_recursion():
    for model in SHAPES.values():
        gains = installed(model, n_steps=600).gains[-1, 0]
        np.testing.assert_allclose(gains, model.system().gain, atol=5e-2)


def test_each_parameter_of_each_channel_is_the_one_that_statsmodels_estimates():
    rng = np.random.default_rng(0)
    season = np.tile([0.0, 3.0, -1.0, 2.0], 15)
    channels = [season + rng.normal(size=60).cumsum(), 5 * season + rng.normal(size=60), rng.normal(size=60)]
    for x in channels:
        window = x / x.std()
        for period, trend, damped in ((4, True, True), (4, True, False), (4, False, False), (0, True, True)):
            reference = ETSModel(
                window,
                trend="add" if trend else None,
                damped_trend=damped,
                seasonal="add" if period else None,
                seasonal_periods=period or None,
                initialization_method="heuristic",
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parameters = dict(zip(reference.param_names, reference.fit(disp=False).params, strict=True))
            model = estimated(x[None], period, trend, damped)
            assert model.level == parameters["smoothing_level"]
            assert model.trend == parameters.get("smoothing_trend", 0)
            assert model.season == parameters.get("smoothing_seasonal", 0)
            assert model.damping == parameters.get("damping_trend", float(trend))
            assert model.period == period


def test_a_season_on_a_trend_is_found_and_continued():
    steps = np.arange(120.0)
    series = (0.1 * steps + np.tile([0.0, 3.0, -1.0, 2.0, 7.0, 1.0], 20))[:, None]
    series += 0.01 * np.random.default_rng(0).normal(size=series.shape)
    batch = windows_of(series, 36)
    assert error(fitted(batch), batch) < 0.1


def test_channels_are_fitted_and_forecast_each_by_itself():
    rng = np.random.default_rng(0)
    pair = np.stack([rng.normal(size=90).cumsum(), np.sin(np.arange(90.0)) + 0.1 * rng.normal(size=90)], 1)
    both = windows_of(pair, 24)
    outputs = fitted(both, n_channels=2, n_windows=2)(both.inputs)[0].unflatten(-1, (HORIZON, 2))
    for c in range(2):
        alone = windows_of(pair[:, c : c + 1], 24)
        assert torch.allclose(outputs[..., c], fitted(alone, n_windows=1)(alone.inputs)[0], atol=1e-8)


def test_windows_too_short_or_without_change_are_forecast_by_their_last_value():
    for series in (np.random.default_rng(0).normal(size=(30, 1)), np.ones((60, 1))):
        batch = windows_of(series, 5 if series.std() else 24)
        assert float(fitted(batch)(batch.inputs)[0][:, -1].abs().max()) < 1e-9


def test_what_it_cannot_do_is_refused():
    future = Real(6, "sequence", future=True)
    assert "their future" in ENTRY.refuses(RealInput(2), Classes(2), True)
    assert "their future" in ENTRY.refuses(RealInput(2), Real(6), True)
    assert "channels" in ENTRY.refuses(TokenInput(2), future, True)
    assert "channels" in ENTRY.refuses(RealInput(4), future, True)
    with pytest.raises(ValueError, match="channels"):
        ENTRY.build(RealInput(4), future, True, ExponentialSmoothingConfig())
    for wrong in ({"max_period": 1}, {"n_windows": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ExponentialSmoothingConfig(**wrong)
