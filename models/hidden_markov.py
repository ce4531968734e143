"""Hidden Markov models under the one contract, by EM or by counting: classes, tags, the next symbol or frame, forecasts.

Sources: Rabiner 1989, doi:10.1109/5.18626; Viterbi 1967, doi:10.1109/TIT.1967.1054010; Kudo, Toyama and Shimbo 1999,
doi:10.1016/S0167-8655(99)00077-X (one HMM per class on the Japanese vowels). Inference is in `markov_inference`, what
states emit in `markov_emissions`, what is answered in `markov_outputs`. Estimation is in `markov_estimation` and
`markov_counting`, which the fits import when they are called: hmmlearn and the scikit-learn it needs cost over a second.

What is carried from chunk to chunk begins with the predicted distribution over the states of the next step, in float64.
Scoring loops over time alone; sequences, classes and states are tensor axes. G is the number of models side by side.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from models import markov_inference as inference
from models import markov_outputs as outputs
from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, State
from models.markov_emissions import Gaussians, Parameters
from models.markov_outputs import observed_steps
from models.markov_predictor import HiddenMarkovConfig, MarkovPredictor
from models.sequences import Binary, InputSpec, Real, RealInput, SequenceBatch, TargetSpec, TokenInput, log_frequencies


class MarkovClassifier(MarkovPredictor):
    """One HMM per class; the outputs at t are log p(y | x_1..t), by Bayes' rule with the classes' frequencies as prior.

    State: predicted distributions (B, G, S) and log posterior of the classes (B, G), G being the number of classes. A
    class that training never shows is one state fitted to everything.
    """

    causal = True
    log_prior: Tensor

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(target.n, config.n_states, inputs, target, config, config.topology)
        self.register_buffer("log_prior", torch.full((target.n,), 1 / target.n, dtype=torch.float64).log())

    def initial_state(self, batch_size: int) -> State:
        return self.beginning(batch_size), self.log_prior.expand(batch_size, -1)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        answers, state = outputs.class_posteriors(self.hmm, self.log_prior, inputs, state, lengths)
        return _as_inputs(answers, inputs), state

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(backbone=self.hmm.n_free() + len(self.log_prior) - 1)

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM for each class on its own sequences; validation chooses among the restarts."""
        from models import markov_estimation as estimation

        valid, judged = (
            observed_steps(train.inputs, train.lengths),
            observed_steps(validation.inputs, validation.lengths),
        )
        inputs = self.standard_steps(train.inputs, valid)
        judges = self.hmm.standardised(validation.inputs, judged)
        labels, judge_labels = train.targets[train.scored], validation.targets[validation.scored]
        self.is_capped = False
        for g in range(len(self.log_prior)):
            own = valid & (labels == g)[:, None]
            known = int(own.sum()) > 1
            fitted = estimation.fit_em(
                estimation.observations(inputs, own if known else valid),
                estimation.observations(judges, judged & (judge_labels == g)[:, None]),
                self.hmm.emissions,
                self.config.n_states if known else 1,
                self.config,
                generator,
            )
            self.hmm.put(g, fitted.parameters)
            self.is_capped |= fitted.is_capped
        self.note_states()
        self.log_prior.copy_(log_frequencies(labels, len(self.log_prior)))


class MarkovTagger(MarkovPredictor):
    """States are the tags, and one more for steps without a tag, estimated by counting.

    The outputs are the log posterior of the tags: filtered where the task is causal, else smoothed; or, decoded by Viterbi, the
    score of the best path through each tag, whose largest at every step is the likeliest sequence of states. State: the
    predicted distribution (B, 1, S), or ``()``.
    """

    def __init__(self, inputs: InputSpec, target: TargetSpec, causal: bool, config: HiddenMarkovConfig) -> None:
        super().__init__(1, target.n + 1, inputs, target, config, "ergodic")
        self.causal = causal

    def initial_state(self, batch_size: int) -> State:
        return (self.beginning(batch_size),) if self.causal else ()

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is not None and not self.causal:
            raise ValueError("a smoothing HMM takes whole sequences; pass no state")
        ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
        if self.config.decoding == "viterbi" and not self.causal:
            likelihoods = self.hmm.log_likelihoods(inputs, observed_steps(inputs, lengths))
            logs = inference.best_path_scores(likelihoods, ends, self.hmm.chain())
            return _as_inputs(logs[:, :, 0, :-1].log_softmax(-1), inputs), ()  # (B, T, 1, S) → (B, T, S-1)
        result, _ = outputs.filtered(self.hmm, inputs, lengths, state[0] if state else None)
        posterior = (
            result.filtered if self.causal else inference.smooth_states(result, ends, self.hmm.chain().transition)
        )
        logs = posterior[:, :, 0, :-1].clamp_min(torch.finfo(posterior.dtype).tiny).log()  # (B, T, 1, S) → (B, T, S-1)
        return _as_inputs(logs.log_softmax(-1), inputs), (result.predicted[:, -1],) if self.causal else ()

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Counts on ``train``; needs no validation, and chance only to fit mixtures."""
        from models import markov_counting as counting

        valid, n_states = observed_steps(train.inputs, train.lengths), len(self.hmm.start[0])
        states = torch.where(train.scored, train.targets, n_states - 1)  # (B, T)
        start, transition = counting.count_chain(states, valid, n_states, self.config.pseudocount)
        members, steps = states[valid], self.standard_steps(train.inputs, valid)[valid]  # (N,), (N, C) or (N,)
        emitted = counting.count_emissions(members, steps, n_states, self.hmm.emissions, self.config, generator)
        n_live = n_states if bool((members == n_states - 1).any()) else n_states - 1
        self.hmm.put(0, Parameters(start, transition, *emitted).first(n_live))
        self.fit_note = None
        if isinstance(self.hmm.emissions, Gaussians) and self.config.n_gaussians > 1:
            centres = self.hmm.emissions.centres[0, :n_live]  # (S, M, C)
            n_single = int((centres == centres[:, :1]).all(-1).all(-1).sum())
            if n_single:
                self.fit_note = (
                    f"{n_single} of {n_live} states emit one Gaussian, not {self.config.n_gaussians}: "
                    "too few training steps"
                )


class MarkovNextInput(MarkovPredictor):
    """The outputs at t are log p(x_(t+1) | x_1..t) of symbols; of frames of yes or no, the logits of its means.

    A frame is yes wherever the input is above 0.5. State: the predicted distribution (B, 1, S).
    """

    causal = True

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(1, config.n_states, inputs, target, config, config.topology)

    def initial_state(self, batch_size: int) -> State:
        return (self.beginning(batch_size),)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        answers, state = outputs.next_inputs(self.hmm, inputs, state, lengths)
        return _as_inputs(answers, inputs), state

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM on the inputs and, behind them, the last target; validation chooses among the restarts."""
        train, validation = with_last_target(train), with_last_target(validation)
        if self.hmm.is_real:
            train, validation = (replace(part, inputs=outputs.as_frames(part.inputs)) for part in (train, validation))
        self.fit_one(train, validation, generator)


