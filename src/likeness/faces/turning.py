"""Faces that lie on their side or stand on their head: which way up is this one?

The detector learned from upright faces. Many turned ones it finds as well, but with a lower score and landmarks that
pretend to be upright, from which no code follows. So a face that is not sure is shown to it again, turned, and so is a
whole photograph in which no face is clear.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .alignment import cut
from .decoding import fuse, iou
from .quality import face_of
from .types import Face

if TYPE_CHECKING:
    from .detection import Detector

# 4 % of the photographs of LFW have a face below this score, and 95 % of portraits that stand on their head.
SURE = 0.95
# The log-odds of a turned look must be better by this much: of turned portraits they are by 0.6 and more, and of the
# 54 faces below SURE of 1,500 LFW photographs worse by 0.18 and more.
GAIN = 0.25
CLEAR = 0.9  # all faces of 500 LFW photographs have this score at least, and false alarms less
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
    if _log_odds(score) < _log_odds(max(straight, face.score)) + GAIN:
        return face
    return face_of(image, face.box, score, landmarks)


def either_way(detector: Detector, image: np.ndarray) -> tuple[Face, ...]:
    """The faces of a photograph (h, w, 3) uint8, largest first; where none is clear, those of it lying on its side or
    standing on its head, if they are."""
    faces = detector.detect(image)
    return faces if any(face.score >= CLEAR for face in faces) else _lying(detector, image) or faces


def _lying(detector: Detector, image: np.ndarray) -> tuple[Face, ...]:
    """The clear faces of the quarter turn with the best score, in px of the photograph as it is."""
    turns = [(detector.detect(np.ascontiguousarray(np.rot90(image, turn))), turn) for turn in (1, 2, 3)]
    seen, turn = max(turns, key=lambda found: max((face.score for face in found[0]), default=0.0))
    return tuple(_turned_back(image, face, turn) for face in seen if face.score >= CLEAR)


def _turned_back(image: np.ndarray, face: Face, turn: int) -> Face:
    """A face of `np.rot90(image, turn)` as a face of `image`."""
    height, width = image.shape[:2]
    x, y, w, h = face.box
    points = np.array([(x, y), (x + w, y + h), *face.landmarks])
    u, v = points.T
    points = np.stack([(width - v, u), (width - u, height - v), (v, height - u)][turn - 1], axis=1)
    low, high = points[:2].min(0), points[:2].max(0)
    return face_of(image, (*low, *(high - low)), face.score, points[2:])


def _log_odds(score: float) -> float:
    return math.log(max(score, 1e-6) / max(1 - score, 1e-6))


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
