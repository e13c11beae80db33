"""From five landmarks to the aligned crop that encoders expect.

Coordinates are indices of pixels: (0, 0) is the centre of the first one. This is the convention in which the usual
template was written down, and which every published encoder was trained with. Detectors count from the corner of the
first pixel; the difference of half a pixel is not taken back, because the crops that encoders learn from were cut
without doing so (EdgeFace-XS on LFW: 99.42 % as it is, 99.32 % with half a pixel subtracted).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..errors import InvalidOption

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose and corners of the mouth (x, y) belong in a crop of 112 x 112 pixels (ArcFace; Deng et al. 2019)."""

TEMPLATE_SIZE = 112
# source pixels per pixel of the crop from which on the source is shrunk first: bilinear sampling would skip some
_SHRINK = 1.5


def similarity_transform(src: ArrayLike, dst: ArrayLike) -> np.ndarray:
    """The rotation, scale and shift (2, 3), float64, that brings points src (n, 2) nearest to dst (n, 2) (Umeyama
    1991).

    `transform @ [x, y, 1]` is the new point; the squared distances are least; no mirroring. Raises InvalidOption
    unless there are at least two points, all finite and not all in one place.
    """
    a, b = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 2 or len(a) < 2:
        raise InvalidOption(
            f"two lists of the same n >= 2 points (x, y) are needed, not shapes {a.shape} and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InvalidOption("points must be finite")
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    variance = (a**2).sum() / len(a)
    if variance < 1e-12:
        raise InvalidOption("all points are in one place: no scale or angle follows from them")
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / variance
    return np.column_stack([scale * rotation, mean_b - scale * rotation @ mean_a])


def align(image: np.ndarray, landmarks: ArrayLike, *, size: int = 112) -> np.ndarray:
    """The face turned, scaled and cut so that its landmarks lie on TEMPLATE: (size, size, 3) uint8; black where the
    photograph ends.

    image: (h, w, 3) uint8; landmarks: (5, 2). Large faces are shrunk with antialiasing.
    Raises InvalidOption for other shapes or landmarks all in one place.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InvalidOption(f"image must be (h, w, 3) uint8, not {image.shape} {image.dtype}")
    if size < 1:
        raise InvalidOption(f"size must be at least 1, not {size}")
    forward = similarity_transform(landmarks, TEMPLATE * (size / TEMPLATE_SIZE))
    linear = forward[:, :2]
    scale = math.sqrt(abs(np.linalg.det(linear)))
    if scale < 1e-9:
        raise InvalidOption("the landmarks do not look like a face: no scale follows from them")
    back = np.linalg.inv(linear)
    shift = -back @ forward[:, 2]
    # Pillow counts from the corner of the first pixel, we from its centre
    shift = shift + 0.5 - back @ [0.5, 0.5]
    return cut(image, back, shift, size)


def cut(image: np.ndarray, turn: np.ndarray, shift: np.ndarray, size: int) -> np.ndarray:
    """The square picture (size, size, 3) uint8 whose point u shows `image` (h, w, 3) uint8 at `turn @ u + shift`.

    Points are counted from the corner of the first pixel. Black where the photograph ends; shrunk with antialiasing.
    """
    picture, shift, turn = _region(image, turn, shift, size, math.sqrt(abs(np.linalg.det(turn))))
    matrix = np.column_stack([turn, shift]).ravel()
    return np.asarray(picture.transform((size, size), Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR))


def _region(
    image: np.ndarray, back: np.ndarray, shift: np.ndarray, size: int, step: float
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """The part of the photograph that the crop needs, shrunk by `step` where the crop would skip pixels; and the map
    onto it."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) @ back.T + shift
    margin = 2 * step + 2
    low = np.maximum(np.floor(corners.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0) + margin), [image.shape[1], image.shape[0]]).astype(int)
    if (high <= low).any():  # the face lies outside the photograph
        return Image.new("RGB", (1, 1)), shift - 1e6, back
    picture = Image.fromarray(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]))
    shift = shift - low
    if step < _SHRINK:
        return picture, shift, back
    small = (max(1, round(picture.width / step)), max(1, round(picture.height / step)))
    ratio = np.array([small[0] / picture.width, small[1] / picture.height])
    return picture.resize(small, Image.Resampling.BILINEAR, reducing_gap=3.0), shift * ratio, back * ratio[:, None]
