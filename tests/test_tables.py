"""The tables, from run folders with invented numbers."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic_runs import N_TEST, trials, write_failure, write_mixed, write_run

from benchmarks import records, tables
from benchmarks.records import Status
from benchmarks.statistics import t_interval
from benchmarks.trial import specify


def cell(results, planned, task, model):
    matrix = tables.matrix(tables.frame(results, planned))
    return matrix[(matrix["task"] == task) & (matrix["model"] == model)].iloc[0]


def printed(frame, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(tables.render(tables.matrix(frame), frame))
    return console.file.getvalue()


def test_every_trial_is_a_row_whatever_became_of_it(tmp_path):
    planned = trials(n_seeds=2)
    write_mixed(tmp_path, planned)
    frame = tables.frame(tmp_path, planned)
    assert list(frame["trial_id"]) == [trial.id for trial in planned]
    assert set(frame["status"]) == {"ok", "skipped", "diverged"}
    assert frame["stale"].sum() == 1


def test_a_cell_is_the_mean_over_seeds_with_the_interval_over_seeds_and_test_sequences(tmp_path):
    planned = trials(("lstm",), ("recall",), 3)
    values = [write_run(tmp_path, trial, 0.5 + 0.01 * trial.seed).test["accuracy"] for trial in planned]
    found = cell(tmp_path, planned, "recall", "lstm")
    mean, low, high = t_interval(values)
    assert found["mean"] == pytest.approx(mean) and found["seed_half"] == pytest.approx((high - low) / 2)
    assert found["sequence_half"] == pytest.approx(1.96 * 0.1 / np.sqrt(N_TEST), rel=0.3)
    half = np.hypot(found["seed_half"], found["sequence_half"])
    assert (found["low"], found["high"]) == pytest.approx((mean - half, mean + half))
    assert (found["n"], found["n_sequences"]) == (3, N_TEST)
    assert tables.spread(found) == f"± {half:.2g}"


def test_a_failure_is_counted_and_never_averaged(tmp_path):
    planned = trials(("lstm",), ("adding",), 3)
    kept = [write_run(tmp_path, trial).test["mse"] for trial in planned[:1]]
    for trial in planned[1:]:
        write_failure(tmp_path, trial, Status.DIVERGED, "loss nan at step 7")
    found = cell(tmp_path, planned, "adding", "lstm")
    assert found["failures"] == "2 of 3 failed: diverged"
    assert found["mean"] == kept[0]
    assert found["state"] == ""
    assert "n = 1, no uncertainty" in tables.cell_lines(found)


def test_a_skip_is_shown_and_its_reason_listed(tmp_path):
    planned = trials(("hmm",), ("adding", "recall"), 2)
    for trial in planned:
        write_failure(tmp_path, trial, Status.SKIPPED, "cannot add")
    frame = tables.frame(tmp_path, planned)
    assert tables.notes(frame) == ["skipped: hmm on adding, hmm on recall: cannot add"]
    assert "skipped" in printed(frame)


def test_what_has_not_run_is_missing_and_what_other_code_made_is_stale(tmp_path):
    planned = trials(("lstm",), ("adding",), 3)
    write_run(tmp_path, planned[0])
    write_run(tmp_path, planned[1], code_digest="of other code")
    found = cell(tmp_path, planned, "adding", "lstm")
    assert (found["missing"], found["stale"], found["n"]) == (1, 1, 2)
    assert {"1 of 3 missing", "1 of 3 stale"} <= set(tables.cell_lines(found))


def test_a_torn_result_is_missing_with_its_reason(tmp_path):
    planned = trials(("lstm",), ("adding",), 1)
    write_run(tmp_path, planned[0])
    (records.run_folder(tmp_path, planned[0].id) / "result.json").write_text('{"trial_id": "x')
    frame = tables.frame(tmp_path, planned)
    assert frame["status"].item() == tables.MISSING
    assert "unreadable result" in frame["reason"].item()
    assert str(tmp_path) not in frame["reason"].item()


def test_a_model_that_scores_its_floor_is_flagged_and_the_floor_itself_is_not(tmp_path):
    planned = trials(("lstm", "gru", "floor"), ("recall",), 3)
    for trial in planned:
        constant = trial.model == "floor" or trial.model == "lstm" or trial.seed == 1
        write_run(tmp_path, trial, 0.0 if constant else 0.9, equals_floor=constant)
    frame = tables.frame(tmp_path, planned)
    lines = {row["model"]: tables.cell_lines(row) for _, row in tables.matrix(frame).iterrows()}
    assert "= floor" in lines["lstm"] and "1 of 3 = floor" in lines["gru"]
    assert not any("floor" in line for line in lines["floor"])
    assert "1of3=floor" in re.sub(r"[\s│]", "", printed(frame))
    assert "= floor: no better than a constant prediction" in " ".join(printed(frame).split())
    assert dict(zip(*(tables.matrix(frame)[x] for x in ("model", "at_floor")), strict=True))["lstm"] == 3


def test_where_models_finished_different_seeds_a_cell_names_its_own(tmp_path):
    planned = [
        trial for trial in trials(("lstm", "gru", "rnn"), ("recall",), 3) if (trial.model, trial.seed) != ("gru", 0)
    ]
    for trial in planned:
        if (trial.model, trial.seed) == ("rnn", 2):
            write_failure(tmp_path, trial, Status.TIMEOUT, "reached its cap")
        else:
            write_run(tmp_path, trial)
    frame = tables.frame(tmp_path, planned)
    matrix = tables.matrix(frame).set_index("model")
    assert matrix["seeds"].to_dict() == {"lstm": "", "gru": "seeds 1, 2", "rnn": "seeds 0, 1"}
    assert matrix.loc["gru", "complete"] and "seeds 1, 2" in tables.cell_lines(matrix.loc["gru"])
    assert "seeds 0, 1" in printed(frame, 200)
    assert matrix["to_best_n"].to_dict() in ({"lstm": 3, "gru": 2, "rnn": 0}, {"lstm": 2, "gru": 2, "rnn": 0})


@pytest.mark.parametrize("task", ["recall", "adding"])  # higher and lower is better
def test_a_cell_is_best_worse_or_undecided(tmp_path, task):
    planned = trials(("lstm", "gru", "rnn", "tcn"), (task,), 3)
    skill = {"gru": 0.9, "lstm": 0.9, "rnn": 0.1, "tcn": 0.85}
    wander = {"gru": 0.0, "lstm": 0.0, "rnn": 0.0, "tcn": 0.2}
    for trial in planned:
        write_run(tmp_path, trial, skill[trial.model] - wander[trial.model] * trial.seed)
    matrix = tables.matrix(tables.frame(tmp_path, planned)).set_index("model")
    assert matrix["state"].to_dict() == {"gru": "best", "lstm": "best", "rnn": "worse", "tcn": "undecided"}
    marks = {model: tables.cell_lines(row)[0][-1] for model, row in matrix.iterrows()}
    assert marks["gru"] == marks["lstm"] == "*" and marks["tcn"] == "?" and marks["rnn"].isdigit()
    assert matrix.loc["gru", "to_best"] == 0 and matrix.loc["rnn", "to_best_n"] == 3


def test_seeds_that_agree_are_printed_as_what_they_are(tmp_path):
    planned = trials(("lstm",), ("recall",), 3)
    for trial in planned:
        write_run(tmp_path, trial, 0.7)
    line = tables.spread(cell(tmp_path, planned, "recall", "lstm"))
    assert re.fullmatch(rf"equal in 3 seeds, ± 0\.0\d+ from {N_TEST} test sequences", line)


@pytest.mark.parametrize(
    ("task", "skills", "told"),
    [
        ("parity", (0.0, 0.0, 1.0), "1 of 3 solved"),  # a bimodal metric, and the task says what solved means
        ("japanese_vowels", (0.2, 0.2, 1.0), "seeds 0.317 0.317 0.990"),
        ("japanese_vowels", (0.0, 1.0, 0.0, 1.0, 0.0, 1.0), r"0\.\d+ to 1\.00"),  # beyond five seeds it is cut off
    ],
)
def test_no_interval_leaves_the_range_of_the_metric(tmp_path, task, skills, told):
    planned = trials(("rnn",), (task,), len(skills))
    for trial in planned:
        write_run(tmp_path, trial, skills[trial.seed])
    found = cell(tmp_path, planned, task, "rnn")
    assert found["low"] >= 0 and found["high"] <= 1
    assert re.fullmatch(told, tables.spread(found))


def test_a_fit_that_was_still_improving_is_flagged(tmp_path):
    planned = trials(("lstm", "gru", "hmm"), ("recall",), 3)
    for trial in planned:
        rising = {"lstm": True, "gru": trial.seed == 0, "hmm": None}[trial.model]
        write_run(tmp_path, trial, still_improving=rising)
    frame = tables.frame(tmp_path, planned)
    lines = {row["model"]: tables.cell_lines(row)[0] for _, row in tables.matrix(frame).iterrows()}
    assert lines["lstm"].endswith(" ↗") and lines["gru"].endswith(" ↗ 1 of 3") and "↗" not in lines["hmm"]
    assert "↗ still improving" in " ".join(printed(frame).split())


def test_with_one_seed_the_best_is_marked_and_the_rest_is_undecided(tmp_path):
    planned = trials(("lstm", "gru"), ("recall",), 1)
    write_run(tmp_path, planned[0], 0.9)
    write_run(tmp_path, planned[1], 0.8)
    matrix = tables.matrix(tables.frame(tmp_path, planned))
    assert list(matrix["state"]) == ["best", "undecided"]


def test_variants_of_a_model_or_task_are_told_apart_and_never_averaged(tmp_path):
    first = specify("adding", "lstm", 0, 20_000, "cpu")
    planned = [
        first,
        replace(first, task_parameters={**first.task_parameters, "length": 99}),
        replace(first, parameter_budget=5),
    ]
    assert len(set(tables.labels(planned))) == 3
    assert {"adding length=99", "adding length=50"} == {task for task, _ in tables.labels(planned)}
    assert "lstm budget=5" in {model for _, model in tables.labels(planned)}


def test_the_terminal_shows_every_model_and_task_at_any_width(tmp_path):
    planned = trials(n_seeds=2)
    write_mixed(tmp_path, planned)
    frame = tables.frame(tmp_path, planned)
    for width in (40, 80, 200):
        text = printed(frame, width)
        assert max(map(len, text.splitlines())) <= width
        assert all(model in text for model in frame["model"])
        assert all(part in text for part in ("adding", "recall", "parity", "hidden_", "japanese_"))


def test_the_csv_holds_the_matrix(tmp_path):
    planned = trials(("lstm", "gru"), ("adding",), 2)
    for trial in planned:
        write_run(tmp_path, trial)
    matrix = tables.matrix(tables.frame(tmp_path, planned))
    tables.write_csv(matrix, tmp_path / "suite" / "table.csv")
    read = pd.read_csv(tmp_path / "suite" / "table.csv")
    assert list(read["mean"]) == pytest.approx(list(matrix["mean"]))
    assert list(read["n"]) == [2, 2]


def test_no_trials_make_an_empty_table(tmp_path):
    frame = tables.frame(tmp_path, [])
    assert tables.matrix(frame).empty
    assert "no trial" in printed(frame)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.500"), (12345.0, "12,345"), (0.000123456, "0.000123"), (0.0, "0.00"), (-3.0, "-3.00")]
)
def test_numbers_have_three_digits_that_count(value, text):
    assert tables.number(value) == text
