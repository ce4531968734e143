"""The report's figures and those of one trial: that they draw, say what is true, and overlap nothing."""

from __future__ import annotations

import pandas as pd
import pytest
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from synthetic_runs import trials, write_failure, write_mixed, write_run

from benchmarks import overall, tables
from benchmarks.experiment import prepare
from benchmarks.figures import drawing, overall_figures, report_figures, trial_figures
from benchmarks.figures.drawing import FAMILIES, LINES, Drawing, bounds, styles
from benchmarks.records import Status

PICTURES = {
    "confusion": ("japanese_vowels", {}),
    "forecast": ("co2", {}),
    "scatter": ("adding", {"length": 6, "n_train": 200, "n_validation": 50, "n_test": 50}),
    "symbols": ("recall", {"n_items": 2, "delay": 3, "n_train": 200, "n_validation": 50, "n_test": 50}),
}


def draw_all(frame, results):
    matrix, field, look = tables.matrix(frame), overall.field(frame), styles(frame)
    drawn = [
        overall_figures.aggregates(field, look),
        overall_figures.critical_difference(field, look),
        overall_figures.pairs(field),
        report_figures.status_overview(frame),
        report_figures.scores(frame, matrix),
        report_figures.score_against(matrix, list(report_figures.COSTS)),
        report_figures.learning_curves(frame, report_figures.read_curves(frame, results)),
        report_figures.length_sweep(frame),
    ]
    for figure in drawn:
        if figure is not None:
            figure.draw_without_rendering()
    return drawn


