"""Who is compared over all tasks of a suite, and what is said of them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_runs import trials, write_failure, write_run

from benchmarks import overall, tables
from benchmarks.figures import overall_figures
from benchmarks.figures.drawing import styles
from benchmarks.records import Status
from benchmarks.report_sections import Study, over_tasks

NAMES = ("adding", "recall", "parity", "hidden_source", "japanese_vowels", "co2")
SKILL = {"lstm": 0.9, "gru": 0.6, "rnn": 0.3, "floor": 0.0, "hmm": 0.5}


def study(tmp_path, models=tuple(SKILL), names=NAMES, n_seeds=3, skill=None):
    """Models of fixed skill on every task."""
    planned = trials(models, names, n_seeds)
    for trial in planned:
        level = SKILL[trial.model] + 0.01 * trial.seed if trial.model != "floor" else 0.0
        write_run(tmp_path, trial, skill=level)
    return planned, tables.frame(tmp_path, planned)


def test_the_field_holds_who_did_everything_and_says_why_others_are_not_in_it(tmp_path):
    planned, frame = study(tmp_path)
    frame.loc[(frame["model"] == "hmm") & (frame["task"] == "adding"), "status"] = Status.SKIPPED
    frame.loc[(frame["model"] == "rnn") & (frame["task"] == "co2") & (frame["seed"] == 1), "status"] = tables.MISSING
    found = overall.field(frame)
    assert set(found.scores) == {"lstm", "gru"} and found.tasks == NAMES
    assert found.left_out == {"hmm": "cannot do adding", "rnn": "has not finished co2"}
    assert found.scores["lstm"].shape == (6, 3) and len(planned) == 90
    for index, task in enumerate(NAMES):
        expected = frame[(frame["model"] == "gru") & (frame["task"] == task)].sort_values("seed")["score"]
        assert found.scores["gru"][index].tolist() == expected.tolist()


def test_a_failure_counts_as_the_worst_of_its_task_and_is_named(tmp_path):
    _, frame = study(tmp_path)
    failed = (frame["model"] == "lstm") & (frame["task"] == "recall") & (frame["seed"] == 0)
    frame.loc[failed, ["status", "score", "value"]] = [Status.DIVERGED, None, None]
    found = overall.field(frame)
    assert found.imputed == {"lstm": 1}
    at = found.tasks.index("recall")
    assert found.scores["lstm"][at].min() == frame.loc[frame["task"] == "recall", "score"].astype(float).min()
    assert found.merits["lstm"][at] < overall.field(study(tmp_path)[1]).merits["lstm"][at]
    assert any("lstm: 1 failed trial counted as the worst" in line for line in overall.reading(found))


def test_a_second_table_leaves_the_tasks_with_failures_out(tmp_path):
    planned, frame = study(tmp_path)
    failed = (frame["model"] == "lstm") & (frame["task"].isin(["recall", "co2"])) & (frame["seed"] == 0)
    frame.loc[failed, ["status", "score", "value"]] = [Status.DIVERGED, None, None]
    rest = overall.without_failures(frame)
    assert rest.tasks == ("adding", "parity", "hidden_source", "japanese_vowels") and not rest.imputed
    whole = overall.field(frame)
    np.testing.assert_array_equal(rest.scores["gru"], whole.scores["gru"][[0, 2, 3, 4]])
    page = over_tasks(Study("s", "d", "e", None, tmp_path, planned, frame, tables.matrix(frame))).text
    assert "on the 4 tasks without a failure" in page and "lstm: 2 failed trials counted as the worst" in page


def test_the_better_ranks_first_and_the_sentences_say_how_sure(tmp_path):
    found = overall.field(study(tmp_path)[1])
    assert list(found.ranking.ranks) == ["lstm", "gru", "hmm", "rnn"] and found.ranking.ranks["lstm"] == 1
    assert found.improvement("lstm", "gru") == 1.0 and found.improvement("rnn", "gru") == 0.0
    verdict = found.verdict("lstm", "rnn")
    assert verdict.better > 0.9 and sum(verdict) == pytest.approx(1)
    told = "\n".join(overall.reading(found))
    assert found.candidates == ("lstm",) and told.startswith("Over all tasks: lstm (0.00) has the smallest")
    assert "Significantly larger: gru (" in told and "Without " not in told
    assert "Mean rank puts lstm first (1.0 of 4)" in told and "as the headline does" in told
    assert "underpowered: 6 tasks can tell at most 2 models" in told
    over_seeds, over_tasks = found.aggregates["lstm"]
    assert over_seeds.high - over_seeds.low < over_tasks.high - over_tasks.low


def test_errors_have_merit_when_they_are_small(tmp_path):
    found = overall.field(study(tmp_path)[1])
    at = found.tasks.index("adding")
    assert found.merits["lstm"][at] > found.merits["rnn"][at]


def test_too_little_to_compare_is_one_sentence(tmp_path):
    for models, names in ((("lstm", "floor"), NAMES), (("lstm", "gru"), ("adding",))):
        found = overall.field(study(tmp_path, models, names)[1])
        assert not found.is_comparable
        assert list(overall.reading(found)) == [
            "Fewer than two models did at least two scored tasks: nothing is said over tasks."
        ]


def test_simulated_coverage_grows_with_seeds_towards_the_nominal(tmp_path):
    """Where every task has the same mean, the interquartile mean of few runs is no more biased than that of many."""
    generator = np.random.default_rng(0)
    scores = {name: 0.5 + 0.1 * generator.standard_normal((8, 5)) for name in ("a", "b")}
    flat = {name: values - values.mean(1, keepdims=True) + 0.5 for name, values in scores.items()}
    found = overall.Field(tuple("abcdefgh"), flat, {n: v.mean(1) for n, v in flat.items()}, {}, {})
    few, many = found.coverage(3), found.coverage(10)
    assert 0.6 < few < many and many > 0.88


def test_the_figures_name_every_model_once_and_nothing_overlaps(tmp_path):
    frame = study(tmp_path)[1]
    found, look = overall.field(frame), styles(frame)
    figure = overall_figures.critical_difference(found, look)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert len(boxes) == len(found.scores)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    profiles = overall_figures.profiles(found, look)
    profiles.draw_without_rendering()
    assert [text.get_text() for text in profiles.axes[0].get_legend().get_texts()] == list(found.ranking.ranks)
    for drawn in (overall_figures.aggregates(found, look), overall_figures.pairs(found)):
        drawn.draw_without_rendering()
        labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
        assert labels == list(found.ranking.ranks)


def test_a_tuned_configuration_stands_for_its_model_and_the_default_is_named(tmp_path):
    _, frame = study(tmp_path)
    twins = frame[frame["model"].isin(["lstm", "rnn"])].assign(model=lambda rows: rows["model"] + " tuned")
    partly = twins[(twins["model"] != "rnn tuned") | (twins["task"] != "co2")]
    found = overall.field(pd.concat([frame, partly]))
    assert set(found.scores) == set(found.merits) == {"lstm tuned", "gru", "rnn", "hmm"}
    assert found.left_out == {
        "lstm": "its tuned configuration is compared in its place",
        "rnn tuned": "was not run on co2",
    }


def test_the_headline_names_what_is_larger_what_is_open_and_the_task_that_decides(tmp_path):
    """gru loses a little everywhere; tcn nothing but one whole task; rnn as much as tcn, by chance of its seeds."""
    tasks = ("recall", "parity", "hidden_source", "japanese_vowels")
    planned = trials(("gru", "tcn", "rnn"), tasks, 3)
    for trial in planned:
        skill = {"gru": 0.95, "tcn": 0.0 if trial.task == "parity" else 1.0, "rnn": 1.0}[trial.model]
        if trial.model == "rnn" and trial.task == "parity" and trial.seed > 0:
            skill = 0.0
        write_run(tmp_path, trial, skill)
    found = overall.field(tables.frame(tmp_path, planned))
    told = overall.headline(found)
    assert next(iter(found.losses)) == "gru" and found.candidates == ("gru", "rnn")
    assert told.startswith("Undecided over all tasks: gru (0.") and "Significantly larger: tcn (0." in told
    assert "Not decided, because seeds and test sequences leave it open: rnn (0." in told
    assert found.leader_without["parity"] in ("tcn", "rnn")
    assert f"Without parity, {found.leader_without['parity']} would have the smallest loss." in told
    page = over_tasks(Study("s", "d", "e", None, tmp_path, planned, tables.frame(tmp_path, planned), None)).text
    assert page.count("<td>undecided</td>") == 1 and page.count("<td>larger</td>") == 1


def test_one_failed_seed_leaves_the_test_sample_in_the_losses_of_the_other_tasks(tmp_path):
    planned = trials(("gru", "lstm"), ("recall", "parity", "hidden_source"), 3)
    for trial in planned:
        skill = 0.9 if trial.model == "lstm" else 0.89
        if (trial.model, trial.task, trial.seed) == ("gru", "recall", 0):
            write_failure(tmp_path, trial, Status.DIVERGED, "loss nan at step 7")
        else:
            write_run(tmp_path, trial, skill)
    found = overall.field(tables.frame(tmp_path, planned))
    assert found.imputed == {"gru": 1}
    assert found.runs["parity"]["gru"].terms and not found.runs["recall"]["gru"].terms
    assert found.losses["gru"].sequences > 0


def test_a_tie_without_a_task_is_no_other_leader(tmp_path):
    planned = trials(("lstm", "gru"), ("recall", "parity", "adding"), 3)
    for trial in planned:
        write_run(tmp_path, trial, 0.5 if (trial.model, trial.task) == ("lstm", "parity") else 0.9)
    found = overall.field(tables.frame(tmp_path, planned))
    assert set(found.leader_without.values()) == {"gru"} and "Without" not in overall.headline(found)


def test_a_model_with_other_seeds_is_not_compared_over_tasks(tmp_path):
    planned = [x for x in trials(("gru", "lstm", "rnn"), ("recall", "parity"), 6) if (x.seed > 2) == (x.model == "gru")]
    for trial in planned:
        write_run(tmp_path, trial, {"gru": 0.1, "lstm": 0.9, "rnn": 0.8}[trial.model])
    found = overall.field(tables.frame(tmp_path, planned))
    assert set(found.scores) == {"lstm", "rnn"} and found.left_out == {"gru": "has other seeds than most models"}
    assert overall.headline(found).startswith("Over all tasks: lstm (0.00) has the smallest")
