"""The walk downhill: it falls, it never ends worse than it was, it does not care for the size of J, and it can be
stopped anywhere."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption, WeightsError
from likeness.style import lbfgs
from likeness.style.descent import Descent

OPTIMIZERS = ["lbfgs", "adam", "gd"]


def bowl(scale: float = 1.0) -> tuple:
    """A stretched quadratic with its minimum 0 at 0.5."""
    stretch = torch.logspace(0, 2, 60).reshape(1, 3, 20)

    def cost(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        away = x - 0.5
        return scale * float((stretch * away.square()).sum()), scale * 2 * stretch * away

    return cost, torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_goes_downhill(optimizer: str) -> None:
    cost, start = bowl()
    walk = Descent(start, optimizer=optimizer).run(cost, 150)
    assert len(walk.trace) == 150 or walk.best_J == 0  # nowhere left to go
    assert walk.best_J == min(walk.trace) < 0.02 * walk.trace[0]
    assert cost(walk.best)[0] == walk.best_J


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@given(exponent=st.integers(-8, 8))
@settings(deadline=None, max_examples=8)
def test_the_size_of_J_means_nothing(optimizer: str, exponent: int) -> None:
    walks = [Descent(bowl()[1], optimizer=optimizer).run(bowl(scale)[0], 40) for scale in (1.0, 10.0**exponent)]
    assert torch.allclose(walks[0].best, walks[1].best, atol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_best_is_kept_when_steps_fail(optimizer: str) -> None:
    """A cost that is not a number beyond a wall, and a cliff before it."""
    cost, start = bowl()
    seen = 0

    def walled(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        nonlocal seen
        seen += 1
        J, gradient = cost(x)
        if seen % 7 == 0:
            return math.nan, gradient * math.nan
        if seen % 11 == 0:
            return 1e6 * J, -1e6 * gradient
        return J, gradient

    walk = Descent(start, optimizer=optimizer).run(walled, 120)
    assert torch.isfinite(walk.best).all()
    assert walk.best_J == cost(walk.best)[0] < 0.5 * walk.trace[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_sample_in_many_parts_walks_as_in_one(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large is worked on in parts."""
    cost, start = bowl(3e5)
    whole = Descent(start, optimizer=optimizer).run(cost, 12)
    monkeypatch.setattr(lbfgs, "CHUNK", 7)
    parts = Descent(start, optimizer=optimizer).run(cost, 12)
    assert parts.trace == pytest.approx(whole.trace, rel=1e-3)
    assert parts.factor == pytest.approx(whole.factor, rel=1e-6)


def scripted(costs: list[float], optimizer: str) -> list[tuple[float, float, bool]]:
    """What a walk makes of these J, on an even slope: the rate before its first step, and after each evaluation the
    rate, where the first value is, and whether that is where the best sample has it."""
    given, x = iter(costs), torch.full((1, 1, 4), 0.5)
    walk = Descent(x, optimizer=optimizer)
    found = [(walk.rate, 0.5, True)]
    walk.run(
        lambda x: (next(given), torch.ones_like(x)),
        len(costs),
        on_step=lambda walk: found.append((walk.rate, float(walk.x[0, 0, 0]), torch.equal(walk.x, walk.best))),
    )
    return found


