"""Samples as pictures: signals as curves, pictures as they are, volumes as three orthogonal slices; with what a unit
sees of them framed, or a map laid over them. The one place that knows how many dimensions a drawing has."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InvalidOption
from ..nets.receptive_field import ReceptiveField
from ..samples.files import atomic_write
from .drawing import AGAINST, FOR, overlay
from .patches import Hit

Window = Sequence[tuple[int, int]]
GROUND, BEYOND = (24, 25, 29), (128, 128, 128)  # between tiles; what lies beyond the sample's border
ACCENT = "#ff4a1c"
GAP, LEAST = 2, 13  # pixels between tiles; of the smallest frame
# Colours of layers' fields; and of a curve's channels, on light and on dark pages.
LAYERS = ("#ffd23f", "#35c9a5", "#3d8bff", "#b36bff", "#ff4a1c", "#f58ac0", "#8fd14f")
CURVES = (("#1f4e8c", "#8ab8ff"), ("#a3501a", "#f5a26b"), ("#2f6f4f", "#7fd3a6"), ("#6b4a8e", "#c3a3ea"))


@dataclass(frozen=True, eq=False)
class Panel:
    """`sample`: (c, *spatial) float, 0...1; not a number where there is nothing. `marks`: windows to frame, each with
    its colour (#rrggbb). `at`: the position through which the slices of a volume go (default: its middle). `heat`:
    (*spatial), -1...1: what speaks for something and against it, laid over the sample."""

    sample: np.ndarray
    marks: Sequence[tuple[Window, str]] = ()
    at: Sequence[int] | None = None
    heat: np.ndarray | None = None


def patch_of(sample: np.ndarray, hit: Hit, field: ReceptiveField) -> Panel:
    """What the unit of a hit sees of a sample (c, *spatial), at its place in its whole field; the whole sample where
    the field is larger than that."""
    spatial = sample.shape[1:]
    starts = [
        0 if size >= n else offset + i * stride
        for size, stride, offset, i, n in zip(
            field.size, field.stride, field.offset, hit.position, spatial, strict=True
        )
    ]
    extent = [min(size, n) for size, n in zip(field.size, spatial, strict=True)]
    cut = np.full((len(sample), *extent), np.nan, np.float32)
    inside = [(max(s, 0), min(s + e, n)) for s, e, n in zip(starts, extent, spatial, strict=True)]
    target = tuple(slice(first - s, last - s) for (first, last), s in zip(inside, starts, strict=True))
    cut[(slice(None), *target)] = sample[(slice(None), *(slice(*axis) for axis in inside))]
    return Panel(cut)


def framed(sample: np.ndarray, window: Window, colour: str = ACCENT) -> Panel:
    """The whole sample with `window` framed; of a volume the slices through its middle."""
    return Panel(sample, [(window, colour)], [(first + last - 1) // 2 for first, last in window])


def draw(panels: Sequence[Panel], *, columns: int, side: int) -> np.ndarray | str:
    """The panels row by row, each on a square of `side` pixels: an (h, w, 3) uint8 picture, or an SVG of curves, which
    share their scale. Raises InvalidOption for samples that have not 1 to 3 spatial axes."""
    dims = {panel.sample.ndim - 1 for panel in panels}
    if len(dims) != 1 or not dims <= {1, 2, 3}:
        raise InvalidOption(f"drawn are samples of 1, 2 or 3 dimensions, all alike, not of {sorted(dims)}")
    if dims == {1}:
        return _curves(panels, columns, side)
    gap = 4 * GAP if dims == {3} else GAP  # more between volumes than between the slices of one
    step = side + gap
    rows = -(-len(panels) // columns)
    sheet = np.full((rows * step - gap, columns * step - gap, 3), GROUND, np.uint8)
    for i, panel in enumerate(panels):
        top, left = i // columns * step, i % columns * step
        sheet[top : top + side, left : left + side] = _tile(panel, side)
    return sheet


def write(stem: Path, drawing: np.ndarray | str) -> str:
    """Write a drawing as STEM.webp or STEM.svg; returns the file's name. Raises StorageError."""
    if isinstance(drawing, str):
        atomic_write(path := stem.with_name(f"{stem.name}.svg"), drawing.encode())
        return path.name
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, format="WEBP", quality=85, method=4)
    atomic_write(path := stem.with_name(f"{stem.name}.webp"), buffer.getvalue())
    return path.name


def shaded(sample: np.ndarray) -> np.ndarray:
    """(c, h, w) as (h, w, 3) uint8: three channels are colours, of others the mean is a grey."""
    colours = sample if len(sample) == 3 else sample.mean(0, keepdims=True).repeat(3, 0)
    image = np.full((*sample.shape[1:], 3), BEYOND, np.uint8)
    there = ~np.isnan(colours[0])
    image[there] = np.rint(np.moveaxis(colours, 0, 2)[there].clip(0, 1) * 255)
    return image


