"""`likeness style-score OUT --content C --style S`: how far a picture is from a content and a style."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import json_option, need_torch, option, print_json
from .stylize import chosen_cost, cost_options


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    need_torch("style-score")
    from ..style.score import style_score

    parser.add_argument("picture", metavar="OUT", help="the picture to measure, however it was made")
    parser.add_argument("--content", metavar="C", required=True, help="the photograph it shows")
    parser.add_argument(
        "--style", metavar="S", required=True, nargs="+", help="the picture, or several, it is painted like"
    )
    help_text = "a net of `likeness weights list`, or its file"
    option(parser, style_score, "--encoder", help_text, metavar="NAME|FILE", type=str)
    cost_options(parser)
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..style.score import style_score

    found = style_score(
        options.picture,
        content=options.content,
        style=options.style,
        encoder=options.encoder,
        **chosen_cost(options),
    )
    if options.json:
        print_json({"file": options.picture, **found.to_dict()})
        return 0
    parts = found.parts
    print(f"{options.picture}: J {parts.J:.4g}")
    for name, plain in (("content", parts.content), ("style", parts.style), ("tv", parts.tv)):
        print(f"  {name.ljust(8)} {plain:.4g}, weighted {parts.weighted[name]:.4g}")
    for layer, cost in parts.layers.items():
        print(f"    {layer.ljust(8)} {cost:.4g}")
    for name, ratio in (("border", found.border), ("of the content", found.border_content)):
        print(f"  {name} " + ("is flat" if ratio is None else f"{ratio:.3f} of the inside"))
    return 0
