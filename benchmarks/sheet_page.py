"""The page and the plot of `contact_sheet.py`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from sheet_figures import Point

from likeness.samples.files import atomic_write

WIDTH, MARGIN, SIDE = 1800, 24, 208  # of the page, around it, of the column with the photographs
GAP, APART, HEAD = 10, 4, 140  # between rows and columns, within a pair, above the first row
INK, SOFT = (29, 29, 31), (102, 103, 107)
COLOURS = ("#00785a", "#d71496", "#8a8b8f", "#2f6fd0")
MOST = 1_200_000  # bytes of a page


def page(
    title: tuple[str, str],
    photographs: Sequence[Path],
    paintings: Sequence[tuple[str, str]],
    encoders: tuple[str, str],
    pictures: Mapping[tuple[int, int, int], Path],
) -> Image.Image:
    """Photographs down, paintings (two lines each, in words) across; in each cell the pictures of both encoders, one
    above the other. title: headline and a line below it. pictures: (row, column, encoder) -> its file."""
    with Image.open(photographs[0]) as first:
        shape = first.height / first.width
    width = (WIDTH - 2 * MARGIN - SIDE) // len(paintings) - GAP
    height = round(width * shape)
    step = 2 * height + APART + 2 * GAP
    sheet = Image.new("RGB", (WIDTH, HEAD + len(photographs) * step + MARGIN - 2 * GAP), "white")
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 18), title[0], 24, INK)
    write(draw, (MARGIN, 52), title[1], 15, SOFT)
    lefts = [MARGIN + SIDE + GAP + column * (width + GAP) for column in range(len(paintings))]
    for left, (painter, year) in zip(lefts, paintings, strict=True):
        write(draw, (left, HEAD - 50), painter, 18, INK)
        write(draw, (left, HEAD - 28), year, 15, SOFT)
    for row, photograph in enumerate(photographs):
        top = HEAD + row * step
        thumb = _scaled(photograph, SIDE - 2 * GAP, round((SIDE - 2 * GAP) * shape))
        sheet.paste(thumb, (MARGIN, top + height + APART // 2 - thumb.height // 2))
        for which, name in enumerate(encoders):
            at = top + which * (height + APART)
            write(draw, (MARGIN + SIDE - 8, at if which == 0 else at + height - 20), name, 16, INK, anchor="ra")
            for column, left in enumerate(lefts):
                sheet.paste(_scaled(pictures[row, column, which], width, height), (left, at))
    return sheet


def save_page(sheet: Image.Image, path: Path) -> int:
    """As WebP of at most `MOST` bytes; returns the quality that was possible."""
    for quality in range(90, 9, -5):
        buffer = io.BytesIO()
        sheet.save(buffer, "webp", quality=quality)
        if buffer.tell() <= MOST:
            break
    atomic_write(path, buffer.getvalue())
    return quality


def plot(fronts: Mapping[str, Mapping[str, Sequence[Point]]], path: Path) -> None:
    """fronts: pair -> encoder -> its points in the order of beta, which the size of a point shows too. A panel for each
    pair; SVG, the same bytes for the same figures."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    look: dict[str, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(look | {"svg.hashsalt": "front", "axes.edgecolor": "#66676b"}):
        figure = Figure(figsize=(max(6.0, 0.8 + 3.6 * len(fronts)), 4.0), layout="constrained")
        panels = figure.subplots(1, len(fronts), sharey=True, squeeze=False)[0]
        for axes, (pair, curves) in zip(panels, fronts.items(), strict=True):
            axes.set_title(pair, fontsize=11)
            _panel(axes, curves)
        panels[0].set_ylabel("style error (1: the photograph)")
        figure.supxlabel("content error (0: the photograph, 1: the painting)", fontsize=10)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=len(COLOURS), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    atomic_write(path, buffer.getvalue())


def _panel(axes: Any, curves: Mapping[str, Sequence[Point]]) -> None:
    """A curve for each encoder; at the first's ends the weights in words."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for (encoder, points), colour in zip(curves.items(), COLOURS, strict=False):
        x, y = [p.content for p in points], [p.style for p in points]
        axes.plot(x, y, color=colour, linewidth=1.6, label=encoder)
        axes.scatter(x, y, [14 + 12 * i for i in range(len(points))], color=colour, zorder=3)
    first = next(iter(curves.values()))
    for point, offset, ha, va in ((first[0], (6, 3), "left", "bottom"), (first[-1], (-6, -5), "right", "top")):
        at, said = (point.content, point.style), f"{point.beta:,.0f}"
        axes.annotate(said, at, offset, textcoords="offset points", ha=ha, va=va, fontsize=8, color=COLOURS[0])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.12)
    axes.grid(color="#e4e4e6", linewidth=0.7)
    axes.set_axisbelow(True)


def _scaled(path: Path, width: int, height: int) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    *,
    anchor: str = "la",
) -> None:
    draw.text(at, text, fill=colour, font=ImageFont.load_default(size), anchor=anchor)
