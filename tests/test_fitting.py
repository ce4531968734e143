"""The training loop: clipping, batches, early stopping, faults, and what it can see."""

import dataclasses
import inspect
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks import evaluation, fitting, metrics
from benchmarks.evaluation import Problem
from benchmarks.fitting import Diverged, FitConfig, FitTimeout
from models.contract import ParameterCounts, Predictor
from models.sequences import Classes, Real, SequenceBatch, last_steps

CPU = torch.device("cpu")
LINE = Problem(Real(1), (metrics.squared_error(),))


class Affine(Predictor):
    """y = w · x + b at every step: small enough to know everything about."""

    causal = True

    def __init__(self, n_outputs=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(1, n_outputs)
        self.seen = []

    def forward(self, inputs, state=None, lengths=None):
        self.seen.append(inputs)
        return self.layer(inputs), ()

    def initial_state(self, batch_size):
        return ()

    def state_bytes(self, t):
        return 0

    def parameter_counts(self):
        return ParameterCounts(sum(p.numel() for p in self.parameters()))


def line(n=200, slope=2.0, noise=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 3, 1, generator=generator)
    targets = slope * inputs + noise * torch.randn(n, 3, 1, generator=generator)
    lengths = torch.full((n,), 3)
    return SequenceBatch(inputs, targets, lengths, last_steps(lengths, 3))


def run(predictor, train, validation, seed=0, **fields):
    rows = []
    config = FitConfig(**({"learning_rate": 0.05, "n_steps": 100, "evaluate_every": 10, "batch_size": 32} | fields))
    generator = torch.Generator().manual_seed(seed)
    fitted = fitting.fit(predictor, LINE, train, validation, config, generator, rows.append)
    return fitted, rows


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimiser_finds_the_line(optimiser):
    predictor = Affine()
    run(predictor, line(), line(seed=1), optimiser=optimiser, momentum=0.5, n_steps=300)
    assert predictor.layer.weight.item() == pytest.approx(2.0, abs=0.05)


def test_the_norm_that_is_applied_is_bounded_and_the_norm_that_is_reported_is_not():
    predictor, applied = Affine(), []
    before = predictor.layer.weight.detach().clone()
    run_config = FitConfig(optimiser="sgd", learning_rate=1.0, clip_norm=0.01, n_steps=1, batch_size=200)
    optimiser = fitting.make_optimiser(predictor, run_config)
    _, norm, _ = fitting.training_step(predictor, Real(1), line(slope=100.0), optimiser, run_config)
    applied = [p.grad for p in predictor.parameters()]
    assert torch.cat([g.flatten() for g in applied]).norm() <= 0.01 * (1 + 1e-4)
    assert norm > 10
    assert (predictor.layer.weight - before).norm() <= 0.01 * (1 + 1e-4)


def test_clipping_by_value_bounds_every_element():
    predictor = Affine()
    config = FitConfig(clip_norm=None, clip_value=0.02)
    fitting.training_step(predictor, Real(1), line(slope=100.0), fitting.make_optimiser(predictor, config), config)
    assert max(p.grad.abs().max() for p in predictor.parameters()) <= 0.02


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=80),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_every_sequence_comes_once_an_epoch(lengths, batch_size, seed):
    batches = fitting.bucketed_batches(torch.tensor(lengths), batch_size, torch.Generator().manual_seed(seed))
    for _ in range(2):
        epoch = []
        while len(epoch) < len(lengths):
            batch = next(batches).tolist()
            assert 0 < len(batch) <= batch_size
            epoch += batch
        assert sorted(epoch) == list(range(len(lengths)))


