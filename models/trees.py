"""Gradient-boosted trees on the last few steps and a running summary of all: causal, with a state of bounded size.

Friedman 2001, doi:10.1214/aos/1013203451; the trees are scikit-learn's, on features in at most 255 bins as in Ke et al. 2017
(LightGBM). Features at step t, all known by then:

    real values     x_t, x_(t-1) … x_(t-W+1), and of x_1 … x_t, by channel: first, smallest and largest value, mean, standard
                    deviation, slope over time, mean absolute change and lag-1 autocorrelation;  t
    symbols         x_t, x_(t-1) … x_(t-W+1) as categories, and how often each symbol has come so far;  t

Steps before the beginning are missing values, for which every split learns a side. Where targets are the inputs' future, given
as differences from the last value, levels (lags, first, smallest, largest, mean) are differences from x_t too, because trees
cannot extrapolate.

Trees are step functions, so a feature must not depend on how a sequence is cut into chunks, not even in its last bit. Lags,
smallest, largest and counts do not. The other statistics come from running sums in float64, carried, to which steps are added
one by one on the CPU, where trees run anyway: the same additions in the same order whatever the chunks. The sums are over
differences from the first value, so that a large level costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import (
    Choice,
    Fit,
    LogRange,
    ModelEntry,
    ParameterCounts,
    Predictor,
    SelfFitting,
    State,
    refuses_actions,
)
from models.sequences import Binary, InputSpec, Real, RealInput, SequenceBatch, TargetSpec, Transcript
from models.windows import blank_padding, remember

MAX_CATEGORIES = 255
"""What scikit-learn's trees take."""
BLOCK = 64
"""Sequences whose features are computed at a time; it bounds memory and changes no number."""


@dataclass(frozen=True)
class BoostedTreesConfig:
    """window: W, steps seen one by one. n_iterations: trees per output at most; validation stops before, where more do harm.

    learning_rate: the share of each tree's correction that is taken. max_leaves: per tree. min_leaf: training steps in a leaf.
    l2: penalty on the leaves' values (Chen and Guestrin 2016, doi:10.1145/2939672.2939785); without one, a single rare yes in
    a leaf of ten steps makes it all but certain, for a Newton step divides by p (1 - p).
    max_targets: training steps times outputs at most; of more, evenly spaced steps are taken. Time grows in proportion.
    """

    window: int = 32
    n_iterations: int = 100
    learning_rate: float = 0.1
    max_leaves: int = 7
    min_leaf: int = 10
    l2: float = 1.0
    max_targets: int = 200_000

    def __post_init__(self) -> None:
        if min(self.window, self.n_iterations, self.min_leaf, self.max_targets) < 1:
            raise ValueError("window, n_iterations, min_leaf and max_targets must be at least 1")
        if self.max_leaves < 2:
            raise ValueError(f"a tree splits at least once: max_leaves must be 2 or more, got {self.max_leaves}")
        if self.l2 < 0:
            raise ValueError(f"l2 must not be negative, got {self.l2}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate must lie in 0 … 1, above 0, got {self.learning_rate}")


