"""hmmlearn's EM for all our emissions: yes-or-no channels, which it lacks; counts and mixtures of Gaussians, faster.

Sources: Baum, Petrie, Soules and Weiss 1970, doi:10.1214/aoms/1177697196; hmmlearn 0.3 (https://hmmlearn.readthedocs.io), whose
base class runs the E-step's forward-backward pass and asks a subclass for likelihoods, statistics and updates. With γ_t(s) the
posterior of state s, and c further steps at the base rate r of each channel as a prior,

    μ_sc = (sum_t γ_t(s) x_tc + c r_c) / (sum_t γ_t(s) + c)
"""

from __future__ import annotations

import hmmlearn.hmm
import numpy as np
from hmmlearn.base import BaseHMM
from hmmlearn.hmm import GMMHMM, CategoricalHMM, PoissonHMM
from scipy.special import gammaln

from models.hmmlearn_batches import Batched, Statistics

_NO_STEP = 1e-10
"""Below so many steps nothing can be said of a state's emissions."""


def floored(covariances: np.ndarray, covariance_type: str, floor: float) -> np.ndarray:
    """Variances, or for "full" covariances (…, C, C), with no variance below ``floor``; of "full", no eigenvalue.

    Of all covariances with that bound the result is the likeliest, so EM still never lowers the likelihood. It is positive
    definite where channels are copies of others, or constant.
    """
    if covariance_type != "full":
        return np.maximum(covariances, floor)
    if not np.isfinite(covariances).all():
        return covariances  # judged with the rest of the fit
    values, vectors = np.linalg.eigh(covariances)
    low = values[..., 0] < floor
    raised = (vectors[low] * np.maximum(values[low], floor)[..., None, :]) @ vectors[low].swapaxes(-1, -2)
    result = covariances.copy()
    result[low] = (raised + raised.swapaxes(-1, -2)) / 2
    return result


class SymbolHMM(Batched, CategoricalHMM):
    """hmmlearn's symbols."""


class GaussianHMM(Batched, hmmlearn.hmm.GaussianHMM):
    """hmmlearn's Gaussians, of which no variance falls below min_covar; see `floored`.

    means_ and covars_ must be set before `fit`; with "spherical", covars_ is set as (S,). A state that no step belongs to
    keeps its emissions.
    """

    _covars_: np.ndarray

    def _do_mstep(self, stats: Statistics) -> None:
        kept, means, covariances = stats["post"] < _NO_STEP, self.means_, self._covars_
        with np.errstate(divide="ignore", invalid="ignore"):
            super()._do_mstep(stats)
        if self.covariance_type == "spherical":
            # hmmlearn leaves (S, C) here, and reads it as one variance after the other where it wants one per state.
            self._covars_ = self._covars_[:, 0]
        self.means_[kept], self._covars_[kept] = means[kept], covariances[kept]
        self._covars_ = floored(self._covars_, self.covariance_type, self.min_covar)


class BernoulliHMM(Batched, BaseHMM):
    """Frames (N, C) of 0 and 1 whose channels are independent given the state.

    means_: (S, C), strictly between 0 and 1, must be set before `fit`. base_rates: r, (C,) or one for all. pseudocount: c.
    """

    def __init__(
        self,
        n_components: int = 1,
        base_rates: np.ndarray | float = 0.5,
        pseudocount: float = 1.0,
        random_state: int | None = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        init_params: str = "st",
        implementation: str = "log",
    ) -> None:
        super().__init__(
            n_components,
            random_state=random_state,
            n_iter=n_iter,
            tol=tol,
            params="ste",
            init_params=init_params,
            implementation=implementation,
        )
        self.base_rates = base_rates
        self.pseudocount = pseudocount

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        n_states, n_channels = self.means_.shape
        return {"s": n_states - 1, "t": n_states * (n_states - 1), "e": n_states * n_channels}

    def _compute_log_likelihood(self, values: np.ndarray) -> np.ndarray:
        return values @ np.log(self.means_).T + (1 - values) @ np.log1p(-self.means_).T  # (N, C) → (N, S)

    def _initialize_sufficient_statistics(self) -> Statistics:
        emitted = {"steps": np.zeros(self.n_components), "yes": np.zeros_like(self.means_)}
        return super()._initialize_sufficient_statistics() | emitted

    def _accumulate_sufficient_statistics(
        self,
        stats: Statistics,
        X: np.ndarray,  # noqa: N803 (hmmlearn calls it by name)
        lattice: np.ndarray,
        posteriors: np.ndarray,
        fwdlattice: np.ndarray,
        bwdlattice: np.ndarray,
    ) -> None:
        super()._accumulate_sufficient_statistics(stats, X, lattice, posteriors, fwdlattice, bwdlattice)
        stats["steps"] += posteriors.sum(0)
        stats["yes"] += posteriors.T @ X  # (S, N) @ (N, C) → (S, C)

    def _do_mstep(self, stats: Statistics) -> None:
        super()._do_mstep(stats)
        prior = self.pseudocount * self.base_rates
        self.means_ = (stats["yes"] + prior) / (stats["steps"] + self.pseudocount)[:, None]

    def _compute_lower_bound(self, curr_logprob: float) -> float:
        """What EM raises: the log-likelihood and the log prior."""
        log_prior = self.base_rates * np.log(self.means_) + (1 - self.base_rates) * np.log1p(-self.means_)  # (S, C)
        return curr_logprob + self.pseudocount * float(log_prior.sum())


