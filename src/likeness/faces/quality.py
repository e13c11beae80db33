"""Figures that say how much a face lends itself to recognition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .alignment import TEMPLATE, align
from .types import Face, Quality

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_NOSE_DEPTH = 16.0  # px of the template: the tip of the nose stands out by about 0.45 of the distance between the eyes
_MODEL = np.column_stack([TEMPLATE, [0.0, 0.0, -_NOSE_DEPTH, 0.0, 0.0]])
_MODEL -= _MODEL.mean(0)  # x right, y down, z away from the camera
_HALF = 0.16  # Laplacian energy per contrast at which sharpness is 1/2: about that of a soft portrait


def measure(
    image: np.ndarray, box: Sequence[float], landmarks: ArrayLike, *, crop: np.ndarray | None = None
) -> Quality:
    """The quality of one face.

    image: (h, w, 3) uint8; box: x, y, w, h; landmarks: (5, 2); crop: the aligned face (112, 112, 3), if at hand.
    """
    points = np.asarray(landmarks, np.float64)
    face = align(image, points) if crop is None else crop
    grey = (face.astype(np.float32) @ _GREY)[20:108, 16:96]  # brows to chin: no hair, no background
    yaw, pitch, roll = pose(points)
    return Quality(
        size=float(min(box[2], box[3])),
        sharpness=sharpness(grey),
        brightness=float(grey.mean() / 255),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
    )


def face_of(image: np.ndarray, box: Sequence[float], score: float, landmarks: ArrayLike) -> Face:
    """A face of the photograph (h, w, 3) uint8 as plain numbers, its quality measured."""
    x, y, w, h = (float(v) for v in box)
    points = tuple((float(u), float(v)) for u, v in np.asarray(landmarks))
    return Face((x, y, w, h), float(score), points, measure(image, box, landmarks))


def sharpness(grey: np.ndarray) -> float:
    """Share of detail in a grey picture (h, w), 0…1: v/(v + 0.16) of v = variance of the Laplacian per variance of the
    grey values, both of the means of 2 x 2 pixels.

    Divided by contrast, it does not change with light. Pairs of pixels are averaged because in the finest detail of a
    blurred face noise, JPEG's blocks and the rounding to 8 bits are all there is, the more of it the flatter the face
    has become. A face smaller than the crop was enlarged, so it holds less detail, too.
    """
    rows, columns = (side // 2 * 2 for side in grey.shape)
    means = np.asarray(grey, np.float32)[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean((1, 3))
    laplacian = 4 * means[1:-1, 1:-1] - means[:-2, 1:-1] - means[2:, 1:-1] - means[1:-1, :-2] - means[1:-1, 2:]
    detail = float(laplacian.var() / (means.var() + 4.0))  # 4: the noise of 8-bit pictures; flat ones are not sharp
    return detail / (detail + _HALF)


def pose(landmarks: ArrayLike) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees: the turn of a mean face (five points in space) whose parallel projection fits
    best.

    Only the tip of the nose stands out of the plane, so yaw and pitch are estimates (a long nose looks turned down).
    Points that are no face give 0.
    """
    points = np.asarray(landmarks, np.float64)
    matrix = np.linalg.lstsq(_MODEL, points - points.mean(0), rcond=None)[
        0
    ].T  # [2, 3] = scale * first two rows of the rotation
    u, d, vt = np.linalg.svd(matrix, full_matrices=False)
    if not np.isfinite(d).all() or d[0] < 1e-9:
        return 0.0, 0.0, 0.0
    first, second = u @ vt  # the nearest pair of orthonormal rows
    third = np.cross(first, second)
    x, y, z = -first[2], -second[2], -third[2]  # where the nose points
    yaw = math.degrees(math.atan2(x, -z))
    pitch = math.degrees(math.asin(min(1.0, max(-1.0, -y))))
    roll = math.degrees(math.atan2(second[0], first[0]))
    return yaw, pitch, roll
