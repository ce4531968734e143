"""Published results: that every row can be held against trials of ours, and that verdicts are what the rows declare."""

import csv
import io
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_runs import write_failure, write_run

from benchmarks import __main__ as command_line
from benchmarks import datasets, provenance, published, verifying
from benchmarks.parameters import InvalidParameter
from benchmarks.published import Claim, Finding, claims, judge
from benchmarks.records import Result, Status
from benchmarks.running import Options
from benchmarks.suite import Suite, load
from benchmarks.tasks.registry import TASKS
from benchmarks.tasks.registry import task as build_task
from models import registry
from models.names import UnknownName

CLAIM = Claim(
    *("paper-japanese-vowels", "japanese_vowels", {}, "fcn", "accuracy", 0.9, None, "mean within", 0.05),
    *("cpu", "theirs", "otherwise", "a paper", "verified"),
)
SHIPPED = claims()
OWN_SUITES = [name for name in Suite.names() if name.startswith("paper-")]


def result(value: float, status: Status = Status.OK) -> Result:
    return Result("0" * 16, {}, status, "digest", test={"accuracy": value} if status is Status.OK else {})


@pytest.mark.parametrize("claim", SHIPPED, ids=lambda claim: f"{claim.suite} {claim.title} {claim.model}")
def test_every_published_row_names_one_configuration_of_a_suite_and_a_metric_of_its_task(claim: Claim) -> None:
    assert claim.task in TASKS and claim.model in registry.entries()
    ours = published.trials(claim, "cpu")
    assert len({trial.seed for trial in ours}) == len(ours) >= 2
    assert published.metric(claim).name == claim.metric
    assert claim.tolerance > 0 and claim.source.strip() and claim.status in ("verified", "second-hand")
    assert (claim.device == "cuda") == (claim.suite == "paper-gpu")


@pytest.mark.parametrize("name", [name for name in OWN_SUITES if name != "paper-gpu"])
def test_no_trial_of_a_suite_is_run_without_a_published_result_to_hold_it_against(name: str) -> None:
    judged = {trial.id for claim in SHIPPED if claim.suite == name for trial in published.trials(claim, "cpu")}
    assert {trial.id for trial in load(name).trials(device="cpu")} == judged


def test_each_row_is_there_once() -> None:
    keys = [(claim.suite, claim.title, claim.model, claim.metric) for claim in SHIPPED]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("column", "written", "message"),
    [
        ("tolerance", "0", "row 2: tolerance: .*greater than 0"),
        ("tolerance", "", "row 2: tolerance: .*valid number"),
        ("source", "", "row 2: source: .*at least 1 character"),
        ("status", "remembered", "row 2: status: .*'verified' or 'second-hand'"),
        ("rule", "near", "row 2: rule: .*'mean within', 'mean reaches', 'best reaches' or 'fails within'"),
        ("first_verdict", "lost", "row 2: first_verdict: .*'reproduced'"),
        ("value", "good", "row 2: value: .*valid number"),
        ("parameters", "[1", "row 2: parameters: "),
        ("parameters", "3", "row 2: parameters: .*mapping|row 2: parameters: .*dictionary"),
    ],
)
def test_a_row_that_says_nothing_certain_is_refused_with_its_place(
    tmp_path: Path, column: str, written: str, message: str
) -> None:
    with published.FILE.open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    path = tmp_path / "published.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(row))
        table.writeheader()
        table.writerow({**row, column: written})
    with pytest.raises(InvalidParameter, match=message):
        claims(path)


def test_a_row_that_no_trial_or_more_than_one_kind_of_trial_could_meet_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="fcn on japanese_vowels length=3 has 0 configurations"):
        published.trials(replace(CLAIM, parameters={"length": 3}), "cpu")
    copying = replace(CLAIM, suite="paper-copy", task="copy_memory", model="tcn")
    with pytest.raises(InvalidParameter, match="tcn on copy_memory has 2 configurations"):
        published.trials(copying, "cpu")
    with pytest.raises(InvalidParameter, match="has no metric f1; it has accuracy, cross_entropy"):
        published.metric(replace(CLAIM, metric="f1"))


