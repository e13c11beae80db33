"""`likeness identify DB PHOTO|DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..errors import UnreadableFile
from ..recognition.decision import CANNOT_DECIDE, UNREADABLE
from .common import (
    complain,
    encoder_option,
    json_option,
    number,
    option,
    print_csv,
    print_json,
    print_table,
    progress_bar,
)
from .gallery import opened


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..recognition.gallery import Gallery

    parser.add_argument("db", metavar="DB", help="the gallery's file")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them")
    option(parser, Gallery.identify, "--max-fpir", "how often a stranger may be taken for somebody", metavar="RATE")
    option(parser, Gallery.identify, "--top", "how many candidates to list for a face", metavar="N")
    encoder_option(parser, Gallery)
    form = parser.add_mutually_exclusive_group()
    json_option(form)
    form.add_argument("--csv", action="store_true", help="print one line per candidate, separated by commas")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..samples.folders import list_images

    photos = list_images(options.photos, must_exist=False)
    found: list[dict[str, Any]] = []
    failed = 0
    with opened(options) as gallery, progress_bar("identify") as on_progress:
        for done, path in enumerate(photos, 1):
            try:
                faces = gallery.identify(path, max_fpir=options.max_fpir, top=options.top)
            except UnreadableFile as error:
                failed += 1
                complain(path, str(error))
                found.append({"file": str(path), "faces": [], "error": str(error)})
                continue
            found.append({"file": str(path), "faces": [face.to_dict() for face in faces]})
            on_progress(done, len(photos), {"faces": len(faces)})
    if options.json:
        print_json(found)
    elif options.csv:
        _print_csv(found)
    else:
        _print(found)
    return 2 if failed else 0


def _print_csv(found: list[dict[str, Any]]) -> None:
    """One row per candidate; a face without candidates has one row, and so has a file that cannot be read."""
    rows: list[tuple[Any, ...]] = []
    for entry in found:
        if "error" in entry:
            rows.append((entry["file"], None, CANNOT_DECIDE, *[None] * 7, UNREADABLE))
        for index, face in enumerate(entry["faces"]):
            start = (entry["file"], index, face["decision"], face["subject"], face["threshold"], face["searched"])
            for rank, candidate in enumerate(face["candidates"] or [{}], 1):
                values = (candidate.get("subject"), candidate.get("distance"), candidate.get("score"))
                rows.append((*start, rank if candidate else None, *values, "; ".join(face.get("reasons", ()))))
    header = [
        "file",
        "face",
        "decision",
        "subject",
        "threshold",
        "searched",
        "rank",
        "candidate",
        "distance",
        "score",
        "reasons",
    ]
    print_csv(header, rows)


def _print(found: list[dict[str, Any]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for entry in found:
        if "error" in entry:
            rows.append((entry["file"], CANNOT_DECIDE, f"({UNREADABLE})", None, None, None))
        for face in entry["faces"]:
            best, *others = face["candidates"] or [{}]
            subject = face["subject"] or (f"(nearest: {best['subject']})" if best else None)
            then = ", ".join(f"{c['subject']} {c['distance']:.2f}" for c in others)
            notes = ["(extrapolated)" if face["extrapolated"] else "", "; ".join(face["reasons"])]
            notes.append(f"then {then}" if then else "")
            distance, threshold = number(best.get("distance")), number(face["threshold"])
            rows.append((entry["file"], face["decision"], subject, distance, threshold, "  ".join(filter(None, notes))))
    print_table(("file", "decision", "subject", "distance", "threshold", ""), rows)
