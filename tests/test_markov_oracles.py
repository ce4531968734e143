"""What states emit, and inference with it, against hmmlearn; the mixture's EM against hmmlearn's; and hmmlearn's warnings."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hmmlearn.hmm import GMMHMM, CategoricalHMM, GaussianHMM, PoissonHMM

from models import hmmlearn_emissions, markov_estimation
from models.hidden_markov import HiddenMarkovConfig
from models.hmmlearn_emissions import BernoulliHMM
from models.markov_emissions import Counts, Frames, Gaussians, HiddenMarkovModels, Parameters, Symbols
from models.markov_inference import best_path_scores, filter_states, smooth_states
from models.sequences import RealInput, TokenInput, valid_steps

N_SEQUENCES, LONGEST = 8, 12
KINDS = [
    "symbols",
    "counts",
    "frames",
    *itertools.product(["one", "mixture"], ["spherical", "diag", "full"]),
]


def covariances(shape, n_channels, kind, rng):
    """What hmmlearn wants, and the same as (…, C, C)."""
    factors = rng.normal(size=(*shape, n_channels, n_channels))
    full = factors @ factors.swapaxes(-1, -2) + 0.1 * np.eye(n_channels)
    if kind == "full":
        return full, full
    variances = np.diagonal(full, axis1=-2, axis2=-1)  # (…, C)
    if kind == "diag":
        return variances, variances[..., None] * np.eye(n_channels)
    return variances[..., 0], variances[..., :1, None] * np.eye(n_channels)


def random_pair(kind, rng):
    """hmmlearn's model, ours with the same parameters, and (B, T, …) sequences for them."""
    S, C, V, M = int(rng.integers(1, 5)), int(rng.integers(1, 4)), 5, 2
    start, transition = rng.dirichlet(np.ones(S)), rng.dirichlet(np.ones(S), S)
    shape = (N_SEQUENCES, LONGEST)
    match kind:
        case "symbols":
            model, inputs, ours = CategoricalHMM(S, n_features=V), TokenInput(V), Symbols(1, S, V)
            model.emissionprob_ = rng.dirichlet(np.ones(V), S)
            emitted, values = (model.emissionprob_,), rng.integers(V, size=shape)
        case "counts":
            model, inputs, ours = PoissonHMM(S), RealInput(C), Counts(1, S, C)
            model.lambdas_ = rng.gamma(2, 2, size=(S, C))
            emitted, values = (model.lambdas_,), rng.poisson(3.0, size=(*shape, C)).astype(float)
        case "frames":
            model, inputs, ours = BernoulliHMM(S), RealInput(C), Frames(1, S, C)
            model.means_ = rng.uniform(0.02, 0.98, size=(S, C))
            emitted, values = (model.means_,), rng.integers(2, size=(*shape, C)).astype(float)
        case "one", covariance_type:
            model, inputs, ours = GaussianHMM(S, covariance_type), RealInput(C), Gaussians(1, S, C, covariance_type, 1)
            model.n_features, model.means_ = C, rng.normal(size=(S, C))
            model.covars_, full = covariances((S,), C, covariance_type, rng)
            emitted, values = (model.means_, full), 2 * rng.normal(size=(*shape, C))
        case _, covariance_type:
            model, inputs = GMMHMM(S, M, covariance_type=covariance_type), RealInput(C)
            ours = Gaussians(1, S, C, covariance_type, M)
            model.n_features, model.means_, model.weights_ = C, rng.normal(size=(S, M, C)), rng.dirichlet(np.ones(M), S)
            model.covars_, full = covariances((S, M), C, covariance_type, rng)
            emitted, values = (model.means_, full, model.weights_), 2 * rng.normal(size=(*shape, C))
    model.startprob_, model.transmat_ = start, transition
    hmm = HiddenMarkovModels(1, S, inputs, ours)
    hmm.put(0, Parameters(*(torch.from_numpy(np.array(part)) for part in (start, transition, *emitted))))
    return model, hmm, values


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_likelihood_smoother_and_best_path_equal_hmmlearns(kind):
    # 200 sequences of each family and more, those of Gaussians and mixtures shared among three types of covariance.
    for seed in range(25 if isinstance(kind, str) else 9):
        rng = np.random.default_rng(seed)
        model, hmm, values = random_pair(kind, rng)
        ends = torch.from_numpy(rng.integers(1, LONGEST + 1, N_SEQUENCES))
        observed, chain = valid_steps(ends, LONGEST), hmm.chain()
        logs = hmm.log_likelihoods(torch.from_numpy(values), observed)
        result = filter_states(logs, observed, chain.beginning(N_SEQUENCES), chain.transition)
        smoothed, best = smooth_states(result, ends, chain.transition), best_path_scores(logs, ends, chain)
        for b, n in enumerate(ends.tolist()):
            own = values[b, :n] if values.ndim == 3 else values[b, :n, None]
            score, posteriors = model.score_samples(own)
            np.testing.assert_allclose(result.log_evidence[b].sum(), score, rtol=1e-8)
            np.testing.assert_allclose(smoothed[b, :n, 0], posteriors, atol=1e-8)
            np.testing.assert_allclose(result.filtered[b, n - 1, 0], posteriors[-1], atol=1e-8)
            path_score, path = model.decode(own, algorithm="viterbi")
            np.testing.assert_allclose(best[b, :n, 0].amax(-1), np.full(n, path_score), rtol=1e-8)
            # Its own path reaches the score of the best at every step: equal paths unless two are equally good.
            np.testing.assert_allclose(best[b, torch.arange(n), 0, torch.from_numpy(path)], path_score, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
@pytest.mark.parametrize("implementation", ["scaling", "log"])
def test_em_of_mixtures_moves_every_parameter_as_hmmlearns_does(covariance_type, implementation):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 10)
    values = rng.normal(size=(lengths.sum(), 3)) + 2 * rng.integers(3, size=(lengths.sum(), 1))
    options = {"random_state": 1, "n_iter": 4, "tol": -np.inf, "init_params": "st"}
    members = np.eye(2)[rng.integers(2, size=len(values))]
    ours = markov_estimation._split_gaussians(members, values, 2, covariance_type, 1e-9, options)
    ours.set_params(implementation=implementation).fit(values, lengths)
    again = markov_estimation._split_gaussians(members, values, 2, covariance_type, 1e-9, options)
    again._init(values)  # the random start and transitions of the same seed
    theirs = GMMHMM(**again.get_params()).set_params(implementation=implementation, init_params="")
    names = ("startprob_", "transmat_", "weights_", "means_", "covars_")
    for name in names:
        setattr(theirs, name, getattr(again, name))
    theirs.fit(values, lengths)
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)


