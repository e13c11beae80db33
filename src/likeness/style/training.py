"""`likeness train perceptual`: a slim VGG that sees what a large one sees, so that style costs a fraction."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import InvalidOption, UnreadableFile, at_least
from ..metric.loop import Schedule, fit, seeded
from ..metric.losses import Terms
from ..nets import digest
from ..nets.activations import activations, listening
from ..nets.perceptual import Architecture, Vgg, save, until
from ..progress import Progress
from ..samples.files import writable
from ..samples.folders import is_picture, list_images
from ..samples.images import read_image
from .checks import check_layers
from .pictures import open_encoder

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
HELD_OUT = 20  # every so many pictures one is never trained on


@dataclass(frozen=True)
class TrainedPerceptual:
    """Where the net is, and per layer the share of the teacher's variance that a linear map of the student's
    activations leaves unexplained on held-out pictures (0: all explained)."""

    out: str
    steps: int
    unexplained: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def left_over(a: Tensor, t: Tensor) -> Tensor:
    """The share of the variance of t (k, n) that the best affine map of a (c, n) leaves, by least squares over the n
    positions. Gradients flow to `a` with the map held fixed, which is all there is of them: at the optimum the error
    does not feel a change of the map (variable projection, Golub & Pereyra 1973)."""
    a = torch.cat([a, torch.ones_like(a[:1])])
    with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
        x, y = a.double(), t.double()
        ridge = 1e-6 * torch.eye(len(x), dtype=x.dtype, device=x.device) * x.square().mean()
        weights = torch.linalg.solve(x @ x.T / x.shape[1] + ridge, x @ y.T / x.shape[1]).T.to(a.dtype)
    return (t - weights @ a).square().mean() / (t - t.mean(1, keepdim=True)).square().mean().clamp_min(1e-12)


def train_perceptual(
    pictures: Path,
    *,
    out: Path,
    teacher: Path,
    more_pictures: Sequence[str] = (),
    widths: tuple[int, ...] = (16, 32, 64, 128),
    steps: int = 10_000,
    batch: int = 8,
    size: int = 96,
    lr: float = 2e-3,
    warmup: int = 100,
    every: int = 500,
    seed: int = 0,
    precision: str = "auto",
    optimizer: str = "muon",
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedPerceptual:
    """Train a slim VGG to explain a large one's relu1_1 ... relu4_1 through linear maps; write it to `out`.

    Each layer's map is the best one for the batch (`left_over`), so that only the net is learnt. Linear maps, because
    what style and content measure, differences and correlations of channels, passes through them. At the end each
    channel is scaled so that its mean activation over held-out pictures is 1 (as Gatys normalised VGG-19), which
    changes what the net computes by these factors only.

    pictures: a folder of pictures or a zip of them; every 20th is held out.
    out: the safetensors file to write.
    teacher: weights of a VGG (.safetensors of ours, or an npz of Caffe's arrays).
    more_pictures: further folders or zips.
    widths: channels of each block.
    steps: optimiser steps in all.
    batch: crops per step.
    size: side of a crop in pixels.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    every: steps between checkpoints and looks at the held-out pictures.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a short probe finds faster.
    optimizer: muon or adamw.
    checkpoint: a folder; an interrupted run goes on from it.

    Raises UnreadableFile for pictures and WeightsError for a teacher that cannot be read, InvalidOption for options
    that cannot be and for a checkpoint of another run, StorageError where `out` cannot be written.
    """
    at_least(1, batch=batch)
    large = until(open_encoder(teacher), LAYERS[-1])
    check_layers(large, LAYERS)
    depths = large.architecture.depths
    if len(widths) != len(depths):
        raise InvalidOption(f"widths {widths} must name {len(depths)} blocks")
    out = writable(out)
    train, held = practice([pictures, *more_pictures], size, on_progress)
    with seeded(seed):
        student = Vgg(Architecture(widths=tuple(widths), depths=depths, mean=(0.5,), scale=(0.25,)))
        student.requires_grad_(True)

    def make_batch(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = as_samples([random_crop(train, size, generator) for _ in range(batch)])
        with torch.no_grad():
            wanted = activations(large, x, LAYERS)
        return x, tuple(wanted[layer] for layer in LAYERS)

    figures: dict[str, float] = {}
    tests = [_centre(image, size) for image in held[:: max(1, len(held) // 64)]]
    with listening(student, LAYERS) as seen:

        def objective(_: Tensor, wanted: tuple[Tensor, ...], generator: torch.Generator) -> Terms:
            errors = {l: left_over(_columns(seen[l].float()), _columns(t)) for l, t in zip(LAYERS, wanted, strict=True)}
            total = torch.stack(list(errors.values())).sum()
            return Terms(total, {layer: float(error.detach()) for layer, error in errors.items()})

        def keep(averaged: nn.Module, step: int) -> dict[str, float]:
            assert isinstance(averaged, Vgg)
            figures.update(unexplained(averaged, large, tests))
            save(normalised(averaged, tests), out)
            return {f"held_out_{layer}": value for layer, value in figures.items()}

        fit(
            student,
            make_batch,
            objective,
            schedule=Schedule(steps, lr, warmup),
            seed=seed,
            checkpoint=checkpoint,
            options={"teacher": digest.of_net(large), "pictures": of_pictures(train), "size": size, "batch": batch},
            every=every,
            precision=precision,
            optimizer=optimizer,
            weight_decay=0.0,
            on_checkpoint=keep,
            on_progress=on_progress,
        )
    return TrainedPerceptual(str(out), steps, figures)


@torch.no_grad()
def unexplained(student: Vgg, teacher: Vgg, samples: Sequence[Tensor]) -> dict[str, float]:
    """layer -> the share of the teacher's variance over all positions of `samples` that the best affine map of the
    student's activations leaves."""
    shares = {}
    for layer in LAYERS:
        a, t = (
            torch.cat([_columns(activations(net, x, [layer])[layer]) for x in samples], 1).double()
            for net in (student, teacher)
        )
        shares[layer] = float(left_over(a, t))
    return shares


def _columns(a: Tensor) -> Tensor:
    """(b, c, *spatial) -> (c, b * positions)."""
    return a.transpose(0, 1).flatten(1)


@torch.no_grad()
def normalised(net: Vgg, samples: Sequence[Tensor]) -> Vgg:
    """A net whose every channel has a mean activation of 1 over `samples` (less where it was under a hundredth of its
    layer's mean) and which else computes the same: ReLU and pooling pass positive factors on, so each kernel is
    divided by its channel's mean and the next one takes it back."""
    result = deepcopy(net)
    names = [name for name, _ in result.named_children() if name.startswith("relu")]
    totals = dict.fromkeys(names, torch.zeros(()))
    for x in samples:
        for name, a in activations(result, x, names).items():
            totals[name] = totals[name] + a.mean((0, *range(2, a.ndim))) / len(samples)
    before: Tensor | None = None
    for name in names:
        layer = result.get_submodule(name.replace("relu", "conv"))
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        # A channel that hardly fires stays nearly silent: its kernel must not outgrow float16.
        mean = totals[name].clamp_min(0.01 * float(totals[name].mean()) + 1e-12)
        if before is not None:
            weight.mul_(before.view(1, -1, *[1] * (weight.ndim - 2)))
        weight.div_(mean.view(-1, *[1] * (weight.ndim - 1)))
        bias.div_(mean)
        before = mean
    return result


def read_pictures(sources: Sequence[str | os.PathLike[str]], on_progress: Progress | None = None) -> list[np.ndarray]:
    """All pictures (h, w, 3) uint8 of folders and zip files. Raises UnreadableFile where a picture cannot be read."""
    images: list[np.ndarray] = []
    for source in map(Path, sources):
        where = str(source)
        if source.suffix.lower() != ".zip":
            images += [read_image(path) for path in list_images([source])]
        else:
            try:
                with zipfile.ZipFile(source) as file:
                    for name in sorted(filter(_counts, file.namelist())):
                        where = f"{source}, {name}"
                        images.append(read_image(file.read(name)))
            except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: a password
                raise UnreadableFile(f"{where} cannot be read: {error}") from error
        if on_progress:
            on_progress(len(images), len(images), {"stage": "decoding"})
    return images


def _counts(name: str) -> bool:
    """Of a zip's entries, those that `list_images` would take in a folder, without what a Mac adds."""
    path = Path(name)
    return is_picture(path) and not any(folder.startswith((".", "__MACOSX")) for folder in path.parts[:-1])


def practice(
    sources: Sequence[str | os.PathLike[str]], size: int, on_progress: Progress | None, *, least: int = HELD_OUT
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures to train on and pictures held out (every 20th), of those in folders and zip files that have at least
    `size` pixels along each side; a single picture serves as both.

    Raises InvalidOption for a size that the nets cannot halve three times, and where there are fewer than `least`.
    """
    if size % 8 or size < 32:
        raise InvalidOption(f"size is {size}; it must be a multiple of 8, at least 32")
    images = [image for image in read_pictures(sources, on_progress) if min(image.shape[:2]) >= size]
    if len(images) < least:
        where = ", ".join(map(str, sources))
        found = f"only {len(images)} pictures of at least {size} x {size} pixels"
        raise InvalidOption(f"{where}: {found}; {least} are needed")
    return [image for i, image in enumerate(images) if i % HELD_OUT] or images, images[::HELD_OUT]


def of_pictures(images: Sequence[np.ndarray]) -> str:
    """SHA-256 of pictures: by which a training that goes on knows what it was begun with."""
    return digest.digest(*(part for image in images for part in (str(image.shape).encode(), image)))


def random_crop(images: Sequence[np.ndarray], size: int, generator: torch.Generator, *, shrink: float = 2.0) -> Tensor:
    """A random square of a random picture, (size, size, 3) uint8, shrunk by a factor of up to `shrink`, half of them
    mirrored. The pictures must have at least `size` pixels along each side."""
    image = images[int(torch.randint(len(images), (1,), generator=generator))]
    side = int(torch.randint(size, min(int(shrink * size), *image.shape[:2]) + 1, (1,), generator=generator))
    top, left = (int(torch.randint(n - side + 1, (1,), generator=generator)) for n in image.shape[:2])
    picture = Image.fromarray(image[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BOX)
    crop = torch.from_numpy(np.asarray(picture).copy())
    return crop.flip(1) if bool(torch.rand((), generator=generator) < 0.5) else crop


def as_samples(crops: Sequence[Tensor]) -> Tensor:
    """Crops (size, size, 3) uint8 -> (b, 3, size, size) float32, 0...1."""
    x = torch.stack(list(crops)).permute(0, 3, 1, 2).float().div_(255)
    return x.contiguous(memory_format=torch.channels_last)


def _centre(image: np.ndarray, size: int) -> Tensor:
    top, left = ((n - size) // 2 for n in image.shape[:2])
    crop = image[top : top + size, left : left + size]
    return as_samples([torch.from_numpy(crop.copy())])
