"""Left-to-right chains, the number of states that is fitted, and what the record says of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import checking
from benchmarks.experiment import prepare
from benchmarks.tasks.registry import task as build_task
from models import markov_estimation, registry
from models.hidden_markov import HiddenMarkovConfig
from models.markov_emissions import Counts, Frames, Gaussians, HiddenMarkovModels, Parameters, Symbols
from models.markov_inference import filter_left_to_right
from models.sequences import Binary, Classes, Real, RealInput, SequenceBatch, TokenInput, last_steps, valid_steps

KINDS = {
    "symbols": (TokenInput(4), {}),
    "counts": (RealInput(2), {"emission": "poisson"}),
    "spherical": (RealInput(2), {"covariance_type": "spherical"}),
    "diag": (RealInput(2), {"covariance_type": "diag"}),
    "full": (RealInput(2), {"covariance_type": "full"}),
    "mixture": (RealInput(2), {"n_gaussians": 2}),
}


def ramps(kind: str, n: int = 60, longest: int = 16) -> SequenceBatch:
    """Class 0 goes up and down again, class 1 down and up: the same values in another order."""
    rng = np.random.default_rng(0)
    labels, lengths = torch.arange(n) % 2, torch.from_numpy(rng.integers(10, longest + 1, n))
    time = torch.arange(longest) / longest
    hill = 4 * (time - 0.5).abs()  # (T,)
    levels = torch.where(labels[:, None] == 0, hill, 2 - hill)  # (B, T)
    noise = 0.2 * torch.from_numpy(rng.normal(size=(n, longest, 2)))
    inputs = levels[..., None].double() + noise
    if kind == "symbols":
        inputs = (1.9 * levels).round().clamp(0, 3).long()
    elif kind == "counts":
        inputs = (3 * inputs).round().clamp_min(0)
    scored = last_steps(lengths, longest)
    return SequenceBatch(inputs, labels[:, None] * scored, lengths, scored)


def build(inputs, target, causal=False, name="hmm", **fields):
    entry = registry.entry(name)
    return registry.build(entry, inputs, target, causal, replace(entry.config, **fields), seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_left_to_right_states_begin_at_the_first_and_go_to_themselves_or_the_next_alone(kind):
    inputs, fields = KINDS[kind]
    batch = ramps(kind)
    predictor = build(inputs, Classes(2, "sequence"), topology="left_to_right", n_states=5, **fields)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    hmm = predictor.hmm
    assert hmm.n_live.tolist() == [5, 5] and predictor.fit_note is None
    assert hmm.start.tolist() == [[1, 0, 0, 0, 0]] * 2
    allowed = torch.eye(5) + torch.diag(torch.ones(4), 1)
    assert torch.equal(hmm.transition > 0, (allowed > 0).expand(2, 5, 5))
    torch.testing.assert_close(hmm.transition.sum(-1), torch.ones(2, 5).double())
    answers = predictor(batch.inputs, None, batch.lengths)[0].argmax(-1)
    assert float((answers == batch.targets)[batch.scored].double().mean()) > 0.95
    emitted = {"spherical": 3, "diag": 4, "full": 5, "mixture": 9, "symbols": 3, "counts": 2}[kind]
    assert predictor.parameter_counts().backbone == 2 * (4 + 5 * emitted) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_em_never_lowers_the_likelihood_of_a_left_to_right_chain(kind):
    batch = ramps(kind)
    valid = valid_steps(batch.lengths, batch.inputs.shape[1])
    data = markov_estimation.observations(batch.inputs, valid)
    emissions = {
        "symbols": Symbols(1, 6, 4),
        "counts": Counts(1, 6, 2),
        "mixture": Gaussians(1, 6, 2, "diag", 2),
    }.get(kind) or Gaussians(1, 6, 2, kind, 1)
    config = HiddenMarkovConfig(topology="left_to_right", n_iterations=90, min_variance=0.03)
    model = markov_estimation._new_model(6, emissions, config, data, 0, True)
    if kind in ("counts", "mixture"):  # whose priors move the parameters off the likeliest
        model.set_params(**{"lambdas_prior": 0.0, "lambdas_weight": 0.0} if kind == "counts" else {})
    model.monitor_.tol = -np.inf
    model.set_params(implementation="scaling", n_iter=30)
    model.fit(data.values, data.lengths)
    heard = list(model.monitor_.history)
    assert len(heard) == 30 and heard[-1] > heard[0] + 1
    if kind == "mixture":
        # What rises is the posterior: a prior of a hundredth of a step may cost the likelihood a little.
        assert all(later >= earlier - 0.1 for earlier, later in itertools.pairwise(heard))
    else:
        assert all(later >= earlier - 1e-8 for earlier, later in itertools.pairwise(heard))


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_every_parameter_of_a_left_to_right_fit_is_hmmlearns(covariance_type):
    batch = ramps("diag")
    data = markov_estimation.observations(batch.inputs, valid_steps(batch.lengths, batch.inputs.shape[1]))
    config = HiddenMarkovConfig(topology="left_to_right", n_iterations=12, min_variance=1e-9)
    emissions = Gaussians(1, 5, 2, covariance_type, 1)
    model = markov_estimation._new_model(5, emissions, config, data, 0, False)
    theirs = GaussianHMM(5, covariance_type, covars_prior=0.0, init_params="", n_iter=4, tol=-np.inf)
    theirs.startprob_, theirs.transmat_, theirs.means_ = model.startprob_, model.transmat_, model.means_
    theirs.covars_ = model._covars_
    model.monitor_.tol = -np.inf
    model.set_params(implementation="scaling").fit(data.values, data.lengths)
    theirs.fit(data.values, data.lengths)
    np.testing.assert_allclose(model.startprob_, theirs.startprob_)
    np.testing.assert_allclose(model.transmat_, theirs.transmat_, atol=1e-12)
    np.testing.assert_allclose(model.means_, theirs.means_)
    expected = theirs._covars_ if covariance_type == "full" else theirs._covars_[..., None] * np.eye(2)
    np.testing.assert_allclose(model.covars_, expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 6), st.sampled_from([0.05, 1.0, 40.0]))
def test_the_filter_of_a_left_to_right_chain_is_hmmlearns_also_where_the_likeliest_state_cannot_be_reached(
    seed, n_states, distance
):
    rng, n, longest = np.random.default_rng(seed), 4, 8
    stay = rng.uniform(0.1, 0.9, n_states)
    stay[-1] = 1.0
    transition = np.diag(stay) + np.diag(1 - stay[:-1], 1)
    means, variances = distance * rng.normal(size=(n_states, 1)), rng.uniform(0.5, 2, size=(n_states, 1))
    values = distance * rng.normal(size=(n, longest, 1))
    hmm = HiddenMarkovModels(1, n_states, RealInput(1), Gaussians(1, n_states, 1, "diag", 1), topology="left_to_right")
    parts = (np.eye(n_states)[0], transition, means, variances[..., None])
    hmm.put(0, Parameters(*map(torch.from_numpy, parts)))
    model = GaussianHMM(n_states, "diag")
    model.startprob_, model.transmat_, model.means_, model.covars_ = *parts[:3], variances
    lengths, chain = torch.from_numpy(rng.integers(1, longest + 1, n)), hmm.chain()
    observed = valid_steps(lengths, longest)
    logs = hmm.log_likelihoods(torch.from_numpy(values), observed)
    result = filter_left_to_right(logs, observed, hmm.beginning(n), chain.transition)
    for b, length in enumerate(lengths.tolist()):
        score, posteriors = model.score_samples(values[b, :length])
        np.testing.assert_allclose(result.log_evidence[b].sum(), score, rtol=1e-8)
        np.testing.assert_allclose(result.filtered[b, length - 1, 0], posteriors[-1], atol=1e-7)
    head = filter_left_to_right(logs[:, :3], observed[:, :3], hmm.beginning(n), chain.transition)
    tail = filter_left_to_right(logs[:, 3:], observed[:, 3:], head.carried, chain.transition)
    torch.testing.assert_close(torch.cat([head.log_evidence, tail.log_evidence], 1), result.log_evidence)
    torch.testing.assert_close(tail.carried, result.carried)


def test_an_answer_in_chunks_and_to_an_outlier_stays_finite_left_to_right():
    batch = ramps("diag")
    predictor = build(RealInput(2), Classes(2, "sequence"), topology="left_to_right", n_states=8)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    inputs = batch.inputs[:6].clone()
    inputs[:, 3] = 1e4
    inputs[3:, 0] = -1e4
    whole, _ = predictor(inputs)
    head, state = predictor(inputs[:, :5])
    tail, _ = predictor(inputs[:, 5:], state)
    assert bool(whole.isfinite().all())
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)


@pytest.mark.parametrize("topology", ["ergodic", "left_to_right"])
def test_sixty_four_states_asked_for_on_digits_are_sixty_four_fitted(topology):
    task = build_task("digits", {})
    train, validation, _ = task.splits(0)
    few = {"n_states": 64, "n_restarts": 1, "n_iterations": 3, "max_sequences": 30}
    predictor = build(task.input, task.target, task.causal, topology=topology, **few)
    predictor.fit(train, validation, torch.Generator().manual_seed(0))
    assert predictor.hmm.n_live.tolist() == [64] * 10 and predictor.fit_note is None
    assert predictor.hmm.emissions.centres[0].unique().numel() > 17  # more than the file has grey values


def test_a_left_to_right_chain_reaches_the_accuracy_on_digits_that_was_asked_of_it():
    task = build_task("digits", {})
    train, validation, test = task.splits(0)
    predictor = build(
        task.input, task.target, task.causal, topology="left_to_right", n_states=64, min_variance=0.1, n_restarts=1
    )
    predictor.fit(train, validation, torch.Generator().manual_seed(0))
    answers = predictor(test.inputs, None, test.lengths)[0].argmax(-1)
    assert float((answers == test.targets)[test.scored].double().mean()) > 0.8  # measured: 0.89


@pytest.mark.parametrize("kind", [Counts(1, 6, 1), Frames(1, 6, 1), Gaussians(1, 6, 1, "diag", 2)], ids=type)
def test_more_states_than_distinct_values_are_fitted_whatever_they_emit(kind):
    values = np.random.default_rng(0).integers(2, size=(200, 1)).astype(float)
    data = markov_estimation.Observations(values, np.full(10, 20))
    fitted = markov_estimation.fit_em(
        data, data, kind, 6, HiddenMarkovConfig(), torch.Generator().manual_seed(0)
    ).parameters
    assert len(fitted.start) == 6 and all(bool(part.isfinite().all()) for part in fitted if part is not None)


@pytest.mark.parametrize(("n_iterations", "tolerance", "capped"), [(1, 1e-9, True), (45, 1e3, False)])
def test_em_that_a_bound_on_iterations_ended_is_capped(n_iterations, tolerance, capped):
    batch = ramps("diag")
    options = {"n_states": 3, "n_restarts": 1, "n_iterations": n_iterations, "tolerance": tolerance}
    predictor = build(RealInput(2), Classes(2, "sequence"), **options)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    assert predictor.is_capped is capped


@pytest.mark.parametrize(
    ("topology", "n_states", "fewest"), [("ergodic", 500, "38"), ("left_to_right", 20, "16"), ("ergodic", 5, None)]
)
def test_fewer_states_than_asked_for_are_in_the_note_of_the_fit(topology, n_states, fewest):
    batch = ramps("diag")
    predictor = build(
        RealInput(2), Classes(2, "sequence"), topology=topology, n_states=n_states, n_restarts=1, n_iterations=3
    )
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    if fewest is None:
        assert predictor.fit_note is None
    else:
        assert predictor.fit_note == (
            f"2 of 2 models have fewer than {n_states} states, at least {fewest}: too few training steps for more"
        )
        assert int(predictor.hmm.n_live.min()) == int(fewest)


def test_the_note_of_a_fit_is_in_the_result(tmp_path):
    settings = {"n_states": 30, "n_restarts": 1, "n_iterations": 3}
    experiment = prepare("japanese_vowels", "hmm", 0, None, "cpu", model_config=settings, run_folder=str(tmp_path))
    experiment.fit()
    experiment.evaluate()
    assert "9 of 9 models have fewer than 30 states" in str(experiment.finish().fit_note)


def test_tags_are_counted_whatever_the_topology():
    generator = torch.Generator().manual_seed(0)
    inputs, tags = torch.randint(4, (10, 8), generator=generator), torch.randint(3, (10, 8), generator=generator)
    batch = SequenceBatch(inputs, tags, torch.full((10,), 8), torch.ones(10, 8, dtype=torch.bool))
    answers = []
    for topology in ("ergodic", "left_to_right"):
        predictor = build(TokenInput(4), Classes(3), True, topology=topology)
        predictor.fit(batch, batch, generator)
        answers.append(predictor(inputs)[0])
    assert torch.equal(*answers)


def test_the_contract_holds_left_to_right_for_every_kind_of_task_that_em_fits(monkeypatch):
    entry = registry.entry("hmm")
    config = replace(entry.config, topology="left_to_right", n_states=4, n_restarts=1)
    monkeypatch.setitem(registry.entries(), "hmm", replace(entry, config=config, search_space={}))
    kinds = (
        checking.Kind(RealInput(3, 13, 8), Classes(4, "sequence"), True),
        checking.Kind(RealInput(2, 13, 8), Real(6, "sequence", future=True), True),
        checking.Kind(RealInput(3, 13, 8), Binary(3, future=True), True),
        checking.Kind(TokenInput(5, 13, 8), Classes(5, future=True), True),
    )
    monkeypatch.setattr(checking, "KINDS", kinds)
    findings = list(checking.check("hmm"))
    assert len(findings) > 60 and not [finding for finding in findings if not finding.passed]


def test_a_tag_with_too_few_steps_for_a_mixture_is_in_the_note_of_the_fit():
    generator = torch.Generator().manual_seed(0)
    inputs, tags = torch.randn(10, 8, 2, generator=generator).double(), torch.randint(2, (10, 8), generator=generator)
    tags[0, :3] = 2
    batch = SequenceBatch(inputs, tags, torch.full((10,), 8), torch.ones(10, 8, dtype=torch.bool))
    for n_gaussians, note in ((1, None), (2, "1 of 3 states emit one Gaussian, not 2: too few training steps")):
        predictor = build(RealInput(2), Classes(3), True, name="gmm_hmm", n_gaussians=n_gaussians)
        predictor.fit(batch, batch, generator)
        assert predictor.fit_note == note
