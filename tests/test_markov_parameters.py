"""The parameters that `hmm` and `gmm_hmm` end with, one by one against plain hmmlearn's from the same start."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hmmlearn.hmm import GMMHMM, CategoricalHMM, GaussianHMM, PoissonHMM

from models import markov_estimation, registry
from models.hmmlearn_emissions import BernoulliHMM, floored
from models.sequences import Binary, Classes, RealInput, SequenceBatch, TokenInput, last_steps, valid_steps

S, C, V = 3, 4, 5
COVARIANCES = ["spherical", "diag", "full"]
KINDS = ["symbols", "counts", *COVARIANCES, *(f"mixture {kind}" for kind in COVARIANCES)]


def sequences(kind: str) -> SequenceBatch:
    """Two classes of ragged sequences, whose C channels differ in scale and depend on each other."""
    rng = np.random.default_rng(0)
    n, longest = 40, 12
    labels, lengths = torch.arange(n) % 2, torch.from_numpy(rng.integers(6, longest + 1, n))
    states = np.sort(rng.integers(S, size=(n, longest)), 1)
    centres = 3 * rng.normal(size=(2, S, C))[labels.numpy()[:, None], states]  # (B, T, C)
    spreads = np.array([0.3, 1.0, 2.0])[states][..., None]  # each state has a variance of its own
    values = centres + spreads * rng.normal(size=(n, longest, C)) @ rng.normal(size=(C, C))
    if kind == "symbols":
        inputs = torch.from_numpy(np.floor(values[..., 0]).clip(0, V - 1).astype(np.int64))
    elif kind == "counts":
        inputs = torch.from_numpy(np.abs(values).round())
    else:
        inputs = torch.from_numpy(values)
    scored = last_steps(lengths, longest)
    return SequenceBatch(inputs, labels[:, None] * scored, lengths, scored)


def plain(model, kind: str):
    """hmmlearn's own model with the start of ours."""
    match kind.split():
        case ["symbols"]:
            theirs, names = CategoricalHMM(S, n_features=V), ["emissionprob_"]
        case ["counts"]:
            priors = {"lambdas_prior": model.lambdas_prior, "lambdas_weight": model.lambdas_weight}
            theirs, names = PoissonHMM(S, **priors), ["lambdas_"]
        case ["mixture", _]:
            theirs = GMMHMM(**model.get_params())
            names = ["weights_", "means_", "covars_"]
        case _:
            theirs = GaussianHMM(S, kind, covars_prior=0.0)
            names = ["means_"]
            # hmmlearn's property would read the variances of a spherical model wrongly.
            theirs.covars_ = model._covars_
    theirs.set_params(init_params="", implementation="log")
    for name in ["startprob_", "transmat_", *names]:
        setattr(theirs, name, np.array(getattr(model, name)))
    return theirs


def full_covariances(theirs, kind: str) -> np.ndarray:
    """(S, C, C), or for mixtures (S, M, C, C)."""
    if "mixture" in kind:
        by_type = {"spherical": theirs.covars_[..., None], "diag": theirs.covars_}
    else:
        by_type = {"spherical": theirs._covars_, "diag": theirs._covars_}  # in hmmlearn (S, C) after a fit
    if "full" in kind:
        return theirs.covars_
    return by_type[kind.split()[-1]][..., None] * np.eye(C)


