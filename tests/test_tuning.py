"""Tuning: the same budget for all, the default first, validation alone, and the same outcome however the run went."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import __main__ as command_line
from benchmarks import tuned, tuning, tuning_section
from benchmarks.execution.plan import Plan
from benchmarks.experiment import prepare
from benchmarks.parameters import InvalidParameter
from benchmarks.provenance import code_digest
from benchmarks.records import Result, Status, failure, promote, read_curve, read_result, run_folder, write_result
from benchmarks.running import Options, Stopped
from benchmarks.seeding import seed_for
from benchmarks.suite import Suite, load
from benchmarks.tasks import registry as tasks
from benchmarks.tasks.diagnostic import Adding
from benchmarks.tasks.task import Splits
from benchmarks.trial import Trial
from benchmarks.tuning import BATCH, Asked, Study, studies, tune

HEADER = "# Command: none\n# Time: seconds\n# Expected: nothing\n"
RNN = {"name": "rnn", "config": {"width": 4}}
FEED_FORWARD = {"name": "feed_forward", "config": {"width": 4}}
SMALL: dict[str, Any] = {
    "name": "mine",
    "description": "For a test.",
    "seeds": 2,
    "fit": {"n_steps": 3, "evaluate_every": 3, "batch_size": 8},
    "grids": [
        {
            "models": [RNN, FEED_FORWARD, "hmm", "floor"],
            "tasks": [{"name": "adding", "parameters": {"length": 5, "n_train": 32, "n_validation": 16, "n_test": 8}}],
        }
    ],
}


def suite(folder: Path, **changes: Any) -> Suite:
    folder.mkdir(exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text(HEADER + yaml.safe_dump(SMALL | changes))
    return load(str(path), tuned=False)


def grid(models: list[Any], tasks: list[Any] | None = None) -> list[dict[str, Any]]:
    return [{"models": models, "tasks": tasks or SMALL["grids"][0]["tasks"]}]


def run_here(trial: Trial, results: Path) -> None:
    """What a worker does with a tuning trial, in this process."""
    folder = run_folder(results, trial.id)
    experiment = prepare(
        trial.task,
        trial.model,
        trial.seed,
        trial.parameter_budget,
        trial.device,
        trial.task_parameters,
        trial.model_config,
        trial.fit,
        str(folder),
        code_digest(trial.task, trial.model, "tuning"),
        "tuning",
    )
    experiment.fit()
    experiment.finish()
    promote(folder)


class Here:
    """Stands in for the supervisor. ran: ids in order; backwards: the last trial of a batch first; rounds: before it stops."""

    def __init__(self, backwards: bool = False, rounds: int | None = None) -> None:
        self.ran: list[str] = []
        self.backwards, self.rounds = backwards, rounds

    def __call__(self, trials: list[Trial], found: Plan, digests: dict[str, str], options: Options) -> Any:
        if self.rounds == 0:
            raise Stopped("stopped by a test", 130)
        self.rounds = None if self.rounds is None else self.rounds - 1
        for trial in found.to_run[:: -1 if self.backwards else 1]:
            run_here(trial, options.results)
            self.ran.append(trial.id)
        return type("Summary", (), {"stopped_by": None})


def tuned_here(
    monkeypatch: pytest.MonkeyPatch, of: Suite, results: Path, here: Here, n_trials: int = 6
) -> tuned.Tuning:
    monkeypatch.setattr(tuning, "supervise", here)
    return tune(studies(of, Asked(n_trials, 1000, device="cpu")), Options(results, 1))


def told(study: Study, *values: float | None, losses: Sequence[float | None] = (0.5,) * BATCH) -> list[Trial]:
    """Asks for a batch and answers with these values of the primary metric, None for a trial that diverged."""
    batch = study.ask()
    name = tasks.task(study.task.name, study.default.task_parameters).metrics[0].name
    study.tell(
        (failure(trial, Status.DIVERGED, "nan", "code"), None)
        if value is None
        else (Result(trial.id, {}, Status.OK, "code", primary=name, validation={name: value}), loss)
        for trial, value, loss in zip(batch, values, losses, strict=True)
    )
    return batch


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """rnn on adding, whose error is the better the lower, with a budget of two batches."""
    (found,) = studies(suite(tmp_path, grids=grid(["rnn"])), Asked(2 * BATCH, 1000, device="cpu"))
    return found


def test_every_model_with_something_to_tune_gets_the_same_trials_and_its_default_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of = suite(tmp_path)
    found = tuned_here(monkeypatch, of, tmp_path / "results", here := Here())
    assert [(study.task, study.model) for study in found.studies] == [("adding", "rnn"), ("adding", "feed_forward")]
    assert {len(study.values) for study in found.studies} == {6} and len(set(here.ran)) == len(here.ran) == 12
    for study, (grid, task, model) in zip(found.studies, of.cells(["rnn", "feed_forward"]), strict=True):
        default = replace(of.trial(grid, task, model, "cpu"), seed=1000, mode="tuning")
        result = read_result(run_folder(tmp_path / "results", default.id))
        assert result is not None and study.values[0] == study.default == pytest.approx(result.validation["mse"], 1e-5)
        assert study.tuned == min(value for value in study.values if value is not None)


def test_what_won_is_what_its_trial_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of = suite(tmp_path, grids=grid([FEED_FORWARD]))
    (found,) = tuned_here(monkeypatch, of, tmp_path / "results", Here()).studies
    ((made_of, task, model),) = of.cells()
    assert found.changed and set(found.changed) <= set(found.fields) == {"fit.learning_rate", "window", "dropout"}
    winner = replace(of.trial(made_of, task, model, "cpu", found.changed), seed=1000, mode="tuning")
    result = read_result(run_folder(tmp_path / "results", winner.id))
    assert result is not None and result.validation["mse"] == pytest.approx(found.tuned, rel=1e-5)


class Untouchable:
    """Stands in for a test split: any look at it is an error."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test split was asked for its {name}")


