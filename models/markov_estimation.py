"""Estimation of hidden Markov models by EM with restarts, on hmmlearn.

EM begins with every step given to a state: by k-means where the chain is ergodic; left to right, by cutting every sequence into
S parts of equal length, the first restart exactly so and the others with cuts moved at random (Rabiner 1989, section VI).

Sources: Rabiner 1989, doi:10.1109/5.18626; Baum, Petrie, Soules and Weiss 1970, doi:10.1214/aoms/1177697196 (EM); Young et al.
2006, The HTK Book (mixtures made by splitting Gaussians); hmmlearn 0.3 (https://hmmlearn.readthedocs.io).

The restarts are short and run on a subset of the sequences, and only the best of them goes on, with all.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from hmmlearn.base import ConvergenceMonitor
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from models.hmmlearn_emissions import BernoulliHMM, CountHMM, GaussianHMM, MixtureHMM, SymbolHMM, floored
from models.markov_emissions import (
    Counts,
    CovarianceType,
    EstimatedEmissions,
    Frames,
    Gaussians,
    Parameters,
    Symbols,
    Topology,
)

_FLOOR = 1e-6
"""Added to the probability of any start, transition or symbol. EM likes exact zeros, and one symbol that training never
showed in a state would then make a whole sequence impossible."""

_STEPS_PER_STATE = 10
"""A state, or a Gaussian of a mixture, needs this many steps, and twice its channels; below, EM would describe single steps."""

_MOST_LEAVING = 0.9
"""EM keeps a zero, so a left-to-right chain with as many states as steps may not begin with never staying."""

_PRIOR = 1e-2
"""So much of a step with mean 0 and variance 1 is added to each Gaussian of a mixture at every update, in standardised units.
It keeps a Gaussian from closing in on a single step, and one that no step belongs to from ceasing to exist."""

_HMMLEARN_WARNINGS = ("Model is not converging", "Fitting a model with", "Some rows of transmat_")
"""What hmmlearn logs while it fits and `fit_em` judges by itself, from the finished fits."""

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
    @property
    def pseudocount(self) -> float: ...
    @property
    def topology(self) -> Topology: ...


def observations(inputs: Tensor, valid: Tensor) -> Observations:
    """(B, T, C) float or (B, T) int64 inputs and (B, T) bool → the valid steps, without sequences that have none."""
    lengths = valid.sum(1)
    values = inputs[valid].cpu()  # (N, C) or (N,)
    values = values.double() if values.is_floating_point() else values[:, None]
    return Observations(values.numpy(), lengths[lengths > 0].cpu().numpy())


class Estimated(NamedTuple):
    """is_capped: whether the bound on iterations ended EM, and not the tolerance."""

    parameters: Parameters
    is_capped: bool


def fit_em(
    train: Observations,
    validation: Observations,
    emissions: EstimatedEmissions,
    n_states: int,
    config: EstimationConfig,
    generator: torch.Generator,
) -> Estimated:
    """The likeliest of several EM fits; likeliest on ``validation``, or on ``train`` where that is empty.

    emissions: which kind; not changed. Fewer states than asked for are fitted where ``train`` supports fewer. Raises
    RuntimeError if no fit stays finite.
    """
    train = train.spread(config.max_sequences)
    n_states = n_supported_states(train, n_states, n_gaussians(emissions), config.topology)
    needed = n_states * steps_per_state(train.values, n_gaussians(emissions))
    screening = train.spread(max(config.screening_sequences, math.ceil(needed / train.lengths.mean())))
    judges = validation.spread(config.max_sequences) if len(validation.lengths) else train
    candidates: list[tuple[float, _Model]] = []
    for restart in range(2 * config.n_restarts + 4):  # a fit that is not finite is restarted
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        model = _run_em(
            _new_model(n_states, emissions, config, screening, seed, restart > 0), screening, config.topology
        )
        if model is not None:
            candidates.append((model.log_likelihood(*judges), model))
        if len(candidates) == config.n_restarts:
            break
    if not candidates:
        raise RuntimeError(f"EM with {n_states} states gave no finite fit; lower n_states or raise min_variance")
    best = max(candidates, key=lambda candidate: candidate[0])[1]
    longer = copy.deepcopy(best).set_params(init_params="", n_iter=config.n_iterations)
    longer.monitor_ = ConvergenceMonitor(config.tolerance * len(train.values), config.n_iterations, verbose=False)
    final = _run_em(longer, train, config.topology)
    if final is None:
        return Estimated(_parameters(best), is_capped=True)
    history = list(final.monitor_.history)
    gain = history[-1] - history[-2] if len(history) > 1 else math.inf
    return Estimated(_parameters(final), final.monitor_.iter == config.n_iterations and gain > final.monitor_.tol)


def n_gaussians(emissions: EstimatedEmissions) -> int:
    """M, or 1 where a state emits no Gaussians."""
    return emissions.centres.shape[2] if isinstance(emissions, Gaussians) else 1


def n_supported_states(data: Observations, wanted: int, n_gaussians: int, topology: Topology) -> int:
    """How many of the ``wanted`` states the data can support: 1 at least; left to right, no more than the longest sequence has
    steps, since no later state could be reached."""
    supported = min(wanted, len(data.values) // steps_per_state(data.values, n_gaussians))
    if topology == "left_to_right":
        supported = min(supported, int(data.lengths.max()))
    return max(1, supported)


def steps_per_state(values: np.ndarray, n_gaussians: int) -> int:
    """How many of (N, C) steps a state of M Gaussians needs at least."""
    return n_gaussians * max(_STEPS_PER_STATE, 2 * values.shape[1])


_Model: TypeAlias = "SymbolHMM | GaussianHMM | MixtureHMM | CountHMM | BernoulliHMM"


def _new_model(
    n_states: int,
    emissions: EstimatedEmissions,
    config: EstimationConfig,
    data: Observations,
    seed: int,
    moves_cuts: bool,
) -> _Model:
    """A restart, which gets a third of the iterations. Symbols of an ergodic chain start at random. moves_cuts: whether chance
    decides where sequences are cut."""
    values = data.values
    is_ergodic = config.topology == "ergodic"
    options: dict[str, Any] = {
        "random_state": seed,
        "n_iter": max(1, config.n_iterations // 3),
        "tol": config.tolerance * len(values),
        "init_params": "st" if is_ergodic else "",
    }
    model: _Model
    if isinstance(emissions, Symbols):
        model = SymbolHMM(n_states, n_features=emissions.vocabulary, **options | {"init_params": "ste"})
        if not is_ergodic:
            model.set_params(init_params="")
            members = _members(data, n_states, is_ergodic, seed, moves_cuts)
            counts = members.T @ np.eye(emissions.vocabulary)[values[:, 0]]  # (S, V)
            smoothed = counts + config.pseudocount * (counts.sum(0) + 1) / (counts.sum() + emissions.vocabulary)
            model.emissionprob_ = smoothed / smoothed.sum(1, keepdims=True)
    else:
        members = _members(data, n_states, is_ergodic, seed, moves_cuts)
        match emissions:
            case Gaussians() if n_gaussians(emissions) == 1:
                model = _gaussians(members, values, emissions.covariance_type, is_ergodic, config.min_variance, options)
            case Gaussians():
                model = _split_gaussians(
                    members, values, n_gaussians(emissions), emissions.covariance_type, config.min_variance, options
                )
            case Frames():
                mean, means = _smoothed_means(members, values, config.pseudocount)
                model = BernoulliHMM(n_states, mean, config.pseudocount, **options)
                model.means_ = means
            case Counts():
                mean, means = _smoothed_means(members, values, config.pseudocount)
                prior = {"lambdas_prior": config.pseudocount * mean, "lambdas_weight": config.pseudocount}
                model = CountHMM(n_states, **prior, **options)
                model.lambdas_ = means
            case _:
                raise TypeError(f"no estimator for {type(emissions).__name__}")
    if not is_ergodic:
        leaving = min(_MOST_LEAVING, n_states * len(data.lengths) / len(values))
        model.startprob_ = np.eye(n_states)[0]
        model.transmat_ = (1 - leaving) * np.eye(n_states) + leaving * np.eye(n_states, k=1)
        model.transmat_[-1, -1] = 1
    return model


def _members(data: Observations, n_states: int, is_ergodic: bool, seed: int, moves_cuts: bool) -> np.ndarray:
    """(N, S), 1.0 for the state that a step is given to; of an ergodic chain every state has one at least."""
    if is_ergodic:
        labels = _clusters(data.values, n_states, seed)
    else:
        cuts = np.arange(1.0, n_states)
        if moves_cuts:
            cuts = np.sort(cuts + np.random.default_rng(seed).uniform(-1, 1, len(cuts)))
        steps = np.concatenate([(np.arange(n) + 0.5) / n for n in data.lengths])  # (N,), as shares of a sequence
        labels = np.searchsorted(cuts / n_states, steps)
    return np.eye(n_states)[labels]


def _clusters(values: np.ndarray, n_states: int, seed: int) -> np.ndarray:
    """(N, C) → (N,) labels by k-means; of fewer distinct points than states, which it cannot do, as many steps for each state,
    in the order of their values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct points, seen from the labels
        labels: np.ndarray = KMeans(n_states, random_state=seed, n_init=10).fit(values).labels_
    if len(np.unique(labels)) == n_states:
        return labels
    labels = np.empty(len(values), dtype=np.int64)
    labels[np.lexsort(values.T)] = np.arange(len(values)) * n_states // len(values)
    return labels


