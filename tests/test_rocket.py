"""MiniRocket against aeon's, and its ridge regression against refitting without each row."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from models.ridge import confidence, ridge
from models.rocket import ENTRIES, MiniRocketConfig, PositiveShares, dilations, quantiles_of, shifted
from models.sequences import Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps

ENTRY = ENTRIES[0]


@pytest.fixture(scope="module")
def aeon():
    from aeon.transformations.collection.convolution_based import _minirocket

    return _minirocket


def sequences(inputs, targets, lengths=None):
    n, longest = inputs.shape[:2]
    lengths = torch.full((n,), longest) if lengths is None else lengths
    scored = last_steps(lengths, longest)
    placed = torch.zeros(n, longest, *targets.shape[1:], dtype=targets.dtype)
    placed[scored] = targets
    return SequenceBatch(inputs, placed, lengths, scored)


def fitted(inputs, target, batch, **config):
    predictor = ENTRY.build(inputs, target, False, MiniRocketConfig(n_features=504, **config))
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    return predictor


def waves(n, generator):
    """Noisy sine waves of random phase and length, faster in class 1."""
    labels = torch.arange(n) % 2
    steps = torch.arange(60.0)
    phase = 6.28 * torch.rand(n, 1, generator=generator)
    values = torch.sin((0.5 + 0.2 * labels[:, None]) * steps + phase) + 0.5 * torch.randn(n, 60, generator=generator)
    lengths = torch.randint(40, 61, (n,), generator=generator)
    return sequences(values[..., None], labels, lengths)


@pytest.mark.parametrize("longest", [9, 20, 333])
@pytest.mark.parametrize("n_features", [84, 2016, 9996])
def test_dilations_are_those_of_aeon(aeon, longest, n_features):
    expected = aeon._fit_dilations(longest, n_features, 32)
    found = dilations(longest, n_features // 84, 32)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_features_and_biases_are_those_of_aeon_where_it_draws_the_same_channels(aeon, n_channels):
    generator = torch.Generator().manual_seed(n_channels)
    inputs = torch.randint(-999, 999, (3, n_channels, 30), generator=generator).double()  # exact in aeon's float32 too
    lengths = torch.full((3,), 30)
    shares = PositiveShares(n_channels)
    shares.fit(inputs[:1], lengths[:1], MiniRocketConfig(n_features=336), generator)
    chosen = [weight[:, :, 0].nonzero() for weight in shares.weights]  # kernel and channel, kernel by kernel
    sizes = np.concatenate([pairs[:, 0].bincount(minlength=84).numpy() for pairs in chosen]).astype(np.int32)
    channels = torch.cat([pairs[:, 1] for pairs in chosen]).numpy().astype(np.int32)
    spacing, counts = dilations(30, 4, 32)
    values, indices = inputs.numpy().astype(np.float32), aeon.MiniRocket._indices
    # py_func: the plain Python that aeon would otherwise compile, for a minute
    biases = aeon._fit_biases.py_func(values[:1], sizes, channels, spacing, counts, aeon._quantiles(336), indices, None)
    ours = torch.cat([bias.flatten() for bias in shares.biases]).numpy()
    np.testing.assert_allclose(ours, biases, atol=0.05)  # aeon's quantile levels are float32, the values' range 10⁴
    parameters = (sizes, channels, spacing, counts, np.floor(ours).astype(np.float32) + 0.5)
    transform = aeon._static_transform_uni if n_channels == 1 else aeon._static_transform_multi
    expected = transform.py_func(values[:, 0] if n_channels == 1 else values, parameters, indices)
    for bias in shares.biases:
        bias.data.floor_().add_(0.5)
    np.testing.assert_allclose(shares(inputs, lengths).numpy(), expected, atol=1e-6)


def test_shifts_and_a_product_are_a_convolution():
    inputs, weight = torch.randn(2, 3, 20, dtype=torch.float64), torch.randn(5, 3, 9, dtype=torch.float64)
    expected = torch.nn.functional.conv1d(inputs, weight, padding=8, dilation=2)
    assert torch.allclose(weight.flatten(1) @ shifted(inputs, 2), expected)


def test_quantiles_are_taken_over_valid_steps():
    sums, levels = torch.randn(84, 12, dtype=torch.float64), torch.rand(84, 2, dtype=torch.float64)
    lengths = torch.randint(1, 13, (84,))
    expected = [np.quantile(row[:n], level) for row, n, level in zip(sums, lengths, levels, strict=True)]
    np.testing.assert_allclose(quantiles_of(sums, lengths, levels), expected)


def test_each_coefficient_on_several_channels_is_that_of_the_library():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(40, 30, 3, generator=generator), torch.arange(40) % 3
    inputs[..., 1] += labels[:, None] * torch.sin(torch.arange(30.0))
    predictor = fitted(RealInput(3), Classes(3, "sequence"), sequences(inputs, labels))
    signals, _, lengths = predictor._signals(inputs, torch.full((40,), 30))
    features = predictor._features(signals, lengths).numpy()
    deviation = np.where(features.std(0) > 0, features.std(0), 1)
    scaled = (features - features.mean(0)) / deviation
    goals = 2.0 * np.eye(3)[labels] - 1
    model = RidgeCV(np.logspace(-3, 3, 10), scoring="neg_mean_squared_error").fit(scaled, goals)
    _, _, held_out = ridge(features, goals)
    scale = confidence(held_out, labels.numpy())
    expected = scale * model.coef_.T / deviation[:, None]
    np.testing.assert_allclose(predictor.coefficients, expected, atol=1e-9)
    intercepts = scale * model.intercept_ - features.mean(0) @ expected
    np.testing.assert_allclose(predictor.intercepts, intercepts, atol=1e-9)


@pytest.mark.parametrize("n_goals", [1, 3])
def test_leaving_one_out_by_formula_is_refitting_without_it(n_goals):
    rng = np.random.default_rng(0)
    features, goals = rng.normal(size=(12, 5)), rng.normal(size=(12, n_goals))
    coefficients, intercepts, held_out = ridge(features, goals)
    scaled = (features - features.mean(0)) / features.std(0)

    def refitted(strength):
        others = [np.arange(12) != i for i in range(12)]
        return np.stack(
            [Ridge(strength).fit(scaled[keep], goals[keep]).predict(scaled[~keep]).reshape(-1) for keep in others]
        )

    strengths = np.logspace(-3, 3, 10)
    best = min(strengths, key=lambda strength: np.square(refitted(strength) - goals).mean())
    np.testing.assert_allclose(held_out, refitted(best), atol=1e-9)
    expected = Ridge(best).fit(scaled, goals).predict(scaled).reshape(12, -1)
    np.testing.assert_allclose(features @ coefficients + intercepts, expected, atol=1e-9)


def test_confidence_is_the_likeliest_scale_but_for_one_sequence_of_unknown_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    scores = 2 * np.eye(3)[labels] + rng.normal(size=(2000, 3))  # so that log p(k | score) = 2 score_k + constant
    assert confidence(scores, labels) == pytest.approx(2, rel=0.1)
    separate = 2 * np.eye(3)[np.arange(30) % 3] - 1  # thirty, without an error
    odds = np.exp(2 * confidence(separate, np.arange(30) % 3))
    assert odds == pytest.approx((30 + 1 / 3) / (1 / 3), rel=1e-2)


def test_frequencies_are_told_apart_with_honest_confidence():
    generator = torch.Generator().manual_seed(0)
    train, test = waves(60, generator), waves(200, generator)
    predictor = fitted(RealInput(1), Classes(3, "sequence"), train)  # a third class never comes
    outputs = predictor(test.inputs, None, test.lengths)[0][test.scored]
    labels = test.targets[test.scored]
    assert outputs.isfinite().all()
    assert (outputs.argmax(1) == labels).double().mean() > 0.95
    assert torch.nn.functional.cross_entropy(outputs, labels) < 0.15


def test_forecasts_do_not_depend_on_level_and_scale_with_the_amplitude():
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(-99, 99, (20, 30, 1), generator=generator).double()
    futures = torch.randn(20, 3, generator=generator).double()
    predictor = fitted(RealInput(1), Real(3, "sequence", future=True), sequences(windows, futures))
    answers = predictor(windows)[0][:, -1]
    assert answers.abs().max() > 0
    assert torch.allclose(predictor(4 * windows + 1000)[0][:, -1], 4 * answers, rtol=1e-12)


def test_a_long_training_set_is_thinned_evenly():
    train = sequences(torch.randn(101, 30, 1), torch.arange(101) % 2)
    few = train.select(torch.arange(0, 101, 10))
    whole = fitted(RealInput(1), Classes(2, "sequence"), train, max_sequences=11)
    part = fitted(RealInput(1), Classes(2, "sequence"), few)
    assert torch.equal(whole(train.inputs)[0], part(train.inputs)[0])


def test_what_it_cannot_do_is_refused():
    assert "every step" in ENTRY.refuses(RealInput(1), Classes(2, "step"), False)
    assert "symbols" in ENTRY.refuses(TokenInput(4), Real(4, "sequence", future=True), False)
    assert "whole sequence" in ENTRY.refuses(RealInput(1), Classes(2, "sequence"), True)
    with pytest.raises(ValueError, match="multiple of 84"):
        MiniRocketConfig(n_features=1000)
