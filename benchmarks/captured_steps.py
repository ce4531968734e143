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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

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
PROTOTYPE = "Synchronization debug mode is a prototype"
"""What it warns of when it is asked."""
CAPTURABLE = "This instance was constructed with capturable=True"
"""What it warns of where an optimiser made for capture takes a step without."""

warnings.filterwarnings("ignore", message=CAPTURABLE)

Take = Callable[[SequenceBatch, State | None], "Update"]
"""One update from a batch that goes on from a state."""
Step = Callable[[], "Update"]
"""The same, of what lies in fixed places."""


class CaptureFailed(RuntimeError):
    """A step that looked as if it could be captured, and could not: afterwards the GPU's state is unknown."""


class Graph(NamedTuple):
    """A captured step. update: where each replay leaves what it found. replay: takes the step."""

    update: Update
    replay: Callable[[], object]


class Recorder(Protocol):
    """What captures steps."""

    def watch(self, step: Step) -> tuple[Update, bool]:
        """Takes a step as one that will be captured; and whether the host waited for the GPU in it."""

    def capture(self, step: Step) -> Graph:
        """Records a step without taking it. Raises CaptureFailed."""


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
    """Takes steps, from a graph where there is one. take: a step as it is without graphs. recorder: None: there are no graphs
    here, and every step is taken so."""

    def __init__(self, predictor: Predictor, take: Take, recorder: Recorder | None) -> None:
        self.predictor = predictor
        self.take = take
        self.recorder = recorder
        self.shapes: dict[tuple[object, ...], _Shape] = {}
        self.counts: Counter[str] = Counter()
        self.refused = None if recorder is not None else "because only a GPU has graphs"

    def __call__(self, batch: SequenceBatch, state: State | None = None) -> Update:
        if self.recorder is None or self.refused is not None:
            return self._one_by_one(batch, state, str(self.refused))
        if batch.target_lengths is not None or not bool((batch.lengths == batch.inputs.shape[1]).all()):
            return self._one_by_one(batch, state, "of batches with padding")
        placed = replace(batch, places=batch.scored.nonzero(as_tuple=True))
        shape = self._shape(placed, state)
        if shape is None:
            return self._one_by_one(batch, state, "of further shapes")
        shape.fill(placed, state)
        if shape.n_taken < WARM_UP:
            shape.n_taken += 1
            return self._watched(shape, self.recorder)
        if shape.graph is None:
            shape.graph = self.recorder.capture(lambda: self.take(shape.batch, shape.state))
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

    def _watched(self, shape: _Shape, recorder: Recorder) -> Update:
        """A step on the way to a graph, which shows whether there can be one."""
        before = self._kept()
        update, waited = recorder.watch(lambda: self.take(shape.batch, shape.state))
        if waited:
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


class CUDARecorder:
    """A `Recorder` on a GPU. What leads to a capture and the captures themselves have a stream of their own, as CUDA asks for,
    and one memory, for no two graphs of a fit run at once."""

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def watch(self, step: Step) -> tuple[Update, bool]:
        here, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.stream.wait_stream(here)
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with torch.cuda.stream(self.stream):
                    update = step()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
            here.wait_stream(self.stream)
        for warning in caught:
            if not any(known in str(warning.message) for known in (SYNCHRONISES, PROTOTYPE, CAPTURABLE)):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return update, any(SYNCHRONISES in str(warning.message) for warning in caught)

    def capture(self, step: Step) -> Graph:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                update = step()
        except RuntimeError as error:
            # Where the step fails, the end of the capture fails too, and says less.
            cause = error.__context__ or error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            first = str(cause).partition("\n")[0]
            raise CaptureFailed(f"the step cannot be captured ({first}); write fit: {{step: eager}}") from error
        return Graph(update, graph.replay)


def _tensors(batch: SequenceBatch, state: State | None) -> list[Tensor]:
    """All that a step reads of a batch and a state, on the device."""
    return [batch.inputs, batch.targets, batch.scored, *(batch.places or ()), *(state or ())]
