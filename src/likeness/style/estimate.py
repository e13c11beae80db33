"""What a stylisation will need, before it runs: memory from a count of what it keeps, and the tile and the optimiser's
history with which it fits. (Its time: `style.timing`.)

Counted per position (C channels of a convolution, s its stride): going forward, each convolution leaves what comes out
of its ReLU, each max pooling its output and where the maxima were (8 bytes); on the way back about 2.5 maps of the
first layer's size come and go. That makes 556 bytes a pixel for 16 channels at first, 2,080 for 64; measured: 554 to
644 and 1,891, and in bfloat16 346 (counted: 330) and 1,256 (1,176). Without gradients, no more than 4 maps of the first
layer exist at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from ..errors import InvalidOption
from ..nets.perceptual import Vgg, smallest, stride
from ..nets.tiles import check_tile, extent, halo, release
from . import machine
from .curvature import TRANSFORMED

COARSEST = 96  # positions along the shorter axis from which on a coarser scale is worth its while
HISTORY = 10  # L-BFGS pairs; more tell only in the last of many hundred evaluations
LEAST = 70_000_000  # bytes, measured: what the first convolutions and freed blocks that are kept cost at any size
COMPILER = 50_000_000  # bytes, measured: torch's optimisers load its compiler
SPARE = 1  # vectors, measured: what comes and goes beside those that are counted
SHARE = 0.9  # of what the machine can give: what is planned with
OF_LIMIT = 0.96  # of a limit that was given, likewise: the same run takes up to 3 % more one time than another
MOST_OVERLAP = 2.5  # tiles that are computed this many times over are only used when nothing else fits


@dataclass(frozen=True)
class Estimate:
    """How a stylisation is run, and what it takes.

    size: positions per axis. scales: from coarse to fine. tile: positions per axis, None for no tiles. history,
    compact: L-BFGS pairs, and whether they are kept in bfloat16. peak_memory_bytes: the process's resident size at its
    highest. memory_limit: what it must not exceed (None: unknown). seconds: if all steps are taken; None where only
    the memory was asked for. warm_up: whether a slim net stands in first: it is wanted, and fits.
    """

    size: tuple[int, ...]
    scales: int
    tile: int | None
    history: int
    compact: bool
    peak_memory_bytes: int
    memory_limit: int | None
    seconds: float | None = None
    warm_up: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """What is to be estimated. size, styles: positions per axis of the content and of each style. layers: content's and
    style's. regions: how many there are with a mask. low: convolutions in bfloat16. slim: the net that stands in
    first (`style.stand_in`), where one is wanted."""

    net: Vgg
    size: tuple[int, ...]
    styles: tuple[tuple[int, ...], ...]
    optimizer: str
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    regions: int = 0
    variation: bool = False
    low: bool = False
    slim: Vgg | None = None

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys([*self.content_layers, *self.style_layers]))


def ladder(
    net: Vgg, content: Sequence[int], styles: Sequence[Sequence[int]], layers: Sequence[str], scales: int | None
) -> list[tuple[int, ...]]:
    """Spatial sizes from coarse to fine; none so small that the net cannot take the content or a style."""
    shortest = min(min(content), *(min(style) for style in styles))
    least = max(smallest(net.architecture, layer) for layer in layers)
    if scales is None:
        scales = max(1, 1 + int(math.log2(max(1, shortest / max(COARSEST, least)))))
    if scales < 1 or (scales > 1 and shortest // 2 ** (scales - 1) < least):
        raise InvalidOption(
            f"scales is {scales}; with {shortest} positions these layers allow at most "
            f"{max(1, 1 + int(math.log2(max(1, shortest / least))))}"
        )
    return [tuple(max(1, round(n / 2**i)) for n in content) for i in reversed(range(scales))]


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(job: Job, tile: int | None, history: int, compact: bool) -> int:
    """Bytes that the run takes at its highest, on top of what the process has with the samples read."""
    n = math.prod(job.size)
    vector = 4 * n * job.net.architecture.in_channels
    around = halo(job.net, job.layers)
    crop, *styles = (math.prod(crop_of(size, tile, around)) for size in (job.size, *job.styles))
    channels = {name: module.out_channels for name, module in _convolutions(job)}
    wanted = sum(4 * n * channels[_conv_of(layer)] / stride(layer) ** len(job.size) for layer in job.content_layers)
    running, stepping = (SPARE + count for count in _vectors(job.optimizer, history, compact))
    if job.variation:
        running += 6
    first = next(iter(channels.values()))
    targets = 16 * first * max(crop, *styles)
    waves = 8 * min(n, TRANSFORMED) * (job.net.architecture.in_channels + 2) if job.optimizer == "lbfgs" else 0
    stepping = stepping * vector + waves
    needs = (targets + wanted + vector, wanted + running * vector + crop * _per_position(job), stepping)
    return round(LEAST + max(needs) + (0 if job.optimizer == "lbfgs" else COMPILER))


def warm_up_memory(job: Job, slim: Vgg, tile: int | None, history: int, compact: bool) -> int:
    """As `memory`, of the warm-up: first both nets without gradients, for the maps between them, then a walk by L-BFGS,
    whatever the run itself walks by, in the slim net with a map behind each layer."""
    light = standing_in(job, slim)
    crop, *styles = (math.prod(crop_of(size, tile, halo(job.net, job.layers))) for size in (job.size, *job.styles))
    channels = {name: module.out_channels for name, module in _convolutions(light)}
    mapped = sum(8 * (channels[_conv_of(layer)] + 1) / stride(layer) ** len(job.size) for layer in job.layers)
    first = sum(next(_convolutions(one))[1].out_channels for one in (job, light))
    both = 16 * first * max(crop, *styles) + 4 * math.prod(job.size) * job.net.architecture.in_channels
    return round(max(LEAST + both, memory(light, tile, history, compact) + crop * mapped))


def standing_in(job: Job, slim: Vgg) -> Job:
    """The warm-up's: by L-BFGS, whatever the run itself walks by, in the slim net."""
    return replace(job, net=slim, optimizer="lbfgs", slim=None)


