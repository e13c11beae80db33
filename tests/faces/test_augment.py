"""Training pictures: landmarks stay on what they mark, whatever happens to the picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from likeness.faces.augment import Canvas, Pictures, _mirror, _photometric, _similarity
from likeness.faces.labels import Photo, read_labels


def dotted() -> tuple[Photo, np.ndarray]:
    """A grey picture with five soft coloured dots where its landmarks are."""
    points = np.array([[70.0, 60], [110, 62], [88, 85], [74, 105], [104, 107]], np.float32)
    image = np.full((160, 200, 3), 90, np.float32)
    y, x = np.mgrid[0:160, 0:200] + 0.5
    for i, (u, v) in enumerate(points):
        image[..., i % 3] += 160 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18)
    photo = Photo("a", Path("a"), np.array([[55, 40, 70, 85]], np.float32), points[None], np.array([True]))
    return photo, np.clip(image, 0, 255).astype(np.uint8)


def peak(image: np.ndarray, point: np.ndarray, channel: int) -> np.ndarray:
    """Centre of brightness about a point."""
    x0, y0 = (int(v) for v in np.round(point))
    window = image[max(0, y0 - 8) : y0 + 9, max(0, x0 - 8) : x0 + 9, channel].astype(float)
    window = np.clip(window - 110, 0, None)
    ys, xs = np.mgrid[0 : window.shape[0], 0 : window.shape[1]]
    centre = np.array([(window * xs).sum(), (window * ys).sum()]) / window.sum()
    return centre + [max(0, x0 - 8), max(0, y0 - 8)] + 0.5


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (0.6, 15), (1.7, -20), (0.75, -5)])
def test_landmarks_move_with_the_picture(scale: float, degrees: float) -> None:
    photo, image = dotted()
    made = _similarity(
        photo, image, scale=scale, degrees=degrees, anchor=np.array([90.0, 80]), where=np.array([130.0, 120]),
        width=256, height=240, fill=np.full(3, 90),
    )  # fmt: skip
    assert made.image.shape == (240, 256, 3)
    for turned in (made, _mirror(made)):
        order = (0, 1, 2, 3, 4) if turned is made else (1, 0, 2, 4, 3)
        for i, point in enumerate(turned.landmarks[0]):
            assert peak(turned.image, point, order[i] % 3) == pytest.approx(point, abs=0.6)
        inside = (turned.landmarks[0] >= turned.boxes[0, :2]) & (
            turned.landmarks[0] <= turned.boxes[0, :2] + turned.boxes[0, 2:]
        )
        assert inside.all()
    assert made.boxes[0, 2:].mean() == pytest.approx(77.5 * scale, rel=0.06)


def test_faces_outside_or_too_small_are_not_asked_for() -> None:
    photo, image = dotted()
    common = {
        "image": image,
        "degrees": 0.0,
        "anchor": np.array([90.0, 80]),
        "width": 100,
        "height": 100,
        "fill": np.zeros(3),
    }
    tiny = _similarity(photo, scale=0.08, where=np.array([50.0, 50]), **common)
    assert tiny.sure.tolist() == [False]
    edge = _similarity(photo, scale=1.0, where=np.array([130.0, 50]), **common)
    assert edge.sure.tolist() == [False]
    gone = _similarity(photo, scale=1.0, where=np.array([500.0, 50]), **common)
    assert len(gone.boxes) == 0


def test_canvases_depend_on_the_seed_alone(tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    pictures = Pictures(read_labels(make_faces(tmp_path)), size=96)
    for i in range(40):
        first, second = (pictures.canvas(np.random.default_rng([0, i])) for _ in range(2))
        assert first.image.shape == (96, 96, 3)
        assert first.image.dtype == np.uint8
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.boxes, second.boxes)
        n = len(first.boxes)
        assert first.boxes.shape == (n, 4)
        assert first.landmarks.shape == (n, 5, 2)
        assert first.sure.shape == (n,)
        assert (first.boxes[first.sure][:, 2:] >= 7).all()
        assert first.boxes.dtype == first.landmarks.dtype == np.float32


def test_pictures_without_faces_alone(tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    pictures = Pictures(read_labels(make_faces(tmp_path, count=0)), size=64)
    assert not any(pictures.canvas(np.random.default_rng(i)).sure.any() for i in range(10))


def test_light_leaves_faces_alone() -> None:
    photo, image = dotted()
    canvas = Canvas(image, photo.boxes, photo.landmarks, photo.sure)
    for i in range(60):
        lit = _photometric(np.random.default_rng(i), canvas)
        assert lit.image.shape == image.shape
        assert lit.image.dtype == np.uint8
        assert lit.boxes is canvas.boxes
