"""Every miner against plain loops over float64 numbers, in the words of its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption, UnknownName
from likeness.metric import miners
from likeness.metric.miners import Triplets

MARGIN = 0.3
batches = st.tuples(st.integers(0, 16), st.integers(1, 6), st.integers(0, 999), st.booleans())


def make(n: int, people: int, seed: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances in 0...4, not even symmetric (a miner looks at rows); with `ties` on a coarse grid."""
    rng = np.random.default_rng(seed)
    d = rng.integers(0, 9, (n, n)) / 8 if ties else rng.uniform(0, 2, (n, n))
    return torch.tensor(d, dtype=torch.float64), torch.tensor(rng.integers(0, people, n))


def listed(triplets: Triplets) -> list[tuple[int, int, int]]:
    return list(zip(triplets.anchor.tolist(), triplets.positive.tolist(), triplets.negative.tolist(), strict=True))


def mated(s: list[int], a: int) -> list[int]:
    return [i for i in range(len(s)) if i != a and s[i] == s[a]]


def others(s: list[int], a: int) -> list[int]:
    return [i for i in range(len(s)) if s[i] != s[a]]


def reference_hard(d: np.ndarray, s: list[int]) -> list[tuple[int, int, int]]:
    result = []
    for a in range(len(s)):
        if mated(s, a) and others(s, a):
            p = mated(s, a)[0]
            for i in mated(s, a):
                if d[a, i] > d[a, p]:
                    p = i
            n = others(s, a)[0]
            for i in others(s, a):
                if d[a, i] < d[a, n]:
                    n = i
            result.append((a, p, n))
    return result


def reference_semi_hard(d: np.ndarray, s: list[int], margin: float) -> list[tuple[int, int, int]]:
    result = []
    for a in range(len(s)):
        for p in mated(s, a):
            best = None
            for n in others(s, a):
                if d[a, p] < d[a, n] < d[a, p] + margin and (best is None or d[a, n] < d[a, best]):
                    best = n
            if best is not None:
                result.append((a, p, best))
    return result


def reference_all(s: list[int]) -> list[tuple[int, int, int]]:
    return [(a, p, n) for a in range(len(s)) for p in mated(s, a) for n in others(s, a)]


@settings(max_examples=80, deadline=None)
@given(batches)
def test_hard(batch: tuple[int, int, int, bool]) -> None:
    d, s = make(*batch)
    got = miners.hard(d, s)
    assert listed(got) == reference_hard(d.numpy(), s.tolist())
    assert got.sought == len(got)


@settings(max_examples=120, deadline=None)
@given(batches, st.sampled_from([MARGIN, 0.25]))
def test_semi_hard(batch: tuple[int, int, int, bool], margin: float) -> None:
    """With 0.25 and distances on a grid of eighths, many negatives lie exactly at either end, where none is taken."""
    d, s = make(*batch)
    got = miners.semi_hard(d, s, margin=margin)
    assert listed(got) == reference_semi_hard(d.numpy(), s.tolist(), margin)
    assert got.sought == len({(a, p) for a, p, _ in reference_all(s.tolist())})


@settings(max_examples=60, deadline=None)
@given(batches)
def test_random_gives_every_pair_a_stranger(batch: tuple[int, int, int, bool]) -> None:
    d, s = make(*batch)
    got = miners.random(d, s, generator=torch.Generator().manual_seed(batch[2]))
    possible = reference_all(s.tolist())
    assert [t[:2] for t in listed(got)] == list(dict.fromkeys(t[:2] for t in possible))
    assert set(listed(got)) <= set(possible)
    assert got.sought == len(got)