def test_a_floor_that_hardly_curves_leads_over_no_wall() -> None:
    """The first pair promises a bowl wider than the sample's range: without a longest step, the next goes far up the
    wall, is undone, and the pairs are lost, again and again."""
    start = torch.rand(1, 3, 40, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.3

    def floor(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        x = x.detach().clone().requires_grad_(True)
        J = (1e-3 * (x - 2).square() + 10 * (x - 0.8).clamp_min(0).square()).sum()
        return float(J.detach()), torch.autograd.grad(J, x)[0]

    walk = Descent(start).run(floor, 40)
    low = floor(torch.full_like(start, 0.8))[0]  # the foot of the wall
    assert max(walk.trace) < 3 * walk.trace[0]
    assert walk.best_J < 1.05 * low < 0.6 * walk.trace[0]


@pytest.mark.parametrize(("optimizer", "worst"), [("lbfgs", 3.0), ("adam", 3.0), ("gd", 1.0)])
def test_a_step_that_failed_is_undone_and_the_next_is_half_as_long(optimizer: str, worst: float) -> None:
    """Failed: above three times the lowest J so far; of gradient descent, that knows the bowl's shape from nothing
    else, above it."""
    start, first, fine, failed, after = scripted([1.0, 0.99 * worst, 1.01 * worst, 1.0], optimizer)
    assert not fine[2] and fine[0] >= first[0]
    assert failed[0] == 0.5 * fine[0] and failed[2]
    rate = failed[0] / start[0]
    assert failed[1] - after[1] == pytest.approx(rate * (start[1] - first[1]), rel=1e-5)  # it goes on from there


def test_near_the_end_a_failed_first_step_is_not_taken_again() -> None:
    """Where even the first step is too long, each one after it is half as long."""
    centre = torch.rand(1, 3, 100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(centre.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    walk = Descent(centre + 1e-5 * noise).run(lambda x: (float((x - centre).square().sum()), 2 * (x - centre)), 20)
    assert sum(3 * walk.trace[0] < J for J in walk.trace) < 4
    assert walk.best_J < 1e-6 * walk.trace[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_rate_recovers(optimizer: str) -> None:
    found = scripted([1.0, 100.0, *(0.9**i for i in range(12))], optimizer)
    rates = [rate for rate, _, _ in found]
    assert rates[1] == rates[0] and rates[2] == 0.5 * rates[0]
    assert rates[3] == pytest.approx(0.55 * rates[0]) and rates[-1] == rates[0] == max(rates)


def test_the_rate_of_gradient_descent_grows() -> None:
    rates = [rate for rate, _, _ in scripted([0.9**i for i in range(5)], "gd")]
    assert rates == pytest.approx([rates[0] * 1.1**i for i in range(6)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_compact_walk_goes_on_from_its_rounded_best(optimizer: str) -> None:
    """In float16 the best sample has another J than the one that was seen: the walk must not wait for that one."""
    cost, start = bowl()
    walk = Descent(start, optimizer=optimizer, compact=True, rate=1.0).run(cost, 60)  # too much for all but L-BFGS
    lowest = walk.best_J
    walk.x.copy_(walk.best + 1e9)  # lost
    walk.run(cost, 61)
    assert walk.trace[-1] > 1e9
    walk.run(cost, 400)
    assert min(walk.trace[61:]) < lowest or lowest < 1e-9
    assert walk.rate > 1e-6


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 7, 29])
def test_a_stored_walk_goes_on_to_the_same_bytes(tmp_path: Path, optimizer: str, stop: int) -> None:
    cost, start = bowl()
    whole = Descent(start, optimizer=optimizer).run(cost, 40)

    class Stop(Exception):
        pass

    def halt(walk: Descent) -> None:
        if len(walk.trace) == stop:
            walk.save(tmp_path / "walk.safetensors", size=[20])
            raise Stop

    with pytest.raises(Stop):
        Descent(start, optimizer=optimizer).run(cost, 40, on_step=halt)
    walk, more = Descent.load(tmp_path / "walk.safetensors")
    assert more == {"size": [20]}
    walk.run(cost, 40)
    assert torch.equal(walk.best, whole.best)
    assert walk.trace == whole.trace


def test_it_stops_when_nothing_is_won() -> None:
    cost, start = bowl()
    walk = Descent(start).run(cost, 10_000, tolerance=0.01, window=10)
    assert len(walk.trace) < 1000
    at_rest = Descent(torch.full((1, 3, 20), 0.5)).run(cost, 50)
    assert len(at_rest.trace) <= 2


def test_bad_input(tmp_path: Path) -> None:
    cost, start = bowl()
    with pytest.raises(InvalidOption, match="'adam'"):
        Descent(start, optimizer="sgd")
    with pytest.raises(InvalidOption, match="not finite at the start"):
        Descent(start).run(lambda x: (math.inf, x), 3)
    (tmp_path / "bad").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="bad"):
        Descent.load(tmp_path / "bad")
