"""`likeness stylize --fast`: any style in one pass, by an AdaIN net (`style.adain`)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidOption
from ..nets.opening import locate
from ..samples.images import ImageSource, read_image, resized_shape
from . import adain, machine
from .colour import match_colours, with_colours_of
from .estimate import LEAST
from .pictures import check_colours, named, several, to_image, to_sample, write_recorded


@dataclass(frozen=True)
class FastPicture:
    """`image` (h, w, 3) uint8 RGB; `seconds` it took, reading and opening included; what was asked for."""

    image: np.ndarray
    seconds: float
    settings: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture, and beside it (NAME.json) what it was made from."""
        sources = [self.settings["content"], *self.settings["style"]]
        write_recorded(path, self.image, self.to_dict(), [one for one in sources if one])

    def to_dict(self) -> dict[str, Any]:
        """All but the picture, for JSON."""
        return {"seconds": self.seconds, "settings": self.settings}


def stylize_fast(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    *,
    net: str | os.PathLike[str] | adain.Adain = "adain",
    size: int = 512,
    strength: float = 1.0,
    blend: Sequence[float] = (),
    keep_color: str = "no",
) -> FastPicture:
    """Paint `content` like `style` (one picture or several) in one pass.

    content, style: paths, bytes, arrays or PIL images.
    net: a name of the catalogue, a file that `likeness train adain` wrote, or a net that is open already (open it once
        for many pictures: `style.adain.load`).
    size: the longer side of the result and of the styles in pixels.
    strength: 0 the content, 1 the style.
    blend: weight of each style (default: all alike).
    keep_color: as in `style.pictures.stylize`.

    Raises UnreadableFile for what is no picture, WeightsError for a damaged net, InvalidOption and UnknownName for
    options that cannot be; InvalidOption, too, for a size that does not fit into the memory, with one that does.
    """
    began = time.monotonic()
    check_colours(keep_color)
    fingerprint = None
    if isinstance(net, adain.Adain):
        opened = net
    else:
        path, fingerprint = locate(net, kind="adain", example="adain")
        opened = adain.load(path)
    photograph, *paintings = (read_image(one) for one in [content, *several(style)])
    for one in (photograph, *paintings):
        _check_size(opened, resized_shape(one.shape[:2], size))
    _check_memory(opened, resized_shape(photograph.shape[:2], size))
    picture, *styles = (to_sample(one, size) for one in [photograph, *paintings])
    if keep_color == "histogram":
        styles = [match_colours(one, picture).clamp(0, 1) for one in styles]
    made = opened.stylize(picture, styles, strength=strength, blend=blend)
    if keep_color == "luminance":
        made = with_colours_of(picture, made)
    sources = {"content": named(content), "style": [named(one) for one in several(style)]}
    settings = {
        **sources,
        "net": fingerprint,
        "size": size,
        "strength": strength,
        "blend": list(blend),
        "keep_color": keep_color,
    }
    return FastPicture(to_image(made), time.monotonic() - began, settings)


def _check_size(net: adain.Adain, shape: tuple[int, int]) -> None:
    if min(shape) < net.smallest:
        raise InvalidOption(
            f"{shape[1]} x {shape[0]} pixels are too few; this net needs {net.smallest} along each side of the content "
            "and of each style: choose a larger size"
        )


def _check_memory(net: adain.Adain, shape: tuple[int, int]) -> None:
    """Raises InvalidOption where a picture of this shape does not fit into what the machine can give."""
    left = machine.available()
    needed = LEAST + net.bytes_per_position * math.prod(shape)
    if left is not None and needed > left:
        fitting = int(max(shape) * math.sqrt(max(0, left - LEAST) / (needed - LEAST)))
        raise InvalidOption(
            f"{shape[1]} x {shape[0]} pixels would need {needed / 1e9:.1f} GB, and {left / 1e9:.1f} GB can be had; "
            f"choose a size of {fitting} or less"
        )
