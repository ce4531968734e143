"""Ridge regression on the last steps against scikit-learn's on rows made by a plain loop."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from models.linear import ENTRIES, LinearConfig
from models.ridge import log_odds
from models.sequences import Binary, Classes, Real, RealInput, SequenceBatch, TokenInput, Transcript, valid_steps

ENTRY = ENTRIES[0]
WINDOW, LENGTH = 3, 9


def built(inputs, target, **config):
    return ENTRY.build(inputs, target, True, LinearConfig(**{"window": WINDOW} | config))


def batch_of(target, inputs, seed=0, n=60):
    """Sequences of unequal length whose answers follow from the last two steps, with noise."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH + 1, (n,), generator=generator)
    if isinstance(inputs, RealInput):
        values = torch.randn(n, LENGTH, 2, generator=generator).double() * torch.tensor([1.0, 50.0])
        signal = values[..., 0] - 0.02 * values[..., 1].roll(1, 1)
    else:
        values = torch.randint(inputs.vocabulary, (n, LENGTH), generator=generator)
        signal = (values - values.roll(1, 1)).double()
    signal = signal + 0.1 * torch.randn(n, LENGTH, generator=generator)
    if isinstance(target, Classes):
        targets = (signal > 0).long() + (signal > 1)
    else:
        targets = signal[..., None] * torch.arange(1.0, target.n + 1)
        targets = (targets > 0.5).double() if isinstance(target, Binary) else targets.double()
    return SequenceBatch(values, targets, lengths, valid_steps(lengths, LENGTH))


def rows_of(batch, future=False, vocabulary=None):
    """(N, W C): the last W steps of every scored step, newest first; before the beginning the first, or no symbol."""
    rows = []
    for sequence, n in zip(batch.inputs.numpy(), batch.lengths.tolist(), strict=True):
        for t in range(n):
            if vocabulary is None:
                steps = np.stack([sequence[max(0, t - lag)] for lag in range(WINDOW)])
                steps[1:] -= steps[0] * future
            else:
                steps = np.zeros((WINDOW, vocabulary))
                for lag in range(min(WINDOW, t + 1)):
                    steps[lag, sequence[t - lag]] = 1
            rows.append(steps.ravel())
    return np.array(rows)


def library(rows, goals):
    """scikit-learn's ridge regression of standardised rows, with the penalty that leaving one out prefers."""
    mean, deviation = rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1)
    scaled = (rows - mean) / deviation
    penalty = RidgeCV(np.logspace(-3, 3, 10), scoring="neg_mean_squared_error").fit(scaled, goals).alpha_
    model = Ridge(penalty).fit(scaled, goals)
    coefficients = model.coef_ / deviation  # (K, P)
    return coefficients, model.intercept_ - coefficients @ mean


@pytest.mark.parametrize("future", [False, True])
def test_each_coefficient_on_several_channels_is_that_of_the_library(future):
    inputs, target = RealInput(2), Real(4, future=future)
    batch = batch_of(target, inputs)
    predictor = built(inputs, target)
    predictor.fit(batch, batch, torch.Generator())
    coefficients, intercepts = library(rows_of(batch, future), batch.targets[batch.scored].numpy())
    expected = coefficients.reshape(4, WINDOW, 2).transpose(1, 2, 0).copy()  # (W, C, K)
    if future:
        expected[0] -= expected[1:].sum(0)  # of x_t itself: all differences are from it
    np.testing.assert_allclose(predictor.coefficients, expected, atol=1e-8)
    np.testing.assert_allclose(predictor.intercepts, intercepts, atol=1e-8)
    outputs = predictor(batch.inputs, None, batch.lengths)[0][batch.scored]
    np.testing.assert_allclose(outputs, rows_of(batch, future) @ coefficients.T + intercepts, atol=1e-8)


def test_log_odds_of_classes_are_the_librarys_values_but_for_one_scale():
    for inputs in (RealInput(2), TokenInput(4)):
        batch = batch_of(Classes(3), inputs)
        predictor = built(inputs, Classes(3))
        predictor.fit(batch, batch, torch.Generator())
        rows = rows_of(batch, vocabulary=None if isinstance(inputs, RealInput) else 4)
        answers = batch.targets[batch.scored]
        coefficients, intercepts = library(rows, 2.0 * np.eye(3)[answers.numpy()] - 1)
        outputs = predictor(batch.inputs, None, batch.lengths)[0][batch.scored].double()
        ratios = outputs.numpy() / (rows @ coefficients.T + intercepts)
        assert ratios.std() < 1e-3 * ratios.mean()
        assert (outputs.argmax(1) == answers).double().mean() > 0.65
        assert torch.nn.functional.cross_entropy(outputs, answers) < 0.75


def test_log_odds_of_yes_and_no_are_the_librarys_values_on_a_line_of_their_own():
    batch = batch_of(Binary(2), RealInput(2), n=200)
    predictor = built(RealInput(2), Binary(2))
    predictor.fit(batch, batch, torch.Generator())
    rows, answers = rows_of(batch), batch.targets[batch.scored].numpy()
    coefficients, intercepts = library(rows, 2 * answers - 1)
    values = rows @ coefficients.T + intercepts
    outputs = predictor(batch.inputs, None, batch.lengths)[0][batch.scored].numpy()
    for k in range(2):
        assert np.corrcoef(values[:, k], outputs[:, k])[0, 1] > 1 - 1e-9
        rate = 1 / (1 + np.exp(-outputs[:, k]))
        assert rate.mean() == pytest.approx(answers[:, k].mean(), abs=0.03)


def test_a_line_through_decision_values_gives_back_the_log_odds_that_made_the_answers():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 2))
    odds = values * [2.0, 0.5] + [1.0, -2.0]
    answers = (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(float)
    scale, shift = log_odds(values, answers)
    np.testing.assert_allclose(scale, [2.0, 0.5], atol=0.1)
    np.testing.assert_allclose(shift, [1.0, -2.0], atol=0.1)


def test_the_window_is_the_sequence_where_one_answer_is_asked_for_and_no_larger_than_features_allow():
    assert built(RealInput(2, 50), Real(1, "sequence"), window=None).window == 50
    assert built(RealInput(2, 50), Real(1), window=None).window == 32
    assert built(RealInput(2, None), Real(1, "sequence"), window=None).window == 32
    assert built(RealInput(2, 50), Real(1, "sequence"), window=None, max_features=30).window == 15
    assert built(TokenInput(40, 50), Real(1, "sequence"), window=None, max_features=30).window == 1


def test_many_steps_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr("models.linear.MAX_ROWS", 10)
    batch = batch_of(Real(2), RealInput(2))
    rows, targets = built(RealInput(2), Real(2))._rows(batch)
    places = np.linspace(0, int(batch.scored.sum()) - 1, 10).round().astype(int)
    np.testing.assert_allclose(rows, rows_of(batch)[places])
    np.testing.assert_allclose(targets, batch.targets[batch.scored][places])


def test_what_it_cannot_do_is_refused():
    assert "transcript" in ENTRY.refuses(RealInput(2), Transcript(3), False)
    assert "1024" in ENTRY.refuses(TokenInput(2000), Classes(2), True)
    for wrong in ({"window": 0}, {"max_features": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LinearConfig(**wrong)
