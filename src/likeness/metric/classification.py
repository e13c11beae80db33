"""`likeness train classifier`: pictures in folders by class become a net that names what they show."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, at_least
from ..nets.classifier import Architecture, Classifier, save
from ..progress import Progress
from ..samples.files import writable
from ..samples.images import squared
from .augment import augment_things, to_input
from .data import Crops, load_crops
from .loop import Schedule, check_fit, fit, seeded
from .losses import Terms
from .plan import check_sizes, size_at
from .training import shuffled

HELD_OUT = 10  # of each class every so many pictures one is never trained on, where no folder says which


@dataclass(frozen=True)
class TrainedClassifier:
    """Where the net is, its classes, how many pictures it was trained on, how many were held out, and the share of
    these whose class it names (`top1`)."""

    out: str
    steps: int
    classes: tuple[str, ...]
    pictures: int
    held_out: int
    top1: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_classifier(
    folder: Path,
    *,
    out: Path,
    more_folders: Sequence[str] = (),
    widths: tuple[int, ...] = (32, 64, 96, 128, 128),
    side: int = 128,
    sizes: tuple[int, ...] = (64, 96),
    shares: tuple[float, ...] = (0.7, 0.3),
    steps: int = 3000,
    batch: int = 64,
    optimizer: str = "muon",
    lr: float = 4e-3,
    warmup: int = 100,
    weight_decay: float = 1.0,
    smoothing: float = 0.1,
    every: int = 250,
    seed: int = 0,
    precision: str = "auto",
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedClassifier:
    """Train an AlexNet-like net of five convolutions on pictures with labels and write it to `out` (float16
    safetensors) at every checkpoint.

    folder: DIR/CLASS/*.jpg, of which every 10th of each class is held out, or DIR/train/CLASS/*.jpg and what is held
        out in DIR/val/CLASS (or DIR/test/CLASS).
    out: the safetensors file to write.
    more_folders: more such folders; classes of one name are one class.
    widths: channels of the five convolutions.
    side: pixels per side of the pictures that the net is for; others are cut to squares and scaled.
    sizes: resolutions in pixels of the views that it learns from, one after the other: a low one first sees more
        pictures in the same time.
    shares: share of the steps spent at each of these sizes.
    steps: optimiser steps in all.
    batch: pictures per step.
    optimizer: muon or adamw.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    weight_decay: of kernels and matrices, times the learning rate; a strong one lets the noise in first kernels fade.
    smoothing: share of the target that is spread over all classes (Szegedy 2016, sec. 7).
    every: steps between checkpoints and looks at the held-out pictures.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a short probe finds faster.
    checkpoint: a folder; an interrupted run, called again with the same options, goes on from it.

    Raises InvalidOption where options do not fit, there are fewer than two classes, or one has fewer than two pictures
    and no folder says which are held out; UnreadableFile where a picture cannot be read or there is none; WeightsError
    where the checkpoint belongs to other options; StorageError.
    """
    schedule = Schedule(steps, lr, warmup)
    check_fit(optimizer, precision, every, schedule, seed)
    if not 0 <= smoothing < 1:
        raise InvalidOption(f"smoothing is {smoothing}; it must be at least 0 and below 1")
    check_sizes(sizes, shares)
    at_least(1, side=side)
    at_least(2, batch=batch)
    out = writable(out)
    train, held = read_classes([folder, *more_folders], side=side, on_progress=on_progress)
    for size in sizes:
        _ = Architecture(classes=train.names, size=size, widths=tuple(widths))  # raises where the net needs more
    architecture = Architecture(classes=train.names, size=side, widths=tuple(widths))
    with seeded(seed):
        net = Classifier(architecture)

    def make_batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index = shuffled(len(train), batch, step, seed)
        size = size_at(step, steps=steps, sizes=sizes, shares=shares)
        views = augment_things(torch.from_numpy(train.images[index]), generator=generator, size=size)
        return views.contiguous(memory_format=torch.channels_last), torch.from_numpy(train.subjects[index])

    def objective(logits: Tensor, labels: Tensor, generator: torch.Generator) -> Terms:
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return Terms(loss, {"top1": float((logits.detach().argmax(1) == labels).float().mean())})

    named = 0.0

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        nonlocal named
        assert isinstance(averaged, Classifier)
        save(averaged, out)
        named = top1(averaged, held)
        return {"held_out_top1": named}

    fit(
        net,
        make_batch,
        objective,
        schedule=schedule,
        optimizer=optimizer,
        weight_decay=weight_decay,
        seed=seed,
        checkpoint=Path(checkpoint) if checkpoint else None,
        options={
            "widths": tuple(widths),
            "side": side,
            "sizes": tuple(sizes),
            "shares": tuple(shares),
            "batch": batch,
            "smoothing": smoothing,
            "pictures": hashlib.sha256(train.images.tobytes() + train.subjects.tobytes()).hexdigest(),
        },
        every=every,
        precision=precision,
        on_checkpoint=keep,
        on_progress=on_progress,
    )
    return TrainedClassifier(str(out), steps, train.names, len(train), len(held), named)


def read_classes(
    folders: Sequence[str | os.PathLike[str]], *, side: int = 128, on_progress: Progress | None = None
) -> tuple[Crops, Crops]:
    """The pictures to train on and those held out, as squares of `side` pixels, numbered by class (`names`): see
    `train_classifier`, also for what is raised."""
    train, held = [], []
    for folder in map(Path, folders):
        parts = _split(folder, side, on_progress)
        train.append(parts[0])
        held.append(parts[1])
    names = tuple(sorted({name for part in train for name in part.names}))
    where = ", ".join(map(str, folders))
    if len(names) < 2:
        raise InvalidOption(f"{where}: there is only one class, {names[0]!r}; a classifier tells at least two apart")
    if unknown := {name for part in held for name in part.names} - set(names):
        raise InvalidOption(f"{where}: pictures of {min(unknown)!r} are held out, but there is none to train on")
    return _joined(train, names), _joined(held, names)


def _split(folder: Path, side: int, on_progress: Progress | None) -> tuple[Crops, Crops]:
    def load(place: Path) -> Crops:
        return load_crops(place, size=side, align=lambda image: squared(image, side), on_progress=on_progress)

    held = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    if held is not None and (folder / "train").is_dir():
        return load(folder / "train"), load(held)
    crops = load(folder)
    counts = np.bincount(crops.subjects)
    if counts.min() < 2:
        name = crops.names[int(counts.argmin())]
        raise InvalidOption(
            f"{folder}: there is only one picture of {name!r}; pictures are DIR/CLASS/*.jpg, at least two of each class"
        )
    within = np.arange(len(crops)) - (np.cumsum(counts) - counts)[crops.subjects]  # they are sorted by class
    return crops.where(within % HELD_OUT != 0), crops.where(within % HELD_OUT == 0)


def _joined(parts: Sequence[Crops], names: tuple[str, ...]) -> Crops:
    """All in one, with subjects as numbers among `names`."""
    subjects = [np.array([names.index(name) for name in part.names])[part.subjects] for part in parts]
    return Crops(np.concatenate([part.images for part in parts]), np.concatenate(subjects), names)


@torch.no_grad()
def top1(net: Classifier, pictures: Crops) -> float:
    """The share of `pictures` (squares of any side) whose class the net names: its largest logit."""
    net.eval()
    right = 0
    for first in range(0, len(pictures), 64):
        x = to_input(torch.from_numpy(pictures.images[first : first + 64]))
        right += int((net(x).argmax(1).numpy() == pictures.subjects[first : first + 64]).sum())
    return right / len(pictures)
