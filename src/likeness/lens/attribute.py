"""Which parts of a sample a unit, a class or a score answers to: one verb, `attribute`, for every method, over 1, 2 or
3 dimensions.

No hooks are left on modules: activations are read by `nets.activations`, and the rules that go back through a ReLU
otherwise than calculus does are put in its place while the net runs, whether it is a module, used several times, or a
function. (captum changes ReLU by hooks on modules, so that functions are missed and a module used twice fails.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InvalidOption, UnknownName
from ..nets.activations import activations, listening

Target = Callable[[nn.Module, Tensor], Tensor]
METHODS = (
    "gradient",
    "smooth-grad",
    "integrated-gradients",
    "guided-backprop",
    "deconvnet",
    "grad-cam",
    "occlusion",
)


@dataclass(frozen=True)
class Attribution:
    """`map`: (b, c, *spatial), or (b, 1, *spatial) for grad-cam and occlusion, of the sample's type: how much each
    value of the sample counts, positive where it speaks for the target. `value`: (b,) the target itself. `explained`:
    (b,) the sum of the map over the change of the target from the baseline, which integrated gradients should bring to
    1 (and is 1 where both are 0); None for methods that do not add up."""

    map: Tensor
    method: str
    value: Tensor
    explained: Tensor | None = None


def unit(layer: str, channel: int, position: Sequence[int] | str | None = None) -> Target:
    """The activation of one unit of a layer: at `position` of its map, at its "centre", its "mean" over all positions,
    or (None) where it is largest."""

    def target(net: nn.Module, x: Tensor) -> Tensor:
        a = activations(net, x, [layer])[layer]
        if not 0 <= channel < a.shape[1]:
            raise UnknownName(f"layer {layer!r} has units 0...{a.shape[1] - 1}, not {channel}")
        row = a[:, channel]
        if row.ndim == 1 and (position is None or isinstance(position, str)):
            return row
        if position is None:
            return row.flatten(1).amax(1)
        if position == "mean":
            return row.flatten(1).mean(1)
        place = [n // 2 for n in row.shape[1:]] if position == "centre" else position
        if isinstance(place, str):
            raise InvalidOption(f"position is {place!r}; it must be numbers, 'centre' or 'mean'")
        if len(place) != row.ndim - 1 or any(not 0 <= i < n for i, n in zip(place, row.shape[1:], strict=False)):
            raise InvalidOption(f"layer {layer!r} has positions {tuple(row.shape[1:])}; {tuple(place)} is none")
        index: tuple[Any, ...] = (slice(None), *place)
        return row[index]

    return target


def output(channel: int) -> Target:
    """One number of the net's output (b, classes): the score of a class before softmax."""

    def target(net: nn.Module, x: Tensor) -> Tensor:
        scores = net(x)
        if scores.ndim != 2 or not 0 <= channel < scores.shape[1]:
            raise InvalidOption(f"the net's output has shape {tuple(scores.shape)}; it has no class {channel}")
        return scores[:, channel]

    return target


@torch.inference_mode(False)  # gradients are needed, whatever is switched off around it
def attribute(
    net: nn.Module,
    x: Tensor,
    target: Target,
    *,
    method: str = "gradient",
    layer: str | None = None,
    baseline: float | Tensor = 0.0,
    samples: int = 25,
    noise: float = 0.15,
    steps: int = 32,
    window: int | None = None,
    stride: int | None = None,
    seed: int = 0,
) -> Attribution:
    """What of the samples x (b, c, *spatial) the target answers to.

    net: in eval mode; left as it was. target: `unit(...)`, `output(...)` or any function (net, x) -> (b,).
    method:
        gradient: `dy/dx` (Simonyan 2013).
        smooth-grad: its mean over `samples` copies with Gaussian noise of `noise` times the range of x (Smilkov 2017).
        integrated-gradients: `(x - x0) * mean of dy/dx` along the line from x0 = `baseline` to x, by the midpoints of
            `steps` parts (Sundararajan 2017, eq. 1); the map adds up to y(x) - y(x0).
        guided-backprop: going back through a ReLU passes only what is positive where its input was (Springenberg 2014).
        deconvnet: passes only what is positive, wherever its input was (Zeiler & Fergus 2014).
        grad-cam: `relu(sum_k w_k a_k)`, w_k the mean of `dy/da_k`, of `layer`, brought to the size of x (Selvaraju
            2017, eq. 1 and 2).
        occlusion: how much y falls when a cube of `window` positions is replaced by `baseline`, moved by `stride`;
            mean over the cubes that cover a position (Zeiler & Fergus 2014).
    baseline: a number, or a tensor that broadcasts to x.
    window: default: an eighth of the shortest axis. stride: default: half the window.
    seed: of the noise.

    Raises UnknownName for a method or unit there is none of, InvalidOption for options that cannot be.
    """
    if method not in METHODS:
        raise UnknownName(f"there is no method called {method!r}; it is one of {', '.join(METHODS)}")
    for name, count in (("samples", samples), ("steps", steps)):
        if count < 1:
            raise InvalidOption(f"{name} is {count}; it must be at least 1")
    x = x.detach()
    if method == "grad-cam":
        if layer is None:
            raise InvalidOption("grad-cam needs `layer`, whose maps it weighs")
        value, cam = weighted(net, x, target, layer)
        return Attribution(interpolated(cam.clamp_min(0), x.shape[2:]), method, value)
    with torch.no_grad():
        value = _value(net, x, target)
    if method == "occlusion":
        return Attribution(_occlusion(net, x, target, value, baseline, window, stride), method, value)
    if method == "integrated-gradients":
        start = torch.zeros_like(x) + baseline
        total = torch.zeros_like(x)
        for i in range(steps):
            total += _gradient(net, start + (i + 0.5) / steps * (x - start), target)
        result = (x - start) * total / steps
        with torch.no_grad():
            change = value - target(net, start)
        added = result.flatten(1).sum(1)
        return Attribution(result, method, value, torch.where(added == change, 1, added / change))
    if method == "smooth-grad":
        generator = torch.Generator().manual_seed(seed)
        spread = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, *[1] * (x.ndim - 1))
        total = torch.zeros_like(x)
        for _ in range(samples):
            draw = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            total += _gradient(net, x + spread * draw, target)
        return Attribution(total / samples, method, value)
    with relu_rule(method):
        return Attribution(_gradient(net, x, target), method, value)


