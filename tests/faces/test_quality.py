"""Quality figures move the way their names say."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from likeness.faces.alignment import TEMPLATE
from likeness.faces.quality import _MODEL, measure, pose, sharpness
from likeness.faces.types import Face, Quality

skimage = pytest.importorskip("skimage")

ASTRONAUT = np.array([[203.0, 104.0], [243.0, 105.0], [220.0, 126.0], [205.0, 144.0], [239.0, 145.0]])
BOX = (180.0, 65.0, 85.0, 115.0)


def astronaut() -> np.ndarray:
    from skimage import data

    return data.astronaut()


def test_blur_lowers_sharpness() -> None:
    picture = Image.fromarray(astronaut())
    blurred = [picture, *(picture.filter(ImageFilter.GaussianBlur(radius)) for radius in (0.7, 1.5, 3.0, 6.0))]
    values = [measure(np.asarray(p), BOX, ASTRONAUT).sharpness for p in blurred]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < 0.15 < 0.3 < values[0] <= 1


def test_low_resolution_lowers_sharpness() -> None:
    picture = Image.fromarray(astronaut())
    values = []
    for factor in (1, 2, 4, 8):
        small = picture.resize((512 // factor, 512 // factor), Image.Resampling.BOX)
        box = [v / factor for v in BOX]
        quality = measure(np.asarray(small), box, (ASTRONAUT + 0.5) / factor - 0.5)
        values.append(quality.sharpness)
        assert quality.size == pytest.approx(85 / factor)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("recompress", [False, True])
def test_a_hopelessly_blurred_face_is_not_sharp_again(recompress: bool) -> None:
    """Of a flat face, noise, JPEG and the rounding to 8 bits are all the detail there is; they must not count."""
    from io import BytesIO

    from likeness.recognition.encoder import Limits

    values = []
    for share in (0, 2, 3, 6, 8, 12, 16):  # standard deviation in % of the face's width
        picture = Image.fromarray(astronaut()).filter(ImageFilter.GaussianBlur(share / 100 * BOX[2]))
        if recompress:
            buffer = BytesIO()
            picture.save(buffer, "JPEG", quality=80)
            picture = Image.open(buffer).convert("RGB")
        values.append(measure(np.asarray(picture), BOX, ASTRONAUT).sharpness)
    assert min(values[:3]) > Limits().sharpness > max(values[4:])
    assert values[:5] == sorted(values[:5], reverse=True)


def test_sharpness_does_not_follow_light_and_flat_pictures_are_not_sharp() -> None:
    rng = np.random.default_rng(0)
    grey = rng.uniform(50, 200, (80, 80))
    assert sharpness(grey * 0.5) == pytest.approx(sharpness(grey), abs=0.01)
    assert sharpness(np.full((80, 80), 7.0)) == 0
    assert sharpness(grey) <= 1


def test_darkening_lowers_brightness() -> None:
    picture = astronaut().astype(float)
    values = [measure((picture * gain).astype(np.uint8), BOX, ASTRONAUT).brightness for gain in (1, 0.6, 0.3, 0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0
    assert values[0] < 1


def project(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The model's five points, turned in space, seen by a far camera. x right, y down, z away."""
    a, b, c = (math.radians(v) for v in (yaw, pitch, roll))
    # at yaw a the nose, (0, 0, -1), points to (sin a, 0, -cos a); at pitch b to (0, -sin b, -cos b)
    turn_y = np.array([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    turn_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    points = _MODEL @ (turn_z @ turn_y @ turn_x).T
    return points[:, :2] * 1.7 + [100, 80]


def test_a_frontal_face_looks_straight_ahead() -> None:
    assert pose(TEMPLATE) == pytest.approx((0, 0, 0), abs=8)
    assert pose(project(0, 0, 0)) == pytest.approx((0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("angle", [-40, -15, 15, 40])
def test_pose_recovers_a_turned_model(angle: float) -> None:
    yaw, pitch, roll = pose(project(angle, 0, 0))
    assert yaw == pytest.approx(angle, abs=3)
    assert pitch == pytest.approx(0, abs=3)
    assert pose(project(0, angle / 2, 0))[1] == pytest.approx(angle / 2, abs=3)
    assert pose(project(0, 0, angle))[2] == pytest.approx(angle, abs=3)
    assert roll == pytest.approx(0, abs=3)


def test_signs_are_those_of_the_docstring() -> None:
    nose_right = TEMPLATE + np.array([[0, 0], [0, 0], [8, 0], [0, 0], [0, 0]])
    assert pose(nose_right)[0] > pose(TEMPLATE)[0] + 10
    nose_up = TEMPLATE + np.array([[0, 0], [0, 0], [0, -6], [0, 0], [0, 0]])
    assert pose(nose_up)[1] > pose(TEMPLATE)[1] + 5
    assert pose(np.zeros((5, 2))) == (0, 0, 0)


def test_faces_become_plain_json() -> None:
    import json

    quality = Quality(40.0, 0.5, 0.4, 1.0, 2.0, 3.0)
    face = Face((1.0, 2.0, 30.0, 40.0), 0.9, ((1.0, 2.0),) * 5, quality)
    back = json.loads(json.dumps(face.to_dict()))
    assert back["box"] == [1, 2, 30, 40]
    assert back["quality"] == {"size": 40, "sharpness": 0.5, "brightness": 0.4, "yaw": 1, "pitch": 2, "roll": 3}
    assert len(back["landmarks"]) == 5
