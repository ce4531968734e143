"""The contract of `models.contract`, run over any registered model: ``rnnbench check MODEL`` and the test suite.

Each invariant is stated once, as a function that returns the largest relative error it saw; it holds where that is within
1e-8 in float64 and 1e-4 in float32. Everything runs in evaluation mode, on small random sequences of unequal length.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from benchmarks.example_batch import random_batch
from benchmarks.execution.lifeline import die_with_parent
from benchmarks.seeding import torch_generator
from models import registry
from models.contract import Choice, Fit, ModelEntry, Predictor, SelfFitting, State
from models.sequences import (
    Actions,
    Binary,
    Classes,
    InputSpec,
    Real,
    RealInput,
    SequenceBatch,
    TargetSpec,
    TokenInput,
    Transcript,
    last_steps,
    valid_steps,
)
from models.sizing import size_to_budget

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
BUDGET = 4000
N_SEQUENCES, N_STEPS = 24, 13
CHUNKS = (1, 7, N_STEPS)


class Kind(NamedTuple):
    """A kind of task, by its specs alone."""

    inputs: InputSpec
    target: TargetSpec
    causal: bool

    def __str__(self) -> str:
        when = "causal" if self.causal else "whole sequence"
        return f"{type(self.inputs).__name__} → {type(self.target).__name__} per {self.target.scope}, {when}" + (
            ", future" if self.target.future else ""
        )


KINDS = (
    Kind(RealInput(3, N_STEPS, 8), Classes(4, "sequence"), False),
    Kind(RealInput(3, N_STEPS, 8), Classes(4, "step"), True),
    Kind(RealInput(2, N_STEPS, 8), Real(1, "sequence"), False),
    Kind(RealInput(2, N_STEPS, 8), Real(6, "sequence", future=True), False),
    Kind(RealInput(3, N_STEPS, 8), Binary(4, "step"), True),
    Kind(RealInput(3, N_STEPS, 8), Binary(3, "step", future=True), True),
    Kind(RealInput(3, N_STEPS, 8), Transcript(4), False),
    Kind(RealInput(3, N_STEPS, 8), Actions(2), True),
    Kind(TokenInput(5, N_STEPS, 8), Classes(2, "sequence"), False),
    Kind(TokenInput(5, N_STEPS, 8), Classes(5, "step", future=True), True),
    Kind(TokenInput(5, N_STEPS, 8), Classes(3, "step"), True),
    Kind(TokenInput(5, N_STEPS, 8), Classes(3, "step"), False),
)


class Finding(NamedTuple):
    """One invariant on one kind of task. detail: the largest error and its tolerance, or the reason of a refusal."""

    invariant: str
    kind: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Subject:
    """What the invariants are tried on: a predictor, valid inputs, and who fits it."""

    predictor: Predictor
    inputs: Tensor  # (B, T, C) or (B, T)
    lengths: Tensor  # (B,)
    entry: ModelEntry
    kind: Kind
    rebuild: Callable[[], Predictor]

    def answered(self) -> Tensor:
        """(B, T) bool: the rows a predictor must get right. One that takes whole sequences and gives each a single answer
        gives it at the last valid step."""
        whole = not self.predictor.causal and self.kind.target.scope == "sequence"
        return (last_steps if whole else valid_steps)(self.lengths, N_STEPS)


def check(name: str) -> Iterator[Finding]:
    """Every invariant over every kind of task that the model takes, then every option on one causal kind and one that gives
    the whole sequence, in float64; raises UnknownName."""
    entry = registry.entry(name)
    taken = []
    for kind in KINDS:
        refusal = entry.refuses(*kind)
        if refusal is not None:
            yield Finding("refuses with a reason", str(kind), bool(refusal.strip()), refusal)
            continue
        taken.append(kind)
        for dtype, tolerance in TOLERANCES.items():
            yield from _findings(entry, kind, dtype, tolerance)
    for kind in {kind.causal: kind for kind in reversed(taken)}.values():
        for option, config in options(entry):
            for finding in _findings(replace(entry, config=config), kind, torch.float64, TOLERANCES[torch.float64]):
                yield finding._replace(kind=f"{kind}; {option}")


def check_all(names: Sequence[str] | None = None) -> Iterator[tuple[str, list[Finding]]]:
    """The findings of each model in turn, by default of every registered one, worked out on all cores; raises UnknownName."""
    chosen = [registry.entry(name).name for name in names] if names else list(registry.entries())
    ours = [name for name in chosen if name not in registry.plugins()]
    workers = min(len(ours), os.cpu_count() or 1)
    if workers == 1:
        torch.set_num_threads(1)
        yield from ((name, _findings_of(name)) for name in ours)
    elif ours:
        with _pool(workers) as pool:
            yield from zip(ours, pool.map(_findings_of, ours), strict=True)
    for name in chosen:
        if name in registry.plugins():
            yield name, _findings_apart(name)


def _findings_apart(name: str) -> list[Finding]:
    """Those of a plug-in, whose code may end the process that checks it."""
    with _pool(1) as pool:
        try:
            return pool.submit(_findings_of, name).result()
        except BrokenProcessPool:
            return [Finding("can be checked", "", False, "the process that checked it died")]


def _pool(workers: int) -> ProcessPoolExecutor:
    """Fresh processes: a fork would inherit torch's threads."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (os.getpid(),))


