"""`likeness lens compare A B -o OUT.png`: why two photographs match, or do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import encoder_option, json_option, option, print_json, refuse_overwriting


def add(verbs: Any) -> None:
    from ..lens.comparison import METHODS
    from ..lens.matching import compare

    parser = verbs.add_parser("compare", help="which parts of two faces bring their codes together, and which apart")
    parser.add_argument("a", metavar="A", help="a photograph of one person")
    parser.add_argument("b", metavar="B", help="another one")
    option(parser, compare, "--against", "a third, of whom A is to be told from B", type=str, metavar="N")
    encoder_option(parser, compare)
    option(parser, compare, "--method", "how it is found out", choices=METHODS)
    option(parser, compare, "--max-fmr", "how often two different people may pass as one", metavar="RATE")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, type=Path, help="the picture to write")
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..lens.matching import compare

    photographs = [path for path in (options.a, options.b, options.against) if path]
    refuse_overwriting([options.output], photographs)
    found = compare(
        options.a,
        options.b,
        against=options.against,
        encoder=options.encoder,
        method=options.method,
        max_fmr=options.max_fmr,
    )
    found.save(options.output)
    print_json({"output": str(options.output), **found.to_dict()}) if options.json else print(
        f"{options.output}: {found.headline()}"
    )
    return 0
