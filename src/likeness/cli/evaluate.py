"""`likeness evaluate lfw DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .common import encoder_option, json_option, print_json, print_table, progress_bar


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    kinds = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    lfw = kinds.add_parser("lfw", help="Labeled Faces in the Wild, View 2: 10 folds of 300 + 300 pairs")
    _configure_lfw(lfw)


def _configure_lfw(parser: argparse.ArgumentParser) -> None:
    from ..evaluation.lfw import evaluate_lfw

    parser.add_argument("folder", metavar="DIR", help="the folder with NAME/NAME_0001.jpg")
    parser.add_argument("--lists", metavar="DIR", help="the folder with pairs.txt (default: looked for beside DIR)")
    encoder_option(parser, evaluate_lfw)
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..evaluation.lfw import evaluate_lfw

    with progress_bar("lfw") as on_progress:
        result = evaluate_lfw(options.folder, encoder=options.encoder, lists=options.lists, on_progress=on_progress)
    values: dict[str, Any] = result.to_dict()
    if options.json:
        print_json(values)
        return 0
    tar = values["tar_at_far"]
    mean, error = 100 * values["accuracy"], 100 * values["standard_error"]
    print(f"accuracy  {mean:.2f} % ± {error:.2f} (mean and standard error of {len(values['folds'])} folds)")
    print(f"TAR       {tar['tar']:.4f} at FAR {tar['far']:g} (95 % interval {tar['low']:.4f} to {tar['high']:.4f})")
    print(f"failed    {values['failed']} of {values['photographs']} photographs, {values['failed_pairs']} pairs")
    print(f"encoder   {values['encoder']} ({values['fingerprint']}), {values['seconds']:.0f} s")
    print_table(tuple(values["folds"][0]), [tuple(fold.values()) for fold in values["folds"]])
    return 0
