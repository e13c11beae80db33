"""Who answers for which face, and what wrong answers cost: against loops over float64 numbers."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from likeness.faces.assignment import assign, decode, detection_loss, paired_iou  # noqa: E402
from likeness.faces.decoding import decode as numpy_decode  # noqa: E402
from likeness.faces.decoding import encode, iou, priors  # noqa: E402

EXACT = {"rtol": 1e-10, "atol": 1e-10}
Box = tuple[float, float, float, float]  # corners x1, y1, x2, y2
Pairs = list[tuple[int, int]]  # (prior, face it answers for)


# --- references: loops over numbers, nothing shared with the library --------------------------------------------------


def reference_overlap(a: Box, b: Box) -> tuple[float, float]:
    """IoU and GIoU of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (hull - union) / hull


def reference_answer(raw: np.ndarray, prior: np.ndarray) -> tuple[Box, np.ndarray]:
    """The box and the landmarks that 15 raw numbers mean at one prior."""
    x, y, stride = prior
    w, h = math.exp(raw[3]) * stride, math.exp(raw[4]) * stride
    u, v = x + raw[1] * stride, y + raw[2] * stride
    points = [[x + raw[5 + 2 * k] * stride, y + raw[6 + 2 * k] * stride] for k in range(5)]
    return (u - w / 2, v - h / 2, u + w / 2, v + h / 2), np.array(points)


def reference_costs(logits: np.ndarray, boxes: list[Box], at: np.ndarray, faces: list[Box]) -> dict[int, list[float]]:
    """Cost of every face (a row's entries) for every prior that is near or inside any of them."""
    costs = {}
    for n, (x, y, stride) in enumerate(at):
        able, row = False, []
        for face in faces:
            u, v = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
            near = abs(x - u) <= 1.5 * stride and abs(y - v) <= 1.5 * stride
            inside = face[0] < x < face[2] and face[1] < y < face[3]
            able |= near or inside
            side = math.sqrt((face[2] - face[0]) * (face[3] - face[1]))
            cost = math.log(1 + math.exp(-logits[n])) - 3 * math.log(max(reference_overlap(boxes[n], face)[0], 1e-6))
            row.append(cost + 0.7 * abs(math.log2(side / (4 * stride))) + (0 if near and inside else 1e5))
        if able:
            costs[n] = row
    return costs


def reference_wishes(costs: dict[int, list[float]], boxes: list[Box], faces: list[Box]) -> dict[int, list[int]]:
    """SimOTA: each face wants its k cheapest priors, k the sum of its ten best overlaps. By prior, who wants it."""
    wishes: dict[int, list[int]] = {}
    for m, face in enumerate(faces):
        overlaps = sorted((reference_overlap(boxes[n], face)[0] for n in costs), reverse=True)
        k = max(1, int(sum(overlaps[:10])))
        for n in sorted(costs, key=lambda n: costs[n][m])[:k]:
            wishes.setdefault(n, []).append(m)
    return wishes


def reference_assign(logits: np.ndarray, boxes: list[Box], at: np.ndarray, faces: list[Box]) -> Pairs:
    """A prior wanted by several goes to the face for which it costs least."""
    costs = reference_costs(logits, boxes, at, faces)
    wishes = reference_wishes(costs, boxes, faces)
    return sorted((n, min(wanting, key=lambda m: costs[n][m])) for n, wanting in wishes.items())


def reference_plan(raw: np.ndarray, at: np.ndarray, faces: list[Box], sure: list[bool]) -> tuple[Pairs, list, list]:
    """Of one picture: who answers for whom, the target of every score, and the weight of every score's error."""
    answers = [reference_answer(row, prior)[0] for row, prior in zip(raw, at, strict=True)]
    certain = [face for face, known in zip(faces, sure, strict=True) if known]
    doubtful = [face for face, known in zip(faces, sure, strict=True) if not known]
    pairs = reference_assign(raw[:, 0], answers, at, certain) if certain else []
    targets, weights = [], []
    for n, (x, y, _) in enumerate(at):
        ours = dict(pairs).get(n)
        excused = any(
            (f[0] <= x <= f[2] and f[1] <= y <= f[3]) or reference_overlap(answers[n], f)[0] > 0.3 for f in doubtful
        )
        p = 1 / (1 + math.exp(-raw[n, 0]))
        targets.append(0.0 if ours is None else max(0.05, reference_overlap(answers[n], certain[ours])[0]) ** 0.5)
        weights.append(1.0 if ours is not None else 0.0 if excused else 0.75 * p**2)
    return pairs, targets, weights


