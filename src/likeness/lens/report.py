"""A page that shows what the units of a net's layers answer to, like the figures of Zeiler & Fergus 2014: one HTML file
and its pictures in a folder, without a server or network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InvalidOption
from ..nets.activations import layer_shapes
from ..progress import Progress
from ..samples.files import atomic_write
from ..samples.images import read_image, write_image
from .models import Model, batches
from .patches import Hit, LayerPatches, TopPatches, top_patches

PATCH = 72  # pixels of one patch on the page
GAP = 3


@dataclass(frozen=True)
class PatchesReport:
    """`page`: the HTML file. `patches`: what it shows; sample numbers are those of `files`. `skipped`: pictures that
    could not be used."""

    page: Path
    patches: TopPatches
    shown: dict[str, tuple[int, ...]]
    files: tuple[Path, ...]
    skipped: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "page": str(self.page),
            "samples": self.patches.samples,
            "skipped": [str(path) for path in self.skipped],
            "shown": {layer: list(units) for layer, units in self.shown.items()},
            "patches": str(self.page.parent / "patches.json"),
        }


def report_patches(
    model: Model,
    files: Sequence[Path],
    folder: Path,
    *,
    layers: Sequence[str],
    units: Sequence[int] | str = "selective",
    k: int = 9,
    on_progress: Progress | None = None,
) -> PatchesReport:
    """Find the k patches that excite each unit most, and write FOLDER/index.html, the pictures it shows, and the hits
    of all units as FOLDER/patches.json.

    files: pictures. layers: as `likeness lens layers` names them. units: numbers, or "selective": of each layer the
    nine that stand out most (`LayerPatches.selective`). k: patches per unit, a square number.

    Raises UnknownName for a layer or unit there is none of, InvalidOption where no picture can be used, StorageError.
    """
    side = round(k**0.5)
    if k < 1 or side * side != k:
        raise InvalidOption(f"k is {k}; the page shows squares of patches: 1, 4, 9, 16")
    used: list[Path] = []
    skipped: list[Path] = []

    def samples() -> Any:
        for x, kept in batches(model, files, skipped=skipped):
            used.extend(kept)
            yield x

    chosen = None if isinstance(units, str) else dict.fromkeys(layers, units)
    found = top_patches(
        model.net, samples(), layers=layers, units=chosen, k=k, total=len(files), on_progress=on_progress
    )
    shown = {name: one.selective(9) if chosen is None else one.units for name, one in found.layers.items()}
    folder.mkdir(parents=True, exist_ok=True)
    cache: dict[int, np.ndarray] = {}

    def picture(sample: int) -> np.ndarray:
        if sample not in cache:
            made = model.picture(read_image(used[sample]))
            assert made is not None  # it was used
            cache[sample] = made
        return cache[sample]

    for name, one in found.layers.items():
        for unit in shown[name]:
            hits = one.hits[one.units.index(unit)]
            tiles = [patch(picture(hit.sample), hit, one.field.size) for hit in hits]
            write_image(folder / _grid(name, unit), montage(tiles, side))
            if hits:
                write_image(folder / _seen(name, unit), framed(picture(hits[0].sample), hits[0]))
    names = [str(file) for file in used]
    record = found.to_dict() | {"model": model.name, "files": names}
    atomic_write(folder / "patches.json", json.dumps(record).encode())
    page = folder / "index.html"
    atomic_write(page, _page(model, found, shown).encode())
    return PatchesReport(page, found, shown, tuple(used), tuple(skipped))


def patch(image: np.ndarray, hit: Hit, field: Sequence[int]) -> np.ndarray:
    """What the unit of a hit sees of a picture (h, w, 3), on a square of its whole field: what lies beyond the
    picture's border is grey."""
    (top, bottom), (left, right) = hit.window
    cut = image[top:bottom, left:right]
    square = np.full((min(field[0], 2 * image.shape[0]), min(field[1], 2 * image.shape[1]), 3), 128, np.uint8)
    y = square.shape[0] - cut.shape[0] if top == 0 else 0  # cut off above or on the left: it keeps its place
    x = square.shape[1] - cut.shape[1] if left == 0 else 0
    if top == 0 and bottom == image.shape[0]:
        y //= 2
    if left == 0 and right == image.shape[1]:
        x //= 2
    square[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    how = Image.Resampling.NEAREST if max(square.shape[:2]) < PATCH else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(square).resize((PATCH, PATCH), how))


