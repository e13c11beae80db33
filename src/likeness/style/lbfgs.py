"""L-BFGS without a line search (Nocedal & Wright 2006, algorithms 7.4 and 7.5), for samples so large that a vector of
their size is a large share of the memory. The two loops begin with the curvature by frequency and colour
(`style.curvature`), once enough pairs were seen, instead of with y's / y'y.

Between two steps it keeps the last gradient, the last step and the pairs, and nothing else of the sample's size; it
works in the memory of the gradient it is given; and it can keep steps and pairs in bfloat16. (torch's copies the
gradient, keeps the direction too, and has only its parameters' precision.) In float32 it walks at first where torch's
`LBFGS(max_iter=1)` with tolerances of 0 walks, but for the first step where |g|_1 is above 1e4, as of any picture:
torch's is g/|g|_1, ours 1e-4 g; and for steps that are longer than they may be: two gradients that hardly differ, as
where the first step led into a valley's floor, promise a bowl so wide that the next one leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import curvature

CHUNK = 1 << 20  # values that are brought to another precision at once
FIRST = 1e-4  # the first step of a large sample, per g: torch's 1/|g|_1, with as many values, would be lost to rounding
LONGEST = 0.05  # RMS of a step
FLATTEST = 1e-10  # pairs with y's below it say nothing (of gradients of about RMS 1)


def move(x: Tensor, gradient: Tensor, state: dict[str, Any], *, rate: float, history: int, compact: bool) -> None:
    """One step of `x` (1, c, *spatial), in place.

    gradient: of J at x; contiguous, and taken over.
    state: {} before the first step, and what this function left there before every other one.
    rate: a share, 1 or less where steps failed: of the first step, and of LONGEST.
    history: pairs of steps and changes of the gradient that are remembered, at least 1.
    compact: keep them in bfloat16.
    """
    g = gradient.flatten()
    d = torch.empty_like(g) if not state else state.pop("gradient").flatten()
    first = "step" not in state
    pairs: list[list[Any]] = state.setdefault("pairs", [])  # s, y, y's
    bowl: dict[str, Any] = state.setdefault("bowl", {})
    if not first:
        torch.sub(g, d, out=d)
        y, s = _kept(d, compact), state.pop("step")
        if (product := dot(s, y)) > FLATTEST:
            pairs.append([s, y, product])
            curvature.look(bowl, s, y, product, x.shape)
        if y is d:
            d = torch.empty_like(g)
    torch.neg(g, out=d)
    _times_inverse_hessian(d.view(x.shape), pairs, curvature.beginning(bowl))
    if first or dot(g, d) >= 0:  # rounding can turn a direction uphill
        pairs.clear()
        torch.neg(g, out=d)
        d.mul_(rate * min(1.0, max(1 / max(float(torch.linalg.vector_norm(g, 1)), 1e-30), FIRST)))
    rms = math.sqrt(dot(d, d) / d.numel())
    if rms > rate * LONGEST:
        d.mul_(rate * LONGEST / rms)
    del pairs[: max(0, len(pairs) - history + 1)]  # the step makes the next pair
    state["step"] = _kept(d, compact)
    for part, step in _together(x.view(-1), state["step"]):
        part.add_(step)
    state["gradient"] = g


def _times_inverse_hessian(d: Tensor, pairs: list[list[Any]], M: Tensor | None) -> None:
    """The two loops, in place, for d (1, c, *spatial)."""
    if not pairs:
        return
    flat, shares = d.view(-1), []
    for s, y, product in reversed(pairs):
        shares.append(dot(s, flat) / product)
        _add(flat, y, -shares[-1])
    if M is None:
        _, newest, product = pairs[-1]
        d.mul_(product / dot(newest, newest))
    else:
        curvature.apply(M, d)
    for (s, y, product), share in zip(pairs, reversed(shares), strict=True):
        _add(flat, s, share - dot(y, flat) / product)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(p @ q) for p, q in _together(a, b))


def _add(d: Tensor, other: Tensor, factor: float) -> None:
    for part, more in _together(d, other):
        part.add_(more, alpha=factor)


def _together(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of two flat vectors in one precision, at least float32; those of `a` are views where it has that."""
    precision = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    for p, q in zip(a.split(CHUNK), b.split(CHUNK), strict=True):
        yield p.to(precision), q.to(precision)


def _kept(d: Tensor, compact: bool) -> Tensor:
    return d.to(torch.bfloat16) if compact else d
