"""hmmlearn's E-step for many short sequences at once.

Its own loop over sequences takes a quarter of a millisecond for each, mostly in Python; here all sequences of a group go one
step forward, or backward, together. Source: Rabiner 1989, doi:10.1109/5.18626, whose scaled pass it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from hmmlearn.base import BaseHMM

Statistics = dict[str, Any]

GROUP = 2**18
"""Steps × sequences × states of a group, padding included: 2 MB for each of its lattices, which a cache holds."""

WORTHWHILE = 12
"""A step of a group costs as much as a twelfth of a sequence does in hmmlearn's loop, beside the arithmetic of both."""

_UNDERFLOW = 1e-300
"""hmmlearn's own bound: a state less probable than this before a step counts as impossible there."""

_SUSPECT = 1e-200
"""Below, likelihoods relative to the likeliest state of all have lost digits of those that can be reached."""


class Batched(BaseHMM):
    """Goes before the class of an hmmlearn model among its bases; nothing else changes.

    Few or long sequences, and the arithmetic in logarithms, are left to hmmlearn. Likelihoods are taken relative to the
    largest of each step, so that an outlier causes no underflow.
    """

    def log_likelihood(self, values: np.ndarray, lengths: np.ndarray) -> float:
        """Of (N, C) values, sequences of ``lengths`` end to end, in nats; -inf rather than NaN or an underflow."""
        lengths = np.asarray(lengths)
        with np.errstate(all="ignore"):
            if _is_worthwhile(lengths):
                logs = self._compute_log_likelihood(values)  # (N, S)
                try:
                    score = sum(
                        float(self._forward(*_padded(logs, g))[2].sum()) for g in _groups(lengths, logs.shape[1])
                    )
                except FloatingPointError:
                    return -np.inf
            else:
                score = float(copy.copy(self).set_params(implementation="log").score(values, lengths))
        return score if np.isfinite(score) else -np.inf

    def _do_estep(self, X: np.ndarray, lengths: np.ndarray) -> tuple[Statistics, float]:  # noqa: N803 (hmmlearn's name)
        lengths = np.asarray(lengths)
        if self.implementation != "scaling" or not _is_worthwhile(lengths):
            return super()._do_estep(X, lengths)
        stats = self._initialize_sufficient_statistics()
        logs = self._compute_log_likelihood(X)  # (N, S)
        posteriors = np.empty_like(logs)
        log_likelihood = 0.0
        for group in _groups(lengths, logs.shape[1]):
            try:
                forward, scaled, evidence = self._forward(*_padded(logs, group))
            except FloatingPointError as error:
                raise ValueError("the forward pass failed with underflow") from error
            log_likelihood += float(evidence.sum())
            backward, arriving = self._backward(scaled, group.valid)
            posteriors[group.places[group.valid]] = _steps(forward * backward, group.valid)
            stats["nobs"] += group.valid.shape[1]
            stats["start"] += (forward[0] * backward[0]).sum(0)
            n_states = forward.shape[-1]
            moves = forward[:-1].reshape(-1, n_states).T @ arriving[1:].reshape(-1, n_states)  # (S, S)
            stats["trans"] += self.transmat_ * moves
        self._accumulate_sufficient_statistics(stats, X, logs, posteriors, None, None)
        return stats, log_likelihood

    def _accumulate_sufficient_statistics_scaling(self, stats: Statistics, **of: Any) -> None:
        """Starts and transitions of one sequence; of all at once `_do_estep` has counted them, and gives no lattices."""
        if of["fwdlattice"] is not None:
            super()._accumulate_sufficient_statistics_scaling(stats=stats, **of)

    def _forward(self, logs: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pass over (T, B, S) log likelihoods at the (T, B) ``valid`` steps.

        Returns probabilities of states given the steps so far, (T, B, S); likelihoods divided by the evidence of their step,
        (T, B, S), 0 in the padding; and the log evidence of each step given those before it, (T, B), 0 in the padding. Raises
        FloatingPointError where no state that can be reached could have emitted a step.
        """
        peaks = logs.max(-1)  # (T, B)
        likely = np.exp(logs - peaks[..., None])  # (T, B, S)
        with np.errstate(divide="ignore", invalid="ignore"):
            forward, scales = self._scaled_pass(likely, valid)
        if not scales.min() > _SUSPECT:  # the likeliest state of some step is all but impossible there
            forward, scales = self._scaled_pass(likely, valid, logs, peaks)
            if not scales.min() > _UNDERFLOW:
                raise FloatingPointError
        likely /= scales[..., None]
        likely[~valid] = 0.0
        return forward, likely, np.where(valid, np.log(scales) + peaks, 0.0)

    def _scaled_pass(
        self,
        likely: np.ndarray,
        valid: np.ndarray,
        logs: np.ndarray | None = None,
        peaks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Filtered probabilities (T, B, S) and their sums before scaling (T, B), from relative likelihoods (T, B, S). With
        ``logs`` and ``peaks``, likelihoods are made relative to the largest among the states that can be reached: in place.
        """
        forward, scales = np.empty_like(likely), np.empty(valid.shape)
        expected = np.broadcast_to(self.startprob_, likely.shape[1:])  # (B, S)
        for t, step in enumerate(likely):
            if logs is not None and peaks is not None:
                reachable = expected > _UNDERFLOW
                peaks[t] = np.where(reachable, logs[t], -np.inf).max(1)
                step[:] = np.where(reachable, np.exp(np.minimum(logs[t] - peaks[t, :, None], 0.0)), 0.0)
            reached = expected * step
            scales[t] = np.where(valid[t], reached.sum(1), 1.0)
            forward[t] = reached / scales[t, :, None]
            expected = forward[t] @ self.transmat_
        return forward, scales

    def _backward(self, scaled: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the steps after t say of the states at t, and what those from t on say of the states in which t is arrived at,
        both (T, B, S) and scaled; the second is 0 after a sequence's end."""
        backward, arriving = np.ones_like(scaled), scaled
        whole = np.logical_and.reduce(valid, axis=1).tolist()  # T × bool
        for t in range(len(scaled) - 1, 0, -1):
            arriving[t] *= backward[t]
            before = arriving[t] @ self.transmat_.T  # (B, S)
            backward[t - 1] = before if whole[t] else np.where(valid[t, :, None], before, 1.0)
        return backward, arriving


class _Group(NamedTuple):
    """Sequences side by side. places: (T, B), where each step stands among all. valid: (T, B) bool, before the ends."""

    places: np.ndarray
    valid: np.ndarray


def _is_worthwhile(lengths: np.ndarray) -> bool:
    return bool(WORTHWHILE * len(lengths) >= lengths.max())


def _padded(logs: np.ndarray, group: _Group) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) → (T, B, S), 0 in the padding, and where it is not, (T, B) bool."""
    padded = logs[group.places]
    if not group.valid.all():
        padded[~group.valid] = 0.0
    return padded, group.valid


def _steps(padded: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(T, B, S) → (N, S), without the padding."""
    return padded.reshape(-1, padded.shape[-1]) if valid.all() else padded[valid]


def _groups(lengths: np.ndarray, n_states: int) -> Iterator[_Group]:
    """Sequences of like lengths."""
    begins = np.cumsum(lengths) - lengths
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        longest = int(lengths[order[0]])
        size = max(1, GROUP // (longest * n_states))
        chosen, order = order[:size], order[size:]
        steps = np.arange(longest)[:, None]  # (T, 1)
        valid = steps < lengths[chosen]  # (T, B)
        yield _Group(np.where(valid, begins[chosen] + steps, 0), valid)