class CountHMM(Batched, PoissonHMM):
    """hmmlearn's counts with its updates, without scipy's checks, which would take most of a fit.

    lambdas_ must be set before `fit`.
    """

    _init = BaseHMM._init  # the parent's draws rates for all channels alike

    def _compute_log_likelihood(self, values: np.ndarray) -> np.ndarray:
        rates = self.lambdas_  # (S, C)
        return values @ np.log(rates).T - rates.sum(1) - gammaln(values + 1).sum(1, keepdims=True)  # (N, C) → (N, S)

    def _compute_likelihood(self, values: np.ndarray) -> np.ndarray:
        return np.exp(self._compute_log_likelihood(values))


class MixtureHMM(Batched, GMMHMM):
    """hmmlearn's mixtures with its updates, but every state and Gaussian at once: many times as fast.

    No variance falls below min_covar; see `floored`.

    weights_, means_ and covars_ must be set before `fit`.
    """

    covars_: np.ndarray
    _init = BaseHMM._init  # the parent's would run k-means, and draw from numpy's global generator

    def _log_densities(self, values: np.ndarray) -> np.ndarray:
        """(N, C) → (N, S, M), the log weight of each Gaussian and its log density."""
        if self.covariance_type == "full":
            factors = np.linalg.cholesky(self.covars_)  # (S, M, C, C)
            whitening = np.linalg.inv(factors)
            white = np.einsum("nc,smdc->nsmd", values, whitening) - np.einsum("smc,smdc->smd", self.means_, whitening)
            squares = np.einsum("nsmd,nsmd->nsm", white, white)
            log_volume = 2 * np.log(np.diagonal(factors, axis1=2, axis2=3)).sum(-1)  # (S, M)
        else:
            variances = self.covars_ if self.covariance_type == "diag" else self.covars_[..., None]
            precisions = np.broadcast_to(1 / variances, self.means_.shape)  # (S, M, C)
            weighted = self.means_ * precisions
            constant = (self.means_ * weighted).sum(-1)  # (S, M)
            squares = (
                np.tensordot(values**2, precisions, (1, 2)) - 2 * np.tensordot(values, weighted, (1, 2)) + constant
            )
            log_volume = -np.log(precisions).sum(-1)
        return np.log(self.weights_) - 0.5 * (squares + log_volume + values.shape[1] * np.log(2 * np.pi))

    def _compute_log_likelihood(self, values: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(self._log_densities(values), axis=-1)  # (N, S, M) → (N, S)

    def _do_estep(self, X: np.ndarray, lengths: np.ndarray) -> tuple[Statistics, float]:  # noqa: N803
        self._posteriors: list[np.ndarray] = []
        stats, log_likelihood = super()._do_estep(X, lengths)
        posteriors = np.concatenate(self._posteriors)  # (N, S)
        logs = self._log_densities(X)
        shares = np.exp(logs - np.logaddexp.reduce(logs, axis=-1)[..., None])
        members = posteriors[:, :, None] * shares  # (N, S, M)
        stats["post_mix_sum"] += members.sum(0)
        stats["post_sum"] += posteriors.sum(0)
        stats["m_n"] += np.tensordot(members, X, (0, 0))  # (S, M, C)
        centred = X[:, None, None, :] - self.means_  # (N, S, M, C)
        weighted = members[..., None] * centred
        subscripts = {"full": "nsmc,nsmd->smcd", "diag": "nsmc,nsmc->smc", "spherical": "nsmc,nsmc->sm"}
        stats["c_n"] += np.einsum(subscripts[self.covariance_type], weighted, centred)
        return stats, log_likelihood

    def _accumulate_sufficient_statistics(
        self,
        stats: Statistics,
        X: np.ndarray,  # noqa: N803
        lattice: np.ndarray,
        posteriors: np.ndarray,
        fwdlattice: np.ndarray,
        bwdlattice: np.ndarray,
    ) -> None:
        BaseHMM._accumulate_sufficient_statistics(self, stats, X, lattice, posteriors, fwdlattice, bwdlattice)
        self._posteriors.append(posteriors)  # those of the emissions wait for all sequences

    def _do_mstep(self, stats: Statistics) -> None:
        super()._do_mstep(stats)
        self.covars_ = floored(self.covars_, self.covariance_type, self.min_covar)
