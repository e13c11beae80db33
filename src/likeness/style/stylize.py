"""From a content and a style to a sample that shows the one as the other is painted: coarse to fine, downhill in J."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidOption, StorageError, at_least
from ..nets import digest, weights_file
from ..nets.perceptual import Vgg
from ..nets.precision import bfloat16_is_faster
from ..nets.tiles import halo, release, values
from ..progress import Progress
from ..samples.files import check_writable
from . import estimate, timing
from .descent import Descent
from .estimate import Estimate, Job
from .machine import peak_memory
from .objective import Parts, Style, check_cost, cost_options, objective, plain
from .stand_in import warmed
from .tiling import within_range


@dataclass(frozen=True)
class Stylized:
    """What `stylize_sample` made.

    sample: (c, *spatial) float32, 0...1. J: the cost after each evaluation at the finest scale, in the precision of
    the run. parts: J of `sample` itself, clipped to 0...1, in float32. steps: evaluations at all scales (those of the
    warm-up apart). peak_memory_bytes: the process's highest resident size so far. settings: the options, those that
    were chosen by the run itself (tile, history, compact, precision, scales, warm_up) as it chose them.
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
        rest = {name: getattr(self, name) for name in ("seconds", "steps", "peak_memory_bytes", "settings")}
        J = [value if math.isfinite(value) else None for value in self.J]  # a step that failed
        return {"J": J, "parts": self.parts.to_dict(), **rest}