def overlapping_texts(figure):
    """Pairs of visible labels, among those that we place ourselves, whose boxes share more than a hair."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer).shrunk(0.9, 0.7))
        for ax in figure.axes
        for text in [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
        if text.get_text().strip() and text.get_visible()
    ]
    return [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]


@pytest.fixture
def mixed(tmp_path):
    planned = trials(n_seeds=2)
    write_mixed(tmp_path, planned)
    return tables.frame(tmp_path, planned)


def test_the_colours_are_those_of_seaborns_palette_for_the_colour_blind():
    assert list(drawing._PALETTE) == sns.color_palette("colorblind").as_hex()


def test_all_figures_draw_a_suite_with_all_that_can_happen(mixed, tmp_path):
    assert all(isinstance(figure, Drawing) for figure in draw_all(mixed, tmp_path))


def test_ten_model_names_do_not_overlap(mixed, tmp_path):
    figure = report_figures.length_sweep(mixed)
    names = set(mixed["model"])
    assert [pair for pair in overlapping_texts(figure) if names & set(pair)] == []


def test_figures_without_any_result_say_so(tmp_path):
    planned = trials(("lstm",), ("adding", "parity"), 2)
    *drawn, sweep = draw_all(tables.frame(tmp_path, planned), tmp_path)
    assert sweep is None
    assert all(figure.get_suptitle() for figure in drawn)
    assert not any("0 of" in figure.get_suptitle() for figure in drawn[:-1])


@pytest.mark.parametrize("n", [0, 1])
def test_figures_of_no_trial_and_of_one_draw(tmp_path, n):
    planned = trials(("lstm",), ("adding",), 1)[:n]
    for trial in planned:
        write_run(tmp_path, trial)
    *drawn, _ = draw_all(tables.frame(tmp_path, planned), tmp_path)
    assert all(figure.get_suptitle() for figure in drawn)


def test_figures_of_failures_alone_draw(tmp_path):
    planned = trials(("lstm", "gru"), ("adding",), 2)
    for trial in planned:
        write_failure(tmp_path, trial, Status.ERROR, "ValueError: no")
    *drawn, sweep = draw_all(tables.frame(tmp_path, planned), tmp_path)
    assert sweep is None and all(figure.get_suptitle() for figure in drawn)


def test_families_have_colours_of_their_own_and_models_of_one_family_differ():
    assert len({to_rgb(colour) for colour in FAMILIES.values()}) == len(FAMILIES)
    names = [f"m{index}" for index in range(33)]
    look = styles(pd.DataFrame({"model": names, "family": ["recurrent", "attention", "a plug-in's"] * 11}))
    assert len({look[name] for name in names[::3]}) == 11


def test_tuned_models_get_the_clearest_lines_and_keep_their_places():
    names = [f"{model}{tuned}" for model in ("rnn", "lstm", "gru", "bilstm", "deep_lstm") for tuned in ("", " tuned")]
    look = styles(pd.DataFrame({"model": names, "family": "recurrent"}))
    assert list(look) == names
    assert [look[name].line for name in names[1::2]] == list(LINES[:5])


def test_an_axis_of_errors_is_logarithmic_only_where_they_span_magnitudes():
    assert bounds([0.2, 0.0001], "lower")[0]
    assert not bounds([0.2, 0.1], "lower")[0]
    assert not bounds([0.9, 0.001], "higher")[0]
    assert bounds([], "lower") == (False, 0.0, 1.0)


def test_the_message_names_the_model_that_learns_first(tmp_path):
    planned = trials(("lstm", "gru"), ("recall",), 2)
    for trial in planned:
        write_run(tmp_path, trial, 0.999 if trial.model == "gru" else 0.1)
    frame = tables.frame(tmp_path, planned)
    figure = report_figures.learning_curves(frame, report_figures.read_curves(frame, tmp_path))
    assert figure.get_suptitle().startswith("In steps, gru is first")


@pytest.mark.parametrize("picture", PICTURES)
def test_a_trial_is_drawn_in_the_way_its_task_asks_for(tmp_path, picture):
    task, parameters = PICTURES[picture]
    experiment = prepare(
        task, "lstm", 0, 500, "cpu", parameters, fit={"n_steps": 4, "evaluate_every": 2}, run_folder=str(tmp_path)
    )
    assert experiment.task.picture == picture
    experiment.fit()
    experiment.evaluate()
    for figure in (trial_figures.learning_curve(experiment), trial_figures.answers(experiment)):
        figure.canvas.draw()
        assert figure.get_suptitle()
    assert trial_figures.length_sweep(experiment) is None
    assert experiment.task.metrics[0].name in " ".join(trial_figures.summary(experiment).index)
    experiment.finish()
    assert experiment.trial.id in set(trial_figures.provenance(experiment)["value"])


def test_a_drawing_shows_itself_once_with_its_title_as_alternative_text(mixed):
    data, metadata = report_figures.status_overview(mixed)._repr_mimebundle_()
    assert set(data) == {"image/png"}
    assert "100 trials" in metadata["image/png"]["alt"]


def test_a_seed_that_stopped_early_keeps_its_last_value(tmp_path):
    planned = trials(("lstm",), ("recall",), 2)
    for trial in planned:
        write_run(tmp_path, trial)
    frame = tables.frame(tmp_path, planned)
    path = tmp_path / "runs" / planned[0].id / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    curve = report_figures.read_curves(frame, tmp_path)["recall", "lstm"]
    assert curve[0].iloc[-1] == curve[0].iloc[2]
    assert len(curve) == 10


def test_a_sweep_tells_who_keeps_the_rule(tmp_path):
    planned = trials(("lstm", "gru"), ("parity",), 2)
    for trial in planned:
        result = write_run(tmp_path, trial, 1.0)
        if trial.model == "lstm":
            write_run(tmp_path, trial, 1.0, length_sweep=dict.fromkeys(result.length_sweep, 1.0))
    figure = report_figures.length_sweep(tables.frame(tmp_path, planned))
    assert figure.get_suptitle() == "parity at 5 times the trained length is solved by lstm"


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({}, "No task is complete"),
        ({"a": ("best", "worse")}, "Every compared model is either best or worse"),
        ({"a": ("best", "undecided")}, "Some models are undecided"),
        (
            {"a": ("best", "undecided"), "b": ("best", "worse"), "c": ("best", "best")},
            "2 of 3 tasks are decided: no compared model is left between best and worse",
        ),
    ],
)
def test_the_title_of_the_scores_counts_the_tasks_that_are_decided(states, told):
    rows = [(task, state) for task, each in states.items() for state in each]
    assert report_figures._decided(pd.DataFrame(rows, columns=["task", "state"])) == told
