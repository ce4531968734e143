"""hmmlearn's E-step for many short sequences at once.

Its own loop over sequences takes a quarter of a millisecond for each, mostly in Python; here all sequences of a group go one
step forward, or backward, together. Source: Rabiner 1989, doi:10.1109/5.18626, whose scaled pass it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hmmlearn.base import BaseHMM

Statistics = dict[str, Any]

GROUP = 2**20
"""Steps × sequences × states of a group, padding included: 8 MB for each of its lattices."""

WORTHWHILE = 12
"""A step of a group costs as much as a twelfth of a sequence does in hmmlearn's loop, beside the arithmetic of both."""

_UNDERFLOW = 1e-300
"""hmmlearn's own bound."""


class Batched(BaseHMM):
    """Goes before the class of an hmmlearn model among its bases; nothing else changes.

    Few or long sequences, and the arithmetic in logarithms, are left to hmmlearn.
    """

    def _do_estep(self, X: np.ndarray, lengths: np.ndarray) -> tuple[Statistics, float]:  # noqa: N803 (hmmlearn's name)
        lengths = np.asarray(lengths)
        if self.implementation != "scaling" or WORTHWHILE * len(lengths) < lengths.max():
            return super()._do_estep(X, lengths)
        stats = self._initialize_sufficient_statistics()
        likelihoods = self._compute_likelihood(X)  # (N, S)
        posteriors = np.empty_like(likelihoods)
        begins = np.cumsum(lengths) - lengths
        log_likelihood = 0.0
        for group in _groups(lengths, likelihoods.shape[1]):
            steps = np.arange(lengths[group].max())[:, None]  # (T, 1)
            valid = steps < lengths[group]  # (T, B)
            index = np.where(valid, begins[group] + steps, 0)  # (T, B)
            emitted = np.where(valid[..., None], likelihoods[index], 1.0)  # (T, B, S)
            forward, scales = self._forward(emitted)
            log_likelihood += float(np.log(scales[valid]).sum())
            backward, arriving = self._backward(emitted, scales, valid)
            posteriors[index[valid]] = (forward * backward)[valid]
            stats["nobs"] += len(group)
            stats["start"] += (forward[0] * backward[0]).sum(0)
            n_states = forward.shape[-1]
            moves = forward[:-1].reshape(-1, n_states).T @ arriving[1:].reshape(-1, n_states)  # (S, S)
            stats["trans"] += self.transmat_ * moves
        self._accumulate_sufficient_statistics(stats, X, likelihoods, posteriors, None, None)
        return stats, log_likelihood

    def _accumulate_sufficient_statistics_scaling(self, stats: Statistics, **of: Any) -> None:
        """Starts and transitions of one sequence; of all at once `_do_estep` has counted them, and gives no lattices."""
        if of["fwdlattice"] is not None:
            super()._accumulate_sufficient_statistics_scaling(stats=stats, **of)

    def _forward(self, emitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of states given the steps so far, (T, B, S), and of each step given those before it, (T, B)."""
        forward, scales = np.empty_like(emitted), np.empty(emitted.shape[:2])
        expected = self.startprob_  # (S,), then (B, S)
        for t, likely in enumerate(emitted):
            reached = expected * likely
            scales[t] = reached.sum(1)
            forward[t] = reached / scales[t, :, None]
            expected = forward[t] @ self.transmat_
        if not scales.min() > _UNDERFLOW:
            raise ValueError("the forward pass failed with underflow")
        return forward, scales

    def _backward(self, emitted: np.ndarray, scales: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the steps after t say of the states at t, and what those from t on say of the states in which t is arrived at,
        both (T, B, S) and scaled; the second is 0 after a sequence's end."""
        backward, arriving = np.ones_like(emitted), emitted / scales[..., None]
        arriving[~valid] = 0.0
        for t in range(len(emitted) - 1, 0, -1):
            arriving[t] *= backward[t]
            backward[t - 1] = np.where(valid[t, :, None], arriving[t] @ self.transmat_.T, 1.0)
        return backward, arriving


def _groups(lengths: np.ndarray, n_states: int) -> Iterator[np.ndarray]:
    """Sequences of like lengths, by index."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, GROUP // (int(lengths[order[0]]) * n_states))
        yield order[:size]
        order = order[size:]
