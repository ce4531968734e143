"""A picture of one example of every task whose data are here."""

import pytest
from test_tasks import EVERY

from benchmarks.figures.task_figures import example
from benchmarks.tasks.registry import task


@pytest.mark.parametrize("name", EVERY)
def test_an_example_shows_inputs_and_what_must_come_out(name):
    built = task(name, {})
    figure = example(built)
    figure.draw_without_rendering()
    assert name in figure.get_suptitle()
    inputs = figure.axes[0]
    assert inputs.lines or inputs.images or inputs.texts
    below = figure.axes[1:]
    told = any("target" in ax.get_title(loc="right") for ax in figure.axes)
    ahead = any(line.get_label() == "target" for line in inputs.lines)
    drawn = any(ax.lines or ax.images or ax.texts for ax in below)
    assert [told, ahead, drawn].count(True) == 1
