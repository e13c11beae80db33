"""`likeness lens maximize|invert|attribute MODEL …`: what a unit looks for, what a layer keeps, what a target answers
to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .common import json_option, model_options, option, print_json, progress_bar, refuse_overwriting

if TYPE_CHECKING:
    from ..lens.pictures import Looked


def add(verbs: Any) -> None:
    from ..lens.attribute import METHODS
    from ..lens.pictures import attribute_picture, invert_picture, maximise_units

    unit_help = "a layer and the number of its unit, such as relu3_1:17"
    maximize = verbs.add_parser("maximize", help="the picture that excites a unit most")
    model_options(maximize)
    maximize.add_argument(
        "--unit", metavar="L:U", required=True, action="append", type=_unit, help=f"{unit_help}; several make a sheet"
    )
    option(maximize, maximise_units, "--at", "mean: of the channel; centre: one unit", choices=("mean", "centre"))
    option(maximize, maximise_units, "--steps", "steps uphill")
    option(maximize, maximise_units, "--seed", "of the noise that it starts from")
    maximize.set_defaults(run=run_maximize)

    invert = verbs.add_parser("invert", help="a picture that a layer cannot tell from another")
    model_options(invert)
    invert.add_argument("picture", metavar="PICTURE")
    invert.add_argument("--layer", metavar="L", required=True, help="as `likeness lens layers` names it")
    option(invert, invert_picture, "--steps", "evaluations of the cost, about")
    option(invert, invert_picture, "--seed", "of the noise that it starts from")
    invert.set_defaults(run=run_invert)

    attribute = verbs.add_parser("attribute", help="what of a picture a unit or a class answers to")
    model_options(attribute)
    attribute.add_argument("picture", metavar="PICTURE")
    what = attribute.add_mutually_exclusive_group(required=True)
    what.add_argument("--unit", metavar="L:U", dest="what", type=_unit, help=unit_help)
    what.add_argument("--class", metavar="C", dest="what", help="one of the net's outputs, by its name or number")
    option(attribute, attribute_picture, "--method", ", ".join(METHODS), metavar="METHOD")
    attribute.add_argument("--layer", metavar="L", help="with grad-cam (default: the last with several positions)")
    attribute.set_defaults(run=run_attribute)

    for sub in (maximize, invert, attribute):
        sub.add_argument("-o", "--output", metavar="OUT", required=True, help="where to write it (.png, .jpg)")
        json_option(sub)


def run_maximize(options: argparse.Namespace) -> int:
    from ..lens.models import open_model
    from ..lens.pictures import maximise_units
    from ..samples.images import check_output

    check_output(options.output)
    model = open_model(options.model, size=options.size)
    with progress_bar("maximize") as bar:
        chosen = {name: getattr(options, name) for name in ("at", "steps", "seed")}
        found = maximise_units(model, options.unit, on_progress=bar, **chosen)
    units = found.record["units"]
    told = ", ".join(f"{one['layer']}:{one['unit']} {one['activation']:.4g}" for one in units)
    return _write(options, found, told)


def run_invert(options: argparse.Namespace) -> int:
    from ..lens.models import open_model
    from ..lens.pictures import invert_picture
    from ..samples.images import check_output

    refuse_overwriting([options.output], [options.picture])
    check_output(options.output)
    model = open_model(options.model, size=options.size)
    with progress_bar("invert") as bar:
        chosen = {name: getattr(options, name) for name in ("steps", "seed")}
        found = invert_picture(model, options.picture, options.layer, on_progress=bar, **chosen)
    return _write(options, found, f"relative error {found.record['error']:.4g} at {options.layer}")


def run_attribute(options: argparse.Namespace) -> int:
    from ..lens.models import open_model
    from ..lens.pictures import attribute_picture
    from ..samples.images import check_output

    refuse_overwriting([options.output], [options.picture])
    check_output(options.output)
    model = open_model(options.model, size=options.size)
    found = attribute_picture(model, options.picture, options.what, method=options.method, layer=options.layer)
    return _write(options, found, f"{found.record['target']}, {options.method}, target {found.record['value']:.4g}")


def _write(options: argparse.Namespace, found: Looked, told: str) -> int:
    from ..samples.images import write_image

    write_image(options.output, found.picture)
    print_json({"output": options.output, **found.to_dict()}) if options.json else print(f"{options.output}: {told}")
    return 0


def _unit(text: str) -> tuple[str, int]:
    layer, _, number = text.rpartition(":")
    if not layer or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form LAYER:UNIT, such as relu3_1:17")
    return layer, int(number)
