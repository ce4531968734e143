"""Hidden Markov predictors against hmmlearn, closed forms and simulation, and under the contract."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import checking
from models import markov_estimation, registry
from models.contract import Predictor
from models.hidden_markov import ENTRIES, HiddenMarkovConfig
from models.hmmlearn_emissions import SymbolHMM
from models.markov_emissions import Parameters, Symbols
from models.sequences import (
    Binary,
    Classes,
    Real,
    RealInput,
    SequenceBatch,
    TokenInput,
    Transcript,
    last_steps,
    valid_steps,
)

ENTRY = ENTRIES[0]
CONFIG = HiddenMarkovConfig(n_states=3, n_iterations=10)

KINDS = {
    "classes of real sequences": (RealInput(2), Classes(3, "sequence"), False),
    "classes of token sequences": (TokenInput(4), Classes(3, "sequence"), True),
    "filtered tags": (TokenInput(4), Classes(2), True),
    "filtered tags of real values": (RealInput(2), Classes(2), True),
    "next symbol": (TokenInput(4), Classes(4, future=True), True),
    "next frame": (RealInput(3), Binary(3, future=True), True),
    "forecast": (RealInput(2), Real(6, "sequence", future=True), True),
}


def build(inputs, target, causal, config=CONFIG) -> Predictor:
    torch.manual_seed(0)
    return ENTRY.build(inputs, target, causal, config)


def random_inputs(spec, shape, generator=None):
    if isinstance(spec, TokenInput):
        return torch.randint(spec.vocabulary, shape, generator=generator)
    return torch.randn(*shape, spec.channels, dtype=torch.float64, generator=generator)


def random_chain(n_states: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    start, transition = rng.dirichlet(np.ones(n_states)), rng.dirichlet(np.ones(n_states), n_states)
    return torch.from_numpy(start), torch.from_numpy(transition)


def random_symbols(n_states: int, vocabulary: int, rng: np.random.Generator) -> Parameters:
    return Parameters(*random_chain(n_states, rng), torch.from_numpy(rng.dirichlet(np.ones(vocabulary), n_states)))


def hmmlearn_symbols(parameters: Parameters) -> CategoricalHMM:
    model = CategoricalHMM(len(parameters.start), n_features=parameters.emissions.shape[1])
    model.startprob_, model.transmat_ = parameters.start.numpy(), parameters.transition.numpy()
    model.emissionprob_ = parameters.emissions.numpy()
    return model


def sample_symbols(parameters: Parameters, n: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """(n, length) int64."""

    def draw(probabilities):  # (n, K) → (n,)
        return (probabilities.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=probabilities.shape[1] - 1)

    start, transition, emissions = (part.numpy() for part in parameters[:3])
    states, symbols = draw(start[None].repeat(n, 0)), []
    for _ in range(length):
        symbols.append(draw(emissions[states]))
        states = draw(transition[states])
    return torch.from_numpy(np.stack(symbols, 1))


def next_symbol_batch(symbols: torch.Tensor) -> SequenceBatch:
    lengths = torch.full((len(symbols),), symbols.shape[1] - 1)
    return SequenceBatch(symbols[:, :-1], symbols[:, 1:], lengths, valid_steps(lengths, symbols.shape[1] - 1))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_ragged_chunks_one_after_another_give_what_the_whole_gives(kind, data):
    inputs_spec, target, causal = KINDS[kind]
    predictor = build(inputs_spec, target, causal)
    inputs = random_inputs(inputs_spec, (4, 6), torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, 6), min_size=4, max_size=4)))
    cut = data.draw(st.integers(1, 5))
    padding = torch.nan if inputs.is_floating_point() else 99
    valid = valid_steps(lengths, 6)
    padded = inputs.clone()
    padded[~valid] = padding

    whole, end = predictor(inputs, None, lengths)
    head, state = predictor(padded[:, :cut], None, lengths.clamp(max=cut))
    tail, state = predictor(padded[:, cut:], state, (lengths - cut).clamp(min=0))
    torch.testing.assert_close(torch.cat([head, tail], 1)[valid], whole[valid])
    for ours, theirs in zip(state, end, strict=True):
        torch.testing.assert_close(ours, theirs)
    for b in range(4):
        alone, _ = predictor(inputs[b : b + 1, : max(1, int(lengths[b]))])
        torch.testing.assert_close(alone[0][: int(lengths[b])], whole[b, : int(lengths[b])])


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_of_length_zero_returns_the_very_state(kind):
    inputs_spec, target, causal = KINDS[kind]
    predictor = build(inputs_spec, target, causal)
    _, state = predictor(random_inputs(inputs_spec, (3, 4)))
    _, after = predictor(random_inputs(inputs_spec, (3, 2)), state, torch.zeros(3, dtype=torch.int64))
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    assert predictor.state_bytes(7) == sum(part[0].numel() * part.element_size() for part in state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_have_the_inputs_floating_type_and_stay_finite_in_single_precision(kind, dtype):
    inputs_spec, target, causal = KINDS[kind]
    predictor = build(inputs_spec, target, causal)
    inputs = random_inputs(inputs_spec, (2, 50))
    inputs = inputs.to(dtype) * 30 if inputs.is_floating_point() else inputs
    double, _ = predictor(inputs)
    assert double.dtype == (dtype if inputs.is_floating_point() else torch.get_default_dtype())
    single, _ = predictor.float()(inputs)
    assert bool(single.isfinite().all()) and single.shape == (2, 50, target.n_outputs)


def test_a_smoother_equals_its_batch_members_and_takes_no_state():
    predictor = build(TokenInput(4), Classes(2), False)
    inputs, lengths = torch.randint(4, (3, 6)), torch.tensor([6, 1, 4])
    together, state = predictor(inputs, None, lengths)
    assert state == () and predictor.initial_state(3) == () and predictor.state_bytes(5) == 0
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(predictor(inputs[b : b + 1, :n])[0][0], together[b, :n])
    with pytest.raises(ValueError, match="whole sequences"):
        predictor(inputs, (torch.ones(3, 1, 3),))


def test_em_never_lowers_the_likelihood_of_the_training_sequences():
    rng = np.random.default_rng(2)
    symbols = sample_symbols(random_symbols(3, 5, rng), 20, 30, rng)
    data = markov_estimation.observations(symbols, torch.ones_like(symbols, dtype=torch.bool))
    scores = []
    emissions = Symbols(1, 3, 5)
    for n_iterations in (1, 2, 4, 8, 16):
        config = replace(CONFIG, n_restarts=1, n_iterations=n_iterations, tolerance=0.0)
        fit = markov_estimation.fit_em(data, data, emissions, 3, config, torch.Generator().manual_seed(3)).parameters
        scores.append(hmmlearn_symbols(fit).score(data.values, data.lengths))
    assert all(later > earlier - 1e-3 for earlier, later in itertools.pairwise(scores))
    assert scores[-1] > scores[0] + 1


def test_em_comes_within_one_per_cent_of_the_source_it_learns_from():
    rng = np.random.default_rng(4)
    source = Parameters(
        torch.full((3,), 1 / 3, dtype=torch.float64),
        torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.3, 0.0, 0.7]], dtype=torch.float64),
        torch.tensor([[0.8, 0.1, 0.05, 0.05], [0.05, 0.05, 0.8, 0.1], [0.1, 0.1, 0.1, 0.7]], dtype=torch.float64),
    )
    train, validation, test = (next_symbol_batch(sample_symbols(source, n, 61, rng)) for n in (150, 50, 300))
    task = (TokenInput(4), Classes(4, future=True), True)
    optimum, learner = build(*task), build(*task, replace(CONFIG, n_states=4, n_iterations=50))
    optimum.hmm.put(0, source)
    learner.fit(train, validation, torch.Generator().manual_seed(0))
    nats = [F.cross_entropy(p(test.inputs)[0].flatten(0, 1), test.targets.flatten()).item() for p in (optimum, learner)]
    assert nats[0] * 0.999 < nats[1] < nats[0] * 1.01


def test_the_same_generator_seed_gives_the_same_parameters_bit_for_bit():
    batch = next_symbol_batch(torch.randint(4, (12, 20), generator=torch.Generator().manual_seed(0)))
    twins = [build(TokenInput(4), Classes(4, future=True), True) for _ in range(2)]
    for twin in twins:
        twin.fit(batch, batch, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(twins[0].buffers(), twins[1].buffers(), strict=True))


def labelled_sequences(n: int, rng: np.random.Generator) -> SequenceBatch:
    """Class 0 rises, class 1 falls, class 2 occurs once only."""
    labels = torch.tensor([2, *[i % 2 for i in range(n - 1)]])
    lengths = torch.from_numpy(rng.integers(5, 12, n))
    slope = torch.tensor([1.0, -1.0, 0.0])[labels]
    inputs = slope[:, None, None] * torch.arange(12)[:, None] + torch.from_numpy(rng.normal(size=(n, 12, 2)))
    scored = last_steps(lengths, 12)
    inputs[~valid_steps(lengths, 12)] = 0
    return SequenceBatch(inputs, torch.where(scored, labels[:, None], 0), lengths, scored)


def test_the_class_posterior_is_bayes_rule_over_hmmlearns_scores():
    batch = labelled_sequences(31, np.random.default_rng(6))
    predictor = build(RealInput(2), Classes(3, "sequence"), False)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    outputs, _ = predictor(batch.inputs, None, batch.lengths)
    hmm = predictor.hmm
    assert hmm.n_live.tolist() == [3, 3, 1]
    models = []
    for g, n in enumerate(hmm.n_live.tolist()):
        model = GaussianHMM(n, "diag")
        model.startprob_, model.transmat_ = hmm.start[g, :n].numpy(), hmm.transition[g, :n, :n].numpy()
        model.means_ = hmm.emissions.centres[g, :n, 0].numpy()
        model.covars_ = hmm.emissions.whitening[g, :n, 0].diagonal(dim1=1, dim2=2).numpy() ** -2
        models.append(model)
    prior = np.log((np.array([15, 15, 1]) + 0.5) / (31 + 1.5))
    for b, t in ((0, 3), (1, 1), (2, 4), (7, 5)):
        values = ((batch.inputs[b, :t] - hmm.shift) / hmm.scale).numpy()
        joint = torch.from_numpy(prior + [model.score(values) for model in models])
        torch.testing.assert_close(outputs[b, t - 1], joint.log_softmax(0))
    truth = batch.targets[batch.scored]
    assert bool((outputs[batch.scored].argmax(-1) == truth)[truth < 2].double().mean() > 0.95)
    n_gaussian = 2 * (2 + 6 + 3 * 4) + 4
    assert predictor.parameter_counts().backbone == n_gaussian + 2


def test_a_class_that_training_never_shows_is_possible_but_unlikely():
    batch = labelled_sequences(31, np.random.default_rng(7))
    predictor = build(RealInput(2), Classes(4, "sequence"), False)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    outputs, _ = predictor(batch.inputs, None, batch.lengths)
    chosen = outputs[batch.scored]
    assert bool(chosen.isfinite().all()) and bool((chosen[1:].argmax(-1) < 2).all())


def test_tag_counts_give_the_closed_form_with_untagged_steps_as_one_more_state():
    tags, symbols = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]), torch.tensor([[2, 0, 0, 1], [0, 2, 1, 1]])
    lengths = torch.tensor([4, 2])
    scored = torch.tensor([[True, True, True, False], [True, True, False, False]])  # one valid step has no tag
    batch = SequenceBatch(symbols, tags, lengths, scored)
    predictor = build(TokenInput(3), Classes(2), True)
    predictor.fit(batch, batch, torch.Generator())
    hmm = predictor.hmm
    expected_transition = np.array([[1, 2, 1], [2, 2, 2], [1, 1, 1]])  # 0→1, 1→1, 1→none; 1→0; and one added to each
    expected_symbols = np.array([[1, 1, 3], [4, 1, 1], [1, 2, 1]])
    np.testing.assert_allclose(hmm.start[0], np.array([2, 2, 1]) / 5)
    np.testing.assert_allclose(
        hmm.transition[0], expected_transition / expected_transition.sum(1, keepdims=True), rtol=1e-12
    )
    np.testing.assert_allclose(
        hmm.emissions.probabilities[0], expected_symbols / expected_symbols.sum(1, keepdims=True)
    )
    outputs, _ = predictor(symbols, None, lengths)
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones(2, 4))


def test_without_untagged_steps_their_state_is_unreachable_and_not_counted():
    tags, symbols = torch.tensor([[0, 1, 1, 0]]), torch.tensor([[2, 0, 0, 1]])
    batch = SequenceBatch(symbols, tags, torch.tensor([4]), torch.ones(1, 4, dtype=torch.bool))
    predictor = build(TokenInput(3), Classes(2), False)
    predictor.fit(batch, batch, torch.Generator())
    hmm = predictor.hmm
    assert hmm.start[0, 2] == 0 and float(hmm.transition[0, :, 2].sum()) == 0
    assert predictor.parameter_counts().backbone == 1 + 2 + 2 * 2
    model = hmmlearn_symbols(Parameters(hmm.start[0], hmm.transition[0], hmm.emissions.probabilities[0]).first(2))
    _, posteriors = model.score_samples(symbols.T.numpy())
    np.testing.assert_allclose(predictor(symbols)[0][0].exp(), posteriors, rtol=1e-5)


def test_tag_gaussians_are_the_moments_of_their_members_and_one_standard_observation():
    batch = SequenceBatch(
        torch.tensor([[[1.0], [3.0], [5.0], [7.0]]]).double(),
        torch.tensor([[0, 0, 1, 1]]),
        torch.tensor([4]),
        torch.ones(1, 4, dtype=torch.bool),
    )
    predictor = build(RealInput(1), Classes(2), True, replace(CONFIG, min_variance=1e-9))
    predictor.fit(batch, batch, torch.Generator())
    standardised = (np.array([1.0, 3.0, 5.0, 7.0]) - 4) / np.sqrt(5)
    for tag, own in enumerate((standardised[:2], standardised[2:])):
        mean = own.sum() / 3
        variance = (np.square(own).sum() + 1) / 3 - mean**2
        assert float(predictor.hmm.emissions.centres[0, tag, 0, 0]) == pytest.approx(mean)
        assert float(predictor.hmm.emissions.whitening[0, tag, 0, 0, 0]) == pytest.approx(variance**-0.5)


def test_an_outlier_leaves_every_output_finite():
    batch = labelled_sequences(31, np.random.default_rng(8))
    tagged = replace(batch, scored=valid_steps(batch.lengths, 12))
    for target in (Classes(3, "sequence"), Classes(3)):
        predictor = build(RealInput(2), target, True)
        predictor.fit(batch if target.scope == "sequence" else tagged, batch, torch.Generator().manual_seed(0))
        outlier = batch.inputs[:2].clone()
        outlier[:, 3] = 1e6
        assert bool(predictor(outlier)[0].isfinite().all())


def test_the_forecast_is_the_hand_calculated_mean_of_two_alternating_states():
    predictor = build(RealInput(1), Real(3, "sequence", future=True), True, replace(CONFIG, n_states=2))
    predictor.hmm.put(
        0,
        Parameters(
            torch.tensor([1.0, 0.0]).double(),
            torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(),
            torch.tensor([[1.0], [-3.0]]).double(),
            torch.ones(2, 1, 1).double(),
        ),
    )
    outputs, _ = predictor(torch.tensor([[[10.0], [11.0], [8.0]]]))
    assert outputs[0].tolist() == [[1, -2, -1], [-3, -2, -5], [1, -2, -1]]  # sums of 1, -3, 1; of -3, 1, -3; and again


def test_the_forecast_is_the_mean_of_simulated_futures_in_the_inputs_units():
    rng = np.random.default_rng(9)
    start, transition = random_chain(3, rng)
    means, shift, scale = torch.from_numpy(rng.normal(size=(3, 2))), torch.tensor([2.0, -1.0]), torch.tensor([3.0, 0.5])
    predictor = build(RealInput(2), Real(6, "sequence", future=True), True)
    hmm = predictor.hmm
    hmm.put(0, Parameters(start, transition, means, torch.eye(2).double().repeat(3, 1, 1)))
    hmm.shift.copy_(shift)
    hmm.scale.copy_(scale)
    model = GaussianHMM(3, "diag")
    model.startprob_, model.transmat_, model.means_ = start.numpy(), transition.numpy(), means.numpy()
    model.covars_ = np.ones((3, 2))
    steps, _ = model.sample(4, random_state=0)
    differences = torch.from_numpy(steps) * scale + shift
    series = torch.cat([torch.zeros(1, 2), differences]).cumsum(0)
    outputs, _ = predictor(series[None])

    last = model.predict_proba(steps)[-1]  # at the last step, smoothed is filtered
    n = 20000
    states, total, simulated = rng.choice(3, n, p=last), np.zeros((n, 2)), []
    for _ in range(3):
        states = (model.transmat_[states].cumsum(1) < rng.random((n, 1))).sum(1)
        total = total + (model.means_[states] + rng.normal(size=(n, 2))) * scale.numpy() + shift.numpy()
        simulated.append(total)
    simulated = np.concatenate(simulated, 1)  # (n, 3 steps × 2 channels), step-major
    error = np.abs(outputs[0, -1].numpy() - simulated.mean(0))
    assert bool((error < 5 * simulated.std(0) / np.sqrt(n)).all())


def test_a_fitted_forecast_of_a_sawtooth_beats_the_last_value():
    series = torch.tensor([0.0, 1.0, 3.0]).repeat(40)[:, None] + 0.01 * torch.randn(
        120, 1, generator=torch.Generator().manual_seed(0)
    )
    windows = series.unfold(0, 22, 1).transpose(1, 2).double()  # (N, 22, 1)
    inputs, lengths = windows[:, :20], torch.full((len(windows),), 20)
    targets = torch.zeros(len(windows), 20, 2).double()
    targets[:, -1] = (windows[:, 20:] - windows[:, 19:20]).squeeze(-1)
    batch = SequenceBatch(inputs, targets, lengths, last_steps(lengths, 20))
    target = Real(2, "sequence", future=True)
    predictor = build(RealInput(1), target, True, replace(CONFIG, n_iterations=50))
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    loss = target.loss(predictor(inputs, None, lengths)[0], batch)
    assert float(loss) < 0.05 * float(targets[:, -1].square().mean())


def test_em_that_never_stays_finite_says_what_to_change(monkeypatch):
    monkeypatch.setattr(markov_estimation, "_run_em", lambda model, data, topology: None)
    batch = next_symbol_batch(torch.randint(4, (3, 9)))
    with pytest.raises(RuntimeError, match="lower n_states"):
        build(TokenInput(4), Classes(4, future=True), True).fit(batch, batch, torch.Generator())


def test_em_falls_back_to_logarithms_where_scaling_raises(monkeypatch):
    used = []

    def fit(self, values, lengths, original=SymbolHMM.fit):
        used.append(self.implementation)
        if self.implementation == "scaling":
            raise ValueError("underflow")
        return original(self, values, lengths)

    monkeypatch.setattr(SymbolHMM, "fit", fit)
    batch = next_symbol_batch(torch.randint(4, (3, 9), generator=torch.Generator().manual_seed(0)))
    predictor = build(TokenInput(4), Classes(4, future=True), True, replace(CONFIG, n_restarts=1))
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    assert used == ["scaling", "log"] * 2 and bool(predictor(batch.inputs)[0].isfinite().all())


def contract(monkeypatch, entry, kinds, example_batch=checking.example_batch):
    """What the contract finds broken in an entry on these kinds of task."""
    monkeypatch.setitem(registry.entries(), entry.name, entry)
    monkeypatch.setattr(checking, "KINDS", kinds)
    monkeypatch.setattr(checking, "example_batch", example_batch)
    findings = list(checking.check(entry.name))
    assert len(findings) > 15
    return [finding for finding in findings if not finding.passed]


def test_the_contract_holds_for_the_next_frame(monkeypatch):
    kinds = (checking.Kind(RealInput(3, 13, 8), Binary(3, future=True), True),)
    assert not contract(monkeypatch, replace(ENTRY, config=CONFIG, search_space={}), kinds)


def test_the_contract_holds_for_tags_of_whole_sequences_by_either_decoding(monkeypatch):
    kinds = tuple(checking.Kind(inputs, Classes(3), False) for inputs in (RealInput(2, 13, 8), TokenInput(5, 13, 8)))
    viterbi = replace(ENTRY, config=replace(CONFIG, decoding="viterbi"), search_space={})
    assert not contract(monkeypatch, viterbi, kinds)


def counts_batch(kind, dtype, generator):
    batch = checking_batch(kind, dtype, generator)
    return replace(batch, inputs=(2 * batch.inputs).abs().round())


checking_batch = checking.example_batch


def test_the_contract_holds_for_poisson_emissions_on_counts(monkeypatch):
    kinds = tuple(
        checking.Kind(RealInput(3, 13, 8), Classes(4, scope), causal)
        for scope, causal in (("sequence", False), ("step", True), ("step", False))
    )
    poisson = replace(ENTRY, config=replace(CONFIG, emission="poisson", n_restarts=1), search_space={})
    assert not contract(monkeypatch, poisson, kinds, counts_batch)


def test_poisson_emissions_say_what_is_wrong_with_inputs_that_are_no_counts():
    poisson = replace(CONFIG, emission="poisson")
    batch = labelled_sequences(31, np.random.default_rng(8))
    with pytest.raises(ValueError, match="need counts"):
        build(RealInput(2), Classes(3, "sequence"), True, poisson).fit(batch, batch, torch.Generator())
    with pytest.raises(ValueError, match="differences"):
        build(RealInput(2), Real(6, "sequence", future=True), True, poisson)


def test_poisson_rates_of_tags_are_their_means_and_one_step_at_the_mean_of_all():
    counts, tags = torch.tensor([[[2.0], [4.0], [9.0], [1.0]]]), torch.tensor([[0, 0, 1, 1]])
    batch = SequenceBatch(counts, tags, torch.tensor([4]), torch.ones(1, 4, dtype=torch.bool))
    predictor = build(RealInput(1), Classes(2), True, replace(CONFIG, emission="poisson"))
    predictor.fit(batch, batch, torch.Generator())
    mean = 16.5 / 5
    expected = torch.tensor([(6 + mean) / 3, (10 + mean) / 3]).double()
    torch.testing.assert_close(predictor.hmm.emissions.rates[0, :2, 0], expected)


def test_the_largest_viterbi_output_is_hmmlearns_path():
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    tags = torch.from_numpy(np.sort(rng.integers(3, size=(20, 12)), axis=1))
    inputs = tags[..., None] + torch.randn(20, 12, 2, generator=generator).double()
    lengths = torch.from_numpy(rng.integers(1, 13, 20))
    batch = SequenceBatch(inputs, tags, lengths, valid_steps(lengths, 12))
    predictor = build(RealInput(2), Classes(3), False, replace(CONFIG, decoding="viterbi"))
    predictor.fit(batch, batch, generator)
    outputs, state = predictor(inputs, None, lengths)
    model, hmm = GaussianHMM(3, "diag"), predictor.hmm
    model.startprob_, model.transmat_ = hmm.start[0, :3].numpy(), hmm.transition[0, :3, :3].numpy()
    model.n_features, model.means_ = 2, hmm.emissions.centres[0, :3, 0].numpy()
    model.covars_ = hmm.emissions.whitening[0, :3, 0].diagonal(dim1=1, dim2=2).numpy() ** -2
    values = hmm.standardised(inputs, batch.scored).numpy()
    for b, n in enumerate(lengths.tolist()):
        assert outputs[b, :n].argmax(-1).tolist() == model.predict(values[b, :n]).tolist()
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones(20, 12).double())
    smoothed = build(RealInput(2), Classes(3), False)
    smoothed.load_state_dict(predictor.state_dict())
    assert state == () and not torch.allclose(smoothed(inputs, None, lengths)[0], outputs)


def test_the_next_frame_is_the_mean_over_the_predicted_states():
    predictor = build(RealInput(2), Binary(2, future=True), True, replace(CONFIG, n_states=2))
    means = torch.tensor([[0.9, 0.2], [0.1, 0.6]]).double()
    transition = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).double()
    predictor.hmm.put(0, Parameters(torch.tensor([0.5, 0.5]).double(), transition, means))
    outputs, _ = predictor(torch.tensor([[[1.0, 0.0]]]).double())
    filtered = torch.tensor([0.9 * 0.8, 0.1 * 0.4]).double()
    expected = (filtered / filtered.sum()) @ transition @ means
    torch.testing.assert_close(outputs[0, 0].sigmoid(), expected)
    assert predictor.parameter_counts().backbone == 1 + 2 + 2 * 2


def test_a_fitted_next_frame_of_alternating_chords_beats_the_base_rates():
    rng = np.random.default_rng(0)
    chords = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])[(np.arange(40) + rng.integers(3, size=(30, 1))) % 3]
    frames = torch.from_numpy(np.where(rng.random(chords.shape) < 0.05, 1 - chords, chords)).double()
    lengths = torch.full((30,), 39)
    batch = SequenceBatch(frames[:, :-1], frames[:, 1:], lengths, valid_steps(lengths, 39))
    target = Binary(4, future=True)
    predictor = build(RealInput(4), target, True)
    predictor.fit(batch, batch, torch.Generator().manual_seed(0))
    loss = target.loss(predictor(batch.inputs, None, lengths)[0], batch)
    entropy = -4 * (0.05 * np.log(0.05) + 0.95 * np.log(0.95))
    base = target.loss(target.best_constant(batch).expand(30, 39, 4), batch)
    assert float(loss) < 1.15 * entropy < 0.5 * float(base)


def test_tags_of_equal_mean_and_variance_are_told_apart_by_mixtures_alone():
    rng = np.random.default_rng(0)
    tags = torch.from_numpy(rng.integers(2, size=(30, 20)))
    two, three = rng.choice([-2.0, 2.0], size=(30, 20)), rng.choice([-(8**0.5), 0.0, 0.0, 8**0.5], size=(30, 20))
    centres = torch.where(tags == 0, torch.from_numpy(two), torch.from_numpy(three))  # both have mean 0 and variance 4
    inputs = (centres + 0.2 * torch.from_numpy(rng.normal(size=(30, 20))))[..., None]
    lengths = torch.full((30,), 20)
    batch = SequenceBatch(inputs, tags, lengths, torch.ones(30, 20, dtype=torch.bool))
    right = {}
    for name, config in (("one", CONFIG), ("three", replace(CONFIG, n_gaussians=3))):
        predictor = build(RealInput(1), Classes(2), True, config)
        predictor.fit(batch, batch, torch.Generator().manual_seed(0))
        right[name] = float((predictor(inputs)[0].argmax(-1) == tags).double().mean())
    assert right["one"] < 0.7 and right["three"] > 0.97


@pytest.mark.parametrize(
    ("inputs", "target"),
    [
        (RealInput(2), Real(1, "sequence")),
        (TokenInput(3), Real(2, "sequence", future=True)),
        (RealInput(2), Real(3, "sequence", future=True)),
        (RealInput(2), Classes(2, future=True)),
        (TokenInput(3), Classes(4, future=True)),
        (RealInput(2), Binary(2)),
        (RealInput(2), Binary(3, future=True)),
        (TokenInput(2), Binary(2, future=True)),
        (TokenInput(3), Transcript(2)),
    ],
)
def test_what_an_hmm_cannot_do_is_refused_with_a_reason(inputs, target):
    reason = ENTRY.refuses(inputs, target, True)
    assert reason is not None


@pytest.mark.parametrize(
    "field",
    [
        {"n_states": 0},
        {"covariance_type": "tied"},
        {"pseudocount": 0.0},
        {"decoding": "map"},
        {"emission": "counts"},
        {"topology": "circular"},
        {"min_variance": 0.0},
        {"emission": "poisson", "n_gaussians": 2},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(field):
    with pytest.raises(ValueError, match="must be"):
        replace(CONFIG, **field)


def test_the_last_symbol_of_a_sequence_is_learned_though_it_is_never_an_input() -> None:
    """Words of a and b that end in a mark: at each step it comes with probability 0.3, which is the Bayes optimum."""
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.rand(400, generator=generator).clamp(min=1e-6).log() / math.log(0.7)).long() + 1
    longest = int(lengths.max())
    inputs = torch.randint(1, 3, (400, longest), generator=generator)
    valid = torch.arange(longest) < lengths[:, None]
    targets = torch.cat([inputs[:, 1:], torch.zeros(400, 1, dtype=torch.int64)], 1)
    targets[torch.arange(400), lengths - 1] = 3
    batch = SequenceBatch(inputs * valid, targets * valid, lengths, valid)
    model = registry.build(ENTRY, TokenInput(4), Classes(4, future=True), True, ENTRY.config, seed=0)
    model.fit(batch, batch, torch.Generator().manual_seed(0))
    outputs, _ = model(batch.inputs, None, batch.lengths)
    nats = float(Classes(4).loss(outputs, batch))
    ends = 400 / int(valid.sum())
    optimum = -(ends * math.log(ends) + (1 - ends) * math.log((1 - ends) / 2))
    assert nats < optimum + 0.03