def test_a_task_whose_test_split_must_not_be_touched_is_tuned_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean = tuned_here(monkeypatch, suite(tmp_path), tmp_path / "clean", Here())
    splits = Adding.splits

    def poisoned(self: Adding, seed: int) -> Splits:
        return splits(self, seed)._replace(test=Untouchable())  # type: ignore[arg-type]

    monkeypatch.setattr(Adding, "splits", poisoned)
    assert tuned_here(monkeypatch, suite(tmp_path), tmp_path / "poisoned", Here()) == clean
    kept = [read_result(folder) for folder in (tmp_path / "poisoned" / "runs").iterdir()]
    assert len(kept) == 12
    for result in kept:
        assert result is not None and result.validation and result.selected_on == "validation"
        assert not result.test and result.score is None and result.floor is None and result.state_bytes is None


def test_a_tuning_trial_refuses_to_be_evaluated(tmp_path: Path) -> None:
    parameters = {"length": 5, "n_train": 8, "n_validation": 8, "n_test": 8}
    experiment = prepare("adding", "floor", 0, None, "cpu", parameters, run_folder=str(tmp_path), mode="tuning")
    experiment.fit()
    with pytest.raises(RuntimeError, match="a tuning trial ends with validation"):
        experiment.evaluate()
    assert "16 validation and no test" in str(experiment) or "8 validation and no test" in str(experiment)


def test_a_study_that_was_stopped_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = tuned_here(monkeypatch, suite(tmp_path), tmp_path / "whole", Here())
    with pytest.raises(Stopped):
        tuned_here(monkeypatch, suite(tmp_path), tmp_path / "halved", first := Here(rounds=1))
    resumed = tuned_here(monkeypatch, suite(tmp_path), tmp_path / "halved", second := Here())
    assert resumed == whole
    assert len(first.ran) == 2 * BATCH and len(second.ran) == 12 - 2 * BATCH and not set(first.ran) & set(second.ran)
    tuned_here(monkeypatch, suite(tmp_path), tmp_path / "halved", third := Here())
    assert not third.ran


def test_the_order_in_which_trials_end_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forwards, backwards = (
        tuned_here(monkeypatch, suite(tmp_path), tmp_path / str(way), Here(backwards=way)) for way in (False, True)
    )
    assert forwards == backwards


def test_a_larger_budget_begins_with_the_trials_of_a_smaller_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = tuned_here(monkeypatch, suite(tmp_path), tmp_path / "results", Here(), n_trials=4)
    large = tuned_here(monkeypatch, suite(tmp_path), tmp_path / "results", here := Here(), n_trials=6)
    assert [study.values[:4] for study in large.studies] == [study.values for study in small.studies]
    assert len(here.ran) == 4


