"""Estimation of hidden Markov models: EM with restarts on hmmlearn, and counting where the states are known.

Sources: Baum, Petrie, Soules and Weiss 1970, doi:10.1214/aoms/1177697196 (EM); hmmlearn 0.3 (https://hmmlearn.readthedocs.io);
Laplace's rule for the counts.

hmmlearn loops over sequences in Python, about 0.1 ms each per iteration. So the restarts are short and run on a subset
of the sequences, and only the best of them goes on, with all.
"""

from __future__ import annotations

import copy
import logging
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from hmmlearn.base import ConvergenceMonitor
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from torch import Tensor

from models.markov_inference import CovarianceType, Parameters

_FLOOR = 1e-6
"""Added to the probability of any start, transition or symbol. EM likes exact zeros, and one symbol that training never
showed in a state would then make a whole sequence impossible."""

_STEPS_PER_STATE = 10
"""A state needs this many steps, and twice its channels; below, EM would describe single steps."""

_log = logging.getLogger(__name__)


class Observations(NamedTuple):
    """Sequences end to end, as hmmlearn wants them: values (N, C) float64 or (N, 1) int64, lengths (n,)."""

    values: np.ndarray
    lengths: np.ndarray

    def spread(self, n_sequences: int) -> Observations:
        """At most ``n_sequences`` of them, evenly spaced: windows of a series overlap with their neighbours."""
        if len(self.lengths) <= n_sequences:
            return self
        chosen = np.linspace(0, len(self.lengths) - 1, n_sequences).round().astype(int)
        ends = self.lengths.cumsum()
        parts = [self.values[ends[i] - self.lengths[i] : ends[i]] for i in chosen]
        return Observations(np.concatenate(parts), self.lengths[chosen])


class EstimationConfig(Protocol):
    """The fields that estimation reads; `hidden_markov.HiddenMarkovConfig` documents them."""

    @property
    def n_states(self) -> int: ...
    @property
    def covariance_type(self) -> CovarianceType: ...
    @property
    def n_restarts(self) -> int: ...
    @property
    def n_iterations(self) -> int: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def screening_sequences(self) -> int: ...
    @property
    def max_sequences(self) -> int: ...
    @property
    def min_variance(self) -> float: ...


def observations(inputs: Tensor, valid: Tensor) -> Observations:
    """(B, T, C) float or (B, T) int64 inputs and (B, T) bool → the valid steps, without sequences that have none."""
    lengths = valid.sum(1)
    values = inputs[valid].cpu()  # (N, C) or (N,)
    values = values.double() if values.is_floating_point() else values[:, None]
    return Observations(values.numpy(), lengths[lengths > 0].cpu().numpy())


def fit_em(
    train: Observations,
    validation: Observations,
    vocabulary: int | None,
    config: EstimationConfig,
    generator: torch.Generator,
) -> Parameters:
    """The likeliest of several EM fits; likeliest on ``validation``, or on ``train`` where that is empty.

    vocabulary: V for symbols, None for real values. Fewer states than asked for are fitted where ``train`` has too few
    steps. Raises RuntimeError if no fit stays finite.
    """
    train = train.spread(config.max_sequences)
    screening = train.spread(config.screening_sequences)
    judges = validation.spread(config.max_sequences) if len(validation.lengths) else train
    n_states = n_supported_states(screening.values, config.n_states)
    candidates: list[tuple[float, _Model]] = []
    for _ in range(2 * config.n_restarts + 4):  # a fit that is not finite is restarted
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        model = _run_em(_new_model(n_states, vocabulary, config, len(screening.values), seed), screening)
        if model is not None:
            candidates.append((_score(model, judges), model))
        if len(candidates) == config.n_restarts:
            break
    if not candidates:
        raise RuntimeError(f"EM with {n_states} states gave no finite fit; lower n_states")
    best = max(candidates, key=lambda candidate: candidate[0])[1]
    longer = copy.deepcopy(best).set_params(init_params="", n_iter=config.n_iterations)
    longer.monitor_ = ConvergenceMonitor(config.tolerance * len(train.values), config.n_iterations, verbose=False)
    return _parameters(_run_em(longer, train) or best, config.min_variance)


