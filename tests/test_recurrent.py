"""Recurrent networks: readable cells against torch's fused layers, and what each option does."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from models import registry
from models.recurrent import Recurrent, RecurrentConfig
from models.sequences import Classes, RealInput, last_steps, valid_steps

N, T, D, H = 5, 7, 3, 4
LENGTHS = torch.tensor([7, 3, 1, 6, 7])
KINDS = ("rnn", "rnn_relu", "lstm", "gru")
GATES = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}


def backbone(kind, bidirectional=False, seed=0, scope="step", **options):
    torch.manual_seed(seed)
    return Recurrent(kind, D, scope, bidirectional, RecurrentConfig(width=H, **options)).double()


def features(seed=1):
    return torch.randn(N, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_state(model, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(part.shape, generator=generator).double() for part in model._zeros(N))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", [{}, {"n_layers": 3}, {"n_layers": 3, "residual": True}], ids=str)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_the_readable_cell_equals_the_fused_layers_on_the_same_weights(kind, bidirectional, options, lengths):
    model = backbone(kind, bidirectional, initialisation="default", **options)
    before = None if bidirectional else random_state(model)
    valid = valid_steps(LENGTHS if lengths is not None else torch.full((N,), T), T)
    found = []
    for outputs, after in (
        model._run_fused(features(), before, lengths),
        model._run_cells(features(), before or model._zeros(N), None, lengths),
    ):
        loss = (outputs[valid] ** 2).sum() + sum((part**2).sum() for part in after)
        found.append((outputs[valid], *after, *torch.autograd.grad(loss, list(model.blocks.parameters()))))
    for fused, readable in zip(*found, strict=True):
        torch.testing.assert_close(readable, fused, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_torchs_cell_equals_the_readable_one(kind):
    model = backbone(kind, n_layers=2, residual=True, initialisation="default").eval()
    before, inputs = random_state(model), features()[:, :1]
    expected, expected_after = model._run_cells(inputs, before, None, None)
    outputs, after = model(inputs, before, None)
    torch.testing.assert_close(outputs, model.projection(expected), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(after, expected_after, rtol=1e-8, atol=1e-8)


def test_a_copy_steps_with_its_own_weights():
    model = backbone("lstm").eval()
    twin = copy.deepcopy(model).float()
    twin.load_state_dict({name: torch.zeros_like(weight) for name, weight in twin.state_dict().items()})
    inputs = features()[:, :1]
    assert model(inputs, None, None)[0].abs().min() > 0
    assert twin(inputs.float(), None, None)[0].abs().max() == 0


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_one_answer_per_sequence_comes_from_the_ends_of_both_passes(kind):
    model = backbone(kind, bidirectional=True, scope="sequence")
    packed = pack_padded_sequence(features(), LENGTHS, batch_first=True, enforce_sorted=False)
    _, ends = model.blocks[0](packed)
    ends = ends[0] if kind == "lstm" else ends  # (2, N, H)
    outputs, state = model(features(), None, LENGTHS)
    expected = model.projection(torch.cat([ends[0], ends[1]], dim=-1))
    torch.testing.assert_close(outputs[last_steps(LENGTHS, T)], expected)
    assert state == ()


@pytest.mark.parametrize(
    ("kind", "groups"), [("rnn", [[0]]), ("rnn_relu", [[0]]), ("lstm", [[0, 1, 2, 3]]), ("gru", [[0, 1], [2]])]
)
def test_layer_normalisation_takes_the_scale_out_of_each_group_of_gates(kind, groups):
    model = backbone(kind, layer_norm=True)
    weights = [model.blocks[0].weight_ih_l0, model.blocks[0].weight_hh_l0]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(generator=torch.Generator().manual_seed(3))
        for norm in (model.norms[0].inputs, model.norms[0].recurrent):
            norm.gain.uniform_(0.5, 2, generator=torch.Generator().manual_seed(4))
        expected, _ = model(features(), None, None)
        for factor, group in zip((3.0, 0.5), groups, strict=False):
            for weight in weights:
                weight.view(GATES[kind], H, -1)[group] *= factor
        scaled, _ = model(features(), None, None)
        torch.testing.assert_close(scaled, expected, rtol=0, atol=2e-3)
        weights[1].view(GATES[kind], H, -1)[groups[0][0], : H // 2] *= 3.0  # part of a group: now it matters
        assert (model(features(), None, None)[0] - expected).abs().max() > 0.02


def test_the_normalised_lstm_is_that_of_the_paper():
    model = backbone("lstm", layer_norm=True)
    layer, norms = model.blocks[0], model.norms[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(5))
        h, c = random_state(model)
        x, h, c = features()[:, 0], h[:, 0], c[:, 0]

        def normalise(z):
            return (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

        gates = normalise(x @ layer.weight_ih_l0.T) * norms.inputs.gain + layer.bias_ih_l0
        gates = gates + normalise(h @ layer.weight_hh_l0.T) * norms.recurrent.gain + layer.bias_hh_l0
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * (normalise(c) * norms.cell.weight + norms.cell.bias).tanh()
        _, after = model(features()[:, :1], random_state(model), None)
    torch.testing.assert_close(after, (h[:, None], c[:, None]))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_in_training_chunks_compose_under_the_one_mask_that_the_state_carries(kind, layer_norm):
    model = backbone(kind, n_layers=2, recurrent_dropout=0.5, layer_norm=layer_norm)
    whole, ends = model(features(), (begin := model.initial_state(N)), LENGTHS)
    assert set(begin[-1].unique().tolist()) == {0.0, 2.0}
    parts, state = [], begin
    for start, stop in ((0, 1), (1, 4), (4, T)):
        outputs, state = model(features()[:, start:stop], state, (LENGTHS - start).clamp(0, stop - start))
        parts.append(outputs)
        assert torch.equal(state[-1], begin[-1])
    valid = valid_steps(LENGTHS, T)
    torch.testing.assert_close(torch.cat(parts, dim=1)[valid], whole[valid])
    torch.testing.assert_close(state, ends)
    assert model.state_bytes(1) == sum(part[0].nbytes for part in state)


def test_a_mask_is_drawn_per_sequence_and_evaluation_has_none():
    model = backbone("gru", recurrent_dropout=0.5)
    _, state = model(features(), None, None)
    assert len({tuple(mask.flatten().tolist()) for mask in state[-1]}) > 1
    assert not torch.equal(model(features(), None, None)[1][-1], state[-1])
    model.eval()
    expected, after = model(features(), state[:1], None)
    torch.testing.assert_close(model(features(), state, None), (expected, after))
    assert len(after) == len(model.initial_state(N)) == 1
    assert len(model.train()(features(), after, None)[1]) == 2


def test_a_dropped_unit_is_not_heard_by_the_recurrent_weights():
    model = backbone("rnn", recurrent_dropout=0.5, initialisation="default")
    layer = model.blocks[0]
    deaf = torch.zeros(N, 1, H, dtype=torch.float64)
    outputs, _ = model(features(), (torch.randn(N, 1, H).double(), deaf), None)
    alone = torch.tanh(features() @ layer.weight_ih_l0.T + layer.bias_ih_l0 + layer.bias_hh_l0)
    torch.testing.assert_close(outputs, model.projection(alone))


@pytest.mark.parametrize("dropout", ["input_dropout", "layer_dropout", "recurrent_dropout"])
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"residual": True}], ids=str)
def test_dropout_acts_in_training_alone(dropout, options):
    model = backbone("lstm", n_layers=2, **{dropout: 0.5}, **options)
    first, second = (model(features(), None, None)[0] for _ in range(2))
    assert not torch.allclose(first, second)
    model.eval()
    plain = backbone("lstm", n_layers=2, **options)
    torch.testing.assert_close(model(features(), None, None), plain(features(), None, None))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_residual_layers_add_to_what_they_read(layer_norm):
    model = backbone("rnn", n_layers=3, residual=True, layer_norm=layer_norm)
    single = backbone("rnn", layer_norm=layer_norm)
    with torch.no_grad():
        for block in model.blocks[1:]:
            for parameter in block.parameters():
                parameter.zero_()
    single.blocks[0].load_state_dict(model.blocks[0].state_dict())
    single.projection.load_state_dict(model.projection.state_dict())
    torch.testing.assert_close(model(features(), None, None)[0], single(features(), None, None)[0])


def test_recurrent_weights_are_orthogonal_gate_by_gate_and_the_forget_bias_is_one():
    entry = registry.entry("lstm")
    predictor = registry.build(entry, RealInput(2), Classes(2), True, RecurrentConfig(width=6), 0)
    layers = predictor.backbone.blocks[0]
    for gate in layers.weight_hh_l0.view(4, 6, 6):
        assert torch.allclose(gate @ gate.T, torch.eye(6), atol=1e-5)
    assert layers.bias_ih_l0.view(4, 6)[1].tolist() == [1.0] * 6
    assert layers.bias_hh_l0.abs().sum() == 0


def test_the_relu_network_begins_by_adding_up_its_inputs():
    entry = registry.entry("rnn_relu")
    predictor = registry.build(entry, RealInput(2), Classes(2), True, replace(entry.config, width=6), 0)
    layer = predictor.backbone.blocks[0]
    assert torch.equal(layer.weight_hh_l0, torch.eye(6))
    inputs = torch.rand(1, 5, 32)
    drive = torch.relu(inputs @ layer.weight_ih_l0.abs().T)
    layer.weight_ih_l0.data.abs_()
    torch.testing.assert_close(layer(inputs)[0], drive.cumsum(1))


@pytest.mark.parametrize("initialisation", ["orthogonal", "default"])
def test_chrono_initialisation_spreads_the_memory_over_the_expected_steps(initialisation):
    options = RecurrentConfig(width=500, chrono_steps=101, initialisation=initialisation)
    with torch.no_grad():
        torch.manual_seed(0)
        # The gates that keep the state: forget, the LSTM's second of four; update, the GRU's second of three.
        for kind, n_gates in (("lstm", 4), ("gru", 3)):
            layer = Recurrent(kind, 1, "step", False, options).blocks[0]
            gates = (layer.bias_ih_l0 + layer.bias_hh_l0).view(n_gates, 500)
            held = gates[1].exp()
            assert 1 <= held.min() < 3 and 98 < held.max() <= 100
            assert abs(held.mean() - 50.5) < 5
            if kind == "lstm":
                assert torch.equal(gates[0], -gates[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"n_layers": 0}, "n_layers must be at least 1"),
        ({"input_dropout": 1.0}, "input_dropout is a share"),
        ({"recurrent_dropout": -0.1}, "recurrent_dropout is a share"),
        ({"chrono_steps": 2}, "chrono_steps must be at least 3"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentConfig(**options)


def test_chrono_initialisation_needs_gates():
    with pytest.raises(ValueError, match="a vanilla network has none"):
        Recurrent("rnn", D, "step", False, RecurrentConfig(width=H, chrono_steps=10))


def test_no_parameter_is_there_that_the_options_do_not_use():
    counts = {
        options: sum(p.numel() for p in Recurrent("gru", D, "step", False, options).parameters())
        for options in (RecurrentConfig(width=H), RecurrentConfig(width=H, layer_norm=True))
    }
    bare = sum(p.numel() for p in (*nn.GRU(D, H).parameters(), *nn.Linear(H, D).parameters()))
    assert list(counts.values()) == [bare, bare + 2 * 3 * H]
