"""The detector net: a small single-shot ConvNet with a feature pyramid (torch).

Dense 3x3 convolutions with few channels after an early stride: on CPUs they run nearer to the machine's peak than
depthwise ones.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from ..nets import weights_file
from ..nets.layers import batch_norm, conv
from .decoding import NUMBERS, STRIDES

KIND = "likeness.detector"
MEAN, SCALE = 127.5, 127.5  # x = (pixel - mean) / scale


@dataclass(frozen=True)
class DetectorArchitecture:
    """Channels at strides 2, 4, 8, 16, 32; channels of the pyramid; residual blocks at strides 8, 16, 32."""

    widths: tuple[int, int, int, int, int] = (16, 32, 48, 64, 64)
    blocks: tuple[int, int, int] = (1, 1, 0)
    pyramid: int = 48


def _layer(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv(2, in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        batch_norm(2, out_channels),
        nn.ReLU(inplace=True),
    )


class _Block(nn.Module):
    """relu(x + BN(conv3(relu(BN(conv3(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels, 3)
        self.second = conv(2, channels, channels, 3, padding=1, bias=False)
        self.norm = batch_norm(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class DetectorNet(nn.Module):
    """Pictures (b, 3, h, w), sides multiples of 32, values (pixel - 127.5)/127.5 RGB -> raw numbers (b, priors, 15).

    `decoding.priors` says where the priors are and `decoding.decode` what the numbers mean.
    """

    def __init__(self, architecture: DetectorArchitecture = DetectorArchitecture()) -> None:
        super().__init__()
        self.architecture = a = architecture
        w = a.widths
        self.stem = nn.Sequential(_layer(3, w[0], 3, stride=2), _layer(w[0], w[1], 3, stride=2))
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(w[i + 1], w[i + 2], 3, stride=2), *(_Block(w[i + 2]) for _ in range(a.blocks[i])))
            for i in range(3)
        )
        self.lateral = nn.ModuleList(_layer(width, a.pyramid, 1) for width in w[2:])
        self.smooth = nn.ModuleList([_layer(a.pyramid, a.pyramid, 3) for _ in STRIDES[:2]])
        self.heads = nn.ModuleList(conv(2, a.pyramid, NUMBERS, 1) for _ in STRIDES)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
            with torch.no_grad():
                head.bias[0] = -4.6  # type: ignore[operator]  # score 0.01: few priors hold a face
                head.bias[3:5] = math.log(4)  # type: ignore[operator]  # faces of four strides

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        p32 = self.lateral[2](maps[2])
        p16 = self.smooth[1](self.lateral[1](maps[1]) + F.interpolate(p32, scale_factor=2.0, mode="nearest"))
        p8 = self.smooth[0](self.lateral[0](maps[0]) + F.interpolate(p16, scale_factor=2.0, mode="nearest"))
        raw = [head(p) for head, p in zip(self.heads, (p8, p16, p32), strict=True)]
        return torch.cat([r.flatten(2).transpose(1, 2) for r in raw], dim=1)  # [b, priors, 15]


def save(net: DetectorNet, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a detector as safetensors with its architecture in the metadata; kernels as float16 with `half`."""
    metadata = {"kind": KIND, "architecture": json.dumps(asdict(net.architecture))}
    weights_file.save(net, path, metadata, half=half)


def load(path: str | os.PathLike[str]) -> DetectorNet:
    """Read a detector written by `save`, as float32, in eval mode. Raises WeightsError where the file is not one."""
    tensors, metadata = weights_file.read(path)
    if metadata.get("kind") != KIND:
        raise WeightsError(f"{path} is not a detector of likeness (its metadata has no kind {KIND!r})")
    with weights_file.damaged(path):
        net = DetectorNet(DetectorArchitecture(**weights_file.fields(metadata["architecture"])))
    return weights_file.fill(net, tensors, path).eval()


def export(file: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> float:
    """Write the detector `file` (safetensors) as ONNX with dynamic batch and sides; returns the largest difference
    from torch."""
    from ..nets.export import export_onnx

    return export_onnx(load(file), onnx, example_shape=(1, 3, 64, 96), dynamic_spatial=True, output_names=("raw",))
