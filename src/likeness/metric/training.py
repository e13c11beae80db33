"""`likeness train recognition`: a folder of people, and a teacher if there is one, become an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption
from ..nets import identity
from . import distillation, losses
from .augment import augment, draw_moves, to_input
from .data import Crops, Progress, held_out, load_crops
from .hints import Hints, teacher_maps
from .loop import CollapseAlarm, Schedule, fit
from .losses import Terms
from .samplers import SubjectsTimesSamples

HINT_WEIGHT = 0.5  # of the mean squared error of each hint: beside the codes' loss, not above it


@dataclass(frozen=True)
class Trained:
    """What a training run gave: where the weights are, and how well the averaged net tells held-out people apart."""

    out: str
    steps: int
    samples: int
    figures: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_recognition(
    folder: Path,
    *,
    out: Path,
    loss: str = "triplet",
    miner: str = "semi-hard",
    margin: float = 0.2,
    teacher: Path | None = None,
    hints: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    init: Path | None = None,
    widths: tuple[int, ...] = (48, 96, 192),
    blocks: tuple[int, ...] = (1, 3, 1),
    sizes: tuple[int, ...] = (64, 80, 112),
    shares: tuple[float, ...] = (0.45, 0.35, 0.2),
    steps: int = 10_000,
    batch: int = 128,
    per_subject: int = 4,
    optimizer: str = "muon",
    lr: float = 2e-3,
    warmup: int = 200,
    every: int = 500,
    seed: int = 0,
    precision: str = "auto",
    device: str = "cpu",
    checkpoint: Path | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Train a tower on aligned 112x112 crops and write it to `out` (float16 safetensors) at every checkpoint.

    folder: people/NAME/*.jpg, aligned crops of 112x112 pixels; every 20th person is held out and never trained on.
    out: the safetensors file to write.
    loss: distillation (needs a teacher), triplet, contrastive, pair-logistic or arcface; with a teacher, both.
    miner: triplets to learn from, one of random, hard, semi-hard, batch-all.
    margin: alpha of the triplet loss, on squared distances (the margin of the other losses, where they have one).
    teacher: an ONNX encoder of aligned crops (RGB, x/127.5 - 1) whose codes are distilled.
    hints: names of values inside the teacher, maps that the net's own maps of the same size learn to predict.
    unlabelled: folders of aligned crops without a name; they serve distillation only.
    init: an encoder to start from (fine-tuning); its architecture wins over widths and blocks.
    widths: channels of each stage of the net.
    blocks: residual blocks of each stage.
    sizes: resolutions in pixels, one after the other: a low one first sees more faces in the same time.
    shares: share of the steps spent at each of these sizes.
    steps: optimiser steps in all.
    batch: samples per step.
    per_subject: samples of each subject in a batch (the losses on labels need pairs).
    optimizer: muon or adamw; muon needs about a fifth fewer steps for the same loss.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    every: steps between checkpoints and looks at the held-out people.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a one-second probe finds faster.
    device: where to train, as torch names it.
    checkpoint: a folder; an interrupted run goes on from it.
    cache: a folder for decoded crops and the teacher's codes.
    """
    if len(sizes) != len(shares) or abs(sum(shares) - 1) > 1e-6:
        raise InvalidOption(f"sizes {sizes} and shares {shares} must pair up, and the shares add up to 1")
    if loss == "distillation" and teacher is None:
        raise InvalidOption("loss 'distillation' needs a teacher: --teacher FILE.onnx")
    if hints and (teacher is None or cache is None):
        raise InvalidOption("hints need a teacher and a folder for its maps: --teacher FILE.onnx --cache FOLDER")
    crops = load_crops(folder, unlabelled if teacher else (), cache=cache, on_progress=on_progress)
    codes = (
        distillation.teacher_codes(crops.images, Path(teacher), cache=cache, on_progress=on_progress)
        if teacher
        else None
    )
    held = held_out(crops.subjects)
    train, strangers = crops.where(~held), crops.where(held)
    if init:
        tower = identity.load(init)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tower = identity.Tower(identity.Architecture(widths=tuple(widths), blocks=tuple(blocks)))
    length = tower.architecture.code_length
    if codes is not None and codes.shape[1] < length:
        raise InvalidOption(f"the teacher's codes have {codes.shape[1]} numbers, fewer than the {length} to be learnt")
    criterion: nn.Module | None = None
    sampler: SubjectsTimesSamples | None = None
    if loss != "distillation":
        sampler = SubjectsTimesSamples(
            train.subjects, subjects_per_batch=batch // per_subject, samples_per_subject=per_subject, seed=seed
        )
        criterion = losses.objective(
            loss, classes=len(crops.names), code_length=length, miner=miner, margin=margin, seed=seed
        ).to(device)
    targets = _Targets(codes[~held], length) if codes is not None else None
    hinted: Hints | None = None
    if hints and teacher and cache:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            maps = teacher_maps(crops.images, Path(teacher), hints, cache=cache, on_progress=on_progress)
            hinted = Hints(tower, maps).to(device)
    rows = torch.from_numpy(np.flatnonzero(~held))  # of the training crops among all
    bounds = np.cumsum(shares) * steps

    def make_batch(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        size = sizes[min(int(np.searchsorted(bounds, step, side="right")), len(sizes) - 1)]
        if sampler is None:
            index = shuffled(len(train), batch, step, seed)
        else:
            index = sampler.batch(step)
        moves = draw_moves(len(index), generator)
        views = augment(torch.from_numpy(train.images[index]).to(device), generator=generator, size=size, moves=moves)
        context = torch.from_numpy(index), torch.from_numpy(train.subjects[index]), moves
        return views.contiguous(memory_format=torch.channels_last), context

    def objective(codes: Tensor, context: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> Terms:
        index, subjects, moves = context
        total, info = codes.sum() * 0, {}
        if criterion is not None:
            terms = criterion(codes, subjects.to(codes.device), generator=generator)
            total, info = total + terms.loss, dict(terms.info)
        if targets is not None:
            distilled = distillation.distillation(codes, *(part.to(codes.device) for part in targets.of(index)))
            total, info["distillation"] = total + distilled, float(distilled.detach())
        if hinted is not None:
            errors = hinted(rows[index], moves)
            total = total + HINT_WEIGHT * errors.sum()
            info |= {f"hint_{name}": float(one) for name, one in zip(hints, errors.detach(), strict=True)}
        return Terms(total, info)

    figures: dict[str, float] = {}

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        identity.save(averaged, out)  # type: ignore[arg-type]
        figures.update(held_out_figures(averaged, strangers, device=device))
        return figures

    with hinted.listening(tower) if hinted is not None else nullcontext():
        fit(
            tower.to(device),
            make_batch,
            objective,
            schedule=Schedule(steps, lr, warmup),
            extra=nn.ModuleList(part for part in (criterion, hinted) if part is not None),
            optimizer=optimizer,
            seed=seed,
            checkpoint=checkpoint,
            every=every,
            precision=precision,
            alarm=CollapseAlarm(),
            on_checkpoint=keep,
            on_progress=on_progress,
        )
    return Trained(str(out), steps, steps * batch, figures)


class _Targets:
    """The teacher's codes of the training crops, whole and along their first `length` principal directions."""

    def __init__(self, codes: np.ndarray, length: int) -> None:
        self.teacher = torch.from_numpy(codes)
        self.targets = distillation.cut(codes, distillation.principal_directions(codes, length))

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.targets[index], self.teacher[index]


def shuffled(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices of batch number `step` when every epoch is a new permutation of `count` samples."""
    per_epoch = max(1, count // batch)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.sort(order[place * batch : (place + 1) * batch])


@torch.no_grad()
def held_out_figures(net: nn.Module, strangers: Crops, *, device: str = "cpu", most: int = 1500) -> dict[str, float]:
    """How the net tells people apart that it never saw: TAR at FAR 1e-2 and 1e-3 over all pairs, at full resolution."""
    net.eval()
    images, subjects = strangers.images[:most], strangers.subjects[:most]
    codes = np.concatenate(
        [
            net(
                to_input(torch.from_numpy(images[i : i + 128])).contiguous(memory_format=torch.channels_last).to(device)
            )
            .float()
            .cpu()
            .numpy()
            for i in range(0, len(images), 128)
        ]
    )
    a, b = np.triu_indices(len(codes), 1)
    cosine = (codes @ codes.T)[a, b]
    mated = subjects[a] == subjects[b]
    threshold = np.quantile(cosine[~mated], [0.99, 0.999])
    return {
        f"held_out_tar@{far:g}": float((cosine[mated] > t).mean())
        for far, t in zip((1e-2, 1e-3), threshold, strict=True)
    }