@pytest.mark.parametrize(
    ("rule", "direction", "values", "verdict"),
    [
        ("mean within", "higher", (0.84, 0.88), "reproduced"),
        ("mean within", "higher", (0.85, 0.85), "reproduced"),
        ("mean within", "higher", (0.84, 0.84), "not reproduced"),
        ("mean within", "higher", (0.99, 0.99), "not reproduced"),
        ("mean within", "lower", (0.94, 0.90), "reproduced"),
        ("mean reaches", "higher", (0.99, 0.99), "reproduced"),
        ("mean reaches", "higher", (0.99, 0.60), "not reproduced"),
        ("mean reaches", "lower", (0.10, 0.10), "reproduced"),
        ("mean reaches", "lower", (0.96, 0.96), "not reproduced"),
        ("best reaches", "higher", (0.86, 0.10), "reproduced"),
        ("best reaches", "higher", (0.84, 0.10), "not reproduced"),
        ("best reaches", "lower", (0.94, 9.0), "reproduced"),
        ("best reaches", "lower", (0.96, 9.0), "not reproduced"),
    ],
)
def test_the_verdict_is_what_the_rule_says(
    rule: str, direction: str, values: tuple[float, float], verdict: str
) -> None:
    claim = replace(CLAIM, rule=rule)  # type: ignore[arg-type]
    found = judge(claim, direction, [result(value) for value in values])  # type: ignore[arg-type]
    assert found.verdict == verdict and found.n == 2 and found.ours is not None
    assert found.ours.mean == pytest.approx(sum(values) / 2)
    assert found.best == (max(values) if direction == "higher" else min(values))


def test_an_unfinished_seed_is_no_verdict_and_a_failed_one_is_no_reproduction() -> None:
    good = result(0.9)
    assert judge(CLAIM, "higher", [None, None]) == (CLAIM, None, None, 0, "not run", "0 of 2 seeds", "", None)
    assert judge(CLAIM, "higher", [good, None]).verdict == "not run"
    failed = judge(CLAIM, "higher", [good, good, result(0, Status.DIVERGED)])
    assert failed.verdict == "not reproduced" and failed.reason == "1 of 3 trials ended otherwise: diverged"


def with_floor(value: float, floor: float) -> Result:
    return replace(result(value), floor=floor, primary="accuracy")


def test_a_published_failure_fails_as_published_and_is_never_reproduced() -> None:
    claim = replace(CLAIM, rule="fails within")
    found = judge(claim, "higher", [with_floor(0.9, 0.9), with_floor(0.92, 0.9)])
    assert found.verdict == "fails as published" and found.floor == 0.9
    assert judge(claim, "higher", [with_floor(1.0, 0.9)] * 2).verdict == "not reproduced"  # it succeeds
    assert judge(claim, "higher", [with_floor(0.9, 0.9), None]).verdict == "not run"


def test_what_a_constant_answer_passes_is_not_reproduced() -> None:
    found = judge(CLAIM, "higher", [with_floor(0.9, 0.88)] * 2)
    assert (found.verdict, found.reason) == ("not reproduced", "a constant answer passes this rule too")
    assert judge(CLAIM, "higher", [with_floor(0.9, 0.5)] * 2).verdict == "reproduced"


@cache
def floor(task: str, parameters: str, seed: int) -> float:
    """Of the primary metric, by the task itself. parameters: as JSON."""
    return build_task(task, json.loads(parameters)).floor(seed)


