"""Steps from graphs are the steps that are taken without: which are captured, when, and what is said of the others.

Without a GPU a graph is played by a stand-in that takes its step anew from the places in memory where a graph would read.
"""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks import fitting
from benchmarks.captured_steps import MAX_GRAPHS, WARM_UP, CapturedSteps, Graph, Step, Take
from benchmarks.evaluation import Problem
from benchmarks.experiment import prepare
from benchmarks.fitting import FitConfig, Update
from benchmarks.metrics import squared_error
from benchmarks.seeding import torch_generator
from models import registry
from models.contract import Fit, Predictor, State
from models.precision import in_precision
from models.sequences import (
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

CPU = torch.device("cpu")
INPUTS, TARGET = RealInput(2, 12), Real(1, "sequence")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class StandIn:
    """A recorder without a GPU. Its graphs take no step when they are made, like others, and leave what they find in one place.

    waits: what it says of steps on the way to a graph. replays: of each graph, so far.
    """

    def __init__(self, waits: bool = False) -> None:
        self.waits = waits
        self.replays: list[int] = []

    def watch(self, step: Step) -> tuple[Update, bool]:
        return step(), self.waits

    def capture(self, step: Step) -> Graph:
        number, kept = len(self.replays), [torch.tensor(torch.nan), torch.tensor(torch.nan)]
        self.replays.append(0)
        # Places of the state are made with its first value, for their shapes are not known before.
        places: list[Tensor] = []

        def replay() -> None:
            self.replays[number] += 1
            loss, norm, after = step()
            places.extend(part.clone() for part in after[len(places) :])
            for place, value in zip([*kept, *places], [loss, norm, *after], strict=True):
                place.copy_(value)

        return Graph(Update(kept[0], kept[1], places), replay)  # type: ignore[arg-type]


def batch_of(lengths: list[int], seed: int, target: Classes | Real = TARGET) -> SequenceBatch:
    n, ends, generator = len(lengths), torch.tensor(lengths), torch.Generator().manual_seed(seed)
    longest = int(ends.max())
    valid = valid_steps(ends, longest)
    inputs = torch.randn(n, longest, 2, generator=generator) * valid[..., None]
    scored = valid if target.scope == "step" else last_steps(ends, longest)
    targets = (
        torch.randint(target.n, (n, longest), generator=generator)
        if isinstance(target, Classes)
        else inputs.cumsum(1)[..., :1].clone()
    )
    return SequenceBatch(inputs, targets, ends, scored)


def built(
    name: str = "gru", device: torch.device = CPU, target: Classes | Real = TARGET, **options: object
) -> Predictor:
    entry = registry.entry(name)
    assert entry.width is not None
    config = replace(entry.config, **{entry.width: 8, **options})
    return registry.build(entry, INPUTS, target, entry.refuses(INPUTS, target, True) is None, config, 0).to(device)


def captured(
    predictor: Predictor, target: TargetSpec = TARGET, waits: bool = False, **fields: object
) -> tuple[CapturedSteps, StandIn]:
    config, recorder = FitConfig(**fields), StandIn(waits)  # type: ignore[arg-type]
    optimiser = fitting.make_optimiser(predictor, config)

    def take(batch: SequenceBatch, state: State | None = None) -> Update:
        return fitting.training_step(predictor, target, batch, optimiser, config, state)

    return CapturedSteps(predictor, take, recorder), recorder


def eager(predictor: Predictor, target: Classes | Real = TARGET, **fields: object) -> Take:
    config = FitConfig(**fields)  # type: ignore[arg-type]
    return fitting.make_step(predictor, target, fitting.make_optimiser(predictor, config), config)


@pytest.mark.parametrize("target", [TARGET, Real(1), Classes(3, "sequence"), Classes(3)])
def test_steps_from_graphs_give_the_same_bits_ragged_batches_included(target: Classes | Real) -> None:
    plain = built(target=target)
    other = copy.deepcopy(plain)
    take, (steps, recorder) = eager(plain, target), captured(other, target)
    sizes = [[9] * 4, [9] * 4, [9, 3, 9, 7], [9] * 2, [9] * 4, [9] * 4, [5] * 4, [9] * 2, [9] * 4, [9] * 2, [9] * 2]
    for seed, lengths in enumerate(sizes):
        batch = batch_of(lengths, seed, target)
        expected, found = take(batch, None), steps(batch)
        assert torch.equal(expected.loss, found.loss) and torch.equal(expected.norm, found.norm), seed
        assert all(torch.equal(a, b) for a, b in zip(expected.state, found.state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert recorder.replays == [3, 2]
    assert steps.note == "5 steps from 2 CUDA graphs; one by one: 5 to warm up, 1 of batches with padding"


def test_what_a_graph_found_is_kept_when_it_runs_again() -> None:
    steps, recorder = captured(built())
    updates = [steps(batch_of([6] * 4, seed)) for seed in range(WARM_UP + 3)]
    assert recorder.replays == [3]
    assert len({float(update.loss) for update in updates}) == len(updates)


def test_a_stream_is_read_from_graphs_window_by_window_with_its_state() -> None:
    plain = built("lstm", target=Classes(3))
    other = copy.deepcopy(plain)
    take, (steps, recorder) = eager(plain, Classes(3)), captured(other, Classes(3))
    state, own = None, None
    for window in itertools.islice(itertools.cycle(batch_of([40] * 3, 0, Classes(3)).windows(8)), 20):
        expected, found = take(window, state), steps(window, own)
        state, own = expected.state, found.state
        # A window lies otherwise in memory than its copy, and products are then summed in another order.
        torch.testing.assert_close(expected.loss, found.loss)
    torch.testing.assert_close(list(plain.parameters()), list(other.parameters()))
    # The one window without a state before it came once, and a single batch is no reason for a graph.
    assert recorder.replays == [19 - WARM_UP]


def test_no_more_graphs_are_made_than_memory_is_set_aside_for() -> None:
    steps, recorder = captured(built())
    for _ in range(WARM_UP + 1):
        for longest in range(2, MAX_GRAPHS + 4):
            steps(batch_of([longest] * 2, longest))
    assert recorder.replays == [1] * MAX_GRAPHS
    assert f"{2 * (WARM_UP + 1)} of further shapes" in steps.note


def test_transcripts_whose_lengths_the_loss_reads_on_the_host_are_taken_one_by_one() -> None:
    batch = batch_of([6] * 4, 0, Classes(3))
    batch = replace(batch, targets=torch.ones(4, 2, dtype=torch.int64), target_lengths=torch.full((4,), 2))
    predictor, target = built(target=Classes(3)), Transcript(2)
    steps, recorder = captured(predictor, target)  # type: ignore[arg-type]
    for _ in range(WARM_UP + 2):
        steps(batch)
    assert not recorder.replays and steps.note.endswith(f"{WARM_UP + 2} of batches with padding")


def test_a_model_that_replaces_its_own_tensors_is_not_captured_for_a_graph_would_read_the_old_ones() -> None:
    inputs, target = RealInput(2, 12), Classes(3, "sequence")
    entry = registry.entry("neural_hmm")
    predictor = registry.build(entry, inputs, target, True, replace(entry.config, n_states=3), 0)
    steps, recorder = captured(predictor, target)
    for seed in range(6):
        steps(batch_of([6] * 4, seed, target))
    assert not recorder.replays
    assert steps.note == (
        "0 steps from 0 CUDA graphs; one by one: 1 to warm up, "
        "5 because the model puts new tensors in the place of its own"
    )


def test_a_step_in_which_the_host_waits_is_not_captured() -> None:
    steps, recorder = captured(built(), waits=True)
    for seed in range(4):
        steps(batch_of([6] * 4, seed))
    assert not recorder.replays and "3 because the host waits for the GPU in the step" in steps.note


def test_a_fit_that_asks_for_graphs_is_the_same_on_a_cpu_and_its_record_says_why() -> None:
    results = []
    for step in ("eager", "graph"):
        fit = {"n_steps": 6, "evaluate_every": 3, "step": step}
        experiment = prepare("adding", "gru", 0, 2000, "cpu", {"length": 8, "n_train": 200, "n_test": 50}, fit=fit)
        experiment.fit()
        experiment.evaluate()
        results.append(experiment.finish())
    assert results[0].test == results[1].test and results[0].fit_note is None
    assert results[1].fit_note == ("0 steps from 0 CUDA graphs; one by one: 6 because only a GPU has graphs")


# Without neural_hmm, which replaces its own tensors, and mlp, whose dropout is drawn in another order.
GRAPHED = [
    name
    for name, entry in registry.entries().items()
    if entry.fit is Fit.GRADIENT and name not in ("neural_hmm", "mlp")
]


@GPU
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", GRAPHED)
def test_on_a_gpu_steps_from_graphs_equal_those_without(name: str, precision: str) -> None:
    cuda, target = torch.device("cuda"), Classes(3, "sequence")
    plain = in_precision(built(name, cuda, target), precision)  # type: ignore[arg-type]
    other = copy.deepcopy(plain)
    takes = []
    for predictor, step in ((plain, "eager"), (other, "graph")):
        config = FitConfig(step=step, schedule="cosine", n_steps=20)  # type: ignore[arg-type]
        optimiser = fitting.make_optimiser(predictor, config)
        take = fitting.make_step(predictor, target, optimiser, config)
        takes.append((predictor.train(), take, fitting.make_schedule(optimiser, config)))
    for seed in range(20):
        batch = batch_of([9, 3, 7, 9] if seed % 7 == 3 else [9] * 4, seed, target).to(cuda)
        losses = []
        for _, take, schedule in takes:
            losses.append(take(batch, None).loss)
            schedule.step()
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    steps = takes[1][1]
    assert isinstance(steps, CapturedSteps)
    assert steps.refused is None and steps.counts["from graphs"] > 10, steps.note
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@GPU
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "rmsprop", "sgd"])
def test_on_a_gpu_every_optimiser_and_a_falling_rate_are_captured(optimiser: str) -> None:
    predictors = [built("lstm", torch.device("cuda")) for _ in range(2)]
    train = batch_of([9] * 64, 0).to(torch.device("cuda"))
    problem = Problem(TARGET, (squared_error(),))
    for predictor, step in zip(predictors, ("eager", "graph"), strict=True):
        fields = {"optimiser": optimiser, "schedule": "cosine", "step": step, "momentum": 0.5, "clip_value": 0.1}
        config = FitConfig(n_steps=30, evaluate_every=10, batch_size=16, **fields)  # type: ignore[arg-type]
        fitted = fitting.fit(predictor, problem, train, train, config, torch_generator("test", 0), lambda row: None)
    assert fitted.note == f"{30 - WARM_UP} steps from 1 CUDA graphs; one by one: {WARM_UP} to warm up"
    for a, b in zip(*(predictor.parameters() for predictor in predictors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@GPU
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
def test_on_a_gpu_a_step_that_waits_is_seen_before_it_is_captured() -> None:
    class Waiting(Predictor):
        causal = True

        def __init__(self) -> None:
            super().__init__()
            self.network = built("gru")

        def forward(
            self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
        ) -> tuple[Tensor, State]:
            outputs, after = self.network(inputs, state, lengths)
            return outputs * float(outputs.detach().isfinite().all()), after

        def initial_state(self, batch_size: int) -> State:
            return self.network.initial_state(batch_size)

        def state_bytes(self, t: int) -> int:
            return self.network.state_bytes(t)

        def parameter_counts(self):  # type: ignore[no-untyped-def]
            return self.network.parameter_counts()

    cuda = torch.device("cuda")
    predictor = Waiting().to(cuda)
    config = FitConfig(step="graph")
    steps = fitting.make_step(predictor, TARGET, fitting.make_optimiser(predictor, config), config)
    for seed in range(4):
        steps(batch_of([6] * 4, seed).to(cuda), None)
    assert isinstance(steps, CapturedSteps) and "3 because the host waits" in steps.note


FAILING = """
import torch
from benchmarks.captured_steps import CaptureFailed, CUDARecorder
try:
    CUDARecorder(torch.device("cuda")).capture(lambda: torch.ones(1, device="cuda").item())
except CaptureFailed as error:
    assert "write fit: {step: eager}" in str(error)
else:
    raise SystemExit("captured")
"""


@GPU
def test_on_a_gpu_a_capture_that_fails_says_what_to_write() -> None:
    """In a process of its own: what a broken capture leaves behind is not to be trusted."""
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@GPU
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
def test_on_a_gpu_a_graph_draws_its_dropout_anew_each_time() -> None:
    cuda, target = torch.device("cuda"), Classes(3, "sequence")
    predictor, config = built("mlp", cuda, target).train(), FitConfig(step="graph", optimiser="sgd", learning_rate=0.0)
    take = fitting.make_step(predictor, target, fitting.make_optimiser(predictor, config), config)
    batch = batch_of([9] * 4, 0, target).to(cuda)
    assert len({float(take(batch, None).loss) for _ in range(8)}) > 4


def test_tokens_too_are_read_from_where_the_graph_reads() -> None:
    entry, target = registry.entry("transformer"), Classes(4)
    plain = registry.build(entry, TokenInput(4, 12), target, True, replace(entry.config, width=8), 0)
    other = copy.deepcopy(plain)
    take, (steps, recorder) = eager(plain, target), captured(other, target)
    for seed in range(6):
        tokens = torch.randint(4, (3, 7), generator=torch.Generator().manual_seed(seed))
        lengths = torch.full((3,), 7)
        batch = SequenceBatch(tokens, tokens, lengths, valid_steps(lengths, 7))
        assert torch.equal(take(batch, None).loss, steps(batch).loss)
    assert recorder.replays == [6 - WARM_UP]
