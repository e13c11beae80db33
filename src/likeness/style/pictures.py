"""`likeness.stylize`: pictures in, a picture out; masks, colours, blends and the record beside the file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InvalidOption
from ..nets.opening import open_net
from ..nets.perceptual import Vgg
from ..samples.files import atomic_write
from ..samples.images import ImageSource, read_image, write_image
from .colour import match_colours, with_colours_of
from .objective import Style
from .stylize import Stylized, stylize_sample

COLOURS = ("no", "luminance", "histogram")


@dataclass(frozen=True)
class StylizedPicture:
    """`image` (h, w, 3) uint8 RGB, and how it came about."""

    image: np.ndarray
    run: Stylized

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture, and beside it (NAME.json) the settings and the trace of J."""
        write_image(path, self.image)
        record = json.dumps(self.run.to_dict(), indent=1).encode()
        atomic_write(Path(path).with_suffix(".json"), record)


def stylize(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    *,
    encoder: str | os.PathLike[str] = "vgg-slim",
    size: int = 512,
    blend: Sequence[float] = (),
    masks: Sequence[tuple[ImageSource, ImageSource]] = (),
    keep_color: str = "no",
    init: str | os.PathLike[str] = "content",
    **run: Any,
) -> StylizedPicture:
    """Paint `content` like `style` (one picture or several).

    content, style: paths, bytes, arrays or PIL images.
    encoder: a perceptual net of the catalogue (`likeness weights list`), or the file of one (`nets.opening`).
    size: the longer side of the result in pixels; styles are taken at the same longer side.
    blend: weight of each style (default: all alike).
    masks: for each style a pair (where in the content, what of the style); white counts, black does not.
    keep_color: "no"; "luminance": the content's colours, the result's light and dark; "histogram": the styles are
        recoloured to the content's mean and covariance first.
    init: "content", "noise" or a picture to start from.
    run: options of `stylize_sample` (steps, optimizer, seed, on_progress, ...) and of `objective` (style_weight,
        style_layers, ...).

    Raises UnreadableFile for what is no picture, WeightsError for a damaged encoder, InvalidOption and UnknownName for
    options that cannot be.
    """
    if keep_color not in COLOURS:
        raise InvalidOption(f"keep_color is {keep_color!r}; it must be one of {', '.join(COLOURS)}")
    if size < 1:
        raise InvalidOption(f"size is {size}; it must be at least 1 pixel")
    sources: list[Any] = list(style) if isinstance(style, (list, tuple)) else [style]
    for name, given in (("blend", blend), ("masks", masks)):
        if given and len(given) != len(sources):
            raise InvalidOption(f"{name} has {len(given)} entries for {len(sources)} styles")
    net = open_encoder(encoder)
    picture = to_sample(read_image(content), size)
    styles = [Style(to_sample(read_image(one), size)) for one in sources]
    if keep_color == "histogram":
        styles = [replace(one, sample=match_colours(one.sample, picture).clamp(0, 1)) for one in styles]
    if blend:
        styles = [replace(one, weight=float(weight)) for one, weight in zip(styles, blend, strict=True)]
    if masks:
        styles = [
            replace(one, region=_mask(region, picture, "content"), mask=_mask(mask, one.sample, "style"))
            for one, (region, mask) in zip(styles, masks, strict=True)
        ]
    start: str | Tensor = str(init)
    if start not in ("content", "noise"):
        start = to_sample(read_image(init), exact=tuple(picture.shape[2:]))
    stylized = stylize_sample(net, picture, styles, init=start, **run)
    sample = torch.from_numpy(stylized.sample)[None]
    if keep_color == "luminance":
        sample = with_colours_of(picture, sample)
    more = {"size": size, "blend": list(blend), "keep_color": keep_color, "encoder": os.fspath(encoder)}
    more |= {"content": _named(content), "styles": [_named(one) for one in sources]}
    return StylizedPicture(to_image(sample), replace(stylized, settings=stylized.settings | more))


def open_encoder(encoder: str | os.PathLike[str]) -> Vgg:
    """A perceptual net by its name in the catalogue or its file, see `nets.opening.open_net`."""
    return open_net(encoder).net


def to_sample(image: np.ndarray, size: int | None = None, *, exact: tuple[int, ...] | None = None) -> Tensor:
    """(h, w, 3) uint8 -> (1, 3, h', w') float32, 0...1; with `size`, the longer side gets so many pixels, with
    `exact` the picture gets this height and width."""
    picture = Image.fromarray(image)
    if size is not None:
        ratio = size / max(picture.size)
        picture = picture.resize(
            (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))), Image.Resampling.LANCZOS
        )
    if exact is not None:
        picture = picture.resize((exact[1], exact[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


def to_image(sample: Tensor) -> np.ndarray:
    """(1, 3, h, w), 0...1 -> (h, w, 3) uint8, rounded."""
    return (sample[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _mask(source: ImageSource, picture: Tensor, what: str) -> Tensor:
    """A mask picture at the size of `picture`, 0...1. Raises InvalidOption where it has another shape."""
    image = read_image(source)
    height, width = picture.shape[2:]
    mask_height, mask_width = image.shape[:2]
    if abs(mask_width / mask_height / (width / height) - 1) > 0.02:
        raise InvalidOption(
            f"a mask of {mask_width} x {mask_height} pixels does not have the shape of its {what}, {width} x {height}"
        )
    return to_sample(image, exact=(height, width))[0].mean(0)


def _named(source: ImageSource) -> str | None:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
