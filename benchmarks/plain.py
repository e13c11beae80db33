"""A VGG as anybody writes it with torch's own functions: what ours are compared with."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.nets.perceptual import Vgg


def features(net: Vgg, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """The outputs of the relus called `wanted` for pictures x (1, 3, h, w), 0...1, as deep as is needed, with the
    weights of `net`, a net of mirrored borders and max pooling. Channels of a pixel lie side by side in memory, which
    torch is faster with."""
    layers = dict(net.named_children())
    first = layers["input"]
    x = (((x.flip(1) if first.flip else x) - first.mean) / first.scale).contiguous(memory_format=torch.channels_last)
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if name.startswith("pool"):
            x = F.max_pool2d(x, 2)
        elif name.startswith("conv"):
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias))  # type: ignore[arg-type]
            if (relu := name.replace("conv", "relu")) in wanted:
                found[relu] = x
            if len(found) == len(wanted):
                break
    return found


def outward(x: Tensor, gradient: Tensor) -> Tensor:
    """Where a step downhill would lead a pixel beyond 0...1 further out."""
    return ((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0))
