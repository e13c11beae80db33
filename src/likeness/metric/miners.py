"""Which triplets of a batch to learn from: random, hard, semi-hard, or all of them.

A miner is a function `(distances (n, n), subjects (n,), *, margin, generator) -> Triplets`. `distances[i, j]` is the
squared distance of codes i and j, `subjects` are whole numbers. No gradient passes through the choice. Every miner
needs O(n^2) memory: (anchor, positive) pairs are at most n^2, and a pair's negative is found by binary search in the
sorted row of its anchor, so that no (n, n, n) mask is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from ..errors import InvalidOption, UnknownName


@dataclass(frozen=True)
class Triplets:
    """Indices into the batch, three int64 tensors (t,), and how many triplets were looked for.

    `sought` is the number of (anchor, positive) pairs (for `hard`: of anchors) that have a negative at all; a miner
    that finds nothing suitable for some of them returns t < sought.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
    sought: int

    def __len__(self) -> int:
        return len(self.anchor)


Miner = Callable[..., Triplets]


@torch.no_grad()
def random(
    distances: Tensor, subjects: Tensor, *, margin: float = 0.2, generator: torch.Generator | None = None
) -> Triplets:
    """Each (anchor, positive) pair with one negative drawn uniformly; `margin` is not used.

    Draws from `generator`, or from torch's own where none is given.
    """
    check(distances, subjects)
    anchor, positive = _pairs(subjects)
    # The negatives of a subject are everything outside its block once the batch is sorted by subject.
    order = torch.argsort(subjects, stable=True)
    _, which, size = torch.unique(subjects, return_inverse=True, return_counts=True)
    start = size.cumsum(0) - size
    start, size = start[which[anchor]], size[which[anchor]]
    count = len(subjects) - size
    device = generator.device if generator is not None else distances.device
    draw = torch.rand(len(anchor), generator=generator, device=device).to(distances.device)
    rank = (draw * count).long().clamp_max((count - 1).clamp_min(0))
    rank = torch.where(rank < start, rank, rank + size)
    found = count > 0
    anchor, positive = anchor[found], positive[found]
    return Triplets(anchor, positive, order[rank[found]], len(anchor))


@torch.no_grad()
def hard(
    distances: Tensor, subjects: Tensor, *, margin: float = 0.2, generator: torch.Generator | None = None
) -> Triplets:
    """Each anchor with its farthest positive and its nearest negative: "batch hard" (Hermans 2017, eq. 5).

    The first of equals is taken. `margin` and `generator` are not used.
    """
    check(distances, subjects)
    if len(subjects) == 0:
        return _none(distances)
    same = _same(subjects)
    mated = _mated(same)
    anchor = (mated.any(1) & ~same.all(1)).nonzero()[:, 0]
    positive = distances.masked_fill(~mated, -torch.inf).argmax(1)
    negative = distances.masked_fill(same, torch.inf).argmin(1)
    return Triplets(anchor, positive[anchor], negative[anchor], len(anchor))


@torch.no_grad()
def semi_hard(
    distances: Tensor, subjects: Tensor, *, margin: float = 0.2, generator: torch.Generator | None = None
) -> Triplets:
    """Each (anchor, positive) pair with the nearest negative that is farther than the positive, yet within the margin:
    `d(A, P) < d(A, N) < d(A, P) + margin` (FaceNet, Schroff 2015, eq. 4 and section 3.2).

    A pair with no such negative gives no triplet: either it is learnt already, or a negative lies nearer than the
    positive, which early in training leads to collapse. The first of equals is taken. `generator` is not used.
    """
    check(distances, subjects)
    if len(subjects) == 0:
        return _none(distances)
    same = _same(subjects)
    rows, order = distances.masked_fill(same, torch.inf).sort(dim=1, stable=True)
    first = torch.searchsorted(rows, distances.contiguous(), right=True)  # [n, n]: the first d(A, N) > d(A, P)
    first.clamp_max_(len(subjects) - 1)
    nearest = rows.gather(1, first)
    wanted = _mated(same) & ~same.all(1, keepdim=True)
    found = wanted & (nearest > distances) & (nearest < distances + margin)
    anchor, positive = found.nonzero(as_tuple=True)
    return Triplets(anchor, positive, order[anchor, first[anchor, positive]], int(wanted.sum()))


def batch_all(distances: Tensor, subjects: Tensor) -> Iterator[Triplets]:
    """Every triplet, one anchor at a time: all are n^3, those of one anchor at most n^2 / 4.

    For the loss over all of them `losses.batch_all` needs no list at all.
    """
    check(distances, subjects)
    for i in range(len(subjects)):
        same = subjects == subjects[i]
        negatives = (~same).nonzero()[:, 0]
        same[i] = False
        positives = same.nonzero()[:, 0]
        pairs = torch.cartesian_prod(positives, negatives)
        if len(pairs):
            yield Triplets(torch.full_like(pairs[:, 0], i), pairs[:, 0], pairs[:, 1], len(pairs))


MINERS: dict[str, Miner] = {"random": random, "hard": hard, "semi-hard": semi_hard}
BATCH_ALL = "batch-all"
NAMES = (*MINERS, BATCH_ALL)


def miner(name: str) -> Miner:
    """The miner of this name. Raises UnknownName with the nearest one."""
    if name not in MINERS:
        near = get_close_matches(name, NAMES, 1, 0)[0]
        raise UnknownName(f"no miner is called {name!r}; did you mean {near!r}? (there are {', '.join(NAMES)})")
    return MINERS[name]


def check(distances: Tensor, subjects: Tensor) -> None:
    """Raises InvalidOption unless distances are (n, n) and subjects (n,) whole numbers."""
    n = len(subjects)
    if subjects.ndim != 1 or distances.shape != (n, n) or subjects.is_floating_point():
        raise InvalidOption(
            f"distances must be (n, n) and subjects (n,) whole numbers; they are {tuple(distances.shape)} and "
            f"{tuple(subjects.shape)} {subjects.dtype}"
        )


def _same(subjects: Tensor) -> Tensor:
    return subjects[:, None] == subjects[None, :]


def _mated(same: Tensor) -> Tensor:
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def _pairs(subjects: Tensor) -> tuple[Tensor, Tensor]:
    anchor, positive = _mated(_same(subjects)).nonzero(as_tuple=True)
    return anchor, positive


def _none(distances: Tensor) -> Triplets:
    empty = torch.empty(0, dtype=torch.int64, device=distances.device)
    return Triplets(empty, empty, empty, 0)
