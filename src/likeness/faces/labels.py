"""Labelled photographs for training and testing a detector: reading label files, and making them with a reference
detector.

A label file is JSON, {path relative to the folder: {"kind", "split", "size": [w, h], "faces": [{"box": [x, y, w, h],
"score", "landmarks": [[x, y] * 5]}], "given_boxes": null | [[x, y, w, h, word]]}}.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InvalidOption, UnreadableFile
from ..progress import Progress
from ..samples.images import read_image
from .decoding import flip_landmarks, fuse, iou, nms

DOUBTFUL = 0.7  # a reference detector's face below this score is neither a face nor background: no loss there
HAND_LABELLED = ("wider_val", "facemask853")  # sets whose given boxes that the reference missed are trusted as faces

Reference = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Picture (h, w, 3) uint8 RGB -> scores (n,), boxes (n, 4) x y w h, landmarks (n, 5, 2)."""


@dataclass(frozen=True)
class Photo:
    """One labelled photograph.

    boxes: (n, 4) float32 x, y, w, h; landmarks: (n, 5, 2) float32, NaN where unknown; sure: (n,) bool, False where
    nobody knows whether it is a face (no loss there).
    """

    name: str
    path: Path
    boxes: np.ndarray
    landmarks: np.ndarray
    sure: np.ndarray


def read_labels(
    folder: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]] = (), *, split: str | None = "train"
) -> list[Photo]:
    """All photographs of the label files whose split is `split` (None: all; a photograph without one counts as
    "train").

    `files`: label files, default every *.json directly in `folder`. Raises InvalidOption where there are none.
    """
    folder = Path(folder)
    paths = [Path(f) for f in files] or sorted(folder.glob("*.json"))
    if not paths:
        raise InvalidOption(f"{folder} holds no label file (*.json); label photographs first or name the files")
    photos = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            photos += [
                _photo(folder, name, entry)
                for name, entry in content.items()
                if split in (None, entry.get("split", "train"))
            ]
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise UnreadableFile(f"{path} is not a label file: {error!r}") from error
    return photos


def held_out(photo: Photo, *, share: float = 0.1) -> bool:
    """Whether a photograph is kept from training to choose thresholds on: by its name, so the same everywhere."""
    return zlib.crc32(photo.name.encode()) % 1000 < share * 1000


def _photo(folder: Path, name: str, entry: dict) -> Photo:
    faces = entry["faces"]
    boxes = np.array([f["box"] for f in faces], np.float32).reshape(-1, 4)
    landmarks = np.array([f["landmarks"] for f in faces], np.float32).reshape(-1, 5, 2)
    sure = np.array([f["score"] >= DOUBTFUL for f in faces], bool)
    given = np.array([b[:4] for b in entry.get("given_boxes") or []], np.float32).reshape(-1, 4)
    if len(given):
        overlap = iou(given, boxes) if len(boxes) else np.zeros((len(given), 0))
        trusted = any(s in name for s in HAND_LABELLED)
        if trusted:
            sure |= (overlap > 0.3).any(axis=0)
        missed = overlap.max(axis=1, initial=0) <= 0.3
        boxes = np.concatenate([boxes, given[missed]])
        landmarks = np.concatenate([landmarks, np.full((missed.sum(), 5, 2), np.nan, np.float32)])
        sure = np.concatenate([sure, np.full(missed.sum(), trusted)])
    return Photo(name, folder / name, boxes, landmarks, sure)


def reference(name_or_file: str | os.PathLike[str]) -> Reference:
    """A detector of the catalogue, or any detector's ONNX file, as a reference: what it sees at one scale, score >=
    0.3."""
    from .detection import Detector

    path = Path(name_or_file)
    detector = Detector.from_file(path, threads=1) if path.suffix == ".onnx" else Detector.load(str(name_or_file))
    return lambda image: detector.look(image, scale=1.0, min_score=0.3)


