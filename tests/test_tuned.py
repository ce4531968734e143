"""Tuned configurations: what they replace, what goes before them, what they are called, and how a bad file is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from benchmarks import tables, tuned
from benchmarks.parameters import InvalidParameter
from benchmarks.suite import load
from benchmarks.trial import Trial
from benchmarks.tuned import Tuned, Tuning
from models.names import UnknownName

HEADER = "# Command: none\n# Time: seconds\n# Expected: nothing\n"
CONTENT: dict[str, Any] = {
    "name": "mine",
    "description": "For a test.",
    "seeds": 1,
    "fit": {"n_steps": 10, "learning_rate": 0.5},
    "tuned": True,
    "grids": [
        {
            "models": ["rnn", {"name": "lstm", "config": {"n_layers": 2}, "fit": {"clip_norm": 3.0}}, "floor"],
            "tasks": ["parity", {"name": "adding", "parameters": {"length": 9}, "fit": {"n_steps": 20}}],
        }
    ],
}
FIELDS = ("fit.learning_rate", "input_dropout", "initialisation")
LSTM = {"n_layers": 2, "fit.clip_norm": 3.0}
ADDING = {"length": 9, "fit.n_steps": 20}


def study(task: str, model: str, **changes: Any) -> Tuned:
    settings = {"task_settings": ADDING if task == "adding" else {}, "model_settings": LSTM if model == "lstm" else {}}
    of = (
        settings
        | {"fields": FIELDS, "changed": {}, "default": 0.3, "tuned": 0.3, "values": (0.3, None), "git_commit": None}
        | changes
    )
    return Tuned(task=task, model=model, **of)


STUDIES = (
    study("parity", "rnn", changed={"fit.learning_rate": 0.002, "input_dropout": 0.1}),
    study("parity", "lstm", changed={"initialisation": "xavier"}),
    study("adding", "lstm"),
)


def write(folder: Path, content: dict[str, Any], studies: tuple[Tuned, ...] | None = STUDIES) -> str:
    path = folder / "mine.yaml"
    path.write_text(HEADER + yaml.safe_dump(content))
    if studies is not None:
        record = Tuning("mine", 16, 1000, "TPE", "2.13", "a machine", studies)
        tuned.write(tuned.path_of(path, "mine"), record, "rnnbench tune mine --trials 16")
    return str(path)


def by_cell(path: str, **which: Any) -> dict[tuple[str, str], Trial]:
    return {(trial.task, trial.model): trial for trial in load(path).trials(device="cpu", **which)}


def changed_grid(**changes: Any) -> dict[str, Any]:
    return CONTENT | {"grids": [CONTENT["grids"][0] | changes]}


def test_tuned_values_go_before_the_suites_and_behind_the_models_own(tmp_path: Path) -> None:
    changed = {"fit.learning_rate": 0.002, "n_layers": 3, "fit.clip_norm": 1.5, "fit.n_steps": 99}
    trials = by_cell(write(tmp_path, CONTENT, (*STUDIES[:1], study("adding", "lstm", changed=changed))))
    assert trials["parity", "rnn"].fit["learning_rate"] == 0.002  # the suite writes 0.5 for all models
    assert trials["parity", "rnn"].model_config["input_dropout"] == 0.1
    lstm = trials["adding", "lstm"]
    assert lstm.model_config["n_layers"] == 2 and lstm.fit["clip_norm"] == 3.0
    assert lstm.fit["learning_rate"] == 0.002 and lstm.fit["n_steps"] == 99


def test_a_trial_says_what_was_tuned_and_with_how_many_trials(tmp_path: Path) -> None:
    trials = by_cell(write(tmp_path, CONTENT))
    assert trials["parity", "rnn"].tuned == dict.fromkeys(FIELDS, 16)
    assert trials["adding", "lstm"].tuned == dict.fromkeys(FIELDS, 16)  # where the default won, too
    assert not trials["adding", "floor"].tuned


def test_what_was_not_tuned_runs_with_its_defaults(tmp_path: Path) -> None:
    plain = by_cell(write(tmp_path, CONTENT | {"tuned": False}))
    trials = by_cell(write(tmp_path, CONTENT))
    same = {cell for cell, trial in trials.items() if trial == plain[cell]}
    assert same == {("adding", "rnn"), ("parity", "floor"), ("adding", "floor")}


def test_values_tuned_for_another_budget_are_not_used(tmp_path: Path) -> None:
    tasks = [{"name": "adding", "parameters": {"length": 9}, "fit": {"n_steps": 21}}, "parity"]
    trials = by_cell(write(tmp_path, changed_grid(tasks=tasks)))
    assert not trials["adding", "lstm"].tuned and trials["parity", "lstm"].tuned


def test_default_and_tuned_stand_side_by_side_under_names_that_are_the_same_on_every_task(tmp_path: Path) -> None:
    plain = CONTENT["grids"][0] | {"tuned": False}
    trials = load(write(tmp_path, CONTENT | {"grids": [plain, CONTENT["grids"][0]]})).trials(device="cpu")
    assert list(tables.labels(trials)) == [
        *(
            ("parity", "rnn"),
            ("parity", "rnn tuned"),
            ("parity", "lstm"),
            ("parity", "lstm tuned"),
            ("parity", "floor"),
        ),
        *(("adding", "rnn"), ("adding", "lstm"), ("adding", "lstm tuned"), ("adding", "floor")),
    ]


def test_where_all_is_tuned_names_are_plain_and_values_that_differ_by_task_do_not_show(tmp_path: Path) -> None:
    trials = load(write(tmp_path, CONTENT)).trials(device="cpu")
    assert {label for _, label in tables.labels(trials)} == {"rnn", "lstm", "floor"}


def test_variants_of_a_tuned_model_are_told_apart_by_what_the_suite_writes(tmp_path: Path) -> None:
    models = [{"name": "rnn", "config": {"width": width}} for width in (4, 8)]
    studies = tuple(
        study("parity", "rnn", model_settings={"width": width}, changed={"fit.learning_rate": width / 1000})
        for width in (4, 8)
    )
    trials = load(write(tmp_path, changed_grid(models=models, tasks=["parity"]), studies)).trials(device="cpu")
    assert [label for _, label in tables.labels(trials)] == ["rnn width=4", "rnn width=8"]


def test_a_suite_that_is_to_be_tuned_needs_no_tuned_values(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT, studies=None)
    assert all(not trial.tuned for trial in load(path, tuned=False).trials(device="cpu"))
    with pytest.raises(
        InvalidParameter, match=r"mine.yaml: tuned: .*tuned/mine.yaml is not there; make it with: rnnbench"
    ):
        load(path)


def test_what_is_written_is_read_again_and_says_how_it_was_made(tmp_path: Path) -> None:
    path = Path(write(tmp_path, CONTENT))
    kept = tuned.path_of(path, "mine")
    assert kept.read_text().startswith(
        "# Made by: rnnbench tune mine --trials 16\nsuite: mine\ntrials: 16\nseed: 1000\n"
    )
    assert tuned.read(kept).studies == STUDIES and load(str(path)).tuned == tuned.read(kept)


def test_a_trial_survives_its_record(tmp_path: Path) -> None:
    trial = by_cell(write(tmp_path, CONTENT))["parity", "rnn"]
    again = TypeAdapter(Trial).validate_json(TypeAdapter(Trial).dump_json(trial))
    assert again == trial and again.id == trial.id and asdict(again)["tuned"] == dict.fromkeys(FIELDS, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suite: [", "mine.yaml: line 1: not valid YAML.*make it again"),
        ("suite: mine", "trials: Field required; make it again with: rnnbench tune mine"),
        ("3", "the file: .*make it again"),
    ],
)
def test_a_file_that_is_not_right_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, CONTENT)
    tuned.path_of(Path(path), "mine").write_text(text)
    with pytest.raises(InvalidParameter, match=message) as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_a_tuned_field_that_is_gone_is_refused_with_the_file_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT, (study("parity", "rnn", changed={"input_droput": 0.1}),))
    with pytest.raises(
        UnknownName, match=r"tuned/mine.yaml: unknown parameter of model rnn 'input_droput'; did you mean"
    ):
        load(path)


@pytest.mark.parametrize("content", [CONTENT | {"tuned": "yes"}, changed_grid(tuned=1)])
def test_tuned_is_true_or_false(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="tuned: expected true or false, got"):
        load(write(tmp_path, content))
