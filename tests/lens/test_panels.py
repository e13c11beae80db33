"""Samples as pictures, in 1, 2 and 3 dimensions: what is shown, and what is framed."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import InvalidOption
from likeness.lens.drawing import AGAINST, FOR
from likeness.lens.panels import ACCENT, BEYOND, GROUND, Panel, draw, framed, patch_of, shaded, write
from likeness.lens.patches import Hit
from likeness.nets.receptive_field import ReceptiveField

SIZES = {1: (30,), 2: (30, 40), 3: (30, 20, 40)}
RED = tuple(int(ACCENT[i : i + 2], 16) for i in (1, 3, 5))


def noise(dims: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(dims).random((channels, *SIZES[dims]), dtype=np.float32)


def coloured(image: np.ndarray, colour: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero((image == colour).all(2))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_a_patch_is_the_window_at_its_place_in_the_field(dims: int) -> None:
    x = noise(dims)
    field = ReceptiveField((7,) * dims, (2,) * dims, (-3,) * dims)  # of position i: 2 i - 3 ... 2 i + 3
    inside = Hit(0, (4,) * dims, 1.0, ((5, 12),) * dims)
    assert np.array_equal(patch_of(x, inside, field).sample, x[(slice(None), *[slice(5, 12)] * dims)])
    corner = patch_of(x, Hit(0, (0,) * dims, 1.0, ((0, 4),) * dims), field).sample
    assert np.array_equal(corner[(slice(None), *[slice(3, 7)] * dims)], x[(slice(None), *[slice(0, 4)] * dims)])
    assert np.isnan(corner).sum() == 7**dims - 4**dims
    whole = ReceptiveField((99,) * dims, (8,) * dims, (-50,) * dims)
    assert np.array_equal(patch_of(x, Hit(0, (1,) * dims, 1.0, tuple((0, n) for n in SIZES[dims])), whole).sample, x)


def test_a_picture_keeps_its_colours_and_a_frame_lies_on_its_window() -> None:
    x = noise(2, 3)
    image = draw([Panel(x)], columns=1, side=160)
    assert isinstance(image, np.ndarray) and image.shape == (
        160,
        160,
        3,
    )  # four times as large, 20 rows of ground above
    assert np.array_equal(image[20:140:4, ::4], shaded(x)) and (image[:20] == GROUND).all()
    rows, columns = coloured(draw([framed(x, ((5, 25), (10, 30)))], columns=1, side=80), RED)
    assert (rows.min(), rows.max()) == (20, 59) and (columns.min(), columns.max()) == (20, 59)
    rows, _ = coloured(draw([framed(x, ((14, 15), (10, 11)))], columns=1, side=80), RED)
    assert rows.max() - rows.min() > 8  # of one pixel, and still seen
    grey = shaded(np.array([[[0.5, np.nan]]], np.float32))
    assert grey.tolist() == [[[128] * 3, list(BEYOND)]]
    assert shaded(np.array([[[0.2]], [[0.4]]], np.float32))[0, 0].tolist() == [round(0.3 * 255)] * 3  # two channels


def test_a_volume_is_three_slices_through_the_window() -> None:
    x = np.zeros((1, 30, 20, 40), np.float32)  # [d, h, w]
    x[0, 9:12, 4:7, 29:32] = 1
    window = ((8, 13), (3, 8), (28, 33))
    image = draw([framed(x, window)], columns=1, side=142)  # 140 for 40 + 30 positions: each is 2 pixels wide
    top = (142 - 2 - 2 * (20 + 30)) // 2
    views = {  # where each begins, and its window there
        (top, 0): ((3, 8), (28, 33)),  # h down, w across
        (top, 82): ((3, 8), (8, 13)),  # h down, d across
        (top + 42, 0): ((8, 13), (28, 33)),  # d down, w across
    }
    rows, columns = coloured(image, RED)
    for (y, x_), (down, across) in views.items():
        middle = image[y + sum(down), x_ + sum(across)]
        assert (middle == 255).all()
        near = (abs(rows - y - sum(down)) < 12) & (abs(columns - x_ - sum(across)) < 12)
        assert near.sum() > 40
    other = draw([Panel(x)], columns=1, side=142)  # through the middle of the volume the cube is not met
    assert not coloured(other, (255, 255, 255))[0].size


def test_curves_are_an_svg_with_their_windows() -> None:
    x = noise(1, 2)
    x[1, 17] = 9  # a peak
    svg = draw([framed(x, ((6, 12),)), Panel(noise(1))], columns=2, side=300)
    assert isinstance(svg, str)
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    groups = root.findall(f"{space}g")
    assert len(groups) == 2 and len(groups[0].findall(f"{space}path")) == 2
    mark = groups[0].findall(f"{space}rect")[1]
    assert (float(mark.get("x", 0)), float(mark.get("width", 0))) == (60, 60)
    points = np.array([[float(v) for v in pair.split(",")] for pair in _points(groups[0], space)])
    assert points[points[:, 1].argmin(), 0] == pytest.approx(17.5 / 30 * 300, abs=0.1)


def _points(group: ET.Element, space: str) -> list[str]:
    numbers = group.findall(f"{space}path")[1].get("d", "")[1:].split()
    return [f"{a},{b}" for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


def test_a_long_curve_keeps_its_peaks_and_nothing_is_drawn_beyond_the_border() -> None:
    x = np.zeros((1, 100_000), np.float32)
    x[0, 77_777], x[0, :5000] = 1, np.nan
    svg = draw([Panel(x)], columns=1, side=200)
    assert isinstance(svg, str) and len(svg) < 12_000
    group = ET.fromstring(svg).find("{http://www.w3.org/2000/svg}g")
    assert group is not None
    numbers = group.findall("{http://www.w3.org/2000/svg}path")[0].get("d", "")[1:].split()
    across, down = (np.array(part, float) for part in (numbers[::2], numbers[1::2]))
    assert across[down.argmin()] == pytest.approx(155.6, abs=0.1) and down.min() < down.max() - 50
    assert across.min() == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_a_map_is_laid_over_the_sample(dims: int) -> None:
    x = np.full((1, *SIZES[dims]), 0.5, np.float32)
    heat = np.zeros(SIZES[dims], np.float32)
    heat[: SIZES[dims][0] // 2], heat[SIZES[dims][0] // 2 :] = 1, -1
    drawing = draw([Panel(x, heat=heat)], columns=1, side=140)
    if isinstance(drawing, str):
        first, last = (
            drawing.index(f"rgb({','.join(map(str, FOR))})"),
            drawing.index(f"rgb({','.join(map(str, AGAINST))})"),
        )
        assert first < last
        return
    plain = draw([Panel(x)], columns=1, side=140)
    change = drawing.astype(int) - plain
    assert (change[..., 1] > 20).any() and (change[..., 0] > 20).any()  # green, and magenta


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for panels in ([Panel(noise(1)), Panel(noise(2))], [Panel(np.zeros((1, 2, 2, 2, 2), np.float32))]):
        with pytest.raises(InvalidOption, match="dimensions"):
            draw(panels, columns=1, side=20)
    assert write(tmp_path / "a.b", draw([Panel(noise(2))], columns=1, side=20)) == "a.b.webp"
    assert Image.open(tmp_path / "a.b.webp").size == (20, 20)
    assert write(tmp_path / "c", draw([Panel(noise(1))], columns=1, side=20)) == "c.svg"
