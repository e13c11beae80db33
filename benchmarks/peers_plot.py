"""The curves of `benchmarks/peers.py` as one drawing: J against CPU seconds, and against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator
from peers_report import Curves, Point, ends

plt.switch_backend("agg")
mpl.rcParams |= {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "svg.fonttype": "none",  # words stay words
    "svg.hashsalt": "peers",
}
COLOURS = {
    "plain": "#3d3d3d",
    "johnson": "#b5651d",
    "adam": "#2e8b57",
    "ours": "#1f4fd8",
    "ours_long": "#7b3fc4",
    "ours_fp32": "#3aa0e0",
}
AXES = ("CPU seconds on one core", "evaluations at full size")
BOTTOM, TOP = 0.8, 4.0  # of J, in what plain L-BFGS ends with
MARKS = (1, 1.05, 1.2, 1.5, 2, 3, 4)
GAP, WIDTH = 0.055, 0.28  # between two names, of the height, and room for one, of the width
EARLY = 3  # a curve that is so many times shorter than the longest is named on its left
LEVELS = 400  # of J, at which the median is taken


def draw(curves: Curves, labels: Mapping[str, str], path: Path) -> None:
    """Write `path` (.svg or .png): for each method when it usually reached which J, and faintly each pair."""
    bottom = min(BOTTOM, *(0.93 * run[-1][2] for runs in curves.values() for run in runs))
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), sharey=True, layout="constrained")
    for column, ax in enumerate(axes):
        _frame(ax, column, bottom)
        for method, runs in curves.items():
            for run in runs if len(runs) > 1 else ():
                ax.plot([p[column] for p in run], [p[2] for p in run], color=COLOURS[method], linewidth=0.6, alpha=0.25)
            x, y = median(runs, column)
            ax.plot(x, y, color=COLOURS[method], linewidth=2 if method.startswith("ours") else 1.5)
            ax.plot(x[-1], y[-1], "o", color=COLOURS[method], markersize=4)
        seen = [point[column] for runs in curves.values() for run in runs for point in run if point[2] <= TOP]
        _name(ax, min(seen) * 0.9, {name: (ends(runs)[column], ends(runs)[2]) for name, runs in curves.items()}, labels)
    axes[0].set_ylabel("J / J that plain L-BFGS ends with")
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def median(runs: Sequence[Sequence[Point]], column: int) -> tuple[np.ndarray, np.ndarray]:
    """x and J: at each level of J the median of the x at which the runs came to it, and where they usually end."""
    end = ends(runs)
    levels = np.geomspace(2 * max(TOP, end[2]), end[2], LEVELS)
    came = []
    for run in runs:
        x, J = np.log([(point[column], point[2]) for point in run[:-1]]).T  # J falls; the last point repeats it
        came.append(np.interp(-np.log(levels), -J, x, right=np.inf))
    x = np.exp(np.median(came, axis=0))
    there = x <= end[column]
    return np.append(x[there], end[column]), np.append(levels[there], end[2])


def _frame(ax: Any, column: int, bottom: float) -> None:
    ax.set(xscale="log", yscale="log", xlabel=AXES[column], ylim=(bottom, TOP))
    close = bottom < BOTTOM  # then there is no room for both 1 and 1.05
    ax.set_yticks(MARKS, ["" if close and mark == 1.05 else f"{mark:g}×" for mark in MARKS])
    ax.minorticks_off()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for mark in MARKS[:3]:
        ax.axhline(mark, color="#bbbbbb", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    ax.spines[["top", "right"]].set_visible(False)


def _name(ax: Any, first: float, dots: Mapping[str, tuple[float, float]], labels: Mapping[str, str]) -> None:
    """A name at each end: to the right of the long curves, and where one ends early below and to the left of it, where
    no curve can be that is not better. first: x at which the first curve comes into sight."""
    last = max(x for x, _ in dots.values())
    late = {method: end for method, end in dots.items() if end[0] >= last / EARLY}
    early = {method: end for method, end in dots.items() if method not in late}
    left = min((x for x, _ in early.values()), default=0.0) * 0.85
    ax.set_xlim(*room(first, left, last * 1.2))
    bottom = ax.get_ylim()[0]
    heights = [_height(y, bottom) for _, y in late.values()]
    _write(ax, late, spread(heights, GAP), last * 1.2, "left", labels)
    depths = [1 + GAP - min(_height(y, bottom) for _, y in early.values()) for _ in early]
    _write(ax, early, [1 - depth for depth in spread(depths, GAP)], left, "right", labels)


def room(first: float, left: float, right: float) -> tuple[float, float]:
    """Limits of a logarithmic axis from `first` on that leave names (of the share WIDTH of it) room left of `left`, if
    that is not 0, and right of `right`."""
    low, high = np.log(first), np.log(right)
    for _ in range(20):
        high = (np.log(right) - WIDTH * low) / (1 - WIDTH)
        low = min(low, (np.log(left) - WIDTH * high) / (1 - WIDTH)) if left else low
    return float(np.exp(low)), float(np.exp(high))


def _write(
    ax: Any,
    dots: Mapping[str, tuple[float, float]],
    heights: Sequence[float],
    x: float,
    side: str,
    labels: Mapping[str, str],
) -> None:
    bottom = ax.get_ylim()[0]
    for (method, dot), height in zip(dots.items(), heights, strict=True):
        ax.annotate(
            labels[method],
            dot,
            (x, bottom * (TOP / bottom) ** height),
            color=COLOURS[method],
            ha=side,
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS[method],
                "linewidth": 0.6,
                "relpos": (float(side == "right"), 0.5),
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )


def _height(y: float, bottom: float) -> float:
    """Where J lies between bottom and top, 0...1."""
    return float(np.log(y / bottom) / np.log(TOP / bottom))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, in the same order, each pushed up as little as that takes."""
    found, lowest = list(heights), gap / 2
    for index in sorted(range(len(found)), key=lambda i: found[i]):
        found[index] = max(found[index], lowest)
        lowest = found[index] + gap
    return found
