"""How fast the recurrent models are beside bare torch.nn modules of the same size, in one run: ``make perf``.

Not a test: a clock on a shared machine decides nothing. Rivals take turns, and the median over the rounds counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from scipy.stats import binom
from torch import Tensor, nn

from benchmarks.fitting import FitConfig, make_optimiser, training_step
from models import registry
from models.sequences import Classes, RealInput, SequenceBatch

SPECS = (RealInput(8, None, 32), Classes(4), True)
BATCH, STEPS, WIDTH = 32, 100, 64
FUSED = ("rnn", "rnn_relu", "lstm", "gru", "birnn", "bilstm", "bigru", "deep_rnn", "deep_lstm", "deep_gru")
UNFUSED = {"lstm": ("recurrent_dropout", 0.1), "deep_lstm": ("layer_norm", True)}
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Bare(nn.Module):
    """The same parts, written down as anyone would."""

    def __init__(self, kind: str, n_layers: int, bidirectional: bool, nonlinearity: str) -> None:
        super().__init__()
        options = {"nonlinearity": nonlinearity} if kind == "rnn" else {}
        self.encoder = nn.Linear(8, 32)
        self.layers = LAYERS[kind](32, WIDTH, n_layers, batch_first=True, bidirectional=bidirectional, **options)
        self.projection = nn.Linear(WIDTH * (1 + bidirectional), 32)
        self.readout = nn.Linear(32, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.readout(self.projection(self.layers(self.encoder(inputs))[0]))


def rounds(rivals: Sequence[Callable[[], object]], n_rounds: int, n_calls: int = 1) -> list[list[float]]:
    """Seconds per call of each in every round; rivals go forwards and backwards by turns, so that none comes first."""
    seconds: list[list[float]] = [[] for _ in rivals]
    for turn in range(n_rounds + 1):
        for call, kept in list(zip(rivals, seconds, strict=True))[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            for _ in range(n_calls):
                call()
            if turn:  # the first is a warm-up
                kept.append((time.perf_counter() - start) / n_calls)
    return seconds


def medians(rivals: Sequence[Callable[[], object]], n_rounds: int, n_calls: int = 1) -> list[float]:
    """Seconds per call of each, the median over the rounds."""
    return [statistics.median(kept) for kept in rounds(rivals, n_rounds, n_calls)]


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the rounds' ratios with its 95 % interval, by the order statistics (the sign test turned round)."""
    ratios = sorted(own / their for own, their in zip(ours, theirs, strict=True))
    outside = int(binom(len(ratios), 0.5).ppf(0.025))  # so many lie below the interval at least
    return f"{statistics.median(ratios):.3f} ({ratios[outside - 1]:.3f} .. {ratios[-outside]:.3f})"


def batch() -> SequenceBatch:
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, STEPS)
    targets = torch.randint(4, shape, generator=generator)
    inputs = torch.randn(*shape, 8, generator=generator)
    return SequenceBatch(inputs, targets, torch.full((BATCH,), STEPS), torch.ones(shape, dtype=torch.bool))


def bare_step(bare: Bare, data: SequenceBatch) -> Callable[[], object]:
    """A training step as the loop of the project takes it, without the project."""
    optimiser = torch.optim.Adam(bare.parameters(), 1e-3, fused=True)
    parameters = list(bare.parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(bare(data.inputs)[data.scored], data.targets[data.scored])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return step


def own_step(name: str, data: SequenceBatch, **options: object) -> Callable[[], object]:
    entry = registry.entry(name)
    config = replace(entry.config, width=WIDTH, **options)
    predictor = registry.build(entry, *SPECS[:2], entry.refuses(*SPECS) is None, config, 0)
    fit = FitConfig()
    optimiser = make_optimiser(predictor, fit)
    predictor.train()
    return lambda: training_step(predictor, SPECS[1], data, optimiser, fit)


def training() -> None:
    data = batch()
    print(f"Training step, B = {BATCH}, T = {STEPS}, H = {WIDTH}, one thread, against the same parts of torch.nn")
    for name in FUSED:
        n_layers, kind = 3 if name.startswith("deep") else 1, name.split("_")[-1].removeprefix("bi")
        relu = name == "rnn_relu"
        bare = Bare("rnn" if relu else kind, n_layers, name.startswith("bi"), "relu" if relu else "tanh")
        rivals = [bare_step(bare, data), own_step(name, data)]
        if name in UNFUSED:
            rivals.append(own_step(name, data, **dict([UNFUSED[name]])))
        theirs, ours, *unfused = rounds(rivals, 100)
        more = f", with {UNFUSED[name][0]} {median_ratio(unfused[0], theirs)}" if unfused else ""
        shown = f"{1e3 * statistics.median(theirs):6.2f} ms → {1e3 * statistics.median(ours):6.2f} ms"
        print(f"  {name:10} {shown}, ratio {median_ratio(ours, theirs)}{more}", flush=True)


def streaming() -> None:
    print("Streaming step, B = 1, H = 64, one thread, against encoder + cell + read-out from H, and with our H → D → K")
    inputs = torch.randn(1, 1, 8)
    for name, cell_kind in (("lstm", nn.LSTMCell), ("gru", nn.GRUCell)):
        entry = registry.entry(name)
        predictor = registry.build(entry, *SPECS, replace(entry.config, width=WIDTH), 0).eval()
        encoder, cell = nn.Linear(8, 32), cell_kind(32, WIDTH)
        readouts = nn.Linear(WIDTH, 4), nn.Sequential(nn.Linear(WIDTH, 32), nn.Linear(32, 4))
        rivals = [_walk_cell(encoder, cell, readout, inputs[:, 0]) for readout in readouts]
        bare, through, ours = rounds([*rivals, _walk(predictor, inputs)], n_rounds=400, n_calls=20)
        shown = " and ".join(f"{1e6 * statistics.median(theirs):6.1f}" for theirs in (bare, through))
        ratios = " and ".join(median_ratio(ours, theirs) for theirs in (bare, through))
        print(f"  {name:10} {shown} µs → {1e6 * statistics.median(ours):6.1f} µs, ratio {ratios}")


def _walk(predictor: nn.Module, inputs: Tensor) -> Callable[[], object]:
    carried = [predictor(inputs)[1]]

    @torch.inference_mode()
    def step() -> None:
        _, carried[0] = predictor(inputs, carried[0])

    return step


def _walk_cell(encoder: nn.Module, cell: nn.Module, readout: nn.Module, inputs: Tensor) -> Callable[[], object]:
    carried: list[object] = [None]

    @torch.inference_mode()
    def step() -> None:
        carried[0] = cell(encoder(inputs), carried[0])
        readout(carried[0][0] if isinstance(carried[0], tuple) else carried[0])

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    training()
    streaming()
