"""The convolution with a mirrored border is that of the mirrored map, there and back, in 1, 2 and 3 dimensions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.nets import mirrored
from likeness.nets.mirrored import mirrored_conv

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def made(dims: int, *, learns: bool = False) -> torch.nn.Module:
    torch.manual_seed(dims)
    return mirrored_conv(dims, 3, 4).double().requires_grad_(learns)


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored, "LARGE", 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dims=st.integers(1, 3), sizes=st.lists(st.integers(2, 6), min_size=3, max_size=3), batch=st.integers(1, 2))
def test_it_is_the_convolution_of_the_mirrored_map(dims: int, sizes: list[int], batch: int) -> None:
    layer = made(dims)
    x = torch.randn(batch, 3, *sizes[:dims], dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert "_Convolve" in type(y.grad_fn).__name__
    expected = CONV[dims](F.pad(x, [1, 1] * dims, mode="reflect"), layer.weight, layer.bias)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    slope = torch.randn_like(y)
    ours, wanted = (torch.autograd.grad(out, x, slope)[0] for out in (y, expected))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_gradient_is_that_of_finite_differences(dims: int) -> None:
    layer = made(dims)
    assert torch.autograd.gradcheck(layer, torch.randn(1, 3, *[3] * dims, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_weights_learn_as_ever(dims: int) -> None:
    layer = made(dims, learns=True)
    x = torch.randn(1, 3, *[5] * dims, dtype=torch.float64, requires_grad=True)
    kernel = layer.weight.detach().clone().requires_grad_(True)
    layer(x).square().sum().backward()
    CONV[dims](F.pad(x.detach(), [1, 1] * dims, mode="reflect"), kernel, layer.bias.detach()).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, kernel.grad, rtol=0, atol=1e-12)


def test_a_bias_learns_beside_a_kernel_that_does_not() -> None:
    layer = made(2)
    assert layer.bias is not None
    layer.bias.requires_grad_(True)  # type: ignore[operator]
    layer(torch.randn(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert layer.bias.grad.tolist() == [30.0] * 4  # type: ignore[union-attr]


def test_pictures_keep_their_channels_together_and_bfloat16_its_precision() -> None:
    layer = mirrored_conv(2, 16, 16).requires_grad_(False)
    x = torch.randn(1, 16, 12, 10).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.autograd.grad(y.float().square().sum(), x)[0]
    assert gradient.dtype == torch.float32
    exact = torch.autograd.grad(layer(x).square().sum(), x)[0]
    assert float((gradient - exact).norm() / exact.norm()) < 0.02


def test_small_maps_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = made(2), torch.randn(1, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    framed = layer(x)
    monkeypatch.setattr(mirrored, "LARGE", 91)
    copied = layer(x)
    assert "_Convolve" in type(framed.grad_fn).__name__ and "_Convolve" not in type(copied.grad_fn).__name__
    torch.testing.assert_close(framed, copied, rtol=0, atol=1e-12)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(InvalidOption, match="spatial_dims"):
        mirrored_conv(4, 1, 1)
