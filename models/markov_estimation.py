"""Estimation of hidden Markov models by EM with restarts, on hmmlearn.

Sources: Baum, Petrie, Soules and Weiss 1970, doi:10.1214/aoms/1177697196 (EM); hmmlearn 0.3 (https://hmmlearn.readthedocs.io);
Young et al. 2006, The HTK Book (mixtures made by splitting Gaussians).

The restarts are short and run on a subset of the sequences, and only the best of them goes on, with all.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from hmmlearn.base import ConvergenceMonitor
from sklearn.cluster import KMeans
from torch import Tensor

from models.hmmlearn_emissions import BernoulliHMM, CountHMM, GaussianHMM, MixtureHMM, SymbolHMM
from models.markov_emissions import Counts, CovarianceType, EstimatedEmissions, Frames, Gaussians, Parameters, Symbols

_FLOOR = 1e-6
"""Added to the probability of any start, transition or symbol. EM likes exact zeros, and one symbol that training never
showed in a state would then make a whole sequence impossible."""

_STEPS_PER_STATE = 10
"""A state, or a Gaussian of a mixture, needs this many steps, and twice its channels; below, EM would describe single steps."""

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


def observations(inputs: Tensor, valid: Tensor) -> Observations:
    """(B, T, C) float or (B, T) int64 inputs and (B, T) bool → the valid steps, without sequences that have none."""
    lengths = valid.sum(1)
    values = inputs[valid].cpu()  # (N, C) or (N,)
    values = values.double() if values.is_floating_point() else values[:, None]
    return Observations(values.numpy(), lengths[lengths > 0].cpu().numpy())


def fit_em(
    train: Observations,
    validation: Observations,
    emissions: EstimatedEmissions,
    n_states: int,
    config: EstimationConfig,
    generator: torch.Generator,
) -> Parameters:
    """The likeliest of several EM fits; likeliest on ``validation``, or on ``train`` where that is empty.

    emissions: which kind; not changed. Fewer states than asked for are fitted where ``train`` has too few steps. Raises
    RuntimeError if no fit stays finite.
    """
    train = train.spread(config.max_sequences)
    screening = train.spread(config.screening_sequences)
    judges = validation.spread(config.max_sequences) if len(validation.lengths) else train
    n_states = n_supported_states(screening.values, n_states, n_gaussians(emissions))
    candidates: list[tuple[float, _Model]] = []
    for _ in range(2 * config.n_restarts + 4):  # a fit that is not finite is restarted
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        model = _run_em(_new_model(n_states, emissions, config, screening.values, seed), screening)
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


def n_gaussians(emissions: EstimatedEmissions) -> int:
    """M, or 1 where a state emits no Gaussians."""
    return emissions.centres.shape[2] if isinstance(emissions, Gaussians) else 1


def n_supported_states(values: np.ndarray, wanted: int, n_gaussians: int = 1) -> int:
    """How many of the ``wanted`` states (N, C) values can support: 1 at least."""
    per_state = n_gaussians * max(_STEPS_PER_STATE, 2 * values.shape[1])
    supported = max(1, min(wanted, len(values) // per_state))
    if not np.issubdtype(values.dtype, np.floating):
        return supported
    return min(supported, len(np.unique(values, axis=0)))  # k-means, where EM starts, needs distinct points


_Model: TypeAlias = "SymbolHMM | GaussianHMM | MixtureHMM | CountHMM | BernoulliHMM"


def _new_model(
    n_states: int, emissions: EstimatedEmissions, config: EstimationConfig, values: np.ndarray, seed: int
) -> _Model:
    """A restart, which gets a third of the iterations. It starts from k-means on (N, C) ``values``; symbols at random."""
    options: dict[str, Any] = {
        "random_state": seed,
        "n_iter": max(1, config.n_iterations // 3),
        "tol": config.tolerance * len(values),
    }
    match emissions:
        case Symbols():
            return SymbolHMM(n_states, n_features=emissions.vocabulary, **options)
        case Gaussians() if n_gaussians(emissions) == 1:
            return GaussianHMM(n_states, emissions.covariance_type, **options)
        case Gaussians():
            return _split_gaussians(n_states, n_gaussians(emissions), emissions.covariance_type, values, options)
        case Counts() | Frames():
            mean = (values.sum(0) + 0.5) / (len(values) + 1)  # (C,), positive, and below 1 for frames
            means = _smoothed_centres(values, n_states, mean, config.pseudocount, seed)
            if isinstance(emissions, Frames):
                model = BernoulliHMM(n_states, mean, config.pseudocount, **options)
                model.means_ = means
            else:
                prior = config.pseudocount * mean
                model = CountHMM(
                    n_states, lambdas_prior=prior, lambdas_weight=config.pseudocount, init_params="st", **options
                )
                model.lambdas_ = means
            return model
    raise TypeError(f"no estimator for {type(emissions).__name__}")


def _clusters(values: np.ndarray, n_states: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means on (N, C) → centres (S, C) and members (N, S), 1.0 or 0.0."""
    fitted = KMeans(n_states, random_state=seed, n_init=10).fit(values)
    return fitted.cluster_centers_, np.eye(n_states)[fitted.labels_]


