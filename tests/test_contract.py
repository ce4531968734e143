"""Specs, batches and their losses against torch's own and against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.sequences import Binary, Classes, Real, SequenceBatch, Transcript, last_steps, valid_steps
from models.windows import blank_padding, remember


def batch_of(targets, scored, lengths=None, target_lengths=None):
    n, longest = scored.shape
    lengths = torch.full((n,), longest) if lengths is None else lengths
    return SequenceBatch(torch.zeros(n, longest, 1), targets, lengths, scored, target_lengths)


def test_unscored_steps_do_not_count_in_any_loss():
    generator = torch.Generator().manual_seed(0)
    scored = torch.rand(4, 6, generator=generator) > 0.5
    outputs = torch.randn(4, 6, 3, generator=generator)
    cases = [
        (Classes(3), torch.randint(3, (4, 6), generator=generator)),
        (Binary(3), torch.randint(2, (4, 6, 3), generator=generator).float()),
        (Real(3), torch.randn(4, 6, 3, generator=generator)),
    ]
    for spec, targets in cases:
        loss = spec.loss(outputs, batch_of(targets, scored))
        spoilt = torch.where(scored[..., None], outputs, torch.full_like(outputs, 1e6))
        assert loss == spec.loss(spoilt, batch_of(targets, scored))
        assert loss != spec.loss(outputs, batch_of(targets, torch.ones_like(scored)))


def test_bernoulli_loss_is_the_sum_over_outputs():
    outputs, targets = torch.randn(2, 3, 88), torch.randint(2, (2, 3, 88)).float()
    p = outputs.sigmoid()
    by_hand = -(targets * p.log() + (1 - targets) * (1 - p).log()).sum(-1).mean()
    assert torch.isclose(Binary(88).loss(outputs, batch_of(targets, torch.ones(2, 3, dtype=torch.bool))), by_hand)


def test_transcript_loss_is_minus_the_log_of_the_probability_of_all_alignments():
    # Two frames, one symbol: "a" is spelt by (a, a), (a, blank) and (blank, a).
    log_p = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]]).log()
    target = batch_of(torch.tensor([[1]]), torch.ones(1, 2, dtype=torch.bool), target_lengths=torch.tensor([1]))
    assert Transcript(1).loss(log_p, target).item() == pytest.approx(-math.log(0.4 * 0.7 + 0.4 * 0.3 + 0.6 * 0.7))
    with pytest.raises(ValueError, match="target_lengths"):
        Transcript(1).loss(log_p, batch_of(torch.tensor([[1]]), torch.ones(1, 2, dtype=torch.bool)))


def test_no_other_constant_has_a_lower_loss_than_the_best_constant():
    generator = torch.Generator().manual_seed(1)
    n = 4000
    cases = [
        (Classes(3), torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), n, replacement=True, generator=generator)),
        (Binary(2), (torch.rand(n, 2, generator=generator) < torch.tensor([0.1, 0.7])).double()),
        (Real(2), torch.randn(n, 2, generator=generator).double() * 3 + 1),
    ]
    for spec, targets in cases:
        batch = batch_of(targets[None], torch.ones(1, n, dtype=torch.bool))
        best = spec.best_constant(batch)
        at_best = spec.loss(best.expand(1, n, -1), batch)
        for _ in range(20):
            other = best + torch.randn(best.shape, generator=generator) * 0.3
            assert spec.loss(other.expand(1, n, -1), batch) > at_best


def test_the_best_constant_for_the_inputs_future_is_the_last_value():
    batch = batch_of(torch.ones(1, 5, 3), torch.ones(1, 5, dtype=torch.bool))
    assert Real(3, future=True).best_constant(batch).tolist() == [0, 0, 0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_selecting_keeps_every_valid_step_and_cuts_to_the_longest(lengths, data):
    n, longest = len(lengths), max(lengths)
    inputs = torch.arange(n * longest).reshape(n, longest)
    ends = torch.tensor(lengths)
    batch = SequenceBatch(inputs, inputs, ends, last_steps(ends, longest))
    batch.validate()
    index = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6)))
    chosen = batch.select(index)
    chosen.validate()
    assert chosen.inputs.shape[1] == int(ends[index].max())
    for row, i in enumerate(index.tolist()):
        assert torch.equal(chosen.inputs[row, : lengths[i]], inputs[i, : lengths[i]])
        assert chosen.scored[row].sum() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": torch.tensor([3, 0])}, "lengths must lie"),
        ({"lengths": torch.tensor([2, 3])}, "padded step is scored"),
        ({"inputs": torch.full((2, 3, 1), float("nan"))}, "not finite"),
        ({"scored": torch.ones(2, 4, dtype=torch.bool)}, "scored"),
        ({"targets": torch.zeros(2, 1, dtype=torch.int64)}, "targets"),
    ],
)
def test_a_broken_batch_is_named(change, message):
    parts = {
        "inputs": torch.zeros(2, 3, 1),
        "targets": torch.zeros(2, 3, dtype=torch.int64),
        "lengths": torch.tensor([3, 3]),
        "scored": torch.ones(2, 3, dtype=torch.bool),
    }
    SequenceBatch(**parts).validate()
    with pytest.raises(ValueError, match=message):
        SequenceBatch(**(parts | change)).validate()


@given(st.integers(0, 5), st.integers(1, 6), st.data())
def test_memory_of_the_past_holds_the_last_valid_steps(n_past, n_steps, data):
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, n_steps), min_size=1, max_size=4)))
    keep = data.draw(st.integers(0, n_past + int(lengths.min())))
    past = torch.arange(n_past).float().expand(len(lengths), -1)[..., None]
    chunk = 100 + torch.arange(n_steps).float().expand(len(lengths), -1)[..., None]
    kept = remember(past, chunk, keep, lengths)
    for row, length in enumerate(lengths.tolist()):
        history = past[row, :, 0].tolist() + chunk[row, :length, 0].tolist()
        assert kept[row, :, 0].tolist() == history[len(history) - keep :]


def test_padding_is_blanked_and_valid_steps_are_not():
    inputs = torch.full((2, 3, 1), float("nan"))
    inputs[0], inputs[1, 0] = 1.0, 2.0
    lengths = torch.tensor([3, 1])
    blanked = blank_padding(inputs, lengths)
    assert blanked[..., 0].tolist() == [[1, 1, 1], [2, 0, 0]]
    assert valid_steps(lengths, 3).tolist() == [[True] * 3, [True, False, False]]
