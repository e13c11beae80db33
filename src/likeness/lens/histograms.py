"""How often a unit gives which activation: histograms kept while the data streams by, in memory that does not grow,
without knowing the range beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidOption

BINS = 128  # of one histogram, half of them for negative values
LEAST = -100  # exponent of the smallest reach, of units that only give 0
PLACES = 64  # positions of one sample's map that are counted, at most: a grid over the map


@dataclass(frozen=True)
class Histogram:
    """`counts`: the bins from -reach to reach, all of one width, each with its lower edge. `firing`: the share of the
    counted activations that are above 0."""

    counts: tuple[int, ...]
    reach: float
    firing: float

    @property
    def width(self) -> float:
        return 2 * self.reach / len(self.counts)

    def to_dict(self) -> dict[str, Any]:
        return {"counts": list(self.counts), "reach": self.reach, "firing": self.firing}


@dataclass
class Counts:
    """The histograms of n units so far: `bins` (n, BINS), `exponent` (n,): they reach from -2^e to 2^e, and `positive`
    (n,). Where a value lies beyond, the reach is doubled and bins are joined two by two, which loses nothing: the
    result is that of a run that had known the reach from the start, whatever the batches were."""

    bins: Tensor
    exponent: Tensor
    positive: Tensor

    @classmethod
    def of(cls, units: int) -> Counts:
        none = torch.zeros(units, dtype=torch.long)
        return cls(torch.zeros(units, BINS, dtype=torch.long), torch.full_like(none, LEAST), none)

    def add(self, a: Tensor) -> None:
        """Count the activations a (n, values) float32."""
        n, half = len(a), BINS // 2
        top = a.abs().amax(1)
        if not bool(top.isfinite().all()):
            raise InvalidOption(
                "the net gives activations that are not finite numbers; look at its weights and samples"
            )
        self.positive += (a > 0).sum(1)
        exponent = torch.frexp(top).exponent.long()  # top = m 2^e, m < 1
        self._widen(torch.where(top > 0, exponent, LEAST).clamp_min(LEAST))
        # Times a power of two and rounded down, both exact: no value lands beside its bin. The power is written as bits
        # of a float32, for `exp2` and `ldexp` may be off by one place.
        scale = ((127 + half.bit_length() - 1 - self.exponent) << 23).int().view(torch.float32)
        place = (a * scale[:, None]).floor_().add_(half + BINS * torch.arange(n, dtype=a.dtype)[:, None])
        self.bins += torch.bincount(place.flatten().int(), minlength=n * BINS).view(n, BINS)

    def _widen(self, exponent: Tensor) -> None:
        while bool((narrow := self.exponent < exponent).any()):
            joined = torch.zeros_like(self.bins[narrow])
            joined[:, BINS // 4 : -BINS // 4] = self.bins[narrow].view(-1, BINS // 2, 2).sum(2)
            self.bins[narrow] = joined
            # A row that holds nothing may take its reach at once.
            empty = ~self.bins[narrow].any(1)
            self.exponent[narrow] = torch.where(empty, exponent[narrow], self.exponent[narrow] + 1)

    def result(self, unit: int) -> Histogram:
        counts = self.bins[unit].tolist()
        return Histogram(tuple(counts), 2.0 ** int(self.exponent[unit]), int(self.positive[unit]) / max(1, sum(counts)))


def counted(a: Tensor) -> Tensor:
    """The activations (n, values) at up to PLACES positions of each map of a (b, n, *map): to read them all for figures
    that some thousand tell as well would take as long as a layer of the net."""
    return a[(..., *_grid(a.shape[2:]))].transpose(0, 1).flatten(1)


def _grid(spatial: Sequence[int]) -> tuple[Any, ...]:
    """Evenly spaced positions along every axis, PLACES altogether at most."""
    share = int(PLACES ** (1 / len(spatial)) + 1e-9)
    return tuple(slice((n - 1) % (step := -(-n // share)) // 2, None, step) for n in spatial)
