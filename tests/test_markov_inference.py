"""Filter, prediction and smoother against enumeration of every state path, and against hmmlearn."""

import itertools

import numpy as np
import pytest
import torch
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from models import markov_inference
from models.contract import RealInput, TokenInput
from models.markov_inference import HiddenMarkovModels, Parameters


def random_chain(n_states: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    start, transition = rng.dirichlet(np.ones(n_states)), rng.dirichlet(np.ones(n_states), n_states)
    return torch.from_numpy(start), torch.from_numpy(transition)


def random_symbols(n_states: int, vocabulary: int, rng: np.random.Generator) -> Parameters:
    return Parameters(*random_chain(n_states, rng), torch.from_numpy(rng.dirichlet(np.ones(vocabulary), n_states)))


@settings(max_examples=25, deadline=None)
@given(n_states=st.integers(1, 3), length=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_filter_prediction_evidence_and_smoother_equal_the_sum_over_all_state_paths(n_states, length, seed):
    rng = np.random.default_rng(seed)
    parameters = random_symbols(n_states, 4, rng)
    start, transition, emissions = parameters[:3]
    symbols = rng.integers(4, size=length)

    def path_sums(n_seen: int, at: int) -> np.ndarray:
        """(S,) p(s_at = s, first n_seen symbols), by enumeration."""
        sums = np.zeros(n_states)
        for path in itertools.product(range(n_states), repeat=max(n_seen, at + 1)):
            weight = float(start[path[0]])
            for a, b in itertools.pairwise(path):
                weight *= float(transition[a, b])
            sums[path[at]] += weight * np.prod([float(emissions[path[i], symbols[i]]) for i in range(n_seen)])
        return sums

    hmm = HiddenMarkovModels(1, n_states, TokenInput(4), "diag")
    hmm.put(0, parameters)
    result = hmm.filter(torch.tensor(symbols)[None], torch.ones(1, length, dtype=torch.bool), hmm.beginning(1))
    smoothed = markov_inference.smooth_states(result, torch.tensor([length]), hmm.transition)[0, :, 0]
    whole = path_sums(length, 0).sum()
    assert float(result.log_evidence.sum()) == pytest.approx(np.log(whole))
    for t in range(length):
        seen = path_sums(t + 1, t)
        np.testing.assert_allclose(result.filtered[0, t, 0], seen / seen.sum(), atol=1e-12)
        np.testing.assert_allclose(result.predicted[0, t, 0], path_sums(t + 1, t + 1) / seen.sum(), atol=1e-12)
        np.testing.assert_allclose(smoothed[t], path_sums(length, t) / whole, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_gaussian_likelihood_and_posteriors_equal_hmmlearns_on_long_sequences(covariance_type):
    rng = np.random.default_rng(1)
    start, transition = random_chain(4, rng)
    factors = rng.normal(size=(4, 3, 3))
    full = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(3)
    variances = np.diagonal(full, axis1=1, axis2=2)
    model = GaussianHMM(4, covariance_type)
    model.startprob_, model.transmat_ = start.numpy(), transition.numpy()
    model.means_ = rng.normal(size=(4, 3))
    model.covars_ = {"spherical": variances[:, 0], "diag": variances, "full": full}[covariance_type]
    values = rng.normal(size=(1000, 3)) * 3
    score, posteriors = model.score_samples(values)

    hmm = HiddenMarkovModels(1, 4, RealInput(3), covariance_type)
    hmm.put(0, Parameters(start, transition, torch.from_numpy(model.means_), torch.from_numpy(model.covars_)))
    result = hmm.filter(torch.from_numpy(values)[None], torch.ones(1, 1000, dtype=torch.bool), hmm.beginning(1))
    smoothed = markov_inference.smooth_states(result, torch.tensor([1000]), hmm.transition)
    assert float(result.log_evidence.sum()) == pytest.approx(score, rel=1e-10)
    np.testing.assert_allclose(smoothed[0, :, 0], posteriors, atol=1e-9)
