"""How fast minGRU, minLSTM and LRU train beside torch.nn.GRU of as many layers of the same width, over the number of steps.

Not a test: a clock on a shared machine decides nothing. Rivals take turns, and the median of their turns counts. Each is a
whole predictor, encoder to read-out. Beside other work on the same cores, OMP_WAIT_POLICY=PASSIVE keeps a thread that waits
for one that was interrupted from spinning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from perf_recurrent import medians
from torch import Tensor, nn

from benchmarks.fitting import FitConfig, make_optimiser, training_step
from models import registry
from models.sequences import Classes, RealInput, SequenceBatch

WIDTH, FEATURES = 64, 32
SPECS = (RealInput(8, None, FEATURES), Classes(4), True)
NAMES = ("mingru", "minlstm", "lru")
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
BATCHES = (16, 64)
LAYERS = (1, 2)
N_VALUES = 64 * 1024
"""Sequences × steps up to which a batch gets the full number of turns; longer ones get fewer, since their clock is steadier."""


class BareGRU(nn.Module):
    """The predictor's parts around torch.nn.GRU."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, FEATURES)
        self.layers = nn.GRU(FEATURES, WIDTH, n_layers, batch_first=True)
        self.projection = nn.Linear(WIDTH, FEATURES)
        self.readout = nn.Linear(FEATURES, 4)

    def forward(self, inputs: Tensor, state: None, lengths: Tensor) -> tuple[Tensor, None]:
        return self.readout(self.projection(self.layers(self.encoder(inputs))[0])), None


def training_step_of(model: nn.Module, n: int, n_steps: int, device: torch.device) -> Callable[[], None]:
    """Forward, backward and optimiser step on one batch of n full sequences; returns when all of it is done."""
    model = model.to(device).train()
    generator = torch.Generator().manual_seed(0)
    batch = SequenceBatch(
        torch.randn(n, n_steps, 8, generator=generator),
        torch.randint(4, (n, n_steps), generator=generator),
        torch.full((n,), n_steps),
        torch.ones(n, n_steps, dtype=torch.bool),
    ).to(device)
    fit = FitConfig()
    optimiser = make_optimiser(model, fit)  # type: ignore[arg-type]

    def step() -> None:
        loss, *_ = training_step(model, SPECS[1], batch, optimiser, fit)  # type: ignore[arg-type]
        loss.item()

    return step


def rivals(n_layers: int) -> list[nn.Module]:
    """The GRU, then NAMES."""
    entries = [registry.entry(name) for name in NAMES]
    configs = [replace(entry.config, width=WIDTH, n_layers=n_layers) for entry in entries]
    built = [registry.build(entry, *SPECS, config, 0) for entry, config in zip(entries, configs, strict=True)]
    return [BareGRU(n_layers), *built]


def main(n_rounds: int = 9, n_threads: int = 2) -> None:
    torch.set_num_threads(n_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"Training step on {device}, {n_threads} threads, H = {WIDTH}: torch.nn.GRU in ms, and how many times faster")
    print(f"{'B':>4}{'T':>6}" + "".join(f"{f'gru, L={n}':>12}" + "".join(f"{m:>9}" for m in NAMES) for n in LAYERS))
    for n in BATCHES:
        for n_steps in LENGTHS:
            models = [model for n_layers in LAYERS for model in rivals(n_layers)]
            turns = [training_step_of(model, n, n_steps, device) for model in models]
            seconds = medians(turns, n_rounds if n * n_steps <= N_VALUES else max(3, n_rounds // 3))
            row = f"{n:4}{n_steps:6}"
            for first in range(0, len(seconds), 1 + len(NAMES)):
                gru, *others = seconds[first : first + 1 + len(NAMES)]
                row += f"{1e3 * gru:12.1f}" + "".join(f"{gru / other:8.1f}×" for other in others)
            print(row, flush=True)


if __name__ == "__main__":
    main()
