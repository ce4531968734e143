"""Policy gradient with a value baseline, for tasks that are acted in: the sibling of `benchmarks.fitting`.

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with generalised advantage estimation (Schulman et al.
2016, arXiv 1506.02438). Episodes are played side by side, each from its beginning to its end, one step at a time through the
predictor's streaming state. They are then sequences like any others: they are gone through `EPOCHS` times in windows, the
state going on without its gradient, and played anew.

    δ_t = (1 − γ) r_t + γ v_(t+1) − v_t         v after a step that ended the episode: 0; where a time limit did: as predicted
    A_t = δ_t + γ λ A_(t+1)                     the advantage
    R_t = A_t + v_t                             the return that the value learns

The factor 1 − γ makes a value the discounted mean of the rewards to come, on their own scale whatever γ is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluation import Evaluation, Problem, evaluate
from benchmarks.fitting import (
    Diverged,
    FitConfig,
    Fitted,
    Row,
    Update,
    make_optimiser,
    make_schedule,
    optimise,
    training_step,
)
from models.contract import Predictor, State
from models.sequences import SequenceBatch, valid_steps

if TYPE_CHECKING:  # an extra, which nothing but tasks that are acted in needs
    from gymnasium.vector import VectorEnv

DISCOUNT = 0.99
"""γ: what comes in 100 steps counts a third."""
TRACE = 0.95
"""λ: between the next value alone, 0, and all rewards to come, 1."""
EPOCHS = 4
"""Times that the same episodes are learned from."""
WINDOW = 128
"""Steps through which a gradient goes back, where neither the fit nor the task says otherwise."""

Policy = Callable[[Tensor], Tensor]
"""Observations of the next step of B episodes, (B, C), → (B, n + 1): logits of the actions and the value."""


class Beginnings(NamedTuple):
    """Where episodes begin: one in each copy of the environment, in states that follow from the seed alone."""

    environment: VectorEnv
    seed: int


class Streaming:
    """A predictor as a policy: it sees one step at a time, and its state is all that it knows of those before."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.device = next(predictor.parameters()).device
        self.state: State | None = None

    def __call__(self, observations: Tensor) -> Tensor:
        outputs, self.state = self.predictor(observations[:, None].to(self.device), self.state)  # (B, 1, K)
        return outputs[:, 0].cpu()


@torch.no_grad()
def play(policy: Policy, beginnings: Beginnings, generator: torch.Generator | None = None) -> SequenceBatch:
    """Whole episodes, their targets as `models.sequences.Actions` has them.

    generator: draws the actions; None: the most probable one is taken. A copy of the environment that has ended an episode
    goes on with another, as gymnasium has it; nothing of that is kept.
    """
    environment, seed = beginnings
    n = environment.num_envs
    observed, _ = environment.reset(seed=seed)
    steps = _Steps([], [], [], [], [])
    running, failed, lengths = np.ones(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int64)
    while True:
        seen = torch.tensor(observed, dtype=torch.float32)  # (B, C), a copy
        outputs = policy(seen)  # (B, n + 1)
        # The value of the last observation is asked for too: a time limit is no end that could be foreseen.
        steps.values.append(outputs[:, -1])
        if not running.any():
            break
        log_p = outputs[:, :-1].log_softmax(-1)  # (B, n)
        if generator is not None and bool(log_p.isnan().any()):
            raise Diverged("the probabilities of the actions were not numbers")
        actions = log_p.argmax(-1) if generator is None else log_p.exp().multinomial(1, generator=generator)[:, 0]
        observed, rewards, terminated, truncated, _ = environment.step(actions.numpy())
        steps.observations.append(seen)
        steps.actions.append(actions)
        steps.log_probabilities.append(log_p.gather(1, actions[:, None])[:, 0])
        steps.rewards.append(torch.tensor(rewards, dtype=torch.float32))
        lengths += running
        failed |= running & terminated
        running &= ~(terminated | truncated)
    return _episodes(steps, torch.from_numpy(lengths), torch.from_numpy(failed))


@dataclass(frozen=True)
class _Steps:
    """What was seen and done, step by step: (B, C) or (B,) each. values: one more than the others."""

    observations: list[Tensor]
    actions: list[Tensor]
    log_probabilities: list[Tensor]
    rewards: list[Tensor]
    values: list[Tensor]


