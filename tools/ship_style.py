"""Put a trained net for style into the package: `python tools/ship_style.py NET.safetensors`.

Writes NAME.safetensors with kernels as float16, and the card beside it; which kind of net it is, an encoder for content
and style or one that paints any style in one pass, the file says. `--metrics`: plain JSON that goes onto the card, such
as what `likeness train perceptual --json` printed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from likeness.nets import perceptual, weights_file
from likeness.nets.catalogue import SHIPPED, write_card
from likeness.style import adain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--name", help="(default: vgg-slim or adain)")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="(default: the package)")
    options = parser.parse_args()

    options.folder.mkdir(parents=True, exist_ok=True)
    write = write_adain if adain.KIND in weights_file.read(options.net)[1] else write_perceptual
    name, card = write(options.net, options.folder, options.name)
    metrics = json.loads(options.metrics.read_text()) if options.metrics else None
    entry = write_card(options.folder, name, metrics=metrics, **card)
    print(f"{entry.name}: fingerprint {entry.fingerprint}, {entry.bytes} bytes")


def write_perceptual(path: Path, folder: Path, name: str | None) -> tuple[str, dict[str, Any]]:
    net, name = perceptual.load(path), name or "vgg-slim"
    perceptual.save(net, folder / f"{name}.safetensors")
    widths = "/".join(map(str, net.architecture.widths))
    return name, {
        "kind": "perceptual",
        "licence": "code and recipe as the project; distilled from the normalised VGG-19 (Gatys; trained on ImageNet, "
        "non-commercial research), see docs/models/vgg-slim.md",
        "description": f"a slim VGG ({widths} channels) that explains VGG-19's layers, for content and style",
        "architecture": asdict(net.architecture),
        "recipe": "docs/recipes/vgg-slim.md",
    }


def write_adain(path: Path, folder: Path, name: str | None) -> tuple[str, dict[str, Any]]:
    net, name = adain.load(path), name or "adain"
    adain.save(net, folder / f"{name}.safetensors")
    return name, {
        "kind": "adain",
        "licence": "code and recipe as the project; its encoder is vgg-slim's, its decoder was trained on ImageNet "
        "pictures (research terms) and paintings in the public domain, see docs/models/adain.md",
        "description": "any style in one pass: a slim VGG, AdaIN and a decoder (Huang & Belongie 2017)",
        "architecture": {"encoder": asdict(net.encoder.architecture), "decoder": asdict(net.decoder.architecture)},
        "recipe": "docs/recipes/adain.md",
    }


if __name__ == "__main__":
    main()
