"""Perceptrons against the same layers on windows and on whole sequences cut by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models import registry
from models.feed_forward import FeedForwardConfig, MLPConfig
from models.sequences import Binary, Classes, RealInput, TokenInput, Transcript
from models.sizing import size_to_budget

N_STEPS = 9


@torch.no_grad()
def test_the_windowed_perceptron_sees_each_step_and_those_before_it():
    config = FeedForwardConfig(width=5, window=4)
    predictor = registry.build(registry.entry("feed_forward"), RealInput(2, None, 3), Classes(2), True, config, 0)
    predictor = predictor.double().eval()
    inputs = torch.randn(1, N_STEPS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs, _ = predictor(inputs)
    backbone = predictor.backbone
    weight = backbone.first.weight.permute(0, 2, 1).flatten(1)  # (H, D, W) → (H, W × D)
    features = F.pad(predictor.encoder(inputs[0]), (0, 0, 3, 0))  # (3 + T, D): zeros before the beginning
    for t in range(N_STEPS):
        hidden = F.relu(weight @ features[t : t + 4].flatten() + backbone.first.bias)
        expected = predictor.readout(backbone.projection(F.relu(backbone.second(hidden))))
        assert torch.allclose(outputs[0, t], expected)


@pytest.mark.parametrize("inputs", [RealInput(6, N_STEPS, 8), RealInput(1, N_STEPS, 8), TokenInput(5, N_STEPS, 8)])
@torch.no_grad()
def test_the_mlp_is_three_layers_over_the_sequence_followed_by_zeros(inputs):
    config = MLPConfig(width=7, step_features=4)
    predictor = registry.build(registry.entry("mlp"), inputs, Classes(3, "sequence"), False, config, 0).double().eval()
    generator = torch.Generator().manual_seed(0)
    if isinstance(inputs, RealInput):
        batch = torch.randn(3, N_STEPS - 1, inputs.channels, dtype=torch.float64, generator=generator)
    else:
        batch = torch.randint(inputs.vocabulary, (3, N_STEPS - 1), generator=generator)
    lengths = torch.tensor([N_STEPS - 1, 1, 5])
    outputs, _ = predictor(batch, None, lengths)
    backbone = predictor.backbone
    n_step = 1 if inputs == RealInput(1, N_STEPS, 8) else 4
    for row, sequence, n in zip(outputs, batch, lengths.tolist(), strict=True):
        vector = torch.zeros(N_STEPS * n_step, dtype=torch.float64)
        vector[: n * n_step] = backbone.step_projection(predictor.encoder(sequence[:n])).flatten()
        hidden = backbone.third(backbone.second(backbone.first(vector).relu()).relu()).relu()
        assert torch.allclose(row[n - 1], predictor.readout(backbone.projection(hidden)))


def test_the_mlp_drops_out_before_every_layer():
    config = MLPConfig(width=400, step_features=2, input_dropout=0.5, hidden_dropout=0.25, output_dropout=0.75)
    predictor = registry.build(
        registry.entry("mlp"), RealInput(2, 300), Classes(2, "sequence"), False, config, 0
    ).train()
    backbone = predictor.backbone
    with torch.no_grad():
        for layer in (backbone.first, backbone.second, backbone.third, backbone.step_projection):
            layer.weight.fill_(0)
            layer.bias.fill_(1)  # then every unit is one, unless it is dropped
    seen = {}
    for name in ("second", "third", "projection"):
        getattr(backbone, name).register_forward_pre_hook(lambda _, x, name=name: seen.__setitem__(name, x[0]))
    torch.manual_seed(0)
    predictor(torch.zeros(4, 300, 2))
    for name, share in (("second", 0.25), ("third", 0.25), ("projection", 0.75)):
        assert (seen[name] == 0).float().mean().item() == pytest.approx(share, abs=0.05)


def test_the_mlp_refuses_what_it_has_no_weights_for():
    refuses = registry.entry("mlp").refuses
    bounded, sequence = RealInput(2, 10), Classes(2, "sequence")
    assert refuses(bounded, sequence, False) is None
    assert "no bound" in refuses(RealInput(2), sequence, False)
    assert "one answer per sequence" in refuses(bounded, Classes(2, "step"), False)
    assert "one answer per sequence" in refuses(bounded, Transcript(3), False)
    assert "whole sequence" in refuses(bounded, Binary(2, "sequence"), True)
    config = MLPConfig(width=3)
    predictor = registry.build(registry.entry("mlp"), bounded, sequence, False, config, 0)
    with pytest.raises(ValueError, match="at most 10 steps, got 11"):
        predictor(torch.zeros(1, 11, 2))


@pytest.mark.parametrize(("n_steps", "least_width"), [(29, 40), (100, 20), (784, 3)])
def test_small_budgets_leave_the_mlp_a_width_at_every_usual_length(n_steps, least_width):
    entry = registry.entry("mlp")
    config, _ = size_to_budget(entry, RealInput(12, n_steps), Classes(9, "sequence"), False, entry.config, 11_500)
    assert config.width >= least_width
    one = dataclasses.replace(entry.config, step_features=1)
    config, _ = size_to_budget(entry, RealInput(12, n_steps), Classes(9, "sequence"), False, one, 11_500)
    assert config.width > 10


@pytest.mark.parametrize(
    ("config", "options"),
    [(FeedForwardConfig, {"window": 0}), (MLPConfig, {"step_features": 0}), (MLPConfig, {"hidden_dropout": 1.0})],
)
def test_a_value_out_of_range_is_refused(config, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        config(**options)