def test_a_space_of_three_points_is_run_three_times_and_every_repetition_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = {"name": "rnn", "fit": {"learning_rate": 0.01}, "config": {"width": 4, "initialisation": "xavier"}}
    of = suite(tmp_path, grids=grid([written]))
    (found,) = tuned_here(monkeypatch, of, tmp_path / "results", here := Here(), n_trials=12).studies
    assert found.fields == ("input_dropout",)
    assert len(found.values) == 12 and len(set(here.ran)) == len(here.ran) == 3


def test_a_tie_leaves_the_default(study: Study) -> None:
    told(study, 0.2, 0.2, 0.3, None)
    assert study.outcome().changed == {} and study.outcome().tuned == 0.2


def test_a_failure_counts_as_worst_even_of_the_default(study: Study) -> None:
    batch = told(study, None, 0.5, 0.4, None)
    told(study, None, None, None, None)
    found = study.outcome()
    assert found.default is None and found.tuned == 0.4 and found.values == (None, 0.5, 0.4, *[None] * 5)
    of_best = batch[2]
    assert found.changed and all(
        (of_best.fit | of_best.model_config)[name.removeprefix("fit.")] == value
        for name, value in found.changed.items()
    )
    assert study.places() == [2, 1, 0, *[2] * 5]


def test_where_every_trial_fails_nothing_is_changed(study: Study) -> None:
    told(study, *[None] * BATCH)
    found = study.outcome()
    assert found.tuned is None and found.changed == {} and found.told == "nothing: no trial finished"


def test_of_a_score_the_highest_wins(tmp_path: Path) -> None:
    (study,) = studies(suite(tmp_path, grids=grid(["rnn"], ["parity"])), Asked(BATCH, 1000, device="cpu"))
    told(study, 0.5, 0.7, 0.9, 0.6)
    assert study.places() == [3, 1, 0, 2] and study.outcome().tuned == 0.9 and study.outcome().changed


@pytest.mark.parametrize(
    ("values", "losses", "winner", "by_loss"),
    [
        ((1.0, 0.9, 1.0, 1.0), (0.30, 0.01, 0.20, 0.25), 2, (0.2, 0.3)),  # equal metrics: the lower loss
        ((1.0, 1.0, 1.0, 1.0), (0.2, 0.2, 0.2, 0.2), 0, None),  # equal losses too: the default
        ((1.0, 1.0, 0.9, 1.0), (0.2, 0.1951, 0.1, 0.2), 0, None),  # practically equal losses: the default
        ((0.9, 1.0, 0.9, 0.9), (0.1, 0.9, 0.05, 0.05), 1, None),  # the metric goes before the loss
        ((1.0, 1.0, 1.0, 1.0), (0.2, 0.2000000001, 0.1999999999, 0.3), 0, None),  # six digits
        ((1.0, 1.0, None, 1.0), (0.2, None, 0.1, 0.2), 0, None),  # without a loss, or failed
        ((None, 1.0, 1.0, 0.5), (None, 0.3, 0.2, 0.1), 2, None),  # the default failed
        ((1.0, 1.0, 0.5, 1.0), (-1.0, -2.0, -9.0, -1.5), 1, (-2.0, -1.0)),  # a loss of a density
    ],
)
def test_of_equal_metrics_the_lower_validation_loss_wins_and_the_default_where_losses_are_practically_equal(
    tmp_path: Path,
    values: tuple[float | None, ...],
    losses: tuple[float | None, ...],
    winner: int,
    by_loss: tuple[float, float] | None,
) -> None:
    (study,) = studies(suite(tmp_path, grids=grid(["rnn"], ["parity"])), Asked(BATCH, 1000, device="cpu"))
    told(study, *values, losses=losses)
    found = study.outcome()
    assert found.changed == study.changes[winner] and found.tuned == study.values[winner]
    assert found.decisive_losses == by_loss and (by_loss is not None) == ("; by the loss" in found.told)
    assert len(found.losses) == len(found.values)


def test_the_loss_is_that_of_the_checkpoint_that_was_kept_and_is_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of = suite(tmp_path, grids=grid([RNN]))
    (found,) = tuned_here(monkeypatch, of, tmp_path / "results", Here(), n_trials=2).studies
    ((made_of, task, model),) = of.cells()
    default = replace(of.trial(made_of, task, model, "cpu"), seed=1000, mode="tuning")
    (row,) = [row for row in read_curve(run_folder(tmp_path / "results", default.id)) if row["best"]]
    assert found.losses[0] == pytest.approx(row["validation_loss"], rel=1e-5)
    path = tmp_path / "tuned.yaml"
    tuned.write(path, tuned.Tuning("mine", 2, 1000, "TPE", "2.13", "a machine", (found,)), "by hand")
    assert f"losses: [{found.losses[0]}, {found.losses[1]}]" in path.read_text()
    assert tuned.read(path).studies == (found,)


