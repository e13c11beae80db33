"""The VGG family (Simonyan & Zisserman 2014), for content and style: convolutions with names, over 1, 2 or 3
dimensions.

Layers are called as in the literature: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 ... relu5_4; that is what
`nets.activations` is asked for. Nets end where their weights end (no classifier).
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from . import weights_file
from .layers import avg_pool, check_dims, conv, max_pool
from .mirrored import mirrored_conv

KIND = "likeness.perceptual"
VGG16, VGG19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


@dataclass(frozen=True)
class Architecture:
    """What a VGG is made of, and how a sample becomes its input.

    depths: convolutions of each block; widths: channels of each block; between blocks a pooling halves the size.
    pooling: "max" or "average" (Gatys 2016 finds the pictures of the latter smoother).
    padding: "reflect" or "zeros"; zeros leave a frame in pictures.
    order, mean, scale: input = (value - mean) / scale per channel, for values 0...1, channels in `order` ("rgb",
    "bgr"; of samples without colours the order says nothing).
    """

    spatial_dims: int = 2
    in_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = VGG19
    pooling: str = "max"
    padding: str = "reflect"
    order: str = "rgb"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_dims(self.spatial_dims)
        if len(self.widths) != len(self.depths) or not self.widths:
            raise InvalidOption(f"widths {self.widths} and depths {self.depths} must name the same blocks")
        for name, value, known in (
            ("pooling", self.pooling, ("max", "average")),
            ("padding", self.padding, ("reflect", "zeros")),
            ("order", self.order, ("rgb", "bgr")),
        ):
            if value not in known:
                raise InvalidOption(f"{name} is {value!r}; it must be {known[0]!r} or {known[1]!r}")


class Normalise(nn.Module):
    """(value - mean) / scale per channel, channels turned round for nets that want blue first.

    Pictures leave with the channels of a pixel side by side in memory, and so do all maps after them: convolutions,
    poolings and borders then take a quarter less time than with one plane per channel."""

    mean: Tensor
    scale: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape = (-1,) + (1,) * architecture.spatial_dims
        self.flip = architecture.order == "bgr"
        self.register_buffer("mean", torch.tensor(architecture.mean).reshape(shape), persistent=False)
        self.register_buffer("scale", torch.tensor(architecture.scale).reshape(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x.flip(1) if self.flip else x) - self.mean) / self.scale
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, scale={self.scale.flatten().tolist()}, flip={self.flip}"


class Vgg(nn.Sequential):
    """Samples (b, in_channels, *spatial), values 0...1 -> the activations of the last layer. Its weights take no
    gradient: what is optimised here is the sample."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        a = architecture
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=Normalise(a))
        channels = a.in_channels
        for block, (width, depth) in enumerate(zip(a.widths, a.depths, strict=True), 1):
            if block > 1:
                layers[f"pool{block - 1}"] = (max_pool if a.pooling == "max" else avg_pool)(a.spatial_dims, 2)
            for number in range(1, depth + 1):
                layers[f"conv{block}_{number}"] = (
                    mirrored_conv(a.spatial_dims, channels, width)
                    if a.padding == "reflect"
                    else conv(a.spatial_dims, channels, width, 3, padding=1)
                )
                layers[f"relu{block}_{number}"] = nn.ReLU(inplace=True)  # nothing else reads what it overwrites
                channels = width
        super().__init__(layers)
        self.architecture = a
        self.requires_grad_(False)


def stride(layer: str) -> int:
    """Pixels per position of a layer called as above: 1 in block 1, 2 in block 2 (and pool1), 4, 8, 16."""
    return 2 ** (block_of(layer) - (0 if layer.startswith("pool") else 1))


def block_of(layer: str) -> int:
    """The number of a layer's block: 3 of "relu3_1" and of the pooling behind it."""
    return int(layer.lstrip("convrelupi").split("_")[0])


def smallest(architecture: Architecture, layer: str) -> int:
    """Fewest positions per axis with which a sample reaches `layer`: a reflected border needs 2 on each map."""
    return (2 if architecture.padding == "reflect" else 1) * stride(layer)


def until(net: Vgg, layer: str) -> Vgg:
    """A net that ends with `layer`, a relu or a convolution (then with its relu), sharing the weights of `net`; all of
    it where it has no such layer."""
    block, _, number = layer.lstrip("convrelupi").partition("_")
    a = net.architecture
    depths = a.depths[: int(block)]
    if len(depths) == int(block):
        depths = (*depths[:-1], min(depths[-1], int(number)))
    short = Vgg(replace(a, widths=a.widths[: len(depths)], depths=depths))
    for name, module in net.named_children():
        if name in dict(short.named_children()):
            setattr(short, name, module)
    return short


