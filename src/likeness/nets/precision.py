"""Whether this machine convolves faster in bfloat16 than in float32: measured, not assumed."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
import torch.nn.functional as F

GAIN = 1.15  # below it, the rounding is not worth it


@lru_cache(maxsize=8)
def bfloat16_is_faster(device: str = "cpu") -> bool:
    """Forward and backward of one typical convolution (32 to 32 channels, 3x3, 64x64 positions, channels last) under
    autocast take less than 1/1.15 of float32's time. Some processors emulate bfloat16 a hundred times slower, so the
    probe is small: milliseconds where it is fast, under a second where it is not. Measured once per process."""
    x, kernel = (
        torch.zeros(shape, device=device).to(memory_format=torch.channels_last).requires_grad_(True)
        for shape in ((2, 32, 64, 64), (32, 32, 3, 3))
    )
    best = {False: float("inf"), True: float("inf")}
    with torch.enable_grad():
        for turn in range(4):  # the first compiles kernels
            for low in (False, True):
                start = time.perf_counter()
                with torch.autocast(device, torch.bfloat16, enabled=low):
                    out = F.conv2d(x, kernel, padding=1)
                out.float().sum().backward()
                if device != "cpu":
                    torch.cuda.synchronize()
                if turn:
                    best[low] = min(best[low], time.perf_counter() - start)
    return best[False] > GAIN * best[True]
