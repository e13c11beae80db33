"""What style is compared by: sums over the positions of an activation, which therefore add up over tiles, and the error
between two samples' means of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2048  # positions of one product in float32; the products are added up in float64
AT_ONCE = 32  # such products, by one call


def gram(a: Tensor, mask: Tensor | None = None) -> Tensor:
    """`G_kk' = sum over positions of a_k a_k'` (Gatys 2016, eq. 3): (1, c, *spatial) -> (c, c). With `mask`
    (*spatial), positions count by its value. In float64: J is made of small differences between such sums. (Of
    bfloat16 activations, too: their products are exact in float32, and added up there.)"""
    return _gram(a, mask)[1]


def _gram(a: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return _Gram.apply(a, None if mask is None else mask.flatten())


class _Gram(torch.autograd.Function):
    """a (1, c, *spatial) -> a, for the net to go on with, and `G = a diag(m) a'`. So the gradient that comes back
    through deeper layers is there when that of G is, `(D + D') a diag(m)`: one product over positions that is added
    to it in place. (Differentiating by a and by a' apart takes two, autograd a map to add up in.) Nobody else reads
    that gradient: convolutions and poolings make one for their input alone."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, mask)
        ctx.set_materialize_grads(False)
        return a.detach(), _products(_flat(a), mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, deeper: Tensor | None, slope: Tensor | None) -> tuple[Tensor | None, None]:
        if slope is None:
            return deeper, None
        a, mask = ctx.saved_tensors
        last = a.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        factor, seen = (slope + slope.T).to(a), _flat(a) if mask is None else (_flat(a) * mask).to(a)
        if deeper is None:
            gradient = torch.empty_like(a, memory_format=layout)
            torch.mm(factor, seen, out=_flat(gradient))
        else:
            gradient = deeper.contiguous(memory_format=layout)
            _flat(gradient).addmm_(factor, seen)
        return gradient, None


def _products(a: Tensor, mask: Tensor | None) -> Tensor:
    """`a diag(m) a'` of a (c, positions), in float64."""
    total = torch.zeros(len(a), len(a), dtype=torch.float64, device=a.device)
    whole = a.shape[1] // BLOCK * BLOCK
    for first, end in [*_cuts(whole, AT_ONCE * BLOCK), (whole, a.shape[1])]:
        size = min(BLOCK, end - first)
        if size:
            blocks = full(a[:, first:end]).unflatten(1, (-1, size)).movedim(1, 0)  # (blocks, c, positions)
            weighted = blocks if mask is None else blocks * mask[first:end].view(-1, 1, size)
            total += torch.bmm(weighted, blocks.mT).sum(0, dtype=torch.float64)
    return total


def _cuts(n: int, length: int) -> list[tuple[int, int]]:
    return [(first, min(n, first + length)) for first in range(0, n, length)]


def _flat(a: Tensor) -> Tensor:
    """(1, c, *spatial) as (c, positions): a view where a is contiguous, or its channels come last."""
    return a.flatten(2).squeeze(0)


def full(a: Tensor) -> Tensor:
    """Sums over many positions are never taken in less than float32."""
    return a if a.dtype == torch.float64 else a.float()


def _moments(a: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums of a and of a^2 over positions: (1, c, *spatial) -> (2, c), in float64: a variance is their difference."""
    wide = _flat(full(a))
    weight = 1.0 if mask is None else mask.flatten()
    return a, torch.stack([(part * weight).sum(1, dtype=torch.float64) for part in (wide, wide.square())])


def _gram_error(mean: Tensor, wanted: Tensor, factor: Callable[[int], float]) -> Tensor:
    return factor(len(mean)) * (mean - wanted).square().sum()


def deviations(mean: Tensor) -> Tensor:
    """Mean and deviation per channel (2, ..., c) of the means of a and of a^2 (2, ..., c); 1e-5 as in AdaIN, since
    dead channels have none."""
    return torch.stack([mean[0], (mean[1] - mean[0].square()).clamp_min(0).add(1e-5).sqrt()])


def _mean_std_error(mean: Tensor, wanted: Tensor, factor: Callable[[int], float]) -> Tensor:
    """`1/C sum_k (dmu_k^2 + dsigma_k^2)` (Huang & Belongie 2017, eq. 13, squared): of no convention but its own."""
    return (deviations(mean) - deviations(wanted)).square().sum() / mean.shape[1]


# name -> (a, mask) to a, for the net to go on with, and the sums over its positions; the error between means of them
STATISTICS = {"gram": (_gram, _gram_error), "mean-std": (_moments, _mean_std_error)}


def total_variation(x: Tensor) -> Tensor:
    """Sum over axes of the mean squared difference of neighbours: independent of the size of x (b, c, *spatial)."""
    axes = range(2, x.ndim)
    return torch.stack([x.diff(dim=axis).square().mean() for axis in axes if x.shape[axis] > 1]).sum()
