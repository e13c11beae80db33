"""Maximisers of units whose best sample is known or can be bounded, in 1, 2 and 3 dimensions."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likeness.errors import InvalidOption, SilentUnit, UnknownName
from likeness.lens.attribute import Target, output, unit
from likeness.lens.maximize import Maximised, maximize
from likeness.nets.layers import conv

SIZES = {1: (48,), 2: (20, 18), 3: (9, 8, 10)}


def net(dims: int) -> nn.Sequential:
    torch.manual_seed(dims)
    one, two = conv(dims, 2, 4, 3, padding=1, bias=False), conv(dims, 4, 3, 3, padding=1, bias=False)
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU()).eval().requires_grad_(False)


def quick(model: nn.Module, target: Target, dims: int, **options: Any) -> Maximised:
    return maximize(model, target, (2, *SIZES[dims]), **({"steps": 60, "rate": 0.2} | options))


@pytest.mark.parametrize("at", ("mean", "centre", None))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_sample_beats_noise_by_far(dims: int, at: str | None) -> None:
    model, target = net(dims), unit("3", 1, at)
    found = quick(model, target, dims, low=-1.0, high=1.0, decay=0.0, blur=0.0, jitter=1)  # for white kernels
    assert found.sample.shape == (1, 2, *SIZES[dims]) and found.sample.dtype == torch.float32
    assert float(found.sample.min()) >= -1 and float(found.sample.max()) <= 1
    noise = 2 * torch.rand(200, 2, *SIZES[dims], generator=torch.Generator().manual_seed(0)) - 1
    assert found.activation > (1.5 if at else 1.1) * float(target(model, noise).max())
    assert found.activation == pytest.approx(float(target(model, found.sample)), rel=1e-5)
    assert len(found.trace) == 60 and found.trace[-1] > found.trace[0]


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_of_a_linear_unit_it_is_the_kernel_itself(dims: int) -> None:
    """`max w'x` over x in [-1, 1] is sign(w): the sample goes that way everywhere that the unit sees."""
    model = nn.Sequential(conv(dims, 2, 1, 3, padding=1))
    kernel = model[0].get_parameter("weight")
    spatial = SIZES[dims]
    target = unit("0", 0, "centre")
    found = maximize(
        model, target, (2, *spatial), steps=150, rate=0.5, low=-1.0, high=1.0, jitter=0, blur=0, decay=0, contrast=20
    )
    seen: Any = (0, slice(None), *(slice(n // 2 - 1, n // 2 + 2) for n in spatial))
    large = kernel[0].detach().abs() > 0.1 * kernel.abs().max()
    assert np.array_equal(found.sample[seen][large].sign().numpy(), kernel[0].detach()[large].sign().numpy())
    bound = float((kernel.abs().sum() + model[0].get_parameter("bias")).detach())
    assert 0.97 * bound < found.activation <= bound + 1e-5


def test_the_contrast_is_bounded() -> None:
    model = net(2)
    weak, strong = (quick(model, unit("3", 1, "mean"), 2, contrast=contrast) for contrast in (0.3, 3.0))
    spread = [float(torch.logit(one.sample).square().mean().sqrt()) for one in (weak, strong)]
    assert spread[0] == pytest.approx(0.3, rel=0.01) and spread[1] > 1


@pytest.mark.parametrize("jitter", (2, 50))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_sample_is_shifted_by_less_and_less_then_not_at_all(dims: int, jitter: int) -> None:
    """Shown by a sample that hardly changes: by up to `jitter` positions, at most an eighth of the axis."""
    spatial, steps, shown = (40, 24, 16)[:dims], 60, []

    def target(net: nn.Module, x: Tensor) -> Tensor:
        shown.append(x.detach()[0, 0])
        return (x * torch.linspace(0, 1, x.numel()).view_as(x)).sum().reshape(1)

    maximize(net(dims), target, (2, *spatial), steps=steps, rate=1e-9, jitter=jitter)
    axes = list(range(dims))
    shifts = []
    for one in shown:
        place = np.unravel_index(int(one.argmax()), spatial)
        last = np.unravel_index(int(shown[-1].argmax()), spatial)
        shifts.append([(a - b + n // 2) % n - n // 2 for a, b, n in zip(place, last, spatial, strict=True)])
        assert torch.allclose(one, shown[-1].roll(shifts[-1], axes), atol=1e-5)
    bounds = [[int(max(0, 1 - 2 * step / steps) * min(jitter, n // 8)) for n in spatial] for step in range(steps)]
    sizes = np.abs(shifts[:steps])
    assert (sizes <= np.array(bounds)).all() and (2 * sizes.max(0) >= np.minimum(jitter, np.array(spatial) // 8)).all()


def test_steps_shorten_along_a_cosine() -> None:
    """Of a target that is linear in what moves, Adam's steps are as long as the rate."""
    model, shown = nn.Linear(1, 1).double(), []
    slope = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def target(net: nn.Module, x: Tensor) -> Tensor:
        shown.append(torch.logit(x.detach()))
        return (slope * torch.logit(x)).sum().reshape(1)

    maximize(model, target, (1, 16), steps=10, rate=0.05, jitter=0, contrast=1e9)
    lengths = [float((b - a).norm()) for a, b in zip(shown, shown[1:], strict=False)]
    expected = [(1 + np.cos(np.pi * step / 10)) / 2 for step in range(10)]
    assert [length / lengths[0] for length in lengths] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_same_seed_gives_the_same_bytes_and_nothing_global_moves(dims: int) -> None:
    model = net(dims)
    state = torch.random.get_rng_state()
    one, two, other = (quick(model, unit("3", 1, "mean"), dims, steps=5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.sample, two.sample) and one.trace == two.trace
    assert not torch.equal(one.sample, other.sample)
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.inference_mode():
        assert torch.equal(one.sample, quick(model, unit("3", 1, "mean"), dims, steps=5, seed=3).sample)


def shifted(offset: float) -> nn.Sequential:
    """One unit that fires where the mean of nine values exceeds `offset`."""
    model = nn.Sequential(nn.Conv1d(1, 1, 9), nn.ReLU())
    model[0].get_parameter("weight").data.fill_(1 / 9)
    model[0].get_parameter("bias").data.fill_(-offset)
    return model.requires_grad_(False)


def test_a_unit_that_sleeps_is_woken_and_a_dead_one_is_named() -> None:
    asleep = shifted(0.7)  # grey noise is about 0.5
    target = unit("1", 0, "mean")
    found = maximize(asleep, target, (1, 40), steps=60, rate=0.1)
    assert found.trace[0] == 0 and found.activation > 0.1
    with pytest.raises(SilentUnit, match="does not fire after 64 steps"):
        maximize(shifted(1.1), target, (1, 40), steps=100, rate=0.1)
    with pytest.raises(SilentUnit, match="does not fire after 5 steps"):
        maximize(shifted(1.1), target, (1, 40), steps=5)
    with pytest.raises(SilentUnit):  # the sample plays no part
        maximize(asleep, lambda net, x: (0 * x).sum().reshape(1), (1, 40))


def test_progress_is_told_and_can_end_it_without_a_hook_left() -> None:
    model, told = net(2), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick(model, unit("3", 1), 2, steps=3, on_progress=lambda done, total, info: told.append((done, total, *info)))
    assert told == [(1, 3, "activation"), (2, 3, "activation"), (3, 3, "activation")]

    def stop(*_: object) -> None:
        raise ZeroDivisionError

    def fails(net: nn.Module, x: Tensor) -> Tensor:
        unit("3", 1)(net, x)
        raise ZeroDivisionError

    for target, options in ((unit("3", 1), {"on_progress": stop}), (fails, {})):
        with pytest.raises(ZeroDivisionError):
            quick(model, target, 2, **options)
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_cannot_be_is_refused() -> None:
    model = net(1)
    for target, options, error, message in (
        (unit("3", 1), {"steps": 0}, InvalidOption, "steps"),
        (unit("3", 1), {"jitter": -1}, InvalidOption, "jitter"),
        (unit("3", 1), {"rate": 0.0}, InvalidOption, "rate"),
        (unit("3", 1), {"contrast": 0.0}, InvalidOption, "contrast"),
        (unit("3", 3), {}, UnknownName, r"0\.\.\.2"),
        (unit("33", 1), {}, UnknownName, "mean '3'"),
        (unit("3", 1, "middle"), {}, InvalidOption, "middle"),
        (output(0), {}, InvalidOption, "class"),
        (lambda net, x: net(x).flatten(), {}, InvalidOption, "one finite number"),
        (lambda net, x: net(x).sum().reshape(1) / 0, {}, InvalidOption, "one finite number"),
    ):
        with pytest.raises(error, match=message):
            quick(model, target, 1, **options)
