"""Shares of a difference against the Rescale rule written by hand in float64 NumPy, in 1, 2 and 3 dimensions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.errors import InvalidOption
from likeness.lens.differences import differences
from likeness.nets.layers import conv

SIZES = {1: (9,), 2: (5, 6), 3: (3, 4, 3)}


def in_place(x: Tensor) -> Tensor:
    x.relu_()
    return x


def overwritten(x: Tensor) -> Tensor:
    F.relu(x, inplace=True)
    return x


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.PReLU(init=-0.3), F.relu, torch.tanh, F.softplus, nn.LeakyReLU(0.2, True),
    nn.GELU(), in_place, overwritten, lambda x: x.relu(),
]  # fmt: skip
MORE: list[Callable[[Tensor], Tensor]] = [
    lambda x: x**2, lambda x: 1.5**x, lambda x: x.clamp(-0.2, 0.4), lambda x: x.clamp_(min=0), lambda x: abs(x),
    lambda x: torch.maximum(x, torch.zeros_like(x[:1])), lambda x: torch.maximum(torch.zeros_like(x[:1]), x),
    lambda x: F.relu(input=x), lambda x: F.elu(x, 1.0, True), F.logsigmoid, F.silu, lambda x: (x + 9).log(),
    nn.Softsign(), nn.Threshold(0.1, 0.0), nn.Hardsigmoid(), nn.Tanhshrink(), nn.ReLU6(),
]  # fmt: skip


class Net(nn.Module):
    """conv, f, x + conv, f, linear over everything, normalised: f is used twice."""

    def __init__(self, dims: int, f: Callable[[Tensor], Tensor] = FUNCTIONS[0]) -> None:
        super().__init__()
        torch.manual_seed(dims)
        self.one, self.two = conv(dims, 2, 4, 3, padding=1), conv(dims, 4, 4, 3, padding=1)
        self.code = nn.Linear(4 * int(np.prod(SIZES[dims])), 5)
        self.f: Any
        object.__setattr__(self, "f", f)

    def raw(self, x: Tensor) -> Tensor:
        z = self.f(self.one(x))
        return self.code(self.f(z + self.two(z)).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.raw(x))


def net(dims: int, f: Callable[[Tensor], Tensor] = FUNCTIONS[0]) -> Net:
    model = Net(dims, f.double() if isinstance(f, nn.Module) else f)
    return model.double().eval()


def sample(dims: int, seed: int) -> Tensor:
    return torch.randn(1, 2, *SIZES[dims], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A convolution as a matrix and a vector."""
    n = int(np.prod(shape))
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        columns = layer(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1) - offset
    return columns.T.numpy(), offset.numpy()


