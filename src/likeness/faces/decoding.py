"""From the detector net's raw output to boxes and landmarks, and back: NumPy only, no files, no net.

The net sees a picture whose sides are multiples of 32 and answers at three strides (8, 16 and 32 pixels). At each
position ("prior") it gives 15 numbers, all relative to the prior's centre and in units of its stride:

    0      logit of the score
    1:3    offset of the box's centre (x, y)
    3:5    natural logarithm of the box's width and height
    5:15   offsets of the five landmarks (x, y)

This is the anchor-free head of YuNet (Wu et al. 2023) with one score instead of class and objectness.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

STRIDES = (8, 16, 32)
NUMBERS = 15
MULTIPLE = 32  # sides of the net's input are multiples of this
_LARGEST_LOG = 8.0  # exp(8) strides: no face is larger; keeps exp finite on untrained weights


def priors(height: int, width: int) -> np.ndarray:
    """Centres and strides of all priors of a picture, (n, 3) float32: x, y, stride, in the order of the net's
    output."""
    rows = []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        centres = (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride
        rows.append(np.column_stack([centres, np.full(len(centres), stride)]))
    return np.concatenate(rows).astype(np.float32)


def decode(raw: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw numbers (n, 15) at priors (n, 3) -> scores (n,), boxes (n, 4) as x, y, w, h, landmarks (n, 5, 2), in
    pixels."""
    raw = np.asarray(raw, np.float32)
    stride = at[:, 2:3]
    scores = 1 / (1 + np.exp(-np.clip(raw[:, 0], -60, 60)))
    centre = at[:, :2] + raw[:, 1:3] * stride
    size = np.exp(np.minimum(raw[:, 3:5], _LARGEST_LOG)) * stride
    landmarks = at[:, None, :2] + raw[:, 5:15].reshape(-1, 5, 2) * stride[:, None]
    return scores, np.concatenate([centre - size / 2, size], axis=1), landmarks


def decode_yunet(
    outputs: Mapping[str, np.ndarray], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from YuNet's twelve outputs (cls, obj, bbox and kps at each stride) for a picture of height x width:
    of all its priors."""
    scores, boxes, landmarks = [], [], []
    for stride in STRIDES:
        cls, obj = (np.clip(outputs[f"{kind}_{stride}"].reshape(-1), 0, 1) for kind in ("cls", "obj"))
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cell = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
        size = np.exp(np.minimum(box[:, 2:], _LARGEST_LOG)) * stride
        scores.append(np.sqrt(cls * obj))
        boxes.append(np.concatenate([(cell + box[:, :2]) * stride - size / 2, size], axis=1))
        landmarks.append((cell[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)) * stride)
    return np.concatenate(scores), np.concatenate(boxes), np.concatenate(landmarks)


def mirrored(raw: np.ndarray, height: int, width: int) -> np.ndarray:
    """What the net's numbers (n, 15) about the mirror image of a picture say about the picture itself: priors change
    places within their row, x changes its sign, left and right eye and corner of the mouth their places."""
    parts, first = [], 0
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        part = raw[first : first + rows * columns].reshape(rows, columns, NUMBERS)[:, ::-1].copy()
        part[..., 1] *= -1
        part[..., 5:] = flip_landmarks(part[..., 5:].reshape(rows, columns, 5, 2), 0).reshape(rows, columns, 10)
        parts.append(part.reshape(-1, NUMBERS))
        first += rows * columns
    return np.concatenate(parts)


def flip_landmarks(landmarks: np.ndarray, width: float) -> np.ndarray:
    """Landmarks (..., 5, 2) in the mirror image of a picture `width` pixels wide: left and right eye and corner of
    the mouth change places."""
    flipped = landmarks[..., [1, 0, 2, 4, 3], :].copy()
    flipped[..., 0] = width - flipped[..., 0]
    return flipped


def encode(boxes: np.ndarray, landmarks: np.ndarray, at: np.ndarray) -> np.ndarray:
    """What the net should say at priors (n, 3) of faces with boxes (n, 4) and landmarks (n, 5, 2): (n, 14), i.e.
    without score.

    The inverse of `decode` but for the score.
    """
    stride = at[:, 2:3]
    centre = (boxes[:, :2] + boxes[:, 2:] / 2 - at[:, :2]) / stride
    size = np.log(boxes[:, 2:] / stride)
    points = (landmarks - at[:, None, :2]) / stride[:, None]
    return np.concatenate([centre, size, points.reshape(-1, 10)], axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes a (n, 4) and b (m, 4), each x, y, w, h: (n, m)."""
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    shared = _shared(a, b)
    union = a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area that boxes a (n, 4) and b (m, 4) have in common: (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(2)


def nms(boxes: np.ndarray, scores: np.ndarray, *, max_overlap: float = 0.4) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes kept, best score first.

    A box is dropped where its intersection over union with a better box that was kept is larger than `max_overlap`.
    Ties in score go to the lower index.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[iou(boxes[best : best + 1], boxes[order])[0] <= max_overlap]
    return np.array(kept, dtype=np.int64)


def outermost(boxes: np.ndarray, scores: np.ndarray, *, max_inside: float = 0.7) -> np.ndarray:
    """Which boxes (n, 4) are not part of a better face, (n,) bool: suppression across scales.

    An eye with a cheek may look like a small face where one face fills the picture; its overlap (IoU) with the face is
    small, as the face is much larger. A box is dropped where more than `max_inside` of it lies in one that is larger
    and has a higher score. Of 7,136 labelled faces of groups and crowds, no two lie in each other by more than 0.63.
    """
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores)
    areas = boxes[:, 2:].prod(1)
    inside = _shared(boxes, boxes) > max_inside * areas[:, None]  # [n, n]: row in column
    better = (scores[None] > scores[:, None]) & (areas[None] > areas[:, None])
    return ~(inside & better).any(1)


def fuse(
    boxes: np.ndarray, landmarks: np.ndarray, scores: np.ndarray, kept: np.ndarray, *, min_overlap: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (k, 4) and landmarks (k, 5, 2) of the kept detections, each averaged (weights: score²) with the
    detections that overlap it by at least `min_overlap`: neighbouring priors see the same face, and the mean of their
    opinions is more exact than the best one's.
    """
    overlap = iou(boxes[kept], boxes)
    weight = np.where(overlap >= min_overlap, scores[None] ** 2, 0.0)  # [k, n]
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
    return weight @ boxes, np.einsum("kn,npd->kpd", weight, landmarks)