def _smoothed_means(members: np.ndarray, values: np.ndarray, pseudocount: float) -> tuple[np.ndarray, np.ndarray]:
    """Means of (N, C) values: of all, (C,), positive, and below 1 for frames; and of the members of each state, (S, C), each
    with ``pseudocount`` further members at the mean of all."""
    mean = (values.sum(0) + 0.5) / (len(values) + 1)
    return mean, (members.T @ values + pseudocount * mean) / (members.sum(0)[:, None] + pseudocount)


def _gaussians(
    members: np.ndarray,
    values: np.ndarray,
    covariance_type: CovarianceType,
    is_ergodic: bool,
    min_variance: float,
    options: dict[str, Any],
) -> GaussianHMM:
    """An ergodic chain starts from the covariance of all values, so that states share their steps. Left to right, where time
    separates them, each state starts from the moments of its own steps and of one further step with the moments of all."""
    n_states, n_channels = members.shape[1], values.shape[1]
    mean, covariance = values.mean(0), np.cov(values.T, ddof=0).reshape(n_channels, n_channels)
    if is_ergodic:
        means = members.T @ values / members.sum(0)[:, None]
        covariances = np.tile(covariance, (n_states, 1, 1))
    else:
        sizes = members.sum(0) + 1
        means = (members.T @ values + mean) / sizes[:, None]
        squares = np.einsum("ns,nc,nd->scd", members, values, values, optimize=True) + covariance + np.outer(mean, mean)
        covariances = squares / sizes[:, None, None] - means[:, :, None] * means[:, None, :]
    variances = np.diagonal(covariances, axis1=1, axis2=2)  # (S, C)
    start = {"full": covariances, "diag": variances, "spherical": variances.mean(1)}[covariance_type]
    model = GaussianHMM(n_states, covariance_type, min_variance, covars_prior=0.0, **options)
    model.means_, model.covars_ = means, floored(start, covariance_type, min_variance)
    return model


