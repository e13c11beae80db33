"""Attributions against references written by hand in float64 NumPy, in 1, 2 and 3 dimensions, whatever ReLU is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.lens.attribute import METHODS, attribute, output, relu_rule, unit
from likeness.nets.layers import conv

SIZES = {1: (9,), 2: (5, 6), 3: (3, 4, 3)}


class Net(nn.Module):
    """conv, ReLU, conv, ReLU, mean over positions, linear; `relu` may be a module, a function, in place or not."""

    def __init__(self, dims: int, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(dims)
        self.one, self.two = conv(dims, 2, 4, 3, padding=1), conv(dims, 4, 3, 3, padding=1)
        self.classes = nn.Linear(3, 2)
        self.classes.weight.data[:, :2].abs_()  # or nothing positive may be left to go back
        if isinstance(relu, nn.Module):
            self.relu = relu
        else:
            object.__setattr__(self, "relu", relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.relu(self.two(self.relu(self.one(x)))).flatten(2).mean(2))


def in_place(x: Tensor) -> Tensor:
    x.relu_()
    return x


RELUS = [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, lambda x: x.relu(), in_place]


def net(dims: int, relu: Callable[[Tensor], Tensor] = RELUS[0]) -> Net:
    return Net(dims, relu).double().eval()


def sample(dims: int, n: int = 1) -> Tensor:
    return torch.randn(n, 2, *SIZES[dims], generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A convolution as a matrix and a vector: what it does to every unit vector."""
    n = int(np.prod(shape))
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        columns = layer(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1) - offset
    return columns.T.numpy(), offset.numpy()


def by_hand(model: Net, x: Tensor, channel: int, rule: str) -> np.ndarray:
    """The way back through the net, layer by layer, with the rule of each paper at the ReLUs."""
    spatial = tuple(x.shape[2:])
    a, offset_a = matrix(model.one, (2, *spatial))
    b, offset_b = matrix(model.two, (4, *spatial))
    z1 = a @ x.flatten().numpy() + offset_a
    z2 = b @ np.maximum(z1, 0) + offset_b
    positions = int(np.prod(spatial))
    back = np.repeat(model.classes.weight[channel].detach().numpy(), positions) / positions
    for z, layer in ((z2, b), (z1, a)):
        if rule == "gradient":
            back = back * (z > 0)
        elif rule == "guided-backprop":
            back = back * (z > 0) * (back > 0)
        else:
            back = back * (back > 0)
        back = layer.T @ back
    return back.reshape(x.shape)


@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("rule", ("gradient", "guided-backprop", "deconvnet"))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_rules_at_a_relu_are_those_of_the_papers(dims: int, rule: str, relu: Any) -> None:
    model, x = net(dims, relu), sample(dims)
    got = attribute(model, x, output(1), method=rule)
    assert np.abs(got.map.numpy() - by_hand(model, x, 1, rule)).max() < 1e-12
    assert float(got.value) == float(model(x)[0, 1].detach())
    assert got.map.abs().max() > 0


@pytest.mark.parametrize("relu", RELUS)
def test_redirected_a_closed_relu_passes_what_would_open_it(relu: Any) -> None:
    x = torch.tensor([2.0, 2.0, -2.0, -2.0], requires_grad=True)
    with relu_rule("redirected"):
        (slope,) = torch.autograd.grad((relu(x + 0) * torch.tensor([3.0, -3.0, 3.0, -3.0])).sum(), x)
    assert slope.tolist() == [3, -3, 3, 0]


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_integrated_gradients_add_up_and_follow_the_line(dims: int) -> None:
    model, x = net(dims), sample(dims, 3)
    got = attribute(model, x, output(0), method="integrated-gradients", baseline=0.5, steps=400)
    assert got.explained is not None
    assert got.explained.numpy() == pytest.approx(np.ones(3), abs=1e-2)
    start = np.full(x.shape, 0.5)
    path = [
        np.concatenate([by_hand(model, torch.tensor(start[i] + t * (x[i].numpy() - start[i]))[None], 0, "gradient")])
        for i in range(3)
        for t in (np.arange(8) + 0.5) / 8
    ]
    expected = (x.numpy() - start) * np.stack(path).reshape(3, 8, *x.shape[1:]).mean(1)
    few = attribute(model, x, output(0), method="integrated-gradients", baseline=0.5, steps=8)
    assert np.abs(few.map.numpy() - expected).max() < 1e-12


def test_where_the_target_does_not_change_all_of_it_is_explained() -> None:
    model, x = net(2), sample(2, 2)
    baseline = x.clone()
    baseline[1] = 0
    got = attribute(model, x, output(0), method="integrated-gradients", baseline=baseline, steps=400)
    assert got.explained is not None and got.explained[0] == 1
    assert float(got.explained[1]) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_of_the_samples_type_and_the_same_in_inference_mode(method: str, dtype: torch.dtype) -> None:
    model, x = net(2).to(dtype), sample(2).to(dtype)
    got = attribute(model, x, output(0), method=method, layer="two")
    assert got.map.dtype == dtype
    with torch.inference_mode():
        again = attribute(model, sample(2).to(dtype), output(0), method=method, layer="two")
    assert torch.equal(got.map, again.map)


