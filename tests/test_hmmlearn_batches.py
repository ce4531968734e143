"""The E-step of many sequences at once against hmmlearn's loop over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import hmmlearn_batches
from models.hmmlearn_batches import Batched
from models.hmmlearn_emissions import BernoulliHMM, CountHMM, GaussianHMM, SymbolHMM

KINDS = ["symbols", "counts", "frames", "spherical", "diag", "full"]


def drawn(kind: str, n_states: int, lengths: list[int], seed: int) -> tuple[Batched, np.ndarray]:
    """A model that knows nothing yet but its parameters, and (N, C) values."""
    rng, n, n_channels = np.random.default_rng(seed), sum(lengths), 2
    options = {"n_iter": 3, "tol": -np.inf, "implementation": "scaling", "init_params": ""}
    model: Batched
    match kind:
        case "symbols":
            model, values = SymbolHMM(n_states, n_features=4, **options), rng.integers(4, size=(n, 1))
            model.emissionprob_ = rng.dirichlet(np.ones(4), n_states)
        case "counts":
            model, values = CountHMM(n_states, **options), rng.poisson(3.0, size=(n, n_channels)).astype(float)
            model.n_features, model.lambdas_ = n_channels, rng.gamma(2, 2, size=(n_states, n_channels))
        case "frames":
            model, values = BernoulliHMM(n_states, **options), rng.integers(2, size=(n, n_channels)).astype(float)
            model.means_ = rng.uniform(0.1, 0.9, size=(n_states, n_channels))
        case _:
            model, values = GaussianHMM(n_states, kind, **options), rng.normal(size=(n, n_channels))
            model.n_features, model.means_ = n_channels, rng.normal(size=(n_states, n_channels))
            identity = np.eye(n_channels)
            shape = {"spherical": np.ones(n_states), "diag": np.ones((n_states, n_channels))}
            model.covars_ = shape.get(kind, np.stack([identity] * n_states))
    model.startprob_, model.transmat_ = rng.dirichlet(np.ones(n_states)), rng.dirichlet(np.ones(n_states), n_states)
    return model, values


def e_step(model: Batched, values: np.ndarray, lengths: list[int], worthwhile: float) -> tuple[dict, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmmlearn_batches, "WORTHWHILE", worthwhile)
        patch.setattr(model, "_fit_scaling" if worthwhile else "_forward", lambda *_: pytest.fail("the other way"))
        return model._do_estep(values, np.array(lengths))


@settings(deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=7),
    st.integers(0, 99),
    st.sampled_from([1, 30, 2**20]),
)
def test_statistics_and_likelihood_are_those_of_the_loop(
    kind: str, n_states: int, lengths: list[int], seed: int, group: int
) -> None:
    model, values = drawn(kind, n_states, lengths, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmmlearn_batches, "GROUP", group)
        ours, our_score = e_step(model, values, lengths, np.inf)
    theirs, their_score = e_step(model, values, lengths, 0.0)
    assert our_score == pytest.approx(their_score, rel=1e-9, abs=1e-9) and ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_fit_ends_where_hmmlearns_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, fitted = [5, 3, 8, 1, 8, 4], []
    for worthwhile in (np.inf, 0.0):
        model, values = drawn(kind, 3, lengths, 0)
        monkeypatch.setattr(hmmlearn_batches, "WORTHWHILE", worthwhile)
        model.fit(values, np.array(lengths))
        fitted.append(model)
    ours, theirs = fitted
    np.testing.assert_allclose(ours.transmat_, theirs.transmat_, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(ours.startprob_, theirs.startprob_, rtol=1e-7, atol=1e-12)
    assert list(ours.monitor_.history) == pytest.approx(list(theirs.monitor_.history), rel=1e-9)


def test_an_outlier_that_underflows_in_hmmlearns_loop_is_as_in_its_logarithms() -> None:
    model, values = drawn("diag", 2, [3] * 4, 0)
    values[4] += 100
    with pytest.raises(ValueError, match="underflow"), np.errstate(all="ignore"):
        e_step(model, values, [3] * 4, 0.0)
    ours, our_score = e_step(model, values, [3] * 4, np.inf)
    theirs, their_score = e_step(model.set_params(implementation="log"), values, [3] * 4, 0.0)
    assert our_score == pytest.approx(their_score) and our_score == pytest.approx(model.log_likelihood(values, [3] * 4))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("distance", [1.0, 60.0])
def test_a_left_to_right_chain_whose_likeliest_states_cannot_be_reached_is_as_in_hmmlearns_logarithms(distance) -> None:
    rng, lengths = np.random.default_rng(0), [4, 2, 5, 1]
    model, values = drawn("diag", 4, lengths, 0)
    model.startprob_ = np.eye(4)[0]
    model.transmat_ = 0.6 * np.eye(4) + 0.4 * np.eye(4, k=1)
    model.transmat_[-1] = 0.0  # as EM leaves the row of a last state that is never stayed in
    model.means_ = distance * np.arange(4)[:, None] + rng.normal(size=(4, 2))
    values[[0, 4, 6, 11]] += 3 * distance  # each sequence begins where only the last state would
    ours, our_score = e_step(model, values, lengths, np.inf)
    theirs, their_score = e_step(model.set_params(implementation="log"), values, lengths, 0.0)
    assert our_score == pytest.approx(their_score)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


def test_symbols_that_no_reachable_state_emits_are_impossible() -> None:
    model, values = drawn("symbols", 2, [3] * 4, 0)
    model.emissionprob_ = np.array([[0.0, 0.5, 0.25, 0.25]] * 2)
    values[:] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        with pytest.raises(ValueError, match="underflow"):
            e_step(model, values, [3] * 4, np.inf)
        assert model.log_likelihood(values, [3] * 4) == -np.inf


def test_few_long_sequences_are_left_to_hmmlearn_and_many_short_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, values = drawn("symbols", 2, [100] * 2, 0)
    taken: list[int] = []
    forward = model._forward
    monkeypatch.setattr(model, "_forward", lambda logs, valid: taken.append(logs.shape[1]) or forward(logs, valid))
    model._do_estep(values, np.array([100] * 2))
    assert taken == []
    model._do_estep(values, np.array([10] * 20))
    assert taken == [20]
