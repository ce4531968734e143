"""The clock, the count of operations and the timing trial, on models whose cost is known."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import cost, cost_tables, records
from benchmarks.fitting import FitConfig
from benchmarks.flops import training_flops
from benchmarks.noise import Noise
from benchmarks.parameters import InvalidParameter
from benchmarks.statistics import paired_t_interval
from benchmarks.timing import exponent, seconds_of, summary, time_blocks, time_steps
from benchmarks.trial import Overrides, specify
from models import registry
from models.contract import Fit, ModelEntry, ParameterCounts, Predictor
from models.predictor import NeuralPredictor, count
from models.recurrent import Recurrent, RecurrentConfig
from models.recurrent_cells import unroll
from models.sequences import Classes, RealInput, SequenceBatch

CPU = torch.device("cpu")
MEGABYTES = 200


@dataclass(frozen=True)
class PlantedConfig:
    """sleep_s: in every forward pass. megabytes: allocated, written and let go of there."""

    sleep_s: float = 0.0
    megabytes: int = 0


class Planted(Predictor):
    """Costs what it is told to and hardly more, and learns a constant."""

    causal = True

    def __init__(self, n_outputs: int, config: PlantedConfig) -> None:
        super().__init__()
        self.config = config
        self.answer = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, inputs, state=None, lengths=None):
        time.sleep(self.config.sleep_s)
        if self.config.megabytes:
            torch.ones(self.config.megabytes * 1_000_000, dtype=torch.uint8)
        return self.answer.expand(*inputs.shape[:2], -1), ()

    def initial_state(self, batch_size):
        return ()

    def state_bytes(self, t):
        return 0

    def parameter_counts(self):
        return ParameterCounts(backbone=self.answer.numel())


def planted(name: str, config: PlantedConfig) -> ModelEntry:
    def build(inputs, target, causal, config):
        return Planted(target.n_outputs, config)

    return ModelEntry(
        name, "planted", config, build, Fit.GRADIENT, "none", "costs what it is told to", learning_rate=1e-3
    )


@pytest.fixture
def models(monkeypatch):
    """Registers entries for one test."""

    def register(*entries):
        monkeypatch.setattr(registry, "ENTRIES", [*registry.ENTRIES, *entries])
        registry.entries.cache_clear()

    yield register
    registry.entries.cache_clear()


def trial(tmp_path, model, timing=None, process=0, task="parity", **settings):
    return cost.prepare(
        task, model, process, settings.pop("parameter_budget", 2000), "cpu", fit={"batch_size": 32}, timing=timing or {},
        run_folder=str(tmp_path / f"{model}-{process}"), **settings,
    )  # fmt: skip


def result_of(prepared):
    prepared.measure()
    prepared.sweep()
    prepared.finish()
    records.promote(prepared.folder)
    return prepared.result


QUICK = {"n_warmup": 1, "n_repeats": 3, "n_blocks": 1, "n_streamed": 5}


@pytest.mark.parametrize("model", ["gru", "bilstm", "hmm", "floor"])
def test_a_trial_measures_what_its_model_has_and_no_more(model, tmp_path):
    prepared = trial(tmp_path, model, {**QUICK, "lengths": [8, 16]})
    result = result_of(prepared)
    measured = result.cost
    by_gradient, causal = prepared.by_gradient, prepared.predictor.causal
    assert (measured.training_step is not None) == (measured.training_flops is not None) == by_gradient
    assert (measured.streaming_step is not None) == causal == bool(measured.state_bytes)
    assert ("fit" in result.seconds) != by_gradient
    assert [row.length for row in measured.sweep] == [8, 16]
    assert measured.sequences_per_s > 0 and measured.inference.relative > 0
    assert measured.matrix_rate > 1e8
    assert result.test == {}


@pytest.mark.parametrize("task", ["japanese_vowels", "adding"])
def test_throughput_counts_valid_steps_and_no_padding(task, tmp_path):
    prepared = trial(tmp_path, "floor", QUICK, task=task)
    measured = prepared.measure()
    valid = sum(prepared.splits.test.lengths[: measured.inference_batch].tolist())
    assert measured.steps_per_s == pytest.approx(valid / measured.inference.median_s)
    padded = measured.inference_batch * measured.inference_length
    assert (padded == valid) == (task == "adding")
    assert replace(measured, inference_steps=None).steps_per_s is None  # a record of old


def test_a_record_reads_back_as_it_was_written(tmp_path):
    prepared = trial(tmp_path, "gru", {**QUICK, "lengths": [8]})
    written = result_of(prepared)
    folder = prepared.folder.rename(tmp_path / prepared.trial.id)
    assert records.read_result(folder) == written


def test_a_trial_by_hand_says_that_nobody_kept_the_machine_free(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "BY_HAND", tmp_path)
    prepared = cost.prepare("parity", "floor", 0, None, "cpu", timing=QUICK)
    prepared.measure()
    assert not prepared.finish().timing_valid


def test_every_process_does_the_same_work(tmp_path):
    first, second = trial(tmp_path, "gru", QUICK, 0), trial(tmp_path, "gru", QUICK, 1)
    assert first.trial.id != second.trial.id
    assert torch.equal(first.batch.inputs, second.batch.inputs)
    assert all(
        torch.equal(a, b) for a, b in zip(first.predictor.parameters(), second.predictor.parameters(), strict=True)
    )


def test_machine_and_settings_are_part_of_a_timing_trials_id_alone():
    timed = specify("parity", "lstm", 0, 2000, "cpu", mode="timing")
    assert timed.machine["torch"] == torch.__version__
    assert replace(timed, machine={**timed.machine, "processor": "another"}).id != timed.id
    assert specify("parity", "lstm", 0, 2000, "cpu", Overrides(timing={"threads": 2}), "timing").id != timed.id
    judged = specify("parity", "lstm", 0, 2000, "cpu")
    assert judged.timing == judged.machine == {}
    with pytest.raises(InvalidParameter, match="mode timing"):
        specify("parity", "lstm", 0, 2000, "cpu", Overrides(timing={"threads": 2}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_repeats": 0}, "n_repeats"),
        ({"lengths": [64, 32]}, "rising"),
        ({"lengths": [1]}, "at least 2"),
        ({"threads": "2"}, "threads"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(wrong, message):
    with pytest.raises(InvalidParameter, match=message):
        specify("parity", "lstm", 0, 2000, "cpu", Overrides(timing=wrong), "timing")


def test_a_summary_has_the_quantiles_and_names_the_noise():
    times = summary([1.0] * 10 + [1.3] * 9 + [2.0])
    assert (times.median_s, times.fastest_s, times.slowest_s, times.n) == (1.15, 1.0, 2.0, 20)
    assert times.spread == pytest.approx(0.3 / 1.15)
    assert len(times.noise("it")) == 2
    steady = summary([1.0, 1.01, 0.99, 1.0])
    assert steady.noise("it") == [] and steady.relative is None and steady.compared == steady.median_s == 1.0


def test_a_change_of_speed_shows_in_the_fixed_work_and_goes_out_of_the_ratio():
    slowness = [1.0] * 10 + [2.0] * 10
    times = summary([0.004 * x for x in slowness], [0.002 * x for x in slowness])
    assert times.relative == times.compared == pytest.approx(2)
    assert times.drift == pytest.approx(0.002 / 0.003)
    assert any(line.startswith("speed of the machine") for line in times.noise("it"))


def test_the_exponent_is_that_of_the_upper_half():
    lengths = [64, 128, 256, 512, 1024, 2048, 4096]
    assert exponent(lengths, [n**2 for n in lengths]) == pytest.approx(2)
    assert exponent(lengths, [max(512, n) for n in lengths]) == pytest.approx(1)
    assert math.isnan(exponent([64], [1.0]))


def example(n_sequences=4, n_steps=10, channels=3):
    inputs = torch.randn(n_sequences, n_steps, channels, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(n_sequences, n_steps, dtype=torch.int64)
    return SequenceBatch(
        inputs, targets, torch.full((n_sequences,), n_steps), torch.ones_like(targets, dtype=torch.bool)
    )


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_flops_of_a_fused_recurrence_equal_the_formula_and_the_readable_cell(kind, gates):
    b, t, d, h, channels, k = 4, 10, 8, 16, 3, 5
    backbone = Recurrent(kind, d, "step", False, RecurrentConfig(width=h))
    predictor = NeuralPredictor(RealInput(channels, None, d), Classes(k), backbone)
    counted = training_flops(predictor, Classes(k), example(b, t, channels), FitConfig())
    # Forwards, and backwards twice: for the weights and for what was read; the inputs of the encoder and the first state,
    # which is zero, need no gradient.
    cell = 2 * b * t * gates * h * (d + h) * 3 - 2 * b * gates * h * h
    rest = 2 * b * t * (channels * d * 2 + h * d * 3 + d * k * 3)
    assert counted == cell + rest

    readable = NeuralPredictor(
        RealInput(channels, None, d), Classes(k), Recurrent(kind, d, "step", False, RecurrentConfig(width=h))
    )
    readable.backbone.forward = by_cells(readable.backbone)
    assert training_flops(readable, Classes(k), example(b, t, channels), FitConfig()) == counted


def by_cells(backbone):
    """The forward pass of a recurrent backbone of one layer by its readable cell."""

    def forward(features, state, lengths):
        zeros = backbone._zeros(len(features))
        before = tuple(part[:, 0] for part in zeros)
        outputs, _ = unroll(backbone.kind.cell, backbone._weights()[0], backbone.norms[0], features, before, None, None)
        return backbone.projection(outputs), ()

    return forward


def test_flops_of_attention_are_counted():
    entry = registry.entry("transformer")
    spec, target = RealInput(3, None, 8), Classes(2)
    short, long = (
        training_flops(
            registry.build(entry, spec, target, True, replace(entry.config, width=8), 0),
            target,
            example(2, t),
            FitConfig(),
        )
        for t in (32, 64)
    )
    products = (
        2 * 2 * 2 * 2 * 8 * 3
    )  # two products of H numbers for each pair of steps, two layers, B = 2, forwards and back
    assert long - 2 * short == products * (64**2 - 2 * 32**2)


def test_counting_leaves_torch_as_it_was():
    before = torch.backends.mkldnn.is_available(), torch._C._get_mkldnn_enabled()
    predictor = NeuralPredictor(RealInput(3, None, 8), Classes(2), Planted(8, PlantedConfig()))
    assert training_flops(predictor, Classes(2), example(), FitConfig()) > 0
    assert (torch.backends.mkldnn.is_available(), torch._C._get_mkldnn_enabled()) == before
    assert count(predictor) == 3 * 8 + 8 + 8 + 8 * 2 + 2


def test_allocating_200_megabytes_shows_as_such(models, tmp_path):
    models(planted("greedy", PlantedConfig(megabytes=MEGABYTES)))
    prepared = trial(tmp_path, "greedy", QUICK)
    training = prepared._peak(lambda: prepared._training(prepared._built(), prepared.batch))
    inference = prepared._peak(lambda: prepared._inference(prepared.answered))
    assert cost_tables.peak_mb(training) == pytest.approx(MEGABYTES, rel=0.05)
    assert cost_tables.peak_mb(inference) == pytest.approx(MEGABYTES, rel=0.05)


def test_the_sweep_ends_after_a_step_that_takes_too_long_and_says_so(models, tmp_path):
    models(planted("sleeper", PlantedConfig(sleep_s=0.01)))
    timing = {**QUICK, "lengths": [4, 8, 16], "sweep_stop_s": 0.005, "sweep_warmup": 0, "sweep_repeats": 1}
    measured = result_of(trial(tmp_path, "sleeper", timing)).cost
    assert [row.length for row in measured.sweep] == [4]
    assert "ended at 4 steps" in measured.sweep_note


@pytest.mark.slow
def test_a_step_that_sleeps_10_ms_takes_10_ms(models, tmp_path):
    models(planted("sleeper", PlantedConfig(sleep_s=0.01)))
    assert time_steps([lambda: time.sleep(0.01)], 2, 20, CPU).median_s == pytest.approx(0.01, rel=0.05)
    assert time_blocks(lambda: time.sleep(0.01), 2, 20, CPU).median_s == pytest.approx(0.01, rel=0.05)
    measured = result_of(trial(tmp_path, "sleeper")).cost
    slept = statistics.median(seconds_of(lambda: time.sleep(0.01), CPU) for _ in range(20))  # a system may oversleep
    assert measured.streaming_step.median_s == pytest.approx(slept, rel=0.05)


def _busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


@pytest.mark.slow
def test_a_busy_neighbour_raises_the_warning():
    context = multiprocessing.get_context("spawn")
    neighbours = [context.Process(target=_busy, args=(6.0,)) for _ in range(2 * (os.cpu_count() or 1))]
    for neighbour in neighbours:
        neighbour.start()
    time.sleep(2.0)
    noise = Noise("cpu")
    _busy(2.0)
    warnings = noise.warnings()
    for neighbour in neighbours:
        neighbour.join()
    assert any("more work than" in warning for warning in warnings)


@pytest.mark.slow
def test_the_time_of_attention_grows_towards_the_square_and_that_of_a_recurrence_linearly(tmp_path):
    lengths = [256, 512, 1024, 2048, 4096]
    timing = {**QUICK, "lengths": lengths, "sweep_warmup": 1, "sweep_repeats": 3}
    found = {}
    for model, config in (("lstm", {}), ("transformer", {"context": 4096})):
        rows = result_of(trial(tmp_path, model, timing, parameter_budget=11500, model_config=config)).cost.sweep
        found[model] = exponent([row.length for row in rows], [row.training_step_compared for row in rows])
    sys.stdout.write(f"exponents of the training step: {found}\n")
    # A longer sequence also fits the caches less well, which adds to the exponent at these lengths.
    assert 0.7 < found["lstm"] < 1.4
    assert 1.5 < found["transformer"] < 2.5


N_STUDIES, N_PROCESSES = 20, 5


@pytest.mark.slow
def test_equal_costs_are_told_apart_no_more_often_than_chance_has_it_and_a_quarter_more_nearly_always(models, tmp_path):
    """Within one process: what differs between processes comes on top (CONTRIBUTING has how much)."""
    models(replace(registry.entry("gru"), name="gru_twin"))
    steps = {}
    for model in ("gru", "gru_twin"):
        prepared = [trial(tmp_path, model, process=process) for process in range(N_PROCESSES)]
        steps[model] = prepared
    logs = {model: np.empty((N_STUDIES, N_PROCESSES)) for model in steps}
    for study, process in np.ndindex(N_STUDIES, N_PROCESSES):  # round-robin, as a suite runs them
        for model, prepared in steps.items():
            logs[model][study, process] = math.log(prepared[process]._time_training().compared)
    n_apart = {}
    for planted in (1.0, 1.25):
        found = [paired_t_interval(a + math.log(planted), b) for a, b in zip(*logs.values(), strict=True)]
        n_apart[planted] = sum(not low <= 0 <= high for _, low, high in found)
    sys.stdout.write(f"{N_STUDIES} studies of {N_PROCESSES} processes, told apart: {n_apart}\n")
    assert n_apart[1.0] <= 3 and n_apart[1.25] >= 16
