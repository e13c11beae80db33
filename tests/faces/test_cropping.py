"""From a photograph to a training crop: one clear face gives one, anything else gives none."""

from typing import Any

import numpy as np
import pytest

from likeness.faces import cropping
from likeness.faces.alignment import TEMPLATE, align
from likeness.faces.cropping import crop_of_one, dominating
from likeness.faces.types import Face, Quality

QUALITY = Quality(40, 1, 0.5, 0, 0, 0)


def face(side: float, x: float = 0, score: float = 0.9) -> Face:
    points = tuple((float(u), float(v)) for u, v in TEMPLATE * (side / 112) + [x, 0])
    return Face((x, 0, side, side), score, points, QUALITY)


def test_a_wall_does_not_dominate_a_clear_face() -> None:
    wall, person, other = face(100, score=0.75), face(60), face(70, score=0.82)
    assert dominating([wall, person]) is person
    assert dominating([wall, other]) is None  # neither is clear
    assert dominating([wall, person, other]) is None  # two people
    assert dominating([wall]) is wall


@pytest.mark.parametrize(
    ("sides", "found"), [((), False), ((60,), True), ((60, 50), False), ((60, 30), True), ((60, 39), False)]
)
def test_the_dominating_face_or_none(sides: tuple[float, ...], found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (80, 200, 3), dtype=np.uint8)
    faces = tuple(face(side, 70 * i) for i, side in enumerate(sides))
    monkeypatch.setattr(cropping, "detect", lambda image, **_: faces)
    crop = crop_of_one(photograph, size=64)
    assert (crop is not None) == found
    if crop is not None:
        assert np.array_equal(crop, align(photograph, faces[0].landmarks, size=64))


def test_a_real_portrait() -> None:
    data: Any = pytest.importorskip("skimage.data")
    crop = crop_of_one(data.astronaut())
    assert crop is not None and crop.shape == (112, 112, 3) and crop.dtype == np.uint8
    assert crop_of_one(data.chelsea()) is None  # a cat