def n_supported_states(values: np.ndarray, wanted: int) -> int:
    """How many of the ``wanted`` states (N, C) values can support: 1 at least."""
    per_state = max(_STEPS_PER_STATE, 2 * values.shape[1])
    supported = max(1, min(wanted, len(values) // per_state))
    if not np.issubdtype(values.dtype, np.floating):
        return supported
    return min(supported, len(np.unique(values, axis=0)))  # k-means, where EM starts, needs distinct points


_Model: TypeAlias = "CategoricalHMM | GaussianHMM"


def _new_model(n_states: int, vocabulary: int | None, config: EstimationConfig, n_steps: int, seed: int) -> _Model:
    """A restart, which gets a third of the iterations."""
    tolerance, n_iterations = config.tolerance * n_steps, max(1, config.n_iterations // 3)
    if vocabulary is not None:
        return CategoricalHMM(n_states, n_features=vocabulary, random_state=seed, n_iter=n_iterations, tol=tolerance)
    return GaussianHMM(n_states, config.covariance_type, random_state=seed, n_iter=n_iterations, tol=tolerance)


def _run_em(model: _Model, data: Observations) -> _Model | None:
    """A fitted copy of ``model``, its probabilities floored; None if neither implementation stays finite."""
    for implementation in ("scaling", "log"):
        fitted = copy.deepcopy(model).set_params(implementation=implementation)
        try:
            with np.errstate(all="ignore"):  # overflow and 0 / 0 show in the parameters, which are judged below
                fitted.fit(data.values, data.lengths)
        except (ValueError, RuntimeError) as error:  # hmmlearn's words for underflow and for rows that do not sum to 1
            _log.info("EM failed (%s): %s", implementation, error)
            continue
        _floor_probabilities(fitted)
        arrays = [fitted.startprob_, fitted.transmat_, *_emission_arrays(fitted)]
        if all(np.isfinite(array).all() for array in arrays) and np.isfinite(fitted.monitor_.history[-1]):
            return fitted
        _log.info("EM gave a fit that is not finite (%s)", implementation)
    return None


def _emission_arrays(model: _Model) -> list[np.ndarray]:
    return [model.emissionprob_] if isinstance(model, CategoricalHMM) else [model.means_, model.covars_]


def _floor_probabilities(model: _Model) -> None:
    model.startprob_ = _floored(model.startprob_)
    model.transmat_ = _floored(model.transmat_)
    if isinstance(model, CategoricalHMM):
        model.emissionprob_ = _floored(model.emissionprob_)


def _floored(probabilities: np.ndarray) -> np.ndarray:
    """Rows that sum to one and have no zero; a row of zeros, a state that was never left, becomes uniform."""
    raised = probabilities + _FLOOR
    return raised / raised.sum(-1, keepdims=True)


def _score(model: _Model, data: Observations) -> float:
    """Log-likelihood in nats, in logarithms: a poor fit may underflow otherwise; -inf rather than NaN."""
    with np.errstate(all="ignore"):
        score = float(copy.copy(model).set_params(implementation="log").score(data.values, data.lengths))
    return score if np.isfinite(score) else -np.inf


def _parameters(model: _Model, min_variance: float) -> Parameters:
    start, transition = torch.from_numpy(model.startprob_), torch.from_numpy(model.transmat_)
    if isinstance(model, CategoricalHMM):
        return Parameters(start, transition, torch.from_numpy(model.emissionprob_))
    covariances = torch.from_numpy(model.covars_)  # hmmlearn gives (S, C, C) for every covariance_type
    ridge = min_variance * torch.eye(covariances.shape[-1], dtype=torch.float64)
    return Parameters(start, transition, torch.from_numpy(model.means_), covariances + ridge)


def count_chain(states: Tensor, valid: Tensor, n_states: int, pseudocount: float) -> tuple[Tensor, Tensor]:
    """Start (S,) and transition (S, S) float64 from known states, (B, T) in 0 … S-1 at the (B, T) ``valid`` steps.

    ``pseudocount`` is added to every cell, but the last state, the one without a tag, is unreachable unless it occurs.
    """
    starts = torch.bincount(states[:, 0][valid[:, 0]], minlength=n_states).double()
    pairs = (states[:, :-1] * n_states + states[:, 1:])[valid[:, 1:]]
    transitions = torch.bincount(pairs, minlength=n_states**2).double().view(n_states, n_states)
    reachable = torch.ones(n_states, dtype=torch.float64)
    reachable[-1] = float((states[valid] == n_states - 1).any())
    start, transition = (starts + pseudocount) * reachable, (transitions + pseudocount) * reachable
    return start / start.sum(), transition / transition.sum(-1, keepdim=True)


def count_symbols(states: Tensor, symbols: Tensor, n_states: int, vocabulary: int, pseudocount: float) -> Tensor:
    """(N,) states and (N,) symbols → (S, V) float64 symbol probabilities."""
    counts = torch.bincount(states * vocabulary + symbols, minlength=n_states * vocabulary).double()
    counts = counts.view(n_states, vocabulary) + pseudocount
    return counts / counts.sum(-1, keepdim=True)


def state_gaussians(
    states: Tensor, values: Tensor, n_states: int, covariance_type: CovarianceType, pseudocount: float
) -> tuple[Tensor, Tensor]:
    """(N,) states and (N, C) standardised values → means (S, C) and covariances (S, C, C), float64.

    ``pseudocount`` is a number of further observations with mean 0 and unit covariance, those of all values together.
    """
    members = torch.nn.functional.one_hot(states, n_states).double()  # (N, S)
    weight = members.sum(0) + pseudocount
    means = members.T @ values / weight[:, None]
    second = torch.einsum("ns,nc,nd->scd", members, values, values)
    identity = torch.eye(values.shape[1], dtype=torch.float64)
    covariances = (second + pseudocount * identity) / weight[:, None, None] - means[:, :, None] * means[:, None, :]
    if covariance_type == "full":
        return means, covariances
    variances = covariances.diagonal(dim1=-2, dim2=-1)  # (S, C)
    if covariance_type == "spherical":
        variances = variances.mean(-1, keepdim=True).expand_as(variances)
    return means, torch.diag_embed(variances)
