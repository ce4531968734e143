"""The contract of tasks, over every registered task with its default parameters, and how tasks are built by name."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks.registry import TASKS, task
from benchmarks.tasks.task import Task, data_digest
from models.names import UnknownName
from models.sequences import Actions, Classes, Real, RealInput, SequenceBatch, Step, Transcript, last_steps, valid_steps


def data_is_here(name: str) -> bool:
    return all(map(datasets.is_here, TASKS[name].datasets))


EVERY = [
    pytest.param(name, marks=pytest.mark.skipif(not data_is_here(name), reason="its data are not in RNNBENCH_DATA"))
    for name in TASKS
]
every_task = pytest.mark.parametrize("name", EVERY)
REAL_DATA = ["japanese_vowels", "basic_motions", "digits"]
COUNTED = ["adding", "recall", "parity", "hidden_source", "casino", "co2", "sunspots"]


def scored_targets(batch: SequenceBatch) -> np.ndarray:
    return batch.targets[batch.scored].double().numpy()


def members(batch: SequenceBatch) -> set[bytes]:
    """The valid steps of each sequence, as bytes."""
    return {
        sequence[:length].numpy().tobytes()
        for sequence, length in zip(batch.inputs, batch.lengths.tolist(), strict=True)
    }


@every_task
def test_the_same_seed_gives_the_same_bits_and_the_test_split_ignores_the_seed(name: str) -> None:
    first, again, other = (task(name, {}).splits(seed) for seed in (1, 1, 2))
    assert data_digest(first) == data_digest(again)
    assert data_digest(first._replace(train=other.train, validation=other.validation)) == data_digest(other)
    assert (data_digest(first) == data_digest(other)) == (
        "same for every seed" in " ".join(TASKS[name].__doc__.split())
    )


@every_task
def test_splits_keep_what_the_specs_promise(name: str) -> None:
    built = task(name, {})
    for batch in built.splits(0):
        batch.validate()
        n, longest = batch.inputs.shape[:2]
        if built.window is None:
            assert built.input.max_length is not None and longest <= built.input.max_length
        assert torch.equal(
            batch.inputs[~valid_steps(batch.lengths, longest)].abs().sum(), torch.zeros_like(batch.inputs.sum())
        )
        if isinstance(built.input, RealInput):
            assert batch.inputs.shape == (n, longest, built.input.channels) and batch.inputs.dtype == torch.float32
        else:
            assert batch.inputs.shape == (n, longest) and batch.inputs.dtype == torch.int64
            assert int(batch.inputs.min()) >= 0 and int(batch.inputs.max()) < built.input.vocabulary
        if isinstance(built.target, Classes):
            assert batch.targets.shape == (n, longest) and batch.targets.dtype == torch.int64
            assert set(batch.targets[batch.scored].tolist()) <= set(range(built.target.n))
        elif isinstance(built.target, Transcript):
            assert batch.target_lengths is not None and int(batch.target_lengths.min()) >= 1
            assert set(batch.targets.unique().tolist()) <= {-1, *range(1, built.target.n + 1)}
        elif isinstance(built.target, Actions):
            assert batch.targets.shape == (n, longest, len(Step)) and batch.targets.dtype == torch.float32
            assert set(batch.targets[batch.scored][:, Step.ACTION].tolist()) == set(range(built.target.n))
        else:
            assert batch.targets.shape == (n, longest, built.target.n_outputs) and batch.targets.dtype == torch.float32
        if built.target.scope == "sequence" and not isinstance(built.target, Transcript):
            assert torch.equal(batch.scored, last_steps(batch.lengths, longest))
        assert bool(batch.scored.any(1).all())


@every_task
def test_every_class_and_every_name_of_a_class_exists(name: str) -> None:
    built = task(name, {})
    assert built.name == name and built.metrics
    if isinstance(built.target, Classes):
        assert built.symbols is None or len(built.symbols) == built.target.n
        seen = set(scored_targets(built.splits(0).train))
        # Symbols that text could have need not all follow in it.
        assert seen <= set(range(built.target.n)) if built.target.future else seen == set(range(built.target.n))


@every_task
def test_the_docstring_shows_an_example_and_argues_floor_and_ceiling(name: str) -> None:
    text = TASKS[name].__doc__ or ""
    assert "target  " in text and "Floor:" in text and "Ceiling:" in text
    for field in dataclasses.fields(TASKS[name]):  # type: ignore[arg-type]
        assert f"{field.name}:" in text or f"{field.name}," in text


@every_task
def test_the_floor_is_the_best_constant_recomputed_by_hand(name: str) -> None:
    built = task(name, {})
    splits = built.splits(3)
    if built.metrics[0].name not in ("accuracy", "cross_entropy", "mse", "mae"):
        pytest.skip("a metric of its family, whose tests know the floor")
    train, test = scored_targets(splits.train), scored_targets(splits.test)
    if built.metrics[0].name == "accuracy":
        expected = np.mean(test == np.bincount(train.astype(int)).argmax())
    elif built.metrics[0].name == "cross_entropy":
        counts = np.bincount(train.astype(int)) + 0.5
        expected = -np.log(counts / counts.sum())[test.astype(int)].mean()
    elif built.target.future:  # of the last value, in original units
        series, last = built.series(), built.origins.test  # type: ignore[attr-defined]
        power = 2 if built.metrics[0].name == "mse" else 1
        ahead = range(1, built.horizon + 1)  # type: ignore[attr-defined]
        expected = np.mean([abs(series[t + k] - series[t]) ** power for t in last for k in ahead])
    elif built.metrics[0].name == "mse":
        expected = ((test - train.mean(0)) ** 2).mean()
    else:
        expected = built.metrics[0](torch.from_numpy(train.mean(0)).expand(test.shape), torch.from_numpy(test))
    assert built.floor(3) == pytest.approx(expected, rel=1e-6)


@every_task
def test_ceiling_or_reference_is_better_than_the_floor(name: str) -> None:
    built = task(name, {})
    best = built.ceiling()
    if best is None:
        if built.reference is None:
            assert "Reference: none" in (TASKS[name].__doc__ or "")
            return
        assert built.reference.source
        best = built.reference.value
    assert built.metrics[0].better(best, built.floor(0))


@pytest.mark.parametrize("name", ["hidden_source", "casino"])
def test_the_ceiling_is_what_the_optimal_outputs_score(name: str) -> None:
    built = task(name, {})
    test = built.splits(5).test
    outputs = built.optimal_outputs(test)
    assert outputs is not None and outputs.shape == (*test.inputs.shape, built.target.n_outputs)
    assert built.ceiling() == pytest.approx(built.metrics[0](outputs[test.scored], test.targets[test.scored]))
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones(test.inputs.shape, dtype=torch.float64))


@pytest.mark.parametrize("name", REAL_DATA)
def test_no_recorded_sequence_is_in_two_splits(name: str) -> None:
    splits = task(name, {}).splits(0)
    parts = [members(batch) for batch in splits]
    # The digits hold no two equal images; so nothing is lost by comparing sets.
    assert sum(map(len, parts)) == len(set().union(*parts)) == sum(map(len, splits))


@pytest.mark.parametrize("name", ["adding", "hidden_source", "casino"])
def test_no_generated_test_sequence_was_seen_in_training(name: str) -> None:
    splits = task(name, {}).splits(0)
    assert not members(splits.test) & (members(splits.train) | members(splits.validation))


@every_task
def test_only_tasks_with_a_length_knob_are_tested_at_other_lengths(name: str) -> None:
    built = task(name, {})
    if built.lengths is None:
        with pytest.raises(ValueError, match="no length knob"):
            built.test_at(10)
        return
    for length in built.lengths.tested:
        batch = built.test_at(length)
        batch.validate()
        assert torch.equal(batch.inputs, built.test_at(length).inputs)


def test_an_unknown_task_or_parameter_is_refused_with_the_nearest_known_name() -> None:
    with pytest.raises(UnknownName, match="unknown task 'ading'; did you mean 'adding'"):
        task("ading", {})
    with pytest.raises(UnknownName, match="unknown parameter of adding 'lenght'; did you mean 'length'"):
        task("adding", {"lenght": 3})


def test_a_wrong_value_is_refused_with_field_and_range() -> None:
    with pytest.raises(InvalidParameter, match="adding: length must be an integer of at least 2, got 'x'"):
        task("adding", {"length": "x"})
    with pytest.raises(InvalidParameter, match="co2: look_back \\+ horizon must be at most 314"):
        task("co2", {"look_back": 400})
    with pytest.raises(InvalidParameter, match="horizon at most 62"):
        task("sunspots", {"horizon": 63})


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(COUNTED),
    value=st.one_of(st.text(), st.floats(), st.booleans(), st.none(), st.integers(max_value=-1)),
    data=st.data(),
)
def test_no_parameter_takes_anything_but_a_count(name: str, value: object, data: st.DataObject) -> None:
    counts = [field.name for field in dataclasses.fields(TASKS[name]) if field.type == "int"]  # type: ignore[arg-type]
    field = data.draw(st.sampled_from(counts))
    with pytest.raises(InvalidParameter, match=f"{name}: {field} must be an integer of at least"):
        task(name, {field: value})


SMALLEST: list[Task] = [
    task("adding", {"length": 2, "n_train": 1, "n_validation": 1, "n_test": 1}),
    task("recall", {"n_items": 1, "delay": 0, "n_kinds": 2, "n_train": 1, "n_validation": 1, "n_test": 1}),
    task("parity", {"max_length": 1, "n_train": 1, "n_validation": 1, "n_test": 1}),
    task("hidden_source", {"length": 1, "n_train": 1, "n_validation": 1, "n_test": 1}),
    task("casino", {"length": 1, "n_train": 1, "n_validation": 1, "n_test": 1}),
    task("co2", {"look_back": 2, "horizon": 1}),
    task("co2", {"look_back": 36, "horizon": 105}),
    task("sunspots", {"look_back": 122, "horizon": 62}),
]


@pytest.mark.parametrize("built", SMALLEST, ids=str)
def test_extreme_parameters_that_are_accepted_work(built: Task) -> None:
    for batch in built.splits(0):
        batch.validate()
    assert math.isfinite(built.floor(0))
    assert built.reference is None or math.isfinite(built.reference.value)


def test_the_digest_changes_with_a_single_value_and_with_the_type() -> None:
    splits = task("casino", {"n_train": 5, "n_validation": 5, "n_test": 5}).splits(0)
    changed = splits.test.inputs.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 6
    narrow = splits.test.inputs.int()
    digests = {
        data_digest(splits._replace(test=dataclasses.replace(splits.test, inputs=inputs)))
        for inputs in (splits.test.inputs, changed, narrow)
    }
    assert len(digests) == 3


def test_the_targets_of_generated_tasks_follow_from_their_inputs() -> None:
    adding = task("adding", {"n_train": 50}).splits(0).train
    for row, target in zip(adding.inputs.tolist(), adding.targets[:, -1, 0].tolist(), strict=True):
        marked = [t for t, (_, marker) in enumerate(row) if marker == 1.0]
        assert len(marked) == 2 and marked[0] < 25 <= marked[1]
        assert all(0 <= value < 1 and marker in (0, 1) for value, marker in row)
        assert target == pytest.approx(row[marked[0]][0] + row[marked[1]][0])
    recall = task("recall", {"n_train": 50, "n_items": 3, "delay": 4, "n_kinds": 6}).splits(0).train
    for tokens, targets, scored in zip(
        *(x.tolist() for x in (recall.inputs, recall.targets, recall.scored)), strict=True
    ):
        assert tokens[3:] == [6] * 4 + [7] * 3 and max(tokens[:3]) < 6
        assert targets[7:] == tokens[:3] and scored == [False] * 7 + [True] * 3
    parity = task("parity", {"n_train": 50}).splits(0).train
    for bits, targets, length in zip(
        parity.inputs.tolist(), parity.targets.tolist(), parity.lengths.tolist(), strict=True
    ):
        assert targets[length - 1] == sum(bits[:length]) % 2
    source = task("hidden_source", {"n_train": 50}).splits(0).train
    assert torch.equal(source.targets[:, :-1], source.inputs[:, 1:])


def test_simulated_floors_come_out_at_their_expectations() -> None:
    draws = {"n_train": 20_000, "n_validation": 1, "n_test": 20_000}
    # Standard errors: adding 0.0013 (the fourth moment of a triangular variable), recall 0.0008, parity 0.0035.
    assert task("adding", draws).floor(0) == pytest.approx(1 / 6, abs=0.006)
    assert task("recall", draws).floor(0) == pytest.approx(1 / 8, abs=0.004)
    assert task("parity", draws).floor(0) == pytest.approx(1 / 2, abs=0.015)
    assert task("casino", {"n_test": 2_000}).floor(0) == pytest.approx(2 / 3, abs=0.02)


def test_parity_trains_on_every_length_up_to_the_longest_and_tests_five_times_as_long() -> None:
    splits = task("parity", {}).splits(0)
    assert set(splits.train.lengths.tolist()) == set(splits.validation.lengths.tolist()) == set(range(1, 21))
    assert set(splits.test.lengths.tolist()) == {100}
    with pytest.raises(ValueError, match="lengths 1 … 100, not 101"):
        task("parity", {}).test_at(101)


def test_a_real_target_with_a_future_is_zero_where_nothing_changes() -> None:
    for name in ("co2", "sunspots"):
        built = task(name, {})
        assert isinstance(built.target, Real) and built.target.future
        assert torch.equal(built.splits(0).test.inputs[:, -1], torch.zeros(len(built.splits(0).test), 1))
