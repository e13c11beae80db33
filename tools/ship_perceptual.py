"""Put a trained net for style into the package: `python tools/ship_perceptual.py NET.safetensors`.

Writes NAME.safetensors with kernels as float16, and the card beside it. `--metrics`: plain JSON that goes onto the
card, such as what `likeness train perceptual --json` printed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from likeness.nets import perceptual
from likeness.nets.catalogue import SHIPPED, write_card

LICENCE = (
    "code and recipe as the project; distilled from the normalised VGG-19 (Gatys; trained on ImageNet, non-commercial "
    "research), see docs/models/vgg-slim.md"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--name", default="vgg-slim")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="(default: the package)")
    options = parser.parse_args()

    options.folder.mkdir(parents=True, exist_ok=True)
    net = perceptual.load(options.net)
    perceptual.save(net, options.folder / f"{options.name}.safetensors")
    widths = "/".join(map(str, net.architecture.widths))
    entry = write_card(
        options.folder,
        options.name,
        kind="perceptual",
        licence=LICENCE,
        description=f"a slim VGG ({widths} channels) that explains VGG-19's layers, for content and style",
        architecture=asdict(net.architecture),
        recipe="docs/recipes/vgg-slim.md",
        metrics=json.loads(options.metrics.read_text()) if options.metrics else None,
    )
    print(f"{entry.name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes")


if __name__ == "__main__":
    main()
