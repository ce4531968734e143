"""Warping in a band against aeon's distances, and the classes of the nearest against a plain loop."""

import numpy as np
import pytest
import torch

from models import registry
from models.nearest_neighbour import ENTRIES, NearestNeighbourConfig, stretched, warped
from models.sequences import Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps, valid_steps

ENTRY = ENTRIES[0]


@pytest.fixture(scope="module")
def aeon():
    from aeon.distances.elastic import _bounding_matrix, _dtw

    return _bounding_matrix, _dtw


def batch_of(n, n_channels, longest, seed=0, n_classes=3):
    """Noisy waves of unequal length and random phase, faster in later classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    lengths = torch.randint(longest // 2, longest + 1, (n,), generator=generator)
    phase = torch.rand(n, 1, n_channels, generator=generator)
    speed = (0.2 + 0.2 * labels)[:, None, None]
    values = torch.sin(speed * torch.arange(longest)[:, None] + phase)
    values = values + 0.2 * torch.randn(n, longest, n_channels, generator=generator)
    values = (values * valid_steps(lengths, longest)[..., None]).double()
    return SequenceBatch(values, labels[:, None].expand(-1, longest), lengths, last_steps(lengths, longest))


def fitted(batch, n_channels, n_classes=3, **config):
    predictor = ENTRY.build(
        RealInput(n_channels), Classes(n_classes, "sequence"), False, NearestNeighbourConfig(**config)
    )
    predictor.fit(batch, batch, torch.Generator())
    return predictor


def bumps(n, seed):
    """A narrow bump up, down, or both, at a place that differs from sequence to sequence."""
    generator = torch.Generator().manual_seed(seed)
    labels, steps = torch.arange(n) % 3, torch.arange(60.0)
    places = 28 + torch.randint(-4, 5, (n, 1), generator=generator)
    up, down = (torch.exp(-0.5 * (steps - places - shift).square()) for shift in (0, 3))
    values = torch.where(labels[:, None] == 1, 0.0, up) - torch.where(labels[:, None] == 0, 0.0, down)
    values = (values + 0.05 * torch.randn(n, 60, generator=generator))[..., None].double()
    lengths = torch.full((n,), 60)
    return SequenceBatch(values, labels[:, None].expand(-1, 60), lengths, last_steps(lengths, 60))


def in_band(n, band):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= int(band * n)


def by_loop(x, y, allowed):
    """The least cost of a path over the allowed cells, from the definition."""
    costs = np.full((len(x) + 1, len(y) + 1), np.inf)
    costs[0, 0] = 0
    for i in range(len(x)):
        for j in range(len(y)):
            if allowed[i, j]:
                before = min(costs[i, j], costs[i, j + 1], costs[i + 1, j])
                costs[i + 1, j + 1] = np.square(x[i] - y[j]).sum() + before
    return costs[-1, -1]


@pytest.mark.parametrize("band", [0.0, 0.1, 0.34, 1.0])
@pytest.mark.parametrize("length", [2, 9, 13])
def test_distances_of_several_channels_are_those_of_aeon(aeon, length, band):
    bounding, dtw = aeon
    x, y = np.random.default_rng(0).normal(size=(2, 4, length, 3))
    found = warped(torch.from_numpy(x), torch.from_numpy(y), band)
    # py_func: the plain Python that aeon would otherwise compile
    allowed = bounding._sakoe_chiba_bounding.py_func(length, length, band)
    allowed = np.ones((length, length), dtype=bool) if band == 1 else allowed
    np.testing.assert_array_equal(allowed, in_band(length, band))
    for i in range(4):
        for j in range(4):
            assert float(found[i, j]) == pytest.approx(dtw._dtw_distance.py_func(x[i].T, y[j].T, allowed))
            assert float(found[i, j]) == pytest.approx(by_loop(x[i], y[j], allowed))


def test_without_a_band_the_distance_is_the_squared_euclidean_one():
    x = torch.randn(6, 20, 2, dtype=torch.float64)
    assert torch.allclose(warped(x, x, 0.0), torch.cdist(x.flatten(1), x.flatten(1)).square(), atol=1e-9)


def test_sequences_are_brought_to_one_length_as_adaptive_pooling_does_it():
    values = torch.randn(4, 12, 3, dtype=torch.float64)
    lengths = torch.tensor([12, 7, 5, 1])
    for n_steps in (5, 7, 12, 20):
        found = stretched(values, lengths, n_steps)
        for row, x, n in zip(found, values, lengths.tolist(), strict=True):
            expected = torch.nn.functional.adaptive_avg_pool1d(x[:n].T[None], n_steps)[0].T
            assert torch.allclose(row, expected, atol=1e-12)


@pytest.mark.parametrize("n_neighbours", [1, 3])
def test_the_answer_is_the_class_of_the_nearest_training_sequences(n_neighbours):
    train, test = batch_of(30, 2, 24), batch_of(12, 2, 24, seed=1)
    predictor = fitted(train, 2, band=0.2, n_neighbours=n_neighbours)
    outputs = predictor(test.inputs, None, test.lengths)[0][test.scored]
    valid = torch.cat([x[:n] for x, n in zip(train.inputs, train.lengths, strict=True)]).numpy()
    mean, deviation = valid.mean(0), valid.std(0)

    def rows(batch):
        return stretched((batch.inputs - torch.tensor(mean)) / torch.tensor(deviation), batch.lengths, 24).numpy()

    for output, x in zip(outputs, rows(test), strict=True):
        distances = [by_loop(x, y, in_band(24, 0.2)) for y in rows(train)]
        nearest = np.argsort(distances)[:n_neighbours]
        shares = np.bincount(train.targets[train.scored].numpy()[nearest], minlength=3) / n_neighbours
        np.testing.assert_allclose(output, float(predictor.scale) * shares, atol=1e-6)


def test_warping_and_its_confidence_are_learned_by_leaving_sequences_out():
    train, test = bumps(90, seed=0), bumps(90, seed=1)
    predictor = fitted(train, 1)
    outputs = predictor(test.inputs, None, test.lengths)[0][test.scored]
    labels = test.targets[test.scored]
    assert float(predictor.band) > 0
    assert (outputs.argmax(1) == labels).double().mean() > 0.9
    assert torch.nn.functional.cross_entropy(outputs, labels) < 0.6


def test_long_sequences_are_shortened_and_large_training_sets_thinned():
    batch = batch_of(20, 2, 24)
    predictor = fitted(batch, 2, max_steps=6, max_sequences=7)
    assert predictor.values.shape == (7, 6, 2)
    assert predictor.parameter_counts().backbone == 7 * 6 * 2
    assert fitted(batch, 2).values.shape == (20, int(batch.lengths.max()), 2)


def test_what_it_cannot_do_is_refused():
    assert "whole sequence" in ENTRY.refuses(RealInput(1), Classes(2, "step"), False)
    assert "one class" in ENTRY.refuses(RealInput(1), Real(2, "sequence"), False)
    assert "arrives" in ENTRY.refuses(TokenInput(4), Classes(2, "sequence"), True)
    with pytest.raises(ValueError, match="whole sequence"):
        registry.build(ENTRY, RealInput(1), Classes(2, "step"), False, NearestNeighbourConfig(), seed=0)
    for wrong in ({"band": 1.5}, {"n_neighbours": 0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NearestNeighbourConfig(**wrong)