class BoostedTrees(SelfFitting):
    """One ensemble for classes, with a tree per class in each iteration, else one ensemble per output.

    State, in float64: the last W - 1 steps, (B, W - 1, C), what `accumulated` gives (B, 9, C), and the number of steps
    (B, 1); for symbols the last W - 1, (B, W - 1, 1), how often each came, (B, 1, V), and the number of steps.
    """

    causal = True
    fallback: Tensor

    def __init__(self, inputs: InputSpec, target: TargetSpec, config: BoostedTreesConfig) -> None:
        super().__init__()
        self.inputs, self.target, self.config = inputs, target, config
        self.ensembles: list[Any] = []  # of scikit-learn; None for an output that never changed in training
        self.register_buffer("fallback", torch.zeros(target.n_outputs, dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        given = self.initial_state(len(inputs)) if state is None else state
        ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
        answers, after = [], []
        for part, end, *before in zip(*(x.cpu().split(BLOCK) for x in (inputs, ends, *given)), strict=True):
            features, carried = self._features(part, tuple(before), end)
            answers.append(self._answers(features.flatten(0, 1).numpy()).unflatten(0, part.shape[:2]))  # (B, T, K)
            after.append(carried)
        dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()
        outputs = torch.cat(answers).to(inputs.device, dtype)
        return outputs, tuple(torch.cat(parts).to(inputs.device) for parts in zip(*after, strict=True))

    def initial_state(self, batch_size: int) -> State:
        new = self.fallback.new_full
        past, count = self.config.window - 1, new((batch_size, 1), 0.0)
        if isinstance(self.inputs, RealInput):
            start = self.fallback.new_tensor([torch.nan, torch.nan, torch.inf, -torch.inf, *[0.0] * 5])
            summary = start[:, None].expand(batch_size, -1, self.inputs.channels)
            return new((batch_size, past, self.inputs.channels), torch.nan), summary, count
        return new((batch_size, past, 1), torch.nan), new((batch_size, 1, self.inputs.vocabulary), 0.0), count

    def state_bytes(self, t: int) -> int:
        return sum(part.numel() * part.element_size() for part in self.initial_state(1))

    def parameter_counts(self) -> ParameterCounts:
        """Of each tree with n leaves: its n values, and the features and thresholds of its n - 1 splits."""
        iterations = [trees for ensemble in self.ensembles if ensemble is not None for trees in ensemble._predictors]
        return ParameterCounts(backbone=sum(3 * tree.get_n_leaf_nodes() - 2 for trees in iterations for tree in trees))

    def weight_bytes(self) -> int:
        """In float64 and int64, as scikit-learn has them."""
        return super().weight_bytes() + 8 * self.parameter_counts().backbone

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        """Trees are added one by one; validation chooses how many stay."""
        import sklearn.ensemble  # noqa: F401  so that the controller finds its threads
        from threadpoolctl import ThreadpoolController

        self.threads = ThreadpoolController()
        features, targets = self._steps(train)
        judged, goals = self._steps(validation)
        self.known = ~np.isnan(features).all(0)  # scikit-learn takes no feature that is always missing
        features, judged = features[:, self.known], judged[:, self.known]
        self.fallback.copy_(self.target.best_constant(train))
        seed = int(torch.randint(2**31, (), generator=generator))
        self.is_capped = False
        with self.threads.limit(limits=1, user_api="openmp"):
            self.ensembles = [
                self._boosted(features, target, judged, goal, seed)
                for target, goal in zip(targets.T, goals.T, strict=True)
            ]

    def _boosted(
        self, features: np.ndarray, target: np.ndarray, judged: np.ndarray, goal: np.ndarray, seed: int
    ) -> Any:
        """The trees for a target (N,), up to where the loss on the validation steps is least; None if it never changes."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if (target == target[0]).all():
            return None
        usable = np.full(len(goal), True) if isinstance(self.target, Real) else np.isin(goal, target)
        kind = HistGradientBoostingRegressor if isinstance(self.target, Real) else HistGradientBoostingClassifier
        lags = np.arange(len(self.known)) < self.config.window  # of symbols
        ensemble = kind(
            learning_rate=self.config.learning_rate,
            max_iter=self.config.n_iterations,
            max_leaf_nodes=self.config.max_leaves,
            min_samples_leaf=self.config.min_leaf,
            l2_regularization=self.config.l2,
            categorical_features=None if isinstance(self.inputs, RealInput) else lags[self.known],
            early_stopping=bool(usable.any()),
            random_state=seed,
        )
        if not usable.any():
            return ensemble.fit(features, target)
        ensemble.fit(features, target, X_val=judged[usable], y_val=goal[usable])
        # It stops ten iterations after the best one; those, which the library keeps, are dropped.
        n_best = int(np.argmax(ensemble.validation_score_))
        self.is_capped |= n_best == self.config.n_iterations
        del ensemble._predictors[n_best:]
        return ensemble

    def _answers(self, features: np.ndarray) -> Tensor:
        """(N, F) → (N, K) float64: log probabilities, logits or means."""
        answers = self.fallback.cpu().repeat(len(features), 1)  # (N, K)
        if not self.ensembles:
            return answers
        with self.threads.limit(limits=1, user_api="openmp"):
            for k, ensemble in enumerate(self.ensembles):
                if ensemble is None:
                    continue
                if isinstance(self.target, Real):
                    answers[:, k] = torch.from_numpy(ensemble.predict(features[:, self.known]))
                    continue
                scores = torch.from_numpy(ensemble.decision_function(features[:, self.known]))
                if isinstance(self.target, Binary):
                    answers[:, k] = scores
                    continue
                if scores.dim() == 1:
                    scores = torch.stack([torch.zeros_like(scores), scores], 1)  # (N,) → (N, 2)
                answers[:, ensemble.classes_] = scores.log_softmax(1)  # a class never seen keeps its rare frequency
        return answers

    def _steps(self, batch: SequenceBatch) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, F) and targets (N, number of ensembles) of the scored steps, thinned evenly where they are many."""
        places = batch.scored.nonzero()  # (N, 2)
        n = min(len(places), max(1, self.config.max_targets // self.target.n_outputs))
        places = places[torch.linspace(0, len(places) - 1, n, dtype=torch.float64).round().long()]
        chosen = torch.zeros_like(batch.scored)
        chosen[places[:, 0], places[:, 1]] = True
        features = [
            self._features(inputs, self.initial_state(len(inputs)), lengths)[0][mask]
            for inputs, lengths, mask in zip(
                batch.inputs.split(BLOCK), batch.lengths.split(BLOCK), chosen.split(BLOCK), strict=True
            )
        ]
        targets = batch.targets[chosen]
        return torch.cat(features).numpy(), (targets[:, None] if targets.dim() == 1 else targets).numpy()

    def _features(self, inputs: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        """(B, T, F) float64, on the CPU, and the state after the chunk."""
        past, summary, count = state
        inputs = blank_padding(inputs, lengths)
        real = isinstance(self.inputs, RealInput)
        steps = inputs.double() if real else inputs.double()[..., None]  # (B, T, C) or (B, T, 1)
        lags = torch.cat([past, steps], 1).unfold(1, self.config.window, 1).flip(-1)  # (B, T, C, W), newest first
        counts = count[:, None] + torch.arange(1, inputs.shape[1] + 1)[:, None]  # (B, T, 1)
        if isinstance(self.inputs, RealInput):
            running = accumulated(steps, summary, count)  # (B, T + 1, 9, C)
            levels, shapes = statistics(running[:, 1:], counts)  # (B, T, 4, C) each
            if isinstance(self.target, Real) and self.target.future:
                lags[..., 1:] -= steps[..., None]
                levels = levels - steps[:, :, None]
            about = torch.cat([levels, shapes], 2)
        else:
            symbols = F.one_hot(inputs, self.inputs.vocabulary).double()  # (B, T, V)
            running = torch.cat([summary, symbols], 1).cumsum(1)[:, :, None]  # (B, T + 1, 1, V)
            about = running[:, 1:]
        features = torch.cat([lags.flatten(2), about.flatten(2), counts], 2)
        carried = running[torch.arange(len(inputs)), lengths]
        return features, (remember(past, steps, self.config.window - 1, lengths), carried, count + lengths[:, None])


def accumulated(steps: Tensor, before: Tensor, count: Tensor) -> Tensor:
    """What the statistics are computed from, before a chunk and after each of its steps (B, T, C): (B, T + 1, 9, C).

    The nine are x_1, x_t, the smallest and largest value, and with z_i = x_i - x_1 the sums of z_i, z_i², i z_i,
    |z_i - z_(i-1)| and z_i z_(i-1). before: (B, 9, C), those after the chunk before. count: (B, 1), the steps before it.
    """
    first, last, low, high = before[:, :4].unbind(1)  # (B, C)
    first = torch.where(count == 0, steps[:, 0], first) if steps.shape[1] else first
    z = steps - first[:, None]  # (B, T, C)
    previous = torch.cat([torch.where(count == 0, first, last)[:, None], steps], 1)[:, :-1] - first[:, None]
    index = count[:, None] + torch.arange(1, steps.shape[1] + 1)[:, None]  # (B, T, 1)
    terms = torch.stack([z, z.square(), index * z, (z - previous).abs(), z * previous], 2)  # (B, T, 5, C)
    sums = torch.cat([before[:, None, 4:], terms], 1).cumsum(1)  # (B, T + 1, 5, C)
    lasts = torch.cat([last[:, None], steps], 1)
    lows = torch.cat([low[:, None], steps], 1).cummin(1).values
    highs = torch.cat([high[:, None], steps], 1).cummax(1).values
    running = torch.stack([first[:, None].expand_as(lasts), lasts, lows, highs], 2)  # (B, T + 1, 4, C)
    return torch.cat([running, sums], 2)


def statistics(running: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """`accumulated` (B, T, 9, C) after counts (B, T, 1) steps → levels (B, T, 4, C): first, smallest, largest, mean; and
    shapes (B, T, 4, C): standard deviation, slope per step, mean absolute change, lag-1 autocorrelation.

    With one step the slope is zero, and so is the autocorrelation of a constant.
    """
    first, last, low, high, total, squares, moments, changes, products = running.unbind(2)  # (B, T, C)
    z, mean = last - first, total / counts
    spread = (squares - total * mean).clamp(min=0)  # Σ (z - mean)²
    times = counts * (counts.square() - 1) / 12  # Σ (i - mean of i)²
    slope = (moments - (counts + 1) / 2 * total) / times.clamp(min=0.5)
    # Σ (z_i - mean)(z_(i-1) - mean) over i = 2 … t, where z_1 is 0.
    together = products - mean * (2 * total - z) + (counts - 1) * mean.square()
    correlation = torch.where(spread > 1e-12 * squares, together / spread.clamp(min=1e-300), 0.0)
    levels = torch.stack([first, low, high, first + mean], 2)
    return levels, torch.stack([(spread / counts).sqrt(), slope, changes / (counts - 1).clamp(min=1), correlation], 2)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    if isinstance(target, Transcript):
        return "trees give an answer for each step, and a transcript says not at which step its symbols belong"
    if not isinstance(inputs, RealInput) and inputs.vocabulary > MAX_CATEGORIES:
        return f"trees split categories, at most {MAX_CATEGORIES} of them, and there are {inputs.vocabulary} symbols"
    return refuses_actions(inputs, target, causal)


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: BoostedTreesConfig) -> Predictor:
    return BoostedTrees(inputs, target, config)


ENTRIES = [
    ModelEntry(
        name="boosted_trees",
        family="non-neural",
        config=BoostedTreesConfig(),
        build=_build,
        fit=Fit.OWN,
        source="Friedman 2001, doi:10.1214/aos/1013203451, as in scikit-learn",
        imports=("sklearn.ensemble",),
        summary="gradient-boosted trees on the last steps and a running summary of all before",
        refuses=_refuses,
        search_space={
            "window": Choice((8, 32, 64)),
            "max_leaves": Choice((7, 31)),
            "learning_rate": LogRange(0.03, 0.3),
        },
        state="(W + 8) * C + 1",
    )
]
