"""The cost of a stylised sample, `J(G) = alpha J_content(C, G) + beta J_style(S, G) + gamma TV(G)`, measured inside a
net (Gatys 2016), over 1, 2 or 3 dimensions.

Everything J needs of G is a sum over positions, per layer: the Gram matrix, the squared difference to the content.
So the same parts serve a whole sample (`Objective.parts`) and one that is cut into tiles (`style.tiling`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidOption
from ..nets.activations import activations
from ..nets.perceptual import Vgg, stride
from ..nets.tiles import map_size, walk, within
from .checks import check_layers, check_size, known
from .statistics import STATISTICS, full, total_variation

CONTENT_LAYERS: Mapping[str, float] = {"relu4_1": 1.0}
STYLE_LAYERS: Mapping[str, float] = {f"relu{block}_1": 0.25 for block in (1, 2, 3, 4)}


@dataclass(frozen=True)
class Convention:
    """The factors before the sums; every program chose its own. C channels, M positions of G at the layer.

    content: (C, M) -> factor of `sum (a(C) - a(G))^2`. style: C -> factor of `sum (Gram(S)/M_S - Gram(G)/M)^2`.
    """

    content: Callable[[int, int], float]
    style: Callable[[int], float]


# In the chapter (Gatys 2016, eq. 1 and 4) S has as many positions as G; dividing each Gram matrix by its own number
# leaves that case as it is and gives all others a meaning. `per-position` is the chapter with a content cost per
# position instead of a sum, so that the same alpha and beta give the same look at every size.
CONVENTIONS: Mapping[str, Convention] = {
    "per-position": Convention(lambda c, m: 1 / (2 * m), lambda c: 1 / (4 * c**2)),
    "chapter": Convention(lambda c, m: 1 / 2, lambda c: 1 / (4 * c**2)),
    "johnson": Convention(lambda c, m: 1 / (c * m), lambda c: 1 / c**4),
    "gatys-notebook": Convention(lambda c, m: 1 / (c * m), lambda c: 1e3 / c**4),
}


@dataclass(frozen=True)
class Style:
    """A sample (1, c, *spatial), values 0...1, whose style is wanted. `weight`: its share among those of its region.
    `region`: where in G (mask of G's spatial size, 0...1; None: everywhere). `mask`: what of the sample counts."""

    sample: Tensor
    weight: float = 1.0
    region: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One summand of J_style: at `layer`, in region number `region`, `weight` times the error against `wanted`."""

    layer: str
    region: int
    weight: float
    wanted: Tensor


@dataclass(frozen=True)
class Parts:
    """J and what it is made of. `layers`: weighted style cost per layer."""

    J: float
    content: float
    style: float
    tv: float
    weighted: dict[str, float]
    layers: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Objective:
    """What `objective` makes: the net, the targets and the weights. Call it with G (1, c, *spatial), values about
    0...1, for J, a scalar through which gradients flow.

    masks: (layer, region) -> how much of each position's pixels belongs to the region; absent where all do.
    """

    net: Vgg
    spatial: tuple[int, ...]
    content: Mapping[str, tuple[float, Tensor]]
    terms: Sequence[Term]
    masks: Mapping[tuple[str, int], Tensor]
    alpha: float
    beta: float
    gamma: float
    statistic: str
    convention: Convention

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys([*self.content, *(term.layer for term in self.terms)]))

    def __call__(self, x: Tensor) -> Tensor:
        sums: dict[tuple[str, int], Tensor] = {}

        def tap(layer: str, a: Tensor) -> Tensor:
            a, mine = self.collect(layer, a)
            sums.update(mine)
            return a

        found = activations(self.net, x, self.layers, tap)
        cost = self.alpha * self.content_cost(found) + self.beta * total(self.style_costs(sums))
        return cost + self.gamma * total_variation(x) if self.gamma else cost

    def content_cost(
        self, found: Mapping[str, Tensor], window: Mapping[str, tuple[slice, ...]] | None = None
    ) -> Tensor:
        """J_content of the activations of G, or of the part of G that lies in `window` (layer -> slices)."""
        costs = [torch.zeros((), dtype=full(next(iter(found.values()))).dtype)]
        for layer, (weight, wanted) in self.content.items():
            factor = self.convention.content(wanted.shape[1], wanted[0, 0].numel())
            part = wanted if window is None else within(wanted, window[layer])
            costs.append(weight * factor * (full(found[layer]) - part).square().sum())
        return torch.stack(costs).sum()

    def style_sums(
        self, found: Mapping[str, Tensor], window: Mapping[str, tuple[slice, ...]] | None = None
    ) -> dict[tuple[str, int], Tensor]:
        """(layer, region) -> the statistic's sum over positions of G (in `window`): what adds up over tiles."""
        sums: dict[tuple[str, int], Tensor] = {}
        for layer in self.layers:
            sums |= self.collect(layer, found[layer], window)[1]
        return sums

    def collect(
        self, layer: str, a: Tensor, window: Mapping[str, tuple[slice, ...]] | None = None
    ) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
        """The `style_sums` of one layer, of its activation a, and what deeper layers go on with instead of a, so that
        what comes back from them and from the sums meets in one place."""
        statistic = STATISTICS[self.statistic][0]
        sums = {}
        for key in dict.fromkeys((term.layer, term.region) for term in self.terms if term.layer == layer):
            mask = self.masks.get(key)
            if mask is not None and window is not None:
                mask = mask[window[layer]]
            with torch.autocast(a.device.type, enabled=False):
                a, sums[key] = statistic(a, mask)
        return a, sums

    def style_costs(self, sums: Mapping[tuple[str, int], Tensor]) -> dict[str, Tensor]:
        """layer -> its part of J_style, given the statistic's sums over all of G. A region counts by its share of G,
        so that every position feels the same pull."""
        error = STATISTICS[self.statistic][1]
        layers: dict[str, Tensor] = {}
        for term in self.terms:
            key = term.layer, term.region
            positions = float(math.prod(map_size(self.spatial, term.layer)))
            count = float(self.masks[key].sum()) if key in self.masks else positions
            cost = error(sums[key] / max(count, 1e-12), term.wanted, self.convention.style)
            layers[term.layer] = layers.get(term.layer, 0) + term.weight * (count / positions) * cost
        return layers

    def of_batch(self, x: Tensor, contents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Content, style and TV cost, weighted, as means over a batch (b, c, *spatial) of which each sample has a
        content of its own: `contents`, layer -> its activations (b, c', *spatial'). Their sum is the mean J."""
        found = activations(self.net, x, self.layers)
        content, style = [], []
        for i in range(len(x)):
            mine = {layer: a[i : i + 1] for layer, a in found.items()}
            wanted = {layer: (weight, contents[layer][i : i + 1]) for layer, (weight, _) in self.content.items()}
            content.append(self.alpha * replace(self, content=wanted).content_cost(mine))
            style.append(self.beta * total(self.style_costs(self.style_sums(mine))))
        return torch.stack(content).mean(), torch.stack(style).mean(), self.gamma * total_variation(x)

    @torch.no_grad()
    def parts(self, x: Tensor, *, tile: int | None = None) -> Parts:
        """J of G in its own precision (float32 or float64), with its parts weighted and unweighted."""
        content = torch.zeros((), dtype=x.dtype)
        sums: dict[tuple[str, int], Any] = {}
        for one, found in walk(self.net, x, self.layers, tile):
            content = content + self.content_cost(found, one.windows)
            for key, value in self.style_sums(found, one.windows).items():
                sums[key] = sums.get(key, 0) + value
        layers = {layer: float(cost) for layer, cost in self.style_costs(sums).items()}
        plain = {"content": float(content), "style": sum(layers.values()), "tv": float(total_variation(x))}
        weighted = {"content": self.alpha * plain["content"], "style": self.beta * plain["style"]}
        weighted["tv"] = self.gamma * plain["tv"]
        return Parts(sum(weighted.values()), plain["content"], plain["style"], plain["tv"], weighted, layers)


@torch.no_grad()
def objective(
    net: Vgg,
    content: Tensor,
    styles: Sequence[Style],
    *,
    content_weight: float = 1.0,
    style_weight: float = 1e4,
    tv_weight: float = 0.0,
    content_layers: Mapping[str, float] = CONTENT_LAYERS,
    style_layers: Mapping[str, float] = STYLE_LAYERS,
    statistic: str = "gram",
    convention: str = "per-position",
    tile: int | None = None,
) -> Objective:
    """The cost of looking like `content` (1, c, *spatial) and being painted like `styles`, for samples of its size.

    content_weight, style_weight, tv_weight: alpha, beta, gamma of J.
    content_layers, style_layers: layer -> its weight (lambda[l] of the chapter).
    statistic: "gram" (channel correlations) or "mean-std" (mean and deviation per channel).
    convention: factors before the sums, one of CONVENTIONS.
    tile: measure the targets tile by tile (the same values in less memory).

    Raises UnknownName for a layer, statistic or convention there is none of; InvalidOption where there is no style or
    no layer for it, weights are negative or not finite, a sample is too small for the layers, or a mask does not fit.
    """
    check_cost(
        net,
        content,
        styles,
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight,
        content_layers=content_layers,
        style_layers=style_layers,
        statistic=statistic,
        convention=convention,
    )
    spatial = tuple(content.shape[2:])
    wanted: dict[str, tuple[float, Tensor]] = {}
    if content_layers:
        maps: dict[str, Tensor] = {}
        for one, found in walk(net, content, list(content_layers), tile):
            for layer in content_layers:
                a = found[layer]
                if layer not in maps:
                    last = torch.channels_last if a.ndim == 4 else torch.contiguous_format  # as they come from the net
                    shape = 1, a.shape[1], *map_size(spatial, layer)
                    maps[layer] = torch.empty(shape, dtype=a.dtype, device=a.device, memory_format=last)
                within(maps[layer], one.windows[layer]).copy_(a)
            del a
        wanted = {layer: (weight, maps[layer]) for layer, weight in content_layers.items()}
    masks: dict[tuple[str, int], Tensor] = {}
    terms = []
    regions = _regions(styles, spatial)
    share = [sum(s.weight for s, r in zip(styles, regions, strict=True) if r == region) for region in regions]
    for number, (style, region) in enumerate(zip(styles, regions, strict=True)):
        if style.region is not None:
            masks |= {(layer, region): shrink(style.region, layer) for layer in style_layers}
        means = _means(net, style, list(style_layers), statistic, tile)
        weight = style.weight / share[number] if share[number] else 0.0
        terms += [Term(layer, region, weight * value, means[layer]) for layer, value in style_layers.items()]
    alpha, beta, gamma = content_weight, style_weight, tv_weight
    return Objective(net, spatial, wanted, terms, masks, alpha, beta, gamma, statistic, CONVENTIONS[convention])


def check_cost(
    net: Vgg,
    content: Tensor,
    styles: Sequence[Style],
    *,
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
    statistic: str,
    convention: str,
    **weights: float,
) -> None:
    """Raises what `objective` raises of these arguments before anything is computed (but for a mask of a style that
    leaves nothing of a layer)."""
    layers = [*content_layers, *style_layers]
    check_layers(net, layers)
    known(statistic, STATISTICS, "statistic")
    known(convention, CONVENTIONS, "convention")
    if not styles:
        raise InvalidOption("at least one style is needed")
    if not style_layers:
        raise InvalidOption("style_layers names no layer; for a picture without style, set style_weight to 0")
    for what, by_layer in (("content", content_layers), ("style", style_layers)):  # a layer may be in both
        weights |= {f"{what} layer {layer}": value for layer, value in by_layer.items()}
    weights |= {f"weight of style {i}": style.weight for i, style in enumerate(styles, 1)}
    for name, value in weights.items():
        if not (math.isfinite(value) and value >= 0):
            raise InvalidOption(f"{name} is {value}; it must be a number of at least 0")
    if not any(style.weight for style in styles):
        raise InvalidOption("the weights of all styles are 0; one at least must be above it")
    for number, sample in enumerate([content, *(style.sample for style in styles)]):
        check_size(net, layers, sample, f"style {number}" if number else "the content")
    _regions(styles, tuple(content.shape[2:]))
    for style in styles:
        spatial = tuple(style.sample.shape[2:])
        if style.mask is not None and tuple(style.mask.shape) != spatial:
            raise InvalidOption(f"a mask of {tuple(style.mask.shape)} does not fit a style of {spatial}")


def cost_options(**given: Any) -> dict[str, Any]:
    """The options of `objective` that say what J is: those given, the others at their defaults. Raises TypeError for
    one there is none of."""
    options = {name: p.default for name, p in signature(objective).parameters.items() if p.kind is p.KEYWORD_ONLY}
    options.pop("tile")  # how J is computed, not what it is
    if unknown := sorted(given.keys() - options.keys()):
        raise TypeError(f"the cost has no option called {', '.join(unknown)}; it has {', '.join(options)}")
    options |= given
    return plain(options)


def plain(value: Any) -> Any:
    """Options as JSON has them: NumPy's numbers as Python's, in dicts and sequences too."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _regions(styles: Sequence[Style], spatial: tuple[int, ...]) -> list[int]:
    """The number of each style's region; those that share a region (or have none) share a number. Regions are the same
    where their values are: each style comes with a tensor of its own."""
    seen: list[Tensor | None] = []
    numbers = []
    for style in styles:
        if style.region is not None and tuple(style.region.shape) != spatial:
            raise InvalidOption(f"a region of {tuple(style.region.shape)} does not fit a content of {spatial}")
        if style.region is not None and not style.region.any():
            raise InvalidOption("the mask of the content is black: nowhere would anything be painted")
        same = (i for i, one in enumerate(seen) if _same(one, style.region))
        numbers.append(next(same, len(seen)))
        if numbers[-1] == len(seen):
            seen.append(style.region)
    return numbers


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _means(net: Vgg, style: Style, layers: list[str], statistic: str, tile: int | None) -> dict[str, Tensor]:
    """layer -> the statistic's mean over the positions of a style sample (those in its mask)."""
    collect = STATISTICS[statistic][0]
    spatial = tuple(style.sample.shape[2:])
    masks = {} if style.mask is None else {layer: shrink(style.mask, layer) for layer in layers}
    sums: dict[str, Any] = {}
    for one, found in walk(net, style.sample, layers, tile):
        for layer in layers:
            mask = masks[layer][one.windows[layer]] if masks else None
            sums[layer] = sums.get(layer, 0) + collect(found[layer], mask)[1]
    counts = {layer: float(masks[layer].sum()) if masks else math.prod(map_size(spatial, layer)) for layer in layers}
    if min(counts.values()) <= 0:
        raise InvalidOption("the mask of a style leaves nothing of it")
    return {layer: sums[layer] / counts[layer] for layer in layers}


def shrink(mask: Tensor, layer: str) -> Tensor:
    """The mask (*spatial) at a layer's size: the mean over each position's block of pixels."""
    step = stride(layer)
    part = mask[tuple(slice(0, n // step * step) for n in mask.shape)]
    for axis in range(mask.ndim):
        part = part.unflatten(axis, (-1, step)).mean(axis + 1)
    return part


def total(costs: Mapping[str, Tensor]) -> Tensor:
    """J_style, of its part of each layer."""
    return torch.stack(list(costs.values())).sum()
