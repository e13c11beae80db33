"""Augmentation: each part does what its name says and nothing else; the same generator gives the same bytes."""

import math

import numpy as np
import pytest
import torch

from likeness.metric import augment as module
from likeness.metric.augment import augment, augment_things, draw_moves, draw_parts, to_input


def crops(n: int = 12, size: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def views(n: int = 12, size: int = 48) -> torch.Tensor:
    return to_input(crops(n, size))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [24, 32, 48])
def test_shape_range_and_reproducibility(size: int) -> None:
    views = [augment(crops(), generator=torch.Generator().manual_seed(seed), size=size) for seed in (1, 1, 2)]
    assert views[0].shape == (12, 3, size, size)
    assert views[0].dtype == torch.float32
    assert float(views[0].abs().max()) <= 1
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_views_still_show_the_picture() -> None:
    """A smooth picture's views correlate with it, up to mirror: the augmentation does not drown the sample."""
    ramp = torch.linspace(30, 220, 48)
    image = (ramp[:, None, None] * torch.ones(48, 48, 3)).to(torch.uint8)[None].repeat(64, 1, 1, 1)
    views = augment(image, generator=torch.Generator().manual_seed(3), size=48).mean(1).flatten(1)
    plain = to_input(image).mean(1).flatten(1)
    both = torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(views, plain, strict=True)])
    assert float(both.median()) > 0.95


def test_to_input_is_the_encoders_preprocessing() -> None:
    image = crops(2)
    expected = (image.permute(0, 3, 1, 2).double() - 127.5) / 127.5
    assert torch.allclose(to_input(image).double(), expected, atol=1e-6)
    assert to_input(image, size=24).shape == (2, 3, 24, 24)


def test_shrinking_averages_what_a_pixel_covers() -> None:
    """A fine checkerboard, shrunk three times, is grey: sampling single pixels would give black and white."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    board = (((x + y) % 2) * 255).to(torch.uint8)[None, ..., None].expand(1, 48, 48, 3)
    assert float(to_input(board, size=16)[..., 2:-2, 2:-2].abs().max()) < 0.1


def test_moves_are_a_mirror_a_rotation_a_scale_and_a_shift() -> None:
    """Each drawn map is taken apart again; what it is made of fills the ranges that are promised, and no more."""
    moves = draw_moves(4000, seeded(0)).double().numpy()
    linear, shift = moves[..., :2], moves[..., 2]
    mirrored = np.linalg.det(linear) < 0
    assert 0.46 < mirrored.mean() < 0.54
    scale = np.sqrt(np.abs(np.linalg.det(linear)))
    upright = linear @ np.where(mirrored[:, None, None], np.diag([-1.0, 1.0]), np.eye(2))
    np.testing.assert_allclose(
        upright @ upright.transpose(0, 2, 1), scale[:, None, None] ** 2 * np.eye(2)[None], atol=1e-6
    )
    degrees = np.degrees(np.arctan2(upright[:, 1, 0], upright[:, 0, 0]))
    for values, low, high in ((degrees, -8, 8), (scale, 0.92, 1.08), (shift, -0.08, 0.08)):  # 0.08 of 2: 4 % of a side
        assert low - 1e-6 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-6
    for a, b in ((degrees, scale), (degrees, mirrored), (shift[:, 0], shift[:, 1]), (scale, shift[:, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06, "drawn independently of each other"


def test_parts_lie_within_the_picture_and_fill_their_ranges() -> None:
    moves = draw_parts(4000, seeded(0)).double().numpy()
    width, height, x, y = moves[:, 0, 0], moves[:, 1, 1], moves[:, 0, 2], moves[:, 1, 2]
    assert (moves[:, 0, 1] == 0).all() and (moves[:, 1, 0] == 0).all() and (height > 0).all()
    assert 0.46 < (width < 0).mean() < 0.54, "half of them mirror"
    width = np.abs(width)
    for size, place in ((width, x), (height, y)):
        assert (size + np.abs(place)).max() <= 1 + 1e-6 and size.max() <= 1
        assert abs(np.corrcoef(np.sign(place), size)[0, 1]) < 0.06
        share = place[size < 0.9] / (1 - size[size < 0.9])
        assert share.min() < -0.97 and share.max() > 0.97
    whole = (width < 1) & (height < 1)  # nothing was cut off
    area, aspect = (width * height)[whole], (width / height)[whole]
    assert 0.25 - 1e-6 <= area.min() < 0.27 and area.max() > 0.9
    assert 3 / 4 - 1e-6 <= aspect.min() < 0.77 and 1.3 < aspect.max() <= 4 / 3 + 1e-6


@pytest.mark.parametrize("size", [24, 48, 60])
def test_a_view_is_the_part_that_was_drawn(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture whose red is its place along x and whose green is its place along y, a view shows where it lies."""
    for name in ("_light", "_erase"):
        monkeypatch.setattr(module, name, lambda x, generator: x)
    place = ((torch.arange(100) + 0.5) / 100 * 255).round().to(torch.uint8)
    picture = torch.stack([place.expand(100, 100), place[:, None].expand(100, 100), place.expand(100, 100)], -1)
    views = augment_things(picture.expand(8, -1, -1, -1), generator=seeded(4), size=size)
    assert views.shape == (8, 3, size, size)
    centres = (torch.arange(size) * 2 + 1) / size - 1
    for view, move in zip(views, draw_parts(8, seeded(4)), strict=True):
        for channel in (0, 1):
            wanted = (move[channel, channel] * centres + move[channel, 2]).clamp(-0.99, 0.99)  # the outermost centres
            found = view[channel].mean(channel)
            torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)


