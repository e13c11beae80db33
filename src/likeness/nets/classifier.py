"""A classifier in the manner of AlexNet (Krizhevsky 2012), with the smaller and denser first kernels of Zeiler & Fergus
(2014): five convolutions with names, over 1, 2 or 3 dimensions. It is there to be looked into.

Layers are called conv1, norm1, relu1, pool1, ... relu5; that is what `nets.activations` is asked for.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from . import weights_file
from .layers import batch_norm, check_dims, conv, max_pool, output_size

KIND = "likeness.classifier"
POOL, POOL_STEP = 3, 2  # overlapping, as in AlexNet
SMALL = 0.05  # of the usual scale, for the first kernels


@dataclass(frozen=True)
class Architecture:
    """What a classifier is made of.

    classes: their names, in the order of the outputs. size: positions per axis of the samples that it is meant for; it
    takes any that leave its maps something. widths, kernels, strides, pooled: of each convolution its channels, its
    positions per axis (odd, so that borders are padded alike), its stride, and whether a maximum over 3 positions in
    steps of 2 follows.
    """

    classes: tuple[str, ...]
    spatial_dims: int = 2
    in_channels: int = 3
    size: int = 128
    widths: tuple[int, ...] = (32, 64, 96, 128, 128)
    kernels: tuple[int, ...] = (7, 5, 3, 3, 3)
    strides: tuple[int, ...] = (2, 1, 1, 1, 1)
    pooled: tuple[bool, ...] = (True, True, False, False, False)

    def __post_init__(self) -> None:
        check_dims(self.spatial_dims)
        lists = (self.widths, self.kernels, self.strides, self.pooled)
        if not self.widths or len({len(one) for one in lists}) > 1:
            raise InvalidOption(
                f"widths {self.widths}, kernels {self.kernels}, strides {self.strides} and pooled {self.pooled} "
                "must name the same layers"
            )
        if min(*self.widths, *self.strides) < 1 or any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise InvalidOption(
                f"widths {self.widths} and strides {self.strides} must be at least 1, kernels {self.kernels} odd"
            )
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise InvalidOption(f"classes {self.classes} must be at least two different names")
        try:
            _ = self.map_sizes
        except InvalidOption as error:
            raise InvalidOption(f"size is {self.size}, too small for this net: {error}") from error

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """Positions per axis of every convolution's map."""
        sizes = []
        size = self.size
        for kernel, stride, pooled in zip(self.kernels, self.strides, self.pooled, strict=True):
            size = output_size(size, kernel, stride=stride, padding=kernel // 2)
            sizes.append(size)
            size = output_size(size, POOL, stride=POOL_STEP) if pooled else size
        return tuple(sizes)


class Average(nn.Module):
    """Mean over all positions: (b, c, *spatial) -> (b, c)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class Classifier(nn.Sequential):
    """Samples (b, in_channels, *spatial), values about -1...1 -> one logit per class (b, classes).

    Between the last convolution and the linear head stands the mean over positions, instead of AlexNet's 59 million
    weights: samples may have any size.
    """

    def __init__(self, architecture: Architecture) -> None:
        a = architecture
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        ends = pairwise((a.in_channels, *a.widths))
        for i, (channels, width) in enumerate(ends):
            kernel, number = a.kernels[i], i + 1
            layers[f"conv{number}"] = conv(
                a.spatial_dims, channels, width, kernel, stride=a.strides[i], padding=kernel // 2, bias=False
            )
            layers[f"norm{number}"] = batch_norm(a.spatial_dims, width)
            layers[f"relu{number}"] = nn.ReLU()
            if a.pooled[i]:
                layers[f"pool{number}"] = max_pool(a.spatial_dims, POOL, stride=POOL_STEP)
        layers["average"] = Average()
        layers["head"] = nn.Linear(a.widths[-1], len(a.classes))
        super().__init__(layers)
        self.architecture = a
        # What follows is normalised, so kernels may begin at any scale. Those that are looked at begin small: what is
        # learnt then soon outgrows the noise that they begin with.
        with torch.no_grad():
            self.get_submodule("conv1").get_parameter("weight").mul_(SMALL)


def save(net: Classifier, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a net as safetensors with its architecture, names of the classes included, in the metadata; matrices and
    kernels as float16 with `half`. Raises StorageError."""
    weights_file.save(net, path, {KIND: json.dumps(asdict(net.architecture))}, half=half)


def load(path: str | os.PathLike[str]) -> Classifier:
    """Read a net written by `save`, as float32, in eval mode. Raises WeightsError where the file is not one."""
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not a classifier of likeness (its metadata has no {KIND!r})")
    with weights_file.damaged(path):
        net = Classifier(Architecture(**weights_file.fields(metadata[KIND])))
    return weights_file.fill(net, tensors, path).eval()
