"""How fast the recurrent models are beside bare torch.nn modules of the same size, in one run: ``make perf``.

Not a test: a clock on a shared machine decides nothing. Rivals take turns, and the median of their turns counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.fitting import FitConfig, make_optimiser, training_step
from models import registry
from models.contract import Classes, RealInput, SequenceBatch

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


def medians(turns: Sequence[Callable[[], object]], n_turns: int, n_calls: int = 1) -> list[float]:
    """Seconds per call of each, the median over turns taken in rotation."""
    seconds: list[list[float]] = [[] for _ in turns]
    for turn in range(n_turns + 1):
        for call, kept in zip(turns, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(n_calls):
                call()
            if turn:  # the first is a warm-up
                kept.append((time.perf_counter() - start) / n_calls)
    return [statistics.median(kept) for kept in seconds]


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
        theirs, ours, *unfused = medians(rivals, n_turns=9, n_calls=5)
        more = f", with {UNFUSED[name][0]} {unfused[0] / theirs:.2f}" if unfused else ""
        print(f"  {name:10} {1e3 * theirs:6.2f} ms → {1e3 * ours:6.2f} ms, ratio {ours / theirs:.3f}{more}")


def streaming() -> None:
    print("Streaming step, B = 1, H = 64, one thread, against encoder + cell + read-out from H, and with our H → D → K")
    inputs = torch.randn(1, 1, 8)
    for name, cell_kind in (("lstm", nn.LSTMCell), ("gru", nn.GRUCell)):
        entry = registry.entry(name)
        predictor = registry.build(entry, *SPECS, replace(entry.config, width=WIDTH), 0).eval()
        encoder, cell = nn.Linear(8, 32), cell_kind(32, WIDTH)
        readouts = nn.Linear(WIDTH, 4), nn.Sequential(nn.Linear(WIDTH, 32), nn.Linear(32, 4))
        rivals = [_walk_cell(encoder, cell, readout, inputs[:, 0]) for readout in readouts]
        bare, through, ours = medians([*rivals, _walk(predictor, inputs)], n_turns=25, n_calls=200)
        shown = f"{1e6 * bare:6.1f} and {1e6 * through:6.1f} µs → {1e6 * ours:6.1f} µs"
        print(f"  {name:10} {shown}, ratio {ours / bare:.3f} and {ours / through:.3f}")


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
