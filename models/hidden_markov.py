"""Hidden Markov models under the one contract: classification, tagging, next symbol and forecasting.

Sources: Rabiner 1989, doi:10.1109/5.18626; Kudo, Toyama and Shimbo 1999, doi:10.1016/S0167-8655(99)00077-X (one HMM per
class on the Japanese vowels). Inference is in `markov_inference`, EM and counting in `markov_estimation`, which
the fits import when they are called: hmmlearn and the scikit-learn it needs cost over a second.

What is carried from chunk to chunk is the predicted distribution over the states of the next step, in float64. Scoring
loops over time alone; sequences, classes and states are tensor axes. G is the number of models side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models import markov_inference as inference
from models.contract import (
    Choice,
    Classes,
    Fit,
    InputSpec,
    ModelEntry,
    ParameterCounts,
    Predictor,
    Real,
    RealInput,
    SelfFitting,
    SequenceBatch,
    State,
    TargetSpec,
    TokenInput,
    valid_steps,
)
from models.markov_inference import CovarianceType, HiddenMarkovModels, Parameters


@dataclass(frozen=True)
class HiddenMarkovConfig:
    """How the models are fitted. Tagging counts, so that of these only the last three concern it.

    n_states: S, per class in classification; fewer where a class has too few steps. n_restarts: EM fits from different
    starts; the likeliest on validation is kept and goes on. n_iterations: EM iterations of the kept fit at most; before,
    each restart gets a third of them. tolerance: EM stops when an iteration gains less, in nats per step.
    screening_sequences: the restarts see at most so many sequences. max_sequences: the kept fit does, evenly spaced.
    covariance_type: of Gaussian states, "spherical", "diag" or "full". min_variance: added to every variance, in units
    of the standardised inputs, so that a constant channel makes no infinite density. pseudocount: added to every count.
    """

    n_states: int = 6
    n_restarts: int = 3
    n_iterations: int = 45
    tolerance: float = 2e-5
    screening_sequences: int = 30
    max_sequences: int = 1000
    covariance_type: CovarianceType = "diag"
    min_variance: float = 1e-3
    pseudocount: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.n_states, self.n_restarts, self.n_iterations, self.screening_sequences, self.max_sequences)
        if min(counts) < 1:
            raise ValueError("n_states, n_restarts, n_iterations and the numbers of sequences must be at least 1")
        if self.covariance_type not in ("spherical", "diag", "full"):
            raise ValueError(f"covariance_type must be spherical, diag or full, not {self.covariance_type!r}")
        if self.min_variance < 0 or self.pseudocount <= 0 or self.tolerance < 0:
            raise ValueError("min_variance and tolerance must not be negative, pseudocount must be positive")


class MarkovPredictor(SelfFitting):
    """What the four kinds of task share: the models, the free parameters and the size of the state."""

    def __init__(self, n_models: int, n_states: int, inputs: InputSpec, config: HiddenMarkovConfig) -> None:
        super().__init__()
        self.config = config
        self.hmm = HiddenMarkovModels(n_models, n_states, inputs, config.covariance_type)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State: ...

    def state_bytes(self, t: int) -> int:
        return sum(part.element_size() * part.numel() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(backbone=self.hmm.n_free())

    def fit_one(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """One model for all sequences, by EM on their inputs."""
        from models import markov_estimation as estimation

        valid, judged = _valid(train.inputs, train.lengths), _valid(validation.inputs, validation.lengths)
        self.hmm.standardise(train.inputs, valid)
        parameters = estimation.fit_em(
            estimation.observations(self.hmm.standardised(train.inputs, valid), valid),
            estimation.observations(self.hmm.standardised(validation.inputs, judged), judged),
            self.hmm.vocabulary,
            self.config,
            generator,
        )
        self.hmm.put(0, parameters)


class MarkovClassifier(MarkovPredictor):
    """One HMM per class; the outputs at t are log p(y | x_1..t), by Bayes' rule with the classes' frequencies as prior.

    State: predicted distributions (B, G, S) and log posterior of the classes (B, G), G being the number of classes. A
    class that training never shows is one state fitted to everything.
    """

    causal = True
    log_prior: Tensor

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(target.n, config.n_states, inputs, config)
        self.register_buffer("log_prior", torch.full((target.n,), 1 / target.n, dtype=torch.float64).log())

    def initial_state(self, batch_size: int) -> State:
        return self.hmm.beginning(batch_size), self.log_prior.expand(batch_size, -1)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        predicted, log_posterior = self.initial_state(len(inputs)) if state is None else state
        observed = _valid(inputs, lengths)
        result = self.hmm.filter(inputs, observed, predicted)
        log_joint = log_posterior[:, None] + result.log_evidence.cumsum(1)  # (B, T, G)
        log_posteriors = log_joint.log_softmax(-1)
        log_posterior = torch.where(observed.any(1)[:, None], log_posteriors[:, -1], log_posterior)
        return _as_inputs(log_posteriors, inputs), (result.predicted[:, -1], log_posterior)

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(backbone=self.hmm.n_free() + len(self.log_prior) - 1)

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM for each class on its own sequences; validation chooses among the restarts."""
        from models import markov_estimation as estimation

        valid, judged = _valid(train.inputs, train.lengths), _valid(validation.inputs, validation.lengths)
        self.hmm.standardise(train.inputs, valid)
        inputs = self.hmm.standardised(train.inputs, valid)
        judges = self.hmm.standardised(validation.inputs, judged)
        labels, judge_labels = train.targets[train.scored], validation.targets[validation.scored]
        for g in range(len(self.log_prior)):
            own = valid & (labels == g)[:, None]
            known = int(own.sum()) > 1
            parameters = estimation.fit_em(
                estimation.observations(inputs, own if known else valid),
                estimation.observations(judges, judged & (judge_labels == g)[:, None]),
                self.hmm.vocabulary,
                self.config if known else replace(self.config, n_states=1),
                generator,
            )
            self.hmm.put(g, parameters)
        self.log_prior.copy_(Classes(len(self.log_prior)).best_constant(labels))


