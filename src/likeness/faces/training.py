"""Training the detector: random canvases through the one training loop (torch)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption, at_least
from ..metric.loop import Batch, Schedule, check_fit, fit, seeded
from ..metric.losses import Terms
from ..metric.processes import Processes
from ..progress import Progress
from ..samples.files import writable
from . import net as nets
from .assignment import detection_loss
from .augment import Canvas, Pictures
from .decoding import MULTIPLE, priors
from .labels import held_out, read_labels

WARMUP = 0.03  # of all steps


def train_detector(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: tuple[str, ...] = (),
    steps: int = 20_000,
    batch: int = 16,
    size: int = 256,
    plain: float = 0.0,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    average: float = 0.998,
    optimizer: str = "muon",
    precision: str = "auto",
    seed: int = 0,
    init: str | os.PathLike[str] | None = None,
    widths: tuple[int, ...] = (16, 32, 48, 64, 64),
    blocks: tuple[int, ...] = (1, 1, 0),
    pyramid: int = 48,
    checkpoint: Path | None = None,
    every: int = 500,
    on_progress: Progress | None = None,
) -> Path:
    """Train a face detector on labelled photographs; returns `out`, safetensors (float16) of the averaged weights.

    Arguments:
        folder: where the photographs are; names in label files are relative to it.
        out: the detector's file.
        labels: label files (see `faces.labels`), default every *.json in the folder. Only their split "train" is
            used, and of it a tenth (chosen by name) is held out for choosing thresholds.
        steps: length of the cosine schedule.
        batch: pictures a step.
        size: side of a training picture in px, a multiple of 32.
        plain: share of the pictures that are crops in their own light: no mosaic, nothing pasted or covered. 0 teaches
            a new net most; a net that knows what a face is gains more from 0.8 and above.
        lr: the highest learning rate, after the first 3 % of the steps.
        weight_decay: of kernels.
        average: decay of the exponential moving average of the weights, which is what is written.
        optimizer: muon or adamw.
        precision: fp32, bf16, or auto for what a short probe finds faster.
        seed: of weights and pictures.
        init: a trained detector to start from; its architecture is kept.
        widths: channels at strides 2, 4, 8, 16, 32.
        blocks: residual blocks at strides 8, 16, 32.
        pyramid: channels of the feature pyramid.
        checkpoint: a folder; an interrupted run goes on from it and ends in the bytes of the uninterrupted one (same
            threads, same machine).
        every: steps between checkpoints; `out` is written then, too.
        on_progress: called after each step with (step, steps, {"loss", "score", "box", "landmarks", ...}).
    Raises InvalidOption; WeightsError where a checkpoint belongs to other options.
    """
    if size % MULTIPLE or size < MULTIPLE:
        raise InvalidOption(f"size is {size}; it must be a multiple of {MULTIPLE}")
    schedule = Schedule(steps, lr, max(1, round(WARMUP * steps)))
    check_fit(optimizer, precision, every, schedule, seed)
    at_least(1, batch=batch)
    if not 0 <= plain <= 1:
        raise InvalidOption(f"plain is {plain}; it must be a share from 0 to 1")
    out = writable(out)
    photos = [p for p in read_labels(folder, labels) if not held_out(p)]
    if not any(p.sure.any() for p in photos):
        raise InvalidOption(f"no photograph in {folder} has a labelled face to train on")
    net = _new_net(init, _architecture(widths, blocks, pyramid), seed)
    at = torch.from_numpy(priors(size, size))

    def objective(raw: Tensor, context: Any, generator: torch.Generator) -> Terms:
        mine, canvases = context
        shown = [canvases[int(i)] for i in mine]
        loss, parts = detection_loss(
            raw,
            at,
            [torch.from_numpy(c.boxes) for c in shown],
            [torch.from_numpy(c.landmarks) for c in shown],
            [torch.from_numpy(c.sure) for c in shown],
        )
        return Terms(loss, {name: float(part) for name, part in parts.items()})

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(averaged, nets.DetectorNet)
        nets.save(averaged, out)
        return {}

    described = {
        "batch": batch,
        "size": size,
        "plain": plain,
        "photos": len(photos),
        "architecture": repr(net.architecture),
    }
    with batches(Pictures(photos, size=size, plain=plain), seed, batch) as stream:
        fit(
            net,
            stream,
            objective,
            schedule=schedule,
            optimizer=optimizer,
            weight_decay=weight_decay,
            average=average,
            seed=seed,
            checkpoint=checkpoint,
            options=described | {"init": str(init)},
            every=every,
            precision=precision,
            on_checkpoint=keep,
            on_progress=on_progress,
        )
    return out


def _architecture(widths: tuple[int, ...], blocks: tuple[int, ...], pyramid: int) -> nets.DetectorArchitecture:
    if len(widths) != 5 or len(blocks) != 3 or min(*widths, pyramid) < 1 or min(blocks) < 0:
        raise InvalidOption(
            f"five widths and three counts of blocks are needed, not widths {widths}, blocks {blocks}, "
            f"pyramid {pyramid}"
        )
    return nets.DetectorArchitecture(
        (widths[0], widths[1], widths[2], widths[3], widths[4]), (blocks[0], blocks[1], blocks[2]), pyramid
    )


def _new_net(
    init: str | os.PathLike[str] | None, architecture: nets.DetectorArchitecture, seed: int
) -> nets.DetectorNet:
    if init is not None:
        return nets.load(init)
    with seeded(seed):
        return nets.DetectorNet(architecture)


@contextmanager
def batches(pictures: Pictures, seed: int, batch: int) -> Iterator[Batch]:
    """step -> pictures (batch, 3, size, size) in the net's units, with (their numbers, their canvases).

    The next step's are made ahead in a second thread. Of several processes each makes its share; others' stay black.
    """
    ahead: dict[int, Future[dict[int, Canvas]]] = {}
    mine = Processes.from_environment().share(torch.arange(batch)).tolist()

    def canvases(step: int) -> dict[int, Canvas]:
        return {i: pictures.canvas(np.random.default_rng([seed, step, i])) for i in mine}

    with ThreadPoolExecutor(1) as pool:

        def make(step: int, generator: torch.Generator) -> tuple[Tensor, Any]:
            ready = ahead.pop(step, None) or pool.submit(canvases, step)
            ahead[step + 1] = pool.submit(canvases, step + 1)
            made = ready.result()
            stacked = np.zeros((batch, pictures.size, pictures.size, 3), np.float32)
            for i, canvas in made.items():
                stacked[i] = (canvas.image - np.float32(nets.MEAN)) / np.float32(nets.SCALE)
            images = torch.from_numpy(stacked).permute(0, 3, 1, 2)  # channels last in memory
            return images, (torch.arange(batch), made)

        yield make
