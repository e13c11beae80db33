"""`likeness lens WHAT …`: look inside a net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import need_torch


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    need_torch("looking inside")
    from . import lens_compare, lens_pages, lens_pictures

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for group in (lens_pages, lens_pictures, lens_compare):
        group.add(verbs)