class MarkovTagger(MarkovPredictor):
    """States are the tags, and one more for steps without a tag, estimated by counting.

    The outputs are the log posterior of the tags: filtered where the task is causal, else smoothed. State: the
    predicted distribution (B, 1, S), or ``()``.
    """

    def __init__(self, inputs: InputSpec, target: TargetSpec, causal: bool, config: HiddenMarkovConfig) -> None:
        super().__init__(1, target.n + 1, inputs, config)
        self.causal = causal

    def initial_state(self, batch_size: int) -> State:
        return (self.hmm.beginning(batch_size),) if self.causal else ()

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is not None and not self.causal:
            raise ValueError("a smoothing HMM takes whole sequences; pass no state")
        predicted = state[0] if state else self.hmm.beginning(len(inputs))
        result = self.hmm.filter(inputs, _valid(inputs, lengths), predicted)
        if self.causal:
            posterior = result.filtered
        else:
            ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
            posterior = inference.smooth_states(result, ends, self.hmm.transition)
        logs = posterior[:, :, 0, :-1].clamp_min(torch.finfo(posterior.dtype).tiny).log()  # (B, T, 1, S) → (B, T, S-1)
        return _as_inputs(logs.log_softmax(-1), inputs), (result.predicted[:, -1],) if self.causal else ()

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Counts on ``train``; needs neither validation nor chance."""
        from models import markov_estimation as estimation

        valid, n_states = _valid(train.inputs, train.lengths), self.hmm.start.shape[1]
        states = torch.where(train.scored, train.targets, n_states - 1)  # (B, T)
        pseudocount = self.config.pseudocount
        start, transition = estimation.count_chain(states, valid, n_states, pseudocount)
        self.hmm.standardise(train.inputs, valid)
        members, steps = states[valid], self.hmm.standardised(train.inputs, valid)[valid]  # (N,), (N, C) or (N,)
        covariances = None
        if self.hmm.vocabulary is not None:
            emissions = estimation.count_symbols(members, steps, n_states, self.hmm.vocabulary, pseudocount)
        else:
            emissions, covariances = estimation.state_gaussians(
                members, steps, n_states, self.config.covariance_type, pseudocount
            )
            covariances = covariances + self.config.min_variance * torch.eye(steps.shape[1], dtype=torch.float64)
        n_live = n_states if bool((members == n_states - 1).any()) else n_states - 1
        self.hmm.put(0, Parameters(start, transition, emissions, covariances).first(n_live))


class MarkovNextSymbol(MarkovPredictor):
    """The outputs at t are log p(x_(t+1) | x_1..t). State: the predicted distribution (B, 1, S)."""

    causal = True

    def __init__(self, inputs: InputSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(1, config.n_states, inputs, config)

    def initial_state(self, batch_size: int) -> State:
        return (self.hmm.beginning(batch_size),)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        (predicted,) = self.initial_state(len(inputs)) if state is None else state
        result = self.hmm.filter(inputs, _valid(inputs, lengths), predicted)
        symbols = result.predicted[:, :, 0] @ self.hmm.emissions[0]  # (B, T, S) → (B, T, V)
        return _as_inputs(symbols.log(), inputs), (result.predicted[:, -1],)

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM on the inputs; validation chooses among the restarts."""
        self.fit_one(train, validation, generator)


