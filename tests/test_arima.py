"""ARIMA: orders, parameters and forecasts against statsmodels."""

import warnings

import numpy as np
import pytest
import torch
from forecast_windows import HORIZON, WEEK, windows_of
from statsmodels.tsa.statespace.sarimax import SARIMAX

from models.arima import ENTRIES, ArimaConfig, Estimate, Orders, estimated, shortened
from models.sequences import Classes, Real, RealInput

ENTRY = ENTRIES[0]
CASES = {
    "level": Orders(1, 0, 1),
    "walk": Orders(1, 1, 0, constant=False),
    "drift": Orders(0, 1, 1, constant=True),
    "season": Orders(1, 0, 0, 0, 1, 1, 4, constant=False),
    "airline": Orders(0, 1, 1, 0, 1, 1, 4, constant=False),
    "stationary season": Orders(1, 0, 1, 1, 0, 1, 4),
}


def built(n_channels=1, **config):
    target = Real(HORIZON * n_channels, "sequence", future=True)
    return ENTRY.build(RealInput(n_channels, 42), target, False, ArimaConfig(**config))


def series(n=160):
    """Three channels: an autoregression, a walk with a season, noise with a season of four."""
    rng = np.random.default_rng(0)
    errors = rng.normal(size=(n, 3))
    level = np.zeros(n)
    for t in range(1, n):
        level[t] = 0.8 * level[t - 1] + errors[t, 0]
    season = np.resize(WEEK[:4], n)
    return np.stack([5 + level, errors[:, 1].cumsum() + 0.1 * np.arange(n) + season, 2 * season + errors[:, 2]], 1)


