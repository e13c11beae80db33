"""`likeness lens WHAT MODEL …`: look inside a net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import need_torch


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    need_torch("looking inside")
    from . import lens_pages, lens_pictures

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    lens_pages.add(verbs)
    lens_pictures.add(verbs)
