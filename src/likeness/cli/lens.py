"""`likeness lens WHAT …`: look inside a net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import lens_compare
from .common import need_torch


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    what = next((word for word in arguments if not word.startswith("-")), None)
    if what != "compare":  # which needs no torch, and is done before torch would be imported
        need_torch("looking inside (but for `lens compare`)")
        from . import lens_pages, lens_pictures

        for group in (lens_pages, lens_pictures):
            group.add(verbs)
    lens_compare.add(verbs)
