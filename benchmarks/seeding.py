"""Every seed of the project, by named axes: the only place where randomness begins.

``seed_for("data", task, seed)`` is the same for every model, so all of them see the same draws; ``seed_for("test", task)``
is the same for every seed; ``seed_for("init", task, model, seed)`` differs from model to model. The idea of seeds by named
axis is benchopt's (https://benchopt.github.io).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_for(*axes: str | int) -> int:
    """A 63-bit seed that depends on the axes alone, on no platform, order of calls or hash seed."""
    digest = hashlib.sha256("\x1f".join(str(axis) for axis in axes).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(*axes: str | int) -> torch.Generator:
    """A CPU generator for torch, seeded by the axes."""
    return torch.Generator().manual_seed(seed_for(*axes))


def numpy_generator(*axes: str | int) -> np.random.Generator:
    """A generator for numpy, seeded by the axes."""
    return np.random.default_rng(seed_for(*axes))
