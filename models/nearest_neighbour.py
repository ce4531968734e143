"""The class of the nearest training sequences, by dynamic time warping in a band or by Euclidean distance.

Sakoe & Chiba 1978, doi:10.1109/TASSP.1978.1163055; the usual baseline of time series classification (Bagnall et al. 2017,
doi:10.1007/s10618-016-0483-9). Warping aligns x and y by a path of steps (1, 0), (0, 1) and (1, 1) of the least cost:

    D(i, j) = |x_i - y_j|² + min(D(i-1, j), D(i, j-1), D(i-1, j-1))        |i - j| ≤ ⌊band · number of steps⌋

With no band that is the squared Euclidean distance. The distances are aeon's; they are computed here for many pairs at once,
diagonal by diagonal, because aeon's are compiled on first use. For that, sequences are resampled to one length, which is no
worse than warping unequal ones (Ratanamahatana & Keogh 2005, "Three myths about dynamic time warping data mining").

The shares of the k neighbours' classes are no log-odds: `models.ridge.confidence` makes some of them, from sequences of
training each of which is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import Choice, Fit, ModelEntry, ParameterCounts, Predictor, SelfFitting, State, refuses_causal
from models.ridge import confidence
from models.sequences import Classes, InputSpec, RealInput, SequenceBatch, TargetSpec, valid_steps
from models.windows import blank_padding

MAX_CELLS = 2**20
"""Rows of a diagonal, over all pairs computed together; it bounds memory."""
BANDS = (0.0, 0.05, 0.1)
"""Bands tried where none is given."""
N_LEFT_OUT = 200
"""Training sequences left out in turn to learn how sure an answer is."""


@dataclass(frozen=True)
class NearestNeighbourConfig:
    """band: how far warping may move a step, as a share of the shorter sequence; 0: not at all; None: of 0, 0.05 and 0.1
    the one with the fewest errors when training sequences are left out. n_neighbours: k.

    max_sequences: training sequences compared with at most, evenly spaced. max_steps: sequences are resampled to the length of
    the longest in training, or to this one if that is longer. Time grows with the first, and with the square of the second.
    """

    band: float | None = None
    n_neighbours: int = 1
    max_sequences: int = 1000
    max_steps: int = 128

    def __post_init__(self) -> None:
        if not 0 <= (self.band or 0.0) <= 1:
            raise ValueError(f"band must lie in 0 … 1, got {self.band}")
        if min(self.n_neighbours, self.max_sequences, self.max_steps) < 1:
            raise ValueError("n_neighbours, max_sequences and max_steps must be at least 1")


class NearestNeighbour(SelfFitting):
    """Takes whole sequences and carries no state. Channels are standardised by training; symbols are one-hot channels.

    A copy of the training sequences is what it knows: (M, n, C) values and their classes, (M,).
    """

    causal = False
    values: Tensor
    classes: Tensor
    mean: Tensor
    deviation: Tensor
    band: Tensor
    scale: Tensor

    def __init__(self, inputs: InputSpec, target: Classes, config: NearestNeighbourConfig) -> None:
        super().__init__()
        self.inputs, self.target, self.config = inputs, target, config
        n_channels = inputs.channels if isinstance(inputs, RealInput) else inputs.vocabulary
        self.register_buffer("values", torch.zeros(1, 1, n_channels, dtype=torch.float64))
        self.register_buffer("classes", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(n_channels, dtype=torch.float64))
        self.register_buffer("band", torch.tensor(config.band or 0.0, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state:
            raise ValueError("the nearest neighbour takes whole sequences; pass no state")
        n, longest = inputs.shape[:2]
        ends = torch.full((n,), longest) if lengths is None else lengths
        values = self._sequences(inputs, ends, self.values.shape[1])
        shares = self._shares(warped(values, self.values, float(self.band)))  # (B, K)
        outputs = shares.new_zeros(n, longest, self.target.n)
        outputs[torch.arange(n), ends - 1] = self.scale * shares
        return outputs.to(inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()), ()

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0

    def parameter_counts(self) -> ParameterCounts:
        """The values of the training sequences that it keeps."""
        return ParameterCounts(self.values.numel())

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Keeps the training sequences; some, left out in turn, say how sure an answer is. Needs neither validation nor
        chance."""
        chosen = train.select(evenly(len(train), self.config.max_sequences))
        if isinstance(self.inputs, RealInput):
            valid = chosen.inputs[valid_steps(chosen.lengths, chosen.inputs.shape[1])].double()  # (N, C)
            deviation = valid.std(0, correction=0)
            self.mean.copy_(valid.mean(0))
            self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
        n_steps = min(int(train.lengths.max()), self.config.max_steps)
        self.values = self._sequences(chosen.inputs, chosen.lengths, n_steps)
        self.classes = chosen.targets[chosen.scored]  # (M,)
        left_out = evenly(len(chosen), N_LEFT_OUT)
        right = self.classes[left_out]
        shares = {}
        for band in BANDS if self.config.band is None else (self.config.band,):
            apart = warped(self.values[left_out], self.values, band)
            apart[torch.arange(len(left_out)), left_out] = torch.inf
            shares[band] = self._shares(apart)
        best = max(shares, key=lambda band: int((shares[band].argmax(1) == right).sum()))  # of equal ones the narrowest
        self.band.fill_(best)
        self.scale.fill_(confidence(shares[best].numpy(), right.numpy()))

    def _shares(self, distances: Tensor) -> Tensor:
        """(B, M) → (B, K) float64: the share of each class among the k nearest."""
        nearest = distances.topk(min(self.config.n_neighbours, distances.shape[1]), largest=False).indices  # (B, k)
        return F.one_hot(self.classes[nearest], self.target.n).double().mean(1)

    def _sequences(self, inputs: Tensor, lengths: Tensor, n_steps: int) -> Tensor:
        """(B, n_steps, C) float64: sequences standardised and resampled."""
        inputs = blank_padding(inputs, lengths)
        if isinstance(self.inputs, RealInput):
            values = (inputs.double() - self.mean) / self.deviation
        else:
            values = F.one_hot(inputs, self.inputs.vocabulary).double()  # (B, T) → (B, T, V)
        return stretched(values, lengths.to(inputs.device), n_steps)


