"""`likeness encode PHOTO...|DIR -o codes.npz`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .common import complain, json_option, option, print_json, progress_bar, refuse_overwriting


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..recognition.encoder import FaceEncoder

    parser.epilog = (
        "The .npz holds codes (n, d) float32, files (n,), boxes (n, 4), scores (n,) of the detector, and fingerprint. "
        "Each photograph gives the code of its dominating face; with --all-faces, of every face."
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.npz", help="the file to write")
    parser.add_argument("--all-faces", action="store_true", help="every face, not only the dominating one")
    help = "name of the encoder's weights, see `likeness weights list`"
    option(parser, FaceEncoder.load, "--encoder", help, argument="name", metavar="NAME")
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..errors import UnreadableFile
    from ..recognition.decision import UNREADABLE
    from ..recognition.encoder import Encoding, FaceEncoder
    from ..samples.files import atomic_write
    from ..samples.folders import list_images

    photos = list_images(options.photos, must_exist=False)
    refuse_overwriting([options.output], photos)
    encoder = FaceEncoder.load(options.encoder)
    rows: list[tuple[str, Any]] = []
    skipped: list[dict[str, Any]] = []

    def keep(path: object, encoding: Encoding) -> None:
        rows.extend((str(path), template) for template in encoding.templates)
        if not encoding.templates:
            skipped.append({"file": str(path), "reasons": list(encoding.reasons)})
            complain(path, "; ".join(encoding.reasons))

    with progress_bar("encode") as on_progress:
        if options.all_faces:
            for done, path in enumerate(photos, 1):
                try:
                    keep(path, encoder.encode(path))
                except UnreadableFile:
                    keep(path, Encoding((), (UNREADABLE,)))
                on_progress(done, len(photos), {})
        else:
            for path, encoding in zip(photos, encoder.encode_many(photos, on_progress=on_progress), strict=True):
                keep(path, encoding)

    regions = [template.region or {} for _, template in rows]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        codes=np.array([template.code for _, template in rows], np.float32).reshape(-1, encoder.code_length),
        files=np.array([file for file, _ in rows], dtype=np.str_),
        boxes=np.array([region.get("box", [np.nan] * 4) for region in regions], np.float32).reshape(-1, 4),
        scores=np.array([region.get("score", np.nan) for region in regions], np.float32),
        fingerprint=np.array(encoder.fingerprint),
    )
    atomic_write(options.output, buffer.getvalue(), mode=0o600)  # codes say who somebody is
    summary = {"output": options.output, "codes": len(rows), "skipped": skipped, "fingerprint": encoder.fingerprint}
    if options.json:
        print_json(summary)
    else:
        print(f"{len(rows)} codes of {len(photos)} photographs in {options.output}, {len(skipped)} skipped")
    return 2 if any(UNREADABLE in one["reasons"] for one in skipped) else 0
