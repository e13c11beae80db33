"""The sizes that the chapter computes by hand, with real layers over signals, images and volumes."""

import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption
from likeness.nets import layers
from likeness.nets.activations import layer_shapes
from likeness.nets.receptive_field import receptive_field


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_14_with_16_filters_of_5_then_32_of_5(spatial_dims: int) -> None:
    """14 * 5 -> 10 x 16 -> (5, 32) -> 6 x 32, and the same along every axis."""
    net = nn.Sequential(layers.conv(spatial_dims, 1, 16, 5), layers.conv(spatial_dims, 16, 32, 5))
    shapes = layer_shapes(net, torch.zeros((1, 1) + (14,) * spatial_dims))
    assert shapes["0"] == (1, 16) + (10,) * spatial_dims
    assert shapes["1"] == (1, 32) + (6,) * spatial_dims
    assert layers.output_size(14, 5) == 10 and layers.output_size(10, 5) == 6
    weights = [sum(p.numel() for p in layer.parameters()) for layer in net]
    assert weights == [(5**spatial_dims + 1) * 16, (5**spatial_dims * 16 + 1) * 32]
    field = receptive_field(net, torch.zeros((1, 1) + (14,) * spatial_dims), "1")
    assert (field.size, field.stride, field.offset) == ((9,) * spatial_dims, (1,) * spatial_dims, (0,) * spatial_dims)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_the_first_convolution_of_the_chapter_by_hand(spatial_dims: int) -> None:
    """One filter, one position: the sum of products under the window."""
    net = layers.conv(spatial_dims, 1, 1, 5).double()
    x = torch.randn((1, 1) + (14,) * spatial_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = x[(0, 0) + (slice(3, 8),) * spatial_dims].reshape(-1).tolist()
    weight = net.weight.reshape(-1).tolist()  # type: ignore[operator, union-attr]
    expected = sum(a * b for a, b in zip(window, weight, strict=True)) + net.bias.item()  # type: ignore[operator, union-attr]
    assert net(x)[(0, 0) + (3,) * spatial_dims].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_output_size_is_what_the_layers_give(spatial_dims: int) -> None:
    rng = torch.Generator().manual_seed(spatial_dims)
    tried = 0
    while tried < 25:
        size, kernel, stride, padding, dilation = (
            int(torch.randint(low, high, (1,), generator=rng))
            for low, high in ((1, 13), (1, 5), (1, 4), (0, 3), (1, 3))
        )
        x = torch.zeros((1, 1) + (size,) * spatial_dims)
        net = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims](1, 1, kernel, stride, padding, dilation)
        if size + 2 * padding < dilation * (kernel - 1) + 1:
            with pytest.raises(InvalidOption, match="does not fit"):
                layers.output_size(size, kernel, stride=stride, padding=padding, dilation=dilation)
            continue
        expected = layers.output_size(size, kernel, stride=stride, padding=padding, dilation=dilation)
        assert net(x).shape[2:] == (expected,) * spatial_dims
        if kernel <= size:
            pooled = layers.output_size(size, kernel, stride=stride)
            for pool in (layers.max_pool, layers.avg_pool):
                assert pool(spatial_dims, kernel, stride=stride)(x).shape[2:] == (pooled,) * spatial_dims
        tried += 1


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_every_layer_keeps_its_dimensions(spatial_dims: int) -> None:
    x = torch.randn((2, 3) + (6,) * spatial_dims)
    assert layers.batch_norm(spatial_dims, 3)(x).shape == x.shape
    assert layers.max_pool(spatial_dims, 2)(x).shape[2:] == (3,) * spatial_dims  # the stride is the kernel
    assert layers.avg_pool(spatial_dims, 2)(x).shape[2:] == (3,) * spatial_dims
    assert (
        layers.conv(spatial_dims, 3, 6, 3, padding=1, groups=3, bias=False)(x).shape[1:] == (6,) + (6,) * spatial_dims
    )


@pytest.mark.parametrize("spatial_dims", [0, 4])
def test_other_dimensions_are_refused(spatial_dims: int) -> None:
    for make in (lambda: layers.conv(spatial_dims, 1, 1, 3), lambda: layers.max_pool(spatial_dims, 2)):
        with pytest.raises(InvalidOption, match="spatial_dims"):
            make()