def by_hand(model: Net, x: Tensor, blank: Tensor, code: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Shares of the output of `one`, the score, and what is left for the blank sample, layer by layer."""
    spatial = tuple(x.shape[2:])
    (a, b), (c, d) = matrix(model.one, (2, *spatial)), matrix(model.two, (4, *spatial))
    w, v = model.code.weight.detach().numpy(), model.code.bias.detach().numpy()

    def f(z: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model.f(torch.tensor(z.reshape(1, 4, *spatial)))).flatten()

    z1, z2, u = {}, {}, {}
    for name, sample in (("x", x), ("blank", blank)):
        z1[name] = a @ sample.numpy().flatten() + b
        y = f(z1[name])
        z2[name] = y + c @ y + d
        u[name] = w @ f(z2[name]) + v
    back = w.T @ code / np.linalg.norm(u["x"])
    back = back * (f(z2["x"]) - f(z2["blank"])) / (z2["x"] - z2["blank"])
    back = back + c.T @ back
    back = back * (f(z1["x"]) - f(z1["blank"])) / (z1["x"] - z1["blank"])
    norm = np.linalg.norm(u["x"])
    return back * (z1["x"] - z1["blank"]), float(u["x"] @ code / norm), float(u["blank"] @ code / norm)


@pytest.mark.parametrize("f", FUNCTIONS + MORE)
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_shares_are_those_of_the_rescale_rule_and_add_up(dims: int, f: Callable[[Tensor], Tensor]) -> None:
    model, x, blank = net(dims, f), sample(dims, 1), sample(dims, 2)
    code = torch.linspace(-1, 1, 5, dtype=torch.float64)
    shares, value, rest = differences(model, x, blank, lambda net, x: net(x) @ code, "one")
    expected, score, left = by_hand(model, x, blank, code.numpy())
    assert np.abs(shares.numpy().flatten() - expected).max() < 1e-12
    assert (value, rest) == pytest.approx((score, left), abs=1e-12)
    assert float(shares.sum()) + rest == pytest.approx(value, abs=1e-12)
    assert value == pytest.approx(float((model(x) @ code).detach()), abs=1e-12)  # the rules change no value


@pytest.mark.parametrize("norm", [
    lambda u: u / u.norm(dim=1, keepdim=True), lambda u: u / torch.linalg.vector_norm(u, dim=1, keepdim=True),
    lambda u: u / torch.linalg.norm(u, dim=1, keepdim=True), lambda u: u / torch.norm(u, dim=1, keepdim=True),
    F.normalize,
])  # fmt: skip
def test_whichever_way_a_net_divides_by_the_norm(norm: Callable[[Tensor], Tensor]) -> None:
    model, x, blank = net(2), sample(2, 1), sample(2, 2)
    code = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = differences(model, x, blank, lambda net, x: norm(net.raw(x)) @ code, "one")
    expected = differences(model, x, blank, lambda net, x: net(x) @ code, "one")
    assert torch.allclose(found[0], expected[0], atol=1e-12)
    assert found[1:] == pytest.approx(expected[1:], abs=1e-12)


@pytest.mark.parametrize("normalized, norm", [
    (F.normalize, lambda u: u.norm()),
    (lambda u: F.normalize(u, 1), lambda u: u.abs().sum()),
    (lambda u: F.normalize(u, p=float("inf"), dim=-1), lambda u: u.abs().max()),
    (lambda u: F.normalize(u, 2, 1, 50.0), lambda u: u.new_tensor(50.0)),
    (lambda u: F.normalize(input=u), lambda u: u.norm()),
    (lambda u: F.normalize(u[:, None], dim=2)[:, 0], lambda u: u.norm()),
])  # fmt: skip
def test_a_code_with_zeros_is_divided_by_its_norm_of_any_kind(
    normalized: Callable[[Tensor], Tensor], norm: Callable[[Tensor], Tensor]
) -> None:
    """Also where this sample's code is 0 and the blank sample's is not."""
    model, x, blank = net(2), sample(2, 1), sample(2, 3)
    code = torch.linspace(-1, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        u = model.raw(x).relu()
        length = norm(u)
    assert (u == 0).any() and (model.raw(blank)[u == 0] > 0).any() and length < 51
    found = differences(model, x, blank, lambda net, x: normalized(net.raw(x).relu()) @ code, "one")
    expected = differences(model, x, blank, lambda net, x: net.raw(x).relu() @ code / length, "one")
    assert torch.allclose(found[0], expected[0], atol=1e-12)
    assert found[1:] == pytest.approx(expected[1:], abs=1e-12)


def test_a_weight_with_two_rows_is_no_pair_of_samples() -> None:
    model, x, blank = net(2), sample(2, 1), sample(2, 2)
    weight = nn.Parameter(torch.tensor([[1.0, 0.0, -2.0, 3.0, 0.5], [-1.0, 2.0, 4.0, 0.0, 7.0]]).double())
    model.weight = weight  # its rows are brought to length 1 and through a tanh while the net runs

    def target(net: nn.Module, x: Tensor) -> Tensor:
        return (net.raw(x) @ torch.tanh(F.normalize(net.weight / net.weight.norm(dim=1, keepdim=True))).T)[:, 0]

    shares, value, rest = differences(model, x, blank, target, "one")
    with torch.no_grad():
        assert value == pytest.approx(float(target(model, x)), abs=1e-12)
        assert rest == pytest.approx(float(target(model, blank)), abs=1e-12)
    assert float(shares.sum()) + rest == pytest.approx(value, abs=1e-12)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_change_of_nearly_nothing_goes_by_the_slope_of_this_sample() -> None:
    """At a ReLU's kink: the slope is 1 on this side and 0 on the blank sample's, and the chord lies between them."""
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    for step, share in ((3e-8, 1.0), (3e-6, 0.6)):
        x, blank = (torch.full((1, 1, 1), at, dtype=torch.float64) for at in (step, -2 / 3 * step))
        found = differences(model, x, blank, lambda net, x: net(x).sum((1, 2)), "0")[0]
        assert float(found) == pytest.approx(share * 5 / 3 * step, rel=1e-9)


def test_where_both_samples_agree_the_slope_is_taken() -> None:
    model, x = net(2), sample(2, 1)
    blank = x.clone()
    blank[..., :2, :2] = 0
    shares, value, rest = differences(model, x, blank, lambda net, x: net(x)[:, 0], "one")
    assert torch.isfinite(shares).all() and (shares[:, 4:, 4:] == 0).all()
    assert float(shares.sum()) + rest == pytest.approx(value, abs=1e-12)


def test_what_does_not_reach_the_layer_is_named_and_nothing_is_left_behind() -> None:
    model, x, blank = net(2), sample(2, 1), sample(2, 2)
    with pytest.raises(InvalidOption, match="does not pass"):
        differences(model, x, blank, lambda net, x: x.flatten(1).sum(1), "one")
    with pytest.raises(InvalidOption, match="does not depend"):
        differences(model, x, blank, lambda net, x: net(x).detach()[:, 0] + x.flatten(1).sum(1), "one")

    def fails(net: nn.Module, x: Tensor) -> Tensor:
        net(x)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        differences(model, x, blank, fails, "one")
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
