"""Inference in hidden Markov models: emission likelihoods, filter and smoother as pure functions, and their parameters.

Sources: Rabiner 1989, doi:10.1109/5.18626 (scaled forward pass); Rauch, Tung and Striebel 1965, doi:10.2514/3.3166 (the
backward pass that needs no second look at the inputs, here in its discrete form).

G models of S states run side by side over a batch. With b_t(s) = p(x_t | s), A the transitions and
p_t(s) = p(s_t = s | x_1..t-1) the predicted distribution, p_1 being the start:

    evidence   e_t = p(x_t | x_1..t-1) = sum_s p_t(s) b_t(s)
    filtered   f_t(s) = p_t(s) b_t(s) / e_t
    predicted  p_(t+1) = f_t A
    smoothed   g_t(i) = f_t(i) sum_j A_ij g_(t+1)(j) / p_(t+1)(j)           g_T = f_T

Each b_t is divided by its largest entry, so nothing underflows however long the sequence is, and no logarithm is taken
per step. This needs p_t to be positive at the likeliest state, which `markov_estimation` sees to.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.contract import InputSpec, RealInput, TokenInput

CovarianceType = Literal["spherical", "diag", "full"]


def categorical_log_likelihoods(tokens: Tensor, probabilities: Tensor) -> Tensor:
    """(B, T) int64 tokens and (G, S, V) positive probabilities → (B, T, G, S) log p(x_t | s)."""
    return probabilities.log().permute(2, 0, 1)[tokens]  # (V, G, S) → (B, T, G, S)


def gaussian_log_likelihoods(values: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """(B, T, C) values, (G, S, C) means → (B, T, G, S) log densities, in nats.

    whitening: (G, S, C, C), the inverse of the Cholesky factor of each covariance.
    """
    distances = torch.einsum("btc,gsdc->btgsd", values, whitening) - torch.einsum("gsc,gsdc->gsd", means, whitening)
    log_volume = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (G, S)
    return log_volume - 0.5 * (distances.square().sum(-1) + means.shape[-1] * math.log(2 * math.pi))  # (B, T, G, S)


class Filtered(NamedTuple):
    """What `filter_states` returns. At a step that is not observed nothing is learned and no time passes.

    filtered: (B, T, G, S) p(s_t | x_1..t). predicted: (B, T, G, S) p(s_(t+1) | x_1..t), whose last row is what the
    next chunk needs. log_evidence: (B, T, G) log p(x_t | x_1..t-1), zero where not observed.
    """

    filtered: Tensor
    predicted: Tensor
    log_evidence: Tensor


def filter_states(log_likelihoods: Tensor, observed: Tensor, predicted: Tensor, transition: Tensor) -> Filtered:
    """The forward pass from ``predicted``, (B, G, S) p(s_1) before the chunk.

    log_likelihoods: (B, T, G, S), finite. observed: (B, T) bool. transition: (G, S, S), rows sum to one.
    """
    peak = log_likelihoods.amax(-1)  # (B, T, G)
    likelihoods = (log_likelihoods - peak[..., None]).exp()
    filtered, predictions, evidence = [], [], []
    for t in range(log_likelihoods.shape[1]):
        joint = predicted * likelihoods[:, t]  # (B, G, S)
        total = joint.sum(-1, keepdim=True)  # (B, G, 1)
        filtered.append(joint / total)
        advanced = torch.einsum("bgi,gij->bgj", filtered[-1], transition)
        predicted = torch.where(observed[:, t, None, None], advanced, predicted)
        predictions.append(predicted)
        evidence.append(total[..., 0])
    log_evidence = torch.where(observed[..., None], torch.stack(evidence, 1).log() + peak, 0.0)
    return Filtered(torch.stack(filtered, 1), torch.stack(predictions, 1), log_evidence)


def smooth_states(result: Filtered, lengths: Tensor, transition: Tensor) -> Tensor:
    """The backward pass over whole sequences of ``lengths`` (B,) → (B, T, G, S) p(s_t | x_1..T)."""
    tiny = torch.finfo(transition.dtype).tiny
    smoothed = [result.filtered[:, -1]]
    for t in range(result.filtered.shape[1] - 2, -1, -1):
        # An unreachable state has probability 0 after and before the step; the clamp makes of 0 / 0 a 0.
        ratio = smoothed[-1] / result.predicted[:, t].clamp_min(tiny)
        earlier = result.filtered[:, t] * torch.einsum("bgj,gij->bgi", ratio, transition)
        inside = (t + 1 < lengths).to(earlier.device)[:, None, None]  # from its end on, a sequence is filtered only
        smoothed.append(torch.where(inside, earlier, result.filtered[:, t]))
    return torch.stack(smoothed[::-1], 1)


def forecast_means(means: Tensor, transition: Tensor, n_steps: int) -> Tensor:
    """(S, C) means of the emissions, (S, S) transitions → (S, n_steps, C): means of the sums of 1 … n_steps emissions.

    Row s holds sum_(i<k) E[x_i | s_0 = s] for k = 1 … n_steps, s_0 being the state of the first of them.
    """
    expected = [means]
    for _ in range(n_steps - 1):
        expected.append(transition @ expected[-1])
    return torch.stack(expected, 1).cumsum(1)  # (S, n_steps, C)


class Parameters(NamedTuple):
    """One model of S states, float64.

    start: (S,). transition: (S, S). emissions: symbol probabilities (S, V), or means (S, C) with covariances (S, C, C).
    """

    start: Tensor
    transition: Tensor
    emissions: Tensor
    covariances: Tensor | None = None

    def first(self, n: int) -> Parameters:
        """The model of the first n states, where the others are unreachable."""
        covariances = None if self.covariances is None else self.covariances[:n]
        return Parameters(self.start[:n], self.transition[:n, :n], self.emissions[:n], covariances)


class HiddenMarkovModels(nn.Module):
    """G hidden Markov models of S states side by side, over symbols or over standardised real values.

    A model with fewer states than S has unreachable ones, whose emissions repeat those of its first state.
    """

    start: Tensor
    transition: Tensor
    n_live: Tensor
    emissions: Tensor
    whitening: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, n_models: int, n_states: int, inputs: InputSpec, covariance_type: CovarianceType) -> None:
        super().__init__()
        G, S, channels = n_models, n_states, inputs.channels if isinstance(inputs, RealInput) else 0
        self.vocabulary = inputs.vocabulary if isinstance(inputs, TokenInput) else None
        self.covariance_type = covariance_type
        self.register_buffer("start", torch.full((G, S), 1 / S, dtype=torch.float64))
        self.register_buffer("transition", torch.full((G, S, S), 1 / S, dtype=torch.float64))
        self.register_buffer("n_live", torch.full((G,), S))
        n_features = self.vocabulary or channels
        emissions = torch.randn(G, S, n_features, dtype=torch.float64)  # before fit: arbitrary, but valid
        self.register_buffer("emissions", emissions if self.vocabulary is None else emissions.softmax(-1))
        self.register_buffer("whitening", torch.eye(channels, dtype=torch.float64).repeat(G, S, 1, 1))
        self.register_buffer("shift", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(channels, dtype=torch.float64))

    def standardise(self, values: Tensor, valid: Tensor) -> None:
        """Takes shift and scale from (B, T, C) values at the (B, T) valid steps; symbols have none."""
        if self.vocabulary is None:
            steps = values[valid].double()  # (N, C)
            spread = steps.std(0, correction=0)
            self.shift.copy_(steps.mean(0))
            self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def standardised(self, inputs: Tensor, observed: Tensor) -> Tensor:
        """Inputs as the emissions see them, with zeros wherever nothing is ``observed``, (B, T) bool."""
        if self.vocabulary is not None:
            return torch.where(observed, inputs, 0)
        return (torch.where(observed[..., None], inputs, 0).to(self.shift.dtype) - self.shift) / self.scale

    def put(self, g: int, parameters: Parameters) -> None:
        """Makes ``parameters`` those of model g, padded to S states."""
        n = len(parameters.start)
        repeated = [*range(n), *[0] * (self.start.shape[1] - n)]
        self.n_live[g] = n
        self.start[g] = 0
        self.start[g, :n] = parameters.start.to(self.start)
        self.transition[g, :, :n] = parameters.transition[repeated].to(self.transition)
        self.transition[g, :, n:] = 0
        self.emissions[g] = parameters.emissions[repeated].to(self.emissions)
        if parameters.covariances is not None:
            factors = torch.linalg.cholesky(parameters.covariances[repeated])
            identity = torch.eye(factors.shape[-1], dtype=factors.dtype)
            whitening = torch.linalg.solve_triangular(factors, identity, upper=False)
            self.whitening[g] = whitening.to(self.whitening)

    def beginning(self, batch_size: int) -> Tensor:
        """(B, G, S): the distribution of the first state."""
        return self.start.expand(batch_size, -1, -1)

    def filter(self, inputs: Tensor, observed: Tensor, predicted: Tensor) -> Filtered:
        """`markov_filter_states` over (B, T, C) or (B, T) inputs at the (B, T) observed steps."""
        steps = self.standardised(inputs, observed)
        if self.vocabulary is not None:
            log_likelihoods = categorical_log_likelihoods(steps, self.emissions)
        else:
            log_likelihoods = gaussian_log_likelihoods(steps, self.emissions, self.whitening)
        return filter_states(log_likelihoods, observed, predicted, self.transition)

    def n_free(self) -> int:
        """Free parameters: rows that sum to one have one fewer than entries."""
        features = self.emissions.shape[-1]
        if self.vocabulary is not None:
            per_state = features - 1
        else:
            per_state = (
                features
                + {"spherical": 1, "diag": features, "full": features * (features + 1) // 2}[self.covariance_type]
            )
        return sum(n - 1 + n * (n - 1) + n * per_state for n in self.n_live.tolist())
