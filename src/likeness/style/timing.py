"""How long a stylisation will take, from a short probe on this machine. (What it needs of memory: `style.estimate`.)"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..nets.perceptual import smallest, stride
from ..nets.tiles import halo
from .curvature import SETTLED
from .descent import Descent
from .estimate import Estimate, Job, crop_of, repeated, standing_in, tile_at
from .objective import Style, objective
from .stand_in import EVALUATIONS
from .tiling import value_and_gradient

STEPPED = 1 << 17  # positions of the sample with which a step is timed
FORWARD = 0.5  # of the time of forward and back: each layer is computed once each way


def seconds(job: Job, plan: Estimate, sizes: Sequence[tuple[int, ...]], steps: int, cost: dict[str, Any]) -> float:
    """How long the run takes if it takes all its steps: J and gradient of a small sample, and a step of the optimiser,
    are timed on this machine, and scaled by the number of positions and the overlap of tiles."""
    crop = crop_of(job.size, plan.tile, halo(job.net, job.layers))
    per, by_tiles, once = _time_per_position(job, cost, crop, plan.tile)
    step, at_first = _time_per_step(job, plan)
    samples = sum(map(math.prod, [job.size, *job.styles]))
    total = len(sizes) * once + at_first
    for size in sizes:
        total += steps * _evaluation(job, plan, size, per, by_tiles, step)
        total += math.prod(size) / math.prod(sizes[-1]) * per * FORWARD * samples  # targets
    if plan.warm_up and job.slim is not None:
        light = standing_in(job, job.slim)
        slim, by_tiles, once = _time_per_position(light, cost, crop, plan.tile)
        if job.optimizer != light.optimizer:
            step, _ = _time_per_step(light, plan)
        total += once + EVALUATIONS * _evaluation(light, plan, sizes[-1], slim, by_tiles, step)
        total += (per + 2 * slim) * FORWARD * samples  # maps by both nets, and targets
    return total + FORWARD * math.prod(sizes[-1]) * per  # J of what was made


def _evaluation(job: Job, plan: Estimate, size: tuple[int, ...], per: float, by_tiles: float, step: float) -> float:
    """Seconds of one evaluation and the step after it, with so many per position."""
    around = halo(job.net, job.layers)
    cut = tile_at(size, plan.tile, around, job.size)
    return math.prod(size) * ((by_tiles * repeated(size, cut, around) if cut else per) + step)


def _time_per_position(
    job: Job, cost: dict[str, Any], largest: Sequence[int], tile: int | None
) -> tuple[float, float, float]:
    """Seconds per position of J and its gradient, in one pass and (if there is a `tile`) in the two that a tile takes;
    and how much longer the first time takes, at a size not seen before. The sample is no larger than what the run
    computes at once, so that asking takes no more memory than running."""
    step = max(map(stride, job.layers))
    least = 2 * max(smallest(job.net.architecture, layer) for layer in job.layers)
    side = max(least, {1: 4096, 2: 64, 3: 16}[len(job.size)])
    while True:
        size = [min(n, side) for n in largest]
        x = torch.rand(1, job.net.architecture.in_channels, *size, generator=torch.Generator().manual_seed(0))
        J = objective(job.net, x, [Style(x)], **cost)
        x = (x + 0.1).clamp_(0, 1)
        evaluate = partial(value_and_gradient, J, x, low=job.low)
        first, took = (_typical(evaluate, turns) for turns in (1, 5))
        if took > 0.1 or side >= max(largest):
            break
        side *= 2
    n = math.prod(size)
    whole = step * math.ceil(max(size) / step)
    by_tiles = _typical(partial(evaluate, tile=whole), 5) if tile else took
    return took / n, by_tiles / n, max(0.0, first - took)


def _time_per_step(job: Job, plan: Estimate) -> tuple[float, float]:
    """Seconds per position of what the optimiser does between two evaluations, with all that it remembers; and what
    more the first step takes (torch's optimisers load its compiler)."""
    side = round(STEPPED ** (1 / len(job.size)))
    size = [min(n, side) for n in job.size]
    stretch = torch.logspace(0, 3, math.prod(size)).view(size)
    times = [time.perf_counter()]

    def bowl(x: Tensor) -> tuple[float, Tensor]:
        slope = stretch * (x - 0.5)
        return float((slope * (x - 0.5)).sum()), slope

    turns = max(plan.history, SETTLED) + 5 if job.optimizer == "lbfgs" else 5
    walk = Descent(torch.zeros(1, job.net.architecture.in_channels, *size), job.optimizer, plan.history, plan.compact)
    walk.run(bowl, turns, on_step=lambda _: times.append(time.perf_counter()))
    took = [after - before for before, after in itertools.pairwise(times)]
    typical = statistics.median(took[-4:])
    return typical / math.prod(size), max(0.0, took[0] - typical)


def _typical(work: Callable[[], object], turns: int) -> float:
    """The median: a run knows slow turns, too."""
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
