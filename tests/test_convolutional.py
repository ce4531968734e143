"""Receptive fields against their formula, the fully convolutional network against torch's layers put together by hand."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import registry
from models.convolutional import TCNConfig, blocks_to_cover, receptive_field
from models.sequences import Classes, RealInput

N_STEPS = 15
LENGTHS = torch.tensor([N_STEPS, 1, 9, 4])


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [2, 5])
def test_the_measured_receptive_field_of_the_tcn_is_the_formula(kernel_size, n_blocks):
    entry = registry.entry("tcn")
    config = TCNConfig(width=3, kernel_size=kernel_size, n_blocks=n_blocks)
    predictor = registry.build(entry, RealInput(1, None, 4), Classes(2), True, config, 0).double()
    with torch.no_grad():
        for convolution in predictor.backbone.convolutions:
            convolution.convolution.weight = torch.ones_like(convolution.convolution.weight)
    field = receptive_field(kernel_size, n_blocks)
    inputs = torch.ones(1, field + 5, 1, dtype=torch.float64, requires_grad=True)
    for parameter in predictor.parameters():
        parameter.data.abs_()
    predictor(inputs)[0][0, -1, 0].backward()
    assert int((inputs.grad[0, :, 0] != 0).sum()) == field


def test_blocks_cover_the_longest_sequence_and_one_fewer_would_not():
    for kernel_size in (2, 3, 5, 7):
        for length in range(2, 400):
            n = blocks_to_cover(length, kernel_size)
            assert receptive_field(kernel_size, n) >= length
            assert n == 1 or receptive_field(kernel_size, n - 1) < length


@torch.no_grad()
def test_a_convolution_of_the_tcn_and_its_relu_keep_the_power_of_their_input_at_first():
    predictor = registry.build(
        registry.entry("tcn"), RealInput(1, None, 64), Classes(2), True, TCNConfig(width=64, n_blocks=4), 0
    )
    for i, convolution in enumerate(predictor.backbone.convolutions):
        inputs = torch.randn(2, 500, 64, generator=torch.Generator().manual_seed(i))
        outputs, _ = convolution(inputs, torch.zeros(2, convolution.past, 64), None)
        outputs = F.relu(outputs)[:, convolution.past :]  # past the zeros that stand before the beginning
        assert 0.75 < float(outputs.square().mean()) < 1.25


def fcn(scope="step"):
    entry = registry.entry("fcn")
    config = dataclasses.replace(entry.config, width=4)
    predictor = registry.build(entry, RealInput(2, N_STEPS, 3), Classes(5, scope), False, config, 0).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in predictor.backbone.norms:  # as after some training, so that no part of it can be left out unseen
            for part in (norm.weight, norm.bias, norm.running_mean):
                part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator, dtype=torch.float64) + 0.5)
    return predictor


def sequences():
    return torch.randn(len(LENGTHS), N_STEPS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("training", [True, False])
def test_the_fcn_is_torchs_layers_put_together(training):
    predictor, inputs = fcn().train(training), sequences()
    hidden = predictor.encoder(inputs).transpose(1, 2)
    norms = copy.deepcopy(predictor.backbone.norms)
    outputs, state = predictor(inputs)
    channels = (3, 4, 8, 4)
    for i, (kernel_size, sides) in enumerate(((8, (3, 4)), (5, (2, 2)), (3, (1, 1)))):
        convolution = nn.Conv1d(channels[i], channels[i + 1], kernel_size, bias=False)
        convolution.weight = predictor.backbone.convolutions[i].weight
        hidden = norms[i](convolution(F.pad(hidden, sides))).relu()
    expected = predictor.readout(predictor.backbone.projection(hidden.transpose(1, 2)))
    assert state == ()
    assert torch.allclose(outputs, expected, atol=1e-12)
    for norm, other in zip(predictor.backbone.norms, norms, strict=True):
        assert torch.allclose(norm.running_mean, other.running_mean)
        assert torch.allclose(norm.running_var, other.running_var)


def test_in_training_statistics_are_those_of_the_valid_steps_alone():
    predictor, inputs = fcn().train(), sequences()
    for row, n in enumerate(LENGTHS.tolist()):
        inputs[row, n:] = float("nan")
    parts = [predictor.encoder(row[:n]).T for row, n in zip(inputs, LENGTHS.tolist(), strict=True)]  # (D, n) each
    expected_means, expected_variances = [], []
    for i, norm in enumerate(predictor.backbone.norms):
        weight = predictor.backbone.convolutions[i].weight
        k = weight.shape[2]
        parts = [F.conv1d(F.pad(part, ((k - 1) // 2, k // 2)), weight) for part in parts]
        joined = torch.cat(parts, dim=1)  # (n, N): every valid step of every sequence
        mean, variance = joined.mean(1, keepdim=True), joined.var(1, unbiased=False, keepdim=True)
        expected_means.append(0.9 * norm.running_mean + 0.1 * mean[:, 0])
        expected_variances.append(0.9 * norm.running_var + 0.1 * joined.var(1))
        scale, shift = norm.weight[:, None], norm.bias[:, None]
        parts = [((part - mean) / (variance + 1e-5).sqrt() * scale + shift).relu() for part in parts]
    outputs, _ = predictor(inputs, None, LENGTHS)
    for row, part, n in zip(outputs, parts, LENGTHS.tolist(), strict=True):
        assert torch.allclose(row[:n], predictor.readout(predictor.backbone.projection(part.T)), atol=1e-10)
    for norm, mean, variance in zip(predictor.backbone.norms, expected_means, expected_variances, strict=True):
        assert torch.allclose(norm.running_mean, mean)
        assert torch.allclose(norm.running_var, variance)


@torch.no_grad()
def test_one_answer_is_the_mean_of_the_answers_at_the_valid_steps():
    # Projection and read-out are linear, so the answer of the mean is the mean of the answers.
    steps, _ = fcn("step").eval()(sequences(), None, LENGTHS)
    answers, _ = fcn("sequence").eval()(sequences(), None, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        assert torch.allclose(answers[row, n - 1], steps[row, :n].mean(0))
