"""Streamed histograms against NumPy in float64 over everything at once, in 1, 2 and 3 dimensions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.lens import histograms
from likeness.lens.histograms import BINS, PLACES, Counts, Histogram

VALUES = st.builds(lambda m, e: float(np.float32(np.ldexp(m, e))), st.floats(-1, 1, width=16), st.integers(-40, 40))
SHAPES = {1: (700,), 2: (37, 20), 3: (9, 14, 7)}


def counted(parts: list[np.ndarray]) -> list[Histogram]:
    counts = Counts.of(parts[0].shape[1])
    for part in parts:
        counts.add(histograms.counted(torch.from_numpy(part)))
    return [counts.result(unit) for unit in range(parts[0].shape[1])]


def reference(values: np.ndarray) -> Histogram:
    """values: of one unit, float64."""
    reach = 2.0**-100
    while np.abs(values).max() >= reach:
        reach *= 2
    counts, edges = np.histogram(values, BINS, (-reach, reach))
    assert np.diff(edges) == pytest.approx(2 * reach / BINS)
    return Histogram(tuple(counts.tolist()), reach, float((values > 0).mean()))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_every_unit_has_the_histogram_of_its_activations(dims: int) -> None:
    shape = (12, 5, *(min(n, int(PLACES ** (1 / dims))) for n in SHAPES[dims]))  # small enough to count all positions
    a = np.random.default_rng(dims).standard_normal(shape).astype(np.float32)
    a *= np.array([1, 1e-20, 3e10, 0, -1], np.float32).reshape(1, 5, *[1] * dims)
    a[:, 1] = np.maximum(a[:, 1], 0)
    found = counted(np.split(a, [1, 5]))
    for unit, one in enumerate(found):
        assert one == reference(a[:, unit].astype(np.float64).ravel())
        assert sum(one.counts) == a[:, unit].size


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=1, max_size=6))
def test_neither_batches_nor_their_order_change_anything(batches: list[list[float]]) -> None:
    parts = [np.array(one, np.float32).reshape(-1, 1, 1) for one in batches]
    assert counted(parts) == counted(parts[::-1]) == [reference(np.concatenate(parts).astype(np.float64).ravel())]


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_of_a_large_map_an_even_grid_is_counted(dims: int) -> None:
    shape = SHAPES[dims]
    places = np.arange(np.prod(shape), dtype=np.float32).reshape(1, 1, *shape) % 2  # every second position fires
    (one,) = counted([places])
    assert PLACES // 4 < sum(one.counts) <= PLACES
    (zero,) = counted([np.zeros((2, 1, *shape), np.float32)])
    assert zero.counts[BINS // 2] == sum(zero.counts) == 2 * sum(one.counts) and zero.firing == 0


def test_what_is_no_number_is_refused() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(InvalidOption, match="finite"):
            counted([np.array([[[0.0, value]]], np.float32)])
