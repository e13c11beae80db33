"""From raw numbers to faces and back, and non-maximum suppression against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.faces.decoding import (
    STRIDES,
    decode,
    decode_yunet,
    encode,
    flip_landmarks,
    fuse,
    iou,
    mirrored,
    nms,
    outermost,
    priors,
)


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.column_stack([rng.uniform(0, 100, (n, 2)), rng.uniform(1, 60, (n, 2))])


def test_priors_are_the_centres_of_cells() -> None:
    at = priors(64, 96)
    assert at.shape == (8 * 12 + 4 * 6 + 2 * 3, 3)
    np.testing.assert_array_equal(at[0], [4, 4, 8])
    np.testing.assert_array_equal(at[1], [12, 4, 8])
    np.testing.assert_array_equal(at[12], [4, 12, 8])
    np.testing.assert_array_equal(at[-1], [80, 48, 32])
    assert set(at[:, 2]) == set(STRIDES)


def test_decode_undoes_encode() -> None:
    rng = np.random.default_rng(0)
    at = priors(96, 64)
    boxes, landmarks = random_boxes(rng, len(at)), rng.uniform(0, 100, (len(at), 5, 2))
    raw = np.column_stack([rng.normal(0, 2, len(at)), encode(boxes, landmarks, at)])
    scores, got_boxes, got_landmarks = decode(raw, at)
    np.testing.assert_allclose(got_boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(got_landmarks, landmarks, atol=1e-3)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-raw[:, 0])), atol=1e-6)


def test_decode_by_hand() -> None:
    """The prior in the middle of the third cell of the second row of 8 pixels each."""
    raw = [math.log(3), 0.5, -0.25, math.log(4), math.log(2), 0, 0, 1, -0.5, 2, -1, 3, -1.5, 4, -2]
    scores, boxes, landmarks = decode(np.array([raw]), np.array([[20.0, 12, 8]]))
    assert scores == pytest.approx([0.75], abs=1e-6)
    np.testing.assert_allclose(boxes, [[8, 2, 32, 16]], rtol=1e-6)  # 32 x 16 about (24, 10)
    np.testing.assert_allclose(landmarks, [[[20, 12], [28, 8], [36, 4], [44, 0], [52, -4]]], rtol=1e-6)
    # at another stride everything but the score grows with it
    _, boxes, landmarks = decode(np.array([raw]), np.array([[48.0, 16, 32]]))
    np.testing.assert_allclose(boxes, [[64 - 64, 8 - 32, 128, 64]], atol=1e-4)
    np.testing.assert_allclose(landmarks[0, [1, 4]], [[80, 0], [176, -48]], atol=1e-4)


def test_numbers_of_the_mirror_image_are_those_of_the_picture() -> None:
    """A face and what the net should say of it, here and in the mirror; twice mirrored is as before."""
    height, width = 64, 96
    at, rng = priors(height, width), np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 60, (len(at), 2)), rng.uniform(5, 30, (len(at), 2))])
    points = rng.uniform(0, 90, (len(at), 5, 2))
    raw = np.column_stack([rng.normal(size=len(at)), encode(boxes, points, at)])
    turned = mirrored(raw, height, width)
    scores, found, landmarks = decode(turned, at)
    order = [int(np.flatnonzero((at == [width - x, y, stride]).all(1))[0]) for x, y, stride in at]
    expected = boxes[order].copy()
    expected[:, 0] = width - expected[:, 0] - expected[:, 2]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-raw[order, 0])), rtol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(landmarks, flip_landmarks(points[order], width), atol=1e-3)
    np.testing.assert_array_equal(mirrored(turned, height, width), raw)


def test_wild_numbers_stay_finite() -> None:
    raw = np.full((2, 15), 1e9, np.float32)
    raw[1] = -1e9
    scores, boxes, landmarks = decode(raw, priors(32, 32)[:2])
    assert np.isfinite(scores).all() and np.isfinite(boxes).all() and np.isfinite(landmarks).all()


def brute_force(boxes: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        x, y, w, h = boxes[i]
        for j in kept:
            u, v, p, q = boxes[j]
            shared = max(0, min(x + w, u + p) - max(x, u)) * max(0, min(y + h, v + q) - max(y, v))
            if shared / (w * h + p * q - shared) > limit:
                break
        else:
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.2, 0.4, 0.6]))
def test_nms_is_the_brute_force_one(seed: int, n: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, n), rng.integers(0, 8, n) / 8  # ties
    assert nms(boxes, scores, max_overlap=limit).tolist() == brute_force(boxes, scores, limit)


def test_iou_by_hand() -> None:
    a = [[0, 0, 10, 10]]
    assert iou(a, [[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]])[0].tolist() == pytest.approx(
        [1, 1 / 3, 0, 0]
    )
    assert iou(np.zeros((0, 4)), a).shape == (0, 1)


def test_fused_faces_are_the_mean_of_what_overlaps() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 10, 10]])
    landmarks = np.arange(3)[:, None, None] * np.ones((3, 5, 2))
    scores = np.array([0.8, 0.8, 0.5])
    mean, points = fuse(boxes, landmarks, scores, np.array([0, 2]))
    np.testing.assert_allclose(mean, [[0.5, 0, 10, 10], [50, 50, 10, 10]])
    np.testing.assert_allclose(points[:, 0, 0], [0.5, 2])


def test_fusing_weighs_by_the_squared_score() -> None:
    """By hand: two boxes that share 8 of 12 columns (IoU 2/3), scores 0.9 and 0.6; a third shares 7 of 13 (0.54),
    which is not enough for the first, but enough for the second (IoU 9/11)."""
    boxes = np.array([[0.0, 0, 10, 10], [2, 0, 10, 10], [3, 0, 10, 10]])
    landmarks = np.array([0.0, 1, 5])[:, None, None] * np.ones((3, 5, 2))
    scores = np.array([0.9, 0.6, 0.3])
    mean, points = fuse(boxes, landmarks, scores, np.array([0, 1]))
    np.testing.assert_allclose(mean[0], [2 * 0.36 / 1.17, 0, 10, 10])
    np.testing.assert_allclose(points[0], 0.36 / 1.17)
    np.testing.assert_allclose(mean[1, 0], (2 * 0.36 + 3 * 0.09) / 1.26)
    np.testing.assert_allclose(points[1], (0.36 + 5 * 0.09) / 1.26)
    strict, _ = fuse(boxes, landmarks, scores, np.array([0]), min_overlap=0.7)
    np.testing.assert_allclose(strict, boxes[:1])


def test_yunets_outputs() -> None:
    """One hot cell at stride 16, everything else off: the formula of its authors, by hand."""
    outputs = {}
    for stride in STRIDES:
        n = (64 // stride) * (96 // stride)
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{kind}_{stride}"] = np.zeros((1, n, width), np.float32)
    cell = 1 * 6 + 2  # second row, third column
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.81, 1.0
    outputs["bbox_16"][0, cell] = [0.5, 0.25, np.log(2), 0]
    outputs["kps_16"][0, cell] = np.arange(10) / 10
    scores, boxes, landmarks = decode_yunet(outputs, 64, 96)
    best = int(scores.argmax())
    assert best == 96 + cell
    assert scores[best] == pytest.approx(0.9)
    np.testing.assert_allclose(boxes[best], [40 - 16, 20 - 8, 32, 16], rtol=1e-5)
    np.testing.assert_allclose(landmarks[best, 0], [32, 16 + 1.6], rtol=1e-5)
    assert (np.delete(scores, best) == 0).all()


def test_parts_of_a_better_face_are_dropped_and_people_in_front_of_it_are_not() -> None:
    boxes = [[0, 0, 100, 100], [10, 10, 20, 20], [90, 40, 30, 30], [40, 40, 20, 20], [80, 0, 30, 100]]
    scores = [0.9, 0.7, 0.7, 0.95, 0.6]  # inside; one third inside; inside with a higher score; two thirds inside
    np.testing.assert_array_equal(outermost(np.array(boxes), np.array(scores)), [True, False, True, True, True])
    assert outermost(np.zeros((0, 4)), np.zeros(0)).shape == (0,)


def test_a_face_is_never_dropped_for_a_smaller_one() -> None:
    boxes = np.array([[0.0, 0, 40, 40], [10, 10, 30, 30], [10, 10, 30, 30]])
    np.testing.assert_array_equal(outermost(boxes, np.array([0.7, 0.9, 0.9])), [True, True, True])
