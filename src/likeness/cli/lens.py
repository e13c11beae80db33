"""`likeness lens WHAT …`: look inside a net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import need_torch


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    need_torch("looking inside")
    from . import lens_compare, lens_pages

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    lens_pages.add(verbs)
    lens_compare.add(verbs)
