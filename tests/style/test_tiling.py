"""Tiles change nothing: J and gradient of the whole, for random shapes and tiles, in float64 and float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.nets.activations import activations
from likeness.nets.perceptual import Architecture, Vgg
from likeness.nets.tiles import _cuts, extent, halo, tiles, walk
from likeness.style.objective import Style, objective
from likeness.style.tiling import value_and_gradient

LAYERS = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_1": 0.5, "relu3_1": 0.5}}
WEIGHTS = {"content_weight": 3e4, "style_weight": 2e4, "tv_weight": 2.0}  # each of them counts
LONGEST = {1: 300, 2: 70, 3: 34}


def net(dims: int, pooling: str = "max", padding: str = "reflect") -> Vgg:
    torch.manual_seed(dims)
    return Vgg(Architecture(spatial_dims=dims, widths=(3, 4, 4), depths=(1, 2, 1), pooling=pooling, padding=padding))


@pytest.mark.parametrize("dims", [1, 2, 3])
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_tiled_is_untiled(dims: int, data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(8, LONGEST[dims])) for _ in range(dims))
    tile = 4 * data.draw(st.integers(2 if dims == 3 else 1, 8))  # hundreds of tiles of 4 x 4 x 4 take a minute
    vgg = net(dims, data.draw(st.sampled_from(["max", "average"])), data.draw(st.sampled_from(["reflect", "zeros"])))
    statistic = data.draw(st.sampled_from(["gram", "mean-std"]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    content, x, region = (torch.rand(1, 3, *size, generator=generator, dtype=torch.float64) for _ in range(3))
    style = Style(torch.rand(1, 3, *[16] * dims, generator=generator, dtype=torch.float64), region=region[0, 0])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        styles = [Style(style.sample.to(dtype), region=region[0, 0].to(dtype))]
        vgg.to(dtype)
        whole = objective(vgg, content.to(dtype), styles, statistic=statistic, **WEIGHTS, **LAYERS)
        cut = objective(vgg, content.to(dtype), styles, statistic=statistic, tile=tile, **WEIGHTS, **LAYERS)
        J, gradient = value_and_gradient(whole, x.to(dtype))
        J_cut, gradient_cut = value_and_gradient(cut, x.to(dtype), tile=tile)
        assert pytest.approx(J, rel=tolerance) == J_cut
        assert float((gradient - gradient_cut).abs().max()) <= tolerance * float(gradient.abs().max())
        assert pytest.approx(J, rel=tolerance) == whole.parts(x.to(dtype), tile=tile).J


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_position_belongs_to_one_tile_and_has_its_value(dims: int) -> None:
    vgg, layers = net(dims).double(), ["relu1_1", "relu2_2", "relu3_1"]
    x = torch.rand(1, 3, *[n - 3 * i for i, n in enumerate([LONGEST[dims]] * dims)], dtype=torch.float64)
    whole = activations(vgg, x, layers)
    seen = {layer: torch.zeros_like(a) for layer, a in whole.items()}
    for one, found in walk(vgg, x, layers, 12):
        for layer, a in found.items():
            seen[layer][(..., *one.windows[layer])] += a
    for layer in layers:
        assert torch.allclose(seen[layer], whole[layer], atol=1e-13)


def test_a_smaller_halo_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: with less than the receptive field around them, tiles give other values."""
    vgg, x = net(2).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    J = objective(vgg, x, [Style(torch.rand(1, 3, 16, 16, dtype=torch.float64))], **LAYERS)
    right, _ = value_and_gradient(J, x.flip(2))
    reach = halo(vgg, J.layers)
    monkeypatch.setattr("likeness.nets.tiles.halo", lambda *_: reach - 8)
    wrong, _ = value_and_gradient(J, x.flip(2), tile=16)
    assert abs(wrong - right) > 1e-9 * right


def test_tiles_fall_on_strides() -> None:
    with pytest.raises(InvalidOption, match="multiple of 4"):
        tiles(net(2), (64, 64), ["relu3_1"], 10)
    assert len(tiles(net(2), (64, 64), ["relu3_1"], 16)) == 16
    assert len(tiles(net(2), (65, 64), ["relu3_1"], 32)) == 4  # the last pixel goes with the tile before


@given(n=st.integers(1, 500), tile=st.integers(1, 80), around=st.integers(0, 100), step=st.sampled_from([1, 2, 8]))
@settings(deadline=None, max_examples=500)
def test_crops_are_alike_and_hold_their_tiles(n: int, tile: int, around: int, step: int) -> None:
    longest, total = extent(n, tile * step, around * step)
    lengths = []
    for first, end, low, high in _cuts(n, tile * step, around * step, step):
        assert low % step == 0 and low <= max(0, first - around * step)
        assert min(n, end + around * step) <= high <= n
        assert longest <= high - low < longest + step  # memory that one crop frees is what the next one takes
        lengths.append(high - low)
    assert total <= sum(lengths) < total + len(lengths) * step


@pytest.mark.parametrize("statistic", ["gram", "mean-std"])
@pytest.mark.parametrize("tile", [None, 16])
def test_masks_in_bfloat16(statistic: str, tile: int | None) -> None:
    """What a mask weighs is as exact as what it does not."""
    generator = torch.Generator().manual_seed(0)
    content, style, x = (torch.rand(1, 3, 40, 48, generator=generator) for _ in range(3))
    region = torch.rand(40, 48, generator=generator)
    J = objective(net(2), content, [Style(style, region=region)], content_weight=0, statistic=statistic, **LAYERS)
    (J32, exact), (J16, near) = (value_and_gradient(J, x, tile=tile, low=low) for low in (False, True))
    assert 0 < abs(J16 - J32) < 0.05 * J32  # rounded, and not by much
    J = objective(net(2), content, [Style(style)], style_weight=0, **LAYERS)  # the content's part, too
    (J32, _), (J16, _) = (value_and_gradient(J, x, tile=tile, low=low) for low in (False, True))
    assert 0 < abs(J16 - J32) < 0.05 * J32
    assert float((near - exact).norm() / exact.norm()) < 0.05 and near.dtype == torch.float32
