"""What slots, CUDA graphs and bfloat16 save on a GPU: ``python tests/perf_gpu.py``, about five minutes on one large GPU.

Not a test: a clock decides nothing. Part of the suite gpu is run with one trial at a time and with as many as there are slots,
which should give at least `TARGET` times as many trials a minute; then single training steps are timed kernel by kernel, as
graphs and in bfloat16, on the same weights and batches, with how far apart the weights are afterwards.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.captured_steps import WARM_UP, CapturedSteps
from benchmarks.example_batch import random_batch
from benchmarks.execution import supervisor
from benchmarks.fitting import FitConfig, make_optimiser, make_step, synchronise
from benchmarks.records import Status
from benchmarks.seeding import torch_generator
from benchmarks.suite import load
from benchmarks.trial import Trial
from models import registry
from models.precision import in_precision
from models.sequences import Classes, RealInput
from models.sizing import size_to_budget

TARGET = 4.0
"""Times as many trials a minute with slots as one by one."""
MODELS = ["rnn", "lstm", "gru", "mingru", "lru", "feed_forward", "tcn", "transformer"]
BUDGET = 100_000
SIZES = ((64, 100), (256, 400))
"""Sequences and steps of the batches that single steps are timed on."""
N_TIMED = 20


def rate(trials: list[Trial], workers: int | None) -> float:
    """Trials a minute, the start of the fork server included; says which failed."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = supervisor.run(trials, dict.fromkeys((t.id for t in trials), "perf"), Path(folder), workers)
        minutes = (time.perf_counter() - started) / 60
    for result in summary.results:
        if result.status is not Status.OK:
            print(f"  {result.status}: {result.spec['model']}: {result.reason}")
    return len(trials) / minutes


def slots() -> None:
    chosen = load("gpu").trials(MODELS, ["adding"], 4, "cuda")
    trials = [replace(t, fit={**t.fit, "n_steps": 200, "evaluate_every": 50}) for t in chosen if t.mode == "quality"]
    n = supervisor.workers_for("cuda")
    print(f"Trials a minute on the suite gpu, adding over 400 steps, 200 updates; {n} slots")
    alone = rate([trial for trial in trials if trial.seed == 0], 1)
    together = rate(trials, None)
    print(
        f"  one by one {alone:.1f}, with slots {together:.1f}: {together / alone:.1f} times (target: {TARGET:g})",
        flush=True,
    )


def steps(name: str, n: int, n_steps: int) -> str:
    """Milliseconds of a training step in each way, and the largest difference of a weight from the plain way's."""
    inputs, target, device = RealInput(8, n_steps), Classes(4), torch.device("cuda")
    entry = registry.entry(name)
    causal = entry.refuses(inputs, target, True) is None
    config, _ = size_to_budget(entry, inputs, target, causal, entry.config, BUDGET)
    generator = torch_generator("perf", name)
    lengths = torch.full((n,), n_steps)
    batches = [random_batch(inputs, target, lengths, torch.float32, generator).to(device) for _ in range(4)]
    shown, weights = [], []
    for fit in (FitConfig(), FitConfig(step="graph"), FitConfig(precision="bfloat16", step="graph")):
        built = registry.build(entry, inputs, target, causal, config, 0).to(device)
        predictor = in_precision(built, fit.precision).train()
        take = make_step(predictor, target, make_optimiser(predictor, fit), fit)
        for i in range(WARM_UP + 2):
            take(batches[i % len(batches)], None)
        seconds = []
        for i in range(N_TIMED):
            synchronise(device)
            started = time.perf_counter()
            take(batches[i % len(batches)], None)
            synchronise(device)
            seconds.append(time.perf_counter() - started)
        weights.append(torch.cat([weight.detach().flatten() for weight in built.parameters()]))
        shown.append(1e3 * statistics.median(seconds))
        if isinstance(take, CapturedSteps) and take.refused:
            print(f"  {name}: {take.note}")
    plain, graph, mixed = shown
    apart = [float((other - weights[0]).abs().max() / weights[0].abs().max()) for other in weights[1:]]
    times = f"{plain:9.2f}{graph:9.2f} ({plain / graph:4.1f}×){mixed:9.2f} ({plain / mixed:4.1f}×)"
    return f"  {name:13}{n:5}{n_steps:6}{times}{apart[0]:12.1e}{apart[1]:12.1e}"


def main() -> None:
    if not torch.cuda.is_available():
        print("What slots, CUDA graphs and bfloat16 save needs a GPU to be measured, and torch sees none here.")
        return
    warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
    slots()
    total = N_TIMED + WARM_UP + 2
    print(
        f"Training step on {torch.cuda.get_device_name()}, {BUDGET:,} parameters, in ms: kernel by kernel, as a graph,"
    )
    print(
        f"as a graph in bfloat16; how far weights of the latter two are from the first's after {total} steps, of the largest"
    )
    for n, n_steps in SIZES:
        for name in MODELS:
            print(steps(name, n, n_steps), flush=True)


if __name__ == "__main__":
    main()
