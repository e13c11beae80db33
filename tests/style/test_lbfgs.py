"""L-BFGS against torch's, and in half the memory."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from style_reference import times

from likeness.style import curvature, lbfgs

FREE = 1e9


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """These bowls are steeper than those of pictures: steps are as long as they like."""
    monkeypatch.setattr(lbfgs, "LONGEST", FREE)


def valley(x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """A stretched bowl, bent."""
    x = x.detach().clone().requires_grad_(True)
    stretch = torch.logspace(0, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
    J = (stretch * (x - 0.5).square()).sum() + (x[..., 1:] - x[..., :-1].square()).square().sum()
    return float(J.detach()), torch.autograd.grad(J, x)[0]


@pytest.mark.parametrize("history", [1, 3, 10])
def test_it_walks_where_torchs_walks(history: int) -> None:
    start = torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [theirs], lr=1.0, max_iter=1, history_size=history, tolerance_grad=0, tolerance_change=0
    )
    ours, state = start.clone(), {}
    for step in range(40):

        def closure() -> float:
            J, theirs.grad = valley(theirs)
            return J

        optimizer.step(closure)
        lbfgs.move(ours, valley(ours)[1], state, rate=1.0, history=history, compact=False)
        if step < 15:  # later rounding has grown
            assert torch.allclose(ours, theirs.detach(), rtol=1e-6, atol=1e-9), step
    assert valley(ours)[0] < 1.01 * valley(theirs)[0]


def test_the_first_step_of_a_large_sample_is_longer_than_torchs() -> None:
    """Of gradients whose sum of sizes is above 1e4, as a picture's is."""
    start = torch.rand(1, 3, 100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = start.clone().requires_grad_(True)
    theirs.grad = gradient.clone()
    torch.optim.LBFGS([theirs], lr=1.0, max_iter=1, tolerance_grad=0, tolerance_change=0).step(lambda: 1.0)
    ours = start.clone()
    lbfgs.move(ours, gradient.clone(), {}, rate=1.0, history=3, compact=False)
    total = float(gradient.abs().sum())
    assert total > 2e4
    torch.testing.assert_close(theirs.detach(), start - gradient / total)
    torch.testing.assert_close(ours, start - 1e-4 * gradient)


@pytest.mark.parametrize("rate", [1.0, 0.25])
@pytest.mark.parametrize("compact", [False, True])
def test_no_step_is_longer_than_it_may_be(compact: bool, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is a share of the first step and of the longest one; others are as they would be without a limit."""
    x, state = torch.rand(1, 3, 200, generator=torch.Generator().manual_seed(0)), dict[str, Any]()
    cut = 0
    for number in range(30):
        before, gradient = x.clone(), valley(x)[1]
        free, other = x.clone(), copy.deepcopy(state)
        monkeypatch.setattr(lbfgs, "LONGEST", FREE)
        lbfgs.move(free, gradient.clone(), other, rate=1.0, history=4, compact=compact)
        monkeypatch.setattr(lbfgs, "LONGEST", 0.02)
        lbfgs.move(x, gradient, state, rate=rate, history=4, compact=compact)
        wanted, step = (free - before) * (1.0 if number else rate), x - before
        rms = float(wanted.square().mean().sqrt())
        cut += rms > 0.02 * rate
        expected = wanted * min(1.0, 0.02 * rate / rms)
        torch.testing.assert_close(step, expected, rtol=2e-2 if compact else 1e-4, atol=1e-6)
    assert 0 < cut < 30


def test_what_it_keeps_between_steps() -> None:
    """The last gradient and step, and pairs: history - 1 of them while J is evaluated, and in bfloat16 if asked."""
    x, state = torch.rand(1, 3, 500), dict[str, Any]()
    for _ in range(8):
        lbfgs.move(x, valley(x)[1], state, rate=1.0, history=3, compact=True)
    assert state.keys() == {"gradient", "step", "pairs", "bowl"}
    assert len(state["pairs"]) == 2
    kept = [state["step"], *(one for pair in state["pairs"] for one in pair[:2])]
    assert {one.dtype for one in kept} == {torch.bfloat16}


@pytest.mark.parametrize("history", [1, 4])
@pytest.mark.parametrize("size", [(30,), (5, 6), (3, 4, 3)])
@pytest.mark.parametrize("chunk", [7, 1 << 20])  # samples are longer than the first, shorter than the second
def test_the_direction_is_that_of_the_two_loops(
    size: tuple[int, ...], history: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nocedal & Wright 2006, algorithm 7.4, in NumPy, from the matrix of `style.curvature` once it has settled."""
    monkeypatch.setattr(lbfgs, "CHUNK", chunk)
    x, state = (
        torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        dict[str, Any](),
    )
    for step in range(curvature.SETTLED + 6):
        pairs = [[one.numpy().copy() for one in pair[:2]] for pair in state.get("pairs", [])]
        last, took = (state[name].numpy().copy() if step else None for name in ("gradient", "step"))
        before, g = x.clone(), valley(x)[1]
        lbfgs.move(x, g.clone(), state, rate=1.0, history=history, compact=False)
        if not step:
            continue
        pairs.append([took, g.flatten().numpy() - last])
        q, shares = g.flatten().numpy().copy(), []
        for s, y in reversed(pairs):
            shares.append(s @ q / (s @ y))
            q -= shares[-1] * y
        s, y = pairs[-1]
        M = curvature.beginning(state["bowl"])
        assert (M is None) == (step < curvature.SETTLED)
        r = q * (s @ y) / (y @ y) if M is None else times(M.numpy(), q.reshape(x.shape)).flatten()
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            r += s * (share - y @ r / (s @ y))
        assert len(pairs) == min(step, history)
        np.testing.assert_allclose((x - before).flatten().numpy(), -r, rtol=1e-8, atol=1e-12)


def test_a_pair_that_says_nothing_is_not_remembered() -> None:
    x, state = torch.rand(1, 3, 40), dict[str, Any]()
    for _ in range(4):
        lbfgs.move(x, torch.ones(1, 3, 40), state, rate=1.0, history=3, compact=False)  # a slope without a curve
    assert not state["pairs"] and not state["bowl"]


@pytest.mark.parametrize("compact", [False, True])
def test_pairs_in_bfloat16_serve_as_well(compact: bool) -> None:
    x, state = torch.rand(1, 3, 500, generator=torch.Generator().manual_seed(0)), dict[str, Any]()
    first = valley(x)[0]
    for _ in range(60):
        J, gradient = valley(x)
        lbfgs.move(x, gradient, state, rate=1.0, history=10, compact=compact)
    assert 0.05 * first > J


def test_a_direction_that_points_uphill_is_not_taken() -> None:
    x = torch.ones(1, 1, 4)
    state: dict[str, Any] = {"gradient": torch.ones(4), "step": torch.zeros(4)}
    state["pairs"] = [[torch.ones(4), -torch.ones(4), -4.0]]  # as no history can be, but for rounding
    lbfgs.move(x, torch.ones(1, 1, 4), state, rate=1.0, history=3, compact=False)
    assert torch.allclose(x, torch.full((1, 1, 4), 0.75))
    assert not state["pairs"]