def above_zero(probabilities: np.ndarray) -> np.ndarray:
    raised = probabilities + 1e-6
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_fit_by_the_public_path_is_hmmlearns(kind, monkeypatch):
    batch, starts, new_model = sequences(kind), [], markov_estimation._new_model

    def remembered(*args):
        model = new_model(*args)
        starts.append((copy.deepcopy(model), args[3]))
        return model

    monkeypatch.setattr(markov_estimation, "_new_model", remembered)
    entry = registry.entry("gmm_hmm" if "mixture" in kind else "hmm")
    config = replace(
        entry.config,
        n_states=S,
        n_restarts=1,
        n_iterations=9,
        tolerance=0.0,
        min_variance=1e-9,
        covariance_type=kind.split()[-1] if kind.split()[-1] in COVARIANCES else "diag",
        emission="poisson" if kind == "counts" else "gaussian",
    )
    inputs = TokenInput(V) if kind == "symbols" else RealInput(C)
    predictor = registry.build(entry, inputs, Classes(2, "sequence"), False, config, seed=0)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    hmm, emissions = predictor.hmm, predictor.hmm.emissions
    assert hmm.n_live.tolist() == [S, S]
    for g, (start, data) in enumerate(starts):
        start._init(data.values)  # the random start and transitions of its seed
        theirs = plain(start, kind)
        for n_iterations in (3, 9):  # a restart, then the kept fit
            theirs.set_params(n_iter=n_iterations, tol=-np.inf)
            theirs.monitor_ = type(theirs.monitor_)(-np.inf, n_iterations, False)
            theirs.fit(data.values, data.lengths)
            theirs.startprob_, theirs.transmat_ = above_zero(theirs.startprob_), above_zero(theirs.transmat_)
            if kind == "symbols":
                theirs.emissionprob_ = above_zero(theirs.emissionprob_)
            if "mixture" in kind:
                theirs.weights_ = above_zero(theirs.weights_)
        equal = {"rtol": 1e-5, "atol": 1e-7}
        np.testing.assert_allclose(hmm.start[g], theirs.startprob_, **equal)
        np.testing.assert_allclose(hmm.transition[g], theirs.transmat_, **equal)
        if kind == "symbols":
            np.testing.assert_allclose(emissions.probabilities[g], theirs.emissionprob_, **equal)
        elif kind == "counts":
            np.testing.assert_allclose(emissions.rates[g], theirs.lambdas_, **equal)
        else:
            centres = emissions.centres[g] if "mixture" in kind else emissions.centres[g, :, 0]
            whitening = emissions.whitening[g] if "mixture" in kind else emissions.whitening[g, :, 0]
            np.testing.assert_allclose(centres, theirs.means_, **equal)
            covariances = torch.linalg.inv(whitening.mT @ whitening)
            np.testing.assert_allclose(covariances, full_covariances(theirs, kind), **equal)
            variances = covariances.diagonal(dim1=-2, dim2=-1)
            assert float(variances.max() / variances.min()) > 2  # a mix-up of states would show
            if "mixture" in kind:
                np.testing.assert_allclose(emissions.log_weights[g].exp(), theirs.weights_, **equal)


def test_every_parameter_of_an_em_step_of_frames_is_the_mean_over_all_state_paths():
    rng = np.random.default_rng(0)
    n_states, lengths, base, pseudocount = 2, [5, 3, 4, 5], np.array([0.2, 0.6, 0.4]), 1.5
    values = rng.integers(2, size=(sum(lengths), 3)).astype(float)
    model = BernoulliHMM(n_states, base, pseudocount, n_iter=1, init_params="", implementation="scaling")
    model.startprob_, model.transmat_ = rng.dirichlet([1, 1]), rng.dirichlet([1, 1], n_states)
    model.means_ = rng.uniform(0.2, 0.8, size=(n_states, 3))
    before = copy.deepcopy(model)
    model.fit(values, lengths)
    starts, moves, steps, yes = np.zeros(2), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 3))
    for own in np.split(values, np.cumsum(lengths)[:-1]):
        emitted = np.where(own[:, None] > 0, before.means_, 1 - before.means_).prod(-1)  # (T, S)
        paths = list(itertools.product(range(n_states), repeat=len(own)))
        weights = np.array(
            [
                before.startprob_[path[0]]
                * np.prod([before.transmat_[i, j] for i, j in itertools.pairwise(path)])
                * np.prod([emitted[t, s] for t, s in enumerate(path)])
                for path in paths
            ]
        )
        for path, weight in zip(paths, weights / weights.sum(), strict=True):
            starts[path[0]] += weight
            for i, j in itertools.pairwise(path):
                moves[i, j] += weight
            for t, s in enumerate(path):
                steps[s] += weight
                yes[s] += weight * own[t]
    np.testing.assert_allclose(model.startprob_, starts / starts.sum())
    np.testing.assert_allclose(model.transmat_, moves / moves.sum(1, keepdims=True))
    np.testing.assert_allclose(model.means_, (yes + pseudocount * base) / (steps + pseudocount)[:, None])


