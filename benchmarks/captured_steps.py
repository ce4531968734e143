"""Training steps taken from CUDA graphs: the same steps, handed to the GPU in one piece.

A step of a small model is hundreds of short kernels, and to launch one costs the host more than to run it costs the GPU. A
CUDA graph holds forward pass, backward pass, clipping and optimiser, and one call launches all of it (PyTorch's notes:
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

A graph reads and writes fixed places in memory: a batch is copied to where the graph reads it, and what it leaves is copied
from where it writes. So there is one graph for each shape of batch, up to `MAX_GRAPHS` of them, and only for batches without
padding, whose lengths are part of how the kernels are launched. All other steps are taken one kernel after the other, as
every step is without graphs, and so are the first `WARM_UP` of each shape, which show whether the step can be captured: the
host must not wait for the GPU in it, and it must change tensors where they are. `CapturedSteps.note` says what was done.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from models.contract import Predictor, State
from models.sequences import SequenceBatch

if TYPE_CHECKING:
    from benchmarks.fitting import Update

MAX_GRAPHS = 8
"""A graph keeps the memory of its step; batches of one length come in two shapes, the last of an epoch being smaller."""

WARM_UP = 2
"""The first step makes what lasts (the optimiser's state, workspaces), the second is like all that follow."""

SYNCHRONISES = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits for the GPU, if asked to."""

# The optimiser is made for capture, and takes some steps without.
warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")

Take = Callable[[SequenceBatch, State | None], "Update"]
"""One update from a batch that goes on from a state."""


class CaptureFailed(RuntimeError):
    """A step that looked as if it could be captured, and could not: afterwards the GPU's state is unknown."""


class Graph(Protocol):
    """A captured step. update: where each replay leaves what it found."""

    update: Update

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], "Update"]], Graph]
"""Records a step without taking it."""


@dataclass
class _Shape:
    """Batches of one shape: where they are read from, how many were taken on the way to a graph, and the graph."""

    batch: SequenceBatch
    state: State | None
    n_taken: int = 0
    graph: Graph | None = None

    def fill(self, batch: SequenceBatch, state: State | None) -> None:
        for kept, new in zip(_tensors(self.batch, self.state), _tensors(batch, state), strict=True):
            kept.copy_(new)


class CapturedSteps:
    """Takes steps, from a graph where there is one. take: a step as it is without graphs. capture: None: there are none here,
    and every step is taken so."""

    def __init__(self, predictor: Predictor, take: Take, capture: Capture | None) -> None:
        self.predictor = predictor
        self.take = take
        self.capture = capture
        self.shapes: dict[tuple[object, ...], _Shape] = {}
        self.counts: Counter[str] = Counter()
        self.refused = None if capture is not None else "because only a GPU has graphs"

    def __call__(self, batch: SequenceBatch, state: State | None = None) -> Update:
        if self.refused is not None:
            return self._one_by_one(batch, state, self.refused)
        if batch.target_lengths is not None or not bool((batch.lengths == batch.inputs.shape[1]).all()):
            return self._one_by_one(batch, state, "of batches with padding")
        placed = replace(batch, places=batch.scored.nonzero(as_tuple=True))
        shape = self._shape(placed, state)
        if shape is None:
            return self._one_by_one(batch, state, "of further shapes")
        shape.fill(placed, state)
        if shape.n_taken < WARM_UP:
            shape.n_taken += 1
            return self._watched(shape)
        if shape.graph is None:
            assert self.capture is not None
            shape.graph = self.capture(lambda: self.take(shape.batch, shape.state))
        shape.graph.replay()
        self.counts["from graphs"] += 1
        loss, norm, after = shape.graph.update
        return shape.graph.update._replace(
            loss=loss.clone(), norm=norm.clone(), state=tuple(part.clone() for part in after)
        )

    @property
    def note(self) -> str:
        """How the steps were taken, for the record."""
        graphs = sum(shape.graph is not None for shape in self.shapes.values())
        others = ", ".join(f"{n} {why}" for why, n in self.counts.items() if why != "from graphs")
        return f"{self.counts['from graphs']} steps from {graphs} CUDA graphs; one by one: {others or 'none'}"

    def _shape(self, batch: SequenceBatch, state: State | None) -> _Shape | None:
        key = (state is None, *((tensor.shape, tensor.dtype) for tensor in _tensors(batch, state)))
        if key not in self.shapes:
            if len(self.shapes) == MAX_GRAPHS:
                return None
            copied = replace(
                batch,
                inputs=batch.inputs.clone(),
                targets=batch.targets.clone(),
                scored=batch.scored.clone(),
                places=tuple(part.clone() for part in batch.places or ()),
            )
            self.shapes[key] = _Shape(copied, None if state is None else tuple(part.clone() for part in state))
        return self.shapes[key]

    def _watched(self, shape: _Shape) -> Update:
        """A step on the way to a graph, which shows whether there can be one."""
        before = self._kept()
        with _aside(shape.batch.inputs.device) as waits:
            update = self.take(shape.batch, shape.state)
        if waits:
            self.refused = "because the host waits for the GPU in the step"
        elif any(new is not old for new, old in zip(self._kept(), before, strict=True)):
            self.refused = "because the model puts new tensors in the place of its own"
        self.counts["to warm up"] += 1
        return update

    def _kept(self) -> list[Tensor]:
        return [*self.predictor.parameters(), *self.predictor.buffers()]

    def _one_by_one(self, batch: SequenceBatch, state: State | None, why: str) -> Update:
        self.counts[why] += 1
        return self.take(batch, state)


class _CUDAGraph:
    """A `Graph` on a GPU. pool: memory that all graphs of a fit share, for no two run at once."""

    def __init__(self, step: Callable[[], Update], pool: Any, stream: torch.cuda.Stream) -> None:
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, pool=pool, stream=stream):
                self.update = step()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise CaptureFailed(f"the step cannot be captured ({first}); write fit: {{step: eager}}") from error

    def replay(self) -> None:
        self.graph.replay()


def capture_on(device: torch.device) -> Capture | None:
    """How steps are captured on a device; None where it has no graphs."""
    if device.type != "cuda":
        return None
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
    return lambda step: _CUDAGraph(step, pool, stream)


@contextmanager
def _aside(device: torch.device) -> Iterator[list[str]]:
    """On a GPU: in a stream of its own, as what comes before a capture must be. Yields a list which then holds what the host
    waited for inside."""
    waits: list[str] = []
    if device.type != "cuda":
        yield waits
        return
    mode, stream, here = torch.cuda.get_sync_debug_mode(), torch.cuda.Stream(device), torch.cuda.current_stream(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream.wait_stream(here)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with torch.cuda.stream(stream):
                yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        here.wait_stream(stream)
    for warning in caught:
        if SYNCHRONISES in str(warning.message):
            waits.append(str(warning.message))
        elif "capturable" not in str(warning.message) and "prototype" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _tensors(batch: SequenceBatch, state: State | None) -> list[Tensor]:
    """All that a step reads of a batch and a state, on the device."""
    return [batch.inputs, batch.targets, batch.scored, *(batch.places or ()), *(state or ())]