def test_em_of_counts_moves_every_parameter_as_hmmlearns_does():
    rng = np.random.default_rng(0)
    values, lengths = rng.poisson(rng.choice([1.0, 7.0], size=(60, 1)) * [1, 2]).astype(float), np.full(6, 10)
    data, config = markov_estimation.Observations(values, lengths), HiddenMarkovConfig(n_iterations=12)
    model, again = (markov_estimation._new_model(2, Counts(1, 2, 2), config, data, 0, False) for _ in range(2))
    again._init(values)
    theirs = PoissonHMM(**again.get_params()).set_params(init_params="")
    names = ("startprob_", "transmat_", "lambdas_")
    for name in names:
        setattr(theirs, name, getattr(again, name))
    model.fit(values, lengths)
    theirs.fit(values, lengths)
    for name in names:
        np.testing.assert_allclose(getattr(model, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)


def fitted(emissions, values, lengths, n_iterations=20, n_states=2):
    config = replace(HiddenMarkovConfig(), n_restarts=2, n_iterations=n_iterations, tolerance=0.0)
    data = markov_estimation.Observations(values, lengths)
    return markov_estimation.fit_em(
        data, data, emissions, n_states, config, torch.Generator().manual_seed(0)
    ).parameters


@pytest.mark.parametrize("kind", ["frames", "counts", "mixture"])
def test_em_finds_the_states_that_made_the_sequences(kind):
    rng = np.random.default_rng(1)
    states, state = [], 0
    for _ in range(2000):
        states.append(state)
        state = state if rng.random() < 0.9 else 1 - state
    lengths, states = np.full(20, 100), np.array(states)
    means = {"frames": [[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]], "counts": [[1.0, 8], [6, 2]], "mixture": [[0.0], [4.0]]}[
        kind
    ]
    expected = np.array(means)[states]  # (N, C)
    if kind == "frames":
        emissions, values = Frames(1, 2, 3), (rng.random(expected.shape) < expected).astype(float)
    elif kind == "counts":
        emissions, values = Counts(1, 2, 2), rng.poisson(expected).astype(float)
    else:  # either state emits around two points
        emissions = Gaussians(1, 2, 1, "diag", 2)
        values = expected + rng.choice([-1.0, 1.0], size=expected.shape) + 0.3 * rng.normal(size=expected.shape)
    found = fitted(emissions, values, lengths)
    own = found.emissions if kind != "mixture" else (found.weights[..., None] * found.emissions).sum(1)
    order = own[:, 0].argsort(descending=kind == "frames")
    np.testing.assert_allclose(own[order], means, atol=0.35 if kind == "counts" else 0.15)
    np.testing.assert_allclose(found.transition[order][:, order], [[0.9, 0.1], [0.1, 0.9]], atol=0.05)


def test_what_em_of_frames_maximises_never_falls():
    rng = np.random.default_rng(2)
    values, lengths = rng.integers(2, size=(90, 4)).astype(float), np.full(9, 10)
    emissions = Frames(1, 3, 4)
    data, config = markov_estimation.Observations(values, lengths), HiddenMarkovConfig(n_iterations=90, tolerance=0.0)
    model = markov_estimation._new_model(3, emissions, config, data, 0, False)
    model.monitor_.tol = -np.inf
    heard = []
    model.monitor_.report = lambda bound: heard.append(bound) or type(model.monitor_).report(model.monitor_, bound)
    model.fit(values, lengths)
    assert len(heard) == 30 and heard[-1] > heard[0] + 0.1
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(heard))


