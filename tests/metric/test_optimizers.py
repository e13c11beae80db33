"""Muon against NumPy in float64: the orthogonal factor, the step, and which weights it leaves to AdamW."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from likeness.metric.optimizers import Muon, orthogonal


def by_hand(matrix: np.ndarray) -> np.ndarray:
    """Newton-Schulz on the singular values alone: U p(p(...p(S)...)) V', with p(s) = a s + b s^3 + c s^5."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_the_iteration_acts_on_singular_values_only(rows: int, columns: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    np.testing.assert_allclose(orthogonal(torch.from_numpy(matrix)).numpy(), by_hand(matrix), atol=1e-8)


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32)])
def test_all_directions_come_out_about_equally_long(shape: tuple[int, int]) -> None:
    matrix = torch.from_numpy(np.random.default_rng(1).normal(size=shape))
    values = np.linalg.svd(orthogonal(matrix).numpy())[1]
    assert values.max() < 1.25
    assert np.median(values) > 0.65


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_three_steps_by_hand(dims: int) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](3, 5, 3).double()
    rng = np.random.default_rng(dims)
    weight = conv.weight.detach().numpy().reshape(5, -1).copy()
    optimizer = Muon(conv, lr=0.01, weight_decay=0.1)
    mean = np.zeros_like(weight)
    for _ in range(3):
        gradient = rng.normal(size=weight.shape)
        conv.weight.grad = torch.from_numpy(gradient.reshape(conv.weight.shape))
        optimizer.step()
        mean = 0.95 * mean + 0.05 * gradient
        update = 0.2 * np.sqrt(max(weight.shape)) * by_hand(0.05 * gradient + 0.95 * mean)
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * update
    np.testing.assert_allclose(conv.weight.detach().numpy().reshape(5, -1), weight, atol=1e-9)


def test_the_rest_is_left_to_adamw() -> None:
    """Depthwise kernels, matrices and vectors move as AdamW moves them."""

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleList([nn.Conv2d(4, 4, 3, groups=4), nn.Linear(6, 2), nn.BatchNorm2d(3)])

    ours, theirs = net(), net()
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    vectors = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    for optimizer, module in ((Muon(ours, lr=0.01, weight_decay=0.1), ours), (torch.optim.AdamW(groups, 0.01), theirs)):
        torch.manual_seed(1)
        for _ in range(3):
            for p in module.parameters():
                p.grad = torch.randn(p.shape)
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
