"""Pictures with drawn faces, for tests that need no real ones: an ellipse with two eyes, a nose and a mouth."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from likeness.faces.alignment import TEMPLATE

SKIN = ((224, 172, 105), (141, 85, 36), (255, 219, 172))


def face_points(x: float, y: float, width: float) -> tuple[list[float], np.ndarray]:
    """Box (x, y, w, h) and landmarks (5, 2) of a drawn face whose box begins at x, y."""
    height = 1.25 * width
    points = (TEMPLATE - [16, 8]) / 80 * width + [x, y]
    return [x, y, width, height], points


def draw_face(picture: Image.Image, x: float, y: float, width: float, *, skin: tuple[int, int, int]) -> tuple:
    box, points = face_points(x, y, width)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x, y, x + box[2], y + box[3]), fill=skin)
    r = max(1.0, width / 16)
    for u, v in points[:2]:
        pen.ellipse((u - r, v - r, u + r, v + r), fill=(20, 20, 40))
    u, v = points[2]
    pen.ellipse((u - r / 2, v - r, u + r / 2, v + r), fill=tuple(c // 2 for c in skin))
    pen.line([tuple(points[3]), tuple(points[4])], fill=(150, 30, 40), width=int(r) + 1)
    return box, points


def make_folder(folder: Path, *, count: int = 10, size: tuple[int, int] = (160, 120), empty: int = 3) -> Path:
    """Photographs with one or two drawn faces, some without any, and their label file."""
    rng = np.random.default_rng(7)
    labels = {}
    for i in range(count + empty):
        picture = Image.fromarray(rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8))
        faces = []
        for side in range(0 if i >= count else 1 + i % 2):
            width = float(rng.uniform(24, 56))
            x = side * size[0] / 2 + rng.uniform(0, size[0] / 2 - width)
            box, points = draw_face(picture, x, rng.uniform(0, size[1] - 1.25 * width), width, skin=SKIN[i % 3])
            faces.append({"box": box, "score": 0.9, "landmarks": points.tolist()})
        name = f"pictures/{i:03d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
        labels[name] = {"kind": "scene", "split": "train", "size": list(size), "faces": faces, "given_boxes": None}
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="session")
def make_faces() -> Callable[..., Path]:
    """`make_faces(folder, count=…)`: photographs of drawn faces with their label file."""
    return make_folder
