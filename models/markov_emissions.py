"""What the states of hidden Markov models emit: symbols, Gaussians and mixtures of them, counts, and frames of yes or no.

Sources: Rabiner 1989, doi:10.1109/5.18626 (symbols and mixtures of Gaussians); Zucchini and MacDonald 2009,
doi:10.1201/9781420010893 (counts, binary series).

Per state s, for M Gaussians of weight w, means m, covariances Σ, rates λ and Bernoulli means μ over C channels:

    symbols    log p(x | s) = log B_(s,x)
    Gaussians  log p(x | s) = log sum_k w_sk N(x; m_sk, Σ_sk)
    counts     log p(x | s) = sum_c x_c log λ_sc - λ_sc - log x_c!
    frames     log p(x | s) = sum_c x_c log μ_sc + (1 - x_c) log (1 - μ_sc)

Sums over channels are matrix products wherever the channels are independent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.markov_inference import Chain
from models.sequences import InputSpec, RealInput

CovarianceType = Literal["spherical", "diag", "full"]

Topology = Literal["ergodic", "left_to_right"]
"""Which moves a chain may make: all, or from each state to itself and the next, beginning in the first (Rabiner 1989)."""


def categorical_log_likelihoods(tokens: Tensor, log_probabilities: Tensor) -> Tensor:
    """(B, T) int64 tokens and (G, S, V) log probabilities → (B, T, G, S) log p(x_t | s)."""
    n_models, n_states = log_probabilities.shape[:2]
    table = log_probabilities.flatten(0, 1).T  # (G, S, V) → (V, G·S)
    return F.embedding(tokens, table).unflatten(-1, (n_models, n_states))  # (B, T, G·S) → (B, T, G, S)


def gaussian_log_likelihoods(values: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """(B, T, C) values, (G, S, C) means → (B, T, G, S) log densities, in nats.

    whitening: (G, S, C, C), the inverse of the Cholesky factor of each covariance.
    """
    distances = torch.einsum("btc,gsdc->btgsd", values, whitening) - torch.einsum("gsc,gsdc->gsd", means, whitening)
    log_volume = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (G, S)
    return log_volume - 0.5 * (distances.square().sum(-1) + means.shape[-1] * math.log(2 * math.pi))  # (B, T, G, S)


def diagonal_log_likelihoods(values: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """`gaussian_log_likelihoods` of independent channels: (B, T, C) values, (G, S, C) means and variances → (B, T, G, S).

    The square is multiplied out, for two matrix products instead of a (B, T, G, S, C) tensor.
    """
    precisions = 1 / variances
    constant = (means.square() * precisions + variances.log() + math.log(2 * math.pi)).sum(-1)  # (G, S)
    linear = torch.einsum("btc,gsc->btgs", values, means * precisions)
    return linear - 0.5 * (torch.einsum("btc,gsc->btgs", values.square(), precisions) + constant)


def poisson_log_likelihoods(counts: Tensor, rates: Tensor) -> Tensor:
    """(B, T, C) counts, (G, S, C) positive rates → (B, T, G, S). What is below 0 and so no count is taken for 0."""
    counts = counts.clamp_min(0)
    linear = torch.einsum("btc,gsc->btgs", counts, rates.log())
    return linear - rates.sum(-1) - torch.lgamma(counts + 1).sum(-1)[..., None, None]


def bernoulli_log_likelihoods(frames: Tensor, logits: Tensor) -> Tensor:
    """(B, T, C) frames of 0 and 1, (G, S, C) logits of the means → (B, T, G, S)."""
    return torch.einsum("btc,gsc->btgs", frames, logits) - F.softplus(logits).sum(-1)


class Emissions(nn.Module, ABC):
    """What the S states of G models emit."""

    @abstractmethod
    def log_likelihoods(self, steps: Tensor) -> Tensor:
        """(B, T, C) or (B, T) steps, as `MarkovModels.standardised` gives them → (B, T, G, S) log p(x_t | s), in nats."""

    @abstractmethod
    def means(self) -> Tensor:
        """(G, S, C) mean of what a state emits; of symbols (G, S, V), their probabilities."""


class Parameters(NamedTuple):
    """One model of S states, float64.

    start: (S,). transition: (S, S). emissions: symbol probabilities (S, V), rates (S, C), Bernoulli means (S, C), or means
    (S, C) with covariances (S, C, C); for mixtures of M Gaussians (S, M, C), (S, M, C, C) and weights (S, M).
    """

    start: Tensor
    transition: Tensor
    emissions: Tensor
    covariances: Tensor | None = None
    weights: Tensor | None = None

    def first(self, n: int) -> Parameters:
        """The model of the first n states, where the others are unreachable."""
        rest = [None if part is None else part[:n] for part in self[2:]]
        return Parameters(self.start[:n], self.transition[:n, :n], *rest)  # type: ignore[arg-type]


class EstimatedEmissions(Emissions):
    """Emissions that are estimated, not trained: float64 buffers."""

    @abstractmethod
    def put(self, g: int, states: list[int], parameters: Parameters) -> None:
        """Makes the emissions of ``states`` of ``parameters``, S of them, those of model g."""

    @abstractmethod
    def n_free(self) -> int:
        """Free parameters of one state."""


class Symbols(EstimatedEmissions):
    """Symbols 0 … V-1 by their probabilities, (G, S, V)."""

    probabilities: Tensor

    def __init__(self, n_models: int, n_states: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        arbitrary = torch.randn(n_models, n_states, vocabulary, dtype=torch.float64)  # before fit, but valid
        self.register_buffer("probabilities", arbitrary.softmax(-1))

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return categorical_log_likelihoods(steps, self.probabilities.log())

    def means(self) -> Tensor:
        return self.probabilities

    def put(self, g: int, states: list[int], parameters: Parameters) -> None:
        self.probabilities[g] = parameters.emissions[states].to(self.probabilities)

    def n_free(self) -> int:
        return self.vocabulary - 1


class Gaussians(EstimatedEmissions):
    """M Gaussians per state: centres (G, S, M, C), whitening (G, S, M, C, C), log weights (G, S, M).

    whitening: the inverse of the Cholesky factor of each covariance.
    """

    centres: Tensor
    whitening: Tensor
    log_weights: Tensor

    def __init__(
        self, n_models: int, n_states: int, channels: int, covariance_type: CovarianceType, n_gaussians: int
    ) -> None:
        super().__init__()
        self.covariance_type = covariance_type
        shape = (n_models, n_states, n_gaussians)
        self.register_buffer("centres", torch.randn(*shape, channels, dtype=torch.float64))
        self.register_buffer("whitening", torch.eye(channels, dtype=torch.float64).repeat(*shape, 1, 1))
        self.register_buffer("log_weights", torch.full(shape, -math.log(n_gaussians), dtype=torch.float64))

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        centres, whitening = self.centres.flatten(1, 2), self.whitening.flatten(1, 2)  # (G, S·M, C), (G, S·M, C, C)
        if self.covariance_type == "full":
            logs = gaussian_log_likelihoods(steps, centres, whitening)
        else:
            logs = diagonal_log_likelihoods(steps, centres, whitening.diagonal(dim1=-2, dim2=-1) ** -2)
        return (logs.unflatten(-1, self.log_weights.shape[1:]) + self.log_weights).logsumexp(-1)  # (B, T, G, S, M) → …

    def means(self) -> Tensor:
        return (self.log_weights.exp()[..., None] * self.centres).sum(-2)  # (G, S, M, C) → (G, S, C)

    def put(self, g: int, states: list[int], parameters: Parameters) -> None:
        if parameters.covariances is None:
            raise ValueError("Gaussian emissions need covariances")
        shape = self.centres[g].shape
        factors = torch.linalg.cholesky(parameters.covariances[states])
        identity = torch.eye(factors.shape[-1], dtype=factors.dtype)
        whitening = torch.linalg.solve_triangular(factors, identity, upper=False)
        self.centres[g] = parameters.emissions[states].reshape(shape).to(self.centres)
        self.whitening[g] = whitening.reshape(*shape, shape[-1]).to(self.whitening)
        if parameters.weights is not None:
            self.log_weights[g] = parameters.weights[states].log().to(self.log_weights)

    def n_free(self) -> int:
        n_gaussians, C = self.centres.shape[2:]
        scale = {"spherical": 1, "diag": C, "full": C * (C + 1) // 2}[self.covariance_type]
        return n_gaussians * (C + scale) + n_gaussians - 1


class Counts(EstimatedEmissions):
    """Independent Poisson counts by their rates, (G, S, C)."""

    rates: Tensor

    def __init__(self, n_models: int, n_states: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("rates", torch.rand(n_models, n_states, channels, dtype=torch.float64) + 0.5)

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return poisson_log_likelihoods(steps, self.rates)

    def means(self) -> Tensor:
        return self.rates

    def put(self, g: int, states: list[int], parameters: Parameters) -> None:
        self.rates[g] = parameters.emissions[states].to(self.rates)

    def n_free(self) -> int:
        return self.rates.shape[-1]


class Frames(EstimatedEmissions):
    """Independent answers yes or no by their probabilities of yes, (G, S, C)."""

    probabilities: Tensor

    def __init__(self, n_models: int, n_states: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("probabilities", torch.randn(n_models, n_states, channels, dtype=torch.float64).sigmoid())

    def log_likelihoods(self, steps: Tensor) -> Tensor:
        return bernoulli_log_likelihoods(steps, self.probabilities.logit())

    def means(self) -> Tensor:
        return self.probabilities

    def put(self, g: int, states: list[int], parameters: Parameters) -> None:
        self.probabilities[g] = parameters.emissions[states].to(self.probabilities)

    def n_free(self) -> int:
        return self.probabilities.shape[-1]


class MarkovModels(nn.Module, ABC):
    """G hidden Markov models of S states side by side, over symbols or over real values.

    shift, scale: (C,), without masks, what makes standard values of real ones; zero and one where values are taken as they
    are. topology: which filter is theirs.
    """

    topology: Topology = "ergodic"
    shift: Tensor
    scale: Tensor

    def __init__(self, inputs: InputSpec, emissions: Emissions, dtype: torch.dtype) -> None:
        super().__init__()
        self.emissions = emissions
        self.is_real = isinstance(inputs, RealInput)
        self.measured = list(inputs.measured) if isinstance(inputs, RealInput) else []
        self.all_measured = not isinstance(inputs, RealInput) or not inputs.masks
        self.register_buffer("shift", torch.zeros(len(self.measured), dtype=dtype))
        self.register_buffer("scale", torch.ones(len(self.measured), dtype=dtype))

    @abstractmethod
    def chain(self) -> Chain:
        """Start and transitions."""

    def beginning(self, batch_size: int, chain: Chain | None = None) -> Tensor:
        """(B, G, S): the distribution of the first state, left to right its logarithm. chain: as `chain` gives it."""
        beginning = (chain or self.chain()).beginning(batch_size)
        return beginning.log() if self.topology == "left_to_right" else beginning

    @abstractmethod
    def log_likelihoods(self, inputs: Tensor, observed: Tensor) -> Tensor:
        """(B, T, C) or (B, T) inputs at the (B, T) observed steps → (B, T, G, S) log p(x_t | s), in nats."""

    def standardised(self, inputs: Tensor, observed: Tensor) -> Tensor:
        """Inputs as the emissions see them; whatever stands where nothing is ``observed``, (B, T) bool, is as if zero."""
        if not self.is_real:
            return torch.where(observed, inputs, 0)
        values = torch.where(observed[..., None], self.without_masks(inputs), 0).to(self.shift.dtype)
        return (values - self.shift) / self.scale

    def without_masks(self, inputs: Tensor) -> Tensor:
        """(…, C) → the channels that `RealInput.measured` names."""
        return inputs if self.all_measured else inputs[..., self.measured]

    def means(self) -> Tensor:
        """(G, S, C) means of the emissions in the inputs' units; of symbols (G, S, V), their probabilities."""
        means = self.emissions.means()
        return means * self.scale + self.shift if self.is_real else means


