"""Tasks whose source is a known hidden Markov model, so that the Bayes optimum is known exactly.

The filter (Rabiner 1989, doi:10.1109/5.18626, the scaled forward pass), with start p, transitions A, emissions B:

    f_1(s) ∝ p(s) B(s, x_1)        f_t(s) ∝ B(s, x_t) Σ_r f_(t-1)(r) A(r, s)        f_t(s) = P(state_t = s | x_1 … x_t)

What follows next is then P(x_(t+1) = v | x_1 … x_t) = Σ_rs f_t(r) A(r, s) B(s, v).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.metrics import Metric, accuracy, cross_entropy
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.task import Splits, Task, require_integers
from models.sequences import Classes, SequenceBatch, TokenInput


class HiddenMarkovModel(NamedTuple):
    """start (S,), transitions (S, S) from row to column, emissions (S, V): probabilities, float64."""

    start: np.ndarray
    transitions: np.ndarray
    emissions: np.ndarray


def draw(
    model: HiddenMarkovModel, n: int, length: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n sequences: states and symbols, each (n, length) int64, by inverting the cumulative distributions."""
    uniform = generator.random((2, length, n, 1))
    transitions, emissions = model.transitions.cumsum(1)[:, :-1], model.emissions.cumsum(1)[:, :-1]
    states = np.empty((n, length), dtype=np.int64)
    states[:, 0] = (uniform[0, 0] > model.start.cumsum()[:-1]).sum(1)
    for t in range(1, length):
        states[:, t] = (uniform[0, t] > transitions[states[:, t - 1]]).sum(1)
    symbols = (uniform[1].swapaxes(0, 1) > emissions[states]).sum(2)  # (n, T, 1) > (n, T, V-1) → (n, T)
    return states, symbols


def filtered(model: HiddenMarkovModel, symbols: Tensor) -> Tensor:
    """(B, T) int64 symbols → (B, T, S) float64 P(state_t | x_1 … x_t), exactly: see the module docstring."""
    likelihoods = model.emissions.T[symbols.cpu().numpy()]  # (B, T) → (B, T, S)
    posteriors = np.empty_like(likelihoods)
    predicted: np.ndarray = model.start
    for t in range(likelihoods.shape[1]):
        joint = predicted * likelihoods[:, t]  # (B, S)
        posteriors[:, t] = joint / joint.sum(1, keepdims=True)
        predicted = posteriors[:, t] @ model.transitions
    return torch.from_numpy(posteriors)


HIDDEN_SOURCE = HiddenMarkovModel(
    start=np.full(5, 1 / 5),  # stationary, so that no step of a sequence is special
    transitions=0.1 * np.eye(5) + 0.9 * np.roll(np.eye(5), 1, axis=1),
    emissions=0.2 / 3 + (0.8 - 0.2 / 3) * np.eye(4)[[0, 1, 0, 2, 3]],
)
"""Five states in a ring; each stays with probability 0.1 and else moves on to the next. In turn they prefer the symbols
a b a c d, with probability 0.8; the other three symbols share the rest evenly."""


@dataclass(frozen=True)
class HiddenSource(Task):
    """The next symbol of a noisy ring of five hidden states that prefer a, b, a, c, d in turn (`HIDDEN_SOURCE`).

        state    0  1  2  2  3  4  0  1        never shown
        input    a  b  a  a  c  b  a           b in state 4 is noise, so is every stay
        target   b  a  a  c  b  a  b           the input one step ahead, scored at every step

    After `a` comes b or c, depending on which of the two states showed it: only the symbols before tell. One may be
    noise or a stay, so every further symbol of the past helps a little, with no last one that suffices. The symbol
    frequencies alone give about 1.36 nats per step, counts after one, two and three symbols 1.17, 1.08 and 1.03, the
    exact filter 0.97: forgetful predictors are told apart from the optimum. The states prefer their symbols so clearly
    that EM recovers the source from the training split, to 0.1 % of the optimum, from about four random starts in five.

    Floor: the symbol frequencies. Ceiling: the cross-entropy of the exact filter on the test split itself; over fresh
    data no predictor can be better in expectation.

    length: symbols shown per sequence, T. n_train, n_validation, n_test: sequences.
    """

    length: int = 64
    n_train: int = 800
    n_validation: int = 200
    n_test: int = 500

    name: ClassVar[str] = "hidden_source"
    group: ClassVar[str] = "markov"
    summary: ClassVar[str] = "the next symbol of a known hidden Markov source; the Bayes optimum is the ceiling"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "the source is this project's own; the exact filter: Rabiner 1989, doi:10.1109/5.18626"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    symbols: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d")
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integers(self, {"length": 1, "n_train": 1, "n_validation": 1, "n_test": 1})

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=len(self.symbols), max_length=self.length)

    @property
    def target(self) -> Classes:
        return Classes(len(self.symbols), scope="step", future=True)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (cross_entropy, accuracy)

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self._draw(self.n_validation, generator)
        train = self._draw(self.n_train, generator)
        return Splits(train, validation, self._draw(self.n_test, numpy_generator("test", self.name)))

    def optimal_outputs(self, batch: SequenceBatch) -> Tensor:
        """(B, T, V) float64: log P(x_(t+1) | x_1 … x_t)."""
        ahead = torch.from_numpy(HIDDEN_SOURCE.transitions @ HIDDEN_SOURCE.emissions)  # (S, S) @ (S, V) → (S, V)
        return (filtered(HIDDEN_SOURCE, batch.inputs) @ ahead).log()

    def ceiling(self) -> float:
        return optimum(self)

    def _draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        """n sequences from one symbol more than is shown."""
        symbols = torch.from_numpy(draw(HIDDEN_SOURCE, n, self.length + 1, generator)[1])
        return fully_scored(symbols[:, :-1].contiguous(), symbols[:, 1:].contiguous())


