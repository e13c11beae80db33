"""A net over a sample too large for one pass, exactly: tile by tile, each with as much around it as its units see.

Tiles begin at multiples of the deepest layer's stride, so that poolings fall where they do in the whole sample, and
overlap by the receptive field (`nets.receptive_field`), so that no unit that belongs to a tile sees its cut edge. At
the sample's own border the tile ends there too and is padded as the sample would be. So every unit has the value it
has in the whole.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
    step = max(stride(layer) for layer in layers)
    axes = [list(_cuts(n, tile, around, step)) for n in spatial]
    return [_tile(spatial, layers, cuts) for cuts in itertools.product(*axes)]


def check_tile(tile: int, layers: Sequence[str]) -> None:
    """Raises InvalidOption unless `tile` is a multiple of the deepest layer's stride, and more than nothing."""
    step = max(stride(layer) for layer in layers)
    if tile < step or tile % step:
        raise InvalidOption(f"tile is {tile}; it must be a multiple of {step}, the stride of the deepest layer")


def walk(net: Vgg, x: Tensor, layers: Sequence[str], tile: int | None) -> Iterator[tuple[Tile, dict[str, Tensor]]]:
    """(tile, activations that belong to it) of x (1, c, *spatial), of floats or bytes, one tile after the other; one
    tile that is the whole sample where `tile` is None. What was given is emptied when the next is asked for."""
    size = tuple(x.shape[2:])
    cuts = tiles(net, size, layers, tile) if tile else [_tile(size, layers, [(0, n, 0, n) for n in size])]
    for one in cuts:
        found = one.of(activations(net, values(within(x, one.crop)), layers))
        yield one, found
        found.clear()  # or it is there while the next tile's is computed


def release() -> None:
    """Give freed memory back to the system, where the C library keeps it for later (glibc): what the maps of a tile
    took is no room for vectors of the sample's size."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def values(x: Tensor) -> Tensor:
    """Samples kept as bytes (0...255, a quarter of the memory) as float32, 0...1; others as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def extent(n: int, tile: int, around: int) -> tuple[int, int]:
    """Along an axis of n pixels: those of a crop, and those of all crops together (less than a stride per axis may come
    to it, see `_cuts`)."""
    count = _count(n, tile)
    last = n - (count - 1) * tile
    longest = min(n, max(tile + 2 * around if count > 2 else 0, max(min(tile, n), last) + around))
    return longest, count * longest


def _count(n: int, tile: int) -> int:
    """Tiles along an axis. A last tile of less than half is joined to the one before."""
    count = math.ceil(n / tile)
    return count - 1 if count > 1 and n - (count - 1) * tile < tile / 2 else count


def _cuts(n: int, tile: int, around: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """(own first, own end, crop first, crop end) along an axis of n pixels. Crops begin at multiples of `step`, and are
    all of one size, but for less than a step: what one tile frees is what the next one takes."""
    longest, _ = extent(n, tile, around)
    starts = [number * tile for number in range(_count(n, tile))]
    for first, end in zip(starts, [*starts[1:], n], strict=True):
        low = max(0, min(first - around, (n - longest) // step * step))
        yield first, end, low, n if end + around >= n else max(end + around, low + longest)


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
