"""Episodes, credit and the policy gradient, against plain Python; on a small environment whose best policy is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import policy_gradient
from benchmarks.evaluation import Problem
from benchmarks.fitting import Diverged, FitConfig
from benchmarks.policy_gradient import DISCOUNT, TRACE, Beginnings, Streaming, answer, credit, fit, play
from benchmarks.tasks.control import Return
from models import registry
from models.sequences import Actions, RealInput, SequenceBatch, Step, valid_steps

METRIC = Return("return", "reward", "higher", "sum of rewards", 0.1)


class Reminder:
    """Shows a sign, +1 or -1, once; the action taken some steps later pays 1 where it matches it, and ends the episode.

    Copy b waits for 1 + b % ``slowest`` steps. cut: a time limit for all. What it pays after the end is nobody's. It has the
    interface of gymnasium's vector environments as far as it matters here.
    """

    def __init__(self, n, slowest=3, cut=None):
        self.num_envs, self.cut = n, cut
        self.delays = 1 + np.arange(n) % slowest

    def reset(self, seed):
        self.signs = np.random.default_rng(seed).integers(0, 2, self.num_envs)
        self.clock = np.zeros(self.num_envs, dtype=np.int64)
        return self._seen(), {}

    def step(self, actions):
        assert actions.shape == (self.num_envs,) and actions.dtype == np.int64
        due = self.clock == self.delays
        rewards = (due & (actions == self.signs)).astype(np.float32) + 0.125 * (self.clock > self.delays)
        self.clock += 1
        limit = self.clock == self.cut if self.cut else np.zeros(self.num_envs, dtype=bool)
        return self._seen(), rewards, due, limit, {}

    def _seen(self):
        seen = np.stack([(2 * self.signs - 1) * (self.clock == 0), self.clock == self.delays], axis=1)
        return seen.astype(np.float32)


def predictor_of(name="gru", seed=0, **config):
    entry = registry.entry(name)
    return registry.build(entry, RealInput(2, 20, 8), Actions(2), True, type(entry.config)(width=8, **config), seed)


def credit_in_plain_python(rewards, values, failed):
    """Advantages and returns of one episode: the sums of the definition, not their recursion."""
    n = len(rewards)
    deltas = [
        (1 - DISCOUNT) * rewards[t] + DISCOUNT * (0.0 if failed and t == n - 1 else values[t + 1]) - values[t]
        for t in range(n)
    ]
    advantages = [sum((DISCOUNT * TRACE) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=False)]


numbers = st.floats(-2, 2, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=4), st.data())
def test_credit_is_that_of_the_definition_episode_by_episode(kinds, data):
    longest, n = max(length for length, _ in kinds), len(kinds)
    rewards = torch.tensor(
        data.draw(st.lists(numbers, min_size=n * longest, max_size=n * longest)), dtype=torch.float64
    )
    values = torch.tensor(
        data.draw(st.lists(numbers, min_size=n * (longest + 1), max_size=n * (longest + 1))), dtype=torch.float64
    )
    rewards, values = rewards.view(n, longest), values.view(n, longest + 1)
    lengths, failed = torch.tensor([length for length, _ in kinds]), torch.tensor([fails for _, fails in kinds])
    advantages, returns = credit(rewards, values, lengths, failed)
    for b, (length, fails) in enumerate(kinds):
        expected = credit_in_plain_python(rewards[b, :length].tolist(), values[b].tolist(), fails)
        torch.testing.assert_close(advantages[b, :length], torch.tensor(expected[0], dtype=torch.float64))
        torch.testing.assert_close(returns[b, :length], torch.tensor(expected[1], dtype=torch.float64))
        assert not advantages[b, length:].any() and not returns[b, length:].any()


def test_the_value_of_always_the_same_reward_is_that_reward():
    """With the value right from the start nothing is better or worse than expected, however an episode is cut."""
    rewards, values = torch.full((1, 50), 0.7), torch.full((1, 51), 0.7)
    advantages, returns = credit(rewards, values, torch.tensor([50]), torch.tensor([False]))
    torch.testing.assert_close(advantages, torch.zeros(1, 50), atol=1e-6, rtol=0)
    torch.testing.assert_close(returns, rewards)


def test_the_loss_is_the_clipped_surrogate_with_value_and_entropy():
    target = Actions(2, clip=0.2, value_weight=0.5, entropy_weight=0.01)
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    value, taken = [0.1, 0.4, 0.0], [1, 0, 1]
    before, advantage, returns = [-1.5, -0.1, -0.1], [2.0, 1.0, -1.0], [0.3, 0.3, 1.0]
    steps = torch.tensor([[taken[t], 9.0, before[t], advantage[t], returns[t]] for t in range(3)])[None]
    padded = torch.cat([steps, torch.full((1, 1, 5), torch.nan)], dim=1)
    outputs = torch.cat([logits, torch.tensor(value)[:, None]], dim=1)[None]
    outputs = torch.cat([outputs, torch.full((1, 1, 3), torch.nan)], dim=1)
    lengths = torch.tensor([3])
    batch = SequenceBatch(torch.zeros(1, 4, 2), padded, lengths, valid_steps(lengths, 4))
    total = 0.0
    for t in range(3):
        p = [math.exp(x) / sum(math.exp(y) for y in logits[t].tolist()) for x in logits[t].tolist()]
        ratio = p[taken[t]] / math.exp(before[t])
        gain = min(ratio * advantage[t], min(max(ratio, 0.8), 1.2) * advantage[t])
        entropy = -sum(q * math.log(q) for q in p)
        total += -gain + 0.5 * (value[t] - returns[t]) ** 2 - 0.01 * entropy
    assert target.loss(outputs, batch).item() == pytest.approx(total / 3, rel=1e-5)
    assert target.best_constant(batch).tolist() == pytest.approx([0.0, 0.0, np.mean(returns)])


@pytest.mark.parametrize("name", ["gru", "transformer", "feed_forward", "tcn"])
def test_what_was_recorded_step_by_step_is_what_the_predictor_says_of_the_whole(name):
    """Episodes end at different steps, and every one begins with a new state: a state left over would show."""
    entry = registry.entry(name)
    config = type(entry.config)(**{entry.width: 2 * entry.width_multiple})
    predictor = registry.build(entry, RealInput(2, 20, 8), Actions(2), True, config, seed=1).eval()
    environment = Reminder(7)
    for seed in (1, 2):  # played twice: the second must not go on from the first
        generator = torch.Generator().manual_seed(seed)
        batch = play(Streaming(predictor), Beginnings(environment, seed), generator)
        batch.validate()
        assert batch.lengths.tolist() == (environment.delays + 1).tolist()
        with torch.no_grad():
            for window in (None, 2):
                state, outputs = None, []
                for chunk in batch.windows(window):
                    part, state = predictor(chunk.inputs, state, chunk.lengths)
                    outputs.append(part)
                logits = torch.cat(outputs, dim=1)[..., :-1].log_softmax(-1)  # (B, T, n)
                taken = batch.targets[..., Step.ACTION].long()
                log_p = logits.gather(2, taken[..., None])[..., 0]
                recorded = batch.targets[..., Step.LOG_PROBABILITY]
                torch.testing.assert_close(log_p[batch.scored], recorded[batch.scored], atol=1e-5, rtol=1e-5)


def test_an_episode_holds_what_happened_until_its_end_and_nothing_after():
    environment = Reminder(6)
    always_right = torch.tensor([0.0, 5.0, 0.25])
    batch = play(lambda seen: always_right.expand(len(seen), 3), Beginnings(environment, 3))
    assert batch.inputs.shape == (6, 4, 2) and batch.targets.shape == (6, 4, 5)
    assert torch.equal(batch.scored, valid_steps(batch.lengths, 4))
    assert not batch.inputs[~batch.scored].any() and not batch.targets[~batch.scored].any()
    right = torch.from_numpy(environment.signs == 1)
    assert torch.equal(batch.targets[..., Step.REWARD].sum(1), right.float())
    assert bool((batch.targets[batch.scored][:, Step.ACTION] == 1).all())
    advantages = batch.targets[batch.scored][:, Step.ADVANTAGE]
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-6)
    assert float(advantages.std(correction=0)) == pytest.approx(1, abs=1e-5)
    last = batch.targets[torch.arange(6), batch.lengths - 1, Step.RETURN]
    torch.testing.assert_close(last, (1 - DISCOUNT) * right.float())


def test_a_time_limit_is_no_failure():
    """Where a limit alone cuts an episode, the value of the last observation stands for what would have come."""
    answer_of = torch.tensor([0.0, 5.0, 0.25])
    for cut, following in ((1, 0.25), (2, 0.0)):  # the action is due in the second step, which is an end in any case
        batch = play(lambda seen: answer_of.expand(len(seen), 3), Beginnings(Reminder(1, 1, cut), 0))
        assert batch.lengths.tolist() == [cut]
        last = batch.targets[0, -1]
        expected = (1 - DISCOUNT) * last[Step.REWARD] + DISCOUNT * following
        assert float(last[Step.RETURN]) == pytest.approx(float(expected), abs=1e-6)


def test_the_same_generator_plays_the_same_episodes_and_evaluation_draws_nothing():
    predictor, environment = predictor_of().eval(), Reminder(20)
    played = [
        play(Streaming(predictor), Beginnings(environment, 5), torch.Generator().manual_seed(seed)).targets
        for seed in (0, 0, 1)
    ]
    assert torch.equal(played[0], played[1]) and not torch.equal(played[0], played[2])
    before = torch.random.get_rng_state()
    first, again = (answer(predictor, Beginnings(environment, 5)) for _ in range(2))
    assert torch.equal(first.targets, again.targets) and torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(first.inputs, answer(predictor, Beginnings(environment, 6)).inputs)


def fitted(predictor, n_steps=60, **config):
    rows = []
    result = fit(
        predictor,
        Problem(Actions(2), (METRIC,)),
        Reminder(64),
        Beginnings(Reminder(64), 1),
        FitConfig(n_steps=n_steps, learning_rate=0.02, evaluate_every=n_steps // 3, **config),
        torch.Generator().manual_seed(0),
        rows.append,
    )
    return result, rows


def test_a_recurrent_model_learns_to_remember_and_a_memoryless_one_cannot():
    returns = {}
    for name, config in (("gru", {}), ("feed_forward", {"window": 1}), ("feed_forward", {"window": 4})):
        predictor = predictor_of(name, **config)
        result, rows = fitted(predictor)
        returns[name, config.get("window")] = rows[-1].validation
        assert result.steps == 60 and result.environment_steps == 15 * int((Reminder(64).delays + 1).sum())
        assert [row.step for row in rows] == [20, 40, 60] and not predictor.training
    assert returns["gru", None] == returns["feed_forward", 4] == 1.0
    assert returns["feed_forward", 1] < 0.7


def test_windows_are_passed_one_after_another_each_by_its_steps(monkeypatch):
    """Lengths 2, 3 and 4 in windows of 3: the second window holds the last step of the slowest third alone."""
    seen = []
    original = policy_gradient.training_step

    def watched(predictor, target, batch, optimiser, config, state, weight):
        seen.append((batch.lengths.tolist()[:3], state is None, weight))
        return original(predictor, target, batch, optimiser, config, state, weight)

    monkeypatch.setattr(policy_gradient, "training_step", watched)
    environment = Reminder(6)
    fit(
        predictor_of(),
        Problem(Actions(2), (METRIC,)),
        environment,
        Beginnings(Reminder(2), 1),
        FitConfig(n_steps=8, evaluate_every=8, window=3),
        torch.Generator().manual_seed(0),
        lambda row: None,
    )
    assert seen == [([2, 3, 3], True, pytest.approx(16 / 9)), ([0, 0, 1], False, pytest.approx(2 / 9))] * 4


def test_fits_repeat_to_the_bit():
    weights = []
    for _ in range(2):
        predictor = predictor_of()
        fitted(predictor, n_steps=12)
        weights.append(torch.cat([p.flatten() for p in predictor.parameters()]))
    assert torch.equal(*weights)


def test_probabilities_that_are_no_numbers_are_a_divergence():
    predictor = predictor_of()
    with torch.no_grad():
        predictor.readout.weight.fill_(torch.nan)
    with pytest.raises(Diverged, match="probabilities"):
        fitted(predictor)
