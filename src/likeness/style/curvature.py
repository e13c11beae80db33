"""How much the gradient of J changes per step, by spatial frequency and colour: what L-BFGS begins its two loops with.

The usual beginning, y's / y'y for all values, presupposes that J curves as much in every direction. It does not: in
fine detail and in brightness it curves otherwise than in coarse and in colour. The covariances of channels are
therefore kept of past steps s and of the changes y of the gradient that they made, one for each ring of frequencies,
and the beginning is, in each ring, the matrix that makes the one of the other: `M <y y'> M = <s s'>`, their geometric
mean. (A picture's statistics hardly depend on the place, so frequencies are nearly the axes of J's bowl. That the
matrix which L-BFGS begins with may be any that fits the pairs: Nocedal & Wright 2006, section 7.2.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..nets.tiles import Slices, within
from .statistics import full

RINGS = 16  # from one period per sample to the finest, each as much wider than the one before
TRANSFORMED = 1 << 20  # positions that are transformed at once
ROW = 512  # waves of a ring, multiplied at once
FADING = 0.9  # the weight of the past at each new pair
SETTLED = 20  # pairs after which it counts
RIDGE = 1e-4  # of a covariance's variance


def look(state: dict[str, Any], s: Tensor, y: Tensor, curvature: float, shape: torch.Size) -> None:
    """A pair (flat, of samples of `shape`) joins the covariances, divided by curvature = y's, so that long and short
    steps count alike."""
    newest = torch.stack([by_frequency(one, shape) / curvature for one in (s, y)])
    state["newest"] = newest[1]
    state["covariances"] = torch.lerp(newest, state["covariances"], FADING) if "covariances" in state else newest
    state["seen"] = state.get("seen", 0) + 1


def beginning(state: dict[str, Any]) -> Tensor | None:
    """M (rings, c, c), so that y'My = y's for the newest pair; None until it has settled."""
    if state.get("seen", 0) < SETTLED:
        return None
    s, y = (one + RIDGE * _variance(one) * torch.eye(one.shape[-1]) for one in state["covariances"])
    M = geometric_mean(s, y)
    return M / (M * state["newest"]).sum()  # y's is 1 in what `look` divided by it


def _variance(covariances: Tensor) -> Tensor:
    """(rings, c, c) -> the mean over channels (rings, 1, 1); a trifle of all rings' where a ring has nothing."""
    each = covariances.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    return each + 1e-6 * each.mean() + 1e-300


def geometric_mean(s: Tensor, y: Tensor) -> Tensor:
    """The symmetric positive M with M y M = s (Bhatia 2007, eq. 4.10), of matrices (..., c, c)."""
    root = _power(y, 0.5)
    back = _power(y, -0.5)
    return back @ _power(root @ s @ root, 0.5) @ back


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-300).pow(exponent)[..., None, :]) @ vectors.mT


def by_frequency(v: Tensor, shape: torch.Size) -> Tensor:
    """Covariances of the channels of v (flat, of shape (1, c, *spatial)) over the frequencies of each ring: (rings, c,
    c), float64. They add up to `v_i v_j` over all positions (Parseval)."""
    found = torch.zeros(RINGS, shape[1], shape[1], dtype=torch.float64)
    for block, rings in _blocks(tuple(shape[2:])):
        part = within(v.view(shape), block)
        rows = rings.gather(_waves(part))
        counted = (rows.unflatten(2, (ROW, 2)) * rings.count).flatten(2)
        found.index_add_(0, rings.ring, (counted @ rows.mT).double() / part[0, 0].numel())
    return found


def apply(M: Tensor, d: Tensor) -> None:
    """d (1, c, *spatial) -> M d, in place."""
    for block, rings in _blocks(tuple(d.shape[2:])):
        part = within(d, block)
        mixed = rings.scatter(M.to(d.dtype)[rings.ring] @ rings.gather(_waves(part)))
        part[0] = torch.fft.irfftn(mixed, s=part.shape[2:], dim=list(range(1, mixed.ndim)))


