"""`likeness detect PHOTO...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, UnreadableFile
from .common import complain, json_option, option, print_json, print_table, progress_bar, refuse_overwriting

COLOURS = ((0, 200, 83), (255, 214, 0))  # box, landmarks


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..faces.detection import detect

    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them")
    option(parser, detect, "--min-score", "faces below this score are left out", metavar="SCORE")
    option(parser, detect, "--min-size", "faces with a shorter side below this are left out", metavar="PIXELS")
    option(parser, detect, "--detector", "name of the detector's weights, or its .onnx file", metavar="NAME")
    parser.add_argument(
        "--draw", metavar="OUT", help="write the photograph with boxes and landmarks (several: a folder)"
    )
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..faces.detection import Detector
    from ..samples.folders import list_images
    from ..samples.images import read_image, write_image

    photos = list_images(options.photos, must_exist=False)
    several = len(photos) > 1
    if options.draw and several and Path(options.draw).suffix:
        raise InvalidOption(f"--draw {options.draw}: {len(photos)} photographs need a folder, not one file")
    drawings = _drawings(Path(options.draw), photos) if options.draw else []
    refuse_overwriting(drawings, photos)
    if drawings and drawings != [Path(options.draw)]:
        Path(options.draw).mkdir(parents=True, exist_ok=True)
    detector = Detector.load(options.detector)
    found: list[dict[str, Any]] = []
    failed = seen = 0
    with progress_bar("detect") as on_progress:
        for done, path in enumerate(photos, 1):
            try:
                image = read_image(path)
            except UnreadableFile as error:
                failed += 1
                complain(path, str(error))
                found.append({"file": str(path), "faces": [], "error": str(error)})
                continue
            faces = detector.detect(image, min_score=options.min_score, min_size=options.min_size)
            found.append({"file": str(path), "faces": [face.to_dict() for face in faces]})
            if drawings:
                write_image(drawings[done - 1], draw(image, faces))
            seen += len(faces)
            on_progress(done, len(photos), {"faces": seen})
    print_json(found) if options.json else _print(found)
    return 2 if failed else 0


def draw(image: np.ndarray, faces: Any) -> np.ndarray:
    """A copy of `image` (h, w, 3) with every face's box and five landmarks."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 400))
    font = ImageFont.load_default(height := max(11, round(max(picture.size) / 64)))
    for face in faces:  # scores first, so that they hide no box
        at = (max(0, face.box[0]), max(0, face.box[1] - 1.3 * height))  # also of a box that begins outside
        pen.text(at, f"{face.score:.2f}", fill=COLOURS[0], font=font, stroke_width=1, stroke_fill="black")
    for face in faces:
        x, y, w, h = face.box
        pen.rectangle((x, y, x + w, y + h), outline=COLOURS[0], width=line)
        for u, v in face.landmarks:
            pen.ellipse((u - line, v - line, u + line, v + line), fill=COLOURS[1])
    return np.asarray(picture)


def _drawings(out: Path, photos: Sequence[Path]) -> list[Path]:
    """Where each drawing goes; a folder gets one PNG each, numbered where photographs have one name."""
    if len(photos) == 1 and out.suffix:
        return [out]
    drawn: dict[Path, None] = {}
    for photo in photos:
        target, count = out / f"{photo.stem}.png", 1
        while target in drawn:
            count += 1
            target = out / f"{photo.stem}-{count}.png"
        drawn[target] = None
    return list(drawn)


def _print(found: list[dict[str, Any]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for entry in found:
        if not entry["faces"]:
            rows.append((entry["file"], "unreadable" if "error" in entry else "no face", None, None, None))
        for face in entry["faces"]:
            x, y, w, h = face["box"]
            quality = face["quality"]
            box = f"{x:.0f},{y:.0f} {w:.0f}×{h:.0f}"
            rows.append((entry["file"], box, face["score"], f"{quality['sharpness']:.2f}", f"{quality['yaw']:.0f}"))
    print_table(("file", "face", "score", "sharpness", "yaw"), rows)
