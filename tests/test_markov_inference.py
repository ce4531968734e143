"""Filter, prediction, smoother and best paths against enumeration of every state path."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.markov_inference import Chain, best_path_scores, filter_states, forecast_means, smooth_states


class Enumeration:
    """Every path of S states over n + 1 steps, the last of them not observed."""

    def __init__(self, start: np.ndarray, transition: np.ndarray, likelihoods: np.ndarray) -> None:
        """start (S,), transition (S, S), likelihoods (n, S)."""
        n, self.n_states = likelihoods.shape
        self.paths = np.array(list(itertools.product(range(self.n_states), repeat=n + 1)))  # (P, n + 1)
        self.prior = start[self.paths[:, 0]] * transition[self.paths[:, :-1], self.paths[:, 1:]].prod(1)  # (P,)
        self.emitted = likelihoods[np.arange(n), self.paths[:, :-1]]  # (P, n)

    def sums(self, n_seen: int, at: int) -> np.ndarray:
        """(S,) p(s_at = s, first n_seen steps): what lies beyond a path's seen part sums to one."""
        weights = self.prior * self.emitted[:, :n_seen].prod(1)
        return np.bincount(self.paths[:, at], weights, minlength=self.n_states)

    def best(self, at: int, transition: np.ndarray) -> np.ndarray:
        """(S,) the largest p(path, all steps) over the paths with s_at = s."""
        weights = self.prior * self.emitted.prod(1) / transition[self.paths[:, -2], self.paths[:, -1]]
        return np.array([weights[self.paths[:, at] == s].max() for s in range(self.n_states)])


@settings(max_examples=200, deadline=None)
@given(
    n_states=st.integers(1, 3), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 2**31)
)
def test_every_inference_equals_the_enumeration_of_all_state_paths(n_states, lengths, seed):
    rng = np.random.default_rng(seed)
    start, transition = rng.dirichlet(np.ones(n_states)), rng.dirichlet(np.ones(n_states), n_states)
    logs = rng.normal(scale=3, size=(len(lengths), max(lengths), n_states)) - 50  # far from one, as densities are
    chain = Chain(torch.from_numpy(start)[None], torch.from_numpy(transition)[None])
    likelihoods, ends = torch.from_numpy(logs)[:, :, None], torch.tensor(lengths)  # (B, T, 1, S)
    observed = torch.arange(max(lengths)) < ends[:, None]
    result = filter_states(likelihoods, observed, chain.beginning(len(lengths)), chain.transition)
    smoothed, best = smooth_states(result, ends, chain.transition), best_path_scores(likelihoods, ends, chain)
    for b, n in enumerate(lengths):
        every = Enumeration(start, transition, np.exp(logs[b, :n] + 50))
        whole = every.sums(n, 0).sum()
        np.testing.assert_allclose(result.log_evidence[b].sum(), np.log(whole) - 50 * n, rtol=1e-10)
        for t in range(n):
            seen = every.sums(t + 1, t)
            np.testing.assert_allclose(result.filtered[b, t, 0], seen / seen.sum(), atol=1e-12)
            np.testing.assert_allclose(result.predicted[b, t, 0], every.sums(t + 1, t + 1) / seen.sum(), atol=1e-12)
            np.testing.assert_allclose(smoothed[b, t, 0], every.sums(n, t) / whole, atol=1e-12)
            np.testing.assert_allclose(best[b, t, 0], np.log(every.best(t, transition)) - 50 * n, rtol=1e-10)


def test_several_models_side_by_side_are_each_alone():
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(4, 6, 3, 2, dtype=torch.float64, generator=generator)  # (B, T, G, S)
    transition = torch.randn(3, 2, 2, dtype=torch.float64, generator=generator).softmax(-1)
    chain = Chain(torch.randn(3, 2, dtype=torch.float64, generator=generator).softmax(-1), transition)
    ends = torch.tensor([6, 1, 4, 3])
    observed = torch.arange(6) < ends[:, None]
    together = filter_states(logs, observed, chain.beginning(4), transition)
    smoothed, best = smooth_states(together, ends, transition), best_path_scores(logs, ends, chain)
    for g in range(3):
        own, likelihoods = Chain(chain.start[g : g + 1], transition[g : g + 1]), logs[:, :, g : g + 1]
        alone = filter_states(likelihoods, observed, own.beginning(4), own.transition)
        for ours, theirs in zip(alone[:3], together[:3], strict=True):
            torch.testing.assert_close(ours[:, :, 0], theirs[:, :, g])
        torch.testing.assert_close(smooth_states(alone, ends, own.transition)[:, :, 0], smoothed[:, :, g])
        torch.testing.assert_close(best_path_scores(likelihoods, ends, own)[:, :, 0], best[:, :, g])


def test_forecast_means_are_sums_over_powers_of_the_transitions():
    means, transition = torch.randn(3, 2).double(), torch.randn(3, 3).double().softmax(-1)
    sums = forecast_means(means, transition, 4)
    for k in range(1, 5):
        expected = sum(torch.linalg.matrix_power(transition, i) @ means for i in range(k))
        torch.testing.assert_close(sums[:, k - 1], expected)
