"""What a layer keeps of a sample: another sample with the same activations there (Mahendran & Vedaldi 2015), over 1, 2
or 3 dimensions. What differs between the two is what the layer does not know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption
from ..nets.activations import activations
from ..progress import Progress
from .parametrisation import spectrum


@dataclass(frozen=True, eq=False)
class Inverted:
    """`sample`: (1, c, *spatial) float32, values low...high. `error`: `|a(x') - a(x)|^2 / |a(x)|^2` of its activations.
    `trace`: the cost before each step."""

    sample: Tensor
    error: float
    trace: tuple[float, ...]


def invert(
    net: nn.Module,
    x: Tensor,
    layer: str,
    *,
    steps: int = 256,
    seed: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    norm_weight: float = 0.01,
    tv_weight: float = 0.5,
    blur: float = 0.0,
    decay: float = 1.0,
    rate: float = 0.05,
    on_progress: Progress | None = None,
) -> Inverted:
    """A sample that `layer` cannot tell from x (1, c, *spatial), by Adam over the coefficients of its spectrum
    (`lens.parametrisation`) from noise, its steps growing smaller along a cosine.

    The cost is `inversion_cost`. net: in eval mode; left as it was. low, high: what values can be. blur, decay: of the
    spectrum, see there. rate: how far the first step moves each coefficient.

    Raises UnknownName for a layer there is none of, InvalidOption where the layer's activations are all zero, or for
    options that cannot be.
    """
    if steps < 1 or not rate > 0 or norm_weight < 0 or tv_weight < 0:
        raise InvalidOption(
            f"steps is {steps}, rate {rate}, norm_weight {norm_weight}, tv_weight {tv_weight}: "
            f"at least 1, above 0, and weights not negative"
        )
    if len(x) != 1:
        raise InvalidOption(f"x has shape {tuple(x.shape)}; it must be one sample (1, c, *spatial)")
    made = spectrum(net, x.shape[1:], low=low, high=high, decay=decay, blur=blur)
    with torch.no_grad():
        wanted = activations(net, x.to(made.filter), [layer])[layer]
    if not wanted.any():
        raise InvalidOption(f"nothing of layer {layer!r} fires on this sample: there is nothing to go by")
    z = made.noise(torch.Generator().manual_seed(seed), 0.1)
    optimizer = torch.optim.Adam([z], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trace: list[float] = []
    for step in range(steps):
        with torch.enable_grad():
            moved = z.detach().requires_grad_(True)
            sample = made.sample(moved)
            a = activations(net, sample, [layer])[layer]
            cost = inversion_cost(
                a, wanted, (sample - low) / (high - low), norm_weight=norm_weight, tv_weight=tv_weight
            )
            (slope,) = torch.autograd.grad(cost, moved)
        trace.append(cost.item())
        z.grad = slope / slope.square().mean().sqrt().clamp_min(1e-30)
        optimizer.step()
        schedule.step()
        if on_progress:
            on_progress(step + 1, steps, {"cost": trace[-1]})
    with torch.no_grad():
        sample = made.sample(z)
        error = relative_error(activations(net, sample, [layer])[layer], wanted)
    return Inverted(sample.float(), float(error), tuple(trace))


def relative_error(a: Tensor, wanted: Tensor) -> Tensor:
    """`|a - wanted|^2 / |wanted|^2`."""
    return (a - wanted).square().sum() / wanted.square().sum()


def inversion_cost(a: Tensor, wanted: Tensor, u: Tensor, *, norm_weight: float, tv_weight: float) -> Tensor:
    """`|a - wanted|^2 / |wanted|^2 + norm_weight R_6 + tv_weight TV` of a sample u (1, c, *spatial) of values 0...1
    with activations a (Mahendran & Vedaldi 2015, eq. 4, and section 2 for the terms).

    `R_6 = mean |2u - 1|^6` keeps values from their bounds; `TV = mean over positions of sum over axes of d^2` (beta =
    2; d the difference to the next position, 0 at the border). Both are means, so that the weights suit every size.
    """
    squares = torch.zeros_like(u)
    for axis in range(2, u.ndim):
        end = (0, 0) * (u.ndim - 1 - axis) + (0, 1)
        squares = squares + F.pad(u.diff(dim=axis).square(), end)
    return relative_error(a, wanted) + norm_weight * (2 * u - 1).abs().pow(6).mean() + tv_weight * squares.mean()