def test_all_but_the_first_batch_of_a_budget_follow_from_what_was_found(tmp_path: Path) -> None:
    answers: tuple[tuple[float, ...], ...] = ((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1))
    asked = []
    for name, values in zip("ab", answers, strict=True):
        (study,) = studies(suite(tmp_path / name, grids=grid(["rnn"])), Asked(16, 1000, device="cpu"))
        told(study, *values)
        study.ask()
        asked.append((study.points[:BATCH], study.points[BATCH:]))
    (first, second), (same_first, other_second) = asked
    assert first == same_first and second != other_second


def test_a_study_says_how_much_of_its_validation_data_the_suite_trains_or_selects_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fit = {"n_steps": 1, "evaluate_every": 1}
    real = [{"name": name, "fit": fit} for name in ("japanese_vowels", "co2")]
    of = suite(tmp_path, grids=grid([RNN], [*SMALL["grids"][0]["tasks"], *real]))
    found = tuned_here(monkeypatch, of, tmp_path / "results", Here(), n_trials=1)
    assert {each.task: each.shared for each in found.studies} == {"adding": 0.0, "japanese_vowels": 1.0, "co2": 1.0}
    told = tuning_section._draws(found)
    assert "co2 100%" in told and "none on adding" in told
    older = replace(found, studies=tuple(replace(each, losses=(), shared=None) for each in found.studies))
    assert not tuning_section._draws(older)
    assert [("the lower loss won" in tuning_section._told(each)) for each in (found, older)] == [True, False]


def test_what_the_suite_writes_for_a_model_is_not_tuned_and_what_it_writes_for_all_is(tmp_path: Path) -> None:
    fit = SMALL["fit"] | {"learning_rate": 0.01}
    model = {"name": "rnn", "config": {"initialisation": "xavier"}}
    (study,) = studies(suite(tmp_path, fit=fit, grids=grid([model])), Asked(8, 1000, device="cpu"))
    assert study.start == {"fit.learning_rate": 0.01, "input_dropout": 0.0}
    trials = told(study, 1, 1, 1, 1) + told(study, 1, 1, 1, 1)
    assert {trial.model_config["initialisation"] for trial in trials} == {"xavier"}
    assert trials[0].fit["learning_rate"] == 0.01 and len({trial.fit["learning_rate"] for trial in trials}) == 8


def test_a_default_outside_of_the_space_widens_it_and_is_first(tmp_path: Path) -> None:
    fit = SMALL["fit"] | {"learning_rate": 0.5}
    (study,) = studies(suite(tmp_path, fit=fit, grids=grid(["rnn"])), Asked(8, 1000, device="cpu"))
    assert study.ask()[0].fit["learning_rate"] == 0.5


def test_drawn_numbers_have_three_digits(study: Study) -> None:
    rates = [trial.fit["learning_rate"] for trial in study.ask()[1:]]
    assert all(rate == float(f"{rate:.3g}") for rate in rates) and len(set(rates)) == BATCH - 1


def test_a_trial_that_ended_without_saying_anything_of_the_model_stops_the_tuning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(trials: list[Trial], found: Plan, digests: dict[str, str], options: Options) -> Any:
        for trial in trials:
            folder = run_folder(options.results, trial.id)
            folder.mkdir(parents=True)
            write_result(folder, failure(trial, Status.INFRA_ERROR, "no kernel", digests[trial.id]))
        return type("Summary", (), {"stopped_by": None})

    monkeypatch.setattr(tuning, "supervise", broken)
    with pytest.raises(Stopped, match="infra_error: no kernel; the same command tries again"):
        tune(studies(suite(tmp_path), Asked(4, 1000, device="cpu")), Options(tmp_path / "results", 1))


