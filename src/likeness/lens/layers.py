"""The layers of a net that can be looked into: a table of them, and those that tell most about its depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, LikenessError, UnknownName
from ..nets.activations import activations, layer_shapes
from ..nets.receptive_field import receptive_fields

COUNT = 5  # layers that tell: as many as the chapter's figure shows


def layer_table(net: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """Every layer with maps for samples like x (b, c, *spatial): its name, units, positions per axis, and what a unit
    sees: size, stride, offset; empty where an operation's field is not known."""
    rows = []
    for name, shape in _maps(net, x).items():
        try:
            field = receptive_fields(net, x, [name])[name].to_dict()
        except LikenessError:
            field = {"size": [], "stride": [], "offset": []}
        rows.append({"layer": name, "units": shape[1], "positions": list(shape[2:]), **field})
    return rows


def telling_layers(net: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Up to five layers spread over the net's depth, for samples like x (b, c, *spatial): where it has stages, in
    which maps keep their size, the last layer of each; then layers that halve what still lies between two of them.

    Asked are the outputs of activation functions and of blocks (modules made of others); of a net that has neither, all
    layers. Raises InvalidOption where no layer has more than one position and a receptive field that is known.
    """
    maps = _known(net, x, {name: shape for name, shape in _maps(net, x).items() if max(shape[2:]) > 1})
    if not maps:
        raise InvalidOption("no layer of this net has maps with positions whose receptive field is known")
    modules = dict(net.named_modules())
    telling = [name for name in maps if _tells(modules[name.partition("#")[0]]) and _one_size(name, maps)]
    names = telling or list(maps)
    # A block and its last module give the same map: the block stands for both.
    names = [a for a, b in zip(names, [*names[1:], ""], strict=True) if not (b and a.startswith(f"{b}."))]
    ends = [i for i, name in enumerate(names) if i + 1 == len(names) or maps[names[i + 1]][2:] != maps[name][2:]]
    chosen = set(ends if len(ends) <= COUNT else (ends[round(k * (len(ends) - 1) / (COUNT - 1))] for k in range(COUNT)))
    while len(chosen) < min(COUNT, len(names)):
        marks = [-1, *sorted(chosen)]
        first, last = max(zip(marks, marks[1:], strict=False), key=lambda pair: pair[1] - pair[0])
        inside = range(first + 1, last)
        top = min(names[i].count(".") for i in inside)  # of nested blocks the outer ones
        outer = [i for i in inside if names[i].count(".") == top]
        chosen.add(outer[len(outer) // 2])
    return tuple(names[i] for i in sorted(chosen))


def in_order(net: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`layers` in the order of computation, each once, with the shape of its output for samples like x.

    Raises UnknownName for a layer that there is none of; InvalidOption where none is named.
    """
    if not layers:
        raise InvalidOption("layers is empty; name at least one")
    with torch.no_grad():
        activations(net, x, layers)  # raises for names that there are not
    shapes = layer_shapes(net, x)
    if others := [name for name in layers if name not in shapes]:
        raise UnknownName(f"layer {others[0]!r} goes by another name, too; take the one of `likeness lens layers`")
    return {name: shape for name, shape in shapes.items() if name in layers}


def _known(net: nn.Module, x: Tensor, maps: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Those of the layers whose receptive field is known."""

    def known(*names: str) -> bool:
        try:
            receptive_fields(net, x, names)
        except LikenessError:
            return False
        return True

    # All at once, which nearly always succeeds, is one pass instead of one for each.
    return maps if known(*maps) else {name: shape for name, shape in maps.items() if known(name)}


def _maps(net: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Layers whose output has the axes of a sample."""
    return {name: shape for name, shape in layer_shapes(net, x).items() if len(shape) == x.ndim and name}


def _tells(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__ or next(module.children(), None) is not None


def _one_size(name: str, maps: dict[str, tuple[int, ...]]) -> bool:
    """Whether all maps inside a block are of one size; else it holds several stages, whose own ends say more."""
    return len({shape[2:] for inner, shape in maps.items() if inner.startswith(f"{name}.")}) <= 1
