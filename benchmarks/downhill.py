"""How many evaluations of J does it take? What curvature by frequency and colour saves, and a slim net standing in.

    python benchmarks/downhill.py [curvature] [warm_up] [--size 192] [--evaluations 500] [--data FOLDER]
        [--out out/downhill]

curvature  L-BFGS from its usual beginning (one number, y's / y'y) and from the covariances of `style.curvature`, with
           few pairs and many, by `vgg-slim`: evaluations until J is what the usual beginning with 100 pairs reaches in
           `--evaluations`. Pairs 1 to 4 of `vgg19.py`, one scale, from the content, in float32
warm_up    the same by the full normalised VGG-19 of FOLDER/weights, from the content and from where `vgg-slim` standing
           in for it ends (whose own evaluations do not count): evaluations to 1.05 times what the content's start
           reaches in `--evaluations`, on pair 1

Counts do not depend on what else the machine does. Each part writes OUT/PART.json; there is no target.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from targets import data_folder, parser_of, run_parts
from vgg19 import PAIRS, large, samples

from likeness.style import curvature
from likeness.style.objective import Style
from likeness.style.pictures import open_encoder
from likeness.style.stylize import stylize_sample

NEVER = sys.maxsize
WAYS: dict[str, dict[str, Any]] = {  # pairs, in bfloat16 or not, and how many are seen before the curvature counts
    "100 pairs, one number": {"history": 100, "compact": False, "settled": NEVER},
    "10 pairs, one number": {"history": 10, "compact": False, "settled": NEVER},
    "10 pairs": {"history": 10, "compact": False, "settled": curvature.SETTLED},
    "10 pairs in bfloat16": {"history": 10, "compact": True, "settled": curvature.SETTLED},
    "30 pairs": {"history": 30, "compact": False, "settled": curvature.SETTLED},
}


def trace(options: Any, number: int, encoder: str | Path, settled: int, **run: Any) -> list[float]:
    """J after each evaluation at full size, of pair `number` of `vgg19.py`."""
    content, style = samples(options, *PAIRS[number])
    chosen = {"scales": 1, "tolerance": 0.0, "precision": "fp32", "steps": options.evaluations} | run
    with patch.object(curvature, "SETTLED", settled):
        return list(stylize_sample(open_encoder(encoder), content, [Style(style)], **chosen).J)


def reached(J: list[float], goal: float) -> int | None:
    """Evaluations until J was at most `goal`; None where it never was."""
    return next((count for count, value in enumerate(J, 1) if goal >= value), None)


def measure_curvature(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, (content, style) in enumerate(PAIRS[:4]):
        runs = {way: trace(options, number, "vgg-slim", **how) for way, how in WAYS.items()}
        goal = min(next(iter(runs.values())))
        for way, J in runs.items():
            found[f"{content} x {style}, {way}"] = reached(J, goal)
            print(f"{content} x {style}, {way}: {reached(J, goal)} evaluations to J {goal:.4g}", flush=True)
    return found


def measure_warm_up(options: Any) -> dict[str, Any]:
    runs = {
        name: trace(options, 0, large(options), curvature.SETTLED, history=10, warm_up=slim)
        for name, slim in (("cold", None), ("warm", open_encoder("vgg-slim")))
    }
    return {name: reached(J, 1.05 * min(runs["cold"])) for name, J in runs.items()}


PARTS = {"curvature": measure_curvature, "warm_up": measure_warm_up}


def main() -> int:
    parser = parser_of(__doc__, PARTS, "out/downhill")
    parser.add_argument("--size", type=int, default=192, help="longer side in pixels")
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    return run_parts(options, {name: partial(part, options) for name, part in PARTS.items()}, dict.fromkeys(PARTS, ()))


if __name__ == "__main__":
    sys.exit(main())