def crop_of(size: Sequence[int], tile: int | None, around: int) -> tuple[int, ...]:
    """Positions per axis of what is computed at once: the largest tile with what lies around it."""
    return tuple(extent(length, tile, around)[0] for length in size) if tile else tuple(size)


def tile_at(size: Sequence[int], tile: int | None, around: int, finest: Sequence[int]) -> int | None:
    """The tile for the scale at which the sample is of `size`: none where the whole is no larger than what is computed
    at once at the finest scale, which is what the memory is planned for."""
    if tile is None or math.prod(size) <= math.prod(crop_of(finest, tile, around)):
        return None
    return tile


def _vectors(optimizer: str, history: int, compact: bool) -> tuple[float, float]:
    """Tensors of the sample's size while J is evaluated and while a step is taken: x, the gradient, the best sample and
    what `style.descent` remembers."""
    best = 0.5 if compact else 1
    if optimizer == "lbfgs":
        pairs = (history - 0.5) if compact else (2 * history - 1)  # the newest one half, but for the gradients
        return 3 + best + pairs, 3 + best + pairs + (0.5 if compact else 1)
    return {"adam": (4 + best, 6 + best)}.get(optimizer, (2 + best, 2 + best))


SMALLEST_WALK = 4 * (SPARE + _vectors("gd", 1, compact=True)[0])  # bytes per value: no walk keeps less


def _per_position(job: Job) -> float:
    """Bytes per position of the sample of going through the net and back."""
    a, size = job.net.architecture, 2 if job.low else 4
    taps = {_conv_of(layer) for layer in job.layers}
    total = 4.0 * 4 * a.in_channels  # the sample clipped, normalised, its gradient
    before = a.in_channels
    for name, module in _convolutions(job):
        per = stride(name) ** len(job.size)
        total += size * module.out_channels / per
        if name in taps and job.regions:
            total += 4 * job.regions * module.out_channels / per
        if name.endswith("_1") and not name.startswith("conv1_"):
            total += (size + (8 if a.pooling == "max" else 0)) * before / per
        before = module.out_channels
    return total + 2.5 * size * next(_convolutions(job))[1].out_channels


def _convolutions(job: Job) -> Iterator[tuple[str, Any]]:
    """Those that a pass to the deepest layer runs through, by name."""
    deepest = {_conv_of(layer) for layer in job.layers}
    for name, module in job.net.named_children():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            yield name, module
            deepest.discard(name)
            if not deepest:
                return


def _conv_of(layer: str) -> str:
    """The convolution whose maps a layer has; of pool1 the first after it, which is near enough."""
    number = layer.lstrip("convrelupi")
    return f"conv{int(number) + 1}_1" if layer.startswith("pool") else f"conv{number}"


