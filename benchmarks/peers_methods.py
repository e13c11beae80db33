"""The peers of `benchmarks/peers.py`, written plainly: torch, its optimisers, and one cost of a page's length.

They share with the library nothing but the encoder's weights and the default weights of J. What a method sees of a
picture, where it starts, what moves it and over which scales is as in its own program; what it lowers is our J, so that
the curves can be laid on each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from plain import features, outward
from torch import Tensor

from style import multiply_adds

CAFFE_MEAN = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)  # blue, green, red of 0...255
COARSE = 10  # below full size only every tenth picture is judged

Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """What all methods are given. net: a `likeness.nets.perceptual.Vgg`. content, style: (1, 3, h, w), RGB, 0...1.
    weights: `likeness.style.objective.cost_options()`."""

    net: Any
    content: Tensor
    style: Tensor
    weights: Mapping[str, Any]


@dataclass
class Watch:
    """CPU seconds and work of a method, and how good its picture was by then; judging takes none of its time.

    judge: a picture (1, 3, h, w), 0...1, of the full size -> J. full: height and width of that size.
    points: (seconds, evaluations, J) of each picture that was judged, an evaluation below full size counting by its
    share of the pixels.
    """

    judge: Callable[[Tensor], float]
    full: tuple[int, int]
    tell: Callable[[Watch], None] = lambda watch: None
    points: list[tuple[float, float, float]] = field(default_factory=list)
    seconds: float = 0.0
    evaluations: float = 0.0
    calls: int = 0
    since: float = 0.0

    def start(self) -> None:
        self.since = time.process_time()

    def see(
        self, picture: Callable[[], Tensor], enlarge: Callable[[Tensor], Tensor] | None = None, *, work: float = 1.0
    ) -> None:
        """After each evaluation. picture: makes what the method would hand over now. enlarge: how it brings that to the
        full size (bicubic where not said). work: of the evaluation, in those of the encoder at the picture's size."""
        self.stop()
        shown = picture().detach()
        share = work * shown[0, 0].numel() / (self.full[0] * self.full[1])
        self.calls, self.evaluations = self.calls + 1, self.evaluations + share
        whole = tuple(shown.shape[2:]) == self.full
        if whole or self.calls % COARSE == 0:
            shown = shown if whole else (enlarge or self._enlarged)(shown)
            self.points.append((self.seconds, self.evaluations, self.judge(shown.clamp(0, 1))))
            self.tell(self)
        self.start()

    def stop(self) -> None:
        """Take the time up to now."""
        self.seconds += time.process_time() - self.since

    def _enlarged(self, picture: Tensor) -> Tensor:
        return F.interpolate(picture, size=self.full, mode="bicubic")


