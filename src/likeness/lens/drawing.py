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


def sheet(headline: str, line: str, columns: Sequence[tuple[str, np.ndarray, np.ndarray, str]]) -> np.ndarray:
    """A headline, a line of figures, a column for each (name, picture, overlay, what it adds up to), the legend."""
    width = max(2 * MARGIN + len(columns) * (SIDE + GAP) - GAP, 2 * MARGIN + 2 * SIDE)
    top = 96
    height = top + 2 * SIDE + 78 + 56
    page = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    _text(draw, (MARGIN, 24), headline, 22, INK, width - 2 * MARGIN)
    _text(draw, (MARGIN, 58), line, 15, SOFT, width - 2 * MARGIN)
    for i, (name, picture, coloured, figures) in enumerate(columns):
        left = MARGIN + i * (SIDE + GAP)
        for row, shown in enumerate((picture, coloured)):
            large = Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            page.paste(large, (left, top + row * (SIDE + 8)))
        _text(draw, (left, top + 2 * SIDE + 20), name, 15, INK, SIDE)
        _text(draw, (left, top + 2 * SIDE + 42), figures, 14, SOFT, SIDE)
    _legend(page, draw, height - 48)
    return np.asarray(page)


def _legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    ramp = np.tile(np.linspace(-1, 1, 160), (14, 1))
    grey = np.full((*ramp.shape, 3), 150, np.uint8)
    said = "drives them apart"
    _text(draw, (MARGIN, top), said, 14, SOFT, SIDE)
    left = MARGIN + round(draw.textlength(said, ImageFont.load_default(14))) + 12
    page.paste(Image.fromarray(overlay(grey, ramp, 1.0)), (left, top + 3))
    _text(draw, (left + 172, top), "brings them together", 14, SOFT, SIDE)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], room: int
) -> None:
    """One line, its beginning cut off where there is no room: of a path the end is what tells."""
    font = ImageFont.load_default(size)
    while len(text) > 2 and draw.textlength(text, font) > room:
        text = "…" + text[2:]
    draw.text(at, text, fill=colour, font=font)