def _begin(parent: int) -> None:
    """Small tensors gain nothing from more than one thread each."""
    die_with_parent(parent)
    torch.set_num_threads(1)


def _findings_of(name: str) -> list[Finding]:
    try:
        return list(check(name))
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return [Finding("can be checked", "", False, f"{type(error).__name__}: {error}")]


def options(entry: ModelEntry) -> Iterator[tuple[str, Any]]:
    """Every configuration that differs from the default in one option, and what differs: each other literal and flag, and
    each other count that tuning may choose. Shares of dropout are not among them: in evaluation nothing is dropped."""
    for name, kind in get_type_hints(type(entry.config)).items():
        default, tuned = getattr(entry.config, name), entry.search_space.get(name)
        values = {False, True} if kind is bool else set(get_args(kind)) if get_origin(kind) is Literal else set()
        if isinstance(tuned, Choice):
            values |= {value for value in tuned.values if not isinstance(value, float)}
        for value in sorted(values - {default}, key=str):
            yield f"{name}={value}", replace(entry.config, **{name: value})


def _findings(entry: ModelEntry, kind: Kind, dtype: torch.dtype, tolerance: float) -> Iterator[Finding]:
    """Every invariant on one kind of task; whatever the model raises is a finding, for a new model is what this is for."""
    precision = str(dtype).removeprefix("torch.")
    try:
        subject = _subject(entry, kind, dtype)
    except Exception as error:  # noqa: BLE001
        yield Finding(f"builds and fits, {precision}", str(kind), False, _said(error))
        return
    for invariant in INVARIANTS:
        label = f"{invariant.__name__.replace('_', ' ')}, {precision}"
        try:
            worst = invariant(subject)
        except Exception as error:  # noqa: BLE001
            yield Finding(label, str(kind), False, _said(error))
            continue
        if worst is not None:
            yield Finding(label, str(kind), worst <= tolerance, f"error {worst:.1e}, tolerance {tolerance:.0e}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def example_batch(kind: Kind, dtype: torch.dtype, generator: torch.Generator) -> SequenceBatch:
    """Random sequences of unequal length under the specs, targets random too."""
    lengths = torch.randint(2, N_STEPS + 1, (N_SEQUENCES,), generator=generator)
    lengths[0] = N_STEPS
    return random_batch(kind.inputs, kind.target, lengths, dtype, generator)


def _subject(entry: ModelEntry, kind: Kind, dtype: torch.dtype) -> Subject:
    config, _ = size_to_budget(entry, *kind, entry.config, BUDGET)
    batch = example_batch(kind, dtype, torch_generator("check", str(kind)))

    def rebuild() -> Predictor:
        predictor = registry.build(entry, *kind, config, seed=0)
        if dtype == torch.float64:
            predictor.double()  # float32 is what is built; a model that computes in float64 by itself goes on doing so
        if entry.fit is Fit.OWN:
            cast(SelfFitting, predictor).fit(batch, batch, torch.Generator().manual_seed(0))
        return predictor.eval()

    return Subject(rebuild(), batch.inputs, batch.lengths, entry, kind, rebuild)


# Invariants. Each returns its largest relative error, or None where it does not apply.


def shape_of_outputs(s: Subject) -> float:
    """Outputs are (B, T, K) in the model's own floating type."""
    outputs, _ = s.predictor(s.inputs, None, s.lengths)
    right = outputs.shape == (*s.inputs.shape[:2], s.kind.target.n_outputs) and outputs.is_floating_point()
    return 0.0 if right else float("inf")


def chunks_compose(s: Subject) -> float | None:
    """f(x[:a]) then f(x[a:]) is f(x), at chunks of 1, 7 and T steps, sequences ending inside, at and before chunks."""
    if not s.predictor.causal:
        return None
    with torch.no_grad():
        whole, _ = s.predictor(s.inputs, None, s.lengths)
        return max(_error(_in_chunks(s, size), whole, s.lengths) for size in CHUNKS)


def gradients_compose(s: Subject) -> float | None:
    """The gradient of a loss over all valid outputs is the same in chunks as at once."""
    if not s.predictor.causal or s.entry.fit is not Fit.GRADIENT:
        return None
    valid = valid_steps(s.lengths, N_STEPS)
    gradients = []
    for outputs in (s.predictor(s.inputs, None, s.lengths)[0], _in_chunks(s, 5)):
        weights = torch.linspace(-1, 1, outputs[valid].numel(), dtype=outputs.dtype).view_as(outputs[valid])
        loss = (outputs[valid] * weights).sum()
        used = torch.autograd.grad(loss, list(s.predictor.parameters()), allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in used]))
    return _relative(gradients[0], gradients[1])


