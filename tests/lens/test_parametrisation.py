"""Samples from spectra against a reference in float64 NumPy that knows only the full Fourier transform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from likeness.errors import InvalidOption
from likeness.lens.parametrisation import COLOURS, spectrum

NET = nn.Linear(1, 1).double()
shapes = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple)


def by_hand(z: np.ndarray, shape: tuple[int, ...], low: float, high: float, decay: float, blur: float) -> np.ndarray:
    """irfftn written out: the last axis inverted with cosines and sines, the others by their definition."""
    c, *spatial = shape
    grids = np.meshgrid(*[np.fft.fftfreq(n) for n in spatial], indexing="ij")
    f = np.sqrt(sum(grid**2 for grid in grids))
    factor = np.maximum(f, 1 / max(spatial)) ** -decay * np.exp(-2 * np.pi**2 * blur**2 * f**2)
    factor /= np.sqrt((factor**2).mean())
    s = (z[..., 0] + 1j * z[..., 1]) * factor[..., : spatial[-1] // 2 + 1]
    for axis, n in enumerate(spatial[:-1], 1):
        i = np.arange(n)
        s = np.moveaxis(np.moveaxis(s, axis, -1) @ np.exp(2j * np.pi * np.outer(i, i) / n) / np.sqrt(n), -1, axis)
    n = spatial[-1]
    k, i = np.arange(n // 2 + 1), np.arange(n)
    weight = np.where((k == 0) | (2 * k == n), 1, 2)[:, None]
    angle = 2 * np.pi * np.outer(k, i) / n
    s = (s.real @ (weight * np.cos(angle)) - s.imag @ (weight * np.sin(angle))) / np.sqrt(n)
    if c == 3 and len(spatial) == 2:
        s = np.tensordot(np.array(COLOURS), s, 1)
    return low + (high - low) / (1 + np.exp(-s))


@settings(deadline=None, max_examples=60)
@given(shapes, st.floats(0, 2), st.floats(0, 2), st.integers(0, 99))
def test_a_sample_is_the_inverse_transform_of_scaled_coefficients(
    shape: tuple[int, ...], decay: float, blur: float, seed: int
) -> None:
    made = spectrum(NET, shape, low=-1.0, high=2.0, decay=decay, blur=blur)
    z = made.noise(torch.Generator().manual_seed(seed), 1.5)
    x = made.sample(z)
    assert x.shape == (1, *shape) and x.dtype == torch.float64
    assert np.abs(x[0].numpy() - by_hand(z[0].numpy(), shape, -1.0, 2.0, decay, blur)).max() < 1e-6


@pytest.mark.parametrize("shape", ((2, 400), (2, 30, 31), (1, 12, 10, 11)))
def test_noise_has_the_contrast_that_was_asked_for(shape: tuple[int, ...]) -> None:
    made = spectrum(NET, shape, low=0.0, high=1.0, decay=0.0)
    assert made.contrast(made.noise(torch.Generator().manual_seed(1), 0.7)) == pytest.approx(0.7, rel=0.1)


def test_low_frequencies_weigh_more_and_a_blur_takes_the_high_ones() -> None:
    factor = spectrum(NET, (1, 64), low=0.0, high=1.0, decay=1.0).filter
    assert float(factor[2] / factor[8]) == pytest.approx(4)
    blurred = spectrum(NET, (1, 64), low=0.0, high=1.0, decay=1.0, blur=2.0).filter / factor
    assert float(blurred[20] / blurred[10]) == pytest.approx(np.exp(-2 * np.pi**2 * 4 * (400 - 100) / 64**2))


@pytest.mark.parametrize("shape", ((2, 40), (3, 20, 21), (1, 12, 10, 11)))
@pytest.mark.parametrize("blurs", ((2.0, 1.0), (1.0, 0.0), (30.0, 30.0)))
def test_a_finer_spectrum_gives_the_same_sample(blurs: tuple[float, float], shape: tuple[int, ...]) -> None:
    wide, finer = (spectrum(NET, shape, low=0.0, high=1.0, blur=blur) for blur in blurs)
    z = wide.noise(torch.Generator().manual_seed(0), 1.0)
    assert torch.allclose(finer.sample(wide.converted(z, finer)), wide.sample(z), atol=1e-9)
    assert wide.sample(z).std() > 0.05 or blurs[0] == 30  # which leaves of small samples their mean


def test_what_cannot_be_is_refused() -> None:
    for shape, options, message in (
        ((3,), {}, "shape"),
        ((1, 2, 2, 2, 2), {}, "shape"),
        ((1, 0), {}, "shape"),
        ((1, 4), {"low": 1.0}, "below"),
        ((1, 4), {"blur": -1.0}, "blur"),
        ((1, 4), {"decay": -1.0}, "decay"),
    ):
        with pytest.raises(InvalidOption, match=message):
            spectrum(NET, shape, **({"low": 0.0, "high": 1.0} | options))
