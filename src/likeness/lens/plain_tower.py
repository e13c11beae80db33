"""A tower in NumPy, there and back: the shares of a score (`lens.differences`) wherever faces are recognised.

Recognising needs no torch, so explaining why two faces match should need none either; to import torch takes longer than
all that is computed here. Each layer is written as it is with its way back beside it. Batch norms are folded into the
convolutions before them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import WeightsError
from ..samples.files import reading_safetensors

EPS = 1e-5  # of the batch norms
SAME = 1e-7  # a smaller change is none

Back = Callable[[np.ndarray], np.ndarray]  # from what one unit of change of each output adds to that of each input


@dataclass(frozen=True, eq=False)
class Convolution:
    """(b, in, *positions) to (b, out, *positions'): kernel (out, in, *size), bias (out,)."""

    kernel: np.ndarray
    bias: np.ndarray
    stride: int = 1
    padding: int = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        dims = x.ndim - 2
        x = np.pad(x, [(0, 0)] * 2 + [(self.padding, self.padding)] * dims)
        windows = sliding_window_view(x, self.kernel.shape[2:], tuple(range(2, x.ndim)))
        windows = windows[(slice(None),) * 2 + (slice(None, None, self.stride),) * dims]
        y = np.tensordot(windows, self.kernel, ([1, *range(-dims, 0)], list(range(1, dims + 2))))
        return np.moveaxis(y + self.bias, -1, 1)

    def back(self, slopes: np.ndarray, positions: tuple[int, ...]) -> np.ndarray:
        """The transposed convolution (b, out, *positions') to (b, in, *positions)."""
        padded = [n + 2 * self.padding for n in positions]
        out = np.zeros((len(slopes), self.kernel.shape[1], *padded), slopes.dtype)
        for place in np.ndindex(self.kernel.shape[2:]):
            seen = [slice(i, i + self.stride * n, self.stride) for i, n in zip(place, slopes.shape[2:], strict=True)]
            weights = self.kernel[(slice(None), slice(None), *place)]
            out[(slice(None), slice(None), *seen)] += np.moveaxis(np.tensordot(slopes, weights, (1, 0)), -1, 1)
        inner = [slice(self.padding, self.padding + n) for n in positions]
        return out[(slice(None), slice(None), *inner)]


@dataclass(frozen=True, eq=False)
class Stage:
    """A convolution that halves the resolution and a PReLU, then blocks x + conv(PReLU(conv(x)))."""

    entry: Convolution
    slopes: np.ndarray
    blocks: tuple[tuple[Convolution, np.ndarray, Convolution], ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.forward(x)[0]

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Back]:
        """The maps of x and the way back of shares: x holds the blank sample and the one that is explained."""
        positions = x.shape[2:]
        x, prelu_back = _prelu(self.entry(x), self.slopes)
        backs: list[Back] = []
        for first, slopes, second in self.blocks:
            y, inner = _prelu(first(x), slopes)
            backs.append(_residual(first, inner, second))
            x = x + second(y)

        def back(shares: np.ndarray) -> np.ndarray:
            for block in reversed(backs):
                shares = block(shares)
            return self.entry.back(prelu_back(shares), positions)

        return x, back


def _residual(first: Convolution, prelu_back: Back, second: Convolution) -> Back:
    def back(shares: np.ndarray) -> np.ndarray:
        positions = shares.shape[2:]
        return shares + first.back(prelu_back(second.back(shares, positions)), positions)

    return back


def _prelu(x: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, Back]:
    """PReLU of (b, c, *positions), and its way back by the Rescale rule (Shrikumar 2017, section 3.5.2)."""
    slope = np.where(x > 0, 1, slopes.reshape(-1, *[1] * (x.ndim - 2)))
    y = slope * x
    change = x[1:] - x[:1]
    same = np.abs(change) < SAME
    share = np.where(same, slope[1:], (y[1:] - y[:1]) / np.where(same, 1, change))
    return y, lambda shares: shares * share


@dataclass(frozen=True, eq=False)
class PlainTower:
    """`nets.identity.Tower` in eval mode: stages, a depthwise convolution over the whole last map (kernel
    (c, *positions), bias (c,)) and a linear map (matrix (d, c), offset (d,))."""

    stages: tuple[Stage, ...]
    whole: np.ndarray
    bias: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray

    def maps(self, x: np.ndarray, late: int) -> np.ndarray:
        """Samples (b, c, *spatial) to the maps of all stages but the last `late`."""
        for stage in self.stages[: len(self.stages) - late]:
            x = stage(x)
        return x

    def codes(self, maps: np.ndarray, late: int) -> tuple[np.ndarray, Back]:
        """From those maps to codes (b, d) before they are brought to length 1, and the way back of shares (d,) to
        (c, *positions), where `maps` holds the blank sample and the one that is explained."""
        backs: list[Back] = []
        for stage in self.stages[len(self.stages) - late :]:
            maps, back = stage.forward(maps)
            backs.append(back)
        codes = ((maps * self.whole).reshape(*maps.shape[:2], -1).sum(2) + self.bias) @ self.matrix.T + self.offset

        def to_maps(shares: np.ndarray) -> np.ndarray:
            pooled = (shares @ self.matrix).reshape(-1, *[1] * (self.whole.ndim - 1))
            shares = (pooled * self.whole)[None]
            for back in reversed(backs):
                shares = back(shares)
            return shares[0]

        return codes, to_maps


def read(path: str | os.PathLike[str]) -> PlainTower:
    """A tower from the safetensors file that `nets.identity.save` wrote, as float32. Raises WeightsError."""
    from safetensors.numpy import load_file

    try:
        with reading_safetensors(path):
            return from_arrays({name: array.astype(np.float32) for name, array in load_file(path).items()})
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} does not hold the weights of an encoder of likeness: {error}") from error


def from_arrays(weights: dict[str, np.ndarray]) -> PlainTower:
    """A tower from its weights by their names. Raises KeyError for one that is missing."""

    def norm(name: str) -> tuple[np.ndarray, np.ndarray]:
        scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + EPS)
        return scale, weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale

    def folded(conv: str, after: str) -> tuple[np.ndarray, np.ndarray]:
        kernel, (scale, bias) = weights[f"{conv}.weight"], norm(after)
        return kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1)), bias

    def body(name: str) -> tuple[Convolution, np.ndarray, Convolution]:
        first, second = (Convolution(*folded(f"{name}.{i}", f"{name}.{i + 1}"), padding=1) for i in (0, 3))
        return first, weights[f"{name}.2.weight"], second

    def stage(name: str) -> Stage:
        kernel, bias = folded(f"{name}.0", f"{name}.1")
        blocks = sum(key.startswith(f"{name}.") and key.endswith(".body.0.weight") for key in weights)
        bodies = tuple(body(f"{name}.{3 + i}.body") for i in range(blocks))
        return Stage(Convolution(kernel, bias, stride=kernel.shape[2]), weights[f"{name}.2.weight"], bodies)

    count = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("stages."))
    whole, bias = folded("whole", "norm")
    stages = tuple(stage(f"stages.{i}") for i in range(count))
    return PlainTower(stages, whole[:, 0], bias, weights["code.weight"], weights["code.bias"])
