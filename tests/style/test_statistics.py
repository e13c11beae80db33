"""Sums over positions, wherever the values lie in memory. (What J makes of them: test_objective.)"""

import numpy as np
import pytest
import torch

from likeness.style.statistics import STATISTICS, gram, total_variation


def sample(size: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
def test_the_gram_matrix_of_any_layout_in_memory(masked: bool) -> None:
    """Rows, channels last, a part of either, axes turned round: value and gradient are those of plain sums."""
    rows = sample((12, 10), 1)
    last = rows.to(memory_format=torch.channels_last)
    slope = sample((3,), 2)[0]
    for a in (rows, last, rows[..., 2:9, 1:6], last[..., 2:9, 1:6], rows.mT, last.mT):
        mask = sample(a.shape[2:], 3)[0, 0] if masked else None
        x, y = a.detach().requires_grad_(True), a.detach().requires_grad_(True)
        ours, plain = gram(x, mask), torch.einsum("bihw,bjhw->ij", y if mask is None else y * mask, y)
        (mine,), (theirs,) = (torch.autograd.grad(one, of, slope) for one, of in ((ours, x), (plain, y)))
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        assert mine.is_contiguous(memory_format=torch.channels_last) or a is not last


def test_sums_over_a_million_positions_lose_nothing() -> None:
    """Of float32 activations, with float64's sums: J is made of small differences between such sums."""
    a = 1 + torch.rand(1, 3, 1000, 1000, generator=torch.Generator().manual_seed(0))
    exact = gram(a.double())
    assert float(((gram(a) - exact) / exact).abs().max()) < 5e-8
    moments = STATISTICS["mean-std"][0]
    assert float((moments(a, None)[1] / moments(a.double(), None)[1] - 1).abs().max()) < 5e-8


@pytest.mark.parametrize("statistic", list(STATISTICS))
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(37,), (19, 14), (9, 8, 11)])
def test_what_comes_back_from_deeper_layers_is_added(size: tuple[int, ...], masked: bool, statistic: str) -> None:
    """Through the net and through the sums at once, through one of them alone, and through two taps in a row."""
    collect, slope = STATISTICS[statistic][0], sample(size, 1)
    for layout in (torch.contiguous_format, torch.channels_last)[: 2 if len(size) == 2 else 1]:
        a = sample(size, 2).contiguous(memory_format=layout)
        weights = sample(size, 3)[0, 0] if masked else None
        x, y = a.clone().requires_grad_(True), a.clone().requires_grad_(True)
        first, sums = collect(x, weights)
        second, again = collect(first, None)
        other = sums.detach().cos()
        plain = y.flatten(2)[0]
        weighted = plain if weights is None else plain * weights.flatten()
        if statistic == "gram":
            theirs = weighted @ plain.T, plain @ plain.T
        else:
            theirs = (
                torch.stack([weighted.sum(1), (weighted * plain).sum(1)]),
                torch.stack([plain.sum(1), (plain**2).sum(1)]),
            )
        assert torch.equal(second, a)
        for deeper, by_sums, by_again in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1)):
            parts = [
                deeper * (values.square() * slope).sum()
                + by_sums * (one * other).sum()
                + by_again * (two * other).sum()
                for values, one, two in ((second, sums, again), (y, *theirs))
            ]
            (mine,), (expected,) = (
                torch.autograd.grad(p, of, retain_graph=True) for p, of in zip(parts, (x, y), strict=True)
            )
            torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(37,), (19, 14), (9, 8, 11)])
def test_total_variation(size: tuple[int, ...]) -> None:
    x = sample(size, 0)
    expected = sum((np.diff(x.numpy(), axis=axis) ** 2).mean() for axis in range(2, x.ndim))
    assert float(total_variation(x)) == pytest.approx(expected, rel=1e-12)
    assert float(total_variation(torch.full_like(x, 0.3))) == 0