@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_grad_cam_is_equations_1_and_2(dims: int, relu: Any) -> None:
    model, x = net(dims, relu), sample(dims, 2)
    got = attribute(model, x, output(0), method="grad-cam", layer="two")
    with torch.no_grad():
        a = model.two(model.relu(model.one(x)))
    slope = model.classes.weight[0].detach().view(1, 3, *[1] * dims) * (a > 0) / np.prod(SIZES[dims])
    axes = tuple(range(2, a.ndim))
    expected = np.maximum((slope.numpy().mean(axes, keepdims=True) * a.numpy()).sum(1, keepdims=True), 0)
    assert np.abs(got.map.numpy() - expected).max() < 1e-12
    assert got.map.shape == (2, 1, *SIZES[dims])


@pytest.mark.parametrize("relu", RELUS[:2])
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_grad_cam_at_each_use_of_a_module(dims: int, relu: nn.Module) -> None:
    """The first use of the ReLU is a map like any other; at the second the slope is the weight of its channel."""
    model, x = net(dims, relu), sample(dims)
    first, second = (attribute(model, x, output(0), method="grad-cam", layer=f"relu{use}") for use in ("", "#2"))
    with torch.no_grad():
        a = model.relu(model.two(model.relu(model.one(x))))
    cam = torch.einsum("k,bk...->b...", model.classes.weight[0].detach(), a) / np.prod(SIZES[dims])
    assert torch.allclose(second.map[:, 0], cam.clamp_min(0), atol=1e-12)
    plain = net(dims, F.relu)  # of which the layer after the first ReLU is one of its own
    plain.two = nn.Sequential(nn.Identity(), plain.two)
    assert torch.allclose(first.map, attribute(plain, x, output(0), method="grad-cam", layer="two.0").map, atol=1e-12)
    assert not torch.allclose(first.map, second.map)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_occlusion_is_the_fall_of_the_target(dims: int) -> None:
    model, x = net(dims), sample(dims, 2)
    got = attribute(model, x, output(1), method="occlusion", window=2, stride=1, baseline=-1.0)
    fall, covered = np.zeros((2, 1, *SIZES[dims])), np.zeros((2, 1, *SIZES[dims]))
    with torch.no_grad():
        for first in np.ndindex(*(n - 1 for n in SIZES[dims])):
            part = (..., *(slice(i, i + 2) for i in first))
            hidden = x.clone()
            hidden[part] = -1
            fall[part] += (model(x) - model(hidden))[:, 1].numpy().reshape(2, *[1] * (dims + 1))
            covered[part] += 1
    assert np.abs(got.map.numpy() - fall / covered).max() < 1e-12


def test_smooth_grad_is_the_mean_over_noisy_copies() -> None:
    model, x = net(2), sample(2, 2)
    got = attribute(model, x, output(0), method="smooth-grad", samples=3, noise=0.2, seed=7)
    generator = torch.Generator().manual_seed(7)
    spread = 0.2 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(2, 1, 1, 1)
    copies = [x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(3)]
    expected = np.mean([[by_hand(model, one[i : i + 1], 0, "gradient")[0] for i in range(2)] for one in copies], axis=0)
    assert np.abs(got.map.numpy() - expected).max() < 1e-12


def test_a_unit_is_asked_where_it_is_largest_or_at_a_position() -> None:
    model, x = net(2), sample(2)
    with torch.no_grad():
        a = model.one(x)[0, 2]
    assert float(attribute(model, x, unit("one", 2)).value) == float(a.max())
    assert float(attribute(model, x, unit("one", 2, (4, 1))).value) == float(a[4, 1])
    kernel = model.one.get_parameter("weight")[2].detach().flip(1, 2)  # what the unit at (2, 3) sees
    inside = attribute(model, x, unit("one", 2, (2, 3))).map[0, :, 1:4, 2:5]
    assert torch.allclose(inside, kernel.flip(1, 2), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_net_is_left_as_it_was_also_after_an_error(method: str) -> None:
    model, x = net(2), sample(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fails(model: nn.Module, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or method == "occlusion":
            model(x)
            raise ZeroDivisionError
        return model(x)[:, 0]

    attribute(model, x, output(0), method=method, layer="two")
    with pytest.raises(ZeroDivisionError):
        attribute(model, x, fails, method=method, layer="two")
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(F.relu(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_what_cannot_be_is_refused() -> None:
    model, x = net(2), sample(2)
    for target, options, error, message in (
        (output(0), {"method": "grad"}, UnknownName, "gradient"),
        (output(2), {}, InvalidOption, "class 2"),
        (unit("one", 4), {}, UnknownName, "0...3"),
        (unit("one", 0, (9, 9)), {}, InvalidOption, "positions"),
        (unit("ones", 0), {}, UnknownName, "one"),
        (output(0), {"method": "grad-cam"}, InvalidOption, "layer"),
        (output(0), {"method": "grad-cam", "layer": "tow"}, UnknownName, "two"),
        (unit("one", 0), {"method": "grad-cam", "layer": "two"}, InvalidOption, "pass"),
        (output(0), {"method": "occlusion", "window": 7}, InvalidOption, "window"),
        (output(0), {"method": "smooth-grad", "samples": 0}, InvalidOption, "samples"),
        (lambda net, x: net(x), {}, InvalidOption, "one number each"),
    ):
        with pytest.raises(error, match=message):
            attribute(model, x, target, **options)