def test_bucketing_saves_padding_and_the_order_depends_on_the_generator_alone():
    lengths = torch.randint(1, 100, (1024,), generator=torch.Generator().manual_seed(0))

    def padded_steps(batches):
        return sum(int(lengths[b].max()) * len(b) for b in batches)

    def epoch(seed):
        return list(itertools.islice(fitting.bucketed_batches(lengths, 32, torch.Generator().manual_seed(seed)), 32))

    assert padded_steps(epoch(0)) < 0.7 * padded_steps(torch.arange(1024).split(32))
    assert all(torch.equal(a, b) for a, b in zip(epoch(3), epoch(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(epoch(3), epoch(4), strict=True))


def test_the_best_checkpoint_on_validation_is_the_one_that_is_kept():
    # Validation lies on another line than training, so that it is best on the way and worse at the end.
    predictor = Affine()
    validation = line(slope=1.0, seed=1)
    fitted, rows = run(predictor, line(slope=4.0), validation, learning_rate=0.1, n_steps=200)
    best = min(row.validation for row in rows)
    assert rows[-1].validation > best
    assert fitted.best_step == next(row.step for row in rows if row.validation == best)
    kept = evaluation.evaluate(predictor, LINE, validation, CPU)
    assert kept.values["mse"] == pytest.approx(best)
    assert [row.best for row in rows] == [
        row.validation == min(r.validation for r in rows[: i + 1]) for i, row in enumerate(rows)
    ]


def test_early_stopping_counts_validations_without_improvement():
    fitted, rows = run(Affine(), line(slope=4.0), line(slope=1.0, seed=1), learning_rate=0.1, n_steps=500, patience=3)
    assert fitted.steps == fitted.best_step + 30 < 500
    assert not any(row.best for row in rows[-3:])


def test_the_last_step_is_always_validated():
    _, rows = run(Affine(), line(), line(seed=1), n_steps=25, evaluate_every=10)
    assert [row.step for row in rows] == [10, 20, 25]


def test_a_loss_that_is_not_finite_names_its_first_step():
    train = line()
    train.targets[:] = torch.where(train.scored[..., None], torch.tensor(float("inf")), train.targets)
    with pytest.raises(Diverged, match=r"step 1$"):
        run(Affine(), train, line(seed=1))


def test_exploding_weights_are_found_at_the_step_where_the_loss_was_lost():
    with pytest.raises(Diverged, match=r"inf at step \d+|nan at step \d+"):
        run(Affine(), line(), line(seed=1), optimiser="sgd", learning_rate=1e30, clip_norm=None)


def test_a_fit_that_reaches_its_cap_is_a_timeout_and_not_a_result():
    with pytest.raises(FitTimeout, match="cap of 1e-09 s at step 1 of 100"):
        run(Affine(), line(), line(seed=1), max_seconds=1e-9)


def test_the_same_seed_gives_the_same_bits():
    curves = []
    for _ in range(2):
        _, rows = run(Affine(), line(noise=0.1), line(seed=1))
        curves.append(
            [dataclasses.astuple(row) if dataclasses.is_dataclass(row) else row._replace(seconds=0) for row in rows]
        )
    assert curves[0] == curves[1]


def test_the_training_loop_is_never_given_the_test_split():
    assert not {"test", "splits", "task"} & set(inspect.signature(fitting.fit).parameters)
    predictor, train, validation = Affine(), line(n=40), line(n=30, seed=1)
    run(predictor, train, validation, n_steps=20)
    given_values = set(torch.cat([train.inputs.flatten(), validation.inputs.flatten()]).tolist())
    assert {value for inputs in predictor.seen for value in inputs.flatten().tolist()} <= given_values


def test_a_cosine_schedule_ends_at_zero_and_a_constant_one_stays():
    predictor = Affine()
    for schedule, end in (("cosine", 0.0), ("constant", 0.05)):
        config = FitConfig(learning_rate=0.05, schedule=schedule, n_steps=10)
        optimiser = fitting.make_optimiser(predictor, config)
        scheduler = fitting.make_schedule(optimiser, config)
        for _ in range(10):
            optimiser.step()
            scheduler.step()
        assert optimiser.param_groups[0]["lr"] == pytest.approx(end, abs=1e-12)


def test_evaluation_counts_every_scored_step_once_whatever_the_batches(monkeypatch):
    predictor, split = Affine(3), line(n=37)
    scored = torch.rand(37, 3, generator=torch.Generator().manual_seed(0)) > 0.4
    targets = torch.randint(3, (37, 3), generator=torch.Generator().manual_seed(1))
    split = dataclasses.replace(split, targets=targets, scored=scored)
    results = []
    for size in (5, 37, 256):
        monkeypatch.setattr(evaluation, "EVALUATION_BATCH", size)
        results.append(evaluation.evaluate(predictor, Problem(Classes(3), (metrics.accuracy,)), split, CPU))
    with torch.no_grad():
        outputs = predictor(split.inputs)[0]
    by_hand = (outputs.argmax(-1) == targets)[scored].double().mean().item()
    for result in results:
        assert result.parts["accuracy"].under.tolist() == scored.sum(1).tolist()
        assert result.values["accuracy"] == pytest.approx(by_hand)
        assert result.loss == pytest.approx(Classes(3).loss(outputs, split).item(), rel=1e-6)
