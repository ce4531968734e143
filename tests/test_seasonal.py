"""The seasonal naive forecast against a plain loop, and what is read from the windows of a series."""

import numpy as np
import pytest
import torch
from forecast_windows import HORIZON, WEEK, windows_of

from models.seasonal import ENTRIES, SeasonalNaiveConfig, joined, periods
from models.sequences import Classes, Real, RealInput, TokenInput

ENTRY = ENTRIES[0]


def built(n_channels, **config):
    target = Real(HORIZON * n_channels, "sequence", future=True)
    return ENTRY.build(RealInput(n_channels), target, False, SeasonalNaiveConfig(**config))


def by_hand(values, t, period, n_seasons):
    """(HORIZON,): the forecasts at step t of values (T,), less the value there."""
    forecasts = []
    for h in range(1, HORIZON + 1):
        places = [t + h - period * (-(-h // period) + j) for j in range(n_seasons)]
        found = [values[i] for i in places if i >= 0]
        forecasts.append((np.mean(found) if found else values[t]) - values[t])
    return np.array(forecasts)


@pytest.mark.parametrize("n_seasons", [1, 3])
@pytest.mark.parametrize("period", [1, 5, 11])
def test_forecasts_are_means_of_the_values_whole_seasons_before(period, n_seasons):
    values = np.random.default_rng(0).normal(size=(40, 2))
    outputs, _ = built(2, period=period, n_seasons=n_seasons)(torch.tensor(values)[None])
    # Nothing was fitted: the period of a new model is 1, one season.
    np.testing.assert_allclose(outputs[0], 0.0)
    predictor = built(2, period=period, n_seasons=n_seasons)
    batch = windows_of(values, 12)
    predictor.fit(batch, batch, torch.Generator())
    outputs = predictor(torch.tensor(values)[None])[0][0].unflatten(1, (HORIZON, 2))
    for t in range(40):
        for c in range(2):
            np.testing.assert_allclose(outputs[t, :, c], by_hand(values[:, c], t, period, n_seasons), atol=1e-12)


def test_validation_finds_the_season_of_each_channel_and_averages_where_there_is_noise():
    rng = np.random.default_rng(0)
    clean, noisy = np.tile(WEEK, 30) + 0.3 * np.arange(210), np.tile(WEEK, 30) + rng.normal(size=210)
    walk = rng.normal(size=210).cumsum()
    predictor = built(3)
    series = np.stack([clean, noisy, walk], 1)
    predictor.fit(windows_of(series[:150], 42), windows_of(series[100:], 42), torch.Generator())
    period, n_seasons = predictor.chosen.tolist()
    assert period[:2] == [7, 7]
    assert n_seasons[0] == 1 and n_seasons[1] > 2
    assert predictor.parameter_counts().backbone == 6
    assert period[2] * n_seasons[2] <= 4  # a random walk has no season


@pytest.mark.parametrize("stride", [1, 3])
def test_overlapping_windows_are_joined_to_the_series_that_they_were_cut_from(stride):
    series = np.random.default_rng(0).normal(size=(80, 2)).cumsum(0)
    batch = windows_of(series, 20, stride)
    (found,) = joined(batch.inputs.numpy())
    expected = series[: len(found)]
    assert len(found) == 20 + stride * (len(batch) - 1)
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-9)


def test_windows_of_other_series_or_with_little_overlap_are_left_apart():
    rng = np.random.default_rng(0)
    pieces = [windows_of(rng.normal(size=(n, 1)).cumsum(0), 20).inputs.numpy() for n in (40, 60)]
    assert [len(piece) for piece in joined(np.concatenate(pieces))] == [60 - HORIZON, 40 - HORIZON]
    sparse = windows_of(rng.normal(size=(100, 1)), 20, 15).inputs.numpy()
    assert [len(piece) for piece in joined(sparse)] == [20] * len(sparse)


def test_seasons_stand_out_against_a_wandering_level_and_smooth_ones_against_noise():
    rng = np.random.default_rng(0)
    wandering = np.tile(WEEK, 40) + rng.normal(size=280).cumsum()
    assert periods([wandering], 60)[0] == 7
    smooth = 3 * np.sin(2 * np.pi * np.arange(600) / 24) + rng.normal(size=600)
    assert 24 in periods([smooth], 60)
    assert periods([np.ones(50)], 20) == [1] * 4
    assert periods([WEEK[:3]], 60) == [1] * 4


def test_what_it_cannot_do_is_refused():
    future = Real(6, "sequence", future=True)
    assert "their future" in ENTRY.refuses(RealInput(2), Classes(2), True)
    assert "channels" in ENTRY.refuses(TokenInput(2), future, True)
    with pytest.raises(ValueError, match="channels"):
        ENTRY.build(RealInput(4), future, True, SeasonalNaiveConfig())
    for wrong in ({"period": 0}, {"n_seasons": 0}, {"max_period": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SeasonalNaiveConfig(**wrong)
