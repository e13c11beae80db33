"""Whether this machine convolves faster in bfloat16 than in float32: measured, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

GAIN = 1.15  # below it, the rounding is not worth it
# Side, gain and rounds of each convolution that is timed: below the first two gains it is not the processor that
# computes in bfloat16.
PROBES = ((16, 0.2, 3), (32, 0.4, 3), (128, GAIN, 6))


@lru_cache(maxsize=8)
def bfloat16_is_faster(device: str = "cpu") -> bool:
    """Forward and backward of one typical convolution (32 to 32 channels, 3x3, 128x128 positions, channels last) under
    autocast take less than 1/1.15 of float32's time. Some processors emulate bfloat16 ten or a hundred times slower:
    there a sixteenth or a sixty-fourth of it shows as much, at once. Measured once per process."""
    return all(_probe(device, side, gain, turns) for side, gain, turns in PROBES)


def _probe(device: str, side: int, gain: float, turns: int) -> bool:
    x, kernel = (
        torch.zeros(shape, device=device).to(memory_format=torch.channels_last).requires_grad_(True)
        for shape in ((2, 32, side, side), (32, 32, 3, 3))
    )
    return faster_in_bfloat16(lambda: F.conv2d(x, kernel, padding=1), device, turns=turns, gain=gain)


def faster_in_bfloat16(forward: Callable[[], Tensor], device: str, *, turns: int = 2, gain: float = GAIN) -> bool:
    """Whether `forward` and going back through it under autocast take less than 1/`gain` of float32's time: the best of
    `turns` rounds, of which the first, which compiles kernels, does not count."""
    best = {False: float("inf"), True: float("inf")}
    with torch.enable_grad():
        for turn in range(turns):
            for low in (False, True):
                start = time.perf_counter()
                with torch.autocast(device, torch.bfloat16, enabled=low):
                    out = forward()
                out.float().sum().backward()
                if device != "cpu":
                    torch.accelerator.synchronize()
                if turn:
                    best[low] = min(best[low], time.perf_counter() - start)
    return best[False] > gain * best[True]
