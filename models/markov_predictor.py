"""What hidden Markov models fitted by EM or by counting share: configuration, choice of emissions, the fit of one model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.contract import ParameterCounts, SelfFitting, State
from models.markov_emissions import (
    Counts,
    CovarianceType,
    EstimatedEmissions,
    Frames,
    Gaussians,
    HiddenMarkovModels,
    Symbols,
    Topology,
)
from models.markov_outputs import observed_steps
from models.sequences import Binary, InputSpec, Real, SequenceBatch, TargetSpec, TokenInput


@dataclass(frozen=True)
class HiddenMarkovConfig:
    """How the models are fitted. Tagging counts: of the fields up to topology, only decoding concerns it.

    n_states: S, per class in classification; where a class has too few steps fewer are fitted, and the record says so.
    decoding: of tags where the whole sequence is given, ``posterior``, the smoothed probability of each tag, or
    ``viterbi``, the score of the best path through it; a causal task is always filtered. n_restarts: EM fits from
    different starts; the likeliest on validation is kept and goes on. n_iterations: EM iterations of the kept fit at most;
    before, each restart gets a third of them. tolerance: EM stops when an iteration gains less, in nats per step.
    screening_sequences: the restarts see at most so many sequences, or more where the states need more steps.
    max_sequences: the kept fit does, evenly spaced. topology: "ergodic", all moves, or "left_to_right", from the first
    state on, where each step stays or goes on to the next: for classes whose sequences unfold alike. Its last state is
    never left, so it predicts long sequences poorly. covariance_type: of Gaussian states, "spherical", "diag" or "full".
    n_gaussians: M, mixed in each state that emits real values; 1 is a plain Gaussian. emission: of states that emit real
    values, "gaussian" or, where these are counts, "poisson". min_variance: no variance falls below it, in any direction,
    in units of the standardised inputs, so that a constant channel, or one that follows from others, makes no infinite
    density. pseudocount: added to every count; of rates and means, that many further steps at the mean of all.
    """

    n_states: int = 6
    decoding: Literal["posterior", "viterbi"] = "posterior"
    n_restarts: int = 3
    n_iterations: int = 45
    tolerance: float = 2e-5
    screening_sequences: int = 30
    max_sequences: int = 1000
    topology: Topology = "ergodic"
    covariance_type: CovarianceType = "diag"
    n_gaussians: int = 1
    # No Literal: which of them fits depends on the values of the inputs, not on the task's kind.
    emission: str = "gaussian"
    min_variance: float = 1e-2
    pseudocount: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.n_states, self.n_restarts, self.n_iterations, self.screening_sequences, self.max_sequences)
        if min(*counts, self.n_gaussians) < 1:
            raise ValueError(
                "n_states, n_restarts, n_iterations, n_gaussians and the numbers of sequences must be at least 1"
            )
        if self.covariance_type not in ("spherical", "diag", "full"):
            raise ValueError(f"covariance_type must be spherical, diag or full, not {self.covariance_type!r}")
        if self.topology not in ("ergodic", "left_to_right"):
            raise ValueError(f"topology must be ergodic or left_to_right, not {self.topology!r}")
        if self.decoding not in ("posterior", "viterbi"):
            raise ValueError(f"decoding must be posterior or viterbi, not {self.decoding!r}")
        if self.emission not in ("gaussian", "poisson"):
            raise ValueError(f"emission must be gaussian or poisson, not {self.emission!r}")
        if self.emission == "poisson" and self.n_gaussians > 1:
            raise ValueError("n_gaussians must be 1 where emission is poisson")
        if self.min_variance <= 0 or self.pseudocount <= 0 or self.tolerance < 0:
            raise ValueError("min_variance and pseudocount must be positive, tolerance must be at least 0")


def emissions_of(
    n_models: int, n_states: int, inputs: InputSpec, target: TargetSpec, config: HiddenMarkovConfig
) -> EstimatedEmissions:
    """What the specs and the configuration ask the states to emit."""
    if isinstance(inputs, TokenInput):
        return Symbols(n_models, n_states, inputs.vocabulary)
    if isinstance(target, Binary):
        return Frames(n_models, n_states, len(inputs.measured))
    if config.emission == "gaussian":
        return Gaussians(n_models, n_states, len(inputs.measured), config.covariance_type, config.n_gaussians)
    if isinstance(target, Real):
        raise ValueError("forecasts are made of differences, which are no counts; set emission to gaussian")
    return Counts(n_models, n_states, len(inputs.measured))


class MarkovPredictor(SelfFitting):
    """What the four kinds of task share: the models, the free parameters and the size of the state."""

    def __init__(
        self,
        n_models: int,
        n_states: int,
        inputs: InputSpec,
        target: TargetSpec,
        config: HiddenMarkovConfig,
        topology: Topology,
    ) -> None:
        super().__init__()
        self.config = config
        emissions = emissions_of(n_models, n_states, inputs, target, config)
        self.hmm = HiddenMarkovModels(n_models, n_states, inputs, emissions, topology)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State: ...

    def state_bytes(self, t: int) -> int:
        return sum(part.element_size() * part.numel() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(backbone=self.hmm.n_free())

    def beginning(self, batch_size: int) -> Tensor:
        """(B, G, S)."""
        return self.hmm.beginning(batch_size)

    def standard_steps(self, train: Tensor, valid: Tensor) -> Tensor:
        """Standardises by the valid steps of the training inputs, and returns those inputs as the emissions see them.

        Raises ValueError where counts are expected and these are none.
        """
        if isinstance(self.hmm.emissions, Counts):
            values = train[valid]
            wrong = values[(values < 0) | (values != values.round())]
            if len(wrong):
                raise ValueError(
                    f"Poisson emissions need counts, whole numbers of at least 0, and these inputs hold {float(wrong[0]):.3g}; "
                    "set emission to gaussian"
                )
        self.hmm.standardise(train, valid)
        return self.hmm.standardised(train, valid)

    def fit_one(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """One model for all sequences, by EM on their inputs."""
        from models import markov_estimation as estimation

        valid, judged = (
            observed_steps(train.inputs, train.lengths),
            observed_steps(validation.inputs, validation.lengths),
        )
        inputs = self.standard_steps(train.inputs, valid)
        fitted = estimation.fit_em(
            estimation.observations(inputs, valid),
            estimation.observations(self.hmm.standardised(validation.inputs, judged), judged),
            self.hmm.emissions,
            self.config.n_states,
            self.config,
            generator,
        )
        self.hmm.put(0, fitted.parameters)
        self.is_capped = fitted.is_capped
        self.note_states()

    def note_states(self) -> None:
        """Has the record say where fewer states were fitted than asked for."""
        n_live, wanted = self.hmm.n_live, self.config.n_states
        few = n_live[n_live < wanted]
        self.fit_note = None
        if len(few):
            self.fit_note = (
                f"{len(few)} of {len(n_live)} models have fewer than {wanted} states, at least {int(few.min())}: "
                "too few training steps for more"
            )