def test_random_draws_uniformly_and_repeatably() -> None:
    s = torch.tensor([2, 0, 1, 0, 2, 1, 3])
    d = torch.zeros(7, 7)
    counts = np.zeros((7, 7))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        for a, _, n in listed(miners.random(d, s, generator=generator)):
            counts[a, n] += 1
    for a in range(6):
        drawn = counts[a, others(s.tolist(), a)]
        assert len(drawn) == 5 and counts[a].sum() == drawn.sum() == 2000
        assert drawn.min() > 320 and drawn.max() < 480  # 400 expected, standard deviation 18
    twice = [listed(miners.random(d, s, generator=torch.Generator().manual_seed(5))) for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(miners.random(d, s)) == 6  # torch's own generator where none is given


@settings(max_examples=40, deadline=None)
@given(batches)
def test_batch_all_is_everything_one_anchor_at_a_time(batch: tuple[int, int, int, bool]) -> None:
    d, s = make(*batch)
    parts = list(miners.batch_all(d, s))
    assert [t for part in parts for t in listed(part)] == reference_all(s.tolist())
    assert all(len(set(part.anchor.tolist())) == 1 and len(part) == part.sought <= len(s) ** 2 / 4 for part in parts)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 14),
    people=st.integers(1, 5),
    seed=st.integers(0, 999),
    name=st.sampled_from(["hard", "semi-hard"]),
)
def test_the_choice_follows_a_permutation_and_a_scale(n: int, people: int, seed: int, name: str) -> None:
    d, s = make(n, people, seed, False)
    order = torch.tensor(np.random.default_rng(seed).permutation(n))
    mine = miners.miner(name)
    plain = set(listed(mine(d, s, margin=MARGIN)))
    shuffled = listed(mine(d[order][:, order], s[order], margin=MARGIN))
    assert {tuple(order[list(t)].tolist()) for t in shuffled} == plain
    assert set(listed(mine(d * 4, s, margin=MARGIN * 4))) == plain


@pytest.mark.parametrize("name", list(miners.MINERS))
@pytest.mark.parametrize("subjects", [[], [4], [1, 1, 1], [0, 1, 2]], ids=["empty", "one", "mated", "strangers"])
def test_no_positive_or_no_negative_gives_none(name: str, subjects: list[int]) -> None:
    n = len(subjects)
    got = miners.miner(name)(torch.rand(n, n), torch.tensor(subjects, dtype=torch.int64), margin=0.2)
    assert (len(got), got.sought) == (0, 0)
    assert got.anchor.dtype == got.positive.dtype == got.negative.dtype == torch.int64
    assert list(miners.batch_all(torch.rand(n, n), torch.tensor(subjects, dtype=torch.int64))) == []


def test_one_pair_and_one_stranger() -> None:
    """The smallest batch with triplets, by hand: the stranger is near to 0 and semi-hard for 1 only."""
    d, s = torch.tensor([[0.0, 0.5, 0.4], [0.5, 0.0, 0.6], [0.4, 0.6, 0.0]]), torch.tensor([7, 7, 9])
    assert listed(miners.hard(d, s)) == [(0, 1, 2), (1, 0, 2)]
    assert listed(miners.semi_hard(d, s, margin=0.2)) == [(1, 0, 2)]
    assert miners.semi_hard(d, s, margin=0.2).sought == 2
    assert listed(miners.random(d, s)) == [(0, 1, 2), (1, 0, 2)]


def test_semi_hard_is_strict_at_both_ends() -> None:
    """By hand, in eighths: a positive at 3/8 and one negative, at the positive, between, at the margin's end."""
    for eighths, taken in ((2, False), (3, False), (4, True), (5, False), (6, False)):
        n = eighths / 8
        d = torch.tensor([[0, 0.375, n], [0.375, 0, 4], [n, 4, 0]], dtype=torch.float64)
        got = listed(miners.semi_hard(d, torch.tensor([0, 0, 1]), margin=0.25))
        assert got == ([(0, 1, 2)] if taken else []), eighths


@pytest.mark.parametrize("name", list(miners.MINERS))
def test_no_gradient_passes_through_the_choice(name: str) -> None:
    d = torch.rand(6, 6, requires_grad=True)
    got = miners.miner(name)(d, torch.arange(6) % 2, margin=0.2)
    assert not got.anchor.requires_grad and d.grad is None


def test_wrong_input_is_named() -> None:
    for name, mine in miners.MINERS.items():
        with pytest.raises(InvalidOption, match="distances"):
            mine(torch.zeros(3, 4), torch.arange(3))
        with pytest.raises(UnknownName, match=repr(name)):
            miners.miner(name + "x")
    with pytest.raises(InvalidOption, match="whole numbers"):
        list(miners.batch_all(torch.zeros(2, 2), torch.zeros(2)))
