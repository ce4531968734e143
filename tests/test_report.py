"""The report: one offline page for any state of a suite, with every name escaped."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from synthetic_runs import STEPS_S, timing_trials, trials, write_cost, write_failure, write_mixed, write_run

from benchmarks import report, tables, tuning_section
from benchmarks import report_sections as sections
from benchmarks.comparison import expected_best
from benchmarks.figures import tuning_figures
from benchmarks.records import Status, run_folder
from benchmarks.suite import load
from benchmarks.trial import Trial
from benchmarks.tuned import Tuned, Tuning

ROOT = Path(__file__).resolve().parents[1]
PLANNED = trials(("lstm", "bilstm", "hmm", "transformer", "floor"), ("japanese_vowels", "adding", "parity"), 2)
HOSTILE = "<script>alert('x')</script>"


@dataclass(frozen=True)
class PlainSuite:
    """What the report needs of a suite."""

    planned: list[Trial]
    name: str = "invented"
    description: str = f"a suite {HOSTILE}"
    expected: str = "nothing"
    parameter_budget: int | None = 20_000
    state_budget: int | None = None
    tuned: Tuning | None = None

    def trials(self) -> list[Trial]:
        return self.planned


class Page(HTMLParser):
    """Tags and the addresses that a browser would load by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag in ("script", "img", "link", "iframe", "source", "video"):
            self.loaded += [address for name in ("src", "href") if (address := given.get(name))]
        if tag == "img":
            self.alternatives.append(given.get("alt") or "")


def study_of(results, planned):
    frame = tables.frame(results, planned)
    matrix = tables.matrix(frame)
    return sections.Study("invented", f"about {HOSTILE}", "nothing", 20_000, results, planned, frame, matrix)


def everything(study):
    return "".join(
        section.text
        for section in (
            *(sections.title(study), sections.answer(study), sections.method(study), sections.task_list(study)),
            *(sections.model_list(study), sections.matrix_table(study), sections.difference_table(study)),
            *(sections.pair_table(study, [["bilstm", "lstm"]]), sections.gap_table(study)),
            *(sections.over_tasks(study), sections.environment_table(study)),
        )
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    results = tmp_path_factory.mktemp("results {odd} folder")
    write_mixed(results, PLANNED)
    return report.build(results, PlainSuite(PLANNED))


def test_the_page_needs_no_network_and_runs_no_script(page):
    found = Page(page.read_text())
    assert all(address.startswith("data:") for address in found.loaded)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "@import" not in page.read_text()
    assert "url(http" not in page.read_text()


def test_the_page_shows_every_figure_with_its_message_and_hides_the_code(page):
    found = Page(page.read_text())
    assert len(found.alternatives) == 12
    assert any("30 trials" in text for text in found.alternatives)
    assert "open_study" not in page.read_text()
    assert "Traceback" not in page.read_text()


def test_table_and_executed_notebook_lie_beside_the_page(page):
    assert (page.parent / "table.csv").read_text().startswith("task,model,")
    notebook = nbformat.read(page.parent / "report.ipynb", as_version=4)
    printed = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    ]
    assert printed == []


def test_a_suite_of_timing_trials_has_a_page_about_cost_alone(tmp_path):
    timed = timing_trials(2)
    for trial in timed:
        write_cost(tmp_path, trial, STEPS_S[trial.model])
    swept = [replace(trial, timing={"lengths": [64, 128]}) for trial in timed]
    told = {}
    for name, planned in (("cost", timed), ("both", [*timed, *trials(("lstm",), ("parity",), 1)]), ("swept", swept)):
        text = report.build(tmp_path / name, PlainSuite(planned)).read_text()
        told[name] = re.findall(r'<h2 id="[^"]*">([^<]+)', text)
        assert ("measures cost alone" in text) == (name != "both") and "Traceback" not in text
    assert told["cost"] == [
        "The question, and its answer",
        "What was compared, and how",
        "Cost",
        "Caveats",
        "Provenance",
    ]
    assert set(told["both"]) - set(told["cost"]) >= {"Scores", "Over all tasks"}
    assert set(told["swept"]) - set(told["cost"]) == {"Cost over length"}