def at_scales(
    look: Reference, image: np.ndarray, *, scales: Sequence[float], mirror: bool = False, min_score: float = 0.5
) -> list[dict]:
    """Faces that a detector finds at several scales (and in the mirror image), merged: a face's box and landmarks are
    the mean over the runs that saw it, weighted by score², its score the best one's. Returns {"box", "score",
    "landmarks"}, best first."""
    height, width = image.shape[:2]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for scale in scales:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        scaled = image if scale == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        for flip in (False, True)[: 1 + mirror]:
            scores, boxes, landmarks = look(np.ascontiguousarray(scaled[:, ::-1]) if flip else scaled)
            keep = nms(boxes, scores, max_overlap=0.45)
            scores, boxes, landmarks = scores[keep], boxes[keep].copy(), landmarks[keep].copy()
            if flip:
                boxes[:, 0] = size[0] - boxes[:, 0] - boxes[:, 2]
                landmarks = flip_landmarks(landmarks, size[0])
            ratio = np.array([width / size[0], height / size[1]])
            found.append((scores, boxes * np.tile(ratio, 2), landmarks * ratio))
    scores, boxes, landmarks = (np.concatenate(part) for part in zip(*found, strict=True))
    kept = nms(boxes, scores, max_overlap=0.45)
    kept = kept[scores[kept] >= min_score]
    fused = zip(scores[kept], *fuse(boxes, landmarks, scores, kept, min_overlap=0.5), strict=True)
    return [
        {
            "box": [round(float(v), 2) for v in box],
            "score": round(float(score), 3),
            "landmarks": [[round(float(v), 2) for v in p] for p in points],
        }
        for score, box, points in fused
    ]


def label_photographs(
    folder: str | os.PathLike[str],
    pictures: Iterable[Path],
    look: Reference,
    *,
    out: str | os.PathLike[str],
    scales: Sequence[float] = (0.5, 1.0, 2.0),
    mirror: bool = True,
    on_progress: Progress | None = None,
) -> Path:
    """Label photographs with a reference detector and write a label file (names relative to `folder`)."""

    def label(image: np.ndarray) -> list[dict]:
        return at_scales(look, image, scales=scales, mirror=mirror)

    return _label(folder, pictures, label, kind="photo", out=out, on_progress=on_progress)


def label_faceless(
    folder: str | os.PathLike[str],
    pictures: Iterable[Path],
    looks: tuple[Reference, Reference],
    *,
    out: str | os.PathLike[str],
    scales: Sequence[float] = (1.0, 2.0, 3.0),
    min_score: float = 0.55,
    on_progress: Progress | None = None,
) -> Path:
    """Write a label file (names relative to `folder`) of the pictures in which two detectors agree on no face.

    One alone takes dogs, golf balls and church towers for faces, which are what a detector should see in training.
    Where both see a face in one place (IoU >= 0.35, both scores >= `min_score`) there may be one, and the picture is
    left out.
    """

    def label(image: np.ndarray) -> list[dict] | None:
        one, other = (at_scales(look, image, scales=scales, mirror=True, min_score=min_score) for look in looks)
        boxes = [np.array([face["box"] for face in faces]).reshape(-1, 4) for faces in (one, other)]
        return None if (iou(*boxes) >= 0.35).any() else []

    return _label(folder, pictures, label, kind="no_face", out=out, on_progress=on_progress)


def _label(
    folder: str | os.PathLike[str],
    pictures: Iterable[Path],
    label: Callable[[np.ndarray], list[dict] | None],
    *,
    kind: str,
    out: str | os.PathLike[str],
    on_progress: Progress | None,
) -> Path:
    """A label file of what `label` says of each picture; None leaves the picture out."""
    from ..samples.files import atomic_write

    pictures = sorted(pictures)
    content: dict[str, dict] = {}
    seen = 0
    for i, path in enumerate(pictures):
        image = read_image(path)
        faces = label(image)
        if faces is not None:
            seen += len(faces)
            content[Path(os.path.relpath(path, folder)).as_posix()] = {
                "kind": kind,
                "split": "train",
                "size": [image.shape[1], image.shape[0]],
                "faces": faces,
                "given_boxes": None,
            }
        if on_progress:
            on_progress(i + 1, len(pictures), {"pictures": len(content), "faces": seen})
    atomic_write(Path(out), json.dumps(content).encode())
    return Path(out)