def montage(tiles: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Up to side x side patches on white, the most exciting one first."""
    step = PATCH + GAP
    sheet = np.full((side * step - GAP, side * step - GAP, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // side * step, i % side * step
        sheet[top : top + PATCH, left : left + PATCH] = tile
    return sheet


def framed(image: np.ndarray, hit: Hit) -> np.ndarray:
    """The picture with what the unit sees of it framed."""
    result = Image.fromarray(image.copy())
    (top, bottom), (left, right) = hit.window
    draw = ImageDraw.Draw(result)
    draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=(255, 64, 32), width=2)
    return np.asarray(result)


def _grid(layer: str, unit: int) -> str:
    return f"{quote(layer, safe='')}-{unit}.png"


def _seen(layer: str, unit: int) -> str:
    return f"{quote(layer, safe='')}-{unit}-seen.png"


STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #1d1d1f; --soft: #66676b; --line: #e3e1dc }
@media (prefers-color-scheme: dark) { :root { --ground: #131417; --card: #1d1f24; --ink: #ececee; --soft: #a0a3aa;
  --line: #2e3138 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) }
h1 { line-height: 1.15; margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .2rem }
p { color: var(--soft); margin: 0 0 1rem; max-width: 46rem }
section div { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .7rem }
figure img { width: 100%; height: auto; border-radius: 6px; display: block }
figure details img { margin-top: .5rem }
figcaption, summary { font-size: .85rem; color: var(--soft); margin-top: .4rem }
"""


def _page(model: Model, found: TopPatches, shown: dict[str, tuple[int, ...]]) -> str:
    sections = "".join(_section(name, one, shown[name]) for name, one in found.layers.items())
    title = f"What the units of {html.escape(model.name)} see"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1>"
        f"<p>For each unit the patches of {found.samples:,} pictures that excite it most, at most one of each picture, "
        f"the most exciting first. A patch is all that the unit sees; grey lies beyond the picture's border.</p>"
        f"{sections}</main></html>\n"
    )


def _section(name: str, one: LayerPatches, units: Sequence[int]) -> str:
    size = " × ".join(map(str, one.field.size))
    figures = "".join(_figure(name, one, unit) for unit in units)
    return f"<section><h2>{html.escape(name)}</h2><p>Each unit sees {size} pixels.</p><div>{figures}</div></section>"


def _figure(name: str, one: LayerPatches, unit: int) -> str:
    i = one.units.index(unit)
    hits = one.hits[i]
    top = f"{hits[0].activation:.3g}" if hits else "–"
    grid, seen = (html.escape(quote(file(name, unit))) for file in (_grid, _seen))
    whole = f'<details><summary>where in the picture</summary><img src="{seen}" alt="" loading="lazy"></details>'
    return (
        f'<figure><img src="{grid}" alt="patches of unit {unit}" loading="lazy">'
        f"<figcaption>unit {unit} · up to {top}, mean {one.mean[i]:.3g}</figcaption>{whole if hits else ''}</figure>"
    )


def layer_table(model: Model) -> list[dict[str, Any]]:
    """Every layer with maps: its name, units, positions per axis, and what a unit sees: size, stride, offset."""
    import torch

    from ..errors import LikenessError
    from ..nets.receptive_field import receptive_fields

    x = torch.zeros(1, 3, model.size, model.size)
    rows = []
    for name, shape in layer_shapes(model.net, x).items():
        if len(shape) < 3 or not name:
            continue
        try:
            field = receptive_fields(model.net, x, [name])[name].to_dict()
        except LikenessError:  # an operation whose field nobody knows
            field = {"size": [], "stride": [], "offset": []}
        rows.append({"layer": name, "units": shape[1], "positions": list(shape[2:]), **field})
    return rows
