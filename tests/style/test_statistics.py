"""Sums over positions, wherever the values lie in memory. (What J makes of them: test_objective.)"""

import numpy as np
import pytest
import torch

from likeness.style.statistics import gram, total_variation


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


@pytest.mark.parametrize("size", [(37,), (19, 14), (9, 8, 11)])
def test_total_variation(size: tuple[int, ...]) -> None:
    x = sample(size, 0)
    expected = sum((np.diff(x.numpy(), axis=axis) ** 2).mean() for axis in range(2, x.ndim))
    assert float(total_variation(x)) == pytest.approx(expected, rel=1e-12)
    assert float(total_variation(torch.full_like(x, 0.3))) == 0
