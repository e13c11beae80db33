"""From a photograph of one person to the aligned crop that nets are trained on."""

from __future__ import annotations

import numpy as np

from .alignment import align
from .detection import detect

DOMINATES = 2.5  # a face is the photograph's subject if its area is at least this many times the next one's


def crop_of_one(image: np.ndarray, *, size: int = 112) -> np.ndarray | None:
    """The aligned crop (size, size, 3) uint8 of the one face that a photograph (h, w, 3) uint8 RGB is of.

    Found by the detector that ships. None where there is no face, or several of which none is `DOMINATES` times as
    large as the next.
    """
    faces = detect(image)  # largest first
    areas = [face.box[2] * face.box[3] for face in faces]
    if not faces or (len(faces) > 1 and areas[0] < DOMINATES * areas[1]):
        return None
    return align(image, faces[0].landmarks, size=size)
