"""Faces that lie on their side or stand on their head: which way up is this one?

The detector learned from upright faces. Turned ones it finds as well, but with a low score and landmarks that pretend
to be upright, from which no code follows. So a face with a low score is shown to it again, turned.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .alignment import cut
from .decoding import fuse, iou
from .quality import measure
from .types import Face

if TYPE_CHECKING:
    from .detection import Detector

# 4 % of the photographs of LFW have a face below this score, and nearly all portraits turned by 45 degrees and more.
SURE = 0.9
# A turned look must be better by this much: so it is with turned portraits, and with none of 2,000 LFW photographs.
GAIN = 0.05
ANGLES = (45, 90, 135, 180, 225, 270, 315)
SIDE = 160  # px of one look, some 3 ms
_AROUND = 2.4  # a look's side, in longer sides of the box
_OVERLAP = 0.25  # a box of a look is the same face if it overlaps the middle by so much (IoU)


def upright(detector: Detector, image: np.ndarray, face: Face) -> Face:
    """`face` of `image` (h, w, 3) uint8, with the landmarks that it has the right way up.

    A face with a score of `SURE` and more is returned as it is. Others are looked at in steps of 45 degrees; where one
    of these looks is clearly better, its landmarks and score are taken, and the quality (so `roll` is the true one) is
    measured again.
    """
    if face.score >= SURE:
        return face
    straight, _ = _look(detector, image, face, 0)
    score, landmarks = max((_look(detector, image, face, angle) for angle in ANGLES), key=lambda found: found[0])
    if score < max(straight, face.score) + GAIN:
        return face
    points = tuple((float(x), float(y)) for x, y in landmarks)
    return replace(face, score=score, landmarks=points, quality=measure(image, face.box, landmarks))


def _look(detector: Detector, image: np.ndarray, face: Face, angle: float) -> tuple[float, np.ndarray]:
    """The best score for this face where the picture is turned by `angle` degrees about it, and the landmarks (5, 2)
    in px of the photograph; score 0 where no face is seen."""
    x, y, w, h = face.box
    step = _AROUND * max(w, h) / SIDE  # px of the photograph per px of the look
    cosine, sine = step * math.cos(math.radians(angle)), step * math.sin(math.radians(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    shift = np.array([x + w / 2, y + h / 2]) - turn @ [SIDE / 2, SIDE / 2]
    scores, boxes, landmarks = detector.look(cut(image, turn, shift, SIDE), scale=1.0, min_score=0.3)
    middle = np.array([[SIDE / 2 - SIDE / _AROUND / 2] * 2 + [SIDE / _AROUND] * 2])
    same = iou(boxes, middle)[:, 0] >= _OVERLAP
    if not same.any():
        return 0.0, np.zeros((5, 2))
    best = int(np.where(same, scores, 0.0).argmax())
    _, points = fuse(boxes, landmarks, scores, np.array([best]))
    return float(scores[best]), points[0] @ turn.T + shift