@pytest.mark.parametrize("name", ["hmm", "gmm_hmm"])
@pytest.mark.parametrize("covariance_type", COVARIANCES)
@pytest.mark.parametrize("topology", ["ergodic", "left_to_right"])
@pytest.mark.parametrize("defect", ["copied", "sum of others", "constant in a class", "constant"])
def test_a_channel_that_follows_from_others_or_never_changes_leaves_every_answer_finite(
    name, covariance_type, topology, defect
):
    batch = sequences("gaussian")
    values = batch.inputs.clone()
    match defect:
        case "copied":
            values[..., 1] = values[..., 0]
        case "sum of others":
            values[..., 3] = values[..., :3].sum(-1)
        case "constant in a class":
            values[::2, :, 2] = 0.7
        case "constant":
            values[..., 2] = 0.1  # whose standard deviation is not exactly zero
    batch = replace(batch, inputs=values)
    entry = registry.entry(name)
    config = replace(entry.config, covariance_type=covariance_type, topology=topology, n_states=S)
    predictor = registry.build(entry, RealInput(C), Classes(2, "sequence"), False, config, seed=0)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    unlike = values + torch.randn(values.shape, generator=torch.Generator().manual_seed(1))  # breaks the dependence
    for inputs in (values, unlike):
        outputs, _ = predictor(inputs, None, batch.lengths)
        assert bool(outputs[valid_steps(batch.lengths, outputs.shape[1])].isfinite().all())
    right = predictor(values, None, batch.lengths)[0].argmax(-1) == batch.targets
    assert float(right[batch.scored].double().mean()) > 0.9


def test_floored_covariances_are_the_likeliest_of_those_with_no_smaller_eigenvalue():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(2, 3, 3))
    sample, floor = factor @ factor.swapaxes(-1, -2), 0.5

    def likelihood(covariance: np.ndarray, s: int) -> float:
        return -np.linalg.slogdet(covariance)[1] - np.trace(np.linalg.inv(covariance) @ sample[s])

    best = floored(sample, "full", floor)
    assert np.linalg.eigvalsh(sample).min() < floor - 0.1
    np.testing.assert_allclose(best, best.swapaxes(-1, -2))
    assert np.linalg.eigvalsh(best).min() > floor - 1e-9
    for s, _ in itertools.product(range(2), range(300)):
        noise = 0.1 * rng.normal(size=(3, 3))
        values, vectors = np.linalg.eigh(best[s] + noise + noise.T)
        other = vectors * values.clip(floor) @ vectors.T
        assert likelihood(other, s) <= likelihood(best[s], s) + 1e-9
    variances = np.array([[0.2, 0.9]])
    np.testing.assert_array_equal(floored(variances, "diag", floor), [[0.5, 0.9]])


def test_a_state_that_no_step_belongs_to_keeps_its_emissions():
    values = np.random.default_rng(0).normal(size=(60, 2))
    for covariance_type in COVARIANCES:
        model = markov_estimation.GaussianHMM(2, covariance_type, n_iter=3, covars_prior=0.0, init_params="")
        model.startprob_, model.transmat_ = np.array([1.0, 0.0]), np.eye(2)
        model.means_ = np.array([[0.0, 0.0], [5.0, 5.0]])
        variances = np.array([1.0, 3.0])
        shape = {"spherical": variances, "diag": variances[:, None] * np.ones(2)}
        model.covars_ = shape.get(covariance_type, variances[:, None, None] * np.eye(2))
        model.fit(values, np.full(6, 10))
        assert model.means_[1].tolist() == [5.0, 5.0] and model.means_[0].tolist() != [0.0, 0.0]
        np.testing.assert_allclose(model.covars_[1], 3 * np.eye(2))


def test_frames_of_the_next_step_may_copy_each_other():
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(np.repeat(rng.integers(2, size=(20, 15, 1)), 3, axis=2)).double()
    lengths = torch.full((20,), 14)
    batch = SequenceBatch(frames[:, :-1], frames[:, 1:], lengths, valid_steps(lengths, 14))
    entry = registry.entry("hmm")
    predictor = registry.build(entry, RealInput(3), Binary(3, future=True), True, entry.config, seed=0)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    assert predictor.hmm.n_live.tolist() == [6] and predictor.fit_note is None  # of two distinct frames
    assert bool(predictor(batch.inputs)[0].isfinite().all())
