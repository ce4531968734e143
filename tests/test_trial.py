"""Specifications, run folders, provenance and seeds: what makes a result mean the same thing tomorrow."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from benchmarks import datasets, provenance, records, seeding
from benchmarks.parameters import InvalidParameter
from benchmarks.records import Gap, Result, Status
from benchmarks.trial import Overrides, check_buildable, specify
from models import registry
from models.names import UnknownName


def result_of(trial, **fields):
    return Result(trial.id, dataclasses.asdict(trial), Status.OK, "c0de", **fields)


def test_a_specification_holds_every_default_so_that_a_changed_default_is_another_trial():
    trial = specify("adding", "lstm", 0, 20_000, "cpu")
    assert trial.task_parameters["length"] == 50
    assert trial.model_config["initialisation"] == "orthogonal"
    assert trial.fit["learning_rate"] == 0.005
    assert trial.parameter_budget == 20_000
    assert specify("adding", "hmm", 0, 20_000, "cpu").parameter_budget is None


def test_every_part_of_the_specification_changes_the_id_and_nothing_else_does():
    base = {"task": "adding", "model": "lstm", "seed": 0, "parameter_budget": 20_000, "device": "cpu"}
    variants = [
        base,
        base | {"task": "parity"},
        base | {"model": "gru"},
        base | {"seed": 1},
        base | {"parameter_budget": 10_000},
        base | {"overrides": Overrides({"length": 30})},
        base | {"overrides": Overrides(model_config={"n_layers": 2})},
        base | {"overrides": Overrides(fit={"n_steps": 7})},
    ]
    ids = [specify(**variant).id for variant in variants]
    assert len(set(ids)) == len(ids)
    assert specify(**base, overrides=Overrides({"length": 50})).id == ids[0]


def test_an_id_is_the_same_in_another_process_and_after_a_round_trip_through_json():
    trial = specify("recall", "gru", 3, 5000, "cpu", Overrides(fit={"clip_norm": None}))
    code = (
        "from benchmarks.trial import *; "
        "print(specify('recall', 'gru', 3, 5000, 'cpu', Overrides(fit={'clip_norm': None})).id)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == trial.id
    assert type(trial)(**json.loads(json.dumps(dataclasses.asdict(trial)))).id == trial.id


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "addding"}, UnknownName, "did you mean 'adding'"),
        ({"model": "lsmt"}, UnknownName, "did you mean 'lstm'"),
        ({"device": "gpu"}, UnknownName, "unknown device 'gpu'"),
        ({"overrides": Overrides({"lenght": 3})}, UnknownName, "did you mean 'length'"),
        ({"overrides": Overrides(model_config={"n_layer": 3})}, UnknownName, "did you mean 'n_layers'"),
        ({"overrides": Overrides(fit={"learning_rat": 3})}, UnknownName, "did you mean 'learning_rate'"),
        ({"overrides": Overrides({"length": "x"})}, InvalidParameter, "adding.*length.*'x'"),
        ({"overrides": Overrides({"length": 1})}, InvalidParameter, "adding.*length"),
        ({"overrides": Overrides(model_config={"n_layers": "two"})}, InvalidParameter, "model lstm: n_layers"),
        ({"overrides": Overrides(model_config={"initialisation": "ortho"})}, InvalidParameter, "initialisation"),
        ({"overrides": Overrides(fit={"n_steps": 0})}, InvalidParameter, "n_steps must be positive"),
        ({"overrides": Overrides(fit={"n_steps": "300"})}, InvalidParameter, "fit: n_steps"),
        ({"overrides": Overrides(fit={"max_seconds": float("inf")})}, InvalidParameter, "write null"),
        ({"overrides": Overrides(fit={"learning_rate": float("nan")})}, InvalidParameter, "fit: "),
        ({"overrides": Overrides(fit={"clip_norm": -1.0})}, InvalidParameter, "clip_norm must be positive"),
        ({"seed": "0"}, InvalidParameter, "seed"),
        ({"seed": -1}, InvalidParameter, "seed"),
        ({"seed": True}, InvalidParameter, "seed"),
        ({"parameter_budget": 0}, InvalidParameter, "parameter_budget"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(arguments, error, message):
    valid = {"task": "adding", "model": "lstm", "seed": 0, "parameter_budget": 20_000, "device": "cpu"}
    with pytest.raises(error, match=message) as raised:
        specify(**(valid | arguments))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "budget", "config", "message"),
    [
        ("lstm", None, {}, "width is not set"),
        ("transformer", 10, {}, "raise it"),
        ("transformer", None, {"width": 5}, "not a multiple"),
        ("tcn", 2000, {"kernel_size": 1}, "kernel_size must be at least 2"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_before_anything_runs(model, budget, config, message):
    with pytest.raises(InvalidParameter, match=message):
        check_buildable([specify("adding", model, 0, budget, "cpu", Overrides(model_config=config))])


def test_what_can_be_built_or_is_refused_by_the_model_itself_passes():
    check_buildable([specify("adding", model, 0, 2000, "cpu") for model in registry.entries()])
    check_buildable([])


def test_a_pending_result_is_none_until_it_is_promoted(tmp_path):
    trial = specify("adding", "floor", 0, None, "cpu")
    folder = tmp_path / trial.id
    folder.mkdir()
    records.write_result(folder, result_of(trial), records.PENDING)
    assert records.read_result(folder) is None
    records.promote(folder)
    assert records.read_result(folder) == result_of(trial)
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_result_reads_back_as_it_was_written(tmp_path):
    trial = specify("hidden_source", "rnn", 0, 2000, "cpu")
    folder = tmp_path / trial.id
    folder.mkdir()
    row = {"step": 1, "seconds": 0.5, "train_loss": 1.0, "gradient_norm": 1.0}
    (folder / "metrics.jsonl").write_text(
        json.dumps({**row, "validation_loss": 1.0, "validation": 1.0, "best": True}) + "\n"
    )
    written = result_of(
        trial,
        test={"cross_entropy": 0.98},
        optimum_gap=Gap(0.01, 0.0, 0.02, 5),
        curve_digest=records.file_digest(folder / "metrics.jsonl"),
    )
    records.write_result(folder, written)
    assert records.read_result(folder) == written
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.jsonl", "result.json"]


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path):
    trial = specify("adding", "floor", 0, None, "cpu")
    with pytest.raises(ValueError, match="JSON compliant"):
        records.write_result(tmp_path, result_of(trial, test={"mse": float("nan")}))
    assert not (tmp_path / "result.json").exists()


def test_the_code_digest_covers_what_can_change_a_result_and_no_registry():
    reached = set()
    packages = frozenset({"models", "benchmarks"})
    for root in ("models.recurrent", "benchmarks.tasks.diagnostic", *provenance.SHARED_CODE):
        provenance._reach(root, packages, reached)
    assert {"models.predictor", "models.contract", "benchmarks.seeding", "benchmarks.tasks.task"} <= reached
    others = {"models.registry", "benchmarks.tasks.registry", "models.transformer", "benchmarks.tasks.markov"}
    assert not reached & (others | {"benchmarks.report", "benchmarks.figures.report_figures", "benchmarks.tracking"})
    assert provenance.code_digest("adding", "lstm") != provenance.code_digest("adding", "transformer")
    assert provenance.code_digest("adding", "lstm") != provenance.code_digest("casino", "lstm")


def test_the_code_digest_changes_with_the_source(monkeypatch, tmp_path):
    before = provenance.code_digest("adding", "lstm")
    changed = tmp_path / "fitting.py"
    changed.write_text((provenance.ROOT / "benchmarks" / "fitting.py").read_text() + "\nCHANGED = 1\n")
    source = provenance._source
    monkeypatch.setattr(provenance, "_source", lambda name: changed if name == "benchmarks.fitting" else source(name))
    forget_code()
    after = provenance.code_digest("adding", "lstm")
    forget_code()
    assert after != before


def forget_code():
    provenance.code_digest.cache_clear()
    provenance._code.cache_clear()


def digests_now():
    provenance.code_digest.cache_clear()
    datasets.files.cache_clear()
    return {
        task: provenance.code_digest(task, "lstm")
        for task in ("adding", "co2", "spoken_digits", "digit_strings", "ecg")
    }


@pytest.fixture
def fresh():
    """Forgets digests before and after."""
    yield
    digests_now()


def test_a_changed_data_file_makes_stale_what_was_made_from_it_and_nothing_else(fresh, monkeypatch, tmp_path):
    before = digests_now()
    rows = datasets.TABLE.read_text().splitlines(keepends=True)
    changed = [re.sub("[0-9a-f]{64}", "0" * 64, row) if row.startswith("fsdd,") else row for row in rows]
    (tmp_path / "datasets.csv").write_text("".join(changed))
    with monkeypatch.context() as patched:
        patched.setattr(datasets, "TABLE", tmp_path / "datasets.csv")
        after = digests_now()
    assert {task for task in before if before[task] != after[task]} == {"spoken_digits", "digit_strings"}
    monkeypatch.setattr(provenance, "version", lambda package: "0")
    after = digests_now()
    assert {task for task in before if before[task] != after[task]} == {"co2"}


def test_the_environment_names_versions_and_machine():
    environment = provenance.environment()
    assert environment["version_torch"] and environment["python"] and environment["cores"] >= 1
    json.dumps(environment)


def test_seeds_depend_on_every_axis_and_on_nothing_else():
    seeds = [seeding.seed_for(*axes) for axes in [("a", 1), ("a", 2), ("b", 1), ("a1",), ("a", 1, "")]]
    assert len(set(seeds)) == len(seeds)
    assert seeding.seed_for("data", "adding", 0) == 2210647016102888975
    assert all(0 <= seed < 2**63 for seed in seeds)
