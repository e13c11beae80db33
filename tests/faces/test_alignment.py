"""Similarity transforms against an independent reference, and crops of pictures whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from likeness.errors import InvalidOption
from likeness.faces.alignment import TEMPLATE, align, similarity_transform


def test_the_template_is_the_published_one() -> None:
    """ArcFace's five points at 112 x 112: every published encoder was trained on crops cut to them."""
    left_eye, right_eye, nose, left_mouth, right_mouth = TEMPLATE.tolist()
    assert (left_eye, right_eye) == ([38.2946, 51.6963], [73.5318, 51.5014])
    assert nose == [56.0252, 71.7366]
    assert (left_mouth, right_mouth) == ([41.5493, 92.3655], [70.7299, 92.2041])


def reference(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Least squares over x' = ax - by + t, y' = bx + ay + u: linear in (a, b, t, u), so solved without Umeyama's
    SVD."""
    rows, right = [], []
    for (x, y), (u, v) in zip(src, dst):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        right += [u, v]
    a, b, t, s = np.linalg.lstsq(np.array(rows, np.float64), np.array(right, np.float64), rcond=None)[0]
    return np.array([[a, -b, t], [b, a, s]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_umeyama_is_the_least_squares_similarity(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    src, dst = rng.normal(0, 30, (n, 2)), rng.normal(50, 30, (n, 2))
    np.testing.assert_allclose(similarity_transform(src, dst), reference(src, dst), atol=1e-10 * 1e2, rtol=1e-10)


def test_umeyama_finds_a_known_transform() -> None:
    rng = np.random.default_rng(0)
    src = rng.normal(0, 10, (5, 2))
    angle, scale, shift = 0.7, 2.5, np.array([3.0, -8.0])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = similarity_transform(src, src @ turn.T + shift)
    np.testing.assert_allclose(found, np.column_stack([turn, shift]), atol=1e-10)
    # two points are enough, and a mirror image is answered with a rotation
    two = similarity_transform([[0, 0], [1, 0]], [[1, 1], [1, 3]])
    np.testing.assert_allclose(two, [[0, -2, 1], [2, 0, 1]], atol=1e-10)
    mirrored = similarity_transform(src, src * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) >= 0


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ([[1, 1]], [[2, 2]]),
        ([[1, 1], [1, 1]], [[0, 0], [1, 1]]),
        ([[1, 1], [2, np.nan]], [[0, 0], [1, 1]]),
        ([[1, 1, 1], [2, 2, 2]], [[0, 0, 0], [1, 1, 1]]),
        ([[1, 1], [2, 2]], [[0, 0], [1, 1], [2, 2]]),
    ],
)
def test_points_without_an_answer(src: list, dst: list) -> None:
    with pytest.raises(InvalidOption):
        similarity_transform(src, dst)


def pattern() -> np.ndarray:
    """A smooth coloured picture of 112 x 112 px, none of whose parts looks like another."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
    return np.asarray(small.resize((112, 112), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1)))


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (1.3, 20), (0.7, -35), (3.0, 10), (2.2, 170)])
def test_a_turned_and_scaled_face_comes_back(scale: float, degrees: float) -> None:
    face = pattern()
    angle = math.radians(degrees)
    forward = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([55.5, 55.5])
    size = 500
    back = np.linalg.inv(forward)
    shift = middle + 0.5 - back @ np.array([size / 2, size / 2])
    photo = Image.fromarray(face).transform(
        (size, size), Image.Transform.AFFINE, tuple(np.column_stack([back, shift]).ravel()), Image.Resampling.BICUBIC
    )
    landmarks = (TEMPLATE - middle) @ forward.T + size / 2 - 0.5
    crop = align(np.asarray(photo), landmarks)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    inner = slice(8, -8)
    difference = np.abs(crop[inner, inner].astype(int) - face[inner, inner])
    assert difference.mean() < 2.5


def test_landmarks_on_the_template_leave_the_picture_as_it_is() -> None:
    face = pattern()
    assert np.abs(align(face, TEMPLATE).astype(int) - face).max() <= 1
    half = align(face, TEMPLATE, size=56)
    assert half.shape == (56, 56, 3)


