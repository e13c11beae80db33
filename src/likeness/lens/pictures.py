"""Looking inside nets of pictures: maximisers of several units on one sheet, a picture beside what a layer keeps of it,
and beside what a target answers to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InvalidOption, SilentUnit
from ..progress import Progress
from ..samples.images import ImageSource, read_image
from .attribute import attribute, output, unit
from .comparing import last_map
from .drawing import overlay, sheet
from .invert import invert
from .maximize import Maximised, maximize
from .models import Model

# What the colours mean where they are not shares that speak against the target and for it.
SLOPE = ("brighter lowers it", "brighter raises it")
MEANING = dict.fromkeys(("gradient", "smooth-grad", "guided-backprop", "deconvnet"), SLOPE)
MEANING["grad-cam"] = ("does not count", "speaks for it")
GAP, LABEL = 8, 20  # pixels between tiles, and of a line of text below one
SIDE = 336  # least side of a picture shown beside another


@dataclass(frozen=True, eq=False)
class Looked:
    """`picture`: (h, w, 3) uint8. `record`: what there is to say about it, as `to_dict` gives it."""

    picture: np.ndarray
    record: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.record


def maximise_units(
    model: Model,
    units: Sequence[tuple[str, int]],
    *,
    at: str = "mean",
    steps: int = 128,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Looked:
    """The picture that excites each of `units` (layer, channel) most; several on one sheet, with their names.

    at: "mean", the texture that the whole channel looks for, or "centre", what one unit in the middle does.

    Raises SilentUnit, UnknownName, InvalidOption: see `maximize`.
    """
    if not units:
        raise InvalidOption("name at least one unit")
    if at not in ("mean", "centre"):
        raise InvalidOption(f"at is {at!r}; it must be 'mean' or 'centre'")
    found: list[Maximised] = []
    for number, (layer, channel) in enumerate(units):

        def told(done: int, total: int, info: dict[str, Any], first: int = number * steps) -> None:
            if on_progress:
                on_progress(first + done, len(units) * steps, info)

        try:
            target, shape = unit(layer, channel, at), (3, model.size, model.size)
            chosen: dict[str, Any] = {"steps": steps, "seed": seed, "low": model.low, "high": model.high}
            found.append(maximize(model.net, target, shape, on_progress=told, **chosen))
        except SilentUnit as error:
            raise SilentUnit(f"{layer}:{channel}: {error}") from error
    tiles = [model.image(one.sample[0]) for one in found]
    names = [f"{layer}:{channel}" for layer, channel in units]
    record = {
        "model": model.name,
        "at": at,
        "steps": steps,
        "seed": seed,
        "units": [
            {"layer": layer, "unit": channel, "activation": one.activation}
            for (layer, channel), one in zip(units, found, strict=True)
        ],
    }
    return Looked(tiles[0] if len(tiles) == 1 else tiled(tiles, names), record)


def invert_picture(
    model: Model,
    picture: ImageSource,
    layer: str,
    *,
    steps: int = 200,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Looked:
    """A picture as the net is shown it, beside one with the same activations at `layer`; the record holds the `error`
    that is left (`Inverted.error`).

    Raises UnreadableFile, UnknownName, InvalidOption.
    """
    image = shown(model, picture)
    chosen: dict[str, Any] = {"steps": steps, "seed": seed, "low": model.low, "high": model.high}
    found = invert(model.net, model.tensor(image)[None], layer, on_progress=on_progress, **chosen)
    record = {"model": model.name, "layer": layer, "error": found.error, "steps": steps, "seed": seed}
    return Looked(tiled([enlarged(image), enlarged(model.image(found.sample[0]))]), record)


def attribute_picture(
    model: Model,
    picture: ImageSource,
    what: tuple[str, int] | int | str,
    *,
    method: str = "gradient",
    layer: str | None = None,
) -> Looked:
    """A picture as the net is shown it, beside it in grey with the map of `attribute` laid over in green and magenta,
    with a title, and a legend that says what the colours mean.

    what: a unit (layer, channel), where it is largest, or a class, by its name or number.
    layer: of grad-cam; default: the last one with several positions, of a unit up to its own.

    Raises UnreadableFile, UnknownName, InvalidOption.
    """
    if layer is not None and method != "grad-cam":
        raise InvalidOption(f"layer is {layer!r}, which {method} does not use: leave it away, or choose grad-cam")
    image = shown(model, picture)
    x = model.tensor(image)[None]
    if isinstance(what, tuple):
        target, until, about = unit(*what), what[0], f"{what[0]}:{what[1]}"
    else:
        number = model.output(str(what))
        target, until, about = output(number), None, f"class {number}"
        if number < len(model.classes):
            about += f" ({model.classes[number]})"
    if method == "grad-cam" and layer is None:
        layer = last_map(model.net, x, until)
    found = attribute(model.net, x, target, method=method, layer=layer)
    heat = found.map[0].sum(0).numpy()
    sizes = np.abs(heat[heat != 0])
    coloured = overlay(image, heat, np.quantile(sizes, 0.99) if len(sizes) else 1.0)
    value = float(found.value)
    named = Path(picture).name if isinstance(picture, (str, os.PathLike)) else "the picture"
    figures = " · ".join([method, *([layer] if layer else []), f"target {value:.4g}", Path(model.name).name])
    page = sheet(
        f"What {about} answers to",
        figures,
        [(named, image, coloured, "")],
        ends=MEANING.get(method, ("speaks against it", "speaks for it")),
        signed=method != "grad-cam",
    )
    record = {"model": model.name, "method": method, "layer": layer, "target": about, "value": value}
    return Looked(page, record)


def shown(model: Model, picture: ImageSource) -> np.ndarray:
    """What the net is shown of a picture. Raises InvalidOption where there is nothing that it can use."""
    image = model.picture(read_image(picture))
    if image is None:
        named = picture if isinstance(picture, (str, os.PathLike)) else "the picture"
        raise InvalidOption(f"{named} shows nothing that {model.name} takes: it needs one face")
    return image


def enlarged(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) by a whole factor, so that it has at least `SIDE` pixels."""
    factor = -(-SIDE // max(image.shape[:2]))
    return np.asarray(
        Image.fromarray(image).resize((factor * image.shape[1], factor * image.shape[0]), Image.Resampling.LANCZOS)
    )


def tiled(tiles: Sequence[np.ndarray], names: Sequence[str] = ()) -> np.ndarray:
    """Pictures (h, w, 3) uint8 of one size on white, as near to a square as they go in rows; a name below each."""
    columns = len(tiles) if len(tiles) <= 3 else round(len(tiles) ** 0.5 + 0.49)
    height, width = tiles[0].shape[:2]
    down, across = height + GAP + (LABEL if names else 0), width + GAP
    rows = -(-len(tiles) // columns)
    result = Image.new("RGB", (columns * across + GAP, rows * down + GAP), (255, 255, 255))
    draw, font = ImageDraw.Draw(result), ImageFont.load_default(14)
    for i, tile in enumerate(tiles):
        left, top = GAP + i % columns * across, GAP + i // columns * down
        result.paste(Image.fromarray(tile), (left, top))
        if names:
            draw.text((left, top + height + 2), names[i], fill=(60, 60, 64), font=font)
    return np.asarray(result)
