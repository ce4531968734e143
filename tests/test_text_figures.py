"""Pictures of trials on text: that each is drawn, with the text of its task on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import datasets
from benchmarks.experiment import Experiment, prepare
from benchmarks.figures import task_figures, trial_figures
from benchmarks.figures.text_figures import shown, spelt
from benchmarks.tasks.registry import TASKS

DRAWN = {
    "answers": ("number_words", {"largest": 99, "n_train": 50, "n_validation": 10, "n_test": 20}),
    "continuation": ("characters", {"n_train": 4_000, "n_validation": 2_000}),
    "short continuation": ("names", {"n_train": 200}),
    "tags": ("pos_ewt_small", {}),
    "confusion": ("surnames", {}),
}


def texts(figure: object) -> str:
    """All that is written in the axes."""
    return "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)  # type: ignore[attr-defined]


def evaluated(folder: Path, picture: str) -> Experiment:
    name, parameters = DRAWN[picture]
    if not all(map(datasets.is_here, TASKS[name].datasets)):
        pytest.skip(f"RNNBENCH_DATA lacks the data of {name}")
    fit = {"n_steps": 2, "evaluate_every": 2, "batch_size": 32}
    experiment = prepare(name, "lstm", 0, 500, "cpu", parameters, fit=fit, run_folder=str(folder))
    experiment.fit()
    experiment.evaluate()
    return experiment


@pytest.mark.parametrize("picture", DRAWN)
def test_a_trial_on_text_is_drawn_with_its_text(tmp_path: Path, picture: str) -> None:
    experiment = evaluated(tmp_path, picture)
    assert experiment.task.picture in picture
    figure = trial_figures.answers(experiment)
    figure.canvas.draw()
    assert figure.get_suptitle()
    test, names = experiment.splits.test, experiment.task.input_symbols
    assert names is not None
    if picture == "answers":
        n_asked = int(test.scored[0].int().argmax())
        assert spelt(names, test.inputs[0, :n_asked].tolist()) in texts(figure)
    elif picture == "continuation":
        first_line = spelt(names, test.inputs[0, :60].tolist()).split("\n")
        assert all(shown(line) in texts(figure) for line in first_line)
    elif picture == "tags":
        assert {"PUNCT", "NOUN"} & set(texts(figure).split("\n"))
    elif picture == "confusion":
        assert "predicted" in texts(figure) and "<" in texts(figure)


def test_an_example_of_a_task_on_text_shows_its_symbols() -> None:
    from benchmarks.tasks.registry import task

    figure = task_figures.example(task(*DRAWN["answers"]))
    figure.canvas.draw()
    assert "<sep>" in texts(figure) and "<stop>" in texts(figure)


def test_characters_are_joined_and_words_are_set_apart() -> None:
    assert spelt(("a", "b", "<stop>"), [0, 1, 2]) == "ab<stop>"
    assert spelt(("zwei", "und", "<stop>"), [0, 1]) == "zwei und"
    assert shown("a\n$") == r"a↵\$"
