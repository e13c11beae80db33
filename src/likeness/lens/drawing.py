"""Pictures of maps: what speaks for something and what against it, in two colours over the grey sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOR, AGAINST = np.array([0, 170, 110]), np.array([215, 20, 150])  # green and magenta: told apart by everybody
SIDE = 320  # pixels of one picture on the sheet
GAP, MARGIN = 20, 28
INK, SOFT = (29, 29, 31), (102, 103, 107)


def overlay(picture: np.ndarray, heat: np.ndarray, peak: float) -> np.ndarray:
    """A picture (h, w, 3) uint8 in grey under the colours of `heat` (h, w): the stronger, the nearer its absolute value
    is to `peak`."""
    grey = np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2) * 0.8 + 51 * 0.8
    strength = np.clip(np.abs(heat) / (peak or 1.0), 0, 1)[..., None] * 0.8
    colour = np.where(heat[..., None] >= 0, FOR, AGAINST)
    return np.rint(grey * (1 - strength) + colour * strength).astype(np.uint8)


def sheet(
    headline: str,
    line: str,
    columns: Sequence[tuple[str, np.ndarray, np.ndarray, str]],
    *,
    ends: tuple[str, str] = ("drives them apart", "brings them together"),
    signed: bool = True,
) -> np.ndarray:
    """A headline, a line of figures, a column for each (name, picture, overlay, what it adds up to), the legend; of a
    single one the overlay is beside the picture. ends: what the colours at both ends of the legend mean. signed:
    whether there is anything against, else the legend begins where nothing is."""
    beside = len(columns) == 1
    width = 2 * MARGIN + max(2, len(columns)) * (SIDE + GAP) - GAP
    top = 96
    bottom = top + SIDE + (0 if beside else 8 + SIDE)  # of the pictures
    height = bottom + 126
    page = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    _text(draw, (MARGIN, 24), headline, 22, INK, width - 2 * MARGIN)
    _text(draw, (MARGIN, 58), line, 15, SOFT, width - 2 * MARGIN)
    step = SIDE + GAP
    for i, (name, picture, coloured, figures) in enumerate(columns):
        left = MARGIN + i * step
        for row, shown in enumerate((picture, coloured)):
            large = Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            page.paste(large, (left + row * step if beside else left, top if beside else top + row * (SIDE + 8)))
        _text(draw, (left, bottom + 12), name, 15, INK, SIDE)
        _text(draw, (left, bottom + 34), figures, 14, SOFT, SIDE)
    _legend(page, draw, height - 48, ends, -1.0 if signed else 0.0)
    return np.asarray(page)


def _legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, ends: tuple[str, str], low: float) -> None:
    ramp = np.tile(np.linspace(low, 1, 160), (14, 1))
    grey = np.full((*ramp.shape, 3), 150, np.uint8)
    _text(draw, (MARGIN, top), ends[0], 14, SOFT, SIDE)
    left = MARGIN + round(draw.textlength(ends[0], ImageFont.load_default(14))) + 12
    page.paste(Image.fromarray(overlay(grey, ramp, 1.0)), (left, top + 3))
    _text(draw, (left + 172, top), ends[1], 14, SOFT, SIDE)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], room: int
) -> None:
    """One line, its beginning cut off where there is no room: of a path the end is what tells."""
    font = ImageFont.load_default(size)
    while len(text) > 2 and draw.textlength(text, font) > room:
        text = "…" + text[2:]
    draw.text(at, text, fill=colour, font=font)
