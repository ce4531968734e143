"""Places on GPUs: several trials share one, each with its part of the memory; a trial that runs alone has all of it.

A place is taken where a trial is started and given back where it ends; in the trial's own process `profiling.occupy` keeps
within it.
To ask here how many GPUs there are starts no context on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.profiling import SHARE

MOST = 16
"""Trials on one GPU at most: kernels of different processes take turns, so more would only wait for each other."""

LEAST_BYTES = 4 << 30
"""Of a GPU's memory, for each trial that shares it."""


@dataclass(frozen=True)
class Slot:
    """gpu: as CUDA_VISIBLE_DEVICES names it. share: of its memory; 1 where nothing runs beside."""

    gpu: str
    share: float

    @property
    def environment(self) -> dict[str, str]:
        """What a process must find in its environment before it first asks for a GPU."""
        return {"CUDA_VISIBLE_DEVICES": self.gpu, SHARE: str(self.share)}


class Slots:
    """Places for ``n`` trials at a time, spread evenly over the GPUs; without GPUs there are none to be had, nor needed.

    in_turn: only one of them computes at a time, so all have the whole of the first GPU.
    """

    def __init__(self, gpus: Sequence[str], n: int, in_turn: bool = False) -> None:
        gpus = gpus[:1] if in_turn else gpus
        self.per_gpu = -(-n // len(gpus)) if gpus else 0
        self.share = 1.0 if in_turn or not gpus else 1 / self.per_gpu
        self.taken = dict.fromkeys(gpus, 0)

    def acquire(self) -> Slot | None:
        """A place on the GPU with the fewest trials, None where there is no GPU. Raises RuntimeError where all are taken."""
        if not self.taken:
            return None
        gpu = min(self.taken, key=lambda name: self.taken[name])
        if self.taken[gpu] == self.per_gpu:
            raise RuntimeError(f"all {self.per_gpu * len(self.taken)} places on GPUs are taken")
        self.taken[gpu] += 1
        return Slot(gpu, self.share)

    def release(self, slot: Slot | None) -> None:
        """Gives a place back."""
        if slot is not None:
            self.taken[slot.gpu] -= 1


def visible_gpus() -> list[str]:
    """The GPUs that torch may use, as CUDA_VISIBLE_DEVICES names them, asked of the driver's library (NVML)."""
    n = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in chosen.split(",")][:n] if chosen else [str(i) for i in range(n)]


def default_workers(cores: int, gpus: Sequence[str], memory_bytes: int | None) -> int:
    """Trials at a time where nobody says: one per core; on GPUs as many as these bear too. memory_bytes: of the smallest GPU,
    None where unknown."""
    if not gpus:
        return cores
    by_memory = MOST if memory_bytes is None else memory_bytes // LEAST_BYTES
    return len(gpus) * max(1, min(cores // len(gpus), MOST, by_memory))


def memory_bytes() -> int | None:
    """Of the smallest GPU, by the driver's own tool; None where it is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    sizes = [int(size) << 20 for size in listed if size.isdigit()]
    return min(sizes, default=None)