class MarkovForecaster(MarkovPredictor):
    """Gaussian states emit the differences d_t = x_t − x_(t−1); outputs are E[x_(t+k) − x_t | x_1..t], k = 1 … horizon.

    Step-major over channels, in the inputs' units. State: predicted distribution (B, 1, S), last input (B, C), and
    (B, 1) 1.0 where there was one, else 0.0.
    """

    causal = True

    def __init__(self, inputs: RealInput, target: TargetSpec, config: HiddenMarkovConfig) -> None:
        super().__init__(1, config.n_states, inputs, target, config, config.topology)
        self.horizon = target.n // inputs.channels

    def initial_state(self, batch_size: int) -> State:
        return outputs.before_forecasts(self.hmm, batch_size)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        answers, state = outputs.forecasts(self.hmm, self.horizon, inputs, state, lengths)
        return _as_inputs(answers, inputs), state

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """EM on the differences; validation chooses among the restarts."""
        if int(train.lengths.max()) < 2:
            raise ValueError("a forecasting HMM learns from differences; give windows of two steps or more")
        self.fit_one(_differenced(train), _differenced(validation), generator)


def with_last_target(batch: SequenceBatch) -> SequenceBatch:
    """The sequences of what is next, one step longer: what follows the last input is the last target, if it is scored.

    Without it EM would never see the symbol that ends a sequence. Only inputs and lengths are of use.
    """
    inputs = torch.cat([batch.inputs, torch.zeros_like(batch.inputs[:, :1])], 1)  # (B, T + 1) or (B, T + 1, C)
    rows = torch.arange(len(batch))
    last = batch.lengths - 1  # (B,)
    is_known = batch.scored[rows, last]  # (B,)
    following = batch.targets[rows, last].to(inputs.dtype)  # (B,) or (B, C)
    inputs[rows[is_known], batch.lengths[is_known]] = following[is_known]
    return replace(batch, inputs=inputs, lengths=batch.lengths + is_known.long())


def _as_inputs(answers: Tensor, inputs: Tensor) -> Tensor:
    return answers.to(inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype())


def _differenced(batch: SequenceBatch) -> SequenceBatch:
    """The batch with differences for inputs, one step shorter; only inputs and lengths are of use."""
    long = batch.lengths > 1
    return SequenceBatch(
        inputs=batch.inputs[long].double().diff(dim=1),
        targets=batch.targets[long, 1:],
        lengths=batch.lengths[long] - 1,
        scored=batch.scored[long, 1:],
    )


def _refuses_mixture(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """A mixture of Gaussians, where an HMM emits real values."""
    if isinstance(inputs, TokenInput) or isinstance(target, Binary):
        return "a mixture of Gaussians describes real values, not symbols or frames of yes and no"
    return outputs.refuses(inputs, target, causal)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: HiddenMarkovConfig) -> Predictor:
    if isinstance(target, Real) and isinstance(inputs, RealInput):
        return MarkovForecaster(inputs, target, config)
    if target.future:
        return MarkovNextInput(inputs, target, config)
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
        imports=("models.markov_estimation", "models.markov_counting"),
        summary="hidden Markov model: one per class, tags as states, or a predictive distribution; EM or counting",
        refuses=outputs.refuses,
        search_space={
            "n_states": Choice((3, 5, 6, 8, 12, 20, 32, 64)),
            "topology": Choice(("ergodic", "left_to_right")),
            "covariance_type": Choice(("spherical", "diag", "full")),
            "min_variance": Choice((1e-3, 1e-2, 1e-1)),
        },
        state="K + 1",  # of tags; S + K for classes
    ),
    ModelEntry(
        name="gmm_hmm",
        family="markov",
        config=HiddenMarkovConfig(n_gaussians=2),
        build=_build,
        fit=Fit.OWN,
        source="Rabiner 1989, doi:10.1109/5.18626",
        imports=("models.markov_estimation", "models.markov_counting"),
        summary="hidden Markov model whose states emit mixtures of Gaussians; EM",
        refuses=_refuses_mixture,
        search_space={
            "n_states": Choice((2, 3, 4, 6, 8, 12, 20)),
            "topology": Choice(("ergodic", "left_to_right")),
            "n_gaussians": Choice((2, 3, 4)),
            "covariance_type": Choice(("spherical", "diag", "full")),
            "min_variance": Choice((1e-3, 1e-2, 1e-1)),
        },
        state="K + 1",
    ),
]
