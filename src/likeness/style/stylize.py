"""From a content and a style to a sample that shows the one as the other is painted: coarse to fine, downhill in J."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidOption
from ..nets.perceptual import Vgg, smallest
from ..nets.precision import bfloat16_is_faster
from .descent import Descent
from .objective import Objective, Parts, Style, cost_options, objective
from .tiling import value_and_gradient

COARSEST = 96  # positions along the shorter axis from which on a coarser scale is worth its while

Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True)
class Stylized:
    """What `stylize_sample` made.

    sample: (c, *spatial) float32, 0...1. J: the cost after each evaluation at the finest scale, in the precision of
    the run. parts: J of `sample` itself, clipped to 0...1, in float32. steps: evaluations at all scales.
    peak_memory_bytes: the process's highest resident size so far.
    """

    sample: np.ndarray
    J: tuple[float, ...]
    parts: Parts
    seconds: float
    steps: int
    peak_memory_bytes: int
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All but the sample, for JSON."""
        plain = asdict(self)
        plain.pop("sample")
        return {**plain, "J": list(self.J)}


def stylize_sample(
    net: Vgg,
    content: Tensor,
    styles: Sequence[Style],
    *,
    steps: int = 300,
    init: str | Tensor = "content",
    optimizer: str = "lbfgs",
    scales: int | None = None,
    tolerance: float = 2e-3,
    tile: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 25,
    on_progress: Progress | None = None,
    **cost: Any,
) -> Stylized:
    """Stylise a sample (1, c, *spatial), values 0...1, of 1, 2 or 3 dimensions.

    net: measures content and style. styles: what it is to look like, see `Style`.
    steps: evaluations of J at each scale, at most.
    init: "content", "noise" or a sample of the content's shape to start from.
    optimizer: "lbfgs", "adam" or "gd" (`style.descent`).
    scales: the run begins at 1/2^(scales-1) of the size; None: as many as leave 96 positions along the shorter axis.
    tolerance: a scale ends early when 50 evaluations lowered J by less than this share.
    tile: positions per axis of a tile (exact, slower, in bounded memory); None: no tiles.
    precision: "fp32", "bf16" or "auto" (what a short probe finds faster).
    seed: of the noise.
    checkpoint: a file; a run found there goes on and ends in the bytes of the uninterrupted one. Deleted at the end.
    on_progress: called with (done, total, {"J", "scale", "sample"}) after each evaluation; "sample" is a function that
        gives the present sample. What it raises ends the run (cancel); the checkpoint stays.
    cost: options of `objective` that say what J is: content_weight, style_weight, style_layers and so on.

    Raises InvalidOption, UnknownName as `objective` does.
    """
    if steps < 1:
        raise InvalidOption(f"steps is {steps}; it must be at least 1")
    if precision not in ("auto", "fp32", "bf16"):
        raise InvalidOption(f"precision is {precision!r}; it must be 'auto', 'fp32' or 'bf16'")
    began = time.monotonic()
    cost = cost_options(**cost)
    ladder = _ladder(net, content, styles, [*cost["content_layers"], *cost["style_layers"]], scales)
    settings = cost | {
        "tile": tile,
        "steps": steps,
        "optimizer": optimizer,
        "scales": len(ladder),
        "tolerance": tolerance,
    }
    settings |= {"init": init if isinstance(init, str) else "a sample", "seed": seed}
    base = _base(content, init, seed)
    walk, number, done, low = _stored(checkpoint, settings)
    if low is None:
        low = precision == "bf16" or (precision == "auto" and bfloat16_is_faster())
    while True:
        size = ladder[number]
        J = objective(net, _resized(content, size), [_scaled(one, content, size) for one in styles], tile=tile, **cost)
        if walk is None:
            walk = Descent(_resized(base, size), optimizer)

        def after(walk: Descent, number: int = number, done: int = done) -> None:
            """After each evaluation: store the walk now and then, and tell how far it is."""
            evaluations = len(walk.trace)
            if checkpoint is not None and evaluations % checkpoint_every == 0:
                walk.save(checkpoint, number=number, done=done, low=low, settings=settings)
            if on_progress:
                info = {
                    "J": walk.best_J,
                    "scale": f"{number + 1}/{len(ladder)}",
                    "sample": lambda: walk.best.clamp(0, 1),
                }
                on_progress(number * steps + evaluations, len(ladder) * steps, info)

        def evaluate(x: Tensor, J: Objective = J) -> tuple[float, Tensor]:
            return _within_range(J, x, tile=tile, low=low)

        walk.run(evaluate, steps, tolerance=tolerance, on_step=after)
        done += len(walk.trace)
        number += 1
        if number == len(ladder):
            break
        # What the coarse run changed is added to the fine start: the start's own detail stays.
        change = _resized(walk.best - _resized(base, size), ladder[number])
        walk = Descent(_resized(base, ladder[number]) + change, optimizer)
    sample = walk.best.clamp(0, 1)
    parts = J.parts(sample, tile=tile)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    return Stylized(sample[0].numpy(), tuple(walk.trace), parts, seconds, done, peak_memory(), settings)