@pytest.mark.parametrize("claim", SHIPPED, ids=lambda claim: f"{claim.suite} {claim.title} {claim.model}")
def test_a_constant_answer_passes_no_rule_but_that_of_a_published_failure(claim: Claim) -> None:
    missing = [name for name in TASKS[claim.task].datasets if not datasets.is_here(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in RNNBENCH_DATA")
    trial = published.trials(claim, "cpu")[0]
    primary = build_task(claim.task, trial.task_parameters).metrics[0]
    assert primary.name == claim.metric  # whose floor is known
    constant = floor(claim.task, json.dumps(trial.task_parameters), trial.seed)
    if claim.rule == "fails within":
        assert abs(claim.value - constant) < 2 * claim.tolerance
    else:
        assert not published.holds(claim, primary.direction, constant, constant)


def test_failures_are_counted_apart_and_stand_beside_their_floor() -> None:
    failing = replace(CLAIM, rule="fails within", model="transformer")
    found = [
        judge(CLAIM, "higher", [with_floor(0.9, 0.5)] * 2),
        judge(CLAIM, "higher", [with_floor(0.9, 0.5)] * 2),
        judge(failing, "higher", [with_floor(0.9, 0.89)] * 2),
    ]
    shown = text_of(found)
    assert "2 of 2 published results reproduced; 1 of 1 published failures fail as published" in shown
    assert text_of([judge(failing, "higher", [None])]).rstrip().endswith("\n1 not run")
    assert "floor 0.89" in shown and "fails, mean 0.85" in shown


def test_the_first_verdict_and_what_was_changed_after_it_stand_beside_the_last() -> None:
    changed = replace(CLAIM, first_verdict="not reproduced", first="0.871", changed="more steps")
    plain = replace(CLAIM, suite="paper-splice", first_verdict="reproduced", first="0.935")
    shown = text_of([judge(claim, "higher", [with_floor(0.9, 0.5)] * 2) for claim in (changed, plain)])
    assert "first 0.871: not reproduced *" in shown and "first 0.935: reproduced" in shown
    told = "changed after a verdict had been seen: fcn on japanese_vowels, more steps."
    assert f"* paper-japanese-vowels (japanese_vowels): {told}" in shown
    assert "paper-splice (japanese_vowels): nothing was changed after a verdict had been seen." in shown
    never = [judge(replace(CLAIM, suite="paper-gpu"), "higher", [None])]
    assert "paper-gpu (japanese_vowels): no run has been kept." in text_of(never)


@pytest.mark.parametrize("name", OWN_SUITES)
def test_a_suite_names_a_verdict_in_sight_in_its_header_exactly_where_a_row_says_what_was_changed(name: str) -> None:
    lines = (provenance.ROOT / "benchmarks" / "suites" / f"{name}.yaml").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    told = "in sight" in " ".join(comments).replace("#   ", "")
    assert told == any(claim.changed for claim in SHIPPED if claim.suite == name)


def test_first_verdicts_follow_from_the_rules_where_the_history_has_a_number() -> None:
    known = [claim for claim in SHIPPED if claim.first.replace(".", "").isdigit()]
    assert len(known) == 19
    for claim in known:
        value = float(claim.first)
        held = published.holds(claim, published.metric(claim).direction, value, value)
        good = "fails as published" if claim.rule == "fails within" else "reproduced"
        assert claim.first_verdict == (good if held else "not reproduced"), claim


def text_of(found: list[Finding]) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(verifying.render(found))
    return console.export_text()


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rnnbench", "verify", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)


def plant(results: Path, shortfall: float) -> None:
    """Results of every trial on Japanese vowels: as published, less ``shortfall``."""
    for claim in SHIPPED:
        if claim.task == "japanese_vowels":
            for trial in published.trials(claim, "cpu"):
                write_run(results, trial, test={"accuracy": claim.value - shortfall}, score=None)


@pytest.mark.parametrize(
    ("shortfall", "code", "verdict"), [(0.0, 0, "3 of 3 published results reproduced"), (0.3, 1, "3 not reproduced")]
)
def test_the_command_shows_the_verdicts_writes_them_down_and_ends_by_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shortfall: float,
    code: int,
    verdict: str,
) -> None:
    plant(tmp_path, shortfall)
    ran = []
    monkeypatch.setattr(verifying, "complete", lambda suite, device, options, asked: ran.append((suite, asked.tasks)))
    arguments = ("japanese_vowels", "--device", "cpu", "--results", str(tmp_path))
    assert run_command(monkeypatch, *arguments) == code
    assert ran == [("paper-japanese-vowels", ["japanese_vowels"])]
    shown, page = capsys.readouterr().out, (tmp_path / verifying.PAGE).read_text()
    for text in (shown, page):
        assert verdict in text and "Fawaz et al. 2019" in text and "steps of adam" in text
        assert "first" in text and "0.923:" in text and "changed after a verdict" in text


def test_a_failed_trial_is_named_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, 0.0)
    claim = next(claim for claim in SHIPPED if claim.task == "japanese_vowels" and claim.model == "hmm")
    write_failure(tmp_path, published.trials(claim, "cpu")[0], Status.TIMEOUT, "too slow")
    found = verifying.find(claim, "cpu", tmp_path)
    assert found.verdict == "not reproduced" and "timeout" in found.reason


def test_what_needs_a_gpu_is_shown_as_not_run_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "complete", lambda *_: pytest.fail("nothing of this runs on a CPU"))
    found = verifying.verify("mnist_pixels", "cpu", Options(tmp_path, None))
    assert found and {(x.verdict, x.reason) for x in found} == {("not run", "needs a GPU")}
    assert f"{len(found)} not run" in text_of(found)


def test_a_dry_run_says_what_would_run_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    assert run_command(monkeypatch, "gun_point", "--dry-run", "--device", "cpu", "--results", str(folder)) == 0
    assert "gun_point" in capsys.readouterr().out and not folder.exists()


def test_a_task_without_a_published_result_is_refused_with_the_nearest_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown task with a published result 'party'; did you mean 'parity'"):
        verifying.verify("party", "cpu", Options(tmp_path, None))
