"""What a unit looks for: the sample that excites it most, found by going uphill (Erhan 2009; Simonyan 2013), over 1, 2
or 3 dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, SilentUnit
from ..progress import Progress
from .attribute import Target, relu_rule
from .parametrisation import START, Spectrum, spectrum

PATIENCE = 64  # steps in which a unit must wake


@dataclass(frozen=True, eq=False)
class Maximised:
    """`sample`: (1, c, *spatial) float32, values low...high. `activation`: the target there. `trace`: the target before
    each step, of the sample as the net was shown it."""

    sample: Tensor
    activation: float
    trace: tuple[float, ...]


@torch.inference_mode(False)  # gradients are needed, whatever is switched off around it
def maximize(
    net: nn.Module,
    target: Target,
    shape: Sequence[int],
    *,
    steps: int = 128,
    seed: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    jitter: int = 8,
    blur: float = 1.0,
    decay: float = 1.0,
    contrast: float = 2.0,
    rate: float = 0.1,
    on_progress: Progress | None = None,
) -> Maximised:
    """The sample of `shape` (c, *spatial) for which the target is largest, by Adam over the coefficients of its
    spectrum (`lens.parametrisation`). The same seed gives the same sample.

    net: in eval mode; left as it was. It is shown samples of its own weights' type, on their device.
    target: `unit(layer, channel, "mean")` gives the whole sample the texture that a channel looks for (lucid's
        "channel"), "centre" what one unit in the middle does ("neuron"), None what drives the largest of its units;
        `output(class)`; or any function (net, x) -> (1,).
    low, high: what values can be: 0...1 for our VGGs, -1...1 for encoders of faces.
    jitter: before each step the sample is shifted round by up to so many positions along each axis (Olah 2017), at most
        an eighth of it, so that nothing can rest on the grid of the net's strides; by less and less, and in the
        second half not at all.
    blur: deviation of a Gaussian, in positions, that the sample is seen through. decay: frequencies f count 1/f^decay.
    contrast: the root mean square that values may have before the sigmoid, in place of Erhan's fixed norm: at 2 a
        picture is as strong as a photograph of strong contrast, without bound it goes to pure black, white and primary
        colours.
    rate: how far the first step moves each coefficient; it falls to 0 along a cosine.

    A unit that does not fire has no gradient. Until it does, the way back passes closed ReLUs, too, where that would
    open them (lucid's "redirected ReLU").

    Raises SilentUnit where it does not fire within 64 steps, or in the end, UnknownName for a layer or unit there is
    none of, InvalidOption for options that cannot be and a target that is not one finite number.
    """
    if steps < 1 or jitter < 0:
        raise InvalidOption(f"steps is {steps} and jitter {jitter}; they must be at least 1 and 0")
    if not rate > 0 or not contrast > 0:
        raise InvalidOption(f"rate is {rate} and contrast {contrast}; both must be above 0")
    made = spectrum(net, shape, low=low, high=high, decay=decay, blur=blur)
    generator = torch.Generator().manual_seed(seed)
    z = made.noise(generator, START)
    optimizer = torch.optim.Adam([z], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trace: list[float] = []
    factor = 0.0  # brings the gradient to a mean square of about 1, which Adam's epsilon takes for granted
    for step in range(steps):
        left = max(0.0, 1 - 2 * step / steps)
        reach = [int(left * min(jitter, n // 8)) for n in shape[1:]]
        shift = [int(torch.randint(-n, n + 1, (), generator=generator)) for n in reach]
        value, slope = _slope(net, target, made, z, shift, "gradient")
        if slope.any():
            factor = factor or _factor(slope)
            z.grad = -factor * slope
        else:
            slope = _slope(net, target, made, z, shift, "redirected")[1]
            if not slope.any() or (not factor and step == PATIENCE):
                break
            z.grad = -_factor(slope) * slope
        optimizer.step()
        schedule.step()
        z.mul_(min(1.0, contrast / max(made.contrast(z), 1e-12)))
        trace.append(value)
        if on_progress:
            on_progress(step + 1, steps, {"activation": value})
    activation, slope = _slope(net, target, made, z, [0] * (len(shape) - 1), "gradient")
    if not slope.any():
        raise SilentUnit(
            f"the unit does not fire after {len(trace)} steps from noise (seed {seed}): it may be dead, or may need "
            f"another seed or more steps"
        )
    return Maximised(made.sample(z).float(), activation, tuple(trace))


def _slope(
    net: nn.Module, target: Target, made: Spectrum, z: Tensor, shift: Sequence[int], rule: str
) -> tuple[float, Tensor]:
    """The target of the sample moved round by `shift`, and its gradient by the coefficients."""
    with torch.enable_grad(), relu_rule(rule):
        z = z.detach().requires_grad_(True)
        value = target(net, made.sample(z).roll(tuple(shift), tuple(range(2, 2 + len(shift)))))
        if value.shape != (1,) or not math.isfinite(value.item()):
            raise InvalidOption(
                f"the target gives {value.detach().tolist()} for a sample; it must be one finite number"
            )
        return value.item(), torch.autograd.grad(value.sum(), z)[0]


def _factor(slope: Tensor) -> float:
    return 1 / float(slope.double().square().mean().sqrt())
