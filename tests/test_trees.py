"""Boosted trees: features against a plain loop, and ensembles against scikit-learn's on those features."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from models.sequences import (
    Binary,
    Classes,
    Real,
    RealInput,
    SequenceBatch,
    TokenInput,
    Transcript,
    last_steps,
    valid_steps,
)
from models.trees import ENTRIES, BoostedTreesConfig

ENTRY = ENTRIES[0]
WINDOW = 3


def built(inputs, target, **config):
    return ENTRY.build(
        inputs,
        target,
        True,
        BoostedTreesConfig(**{"window": WINDOW, "n_iterations": 150, "learning_rate": 0.5} | config),
    )


def lag(sequence, t, i, nothing=np.nan):
    return sequence[t - i] if t >= i else nothing


def features_of_values(sequence, future):
    """(T, C) → (T, F) by a plain loop."""
    rows = []
    for t in range(len(sequence)):
        now, so_far = sequence[t], sequence[: t + 1]
        lags = [lag(sequence, t, i, np.full_like(now, np.nan)) - now * (future and i > 0) for i in range(WINDOW)]
        levels = [x - now * future for x in (so_far[0], so_far.min(0), so_far.max(0), so_far.mean(0))]
        rows.append(np.concatenate([np.stack(lags, 1).ravel(), *levels, *shapes_of(so_far), [t + 1]]))
    return np.array(rows)  # lags channel by channel


def shapes_of(values):
    """(t, C) → standard deviation, slope, mean absolute change and lag-1 autocorrelation, (C,) each."""
    if len(values) == 1:
        return [np.zeros(values.shape[1])] * 4
    apart = values - values.mean(0)
    correlation = (apart[1:] * apart[:-1]).sum(0) / np.square(apart).sum(0)
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]
    return [values.std(0), slope, np.abs(np.diff(values, axis=0)).mean(0), correlation]


def features_of_symbols(sequence, vocabulary):
    rows = []
    for t in range(len(sequence)):
        lags = [lag(sequence, t, i) for i in range(WINDOW)]
        rows.append(np.concatenate([lags, np.bincount(sequence[: t + 1], minlength=vocabulary), [t + 1]]))
    return np.array(rows)


def random_batch(n, target, seed, spec=None):
    spec = spec or RealInput(2)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (n,), generator=generator)
    if isinstance(spec, RealInput):
        inputs = torch.randn(n, 8, 2, generator=generator)
        signal = inputs[..., 0] + inputs[..., 1].cumsum(1)
    else:
        inputs = torch.randint(spec.vocabulary, (n, 8), generator=generator)
        signal = (inputs - inputs.roll(1, 1)).float()
    noise = 0.3 * torch.randn(n, 8, target.n, generator=generator)
    if isinstance(target, Classes):
        targets = (signal > 0).long() + (signal > 1)
    else:
        targets = signal[..., None] * torch.arange(1, target.n + 1) + noise
        targets = (targets > 0).float() if isinstance(target, Binary) else targets
    return SequenceBatch(inputs, targets, lengths, valid_steps(lengths, 8))


@pytest.mark.parametrize("future", [False, True])
def test_features_of_values_are_those_of_a_plain_loop(future):
    predictor = built(RealInput(2), Real(2, future=future))
    inputs = 1000 + torch.randn(3, 7, 2, dtype=torch.float64)
    features, _ = predictor._features(inputs, predictor.initial_state(3), torch.full((3,), 7))
    expected = np.stack([features_of_values(sequence, future) for sequence in inputs.numpy()])
    np.testing.assert_allclose(features, expected, rtol=1e-10, atol=1e-10)


def test_a_sequence_without_change_has_no_slope_deviation_or_autocorrelation():
    predictor = built(RealInput(2), Real(1))
    features, _ = predictor._features(torch.full((1, 5, 2), 7.0), predictor.initial_state(1), torch.tensor([5]))
    assert torch.equal(features[0, 1:, -9:-1], torch.zeros(4, 8).double())


def test_classes_that_differ_in_spread_or_slope_beyond_the_window_are_separated():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    values = torch.randn(240, 60, 1, generator=generator) * torch.where(labels == 1, 2.0, 1.0)[:, None, None]
    values += torch.where(labels == 2, 0.05, 0.0)[:, None, None] * (torch.arange(60.0) - 29.5)[:, None]
    values -= values.mean(1, keepdim=True)
    lengths = torch.full((240,), 60)
    batch = SequenceBatch(values, labels[:, None].expand(-1, 60), lengths, last_steps(lengths, 60))
    train, test = batch.select(torch.arange(150)), batch.select(torch.arange(150, 240))
    predictor = built(RealInput(1), Classes(3, "sequence"), learning_rate=0.1)
    predictor.fit(train, test, torch.Generator().manual_seed(0))
    answers = predictor(test.inputs)[0][test.scored].argmax(1)
    assert (answers == test.targets[test.scored]).double().mean() > 0.95


def test_features_of_symbols_are_those_of_a_plain_loop():
    predictor = built(TokenInput(4), Classes(4))
    inputs = torch.randint(4, (3, 7))
    features, _ = predictor._features(inputs, predictor.initial_state(3), torch.full((3,), 7))
    expected = np.stack([features_of_symbols(sequence, 4) for sequence in inputs.numpy()])
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_features_are_the_same_to_the_last_bit_however_a_sequence_is_cut(scale):
    predictor = built(RealInput(2), Real(1))
    inputs = scale * torch.randn(4, 200, 2, dtype=torch.float64)
    whole, _ = predictor._features(inputs, predictor.initial_state(4), torch.full((4,), 200))
    for size in (1, 3, 64):
        state, parts = predictor.initial_state(4), []
        for chunk in inputs.split(size, 1):
            features, state = predictor._features(chunk, state, torch.full((4,), chunk.shape[1]))
            parts.append(features)
        assert torch.equal(torch.cat(parts, 1).nan_to_num(-1), whole.nan_to_num(-1))


def rows(batch, features):
    return np.concatenate([features(x[:n].numpy()) for x, n in zip(batch.inputs, batch.lengths, strict=True)])


def library(kind, train, validation, features, **options):
    """scikit-learn's own ensemble for each column of the targets, cut where the validation loss is least."""
    x, judged = rows(train, features), rows(validation, features)
    y, goal = (batch.targets[batch.scored].numpy() for batch in (train, validation))
    if y.ndim == 1:
        y, goal = y[:, None], goal[:, None]
    for column, wanted in zip(y.T, goal.T, strict=True):
        fit = (
            {"max_iter": 150, "learning_rate": 0.5, "min_samples_leaf": 10, "max_leaf_nodes": 7}
            | {"early_stopping": True, "l2_regularization": 1.0}
            | options
        )
        model = kind(**fit).fit(x, column, X_val=judged, y_val=wanted)
        n = int(np.argmax(model.validation_score_))
        assert 0 < n < 150
        staged = model.staged_predict if kind is HistGradientBoostingRegressor else model.staged_decision_function
        yield list(staged(judged))[n - 1]


