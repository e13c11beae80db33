"""The Siamese tower: a sample (b, c, *spatial) becomes a unit code (b, 128). Both samples of a pair go through the
same weights (DeepFace, Taigman 2014); distances between codes are `metric.losses.squared_distances`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from . import weights_file
from .layers import batch_norm, check_dims, conv, output_size

KIND = "likeness.identity"


@dataclass(frozen=True)
class Architecture:
    """What a tower is made of.

    The stem cuts the sample into patches of `stem` positions per axis (as many as the stride): on CPUs a net that
    starts at a quarter of the resolution with dense 3-wide convolutions runs at the machine's peak. Stage i has
    `blocks[i]` residual blocks of `widths[i]` channels and halves the resolution of the one before. A depthwise
    convolution over the whole last map (MobileFaceNets, Chen 2018: positions of a face are not alike, so no average)
    and a linear map give the code.
    """

    spatial_dims: int = 2
    in_channels: int = 3
    size: int = 112
    stem: int = 4
    widths: tuple[int, ...] = (48, 96, 192)
    blocks: tuple[int, ...] = (1, 3, 1)
    code_length: int = 128

    def __post_init__(self) -> None:
        check_dims(self.spatial_dims)
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise InvalidOption(f"widths {self.widths} and blocks {self.blocks} must name the same stages")

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """Positions per axis of every stage's map."""
        sizes = [output_size(self.size, self.stem, stride=self.stem)]
        for _ in self.widths[1:]:
            sizes.append(output_size(sizes[-1], 2, stride=2))
        return tuple(sizes)


class Block(nn.Module):
    """x + BN(conv3(PReLU(BN(conv3(x))))): a residual block (He 2016) without an activation after the sum."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(spatial_dims, channels, channels, 3, padding=1, bias=False),
            batch_norm(spatial_dims, channels),
            nn.PReLU(channels),
            conv(spatial_dims, channels, channels, 3, padding=1, bias=False),
            batch_norm(spatial_dims, channels),
        )
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]  # starts as the identity: deep towers train from the first step

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Tower(nn.Module):
    """Samples (b, c, *spatial), values about -1...1 -> unit codes (b, code_length)."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        self.architecture = a = architecture
        stages: list[nn.Module] = []
        channels = a.in_channels
        for i, (width, blocks) in enumerate(zip(a.widths, a.blocks, strict=True)):
            step = a.stem if i == 0 else 2
            stages.append(
                nn.Sequential(
                    conv(a.spatial_dims, channels, width, step, stride=step, bias=False),
                    batch_norm(a.spatial_dims, width),
                    nn.PReLU(width),
                    *(Block(a.spatial_dims, width) for _ in range(blocks)),
                )
            )
            channels = width
        self.stages = nn.Sequential(*stages)
        self.whole = conv(a.spatial_dims, channels, channels, a.map_sizes[-1], groups=channels, bias=False)
        self.norm = batch_norm(a.spatial_dims, channels)
        self.code = nn.Linear(channels, a.code_length)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x))

    def head(self, x: Tensor) -> Tensor:
        """From the last maps [b, channels, *map] to the code."""
        x = self.norm(self._whole(x)).flatten(1)  # [b, channels]
        code = self.code(x)
        return F.normalize(code.to(torch.promote_types(code.dtype, torch.float32)))  # [b, code_length]

    def _whole(self, x: Tensor) -> Tensor:
        """The depthwise convolution over the whole map; for a smaller or larger sample (training starts at a low
        resolution) its kernel is resampled to the map, keeping its sum."""
        size = x.shape[2:]
        weight = self.whole.weight
        assert isinstance(weight, Tensor)
        if tuple(size) == tuple(weight.shape[2:]):
            return self.whole(x)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        resampled = F.interpolate(weight, size=size, mode=mode, align_corners=False)
        scale = weight[0, 0].numel() / resampled[0, 0].numel()
        return (x * (resampled[:, 0] * scale)).flatten(2).sum(2).reshape(*x.shape[:2], *[1] * len(size))


def multiply_adds(architecture: Architecture) -> int:
    """Multiply-adds of one forward pass of one sample: convolutions and the linear map."""
    total = 0

    def count(module: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        total += out[0].numel() * module.get_parameter("weight")[0].numel()

    tower = Tower(architecture).eval()
    for module in tower.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            module.register_forward_hook(count)
    shape = (1, architecture.in_channels) + (architecture.size,) * architecture.spatial_dims
    with torch.no_grad():
        tower(torch.zeros(shape))
    return total


def save(tower: Tower, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a tower as safetensors with its architecture in the metadata; matrices and kernels as float16 with `half`.

    Raises StorageError.
    """
    weights_file.save(tower, path, {KIND: json.dumps(asdict(tower.architecture))}, half=half)


def load(path: str | os.PathLike[str]) -> Tower:
    """Read a tower written by `save`, as float32, in eval mode. Raises WeightsError where the file is not one."""
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not an encoder of likeness (its metadata has no {KIND!r})")
    with weights_file.damaged(path):
        tower = Tower(Architecture(**weights_file.fields(metadata[KIND])))
    return weights_file.fill(tower, tensors, path).eval()