def _gradient(net: nn.Module, x: Tensor, target: Target) -> Tensor:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)  # cloned: one made in inference mode can have no gradient
        return torch.autograd.grad(target(net, x).sum(), x)[0]


def _value(net: nn.Module, x: Tensor, target: Target) -> Tensor:
    value = target(net, x)
    if value.shape != (len(x),):
        raise InvalidOption(f"the target gives {tuple(value.shape)} for {len(x)} samples; it must be one number each")
    return value


def weighted(net: nn.Module, x: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    """The target (b,), and `sum_k w_k a_k` (b, 1, *positions) of `layer`, w_k the mean of `dy/da_k` over positions:
    Grad-CAM before its ReLU. One pass, whose way back ends at the layer."""
    with torch.enable_grad(), listening(net, [layer]) as seen:
        y = _value(net, x.detach().clone().requires_grad_(True), target)
        a = seen.get(layer)
        if a is None or a.ndim != x.ndim:
            raise InvalidOption(f"the target does not pass through maps of layer {layer!r}")
        (slope,) = torch.autograd.grad(y.sum(), a, allow_unused=True)
    if slope is None:
        raise InvalidOption(f"the target does not depend on layer {layer!r}")
    weights = slope.mean(tuple(range(2, a.ndim)), keepdim=True)
    return y.detach(), (weights * a.detach()).sum(1, keepdim=True)


def interpolated(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """(b, c, *positions) brought to (b, c, *shape) by straight lines between the middles of positions."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape)]
    return F.interpolate(maps, size=tuple(shape), mode=mode, align_corners=False)


@torch.no_grad()
def _occlusion(
    net: nn.Module,
    x: Tensor,
    target: Target,
    value: Tensor,
    baseline: float | Tensor,
    window: int | None,
    stride: int | None,
) -> Tensor:
    spatial = x.shape[2:]
    window = max(1, min(spatial) // 8) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= window <= min(spatial) or not 1 <= stride <= window:
        raise InvalidOption(
            f"window is {window} and stride {stride}: a window has 1 to {min(spatial)} positions, a stride 1 to window"
        )
    blank = torch.zeros_like(x) + baseline
    fall, covered = (torch.zeros(len(x), 1, *spatial, dtype=x.dtype, device=x.device) for _ in range(2))
    starts = [sorted({*range(0, n - window, stride), n - window}) for n in spatial]
    for first in itertools.product(*starts):
        part: Any = (..., *(slice(i, i + window) for i in first))
        hidden = x.clone()
        hidden[part] = blank[part]
        fall[part] += (value - target(net, hidden)).view(-1, *[1] * (x.ndim - 1))
        covered[part] += 1
    return fall / covered


def _guided(slope: Tensor, positive: Tensor) -> Tensor:
    return slope.clamp_min(0) * positive


def _deconvnet(slope: Tensor, positive: Tensor) -> Tensor:
    return slope.clamp_min(0)


def _redirected(slope: Tensor, positive: Tensor) -> Tensor:
    """Calculus where the ReLU is open; a closed one passes what would open it."""
    return torch.where(positive, slope, slope.clamp_min(0))


Rule = Callable[[Tensor, Tensor], Tensor]
RULES: dict[str, Rule] = {"guided-backprop": _guided, "deconvnet": _deconvnet, "redirected": _redirected}


class _Passed(torch.autograd.Function):
    """A ReLU whose way back follows a rule: (slope, where the input was positive) -> slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule) -> Tensor:
        ctx.save_for_backward(x > 0)
        ctx.rule = rule
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (positive,) = ctx.saved_tensors
        return ctx.rule(slope, positive), None


RELUS = {torch.relu, torch.relu_, F.relu, F.relu_, Tensor.relu, Tensor.relu_}
IN_PLACE = {torch.relu_, F.relu_, Tensor.relu_}


class _ReluRule(TorchFunctionMode):
    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in RELUS:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if func in IN_PLACE or kwargs.get("inplace") or (func is F.relu and args[1:2] == (True,)):
            return x.copy_(_Passed.apply(x.clone(), self.rule))
        return _Passed.apply(x, self.rule)


@contextmanager
def relu_rule(name: str) -> Iterator[None]:
    """While it lasts, what goes back through a ReLU follows that one of `RULES`; for other names, calculus."""
    if name in RULES:
        with _ReluRule(RULES[name]):
            yield
    else:
        yield
