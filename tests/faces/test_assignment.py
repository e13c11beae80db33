"""Who answers for which face, and what wrong answers cost."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from likeness.faces.assignment import assign, decode, detection_loss, paired_iou  # noqa: E402
from likeness.faces.decoding import decode as numpy_decode  # noqa: E402
from likeness.faces.decoding import encode, iou, priors  # noqa: E402


def some(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces in different parts of a 256 px canvas: boxes (n, 4), landmarks (n, 5, 2)."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(9)[:count]
    size = np.exp(rng.uniform(np.log(10), np.log(70), count))
    corner = np.stack([cells % 3, cells // 3], 1) * 85 + rng.uniform(0, 10, (count, 2))
    boxes = np.column_stack([corner, size, size * 1.2])
    inner = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return boxes, corner[:, None] + inner * boxes[:, None, 2:]


def perfect(boxes: np.ndarray, landmarks: np.ndarray, at: np.ndarray) -> torch.Tensor:
    """Raw numbers of a net that knows: every prior inside a face says that face, all others say nothing."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    nearest = ((at[:, None, :2] - centres[None]) ** 2).sum(2).argmin(1)
    raw = np.full((len(at), 15), -12.0)
    raw[:, 1:] = encode(boxes[nearest], landmarks[nearest], at)
    low, high = boxes[nearest, :2], boxes[nearest, :2] + boxes[nearest, 2:]
    raw[((at[:, :2] > low) & (at[:, :2] < high)).all(1), 0] = 12
    return torch.from_numpy(raw).float()


def test_both_decoders_agree() -> None:
    at = priors(64, 64)
    raw = np.random.default_rng(0).normal(0, 1, (len(at), 15)).astype(np.float32)
    corners, points = decode(torch.from_numpy(raw), torch.from_numpy(at))
    _, boxes, landmarks = numpy_decode(raw, at)
    np.testing.assert_allclose(corners[:, :2], boxes[:, :2], atol=1e-3)
    np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], boxes[:, 2:], atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(points, landmarks, atol=1e-3)


def test_giou() -> None:
    rng = np.random.default_rng(1)
    a, b = (np.column_stack([rng.uniform(0, 50, (20, 2)), rng.uniform(1, 40, (20, 2))]) for _ in range(2))

    def corners(boxes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))

    value, generalised = paired_iou(corners(a), corners(b))
    np.testing.assert_allclose(value, np.diag(iou(a, b)), atol=1e-9)
    assert (generalised <= value + 1e-12).all()
    assert (generalised > -1).all()
    same, _ = paired_iou(corners(a), corners(a))
    np.testing.assert_allclose(same, 1)


@pytest.mark.parametrize("seed", range(5))
def test_every_face_is_answered_for(seed: int) -> None:
    boxes, _ = some(seed, 6)
    at = torch.from_numpy(priors(256, 256))
    faces = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)).float()
    raw = torch.zeros(len(at), 15)
    raw[:, 3:5] = float(np.log(4))
    answer, _ = decode(raw, at)
    prior, face = assign(raw[:, 0], answer, at, faces)
    assert set(face.tolist()) == set(range(6))
    assert len(set(prior.tolist())) == len(prior), "no prior answers for two faces"
    near = (at[prior, :2] - (faces[face, :2] + faces[face, 2:]) / 2).abs().amax(1)
    assert (near <= torch.maximum(1.5 * at[prior, 2], (faces[face, 2:] - faces[face, :2]).amax(1) / 2)).all()


def test_a_contested_prior_goes_to_the_cheaper_face_and_nobody_is_no_problem() -> None:
    at = torch.from_numpy(priors(64, 64))
    answer, _ = decode(torch.zeros(len(at), 15), at)
    twice = torch.tensor([[20.0, 20, 34, 36], [20.5, 20, 34, 37]])
    prior, face = assign(torch.zeros(len(at)), answer, at, twice)
    assert len(set(prior.tolist())) == len(prior)
    assert len(prior) >= 1
    assert set(face.tolist()) <= {0, 1}
    nothing = assign(torch.zeros(len(at)), answer, at, torch.zeros(0, 4))
    assert [len(part) for part in nothing] == [0, 0]
    far = assign(torch.zeros(len(at)), answer, at, torch.tensor([[-500.0, -500, -480, -480]]))
    assert len(far[0]) >= 1


def loss(raw: torch.Tensor, boxes: np.ndarray, landmarks: np.ndarray, sure: list[bool]) -> tuple[float, dict]:
    total, parts = detection_loss(
        raw[None],
        torch.from_numpy(priors(256, 256)),
        [torch.from_numpy(boxes).float()],
        [torch.from_numpy(landmarks).float()],
        [torch.tensor(sure, dtype=torch.bool)],
    )
    return float(total), {k: float(v) for k, v in parts.items()}


def test_a_perfect_answer_costs_nearly_nothing() -> None:
    boxes, landmarks = some(0, 5)
    at = priors(256, 256)
    good = perfect(boxes, landmarks, at)
    total, parts = loss(good, boxes, landmarks, [True] * 5)
    assert parts["box"] < 0.01
    assert parts["landmarks"] < 1e-3
    shifted = good.clone()
    shifted[:, 1:3] += 0.4
    shifted[:, 5:] += 0.4
    worse, worse_parts = loss(shifted, boxes, landmarks, [True] * 5)
    assert worse > total
    assert worse_parts["box"] > 0.05
    assert worse_parts["landmarks"] > 0.005


def test_doubtful_faces_and_unknown_landmarks_cost_nothing() -> None:
    boxes, landmarks = some(3, 2)
    at = priors(256, 256)
    # the net finds only the first; the second is doubtful: found or not, the same
    one = perfect(boxes[:1], landmarks[:1], at)
    both = perfect(boxes, landmarks, at)
    costs = [loss(raw, boxes, landmarks, [True, False])[1]["score"] for raw in (one, both)]
    assert costs[0] == pytest.approx(costs[1], abs=1e-3)
    assert loss(both, boxes, landmarks, [True, False])[0] < loss(both, boxes[:1], landmarks[:1], [True])[0]
    unknown = landmarks.copy()
    unknown[:] = np.nan
    total, parts = loss(one, boxes, unknown, [True, True])
    assert parts["landmarks"] == 0
    assert np.isfinite(total)


def test_an_empty_picture_punishes_scores_only() -> None:
    raw = torch.zeros(len(priors(256, 256)), 15, requires_grad=True)
    total, parts = detection_loss(
        raw[None],
        torch.from_numpy(priors(256, 256)),
        [torch.zeros(0, 4)],
        [torch.zeros(0, 5, 2)],
        [torch.zeros(0, dtype=torch.bool)],
    )
    total.backward()
    assert parts["box"] == 0
    assert (raw.grad[:, 0] > 0).all()
    assert (raw.grad[:, 1:] == 0).all()
