"""Warping in a band against aeon's distances, and the classes of the nearest against a plain loop."""

import numpy as np
import pytest
import torch

from models.nearest_neighbour import ENTRIES, NearestNeighbourConfig, in_band, warped
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
def test_bands_and_distances_of_several_channels_are_those_of_aeon(aeon, band):
    bounding, dtw = aeon
    rng = np.random.default_rng(0)
    lengths = [5, 9, 9, 14]
    sequences = [rng.normal(size=(n, 3)) for n in lengths]
    padded = torch.zeros(4, 14, 3, dtype=torch.float64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(sequence)
    found = warped(padded, torch.tensor(lengths), padded, torch.tensor(lengths), band)
    for i, x in enumerate(sequences):
        for j, y in enumerate(sequences):
            # py_func: the plain Python that aeon would otherwise compile
            if band < 1:
                allowed = bounding._sakoe_chiba_bounding.py_func(len(x), len(y), band)
            else:
                allowed = np.ones((len(x), len(y)), dtype=bool)
            np.testing.assert_array_equal(in_band(len(x), len(y), band), allowed)
            expected = by_loop(x, y, allowed)
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert float(warped(padded[1:2, :9], torch.tensor([9]), padded[2:3, :9], torch.tensor([9]), 0.34)) == pytest.approx(
        dtw._dtw_distance.py_func(sequences[1].T, sequences[2].T, bounding._sakoe_chiba_bounding.py_func(9, 9, 0.34))
    )


def test_without_a_band_equal_lengths_have_the_squared_euclidean_distance():
    x, lengths = torch.randn(6, 20, 2, dtype=torch.float64), torch.full((6,), 20)
    expected = torch.cdist(x.flatten(1), x.flatten(1)).square()
    assert torch.allclose(warped(x, lengths, x, lengths, 0.0), expected, atol=1e-9)


@pytest.mark.parametrize("n_neighbours", [1, 3])
def test_the_answer_is_the_class_of_the_nearest_training_sequences(n_neighbours):
    train, test = batch_of(30, 2, 24), batch_of(12, 2, 24, seed=1)
    predictor = fitted(train, 2, band=0.2, n_neighbours=n_neighbours)
    outputs = predictor(test.inputs, None, test.lengths)[0][test.scored]
    valid = torch.cat([x[:n] for x, n in zip(train.inputs, train.lengths, strict=True)]).numpy()
    mean, deviation = valid.mean(0), valid.std(0)

    def rows(batch):
        return [(x[:n].numpy() - mean) / deviation for x, n in zip(batch.inputs, batch.lengths, strict=True)]

    for output, x in zip(outputs, rows(test), strict=True):
        distances = [by_loop(x, y, in_band(len(x), len(y), 0.2)) for y in rows(train)]
        nearest = np.argsort(distances)[:n_neighbours]
        shares = np.bincount(train.targets[train.scored].numpy()[nearest], minlength=3) / n_neighbours
        np.testing.assert_allclose(output, float(predictor.scale) * shares, atol=1e-6)


def test_warping_and_its_confidence_are_learned_by_leaving_sequences_out():
    train, test = batch_of(90, 1, 60), batch_of(90, 1, 60, seed=1)
    predictor = fitted(train, 1)
    outputs = predictor(test.inputs, None, test.lengths)[0][test.scored]
    labels = test.targets[test.scored]
    assert float(predictor.band) > 0  # the phase differs, so steps must move
    assert (outputs.argmax(1) == labels).double().mean() > 0.9
    assert torch.nn.functional.cross_entropy(outputs, labels) < 0.6


def test_long_sequences_are_averaged_over_blocks_and_large_training_sets_thinned():
    batch = batch_of(20, 2, 24)
    predictor = fitted(batch, 2, max_steps=6, max_sequences=7)
    assert predictor.values.shape == (7, 6, 2)
    full = fitted(batch, 2)
    first = (batch.inputs[0] - predictor.mean) / predictor.deviation
    n = int(batch.lengths[0])
    expected = [first[:n][torch.arange(n) * 6 // n == block].mean(0) for block in range(6)]
    assert torch.allclose(predictor.values[0], torch.stack(expected))
    assert full.parameter_counts().backbone == int(batch.lengths.sum()) * 2


def test_what_it_cannot_do_is_refused():
    assert "whole sequence" in ENTRY.refuses(RealInput(1), Classes(2, "step"), False)
    assert "one class" in ENTRY.refuses(RealInput(1), Real(2, "sequence"), False)
    assert "arrives" in ENTRY.refuses(TokenInput(4), Classes(2, "sequence"), True)
    with pytest.raises(ValueError, match="whole sequence"):
        ENTRY.build(RealInput(1), Classes(2, "step"), False, NearestNeighbourConfig())
    for wrong in ({"band": 1.5}, {"n_neighbours": 0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NearestNeighbourConfig(**wrong)
