"""What may happen to a face between two photographs: pose of the crop, light, sharpness, something in front of it. To a
thing: where in the picture it stands and how large, its light, something in front of it.

Everything is done on whole batches in torch, so that it costs a few per cent of a training step, and every draw
comes from the generator that is passed in: the same generator state gives the same bytes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def to_input(images: Tensor, *, size: int | None = None) -> Tensor:
    """(b, h, w, 3) uint8 -> (b, 3, size, size) float32 in -1...1, shrunk with antialiasing; no augmentation."""
    x = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if size is not None and size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x


def augment(images: Tensor, *, generator: torch.Generator, size: int = 112, moves: Tensor | None = None) -> Tensor:
    """Augmented views (b, 3, size, size) float32, about -1...1, of crops (b, h, w, 3) uint8 RGB.

    moves: (b, 2, 3) as `draw_moves` gives them, where they must be known (something else has to move alike).
    """
    x = to_input(images, size=size)
    x = move(x, draw_moves(len(x), generator) if moves is None else moves)
    x = _lower_resolution(x, generator)
    x = _light(x, generator)
    return _erase(x, generator).clamp_(-1, 1)


def augment_things(images: Tensor, *, generator: torch.Generator, size: int) -> Tensor:
    """Augmented views (b, 3, size, size) float32, -1...1, of pictures of things (b, h, w, 3) uint8 RGB: a part of the
    picture (`draw_parts`), half of them mirrored, in another light, some of it covered."""
    x = move(to_input(images), draw_parts(len(images), generator), size=size)
    x = _light(x, generator)
    return _erase(x, generator).clamp_(-1, 1)


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def draw_moves(n: int, generator: torch.Generator) -> Tensor:
    """Affine maps (n, 2, 3) from places in the view to places in the crop, both -1...1: half of them mirror; all
    rotate by up to 8 degrees, scale by up to 8 %, shift by up to 4 % of the side."""
    angle = _uniform(generator, n, -8, 8) * (math.pi / 180)
    scale = _uniform(generator, n, 0.92, 1.08)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    moves = torch.empty(n, 2, 3)
    moves[:, 0, 0], moves[:, 0, 1] = mirror * scale * angle.cos(), -scale * angle.sin()
    moves[:, 1, 0], moves[:, 1, 1] = mirror * scale * angle.sin(), scale * angle.cos()
    moves[:, 0, 2], moves[:, 1, 2] = _uniform(generator, n, -0.08, 0.08), _uniform(generator, n, -0.08, 0.08)
    return moves


def draw_parts(n: int, generator: torch.Generator) -> Tensor:
    """Affine maps (n, 2, 3) from places in the view to places in the picture, both -1...1: a part of a quarter to all
    of its area and of 3:4 to 4:3, as far as that fits, anywhere in it; half of them mirror (Szegedy 2015, sec. 6)."""
    area, aspect = _uniform(generator, n, 0.25, 1), torch.exp(_uniform(generator, n, -1, 1) * math.log(4 / 3))
    width, height = ((area * ratio).sqrt().clamp_max(1) for ratio in (aspect, 1 / aspect))
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    moves = torch.zeros(n, 2, 3)
    moves[:, 0, 0], moves[:, 1, 1] = mirror * width, height
    moves[:, 0, 2] = (1 - width) * _uniform(generator, n, -1, 1)
    moves[:, 1, 2] = (1 - height) * _uniform(generator, n, -1, 1)
    return moves


def move(x: Tensor, moves: Tensor, *, size: int | None = None) -> Tensor:
    """The views of `size` positions per axis, by default as many as the pictures have."""
    shape = list(x.shape) if size is None else [*x.shape[:2], size, size]
    grid = F.affine_grid(moves.to(x.device), shape, align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _lower_resolution(x: Tensor, generator: torch.Generator, share: float = 0.2) -> Tensor:
    """Shrink and enlarge again: faces seen from afar, with 20 % to 60 % of the pixels per axis (22...67 of 112)."""
    n, size = len(x), x.shape[-1]
    order = torch.randperm(n, generator=generator)
    for part in order[: int(share * n)].chunk(4):
        small = max(8, round(float(_uniform(generator, 1, 0.20, 0.60)) * size))
        low = F.interpolate(x[part], size=(small, small), mode="bilinear", antialias=True)
        x[part] = F.interpolate(low, size=(size, size), mode="bicubic")
    return x


def _light(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, contrast, brightness, colour of the light, grey for one in eight, sensor noise for one in six."""
    n = len(x)

    def per_sample(low: float, high: float, channels: int = 1) -> Tensor:
        return _uniform(generator, n * channels, low, high).view(n, channels, 1, 1).to(x.device)

    x = ((x + 1) / 2).clamp_(1e-3, 1) ** torch.exp(per_sample(-0.35, 0.35)) * 2 - 1
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * per_sample(0.7, 1.3) + mean + per_sample(-0.25, 0.25)
    x = (x + 1) * per_sample(0.92, 1.08, channels=3) - 1
    grey = (per_sample(0, 1) < 0.125).float()
    x = x + grey * (x.mean(1, keepdim=True) - x)
    for i in torch.randperm(n, generator=generator)[: n // 6].tolist():
        x[i] += float(_uniform(generator, 1, 0, 0.1)) * torch.randn(x.shape[1:], generator=generator).to(x.device)
    return x


def _erase(x: Tensor, generator: torch.Generator, share: float = 0.2) -> Tensor:
    """Cover a rectangle of 5 % to 30 % of the crop with one colour: a hand, a mask, dark glasses."""
    n, size = len(x), x.shape[-1]
    for i in torch.randperm(n, generator=generator)[: int(share * n)].tolist():
        area, aspect = float(_uniform(generator, 1, 0.05, 0.30)), float(torch.exp(_uniform(generator, 1, -0.9, 0.9)))
        h, w = min(size, round(size * math.sqrt(area * aspect))), min(size, round(size * math.sqrt(area / aspect)))
        top, left = (int(torch.randint(size - side + 1, (1,), generator=generator)) for side in (h, w))
        x[i, :, top : top + h, left : left + w] = _uniform(generator, 3, -1, 1).view(3, 1, 1).to(x.device)
    return x
