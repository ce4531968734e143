"""Suites: what they expand to, and how a mistake in one is refused before anything runs."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
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


DEEP = "[" * 100_000
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
ODD_FILES = {
    "latin-1": (HEADER + "name: mine\ndescription: naïve\n").encode("latin-1"),
    "utf-16": (HEADER + "name: mine\n").encode("utf-16"),
    "a null character": HEADER.encode() + b"name: mine\ndescription: \x00\n",
    "an escape": HEADER.encode() + b"name: mine\ndescription: \x1b[31m\n",
    "an impossible date": HEADER.encode() + b"name: mine\ndescription: 2024-13-45\n",
    "a date that is none": HEADER.encode() + b"name: mine\ndescription: !!timestamp soon\n",
    "no number": HEADER.encode() + b"name: mine\nseeds: !!int many\n",
    "a number of 5,000 digits": HEADER.encode() + b"name: mine\nseeds: " + b"9" * 5_000,
    "a number of 70 bits": HEADER.encode() + b"name: mine\nparameter_budget: 1" + b"0" * 21,
    "deep nesting": HEADER.encode() + b"name: mine\ngrids: " + DEEP.encode(),
    "deep nesting in a block": HEADER.encode() + "".join("  " * n + "a:\n" for n in range(500)).encode(),
    "a list within itself": HEADER.encode() + b"name: mine\ngrids: &a [*a]\n",
    "aliases that multiply": HEADER.encode() + BOMB.encode(),
    "an object": HEADER.encode() + b"name: mine\ngrids: !!python/object:os.system {}\n",
    "a quote that never ends": HEADER.encode() + b'name: mine\ndescription: "For',
    "a tab": HEADER.encode() + b"name: mine\n\tseeds: 3\n",
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_file_that_cannot_be_read_is_refused_at_once_with_the_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(ODD_FILES[kind])
    began = time.monotonic()
    with pytest.raises(InvalidParameter, match=r"^mine.yaml: line \d+: ") as refused:
        load(str(path))
    assert time.monotonic() - began < 5
    assert len(str(refused.value)) < 300 and str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("seeds", 1_000_000, "seeds: 1000000"),
        ("seeds", 10**12, "seeds: 1000000000000"),
        ("parameter_budget", 10**18, "parameter_budget: 1000000000000000000"),
        ("name", "n" * 300, "name: nnn"),
        ("description", "\ud800", "description: "),
        ("description", "\x1b[31mred", "description: "),
        ("grids.0.seeds", 10**6, "  seeds: 1000000"),
        ("grids.0.tasks.0", "party", "  - party"),
        ("grids.0.models.1.config", {"n_layers": "two"}, "  - config:"),
        ("grids.0.models.1.fit", {"n_steps": 10**30}, "      n_steps: 1000000000000000000000000000000"),
        ("fit", {"max_seconds": 1e300}, "  - parity"),
        ("k" * 5_000, 1, "? kkk"),
    ],
)
def test_what_is_absurd_is_refused_in_one_short_sentence_with_its_line(
    tmp_path: Path, path: str, value: object, line: str
) -> None:
    file = Path(write(tmp_path, changed(path, value)))
    written = [n for n, text in enumerate(file.read_text().splitlines(), 1) if text.startswith(line)]
    with pytest.raises((UnknownName, InvalidParameter), match=r"^mine.yaml: lines? ") as refused:
        load(str(file)).trials(device="cpu")
    message = str(refused.value)
    assert len(written) == 1 and str(written[0]) in re.findall(r"\d+", message.split(": ")[1]), message
    assert len(message) < 1000 and message.isprintable()


def test_a_suite_of_too_many_trials_or_bytes_is_refused(tmp_path: Path) -> None:
    many = changed("seeds", 10_000) | {"grids": [{"models": ["rnn"] * 11, "tasks": ["parity"] * 10}]}
    with pytest.raises(InvalidParameter, match=r"1,100,000 trials, more than 1,000,000"):
        load(write(tmp_path, many)).trials(device="cpu")
    path = Path(write(tmp_path, PLAIN))
    path.write_text(path.read_text() + "#" * 1_000_000)
    with pytest.raises(InvalidParameter, match=r"mine.yaml: the file has 1,0.* bytes, more than 1,000,000"):
        load(str(path))


WORDS = [
    *PLAIN,
    "models",
    "tasks",
    "config",
    "lstm",
    "adding",
    "2024-13-45",
    "1e999",
    ".nan",
    "0x",
    "1:60",
    "~",
    "true",
]
MARKS = [
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\n    - ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "!!int ",
    "!!set ",
    "'",
    '"',
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.sampled_from(MARKS) | st.binary(max_size=3), max_size=40))
def test_any_bytes_are_a_suite_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str | bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_bytes(HEADER.encode() + b"".join(x if isinstance(x, bytes) else x.encode() for x in parts))
    with pytest.raises((UnknownName, InvalidParameter), match=r"^mine.yaml: ") as refused:
        load(str(path))
    assert len(str(refused.value).splitlines()) == 1


def test_a_mark_of_the_byte_order_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = Path(write(tmp_path, PLAIN))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(str(path)).expected == "nothing"
