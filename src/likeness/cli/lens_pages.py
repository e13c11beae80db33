"""`likeness lens layers|patches MODEL …`: what a net is made of, and what excites its units."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from .common import complain, json_option, model_options, option, print_json, print_table, progress_bar


def add(verbs: Any) -> None:
    from ..lens.dashboard import report_patches

    layers = verbs.add_parser("layers", help="the layers of a net, and what a unit of each sees")
    model_options(layers)
    layers.set_defaults(run=run_layers)
    patches = verbs.add_parser("patches", help="the patches of pictures that excite each unit most")
    model_options(patches)
    patches.add_argument("pictures", metavar="DIR", nargs="+", help="pictures, or folders of them")
    patches.add_argument("--layers", metavar="L1,L2", required=True, type=lambda text: text.split(","))
    option(patches, report_patches, "--units", "such as 0-8 or 3,17, or selective", type=_units)
    option(patches, report_patches, "--k", "patches per unit, a square number")
    patches.add_argument("-o", "--output", metavar="REPORT_DIR", required=True, type=Path)
    patches.set_defaults(run=run_patches)
    for sub in (layers, patches):
        json_option(sub)


def run_layers(options: argparse.Namespace) -> int:
    from ..lens.layers import layer_table
    from ..lens.models import open_model

    rows = layer_table(open_model(options.model, size=options.size))
    if options.json:
        print_json(rows)
        return 0
    header = ["layer", "units", "positions", "sees", "stride"]
    print_table(
        header,
        ([row["layer"], row["units"], *(_by(row[key]) for key in ("positions", "size", "stride"))] for row in rows),
    )
    return 0


def run_patches(options: argparse.Namespace) -> int:
    from ..lens.dashboard import report_patches
    from ..lens.models import open_model
    from ..samples.folders import list_images

    files = list_images(options.pictures)
    if not files:
        raise InvalidOption(f"there is no picture in {', '.join(options.pictures)}")
    model = open_model(options.model, size=options.size)
    with progress_bar("patches") as bar:
        report = report_patches(
            model, files, options.output, layers=options.layers, units=options.units, k=options.k, on_progress=bar
        )
    for path in report.skipped:
        complain(path, "cannot be read, or shows nothing that this net takes")
    if options.json:
        print_json(report.to_dict())
    else:
        print(f"{report.page}: {len(options.layers)} layers, {report.patches.samples} pictures")
    return 0


def _units(text: str) -> tuple[int, ...] | str:
    if text == "selective":
        return text
    try:
        parts = [part.partition("-") for part in text.split(",")]
        return tuple(i for first, _, last in parts for i in range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0-8 or 3,17, nor selective") from error


def _by(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers)) or "?"
