"""Mixed precision: every model that is fitted by gradient trains in it, keeps float32 where it says so, and stays close."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks import fitting
from benchmarks.evaluation import Problem, evaluate
from benchmarks.example_batch import random_batch
from benchmarks.experiment import prepare
from benchmarks.fitting import FitConfig
from benchmarks.metrics import accuracy
from benchmarks.parameters import InvalidParameter
from benchmarks.seeding import torch_generator
from benchmarks.trial import Overrides, specify
from models import registry
from models.contract import Fit, Predictor
from models.precision import MixedPrecision, in_float32, in_precision
from models.sequences import Classes, InputSpec, RealInput, SequenceBatch, TokenInput
from models.sizing import size_to_budget

CPU = torch.device("cpu")
GRADIENT = [name for name, entry in registry.entries().items() if entry.fit is Fit.GRADIENT]
MIXED = [name for name in GRADIENT if registry.entry(name).float32_only is None]
LENGTHS = torch.tensor([9, 9, 4, 7, 1, 9, 6, 8])
INPUTS = {"real": RealInput(3, 12), "tokens": TokenInput(5, 12)}


def built(name: str, inputs: InputSpec, target: Classes) -> Predictor:
    entry = registry.entry(name)
    causal = entry.refuses(inputs, target, True) is None
    config, _ = size_to_budget(entry, inputs, target, causal, entry.config, 3000)
    return registry.build(entry, inputs, target, causal, config, 0)


def batch_of(inputs: InputSpec, target: Classes, lengths: torch.Tensor = LENGTHS) -> SequenceBatch:
    return random_batch(inputs, target, lengths, torch.float32, torch_generator("test", 0))


@pytest.mark.parametrize("name", MIXED)
def test_every_model_trains_in_bfloat16_and_answers_in_float32_close_to_what_it_was(name: str) -> None:
    for target, inputs in ((Classes(4), INPUTS["tokens"]), (Classes(4, "sequence"), INPUTS["real"])):
        if registry.entry(name).refuses(inputs, target, False) is not None:
            continue
        batch, plain = batch_of(inputs, target), built(name, inputs, target)
        mixed = in_precision(copy.deepcopy(plain), "bfloat16")
        answers = [model.eval()(batch.inputs, None, batch.lengths)[0] for model in (plain, mixed)]
        exact, rounded = (answer[batch.scored] for answer in answers)
        assert rounded.dtype == torch.float32 and bool(rounded.isfinite().all())
        assert not torch.equal(rounded, exact)
        # Eight bits of every product are kept: a share of 1/256 of it, over several layers.
        assert (rounded - exact).norm() < 0.05 * exact.norm(), target
        config = FitConfig(learning_rate=1e-2)
        optimiser = fitting.make_optimiser(mixed, config)
        mixed.train()
        losses = [fitting.training_step(mixed, target, batch, optimiser, config).loss for _ in range(12)]
        assert losses[-1] < losses[0] and {loss.dtype for loss in losses} == {torch.float32}
        assert {weight.dtype for weight in mixed.parameters()} == {torch.float32}
        assert {weight.grad.dtype for weight in mixed.parameters() if weight.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", [name for name in MIXED if registry.entry(name).state != "0"])
def test_what_is_carried_keeps_its_type_and_chunks_still_compose(name: str) -> None:
    target, inputs = Classes(4), INPUTS["real"]
    mixed = in_precision(built(name, inputs, target), "bfloat16").eval()
    x = batch_of(inputs, target, torch.full((3,), 9)).inputs
    begins = mixed.initial_state(3)
    whole, after = mixed(x)
    first, state = mixed(x[:, :5])
    assert [part.dtype for part in state] == [part.dtype for part in begins] == [part.dtype for part in after]
    rest = []
    for t in range(5, 9):
        outputs, state = mixed(x[:, t : t + 1], state)
        rest.append(outputs)
    assert [part.dtype for part in state] == [part.dtype for part in begins]
    assert sum(part[0].nbytes for part in state) == mixed.state_bytes(9)
    composed = torch.cat([first, *rest], dim=1)
    assert (composed - whole).norm() < 0.03 * whole.norm()


def test_float32_is_bit_for_bit_what_a_loop_without_any_of_this_gives() -> None:
    target, inputs = Classes(4), INPUTS["real"]
    batch, plain = batch_of(inputs, target), built("gru", inputs, target)
    by_hand = copy.deepcopy(plain)
    config, optimiser = FitConfig(), torch.optim.Adam(by_hand.parameters(), 1e-3, fused=True)
    own = fitting.make_optimiser(plain, config)
    take = fitting.make_step(in_precision(plain, config.precision), target, own, config)
    for _ in range(5):
        take(batch, None)
        optimiser.zero_grad()
        outputs, _ = by_hand(batch.inputs, None, batch.lengths)
        loss = torch.nn.functional.cross_entropy(outputs[batch.scored], batch.targets[batch.scored])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), by_hand.parameters(), strict=True))


def test_a_recurrence_and_the_read_out_are_computed_in_float32_although_what_they_read_is_not() -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    @in_float32
    def recurrence(owner: object, inputs: torch.Tensor) -> None:
        seen.append((inputs.dtype, torch.is_autocast_enabled("cpu")))

    with torch.autocast("cpu", torch.bfloat16):
        recurrence(None, torch.zeros(2, dtype=torch.bfloat16))
        assert torch.is_autocast_enabled("cpu")
    recurrence(None, torch.zeros(2, dtype=torch.float64))
    assert seen == [(torch.float32, False), (torch.float64, False)]


def test_validation_and_test_are_in_the_precision_of_the_fit() -> None:
    fit = {"n_steps": 4, "evaluate_every": 2, "precision": "bfloat16"}
    experiment = prepare("adding", "transformer", 0, 2000, "cpu", {"length": 8, "n_train": 64, "n_test": 64}, fit=fit)
    experiment.fit()
    experiment.evaluate()
    assert isinstance(experiment.predictor, MixedPrecision)
    assert experiment.predictor.parameter_counts() == experiment.predictor.network.parameter_counts()
    assert (
        experiment.result.test
        == evaluate(experiment.predictor, experiment.task.problem, experiment.splits.test, CPU).values
    )
    exact = evaluate(experiment.predictor.network, experiment.task.problem, experiment.splits.test, CPU).values
    assert experiment.result.test != exact and experiment.result.test["mse"] == pytest.approx(exact["mse"], rel=0.1)


@pytest.mark.parametrize("name", sorted(set(GRADIENT) - set(MIXED)))
def test_a_model_that_needs_float32_says_so_before_anything_runs(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"fit: precision bfloat16 is not for {name}, .*; write float32 for it"):
        specify("casino", name, 0, 2000, "cpu", Overrides(fit={"precision": "bfloat16"}))


def test_a_model_that_fits_itself_is_left_as_it_is() -> None:
    trial = specify("casino", "hmm", 0, None, "cpu", Overrides(fit={"precision": "bfloat16"}))
    assert trial.fit["precision"] == "bfloat16"
    experiment = prepare("casino", "hmm", 0, None, "cpu", {"n_train": 8}, fit={"precision": "bfloat16"})
    assert not isinstance(experiment.predictor, MixedPrecision)


def test_accuracy_in_bfloat16_is_that_of_float32_on_what_was_learned() -> None:
    """Symbols that a step's own input tells: learned to the end, rounding moves no answer."""
    inputs, target = TokenInput(4, 12), Classes(4)
    batch = batch_of(inputs, target)
    batch.targets[:] = batch.inputs
    mixed = in_precision(built("lstm", inputs, target), "bfloat16")
    problem = Problem(target, (accuracy,))
    config = FitConfig(learning_rate=5e-2, n_steps=60, evaluate_every=20, batch_size=8)
    fitting.fit(mixed, problem, batch, batch, config, torch_generator("test", 1), lambda row: None)
    assert evaluate(mixed, problem, batch, CPU).values["accuracy"] == 1.0
