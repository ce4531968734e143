"""Hybrids and memories against torch's layers put together by hand, and against their equations as plain loops."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.hybrids import ENTRIES as HYBRIDS
from models.hybrids import CNNGRUConfig, GRUAttentionConfig
from models.memory import ENTRIES as MEMORIES
from models.memory import GRUMemoryConfig, HopfieldConfig, address, retrieve, write
from models.sequences import Classes, RealInput

ENTRIES = {entry.name: entry for entry in (*HYBRIDS, *MEMORIES)}
FEATURES = 6


def backbone(name, **options):
    """In float64, all its parameters random: some begin as zeros, which would hide a mistake."""
    torch.manual_seed(0)
    entry = ENTRIES[name]
    config = dataclasses.replace(entry.config, **options)
    made = entry.build(RealInput(1, None, FEATURES), Classes(2), True, config).backbone.double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def sequences(n_steps, n=3):
    return torch.randn(n, n_steps, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def in_chunks(model, inputs, size):
    state, parts = None, []
    for chunk in inputs.split(size, dim=1):
        outputs, state = model(chunk, state, None)
        parts.append(outputs)
    return torch.cat(parts, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("n_convolutions", [1, 2])
def test_cnn_gru_is_torchs_convolution_and_gru_put_together(n_convolutions):
    model = backbone("cnn_gru", width=5, kernel_size=3, n_convolutions=n_convolutions)
    inputs = sequences(9)
    hidden = inputs.transpose(1, 2)
    for carried in model.convolutions:
        n_in = hidden.shape[1]
        plain = nn.Conv1d(n_in, 5, 3).double()
        plain.weight.copy_(carried.convolution.weight)
        plain.bias.copy_(carried.convolution.bias)
        hidden = F.relu(plain(F.pad(hidden, (2, 0))))
    gru = nn.GRU(5, 5, batch_first=True).double()
    gru.load_state_dict(model.gru.state_dict())
    expected = model.projection(gru(hidden.transpose(1, 2))[0])
    assert torch.allclose(model(inputs, None, None)[0], expected, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 5, 12])
@pytest.mark.parametrize("context", [2, 4, 100])
def test_attention_over_states_is_the_plain_loop_whatever_is_cached(context, chunk):
    model = backbone("gru_attention", width=4, context=context)
    inputs = sequences(12)
    hidden, _ = model.gru(inputs)
    expected = torch.empty_like(inputs)
    for b in range(len(inputs)):
        for t in range(12):
            reached = range(max(0, t - context + 1), t + 1)
            scores = [float(model.queries(hidden[b, t]) @ hidden[b, j]) / math.sqrt(4) for j in reached]
            total = sum(math.exp(score) for score in scores)
            read = sum(math.exp(score) / total * hidden[b, j] for score, j in zip(scores, reached, strict=True))
            expected[b, t] = model.projection(torch.tanh(model.combine(torch.cat([read, hidden[b, t]]))))
    assert torch.allclose(in_chunks(model, inputs, chunk), expected, atol=1e-12)


def test_a_head_finds_slots_by_their_cosine_with_its_key_sharpened_by_the_length_of_the_key():
    memory = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]]], dtype=torch.float64)
    keys = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    for row, cosines, strength in zip(address(memory, keys)[0], ([0.6, 0, -1], [0.8, 1, 0]), (5, 0.1), strict=True):
        total = sum(math.exp(strength * cosine) for cosine in cosines)
        assert row.tolist() == pytest.approx([math.exp(strength * cosine) / total for cosine in cosines], abs=1e-5)


def test_empty_slots_are_found_alike_and_have_finite_gradients():
    memory = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    keys = torch.ones(1, 2, 2, dtype=torch.float64, requires_grad=True)
    found = address(memory, keys)
    assert torch.allclose(found, torch.full_like(found, 1 / 3))
    found.square().sum().backward()
    assert memory.grad.isfinite().all() and keys.grad.isfinite().all()


def test_writing_erases_and_then_adds_slot_by_slot():
    generator = torch.Generator().manual_seed(0)
    memory, weights, erase, add = (
        torch.rand(*shape, generator=generator) for shape in ((2, 3, 4), (2, 3), (2, 4), (2, 4))
    )
    written = write(memory, weights, erase, add)
    for b in range(2):
        for slot in range(3):
            for column in range(4):
                kept = memory[b, slot, column] * (1 - weights[b, slot] * erase[b, column])
                expected = kept + weights[b, slot] * add[b, column]
                assert float(written[b, slot, column]) == pytest.approx(float(expected), abs=1e-6)


@torch.no_grad()
def test_the_network_with_slots_is_its_equations_as_a_plain_loop():
    model = backbone("gru_memory", width=4, n_slots=3, slot_width=2)
    inputs = sequences(7)
    cell = nn.GRUCell(FEATURES + 2, 4).double()
    for ours, torchs in zip(model.controller.parameters(), cell.parameters(), strict=True):
        torchs.copy_(ours)
    for b, sequence in enumerate(inputs):
        hidden, read, memory = torch.zeros(4).double(), torch.zeros(2).double(), model.start.clone()
        for t, step in enumerate(sequence):
            hidden = cell(torch.cat([step, read])[None], hidden[None])[0]
            read_key, write_key, erase, add = model.interface(hidden).split([2, 2, 2, 2])
            found = []
            for key in (read_key, write_key):
                cosines = torch.stack([F.cosine_similarity(key, slot, dim=0) for slot in memory])
                found.append(torch.softmax(key.norm() * cosines, dim=0))
            read = found[0] @ memory
            memory = memory * (1 - torch.outer(found[1], erase.sigmoid())) + torch.outer(found[1], add)
            expected = model.projection(torch.cat([hidden, read]))
            assert torch.allclose(model(inputs[b : b + 1, : t + 1], None, None)[0][0, -1], expected, atol=1e-4)


@torch.no_grad()
def test_the_controller_of_slots_that_it_cannot_read_is_torchs_gru():
    model = backbone("gru_memory", width=4, n_slots=3, slot_width=2)
    gru = nn.GRU(FEATURES, 4, batch_first=True).double()
    for name, parameter in gru.named_parameters():
        ours = getattr(model.controller, name)
        parameter.copy_(ours[:, :FEATURES] if name == "weight_ih_l0" else ours)
    model.controller.weight_ih_l0[:, FEATURES:] = 0
    model.projection.weight[:, 4:] = 0
    inputs = sequences(11)
    expected = F.linear(gru(inputs)[0], model.projection.weight[:, :4], model.projection.bias)
    assert torch.allclose(model(inputs, None, None)[0], expected, atol=1e-12)


def patterns(n, width=8):
    generator = torch.Generator().manual_seed(2)
    stored = F.layer_norm(torch.randn(1, n, width, generator=generator, dtype=torch.float64), (width,))
    still = torch.stack(
        [torch.ones(1, n, width // 2), torch.zeros(1, n, width // 2)]
    ).double()  # cos and sin of no angle
    return stored, still


def anywhere(n_queries, n_stored):
    return torch.ones(1, n_queries, n_stored, dtype=torch.bool)


@pytest.mark.parametrize("n_updates", [1, 3])
def test_a_large_beta_retrieves_the_nearest_stored_pattern_from_a_distorted_one(n_updates):
    stored, still = patterns(20)
    noise = torch.randn(stored.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    retrieved = retrieve(stored + 0.3 * noise, stored, still, torch.tensor(50.0), n_updates, anywhere(20, 20))
    assert torch.allclose(retrieved, stored, atol=1e-6)


def test_a_small_beta_retrieves_the_mean_of_all_patterns():
    stored, still = patterns(20)
    retrieved = retrieve(stored, stored, still, torch.tensor(1e-9), 1, anywhere(20, 20))
    assert torch.allclose(retrieved, stored.mean(1, keepdim=True).expand_as(stored), atol=1e-6)


def test_one_update_is_softmax_attention_whose_values_are_its_keys():
    stored, still = patterns(6)
    queries = patterns(9)[0][:, -6:]
    for t, row in enumerate(retrieve(queries, stored, still, torch.tensor(0.7), 1, None)[0]):
        scores = [math.exp(0.7 * float(queries[0, t] @ stored[0, j])) for j in range(t + 1)]
        expected = sum(score / sum(scores) * stored[0, j] for j, score in enumerate(scores))
        assert torch.allclose(row, expected, atol=1e-7)


def test_the_energy_of_the_state_falls_with_every_update():
    stored, still = patterns(20)
    beta = torch.tensor(0.5)
    queries = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    states = [queries] + [retrieve(queries, stored, still, beta, n, anywhere(20, 20)) for n in range(1, 9)]
    energies = [
        -torch.logsumexp(beta * state @ stored.transpose(1, 2), dim=-1) / beta + state.square().sum(-1) / 2
        for state in states
    ]
    falls = torch.stack([before - after for before, after in pairwise(energies)])
    assert (falls > -1e-6).all() and (falls[0] > 0.1).all()


@torch.no_grad()
def test_what_is_retrieved_depends_on_how_long_ago_not_on_when_nor_on_more_than_the_context():
    model = backbone("hopfield", width=6, context=4, n_updates=2)
    inputs = sequences(40)
    late, _ = model(inputs, None, None)
    early, _ = model(inputs[:, 28:], None, None)
    assert torch.allclose(late[:, -1], early[:, -1], atol=1e-12)
    assert torch.allclose(in_chunks(model, inputs, 1), late, atol=1e-12)
    swapped = inputs.clone()
    swapped[:, [37, 38]] = inputs[:, [38, 37]]
    assert not torch.allclose(model(swapped, None, None)[0][:, -1], late[:, -1], atol=1e-3)
    for step, matters in (
        (35, True),
        (34, False),
    ):  # the oldest of four patterns is that of step 36, which holds step 35 too
        changed = inputs.clone()
        changed[:, step] += 1
        assert torch.allclose(model(changed, None, None)[0][:, -1], late[:, -1], atol=1e-12) != matters


def test_a_fixed_beta_is_no_parameter():
    learnt, fixed = backbone("hopfield", width=4), backbone("hopfield", width=4, learn_beta=False, beta=2.0)
    assert sum(p.numel() for p in learnt.parameters()) == sum(p.numel() for p in fixed.parameters()) + 1
    assert float(fixed.log_beta.exp()) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CNNGRUConfig, {"kernel_size": 0}),
        (CNNGRUConfig, {"n_convolutions": 0}),
        (CNNGRUConfig, {"dropout": 1.0}),
        (GRUAttentionConfig, {"context": 1}),
        (GRUAttentionConfig, {"dropout": -0.1}),
        (GRUMemoryConfig, {"n_slots": 0}),
        (GRUMemoryConfig, {"slot_width": 0}),
        (HopfieldConfig, {"n_updates": 0}),
        (HopfieldConfig, {"beta": 0.0}),
        (HopfieldConfig, {"context": 0}),
        (HopfieldConfig, {"dropout": 1.0}),
    ],
)
def test_an_option_out_of_range_is_named(config, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        config(**options)


def test_patterns_of_an_odd_width_cannot_be_turned():
    with pytest.raises(ValueError, match="not even"):
        backbone("hopfield", width=5)
