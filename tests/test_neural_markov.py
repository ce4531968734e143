"""HMMs trained by gradient: against the same HMM with the same parameters, enumeration, finite differences and the optimum."""

import itertools
from dataclasses import replace

import pytest
import torch

from benchmarks import checking
from models import hidden_markov, neural_markov, registry
from models.contract import Predictor
from models.hidden_markov import HiddenMarkovConfig
from models.markov_emissions import Parameters
from models.neural_markov import NeuralMarkovConfig
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

ENTRY = neural_markov.ENTRIES[0]
S = 3

SHARED = {
    "classes of real sequences": (RealInput(2), Classes(2, "sequence"), False),
    "classes of token sequences": (TokenInput(4), Classes(2, "sequence"), False),
    "next symbol": (TokenInput(4), Classes(4, future=True), True),
    "next frame": (RealInput(3), Binary(3, future=True), True),
    "forecast": (RealInput(2), Real(6, "sequence", future=True), False),
}
"""What an HMM fitted by EM does with the very same parameters."""

KINDS = SHARED | {
    "filtered tags": (RealInput(2), Classes(3), True),
    "smoothed tags": (TokenInput(4), Classes(3), False),
}


def build(inputs, target, causal, **config) -> Predictor:
    config = {"n_states": S} | config
    return registry.build(ENTRY, inputs, target, causal, NeuralMarkovConfig(**config), seed=0)


def random_batch(spec, target, n=6, longest=9) -> SequenceBatch:
    kind = checking.Kind(spec, target, True)
    batch = checking.example_batch(kind, torch.float32, torch.Generator().manual_seed(1))
    return batch.select(torch.arange(n))


@pytest.mark.parametrize("kind", SHARED)
def test_the_outputs_are_those_of_the_hmm_with_the_same_parameters(kind):
    spec, target, causal = SHARED[kind]
    trained = build(spec, target, causal).double().eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
        if hasattr(trained.hmm.emissions, "centres"):  # only Gaussians are of standardised values
            trained.hmm.shift += 0.3
            trained.hmm.scale *= 1.7
    estimated = hidden_markov.ENTRIES[0].build(spec, target, causal, HiddenMarkovConfig(n_states=S))
    chain, emissions = trained.hmm.chain(), trained.hmm.emissions
    for g in range(len(chain.start)):
        covariances = None
        if hasattr(emissions, "centres"):
            covariances = torch.diag_embed(emissions.log_variances[g].exp() + emissions.min_variance)
        estimated.hmm.put(g, Parameters(chain.start[g], chain.transition[g], emissions.means()[g], covariances))
    estimated.hmm.shift.copy_(trained.hmm.shift)
    estimated.hmm.scale.copy_(trained.hmm.scale)
    if hasattr(trained, "prior_logits"):
        estimated.log_prior.copy_(trained.prior_logits.log_softmax(-1))
    batch = random_batch(spec, target)
    inputs = batch.inputs.double() if batch.inputs.is_floating_point() else batch.inputs
    expected, _ = estimated(inputs, None, batch.lengths)
    outputs, _ = trained(inputs, None, batch.lengths)
    valid = valid_steps(batch.lengths, inputs.shape[1])
    torch.testing.assert_close(outputs[valid], expected[valid].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_tags_are_the_enumeration_of_all_state_paths(causal):
    predictor = build(TokenInput(4), Classes(2), causal).double().eval()
    chain, symbols = predictor.hmm.chain(), torch.tensor([[2, 0, 3, 3]])
    emitted = predictor.hmm.emissions.means()[0][:, symbols[0]]  # (S, T)
    tags = predictor.tag_logits.softmax(-1)  # (S, K)
    outputs, _ = predictor(symbols)
    for t in range(4):
        seen = t + 1 if causal else 4
        joint = torch.zeros(2).double()
        for path in itertools.product(range(S), repeat=seen):
            weight = chain.start[0, path[0]]
            for a, b in itertools.pairwise(path):
                weight = weight * chain.transition[0, a, b]
            for i, s in enumerate(path):
                weight = weight * emitted[s, i]
            joint = joint + weight * tags[path[t]]
        torch.testing.assert_close(outputs[0, t].exp(), joint / joint.sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_equals_finite_differences(kind):
    spec, target, causal = KINDS[kind]
    predictor = build(spec, target, causal, n_states=2).double().eval()
    batch = random_batch(spec, target, n=2)
    inputs = batch.inputs.double() if batch.inputs.is_floating_point() else batch.inputs
    batch = replace(batch, inputs=inputs[:, :4], lengths=batch.lengths.clamp(max=4))
    names, values = zip(*predictor.named_parameters(), strict=True)

    def valid_outputs(*parameters):
        called = torch.func.functional_call(predictor, dict(zip(names, parameters, strict=True)), batch.inputs)
        return called[0]

    assert torch.autograd.gradcheck(valid_outputs, tuple(value.detach().requires_grad_() for value in values))


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_and_outliers_leave_gradients_finite_in_single_precision(kind):
    spec, target, causal = KINDS[kind]
    predictor = build(spec, target, causal, n_states=20).eval()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter *= 20  # as certain as training may ever make it
    generator = torch.Generator().manual_seed(0)
    if isinstance(spec, TokenInput):
        inputs = torch.randint(spec.vocabulary, (4, 200), generator=generator)
    else:
        inputs = 5 * torch.randn(4, 200, spec.channels, generator=generator)
        inputs[0, 50] = 1e4
    outputs, _ = predictor(inputs)
    outputs.square().mean().backward()
    assert bool(outputs.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in predictor.parameters())


def test_inputs_are_standardised_by_running_averages_of_training_batches_alone():
    predictor = build(RealInput(2), Classes(2), True)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 30, 2, generator=generator) * torch.tensor([3.0, 0.0]) + 5 for _ in range(8)]
    for batch in batches:
        spoilt = torch.cat([batch, torch.full((16, 4, 2), torch.nan)], 1)
        predictor(spoilt, None, torch.full((16,), 30))
    steps = torch.cat(batches).flatten(0, 1)
    torch.testing.assert_close(predictor.hmm.shift, steps.mean(0), rtol=1e-4, atol=1e-4)
    assert float(predictor.hmm.scale[0]) == pytest.approx(3, rel=0.03) and float(predictor.hmm.scale[1]) == 1.0
    before = predictor.hmm.shift.clone()
    predictor.eval()(batches[0] + 100)
    assert torch.equal(predictor.hmm.shift, before)


