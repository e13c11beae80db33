"""Inversion: its cost against NumPy, its gradient against finite differences, and that activations are met."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.lens.invert import Inverted, inversion_cost, invert
from likeness.nets.activations import activations
from likeness.nets.layers import conv

SIZES = {1: (40,), 2: (14, 12), 3: (7, 6, 8)}


def net(dims: int) -> nn.Sequential:
    torch.manual_seed(dims)
    one, two = conv(dims, 2, 8, 3, padding=1), conv(dims, 8, 16, 3, padding=1)
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU()).eval().requires_grad_(False)


def sample(dims: int, n: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 2, *SIZES[dims], generator=torch.Generator().manual_seed(dims), dtype=dtype)


def by_hand(a: np.ndarray, wanted: np.ndarray, u: np.ndarray, norm_weight: float, tv_weight: float) -> float:
    fit = ((a - wanted) ** 2).sum() / (wanted**2).sum()
    variation = 0.0
    for index in np.ndindex(u.shape):
        for axis in range(2, u.ndim):
            following = tuple(i + (k == axis) for k, i in enumerate(index))
            if following[axis] < u.shape[axis]:
                variation += (u[following] - u[index]) ** 2
    return fit + norm_weight * (np.abs(2 * u - 1) ** 6).mean() + tv_weight * variation / u.size


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_cost_is_that_of_the_paper_and_so_is_its_slope(dims: int) -> None:
    model, u = net(dims).double(), sample(dims, dtype=torch.float64).requires_grad_(True)
    wanted = model(1 - sample(dims, dtype=torch.float64))
    weights = {"norm_weight": 0.3, "tv_weight": 0.7}
    cost = inversion_cost(model(u), wanted, u, **weights)
    expected = by_hand(model(u).detach().numpy(), wanted.numpy(), u.detach().numpy(), **weights)
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-12)
    (slope,) = torch.autograd.grad(cost, u)
    way = torch.randn(u.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ends = [(u.detach() + t * way).numpy() for t in (1e-6, -1e-6)]
    values = [by_hand(model(torch.tensor(v)).numpy(), wanted.numpy(), v, **weights) for v in ends]
    assert float((slope * way).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_activations_are_met_and_of_a_layer_that_knows_all_so_is_the_sample(dims: int) -> None:
    model, x = net(dims), 2 * sample(dims) - 1
    found = invert(model, x, "1", steps=60, low=-1.0, high=1.0, norm_weight=0, tv_weight=0, decay=0)
    assert found.sample.shape == x.shape and found.sample.dtype == torch.float32
    wanted, a = (activations(model, one, ["1"])["1"].double().numpy() for one in (x, found.sample))
    assert found.error == pytest.approx(((a - wanted) ** 2).sum() / (wanted**2).sum(), rel=1e-3)
    assert found.error < 1e-3
    # Eight ReLUs of two channels: nothing of the sample is lost, so there is only one answer.
    assert float((found.sample - x).square().mean()) < 0.05 * float(x.square().mean())
    assert len(found.trace) <= 90 and found.trace[-1] < 0.01 * found.trace[0]


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_coarse_shapes_come_before_details(dims: int) -> None:
    """Each tenth of the steps opens a band of frequencies, the fourth all that are left."""
    spatial, shown = {1: (64,), 2: (24, 24), 3: (12, 12, 12)}[dims], []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.detach().double())
            return x

    x = torch.rand(1, 2, *spatial, generator=torch.Generator().manual_seed(3))
    invert(nn.Sequential(Watched()), x, "0", steps=60, decay=0, norm_weight=0, tv_weight=0)
    axes = torch.meshgrid(*[torch.fft.fftfreq(n) for n in spatial], indexing="ij")
    f = torch.stack(axes).square().sum(0).sqrt()
    bands = [(f > low) & (f < high) for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.4, 1))]
    power = [torch.fft.fftn(torch.logit(one[0]), dim=tuple(range(1, dims + 1))).abs().square().sum(0) for one in shown]
    lit = [[bool(one[band].mean() > 0.05 * one[bands[0]].mean()) for one in power[1:-1]] for band in bands[1:]]
    first = [band.index(True) for band in lit]
    assert 6 <= first[0] < 13 <= first[1] < 19 <= first[2] < 26


def test_few_steps_are_few_and_all_of_them_go_to_the_details() -> None:
    for steps in (2, 3, 5, 9, 19, 20, 40):
        assert steps <= len(invert(net(2), sample(2), "3", steps=steps).trace) <= steps + 2


def test_weights_pull_as_they_should() -> None:
    model, x = net(2), sample(2)
    plain, smooth = (invert(model, x, "3", steps=30, norm_weight=0, tv_weight=weight) for weight in (0.0, 30.0))
    variation = [float(one.sample.diff(dim=2).square().mean()) for one in (plain, smooth)]
    assert variation[1] < 0.5 * variation[0] and plain.error < smooth.error


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_same_seed_gives_the_same_bytes(dims: int) -> None:
    def run(seed: int) -> Inverted:
        return invert(net(dims), sample(dims), "3", steps=6, seed=seed)

    one, two = run(1), run(1)
    assert torch.equal(one.sample, two.sample) and one.trace == two.trace
    assert not torch.equal(one.sample, run(2).sample)
    model = net(dims)
    with torch.inference_mode():
        assert torch.equal(one.sample, invert(model, sample(dims), "3", steps=6, seed=1).sample)
        invert(nn.Sequential(nn.Identity()), sample(dims), "0", steps=6)


def test_progress_is_told_and_can_end_it_without_a_hook_left() -> None:
    model, told = net(1), []

    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        told.append((done, total, *info))
        if done == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        invert(model, sample(1), "3", steps=9, on_progress=stop)
    assert told == [(1, 9, "cost"), (2, 9, "cost"), (3, 9, "cost")]
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_cannot_be_is_refused() -> None:
    model, dead = net(1), net(1)
    dead.get_submodule("2").get_parameter("bias").fill_(-99)
    for one, x, layer, options, error, message in (
        (model, sample(1), "3", {"steps": 1}, InvalidOption, "steps"),
        (model, sample(1), "3", {"tv_weight": -1.0}, InvalidOption, "tv_weight"),
        (model, sample(1, 2), "3", {}, InvalidOption, "one sample"),
        (model, sample(1), "33", {}, UnknownName, "mean '3'"),
        (dead, sample(1), "3", {}, InvalidOption, "zeros"),
        (model, sample(1) * float("nan"), "3", {}, InvalidOption, "finite"),
    ):
        with pytest.raises(error, match=message):
            invert(one, x, layer, **options)
