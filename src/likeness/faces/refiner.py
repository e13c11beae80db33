"""The refiner's net and its training (torch): crops of faces and of what only looks like one."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from ..nets.layers import batch_norm, conv
from ..samples.images import read_image
from . import decoding
from .labels import Photo, held_out, read_labels
from .net import steady
from .refining import CONTEXT, MEAN, NUMBERS, SCALE, SIDE, cut, squares

KIND = "likeness.face-refiner"
WIDTHS = (12, 24, 40, 40, 40)
_PATCH = 96  # px: crops are kept this large, so that they can be turned and shifted
_WIDER = 1.5  # side of a kept crop in sides of the refiner's square


class RefinerNet(nn.Module):
    """Crops (b, 3, 64, 64), values (pixel - 127.5)/127.5 RGB -> raw numbers (b, 15); see `refining.decode`."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTHS
        layers: list[nn.Module] = []
        for i, o, stride in ((3, w[0], 2), (w[0], w[1], 2), (w[1], w[2], 2), (w[2], w[3], 1), (w[3], w[4], 2)):
            norm = batch_norm(2, o)
            layers += [conv(2, i, o, 3, stride=stride, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(w[4] * (SIDE // 16) ** 2, NUMBERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


@dataclass
class Crops:
    """patches (n, 96, 96, 3) uint8; targets (n, 14) of the unshifted square, NaN where unknown; face (n,) 1 or 0."""

    patches: np.ndarray
    targets: np.ndarray
    face: np.ndarray


def collect(photos: list[Photo], *, detector: Any = None, negatives: int = 6, seed: int = 0) -> Crops:
    """Crops of all sure faces of the photographs, of `negatives` random places in each, and of everything that
    `detector`
    (a `faces.detection.Detector`) wrongly takes for a face in photographs without one."""
    rng = np.random.default_rng(seed)
    patches, targets, face = [], [], []
    for photo in photos:
        image = read_image(photo.path)
        picture = Image.fromarray(image)
        sure = photo.sure
        # A face that fills the picture leaves no room for anything else to be mistaken for one.
        room = not len(photo.boxes) or photo.boxes[:, 2:].max() < 0.5 * min(image.shape[:2])
        background = _background(rng, photo, image.shape, negatives * room)
        if detector is not None and room:
            _, boxes, _ = detector.propose(image, min_score=0.15, min_size=12.0)
            if len(photo.boxes):
                boxes = boxes[decoding.iou(boxes, photo.boxes).max(1) < 0.2]
            background = np.concatenate([background, boxes[:20]])
        for boxes, landmarks, label in (
            (photo.boxes[sure], photo.landmarks[sure], 1),
            (background, np.full((len(background), 5, 2), np.nan), 0),
        ):
            if not len(boxes):
                continue
            at = squares(boxes.astype(np.float64))
            wide = at * [1, 1, _WIDER]
            patches += [cut(picture, square, side=_PATCH) for square in wide]
            extent = at[:, 2:3]
            box = np.concatenate(
                [(boxes[:, :2] + boxes[:, 2:] / 2 - at[:, :2]) / extent, boxes[:, 2:] / extent], axis=1
            )
            points = (landmarks - at[:, None, :2]) / extent[:, None]
            targets.append(np.concatenate([box, points.reshape(-1, 10)], axis=1))
            face.append(np.full(len(boxes), label, np.float32))
    return Crops(np.stack(patches), np.concatenate(targets).astype(np.float32), np.concatenate(face))


def _background(rng: np.random.Generator, photo: Photo, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Random squares of the photograph that show no face, not even a doubtful one, or only a corner of it."""
    size = np.exp(rng.uniform(math.log(8), math.log(0.8 * min(shape[:2])), count))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([shape[1], shape[0]]) - size[:, None])
    boxes = np.column_stack([corner, size, size * rng.uniform(1.0, 1.35, count)]).astype(np.float32)
    if len(photo.boxes):
        boxes = boxes[decoding.iou(boxes, photo.boxes).max(1) < 0.15]
    return boxes


def batch_of(crops: Crops, index: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crops turned, shifted, scaled, mirrored and relit at random: images (b, 3, 64, 64) and their targets (b, 14)."""
    n = len(index)
    images = torch.from_numpy(crops.patches[index]).permute(0, 3, 1, 2).float()
    targets = crops.targets[index]
    angle = np.radians(np.where(rng.random(n) < 0.3, rng.uniform(-30, 30, n), rng.normal(0, 8, n)))
    zoom = np.exp(rng.normal(0, 0.1, n)).clip(0.75, 1.3)
    shift = rng.normal(0, 0.045, (n, 2)).clip(-0.12, 0.12)
    flip = rng.random(n) < 0.5
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    turn = np.stack(
        [np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1
    )  # a point of the crop -> a point of the patch
    mirror = np.where(flip, -1.0, 1.0)
    theta = np.concatenate(
        [turn * np.stack([mirror, np.ones(n)], 1)[:, None] / _WIDER, 2 * shift[..., None] / _WIDER], axis=2
    )
    grid = F.affine_grid(torch.from_numpy(theta).float(), [n, 3, SIDE, SIDE], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inverse = np.linalg.inv(turn)
    centre = np.einsum("nij,nj->ni", inverse, targets[:, :2] - shift)
    points = np.einsum("nij,nkj->nki", inverse, targets[:, 4:].reshape(n, 5, 2) - shift[:, None])
    half = targets[:, 2:4] / 2 / zoom[:, None]
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    size = 2 * np.hypot(half * c, half[:, ::-1] * s)  # of the turned ellipse
    centre[:, 0] *= mirror
    points[..., 0] *= mirror[:, None]
    points[flip] = points[flip][:, [1, 0, 2, 4, 3]]
    made = np.concatenate([centre, np.log(size * CONTEXT), points.reshape(n, 10)], axis=1).astype(np.float32)
    return _relight(images, rng), torch.from_numpy(made)


def _relight(images: Tensor, rng: np.random.Generator) -> Tensor:
    n = len(images)

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).reshape(n, -1, 1, 1)

    x = (images / 255).clamp(1e-4, 1)
    x = x ** column(np.exp(rng.normal(0, 0.3, n)))
    x = (x - 0.5) * column(np.exp(rng.normal(0, 0.25, n))) + 0.5 + column(rng.normal(0, 0.1, n))
    x = (x * column(np.exp(rng.normal(0, 0.08, (n, 3))))).clamp(0, 1)
    grey = torch.from_numpy(rng.random(n) < 0.2)
    x[grey] = (
        (x[grey] * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    )
    low = torch.from_numpy(rng.random(n) < 0.2)
    if low.any():
        side = int(rng.integers(14, 40))
        x[low] = F.interpolate(F.interpolate(x[low], size=(side, side), mode="area"), size=x.shape[2:], mode="bilinear")
    noisy = torch.from_numpy(rng.random(n) < 0.15)
    noise = torch.from_numpy(rng.standard_normal((int(noisy.sum()), *x.shape[1:]), dtype=np.float32))
    x[noisy] = (x[noisy] + noise * float(rng.uniform(0.01, 0.06))).clamp(0, 1)
    covered = np.flatnonzero(rng.random(n) < 0.15)
    for i in covered:
        w, h = (int(v) for v in rng.integers(8, 26, 2))
        left, top = int(rng.integers(0, SIDE - w)), int(rng.integers(0, SIDE - h))
        x[i, :, top : top + h, left : left + w] = torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
    return (x * 255 - MEAN) / SCALE


def loss_of(raw: Tensor, targets: Tensor, face: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Score (BCE) + 5 box + 40 landmarks (both smooth L1 in sides of the square); what is unknown costs nothing."""
    score = F.binary_cross_entropy_with_logits(raw[:, 0], face)
    known = torch.isfinite(targets) & (face > 0)[:, None]
    error = torch.where(known, raw[:, 1:] - torch.where(known, targets, 0.0), 0.0)
    cost = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.01, reduction="none")
    box = cost[:, :4].sum() / known[:, :4].sum().clamp(min=1)
    points = cost[:, 4:].sum() / known[:, 4:].sum().clamp(min=1)
    mean = error[:, 4:].detach().abs().sum() / known[:, 4:].sum().clamp(min=1)
    return score + 5 * box + 40 * points, {
        "score": float(score.detach()),
        "box": float(box.detach()),
        "landmark_error": float(mean),
    }


def train_refiner(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: tuple[str, ...] = (),
    detector: str | None = None,
    steps: int = 6_000,
    batch: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.02,
    average: float = 0.998,
    seed: int = 0,
    init: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> Path:
    """Train the refiner on the photographs that `train_detector` trains on; returns `out`, safetensors (float16).

    Arguments:
        folder: where the photographs are.
        out: the refiner's file.
        labels: label files, default every *.json in the folder.
        detector: ONNX file of a detector whose false alarms on the training photographs become negatives.
        steps: length of the cosine schedule; a few minutes in all, so there are no checkpoints.
        batch: crops a step, half of them faces.
        learning_rate: the highest, of AdamW.
        weight_decay: of kernels.
        average: decay of the moving average of the weights.
        seed: of weights and crops.
        init: a refiner to start from.
        on_progress: called after each step.
    """
    photos = [p for p in read_labels(folder, labels) if not held_out(p)]
    finder = None
    if detector is not None:
        from .detection import Detector

        finder = Detector.from_file(detector)
    crops = collect(photos, detector=finder, seed=seed)
    faces, others = np.flatnonzero(crops.face == 1), np.flatnonzero(crops.face == 0)
    if not len(faces) or not len(others):
        raise InvalidOption(
            f"{folder} holds {len(faces)} labelled faces and {len(others)} places without one; both are needed"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = (load(init) if init is not None else RefinerNet()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = RefinerNet().eval()
    averaged.load_state_dict(net.state_dict())
    groups = [
        {"params": [p for p in net.parameters() if (p.ndim > 1) == kernels], "weight_decay": weight_decay * kernels}
        for kernels in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    began = time.monotonic()
    net.train()
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        index = np.concatenate([rng.choice(faces, batch - batch // 2), rng.choice(others, batch // 2)])
        images, targets = batch_of(crops, index, rng)
        loss, parts = loss_of(
            net(images.contiguous(memory_format=torch.channels_last)), targets, torch.from_numpy(crops.face[index])
        )
        warm = min(1.0, (step + 1) / max(1, 0.05 * steps))
        rate = learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            keep = min(average, (1 + step) / (10 + step))
            for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
                mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)
        if on_progress:
            speed = batch * (step + 1) / (time.monotonic() - began)
            on_progress(
                step + 1,
                steps,
                {"loss": float(loss.detach()), **parts, "learning_rate": rate, "crops_per_second": speed},
            )
    save(averaged, out)
    return Path(out)


def save(net: RefinerNet, path: str | os.PathLike[str]) -> None:
    """Write a refiner as safetensors: kernels float16, vectors float32."""
    from safetensors.torch import save as to_bytes

    from ..samples.files import atomic_write

    tensors = {
        k: (v.half() if v.ndim > 1 else v).contiguous()
        for k, v in net.state_dict().items()
        if not k.endswith("tracked")
    }
    atomic_write(Path(path), steady(to_bytes(tensors, {"kind": KIND, "widths": json.dumps(WIDTHS)})))


def load(path: str | os.PathLike[str]) -> RefinerNet:
    """Read a refiner, as float32, in eval mode. Raises WeightsError where the file is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            kind = (file.metadata() or {}).get("kind")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    net = RefinerNet()
    try:
        if kind != KIND:
            raise WeightsError(f"{path} is not a refiner of likeness (its metadata has no kind {KIND!r})")
        net.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the refiner's architecture: {error}") from error
    return net.eval()


def export(file: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> float:
    """Write the refiner `file` (safetensors) as ONNX with dynamic batch; returns the largest difference from torch."""
    from ..nets.export import export_onnx

    return export_onnx(load(file), onnx, example_shape=(1, 3, SIDE, SIDE), output_names=("raw",))