def reference_loss(raw: np.ndarray, at: np.ndarray, pictures: list[tuple], plans: list[tuple]) -> dict[str, float]:
    """Score, box and landmark terms of a batch for given plans (which no gradient passes through)."""
    score, boxes, points = 0.0, [], []
    for one, (faces, landmarks, sure), (pairs, targets, weights) in zip(raw, pictures, plans, strict=True):
        for z, t, w in zip(one[:, 0], targets, weights, strict=True):
            p = 1 / (1 + math.exp(-z))
            score -= w * (t * math.log(p) + (1 - t) * math.log(1 - p))
        certain = [i for i, known in enumerate(sure) if known]
        for n, m in pairs:
            face = faces[certain[m]]
            box, found = reference_answer(one[n], at[n])
            boxes.append(1 - reference_overlap(box, face)[1])
            if not np.isfinite(landmarks[certain[m]]).all():
                continue
            side = math.sqrt((face[2] - face[0]) * (face[3] - face[1]))
            errors = [abs(e) / side for e in (found - landmarks[certain[m]]).ravel()]
            points.append(sum(e * e / 0.04 if e < 0.02 else e - 0.01 for e in errors) / 10)
    return {
        "score": score / max(1, len(boxes)),
        "box": sum(boxes) / max(1, len(boxes)),
        "landmarks": sum(points) / max(1, len(points)),
    }


# --- pictures and answers ---------------------------------------------------------------------------------------------


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


def random_corners(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 40, (count, 2))], 1)


def test_giou_by_hand() -> None:
    """Two squares of side 2 that share a corner of side 1: union 7, hull 9; and two that stand apart: hull 3, union
    2."""
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 4, 4]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1, 3, 3], [2, 0, 3, 1], [1, 1, 3, 3]], dtype=torch.float64)
    value, generalised = paired_iou(a, b)
    np.testing.assert_allclose(value, [1 / 7, 0, 1 / 4], **EXACT)
    np.testing.assert_allclose(generalised, [1 / 7 - 2 / 9, -1 / 3, 1 / 4], **EXACT)


def test_giou_equals_the_loop() -> None:
    a, b = (random_corners(np.random.default_rng(seed), 40) for seed in (1, 2))
    expected = [[reference_overlap(tuple(x), tuple(y)) for y in b] for x in a]
    value, generalised = paired_iou(torch.from_numpy(a)[:, None], torch.from_numpy(b)[None])
    np.testing.assert_allclose(torch.stack([value, generalised], 2), expected, **EXACT)
    assert (value == 0).any() and (value > 0.1).any()
    as_xywh = (np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], 1) for x in (a, b))
    np.testing.assert_allclose(value, iou(*as_xywh), **EXACT)


def test_giou_draws_boxes_together() -> None:
    """Also where they share nothing, and IoU has no slope at all: right and lower sides move to where the other one
    is."""
    corners = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[10.0, 10, 14, 14]], dtype=torch.float64)
    value, generalised = paired_iou(corners, other)
    (slope,) = torch.autograd.grad(generalised.sum(), corners, retain_graph=True)
    assert (slope[0, 2:] > 0).all()
    assert not torch.autograd.grad(value.sum(), corners)[0].any()
    near, wide = (torch.tensor([box], dtype=torch.float64, requires_grad=True) for box in ([0, 0, 4, 4], [1, 1, 9, 9]))
    there = torch.tensor([[1.1, 1.2, 5.3, 5.4]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda box: paired_iou(box, there)[1], (near,))
    assert torch.autograd.gradcheck(lambda box: paired_iou(box, there)[1], (wide,))


def crowd(seed: int, count: int, *, spread: float) -> tuple[np.ndarray, np.ndarray, list[tuple]]:
    """Raw numbers (1, priors, 15) float64 of a net that has learnt something, priors (n, 3) of a picture of 96 x 64
    pixels, and its faces: so close together that priors are contested, and one beyond the edge."""
    rng = np.random.default_rng(seed)
    at = priors(64, 96).astype(np.float64)
    side = np.exp(rng.uniform(np.log(8), np.log(50), count))
    low = rng.normal([40, 28], spread, (count, 2))
    low[-1] = [-9, 20]
    boxes = np.column_stack([low, side, side * rng.uniform(0.8, 1.4, count)])
    landmarks = low[:, None] + rng.uniform(0, 1, (count, 5, 2)) * boxes[:, None, 2:]
    which = rng.integers(0, count, len(at))
    raw = np.column_stack([rng.normal(-1, 2, len(at)), encode(boxes[which], landmarks[which], at)])
    raw[:, 1:] += rng.normal(0, 0.25, (len(at), 14))
    raw[:, 3:5] = raw[:, 3:5].clip(-1.5, 3)
    landmarks[0, 3, 1] = np.nan
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes.tolist()]
    return raw[None], at, [(corners, landmarks, (rng.random(count) < 0.75).tolist())]