def stylize_sample(
    net: Vgg,
    content: Tensor,
    styles: Sequence[Style],
    *,
    steps: int = 75,
    init: str | Tensor = "content",
    optimizer: str = "lbfgs",
    scales: int | None = None,
    tolerance: float = 2e-3,
    tile: int | str | None = "auto",
    history: int | None = None,
    compact: bool | None = None,
    memory_limit: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    warm_up: Vgg | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 25,
    on_progress: Progress | None = None,
    **cost: Any,
) -> Stylized:
    """Stylise a sample (1, c, *spatial), values 0...1, of 1, 2 or 3 dimensions.

    net: measures content and style. content and the samples of styles may be uint8, 0...255: a quarter of the memory.
    styles: what it is to look like, see `Style`.
    steps: evaluations of J at each scale, at most.
    init: "content", "noise" or a sample of the content's shape to start from.
    optimizer: "lbfgs", "adam" or "gd" (`style.descent`).
    scales: the run begins at 1/2^(scales-1) of the size; None: as many as leave 96 positions along the shorter axis.
    tolerance: a scale ends early when 50 evaluations lowered J by less than this share.
    tile: positions per axis of a tile (exact, slower, in bounded memory); None: no tiles; "auto": none, or the largest
        that fits into the memory (`style.estimate`).
    history, compact: pairs that L-BFGS remembers, and whether they are kept in bfloat16 (and the best sample in
        float16); None: 10 in full, or what fits.
    memory_limit: bytes of resident size that the process should not exceed; None: what the machine can give.
    precision: "fp32", "bf16" or "auto" (what a short probe finds faster).
    seed: of the noise.
    warm_up: a slim net whose stand-in for `net` moves the start downhill first (`style.stand_in`), if that fits into
        the memory in which the run itself fits.
    checkpoint: a file; a run found there goes on and ends in the bytes of the uninterrupted one. At the end it holds
        the finished run, so that nothing is lost before the result is stored: delete it then.
    on_progress: called with (done, total, {"J", "scale", "sample"}) after each evaluation; "sample" is a function that
        gives the present sample. What it raises ends the run (cancel); the checkpoint stays.
    cost: options of `objective` that say what J is: content_weight, style_weight, style_layers and so on.

    Raises InvalidOption (also where it does not fit into the memory, with what would) and UnknownName as `objective`
    does; of the checkpoint StorageError where it cannot be written, WeightsError where it is damaged or no checkpoint,
    InvalidOption where it is that of another run.
    """
    began = time.monotonic()
    at_least(1, checkpoint_every=checkpoint_every)
    kept = None if checkpoint is None else Path(checkpoint)
    if kept is not None:
        check_writable(kept)  # before the work, not at the 25th step
    cost = cost_options(**cost)
    asked = _asked(
        cost,
        steps=steps,
        init=init,
        optimizer=optimizer,
        scales=scales,
        tolerance=tolerance,
        tile=tile,
        history=history,
        compact=compact,
        precision=precision,
        seed=seed,
        warm_up=warm_up is not None,
    )
    given = asked if kept is None else asked | _inputs(net, content, styles, init, warm_up)
    stored = _stored(kept, given)
    walk, done, chosen = stored.walk, stored.done, stored.chosen
    if not chosen:
        plan, job = _plan(net, content, styles, init, asked, cost, memory_limit, warm_up)
        chosen = {name: getattr(plan, name) for name in ("tile", "history", "compact", "scales", "warm_up")}
        chosen["precision"] = "bf16" if job.low else "fp32"
    sizes = _sizes(net, content, styles, cost, chosen["scales"])
    last, low = len(sizes) - 1, chosen["precision"] == "bf16"
    side: int | None = chosen["tile"]
    base = _base(content, init, seed)

    def walk_from(x: Tensor, by: str = optimizer) -> Descent:
        return Descent(x, by, chosen["history"], chosen["compact"])

    def warming(walk: Descent) -> None:
        if on_progress:
            on_progress(0, len(sizes) * steps, _told(walk, "warm-up"))

    def after(number: int, before: int, walk: Descent) -> None:
        """After each evaluation: store the walk now and then, and tell how far it is."""
        evaluations = len(walk.trace)
        if kept is not None and evaluations % checkpoint_every == 0:
            walk.save(kept, number=number, done=before, chosen=chosen, settings=given)
        if on_progress:
            on_progress(number * steps + evaluations, len(sizes) * steps, _told(walk, f"{number + 1}/{len(sizes)}"))

    with _out_of_memory(sizes[-1]):
        # A run at its finest scale needs no start.
        if warm_up is not None and chosen["warm_up"] and not (walk and stored.number == last):
            first = walk_from(_at(base, sizes[-1]), "lbfgs")
            base = content  # a start of floats is held by the walk alone
            base = warmed(warm_up, net, first, content, styles, tile=side, low=low, on_step=warming, **cost)
            del first
        for number in range(stored.number, len(sizes)):
            size = sizes[number]
            walk = walk or walk_from(_at(base, size))
            if number == last:
                base = content  # the start has served: its memory is needed
            release()  # what the scale before took
            J = objective(net, _resized(content, size), [_scaled(s, content, size) for s in styles], tile=side, **cost)
            release()
            cut = estimate.tile_at(size, side, halo(net, J.layers), sizes[-1])
            evaluate = partial(within_range, J, tile=cut, low=low)
            more = 0 if stored.finished else steps
            walk.run(evaluate, more, tolerance=tolerance, on_step=partial(after, number, done))
            if number < last:
                del J, evaluate  # before the next scale's
                done += len(walk.trace)
                walk = walk_from(_finer(walk.best.to(walk.x.dtype), base, size, sizes[number + 1]))
        assert walk is not None
        walk.state = {}  # it goes no further
        if kept is not None and not stored.finished:
            with suppress(StorageError):  # what was stored before leads to the same bytes
                walk.save(kept, number=last, done=done, chosen=chosen, settings=given, finished=True)
        trace, sample = tuple(walk.trace), walk.best.to(walk.x.dtype).clamp_(0, 1)
        del walk
        parts = J.parts(sample, tile=cut)
    seconds = time.monotonic() - began
    return Stylized(sample[0].numpy(), trace, parts, seconds, done + len(trace), peak_memory(), asked | chosen)


def _told(walk: Descent, scale: str) -> dict[str, Any]:
    """What `on_progress` hears of a walk."""
    return {"J": walk.best_J, "scale": scale, "sample": lambda: walk.best.float().clamp(0, 1)}


