"""Hidden Markov models trained by gradient on the task's own loss, through the forward algorithm.

Sources: Bridle 1990, doi:10.1016/0167-6393(90)90049-F (the forward algorithm as a recurrent network, trained by
backpropagation); Bahl, Brown, de Souza and Mercer 1986, doi:10.1109/ICASSP.1986.1169179 (HMMs trained to tell classes
apart). Per model, with free parameters a, b, B, m and v:

    start         p = (1 − ε) softmax(a) + ε/S                   Gaussians   x ~ N(m_s, exp(v_s) + min_variance), per channel
    transitions   A_i = (1 − ε) softmax(b_i) + ε/S               symbols     softmax(B_s)          frames   σ(B_s), per channel

Inference and answers are those of `markov_inference` and `markov_outputs`. Where tags are asked for, the states are hidden too
and each has a distribution over the tags, c_s: log p(y_t = k) = log sum_s p(s_t = s) softmax(c_s)_k, filtered or smoothed.

The number of states is set by the parameter budget, like the width of any other neural model, so it is far above what EM is
given; G models of S states, for G classes, have about G (S² + S · parameters of a state).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import markov_outputs as outputs
from models.contract import Choice, Fit, LogRange, ModelEntry, ParameterCounts, Predictor, State
from models.markov_emissions import (
    Emissions,
    MarkovModels,
    bernoulli_log_likelihoods,
    categorical_log_likelihoods,
    diagonal_log_likelihoods,
)
from models.markov_inference import Chain, smooth_states
from models.predictor import count, required_width
from models.sequences import Binary, InputSpec, Real, RealInput, TargetSpec, TokenInput

_FLOOR = 1e-6
"""ε: no start and no transition is impossible, so that the filter divides by no zero, in single precision too."""


@dataclass(frozen=True)
class NeuralMarkovConfig:
    """n_states: S, per class in classification; None: set by the parameter budget. min_variance: added to every variance, in
    units of the standardised inputs.
    """

    n_states: int | None = None
    min_variance: float = 1e-2

    def __post_init__(self) -> None:
        if self.n_states is not None and self.n_states < 1:
            raise ValueError(f"n_states must be at least 1, got {self.n_states}")
        if self.min_variance <= 0:
            raise ValueError(f"min_variance must be positive, got {self.min_variance}")


class TrainedSymbols(Emissions):
    """Symbols by the logits of their probabilities, (G, S, V)."""

    def __init__(self, n_models: int, n_states: int, vocabulary: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(n_models, n_states, vocabulary))

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return categorical_log_likelihoods(steps, self.means().log())

    def means(self) -> Tensor:
        return _probabilities(self.logits)


class TrainedFrames(Emissions):
    """Independent answers yes or no by the logits of their probabilities, (G, S, C)."""

    def __init__(self, n_models: int, n_states: int, channels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(n_models, n_states, channels))

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return bernoulli_log_likelihoods(steps, self.means().logit())

    def means(self) -> Tensor:
        return (1 - _FLOOR) * self.logits.sigmoid() + _FLOOR / 2


class TrainedGaussians(Emissions):
    """Gaussians of independent channels: centres and log variances, (G, S, C)."""

    def __init__(self, n_models: int, n_states: int, channels: int, min_variance: float) -> None:
        super().__init__()
        self.min_variance = min_variance
        # Near each other: together the states describe a standard input, and no class is much likelier before training.
        self.centres = nn.Parameter(0.3 * torch.randn(n_models, n_states, channels))
        self.log_variances = nn.Parameter(torch.zeros(n_models, n_states, channels))

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return diagonal_log_likelihoods(steps, self.centres, self.log_variances.exp() + self.min_variance)

    def means(self) -> Tensor:
        return self.centres


class TrainedMarkovModels(MarkovModels):
    """`MarkovModels` whose parameters an optimiser moves.

    Real values are standardised by mean and variance of their channels, running averages over the training batches as in
    batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167). # differs from it: the averages are used in training too,
    so that a sequence is seen alike in every batch.
    """

    n_batches: Tensor
    variance: Tensor

    def __init__(self, n_models: int, n_states: int, inputs: InputSpec, emissions: Emissions) -> None:
        super().__init__(inputs, emissions, torch.get_default_dtype())
        self.start_logits = nn.Parameter(torch.zeros(n_models, n_states))
        self.transition_logits = nn.Parameter(torch.randn(n_models, n_states, n_states))
        self.register_buffer("n_batches", torch.zeros(()))
        self.register_buffer("variance", torch.ones_like(self.scale))

    def chain(self) -> Chain:
        return Chain(_probabilities(self.start_logits), _probabilities(self.transition_logits))

    def log_likelihoods(self, inputs: Tensor, observed: Tensor) -> Tensor:
        if self.training and isinstance(self.emissions, TrainedGaussians):
            self._average(inputs, observed)
        return self.emissions.log_likelihoods(self.standardised(inputs, observed))

    @torch.no_grad()
    def _average(self, values: Tensor, observed: Tensor) -> None:
        """One more batch (B, T, C). New tensors take the place of the old, which a graph of an earlier chunk may hold."""
        values, n_steps = self.without_masks(values), observed.sum().clamp_min(1)
        mean = torch.where(observed[..., None], values, 0).sum((0, 1)) / n_steps  # (B, T, C) → (C,)
        variance = torch.where(observed[..., None], (values - mean).square(), 0).sum((0, 1)) / n_steps
        self.n_batches = self.n_batches + 1
        self.shift = self.shift + (mean - self.shift) / self.n_batches
        self.variance = self.variance + (variance - self.variance) / self.n_batches
        rounding = 1e-6 * self.shift.abs()  # the deviation of a channel that never changes is not exactly 0
        deviation = self.variance.sqrt()
        self.scale = torch.where(deviation > rounding, deviation, 1.0)


def _probabilities(logits: Tensor) -> Tensor:
    """Rows that sum to one, with no entry below ε over their number."""
    return (1 - _FLOOR) * logits.softmax(-1) + _FLOOR / logits.shape[-1]


class NeuralMarkovPredictor(Predictor):
    """What the four kinds of task share."""

    def __init__(self, n_models: int, inputs: InputSpec, target: TargetSpec, config: NeuralMarkovConfig) -> None:
        super().__init__()
        n_states = required_width(config.n_states)
        emissions: Emissions
        if isinstance(inputs, TokenInput):
            emissions = TrainedSymbols(n_models, n_states, inputs.vocabulary)
        elif isinstance(target, Binary):
            emissions = TrainedFrames(n_models, n_states, len(inputs.measured))
        else:
            emissions = TrainedGaussians(n_models, n_states, len(inputs.measured), config.min_variance)
        self.hmm = TrainedMarkovModels(n_models, n_states, inputs, emissions)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State: ...

    def beginning(self, batch_size: int) -> Tensor:
        """(B, G, S)."""
        return self.hmm.beginning(batch_size)

    def state_bytes(self, t: int) -> int:
        return sum(part.element_size() * part.numel() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(backbone=count(self))


class NeuralMarkovClassifier(NeuralMarkovPredictor):
    """One HMM per class: the outputs at t are log p(y | x_1..t). State: predicted (B, G, S), log posterior (B, G)."""

    causal = True

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: NeuralMarkovConfig) -> None:
        super().__init__(target.n, inputs, target, config)
        self.prior_logits = nn.Parameter(torch.zeros(target.n))

    def initial_state(self, batch_size: int) -> State:
        return self.beginning(batch_size), self.prior_logits.log_softmax(-1).expand(batch_size, -1)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return outputs.class_posteriors(self.hmm, self.prior_logits.log_softmax(-1), inputs, state, lengths)


class NeuralMarkovTagger(NeuralMarkovPredictor):
    """The outputs are the log posterior of the tags, filtered where the task is causal, else smoothed.

    State: the predicted distribution (B, 1, S), or ``()``.
    """

    def __init__(self, inputs: InputSpec, target: TargetSpec, causal: bool, config: NeuralMarkovConfig) -> None:
        super().__init__(1, inputs, target, config)
        self.causal = causal
        self.tag_logits = nn.Parameter(torch.randn(required_width(config.n_states), target.n_outputs))

    def initial_state(self, batch_size: int) -> State:
        return (self.beginning(batch_size),) if self.causal else ()

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state and not self.causal:
            raise ValueError("a smoothing HMM takes whole sequences; pass no state")
        result, _ = outputs.filtered(self.hmm, inputs, lengths, state[0] if state else None)
        if self.causal:
            posterior = result.filtered
        else:
            ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
            posterior = smooth_states(result, ends, self.hmm.chain().transition)
        tags = posterior[:, :, 0] @ _probabilities(self.tag_logits)  # (B, T, S) → (B, T, K)
        return tags.log(), (result.predicted[:, -1],) if self.causal else ()


class NeuralMarkovNextInput(NeuralMarkovPredictor):
    """Log probabilities of the next symbol, or logits of the next frame. State: the predicted distribution (B, 1, S)."""

    causal = True

    def initial_state(self, batch_size: int) -> State:
        return (self.beginning(batch_size),)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return outputs.next_inputs(self.hmm, inputs, state, lengths)


class NeuralMarkovForecaster(NeuralMarkovPredictor):
    """The states emit differences; the outputs are the mean of the inputs' future. State: as of `markov_outputs.forecasts`."""

    causal = True

    def __init__(self, inputs: RealInput, target: TargetSpec, config: NeuralMarkovConfig) -> None:
        super().__init__(1, inputs, target, config)
        self.horizon = target.n_outputs // inputs.channels

    def initial_state(self, batch_size: int) -> State:
        return outputs.before_forecasts(self.hmm, batch_size)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return outputs.forecasts(self.hmm, self.horizon, inputs, state, lengths)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: NeuralMarkovConfig) -> Predictor:
    if isinstance(target, Real) and isinstance(inputs, RealInput):
        return NeuralMarkovForecaster(inputs, target, config)
    if target.future:
        return NeuralMarkovNextInput(1, inputs, target, config)
    if target.scope == "sequence":
        return NeuralMarkovClassifier(inputs, target, config)
    return NeuralMarkovTagger(inputs, target, causal, config)


ENTRIES = [
    ModelEntry(
        name="neural_hmm",
        family="markov",
        config=NeuralMarkovConfig(),
        build=_build,
        fit=Fit.GRADIENT,
        source="Bridle 1990, doi:10.1016/0167-6393(90)90049-F",
        summary="hidden Markov model trained by gradient on the task's loss, through the forward algorithm",
        refuses=outputs.refuses,
        width="n_states",
        float32_only="it works with probabilities close to zero and one",
        learning_rate=5e-2,  # by hand, on the validation splits of japanese_vowels, basic_motions, co2 and hidden_source
        search_space={"fit.learning_rate": LogRange(3e-3, 1e-1), "min_variance": Choice((1e-3, 1e-2, 1e-1))},
        state="S",  # of tags; S + K for classes
    )
]
