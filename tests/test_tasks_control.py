"""Masked CartPole: what is hidden, who begins where, the floor, the ceiling, and a trial from end to end."""

import builtins
import math

import numpy as np
import pytest
import torch

from benchmarks import experiment, records
from benchmarks.execution.plan import refusal
from benchmarks.experiment import prepare
from benchmarks.figures import task_figures, trial_figures
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks.registry import task
from benchmarks.tasks.task import data_digest
from benchmarks.trial import specify
from models import registry
from models.contract import Fit
from models.sequences import Step

pytest.importorskip("gymnasium", reason="the extra `control` is not installed")

LIMITS = np.array([2.4, math.radians(12)])
"""Metres and radians at which an episode ends."""


def test_the_inputs_are_position_and_angle_without_their_velocities():
    import gymnasium

    whole = gymnasium.make_vec("CartPole-v1", num_envs=5, vectorization_mode="vector_entry_point")
    hidden = task("masked_cartpole", {}).environment(5)
    expected, seen = whole.reset(seed=3)[0], hidden.reset(seed=3)[0]
    for t in range(30):
        assert seen.shape == (5, 2) and seen.dtype == np.float32
        np.testing.assert_allclose(seen * LIMITS, expected[:, [0, 2]], rtol=1e-6)
        actions = np.full(5, t % 2)
        (expected, *_), (seen, *_) = whole.step(actions), hidden.step(actions)
    # The same place at another speed looks the same.
    hidden.reset(seed=3)
    before = hidden.unwrapped.state.copy()
    faster = before.copy()
    faster[[1, 3]] += 0.5
    hidden.unwrapped.state = before
    slow = hidden.step(np.zeros(5, dtype=np.int64))[0]
    hidden.unwrapped.state = faster
    hidden.unwrapped.state[0] -= 0.02 * 0.5
    hidden.unwrapped.state[2] -= 0.02 * 0.5
    np.testing.assert_allclose(hidden.step(np.zeros(5, dtype=np.int64))[0], slow, atol=1e-6)


def test_no_two_splits_begin_alike_and_only_the_test_ignores_the_seed():
    built = task("masked_cartpole", {})
    begun = {}
    for seed in range(3):
        for split in ("validation", "test"):
            environment, start = built.beginnings(split, seed)
            begun[split, seed] = environment.reset(seed=start)[0]
        begun["train", seed] = built.splits(seed).train.inputs[:, 0].numpy()
    np.testing.assert_array_equal(begun["test", 0], begun["test", 1])
    rows = np.concatenate([begun[key] for key in begun if key not in (("test", 1), ("test", 2))])
    assert len(np.unique(rows, axis=0)) == len(rows) == 100 + 3 * (50 + 50)


def test_the_floor_is_the_mean_return_of_pushes_by_chance():
    built = task("masked_cartpole", {"n_test": 400})
    # One coin per episode and step, from a source of its own; the standard error of either mean is about 0.6.
    import gymnasium

    pole, generator, lengths = gymnasium.make("CartPole-v1"), np.random.default_rng(0), []
    for episode in range(400):
        pole.reset(seed=episode)
        for t in range(1, 501):
            _, reward, terminated, truncated, _ = pole.step(int(generator.integers(2)))
            assert reward == 1
            if terminated or truncated:
                lengths.append(t)
                break
    assert built.floor(0) == pytest.approx(np.mean(lengths), abs=3.5)
    assert built.floor(0) == built.floor(1)
    test = built.splits(0).test
    assert built.floor(0) == pytest.approx(float(test.lengths.double().mean()))
    assert built.metrics[0].parts(torch.zeros(400, test.inputs.shape[1], 3), test).per_sequence().tolist() == list(
        map(float, test.lengths)
    )


def test_the_ceiling_is_reached_by_a_rule_that_sees_two_observations_only():
    built = task("masked_cartpole", {})
    environment, seed = built.beginnings("test", 0)
    seen, _ = environment.reset(seed=seed)
    before, standing, steps = seen, np.ones(100, dtype=bool), np.zeros(100)
    for _ in range(built.max_steps):
        (position, angle), (speed, turning) = (seen * LIMITS).T, ((seen - before) * LIMITS / 0.02).T
        push = angle + 0.2 * turning + 0.05 * position + 0.1 * speed > 0
        before = seen
        seen, _, terminated, truncated, _ = environment.step(push.astype(np.int64))
        steps += standing
        standing &= ~(terminated | truncated)
    assert steps.mean() == built.ceiling() == 500