def estimate_sample(net: Vgg, content: Tensor, styles: Sequence[Style], **options: Any) -> Estimate:
    """What `stylize_sample` with the same arguments would choose and need: tile, memory, seconds. Raises as it does,
    but for what concerns the checkpoint.

    What the run does before its first evaluation is done here, too, and its time taken."""
    began = time.monotonic()
    bound = signature(stylize_sample).bind(net, content, styles, **options)
    bound.apply_defaults()
    given = bound.arguments
    cost = cost_options(**given["cost"])
    names = signature(_asked).parameters.keys() - {"cost"}
    asked = _asked(cost, **{name: given[name] for name in names} | {"warm_up": given["warm_up"] is not None})
    plan, job = _plan(net, content, styles, given["init"], asked, cost, given["memory_limit"], given["warm_up"])
    sizes = _sizes(net, content, styles, cost, plan.scales)
    planned = time.monotonic() - began
    return replace(plan, seconds=planned + timing.seconds(job, plan, sizes, asked["steps"], cost))


def _asked(
    cost: dict[str, Any],
    *,
    steps: int,
    init: str | Tensor,
    optimizer: str,
    scales: int | None,
    tolerance: float,
    tile: int | str | None,
    history: int | None,
    compact: bool | None,
    precision: str,
    seed: int,
    warm_up: bool,
) -> dict[str, Any]:
    """The options that say what a run does, plain: a run that goes on must have been given the same."""
    at_least(1, steps=steps, **({} if history is None else {"history": history}))
    if not 0 <= seed < 2**63:
        raise InvalidOption(f"seed is {seed}; it must be from 0 to below 2^63")
    if precision not in ("auto", "fp32", "bf16"):
        raise InvalidOption(f"precision is {precision!r}; it must be 'auto', 'fp32' or 'bf16'")
    settings = cost | {
        "steps": steps,
        "init": init if isinstance(init, str) else "a sample",
        "optimizer": optimizer,
        "scales": scales,
        "tolerance": tolerance,
        "tile": tile,
        "history": history,
        "compact": compact,
        "precision": precision,
        "seed": seed,
        "warm_up": warm_up,
    }
    return plain(settings)


def _plan(
    net: Vgg,
    content: Tensor,
    styles: Sequence[Style],
    init: str | Tensor,
    asked: dict[str, Any],
    cost: dict[str, Any],
    memory_limit: int | None,
    warm_up: Vgg | None,
) -> tuple[Estimate, Job]:
    """How to run with what is asked, and what was estimated. Raises what the run raises of its arguments."""
    check_cost(net, content, styles, **cost)
    _check_init(content, init)
    job = Job(
        net,
        tuple(content.shape[2:]),
        tuple(tuple(style.sample.shape[2:]) for style in styles),
        asked["optimizer"],
        tuple(cost["content_layers"]),
        tuple(cost["style_layers"]),
        sum(style.region is not None for style in styles),
        cost["tv_weight"] > 0,
        low=asked["precision"] == "bf16" or (asked["precision"] == "auto" and bfloat16_is_faster()),
        slim=warm_up,
    )
    sizes = _sizes(net, content, styles, cost, asked["scales"])
    options = {name: asked[name] for name in ("tile", "history", "compact")}
    plan = estimate.fit(job, **options, memory_limit=memory_limit)
    return replace(plan, scales=len(sizes)), job


def _sizes(
    net: Vgg, content: Tensor, styles: Sequence[Style], cost: dict[str, Any], scales: int | None
) -> list[tuple[int, ...]]:
    """From coarse to fine."""
    layers = [*cost["content_layers"], *cost["style_layers"]]
    return estimate.ladder(net, content.shape[2:], [style.sample.shape[2:] for style in styles], layers, scales)


