"""A convolution whose border mirrors the sample, without a mirrored copy of the map.

A convolution is linear, and a map with a mirrored border is the map with zeros around it plus a frame one position
wide: `conv(mirror(x)) = conv(zeros(x)) + conv(frame(x))`. The frame reaches only the outermost positions of the result.
So the map goes through the ordinary convolution, and each side of the frame, which has one dimension less, through
one slice of the kernel. Copying the map into a larger one, there and back, took most of the time of nets with few
channels, and of all nets in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .layers import check_dims

LARGE = 1 << 21  # values of a map, measured: a copy of fewer costs less time than the sides of a frame

_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
_UNMIRRORED: dict[int, Any] = {1: torch.ops.aten.reflection_pad1d_backward, 2: torch.ops.aten.reflection_pad2d_backward}


class _Mirrored(nn.Module):
    """For a kernel of 3, stride 1. Where its weights learn, or nothing does, and for small maps, it is as torch's."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = weight.requires_grad or (bias is not None and bias.requires_grad)
        if torch.is_grad_enabled() and x.requires_grad and not learns and x.numel() >= LARGE:
            return _Convolve.apply(x, weight, bias)
        return super()._conv_forward(x, weight, bias)  # type: ignore[misc]


class MirroredConv1d(_Mirrored, nn.Conv1d):
    """(b, c, length), both ends mirrored."""


class MirroredConv2d(_Mirrored, nn.Conv2d):
    """(b, c, height, width), all four sides mirrored."""


class MirroredConv3d(_Mirrored, nn.Conv3d):
    """(b, c, depth, height, width), all six sides mirrored."""


def mirrored_conv(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A convolution 3 wide along each axis that keeps the size: beyond its border the map is mirrored at the outermost
    position. Samples need at least 2 positions along each axis."""
    kind = (MirroredConv1d, MirroredConv2d, MirroredConv3d)[check_dims(spatial_dims) - 1]
    return kind(in_channels, out_channels, 3, padding=1, padding_mode="reflect")


class _Convolve(torch.autograd.Function):
    """Nothing is kept for the way back: the gradient by the map needs the kernel alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.type = x.shape, x.dtype
        y: Tensor = _CONV[x.ndim - 2](x, weight, bias, padding=1)
        weight = weight.to(y.dtype)  # once, not for each side
        for axis, tap, outermost, inner in _sides(x.shape):
            y.select(axis, outermost).add_(_through(x.select(axis, inner), weight.select(axis, tap), axis))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        weight = ctx.saved_tensors[0].to(slope.dtype)
        ones, zeros = [1] * (slope.ndim - 2), [0] * (slope.ndim - 2)
        last = torch.channels_last if slope.ndim == 4 else torch.contiguous_format
        like = torch.empty(
            ctx.size, dtype=slope.dtype, device=slope.device, memory_format=last
        )  # only its shape counts
        back = torch.ops.aten.convolution_backward
        gradient: Tensor = back(slope, like, weight, None, ones, ones, ones, False, zeros, 1, [True, False, False])[0]
        for axis, tap, outermost, inner in _sides(ctx.size):
            back_in = _back_through(slope.select(axis, outermost), weight.select(axis, tap), axis)
            gradient.select(axis, inner).add_(back_in)
        return gradient.to(ctx.type), None, None


def _sides(shape: torch.Size) -> Iterator[tuple[int, int, int, int]]:
    """(axis, slice of the kernel, the outermost position that it reaches, the position that is mirrored there)."""
    for axis in range(2, len(shape)):
        yield axis, 0, 0, 1
        yield axis, 2, shape[axis] - 1, shape[axis] - 2


def _through(side: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """A side of the frame (b, c, *others) through a slice of the kernel (out, c, *others). Corners and edges belong to
    the last axis that they lie beyond: sides are mirrored along the axes before theirs, and end with zeros along
    those after it."""
    dims, before = side.ndim - 2, axis - 2
    if dims == 0:
        return F.linear(side, kernel)
    if before:
        side = F.pad(side, _ends(dims, before), mode="reflect")
    return _CONV[dims](side, kernel, padding=[0] * before + [1] * (dims - before))


def _back_through(slope: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """The adjoint of `_through`: the gradient by the side, given that by what it became."""
    dims, before = slope.ndim - 2, axis - 2
    if dims == 0:
        return slope @ kernel
    wide: Tensor = _TRANSPOSED[dims](slope, kernel, padding=[0] * before + [1] * (dims - before))
    if not before:
        return wide
    inner = [n - 2 * (place < before) for place, n in enumerate(wide.shape[2:])]
    shape = wide.new_empty((*wide.shape[:2], *inner))
    return _UNMIRRORED[dims](wide.contiguous(), shape, _ends(dims, before))


def _ends(dims: int, before: int) -> list[int]:
    """A border of one position along the first `before` of `dims` axes, as `F.pad` wants it: the last axis first."""
    return [0] * 2 * (dims - before) + [1] * 2 * before
