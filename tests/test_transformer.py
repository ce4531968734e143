"""Attention against explicit loops, positions against their formulas, caches against no caches."""

import dataclasses
import math

import pytest
import torch

from models import registry
from models.sequences import Classes, RealInput, TokenInput, last_steps, valid_steps
from models.sizing import backbone_parameters
from models.transformer import Positions

KINDS = ("rotary", "learned", "sinusoidal")
N_STEPS = 12


def build(name, scope="step", max_length=N_STEPS, **options):
    entry = registry.entry(name)
    config = dataclasses.replace(entry.config, **({"width": 8, "context": 4} | options))
    inputs = RealInput(3, max_length, 6)
    return registry.build(entry, inputs, Classes(2, scope), name == "transformer", config, 0).double().eval()


def sequences(n=3):
    return torch.randn(n, N_STEPS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def in_chunks(predictor, inputs, sizes):
    parts, state = [], None
    for chunk in inputs.split(sizes, dim=1):
        outputs, state = predictor(chunk, state)
        parts.append(outputs)
    return torch.cat(parts, dim=1), state


def position_rows(backbone, kind, n_steps):
    """What is added to the features of steps 0 … n_steps - 1, by the formulas."""
    width = backbone.width
    if kind == "learned":
        return backbone.positions.table[:n_steps]
    rows = torch.zeros(n_steps, width, dtype=torch.float64)
    if kind == "sinusoidal":
        for p in range(n_steps):
            for i in range(width // 2):
                rows[p, 2 * i] = math.sin(p / 10_000 ** (2 * i / width))
                rows[p, 2 * i + 1] = math.cos(p / 10_000 ** (2 * i / width))
    return rows


def turned(vector, p):
    """R_p x of one head, pair by pair."""
    result, width = vector.clone(), len(vector)
    for i in range(width // 2):
        angle = p / 10_000 ** (2 * i / width)
        even, odd = vector[2 * i], vector[2 * i + 1]
        result[2 * i] = even * math.cos(angle) - odd * math.sin(angle)
        result[2 * i + 1] = even * math.sin(angle) + odd * math.cos(angle)
    return result


def by_hand(predictor, inputs, kind):
    """One sequence, (T, C) → (T, K): softmax attention step by step and head by head."""
    backbone = predictor.backbone
    n_steps = len(inputs)
    hidden = backbone.project_in(predictor.encoder(inputs)) + position_rows(backbone, kind, n_steps)
    for block in backbone.blocks:
        q, k, v = block.queries_keys_values(block.attention_norm(hidden)).chunk(3, dim=-1)
        size = backbone.width // block.n_heads
        attended = torch.zeros_like(hidden)
        for head in range(block.n_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(n_steps):
                reach = range(max(0, i - backbone.context + 1), min(n_steps, i + backbone.context))
                seen = [j for j in reach if j <= i or not backbone.causal]
                turn = turned if kind == "rotary" else lambda x, p: x
                scores = [turn(q[i, part], i) @ turn(k[j, part], j) / math.sqrt(size) for j in seen]
                weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
                attended[i, part] = sum(w * v[j, part] for w, j in zip(weights, seen, strict=True))
        hidden = hidden + block.attention_out(attended)
        norm, up, _, down = block.feed_forward
        inner = up(norm(hidden))
        hidden = hidden + down(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
    return predictor.readout(backbone.project_out(backbone.norm(hidden)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["transformer", "bitransformer"])
@torch.no_grad()
def test_attention_is_that_of_explicit_loops(name, kind):
    predictor = build(name, positions=kind)
    inputs = sequences(2)
    outputs, _ = predictor(inputs)
    for row, sequence in zip(outputs, inputs, strict=True):
        assert torch.allclose(row, by_hand(predictor, sequence, kind), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cache_that_has_forgotten_its_oldest_steps_gives_what_the_whole_sequence_gives(kind):
    predictor = build("transformer", positions=kind)
    inputs = sequences()
    whole, after = predictor(inputs)
    for sizes in ([1] * N_STEPS, [5, 5, 2], [2, 9, 1]):
        chunked, state = in_chunks(predictor, inputs, sizes)
        assert torch.allclose(chunked, whole, atol=1e-12)
        assert all(torch.allclose(a, b) for a, b in zip(state, after, strict=True))


def test_attention_forgets_what_lies_beyond_its_context():
    predictor = build("transformer", n_layers=1)
    inputs = sequences(1).requires_grad_()
    outputs, state = predictor(inputs)
    outputs[0, -1, 0].backward()
    assert (inputs.grad[0] != 0).any(-1).tolist() == [False] * 8 + [True] * 4
    assert state[1].shape[1] == 3


@pytest.mark.parametrize("context", [4, 1024])
@pytest.mark.parametrize("scope", ["step", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_padded_sequence_looked_at_both_ways_is_the_sequence_alone(kind, scope, context):
    predictor = build("bitransformer", scope, positions=kind, context=context)
    inputs, lengths = sequences(), torch.tensor([N_STEPS, 1, 7])
    outputs, state = predictor(inputs, None, lengths)
    assert state == ()
    for row, sequence, n in zip(outputs, inputs, lengths.tolist(), strict=True):
        alone, _ = predictor(sequence[None, :n])
        first = 0 if scope == "step" else n - 1
        assert torch.allclose(row[first:n], alone[0, first:], atol=1e-12)


def test_padding_far_beyond_the_context_leaves_every_gradient_finite():
    predictor = build("bitransformer", context=2)
    lengths = torch.tensor([N_STEPS, 1, 3])
    outputs, _ = predictor(sequences(), None, lengths)
    outputs[valid_steps(lengths, N_STEPS)].sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in predictor.parameters())


@torch.no_grad()
def test_looking_both_ways_reaches_as_far_ahead_as_back():
    predictor = build("bitransformer", n_layers=1)
    inputs = sequences(1)
    changed = inputs.clone()
    changed[:, 6] += 1
    moved = (predictor(changed)[0] - predictor(inputs)[0]).abs().sum((0, 2)) > 1e-9
    assert moved.nonzero()[:, 0].tolist() == list(range(3, 10))


@torch.no_grad()
def test_one_answer_is_the_mean_of_the_answers_at_the_valid_steps():
    # Projection and read-out are linear, so the answer of the mean is the mean of the answers.
    inputs, lengths = sequences(), torch.tensor([N_STEPS, 1, 7])
    steps, _ = build("bitransformer", "step")(inputs, None, lengths)
    answers, _ = build("bitransformer", "sequence")(inputs, None, lengths)
    for row, n in enumerate(lengths.tolist()):
        assert torch.allclose(answers[row, n - 1], steps[row, :n].mean(0))
    assert answers[last_steps(lengths, N_STEPS)].shape == (3, 2)


def test_sinusoidal_positions_are_those_of_the_paper():
    positions = Positions("sinusoidal", 6, 1, None)
    added, rotation = positions(torch.zeros(1, 3, 6), torch.tensor([10]), None)
    assert rotation is None
    for row, p in enumerate((10, 11, 12)):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert added[0, row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert added[0, row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@torch.no_grad()
def test_learned_positions_end_at_the_longest_sequence():
    predictor = build("transformer", positions="learned")
    inputs = sequences()
    _, state = predictor(inputs)
    with pytest.raises(ValueError, match="12 learned positions, and a sequence of 13 steps"):
        predictor(inputs[:, :1], state)
    predictor(inputs[:, :5], state, torch.zeros(3, dtype=torch.int64))  # padding needs no position
    for name in ("transformer", "bitransformer"):
        with pytest.raises(ValueError, match="rotary or sinusoidal"):
            build(name, positions="learned")(torch.cat([inputs, inputs], dim=1))
        with pytest.raises(ValueError, match="rotary or sinusoidal"):
            build(name, positions="learned", max_length=None)


def test_learned_positions_count_in_the_backbone():
    entry = registry.entry("transformer")
    kind = (TokenInput(5, 30), Classes(2), True)
    counts = {
        positions: backbone_parameters(entry, *kind, dataclasses.replace(entry.config, width=8, positions=positions))
        for positions in KINDS
    }
    assert counts["learned"] - counts["rotary"] == 30 * 8
    assert counts["sinusoidal"] == counts["rotary"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context"),
        ({"n_heads": 0}, "n_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"width": 6}, "multiple"),
    ],
)
def test_an_impossible_configuration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("transformer", **options)