@contextmanager
def _out_of_memory(size: tuple[int, ...]) -> Iterator[None]:
    """torch says that memory is lacking by a RuntimeError with a sentence of its own."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("(can't allocate|not enough|out of) memory", str(error)):
            raise
        shape = " x ".join(map(str, size))
        raise InvalidOption(
            f"the memory was used up while {shape} positions were stylised; choose a smaller size or tile"
        ) from error


@dataclass(frozen=True)
class _Stored:
    """What a checkpoint holds: the walk to go on with, its scale's number, the evaluations before it, what its run
    chose for itself, and whether the run is finished."""

    walk: Descent | None = None
    number: int = 0
    done: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def _stored(path: Path | None, given: dict[str, Any]) -> _Stored:
    if path is None or not path.exists():
        return _Stored()
    walk, more = Descent.load(path)
    with weights_file.damaged(path):
        theirs = more["settings"]
        found = _Stored(walk, more["number"], more["done"], more["chosen"], more.get("finished", False))
        differing = sorted(name for name in {*theirs, *given} if theirs.get(name) != given.get(name))
    if differing:
        raise InvalidOption(f"{path} belongs to a run with other settings ({', '.join(differing)}); name another file")
    return found


def _inputs(
    net: Vgg, content: Tensor, styles: Sequence[Style], init: str | Tensor, warm_up: Vgg | None
) -> dict[str, Any]:
    """What a run is made from, by its hash: a run that goes on must have been given the same."""
    nets = {"encoder": net} | ({} if warm_up is None else {"warm-up encoder": warm_up})
    return {
        "size": list(content.shape[2:]),
        "content": digest.of_tensor(content),
        "styles": [digest.of_tensor(style.sample) for style in styles],
        "blend": [float(style.weight) for style in styles],
        "masks": [
            [one if one is None else digest.of_tensor(one) for one in (style.region, style.mask)] for style in styles
        ],
        "init": init if isinstance(init, str) else digest.of_tensor(init),
        **{name: digest.of_net(one) for name, one in nets.items()},
    }


def _check_init(content: Tensor, init: str | Tensor) -> None:
    if isinstance(init, str):
        if init not in ("content", "noise"):
            raise InvalidOption(f"init is {init!r}; it must be 'content', 'noise' or a sample")
    elif init.shape != content.shape:
        raise InvalidOption(f"init has shape {tuple(init.shape)}, the content {tuple(content.shape)}")


def _base(content: Tensor, init: str | Tensor, seed: int) -> Tensor:
    """Where the run starts, at full size."""
    if isinstance(init, Tensor):
        return init
    if init == "content":
        return content
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.5 + 0.1 * noise).to(content.dtype if content.is_floating_point() else torch.float32)


def _finer(best: Tensor, base: Tensor, size: tuple[int, ...], finer: tuple[int, ...]) -> Tensor:
    """Where the walk at the next scale starts: what the coarse run changed is added to the start, whose own detail
    stays."""
    return _resized(best - _at(base, size), finer).add_(_at(base, finer))


def _scaled(style: Style, content: Tensor, size: tuple[int, ...]) -> Style:
    """A style at the scale at which the content is `size`: strokes keep their size relative to the picture."""
    ratio = size[0] / content.shape[2]
    theirs = tuple(max(1, round(n * ratio)) for n in style.sample.shape[2:])

    def mask(one: Tensor | None, to: tuple[int, ...]) -> Tensor | None:
        return None if one is None else _resized(one[None, None], to)[0, 0]

    return Style(_resized(style.sample, theirs), style.weight, mask(style.region, size), mask(style.mask, theirs))


def _at(base: Tensor, size: Sequence[int]) -> Tensor:
    """The start at another size, as floats."""
    return values(_resized(base, size))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (1, c, *spatial) at another size: means over pixels when it shrinks, linear between them when it grows."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    x = values(x)
    dims = x.ndim - 2
    if size[0] < x.shape[2]:
        pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]
        return pool(x, list(size))
    return F.interpolate(x, size=list(size), mode=("linear", "bilinear", "trilinear")[dims - 1], align_corners=False)
