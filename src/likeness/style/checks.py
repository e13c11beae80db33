"""What a net, a layer and a sample must be to each other, said before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from ..errors import InvalidOption, UnknownName
from ..nets.perceptual import Vgg, smallest


def check_layers(net: Vgg, layers: Sequence[str]) -> None:
    """Raises UnknownName, with the nearest one, for a layer that the net does not have."""
    known_layers = [name for name, _ in net.named_children() if name != "input"]
    for layer in layers:
        known(layer, known_layers, "layer")


def known(name: str, names: Sequence[str] | Mapping[str, Any], what: str) -> None:
    """Raises UnknownName, with the nearest of `names`, or all where none is near, unless `name` is one of them."""
    if name not in names:
        near = get_close_matches(name, names, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UnknownName(f"there is no {what} called {name!r}; {hint}")


def check_size(net: Vgg, layers: Sequence[str], sample: Tensor, what: str) -> None:
    """Raises InvalidOption, about `what`, unless `sample` is (1, channels, *spatial) as the net takes it, and large
    enough for the layers."""
    a = net.architecture
    if sample.ndim != 2 + a.spatial_dims or sample.shape[0] != 1 or sample.shape[1] != a.in_channels:
        raise InvalidOption(
            f"{what} has shape {tuple(sample.shape)}; this net takes (1, {a.in_channels}, ...) "
            f"with {a.spatial_dims} spatial dimensions"
        )
    least = max((smallest(a, layer) for layer in layers), default=1)
    if min(sample.shape[2:]) < least:
        raise InvalidOption(
            f"{what} has {' x '.join(map(str, sample.shape[2:]))} positions; these layers need {least} along each axis"
        )