CASINO = HiddenMarkovModel(
    start=np.array([2 / 3, 1 / 3]),  # stationary
    transitions=np.array([[0.95, 0.05], [0.10, 0.90]]),
    emissions=np.array([[1 / 6] * 6, [0.1] * 5 + [0.5]]),
)
"""The fair die (state 0) and the loaded one, with the probabilities of Durbin et al. 1998, section 3.2."""


@dataclass(frozen=True)
class Casino(Task):
    """Which die made each throw: the fair one, or the loaded one that shows a six half of the time (`CASINO`).

        throw    3  1  6  6  2  6  6  5
        target   f  f  l  l  l  l  l  f        scored at every step, as the throws arrive

    Floor: always fair, right 2/3 of the time in expectation. Ceiling: the accuracy, on the test split itself, of the
    likelier die under the exact filtered posterior P(die_t | throws 1 … t); over fresh data no causal predictor can be
    better in expectation, though a smoother, which sees later throws, could.

    length: throws per sequence, T; token v is the throw v + 1. n_train, n_validation, n_test: sequences.
    """

    length: int = 100
    n_train: int = 500
    n_validation: int = 100
    n_test: int = 500

    name: ClassVar[str] = "casino"
    group: ClassVar[str] = "markov"
    summary: ClassVar[str] = "tag each throw with the die that made it; the filtered posterior is the ceiling"
    licence: ClassVar[str] = "generated, no data"
    source: ClassVar[str] = "Durbin, Eddy, Krogh and Mitchison 1998, doi:10.1017/CBO9780511790492"
    picture: ClassVar[Literal["symbols"]] = "symbols"
    symbols: ClassVar[tuple[str, ...]] = ("fair", "loaded")
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integers(self, {"length": 1, "n_train": 1, "n_validation": 1, "n_test": 1})

    @property
    def input(self) -> TokenInput:
        return TokenInput(vocabulary=6, max_length=self.length)

    @property
    def target(self) -> Classes:
        return Classes(2, scope="step")

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        validation = self._draw(self.n_validation, generator)
        train = self._draw(self.n_train, generator)
        return Splits(train, validation, self._draw(self.n_test, numpy_generator("test", self.name)))

    def optimal_outputs(self, batch: SequenceBatch) -> Tensor:
        """(B, T, 2) float64: log P(die_t | throws 1 … t)."""
        return filtered(CASINO, batch.inputs).log()

    def ceiling(self) -> float:
        return optimum(self)

    def _draw(self, n: int, generator: np.random.Generator) -> SequenceBatch:
        states, symbols = draw(CASINO, n, self.length, generator)
        return fully_scored(torch.from_numpy(symbols), torch.from_numpy(states))


def fully_scored(inputs: Tensor, targets: Tensor) -> SequenceBatch:
    """Sequences of one length, (B, T) each, every step of which is scored."""
    n, length = inputs.shape
    return SequenceBatch(inputs, targets, torch.full((n,), length), torch.ones((n, length), dtype=torch.bool))


@lru_cache(maxsize=4)
def optimum(task: HiddenSource | Casino) -> float:
    """The primary metric of the task's optimal outputs on its test split, which is the same for every seed."""
    test = task.splits(0).test
    return task.metrics[0].value(task.metrics[0].parts(task.optimal_outputs(test), test))
