"""What a layer keeps of a sample: another sample with the same activations there (Mahendran & Vedaldi 2015), over 1, 2
or 3 dimensions. What differs between the two is what the layer does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption
from ..nets.activations import activations
from ..progress import Progress
from .parametrisation import START, spectrum

# Blurs of the spectrum, one after the other: each has a tenth of the steps, the last the rest. A net that folds (PReLUs
# of negative slope take two values to one) has wrong answers that nearly fit, patch by patch; where the coarse shapes
# are right before the details, they do not arise.
BLURS = (4.0, 2.0, 1.0, 0.0)
FEW = 20  # steps below which a tenth of them would be too little to go anywhere: all of them go to the last


@dataclass(frozen=True, eq=False)
class Inverted:
    """`sample`: (1, c, *spatial) float32, values low...high. `error`: `|a(x') - a(x)|^2 / |a(x)|^2` of its activations.
    `trace`: the cost at each evaluation."""

    sample: Tensor
    error: float
    trace: tuple[float, ...]


@torch.inference_mode(False)  # gradients are needed, whatever is switched off around it
def invert(
    net: nn.Module,
    x: Tensor,
    layer: str,
    *,
    steps: int = 200,
    seed: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    norm_weight: float = 0.01,
    tv_weight: float = 1.0,
    decay: float = 1.0,
    on_progress: Progress | None = None,
) -> Inverted:
    """A sample that `layer` cannot tell from x (1, c, *spatial), by L-BFGS over the coefficients of its spectrum
    (`lens.parametrisation`) from noise, from coarse to fine. The same seed gives the same sample.

    The cost is `inversion_cost`. net: in eval mode; left as it was. steps: evaluations of the cost, about (no line
    search is left half-way). low, high: what values can be. decay: of the spectrum.

    Raises UnknownName for a layer there is none of, InvalidOption where no activation of the layer differs from zero
    or one is not finite, or for options that cannot be.
    """
    if steps < 2 or norm_weight < 0 or tv_weight < 0:
        raise InvalidOption(
            f"steps is {steps}, norm_weight {norm_weight} and tv_weight {tv_weight}: they must be at least 2, 0 and 0"
        )
    if len(x) != 1:
        raise InvalidOption(f"x has shape {tuple(x.shape)}; it must be one sample (1, c, *spatial)")
    blurs = BLURS if steps >= FEW else BLURS[-1:]
    stages = [spectrum(net, x.shape[1:], low=low, high=high, decay=decay, blur=blur) for blur in blurs]
    made = stages[0]
    with torch.no_grad():
        wanted = activations(net, x.clone().to(made.filter), [layer])[layer]
    if not wanted.any() or not wanted.isfinite().all():
        raise InvalidOption(f"layer {layer!r} gives zeros only, or numbers that are not finite, for this sample")
    z = made.noise(torch.Generator().manual_seed(seed), START)
    trace: list[float] = []
    factor = 0.0  # brings the first gradient to a mean square of 1: torch drops what it takes for nothing

    def evaluate() -> Tensor:
        nonlocal factor
        with torch.enable_grad():
            moved = z.detach().requires_grad_(True)
            sample = made.sample(moved)
            a = activations(net, sample, [layer])[layer]
            u = (sample - low) / (high - low)
            cost = inversion_cost(a, wanted, u, norm_weight=norm_weight, tv_weight=tv_weight)
            (slope,) = torch.autograd.grad(cost, moved)
        factor = factor or 1 / max(float(slope.square().mean().sqrt()), 1e-30)
        trace.append(cost.item())
        if on_progress:
            on_progress(min(len(trace), steps), steps, {"cost": trace[-1]})
        z.grad = factor * slope
        return factor * cost.detach()

    for finer in stages:
        z, made = made.converted(z, finer), finer
        share = max(1, steps - len(trace) if finer is stages[-1] else steps // 10)
        limits: dict[str, Any] = {"max_iter": share, "max_eval": share, "tolerance_grad": 0.0, "tolerance_change": 0.0}
        torch.optim.LBFGS([z], history_size=10, line_search_fn="strong_wolfe", **limits).step(evaluate)
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
