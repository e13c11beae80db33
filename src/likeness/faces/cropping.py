"""From a photograph of one person to the aligned crop that nets are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .alignment import align
from .detection import detect
from .types import Face

CLEAR, DOUBTFUL = 0.85, 0.8  # beside a face of one score, faces below the other may be none, however large
DOMINATES = 2.5  # a face is the photograph's subject if its area is at least this many times the next one's


def dominating(faces: Sequence[Face]) -> Face | None:
    """The face whose area is at least `DOMINATES` times that of the next one; None where there is none.

    Where one is clear, doubtful ones do not count: in groups faces of 40 px and more had scores from 0.91 on, walls
    and sleeves up to 0.75."""
    if any(face.score >= CLEAR for face in faces):
        faces = [face for face in faces if face.score >= DOUBTFUL]
    by_area = sorted(faces, key=_area, reverse=True)
    if not by_area or (len(by_area) > 1 and _area(by_area[0]) < DOMINATES * _area(by_area[1])):
        return None
    return by_area[0]


def crop_of_one(image: np.ndarray, *, size: int = 112) -> np.ndarray | None:
    """The aligned crop (size, size, 3) uint8 of the one face that a photograph (h, w, 3) uint8 RGB is of.

    Found by the detector that ships. None where there is no face, or several of which none dominates.
    """
    face = dominating(detect(image))
    return None if face is None else align(image, face.landmarks, size=size)


def _area(face: Face) -> float:
    return face.box[2] * face.box[3]