def _split_gaussians(
    members: np.ndarray,
    values: np.ndarray,
    n_gaussians: int,
    covariance_type: CovarianceType,
    min_variance: float,
    options: dict[str, Any],
) -> MixtureHMM:
    """Every state's members as M Gaussians, moved off their mean at random by half their standard deviation."""
    n_states, n_channels = members.shape[1], values.shape[1]
    sizes = members.sum(0).clip(min=1)[:, None]  # (S, 1)
    centres = members.T @ values / sizes  # (S, C)
    squares = members.T @ values**2 / sizes - centres**2  # (S, C)
    variances = squares.clip(min=0) + _PRIOR
    moves = np.random.default_rng(options["random_state"]).normal(size=(n_states, n_gaussians, n_channels))
    spread = np.broadcast_to(variances[:, None], moves.shape)  # (S, M, C)
    prior: dict[str, Any]
    # hmmlearn's parameters of the priors that make the update (prior + squares) / (prior + members).
    match covariance_type:
        case "diag":
            covariances, prior = spread, {"covars_prior": (_PRIOR - 3) / 2, "covars_weight": _PRIOR / 2}
        case "spherical":
            covariances = spread.mean(-1)
            prior = {"covars_prior": n_channels * (_PRIOR - 1) / 2 - 1, "covars_weight": n_channels * _PRIOR / 2}
        case "full":
            covariances = spread[..., None] * np.eye(n_channels)
            prior = {"covars_prior": _PRIOR * np.eye(n_channels), "covars_weight": _PRIOR - n_channels - 2}
    model = MixtureHMM(
        n_states,
        n_gaussians,
        covariance_type=covariance_type,
        min_covar=min_variance,
        weights_prior=1 + _PRIOR,
        means_weight=_PRIOR,
        **prior,
        **options,
    )
    model.means_ = centres[:, None] + 0.5 * np.sqrt(spread) * moves
    model.covars_ = floored(covariances, covariance_type, min_variance)
    model.weights_ = np.full((n_states, n_gaussians), 1 / n_gaussians)
    return model