@pytest.mark.parametrize("seed", range(12))
def test_assignment_equals_the_loop(seed: int) -> None:
    (raw,), at, [(faces, _, _)] = crowd(seed, 1 + seed % 6, spread=4 + 3 * (seed % 4))
    answers = [reference_answer(row, prior)[0] for row, prior in zip(raw, at, strict=True)]
    expected = reference_assign(raw[:, 0], answers, at, faces)
    given = (torch.from_numpy(raw[:, 0]), torch.tensor(answers), torch.from_numpy(at), torch.tensor(faces))
    prior, face = assign(*given)
    assert sorted(zip(prior.tolist(), face.tolist(), strict=True)) == expected
    wishes = reference_wishes(reference_costs(raw[:, 0], answers, at, faces), answers, faces)
    assert len(faces) < 4 or max(map(len, wishes.values())) > 1, "no prior is contested: the scene tests nothing"


def test_a_contested_prior_goes_where_it_costs_least() -> None:
    """By hand: a wide face (0) and a narrow one (1) that begin in one corner, and three priors that say the narrow one,
    nearly the wide one, and exactly the wide one, but with a hopeless score. The overlaps of either face add up to
    more than 2, so both want the first two priors: each face gets the one that says it."""
    at = torch.tensor([[12.0, 16, 8], [16, 16, 8], [20, 16, 8]], dtype=torch.float64)
    faces = torch.tensor([[8.0, 8, 32, 32], [8, 8, 20, 32]], dtype=torch.float64)
    boxes = torch.stack([faces[1], torch.tensor([8.0, 8, 31, 32], dtype=torch.float64), faces[0]])
    for order, expected in (([0, 1], [(0, 1), (1, 0)]), ([1, 0], [(0, 0), (1, 1)])):
        prior, face = assign(torch.tensor([0.0, 0, -50], dtype=torch.float64), boxes, at, faces[order])
        assert sorted(zip(prior.tolist(), face.tolist(), strict=True)) == expected


def test_near_is_up_to_one_and_a_half_strides() -> None:
    """By hand: the answer of a prior at exactly that distance from the centre is perfect, and is taken before a worse
    one in the middle; a little farther away it is not."""
    face = torch.tensor([[0.0, 0, 40, 40]], dtype=torch.float64)
    boxes = torch.tensor([[0.0, 0, 40, 40], [0, 0, 40, 36]], dtype=torch.float64)
    for left, expected in ((8.0, [0]), (7.9, [1])):
        at = torch.tensor([[left, 20, 8], [20, 20, 8]], dtype=torch.float64)
        assert assign(torch.zeros(2, dtype=torch.float64), boxes, at, face)[0].tolist() == expected


@pytest.mark.parametrize("seed", range(6))
def test_the_loss_equals_the_loop(seed: int) -> None:
    scenes = [crowd(10 * seed + i, 2 + i, spread=12) for i in range(3)]
    raw, at = np.concatenate([scene[0] for scene in scenes]), scenes[0][1]
    pictures = [scene[2][0] for scene in scenes[:2]] + [([], np.zeros((0, 5, 2)), [])]  # the third shows nobody
    plans = [reference_plan(one, at, faces, sure) for one, (faces, _, sure) in zip(raw, pictures, strict=True)]
    expected = reference_loss(raw, at, pictures, plans)
    variable = torch.from_numpy(raw).requires_grad_()
    boxes = [torch.tensor(faces, dtype=torch.float64).reshape(-1, 4) for faces, _, _ in pictures]
    total, parts = detection_loss(
        variable,
        torch.from_numpy(at),
        [torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1) for b in boxes],
        [torch.from_numpy(landmarks) for _, landmarks, _ in pictures],
        [torch.tensor(sure, dtype=torch.bool) for _, _, sure in pictures],
    )
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected, rel=1e-9)
    assert all(expected.values())
    assert float(total.detach()) == pytest.approx(
        expected["score"] + 2 * expected["box"] + 5 * expected["landmarks"], rel=1e-9
    )
    (gradient,) = torch.autograd.grad(total, variable)
    # who answers, the targets and the weights are held fast while the net moves
    rng = np.random.default_rng(seed)
    places = [(i, n, k) for i, plan in enumerate(plans) for n, _ in plan[0][:4] for k in rng.permutation(15)[:6]]
    places += [(int(rng.integers(3)), int(rng.integers(len(at))), 0) for _ in range(10)]
    for place in places:
        ends = []
        for step in (1e-5, -1e-5):
            moved = raw.copy()
            moved[place] += step
            terms = reference_loss(moved, at, pictures, plans)
            ends.append(terms["score"] + 2 * terms["box"] + 5 * terms["landmarks"])
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-6), place


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
