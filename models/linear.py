"""Ridge regression on the last few steps: causal, in closed form, with its penalty by leave-one-out.

Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634. With the last W inputs x_t … x_(t-W+1), standardised, or symbols as
one-hot vectors,

    f_t = c + Σ_(l=0…W-1) A_l x_(t-l)

are the values or forecasts themselves. For classes f is fitted to 1 for the right one and -1 for the others, and log-odds are
made of it by `models.ridge`. Steps before the beginning repeat the first one; before symbols there is nothing.

Where targets are the inputs' future, x_(t-1) … x_(t-W+1) are taken as differences from x_t, as the targets are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State, refuses_actions
from models.ridge import confidence, log_odds, ridge
from models.sequences import Binary, Classes, InputSpec, RealInput, SequenceBatch, TargetSpec, Transcript
from models.windows import blank_padding, remember

STEP_WINDOW = 32
"""W of tasks that ask at every step, unless it is given."""
MAX_ROWS, MAX_WORK = 20_000, 4 * 10**9
"""Training steps used, N, and N P² for P features, at most: some seconds. Of more, evenly spaced steps are taken."""
BLOCK = 64
"""Sequences whose features are computed at a time; it bounds memory and changes no number."""


@dataclass(frozen=True)
class LinearConfig:
    """window: W, steps; None: the whole sequence where one answer is asked for, else the last 32 steps.

    max_features: W is made smaller where W times the channels, or symbols, would be more.
    """

    window: int | None = None
    max_features: int = 1024

    def __post_init__(self) -> None:
        if self.max_features < 1 or (self.window is not None and self.window < 1):
            raise ValueError("window and max_features must be at least 1")


class Linear(SelfFitting):
    """State, in float64: the last W - 1 steps (B, W - 1, C), or symbols (B, W - 1, 1), V before the beginning; and the number
    of steps (B, 1)."""

    causal = True
    coefficients: Tensor
    """(W, C, K), or (W, V + 1, K) with zeros for the symbol before the beginning; the newest step first."""
    intercepts: Tensor

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: LinearConfig) -> None:
        super().__init__()
        self.inputs, self.target = inputs, target
        self.is_real = isinstance(inputs, RealInput)
        self.width = inputs.channels if isinstance(inputs, RealInput) else inputs.vocabulary
        longest = inputs.max_length or STEP_WINDOW
        whole = longest if target.scope == "sequence" else min(longest, STEP_WINDOW)
        self.window = max(1, min(config.window or whole, config.max_features // self.width))
        rows = self.width + (not self.is_real)
        self.register_buffer("coefficients", torch.zeros(self.window, rows, target.n_outputs, dtype=torch.float64))
        self.register_buffer("intercepts", torch.zeros(target.n_outputs, dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        past, count = self.initial_state(len(inputs)) if state is None else state
        steps, past = self._steps(inputs, past, count, lengths)
        joined = torch.cat([past, steps], 1)  # (B, W - 1 + T, C) or (B, W - 1 + T, 1)
        length = inputs.shape[1]
        if self.is_real:
            kernels = self.coefficients.flip(0).permute(2, 1, 0)  # (W, C, K) → (K, C, W), the oldest first
            outputs = F.conv1d(joined.transpose(1, 2), kernels, self.intercepts).transpose(1, 2)  # (B, T, K)
        else:
            symbols = joined[..., 0].long()
            outputs = self.intercepts.expand(len(inputs), length, -1)
            for lag, table in enumerate(self.coefficients):
                outputs = outputs + table[symbols[:, self.window - 1 - lag :][:, :length]]
        dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()
        ends = torch.full((len(inputs),), length) if lengths is None else lengths
        after = remember(past, steps, self.window - 1, lengths)
        return outputs.to(dtype), (after, count + ends.to(inputs.device)[:, None])

    def initial_state(self, batch_size: int) -> State:
        new, width = self.intercepts.new_full, self.width if self.is_real else 1
        return new((batch_size, self.window - 1, width), 0.0 if self.is_real else self.width), new((batch_size, 1), 0.0)

    def state_bytes(self, t: int) -> int:
        return sum(part.numel() * part.element_size() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        """A coefficient per output and feature, and the intercepts."""
        n_outputs = len(self.intercepts)
        return ParameterCounts(backbone=self.window * self.width * n_outputs, readout=n_outputs)

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Needs neither validation nor chance."""
        features, answers = self._rows(train)
        if isinstance(self.target, Classes):
            goals = 2.0 * np.eye(self.target.n)[answers] - 1  # (N, K)
        else:
            goals = 2.0 * answers - 1 if isinstance(self.target, Binary) else answers
        coefficients, intercepts, held_out = ridge(features, goals)
        scale, shift = np.ones(len(intercepts)), np.zeros(len(intercepts))
        if isinstance(self.target, Classes):
            scale *= confidence(held_out, answers)
        elif isinstance(self.target, Binary):
            scale, shift = log_odds(held_out, answers)
        fitted = torch.from_numpy(coefficients * scale).view(self.window, self.width, -1)
        if self._relative():
            fitted[0] -= fitted[1:].sum(0)
        self.coefficients[:, : self.width] = fitted
        self.intercepts.copy_(torch.from_numpy(intercepts * scale + shift))

    def _relative(self) -> bool:
        return self.is_real and self.target.future

    def _steps(self, inputs: Tensor, past: Tensor, count: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The chunk's steps (B, T, C) or (B, T, 1), and the W - 1 before them: at the beginning the first one, repeated."""
        steps = blank_padding(inputs, lengths).double()
        if not self.is_real:
            return steps[..., None], past
        return steps, torch.where(count[..., None] == 0, steps[:, :1], past)

    def _rows(self, batch: SequenceBatch) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, P) and targets (N,) or (N, K) of the scored steps, thinned evenly where they are many."""
        places = batch.scored.nonzero()  # (N, 2)
        n_features = self.window * self.width
        n = min(len(places), MAX_ROWS, max(1000, MAX_WORK // n_features**2))
        places = places[torch.linspace(0, len(places) - 1, n, dtype=torch.float64).round().long()]
        features = []
        for first in range(0, len(batch), BLOCK):
            part = batch.select(torch.arange(first, min(first + BLOCK, len(batch))))
            mine = places[(places[:, 0] >= first) & (places[:, 0] < first + BLOCK)]
            past, count = self.initial_state(len(part))
            steps, past = self._steps(part.inputs, past, count, part.lengths)
            windows = (
                torch.cat([past, steps], 1).unfold(1, self.window, 1)[mine[:, 0] - first, mine[:, 1]].flip(-1)
            )  # (N, C, W)
            if self._relative():
                windows[..., 1:] -= windows[..., :1]
            rows = windows.transpose(1, 2)  # (N, W, C)
            if not self.is_real:
                rows = F.one_hot(rows[..., 0].long(), self.width + 1)[..., :-1].double()  # (N, W, V)
            features.append(rows.flatten(1))
        targets = batch.targets[places[:, 0], places[:, 1]].numpy()
        return torch.cat(features).numpy(), targets if isinstance(self.target, Classes) else targets.astype(np.float64)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if isinstance(target, Transcript):
        return "gives an answer for each step, and a transcript says not at which step its symbols belong"
    if not isinstance(inputs, RealInput) and inputs.vocabulary > LinearConfig.max_features:
        return f"has a coefficient per symbol, for {LinearConfig.max_features} at most; there are {inputs.vocabulary}"
    return refuses_actions(inputs, target, causal)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: LinearConfig) -> Predictor:
    return Linear(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="linear",
        family="non-neural",
        config=LinearConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634, as in scikit-learn",
        imports=("sklearn.linear_model", "scipy.optimize"),
        summary="ridge regression on the last steps, or on the whole sequence where one answer is asked for",
        refuses=_refuses,
        search_space={"window": Choice((4, 16, 64))},
        state="((window or min(T, 32)) - 1) * C + 1",
    )
]
