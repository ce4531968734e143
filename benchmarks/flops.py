"""Floating-point operations of a training step: those of matrix products and convolutions, forwards and backwards.

torch's counter sees operators, so a fused LSTM or attention on a CPU counts nothing. With oneDNN off torch computes the LSTM as
its equations read, product by product, and with the plain kernel attention is two products and a softmax. Both give the same
numbers as the fused kernels and are visible; so there is no formula per model that would have to be kept in step with it.
Operations on elements (gates, norms, the optimiser) are not counted: neither are they in the papers' figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fitting import FitConfig, make_optimiser, training_step
from models.contract import Predictor
from models.sequences import SequenceBatch, TargetSpec


def training_flops(predictor: Predictor, target: TargetSpec, batch: SequenceBatch, config: FitConfig) -> int:
    """Of one update from ``batch``, which the predictor, on the CPU, takes: a multiplication and an addition are two."""
    optimiser = make_optimiser(predictor, config)
    predictor.train()
    with _unfused(), FlopCounterMode(display=False) as counter:
        training_step(predictor, target, batch, optimiser, config)
    return int(counter.get_total_flops())


@contextmanager
def _unfused() -> Iterator[None]:
    """Recurrences and attention by operators that the counter knows."""
    before = torch.backends.mkldnn.set_flags(False, _fp32_precision=None)[0]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mkldnn.set_flags(before, _fp32_precision=None)
