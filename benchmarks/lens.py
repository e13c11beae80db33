"""What does looking for top patches cost beside running the net, and does memory grow with the data?

    python benchmarks/lens.py [throughput] [memory] [--out out/lens] [--strict]

throughput  `top_patches` over five layers of `vgg-slim` (all units, 128 x 128 noise, batches of 16) against plain
            batched inference through the same layers, in turns in one process
memory      peak resident memory of a process that looks at 1,000 and of one that looks at 20,000 samples of 48 x 48

Each part writes OUT/PART.json; the load of the machine is written beside the figures.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from targets import Target, parser_of, run_parts

LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu3_4", "relu4_1"]


def noise(samples: int, side: int, batch: int) -> Iterator[Any]:
    import torch

    for first in range(0, samples, batch):
        generator = torch.Generator().manual_seed(first)
        yield torch.rand(min(batch, samples - first), 3, side, side, generator=generator)


def measure_throughput() -> dict[str, Any]:
    import torch

    from likeness.lens.models import open_model
    from likeness.lens.patches import top_patches
    from likeness.nets.activations import activations

    net = open_model("vgg-slim").net
    data = list(noise(256, 128, 16))

    def plain() -> None:
        with torch.no_grad():
            for x in data:
                activations(net, x, LAYERS)

    def patches() -> None:
        top_patches(net, data, layers=LAYERS)

    times: dict[str, list[float]] = {"plain": [], "patches": []}
    for _ in range(4):
        for name, run in (("plain", plain), ("patches", patches)):
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    best = {name: min(own[1:]) for name, own in times.items()}
    return {
        "plain_per_s": 256 / best["plain"],
        "patches_per_s": 256 / best["patches"],
        "share": best["plain"] / best["patches"],
    }


ONE = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from lens import LAYERS, noise
from likeness.lens.models import open_model
from likeness.lens.patches import top_patches
top_patches(open_model("vgg-slim", size=48).net, noise(int(sys.argv[1]), 48, 16), layers=LAYERS)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def measure_memory() -> dict[str, Any]:
    here = str(Path(__file__).parent)
    peaks = [
        int(subprocess.run([sys.executable, "-c", ONE, str(n), here], check=True, capture_output=True).stdout)
        for n in (1_000, 20_000)
    ]
    return {"few_mb": peaks[0] / 1e6, "many_mb": peaks[1] / 1e6, "growth": peaks[1] / peaks[0]}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"throughput": measure_throughput, "memory": measure_memory}
TARGETS = {"throughput": (Target("share", 0.9, least=True),), "memory": (Target("growth", 1.05),)}


def main() -> int:
    return run_parts(parser_of(__doc__, PARTS, "out/lens").parse_args(), PARTS, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
