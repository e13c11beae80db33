"""Nets of others that pictures are compared with: SqueezeNet 1.1, which judges, and VGG-19 compressed 16 times."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from likeness.nets import weights_file
from likeness.nets.activations import activations
from likeness.nets.perceptual import Architecture, Normalise, Vgg
from likeness.style.statistics import gram

JUDGED_STYLE = ("relu1", "fire3", "fire5", "fire7")  # 2, 4, 8 and 16 pixels per position
JUDGED_CONTENT = "fire5"  # 8, as relu4_1 of a VGG


class Fire(nn.Module):
    """SqueezeNet's part: few channels, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze1x1(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1 up to fire9, untrained: (b, 3, h, w), RGB 0...1 -> maps of 512 channels."""
    mean = (104 / 255, 117 / 255, 123 / 255)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        input=Normalise(Architecture(order="bgr", mean=mean, scale=(1 / 255,))),
        conv1=nn.Conv2d(3, 64, 3, stride=2),
        relu1=nn.ReLU(),
    )
    channels = 64
    for number, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
        if number in (2, 4, 6):
            layers[f"pool{number - 1}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        layers[f"fire{number}"] = Fire(channels, squeezed, 4 * squeezed)
        channels = 8 * squeezed
    return nn.Sequential(layers).requires_grad_(False).eval()


def read_squeezenet(path: Path) -> nn.Sequential:
    """From an npz of Caffe's arrays (conv1.weight, fire2/squeeze1x1.weight, ...). Raises WeightsError."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if not name.startswith("conv10")]  # the classes
        tensors = {name.replace("/", "."): torch.from_numpy(arrays[name].astype(np.float32)) for name in names}
    return weights_file.fill(squeezenet(), tensors, path)


def read_compressed(path: Path) -> Vgg:
    """VGG-19 compressed 16 times (Wang et al. 2020, Collaborative Distillation) up to relu4_1, from its npz (conv0,
    conv11, ..., conv41). conv0, 1x1 and linear, stands for the preprocessing; it is folded into conv1_1, which is the
    same since a reflected border passes through it. Raises WeightsError."""
    depths = (2, 2, 4, 1)
    with np.load(path, allow_pickle=False) as arrays:
        tensors = {
            f"conv{block}_{i}.{part}": torch.from_numpy(arrays[f"conv{block}{i}.{part}"].astype(np.float32))
            for block, depth in enumerate(depths, 1)
            for i in range(1, depth + 1)
            for part in ("weight", "bias")
        }
        mix, shift = (torch.from_numpy(arrays[f"conv0.{part}"].astype(np.float32)) for part in ("weight", "bias"))
    kernel = tensors["conv1_1.weight"]
    tensors["conv1_1.bias"] += torch.einsum("oihw,i->o", kernel, shift)
    tensors["conv1_1.weight"] = torch.einsum("oihw,ij->ojhw", kernel, mix[:, :, 0, 0])
    return weights_file.fill(Vgg(Architecture(widths=(16, 32, 64, 128), depths=depths)), tensors, path).eval()


@torch.no_grad()
def levelled(net: Vgg, samples: Sequence[Tensor]) -> Vgg:
    """The same net, each layer scaled to a mean activation of 1 over the samples, so that style weights count about as
    they do with nets of normalised channels. By the layer: many of the compressed net's channels hardly ever fire."""
    names = [name for name, _ in net.named_children() if name.startswith("relu")]
    found = [activations(net, x, names) for x in samples]
    before = 1.0
    for name in names:
        mean = float(np.mean([float(one[name].mean()) for one in found]))
        layer = net.get_submodule(name.replace("relu", "conv"))
        layer.get_parameter("weight").mul_(before / mean)
        layer.get_parameter("bias").div_(mean)
        before = mean
    return net


@dataclass(frozen=True)
class Errors:
    """How far a picture is from what was wanted. style: 1 is the photograph as it is, 0 a picture with the painting's
    Gram matrices. content: 0 is the photograph, 1 the painting cropped to its shape."""

    style: float
    content: float


class Judge:
    """Errors of pictures that show `content` as `painting` is painted, under a net that none of them optimised.

    net: with the layers above. content, fitted: (1, 3, h, w), 0...1, the photograph and the painting cropped to its
    shape. painting: (1, 3, h', w'), the whole of it. A style error is the mean over layers of the squared distance of
    Gram matrices per position, relative to the photograph's; the content error the squared distance of activations,
    relative to that of `fitted`.
    """

    def __init__(self, net: nn.Module, content: Tensor, painting: Tensor, fitted: Tensor) -> None:
        self.net = net
        self.shown = activations(net, content, [JUDGED_CONTENT])[JUDGED_CONTENT]
        self.wanted = self._grams(painting)
        self.whole_style = self._style_distances(content)
        self.whole_content = self._content_distance(fitted)

    def __call__(self, picture: Tensor) -> Errors:
        """picture: (1, 3, h, w), 0...1."""
        shares = [d / whole for d, whole in zip(self._style_distances(picture), self.whole_style, strict=True)]
        return Errors(float(np.mean(shares)), self._content_distance(picture) / self.whole_content)

    def _grams(self, x: Tensor) -> Sequence[Tensor]:
        return [gram(a) / a[0, 0].numel() for a in activations(self.net, x, JUDGED_STYLE).values()]

    def _style_distances(self, x: Tensor) -> list[float]:
        return [float((g - w).square().sum()) for g, w in zip(self._grams(x), self.wanted, strict=True)]

    def _content_distance(self, x: Tensor) -> float:
        a = activations(self.net, x, [JUDGED_CONTENT])[JUDGED_CONTENT]
        return float((a - self.shown).square().sum())