def test_two_chunks_of_training_have_one_graph():
    predictor = build(RealInput(2), Real(4, "sequence", future=True), True)
    inputs = torch.randn(3, 10, 2, generator=torch.Generator().manual_seed(0))
    first, state = predictor(inputs[:, :6])
    second, _ = predictor(inputs[:, 6:], state)
    (first.sum() + second.sum()).backward()
    assert float(predictor.hmm.transition_logits.grad.abs().sum()) > 0


def trained_on(spec, target, causal, batch, n_steps, n_states):
    predictor = build(spec, target, causal, n_states=n_states)
    optimiser = torch.optim.Adam(predictor.parameters(), ENTRY.learning_rate)
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss = target.loss(predictor(batch.inputs, None, batch.lengths)[0], batch)
        loss.backward()
        optimiser.step()
    return predictor.eval(), loss.item()


def test_training_comes_near_the_optimum_of_a_markov_source():
    generator = torch.Generator().manual_seed(0)
    ring = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    symbols = torch.randint(3, (60, 1), generator=generator)
    for _ in range(20):
        symbols = torch.cat([symbols, torch.multinomial(ring[symbols[:, -1]], 1, generator=generator)], 1)
    lengths = torch.full((60,), 20)
    batch = SequenceBatch(symbols[:, :-1], symbols[:, 1:], lengths, valid_steps(lengths, 20))
    _, loss = trained_on(TokenInput(3), Classes(3, future=True), True, batch, 60, 5)
    optimum = -(0.8 * torch.tensor(0.8).log() + 0.2 * torch.tensor(0.1).log())
    assert loss < 1.05 * float(optimum)


def test_training_tells_rising_from_falling_sequences():
    generator = torch.Generator().manual_seed(0)
    labels, lengths = torch.arange(40) % 2, torch.randint(4, 11, (40,), generator=generator)
    slope = (2.0 * labels - 1)[:, None, None]
    inputs = 7 + slope * torch.arange(10)[:, None] + torch.randn(40, 10, 1, generator=generator)
    scored = last_steps(lengths, 10)
    batch = SequenceBatch(inputs, labels[:, None] * scored, lengths, scored)
    predictor, _ = trained_on(RealInput(1), Classes(2, "sequence"), False, batch, 40, 4)
    outputs, _ = predictor(inputs, None, lengths)
    assert float((outputs[scored].argmax(-1) == labels).double().mean()) > 0.95


def test_the_contract_holds_for_the_next_frame(monkeypatch):
    kinds = (checking.Kind(RealInput(3, 13, 8), Binary(3, future=True), True),)
    monkeypatch.setattr(checking, "KINDS", kinds)
    findings = list(checking.check("neural_hmm"))
    assert len(findings) > 15 and not [finding for finding in findings if not finding.passed]


@pytest.mark.parametrize(
    ("inputs", "target"),
    [(RealInput(2), Real(1, "sequence")), (RealInput(2), Binary(2)), (TokenInput(3), Transcript(2))],
)
def test_what_an_hmm_refuses_it_refuses_however_it_is_fitted(inputs, target):
    reason = ENTRY.refuses(inputs, target, True)
    assert reason == hidden_markov.ENTRIES[0].refuses(inputs, target, True) is not None


def test_a_whole_sequence_tagger_takes_no_state():
    predictor = build(TokenInput(3), Classes(2), False)
    with pytest.raises(ValueError, match="whole sequences"):
        predictor(torch.zeros(1, 3, dtype=torch.int64), (torch.ones(1, 1, S),))


@pytest.mark.parametrize("field", [{"n_states": 0}, {"min_variance": 0.0}])
def test_a_configuration_that_makes_no_sense_is_refused(field):
    with pytest.raises(ValueError, match="must be"):
        NeuralMarkovConfig(**field)


@pytest.mark.parametrize("constant", [0.1, 1234.567])
def test_a_channel_that_never_changes_is_not_scaled_by_its_rounding_errors(constant):
    torch.manual_seed(0)
    predictor = registry.entry("neural_hmm").build(
        RealInput(2), Classes(3, "sequence"), True, NeuralMarkovConfig(n_states=3)
    )
    inputs = torch.randn(16, 30, 2)
    inputs[..., 1] = constant
    for _ in range(3):
        predictor(inputs)
    assert float(predictor.hmm.scale[1]) == 1.0 and float(predictor.hmm.scale[0]) == pytest.approx(1, abs=0.2)
    inputs[:, 3, 1] *= 1.01
    assert bool(predictor.eval()(inputs)[0].isfinite().all())
