"""A net over a sample too large for one pass, exactly: tile by tile, each with as much around it as its units see.

Tiles begin at multiples of the deepest layer's stride, so that poolings fall where they do in the whole sample, and
overlap by the receptive field (`nets.receptive_field`), so that no unit that belongs to a tile sees its cut edge. At
the sample's own border the tile ends there too and is padded as the sample would be. So every unit has the value it
has in the whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidOption
from .activations import activations
from .perceptual import Architecture, Vgg, stride
from .receptive_field import receptive_fields

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """`crop`: pixels to run the net on. `windows`: layer -> the positions that belong to this tile, in the map of the
    whole sample. `inner`: layer -> the same positions in the tile's own map."""

    crop: Slices
    windows: Mapping[str, Slices]
    inner: Mapping[str, Slices]

    def of(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of the tile's activations that belongs to it."""
        return {layer: within(a, self.inner[layer]) for layer, a in found.items()}


def within(x: Tensor, part: Slices) -> Tensor:
    """The view of x (b, c, *spatial) that `part` cuts out of its spatial axes."""
    index: tuple[Any, ...] = (..., *part)
    return x[index]


def map_size(spatial: Sequence[int], layer: str) -> tuple[int, ...]:
    """Positions per axis of a layer's map of a sample of this size."""
    return tuple(n // stride(layer) for n in spatial)


def halo(net: Vgg, layers: Sequence[str]) -> int:
    """Pixels that a tile must show around its own, a multiple of the deepest stride."""
    return _halo(net.architecture, tuple(layers))


@lru_cache(maxsize=64)
def _halo(a: Architecture, layers: tuple[str, ...]) -> int:
    """Of the architecture alone, so that a net of one channel per layer tells it."""
    net = Vgg(replace(a, widths=(1,) * len(a.widths)))
    step = max(stride(layer) for layer in layers)
    fields = receptive_fields(net, torch.zeros(1, a.in_channels, *[8 * step] * a.spatial_dims), layers)
    reach = max(max(-field.offset[0], field.offset[0] + field.size[0] - field.stride[0]) for field in fields.values())
    return math.ceil(reach / step) * step


def tiles(net: Vgg, spatial: Sequence[int], layers: Sequence[str], tile: int) -> list[Tile]:
    """The tiles of `tile` pixels per axis (without what lies around them) that cover a sample of this size.

    Raises InvalidOption unless `tile` is a multiple of the deepest layer's stride.
    """
    check_tile(tile, layers)
    around = halo(net, layers)
    axes = [list(_cuts(n, tile, around)) for n in spatial]
    return [_tile(spatial, layers, cuts) for cuts in itertools.product(*axes)]


def check_tile(tile: int, layers: Sequence[str]) -> None:
    """Raises InvalidOption unless `tile` is a multiple of the deepest layer's stride, and more than nothing."""
    step = max(stride(layer) for layer in layers)
    if tile < step or tile % step:
        raise InvalidOption(f"tile is {tile}; it must be a multiple of {step}, the stride of the deepest layer")


def walk(net: Vgg, x: Tensor, layers: Sequence[str], tile: int | None) -> Iterator[tuple[Tile, dict[str, Tensor]]]:
    """(tile, activations that belong to it) of x (1, c, *spatial), of floats or bytes, one tile after the other; one
    tile that is the whole sample where `tile` is None."""
    size = tuple(x.shape[2:])
    cuts = tiles(net, size, layers, tile) if tile else [_tile(size, layers, [(0, n, 0, n) for n in size])]
    for one in cuts:
        yield one, one.of(activations(net, values(within(x, one.crop)), layers))


def values(x: Tensor) -> Tensor:
    """Samples kept as bytes (0...255, a quarter of the memory) as float32, 0...1; others as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def extent(n: int, tile: int, around: int) -> tuple[int, int]:
    """Along an axis of n pixels: those of the longest crop, and those of all crops together."""
    count = _count(n, tile)
    seen = min(count, around // tile + 2)  # tiles that near an end may reach it: all between them are alike
    numbers = {*range(seen), *range(count - seen, count)}
    lengths = []
    for number in numbers:
        first, end = number * tile, n if number == count - 1 else (number + 1) * tile
        lengths.append(min(n, end + around) - max(0, first - around))
    between = tile + 2 * around if len(numbers) < count else 0
    return max(between, *lengths), sum(lengths) + (count - len(numbers)) * between


def _count(n: int, tile: int) -> int:
    """Tiles along an axis. A last tile of less than half is joined to the one before."""
    count = math.ceil(n / tile)
    return count - 1 if count > 1 and n - (count - 1) * tile < tile / 2 else count


def _cuts(n: int, tile: int, around: int) -> Iterator[tuple[int, int, int, int]]:
    """(own first, own end, crop first, crop end) along an axis of n pixels."""
    starts = [number * tile for number in range(_count(n, tile))]
    for first, end in zip(starts, [*starts[1:], n], strict=True):
        yield first, end, max(0, first - around), min(n, end + around)


def _tile(spatial: Sequence[int], layers: Sequence[str], cuts: Sequence[tuple[int, int, int, int]]) -> Tile:
    windows, inner = {}, {}
    for layer in layers:
        s = stride(layer)
        own = [
            (first // s, size // s if end == size else end // s)
            for (first, end, _, _), size in zip(cuts, spatial, strict=True)
        ]
        windows[layer] = tuple(slice(a, b) for a, b in own)
        inner[layer] = tuple(
            slice(a - low // s, b - low // s) for (a, b), (_, _, low, _) in zip(own, cuts, strict=True)
        )
    return Tile(tuple(slice(low, high) for _, _, low, high in cuts), windows, inner)
