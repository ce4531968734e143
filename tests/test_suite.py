"""Suites: what they expand to, and how a mistake in one is refused before anything runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.parameters import InvalidParameter
from benchmarks.suite import Suite, load
from benchmarks.tasks.registry import TASKS
from models import registry
from models.names import UnknownName

HEADER = "# Command: make bench\n# Time: a second\n# Expected: nothing\n"
PLAIN = {
    "name": "mine",
    "description": "For a test.",
    "parameter_budget": 1000,
    "seeds": 2,
    "fit": {"n_steps": 10, "learning_rate": 0.5, "batch_size": 8},
    "grids": [
        {
            "models": ["rnn", {"name": "lstm", "config": {"n_layers": 2}, "fit": {"n_steps": 30}}],
            "tasks": [
                "parity",
                {"name": "adding", "parameters": {"length": 9}, "fit": {"n_steps": 20, "clip_norm": 2.0}},
            ],
        }
    ],
}


def write(folder: Path, content: object, header: str = HEADER) -> str:
    path = folder / "mine.yaml"
    path.write_text(header + yaml.safe_dump(content))
    return str(path)


def changed(path: str, value: object) -> dict[str, object]:
    """`PLAIN` with the value at a dotted path replaced or added."""
    content = yaml.safe_load(yaml.safe_dump(PLAIN))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = content
    for part in parents:
        place = place[part]
    place[last] = value
    return content


def test_a_state_budget_sets_widths_at_which_every_model_carries_as_much(tmp_path: Path) -> None:
    content = changed("state_budget", 1024) | {"parameter_budget": None}
    trials = {(t.task, t.model): t for t in load(write(tmp_path, content)).trials(device="cpu")}
    # Floats of four bytes: one state in the vanilla network, two layers of two states in this LSTM.
    assert {trials[task, "rnn"].model_config["width"] for task in ("parity", "adding")} == {256}
    assert {trials[task, "lstm"].model_config["width"] for task in ("parity", "adding")} == {64}
    assert {t.parameter_budget for t in trials.values()} == {None}


def test_a_grid_is_every_model_on_every_task_with_every_seed(tmp_path: Path) -> None:
    trials = load(write(tmp_path, PLAIN)).trials(device="cpu")
    assert [(t.task, t.model, t.seed) for t in trials] == [
        (task, model, seed) for task in ("parity", "adding") for model in ("rnn", "lstm") for seed in (0, 1)
    ]
    assert {t.parameter_budget for t in trials} == {1000}
    assert all(t.task_parameters["length"] == 9 for t in trials if t.task == "adding")
    assert all(t.model_config["n_layers"] == 2 for t in trials if t.model == "lstm")


def test_a_models_fit_goes_before_the_tasks_and_that_before_the_suites(tmp_path: Path) -> None:
    trials = load(write(tmp_path, PLAIN)).trials(seeds=1, device="cpu")
    steps = {(t.task, t.model): t.fit["n_steps"] for t in trials}
    assert steps == {("parity", "rnn"): 10, ("parity", "lstm"): 30, ("adding", "rnn"): 20, ("adding", "lstm"): 30}
    assert {t.fit["batch_size"] for t in trials} == {8}
    assert {t.fit["clip_norm"] for t in trials if t.task == "adding"} == {2.0}


def test_a_trial_that_two_grids_name_is_run_once(tmp_path: Path) -> None:
    once = load(write(tmp_path, PLAIN)).trials(device="cpu")
    twice = load(write(tmp_path, PLAIN | {"grids": PLAIN["grids"] * 2})).trials(device="cpu")  # type: ignore[operator]
    assert twice == once


def test_a_grids_own_seeds_go_before_the_suites(tmp_path: Path) -> None:
    content = changed("grids.0.seeds", [3, 5])
    suite = load(write(tmp_path, content))
    assert {t.seed for t in suite.trials(device="cpu")} == {3, 5}
    assert {t.seed for t in suite.trials(seeds=1, device="cpu")} == {0}


def test_filters_keep_what_they_name_and_refuse_what_the_suite_does_not_hold(tmp_path: Path) -> None:
    suite = load(write(tmp_path, PLAIN))
    assert {(t.model, t.task) for t in suite.trials(["lstm"], ["adding"], device="cpu")} == {("lstm", "adding")}
    with pytest.raises(UnknownName, match=r"unknown model of suite mine 'lsmt'; did you mean 'lstm'\?"):
        suite.trials(models=["lsmt"])
    with pytest.raises(UnknownName, match="unknown task of suite mine 'recall'"):
        suite.trials(tasks=["recall"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", 3, r"unknown key of suite 'seed'; did you mean 'seeds'\?"),
        ("grids.0.model", ["rnn"], r"unknown key of grids\[0\] 'model'; did you mean 'models'\?"),
        ("grids.0.models.0", "rnnn", r"unknown model 'rnnn'; did you mean 'rnn'\?"),
        ("grids.0.tasks.0", "party", r"unknown task 'party'; did you mean 'parity'\?"),
        ("grids.0.tasks.1.parameters", {"lenght": 9}, "did you mean 'length'"),
        ("grids.0.models.1.config", {"n_layer": 2}, "did you mean 'n_layers'"),
        ("fit", {"n_step": 10}, "did you mean 'n_steps'"),
        ("grids.0.tasks.1.parameter", {}, "did you mean 'parameters'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_file_and_the_nearest_known_one(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    with pytest.raises(UnknownName, match=f"^mine.yaml: .*{message}"):
        load(write(tmp_path, changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "runs"),
        ("name", "../elsewhere"),
        ("name", 3),
        ("description", ""),
        ("parameter_budget", "many"),
        ("parameter_budget", True),
        ("state_budget", 1024),
        ("state_budget", 0),
        ("seeds", 0),
        ("seeds", [1, 1]),
        ("seeds", 1.5),
        ("fit", []),
        ("fit", {"n_steps": "10"}),
        ("fit", {"n_steps": -1}),
        ("grids", []),
        ("grids", {"models": ["rnn"]}),
        ("grids.0", "rnn"),
        ("grids.0.models", "rnn"),
        ("grids.0.models.0", 3),
        ("grids.0.models.1.config", {"n_layers": "two"}),
        ("grids.0.tasks.1.parameters", {"length": "long"}),
        ("grids.0.tasks.1.parameters", None),
    ],
)
def test_a_wrong_type_or_value_is_refused_with_the_files_name(tmp_path: Path, path: str, value: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^mine.yaml: "):
        load(write(tmp_path, changed(path, value)))


@pytest.mark.parametrize("key", ["name", "description", "seeds", "grids"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidParameter, match=f"mine.yaml: suite: {key} is missing"):
        load(write(tmp_path, {name: value for name, value in PLAIN.items() if name != key}))


def test_a_header_without_command_time_or_expectation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="must begin with a comment"):
        load(write(tmp_path, PLAIN, header="# Command: make bench\n"))


def test_a_key_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path, PLAIN))
    path.write_text(path.read_text() + "seeds: 5\n")
    with pytest.raises(InvalidParameter, match="'seeds' is written twice"):
        load(str(path))


def test_an_unknown_suite_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown suite 'smok'; did you mean 'smoke'"):
        load("smok")
    with pytest.raises(InvalidParameter, match="no such suite file"):
        load(str(tmp_path / "none.yaml"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*PLAIN, "models", "tasks"]) | st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_whatever_is_written_a_suite_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    path = write(tmp_path_factory.getbasetemp(), content)
    with pytest.raises((UnknownName, InvalidParameter), match=r"^mine.yaml: "):
        load(path)


@given(st.text(min_size=1, max_size=12).filter(lambda key: key not in PLAIN))
def test_any_key_that_is_not_known_is_refused(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), PLAIN | {key: 1})
    with pytest.raises(UnknownName, match="unknown key of suite"):
        load(path)


def test_a_timing_grid_measures_and_its_settings_are_checked(tmp_path: Path) -> None:
    grid = {"mode": "timing", "models": ["lstm"], "tasks": ["adding"], "seeds": 3, "timing": {"lengths": [8, 16]}}
    trials = load(write(tmp_path, PLAIN | {"grids": [grid]})).trials(device="cpu")
    assert [(trial.mode, trial.seed, trial.timing["lengths"]) for trial in trials] == [
        ("timing", n, [8, 16]) for n in range(3)
    ]
    for wrong, message in (
        ({"mode": "timings"}, "did you mean 'timing'"),
        ({"timing": {"n_repeat": 3}}, "n_repeat"),
        ({"mode": "quality"}, "only a trial with the mode timing measures"),
    ):
        with pytest.raises((UnknownName, InvalidParameter), match=message):
            load(write(tmp_path, PLAIN | {"grids": [grid | wrong]}))


@pytest.mark.parametrize("name", Suite.names())
def test_a_suite_that_comes_with_the_project_is_valid_and_named_as_its_file(name: str) -> None:
    suite = load(name)
    assert suite.name == name and suite.expected
    trials = suite.trials(device="cpu")
    assert len({trial.id for trial in trials}) == len(trials) > 0


def test_smoke_holds_every_model_of_the_default_suite_and_every_field_that_needs_no_download() -> None:
    trials = load("smoke").trials(device="cpu")
    assert not [trial.task for trial in trials if TASKS[trial.task].datasets]
    assert {TASKS[trial.task].group for trial in trials} == {x.group for x in TASKS.values() if not x.datasets}
    assert {trial.model for trial in trials} >= {trial.model for trial in load("default").trials(device="cpu")}
    assert len(trials) <= 25


def test_the_published_suites_give_every_model_every_task_and_the_same_seeds() -> None:
    for name, n_tasks, n_seeds in (("default", 7, 3), ("reference", 10, 5)):
        trials = load(name).trials(device="cpu")
        counts = Counter((trial.model, trial.task, bool(trial.tuned)) for trial in trials if trial.mode == "quality")
        everywhere = {model for model, _, _ in counts if len({t for m, t, _ in counts if m == model}) == n_tasks}
        assert len(everywhere) == 12 and set(counts.values()) == {n_seeds}
        # What can be tuned is: all but the floor, and what is skipped.
        tuned = Counter(model for model, _, is_tuned in counts if is_tuned)
        networks = ("rnn", "lstm", "gru", "deep_lstm", "feed_forward", "tcn", "transformer")
        assert all(tuned[model] == n_tasks for model in networks) and not tuned["floor"]
        rivals = {"fcn", "nearest_neighbour", "minirocket", "seasonal_naive", "exponential_smoothing", "arima", "ngram"}
        assert rivals == {model for model, _, _ in counts} - everywhere
        assert {trial.model for trial in trials} <= set(registry.entries())
