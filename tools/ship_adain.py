"""Put a trained AdaIN net into the package: `python tools/ship_adain.py NET.safetensors`.

Writes NAME.safetensors with kernels as float16, and the card beside it. `--metrics`: plain JSON that goes onto the
card, such as what `likeness train adain --json` printed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from likeness.nets.catalogue import SHIPPED, write_card
from likeness.style import adain

LICENCE = (
    "code and recipe as the project; its encoder is vgg-slim's, its decoder was trained on ImageNet pictures "
    "(research terms) and paintings in the public domain, see docs/recipes/adain.md"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--name", default="adain")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="(default: the package)")
    options = parser.parse_args()

    options.folder.mkdir(parents=True, exist_ok=True)
    net = adain.load(options.net)
    adain.save(net, options.folder / f"{options.name}.safetensors")
    entry = write_card(
        options.folder,
        options.name,
        kind="adain",
        licence=LICENCE,
        description="any style in one pass: a slim VGG, AdaIN and a decoder (Huang & Belongie 2017)",
        architecture={"encoder": asdict(net.encoder.architecture), "decoder": asdict(net.decoder.architecture)},
        recipe="docs/recipes/adain.md",
        metrics=json.loads(options.metrics.read_text()) if options.metrics else None,
    )
    print(f"{entry.name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes")


if __name__ == "__main__":
    main()
