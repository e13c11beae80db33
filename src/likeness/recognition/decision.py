"""From a distance and an operating point to a decision: match, no match, or cannot decide (with the reason)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InvalidOption

if TYPE_CHECKING:
    from .calibration import Calibration

MATCH: Literal["match"] = "match"
NO_MATCH: Literal["no match"] = "no match"
CANNOT_DECIDE: Literal["cannot decide"] = "cannot decide"
Verdict = Literal["match", "no match", "cannot decide"]

NO_CALIBRATION = "no calibration"
UNKNOWN_SUBJECT = "unknown subject"
EMPTY_GALLERY = "empty gallery"
UNREADABLE = "unreadable file"
TIE = "as near as"  # and a name: two people at the same distance, of whom the order of names decided


@dataclass(frozen=True)
class Decision:
    """The outcome of a 1:1 comparison.

    `distance` is d = |f(a) - f(b)|^2 in [0, 4], `score` = 1 - d/2 in [-1, 1]; match only if distance <= threshold.
    Both are None where nothing could be compared; `threshold` is None without a calibration. `reasons` says why
    nothing could be decided; of two photographs, `reasons_a` and `reasons_b` say which of them is about the first and
    the second. `extrapolated`: the threshold rests on fewer than 30 counted errors (see Calibration.extrapolated).
    """

    decision: Verdict
    distance: float | None
    score: float | None
    threshold: float | None
    max_fmr: float
    reasons: tuple[str, ...]
    fingerprint: str | None
    extrapolated: bool = False
    reasons_a: tuple[str, ...] = ()
    reasons_b: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Candidate:
    """One subject that a probe resembles: `distance` is the smallest over the subject's templates."""

    subject: str
    distance: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Identification:
    """The outcome of a 1:N search with one probe (one face of a photograph).

    `subject` is the person recognised, None unless `decision` is "match". `candidates`: the nearest subjects, nearest
    first, whatever the decision. `reasons`: why nothing could be decided, or who else is exactly as near. `searched`:
    the number of templates compared, which the threshold follows. `region`: where in the sample the probe was found.
    `extrapolated`: as in Decision.
    """

    decision: Verdict
    subject: str | None
    candidates: tuple[Candidate, ...]
    threshold: float | None
    searched: int
    max_fpir: float
    reasons: tuple[str, ...]
    fingerprint: str | None
    region: dict[str, Any] | None = None
    extrapolated: bool = False

    def to_dict(self) -> dict[str, Any]:
        candidates = [candidate.to_dict() for candidate in self.candidates]
        region = None if self.region is None else dict(self.region)
        return {**self.__dict__, "candidates": candidates, "reasons": list(self.reasons), "region": region}


def score(distance: float) -> float:
    """The view in which larger is more alike: 1 - d/2, the cosine of two unit codes."""
    return 1.0 - distance / 2.0


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Euclidean distance of two codes (d,), in float64; for unit codes in [0, 4]."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidOption(f"two codes of the same length are needed, not {a.shape} and {b.shape}")
    return float(np.sum((a - b) ** 2))


def distances(codes: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """The squared distances (n,) float64 of `codes` (n, d) to `probe` (d,): what `distance` says, row by row."""
    codes, probe = np.asarray(codes), np.asarray(probe, dtype=np.float64)
    if codes.ndim != 2 or codes.shape[1:] != probe.shape:
        raise InvalidOption(f"codes (n, d) and a probe (d,) are needed, not {codes.shape} and {probe.shape}")
    result = np.empty(len(codes))
    for start in range(0, len(codes), 8192):  # bounds the float64 copies to a few megabytes
        difference = codes[start : start + 8192].astype(np.float64) - probe
        result[start : start + 8192] = np.sum(difference**2, axis=1)
    return result


def rate(name: str, value: float) -> float:
    """`value` as an error rate, or InvalidOption unless it lies strictly between 0 and 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidOption(f"{name} is an error rate between 0 and 1, not {value!r}") from None
    if not 0.0 < number < 1.0:
        raise InvalidOption(f"{name} is an error rate between 0 and 1 (1e-3: one in a thousand), not {value!r}")
    return number


def decide(
    distance: float,
    calibration: Calibration | None,
    *,
    max_fmr: float = 1e-3,
    templates: int = 1,
    fingerprint: str | None = None,
) -> Decision:
    """Compare `distance` with the threshold at which at most `max_fmr` of the comparisons of strangers would match.

    `templates`: how many templates of the claimed subject `distance` is the smallest of; the threshold follows, as a
    stranger gets that many chances. `fingerprint`: of the encoder, where there is no calibration that knows it.
    Without a calibration the answer is "cannot decide".
    Raises InvalidOption unless 0 < max_fmr < 1.
    """
    max_fmr = rate("max_fmr", max_fmr)
    if calibration is None:
        return Decision(CANNOT_DECIDE, distance, score(distance), None, max_fmr, (NO_CALIBRATION,), fingerprint)
    threshold = calibration.threshold_open_set(max_fmr, templates)
    verdict = MATCH if distance <= threshold else NO_MATCH
    extrapolated = calibration.extrapolated(max_fmr, templates)
    return Decision(verdict, distance, score(distance), threshold, max_fmr, (), calibration.fingerprint, extrapolated)


def undecided(*reasons: str, max_fmr: float, fingerprint: str | None = None) -> Decision:
    """The decision where nothing could be compared, with the reasons why."""
    return Decision(CANNOT_DECIDE, None, None, None, rate("max_fmr", max_fmr), reasons, fingerprint)
