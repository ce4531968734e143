"""Pens and few-shot streams: what the files hold, resampled strokes, and streams read again in plain Python."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import few_shot, pen
from benchmarks.tasks.registry import task


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not datasets.is_here(name), reason=f"{name} is not in RNNBENCH_DATA")


@needs("pendigits_uci")
def test_pendigits_has_the_counts_that_its_file_tells_and_no_digit_twice() -> None:
    development, test = pen.digit_strokes()
    assert np.bincount(development.labels).tolist() == [780, 779, 780, 719, 780, 720, 720, 778, 719, 719]
    assert np.bincount(test.labels).tolist() == [363, 364, 364, 336, 364, 335, 336, 364, 336, 336]
    points = np.concatenate([development.values, test.values]).reshape(10_992, -1)
    assert len(np.unique(points, axis=0)) == 10_992 and points.min() == 0 and points.max() == 100


@needs("pendigits_uci")
def test_the_nearest_neighbour_is_right_as_often_as_the_file_tells() -> None:
    reference = task("pendigits", {}).reference
    assert reference is not None and round(100 * reference.value, 2) == 97.74


def test_squared_distances_are_those_of_each_pair() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 100, (4, 8, 2)), generator.integers(0, 100, (3, 8, 2))
    expected = [[((x - y) ** 2).sum() for y in b] for x in a]
    np.testing.assert_array_equal(pen.squared_distances(a, b), expected)


def test_points_are_shared_out_by_length_and_evenly_spaced_along_each_stroke() -> None:
    line, dot, corner = np.array([[0.0, 0], [6, 0]]), np.array([[3.0, 1]]), np.array([[0.0, 0], [0, 3], [3, 3]])
    points = pen.resampled((line, dot, corner), 9)
    assert points[:, 2].tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 0]  # 3 of their own, 6 shared as 3 : 0 : 3
    drawn = points[:, :2] * 3 + [3, 1.5]  # the longer side, 6, is -1 … 1 around the middle
    np.testing.assert_allclose(drawn[:4], [[0, 0], [2, 0], [4, 0], [6, 0]], atol=1e-12)
    np.testing.assert_allclose(drawn[4:], [[3, 1], [0, 0], [0, 2], [1, 3], [3, 3]], atol=1e-12)
    with pytest.raises(ValueError, match="3 strokes do not fit into 2 points"):
        pen.resampled((line, dot, corner), 2)


@settings(max_examples=100, deadline=None)
@given(
    strokes=st.lists(
        st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=6), min_size=1, max_size=6
    ),
    n=st.integers(6, 40),
)
def test_whatever_is_drawn_is_n_finite_points_within_the_square_and_every_stroke_is_there(
    strokes: list[list[tuple[float, float]]], n: int
) -> None:
    points = pen.resampled(tuple(np.array(stroke) for stroke in strokes), n)
    assert points.shape == (n, 3) and np.isfinite(points).all()
    assert points[0, 2] == 1 and points[:, 2].sum() == len(strokes)
    assert np.abs(points[:, :2]).max() <= 1 + 1e-9


@needs("omniglot_strokes_small1")
def test_omniglot_holds_136_characters_each_by_20_drawers() -> None:
    drawings = pen.drawings()
    assert len(drawings) == 2_720
    characters = Counter((drawing.alphabet, drawing.character) for drawing in drawings)
    assert set(characters.values()) == {20} and len(characters) == 136
    assert Counter(alphabet for alphabet, _ in characters) == pen.ALPHABETS
    names = [f"{alphabet} {character.removeprefix('character')}" for alphabet, character in characters]
    assert tuple(names) == pen.OmniglotStrokes.symbols
    assert max(len(drawing.strokes) for drawing in drawings) == pen.MOST_STROKES
    assert [drawing.drawer for drawing in drawings] == list(range(1, 21)) * 136


@needs("omniglot_strokes_small1")
def test_no_drawer_of_an_alphabet_is_in_two_splits() -> None:
    splits, drawings = task("omniglot_strokes", {}).splits(0), pen.drawings()
    assert [len(split) for split in splits] == [14 * 136, 3 * 136, 3 * 136]
    bounds = [(1, 14), (15, 17), (18, 20)]
    for split, (first, last) in zip(splits, bounds, strict=True):
        rows = [i for i, drawing in enumerate(drawings) if first <= drawing.drawer <= last]
        np.testing.assert_array_equal(split.inputs, pen.resampled_drawings(32)[rows].astype(np.float32))
        for row, label in zip(rows, split.targets[:, -1].tolist(), strict=True):
            name = f"{drawings[row].alphabet} {drawings[row].character.removeprefix('character')}"
            assert pen.OmniglotStrokes.symbols[label] == name


@needs("omniglot_strokes_small1")
def test_no_character_is_in_streams_of_two_splits() -> None:
    built = task("few_shot", {"n_train": 300, "n_validation": 100, "n_test": 100})
    drawings = pen.drawings()
    where = {points.tobytes(): i for i, points in enumerate(few_shot.embedded_drawings(16))}
    alphabets = []
    for split in built.splits(0):
        shown = [[where[step[:32].numpy().tobytes()] for step in stream] for stream in split.inputs]
        assert all(len({drawings[i].alphabet for i in stream}) == 1 for stream in shown)
        alphabets.append({drawings[i].alphabet for stream in shown for i in stream})
    places, _ = few_shot.FewShot().streams(few_shot.TRAINING, 200, np.random.default_rng(0))
    assert all(len(set(stream)) == 20 for stream in places.tolist())  # no drawing twice
    assert alphabets == [{"Balinese", "Greek", "Latin"}, {"Early Aramaic"}, {"Korean"}]


@needs("omniglot_strokes_small1")
def test_a_stream_tells_every_label_a_step_late_and_asks_what_has_been_shown() -> None:
    built = task("few_shot", {"n_ways": 3, "n_shots": 2, "n_queries": 2, "n_train": 50})
    drawings = pen.drawings()
    where = {points.tobytes(): i for i, points in enumerate(few_shot.embedded_drawings(16))}
    names_of_label: dict[int, set] = {0: set(), 1: set(), 2: set()}
    batch = built.splits(0).train
    for inputs, targets, scored in zip(batch.inputs, batch.targets.tolist(), batch.scored.tolist(), strict=True):
        shown = [drawings[where[step[:32].numpy().tobytes()]] for step in inputs]
        bound: dict[int, str] = {}
        seen: Counter = Counter()
        for t, (drawing, label) in enumerate(zip(shown, targets, strict=True)):
            told = [0, 0, 0]
            if t:
                told[targets[t - 1]] = 1
            assert inputs[t, 32:].tolist() == told
            assert bound.setdefault(label, drawing.character) == drawing.character
            assert scored[t] == (seen[label] >= 2)
            seen[label] += 1
            names_of_label[label].add((drawing.alphabet, drawing.character))
        assert seen == {0: 4, 1: 4, 2: 4} and len(set(bound.values())) == 3
    assert names_of_label[0] & names_of_label[1] & names_of_label[2]  # a character has now this label, now that


@needs("omniglot_strokes_small1")
def test_the_reference_of_few_shot_is_the_label_of_the_nearest_drawing_searched_plainly() -> None:
    built = task("few_shot", {"n_train": 1, "n_validation": 1, "n_test": 20})
    test = built.splits(0).test
    right = []
    for inputs, targets, scored in zip(test.inputs.double().numpy(), test.targets.tolist(), test.scored, strict=True):
        for t in scored.nonzero()[:, 0].tolist():
            nearest = ((inputs[:t, :32] - inputs[t, :32]) ** 2).sum(1).argmin()
            right.append(targets[nearest] == targets[t])
    assert built.reference is not None and built.reference.value == pytest.approx(np.mean(right), abs=1e-9)


def test_the_nearest_label_of_a_first_drawing_is_none() -> None:
    assert few_shot.nearest_labels(
        few_shot.SequenceBatch(
            torch.tensor([[[0.0], [5], [1]]]),
            torch.tensor([[2, 1, 2]]),
            torch.tensor([3]),
            torch.ones(1, 3, dtype=torch.bool),
        ),
        1,
    ).tolist() == [[0, 2, 2]]


@needs("omniglot_strokes_small1")
def test_the_floor_of_few_shot_is_one_in_n_ways() -> None:
    for n_ways in (2, 5):
        built = task("few_shot", {"n_ways": n_ways, "n_test": 4_000, "n_train": 4_000})
        assert built.floor(0) == pytest.approx(1 / n_ways, abs=0.015)


@needs("omniglot_strokes_small1")
@pytest.mark.parametrize(
    "parameters", [{"n_ways": 22, "n_shots": 19, "n_queries": 1}, {"n_ways": 2, "n_queries": 1, "n_points": 2}]
)
def test_extreme_streams_work(parameters: dict) -> None:
    built = task("few_shot", parameters | {"n_train": 3, "n_validation": 3, "n_test": 3})
    for batch in built.splits(0):
        batch.validate()
        assert bool(batch.scored.any(1).all())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("few_shot", {"n_ways": 23}, "n_ways must be at most 22, got 23"),
        ("few_shot", {"n_shots": 18}, r"n_shots \+ n_queries must be at most 20"),
        ("few_shot", {"n_ways": 1}, "n_ways must be an integer of at least 2"),
        ("omniglot_strokes", {"n_points": 28}, "n_points must be an integer of at least 29"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name}: {message}"):
        task(name, parameters)
