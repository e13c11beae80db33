"""`likeness lens layers|patches|report MODEL …`: what a net is made of, what excites its units, and all of it as
pages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import complain, json_option, model_options, option, print_json, print_table, progress_bar


def add(verbs: Any) -> None:
    from ..lens.dashboard import report, report_patches

    layers = verbs.add_parser("layers", help="the layers of a net, and what a unit of each sees")
    model_options(layers)
    layers.set_defaults(run=run_layers)
    patches = verbs.add_parser("patches", help="the patches of pictures that excite each unit most")
    whole = verbs.add_parser("report", help="patches, what units look for, and why pairs match, as pages")
    for sub, function in ((patches, report_patches), (whole, report)):
        model_options(sub)
        sub.add_argument("pictures", metavar="DIR", nargs="+", help="pictures, or folders of them")
        sub.add_argument(
            "--layers",
            metavar="L1,L2",
            required=sub is patches,
            type=lambda text: text.split(","),
            help="as `likeness lens layers` names them" + ("" if sub is patches else " (default: five)"),
        )
        option(sub, function, "--units", "such as 0-8 or 3,17, or selective", type=_units)
        option(sub, function, "--k", "patches per unit, a square number")
        sub.add_argument("-o", "--output", metavar="REPORT_DIR", required=True, type=Path)
        sub.set_defaults(run=run_report, function=function)
    for sub in (layers, patches, whole):
        json_option(sub)


def run_layers(options: argparse.Namespace) -> int:
    from ..lens.layers import layer_table
    from ..lens.models import open_model

    model = open_model(options.model, size=options.size)
    rows = layer_table(model.net, model.blank())
    if options.json:
        print_json(rows)
        return 0
    header = ["layer", "units", "positions", "sees", "stride"]
    print_table(
        header,
        ([row["layer"], row["units"], *(_by(row[key]) for key in ("positions", "size", "stride"))] for row in rows),
    )
    return 0


def run_report(options: argparse.Namespace) -> int:
    from ..lens.models import open_model

    model = open_model(options.model, size=options.size)
    with progress_bar(options.what) as bar:
        made = options.function(
            model,
            options.pictures,
            options.output,
            layers=options.layers,
            units=options.units,
            k=options.k,
            on_progress=bar,
        )
    for path in made.skipped:
        complain(path, "cannot be read" if path in made.unreadable else "shows nothing that this net takes")
    if options.json:
        print_json(made.to_dict())
    else:
        layers = f"{len(made.shown)} layer{'s' if len(made.shown) != 1 else ''}"
        print(f"{made.page}: {layers}, {made.patches.samples} pictures")
    return 2 if made.unreadable else 0


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