def turned(scale: float, degrees: float, middle: tuple[float, float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (5, 2) of a face `scale` times as large as in a crop of `size`, turned, its crop's centre at `middle`;
    and the place in the photograph (size, size, 2) of every pixel of the crop."""
    angle = math.radians(degrees)
    forward = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    y, x = np.mgrid[0:size, 0:size]
    centre = (size - 1) / 2
    places = (np.stack([x, y], 2) - centre) @ forward.T + middle
    return (TEMPLATE * size / 112 - centre) @ forward.T + middle, places


@pytest.mark.parametrize(("scale", "degrees"), [(0.3, 10), (0.6, -30), (1.0, 45), (1.4, 5)])
def test_every_pixel_is_what_lies_there(scale: float, degrees: float) -> None:
    """Bilinear between the four pixels about its place in the photograph, up to the border of the crop."""
    photo = np.kron(pattern(), np.ones((3, 3, 1), np.uint8))[::2, ::2]
    landmarks, places = turned(scale, degrees, (84.3, 80.9), 112)
    low = np.floor(places).astype(int)
    a, b = np.moveaxis(places - low, 2, 0)[..., None]
    (x, y), p = np.moveaxis(low, 2, 0), photo.astype(np.float64)
    upper, lower = (
        (1 - a) * p[r, x.clip(0, 166)] + a * p[r, (x + 1).clip(0, 167)] for r in (y.clip(0, 167), (y + 1).clip(0, 167))
    )
    expected = (1 - b) * upper + b * lower
    inside = ((places > 1) & (places < 166)).all(2)
    assert inside.mean() > 0.75
    assert np.abs(align(photo, landmarks) - expected)[inside].max() < 2.5


@pytest.mark.parametrize("degrees", [0, 30, 60, 90])
@pytest.mark.parametrize(
    ("width", "height", "scale", "size"), [(75, 130, 11, 10), (38, 150, 7.6, 16), (40, 100, 8.9, 12)]
)
def test_a_shrunk_photograph_is_still_in_its_place(
    width: int, height: int, scale: float, size: int, degrees: float
) -> None:
    """A ramp is the same after antialiasing, also where the part of the photograph that is shrunk is narrower than
    high, and no whole number of steps."""
    y, x = np.mgrid[0:height, 0:width]
    steep = np.array([250 / width, 250 / height])
    photo = np.stack([steep[0] * x, steep[1] * y, 255 - steep[1] * y], 2).astype(np.uint8)
    landmarks, places = turned(scale, degrees, (width / 2, height / 2 - 5), size)
    crop = align(photo, landmarks, size=size).astype(float)
    inside = ((places > 0.85 * scale) & (places < np.array([width, height]) - 1 - 0.85 * scale)).all(2)
    assert inside.sum() > 15
    ramp = places * steep
    expected = np.stack([ramp[..., 0], ramp[..., 1], 255 - ramp[..., 1]], 2)
    assert np.abs(crop - expected)[inside].max() < 4


def test_shrinking_is_antialiased() -> None:
    """A fine checkerboard, shrunk four times, is grey: sampling single pixels would give black and white."""
    y, x = np.mgrid[0:448, 0:448]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for middle in (1.5, 0.0):  # a bilinear sample between four pixels would be grey, too; one on a pixel is black
        crop = align(board, TEMPLATE * 4 + middle)
        assert crop[20:-20, 20:-20].std() < 10
        assert abs(float(crop[20:-20, 20:-20].mean()) - 127.5) < 5


def test_beyond_the_photograph_is_black() -> None:
    white = np.full((112, 112, 3), 255, np.uint8)
    crop = align(white, TEMPLATE - [56, 0])  # the left half of the crop lies outside
    assert crop[:, :50].max() == 0
    assert crop[2:-2, 60:-2].min() == 255
    assert align(white, TEMPLATE + 5000).max() == 0
    assert align(np.full((1, 1, 3), 255, np.uint8), TEMPLATE).shape == (112, 112, 3)


def test_what_cannot_be_aligned() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(InvalidOption, match="one place"):
        align(picture, np.ones((5, 2)))
    with pytest.raises(InvalidOption, match="uint8"):
        align(picture.astype(float), TEMPLATE)
    with pytest.raises(InvalidOption, match="size"):
        align(picture, TEMPLATE, size=0)
    with pytest.raises(InvalidOption, match="no scale"):
        similar = TEMPLATE - TEMPLATE.mean(0)
        align(picture, np.column_stack([similar[:, 1] * 0, [1e9, -1e9, 0, 1e9, -1e9]]) * 1e3)
