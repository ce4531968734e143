"""Memory of this process: its part of a GPU, and its peak, measured the way that a child's inherited peak cannot spoil.

On Linux the kernel's high-water mark is reset through /proc/self/clear_refs and read back as VmHWM; a child's ru_maxrss, in
contrast, starts at its parent's peak. Elsewhere the resident size at the end is reported, labelled as a sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")

CONTEXT_BYTES = 640 << 20
"""What CUDA and its libraries take in each process before the first tensor, which the allocator's limit does not count."""

SHARE = "RNNBENCH_GPU_SHARE"
"""Environment variable that tells a trial its part of the GPU's memory."""


class PeakMemory:
    """Start it once imports are done; `read` gives the peak since, and its increment over the start, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start_bytes = psutil.Process().memory_info().rss
        if CLEAR_REFS.exists():
            CLEAR_REFS.write_text("5")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, float | str]:
        """peak_bytes, increment_bytes and method; on a GPU its allocated and reserved peaks too."""
        if CLEAR_REFS.exists():
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            peak, method = int(line.split()[1]) * 1024, "VmHWM after reset"
        else:
            peak, method = psutil.Process().memory_info().rss, "resident size at the end, a sample"
        report: dict[str, float | str] = {
            "peak_bytes": peak,
            "increment_bytes": max(0, peak - self.start_bytes),
            "method": method,
        }
        if self.device.type == "cuda":
            report["gpu_allocated_bytes"] = torch.cuda.max_memory_allocated(self.device)
            report["gpu_reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return report


@contextmanager
def peak_told() -> Iterator[None]:
    """Adds to what CUDA says when its memory is full what the process held at most, and how much it may: its slot's limit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if not torch.cuda.is_initialized():
            raise
        device = torch.cuda.current_device()
        total = torch.cuda.get_device_properties(device).total_memory
        limit = torch.cuda.get_per_process_memory_fraction(device) * total
        peak = torch.cuda.max_memory_allocated(device)
        raise torch.OutOfMemoryError(
            f"{error} The trial held {peak / 2**30:.2f} GiB at most, of {limit / 2**30:.2f} GiB that it may hold."
        ) from error


def occupy(device: torch.device) -> None:
    """Keeps this process within its part of the GPU's memory, if it was given one: more is then an OutOfMemoryError, and no
    trouble for the trials beside."""
    share = float(os.environ.get(SHARE, 1))
    if device.type == "cuda" and share < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        # A GPU too small for so many contexts shall at least not be refused outright.
        torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT_BYTES / total, share / 4), device)