def _within_range(J: Objective, x: Tensor, *, tile: int | None, low: bool) -> tuple[float, Tensor]:
    """J and gradient of the sample that x stands for: x clipped to 0...1, which is what can be shown. Where x lies
    outside, the gradient counts only if it leads back in."""
    value, gradient = value_and_gradient(J, x.clamp(0, 1), tile=tile, low=low)
    outward = ((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0))
    return value, gradient.masked_fill(outward, 0.0)


def _stored(path: Path | None, settings: dict[str, Any]) -> tuple[Descent | None, int, int, bool | None]:
    """The walk to go on with, its scale's number, the evaluations before it, and whether it runs in bfloat16."""
    if path is None or not path.exists():
        return None, 0, 0, None
    walk, more = Descent.load(path)
    theirs = more["settings"]
    differing = sorted(name for name in {*theirs, *settings} if theirs.get(name) != settings.get(name))
    if differing:
        raise InvalidOption(f"{path} belongs to a run with other settings ({', '.join(differing)}); name another file")
    return walk, more["number"], more["done"], more["low"]


def _ladder(
    net: Vgg, content: Tensor, styles: Sequence[Style], layers: Sequence[str], scales: int | None
) -> list[tuple[int, ...]]:
    """Spatial sizes from coarse to fine; none so small that the net cannot take the content or a style."""
    full = tuple(content.shape[2:])
    shortest = min([min(full), *(min(style.sample.shape[2:]) for style in styles)])
    least = max(smallest(net.architecture, layer) for layer in layers)
    if scales is None:
        scales = max(1, 1 + int(math.log2(max(1, shortest / max(COARSEST, least)))))
    if scales < 1 or (scales > 1 and shortest // 2 ** (scales - 1) < least):
        raise InvalidOption(
            f"scales is {scales}; with {shortest} positions these layers allow at most "
            f"{max(1, 1 + int(math.log2(max(1, shortest / least))))}"
        )
    return [tuple(max(1, round(n / 2**i)) for n in full) for i in reversed(range(scales))]


def _base(content: Tensor, init: str | Tensor, seed: int) -> Tensor:
    if isinstance(init, Tensor):
        if init.shape != content.shape:
            raise InvalidOption(f"init has shape {tuple(init.shape)}, the content {tuple(content.shape)}")
        return init
    if init == "content":
        return content
    if init == "noise":
        noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (0.5 + 0.1 * noise).to(content.dtype)
    raise InvalidOption(f"init is {init!r}; it must be 'content', 'noise' or a sample")


def _scaled(style: Style, content: Tensor, size: tuple[int, ...]) -> Style:
    """A style at the scale at which the content is `size`: strokes keep their size relative to the picture."""
    ratio = size[0] / content.shape[2]
    theirs = tuple(max(1, round(n * ratio)) for n in style.sample.shape[2:])

    def mask(one: Tensor | None, to: tuple[int, ...]) -> Tensor | None:
        return None if one is None else _resized(one[None, None], to)[0, 0]

    return Style(_resized(style.sample, theirs), style.weight, mask(style.region, size), mask(style.mask, theirs))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (1, c, *spatial) at another size: means over pixels when it shrinks, linear between them when it grows."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    dims = x.ndim - 2
    if size[0] < x.shape[2]:
        pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]
        return pool(x, list(size))
    return F.interpolate(x, size=list(size), mode=("linear", "bilinear", "trilinear")[dims - 1], align_corners=False)


def peak_memory() -> int:
    """The process's highest resident size so far, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
