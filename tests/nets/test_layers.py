"""The arithmetic of sizes, the chapter's and everyone's, against torch itself; over 1, 2 and 3 dimensions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.nets import layers

DIMS = (1, 2, 3)


@pytest.mark.parametrize("dims", DIMS)
def test_the_chapters_sizes(dims: int) -> None:
    """14 * 5 -> 10 x 16 -> 6 x 32: the same for a signal, an image and a volume."""
    x = torch.zeros(1, 1, *[14] * dims)
    first = layers.conv(dims, 1, 16, 5)(x)
    second = layers.conv(dims, 16, 32, 5)(first)
    assert first.shape == (1, 16, *[10] * dims)
    assert second.shape == (1, 32, *[6] * dims)
    assert layers.output_size(14, 5) == 10
    assert layers.output_size(10, 5) == 6


@given(
    dims=st.sampled_from(DIMS),
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_output_size_is_what_torch_makes(dims: int, size: int, kernel: int, stride: int, padding: int) -> None:
    if size + 2 * padding < kernel:
        with pytest.raises(InvalidOption, match="does not fit"):
            layers.output_size(size, kernel, stride=stride, padding=padding)
        return
    made = layers.conv(dims, 1, 2, kernel, stride=stride, padding=padding)(torch.zeros(1, 1, *[size] * dims))
    assert made.shape[2:] == (layers.output_size(size, kernel, stride=stride, padding=padding),) * dims


@pytest.mark.parametrize("dims", DIMS)
def test_pools_and_normalisation(dims: int) -> None:
    x = torch.arange(2.0 * 4**dims).reshape(1, 2, *[4] * dims)
    assert layers.max_pool(dims, 2)(x).flatten()[-1] == x.max()
    assert torch.allclose(layers.avg_pool(dims, 4)(x).flatten(), x.flatten(2).mean(2).flatten())
    assert layers.max_pool(dims, 2, stride=1)(x).shape[2:] == (3,) * dims
    normalised = layers.batch_norm(dims, 2)(x)
    assert torch.allclose(normalised.flatten(2).mean(2), torch.zeros(1, 2), atol=1e-5)


@pytest.mark.parametrize("dims", [0, 4, -1])
def test_other_numbers_of_dimensions_are_refused(dims: int) -> None:
    with pytest.raises(InvalidOption, match="spatial_dims"):
        layers.conv(dims, 1, 1, 3)