def test_views_of_things_are_the_generators_and_within_range() -> None:
    first, again, other = (augment_things(crops(), generator=seeded(seed), size=32) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and float(first.abs().max()) <= 1


def test_without_any_chance_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move by nothing is the picture itself, and parts with a share of 0 touch no sample."""
    x, still = views(), torch.eye(3)[None, :2].expand(12, 2, 3)
    torch.testing.assert_close(module.move(x, still), x, atol=1e-5, rtol=0)
    for part in (module._lower_resolution, module._erase):
        assert torch.equal(part(x.clone(), seeded(0), share=0), x)
    for name in ("_lower_resolution", "_light", "_erase"):
        monkeypatch.setattr(module, name, lambda x, generator: x)
    torch.testing.assert_close(augment(crops(), generator=seeded(0), size=48, moves=still), x, atol=1e-5, rtol=0)
    mirror = still * torch.tensor([[-1.0], [1.0]])
    torch.testing.assert_close(
        augment(crops(), generator=seeded(0), size=48, moves=mirror), x.flip(-1), atol=1e-5, rtol=0
    )
    drawn = draw_moves(12, seeded(5))
    expected = module.move(x, drawn)
    assert torch.equal(augment(crops(), generator=seeded(5), size=48), expected)


def roughness(x: torch.Tensor) -> torch.Tensor:
    """Energy per sample in the half of the spectrum with the higher frequencies."""
    spectrum = torch.fft.fft2(x.double()).abs().square()
    frequency = torch.fft.fftfreq(x.shape[-1]).abs()
    return (spectrum * (torch.maximum(frequency[:, None], frequency[None]) > 0.31)).sum((1, 2, 3))


def test_a_lower_resolution_takes_fine_detail_from_a_fifth_and_leaves_the_rest() -> None:
    before = views(40)
    after = module._lower_resolution(before.clone(), seeded(0))
    changed = (after != before).flatten(1).any(1)
    assert int(changed.sum()) == 8
    assert (roughness(after)[changed] < 0.1 * roughness(before)[changed]).all()
    sign = torch.tensor([1.0, -1.0]).repeat(24)
    board = (0.8 * sign[:, None] * sign).expand(40, 3, 48, 48).clone()  # finer than can be shown: grey, not aliases
    seen = module._lower_resolution(board.clone(), seeded(0))[changed]
    assert float(seen[..., 4:-4, 4:-4].abs().mean()) < 0.1
    smooth = torch.linspace(-0.8, 0.8, 48).expand(40, 3, 48, 48).clone()  # what has no detail keeps its look
    shown = module._lower_resolution(smooth.clone(), seeded(0))
    assert float((shown - smooth)[..., 4:-4].abs().max()) < 0.05


def test_one_colour_covers_a_rectangle_of_a_fifth_and_nothing_else() -> None:
    before = views(60)
    after = module._erase(before.clone(), seeded(1))
    changed = (after != before).any(1)  # [n, h, w]
    touched = changed.flatten(1).any(1)
    assert int(touched.sum()) == 12
    shares, aspects, places = [], [], []
    for one, mask in zip(after[touched], changed[touched], strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        inside = one[:, top:bottom, left:right].flatten(1)
        assert (inside == inside[:, :1]).all(), "one colour, and all of the rectangle"
        assert mask.sum() == mask[top:bottom, left:right].sum()
        shares.append((bottom - top) * (right - left) / 48**2)
        aspects.append((bottom - top) / (right - left))
        places.append((top, left))
    assert min(shares) > 0.04 and 0.1 < max(shares) < 0.32
    assert min(aspects) < 0.8 and max(aspects) > 1.25
    assert len(set(places)) > 9


def test_light_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gamma on 0...1, contrast about the mean, brightness, a gain per channel from black on, grey: in this order."""
    n, drawn = 5, []

    def remembered(generator: torch.Generator, count: int, low: float, high: float) -> torch.Tensor:
        drawn.append(torch.rand(count, generator=generator) * (high - low) + low)
        return drawn[-1]

    monkeypatch.setattr(module, "_uniform", remembered)
    x = views(n)  # fewer than six: none gets noise
    found = module._light(x.clone(), seeded(6))
    gamma, contrast, light, colour, grey = (d.double().numpy() for d in drawn)
    assert 0 < (grey < 0.125).sum() < n and len(colour) == 3 * n
    for i in range(n):
        picture = ((x[i].double().numpy() + 1) / 2).clip(1e-3, 1) ** math.exp(gamma[i]) * 2 - 1
        picture = (picture - picture.mean()) * contrast[i] + picture.mean() + light[i]
        picture = (picture + 1) * colour[3 * i : 3 * i + 3, None, None] - 1
        if grey[i] < 0.125:
            picture = np.repeat(picture.mean(0, keepdims=True), 3, 0)
        np.testing.assert_allclose(found[i], picture, atol=1e-5)


def test_how_much_the_light_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often darker as brighter, as often paler as harder: all draws lie evenly about no change."""
    drawn = []

    def remembered(generator: torch.Generator, count: int, low: float, high: float) -> torch.Tensor:
        drawn.append(torch.rand(count, generator=generator) * (high - low) + low)
        return drawn[-1]

    monkeypatch.setattr(module, "_uniform", remembered)
    module._light(torch.zeros(500, 3, 2, 2), seeded(0))
    for values, middle, reach in zip(drawn[:4], (0, 1, 0, 1), (0.35, 0.3, 0.25, 0.08), strict=True):
        assert float(values.min()) == pytest.approx(middle - reach, abs=0.02 * reach)
        assert float(values.max()) == pytest.approx(middle + reach, abs=0.02 * reach)


def test_one_in_six_is_noisy_and_one_in_eight_grey() -> None:
    x = torch.zeros(600, 3, 16, 16) + torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    lit = module._light(x, seeded(2))
    deviation = lit.std((2, 3)).mean(1)  # a plain picture stays plain but for the noise
    noisy = deviation > 1e-5
    assert int(noisy.sum()) == 100
    assert 0.08 < float(deviation.max()) < 0.12 and 0.04 < float(deviation[noisy].mean()) < 0.06
    grey = (lit.amax(1) - lit.amin(1))[~noisy].amax((1, 2)) < 1e-6
    assert 0.09 < float(grey.float().mean()) < 0.17
