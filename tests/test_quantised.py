"""Weights in int8: the rounding against its bound and against torch, and what training, loading and copying do with them."""

import copy
from dataclasses import replace

import pytest
import torch

from benchmarks import fitting
from benchmarks.evaluation import Problem
from benchmarks.metrics import accuracy
from benchmarks.seeding import torch_generator
from models import registry
from models.quantised import LEVELS, quantise
from models.sequences import Classes, RealInput, SequenceBatch, TokenInput

NAMES = ("lstm_int8", "gru_int8")
INPUTS, TARGET = RealInput(3, 50, 32), Classes(4)


def build(name, width=8, seed=0, inputs=INPUTS):
    entry = registry.entry(name)
    return registry.build(entry, inputs, TARGET, True, replace(entry.config, width=width), seed)


def sequences(seed=0, inputs=INPUTS):
    generator = torch.Generator().manual_seed(seed)
    if isinstance(inputs, TokenInput):
        return torch.randint(inputs.vocabulary, (8, 50), generator=generator)
    return torch.randn(8, 50, 3, generator=generator)


def weights(predictor):
    return {name: parameter.detach().clone() for name, parameter in predictor.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_moves_by_half_a_step_of_its_rows_scale_at_most(dtype):
    magnitudes = torch.tensor([[1e-6], [1.0], [300.0], [0.0]], dtype=dtype)
    matrix = torch.randn(4, 50, dtype=dtype, generator=torch.Generator().manual_seed(0)) * magnitudes
    stored = quantise(matrix)
    assert stored.weights.dtype == torch.int8
    assert stored.weights.abs().amax(1).tolist() == [LEVELS, LEVELS, LEVELS, 0]
    slack = 1 + 100 * torch.finfo(dtype).eps
    assert ((matrix - stored.dequantised()).abs() <= stored.scale / 2 * slack).all()


def test_the_levels_are_those_of_torchs_own_quantiser():
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    stored = quantise(matrix)
    expected = torch.fake_quantize_per_channel_affine(
        matrix, stored.scale[:, 0], torch.zeros(20, dtype=torch.int32), 0, -LEVELS, LEVELS
    )
    torch.testing.assert_close(stored.dequantised(), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [8, 16, 64])
@pytest.mark.parametrize("inputs", [INPUTS, TokenInput(11, 50, 32)], ids=lambda inputs: type(inputs).__name__)
def test_outputs_of_random_networks_move_within_the_stated_error(name, width, inputs):
    for seed in range(4):
        predictor = build(name, width, seed, inputs)
        with torch.no_grad():
            trained, _ = predictor(sequences(seed, inputs))
            quantised, _ = predictor.eval()(sequences(seed, inputs))
        error = (quantised - trained).abs().max() / trained.abs().max()
        assert 1e-4 < error <= 0.03


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_sees_int8_levels_and_training_gets_its_weights_back(name):
    predictor = build(name)
    trained = weights(predictor)
    for _ in range(2):
        predictor.eval().eval()
        for parameter, before in zip(predictor.parameters(), trained.values(), strict=True):
            if parameter.dim() == 2:
                assert torch.equal(parameter, quantise(before).dequantised())
                levels = parameter / (parameter.abs().amax(1, keepdim=True) / LEVELS)
                assert (levels - levels.round()).abs().max() < 1e-4
            else:
                assert torch.equal(parameter, before)
        predictor.train().train()
        assert same(weights(predictor), trained)


@pytest.mark.parametrize("name", NAMES)
def test_weights_loaded_in_either_mode_are_quantised_for_evaluation(name):
    checkpoint = copy.deepcopy(build(name, seed=1).state_dict())
    early, late = build(name), build(name).eval()
    early.load_state_dict(checkpoint)
    late.load_state_dict(checkpoint)
    assert same(weights(early.eval()), weights(late))
    assert not same(weights(late), checkpoint)
    assert same(weights(late.train()), checkpoint)
    assert checkpoint.keys() == weights(late).keys()


def test_a_copy_in_evaluation_goes_its_own_way():
    predictor = build("gru_int8").eval()
    twin = copy.deepcopy(predictor).double()
    with torch.no_grad():
        twin.train().network.readout.weight.zero_()
    trained = build("gru_int8")
    assert same(weights(predictor.train()), weights(trained))
    for name, weight in weights(twin).items():
        if name != "network.readout.weight":
            assert torch.equal(weight.float(), weights(trained)[name])


def test_the_training_loop_keeps_the_float_weights_of_the_checkpoint_that_int8_chose():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 6, 3, generator=generator)
    every = torch.ones(32, 6, dtype=torch.bool)
    batch = SequenceBatch(inputs, (inputs[..., 0] > 0).long(), torch.full((32,), 6), every)
    predictor = build("gru_int8")
    seen = {}

    def log(row):
        seen[row.step] = weights(predictor), weights(copy.deepcopy(predictor).eval()), row.validation_loss

    config = fitting.FitConfig(learning_rate=0.01, batch_size=16, n_steps=20, evaluate_every=5)
    fitted = fitting.fit(predictor, Problem(TARGET, (accuracy,)), batch, batch, config, torch_generator("batch"), log)
    trained, quantised, loss = seen[fitted.best_step]
    assert not predictor.training and same(weights(predictor), quantised)
    with torch.no_grad():
        assert abs(float(TARGET.loss(predictor(inputs)[0], batch)) - loss) < 1e-6
    assert same(weights(predictor.train()), trained)


def test_stored_bytes_are_one_per_weight_a_scale_per_row_and_the_biases():
    predictor = build("gru_int8", width=10)
    d, h, k = INPUTS.features, 10, TARGET.n
    matrices = {"encoder": (d, 3), "W": (3 * h, d), "U": (3 * h, h), "projection": (d, h), "read-out": (k, d)}
    n_weights = sum(rows * columns for rows, columns in matrices.values())
    n_rows = sum(rows for rows, _ in matrices.values())
    n_biases = d + 2 * 3 * h + d + k
    assert predictor.weight_bytes() == predictor.eval().weight_bytes() == n_weights + 4 * n_rows + 4 * n_biases
    assert predictor.weight_bytes() < 0.4 * sum(parameter.nbytes for parameter in predictor.parameters())
