"""A linear recurrence over time, h_t = a_t h_(t-1) + b_t, in about 4√T operations one after another instead of T.

Time is cut into about √T chunks of about √T steps. A loop over the steps inside *all chunks at once* gives what each chunk
would end with had it begun at zero, and the product of its coefficients; a loop over the chunks then gives what each really
begins with; a second loop over the steps, from there, gives every h_t. It is the blocked form of the parallel prefix sum
(Blelloch 1990, CMU-CS-90-190) with one level of blocks: it costs three multiplications a step where the plain loop costs one,
and no logarithms, unlike the log-space form of Heinsen 2023 (arXiv 2311.06281). For |a_t| ≤ 1 no product overflows, and one
that underflows is a past forgotten, as it would be step by step.

The gradient is the same recurrence run backwards, with g_t = ∂loss/∂h_t counting all later steps:

    g_t = ∂/∂h_t + conj(a_(t+1)) g_(t+1),   ∂loss/∂b_t = g_t,   ∂loss/∂a_t = g_t conj(h_(t-1)),   ∂loss/∂h_0 = conj(a_1) g_1
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.precision import widened

SHORT = 16
"""Up to so many steps the plain loop has no more operations than the chunked one: T ≤ 4√T."""


def linear_scan(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """h_1 … h_T of h_t = a_t h_(t-1) + b_t, for T ≥ 1. Time comes first, so that what is read together lies together.

    coefficients: a, (T, B, H), may be an expanded view. inputs: b, (T, B, H). start: h_0, (B, H). All real or all complex, of
    one type, on one device. Returns (T, B, H). Differentiable once in all three.
    """
    coefficients, inputs = widened(coefficients), widened(inputs)
    if len(inputs) == 1:  # streaming
        return torch.addcmul(inputs, coefficients, start)
    return _LinearScan.apply(coefficients, inputs, start)


def gated_scan(logits: Tensor, candidates: Tensor, start: Tensor) -> Tensor:
    """h_1 … h_T of h_t = (1 - z_t) h_(t-1) + z_t c_t with z = σ(logits), for T ≥ 1; the same as `linear_scan` of 1 - z and z c,
    with fewer tensors of that size made on the way. logits, candidates: (T, B, H), real. start: h_0, (B, H).
    """
    logits, candidates = widened(logits), widened(candidates)
    if len(logits) == 1:  # streaming
        return torch.lerp(start, candidates, logits.sigmoid())
    return _GatedScan.apply(logits, candidates, start)


class _LinearScan(torch.autograd.Function):
    """The scan with its gradient in closed form, so that only a and h are kept for it."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
        states = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        scan(coefficients, inputs, start, states)
        ctx.save_for_backward(coefficients, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coefficients, states, start = ctx.saved_tensors
        # All of it conjugated, so that the coefficients, which may be an expanded view, need no conjugated copy.
        total, of_start = scan_gradient(coefficients, gradient.conj())
        of_coefficients = torch.empty_like(total)
        torch.mul(total[0], start, out=of_coefficients[0])
        torch.mul(total[1:], states[:-1], out=of_coefficients[1:])
        return of_coefficients.conj(), total.conj(), of_start.conj()


class _GatedScan(torch.autograd.Function):
    """∂loss/∂c_t = z_t g_t, and ∂loss/∂logit_t = z_t (1 - z_t) (c_t - h_(t-1)) g_t."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, candidates: Tensor, start: Tensor) -> Tensor:
        update = logits.sigmoid()
        states = update * candidates
        scan(1 - update, states, start, states)
        ctx.save_for_backward(update, candidates, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        update, candidates, states, start = ctx.saved_tensors
        kept = 1 - update
        total, of_start = scan_gradient(kept, gradient)
        of_logits = torch.empty_like(total)
        torch.sub(candidates[0], start, out=of_logits[0])
        torch.sub(candidates[1:], states[:-1], out=of_logits[1:])
        of_logits.mul_(kept)
        of_candidates = total.mul_(update)
        return of_logits.mul_(of_candidates), of_candidates, of_start


def scan_gradient(coefficients: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """∂loss/∂h_t counting all later steps, (T, B, H), and ∂loss/∂h_0, (B, H), for real coefficients; gradient: without them."""
    total = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    total[-1] = gradient[-1]
    scan(coefficients[1:], gradient[:-1], gradient[-1], total[:-1], backwards=True)
    return total, coefficients[0] * total[0]


def scan(coefficients: Tensor, inputs: Tensor, start: Tensor, out: Tensor, backwards: bool = False) -> None:
    """Writes h into ``out``, which may be ``inputs``. coefficients, inputs, out: (T, B, H). start: (B, H), the state before the
    first step in the order of the scan.

    The chunks hold all but the last T mod √T steps, which follow one by one; so nothing is padded and nothing copied.
    """
    n_steps = len(inputs)
    direction = -1 if backwards else 1
    inside = 0
    if n_steps > SHORT:
        size = isqrt(n_steps)
        n_chunks = n_steps // size
        inside = n_chunks * size
        chunked = slice(n_steps - inside, None) if backwards else slice(inside)

        def by_step(x: Tensor) -> tuple[Tensor, ...]:
            return x[chunked].unflatten(0, (n_chunks, size)).unbind(1)[::direction]  # size times (n, B, H)

        start = _scan_chunks(by_step(coefficients), by_step(inputs), start, by_step(out), direction)
    rest = slice(n_steps - inside) if backwards else slice(inside, None)
    steps = zip(coefficients[rest].unbind(), inputs[rest].unbind(), out[rest].unbind(), strict=True)  # (B, H) each
    for coefficient, value, state in list(steps)[::direction]:
        start = torch.addcmul(value, coefficient, start, out=state)


def _scan_chunks(
    coefficients: Sequence[Tensor], inputs: Sequence[Tensor], start: Tensor, out: Sequence[Tensor], direction: int
) -> Tensor:
    """The same for n chunks, given by step of the chunk, (n, B, H) each; returns the state after the last chunk, (B, H)."""
    ends = inputs[0].clone(memory_format=torch.contiguous_format)  # what each chunk ends with, had it begun at zero
    products = coefficients[0].clone(memory_format=torch.contiguous_format)
    for coefficient, value in zip(coefficients[1:], inputs[1:], strict=True):
        torch.addcmul(value, coefficient, ends, out=ends)
        products *= coefficient
    starts = torch.empty_like(ends)
    for begin, product, end in list(zip(starts.unbind(), products.unbind(), ends.unbind(), strict=True))[::direction]:
        begin.copy_(start)
        start = end.addcmul_(product, start)
    before = starts
    for coefficient, value, state in zip(coefficients, inputs, out, strict=True):
        before = torch.addcmul(value, coefficient, before, out=state)
    return start