def _episodes(steps: _Steps, lengths: Tensor, failed: Tensor) -> SequenceBatch:
    """lengths: (B,). failed: (B,) bool, the environment ended the episode, not a time limit."""
    valid = valid_steps(lengths, len(steps.rewards))  # (B, T)
    rewards = torch.stack(steps.rewards, dim=1) * valid
    advantages, returns = credit(rewards, torch.stack(steps.values, dim=1), lengths, failed)
    spread, mean = torch.std_mean(advantages[valid], correction=0)
    columns = (
        torch.stack(steps.actions, dim=1).float(),
        rewards,
        torch.stack(steps.log_probabilities, dim=1),
        (advantages - mean) / (spread + 1e-8),
        returns,
    )
    return SequenceBatch(
        inputs=torch.stack(steps.observations, dim=1) * valid[..., None],  # (B, T, C)
        targets=torch.stack(columns, dim=-1) * valid[..., None],  # (B, T, 5)
        lengths=lengths,
        scored=valid,
    )


def credit(rewards: Tensor, values: Tensor, lengths: Tensor, failed: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) by the equations above, zeros in the padding.

    rewards: (B, T). values: (B, T + 1), the one at lengths[b] that of the last observation. lengths, failed: (B,).
    """
    n, longest = rewards.shape
    valid = valid_steps(lengths, longest)
    following = values[:, 1:].clone()
    following[torch.arange(n)[failed], lengths[failed] - 1] = 0
    deltas = ((1 - DISCOUNT) * rewards + DISCOUNT * following - values[:, :-1]) * valid
    advantages = torch.zeros_like(deltas)
    carried = torch.zeros(n, dtype=deltas.dtype)
    for t in reversed(range(longest)):
        carried = deltas[:, t] + DISCOUNT * TRACE * carried
        advantages[:, t] = carried
    return advantages, (advantages + values[:, :-1]) * valid


def fit(
    predictor: Predictor,
    problem: Problem,
    environment: VectorEnv,
    validation: Beginnings,
    config: FitConfig,
    generator: torch.Generator,
    log: Callable[[Row], None],
) -> Fitted:
    """Fits ``predictor`` in place as `fitting.fit` does, from episodes it plays in ``environment``.

    The number of copies of the environment is the batch size. generator: a CPU one; draws beginnings and actions.
    Validation plays the most probable actions. Raises Diverged or FitTimeout.
    """
    played: list[int] = []
    updates = _updates(predictor, problem, environment, config, generator, played)
    selecting, device = problem.selecting(), next(predictor.parameters()).device

    def validate() -> Evaluation:
        return evaluate(predictor, selecting, answer(predictor, validation), device)

    fitted = optimise(predictor, updates, validate, problem.metrics[0], config, log)
    note = "one by one: all steps, because episodes are of many lengths" if config.step == "graph" else None
    return fitted._replace(environment_steps=sum(played), note=note)


def answer(predictor: Predictor, beginnings: Beginnings) -> SequenceBatch:
    """The episodes that a fitted predictor plays, always taking its most probable action."""
    return _played(predictor, beginnings, None)


def _played(predictor: Predictor, beginnings: Beginnings, generator: torch.Generator | None) -> SequenceBatch:
    was_training = predictor.training
    predictor.eval()
    episodes = play(Streaming(predictor), beginnings, generator)
    predictor.train(was_training)
    return episodes


def _updates(
    predictor: Predictor,
    problem: Problem,
    environment: VectorEnv,
    config: FitConfig,
    generator: torch.Generator,
    played: list[int],
) -> Iterator[Update]:
    """Update after update, for ever. The steps of each round of episodes are added to ``played``."""
    device = next(predictor.parameters()).device
    optimiser = make_optimiser(predictor, config)
    scheduler = make_schedule(optimiser, config)
    while True:
        seed = int(torch.randint(2**62, (), generator=generator))
        episodes = _played(predictor, Beginnings(environment, seed), generator)
        played.append(int(episodes.lengths.sum()))
        episodes = episodes.to(device)
        for _ in range(EPOCHS):
            state: State | None = None
            chunks = list(episodes.windows(config.window or problem.window or WINDOW))
            for chunk in chunks:
                predictor.train()
                # By its steps, for of many episodes few may reach the last window; 1 in the mean over windows.
                weight = len(chunks) * float(chunk.lengths.sum() / episodes.lengths.sum())
                update = training_step(predictor, problem.target, chunk, optimiser, config, state, weight)
                scheduler.step()
                state = update.state
                yield update
