"""What a time depends on beside the code: the machine. Times of two machines are never put together."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")] if cpuinfo.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def fingerprint(device: str, threads: int) -> dict[str, str | int]:
    """processor, cores, gpu ("" for trials on the CPU), torch (its version), threads: part of a timing trial's id."""
    import torch  # which asking for the processor need not wait for

    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "torch": torch.__version__,
        "threads": threads,
    }