def _smoothed_centres(values: np.ndarray, n_states: int, mean: np.ndarray, pseudocount: float, seed: int) -> np.ndarray:
    """(S, C): centres of k-means, each with ``pseudocount`` further members at the ``mean``, (C,)."""
    centres, members = _clusters(values, n_states, seed)
    sizes = members.sum(0)[:, None]  # (S, 1)
    return (sizes * centres.clip(min=0) + pseudocount * mean) / (sizes + pseudocount)


def _split_gaussians(
    n_states: int, n_gaussians: int, covariance_type: CovarianceType, values: np.ndarray, options: dict[str, Any]
) -> MixtureHMM:
    """Every state's cluster as M Gaussians, moved off its centre at random by half its standard deviation."""
    n_channels = values.shape[1]
    centres, members = _clusters(values, n_states, options["random_state"])
    squares = members.T @ values**2 / members.sum(0)[:, None] - centres**2  # (S, C)
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
        weights_prior=1 + _PRIOR,
        means_weight=_PRIOR,
        init_params="st",
        **prior,
        **options,
    )
    model.means_ = centres[:, None] + 0.5 * np.sqrt(spread) * moves
    model.covars_ = covariances.copy()
    model.weights_ = np.full((n_states, n_gaussians), 1 / n_gaussians)
    return model


def _run_em(model: _Model, data: Observations) -> _Model | None:
    """A fitted copy of ``model``, its probabilities floored; None if neither implementation stays finite."""
    for implementation in ("scaling", "log"):
        fitted = copy.deepcopy(model).set_params(implementation=implementation)
        try:
            with _quiet(), np.errstate(all="ignore"):  # overflow and 0 / 0 show in the parameters, judged below
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
            return [model.means_, model.covars_]  # hmmlearn gives (S, C, C) for every covariance_type
        case _:
            return [model.means_, _full_covariances(model), model.weights_]


def _full_covariances(model: MixtureHMM) -> np.ndarray:
    """(S, M, C, C)."""
    if model.covariance_type == "full":
        return model.covars_
    variances = model.covars_ if model.covariance_type == "diag" else model.covars_[..., None]
    return variances[..., None] * np.eye(model.means_.shape[-1])


def _floor_probabilities(model: _Model) -> None:
    model.startprob_ = _floored(model.startprob_)
    model.transmat_ = _floored(model.transmat_)
    match model:
        case SymbolHMM():
            model.emissionprob_ = _floored(model.emissionprob_)
        case MixtureHMM():
            model.weights_ = _floored(model.weights_)


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
    emissions, *rest = (torch.from_numpy(array) for array in _emission_arrays(model))
    if not rest:
        return Parameters(start, transition, emissions)
    ridge = min_variance * torch.eye(emissions.shape[-1], dtype=torch.float64)
    return Parameters(start, transition, emissions, rest[0] + ridge, *rest[1:])