def _planes(sample: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of axes (down, across) of the views of a sample: all of a picture; of a volume (d, h, w) the slices
    h-w, at its right h-d, below d-w, so that neighbours share an edge."""
    return [(0, 1)] if sample.ndim == 3 else [(1, 2), (1, 0), (0, 2)]


def _tile(panel: Panel, side: int) -> np.ndarray:
    """The views of a sample in the middle of a square, all at one scale."""
    sample, spatial = panel.sample, panel.sample.shape[1:]
    at = [n // 2 for n in spatial] if panel.at is None else panel.at
    planes = _planes(sample)
    down, across = (spatial[axis] for axis in planes[0])
    beside, gap = (spatial[0], GAP) if len(planes) == 3 else (0, 0)
    scale = (side - gap) / (max(down, across) + beside)
    top, left = (max(0, round((side - gap - scale * (n + beside)) / 2)) for n in (down, across))
    corners = [(top, left), (top, left + round(scale * across) + gap), (top + round(scale * down) + gap, left)]
    tile = Image.new("RGB", (side, side), GROUND)
    how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.LANCZOS
    for (rows, columns), (y, x) in zip(planes, corners, strict=False):
        cut = tuple(slice(None) if axis in (rows, columns) else at[axis] for axis in range(len(spatial)))
        view = shaded(_turned(sample[(slice(None), *cut)], rows > columns))
        size = max(1, round(scale * view.shape[1])), max(1, round(scale * view.shape[0]))
        drawn = Image.fromarray(view).resize(size, how)
        if panel.heat is not None:
            heat = Image.fromarray(_turned(panel.heat[cut], rows > columns).astype(np.float32))
            smooth = np.asarray(heat.resize(size, Image.Resampling.BILINEAR))
            drawn = Image.fromarray(overlay(np.asarray(drawn), smooth, 1.0))
        tile.paste(drawn, (x, y))
        for window, colour in panel.marks:
            (first_y, last_y), (first_x, last_x) = window[rows], window[columns]
            box = (x + scale * first_x, y + scale * first_y, x + scale * last_x - 1, y + scale * last_y - 1)
            _frame(ImageDraw.Draw(tile), box, colour, side)
    return np.asarray(tile)


def _turned(plane: np.ndarray, turn: bool) -> np.ndarray:
    return plane.swapaxes(-1, -2) if turn else plane


def _frame(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: str, side: int) -> None:
    """A frame that is seen on any ground, the colour between dark lines, and however small the window is."""
    left, top, right, bottom = box
    grow = [max(0.0, (LEAST - (last - first)) / 2) for first, last in ((left, right), (top, bottom))]
    corners = (left - grow[0], top - grow[1], right + grow[0], bottom + grow[1])
    left, top, right, bottom = (round(min(max(value, 1), side - 2)) for value in corners)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=GROUND, width=5)
    draw.rectangle((left, top, right, bottom), outline=colour, width=3)


def _curves(panels: Sequence[Panel], columns: int, side: int) -> str:
    height = side * 0.62
    rows = -(-len(panels) // columns)
    values = np.concatenate([panel.sample.ravel() for panel in panels])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    width, total = columns * (side + GAP) - GAP, rows * (height + GAP) - GAP
    light = "".join(f".c{i}{{stroke:{one}}}" for i, (one, _) in enumerate(CURVES))
    dark = "".join(f".c{i}{{stroke:{one}}}" for i, (_, one) in enumerate(CURVES))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {total:g}" width="{width:g}" '
        f'height="{total:g}"><style>.p{{fill:#8882}}path{{fill:none;stroke-width:1.3;stroke-linejoin:round}}{light}'
        f"@media (prefers-color-scheme:dark){{{dark}}}</style>"
    ]
    for i, panel in enumerate(panels):
        x, y = i % columns * (side + GAP), i // columns * (height + GAP)
        parts.append(f'<g transform="translate({x:g} {y:g})">{_curve(panel, side, height, low, high)}</g>')
    return "".join(parts) + "</svg>\n"


def _curve(panel: Panel, width: float, height: float, low: float, high: float) -> str:
    """One lane for each channel, its values from `low` at the bottom to `high` at the top."""
    channels, positions = panel.sample.shape
    parts = [f'<rect class="p" width="{width:g}" height="{height:g}" rx="4"/>']
    for ((first, last),), colour in panel.marks:
        left, right = first / positions * width, max(last, first + 1) / positions * width
        parts.append(
            f'<rect x="{left:.1f}" width="{max(right - left, 1):.1f}" height="{height:g}" fill="{colour}" '
            f'fill-opacity=".18" stroke="{colour}" stroke-width="1.5"/>'
        )
    if panel.heat is not None:
        parts.append(_ribbon(panel.heat, width, height))
    lane = height / channels
    for i, row in enumerate(panel.sample):
        there = np.flatnonzero(~np.isnan(row))
        if not len(there):
            continue
        x, v = _thinned(there, row[there], int(2 * width))
        across = (x + 0.5) / positions * width
        down = lane * (i + 0.92 - 0.84 * (v - low) / ((high - low) or 1))
        points = " ".join(f"{a:.1f} {b:.1f}" for a, b in zip(across, down, strict=True))
        parts.append(f'<path class="c{i % len(CURVES)}" d="M{points}"/>')
    return "".join(parts)


def _ribbon(heat: np.ndarray, width: float, height: float) -> str:
    """The colours of a map behind a curve, in up to 128 stripes."""
    stripes = [float(part.mean()) for part in np.array_split(heat, min(len(heat), 128))]
    step = width / len(stripes)
    return "".join(
        f'<rect x="{i * step:.2f}" width="{step:.2f}" height="{height:g}" fill-opacity="{min(abs(v), 1) * 0.6:.2f}" '
        f'fill="rgb({",".join(map(str, FOR if v >= 0 else AGAINST))})"/>'
        for i, v in enumerate(stripes)
    )


def _thinned(x: np.ndarray, v: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points: of each stretch its lowest and its highest, so that no peak is lost."""
    if len(x) <= most:
        return x, v
    kept = []
    for part in np.array_split(np.arange(len(x)), most // 2):
        kept += sorted({int(part[v[part].argmin()]), int(part[v[part].argmax()])})
    return x[kept], v[kept]