@pytest.mark.slow
def test_a_kernel_that_is_a_copy_shows_the_same_page_and_is_gone_at_the_end(page):
    code = (
        "import sys, os, pathlib, psutil, threading; sys.path.insert(0, 'tests'); import test_report\n"
        "from benchmarks.execution import waiting_kernel; made = []\n"
        "class Seen(waiting_kernel.WaitingKernel):\n"
        "    def __init__(self, forked):\n"
        "        assert forked; super().__init__(forked); made.append(self.process.pid)\n"
        "waiting_kernel.WaitingKernel = Seen; page = pathlib.Path(sys.argv[1])\n"
        "test_report.report.build(page.parents[1], test_report.PlainSuite(test_report.PLANNED))\n"
        "print(len(made), len(psutil.Process().children(recursive=True)))"
    )
    before = page.read_text()
    done = subprocess.run([sys.executable, "-c", code, str(page)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "1 0\n"), done.stderr
    assert re.sub("cell-id=[0-9a-f]+", "", page.read_text()) == re.sub("cell-id=[0-9a-f]+", "", before)


def test_the_page_opens_again_from_the_results_alone(page):
    study = report.open_study(page.parent.parent, "invented")
    assert len(study.trials) == 30
    assert study.expected == "nothing"


def test_a_report_that_was_never_built_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="rnnbench report absent"):
        report.open_study(tmp_path, "absent")


def test_hostile_names_are_escaped(tmp_path):
    planned = [
        replace(trial, model_config={**trial.model_config, HOSTILE: 1}) for trial in trials(("lstm",), ("adding",), 2)
    ]
    planned[1] = replace(planned[1], model_config={**planned[1].model_config, HOSTILE: 2})
    write_run(tmp_path, planned[0])
    write_failure(tmp_path, planned[1], Status.ERROR, f"ValueError: {HOSTILE}")
    text = everything(study_of(tmp_path, planned))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>cpu</b>" not in text


@pytest.mark.parametrize("state", ["no trial", "none run", "one", "all failed", "half finished"])
def test_every_section_stands_in_any_state_of_a_suite(tmp_path, state):
    planned = [] if state == "no trial" else trials(("lstm", "gru"), ("adding", "hidden_source"), 2)
    for index, trial in enumerate(planned):
        if state == "all failed":
            write_failure(tmp_path, trial, Status.TIMEOUT, "reached its cap")
        elif (state == "one" and index == 0) or (state == "half finished" and index % 2 == 0):
            write_run(tmp_path, trial)
    text = everything(study_of(tmp_path, planned))
    assert f"Of {len(planned)} trials" in text
    assert ("No trial has finished" in text) == (state in ("no trial", "none run", "all failed"))


@pytest.mark.slow
@pytest.mark.parametrize("state", ["no trial", "none run", "one", "all failed", "half finished", "torn"])
def test_a_whole_page_is_built_in_any_state_of_a_suite(tmp_path, state):
    planned = [] if state == "no trial" else trials(("lstm", "gru", "floor"), ("adding", "parity"), 2)
    for index, trial in enumerate(planned):
        if state == "all failed":
            write_failure(tmp_path, trial, Status.TIMEOUT, "reached its cap")
        elif state == "torn" or (state == "one" and index == 0) or (state == "half finished" and index % 2 == 0):
            write_run(tmp_path, trial)
        if state == "torn" and index % 3 < 2:
            file = run_folder(tmp_path, trial.id) / ("result.json", "metrics.jsonl")[index % 3]
            file.write_bytes(file.read_bytes()[:100])
    text = report.build(tmp_path, PlainSuite(planned)).read_text()
    assert f"Of {len(planned)} trials" in text and "Traceback" not in text
    assert ("8 missing, 4 ok" in text) == (state == "torn")


def test_models_on_different_seeds_are_compared_on_those_that_both_have_or_not_at_all(tmp_path):
    planned = trials(("lstm", "gru", "floor"), ("recall",), 4)
    planned = [x for x in planned if x.seed in {"lstm": (0, 1, 2), "gru": (1, 2, 3), "floor": (0,)}[x.model]]
    for trial in planned:
        write_run(tmp_path, trial, 0.9 if trial.model == "lstm" else 0.1)
    study = study_of(tmp_path, planned)
    pairs = sections.pair_table(study, [["lstm", "gru"], ["gru", "floor"]]).text
    assert "<td>2</td>" in pairs and "gru − floor" not in pairs
    text = sections.matrix_table(study).text
    assert "seeds 0, 1, 2" in text and "seeds 1, 2, 3" in text and "seed 0" in text and "different draws" in text
    assert "n = 2 seeds where no other" in sections.difference_table(study).text


