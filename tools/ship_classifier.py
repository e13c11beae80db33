"""Put a trained classifier into the package: `python tools/ship_classifier.py NET.safetensors`.

Writes alexnet-slim.safetensors with kernels as float16, and the card beside it. `--metrics`: plain JSON that goes onto
the card, such as what `likeness train classifier --json` printed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from likeness.nets import classifier
from likeness.nets.catalogue import SHIPPED, write_card

NAME = "alexnet-slim"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metrics", type=Path)
    options = parser.parse_args()

    net = classifier.load(options.net)
    classifier.save(net, SHIPPED / f"{NAME}.safetensors")
    widths = "/".join(map(str, net.architecture.widths))
    entry = write_card(
        SHIPPED,
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


if __name__ == "__main__":
    main()