class HiddenMarkovModels(MarkovModels):
    """`MarkovModels` whose parameters are estimated, not trained.

    A model with fewer states than S has unreachable ones, whose emissions repeat those of its first state. ``topology`` says
    which moves the parameters that are `put` may make.
    """

    start: Tensor
    transition: Tensor
    n_live: Tensor
    emissions: EstimatedEmissions

    def __init__(
        self,
        n_models: int,
        n_states: int,
        inputs: InputSpec,
        emissions: EstimatedEmissions,
        topology: Topology = "ergodic",
    ) -> None:
        super().__init__(inputs, emissions, torch.float64)
        G, S = n_models, n_states
        self.topology = topology
        self.register_buffer("start", torch.full((G, S), 1 / S, dtype=torch.float64))
        self.register_buffer("transition", torch.full((G, S, S), 1 / S, dtype=torch.float64))
        self.register_buffer("n_live", torch.full((G,), S))

    def chain(self) -> Chain:
        return Chain(self.start, self.transition)

    def log_likelihoods(self, inputs: Tensor, observed: Tensor) -> Tensor:
        return self.emissions.log_likelihoods(self.standardised(inputs, observed))

    def standardise(self, values: Tensor, valid: Tensor) -> None:
        """Takes shift and scale from (B, T, C) values at the (B, T) valid steps; only Gaussians need them."""
        if isinstance(self.emissions, Gaussians):
            steps = self.without_masks(values[valid]).double()  # (N, C)
            spread = steps.std(0, correction=0)
            rounding = 1e-12 * steps.abs().amax(0)  # of a channel that never changes, the spread is not exactly 0
            self.shift.copy_(steps.mean(0))
            self.scale.copy_(torch.where(spread > rounding, spread, torch.ones_like(spread)))

    def put(self, g: int, parameters: Parameters) -> None:
        """Makes ``parameters`` those of model g, padded to S states."""
        n = len(parameters.start)
        states = [*range(n), *[0] * (self.start.shape[1] - n)]
        self.n_live[g] = n
        self.start[g] = 0
        self.start[g, :n] = parameters.start.to(self.start)
        self.transition[g, :, :n] = parameters.transition[states].to(self.transition)
        self.transition[g, :, n:] = 0
        self.emissions.put(g, states, parameters)

    def n_free(self) -> int:
        """Free parameters: rows that sum to one have one fewer than entries; left to right, only staying in a state is free."""
        moves = [n - 1 if self.topology == "left_to_right" else n**2 - 1 for n in self.n_live.tolist()]
        return sum(moves) + sum(self.n_live.tolist()) * self.emissions.n_free()
