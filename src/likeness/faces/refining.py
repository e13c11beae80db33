"""The second look: each face that the detector proposes is cut out and judged again by a small net. NumPy and Pillow
only.

The detector looks at a whole photograph at once, so a face of 100 px lies on a grid of 16 or 32 px, and its landmarks
are as exact as
that. The refiner sees every proposal at the same size (64 px), says whether it is a face, and where box and landmarks
are.
Cascades do this (MTCNN; Zhang et al. 2016).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..nets.engine import Engine

SIDE = 64  # px of the refiner's input
CONTEXT = 1.4  # side of the square that is cut out, in longer sides of the box
NUMBERS = 15  # logit of the score; centre of the box, log of its width and height; five landmarks
MOST = 400  # proposals of one photograph that are looked at again, best first
BATCH = 64
MEAN, SCALE = 127.5, 127.5


def squares(boxes: np.ndarray, *, context: float = CONTEXT) -> np.ndarray:
    """The squares (n, 3) that are cut out for boxes (n, 4) x, y, w, h: centre x, y and side, px."""
    return np.column_stack([boxes[:, :2] + boxes[:, 2:] / 2, context * boxes[:, 2:].max(1)])


def cut(picture: Image.Image, square: np.ndarray, *, side: int = SIDE) -> np.ndarray:
    """The square (x, y, side in px, may reach over the edge: black) resampled with antialiasing to (side, side, 3)
    uint8."""
    x, y, extent = (float(v) for v in square)
    extent = max(extent, 1.0)
    left, top = x - extent / 2, y - extent / 2
    inside = (
        max(0.0, left),
        max(0.0, top),
        min(float(picture.width), left + extent),
        min(float(picture.height), top + extent),
    )
    out = np.zeros((side, side, 3), np.uint8)
    if inside[2] - inside[0] < 1e-3 or inside[3] - inside[1] < 1e-3:
        return out
    ratio = side / extent
    low = [min(side - 1, round((inside[i] - start) * ratio)) for i, start in ((0, left), (1, top))]
    high = [min(side, max(low[i] + 1, round((inside[i + 2] - start) * ratio))) for i, start in ((0, left), (1, top))]
    part = picture.resize((high[0] - low[0], high[1] - low[1]), Image.Resampling.BILINEAR, box=inside)
    out[low[1] : high[1], low[0] : high[0]] = np.asarray(part)
    return out


def decode(raw: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw numbers (n, 15) for squares (n, 3) -> scores (n,), boxes (n, 4) x y w h, landmarks (n, 5, 2), px of the
    photograph."""
    extent = at[:, 2:3]
    scores = 1 / (1 + np.exp(-np.clip(raw[:, 0], -60, 60)))
    centre = at[:, :2] + raw[:, 1:3] * extent
    size = np.exp(np.clip(raw[:, 3:5], -3, 3)) * extent / CONTEXT
    landmarks = at[:, None, :2] + raw[:, 5:].reshape(-1, 5, 2) * extent[:, None]
    return scores, np.concatenate([centre - size / 2, size], axis=1), landmarks


def encode(boxes: np.ndarray, landmarks: np.ndarray, at: np.ndarray) -> np.ndarray:
    """What the refiner should say of squares (n, 3) that show boxes (n, 4) and landmarks (n, 5, 2): (n, 14), without
    score."""
    extent = at[:, 2:3]
    centre = (boxes[:, :2] + boxes[:, 2:] / 2 - at[:, :2]) / extent
    points = (landmarks - at[:, None, :2]) / extent[:, None]
    return np.concatenate([centre, np.log(boxes[:, 2:] * CONTEXT / extent), points.reshape(-1, 10)], axis=1)


class Refiner:
    """The refiner's net, ready to run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def refine(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) of proposals (n, 4) in a photograph (h, w, 3) uint8."""
        at = squares(np.asarray(boxes, np.float64))
        picture = Image.fromarray(image)
        raw = np.zeros((len(at), NUMBERS), np.float32)
        for start in range(0, len(at), BATCH):
            crops = np.stack([cut(picture, square) for square in at[start : start + BATCH]])
            x = (crops.transpose(0, 3, 1, 2).astype(np.float32) - MEAN) / SCALE
            raw[start : start + BATCH] = self._engine.run(x)[0]
        return decode(raw, at)