@pytest.mark.parametrize(("target", "kind"), [
    (Real(2), HistGradientBoostingRegressor),
    (Binary(2), HistGradientBoostingClassifier),
])  # fmt: skip
def test_outputs_are_those_of_the_library_for_each_column(target, kind):
    train, validation = random_batch(60, target, 0), random_batch(40, target, 1)
    predictor = built(RealInput(2), target)
    predictor.fit(train, validation, torch.Generator().manual_seed(0))
    outputs = predictor(validation.inputs, None, validation.lengths)[0][validation.scored]
    expected = library(kind, train, validation, lambda x: features_of_values(x.astype(float), False))
    np.testing.assert_allclose(outputs, np.stack(list(expected), 1), rtol=1e-4, atol=1e-4)


def test_classes_of_symbols_are_those_of_the_library_with_lags_as_categories():
    spec, target = TokenInput(5), Classes(4)  # the fourth class never comes
    train, validation = random_batch(60, target, 0, spec), random_batch(40, target, 1, spec)
    predictor = built(spec, target)
    predictor.fit(train, validation, torch.Generator().manual_seed(0))
    outputs = predictor(validation.inputs, None, validation.lengths)[0][validation.scored]
    (expected,) = library(
        HistGradientBoostingClassifier,
        train,
        validation,
        lambda x: features_of_symbols(x, 5),
        categorical_features=[0, 1, 2],
    )
    np.testing.assert_allclose(outputs[:, :3], torch.tensor(expected).log_softmax(1), rtol=1e-4, atol=1e-4)
    rare = 0.5 / (int(train.scored.sum()) + 2)
    np.testing.assert_allclose(outputs[:, 3], np.log(rare), rtol=1e-6)


