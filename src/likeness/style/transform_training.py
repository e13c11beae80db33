"""`likeness train style`: a net that paints anything as one style, in one pass (Johnson 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption
from ..metric.loop import Schedule, fit, seeded
from ..metric.losses import Terms
from ..nets import digest
from ..nets.activations import activations
from ..nets.tiles import within
from ..progress import Progress
from ..samples.files import writable
from ..samples.images import read_image
from .objective import Objective, Style, cost_options, objective
from .pictures import open_encoder, to_sample
from .training import as_samples, of_pictures, practice, random_crop
from .transform import Architecture, Transform, save

GROUP = 4  # one sample of so many is painted twice, undisturbed and disturbed
SHIFT, NOISE = 2.0, 0.02  # how far (pixels) and how much (deviation of values 0...1) a disturbance goes


@dataclass(frozen=True)
class TrainedStyle:
    """Where the net is, and means over held-out pictures: J as a share of the J of the unpainted pictures, its parts,
    and the root mean squared difference that a disturbance of the input (noise of 0.02, a shift of up to 2 pixels)
    makes in the painted picture beyond its own shift."""

    out: str
    steps: int
    J: float
    content: float
    style: float
    unrest: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_style(
    style: Path,
    pictures: Sequence[Path],
    *,
    out: Path,
    encoder: str = "vgg-slim",
    style_size: int = 384,
    content_weight: float = 1.0,
    style_weight: float = 1e4,
    tv_weight: float = 0.0,
    stability_weight: float = 20.0,
    steps: int = 300,
    batch: int = 4,
    size: int = 160,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 4,
    lr: float = 3e-3,
    warmup: int = 20,
    every: int = 50,
    seed: int = 0,
    precision: str = "fp32",
    optimizer: str = "adamw",
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedStyle:
    """Train a net to paint pictures as `style` is painted; write it to `out`.

    What is minimised is the mean of J (`style.objective`) over crops of `pictures`, divided by the J of unpainted
    crops, plus stability_weight times the mean squared difference between what is painted of a crop and what is painted
    of the same crop shifted by parts of pixels and with noise, shifted back: without it, films flicker.

    style: the picture whose style is wanted.
    pictures: folders or zips of pictures to practise on; every 20th is held out.
    out: the safetensors file to write.
    encoder: the net that measures content and style, a name of the catalogue or a file.
    style_size: longer side at which the style is seen, in pixels: smaller makes finer strokes.
    content_weight: alpha of J.
    style_weight: beta of J.
    tv_weight: gamma of J.
    stability_weight: how much rest counts.
    steps: optimiser steps in all.
    batch: crops per step, up to 4 or a multiple of 4.
    size: side of a crop in pixels.
    widths: the net's channels at full, half and quarter size.
    blocks: the net's residual blocks.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    every: steps between checkpoints and looks at the held-out pictures.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a short probe finds faster.
    optimizer: adamw or muon.
    checkpoint: a folder; an interrupted run goes on from it.

    Raises UnreadableFile for pictures and WeightsError for an encoder that cannot be read, InvalidOption for options
    that cannot be and for a checkpoint of another run, StorageError where `out` cannot be written.
    """
    group = min(batch, GROUP)
    if batch < 1 or batch % group:
        raise InvalidOption(f"batch is {batch}; it must be 1, 2, 3 or a multiple of {GROUP}")
    if not stability_weight >= 0:
        raise InvalidOption(f"stability_weight is {stability_weight}; it must be at least 0")
    out = writable(out)
    train, unseen = practice(pictures, size, on_progress)
    cost = cost_options(content_weight=content_weight, style_weight=style_weight, tv_weight=tv_weight)
    painting = to_sample(read_image(style), style_size)
    blank = torch.zeros(1, 3, size, size)
    J = objective(open_encoder(encoder), blank, [Style(painting)], **cost)
    with seeded(seed):
        net = Transform(Architecture(widths=tuple(widths), blocks=blocks))

    def make_batch(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Groups of crops, behind each a disturbed copy of its first one; the contents to keep and the shifts."""
        x = as_samples([random_crop(train, size, generator) for _ in range(batch)])
        contents = tuple(_contents(J, x).values())
        x, shifts = with_disturbed(x, group, generator) if stability_weight else (x, torch.zeros(batch, 2))
        return x, (shifts, *contents)

    def loss(painted: Tensor, context: tuple[Tensor, ...], _: torch.Generator) -> Terms:
        shifts, *contents = context
        plain = undisturbed(painted, group) if stability_weight else painted
        parts = J.of_batch(plain, dict(zip(J.content, contents, strict=True)))
        info = {name: float(part.detach()) for name, part in zip(("content", "style", "tv"), parts, strict=True)}
        total = torch.stack(parts).sum() / unpainted
        if stability_weight:
            moved = unrest(painted, shifts, group)
            total = total + stability_weight * moved
            info["unrest"] = float(moved.detach().sqrt())
        return Terms(total, info)

    decides = cost | {"stability_weight": stability_weight, "size": size, "batch": batch}
    decides |= {"encoder": digest.of_net(J.net), "style": digest.of_tensor(painting), "pictures": of_pictures(train)}
    held = torch.Generator().manual_seed(seed)
    tests = as_samples([random_crop(unseen, size, held, shrink=1.0) for _ in range(16 // group * group)])
    seen = _contents(J, tests)
    with torch.no_grad():
        unpainted = max(1e-12, float(torch.stack(J.of_batch(tests, seen)).sum()))
    disturbed, moves = with_disturbed(tests, group, held)
    figures: dict[str, float] = {}

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(averaged, Transform)
        with torch.no_grad():
            painted = averaged(disturbed)
            content, painterly, tv = J.of_batch(undisturbed(painted, group), seen)
            rest = float(unrest(painted, moves, group).sqrt())
        whole = float(content + painterly + tv) / unpainted
        figures.update(J=whole, content=float(content), style=float(painterly), unrest=rest)
        save(averaged, out)
        return {f"held_out_{name}": value for name, value in figures.items()}

    fit(
        net,
        make_batch,
        loss,
        schedule=Schedule(steps, lr, warmup),
        seed=seed,
        checkpoint=checkpoint,
        options=decides,
        every=every,
        precision=precision,
        optimizer=optimizer,
        weight_decay=0.0,
        on_checkpoint=keep,
        on_progress=on_progress,
    )
    return TrainedStyle(str(out), steps, **figures)


def with_disturbed(x: Tensor, group: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples (b, c, *spatial), behind each `group` of them its first one shifted and with noise: (b + b/group, ...),
    and the shifts (b/group, axes)."""
    shifts = (2 * torch.rand(len(x) // group, x.ndim - 2, generator=generator) - 1) * SHIFT
    parts = []
    for one, by in zip(x.split(group), shifts, strict=True):
        noise = NOISE * torch.randn(one[:1].shape, generator=generator)
        parts += [one, (shift(one[:1], by.tolist()) + noise).clamp(0, 1)]
    return torch.cat(parts), shifts


def undisturbed(x: Tensor, group: int) -> Tensor:
    """The samples of `with_disturbed` without the disturbed copies."""
    return x.unflatten(0, (-1, group + 1))[:, :group].flatten(0, 1)


def unrest(painted: Tensor, shifts: Tensor, group: int) -> Tensor:
    """Mean squared difference between what is painted of disturbed samples and what is painted of the undisturbed ones,
    shifted alike; a border that the shift has no values for does not count."""
    groups = painted.unflatten(0, (-1, group + 1))
    border = int(SHIFT) + 1
    inner = (slice(border, -border),) * (painted.ndim - 2)
    pairs = [
        within(shift(one[:1], by.tolist()) - one[group:], inner).square().mean()
        for one, by in zip(groups, shifts, strict=True)
    ]
    return torch.stack(pairs).mean()


def shift(x: Tensor, by: Sequence[float]) -> Tensor:
    """x (b, c, *spatial) moved by so many positions along each axis, linear between them; what comes in from outside is
    the border's value."""
    for axis, distance in enumerate(by, 2):
        whole = int(distance // 1)
        places = torch.arange(x.shape[axis]) - whole
        last = x.shape[axis] - 1
        near, far = (x.index_select(axis, (places - k).clamp(0, last)) for k in (0, 1))
        x = torch.lerp(near, far, distance - whole)
    return x


def _contents(J: Objective, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return activations(J.net, x, list(J.content))
