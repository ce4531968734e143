"""Inputs as a person sees them: images, clips and paths, and the commonest mistakes among many classes."""

import numpy as np
import pytest
import torch

from benchmarks.figures.drawing import drawing
from benchmarks.figures.vision_figures import WRONG, Seen, frames, images, mistakes, paths


@pytest.fixture
def ax():
    figure, (axes,) = drawing("figure", 1, (5, 4))
    yield axes
    figure.draw_without_rendering()


def seen(*shape: int) -> list[Seen]:
    """Four examples, the last of which is wrong."""
    values = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    return [Seen(x, "a", "b" if number == 3 else "a") for number, x in enumerate(values)]


@pytest.mark.parametrize("shape", [(9, 1), (3, 3)])
def test_an_image_is_its_pixels_row_by_row(ax, shape):
    examples = seen(*shape)
    images(ax, examples)
    np.testing.assert_array_equal(ax.images[1].get_array(), examples[1].inputs.reshape(3, 3))
    assert [text.get_text() for text in ax.texts] == ["a", "a", "a", "a,\npredicted b"]
    assert ax.texts[3].get_color() == WRONG


def test_a_clip_is_its_frames_evenly_spaced(ax):
    examples = seen(9, 4)
    frames(ax, examples)
    assert len(ax.images) == 4 * 5
    for image, step in zip(ax.images[5:10], (0, 2, 4, 6, 8), strict=True):
        np.testing.assert_array_equal(image.get_array(), examples[1].inputs[step].reshape(2, 2))


def test_a_path_is_broken_where_a_stroke_begins(ax):
    points = torch.tensor([[0.0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0]])
    paths(ax, [Seen(points, "a", "a"), Seen(points[:, :2], "a", "b")])
    lines = [np.asarray(line.get_xydata()) for line in ax.lines]
    assert [len(line) for line in lines] == [2, 2, 1, 4, 1]  # two strokes and a dot; one path and a dot
    np.testing.assert_allclose(lines[0][1] - lines[0][0], [0.75, 0])
    assert ax.lines[3].get_color() == WRONG


def test_one_point_is_a_path(ax):
    paths(ax, [Seen(torch.zeros(1, 2), "a", "a")])
    assert ax.lines


def test_mistakes_are_counted_and_right_answers_are_none(ax):
    mistakes(ax, ["a", "a", "a", "b"], ["b", "b", "a", "a"])
    assert [bar.get_width() for bar in ax.patches] == [2, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a, predicted b", "b, predicted a"]
