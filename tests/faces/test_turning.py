"""Faces that lie or stand on their head get the landmarks that they have the right way up."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from likeness.faces import turning
from likeness.faces.detection import Detector
from likeness.faces.turning import either_way, upright


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


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_faces_of_a_photograph_on_its_side_are_where_they_are(detector: Detector, turn: int) -> None:
    """As if the photograph had been turned back, and the face with it; not square, so that width and height tell."""
    upright_one = np.ascontiguousarray(np.asarray(portrait())[:400])
    (face,) = detector.detect(upright_one)
    image = np.ascontiguousarray(np.rot90(upright_one, -turn))
    (found,) = turning._lying(detector, image)
    back = np.zeros((*image.shape[:2], 2))
    back[..., 1], back[..., 0] = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    back = np.rot90(back, turn)  # for each pixel of the upright photograph, where it lies in the turned one
    for (x, y), (u, v) in zip(face.landmarks, found.landmarks, strict=True):
        assert np.abs(back[int(y), int(x)] - [u, v]).max() < 2
    x, y, w, h = found.box
    assert sorted([w, h]) == pytest.approx(sorted(face.box[2:]), abs=0.1)
    assert 0 < x < x + w < image.shape[1] and 0 < y < y + h < image.shape[0]
    assert abs((found.quality.roll - 90 * turn + 180) % 360 - 180) < 15
    assert found.score == pytest.approx(face.score, abs=1e-6)


def test_where_nobody_is_nobody_lies(detector: Detector) -> None:
    data = pytest.importorskip("skimage.data")
    assert either_way(detector, data.chelsea()) == () == either_way(detector, np.zeros((90, 60, 3), np.uint8))


def test_a_photograph_is_turned_where_no_face_of_it_is_clear(detector: Detector) -> None:
    image = np.asarray(portrait())
    assert either_way(detector, image) == detector.detect(image)
    side = np.ascontiguousarray(np.rot90(image))
    doubtful = detector.detect(side)
    assert all(face.score < turning.CLEAR for face in doubtful)
    (face,) = either_way(detector, side)
    assert face.score > turning.SURE and upright(detector, side, face) is face