@pytest.mark.parametrize(
    ("asked", "changes", "message"),
    [
        (Asked(4, 1), {}, "seed: mine is evaluated with seed 1; tune with one of your own"),
        (Asked(4, 1000), {"grids": grid(["floor", "hmm"])}, "none of these models has anything to tune"),
        (Asked(4, 1000, ["floor"]), {}, "none of these models has anything to tune"),
        (
            Asked(4, 1000),
            {"fit": {"learning_rate": 0.0}},
            "rnn on adding: fit.learning_rate is tuned on a logarithmic scale, which cannot hold its default 0.0; write",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_sentence(
    tmp_path: Path, asked: Asked, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        studies(suite(tmp_path, **changes), asked)
    assert message in str(refused.value)


def test_tuning_a_part_keeps_the_rest_of_what_the_suite_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of, results, path = suite(tmp_path), tmp_path / "results", tmp_path / "tuned.yaml"
    whole = tuned_here(monkeypatch, of, results, Here(), 2)
    rnn, feed_forward = whole.studies
    gone = replace(rnn, task_settings=rnn.task_settings | {"length": 6})
    rnn = replace(rnn, git_commit="of an older checkout")
    tuned.write(path, replace(whole, studies=(gone, feed_forward, rnn)), "by hand")
    under_way = studies(of, Asked(2, 1000, ["feed_forward"], device="cpu"))
    kept = tuning.kept_from(path, under_way)
    assert kept == [rnn] and tuning.kept_from(tmp_path / "none.yaml", under_way) == []
    assert tune(under_way, Options(results, 1), kept).studies == (rnn, feed_forward)


def test_what_was_tuned_otherwise_is_not_mixed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of, path = suite(tmp_path), tmp_path / "tuned.yaml"
    tuned.write(path, tuned_here(monkeypatch, of, tmp_path / "results", Here(), 2), "by hand")
    longer = studies(of, Asked(3, 1000, ["feed_forward"], device="cpu"))
    told = "holds what was tuned for rnn on adding, which this command leaves out, otherwise: trials 2 and not 3"
    with pytest.raises(InvalidParameter, match=told):
        tuning.kept_from(path, longer)
    assert tuning.kept_from(path, studies(of, Asked(3, 1000, device="cpu"))) == []  # nothing is left out


def test_the_seed_of_tuning_generates_other_data_than_any_evaluation() -> None:
    assert len({seed_for("data", "adding", seed) for seed in (*range(50), 1000)}) == 51


@pytest.mark.slow
def test_the_command_tunes_with_any_number_of_workers_and_the_suite_runs_with_what_won(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = suite(tmp_path, tuned=True, grids=grid([RNN, "floor"]))
    path = str(of.tuned_file.parents[1] / "mine.yaml")
    budget = ["tune", path, "--trials", "5", "--device", "cpu"]
    for workers in ("1", "2"):
        where = [
            "--workers",
            workers,
            "--results",
            str(tmp_path / workers),
            "--output",
            str(tmp_path / f"{workers}.yaml"),
        ]
        assert command(monkeypatch, *budget, *where) == 0
    one, two = (tuned.read(tmp_path / f"{workers}.yaml") for workers in ("1", "2"))
    assert one == two and len(one.studies[0].values) == 5 and None not in one.studies[0].values
    capsys.readouterr()
    assert command(monkeypatch, *budget, "--results", str(tmp_path / "2"), "--dry-run") == 0
    assert "5 done, 0 missing" in capsys.readouterr().out and not of.tuned_file.exists()
    assert command(monkeypatch, *budget, "--results", str(tmp_path / "2")) == 0
    assert tuned.read(of.tuned_file) == two
    assert command(monkeypatch, "run", path, "--device", "cpu", "--results", str(tmp_path / "2")) == 0
    assert "Tuning" in (tmp_path / "2" / "mine" / "report.html").read_text()
    ran = load(path).trials(["rnn"], device="cpu")
    for trial in ran:
        result = read_result(run_folder(tmp_path / "2", trial.id))
        assert result is not None and result.test and result.spec["tuned"] == dict.fromkeys(one.studies[0].fields, 5)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`main` with these arguments, in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["rnnbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smok", "--trials", "2"], "unknown suite 'smok'; did you mean 'smoke'?"),
        (["smoke", "--trials", "2", "--models", "lsmt"], "unknown model of suite smoke 'lsmt'; did you mean 'lstm'?"),
        (["smoke", "--trials", "2", "--seed", "0"], "seed: smoke is evaluated with seed 0; tune with one of your own"),
        (["smoke", "--trials", "0"], "Invalid value for '--trials'"),
    ],
)
def test_a_mistyped_command_ends_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(monkeypatch, "tune", *arguments) == 2
    assert message in capsys.readouterr().err
