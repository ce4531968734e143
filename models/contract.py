"""The contract between models and the harness: state, the predictor, and what a model declares of itself.

Shape alphabet, used in every docstring and shape comment of the project:
**B** batch, **T** time, **C** input channels, **V** vocabulary, **D** encoder and read-out features, **K** outputs,
**H** hidden width, **S** HMM states, **L** layers, **W** window, **N** scored steps.

A model is one function over a chunk of time with explicit state, ``outputs, state = model(inputs, state, lengths)``.
Running the chunks of a sequence one after another gives what running the sequence at once gives; a step is a chunk of
length 1. The idea of a layer that equals its own step is that of google/sequence-layers (2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.sequences import Actions, InputSpec, SequenceBatch, TargetSpec

State = tuple[Tensor, ...]
"""What a causal model carries from chunk to chunk: tensors, batch first, opaque to callers. ``()`` where it carries none."""


class ParameterCounts(NamedTuple):
    """Free parameters by part. The budget counts the backbone; encoder and read-out have the width that the task fixes."""

    backbone: int
    encoder: int = 0
    readout: int = 0


class Predictor(nn.Module, ABC):
    """Any model, neural, Markov or counting: all the same to the harness.

    ``predictor(inputs, state=None, lengths=None)`` takes a chunk, (B, T, C) float or (B, T) int64, the state after the
    chunk before (None: the beginning) and ``lengths``, (B,) int64 on the CPU, the valid steps of *this chunk*,
    0 ≤ lengths ≤ T (None: all T). It returns outputs (B, T, K), logits or means, and the state after step lengths[b].
    Rows past lengths[b] are unspecified; whatever stands in the padding, NaN included, changes nothing.

    A non-causal predictor takes whole sequences: it raises ValueError if given a state, and returns ``()``. For
    ``scope="sequence"`` its answer stands at the last valid step.
    """

    causal: bool
    """Outputs at t use inputs at ≤ t only; hence it composes over chunks and streams."""

    @abstractmethod
    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """See the class."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first step; ``()`` for a non-causal predictor."""

    @abstractmethod
    def state_bytes(self, t: int) -> int:
        """Bytes carried per sequence after t steps."""

    @abstractmethod
    def parameter_counts(self) -> ParameterCounts:
        """Free parameters: those an optimiser or an estimator may choose."""

    def weight_bytes(self) -> int:
        """Bytes of all that a device must store to answer: weights and tables, in the types they are kept in."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())


class Wrapped(Predictor):
    """A predictor that changes how another one, ``network``, computes, and nothing else."""

    def __init__(self, network: Predictor) -> None:
        super().__init__()
        self.network = network
        self.causal = network.causal

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        outputs: tuple[Tensor, State] = self.network(inputs, state, lengths)
        return outputs

    def initial_state(self, batch_size: int) -> State:
        return self.network.initial_state(batch_size)

    def state_bytes(self, t: int) -> int:
        return self.network.state_bytes(t)

    def parameter_counts(self) -> ParameterCounts:
        return self.network.parameter_counts()

    def weight_bytes(self) -> int:
        return self.network.weight_bytes()


class SelfFitting(Predictor):
    """A predictor with an estimation procedure of its own: EM, counting, trees.

    fit_note: what the record of a fit should say of it, as that a smaller model was fitted than asked for; None: nothing.
    is_capped: whether a bound on iterations ended the last fit while it was still gaining.
    """

    fit_note: str | None = None
    is_capped: bool = False

    @abstractmethod
    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Estimates from ``train``; ``validation`` may choose among restarts or sizes, never more."""


class Fit(Enum):
    """Who fits a model: the one training loop of the harness, or the model's own `SelfFitting.fit`."""

    GRADIENT = "gradient"
    OWN = "own"


@dataclass(frozen=True)
class Choice:
    """One of a few values, for tuning."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class LogRange:
    """A real number between low and high, uniform in its logarithm, for tuning."""

    low: float
    high: float


def accepts_all(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """The `ModelEntry.refuses` of a model that can do every task."""
    return None


def refuses_causal(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """The `ModelEntry.refuses` of a model that must see the whole sequence."""
    return "needs the whole sequence, but the task asks for predictions as the sequence arrives" if causal else None


def refuses_actions(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """The `ModelEntry.refuses` of a model that estimates itself from right answers."""
    return "learns from right answers, but the task only rewards actions" if isinstance(target, Actions) else None


@dataclass(frozen=True)
class ModelEntry:
    """All that the harness knows of a model. It never asks a model's name or class.

    name: as in suites and tables. family: groups the models and colours every figure.
    config: the default configuration, an instance of a frozen dataclass whose every field is documented and defaulted.
    build(inputs, target, causal, config): the predictor, freshly initialised from torch's global generator, which the
    caller seeds. fit: who fits it. source: the citation. summary: one line for people.
    refuses(inputs, target, causal): why the model cannot do such a task, or None; the reason becomes a skipped row.
    width: the field of config that sizing turns to meet the parameter budget, in steps of width_multiple; None where a
    model has none. learning_rate: the hand-chosen default for GRADIENT models.
    is_baseline: whether it costs so little that its value stands beside the floor of a task.
    float32_only: why the model cannot be fitted in mixed precision, or None. imports: modules that a first fit would import.
    search_space: what tuning may vary, by field of config, or of the fitting configuration as "fit.FIELD".
    state: how many numbers a sequence carries after t steps where every step asks for an answer: an expression in the shape
    alphabet, t, and the fields of config (H is the width, L n_layers, S n_states, W window); "0" for whole-sequence models.
    """

    name: str
    family: str
    config: Any
    build: Callable[[InputSpec, TargetSpec, bool, Any], Predictor]
    fit: Fit
    source: str
    summary: str
    refuses: Callable[[InputSpec, TargetSpec, bool], str | None] = accepts_all
    width: str | None = None
    width_multiple: int = 1
    learning_rate: float | None = None
    is_baseline: bool = False
    float32_only: str | None = None
    imports: tuple[str, ...] = ()
    search_space: Mapping[str, Choice | LogRange] = field(default_factory=dict)
    state: str = "0"

    def do_imports(self) -> None:
        """Those of a first fit, which neither its time nor its memory should count. An optimiser imports torch._dynamo."""
        for name in ("torch._dynamo", *self.imports) if self.fit is Fit.GRADIENT else self.imports:
            import_module(name)
