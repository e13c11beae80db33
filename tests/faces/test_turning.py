"""Faces that lie or stand on their head get the landmarks that they have the right way up."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from likeness.faces.detection import Detector
from likeness.faces.turning import upright


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load()


def portrait() -> Image.Image:
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut())


@pytest.mark.parametrize("angle", [90, 135, 180, 270])
def test_landmarks_of_a_turned_face_turn_with_it(detector: Detector, angle: int) -> None:
    (face,) = detector.detect(np.asarray(portrait()))
    straight = np.array(face.landmarks)
    image = np.asarray(portrait().rotate(angle, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90)))
    back = np.radians(angle)  # a picture turned counterclockwise by Pillow, about its centre (256, 256)
    turn = np.array([[np.cos(back), np.sin(back)], [-np.sin(back), np.cos(back)]])
    expected = (straight - 256) @ turn.T + 256
    x, y, w, h = face.box
    middle = turn @ [x + w / 2 - 256, y + h / 2 - 256] + 256
    found = replace(face, box=(*(middle - max(w, h) / 2), max(w, h), max(w, h)), score=0.65)  # as the detector has it
    face = upright(detector, image, found)
    eyes = np.linalg.norm(straight[0] - straight[1])
    assert np.linalg.norm(np.array(face.landmarks) - expected, axis=1).max() < 0.35 * eyes
    assert abs((face.quality.roll + angle + 180) % 360 - 180) < 15 and face.score > 0.85


def test_an_upright_face_is_left_alone(detector: Detector) -> None:
    image = np.asarray(portrait())
    (face,) = detector.detect(image)
    assert upright(detector, image, face) is face


def test_a_doubtful_face_keeps_its_landmarks_where_no_turn_is_better(detector: Detector) -> None:
    image = np.asarray(portrait())
    doubtful = replace(detector.detect(image)[0], score=0.7)
    assert upright(detector, image, doubtful) is doubtful
    nothing = np.zeros((512, 512, 3), np.uint8)
    assert upright(detector, nothing, doubtful) is doubtful


def test_a_face_at_the_edge_or_outside(detector: Detector) -> None:
    image = np.asarray(portrait())
    face = replace(detector.detect(image)[0], score=0.7)
    for box in ((-80.0, -80.0, 90.0, 90.0), (900.0, 900.0, 50.0, 50.0), (500.0, 100.0, 400.0, 400.0)):
        moved = replace(face, box=box)
        assert np.isfinite(upright(detector, image, moved).landmarks).all()
