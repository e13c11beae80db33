"""Every loss against plain loops in float64 NumPy, its gradient against finite differences, and what an empty batch
gives.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from likeness.errors import InvalidOption, UnknownName
from likeness.metric import losses, miners
from likeness.metric.heads import PairHead

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def make_codes(n: int, d: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = np.random.default_rng(seed).normal(size=(n, d))
    return torch.tensor(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=dtype)


def make_subjects(n: int, people: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed + 100).integers(0, people, n))


# --- references: loops over numbers, nothing shared with the library --------------------------------------------------


def reference_distance(a: np.ndarray, b: np.ndarray) -> float:
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def reference_triplets(subjects: np.ndarray) -> list[tuple[int, int, int]]:
    n = range(len(subjects))
    return [
        (a, p, q)
        for a in n
        for p in n
        for q in n
        if a != p and subjects[a] == subjects[p] and subjects[a] != subjects[q]
    ]


def reference_batch_all(codes: np.ndarray, subjects: np.ndarray, margin: float) -> tuple[float, int, int]:
    total, active, count = 0.0, 0, 0
    for a, p, q in reference_triplets(subjects):
        value = max(reference_distance(codes[a], codes[p]) - reference_distance(codes[a], codes[q]) + margin, 0.0)
        total, active, count = total + value, active + (value > 0), count + 1
    return total, active, count


def reference_contrastive(d: float, same: bool, margin: float) -> float:
    return d / 2 if same else max(margin - math.sqrt(d), 0) ** 2 / 2


def reference_arcface(
    codes: np.ndarray, weight: np.ndarray, subjects: np.ndarray, margin: float, scale: float
) -> float:
    total = 0.0
    for code, subject in zip(codes, subjects, strict=True):
        logits = []
        for k, w in enumerate(weight):
            cosine = float(code @ w) / math.sqrt(float(w @ w)) / math.sqrt(float(code @ code))
            if k == subject:
                theta = math.acos(cosine)
                cosine = math.cos(theta + margin) if theta + margin < math.pi else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        top = max(logits)
        total += top + math.log(sum(math.exp(z - top) for z in logits)) - logits[subject]
    return total / len(codes)


def assert_spread(info: dict[str, float], codes: np.ndarray, subjects: np.ndarray) -> None:
    """The mean distances over the batch that an objective reports, against a loop over its pairs."""
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for i in range(len(codes)):
        for j in range(i):
            kinds[bool(subjects[i] == subjects[j])].append(reference_distance(codes[i], codes[j]))
    for name, same in (("mated_distance", True), ("non_mated_distance", False)):
        assert info[name] == pytest.approx(sum(kinds[same]) / len(kinds[same]), rel=1e-10)


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_squared_distances_of_signals_images_and_volumes(spatial_dims: int) -> None:
    rng = np.random.default_rng(spatial_dims)
    a, b = (rng.normal(size=(n, 2) + (3,) * spatial_dims) for n in (5, 4))
    expected = [[sum((float(x) - float(y)) ** 2 for x, y in zip(i.flat, j.flat, strict=True)) for j in b] for i in a]
    got = losses.squared_distances(torch.tensor(a).flatten(1), torch.tensor(b).flatten(1))
    np.testing.assert_allclose(got, expected, **EXACT)


def test_squared_distances_stay_full_precision_and_never_negative() -> None:
    codes = make_codes(300, 128, dtype=torch.float32)
    exact = losses.squared_distances(codes.double(), codes.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses.squared_distances(codes, codes)
        from_half = losses.squared_distances(codes.bfloat16(), codes.bfloat16())
    assert got.dtype == from_half.dtype == torch.float32
    assert (got - exact).abs().max() < 2e-6
    assert got.min() >= 0 and got.max() <= 4 + 1e-5
    assert losses.squared_distances(codes[:0], codes).shape == (0, 300)


def test_triplet_formula() -> None:
    d_ap, d_an = torch.tensor([[0.5, 0.1, 0.3, 4.0], [0.4, 0.9, 0.6, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(losses.triplet(d_ap, d_an, margin=0.2), [0.3, 0, 0, 4.2], **EXACT)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 14), people=st.integers(1, 6), seed=st.integers(0, 999), margin=st.sampled_from([0.05, 0.2, 1.5])
)
def test_batch_all_equals_the_loop(n: int, people: int, seed: int, margin: float) -> None:
    codes, subjects = make_codes(n, seed=seed), make_subjects(n, people, seed)
    total, active, count = losses.batch_all(losses.squared_distances(codes, codes), subjects, margin=margin)
    expected = reference_batch_all(codes.numpy(), subjects.numpy(), margin)
    assert (active, count) == expected[1:]
    np.testing.assert_allclose(total, expected[0], **EXACT)


def test_batch_all_counts_ties_like_the_loop() -> None:
    """Distances on a grid: many hinges are exactly at the kink, where a triplet is not active."""
    grid = torch.tensor(np.random.default_rng(5).integers(0, 4, (12, 12)) / 4)
    subjects = make_subjects(12, 3)
    total, active, count = losses.batch_all(grid, subjects, margin=0.25)
    values = [max(float(grid[a, p] - grid[a, q]) + 0.25, 0) for a, p, q in reference_triplets(subjects.numpy())]
    assert (float(total), active, count) == (sum(values), sum(v > 0 for v in values), len(values))


def test_batch_all_gradient_is_the_loops() -> None:
    codes, subjects = make_codes(12).requires_grad_(), make_subjects(12, 4)
    distances = losses.squared_distances(codes, codes)
    (fast,) = torch.autograd.grad(losses.batch_all(distances, subjects, margin=0.3)[0], codes, retain_graph=True)
    a, p, q = map(list, zip(*reference_triplets(subjects.numpy()), strict=True))
    slow_loss = (distances[a, p] - distances[a, q] + 0.3).clamp_min(0).sum()
    (slow,) = torch.autograd.grad(slow_loss, codes)
    np.testing.assert_allclose(fast, slow, **EXACT)


class Allocations(TorchDispatchMode):
    """Adds up the elements of everything that is computed: an upper bound of what is ever held at once."""

    total = 0
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.total += tensor.numel()
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("miner", miners.NAMES)
@pytest.mark.parametrize("people", [2, 64])
def test_memory_is_quadratic(miner: str, people: int) -> None:
    n = 512
    codes, subjects = make_codes(n, 32, dtype=torch.float32).requires_grad_(), torch.arange(n) % people
    with Allocations() as counter:
        losses.Triplet(miner=miner)(codes, subjects, generator=torch.Generator().manual_seed(0)).loss.backward()
    assert counter.largest <= 2 * n * n  # an (n, n, n) mask would be 512 n^2
    assert counter.total <= 80 * n * n


def test_contrastive_formula() -> None:
    d = torch.tensor([0.0, 0.3, 1.2, 3.9, 0.0, 0.3, 1.2, 3.9], dtype=torch.float64)
    same = torch.arange(8) < 4
    expected = [reference_contrastive(float(x), bool(s), 1.1) for x, s in zip(d, same, strict=True)]
    np.testing.assert_allclose(losses.contrastive(d, same, margin=1.1), expected, **EXACT)


def test_contrastive_has_a_gradient_at_distance_zero() -> None:
    d = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    losses.contrastive(d, torch.tensor([True, False])).sum().backward()
    np.testing.assert_allclose(d.grad, [0.5, 0])


def test_pair_logistic_formula_also_far_out() -> None:
    logits = torch.tensor([-3.0, 0.0, 2.0, 4.0, -800.0, 800.0], dtype=torch.float64)
    same = torch.tensor([True, True, False, True, True, False])
    expected = [
        -math.log(1 / (1 + math.exp(-(z if s else -z)))) for z, s in zip(logits[:4].tolist(), same[:4], strict=True)
    ]
    np.testing.assert_allclose(losses.pair_logistic(logits, same), [*expected, 800.0, 800.0], **EXACT)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.2])
def test_arcface_equals_the_loop(margin: float) -> None:
    codes, subjects = make_codes(9, 5), make_subjects(9, 4)
    head = losses.ArcFace(4, 5, margin=margin, scale=16.0, seed=3).double()
    with torch.no_grad():
        head.weight[0] = -codes[subjects == 0][0]  # an angle near pi: the branch beyond the turn
        head.weight[1] = 3 * codes[subjects == 2][0]  # a longer one, and the nearest to a sample of another class
    weight = head.weight.detach().numpy()
    expected = reference_arcface(codes.numpy(), weight, subjects.numpy(), margin, 16.0)
    terms = head(codes, subjects)
    np.testing.assert_allclose(terms.loss.item(), expected, **EXACT)
    nearest = [
        max(range(4), key=lambda k: float(code @ weight[k]) / math.dist(weight[k], [0] * 5)) for code in codes.numpy()
    ]
    right = sum(k == s for k, s in zip(nearest, subjects.tolist(), strict=True))
    assert terms.info == {"samples": 9, "accuracy": pytest.approx(right / 9, rel=1e-6)}
    assert 0 < right < 9


def test_class_vectors_may_start_at_mean_codes() -> None:
    fresh, started = losses.ArcFace(4, 2, seed=1), losses.ArcFace(4, 2, seed=1)
    started.start(torch.tensor([[3.0, 0.0], [0.0, 4.0], [5.0, 0.0]]), torch.tensor([0, 0, 3]))
    assert torch.allclose(started.weight[[0, 3]], torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    assert torch.equal(started.weight[1:3], fresh.weight[1:3])  # of nobody seen


def test_class_vectors_begin_about_as_long_as_codes() -> None:
    """So that one learning rate fits both."""
    lengths = losses.ArcFace(200, 64).weight.detach().norm(dim=1)
    assert float(lengths.min()) > 0.6 and float(lengths.max()) < 1.5
    assert float(lengths.square().mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "formula",
    [
        lambda d: losses.triplet(d[:3], d[3:], margin=0.2).sum(),
        lambda d: losses.contrastive(d, torch.arange(6) < 3).sum(),
        lambda d: losses.pair_logistic(d - 1, torch.arange(6) % 2 == 0).sum(),
        lambda d: losses.arcface_logits(d.reshape(2, 3) / 4 - 0.5, torch.tensor([2, 0])).square().sum(),
        lambda d: losses.squared_distances(d.reshape(3, 2), d.reshape(3, 2).flip(0)).square().sum(),
        lambda d: losses.batch_all((d[:, None] - 2 * d).square(), torch.arange(6) // 2)[0],
    ],
    ids=["triplet", "contrastive", "pair-logistic", "arcface", "squared-distances", "batch-all"],
)
def test_gradients_by_finite_differences(formula) -> None:  # type: ignore[no-untyped-def]
    d = torch.tensor([0.31, 0.82, 1.93, 0.44, 0.65, 2.76], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(formula, d)


# --- objectives -------------------------------------------------------------------------------------------------------


def every_objective() -> dict[str, torch.nn.Module]:
    head = PairHead("absolute", 8).double()
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
    return {
        **{f"triplet {m}": losses.Triplet(miner=m) for m in miners.NAMES},
        "contrastive": losses.Contrastive(),
        "pair-logistic": losses.PairLogistic(head),
        "arcface": losses.ArcFace(10, 8).double(),
    }


OBJECTIVES = list(every_objective())


@pytest.mark.parametrize("reduction", ["sum", "mean", "active"])
@pytest.mark.parametrize("miner", miners.NAMES)
def test_triplet_objective_reports_what_it_sums(miner: str, reduction: str) -> None:
    codes, subjects = make_codes(20), make_subjects(20, 5)
    distances = losses.squared_distances(codes, codes)
    if miner == "batch-all":
        chosen = reference_triplets(subjects.numpy())
    else:
        mined = miners.miner(miner)(distances, subjects, margin=0.4, generator=torch.Generator().manual_seed(7))
        chosen = list(zip(mined.anchor.tolist(), mined.positive.tolist(), mined.negative.tolist(), strict=True))
    values = []
    for a, p, q in chosen:
        hinge = reference_distance(codes[a].numpy(), codes[p].numpy()) - reference_distance(
            codes[a].numpy(), codes[q].numpy()
        )
        values.append(max(hinge + 0.4, 0))
    active = sum(v > 0 for v in values)
    objective = losses.Triplet(miner=miner, margin=0.4, reduction=reduction)
    terms = objective(codes, subjects, generator=torch.Generator().manual_seed(7))
    expected = sum(values) / {"sum": 1, "mean": len(values), "active": active}[reduction]
    np.testing.assert_allclose(terms.loss, expected, **EXACT)
    np.testing.assert_allclose(terms.info["sum"], sum(values), **EXACT)
    np.testing.assert_allclose(terms.info["mean_active"], sum(values) / active, **EXACT)
    assert (terms.info["triplets"], terms.info["active"]) == (len(values), active)
    every = reference_triplets(subjects.numpy())
    pairs, anchors = len({t[:2] for t in every}), len({t[0] for t in every})
    sought = {"batch-all": len(every), "hard": anchors}.get(miner, pairs)
    assert terms.info["active_share"] == pytest.approx(active / sought, rel=1e-12)
    assert_spread(terms.info, codes.numpy(), subjects.numpy())


def test_contrastive_objective_equals_the_loop() -> None:
    codes, subjects = make_codes(15), make_subjects(15, 4)
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for i in range(15):
        for j in range(i + 1, 15):
            same = bool(subjects[i] == subjects[j])
            kinds[same].append(reference_contrastive(reference_distance(codes[i].numpy(), codes[j].numpy()), same, 1.3))
    terms = losses.Contrastive(margin=1.3)(codes, subjects)
    expected = (sum(kinds[True]) / len(kinds[True]) + sum(kinds[False]) / len(kinds[False])) / 2
    np.testing.assert_allclose(terms.loss, expected, **EXACT)
    assert terms.info["pairs"] == 105
    # D < margin, which squared distances say as d < margin^2; a loss above 0 means the same of strangers
    assert terms.info["active_share"] == pytest.approx(sum(v > 0 for v in kinds[False]) / len(kinds[False]), rel=1e-12)
    assert 0.1 < terms.info["active_share"] < 0.9
    assert_spread(terms.info, codes.numpy(), subjects.numpy())


def test_pair_logistic_objective_equals_the_loop() -> None:
    codes, subjects = make_codes(15), make_subjects(15, 4)
    objective = every_objective()["pair-logistic"]
    a, b, same = losses.draw_pairs(subjects, generator=torch.Generator().manual_seed(2))
    torch.nn.init.constant_(objective.head.bias, 0.3)
    w = objective.head.weight.tolist()
    total, right = 0.0, 0
    for i, j, s in zip(a.tolist(), b.tolist(), same.tolist(), strict=True):
        z = 0.3 + sum(wk * abs(float(x) - float(y)) for wk, x, y in zip(w, codes[i], codes[j], strict=True))
        right += (1 / (1 + math.exp(-z)) > 0.5) == s
        total += -math.log(1 / (1 + math.exp(-(z if s else -z))))
    terms = objective(codes, subjects, generator=torch.Generator().manual_seed(2))
    np.testing.assert_allclose(terms.loss.item(), total / len(a), **EXACT)
    assert terms.info["pairs"] == len(a)
    assert terms.info["accuracy"] == pytest.approx(right / len(a), rel=1e-6)
    assert 0 < right < len(a) and right != len(a) / 2
    assert_spread(terms.info, codes.numpy(), subjects.numpy())


def test_pairs_are_all_mated_and_as_many_others() -> None:
    subjects = make_subjects(20, 5)
    a, b, same = losses.draw_pairs(subjects, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    mated = {(i, j) for i in range(20) for j in range(i + 1, 20) if subjects[i] == subjects[j]}
    assert len(set(pairs)) == len(pairs) and all(i < j for i, j in pairs)
    assert {pair for pair, s in zip(pairs, same.tolist(), strict=True) if s} == mated
    assert int((~same).sum()) == len(mated)
    assert all((subjects[i] == subjects[j]) == s for (i, j), s in zip(pairs, same, strict=True))


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n not in ("triplet random", "pair-logistic")])
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    """Except where pairs are drawn at random: which ones come depends on the order."""
    codes, subjects = make_codes(18), make_subjects(18, 4)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(3))
    objective = every_objective()[name]
    a, b = objective(codes, subjects), objective(codes[order], subjects[order])
    np.testing.assert_allclose(a.loss.item(), b.loss.item(), **EXACT)
    assert a.info == pytest.approx(b.info, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 10), seed=st.integers(0, 99), miner=st.sampled_from(["hard", "semi-hard", "batch-all"]))
def test_the_margin_sets_the_scale(factor: float, seed: int, miner: str) -> None:
    """Codes times s and margin times s^2 give the loss times s^2."""
    codes, subjects = make_codes(12, seed=seed), make_subjects(12, 3, seed)
    small = losses.Triplet(miner=miner, margin=0.3, reduction="sum")(codes, subjects)
    large = losses.Triplet(miner=miner, margin=0.3 * factor**2, reduction="sum")(codes * factor, subjects)
    np.testing.assert_allclose(large.loss, small.loss * factor**2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    "subjects", [[], [3], [1, 1, 1], [0, 1, 2], [-1, -1, -1]], ids=["empty", "one", "mated", "strangers", "unlabelled"]
)
def test_a_batch_without_triplets_is_an_outcome(name: str, subjects: list[int]) -> None:
    codes = make_codes(len(subjects)).requires_grad_()
    objective = every_objective()[name]
    terms = objective(codes, torch.tensor(subjects, dtype=torch.int64), generator=torch.Generator().manual_seed(0))
    terms.loss.backward()
    assert torch.isfinite(terms.loss) and codes.grad is not None and torch.isfinite(codes.grad).all()
    if "triplets" in terms.info:
        assert (terms.loss, terms.info["triplets"], terms.info["active_share"]) == (0, 0, 0)
        assert not codes.grad.any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unlabelled_samples_are_left_out(name: str) -> None:
    codes, subjects = make_codes(16), make_subjects(16, 4)
    more = torch.cat([codes[:7], make_codes(5, seed=9), codes[7:]])
    and_theirs = torch.cat([subjects[:7], torch.full((5,), -1), subjects[7:]])
    objective = every_objective()[name]
    a, b = (
        objective(c, s, generator=torch.Generator().manual_seed(4)) for c, s in ((codes, subjects), (more, and_theirs))
    )
    assert a.loss.item() == b.loss.item() and a.info == b.info


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_few_steps_bring_subjects_together(name: str) -> None:
    """Free codes under each objective: mated distances end below non-mated ones."""
    free = make_codes(24, 8, seed=5).requires_grad_()
    subjects = torch.arange(24) % 6
    objective = every_objective()[name]
    if "pair" in name:
        torch.nn.init.constant_(objective.head.weight, -1)
    optimiser = torch.optim.Adam([free, *objective.parameters()], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        terms = objective(torch.nn.functional.normalize(free), subjects, generator=generator)
        optimiser.zero_grad()
        terms.loss.backward()
        optimiser.step()
    d = losses.squared_distances(*[torch.nn.functional.normalize(free.detach())] * 2)
    same = subjects[:, None] == subjects
    assert d[same].mean() < 0.5 * d[~same].mean()


def test_objectives_by_name() -> None:
    kinds = {name: type(losses.objective(name, classes=4)) for name in losses.NAMES}
    assert list(kinds.values()) == [losses.Triplet, losses.Contrastive, losses.PairLogistic, losses.ArcFace]
    hard = losses.objective("triplet", classes=4, miner="hard", margin=0.7)
    assert (hard.miner, hard.margin) == ("hard", 0.7)
    with pytest.raises(UnknownName, match="'triplet'"):
        losses.objective("triplets", classes=4)
    with pytest.raises(UnknownName, match="'semi-hard'"):
        losses.Triplet(miner="semihard")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: losses.Triplet(margin=0),
        lambda: losses.Triplet(margin=float("nan")),
        lambda: losses.Triplet(reduction="median"),  # type: ignore[arg-type]
        lambda: losses.Contrastive(margin=-1),
        lambda: losses.ArcFace(3, margin=2),
        lambda: losses.ArcFace(3, scale=0),
        lambda: losses.ArcFace(2, 8)(make_codes(3).float(), torch.arange(3)),
        lambda: losses.Triplet()(make_codes(3), torch.arange(4)),
        lambda: losses.Triplet()(make_codes(3), torch.zeros(3)),
        lambda: losses.batch_all(torch.zeros(3, 2), torch.arange(3)),
    ],
)
def test_wrong_options_are_named(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidOption):
        wrong()
