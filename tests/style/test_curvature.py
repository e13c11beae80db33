"""The curvature of J by frequency and colour, against NumPy's full transforms, over 1, 2 and 3 dimensions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from style_reference import rings, times

from likeness.style import curvature

SIZES = [(1,), (2,), (37,), (40,), (9, 14), (16, 1), (12, 12), (4, 5, 6), (5, 4, 7)]


@pytest.fixture(params=[curvature.ROW, 4], autouse=True)
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rings of one row each, and of many, as those of pictures are."""
    curvature._rings.cache_clear()
    monkeypatch.setattr(curvature, "ROW", request.param)
    yield
    curvature._rings.cache_clear()


def sample(size: tuple[int, ...], seed: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(seed: int, n: int = 3) -> torch.Tensor:
    a = torch.randn(curvature.RINGS, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT + 0.1 * torch.eye(n)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_covariances_by_frequency(size: tuple[int, ...], channels: int) -> None:
    x = sample(size, 1, channels)
    found = curvature.by_frequency(x.flatten(), x.shape).numpy()
    waves = np.fft.fftn(x[0].numpy(), axes=tuple(range(1, 1 + len(size)))).reshape(channels, -1)
    for ring in range(curvature.RINGS):
        mine = waves[:, rings(size).flatten() == ring]
        np.testing.assert_allclose(found[ring], (mine @ mine.conj().T).real / np.prod(size), rtol=1e-9, atol=1e-12)
    flat = x[0].flatten(1).numpy()
    np.testing.assert_allclose(found.sum(0), flat @ flat.T, rtol=1e-9, atol=1e-12)  # Parseval


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_product_with_a_sample(size: tuple[int, ...], channels: int) -> None:
    M, x, y = positive(0, channels), sample(size, 1, channels), sample(size, 2, channels)
    expected = times(M.numpy(), x.numpy())
    other = y.clone()
    before = x.clone()
    curvature.apply(M, x)
    curvature.apply(M, other)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((x * y).sum(), (before * other).sum())  # symmetric
    assert float((x * before).sum()) > 0  # positive
    curvature.apply(torch.eye(channels, dtype=torch.float64).expand(curvature.RINGS, -1, -1), y)
    torch.testing.assert_close(y, sample(size, 2, channels))


BLOCKS = [((300,), (100,)), ((40, 24), (10, 8)), ((41, 23), None), ((10, 10, 5), (5, 5, 5)), ((11, 9, 4), None)]


@pytest.mark.parametrize(("size", "block"), BLOCKS)
def test_large_samples_are_transformed_in_blocks(
    size: tuple[int, ...], block: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block as a sample of its own; where the blocks differ by a position, still nothing is left out."""
    M, x, y = positive(0), sample(size, 1), sample(size, 2)
    monkeypatch.setattr(curvature, "TRANSFORMED", 128)
    flat = x[0].flatten(1)
    torch.testing.assert_close(curvature.by_frequency(x.flatten(), x.shape).sum(0), flat @ flat.T)
    before, other = x.clone(), y.clone()
    curvature.apply(M, x)
    curvature.apply(M, other)
    torch.testing.assert_close((x * y).sum(), (before * other).sum())
    assert float((x * before).sum()) > 0
    if block:
        first = (..., *(slice(n) for n in block))
        np.testing.assert_allclose(x[first].numpy(), times(M.numpy(), before[first].numpy()), rtol=1e-9, atol=1e-12)
    curvature.apply(torch.eye(3, dtype=torch.float64).expand(curvature.RINGS, 3, 3), y)
    torch.testing.assert_close(y, sample(size, 2))


@given(seed=st.integers(0, 10**6), channels=st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_the_geometric_mean_makes_one_of_the_other(seed: int, channels: int) -> None:
    s, y = positive(seed, channels), positive(seed + 1, channels)
    M = curvature.geometric_mean(s, y)
    torch.testing.assert_close(M @ y @ M, s, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(M, M.mT)
    assert bool((torch.linalg.eigvalsh(M) > 0).all())


@pytest.mark.parametrize("size", [(64,), (12, 17), (6, 7, 8)])
def test_a_bowl_whose_axes_are_frequencies_is_found(size: tuple[int, ...]) -> None:
    """Where the gradient changes by H s, with H a matrix per ring, M becomes H^-1, up to what a ridge leaves."""
    H, state = positive(3), dict[str, Any]()
    H /= H.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    for number in range(200):
        assert curvature.beginning(state) is None or number >= curvature.SETTLED
        s = sample(size, number)
        y = torch.from_numpy(times(H.numpy(), s.numpy()))
        curvature.look(state, s.flatten(), y.flatten(), float((s * y).sum()), s.shape)
    M = curvature.beginning(state)
    assert M is not None
    there = np.unique(rings(size))[2:]  # the coarsest have too few waves for a covariance of three channels
    error = (M @ H - torch.eye(3))[torch.from_numpy(there)].abs().amax()
    assert float(error) < 0.15
    mine = times(M.numpy(), y.numpy())
    assert float((y.numpy() * mine).sum()) == pytest.approx(float((s * y).sum()), rel=1e-9)  # y'My = y's


def test_pairs_fade() -> None:
    """Each new pair counts a tenth, those before it nine."""
    state: dict[str, Any] = {}
    shape, found = torch.Size([1, 3, 6, 7]), []
    for number in range(3):
        s, y = (sample((6, 7), 2 * number + i).flatten() for i in (0, 1))
        curvature.look(state, s, y, 2.0, shape)
        found.append(torch.stack([curvature.by_frequency(one, shape) / 2 for one in (s, y)]))
    expected = 0.9 * (0.9 * found[0] + 0.1 * found[1]) + 0.1 * found[2]
    torch.testing.assert_close(state["covariances"], expected)
    torch.testing.assert_close(state["newest"], found[2][1])


def test_samples_without_variation_give_no_nonsense() -> None:
    state: dict[str, Any] = {}
    flat = torch.ones(1, 3, 8, 8)
    for _ in range(curvature.SETTLED + 5):
        curvature.look(state, flat.flatten(), 2 * flat.flatten(), float(2 * flat.numel()), flat.shape)
    M = curvature.beginning(state)
    assert M is not None and bool(torch.isfinite(M).all())
    curvature.apply(M, flat)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.5))
