"""What a unit looks for: the sample that excites it most, found by going uphill (Erhan 2009; Simonyan 2013), over 1, 2
or 3 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidOption
from ..progress import Progress
from .attribute import Target
from .parametrisation import spectrum


@dataclass(frozen=True, eq=False)
class Maximised:
    """`sample`: (1, c, *spatial) float32, values low...high. `activation`: the target there. `trace`: the target after
    each step, of the sample as it was shown, which is moved about."""

    sample: Tensor
    activation: float
    trace: tuple[float, ...]


def maximize(
    net: nn.Module,
    target: Target,
    shape: Sequence[int],
    *,
    steps: int = 256,
    seed: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    jitter: int = 8,
    blur: float = 0.5,
    decay: float = 1.0,
    rate: float = 0.05,
    on_progress: Progress | None = None,
) -> Maximised:
    """The sample of `shape` (c, *spatial) for which the target is largest."""
    if steps < 1:
        raise InvalidOption(f"steps is {steps}; it must be at least 1")
    made = spectrum(net, shape, low=low, high=high, decay=decay, blur=blur)
    generator = torch.Generator().manual_seed(seed)
    axes = tuple(range(2, len(shape) + 1))
    z = made.start(generator, 0.01)
    optimizer = torch.optim.Adam([z], lr=rate)
    trace: list[float] = []
    factor = 0.0
    for step in range(steps):
        shift = torch.randint(-jitter, jitter + 1, (len(axes),), generator=generator).tolist()
        with torch.enable_grad():
            value = target(net, made.sample(z.requires_grad_(True)).roll(shift, axes)).sum()
            (slope,) = torch.autograd.grad(value, z)
        z.requires_grad_(False)
        factor = factor or 1 / max(float(slope.square().mean().sqrt()), 1e-30)
        z.grad = -factor * slope
        optimizer.step()
        trace.append(float(value.detach()))
        if on_progress:
            on_progress(step + 1, steps, {"activation": trace[-1]})
    with torch.no_grad():
        x = made.sample(z)
        return Maximised(x.float(), float(target(net, x)), tuple(trace))