def test_the_answer_names_the_best_of_each_task_and_what_learned_nothing(tmp_path):
    planned = trials(("lstm", "gru", "floor"), ("recall",), 2)
    for trial in planned:
        write_run(tmp_path, trial, 0.9 if trial.model == "gru" else 0.0, equals_floor=trial.model != "gru")
    text = sections.answer(study_of(tmp_path, planned)).text
    assert "By task (n = 2 seeds):" in text
    assert re.search(r"<li>recall: best: gru; 2 worse</li>", text)
    assert "as a constant prediction has it: lstm on recall (2 seeds)." in text


def test_the_floor_of_a_forecast_stands_beside_the_seasonal_naive_one(tmp_path):
    planned = trials(("gru", "seasonal_naive", "floor"), ("co2",), 2)
    for trial in planned:
        write_run(tmp_path, trial, 0.5 if trial.model == "seasonal_naive" else 0.9)
    assert "<td>2.00<br>seasonal_naive 0.894</td>" in sections.task_list(study_of(tmp_path, planned)).text


def test_a_long_table_opens_at_a_click_and_the_page_begins_with_its_contents(page):
    rows = [(index, f"<{index}>") for index in range(sections.FOLDED + 1)]
    short, long = (sections.table(("a", "b"), rows[:n]).text for n in (sections.FOLDED, sections.FOLDED + 1))
    assert "<details>" not in short and f"Table of {sections.FOLDED + 1} rows<" in long
    assert long.count("<tr>") == sections.FOLDED + 2 and f"&lt;{sections.FOLDED}&gt;" in long
    text = page.read_text()
    named = re.findall(r'<a href="#(section-\d+)">([^<]+)</a>', text)
    assert tuple(name for _, name in named if name in ("Scores", "Provenance")) == ("Scores", "Provenance")
    assert all(f'<h2 id="{anchor}">{name}</h2>' in text for anchor, name in named)
    assert len(named) == text.count("<h2") and text.index("<nav>") < text.index("<h2")


def test_a_difference_is_told_with_its_sign_and_rounding_is_no_difference():
    assert [tables.signed(value) for value in (0.1, -0.0000123, -2.2e-17, 12345.6)] == [
        "+0.1",
        "−1.23e−05",
        "0",
        "+1.23e+04",
    ]
    assert [tables.count(value) for value in (80.0, 2.5, 10240)] == ["80", "2.50", "10,240"]


def test_what_lies_below_its_floor_is_named(tmp_path):
    planned = trials(("lstm", "gru"), ("recall", "adding"), 2)
    for trial in planned:
        write_run(tmp_path, trial, -0.5 if trial.model == "lstm" else 0.5)
    assert sections.below_floor(study_of(tmp_path, planned).matrix) == ["lstm on recall", "lstm on adding"]


def test_pairs_are_printed_wherever_both_finished(tmp_path):
    planned = trials(("lstm", "bilstm"), ("japanese_vowels", "adding"), 3)
    for trial in planned:
        if (trial.model, trial.task) != ("bilstm", "adding"):
            write_run(tmp_path, trial)
    text = sections.pair_table(study_of(tmp_path, planned), [["bilstm", "lstm"]]).text
    assert text.count("bilstm − lstm") == 1
    assert "japanese_vowels" in text