def _run_em(model: _Model, data: Observations, topology: Topology) -> _Model | None:
    """A fitted copy of ``model``, with no zeros but those of ``topology``; None if neither implementation stays finite."""
    for implementation in ("scaling", "log"):
        fitted = copy.deepcopy(model).set_params(implementation=implementation)
        try:
            with _quiet(), np.errstate(all="ignore"):  # overflow and 0 / 0 show in the parameters, judged below
                fitted.fit(data.values, data.lengths)
        except (ValueError, RuntimeError) as error:  # hmmlearn's words for underflow and for rows that do not sum to 1
            _log.info("EM failed (%s): %s", implementation, error)
            continue
        _floor_probabilities(fitted, topology)
        arrays = [fitted.startprob_, fitted.transmat_, *_emission_arrays(fitted)]
        if all(np.isfinite(array).all() for array in arrays) and np.isfinite(fitted.monitor_.history[-1]):
            return fitted
        _log.info("EM gave a fit that is not finite (%s)", implementation)
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without hmmlearn's `_HMMLEARN_WARNINGS`; what else it logs is heard."""

    def heard(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_HMMLEARN_WARNINGS)

    logger = logging.getLogger("hmmlearn.base")
    logger.addFilter(heard)
    try:
        yield
    finally:
        logger.removeFilter(heard)


def _emission_arrays(model: _Model) -> list[np.ndarray]:
    """Probabilities, rates or means; of Gaussians also covariances, of mixtures also weights: as in `Parameters`."""
    match model:
        case SymbolHMM():
            return [model.emissionprob_]
        case CountHMM():
            return [model.lambdas_]
        case BernoulliHMM():
            return [model.means_]
        case GaussianHMM():
            return [model.means_, model.covars_]  # (S, C, C) for every covariance_type
        case _:
            return [model.means_, _full_covariances(model), model.weights_]


def _full_covariances(model: MixtureHMM) -> np.ndarray:
    """(S, M, C, C)."""
    if model.covariance_type == "full":
        return model.covars_
    variances = model.covars_ if model.covariance_type == "diag" else model.covars_[..., None]
    return variances[..., None] * np.eye(model.means_.shape[-1])


def _floor_probabilities(model: _Model, topology: Topology) -> None:
    n_states = model.n_components
    if topology == "left_to_right":
        allowed = np.eye(n_states) + np.eye(n_states, k=1)
        model.startprob_ = np.eye(n_states)[0]
    else:
        allowed = np.ones((n_states, n_states))
        model.startprob_ = _floored(model.startprob_)
    model.transmat_ = _floored(model.transmat_, allowed)
    match model:
        case SymbolHMM():
            model.emissionprob_ = _floored(model.emissionprob_)
        case MixtureHMM():
            model.weights_ = _floored(model.weights_)


def _floored(probabilities: np.ndarray, allowed: np.ndarray | float = 1.0) -> np.ndarray:
    """Rows that sum to one and are zero only where ``allowed`` is; those of a state that was never left become uniform."""
    raised = (probabilities + _FLOOR) * allowed
    return raised / raised.sum(-1, keepdims=True)


def _parameters(model: _Model) -> Parameters:
    arrays = [model.startprob_, model.transmat_, *_emission_arrays(model)]
    return Parameters(*(torch.from_numpy(array) for array in arrays))