def initial_state_is_the_beginning(s: Subject) -> float | None:
    """Starting from initial_state is starting from None; a model that takes whole sequences raises on a state instead."""
    n = len(s.inputs)
    if s.predictor.causal:
        with torch.no_grad():
            whole, _ = s.predictor(s.inputs, None, s.lengths)
            return _error(s.predictor(s.inputs, s.predictor.initial_state(n), s.lengths)[0], whole, s.lengths)
    _, state = s.predictor(s.inputs, None, s.lengths)
    try:
        s.predictor(s.inputs, (torch.zeros(n, 1),), s.lengths)
    except ValueError:
        return 0.0 if state == () == s.predictor.initial_state(n) else float("inf")
    return float("inf")


def ragged_chunks_compose(s: Subject) -> float | None:
    """Each sequence cut at a step of its own, some at 0: the state is the one after its own last valid step."""
    if not s.predictor.causal:
        return None
    cuts = torch.arange(len(s.inputs)) % (s.lengths + 1)  # (B,), 0 ≤ cut ≤ length
    steps = torch.arange(N_STEPS)
    shifted = (steps + cuts[:, None]).clamp(max=N_STEPS - 1)  # (B, T): where the second chunk's rows come from
    rows = torch.arange(len(s.inputs))[:, None]
    second = torch.where(
        _like(steps < (s.lengths - cuts)[:, None], s.inputs), s.inputs[rows, shifted], _spoilt(s.inputs)
    )
    first = torch.where(_like(steps < cuts[:, None], s.inputs), s.inputs, _spoilt(s.inputs))
    with torch.no_grad():
        whole, _ = s.predictor(s.inputs, None, s.lengths)
        before, state = s.predictor(first, None, cuts)
        after, _ = s.predictor(second, state, s.lengths - cuts)
    return max(_error(before, whole, cuts), _error(after, whole[rows, shifted], s.lengths - cuts))


