"""Put a trained classifier into the package: `python tools/ship_classifier.py NET.safetensors`.

Writes alexnet-slim.safetensors with kernels as float16, and the card beside it. `--metrics`: plain JSON that goes onto
the card, such as what `likeness train classifier --json` printed. `--drawing`: a picture of the first kernels.
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
        metrics=json.loads(options.metrics.read_text()) if options.metrics else None,
    )
    print(f"{entry.name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes")


def kernels(net: classifier.Classifier) -> np.ndarray:
    """The first kernels side by side, each scaled to its largest weight; 0 is grey."""
    weight = net.get_submodule("conv1").get_parameter("weight").detach().numpy().transpose(0, 2, 3, 1)
    shown = (127.5 + 127.5 * weight / np.abs(weight).max((1, 2, 3), keepdims=True)).round().astype(np.uint8)
    tiles = shown.repeat(ZOOM, 1).repeat(ZOOM, 2)
    framed = np.pad(tiles, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    rows = [np.concatenate(framed[i : i + COLUMNS], 1) for i in range(0, len(framed), COLUMNS)]
    return np.concatenate(rows)[:-GAP, :-GAP]


if __name__ == "__main__":
    main()
