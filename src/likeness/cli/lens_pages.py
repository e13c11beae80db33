"""`likeness lens layers|patches|report MODEL …`: what a net is made of, what excites its units, and all of it as
pages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .common import complain, json_option, model_options, option, print_json, print_table, progress_bar


def add(verbs: Any) -> None:
    from ..lens.dashboard import report

    layers = verbs.add_parser("layers", help="the layers of a net, and what a unit of each sees")
    model_options(layers)
    layers.set_defaults(run=run_layers)
    patches = verbs.add_parser("patches", help="the patches of pictures that excite each unit most")
    whole = verbs.add_parser("report", help="patches, what units look for, and why pairs match, as pages")
    for sub in (patches, whole):
        model_options(sub)
        sub.add_argument("pictures", metavar="DIR", nargs="+", help="pictures, or folders of them")
        sub.add_argument(
            "--layers",
            metavar="L1,L2",
            required=sub is patches,
            type=lambda text: text.split(","),
            help="as `likeness lens layers` names them" + ("" if sub is patches else " (default: five)"),
        )
        option(sub, report, "--units", "such as 0-8 or 3,17, or selective", type=_units)
        option(sub, report, "--k", "patches per unit, a square number")
        sub.add_argument("-o", "--output", metavar="REPORT_DIR", required=True, type=Path)
        sub.set_defaults(run=run_report)
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
    header, axes = ["layer", "units", "positions", "sees", "stride"], ("positions", "size", "stride")
    print_table(
        header,
        ([row["layer"], row["units"], *(" x ".join(map(str, row[key])) or "?" for key in axes)] for row in rows),
    )
    return 0


def run_report(options: argparse.Namespace) -> int:
    from ..lens.dashboard import report
    from ..lens.models import open_model

    model = open_model(options.model, size=options.size)
    chosen = {name: getattr(options, name) for name in ("layers", "units", "k")}
    try:
        with progress_bar(options.what) as bar:
            made = report(
                model,
                options.pictures,
                options.output,
                patches_only=options.what == "patches",
                on_progress=bar,
                **chosen,
            )
    except KeyboardInterrupt:
        print("likeness: interrupted; the same command goes on where it was", file=sys.stderr)
        raise
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
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in parts]
        if not all(ranges):
            raise ValueError("a range is empty")
        return tuple(i for one in ranges for i in one)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0-8 or 3,17, nor selective") from error
