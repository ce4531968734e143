"""Control: tasks that are acted in. There is nothing to imitate, only a reward for what was done.

An episode is a sequence: of observations, of which the predictor gives the next action and the value of being there. The
environments are gymnasium's (https://gymnasium.farama.org), many copies side by side.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.metrics import Metric, Parts
from benchmarks.parameters import InvalidParameter
from benchmarks.policy_gradient import Beginnings, play
from benchmarks.seeding import seed_for, torch_generator
from benchmarks.tasks.task import Splits, Task, require_integers
from models.sequences import Actions, RealInput, SequenceBatch, Step

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


@dataclass(frozen=True)
class Return(Metric):
    """The sum of an episode's rewards, in the mean over episodes."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        rewards = (batch.targets[..., Step.REWARD].double() * batch.scored).sum(1)
        rewards[outputs.isnan().any(-1).logical_and(batch.scored).any(1)] = torch.nan
        return Parts(rewards.cpu(), torch.ones(len(batch), dtype=torch.float64))


class ControlTask(Task):
    """A task that is acted in: models are fitted by `benchmarks.policy_gradient` in `environment`.

    Validation and test are beginnings of episodes; a predictor's answer is the episodes that it plays from there.
    """

    n_validation: int
    n_test: int
    causal: ClassVar[bool] = True
    picture: ClassVar[Literal["episode"]] = "episode"
    channels: ClassVar[tuple[str, ...]]
    """Names of what is observed."""
    units: ClassVar[tuple[str, ...]]
    """What 1 stands for, channel by channel."""

    @abstractmethod
    def environment(self, n: int) -> VectorEnv:
        """n copies side by side, which observe (n, C) and take (n,) actions; an episode begins in the step after an end."""

    def beginnings(self, split: Literal["validation", "test"], seed: int) -> Beginnings:
        """Test is the same for every seed."""
        axes = ("test", self.name) if split == "test" else ("data", self.name, seed)
        return Beginnings(self.environment(self.n_test if split == "test" else self.n_validation), seed_for(*axes))

    def splits(self, seed: int) -> Splits:
        """Episodes of the policy that draws every action uniformly, whose test part gives the floor; nothing is fitted to
        them. Those of validation and test have the beginnings of `beginnings`."""
        training = Beginnings(self.environment(self.n_validation), seed_for("train", self.name, seed))
        validation, test = self.beginnings("validation", seed), self.beginnings("test", seed)
        chances = torch_generator("train", self.name, seed), torch_generator("data", self.name, seed)
        return Splits(
            self._play_at_random(training, chances[0]),
            self._play_at_random(validation, chances[1]),
            self._play_at_random(test, torch_generator("test", self.name)),
        )

    def _play_at_random(self, beginnings: Beginnings, generator: torch.Generator) -> SequenceBatch:
        return play(lambda seen: seen.new_zeros(len(seen), self.target.n_outputs), beginnings, generator)

    def check_installed(self) -> None:
        _gymnasium()


@dataclass(frozen=True)
class MaskedCartPole(ControlTask):
    """Balance a pole on a cart by pushing it left or right, seeing where both are but not how fast they move.

        step         0     1     2     3    …
        position   .01   .01   .02   .02         of the cart, 1 is the end of the track, 2.4 m
        angle     -.02  -.03  -.02   .01         of the pole, 1 is where it counts as fallen, 12 degrees
        target       →     →     ←     ←         any action that keeps the pole up: 1 for every step that it stood

    The environment is CartPole-v1 without the two velocities of its four observations: one observation does not say which
    way the pole is falling, two in a row do. Episodes begin near the middle with the pole almost upright.

    Floor: pushes drawn by chance, at which the pole falls after some 20 steps. Ceiling: max_steps, where every episode is
    cut; it is reached, for the velocities are the differences of two observations, and a linear rule of all four holds the
    pole up for ever, which a test plays.

    max_steps: of an episode. n_validation, n_test: episodes.
    """

    max_steps: int = 500
    n_validation: int = 50
    n_test: int = 100

    name: ClassVar[str] = "masked_cartpole"
    group: ClassVar[str] = "control"
    summary: ClassVar[str] = "push a cart so that the pole on it stays up, without seeing how fast they move"
    licence: ClassVar[str] = "generated, no data; gymnasium is MIT"
    source: ClassVar[str] = (
        "Barto, Sutton and Anderson 1983, doi:10.1109/TSMC.1983.6313077, as CartPole-v1 of gymnasium"
    )
    symbols: ClassVar[tuple[str, ...]] = ("left", "right")
    channels: ClassVar[tuple[str, ...]] = ("cart's position", "pole's angle")
    units: ClassVar[tuple[str, ...]] = ("2.4 m", "12°")

    def __post_init__(self) -> None:
        require_integers(self, {"max_steps": 1, "n_validation": 1, "n_test": 1})

    @property
    def input(self) -> RealInput:
        # A step more than there are actions: the value of where a time limit cuts an episode.
        return RealInput(channels=2, max_length=self.max_steps + 1)

    @property
    def target(self) -> Actions:
        return Actions(2)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Return("return", "steps balanced", "higher", "sum of an episode's rewards, mean over episodes", 10.0),)

    def ceiling(self) -> float:
        return float(self.max_steps)

    def environment(self, n: int) -> VectorEnv:
        kind = {"vectorization_mode": "vector_entry_point", "max_episode_steps": self.max_steps}
        whole = _gymnasium().make_vec("CartPole-v1", num_envs=n, **kind)
        return masked(whole, (0, 2), (2.4, math.radians(12)))


def masked(environment: VectorEnv, kept: Sequence[int], scale: Sequence[float]) -> VectorEnv:
    """Only the observations at the indices ``kept``, each divided by its scale."""
    gymnasium = _gymnasium()
    chosen, divisor = list(kept), np.asarray(scale, dtype=np.float32)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (len(chosen),), np.float32)
    return gymnasium.wrappers.vector.TransformObservation(
        environment, lambda seen: seen[:, chosen] / divisor, single_observation_space=space
    )


def _gymnasium() -> Any:
    try:
        import gymnasium
        import gymnasium.wrappers.vector
    except ImportError as error:
        raise InvalidParameter(
            "control tasks need gymnasium, which is not installed: pip install 'rnnbench[control]'"
        ) from error
    return gymnasium
