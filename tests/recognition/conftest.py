"""A face encoder that needs no shipped weights: a tiny net made here, and a detector that knows where the faces are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest

from likeness.faces.alignment import TEMPLATE
from likeness.faces.quality import measure
from likeness.faces.types import Face
from likeness.nets import catalogue
from likeness.nets.catalogue import Entry, Preprocessing
from likeness.nets.engine import Engine
from likeness.recognition.encoder import FaceEncoder


class KnownFaces:
    """Stands for a detector: finds the boxes (x, y, w, h) that it was told for pictures of this (height, width)."""

    def __init__(self, boxes: dict[tuple[int, int], list[tuple[float, float, float, float]]]) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        faces = []
        for box in self.boxes.get(image.shape[:2], []):
            points = TEMPLATE / 112 * box[2:] + box[:2]
            marks = tuple((float(x), float(y)) for x, y in points)
            faces.append(Face(box, 0.97, marks, measure(image, box, points)))
        return tuple(sorted(faces, key=lambda face: -face.box[2] * face.box[3]))


PORTRAIT = (200, 160)  # (height, width) of pictures with one face
BOXES: dict[tuple[int, int], list[tuple[float, float, float, float]]] = {
    PORTRAIT: [(30, 40, 100, 110)],
    (210, 300): [(20, 20, 100, 100), (150, 30, 90, 100)],  # two alike
    (220, 300): [(20, 20, 120, 120), (200, 30, 60, 60)],  # one dominates
    (230, 300): [(100, 90, 15, 15)],  # small
    (240, 300): [(20, 20, 100, 100), (200, 90, 15, 15)],  # one good, one small
}


@lru_cache(maxsize=200)
def photograph(seed: int, shape: tuple[int, int] = PORTRAIT, *, noise: float = 12.0) -> np.ndarray:
    """A picture (h, w, 3) uint8: smooth colours that depend on `seed`, and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / 100
    planes = []
    for _ in range(3):
        a, b, c, d = rng.uniform(1, 7, 4)
        planes.append(127 + 50 * np.sin(a * x + c) + 50 * np.cos(b * y + d))
    image = np.stack(planes, axis=-1) + rng.normal(0, noise, (*shape, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def make_encoder() -> Callable[..., FaceEncoder]:
    """make_encoder(seed=0, **FaceEncoder options): an encoder with its own fingerprint per seed."""
    pytest.importorskip("onnx")
    from ..nets.encoders import encoder_bytes

    def make(seed: int = 0, boxes=BOXES, **options) -> FaceEncoder:
        entry = Entry(
            name=f"tiny-{seed}",
            kind="encoder",
            shipped=False,
            path=None,
            bytes=1,
            licence="none",
            fingerprint=catalogue.fingerprint(str(seed), Preprocessing(), 16),
            preprocessing=Preprocessing(),
            code_length=16,
            sha256=str(seed),
            url=None,
            calibration=None,
            description="",
        )
        return FaceEncoder(entry, Engine(encoder_bytes(seed=seed), threads=1), KnownFaces(boxes), **options)

    return make


@pytest.fixture
def encoder(make_encoder: Callable[..., FaceEncoder]) -> FaceEncoder:
    return make_encoder()