def fit(
    job: Job,
    *,
    tile: int | str | None,
    history: int | None = None,
    compact: bool | None = None,
    memory_limit: int | None = None,
) -> Estimate:
    """The tile and the history with which `job` fits into the memory: no tile and 10 pairs where they do; else the
    pairs in bfloat16; else, so, the largest tile; else fewer pairs.

    tile: "auto", or positions per axis, or None for none, which is then kept to, as `history` and `compact` are.
    memory_limit: bytes of resident size that the process must not exceed; None: what the machine can give.
    The warm-up is left out where it does not fit: it never costs the run its tile or its pairs.
    Raises InvalidOption where it cannot fit, with what would.
    """
    release()  # what can be had again does not count
    base = machine.resident()
    planned = most = memory_limit
    if memory_limit is not None:
        planned = int(OF_LIMIT * memory_limit)
    elif (left := machine.available()) is not None:
        planned, most = base + int(SHARE * left), base + left
    best: Estimate | None = None
    for one_tile, pairs, small in _ways(job, tile, history, compact):
        need = base + memory(job, one_tile, pairs, small)
        found = Estimate(job.size, 1, one_tile, pairs, small, need, most)
        if planned is None or need <= planned:
            return _warmed(job, found, base, planned)
        if best is None or need < best.peak_memory_bytes:
            best = found
    assert best is not None and most is not None
    if best.peak_memory_bytes <= most:  # with nothing to spare
        return _warmed(job, best, base, best.peak_memory_bytes)
    raise InvalidOption(_refusal(job, best, tile, history, compact, most))


def _warmed(job: Job, plan: Estimate, base: int, most: int | None) -> Estimate:
    """The plan with the warm-up, if it is wanted and takes no more than `most`."""
    if job.slim is None:
        return plan
    need = base + warm_up_memory(job, job.slim, plan.tile, plan.history, plan.compact)
    if most is not None and need > most:
        return plan
    return replace(plan, warm_up=True, peak_memory_bytes=max(need, plan.peak_memory_bytes))


def _ways(
    job: Job, tile: int | str | None, history: int | None, compact: bool | None
) -> Iterator[tuple[int | None, int, bool]]:
    """(tile, history, compact) from what is best to what is smallest."""
    shorter = [history] if history else [6, 4, 3, 2, 1] if job.optimizer == "lbfgs" else []
    full = history or HISTORY
    memories = [(full, False), (full, True), *((pairs, True) for pairs in shorter)]
    if compact is not None:
        memories = list(dict.fromkeys((pairs, compact) for pairs, _ in memories))
    if tile != "auto":
        number = _number(job, tile)
        yield from ((number, pairs, small) for pairs, small in memories)
        return
    yield from ((None, pairs, small) for pairs, small in memories[:2])
    around, step = halo(job.net, job.layers), max(stride(layer) for layer in job.layers)
    sides = (step * times << doubled for doubled in range(16, 0, -1) for times in (3, 2))
    cuts = [side for side in sides if side < max(job.size)]
    worth = [side for side in cuts if repeated(job.size, side, around) <= MOST_OVERLAP]
    small_ones = [way for way in memories if way[1]] or memories  # tiles cost time, bfloat16 next to nothing
    yield from ((side, pairs, small) for pairs, small in small_ones for side in worth)
    yield from ((side, *memories[-1]) for side in cuts)


def _number(job: Job, tile: int | str | None) -> int | None:
    if isinstance(tile, str):
        raise InvalidOption(f"tile is {tile!r}; it must be 'auto', a number of positions or None")
    if tile is not None:
        check_tile(tile, job.layers)
    return tile


def repeated(size: Sequence[int], tile: int, around: int) -> float:
    """How often each position is computed, on average, because tiles overlap."""
    return math.prod(extent(n, tile, around)[1] / n for n in size)


def _refusal(
    job: Job, best: Estimate, tile: int | str | None, history: int | None, compact: bool | None, most: int
) -> str:
    shape = " x ".join(map(str, job.size))
    how = f"tiles of {best.tile}" if best.tile else "no tiles"
    text = f"{shape} positions need {_mb(best.peak_memory_bytes)} with {how}, and {_mb(most)} can be had"
    options: dict[str, Any] = {"history": history, "compact": compact, "memory_limit": most}
    if tile != "auto":
        try:
            found = fit(job, tile="auto", **options)
        except InvalidOption:
            pass
        else:
            return f"{text}; tile='auto' would take {_mb(found.peak_memory_bytes)} with tiles of {found.tile}"
    longer = max(job.size)
    for part in (n / 20 for n in range(19, 0, -1)):
        smaller = tuple(max(1, int(n * part)) for n in job.size)
        styles = tuple(tuple(max(1, int(n * part)) for n in size) for size in job.styles)
        sized = replace(job, size=smaller, styles=styles)
        if machine.resident() + min(memory(sized, *way) for way in _ways(sized, tile, history, compact)) <= most:
            return f"{text}; a size of {int(longer * part)} along the longer axis would fit"
    return f"{text}, which is too little for any size: give it more memory"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