def library(values, orders, **options):
    seasonal = (orders.seasonal_p, orders.seasonal_d, orders.seasonal_q, orders.period if orders.period > 1 else 0)
    return SARIMAX(values, order=(orders.p, orders.d, orders.q), seasonal_order=seasonal, **options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channel", [0, 1])
def test_each_parameter_of_each_channel_is_the_one_that_statsmodels_estimates(case, channel):
    orders, values = CASES[case], series()[:, channel]
    trend = "c" if orders.constant else None
    level = orders.d + orders.seasonal_d == 0
    values = values - values.mean() * level
    model = library(values, orders, trend=None if level else trend, simple_differencing=True, concentrate_scale=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(disp=False, maxiter=200)
        ours = estimated([values], orders)
    np.testing.assert_allclose(ours.ar, fit.polynomial_reduced_ar, atol=0.03)
    np.testing.assert_allclose(ours.ma, fit.polynomial_reduced_ma, atol=0.03)
    if not level and orders.constant:
        intercept = dict(zip(fit.param_names, fit.params, strict=True))["intercept"]
        assert ours.mean == pytest.approx(intercept / fit.polynomial_reduced_ar.sum(), abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_forecasts_of_a_batch_are_those_of_the_kalman_filter_of_statsmodels_with_these_parameters(case):
    orders = CASES[case]
    both = series()
    estimates = [with_parameters(orders, strength) for strength in (0.2, 0.5, 0.8)]
    predictor = built(3)
    predictor._use(estimates, 40)
    windows = torch.tensor(np.stack([both[i : i + 40] for i in (0, 30, 60)]))
    outputs = predictor(windows)[0][:, -1].unflatten(1, (HORIZON, 3)).numpy()
    for c, estimate in enumerate(estimates):
        for row, window in enumerate(windows[:, :, c].numpy()):
            expected = diffuse_forecast(window - window[0], estimate) - (window[-1] - window[0])
            np.testing.assert_allclose(outputs[row, :, c], expected, atol=2e-3)


def with_parameters(orders, strength):
    """Every coefficient of the size of ``strength``, multiplied out."""

    def polynomial(n, seasonal_n, sign):
        season = np.zeros(seasonal_n * orders.period + 1)
        season[-1] = sign * strength / 2
        season[0] = 1.0
        return np.convolve([1.0, *[sign * strength / max(n, 1)] * n], season)

    ar, ma = polynomial(orders.p, orders.seasonal_p, -1), polynomial(orders.q, orders.seasonal_q, 1)
    return Estimate(orders, ar, ma, 0.3 if orders.constant else 0.0, 0.0)


def diffuse_forecast(values, estimate):
    """(HORIZON,) by statsmodels: the same model with an exact diffuse level, or differences."""
    orders = estimate.orders
    delta, level = orders.differences(), orders.d + orders.seasonal_d == 0
    # Multiplied out, the seasonal model is a plain one of higher order.
    model = SARIMAX(
        values,
        exog=np.ones_like(values) if level else None,
        order=(len(estimate.ar) - 1, 0, len(estimate.ma) - 1) if level else (0, 0, 0),
        mle_regression=False,
        trend=None,
        use_exact_diffuse=True,
    )
    if level:
        return model.filter([*-estimate.ar[1:], *estimate.ma[1:], 1.0]).forecast(HORIZON, exog=np.ones(HORIZON))
    differenced = np.convolve(values, delta, "valid") - estimate.mean
    plain = SARIMAX(differenced, order=(len(estimate.ar) - 1, 0, len(estimate.ma) - 1))
    ahead = plain.filter([*-estimate.ar[1:], *estimate.ma[1:], 1.0]).forecast(HORIZON) + estimate.mean
    known = list(values)
    for step in ahead:
        known.append(step - sum(delta[i] * known[-i] for i in range(1, len(delta))))
    return np.array(known[len(values) :])


def test_orders_and_season_of_a_simulated_series_are_found():
    rng = np.random.default_rng(1)
    n = 500
    errors, level = rng.normal(size=n), np.zeros(n)
    for t in range(1, n):
        level[t] = 0.7 * level[t - 1] + errors[t]
    values = (5 * np.resize(WEEK, n) + level)[:, None]
    predictor = built(max_models=8)
    predictor.fit(windows_of(values[:350], 42), windows_of(values[308:430], 42), torch.Generator())
    (estimate,) = predictor.estimates
    assert estimate.orders.period == 7 and estimate.orders.d + estimate.orders.seasonal_d == 1
    test = windows_of(values[388:], 42)
    errors = (predictor(test.inputs)[0] - test.targets)[test.scored]
    assert errors.square().mean() < 2 * np.var(level)


def test_varying_the_orders_does_not_raise_the_information_criterion():
    pieces = [series(200)[:, 0]]
    predictor = built(max_models=10)
    start = estimated(pieces, Orders(2, 0, 2))
    best = predictor._varied(pieces, start)
    assert best.aicc <= start.aicc
    assert isinstance(best, Estimate) and max(best.orders.p, best.orders.q) <= 3


def test_stretches_that_do_not_meet_are_estimated_together():
    values = series(400)[:, 0]
    whole = estimated([values], Orders(1, 0, 0))
    parts = estimated([values[:150] + 100, values[150:260], values[260:]], Orders(1, 0, 0))
    assert parts.ar[1] == pytest.approx(whole.ar[1], abs=0.1)
    assert [len(x) for x in shortened([np.ones(50), np.ones(40), np.ones(9)], 70)] == [50, 20]


def test_series_without_change_or_too_short_are_forecast_by_their_last_value():
    for values in (np.ones((80, 1)), np.random.default_rng(0).normal(size=(24, 1))):
        batch = windows_of(values, 12 if len(values) > 24 else 5)
        predictor = built()
        predictor.fit(batch, batch, torch.Generator())
        assert float(predictor(batch.inputs)[0][:, -1].abs().max()) < 1e-9


def test_what_it_cannot_do_is_refused():
    assert "their future" in ENTRY.refuses(RealInput(2), Classes(2), True)
    with pytest.raises(ValueError, match="channels"):
        ENTRY.build(RealInput(4), Real(6, "sequence", future=True), True, ArimaConfig())
    for wrong in ({"max_order": 0}, {"max_period": 1}, {"period": 0}, {"max_steps": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ArimaConfig(**wrong)