def _waves(v: Tensor) -> Tensor:
    """(1, c, *spatial) -> (c, *frequencies), the last axis one half."""
    return torch.fft.rfftn(full(v[0]), dim=list(range(1, v.ndim - 1)))


@dataclass(frozen=True)
class _Rings:
    """The frequencies of one shape ring by ring, in rows of ROW of one ring each, for products of many at once.

    shape: of the frequencies; order: the frequency at each place of the rows; place: the place of each frequency; ring:
    of each row; count (rows, 1, ROW, 1): 2 for waves whose conjugates `_waves` leaves out, 0 for what fills a row up, 1
    for the others.
    """

    shape: tuple[int, ...]
    order: Tensor
    place: Tensor
    ring: Tensor
    count: Tensor

    def gather(self, waves: Tensor) -> Tensor:
        """(c, *frequencies) -> (rows, c, 2 ROW), real and imaginary parts side by side."""
        parts = torch.view_as_real(waves.flatten(1)[:, self.order])
        return parts.view(len(waves), -1, 2 * ROW).transpose(0, 1)

    def scatter(self, rows: Tensor) -> Tensor:
        """The inverse of `gather`."""
        parts = rows.transpose(0, 1).reshape(rows.shape[1], -1, 2)
        return torch.view_as_complex(parts)[:, self.place].view(-1, *self.shape)


def _blocks(spatial: tuple[int, ...]) -> Iterator[tuple[Slices, _Rings]]:
    """The parts that are transformed each for itself, in bounded memory (M then is block by block what it was; it
    still is symmetric and positive, which is all that L-BFGS asks), with the rings of their frequencies."""
    counts = [math.ceil(n / round(TRANSFORMED ** (1 / len(spatial)))) for n in spatial]
    cuts = [[slice(n * i // k, n * (i + 1) // k) for i in range(k)] for n, k in zip(spatial, counts, strict=True)]
    longest = max(math.ceil(n / k) for n, k in zip(spatial, counts, strict=True))
    for block in itertools.product(*cuts):
        yield block, _rings(tuple(cut.stop - cut.start for cut in block), longest)


@lru_cache(maxsize=8)
def _rings(spatial: tuple[int, ...], longest: int) -> _Rings:
    """Ring 0 holds what has up to one period in `longest` positions."""
    axes = [torch.fft.fftfreq(n) for n in spatial[:-1]] + [torch.fft.rfftfreq(spatial[-1])]
    square = torch.zeros(())
    for axis in axes:
        square = square[..., None] + axis.square()
    finest = math.log2(max(longest * math.sqrt(len(spatial)) / 2, 2))
    ring = ((square.sqrt() * longest).clamp_min(1).log2() / finest * (RINGS - 1)).round().long()
    count = torch.ones(ring.shape)
    count[..., 1 : (spatial[-1] + 1) // 2] = 2
    members = ring.flatten().bincount(minlength=RINGS)
    rows_per_ring = (members + ROW - 1) // ROW
    spare = rows_per_ring * ROW - members
    skipped = spare.cumsum(0) - spare  # places that the rings before leave empty
    place = torch.empty(ring.numel(), dtype=torch.int32)
    place[ring.flatten().argsort(stable=True)] = (torch.arange(len(place)) + skipped.repeat_interleave(members)).int()
    order = torch.zeros(int(rows_per_ring.sum()) * ROW, dtype=torch.int32)
    order[place] = torch.arange(len(place), dtype=torch.int32)
    counts = torch.zeros(len(order))
    counts[place] = count.flatten()
    ring_of_row = torch.arange(RINGS).repeat_interleave(rows_per_ring)
    return _Rings(tuple(ring.shape), order, place, ring_of_row, counts.view(-1, 1, ROW, 1))