class PlainCost:
    """Our J of a picture (1, 3, h, w), RGB, 0...1, as one would write it down: a pass through the kernels, two sums."""

    def __init__(self, problem: Problem, content: Tensor, style: Tensor) -> None:
        weights = problem.weights
        self.net = problem.net
        self.content_layers, self.style_layers = weights["content_layers"], weights["style_layers"]
        self.alpha, self.beta = weights["content_weight"], weights["style_weight"]
        with torch.no_grad():
            maps = self.maps(content)
            self.shown = {layer: maps[layer] for layer in self.content_layers}
            self.painted = {layer: gram(a) for layer, a in self.maps(style).items() if layer in self.style_layers}

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return features(self.net, x, {*self.content_layers, *self.style_layers})

    def __call__(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        J = torch.zeros(())
        for layer, weight in self.content_layers.items():
            a = maps[layer]
            J = J + self.alpha * weight * (a - self.shown[layer]).square().sum() / (2 * a[0, 0].numel())
        for layer, weight in self.style_layers.items():
            error = (gram(maps[layer]) - self.painted[layer]).square().sum()
            J = J + self.beta * weight * error / (4 * maps[layer].shape[1] ** 2)
        return J


def gram(a: Tensor) -> Tensor:
    """(1, c, h, w) -> (c, c), the mean over positions."""
    rows = a.permute(0, 2, 3, 1).reshape(-1, a.shape[1])
    return rows.T @ rows / len(rows)


def plain(problem: Problem, watch: Watch, evaluations: int) -> None:
    """torch's L-BFGS on our J, whose pictures are clipped to 0...1, from the content: 100 pairs, and tolerances of 0,
    since with torch's own it would stop where J is small."""
    cost = PlainCost(problem, problem.content, problem.style)

    def clipped(x: Tensor) -> Tensor:
        """The gradient is that at the clipped picture, also of pixels beyond the range, but for what leads further
        out."""
        y = x + (x.clamp(0, 1) - x).detach()
        y.register_hook(lambda g: g.masked_fill(outward(x, g), 0))
        return y

    _lbfgs(problem.content.clone(), lambda x: cost(clipped(x)), lambda x: x, watch, evaluations, tolerance=0)


def johnson(problem: Problem, watch: Watch, evaluations: int) -> None:
    """neural-style and its ports: blue, green, red of 0...255 less the mean, from the content, torch's L-BFGS with
    learning rate 1, 100 pairs and tolerances of -1; pixels are clipped only where the picture is written.

    J is multiplied by one factor, with which its content term is theirs of weight 5: `5/(C M) sum d^2` for our
    `alpha/(2 M) sum d^2`. Their TV weight of 1e-3 is left out, as our J has none.
    """
    cost = PlainCost(problem, problem.content, problem.style)
    channels = next(iter(cost.shown.values())).shape[1]
    factor = 10 / (channels * cost.alpha)

    def unit(pixels: Tensor) -> Tensor:
        return (pixels + CAFFE_MEAN).flip(1) / 255

    start = problem.content.flip(1) * 255 - CAFFE_MEAN
    _lbfgs(start, lambda x: factor * cost(unit(x)), unit, watch, evaluations, tolerance=-1)


def _lbfgs(start: Tensor, cost: Cost, picture: Cost, watch: Watch, evaluations: int, *, tolerance: float) -> None:
    x = start.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [x], lr=1, max_iter=evaluations, history_size=100, tolerance_grad=tolerance, tolerance_change=tolerance
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        J = cost(x)
        J.backward()
        watch.see(lambda: picture(x.detach()))
        return J

    while watch.calls < evaluations:  # it returns early where rounding turns its direction uphill
        optimizer.step(closure)


def adam(problem: Problem, watch: Watch, evaluations: int) -> None:
    """style-transfer-pytorch: Adam (rate 0.02, betas 0.9 and 0.99) from the content at 128 pixels, each scale larger by
    the square root of 2, pixels clipped after each step. The first scale gets twice `evaluations`, each other as many.
    What is shown, and what the next scale begins with, is a moving average of the pictures (decay 0.99); the next scale
    takes over Adam's moments too.
    """
    image, optimizer = problem.content, None
    for number, longer in enumerate(ladder(max(watch.full))):
        size = fitted(watch.full, longer)
        style = _resized(problem.style, fitted(tuple(problem.style.shape[2:]), longer))
        content = _resized(problem.content, size)
        cost = PlainCost(problem, content, style)
        image = F.interpolate(image, size=size, mode="bicubic").clamp(0, 1) if number else content.clone()
        average = Average(image)
        image.requires_grad_(True)
        before, optimizer = optimizer, torch.optim.Adam([image], lr=0.02, betas=(0.9, 0.99))
        if before:
            optimizer.load_state_dict(enlarged(before.state_dict(), size))
        for _ in range(evaluations if number else 2 * evaluations):
            optimizer.zero_grad()
            cost(image).backward()
            optimizer.step()
            with torch.no_grad():
                average.add(image.clamp_(0, 1))
            watch.see(average.value)
        image = average.value()


def ladder(longest: int, smallest: int = 128) -> list[int]:
    """Longer sides from coarse to fine, each the square root of 2 larger, none below `smallest` but the last."""
    sides = [longest]
    while (side := round(longest / 2 ** (len(sides) / 2))) >= smallest:
        sides.append(side)
    return sides[::-1]


def fitted(size: tuple[int, ...], longer: int) -> tuple[int, ...]:
    """Height and width with so many pixels along the longer side."""
    return tuple(max(1, round(n * longer / max(size))) for n in size)


class Average:
    """A moving average of pictures, corrected for where it began (as Adam's moments are)."""

    def __init__(self, first: Tensor, decay: float = 0.99) -> None:
        self.decay, self.sum, self.share = decay, torch.zeros_like(first), 0.0
        self.add(first)

    def add(self, picture: Tensor) -> None:
        self.sum = self.sum.lerp(picture.detach(), 1 - self.decay)
        self.share = self.share * self.decay + 1 - self.decay

    def value(self) -> Tensor:
        return self.sum / self.share


def enlarged(state: dict[str, Any], size: tuple[int, ...]) -> dict[str, Any]:
    """Adam's state for a picture of another size; squares stay positive."""
    (own,) = state["state"].values()
    first = F.interpolate(own["exp_avg"], size=size, mode="bicubic")
    second = F.interpolate(own["exp_avg_sq"], size=size, mode="bilinear").clamp_min(0)
    return {**state, "state": {0: {**own, "exp_avg": first, "exp_avg_sq": second}}}


def ours(
    problem: Problem, watch: Watch, evaluations: int, *, long: bool = False, precision: str = "auto"
) -> dict[str, Any]:
    """`stylize_sample` as `likeness stylize` calls it, with its default settings whatever the others are given; `long`:
    with as many steps. Says what it chose."""
    from likeness.style.objective import Style
    from likeness.style.pictures import SLIM, open_encoder
    from likeness.style.stand_in import can_stand_in
    from likeness.style.stylize import stylize_sample

    net, slim, base = problem.net, open_encoder(SLIM), problem.content
    layers = [*problem.weights["content_layers"], *problem.weights["style_layers"]]
    warm_up = slim if can_stand_in(slim, net, layers) else None
    watch.stop()
    cheap = multiply_adds(slim, base) / multiply_adds(net, base)
    watch.start()

    def enlarge(picture: Tensor) -> Tensor:
        """As it begins its next scale: what changed is added to the start."""
        change = picture - F.adaptive_avg_pool2d(base, picture.shape[2:])
        return base + F.interpolate(change, size=watch.full, mode="bilinear")

    def see(done: int, total: int, info: Mapping[str, Any]) -> None:
        def start() -> Tensor:
            nonlocal base
            base = info["sample"]()
            return base

        if info["scale"] == "warm-up":
            watch.see(start, work=cheap)
        else:
            watch.see(info["sample"], enlarge)

    more = {"steps": evaluations} if long else {}
    styles = [Style(problem.style)]
    run = stylize_sample(net, base, styles, precision=precision, warm_up=warm_up, on_progress=see, **more)
    return {name: run.settings[name] for name in ("precision", "scales", "steps", "history", "compact", "warm_up")}


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
