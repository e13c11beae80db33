"""What a figure of a benchmark should reach, and whether it did: `met` or `NOT met` beside it.

With `--strict` a benchmark in which a target is not met ends with exit code 1; without, figures are only shown, as on a
busy machine times say little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.nets.engine import cpu_quota


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


def run_parts(
    options: argparse.Namespace,
    parts: Mapping[str, Callable[[], dict[str, Any]]],
    targets: Mapping[str, Sequence[Target]],
) -> int:
    """Measure the parts that `parser_of` read; print a line and write OUT/PART.json for each, with the load of the
    machine beside it; the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    all_met = True
    for name in options.parts or parts:
        machine = {"cores": cpu_quota(), "load": os.getloadavg()[0]}
        figures = parts[name]()
        verdict = report(targets[name], figures)
        all_met = all_met and all(one["met"] for one in verdict)
        text = json.dumps({"figures": figures, "targets": verdict, "machine": machine}, indent=1)
        (options.out / f"{name}.json").write_text(text + "\n")
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, (int, float)))
        where = f"{machine['cores']:.3g} cores, load {machine['load']:.1f}"
        print(f"{name}: {shown} | {said(targets[name], figures)} | {where}", flush=True)
    return status(all_met, strict=options.strict)


def parser_of(text: str | None, parts: Iterable[str], out: str) -> argparse.ArgumentParser:
    """Which parts to measure, where the figures go, and `--strict`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", type=_one_of(parts), help=f"{', '.join(parts)} (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path(out))
    add_strict(parser)
    return parser


def data_folder() -> Path:
    """Where pictures, lists and reference weights lie: $LIKENESS_DATA, or shared/data beside the checkout."""
    return Path(os.environ.get("LIKENESS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def _one_of(parts: Iterable[str]) -> Callable[[str], str]:
    def part(word: str) -> str:
        if word not in parts:
            raise argparse.ArgumentTypeError(f"no such part: {word}")
        return word

    return part