def test_the_episodes_of_chance_are_the_same_again_and_end_where_the_pole_fell():
    built = task("masked_cartpole", {"max_steps": 40, "n_validation": 30, "n_test": 30})
    assert data_digest(built.splits(1)) == data_digest(built.splits(1))
    cut = 0
    for batch in built.splits(1):
        last = batch.inputs[torch.arange(30), batch.lengths - 1].abs().amax(1)
        cut += int((batch.lengths == 40).sum())
        assert bool((last <= 1).all()) and int(batch.lengths.max()) <= 40
        assert torch.equal(batch.targets[..., Step.REWARD], batch.scored.float())
    assert cut > 0


@pytest.mark.parametrize(("field", "value"), [("max_steps", 0), ("n_validation", 0), ("n_test", True)])
def test_no_parameter_takes_anything_but_a_count(field, value):
    with pytest.raises(InvalidParameter, match=f"masked_cartpole: {field} must be an integer of at least 1"):
        task("masked_cartpole", {field: value})


def test_without_gymnasium_it_is_refused_in_one_sentence_that_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **named):
        if name.split(".")[0] == "gymnasium":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    built = task("masked_cartpole", {})  # listing it needs nothing
    for use in (built.check_installed, lambda: built.splits(0)):
        with pytest.raises(InvalidParameter, match=r"need gymnasium, .*: pip install 'rnnbench\[control\]'"):
            use()


def test_models_that_fit_themselves_or_look_ahead_are_skipped_with_a_reason():
    skipped = {name: refusal(specify("masked_cartpole", name, 0, 2000, "cpu")) for name in registry.entries()}
    for name, entry in registry.entries().items():
        if entry.fit is Fit.OWN:
            assert skipped[name]
    assert "right answers" in skipped["floor"] and "whole sequence" in skipped["bilstm"]
    assert all(skipped[name] is None for name in ("gru", "lstm", "transformer", "tcn", "feed_forward"))


@pytest.fixture
def trial(tmp_path, monkeypatch):
    def run(name, model="gru", **fit):
        monkeypatch.setattr(experiment, "BY_HAND", tmp_path / name)
        parameters = {"max_steps": 40, "n_validation": 12, "n_test": 16}
        fit = {"n_steps": 12, "evaluate_every": 6, "batch_size": 8} | fit
        prepared = prepare("masked_cartpole", model, 0, 2000, "cpu", parameters, {}, fit)
        prepared.fit()
        prepared.evaluate()
        return prepared, prepared.finish()

    return run


def test_a_trial_from_end_to_end_repeats_and_says_what_it_played(trial):
    (prepared, result), (_, again) = trial("a"), trial("b")
    assert records.read_result(prepared.folder) == result
    assert result.test == again.test and result.validation == again.validation
    assert result.data_digest == again.data_digest and result.ceiling == 40
    assert result.floor == prepared.task.floor(0)
    lengths = prepared.tested.lengths.double()
    assert len(lengths) == 16 and result.test == {"return": float(lengths.mean())}
    assert result.score == pytest.approx((result.test["return"] - result.floor) / (40 - result.floor))
    assert result.environment_steps >= 3 * 8 * 8 and result.steps == 12  # no pole falls in less than eight steps
    assert [row["step"] for row in records.read_curve(prepared.folder)] == [6, 12]
    assert prepared.outputs.shape == (16, int(lengths.max()), 3)


@pytest.mark.filterwarnings("ignore:.*layout")
def test_its_figures_and_its_summary_show_it(trial):
    prepared, result = trial("figures", "feed_forward")
    figure = trial_figures.answers(prepared)
    assert f"{result.test['return']:.3g}" in figure.get_suptitle() and len(figure.axes) == 3
    assert trial_figures.learning_curve(prepared).axes
    assert task_figures.example(prepared.task).axes
    assert f"{result.environment_steps:,}" in set(trial_figures.summary(prepared)["value"])


@pytest.mark.slow
def test_a_gru_learns_to_balance_well_above_what_a_memoryless_model_can(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "BY_HAND", tmp_path)
    returns = {}
    for model, config in (("gru", {}), ("feed_forward", {"window": 1})):
        fit = {"n_steps": 160, "evaluate_every": 20, "batch_size": 32, "learning_rate": 0.002, "max_seconds": 600}
        prepared = prepare("masked_cartpole", model, 0, 11_500, "cpu", {}, config, fit)
        prepared.fit()
        prepared.evaluate()
        returns[model] = prepared.result.test["return"]
    assert returns["gru"] > 200 > 100 > returns["feed_forward"] > prepared.task.floor(0)
