"""Put a trained classifier into the package: `python tools/ship_classifier.py NET.safetensors`.

Writes alexnet-slim.safetensors with kernels as float16, and the card beside it. `--metrics`: what
`likeness train classifier --json` printed: its figures go onto the card. `--drawing`: a picture of the first kernels.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from likeness.nets import classifier
from likeness.nets.catalogue import SHIPPED, write_card
from likeness.samples.images import write_image

NAME = "alexnet-slim"
ZOOM, GAP, COLUMNS = 9, 9, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--drawing", type=Path)
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="(default: the package)")
    options = parser.parse_args()

    net = classifier.load(options.net)
    options.folder.mkdir(parents=True, exist_ok=True)
    classifier.save(net, options.folder / f"{NAME}.safetensors")
    if options.drawing:
        write_image(options.drawing, kernels(net))
    told = json.loads(options.metrics.read_text()) if options.metrics else {}
    widths = "/".join(map(str, net.architecture.widths))
    entry = write_card(
        options.folder,
        NAME,
        kind="classifier",
        licence="code and recipe as the project; trained on ImageNet pictures (non-commercial research) and pictures "
        f"of clothes (CC0), see docs/models/{NAME}.md",
        description=f"five convolutions ({widths} channels) that name {len(net.architecture.classes)} kinds of things, "
        "to look into",
        architecture=asdict(net.architecture),
        recipe=f"docs/recipes/{NAME}.md",
        metrics={name: value for name, value in told.items() if name not in ("output", "out", "classes")},
    )
    print(f"{entry.name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes")


def kernels(net: classifier.Classifier) -> np.ndarray:
    """The first kernels side by side, each scaled to its largest weight; 0 is grey."""
    weight = net.get_submodule("conv1").get_parameter("weight").detach().numpy().transpose(0, 2, 3, 1)
    shown = (127.5 + 127.5 * weight / np.abs(weight).max((1, 2, 3), keepdims=True)).round().astype(np.uint8)
    tiles = shown.repeat(ZOOM, 1).repeat(ZOOM, 2)
    step = tiles.shape[1] + GAP
    sheet = np.full((-(-len(tiles) // COLUMNS) * step - GAP, COLUMNS * step - GAP, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // COLUMNS * step, i % COLUMNS * step
        sheet[top : top + len(tile), left : left + len(tile)] = tile
    return sheet


if __name__ == "__main__":
    main()
