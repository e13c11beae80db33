"""How fast is painting, and what does an evaluation of the cost itself cost?

    python benchmarks/style.py [command] [fast] [evaluation] [evaluation_vgg19] [--data FOLDER] [--out out/style]
        [--strict]

command     `likeness stylize` as a user types it, default settings, 512 x 384 pixels, three times: seconds, and
            seconds to the first preview, medians
fast        `stylize_fast` at 512 x 384 by the net that ships, in a process that has done it before: median
evaluation  J and its gradient at 512 x 384 against forward and backward of the same layers and nothing else: written
            with torch's own functions (`bare`, which the target is about), and through the library's net (`own`, which
            is cheaper). In turns in one process on one thread, in float32; CPU time, which other work on the machine
            disturbs least; the median over turns of each quotient; the net's work in GFLOP/s beside that of the fastest
            plain convolution found here
evaluation_vgg19  the same with the full normalised VGG-19 of FOLDER/weights

Pictures: style/content and style/paintings_pd of FOLDER (default: $LIKENESS_DATA). Each part writes OUT/PART.json; the
load of the machine is written beside every figure.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from targets import Target, data_folder, parser_of, run_parts

from likeness.cli.main import ENVIRONMENT

SIZE = 512, 384


def pictures(data: Path) -> tuple[Path, Path]:
    """A photograph in landscape and a painting."""
    return data / "style/content/tubingen.jpg", data / "style/paintings_pd/vangogh_starry_night_1889.jpg"


def cropped(source: Path, target: Path, size: tuple[int, int] = SIZE, centre: tuple[float, float] = (0.5, 0.5)) -> Path:
    """The middle of a picture, or what lies around `centre` (shares of width and height), at `size`, as PNG."""
    from PIL import Image, ImageOps

    with Image.open(source) as image:
        ImageOps.fit(image.convert("RGB"), size, centering=centre).save(target)
    return target


def measure_command(data: Path, times: int = 3) -> dict[str, Any]:
    """Medians. Raises RuntimeError where the command fails or shows no preview."""
    runs = [one_command(data) for _ in range(times)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def one_command(data: Path) -> dict[str, Any]:
    content, style = pictures(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, previews = cropped(content, folder / "photo.png"), folder / "previews"
        words = ["stylize", str(photo), str(style), "-o", str(folder / "out.png"), "--preview", str(previews), "--json"]
        began, first = time.monotonic(), None
        with open(folder / "said", "wb") as said:  # a pipe that nobody reads would fill up
            run = subprocess.Popen([sys.executable, "-m", "likeness", *words], stdout=subprocess.PIPE, stderr=said)
        while run.poll() is None:
            if first is None and previews.is_dir() and any(previews.iterdir()):
                first = time.monotonic() - began
            time.sleep(0.02)
        seconds = time.monotonic() - began
        if run.returncode or first is None:
            raise RuntimeError(f"likeness stylize ended with {run.returncode}: {(folder / 'said').read_text()}")
        assert run.stdout is not None
        result = json.loads(run.stdout.read())
    return {"seconds": seconds, "first_preview_s": first, "evaluations": result["steps"], "J": result["parts"]["J"]}


def measure_fast(data: Path) -> dict[str, Any]:
    from likeness.nets.opening import locate
    from likeness.style import adain
    from likeness.style.fast import stylize_fast

    net = adain.load(locate("adain", kind="adain", example="adain")[0])
    content, style = pictures(data)
    times = []
    with tempfile.TemporaryDirectory() as name:
        photo = cropped(content, Path(name) / "photo.png")
        for _ in range(12):
            began = time.perf_counter()
            stylize_fast(photo, style, net=net)
            times.append(time.perf_counter() - began)
    return {"p50_s": statistics.median(times[2:]), "fastest_s": min(times)}


def measure_evaluation(data: Path, encoder: str = "vgg-slim", turns: int = 50) -> dict[str, Any]:
    """The objective, and the same layers with a sum as cost, each forward and backward. encoder: a name or a file of
    `data`."""
    import torch
    from plain import features

    from likeness.nets.activations import activations
    from likeness.samples.images import read_image
    from likeness.style.objective import Style, objective
    from likeness.style.pictures import open_encoder, to_sample
    from likeness.style.tiling import value_and_gradient

    torch.set_num_threads(1)
    content, style = (to_sample(read_image(one), exact=SIZE[::-1]) for one in pictures(data))
    net = open_encoder(encoder if encoder == "vgg-slim" else data / encoder)
    J = objective(net, content, [Style(style)])

    def through(layers: Callable[[Any], dict[str, Any]]) -> None:
        x = content.clone().requires_grad_(True)
        found = layers(x)
        torch.autograd.grad(torch.stack([found[layer].sum() for layer in J.layers]).sum(), x)

    def bare() -> None:
        through(partial(features, net, wanted=J.layers))

    def own() -> None:
        through(partial(activations, net, layers=J.layers))

    def whole() -> None:
        value_and_gradient(J, content)

    channels, side = 64, 128
    x = torch.randn(1, channels, side, side).to(memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3)

    def plain() -> None:
        torch.nn.functional.conv2d(x, kernel, padding=1)

    turn = in_turns({"bare": bare, "whole": whole, "own": own, "plain": plain}, turns)
    flops = 2 * 2 * multiply_adds(net, content)  # forward, and as much again back to the sample; weights stay
    typical = {name: statistics.median(times) for name, times in turn.items()}
    ratios = {
        name: statistics.median(w / other for w, other in zip(turn["whole"], turn[name], strict=True))
        for name in ("bare", "own")
    }
    return {
        **{f"{name}_s": typical[name] for name in ("bare", "own", "whole")},
        **{f"to_{name}": ratio for name, ratio in ratios.items()},
        "gflops": flops / typical["whole"] / 1e9,
        "peak_gflops": 2 * 9 * channels**2 * side**2 / typical["plain"] / 1e9,
    }


def in_turns(parts: Mapping[str, Callable[[], None]], turns: int) -> dict[str, list[float]]:
    """The CPU time of each in each of `turns` runs, one after the other in turns; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(turns):
        for name, part in parts.items():
            began = time.process_time()
            part()
            times[name].append(time.process_time() - began)
    return {name: own[1:] for name, own in times.items()}


def multiply_adds(net: Any, x: Any) -> int:
    """Of the convolutions of one forward pass."""
    from likeness.nets.activations import layer_shapes

    shapes = layer_shapes(net, x)
    return sum(
        math.prod(shapes[name][2:]) * module.weight.numel()
        for name, module in net.named_children()
        if name.startswith("conv")
    )


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "command": measure_command,
    "fast": measure_fast,
    "evaluation": measure_evaluation,
    "evaluation_vgg19": partial(measure_evaluation, encoder="weights/vgg19_normalised_relu4_1.npz", turns=5),
}

TARGETS = {
    "command": (Target("seconds", 30, "s"), Target("first_preview_s", 3, "s")),
    "fast": (Target("p50_s", 1, "s"),),
    "evaluation": (Target("to_bare", 1.05),),
    "evaluation_vgg19": (Target("to_bare", 1.05),),
}


def main() -> int:
    parser = parser_of(__doc__, PARTS, "out/style")
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    for name, value in ENVIRONMENT.items():  # before torch is imported
        os.environ.setdefault(name, value)
    return run_parts(options, {name: partial(part, options.data) for name, part in PARTS.items()}, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
