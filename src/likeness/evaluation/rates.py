"""Error rates of a verifier, from distances between codes (smaller = more alike), with 95 % intervals.

A pair matches iff its distance is <= the threshold, as everywhere in this library. FMR: share of non-mated pairs that
match; FNMR: share of mated pairs that do not; TAR = 1 - FNMR; FAR is the older name of FMR.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InvalidOption

_CHUNK = 100  # bootstrap samples at a time: bounds memory at about 100 x pairs x 8 bytes


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval of confidence."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class TarAtFar:
    """Share of mated pairs accepted (`tar`) at the largest threshold whose FMR is at most `far`."""

    far: float
    tar: float
    low: float
    high: float
    threshold: float
    mated: int
    non_mated: int

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["threshold"] = self.threshold if math.isfinite(self.threshold) else None  # JSON has no infinity
        return values


@dataclass(frozen=True, eq=False)
class Roc:
    """Error rates at each threshold (k,), ascending: one per distance that occurs, so that nothing lies in between."""

    thresholds: np.ndarray
    fmr: np.ndarray
    fnmr: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        return {name: getattr(self, name).tolist() for name in ("thresholds", "fmr", "fnmr")}


def fmr(non_mated: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """False match rate of distances `non_mated` (n,) at each threshold: share that is <= it. Shape of `threshold`."""
    ordered = np.sort(_distances(non_mated, "non_mated"))
    return np.searchsorted(ordered, threshold, side="right") / len(ordered)


def fnmr(mated: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """False non-match rate of distances `mated` (n,) at each threshold: share that is > it. Shape of `threshold`."""
    ordered = np.sort(_distances(mated, "mated"))
    return 1 - np.searchsorted(ordered, threshold, side="right") / len(ordered)


def roc(mated: np.ndarray, non_mated: np.ndarray) -> Roc:
    """Both error rates at every distance that occurs."""
    thresholds = np.unique(np.concatenate([_distances(mated, "mated"), _distances(non_mated, "non_mated")]))
    return Roc(thresholds, fmr(non_mated, thresholds), fnmr(mated, thresholds))


def equal_error_rate(mated: np.ndarray, non_mated: np.ndarray) -> float:
    """The rate at which FMR and FNMR cross: mean of both where they are nearest."""
    curve = roc(mated, non_mated)
    at = int(np.argmin(np.abs(curve.fmr - curve.fnmr)))
    return float((curve.fmr[at] + curve.fnmr[at]) / 2)


def threshold_at_far(non_mated: np.ndarray, far: float) -> float:
    """The largest threshold at which at most a share `far` of `non_mated` (n,) matches; infinite at far = 1.

    Just below the first distance that would be one too many, so that ties with it do not match either.
    """
    if not 0 <= far <= 1:
        raise InvalidOption(f"far must be 0...1, not {far}")
    ordered = np.sort(_distances(non_mated, "non_mated"))
    allowed = math.floor(far * len(ordered) + 1e-9)  # 0.001 x 3000 must be 3, not 2.9999999999999996
    return float(np.nextafter(ordered[allowed], -np.inf)) if allowed < len(ordered) else math.inf


def tar_at_far(
    mated: np.ndarray,
    non_mated: np.ndarray,
    far: float = 1e-3,
    *,
    mated_subjects: np.ndarray | None = None,
    non_mated_subjects: np.ndarray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> TarAtFar:
    """TAR at FAR with its interval by a bootstrap over subjects: pairs of one person are not independent witnesses.

    `mated_subjects` (m,) and `non_mated_subjects` (n, 2): who is in each pair, as numbers or names. Each resample draws
    as many subjects as there are, with replacement; a pair counts as often as its subjects were drawn (the product of
    both), and the threshold is found anew, so that its uncertainty is in the interval. Without subjects, pairs
    are drawn.
    """
    mated, non_mated = _distances(mated, "mated"), _distances(non_mated, "non_mated")
    if not 0 < confidence < 1 or resamples < 1:
        raise InvalidOption(f"confidence must be within 0...1 and resamples at least 1, not {confidence}, {resamples}")
    threshold = threshold_at_far(non_mated, far)
    tar = float((mated <= threshold).mean())
    order = np.argsort(non_mated, kind="stable")
    ordered = non_mated[order]
    subjects = _subject_numbers(mated_subjects, non_mated_subjects, len(mated), len(non_mated))
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _CHUNK):
        mated_weight, non_mated_weight = _weights(
            rng, min(_CHUNK, resamples - start), *subjects, len(mated), len(non_mated)
        )
        thresholds = _weighted_thresholds(ordered, non_mated_weight[:, order], far)  # [chunk]
        total = mated_weight.sum(1)
        accepted = (mated_weight * (mated[None] <= thresholds[:, None])).sum(1)
        telling = (total > 0) & (non_mated_weight.sum(1) > 0)  # a draw without pairs of either kind says nothing
        found.append(accepted[telling] / total[telling])
    tails = np.concatenate(found)
    low, high = np.quantile(tails, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(tails) else (0.0, 1.0)
    return TarAtFar(far, tar, min(float(low), tar), max(float(high), tar), threshold, len(mated), len(non_mated))


def wilson(count: int, total: int, *, confidence: float = 0.95) -> Interval:
    """A share `count` of `total` independent trials with Wilson's score interval (1927), sound also at 0 and 1."""
    from statistics import NormalDist

    if total < 1 or not 0 <= count <= total:
        raise InvalidOption(f"a share needs 0 <= count <= total and total >= 1, not {count} of {total}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def best_threshold(mated: np.ndarray, non_mated: np.ndarray) -> tuple[float, float]:
    """(threshold, accuracy): where most pairs are decided rightly, in the middle of the widest such gap.

    Accuracy is the share of all pairs, mated and non-mated alike, that are decided rightly.
    """
    mated, non_mated = _distances(mated, "mated"), _distances(non_mated, "non_mated")
    values = np.unique(np.concatenate([mated, non_mated]))  # [k]
    # Threshold i lies between values[i - 1] and values[i]: below all, in each gap, above all.
    cuts = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    right = np.searchsorted(np.sort(mated), cuts, side="right") + len(non_mated)
    right = right - np.searchsorted(np.sort(non_mated), cuts, side="right")
    best = np.flatnonzero(right == right.max())
    gaps = np.concatenate([[0.0], np.diff(values), [0.0]])
    at = best[np.argmax(gaps[best])]
    return float(cuts[at]), float(right[at] / (len(mated) + len(non_mated)))


def _weighted_thresholds(ordered: np.ndarray, weights: np.ndarray, far: float) -> np.ndarray:
    """For each row of `weights` (r, n) of ascending distances (n,): `threshold_at_far` of the distances so weighted."""
    cumulative = np.cumsum(weights, axis=1)
    allowed = np.floor(far * cumulative[:, -1:] + 1e-9)
    over = cumulative > allowed  # [r, n]; the first True is the first distance that is one too many
    first = over.argmax(1)
    return np.where(over.any(1), np.nextafter(ordered[first], -np.inf), np.inf)


def _weights(
    rng: np.random.Generator, rows: int, people: int, mated: np.ndarray, non_mated: np.ndarray, m: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each pair counts in each of `rows` resamples: (rows, m) and (rows, n)."""
    if not people:
        return rng.multinomial(m, [1 / m] * m, rows).astype(float), rng.multinomial(n, [1 / n] * n, rows).astype(float)
    drawn = rng.multinomial(people, [1 / people] * people, rows).astype(float)  # [rows, people]
    return drawn[:, mated], drawn[:, non_mated[:, 0]] * drawn[:, non_mated[:, 1]]


def _subject_numbers(
    mated: np.ndarray | None, non_mated: np.ndarray | None, m: int, n: int
) -> tuple[int, np.ndarray, np.ndarray]:
    if mated is None and non_mated is None:
        return 0, np.zeros(0, int), np.zeros((0, 2), int)
    if mated is None or non_mated is None:
        raise InvalidOption("give the subjects of both the mated and the non-mated pairs, or of neither")
    mated, non_mated = np.asarray(mated), np.asarray(non_mated)
    if mated.shape != (m,) or non_mated.shape != (n, 2):
        raise InvalidOption(f"subjects must be ({m},) and ({n}, 2), not {mated.shape} and {non_mated.shape}")
    names, numbers = np.unique(np.concatenate([mated, non_mated.ravel()]), return_inverse=True)
    return len(names), numbers[:m], numbers[m:].reshape(n, 2)


def _distances(values: np.ndarray, name: str) -> np.ndarray:
    """(n,) float64. NaN is refused: what a failed pair counts as is the caller's decision, not sorting's."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise InvalidOption(f"{name} must be a row of at least one distance without NaN, not {values.shape}")
    return values
