"""Put a trained detector into the package: `python tools/ship_detector.py DETECTOR.safetensors`.

Copies the safetensors, exports the ONNX file (checked to 1e-5) and writes the card. `--metrics FILE` puts the figures
of benchmarks/detector.py onto the detector's card.
"""

import argparse
import json
import shutil
from pathlib import Path

from likeness.faces import net
from likeness.nets.catalogue import SHIPPED, Preprocessing, write_card

LICENCE = (
    "code and recipe as the project; trained on CelebA (non-commercial research), WIDER FACE, ImageNet and other "
    "pictures from the web (research use), labelled by YuNet (Apache-2.0) and partly by hand: see "
    "docs/models/face-detector.md"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", type=Path)
    parser.add_argument("--metrics", type=Path)
    options = parser.parse_args()

    SHIPPED.mkdir(exist_ok=True)
    metrics = json.loads(options.metrics.read_text())["summary"] if options.metrics else None
    name = "face-detector"
    shutil.copyfile(options.detector, SHIPPED / f"{name}.safetensors")
    worst = net.export(SHIPPED / f"{name}.safetensors", SHIPPED / f"{name}.onnx")
    entry = write_card(
        SHIPPED,
        name,
        kind="detector",
        licence=LICENCE,
        description="photographs to faces: boxes, scores and five landmarks",
        preprocessing=Preprocessing(size=320),
        recipe="docs/recipes/detector.md",
        metrics=metrics,
    )
    print(f"{name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes, torch differs by {worst:.1e}")


if __name__ == "__main__":
    main()