def test_the_committed_notebook_defines_nothing_and_holds_no_output():
    notebook = nbformat.read(report.NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any(line.startswith(("def ", "class ", "!")) for cell in code for line in cell.source.splitlines())
    assert ["parameters" in cell.metadata.get("tags", []) for cell in code].count(True) == 1


def test_the_suite_is_recorded_beside_the_page(page):
    content = json.loads((page.parent / "suite.json").read_text())
    assert content["name"] == "invented"
    assert len(content["trials"]) == 30


def test_a_report_is_current_for_its_own_trials_and_until_a_newer_result(tmp_path):
    suite = load("smoke")
    planned = suite.trials(device="cpu")
    assert not report.is_current(tmp_path, suite, planned)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "suite.json").write_text(report._content(suite, planned))
    page = tmp_path / "smoke" / "report.html"
    page.write_text("a page")
    assert report.is_current(tmp_path, suite, planned)
    assert not report.is_current(tmp_path, suite, planned[1:])
    write_run(tmp_path, planned[0])
    os.utime(page, (0, 0))
    assert not report.is_current(tmp_path, suite, planned)


def tuned_study(model, task, default, best, values, **changed):
    about = {"task_settings": {}, "model_settings": {}, "fields": ("fit.learning_rate",), "changed": changed}
    of = {"default": default, "tuned": best, "values": values, "git_commit": "0123456789ab"}
    return Tuned(task=task, model=model, **of, **about)


TUNING = Tuning(
    *("invented", 4, 1000, "TPE of optuna", "2.13", "a machine"),
    (
        tuned_study("lstm", "parity", 0.6, 0.9, (0.6, 0.5, 0.9, None), **{"fit.learning_rate": 0.02}),
        tuned_study("hmm", "parity", 0.7, 0.7, (0.7, 0.6, 0.7, 0.6)),
        tuned_study("lstm", "adding", None, None, (None, None, None, None)),
        tuned_study("tcn", "adding", 0.2, 0.1, (0.2, 0.1, 0.3, 0.2), **{"fit.learning_rate": f"0.01{HOSTILE}"}),
    ),
)


def tuned_report(results, tuning):
    own = trials(("lstm", "tcn"), ("parity", "adding"), 1)
    own = [replace(x, tuned={"fit.learning_rate": 4}) if (x.model, x.task) != ("tcn", "parity") else x for x in own]
    for trial in own:
        write_run(results, trial)
    return replace(study_of(results, own), tuned=tuning)


def test_what_tuning_moved_is_a_table_with_what_was_not_tuned(tmp_path):
    text = tuning_section.tuning(tuned_report(tmp_path, TUNING)).text
    assert "<h2>Tuning</h2>" in text and "Each model got 4 trials on each task" in text and HOSTILE not in text
    assert "<td>+0.3</td><td>fit.learning_rate=0.02</td><td>1 of 4</td>" in text
    assert "<td>0</td><td>nothing: the default is best</td><td>0 of 4</td>" in text
    assert "<td>–</td><td>nothing: no trial finished</td><td>4 of 4</td>" in text
    assert "Not tuned, hence run with their defaults: tcn on parity." in text


def test_what_tuning_moved_on_test_stands_beside_it_where_both_configurations_run(tmp_path):
    plain = trials(("lstm",), ("parity",), 3)
    found = [replace(trial, tuned={"fit.learning_rate": 4}) for trial in plain]
    for trial in (*plain, *found):
        write_run(tmp_path, trial, skill=(0.9 if trial.tuned else 0.3) + 0.01 * trial.seed)
    text = tuning_section.tuning(replace(study_of(tmp_path, [*plain, *found]), tuned=TUNING)).text
    assert "test: tuned − default" in text and ", significant<br>n = 3" in text
    assert "test: tuned − default" not in tuning_section.tuning(tuned_report(tmp_path, TUNING)).text


def test_a_suite_without_tuned_configurations_has_no_such_section(tmp_path):
    assert tuning_section.tuning(tuned_report(tmp_path, None)) is None and tuning_figures.curves(None) is None


def test_the_tuning_curve_is_the_expected_best_in_the_direction_of_the_metric_with_failures_as_worst():
    figure = tuning_figures.curves(TUNING)
    assert figure.get_suptitle() == "Tuning changes which model leads on validation on 1 of 1 task"
    parity, adding = figure.axes
    lines = [line.get_ydata() for line in parity.lines if len(line.get_ydata()) == 4]
    assert any(
        line == pytest.approx(expected_best([0.6, 0.5, 0.9, 0.5])) for line in lines
    )  # the failure: worst of all
    (errors,) = (line.get_ydata() for line in adding.lines if len(line.get_ydata()) == 4)
    assert errors[0] == pytest.approx(0.2) and errors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(errors))