def save(net: Vgg, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a net as safetensors with its architecture in the metadata; kernels as float16 with `half`."""
    weights_file.save(net, path, {KIND: json.dumps(asdict(net.architecture))}, half=half)


def load(path: str | os.PathLike[str], *, pooling: str | None = None, padding: str | None = None) -> Vgg:
    """Read a net written by `save`, as float32. `pooling` and `padding` may be chosen anew: they have no weights.

    Raises WeightsError where the file is not such a net or is damaged.
    """
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not a perceptual net of likeness (its metadata has no {KIND!r})")
    with weights_file.damaged(path):
        a = Architecture(**weights_file.fields(metadata[KIND]))
    return _filled(replace(a, pooling=pooling or a.pooling, padding=padding or a.padding), tensors, str(path))


def read_net(path: str | os.PathLike[str]) -> Vgg:
    """The net of a file of any kind that is known: safetensors of ours or of torchvision's VGG-16 or VGG-19 (names as
    `features.0.weight`; what else they hold is not read), or an npz of Caffe's arrays. Raises WeightsError."""
    if os.fspath(path).endswith(".npz"):
        return from_caffe_arrays(path)
    features, metadata = weights_file.read(path, prefix="features.")
    if KIND in metadata or not features:
        return load(path)
    with weights_file.damaged(path):
        return from_torchvision(features)


def from_torchvision(state: dict[str, Tensor], *, pooling: str = "max", padding: str = "zeros") -> Vgg:
    """A Vgg from torchvision's state dict (`features.0.weight`, ...) of vgg16 or vgg19, without batch normalisation.

    Which of the two is seen from the number of convolutions. Its input is RGB with ImageNet's mean and deviation.
    """
    kernels = [k for k in state if k.startswith("features.") and k.endswith(".weight")]
    kernels.sort(key=lambda name: int(name.split(".")[1]))
    depths = {sum(VGG16): VGG16, sum(VGG19): VGG19}.get(len(kernels))
    if depths is None:
        raise WeightsError(f"a state dict with {len(kernels)} kernels is neither VGG-16 (13) nor VGG-19 (16)")
    names = [f"conv{block}_{i}" for block, depth in enumerate(depths, 1) for i in range(1, depth + 1)]
    tensors = {}
    for name, kernel in zip(names, kernels, strict=True):
        tensors[f"{name}.weight"] = state[kernel].float()
        tensors[f"{name}.bias"] = state[kernel.replace(".weight", ".bias")].float()
    widths = tuple(len(tensors[f"conv{block}_1.weight"]) for block in range(1, 6))
    architecture = Architecture(
        widths=widths,
        depths=depths,
        pooling=pooling,
        padding=padding,
        mean=(0.485, 0.456, 0.406),
        scale=(0.229, 0.224, 0.225),
    )
    return _filled(architecture, tensors, "the state dict")


def from_caffe_arrays(path: str | os.PathLike[str], *, pooling: str = "max", padding: str = "reflect") -> Vgg:
    """A Vgg from an npz of `conv1_1.weight` (out, in, 3, 3), `conv1_1.bias`, ... of any depth, whose input is BGR
    0...255 less Caffe's mean: the form in which the normalised VGG-19 (Gatys) is passed on. What else the file holds
    (a classifier: `fc6.weight`, ...) is not read. Raises WeightsError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if re.fullmatch(r"conv\d_\d+\.(weight|bias)", name)]
            tensors = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in names}
            found = ", ".join(arrays.files[:3]) or "nothing"
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{path} cannot be read as npz: {error}") from error
    if not tensors:
        raise WeightsError(f"{path} has no arrays called conv1_1.weight, conv1_1.bias, ...; it holds {found}")
    mean = (103.939 / 255, 116.779 / 255, 123.68 / 255)
    with weights_file.damaged(path):
        convs = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
        blocks = sorted({name[4] for name in convs})
        architecture = Architecture(
            widths=tuple(len(tensors[f"conv{block}_1.weight"]) for block in blocks),
            depths=tuple(sum(name[4] == block for name in convs) for block in blocks),
            pooling=pooling,
            padding=padding,
            order="bgr",
            mean=mean,
            scale=(1 / 255,),
        )
    return _filled(architecture, tensors, str(path))


def _filled(architecture: Architecture, tensors: dict[str, Tensor], source: str) -> Vgg:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{source}: {name} holds numbers that are not finite")
    return weights_file.fill(Vgg(architecture), tensors, source).eval()
