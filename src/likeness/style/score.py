"""How far any picture is from a content and a style: the parts of J, and whether its border differs from its inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..nets.opening import open_net
from ..nets.tiles import values
from ..samples.images import ImageSource, read_image
from .objective import Parts, Style, check_cost, cost_options, objective
from .pictures import check_shape, several, to_bytes

FRAME = 0.05  # of each axis, at both ends
TILE = 512  # so that a picture of any size can be measured


@dataclass(frozen=True)
class StyleScore:
    """parts: J of the picture, with its parts weighted and unweighted, and the style's per layer, in float32.

    border: mean absolute difference of neighbours in the outer 5 % of each axis, divided by that inside; padding that a
    net sees as an edge shows there. border_content: the same of the content, to compare. None where the inside is flat.
    """

    parts: Parts
    border: float | None
    border_content: float | None
    size: tuple[int, int]
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def style_score(
    picture: ImageSource,
    *,
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    encoder: str | os.PathLike[str] = "vgg-slim",
    **cost: Any,
) -> StyleScore:
    """Measure `picture`, however it was made, against `content` and `style` (one or several, which count alike).

    All are taken at the picture's size: the content exactly, styles with the same longer side, as `stylize` does.
    picture, content, style: paths, bytes, arrays or PIL images.
    encoder: a perceptual net of the catalogue, or its file. To compare methods, take one that none of them optimised.
    cost: options of `style.objective.objective` (content_weight, style_layers, ...), with its defaults.

    Raises UnreadableFile, WeightsError, UnknownName, and InvalidOption where the content has another shape than the
    picture or something is too small for the layers.
    """
    cost = cost_options(**cost)
    opened = open_net(encoder)
    made, original = read_image(picture), read_image(content)
    size = made.shape[:2]
    check_shape(original.shape[:2], size, "a content", "picture")
    x, target = values(to_bytes(made)), to_bytes(original, exact=size)
    styles = [Style(to_bytes(read_image(one), max(size))) for one in several(style)]
    check_cost(opened.net, target, styles, **cost)
    parts = objective(opened.net, target, styles, tile=TILE, **cost).parts(x, tile=TILE)
    return StyleScore(parts, border_ratio(x), border_ratio(values(target)), (size[0], size[1]), opened.fingerprint)


def border_ratio(x: Tensor) -> float | None:
    """Mean absolute difference of neighbours of x (1, c, *spatial) in its outer 5 %, divided by that inside."""
    spatial = x.shape[2:]
    changes = torch.zeros([n - 1 for n in spatial], dtype=torch.float64)
    for axis in range(len(spatial)):
        change = x[0].diff(dim=axis + 1).abs().mean(0)
        changes += change[tuple(slice(n - 1) for n in spatial)]
    inside = torch.zeros(changes.shape, dtype=torch.bool)
    inside[tuple(slice(max(1, round(FRAME * n)), n - max(1, round(FRAME * n))) for n in changes.shape)] = True
    if not inside.any() or inside.all() or not (within := float(changes[inside].mean())):
        return None
    return float(changes[~inside].mean()) / within
