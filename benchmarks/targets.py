"""What a figure of a benchmark should reach, and whether it did: `met` or `NOT met` beside it.

With `--strict` a benchmark in which a target is not met ends with exit code 1; without, figures are only shown, as on a
busy machine times say little.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """`figure` (a key of a benchmark's result) is to be at most `bound`, or at least where `least`."""

    figure: str
    bound: float
    unit: str = ""
    least: bool = False

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        return f"{self.figure} {sign} {self.bound:.4g} {self.unit}".rstrip()

    def met(self, figures: Mapping[str, Any]) -> bool:
        """Whether it was reached; a figure that is missing or no number was not."""
        value = figures.get(self.figure)
        if value is None or math.isnan(value):
            return False
        return bool(value >= self.bound if self.least else value <= self.bound)


def said(targets: Iterable[Target], figures: Mapping[str, Any]) -> str:
    """One line: each target with its verdict; a dash where there is none."""
    return ", ".join(f"{t} {'met' if t.met(figures) else 'NOT met'}" for t in targets) or "–"


def report(targets: Iterable[Target], figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [{"target": str(target), "met": target.met(figures)} for target in targets]


def add_strict(parser: argparse.ArgumentParser) -> None:
    """`--strict`, with the same words everywhere."""
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless every target is met")


def status(all_met: bool, *, strict: bool) -> int:
    """The exit code of a benchmark."""
    return 1 if strict and not all_met else 0
