"""The floor: the best constant prediction. A model that does not beat it has learnt nothing.

Which constant is best is the target's own business (`best_constant`): class frequencies, base rates, the mean, the last
value where targets are differences from it, the empty transcript.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.contract import Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State, refuses_actions
from models.sequences import InputSpec, SequenceBatch, TargetSpec


@dataclass(frozen=True)
class FloorConfig:
    """Nothing to choose."""


class Floor(SelfFitting):
    """The same K outputs at every step of every sequence; looks at no input and carries no state."""

    causal = True

    def __init__(self, target: TargetSpec) -> None:
        super().__init__()
        self.target = target
        self.constant: Tensor
        self.register_buffer("constant", torch.zeros(target.n_outputs, dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()
        return self.constant.to(dtype).expand(*inputs.shape[:2], -1), ()  # (K,) → (B, T, K)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0

    def parameter_counts(self) -> ParameterCounts:
        """The K outputs: what the constant is chosen from, though some choices are equivalent."""
        return ParameterCounts(backbone=0, readout=len(self.constant))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """The best constant for the scored targets of ``train``; needs neither validation nor chance."""
        self.constant.copy_(self.target.best_constant(train))


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: FloorConfig) -> Predictor:
    return Floor(target)


ENTRIES = [
    ModelEntry(
        name="floor",
        family="floor",
        config=FloorConfig(),
        build=_build,
        fit=Fit.OWN,
        source="the definition of the floor in benchmarks/tasks/task.py",
        summary="the best constant prediction: frequencies, base rates, the mean, or the last value",
        refuses=refuses_actions,
    )
]
