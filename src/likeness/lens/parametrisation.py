"""Samples by their spectrum: what is moved while a sample is looked for is not its values but its frequencies, each
scaled by 1/f as in natural samples, and a sigmoid keeps the values in their range (Olah 2017, "Feature visualization").
Steepest ascent over values finds noise of the highest frequencies; over such coefficients it finds shapes. Over 1, 2 or
3 dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidOption

# Square root of the covariance of red, green and blue in ImageNet's pictures, its largest column of length 1 (lucid,
# Olah 2017): brightness moves most, green against magenta least.
COLOURS = ((0.5631, 0.1949, 0.0433), (0.5847, 0.0, -0.1083), (0.5847, -0.1949, 0.0650))


START = 0.1  # contrast of the noise that a search begins with: grey, yet most units fire somewhere


@dataclass(frozen=True, eq=False)
class Spectrum:
    """How coefficients z (1, c, *half, 2) become a sample (1, c, *spatial) of values low...high.

    `filter` (*half): the factor of each frequency of `rfftn`. `colours` (3, 3) or None: what mixes the channels.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    filter: Tensor
    colours: Tensor | None

    def noise(self, generator: torch.Generator, contrast: float) -> Tensor:
        """Coefficients of noise of that contrast (about)."""
        draw = torch.randn(1, self.shape[0], *self.filter.shape, 2, generator=generator)
        return (contrast / math.sqrt(2) * draw).to(self.filter)

    def sample(self, z: Tensor) -> Tensor:
        """`low + (high - low) sigmoid(colours irfftn(filter z))`."""
        s = self._values(z)
        if self.colours is not None:
            s = torch.einsum("ij,bj...->bi...", self.colours, s)
        return self.low + (self.high - self.low) * torch.sigmoid(s)

    def converted(self, z: Tensor, finer: Spectrum) -> Tensor:
        """The coefficients with which `finer`, a spectrum with less blur, gives the same sample."""
        least = torch.finfo(z.dtype).tiny  # what a wide blur leaves of the highest frequencies may be 0
        return z * (self.filter / finer.filter.clamp_min(least))[..., None]

    def contrast(self, z: Tensor) -> float:
        """Root mean square of `irfftn(filter z)`: 1 for coefficients of mean square 1."""
        return float(self._values(z).square().mean().sqrt())

    def _values(self, z: Tensor) -> Tensor:
        spatial = self.shape[1:]
        axes = tuple(range(2, 2 + len(spatial)))
        return torch.fft.irfftn(torch.view_as_complex(z) * self.filter, s=spatial, dim=axes, norm="ortho")


def spectrum(
    net: nn.Module, shape: Sequence[int], *, low: float, high: float, decay: float = 1.0, blur: float = 0.0
) -> Spectrum:
    """The parametrisation of samples of `shape` (c, *spatial), of the type and on the device of the net's weights.

    The filter is `max(f, 1/n)^-decay exp(-2 (pi blur f)^2)`, f in cycles per position and n the longest axis, brought
    to a mean square of 1 over the whole spectrum. blur: deviation, in positions, of a Gaussian that the sample is seen
    through before its sigmoid.

    Raises InvalidOption where the shape has not 1 to 3 spatial axes, low is not below high, or decay or blur is
    negative.
    """
    c, *spatial = shape
    if not 1 <= len(spatial) <= 3 or min(shape) < 1:
        raise InvalidOption(f"shape is {tuple(shape)}; it must be (channels, *spatial) with 1 to 3 spatial axes")
    if not low < high:
        raise InvalidOption(f"low is {low} and high {high}; low must be below high")
    if decay < 0 or blur < 0:
        raise InvalidOption(f"decay is {decay} and blur {blur}; both must be at least 0")
    weight = next((p for p in net.parameters() if p.is_floating_point()), torch.zeros(()))
    squares = torch.zeros((), dtype=torch.float64)
    for n in spatial:
        squares = squares[..., None] + torch.fft.fftfreq(n, dtype=torch.float64).square()
    f = squares.sqrt()
    full = f.clamp_min(1 / max(spatial)) ** -decay * torch.exp(-2 * (math.pi * blur * f) ** 2)
    full = full / full.square().mean().sqrt()
    kept = full[..., : spatial[-1] // 2 + 1]  # the rest of the last axis mirrors it
    colours = torch.tensor(COLOURS).to(weight) if c == 3 and len(spatial) == 2 else None
    return Spectrum(tuple(shape), low, high, kept.to(weight), colours)
