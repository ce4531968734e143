"""What is made of timing trials: tables and figures over invented times, and what keeps them out."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from synthetic_runs import STEPS_S, timing_trials, trials, write_cost, write_failure, write_run

from benchmarks import cost_sections, cost_tables, report_sections, tables, tracked
from benchmarks.execution.order import Rounds
from benchmarks.figures import cost_figures, report_figures
from benchmarks.figures.drawing import FAMILIES, styles
from benchmarks.figures.report_figures import read_curves
from benchmarks.records import Status
from benchmarks.trial import specify


@pytest.fixture
def planned(tmp_path):
    judged = trials(("lstm", "gru", "transformer"), ("parity",), 3)
    for trial in judged:
        write_run(tmp_path, trial, skill=0.95 if trial.model != "gru" else 0.2)
    timed = timing_trials()
    for trial in timed:
        write_cost(tmp_path, trial, STEPS_S[trial.model])
    return [*judged, *timed]


def test_a_cell_is_the_median_over_processes_with_their_range(tmp_path, planned):
    costs = cost_tables.costs(cost_tables.runs(tmp_path, planned)).set_index("model")
    assert list(costs["n"]) == [3, 3, 3]
    lstm = costs.loc["lstm"]
    assert [lstm[f"training_step_s{end}"] for end in ("_low", "", "_high")] == pytest.approx([0.01, 0.0101, 0.0102])
    assert lstm["sequences_per_s"] == pytest.approx(64 / 0.0101)
    assert lstm["steps_per_s"] == pytest.approx(3200 / 0.0101)  # valid ones, of 64 sequences padded to 100
    assert lstm["matrix_share"] == pytest.approx(10_000_000 / 0.0101 / 1e10)
    assert lstm["noise"] == ("training step (1 of 3)",)


def test_mlflow_is_told_the_medians_of_a_cell_and_what_failed_in_it(tmp_path):
    timed = timing_trials(2)
    for trial in timed:
        if trial.model == "gru" or (trial.model, trial.seed) == ("transformer", 1):
            write_failure(tmp_path, trial, Status.KERNEL_DIED, "killed")
        else:
            write_cost(tmp_path, trial, STEPS_S[trial.model])
    told = {summary.name: (cell, summary) for cell, summary in tracked.costs(tmp_path, timed)}
    assert {cell for cell, _ in told.values()} == {trial.cell for trial in timed}
    medians = {name: summary.metrics.get("training_step_s") for name, (_, summary) in told.items()}
    expected = {"lstm": 0.01005, "gru": None, "transformer": 0.03}
    assert medians == {f"{model} on parity, timing": pytest.approx(value) for model, value in expected.items()}
    ended = [(summary.metrics["n"], summary.metrics["n_failed"], summary.failures) for _, summary in told.values()]
    assert ended == [(2, 0, ""), (0, 2, "2 of 2 failed"), (1, 1, "1 of 2 failed")]


def test_timing_trials_stay_out_of_every_table_of_quality(tmp_path, planned):
    frame = tables.frame(tmp_path, planned)
    assert len(frame) == 9
    assert set(cost_tables.runs(tmp_path, planned)["model"]) == set(frame["model"])


def test_times_taken_beside_other_work_or_by_other_code_or_on_another_machine_are_not_put_together(tmp_path):
    first, second, third, fourth = (specify("parity", "lstm", n, 20_000, "cpu", mode="timing") for n in range(4))
    elsewhere = replace(fourth, machine={**fourth.machine, "processor": "another"})
    write_cost(tmp_path, first, 0.01)
    write_cost(tmp_path, second, 1.0, timing_valid=False)
    write_cost(tmp_path, third, 1.0, code_digest="of other code")
    write_cost(tmp_path, elsewhere, 1.0)
    costs = cost_tables.costs(cost_tables.runs(tmp_path, [first, second, third, elsewhere]))
    assert list(costs["n"]) == [1, 1]
    assert list(costs["training_step_s"]) == pytest.approx([0.01, 1.03])


def test_a_ratio_is_paired_over_processes(tmp_path, planned):
    runs = cost_tables.runs(tmp_path, planned)
    mean, low, high = cost_tables.ratio(runs, "parity", "gru", "lstm")
    assert (mean, low, high) == pytest.approx((1.2, 1.2, 1.2))
    assert math.isnan(cost_tables.ratio(runs, "parity", "gru", "hmm").mean)


def test_a_machine_that_changes_its_speed_between_two_models_does_not_change_their_ratio(tmp_path):
    timed = [trial for trial in timing_trials() if trial.model != "transformer"]
    for trial in timed:
        write_cost(
            tmp_path, trial, STEPS_S[trial.model], slowness=1.7 if (trial.model, trial.seed) == ("gru", 1) else 1.0
        )
    runs = cost_tables.runs(tmp_path, timed)
    assert cost_tables.ratio(runs, "parity", "gru", "lstm") == pytest.approx((1.2, 1.2, 1.2))
    assert cost_tables.ratio(runs, "parity", "gru", "lstm", "training_step_s").mean == pytest.approx(
        1.2 * 1.7 ** (1 / 3)
    )


def test_time_to_target_is_steps_times_the_timed_step_and_nothing_where_it_is_not_reached(tmp_path, planned):
    frame, runs = tables.frame(tmp_path, planned), cost_tables.runs(tmp_path, planned)
    found = cost_tables.to_target(frame, read_curves(frame, tmp_path), cost_tables.costs(runs)).set_index("model")
    lstm = found.loc["lstm"]
    assert (lstm["n_reached"], lstm["steps"]) == (3, 500.0)
    assert lstm["seconds"] == pytest.approx(500 * 0.0101)
    assert (lstm["sequences"], lstm["flops"]) == (500 * 32, 500 * 1e7)
    assert found.loc["gru", "n_reached"] == 0
    assert pd.isna(found.loc["gru", "seconds"])


def test_exponents_are_those_of_the_sweeps(tmp_path, planned):
    found = cost_tables.exponents(cost_tables.sweeps(cost_tables.runs(tmp_path, planned))).set_index("model")
    assert list(found["training_step_s"]) == pytest.approx([1, 1, 2])
    assert list(found["longest"]) == [512] * 3


def test_figures_and_sections_show_every_model_or_say_that_nothing_was_measured(tmp_path, planned):
    frame = tables.frame(tmp_path, planned)
    for timed in (cost_tables.runs(tmp_path, planned), cost_tables.runs(tmp_path, [])):
        study = report_sections.Study(
            "s", "d", "e", None, tmp_path, planned[:9], frame, tables.matrix(frame), timed=timed
        )
        sections = (cost_sections.coverage, cost_sections.by_shape, cost_sections.target_table)
        page = "".join(section(study).text for section in sections)
        assert ("no timing trial" in page) == timed.empty
        assert (cost_sections.exponent_table(study) is None) == timed.empty
        drawn = cost_figures.pareto(study.costs, study.matrix), cost_figures.scalings(cost_tables.sweeps(timed))
        for figure in drawn:
            shown = {text.get_text().split(" ")[0] for ax in figure.axes for text in ax.texts}
            assert shown >= (set() if timed.empty else set(STEPS_S))


def test_what_learns_nothing_is_on_no_front(tmp_path, planned):
    floor = trials(("floor",), ("parity",), 3)
    timed = [specify("parity", "floor", process, None, "cpu", mode="timing") for process in range(3)]
    for trial in floor:
        write_run(tmp_path, trial, skill=0.0)
    for trial in timed:
        write_cost(tmp_path, trial, 1e-6)
    matrix = tables.matrix(tables.frame(tmp_path, [*planned, *floor]))
    costs = cost_tables.costs(cost_tables.runs(tmp_path, [*planned, *timed]))
    assert "floor" in set(costs["model"]) and "floor" in set(matrix["model"])
    figure = cost_figures.pareto(costs, matrix)
    assert "floor" not in figure.get_suptitle()
    drawn = {line.get_color() for ax in figure.axes for line in ax.lines}
    assert FAMILIES["recurrent"] in drawn and FAMILIES["floor"] not in drawn


def test_processes_go_round_over_the_models():
    waiting = Rounds(timing_trials(2))
    order = [(trial.model, trial.seed) for trial in iter(waiting.take, None)]
    assert not waiting
    assert order == [(model, process) for process in range(2) for model in STEPS_S]


def test_curves_against_time_are_those_against_steps_times_the_timed_step(tmp_path, planned):
    frame, costs = tables.frame(tmp_path, planned), cost_tables.costs(cost_tables.runs(tmp_path, planned))
    curves = read_curves(frame, tmp_path)
    figure = report_figures.learning_costs(frame, curves, costs)
    seconds, operations = figure.axes
    colours = {line.get_color() for line in seconds.lines}
    assert colours >= {style.colour for style in styles(frame).values()}
    slowest = costs["training_step_s"].max()
    assert seconds.get_xlim()[1] == pytest.approx(500 * slowest)
    assert operations.get_xlim()[1] == pytest.approx(500 * costs["training_flops"].max() / 1e9)
    assert figure.get_suptitle().startswith("In training time, lstm is first")
    assert "timed" in report_figures.learning_costs(frame, curves, costs[:0]).get_suptitle()