def stretched(values: Tensor, lengths: Tensor, n_steps: int) -> Tensor:
    """Sequences (B, T, C) of their lengths (B,) → (B, n_steps, C): means over the steps that each new one covers, if only in
    part. It leaves a sequence of that length as it is, and repeats steps of a shorter one."""
    new = torch.arange(n_steps, device=values.device)
    first = new * lengths[:, None] // n_steps  # (B, n_steps)
    end = -(-(new + 1) * lengths[:, None] // n_steps)
    sums = F.pad(values.cumsum(1), (0, 0, 1, 0))  # (B, T + 1, C)
    rows = torch.arange(len(values), device=values.device)[:, None]
    return (sums[rows, end] - sums[rows, first]) / (end - first)[..., None]


def evenly(n: int, most: int) -> Tensor:
    """Indices of all of n, or of ``most`` of them, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long()


def warped(x: Tensor, y: Tensor, band: float) -> Tensor:
    """Distances (B, M) of sequences x (B, n, C) and y (M, n, C)."""
    at_once = max(1, MAX_CELLS // (len(y) * x.shape[1]))
    reach = int(band * x.shape[1])
    return torch.cat([_aligned(part, y, reach) for part in x.split(at_once)])


def _aligned(x: Tensor, y: Tensor, reach: int) -> Tensor:
    """(B, M): the least costs of x (B, n, C) and y (M, n, C) over the cells |i - j| ≤ reach, diagonal by diagonal.

    Of diagonal s = i + j the cost of (i, j) is kept in row i + 1, so that the three cells before it are in rows i + 1 and i of
    diagonal s - 1, and i of diagonal s - 2. All other rows are infinite.
    """
    n = x.shape[1]
    x_rows, y_rows = x.transpose(0, 1).contiguous(), y.permute(1, 2, 0).contiguous()  # (n, B, C), (n, C, M)
    x_squares, y_squares = x_rows.square().sum(2)[:, :, None], y_rows.square().sum(1)[:, None]  # (n, B, 1), (n, 1, M)
    before, last, now = x.new_full((3, n + 1, len(x), len(y)), torch.inf).unbind(0)
    written = [slice(0, 0)] * 3  # of before, last and now
    for s in range(2 * n - 1):
        i = max(0, s - n + 1, (s - reach + 1) // 2)
        end = min(n - 1, s, (s + reach) // 2) + 1
        now[written[2]] = torch.inf
        if i < end:
            j = slice(s - end + 1, s - i + 1)
            products = torch.bmm(x_rows[i:end], y_rows[j].flip(0))  # (end - i, B, M)
            cost = (x_squares[i:end] + y_squares[j].flip(0)).sub_(products, alpha=2).clamp_(min=0)
            if s:
                cost += torch.minimum(last[i + 1 : end + 1], last[i:end]).minimum(before[i:end])
            now[i + 1 : end + 1] = cost
        written[2] = slice(i + 1, max(i, end) + 1)
        before, last, now = last, now, before
        written = [written[1], written[2], written[0]]
    return last[n]


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if target.scope == "step" or not isinstance(target, Classes):
        return "gives one class to a whole sequence"
    return refuses_causal(inputs, target, causal)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: NearestNeighbourConfig) -> Predictor:
    assert isinstance(target, Classes)  # others are refused
    return NearestNeighbour(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="nearest_neighbour",
        family="non-neural",
        config=NearestNeighbourConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Sakoe & Chiba 1978, doi:10.1109/TASSP.1978.1163055; Bagnall et al. 2017, doi:10.1007/s10618-016-0483-9",
        imports=("scipy.optimize", "scipy.special"),
        summary="the class of the nearest training sequence, by dynamic time warping in a band",
        refuses=_refuses,
        search_space={"n_neighbours": Choice((1, 3, 5))},
    )
]
