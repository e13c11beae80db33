"""What is known of a face in a photograph."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Quality:
    """How much a face lends itself to recognition; see `faces.quality.measure`.

    size: the smaller side of the box, px of the photograph.
    sharpness: 0 (no detail) … 1 (as sharp as 112 px can hold).
    brightness: mean of the face, 0 (black) … 1 (white).
    yaw, pitch, roll: degrees, estimated from five landmarks. Yaw is positive when the nose points to the picture's
    right, pitch when it points up, roll when the head leans clockwise as the picture shows it.
    """

    size: float
    sharpness: float
    brightness: float
    yaw: float
    pitch: float
    roll: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Face:
    """One face.

    box: x, y, width, height in px of the photograph; may reach over its edge. score: the detector's, 0…1.
    landmarks: five points (x, y): the eye on the picture's left, the other eye, tip of the nose, corners of the mouth
    (left, right in the picture).
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[tuple[float, float], ...]
    quality: Quality

    def to_dict(self) -> dict[str, Any]:
        return {
            "box": list(self.box),
            "score": self.score,
            "landmarks": [list(p) for p in self.landmarks],
            "quality": self.quality.to_dict(),
        }