def test_a_note_that_training_never_shows_stays_possible_but_unlikely():
    values = np.zeros((100, 2))
    values[::2, 0] = 1
    means = fitted(Frames(1, 2, 2), values, np.full(10, 10)).emissions
    assert bool(((means > 0) & (means < 1)).all()) and bool((means[:, 1] < 0.01).all())


def test_a_gaussian_without_steps_returns_to_the_standard_one_and_all_stays_finite():
    values = np.repeat(np.array([[-1.0], [1.0]]), 60, axis=0)  # two points: two Gaussians of a state have one to share
    for covariance_type in ("spherical", "diag", "full"):
        found = fitted(Gaussians(1, 2, 1, covariance_type, 2), values, np.full(12, 10), n_iterations=60)
        assert all(bool(part.isfinite().all()) for part in found)
        assert bool((found.covariances > 0).all()) and bool((found.weights > 0).all())


def test_what_hmmlearn_logs_of_its_fit_is_not_heard_and_what_else_it_logs_is(caplog):
    rng = np.random.default_rng(3)
    values, lengths = rng.normal(size=(9, 2)), np.array([9])
    loud = GaussianHMM(3, n_iter=5, tol=-np.inf, init_params="stmc", random_state=0)
    with caplog.at_level(logging.WARNING, logger="hmmlearn"):
        loud.fit(values, lengths)
        assert "degenerate solution" in caplog.text
        caplog.clear()
        assert markov_estimation._run_em(
            hmmlearn_emissions.GaussianHMM(3, n_iter=5, init_params="stmc", random_state=0),
            markov_estimation.Observations(values, lengths),
            "ergodic",
        )
        assert not caplog.records
        with markov_estimation._quiet():
            logging.getLogger("hmmlearn.base").warning("Model is not converging.  Current: 1 is not greater than 2.")
            logging.getLogger("hmmlearn.base").warning("something else")
        assert [record.getMessage() for record in caplog.records] == ["something else"]
        logging.getLogger("hmmlearn.base").warning("Model is not converging, heard again")
        assert len(caplog.records) == 2
