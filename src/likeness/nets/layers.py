"""Convolution, pooling and normalisation over 1, 2 or 3 spatial dimensions, and the arithmetic of their sizes.

Code that builds nets from these never asks how many dimensions there are: signals are (b, c, length),
images (b, c, height, width), volumes (b, c, depth, height, width).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InvalidOption

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def output_size(size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Positions along one axis after a convolution or pooling: `floor((n + 2p - d(f-1) - 1)/s) + 1`.

    The chapter's 14 * 5 -> 10 is `output_size(14, 5)`. Raises InvalidOption where nothing would be left.
    """
    result = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if result < 1:
        raise InvalidOption(
            f"a kernel of {kernel} (dilation {dilation}) does not fit in {size} positions padded by {padding}"
        )
    return result


def conv(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A convolution (b, in_channels, *spatial) -> (b, out_channels, *spatial')."""
    kind = _CONV[check_dims(spatial_dims)]
    return kind(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=bias)


def batch_norm(spatial_dims: int, channels: int) -> nn.Module:
    """Batch normalisation of (b, channels, *spatial) over batch and positions (Ioffe & Szegedy 2015)."""
    return _BATCH_NORM[check_dims(spatial_dims)](channels)


def instance_norm(spatial_dims: int, channels: int) -> nn.Module:
    """Normalisation of (b, channels, *spatial) over the positions of each sample alone (Ulyanov 2017), then a factor
    and a shift per channel."""
    return _INSTANCE_NORM[check_dims(spatial_dims)](channels, eps=1e-5, affine=True)


def max_pool(spatial_dims: int, kernel: int, *, stride: int | None = None) -> nn.Module:
    """Largest activation of each window; stride defaults to the kernel."""
    return _MAX_POOL[check_dims(spatial_dims)](kernel, stride=stride)


def avg_pool(spatial_dims: int, kernel: int, *, stride: int | None = None) -> nn.Module:
    """Mean activation of each window; stride defaults to the kernel."""
    return _AVG_POOL[check_dims(spatial_dims)](kernel, stride=stride)


def check_dims(spatial_dims: int) -> int:
    """`spatial_dims` itself; raises InvalidOption unless it is 1, 2 or 3."""
    if spatial_dims not in _CONV:
        raise InvalidOption(f"spatial_dims is {spatial_dims}; it must be 1 (signal), 2 (image) or 3 (volume)")
    return spatial_dims


def reflected(places: Tensor, n: int) -> Tensor:
    """Places along an axis of n, those outside reflected at the first and the last."""
    places = places.abs()
    return torch.where(places < n, places, 2 * (n - 1) - places)
