"""Training the detector: one readable loop with exact resume (torch)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidOption, WeightsError
from ..nets import weights_file
from ..progress import Progress
from . import net as nets
from .assignment import detection_loss
from .augment import Canvas, Pictures
from .decoding import MULTIPLE, priors
from .labels import held_out, read_labels

CHECKPOINT_KIND = "likeness.detector-checkpoint"


def train_detector(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: tuple[str, ...] = (),
    steps: int = 20_000,
    minutes: float | None = None,
    batch: int = 16,
    size: int = 256,
    learning_rate: float = 1.5e-3,
    weight_decay: float = 0.05,
    average: float = 0.998,
    seed: int = 0,
    init: str | os.PathLike[str] | None = None,
    widths: tuple[int, ...] = (16, 32, 48, 64, 64),
    blocks: tuple[int, ...] = (1, 1, 0),
    pyramid: int = 48,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 500,
    on_progress: Progress | None = None,
) -> Path:
    """Train a face detector on labelled photographs; returns `out`, safetensors (float16) of the averaged weights.

    Arguments:
        folder: where the photographs are; names in label files are relative to it.
        out: the detector's file.
        labels: label files (see `faces.labels`), default every *.json in the folder. Only their split "train" is
            used, and of it a tenth (chosen by name) is held out for choosing thresholds.
        steps: length of the cosine schedule.
        minutes: stop (and save) after so many, to be continued by the same call.
        batch: pictures a step.
        size: side of a training picture in px, a multiple of 32.
        learning_rate: the highest, of AdamW, after the first 3 % of the steps.
        weight_decay: of kernels.
        average: decay of the exponential moving average of the weights, which is what is written.
        seed: of weights and pictures.
        init: a trained detector to start from; its architecture is kept.
        widths: channels at strides 2, 4, 8, 16, 32.
        blocks: residual blocks at strides 8, 16, 32.
        pyramid: channels of the feature pyramid.
        checkpoint: where the state is kept, default beside `out` with the ending .checkpoint; the same call continues
            there and gives the bytes of the uninterrupted run (same threads, same machine).
        checkpoint_every: steps between checkpoints; `out` is written then, too.
        on_progress: called after each step with (step, steps, {"loss", "score", "box", "landmarks", "learning_rate",
            "images_per_second"}).
    Raises InvalidOption; WeightsError where a checkpoint belongs to other options.
    """
    if size % MULTIPLE or size < MULTIPLE:
        raise InvalidOption(f"size is {size}; it must be a multiple of {MULTIPLE}")
    if steps < 1 or batch < 1:
        raise InvalidOption(f"steps ({steps}) and batch ({batch}) must be at least 1")
    out = Path(out)
    kept = Path(checkpoint) if checkpoint is not None else out.with_suffix(".checkpoint")
    photos = [p for p in read_labels(folder, labels) if not held_out(p)]
    if not any(p.sure.any() for p in photos):
        raise InvalidOption(f"no photograph in {folder} has a labelled face to train on")
    pictures = Pictures(photos, size=size)
    net = _new_net(init, _architecture(widths, blocks, pyramid), seed)
    options: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "size": size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "average": average,
    }
    options |= {"seed": seed, "photos": len(photos), "architecture": repr(net.architecture), "init": str(init)}
    state = _State(net, options)
    if kept.exists():
        state.load(kept)
    at = torch.from_numpy(priors(size, size))
    start, began, first = time.monotonic(), time.monotonic(), state.step
    with _batches(pictures, seed, batch, state.step, steps) as stream:
        for images, canvases in stream:
            rate = learning_rate * _schedule(state.step, steps)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
                group["weight_decay"] = weight_decay if group["decays"] else 0.0
            net.train()
            raw = net(images)
            loss, parts = detection_loss(
                raw,
                at,
                [torch.from_numpy(c.boxes) for c in canvases],
                [torch.from_numpy(c.landmarks) for c in canvases],
                [torch.from_numpy(c.sure) for c in canvases],
            )
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            state.optimizer.step()
            state.step += 1
            state.update_average(average)
            if on_progress:
                speed = batch * (state.step - first) / (time.monotonic() - began)
                info = {
                    "loss": float(loss.detach()),
                    **{k: float(v) for k, v in parts.items()},
                    "learning_rate": rate,
                    "images_per_second": speed,
                }
                on_progress(state.step, steps, info)
            over = minutes is not None and time.monotonic() - start > 60 * minutes
            if over or state.step == steps or state.step % checkpoint_every == 0:
                state.save(kept)
                nets.save(state.averaged, out)
            if over:
                break
    if not out.exists():
        nets.save(state.averaged, out)
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
        net = nets.load(init)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nets.DetectorNet(architecture)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over 3 % of the steps, then a cosine down to 1 %."""
    warm = max(1, round(0.03 * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@contextmanager
def _batches(
    pictures: Pictures, seed: int, batch: int, first: int, steps: int
) -> Iterator[Iterator[tuple[Tensor, list[Canvas]]]]:
    """Batches of the steps first…steps-1, made one ahead in a second thread."""

    def make(step: int) -> tuple[Tensor, list[Canvas]]:
        canvases = [pictures.canvas(np.random.default_rng([seed, step, i])) for i in range(batch)]
        stacked = np.stack([c.image for c in canvases]).astype(np.float32)
        images = torch.from_numpy((stacked - nets.MEAN) / nets.SCALE).permute(0, 3, 1, 2)  # channels last in memory
        return images, canvases

    with ThreadPoolExecutor(1) as pool:

        def stream() -> Iterator[tuple[Tensor, list[Canvas]]]:
            ahead = pool.submit(make, first)
            for step in range(first, steps):
                ready = ahead.result()
                if step + 1 < steps:
                    ahead = pool.submit(make, step + 1)
                yield ready

        yield stream()


class _State:
    """Net, averaged net, optimiser and step; to and from one safetensors file."""

    def __init__(self, net: nets.DetectorNet, options: dict[str, Any]) -> None:
        self.net, self.options, self.step = net, options, 0
        self.averaged = nets.DetectorNet(net.architecture).eval()
        self.averaged.load_state_dict(net.state_dict())
        kernels = [p for p in net.parameters() if p.ndim > 1]
        vectors = [p for p in net.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": kernels, "decays": True}, {"params": vectors, "decays": False}], lr=0.0
        )

    @torch.no_grad()
    def update_average(self, average: float) -> None:
        keep = min(average, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.averaged.state_dict().values(), self.net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()} | {
            f"average.{k}": v for k, v in self.averaged.state_dict().items()
        }
        for name, parameter in self.net.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def save(self, path: Path) -> None:
        metadata = {"kind": CHECKPOINT_KIND, "step": str(self.step), "options": json.dumps(self.options)}
        path.parent.mkdir(parents=True, exist_ok=True)
        weights_file.write(path, self._tensors(), metadata)

    def load(self, path: Path) -> None:
        tensors, metadata = weights_file.read(path)
        with weights_file.damaged(path):
            self._check(path, metadata)
            self._fill(tensors)
            self.step = int(metadata["step"])

    def _check(self, path: Path, metadata: dict[str, str]) -> None:
        theirs = weights_file.fields(metadata.get("options", "{}"))
        if metadata.get("kind") != CHECKPOINT_KIND or theirs != self.options:
            differing = sorted(k for k in {*theirs, *self.options} if theirs.get(k) != self.options.get(k))
            raise WeightsError(
                f"{path} belongs to a training with other options ({', '.join(differing)}); "
                "delete it or name another checkpoint"
            )

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for prefix, module in (("net.", self.net), ("average.", self.averaged)):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        for name, parameter in self.net.named_parameters():
            found = {
                key: tensors[f"optimizer.{name}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{name}.{key}" in tensors
            }
            if found:  # moments in the layout of their parameter, so that a resumed run adds in the same order
                self.optimizer.state[parameter] = {
                    k: v.clone() if k == "step" else torch.empty_like(parameter).copy_(v) for k, v in found.items()
                }
