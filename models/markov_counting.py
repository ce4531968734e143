"""Estimation of hidden Markov models by counting, where the states are known.

Sources: Rabiner 1989, doi:10.1109/5.18626; Laplace's rule for the pseudocounts. These are the updates of EM with the posterior
of a state replaced by the fact.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.hmmlearn_emissions import floored
from models.markov_emissions import Counts, CovarianceType, EstimatedEmissions, Gaussians, Symbols
from models.markov_estimation import EstimationConfig, Observations, fit_em, n_gaussians, steps_per_state


def count_emissions(
    states: Tensor,
    steps: Tensor,
    n_states: int,
    emissions: EstimatedEmissions,
    config: EstimationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(N,) known states and (N, C) or (N,) standardised steps → the emissions, covariances and weights of `Parameters`.

    A mixture is fitted to the steps of its state by EM where they are many enough, else it is one Gaussian.
    """
    pseudocount = config.pseudocount
    match emissions:
        case Symbols():
            return count_symbols(states, steps, n_states, emissions.vocabulary, pseudocount), None, None
        case Counts():
            return state_rates(states, steps, n_states, pseudocount), None, None
        case Gaussians():
            means, covariances = state_gaussians(states, steps, n_states, emissions.covariance_type, pseudocount)
            covariances = torch.from_numpy(floored(covariances.numpy(), "full", config.min_variance))
            n_each = n_gaussians(emissions)
            if n_each == 1:
                return means, covariances, None
            means = means[:, None].repeat(1, n_each, 1)  # (S, M, C)
            covariances = covariances[:, None].repeat(1, n_each, 1, 1)  # (S, M, C, C)
            weights = torch.full((n_states, n_each), 1 / n_each, dtype=torch.float64)
            nobody = Observations(np.empty((0, steps.shape[1])), np.empty(0, dtype=np.int64))
            for s in range(n_states):
                own = steps[states == s].numpy()
                if len(own) >= steps_per_state(own, n_each):
                    alone = Observations(own, np.array([len(own)]))
                    fitted = fit_em(alone, nobody, emissions, 1, config, generator).parameters
                    means[s], covariances[s], weights[s] = (part[0] for part in fitted[2:] if part is not None)
            return means, covariances, weights
    raise TypeError(f"no estimator for {type(emissions).__name__} where the states are known")


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


def state_rates(states: Tensor, counts: Tensor, n_states: int, pseudocount: float) -> Tensor:
    """(N,) states and (N, C) counts → (S, C) float64 rates, with ``pseudocount`` further steps at the mean of all."""
    members = torch.nn.functional.one_hot(states, n_states).double()  # (N, S)
    mean = (counts.sum(0) + 0.5) / (len(counts) + 1)  # (C,), positive
    return (members.T @ counts + pseudocount * mean) / (members.sum(0) + pseudocount)[:, None]


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
