"""`likeness verify A B`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import encoder_option, json_option, number, option, print_json

EXIT = {"match": 0, "no match": 1, "cannot decide": 2}


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..recognition.verification import verify

    parser.epilog = "Exit code: 0 match, 1 no match, 2 cannot decide or an error."
    parser.add_argument("a", metavar="A", help="a photograph of one person")
    parser.add_argument("b", metavar="B", help="another one")
    option(parser, verify, "--max-fmr", "how often two different people may pass as one", metavar="RATE")
    encoder_option(parser, verify)
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..recognition.verification import verify

    decision = verify(options.a, options.b, max_fmr=options.max_fmr, encoder=options.encoder)
    print_json(decision.to_dict()) if options.json else print_decision(decision.to_dict(), options.a, options.b)
    return EXIT[decision.decision]


def print_decision(decision: dict, a: str = "", b: str = "") -> None:
    """`match  distance 0.61  (threshold 1.02 at FMR 0.001)`, or the reasons, and of which photograph, `a` or `b`."""
    line = decision["decision"]
    if decision["distance"] is not None:
        line += f"  distance {number(decision['distance'])}"
    if decision["threshold"] is not None:
        line += f"  (threshold {number(decision['threshold'])} at FMR {decision['max_fmr']:g})"
        line += "  (extrapolated)" if decision["extrapolated"] else ""
    about = [
        f"{name}: {', '.join(decision[key])}" for name, key in ((a, "reasons_a"), (b, "reasons_b")) if decision[key]
    ]
    if decision["reasons"]:
        line += "  " + "; ".join(about or decision["reasons"])
    print(line)