def padding_stays_out(s: Subject) -> float:
    """NaN, or another symbol, in the padding changes no valid output."""
    spoilt = torch.where(_like(valid_steps(s.lengths, N_STEPS), s.inputs), s.inputs, _spoilt(s.inputs))
    with torch.no_grad():
        expected, _ = s.predictor(s.inputs, None, s.lengths)
        outputs, _ = s.predictor(spoilt, None, s.lengths)
    return _relative(outputs[s.answered()], expected[s.answered()])


def batch_equals_members(s: Subject) -> float:
    """A batch gives what its sequences give one by one, each without padding."""
    worst = 0.0
    with torch.no_grad():
        outputs, _ = s.predictor(s.inputs, None, s.lengths)
        for i, n in enumerate(s.lengths.tolist()):
            alone, _ = s.predictor(s.inputs[i : i + 1, :n], None, None)
            rows = s.answered()[i, :n]
            worst = max(worst, _relative(alone[0, rows], outputs[i, :n][rows]))
    return worst


def past_ignores_the_future(s: Subject) -> float | None:
    """Other inputs after step t leave a causal model's outputs up to t alone."""
    if not s.predictor.causal:
        return None
    t = N_STEPS // 2
    changed = torch.cat([s.inputs[:, :t], s.inputs[:, t:].flip(0)], dim=1)
    with torch.no_grad():
        expected, _ = s.predictor(s.inputs, None, None)
        outputs, _ = s.predictor(changed, None, None)
    return _relative(outputs[:, :t], expected[:, :t])


def counts_are_real(s: Subject) -> float:
    """Counted parameters are those an optimiser sees; counted state bytes are those of the state's tensors."""
    counted = sum(s.predictor.parameter_counts())
    if s.entry.fit is Fit.GRADIENT and counted != sum(p.numel() for p in s.predictor.parameters()):
        return float("inf")
    for t in (1, 5, N_STEPS):
        _, state = s.predictor(s.inputs[:1, :t], None, None)
        if sum(part.numel() * part.element_size() for part in state) != s.predictor.state_bytes(t):
            return float("inf")
    return 0.0


def same_seed_same_numbers(s: Subject) -> float:
    """Built again from the same seed, the outputs are bit for bit the same."""
    with torch.no_grad():
        first, _ = s.predictor(s.inputs, None, s.lengths)
        second, _ = s.rebuild()(s.inputs, None, s.lengths)
    return 0.0 if torch.equal(first[s.answered()], second[s.answered()]) else float("inf")


INVARIANTS: tuple[Callable[[Subject], float | None], ...] = (
    shape_of_outputs,
    chunks_compose,
    gradients_compose,
    initial_state_is_the_beginning,
    ragged_chunks_compose,
    padding_stays_out,
    batch_equals_members,
    past_ignores_the_future,
    counts_are_real,
    same_seed_same_numbers,
)


def _in_chunks(s: Subject, size: int) -> Tensor:
    state: State | None = None
    parts: list[Any] = []
    for start in range(0, N_STEPS, size):
        chunk = s.inputs[:, start : start + size]
        outputs, state = s.predictor(chunk, state, _chunk_lengths(s.lengths, start, chunk.shape[1]))
        parts.append(outputs)
    return torch.cat(parts, dim=1)  # (B, T, K)


def _chunk_lengths(lengths: Tensor, start: int, size: int) -> Tensor:
    return (lengths - start).clamp(0, size)


def _like(mask: Tensor, inputs: Tensor) -> Tensor:
    """(B, T) with the dimensions of (B, T, C) or (B, T) inputs."""
    return mask[..., None] if inputs.dim() == 3 else mask


def _spoilt(inputs: Tensor) -> Tensor:
    return torch.full_like(inputs, float("nan")) if inputs.is_floating_point() else torch.full_like(inputs, -1)


def _error(outputs: Tensor, expected: Tensor, lengths: Tensor) -> float:
    valid = valid_steps(lengths, outputs.shape[1])
    return _relative(outputs[valid], expected[valid])


def _relative(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference over the largest magnitude (at least 1); NaN counts as infinite."""
    if a.numel() == 0:
        return 0.0
    error = (a - b).abs().max() / b.abs().max().clamp(min=1)
    return float(error.nan_to_num(nan=float("inf")))
