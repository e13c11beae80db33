"""What a comparison of two samples' codes, or of three, has found out: shares of a score, and how they are put together
whatever method found them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..errors import UnknownName

METHODS = ("linear", "grad-cam", "occlusion")
Sample = TypeVar("Sample")


def check_method(method: str) -> None:
    """Raises UnknownName unless it is one of METHODS."""
    if method not in METHODS:
        raise UnknownName(f"there is no method called {method!r}; it is one of {', '.join(METHODS)}")


@dataclass(frozen=True, eq=False)
class Share:
    """What one sample adds. `map`: (*positions), the positions of the layer, or of the sample for occlusion;
    positive where it brings the codes together, negative where it drives them apart. `value`: the score it is about (of
    the first sample of a triplet: the margin `score - against`). `rest`: what a blank sample would have in its place;
    None for methods whose maps do not add up."""

    map: np.ndarray
    value: float
    rest: float | None = None

    @property
    def explained(self) -> float | None:
        """(sum of the map + rest) / value: 1 where the map accounts for all of it; None where it is not meant to."""
        return None if self.rest is None or self.value == 0 else (float(self.map.sum()) + self.rest) / self.value

    def heat(self, shape: Sequence[int]) -> np.ndarray:
        """The map brought to a sample's (*spatial), by straight lines between the middles of its positions."""
        heat = self.map
        for axis, n in enumerate(shape):
            middles, places = ((np.arange(m) + 0.5) / m for m in (heat.shape[axis], n))
            heat = np.apply_along_axis(partial(np.interp, places, middles), axis, heat)
        return heat

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, "rest": self.rest, "explained": self.explained, "map": self.map.tolist()}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two samples, or two and a third that the first is to be told from. `score`: of a and b; `distance`: 2 - 2 score.
    `a`, `b`, `n`: the maps; None for a code without its sample. `against`: the score of a and n, None of a pair."""

    method: str
    layer: str | None
    score: float
    a: Share
    b: Share | None
    against: float | None = None
    n: Share | None = None

    @property
    def distance(self) -> float:
        return max(0.0, 2 - 2 * self.score)

    def to_dict(self) -> dict[str, Any]:
        shares = {name: share and share.to_dict() for name, share in (("a", self.a), ("b", self.b), ("n", self.n))}
        plain = {name: getattr(self, name) for name in ("method", "layer", "score", "distance", "against")}
        return plain | shares


def compared(
    method: str,
    layer: str | None,
    samples: Sequence[Sample | None],
    codes: Sequence[np.ndarray],
    share: Callable[[Sample, np.ndarray], Share],
) -> Comparison:
    """The comparison of samples a, b and, of a triplet, n, whose unit codes (d,) these are.

    share: what a sample adds to its score with a code. As the score is linear in that code, what speaks for a match of
    a with b and against one with n is asked with `f(b) - f(n)` in the place of `f(b)`.
    """
    a, *others = codes
    first, *rest = samples
    assert first is not None
    of_a = share(first, others[0] if len(others) == 1 else others[0] - others[1])
    scores = [float(a @ code) for code in others]
    shares = [None if sample is None else share(sample, a) for sample in rest]
    if len(others) == 1:
        return Comparison(method, layer, scores[0], of_a, shares[0])
    return Comparison(method, layer, scores[0], of_a, shares[0], scores[1], shares[1])
