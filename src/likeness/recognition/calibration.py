"""What a distance means: error rates, fitted once per encoder on people that it was not trained on.

`docs/explain/decisions.md` derives the formulas. In short: for each held-out photograph (a probe) count how many
photographs of *other* people lie within a distance t. From these counts follows the share of searches, in random
galleries of N templates of strangers, whose best distance is at most t: the false-positive identification rate
FPIR(N, t). N = 1 is the false-match rate FMR(t). Down to 30 errors the curves are counted; below, a generalised-Pareto
tail (Pickands 1975) continues them, and decisions say `extrapolated`.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, NewerSchema, UnreadableFile, WeightsError
from ..progress import Progress
from ..samples.files import atomic_write
from .decision import rate

FORMAT, VERSION = "likeness calibration", 1
MINIMUM_SUBJECTS = 20
ERRORS_COUNTED = 30  # the rule of 30 (ISO/IEC 19795-1): what rests on fewer errors is not counted but extrapolated
ERRORS_FITTED = 300  # the tail's shape is estimated on ten times as many
MINIMUM_TRIALS = 100  # a gallery size with fewer independent searches gets no curve of its own
MARGIN = 1.645  # standard deviations added to each counted rate: the upper end of a one-sided 95 % interval
BLOCK = 8_000_000  # distances looked at in one go
_EDGES = np.linspace(0.0, 4.0, 801)


@dataclass(frozen=True)
class Curve:
    """Distance against error rate for galleries of `size` templates.

    `distances` ascend, and so do `log_rates` (natural logarithms, the last one 0); straight lines between. Below
    `distances[0]` a generalised-Pareto tail with `shape` >= 0 and `scale`. `trials`: how many independent searches the
    data amount to.
    """

    size: int
    trials: float
    distances: tuple[float, ...]
    log_rates: tuple[float, ...]
    shape: float
    scale: float

    def log_rate(self, distance: float) -> float:
        """The logarithm of the rate at which strangers come as near as `distance`."""
        below = self.distances[0] - distance
        if below <= 0:
            return _between(distance, self.distances, self.log_rates)
        bend = below / self.scale if self.shape == 0 else math.log1p(self.shape * below / self.scale) / self.shape
        return self.log_rates[0] - bend

    def distance(self, log_rate: float) -> float:
        """The inverse of `log_rate`."""
        below = self.log_rates[0] - log_rate
        if below <= 0:
            return _between(log_rate, self.log_rates, self.distances)
        bend = below if self.shape == 0 else math.expm1(min(self.shape * below, 700.0)) / self.shape
        return self.distances[0] - self.scale * bend


@dataclass(frozen=True)
class Calibration:
    """How often strangers come as near as a given distance, for one encoder (`fingerprint`).

    Fitted on `samples` photographs of `subjects` people, `pairs` comparisons of different people. Rates beyond what the
    data support are extrapolated, on the safe side; `extrapolated` says where.
    """

    fingerprint: str
    subjects: int
    samples: int
    pairs: int
    curves: tuple[Curve, ...]

    @classmethod
    def fit(cls, codes: np.ndarray, subjects: np.ndarray, fingerprint: str, **options: Any) -> Calibration:
        """`fit` under the name of what it makes."""
        return fit(codes, subjects, fingerprint, **options)

    def fmr(self, distance: float) -> float:
        """The share of comparisons of two different people whose distance is at most `distance`."""
        return math.exp(self.curves[0].log_rate(float(distance)))

    def threshold(self, max_fmr: float) -> float:
        """The distance up to which at most `max_fmr` of the comparisons of strangers lie; the inverse of `fmr`.

        It may be negative where the data cannot promise so small a rate at any distance: then nothing matches.
        Raises InvalidOption unless 0 < max_fmr < 1.
        """
        return self.curves[0].distance(math.log(rate("max_fmr", max_fmr)))

    def threshold_open_set(self, max_fpir: float, n: int) -> float:
        """The distance that at most `max_fpir` of the searches by strangers in a gallery of `n` templates reach.

        Between the gallery sizes fitted, linear in log n (the law of Gumbel minima); beyond the largest one, m,
        searches in n / m independent galleries: 1 - (1 - FPIR(m, t))^(n / m), which never understates the rate. Nor
        does 1 - (1 - FMR(t))^n: where few errors make the former the stricter one, the latter is taken.
        Raises InvalidOption unless 0 < max_fpir < 1 and n >= 1.
        """
        return self._threshold(math.log1p(-rate("max_fpir", max_fpir)), _size(n))

    def fpir(self, distance: float, n: int) -> float:
        """The share of searches by strangers in `n` templates that find one within `distance`; inverse of the above."""
        size, low, high = _size(n), -700.0, math.log(40.0)
        for _ in range(80):  # bisection on the logarithm of the hazard -log(1 - rate), in which both ends are flat
            middle = (low + high) / 2
            low, high = (middle, high) if self._threshold(-math.exp(middle), size) <= distance else (low, middle)
        return -math.expm1(-math.exp(low))

    def extrapolated(self, max_rate: float, n: int = 1) -> bool:
        """Whether the threshold for `max_rate` and `n` templates rests on extrapolation rather than on counted errors.

        True where it lies on the tail of a curve, below which fewer than 30 errors were counted, or the gallery is
        larger than the largest fitted.
        """
        log_pass, size = math.log1p(-rate("max_rate", max_rate)), _size(n)
        independent = _log_error(log_pass / size)
        if size > self.curves[-1].size:
            return True
        if self.curves[0].distance(independent) > self._searched(log_pass, size):  # see `_threshold`: the one taken
            return independent < self.curves[0].log_rates[0]
        last = sum(curve.size <= size for curve in self.curves)
        between = self.curves[last - 1].size < size
        return any(_log_error(log_pass) < curve.log_rates[0] for curve in self.curves[last - 1 : last + between])

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all."""
        atomic_write(path, (json.dumps(self.to_dict(), allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote. Raises UnreadableFile, WeightsError (damaged or foreign) or NewerSchema."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise UnreadableFile(f"cannot read the calibration {os.fspath(path)}: {error.strerror}") from error
        return cls.from_json(text, name=os.fspath(path))

    @classmethod
    def from_json(cls, text: bytes | str, *, name: str = "calibration") -> Calibration:
        """The calibration that `to_dict` described; every number is checked. Raises WeightsError or NewerSchema."""
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError("not a calibration of likeness")
            if fields.pop("version") > VERSION:
                raise NewerSchema(f"{name} was written by a newer likeness; upgrade, or calibrate again")
            fields["curves"] = tuple(_curve(**curve) for curve in fields["curves"])
            result = cls(**fields)
            sizes = [curve.size for curve in result.curves]
            if sizes[0] != 1 or sizes != sorted(set(sizes)) or result.subjects < 2:
                raise ValueError("its gallery sizes are out of order")
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise WeightsError(f"{name} is damaged or not a calibration ({error}); calibrate again") from error
        return result

    def _threshold(self, log_pass: float, n: float) -> float:
        """The distance at which the chance that a stranger passes unrecognised is exp(`log_pass`).

        Two estimates err on the safe side, the searches fitted and independent comparisons: the nearer one is taken.
        """
        independent = self.curves[0].distance(_log_error(log_pass / n))
        return max(self._searched(log_pass, n), independent)

    def _searched(self, log_pass: float, n: float) -> float:
        """`_threshold` from the curves of searches alone."""
        sizes = [curve.size for curve in self.curves]
        last = bisect_right(sizes, n) - 1
        if last == len(sizes) - 1:
            return self._nearest(last, _log_error(log_pass * sizes[-1] / n))
        log_rate = _log_error(log_pass)
        weight = math.log(n / sizes[last]) / math.log(sizes[last + 1] / sizes[last])
        return (1 - weight) * self._nearest(last, log_rate) + weight * self._nearest(last + 1, log_rate)

    def _nearest(self, last: int, log_rate: float) -> float:
        """The smallest distance of the curves up to `last`: a larger gallery never gets a more generous threshold."""
        return min(curve.distance(log_rate) for curve in self.curves[: last + 1])


def fit(
    codes: np.ndarray,
    subjects: np.ndarray,
    fingerprint: str,
    *,
    on_progress: Progress | None = None,
) -> Calibration:
    """Calibrate on `codes` (n, d), unit length, of the people `subjects` (n,): any labels, equal for the same person.

    The people must be unknown to the encoder. Every photograph is compared with those of everybody else, a block of
    rows at a time: about 100 MB, and about a second for 4,000 codes. Raises InvalidOption for fewer than 20 people, and
    where different people have the same codes.
    """
    codes, labels = _checked(codes, subjects)
    order = np.argsort(labels, kind="stable")
    codes, photos = codes[order], np.bincount(labels)
    labels = labels[order]
    n, people = len(codes), len(photos)
    ends = np.cumsum(photos)
    sizes = _sizes(people, n - int(photos.max()))
    sums, squares, products = np.zeros((3, len(sizes), len(_EDGES)))
    weights = (photos * (n - photos)).astype(float)  # comparisons with strangers, per person
    start = 0
    while start < n:
        # Whole people per block, so that each one's errors can be summed up.
        stop = int(ends[max(np.searchsorted(ends, start + BLOCK // n, "right") - 1, labels[start])])
        others = (n - photos[labels[start:stop]])[:, None].astype(float)
        counts = _counts(codes, labels, slice(start, stop))  # [probes, edges]: strangers nearer than each edge
        firsts = np.flatnonzero(np.diff(labels[start:stop], prepend=-1))
        of_each = weights[labels[start:stop][firsts], None]
        # A stranger passes if none of his look-alikes is among the templates drawn, without return, from `others`.
        # The hypergeometric chance of that is at most (1 - counts / others)^size, exact for few templates, and at most
        # (1 - size / others)^counts, exact for few look-alikes; it is very near the smaller of the two.
        passes = 1 - counts / others
        for row, size in enumerate(sizes):
            if 16 * size > n:
                # Only where it can be the smaller one by more than e^-40: it is the slow part.
                few = slice(np.searchsorted(counts.max(axis=0), 1), np.searchsorted(counts.min(axis=0), 16 * 40))
                nearly = passes.copy()
                nearly[:, few] = np.minimum(passes[:, few], (1 - size / others) ** counts[:, few])
            else:
                nearly = passes
            errors = np.add.reduceat(others * (1 - nearly), firsts, axis=0)  # [people, edges]
            sums[row] += errors.sum(axis=0)
            squares[row] += (errors**2).sum(axis=0)
            products[row] += (errors * of_each).sum(axis=0)
            passes *= passes  # the next size is twice this one
        start = stop
        if on_progress is not None:
            on_progress(stop, n, {"people": int(labels[stop - 1]) + 1})
    total = weights.sum()
    curves = []
    for row, size in enumerate(sizes):
        # Comparisons share people, so it is people that vary: a person is probe in some pairs and template in others,
        # and the variance of the mean over pairs is four times that of a mean over people (Hoeffding 1948); each one's
        # residual is his errors less his share of all.
        rates = sums[row] / total
        residuals = squares[row] - 2 * rates * products[row] + rates**2 * np.sum(weights**2)
        deviation = 2 * np.sqrt(np.maximum(residuals, 0)) / total
        curve = _fit_curve(size, _trials(people, size), rates, deviation)
        if curve.log_rates[0] >= 0:  # every distance may be a stranger's: no smaller rate to speak of
            break
        curves.append(curve)
    if not curves:
        raise InvalidOption("the codes of different people do not differ: is the encoder's preprocessing right?")
    return Calibration(str(fingerprint), people, n, int(total) // 2, tuple(curves))


def merge_twins(codes: np.ndarray, subjects: np.ndarray, *, within: float) -> np.ndarray:
    """Labels (n,) int64 in which subjects with any two photographs nearer than `within` count as one person.

    Data sets list some people under two names; such pairs would be taken for false matches. Use the codes of *another*,
    stronger encoder: judged by its own distances an encoder would hide its own errors.
    """
    codes, labels = _checked(codes, subjects)
    parent = np.arange(int(labels.max()) + 1)

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    for start in range(0, len(codes), 1024):
        near = 2 - 2 * (codes[start : start + 1024] @ codes.T) < within
        for row, column in zip(*np.nonzero(near & (labels[start : start + 1024, None] != labels))):
            a, b = sorted((root(int(labels[start + row])), root(int(labels[column]))))
            parent[b] = a
    return np.array([root(label) for label in range(len(parent))], dtype=np.int64)[labels]


def _checked(codes: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, subjects = np.asarray(codes, dtype=np.float32), np.asarray(subjects)
    if codes.ndim != 2 or subjects.shape != codes.shape[:1]:
        raise InvalidOption(f"codes (n, d) and subjects (n,) are needed, not {codes.shape} and {subjects.shape}")
    if not np.all(np.abs(np.einsum("nd,nd->n", codes, codes) - 1) < 1e-3):
        raise InvalidOption("the codes must be finite and of unit length")
    labels = np.unique(subjects, return_inverse=True)[1].reshape(-1)
    if labels.max(initial=-1) + 1 < MINIMUM_SUBJECTS:
        raise InvalidOption(f"a calibration needs photographs of at least {MINIMUM_SUBJECTS} different people")
    return codes, labels


def _counts(codes: np.ndarray, labels: np.ndarray, block: slice) -> np.ndarray:
    """How many photographs of others lie nearer than each edge, for the probes in `block`: (probes, edges)."""
    distances = 2 - 2 * (codes[block] @ codes.T)
    bins = np.clip(distances * ((len(_EDGES) - 1) / 4.0), 0, len(_EDGES) - 2).astype(np.int32) + 1
    bins[labels[block][:, None] == labels] = len(_EDGES)  # mated, and the probe itself: one bin beyond the last edge
    width = len(_EDGES) + 1
    bins += (np.arange(len(bins), dtype=np.int32) * width)[:, None]
    histogram = np.bincount(bins.ravel(), minlength=len(bins) * width).reshape(-1, width)
    return np.cumsum(histogram[:, :-1], axis=1)


def _trials(people: int, size: float) -> float:
    """Independent searches in galleries of `size`. Photographs of one pair of people are one trial, and so are (a, b)
    and (b, a): people^2 / 2 comparisons in all, shared out among galleries; but no fewer than people / 2 searches."""
    return people * max((people - 1) / size, 1.0) / 2


def _sizes(people: int, most: int) -> list[int]:
    sizes = [1]
    while 2 * sizes[-1] <= most and _trials(people, 2 * sizes[-1]) >= MINIMUM_TRIALS:
        sizes.append(2 * sizes[-1])
    return sizes


def _fit_curve(size: int, trials: float, rates: np.ndarray, deviation: np.ndarray) -> Curve:
    """Counted down to 30 errors, a generalised-Pareto tail below; `rates` at `_EDGES`.

    `deviation`: the standard deviation of each rate; `MARGIN` of them are added, as other people than these will come,
    and as many to the scale of the tail.
    """
    anchor = _edge(rates >= min(ERRORS_COUNTED / trials, 0.3))
    fit_from = _edge(rates >= max(min(ERRORS_FITTED / trials, 0.1), rates[anchor]))
    shape, scale = _pareto(rates[: fit_from + 1] / rates[fit_from], _EDGES[1] - _EDGES[0])
    scale += shape * float(_EDGES[fit_from] - _EDGES[anchor])  # the same tail, seen from the anchor
    scale *= 1 + MARGIN / math.sqrt(max(rates[fit_from] * trials, 1.0))  # a mean of k exponentials errs by 1 / sqrt(k)
    upper = np.maximum.accumulate(np.minimum(rates[anchor:] + MARGIN * deviation[anchor:], 1.0))
    upper[-1] = 1.0
    logs = np.log(upper)
    points = [0]
    for i in range(1, len(logs)):  # thin out: a tenth of an e-fold between points is finer than the data
        if logs[i] >= min(logs[points[-1]] + 0.1, 0.0):
            points.append(i)
        if logs[i] == 0.0:
            break
    distances = tuple(round(float(d), 6) for d in _EDGES[anchor:][points])
    return Curve(size, trials, distances, tuple(float(u) for u in logs[points]), float(shape), float(scale))


def _edge(holds: np.ndarray) -> int:
    """The first edge from which on the condition always holds; at least 1."""
    fails = np.flatnonzero(~holds)
    return min(int(fails[-1]) + 1, len(holds) - 2) if len(fails) else 1


def _pareto(survival: np.ndarray, step: float) -> tuple[float, float]:
    """Shape and scale of the excesses whose survival function is given on a grid, by probability-weighted moments
    (Hosking and Wallis 1987): a0 = integral of S, a1 = half the integral of S^2.

    A negative shape would mean that no stranger can ever come nearer than some distance; the data cannot promise that,
    so that the tail is then exponential, with the mean excess as its scale. Both choices err towards more errors.
    """
    a0 = step * float(np.sum(survival) - 0.5)  # trapezoids; survival[-1] is 1, at an excess of nothing
    a1 = step * float(np.sum(survival**2) - 0.5) / 2
    a0 = max(a0, 1e-9)
    shape = 2 - a0 / (a0 - 2 * a1) if a0 > 2 * a1 else 0.0
    if shape <= 0:
        return 0.0, a0
    shape = min(shape, 0.9)
    return shape, a0 * (1 - shape)


def _between(x: float, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Straight lines through the points; beyond the last, the last."""
    if x >= xs[-1]:
        return ys[-1]
    right = max(bisect_right(xs, x), 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])


def _log_error(log_pass: float) -> float:
    """log(1 - exp(log_pass)), exact also for tiny rates."""
    return math.log(-math.expm1(log_pass))


def _size(n: float) -> float:
    if not n >= 1:
        raise InvalidOption(f"the number of templates searched is at least 1, not {n!r}")
    return n


def _curve(
    size: int, trials: float, distances: list[float], log_rates: list[float], shape: float, scale: float
) -> Curve:
    """A curve from JSON; ValueError unless it is a monotone curve of finite numbers."""
    d, r = np.array(distances, dtype=float), np.array(log_rates, dtype=float)
    numbers = np.array([size, trials, shape, scale, *d, *r], dtype=float)
    if len(d) < 2 or len(d) != len(r) or not np.isfinite(numbers).all():
        raise ValueError("a curve has missing or infinite numbers")
    ascending = np.all(np.diff(d) > 0) and np.all(np.diff(r) > 0)
    if not (ascending and r[-1] == 0 and min(shape, size - 1) >= 0 and scale > 0):
        raise ValueError("a curve is not monotone")
    return Curve(int(size), float(trials), tuple(d.tolist()), tuple(r.tolist()), float(shape), float(scale))
