"""One style in one pass: a net that paints any sample as the one style that it was trained on (Johnson 2016), with
instance normalisation (Ulyanov 2017), over 1, 2 or 3 dimensions.

Two halvings, residual blocks, two doublings (nearest neighbour, then convolution: no checkerboard), borders reflected.
Odd sizes: a halving rounds up, which the reflected border makes room for, and the doubling is cut to what was halved.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from ..nets import weights_file
from ..nets.engine import PER_POSITION, SMALLEST
from ..nets.layers import check_dims, conv, instance_norm, output_size, reflected

KIND = "likeness.transform"
EPSILON = 1e-5  # in instance normalisation
STRIP = 16 << 20  # bytes of a strip's widest map
ARENA = 1.75  # what ONNX Runtime took at most of what it needed at once, over nets and sizes: its memory is in pieces


@dataclass(frozen=True)
class Architecture:
    """widths: channels at full, half, quarter ... size. blocks: residual blocks at the coarsest. kernel: of the first
    and the last convolution, odd; all others are 3 wide. The default takes 6.4 GMAC for 512 x 384 pixels."""

    spatial_dims: int = 2
    in_channels: int = 3
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 4
    kernel: int = 5

    def __post_init__(self) -> None:
        check_dims(self.spatial_dims)
        if not self.widths or min(self.widths) < 1 or self.blocks < 0:
            raise InvalidOption(f"widths {self.widths} and blocks {self.blocks} describe no net")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InvalidOption(f"kernel is {self.kernel}; it must be odd")

    @property
    def smallest(self) -> int:
        """Fewest positions per axis: a reflected border needs more than it is wide, on each map."""
        return max(2 ** (len(self.widths) - 1) + 1, self.kernel // 2 + 1)


class Stage(nn.Module):
    """Double (with `grow` = 2), convolve, normalise, rectify: (b, c, *spatial) -> (b, c', *spatial * grow / stride)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        grow: int = 1,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.grow = kernel, stride, grow
        # A bias before a normalisation would be taken out again.
        self.conv = conv(
            spatial_dims, in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=not norm
        )
        self.conv.padding_mode = "reflect"  # type: ignore[assignment]
        self.norm = instance_norm(spatial_dims, out_channels) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if self.grow > 1:
            x = F.interpolate(x, scale_factor=float(self.grow), mode="nearest")
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x) if self.relu else x

    def in_strips(self, x: Tensor, strip: int = STRIP) -> Tensor:
        """What `forward` gives, but of what it needs only the input and the output are whole: the rest is made for
        so many positions along the first spatial axis as fit `strip` bytes."""
        parameters = dict(self.conv.named_parameters())
        weight, bias = parameters["weight"], parameters.get("bias")
        half = self.kernel // 2
        grown = [n * self.grow for n in x.shape[2:]]
        size = [output_size(n, self.kernel, stride=self.stride, padding=half) for n in grown]
        out = x.new_empty((len(x), len(weight), *size))
        # What the convolution reads along the first axis of the reflected, doubled map, as places in the map itself.
        places = reflected(torch.arange(-half, grown[0] + half), grown[0]) // self.grow
        factors = [1.0, *[float(self.grow)] * (len(size) - 1)]
        border = [half, half] * (len(size) - 1) + [0, 0]
        row = x.element_size() * len(x) * max(len(weight), x.shape[1]) * math.prod(grown[1:])
        rows = max(1, strip // row)
        for first in range(0, size[0], rows):
            end = min(first + rows, size[0])
            part = x.index_select(2, places[first * self.stride : (end - 1) * self.stride + self.kernel])
            if self.grow > 1:
                part = F.interpolate(part, scale_factor=factors, mode="nearest")
            part = F.pad(part, border, mode="reflect")
            one = [1] * len(size)
            stride, nothing = [self.stride] * len(size), [0] * len(size)
            out[:, :, first:end] = torch.convolution(part, weight, bias, stride, nothing, one, False, nothing, 1)
        if self.norm is not None:
            variance, mean = torch.var_mean(out, tuple(range(2, out.ndim)), correction=0, keepdim=True)
            shape = (-1, *[1] * len(size))
            factor = self.norm.get_parameter("weight").view(shape) * (variance + EPSILON).rsqrt()
            out.sub_(mean).mul_(factor).add_(self.norm.get_parameter("bias").view(shape))
        return out.relu_() if self.relu else out


class Transform(nn.Module):
    """Samples (b, in_channels, *spatial), values 0...1, of any size of at least `architecture.smallest` -> painted
    samples of the same shape, 0...1."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        self.architecture = a = architecture
        d, w = a.spatial_dims, a.widths
        self.first = Stage(d, a.in_channels, w[0], a.kernel)
        self.down = nn.ModuleList(Stage(d, w[i], w[i + 1], stride=2) for i in range(len(w) - 1))
        self.blocks = nn.ModuleList(
            nn.ModuleList([Stage(d, w[-1], w[-1]), Stage(d, w[-1], w[-1], relu=False)]) for _ in range(a.blocks)
        )
        self.up = nn.ModuleList(Stage(d, w[i], w[i - 1], grow=2) for i in reversed(range(1, len(w))))
        self.last = Stage(d, w[0], a.in_channels, a.kernel, norm=False, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, Stage.__call__)

    @torch.no_grad()
    def paint(self, x: Tensor) -> Tensor:
        """What `forward` gives, in the memory that `memory` says. Raises InvalidOption for a sample that does not fit
        the net."""
        a = self.architecture
        if x.ndim != 2 + a.spatial_dims or x.shape[1] != a.in_channels or min(x.shape[2:]) < a.smallest:
            raise InvalidOption(
                f"a sample of shape {tuple(x.shape)} does not fit; this net takes (1, {a.in_channels}, ...) with "
                f"{a.spatial_dims} spatial dimensions of at least {a.smallest}"
            )
        return self._run(x, Stage.in_strips)

    def _run(self, x: Tensor, step: Callable[[Stage, Tensor], Tensor]) -> Tensor:
        x = step(self.first, x)
        sizes = []
        for stage in self.down:
            sizes.append(x.shape[2:])
            x = step(stage, x)  # type: ignore[arg-type]
        for block in self.blocks:
            first, second = block.children()
            x = x + step(second, step(first, x))  # type: ignore[arg-type]
        for stage, size in zip(self.up, reversed(sizes), strict=True):
            x = step(stage, x)  # type: ignore[arg-type]
            for axis, n in enumerate(size, 2):
                x = x.narrow(axis, 0, n)
        return step(self.last, x).sigmoid()


def memory(architecture: Architecture, spatial: Sequence[int]) -> int:
    """Bytes that `Transform.paint` needs at most for a sample of this size in float32, itself and the result included:
    the widest neighbours of its maps, and strips."""
    a = architecture
    positions = [math.prod(-(-n // 2**i) for n in spatial) for i in range(len(a.widths))]
    maps = [width * n for width, n in zip(a.widths, positions, strict=True)]
    pairs = [maps[0], *(fine + coarse for fine, coarse in zip(maps, maps[1:], strict=False)), 3 * maps[-1]]
    return 4 * (max(pairs) + 2 * a.in_channels * positions[0]) + 8 * STRIP


def onnx_bytes(architecture: Architecture) -> int:
    """Bytes per position that ONNX Runtime needs at most for a net of this kind: it keeps whole what a convolution is
    given, that doubled and with a border, and what it gives before and after normalisation, in blocks of 16 channels.
    """
    a = architecture
    shares = [0.5 ** (i * a.spatial_dims) for i in range(len(a.widths))]  # of the positions, at each size
    made = [16 * -(-width // 16) * share for width, share in zip(a.widths, shares, strict=True)]
    doubled = [w * (coarse + 2 * fine) for w, fine, coarse in zip(a.widths[1:], shares, shares[1:], strict=False)]
    most = max(*(2 * one for one in made), *doubled, 3 * made[-1])
    return math.ceil(ARENA * 4 * (most + 2 * a.in_channels))


def save(net: Transform, path: str | os.PathLike[str], *, more: Mapping[str, str] | None = None) -> None:
    """Write a net as safetensors with its architecture in the metadata, kernels as float16. `more`: further metadata
    (what it was trained on)."""
    weights_file.save(net, path, {KIND: json.dumps(asdict(net.architecture))} | dict(more or {}))


def load(path: str | os.PathLike[str]) -> Transform:
    """Read a net written by `save`, as float32. Raises WeightsError where the file is not such a net or is damaged."""
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not a transform net of likeness (its metadata has no {KIND!r})")
    with weights_file.damaged(path):
        net = Transform(Architecture(**weights_file.fields(metadata[KIND])))
    return weights_file.fill(net, tensors, path).eval().requires_grad_(False)


def export(file: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the net in `file` as ONNX with dynamic batch and sizes, equal to torch's to 1e-4; what it wrote."""
    from ..nets.export import export_onnx

    a = load(file).architecture
    shape = (1, a.in_channels, *(45, 67, 27)[: a.spatial_dims])  # odd, so that the cut after a doubling is seen
    worst = export_onnx(
        load(file),
        onnx,
        example_shape=shape,
        dynamic_spatial=True,
        output_names=("painted",),
        tolerance=1e-4,
        metadata={PER_POSITION: str(onnx_bytes(a)), SMALLEST: str(a.smallest)},
    )
    sizes = [None] * a.spatial_dims
    size = os.path.getsize(onnx)
    return {"output": str(onnx), "bytes": size, "input": [None, a.in_channels, *sizes], "max_difference": worst}
