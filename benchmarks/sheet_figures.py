"""The figures of `contact_sheet.py`: means over pairs, fronts, and both as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from likeness.style.objective import cost_options

PHOTOGRAPH, PAINTING = "the photograph itself", "the painting, cropped"
DEFAULT_BETA: float = cost_options()["style_weight"]
FIGURES = ("style", "content", "border")


@dataclass(frozen=True)
class Row:
    """What was measured of a picture: `pair` and `maker` in words (an encoder, or PHOTOGRAPH, PAINTING, which have no
    beta), the judge's errors, and `style.score.border_ratio` (None where it is flat inside)."""

    pair: str
    maker: str
    beta: float | None
    style: float
    content: float
    border: float | None


@dataclass(frozen=True)
class Point:
    """One picture of a front: the weight of its style, and its errors."""

    beta: float
    content: float
    style: float


@dataclass(frozen=True)
class Mean:
    """Over `pairs` pairs, and its standard error as of independent values; None where there are too few for it."""

    mean: float | None
    error: float | None
    pairs: int

    def said(self, sign: str = "") -> str:
        """In words; sign: "+" to show that of positive ones too."""
        if self.mean is None:
            return "–"
        return f"{self.mean:{sign}.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")


def mean_of(values: Sequence[float]) -> Mean:
    n = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else None
    return Mean(float(np.mean(values)) if n else None, error, n)


def column(rows: Iterable[Row], maker: str, figure: str) -> dict[str, float]:
    """pair -> the figure of the maker's picture, at the default beta."""
    mine = [row for row in rows if row.maker == maker and row.beta in (None, DEFAULT_BETA)]
    found = {row.pair: getattr(row, figure) for row in mine}
    return {pair: value for pair, value in found.items() if value is not None}


def summary(rows: Sequence[Row], makers: Sequence[str]) -> dict[str, dict[str, Mean]]:
    """line -> figure -> its mean over pairs: of the photograph, of each maker, of the painting, and of
    the differences of the other makers from the first, pair by pair."""
    lines = {
        name: {figure: mean_of(list(column(rows, name, figure).values())) for figure in FIGURES}
        for name in (PHOTOGRAPH, *makers, PAINTING)
    }
    for name in makers[1:]:
        line = {}
        for figure in FIGURES:
            first, other = column(rows, makers[0], figure), column(rows, name, figure)
            line[figure] = mean_of([other[pair] - first[pair] for pair in first if pair in other])
        lines[f"{name} less {makers[0]}"] = line
    return lines


def fronts_of(rows: Iterable[Row], pairs: Sequence[str], makers: Sequence[str]) -> dict[str, dict[str, list[Point]]]:
    """pair -> maker -> its points in the order of beta."""
    rows = list(rows)
    return {
        pair: {
            maker: sorted(
                (
                    Point(row.beta, row.content, row.style)
                    for row in rows
                    if row.pair == pair and row.maker == maker and row.beta is not None
                ),
                key=lambda point: point.beta,
            )
            for maker in makers
        }
        for pair in pairs
    }


def at_equal_content(a: Sequence[Point], b: Sequence[Point]) -> float | None:
    """How many times the style error of front b is that of front a at the same content error: geometric mean over the
    content errors that both reach, logarithms of style errors linear between points. None where they share none."""
    fronts = [sorted((p.content, math.log(p.style)) for p in front) for front in (a, b)]
    low, high = max(front[0][0] for front in fronts), min(front[-1][0] for front in fronts)
    if low > high:
        return None
    grid = np.linspace(low, high, 101)
    first, second = (np.interp(grid, *zip(*front, strict=True)) for front in fronts)
    return float(np.exp(np.mean(second - first)))


def ratios_of(fronts: Mapping[str, Mapping[str, Sequence[Point]]], makers: Sequence[str]) -> dict[str, list[float]]:
    """maker -> for each pair `at_equal_content` of the first maker and this one, where there is one."""
    found = {
        name: [at_equal_content(curves[makers[0]], curves[name]) for curves in fronts.values()] for name in makers[1:]
    }
    return {name: [ratio for ratio in ratios if ratio is not None] for name, ratios in found.items()}


def table(lines: Mapping[str, Mapping[str, Mean]]) -> str:
    """The summary as Markdown; differences with their sign."""
    text = ["| | style error | content error | border |", "|---|---|---|---|"]
    for name, line in lines.items():
        sign = "+" if " less " in name else ""
        text.append(f"| {name} | {' | '.join(line[figure].said(sign) for figure in FIGURES)} |")
    return "\n".join(text)


def markdown(
    makers: Sequence[str],
    lines: Mapping[str, Mapping[str, Mean]],
    fronts: Mapping[str, Mapping[str, Sequence[Point]]],
    files: Sequence[str],
    setting: str,
) -> str:
    """The figures to be pasted. files: of the page and of the plot. setting: size and steps in words."""
    sheet, front = files
    first, second = makers[:2]
    betas = [f"{point.beta:g}" for point in next(iter(next(iter(fronts.values())).values()))]
    said = [
        f"{name}'s is {np.exp(np.mean(np.log(ratios))):.2f} times {first}'s ({min(ratios):.2f} … {max(ratios):.2f})"
        for name, ratios in ratios_of(fronts, makers).items()
        if ratios
    ]
    equal = f" Style error at the same content error: {'; '.join(said)}." if said else ""
    return f"""\
![Photographs painted like paintings, by {first} and by {second}]({sheet})

Of each two pictures, the upper is {first}'s, the lower {second}'s. {setting}.

{table(lines)}

Mean over {lines[first]["style"].pairs} pairs ± its standard error.

![Style error against content error]({front})

Style weights {", ".join(betas)}, larger points for larger ones.{equal}
"""
