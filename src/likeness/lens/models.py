"""The nets that `likeness lens` can look into, and how pictures become what they take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption, UnknownName, UnreadableFile, WeightsError
from ..faces.cropping import crop_of_one
from ..nets import catalogue, classifier, identity, perceptual, weights_file
from ..samples.images import read_image, squared

SIDE = 224  # of pictures for nets that take any size


@dataclass(frozen=True, eq=False)
class Model:
    """A net in eval mode. `picture`: a photograph (h, w, 3) uint8 to the one of (size, size, 3) that the net is shown,
    None where it shows nothing that the net can use. `low`, `high`: what the net takes for black and white. `classes`:
    what its outputs are called, where it knows."""

    name: str
    net: nn.Module
    size: int
    picture: Callable[[np.ndarray], np.ndarray | None]
    low: float = 0.0
    high: float = 1.0
    classes: tuple[str, ...] = ()

    def output(self, name: str) -> int:
        """The number of the output called `name`, or that number itself as text. Raises UnknownName."""
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal():
            return int(name)
        if not self.classes:
            raise UnknownName(f"the outputs of {self.name} have no names, such as {name!r}; give a number")
        near = ", ".join(map(repr, get_close_matches(name, self.classes, 3, 0)))
        raise UnknownName(f"{self.name} has no class called {name!r}; the nearest are {near}")

    def tensor(self, image: np.ndarray) -> Tensor:
        """A picture (h, w, 3) uint8 as the net's input (3, h, w)."""
        return self.low + (self.high - self.low) * (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)

    def blank(self) -> Tensor:
        """An input (1, 3, size, size) that shows nothing."""
        return torch.full((1, 3, self.size, self.size), self.low)

    def image(self, x: Tensor) -> np.ndarray:
        """The net's input (3, h, w) as a picture (h, w, 3) uint8."""
        values = (x.detach().float().cpu() - self.low) / (self.high - self.low)
        return (values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


@torch.inference_mode(False)  # weights made within it would have no gradients ever after
def open_model(model: str | os.PathLike[str], *, size: int | None = None) -> Model:
    """The net that the catalogue calls `model`, or of a safetensors file of ours: an encoder of faces, a VGG, a
    classifier. A VGG may be in any file that `nets.perceptual.read_net` knows.

    size: side of the pictures in pixels, for nets that take any (default: a classifier's own, else 224). Encoders of
    faces take aligned crops; of a photograph that is no such crop the face is cut out.

    Raises UnknownName, WeightsError where the file is no net that can be looked into, InvalidOption.
    """
    path = _file(model)
    arrays = path.suffix == ".npz"
    # torchvision's VGGs say nothing of themselves, but for the names of their tensors
    features, metadata = ({}, {}) if arrays else weights_file.read(path, prefix="features.0.")
    name = os.fspath(model)
    if identity.KIND in metadata:
        tower = identity.load(path)
        _check_pictures(name, tower.architecture)
        own = tower.architecture.size
        if size not in (None, own):
            raise InvalidOption(f"size is {size}; {model} takes crops of {own} pixels")
        return Model(name, tower, own, lambda image: _face(image, own), low=-1.0)
    if classifier.KIND in metadata:
        net = classifier.load(path)
        a = net.architecture
        _check_pictures(name, a)
        side = replace(a, size=a.size if size is None else size).size  # raises where its maps would be empty
        return Model(name, net, side, lambda image: squared(image, side), low=-1.0, classes=a.classes)
    if arrays or features or perceptual.KIND in metadata:
        vgg = perceptual.read_net(path)
        _check_pictures(name, vgg.architecture)
        side = SIDE if size is None else size
        least = max(perceptual.smallest(vgg.architecture, layer) for layer, _ in vgg.named_children() if "_" in layer)
        if side < least:
            raise InvalidOption(f"size is {size}; {model} needs at least {least} pixels")
        return Model(name, vgg, side, lambda image: squared(image, side))
    raise WeightsError(f"{path} is not a net that can be looked into (an encoder of faces, a VGG, a classifier)")


def batches(
    model: Model,
    files: Sequence[Path],
    *,
    size: int = 32,
    skipped: list[Path] | None = None,
    unreadable: list[Path] | None = None,
) -> Iterator[tuple[Tensor, list[Path]]]:
    """The pictures of `files` as the net takes them (b, 3, side, side), with their files. Those that cannot be read or
    show nothing the net can use are left out and appended to `skipped`, the former also to `unreadable`."""
    x: list[Tensor] = []
    kept: list[Path] = []
    for number, file in enumerate(files, 1):
        try:
            shown = model.picture(read_image(file))
        except UnreadableFile:
            shown = None
            if unreadable is not None:
                unreadable.append(file)
        if shown is None:
            if skipped is not None:
                skipped.append(file)
        else:
            x.append(model.tensor(shown))
            kept.append(file)
        if x and (len(x) == size or number == len(files)):
            yield torch.stack(x), kept
            x, kept = [], []


def _file(model: str | os.PathLike[str]) -> Path:
    if Path(model).is_file():
        return Path(model)
    one = catalogue.entry(os.fspath(model))
    path = catalogue.path(one.name)
    if path.suffix != ".safetensors":
        path = path.with_suffix(".safetensors")
        if not path.is_file():
            raise WeightsError(f"{model!r} is an ONNX file only; looking inside needs the safetensors of a net of ours")
    return path


def _check_pictures(model: str, a: identity.Architecture | perceptual.Architecture | classifier.Architecture) -> None:
    if (a.spatial_dims, a.in_channels) != (2, 3):
        raise InvalidOption(
            f"{model} takes samples of {a.spatial_dims} dimensions and {a.in_channels} channels, not pictures"
        )


def _face(image: np.ndarray, side: int) -> np.ndarray | None:
    return image if image.shape[:2] == (side, side) else crop_of_one(image, size=side)
