"""Colours kept: chroma of the content, or mean and covariance."""

import numpy as np
import torch

from likeness.style.colour import match_colours, with_colours_of


def picture(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(3, 3)) @ rng.normal(size=(3, 20 * 30)) * 0.1 + rng.uniform(0.3, 0.7, (3, 1))
    return torch.from_numpy(mixed.reshape(1, 3, 20, 30))


def test_luminance_of_one_and_colours_of_the_other() -> None:
    content, made = picture(0), picture(1)
    kept = with_colours_of(content, made)[0].flatten(1).numpy()
    c, m = (x[0].flatten(1).numpy() for x in (content, made))
    grey = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey @ kept, grey @ m, atol=1e-9)
    shift = grey @ m - grey @ c  # equal chroma: red, green and blue move alike
    np.testing.assert_allclose(kept - c, np.broadcast_to(shift, (3, 600)), atol=2e-3 * np.abs(shift).max())


def test_mean_and_covariance_become_those_of_the_content() -> None:
    style, content = picture(2), picture(3)
    matched = match_colours(style, content)[0].flatten(1).numpy()
    wanted = content[0].flatten(1).numpy()
    np.testing.assert_allclose(matched.mean(1), wanted.mean(1), atol=1e-9)
    np.testing.assert_allclose(np.cov(matched), np.cov(wanted), atol=1e-3 * np.abs(np.cov(wanted)).max())
    flat = torch.full_like(style, 0.5)  # no colours at all: nothing to stretch, but no crash either
    assert torch.isfinite(match_colours(flat, content)).all()