class MarkovForecaster(MarkovPredictor):
    """Gaussian states emit the differences d_t = x_t − x_(t−1); outputs are E[x_(t+k) − x_t | x_1..t], k = 1 … horizon.

    Step-major over channels, in the inputs' units. State: predicted distribution (B, 1, S), last input (B, C), and
    whether there was one (B,) bool.
    """

    causal = True

    def __init__(self, inputs: RealInput, target: TargetSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(1, config.n_states, inputs, config)
        self.horizon = target.n // inputs.channels

    def initial_state(self, batch_size: int) -> State:
        last = self.hmm.shift.new_zeros(batch_size, len(self.hmm.shift))
        return self.hmm.beginning(batch_size), last, torch.zeros(batch_size, dtype=torch.bool, device=last.device)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        predicted, last, started = self.initial_state(len(inputs)) if state is None else state
        valid = _valid(inputs, lengths)
        differences, observed = _differences(inputs.to(last.dtype), valid, last, started)
        result = self.hmm.filter(differences, observed, predicted)
        means = self.hmm.emissions[0] * self.hmm.scale + self.hmm.shift  # (S, C)
        sums = inference.forecast_means(means, self.hmm.transition[0], self.horizon)  # (S, horizon, C)
        outputs = result.predicted[:, :, 0] @ sums.flatten(1)  # (B, T, S) → (B, T, horizon · C)
        n_valid = valid.sum(1)
        final = inputs[torch.arange(len(inputs), device=inputs.device), (n_valid - 1).clamp_min(0)].to(
            last.dtype
        )  # (B, C)
        last = torch.where((n_valid > 0)[:, None], final, last)
        return _as_inputs(outputs, inputs), (result.predicted[:, -1], last, started | (n_valid > 0))

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM on the differences; validation chooses among the restarts."""
        if int(train.lengths.max()) < 2:
            raise ValueError("a forecasting HMM learns from differences; give windows of two steps or more")
        self.fit_one(_differenced(train), _differenced(validation), generator)


def _valid(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, T) bool on the inputs' device."""
    if lengths is None:
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    return valid_steps(lengths, inputs.shape[1]).to(inputs.device)


def _as_inputs(outputs: Tensor, inputs: Tensor) -> Tensor:
    return outputs.to(inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype())


def _differences(inputs: Tensor, valid: Tensor, last: Tensor, started: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, C) differences to the step before, and where there is one, (B, T) bool."""
    before = torch.cat([last[:, None], inputs[:, :-1]], 1)  # (B, T, C)
    has_before = torch.cat([started[:, None], valid[:, :-1]], 1)  # (B, T)
    return inputs - before, valid & has_before


def _differenced(batch: SequenceBatch) -> SequenceBatch:
    """The batch with differences for inputs, one step shorter; only inputs and lengths are of use."""
    long = batch.lengths > 1
    return SequenceBatch(
        inputs=batch.inputs[long].double().diff(dim=1),
        targets=batch.targets[long, 1:],
        lengths=batch.lengths[long] - 1,
        scored=batch.scored[long, 1:],
    )


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """An HMM gives classes, tags, the next symbol, and the mean of its inputs' future."""
    if isinstance(target, Real):
        if not target.future:
            return "an HMM gives classes and its inputs' future, not a value computed from the whole sequence"
        if isinstance(inputs, TokenInput) or target.n % inputs.channels:
            return "an HMM forecasts the channels it reads, and these are not the targets"
        return None
    if isinstance(target, Classes):
        if target.future and (isinstance(inputs, RealInput) or inputs.vocabulary != target.n):
            return "an HMM predicts the next of the symbols it reads, and these are not the classes"
        return None
    return f"this HMM gives one class at a step or real values, not a {type(target).__name__.lower()} target"


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: HiddenMarkovConfig) -> Predictor:
    reason = _refuses(inputs, target, causal)
    if reason is not None:
        raise ValueError(reason)
    if isinstance(target, Real) and isinstance(inputs, RealInput):
        return MarkovForecaster(inputs, target, config)
    if target.future:
        return MarkovNextSymbol(inputs, config)
    if target.scope == "sequence":
        return MarkovClassifier(inputs, target, config)
    return MarkovTagger(inputs, target, causal, config)


ENTRIES = [
    ModelEntry(
        name="hmm",
        family="markov",
        config=HiddenMarkovConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Rabiner 1989, doi:10.1109/5.18626",
        summary="hidden Markov model: one per class, tags as states, or a predictive distribution; EM or counting",
        refuses=_refuses,
        search_space={
            "n_states": Choice((2, 3, 5, 6, 8, 12, 16)),
            "covariance_type": Choice(("spherical", "diag", "full")),
        },
    )
]
