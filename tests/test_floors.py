"""The floor model against numpy."""

import numpy as np
import pytest
import torch

from models.floors import ENTRIES
from models.sequences import (
    Binary,
    Classes,
    Real,
    RealInput,
    SequenceBatch,
    TargetSpec,
    TokenInput,
    Transcript,
    last_steps,
    valid_steps,
)

LENGTHS = torch.tensor([5, 2, 4])


def fitted(target: TargetSpec, targets: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """(K,) what the floor says at a step of unseen float inputs."""
    predictor = ENTRIES[0].build(RealInput(2), target, True, ENTRIES[0].config)
    batch = SequenceBatch(torch.randn(3, 5, 2), targets, LENGTHS, scored, torch.tensor([1, 1, 1]))
    predictor.fit(batch, batch, torch.Generator())
    outputs, state = predictor(torch.full((2, 3, 2), torch.nan))
    assert state == () and outputs.shape == (2, 3, target.n_outputs) and outputs.dtype == torch.float32
    assert bool((outputs == outputs[0, 0]).all())
    return outputs[0, 0]


def test_classes_get_their_log_frequencies_at_scored_steps_only():
    targets = torch.tensor([[0, 1, 1, 2, 1], [1, 1, 0, 0, 0], [2, 2, 2, 1, 0]])
    scored = valid_steps(LENGTHS, 5)
    counts = np.bincount(targets.numpy()[scored.numpy()], minlength=4) + 0.5
    outputs = fitted(Classes(4), targets, scored)
    np.testing.assert_allclose(outputs, np.log(counts / counts.sum()), rtol=1e-6)


def test_real_targets_get_their_mean_and_differences_from_the_last_value_get_zero():
    targets, scored = torch.randn(3, 5, 2), last_steps(LENGTHS, 5)
    mean = targets.numpy()[scored.numpy()].mean(0)
    np.testing.assert_allclose(fitted(Real(2, "sequence"), targets, scored), mean, rtol=1e-5)
    assert fitted(Real(2, "sequence", future=True), targets, scored).tolist() == [0, 0]


def test_binary_targets_get_the_logits_of_their_base_rates():
    targets, scored = (torch.rand(3, 5, 2) < 0.3).float(), valid_steps(LENGTHS, 5)
    rates = (targets.numpy()[scored.numpy()].sum(0) + 0.5) / (scored.sum().item() + 1)
    np.testing.assert_allclose(fitted(Binary(2), targets, scored), np.log(rates / (1 - rates)), rtol=1e-5)


def test_a_transcript_is_empty():
    outputs = fitted(Transcript(3), torch.tensor([[1], [2], [3]]), valid_steps(LENGTHS, 5))
    assert outputs.argmax() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_have_the_inputs_floating_type(dtype):
    predictor = ENTRIES[0].build(RealInput(2), Real(1), True, ENTRIES[0].config)
    assert predictor(torch.zeros(1, 2, 2, dtype=dtype))[0].dtype == dtype


def test_the_floor_carries_nothing_and_counts_its_constants():
    predictor = ENTRIES[0].build(TokenInput(3), Classes(3), False, ENTRIES[0].config)
    assert predictor.initial_state(4) == () and predictor.state_bytes(9) == 0
    assert sum(predictor.parameter_counts()) == 3
    assert predictor(torch.zeros(2, 3, dtype=torch.int64))[0].dtype == torch.get_default_dtype()
