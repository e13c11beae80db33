"""What the curves of `benchmarks/peers.py` come to: when each method reached what, as medians over the pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LABELS = {
    "plain": "plain L-BFGS",
    "johnson": "Johnson-type L-BFGS",
    "adam": "coarse-to-fine Adam",
    "ours": "likeness",
    "ours_long": "likeness, more steps",
    "ours_fp32": "likeness in float32",
}
BOUNDS = (1.2, 1.05, 1.0)

Point = tuple[float, float, float]  # CPU seconds, evaluations at full size, J
Records = Mapping[str, Mapping[str, Mapping[str, Any]]]  # pair -> method -> what `peers.measure` found
Curves = Mapping[str, Sequence[Sequence[Point]]]  # method -> one per pair, J falling, in what plain L-BFGS ends with


def ratios(records: Records) -> dict[str, list[list[Point]]]:
    """The curves of the pairs that `plain` was measured on; each ends with its whole time and its best J."""
    found: dict[str, list[list[Point]]] = {}
    for runs in (runs for runs in records.values() if "plain" in runs):
        final = best_so_far(runs["plain"]["points"])[-1][2]
        for method in (name for name in LABELS if name in runs):
            run = runs[method]
            curve = [(seconds, evaluations, J / final) for seconds, evaluations, J in best_so_far(run["points"])]
            curve.append((run["seconds"], run["evaluations"], curve[-1][2]))
            found.setdefault(method, []).append(curve)
    return found


def best_so_far(points: Iterable[Point]) -> list[Point]:
    """The points that are better than all before them."""
    found: list[Point] = []
    for point in points:
        if math.isfinite(point[2]) and (not found or point[2] < found[-1][2]):
            found.append(point)
    return found


def reached(curve: Iterable[Point], bound: float) -> tuple[float, float]:
    """CPU seconds and evaluations until J was at most `bound`; infinite where it never was."""
    return next(((seconds, evaluations) for seconds, evaluations, J in curve if bound >= J), (math.inf, math.inf))


def usual(curves: Sequence[Sequence[Point]], bound: float) -> tuple[float, float]:
    """The same as median over the pairs."""
    seconds, evaluations = zip(*(reached(curve, bound) for curve in curves), strict=True)
    return statistics.median(seconds), statistics.median(evaluations)


def ends(curves: Sequence[Sequence[Point]]) -> Point:
    """Medians over the pairs of the whole time, all evaluations and the best J."""
    seconds, evaluations, J = zip(*(curve[-1] for curve in curves), strict=True)
    return statistics.median(seconds), statistics.median(evaluations), statistics.median(J)


def table(curves: Curves) -> str:
    """In Markdown: what it took to 1.2, 1.05 and 1 times what plain L-BFGS ends with, and the end."""
    head = [*(f"to {bound:g}×" for bound in BOUNDS), "whole run", "J at its end"]
    lines = [f"| method | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    for method, runs in curves.items():
        seconds, evaluations, J = ends(runs)
        cells = [*(_cell(*usual(runs, bound)) for bound in BOUNDS), _cell(seconds, evaluations), f"{J:.3f}×"]
        lines.append(f"| {LABELS[method]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(seconds: float, evaluations: float) -> str:
    return f"{seconds:.3g} s ({evaluations:.0f})" if math.isfinite(seconds) else "–"


def caption(records: Records, encoder: str) -> str:
    """What the table's figures are."""
    pairs = [name for name, runs in records.items() if "plain" in runs]
    run = records[pairs[0]]["plain"]
    settings = run["settings"]
    return (
        f"CPU seconds on one core ({run['machine']['simd']}), and in brackets evaluations at full size, until J was so "
        f"many times what {settings['evaluations']} evaluations of plain L-BFGS reach. Medians over {len(pairs)} "
        f"pair{'s' * (len(pairs) > 1)} ({', '.join(pairs)}); {settings['size']} pixels, encoder {encoder}.\n"
    )