def test_trees_that_still_gained_when_their_number_ended_the_fit_are_capped():
    train, validation = random_batch(60, Real(1), 0), random_batch(40, Real(1), 1)
    for n_iterations, capped in ((1, True), (150, False)):
        predictor = built(RealInput(2), Real(1), n_iterations=n_iterations)
        predictor.fit(train, validation, torch.Generator().manual_seed(0))
        assert predictor.is_capped is capped


def test_two_classes_have_two_logits_and_one_alone_its_frequency():
    for n_seen in (2, 1):
        target = Classes(2, "sequence")
        batch = random_batch(40, Classes(3), 0)
        batch = SequenceBatch(batch.inputs, batch.targets.clamp(max=n_seen - 1), batch.lengths, batch.scored)
        predictor = built(RealInput(2), target)
        predictor.fit(batch, batch, torch.Generator().manual_seed(0))
        outputs = predictor(batch.inputs, None, batch.lengths)[0][batch.scored]
        assert torch.allclose(outputs.exp().sum(1), torch.ones(len(outputs)), atol=1e-5)
        accuracy = (outputs.argmax(1) == batch.targets[batch.scored]).double().mean()
        assert accuracy > 0.9 if n_seen == 2 else accuracy == 1


def test_an_answer_that_never_changes_is_its_base_rate():
    target = Binary(2)
    train = random_batch(20, target, 0)
    train.targets[..., 1] = 0
    predictor = built(RealInput(2), target)
    predictor.fit(train, train, torch.Generator().manual_seed(0))
    rate = 0.5 / (int(train.scored.sum()) + 1)
    expected = torch.full((20, 8), float(np.log(rate / (1 - rate))))
    assert torch.allclose(predictor(train.inputs)[0][..., 1], expected)


def test_one_rare_yes_does_not_make_a_leaf_that_is_all_but_certain():
    generator = torch.Generator().manual_seed(0)
    inputs, yes = torch.randn(150, 10, 2, generator=generator), torch.zeros(150, 10, 1)
    yes[0, 5] = 1  # one of 1,500 steps
    batch = SequenceBatch(inputs, yes, torch.full((150,), 10), torch.ones(150, 10, dtype=torch.bool))
    answers = {}
    for l2 in (0.0, 1.0):
        predictor = built(RealInput(2), Binary(1), learning_rate=0.1, n_iterations=1, l2=l2)
        predictor.fit(batch, batch.select(torch.tensor([1, 2])), torch.Generator().manual_seed(0))
        answers[l2] = float(predictor(batch.inputs)[0].sigmoid().max())
    assert answers[0.0] > 0.9 and answers[1.0] < 0.01


def test_a_tree_counts_its_values_its_features_and_its_thresholds():
    train = random_batch(60, Real(1), 0)
    predictor = built(RealInput(2), Real(1), n_iterations=3, max_leaves=2)
    predictor.fit(train, train, torch.Generator().manual_seed(0))
    assert predictor.parameter_counts().backbone == 3 * (2 + 2)


def test_many_steps_are_thinned_evenly():
    train = random_batch(40, Real(2), 0)
    n = int(train.scored.sum())
    predictor = built(RealInput(2), Real(2), max_targets=2 * 10)
    features, targets = predictor._steps(train)
    places = np.linspace(0, n - 1, 10).round().astype(int)
    expected = rows(train, lambda x: features_of_values(x.astype(float), False))[places]
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    np.testing.assert_array_equal(targets, train.targets[train.scored][places])


def test_what_it_cannot_do_is_refused():
    assert "transcript" in ENTRY.refuses(RealInput(2), Transcript(3), False)
    assert "255" in ENTRY.refuses(TokenInput(256), Classes(2), True)
    for wrong in ({"window": 0}, {"max_leaves": 1}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BoostedTreesConfig(**wrong)
