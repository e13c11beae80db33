"""Pictures of what is inside a net: what stands beside what, and the way between pictures and tensors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption, SilentUnit, UnknownName
from likeness.lens import drawing, pictures
from likeness.lens.attribute import Attribution
from likeness.lens.comparing import last_map
from likeness.lens.models import Model
from likeness.lens.pictures import GAP, SIDE, attribute_picture, enlarged, invert_picture, maximise_units, tiled


def model(low: float = 0.0, bias: float = 0.0) -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
    net[2].get_parameter("bias").data.fill_(bias)
    net.append(nn.Flatten()).append(nn.LazyLinear(2))
    net(torch.zeros(1, 3, 16, 16))
    return Model("net", net.eval(), 16, lambda image: image if image.shape == (16, 16, 3) else None, low=low)


IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("low", (0.0, -1.0))
def test_a_picture_goes_to_the_net_and_comes_back(low: float) -> None:
    x = model(low).tensor(IMAGE)
    assert x.shape == (3, 16, 16) and x.dtype == torch.float32
    expected = low + (1 - low) * IMAGE[5, 7].astype(np.float64) / 255
    assert x[:, 5, 7].numpy() == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(model(low).image(x), IMAGE)
    assert np.array_equal(model(low).image(x + 9), np.full_like(IMAGE, 255))


def test_one_unit_is_a_picture_and_several_are_a_sheet() -> None:
    told: list[tuple[int, int]] = []
    one = maximise_units(model(-1.0), [("3", 2)], steps=4)
    both = maximise_units(
        model(-1.0), [("3", 1), ("3", 2)], steps=4, on_progress=lambda done, total, _: told.append((done, total))
    )
    assert one.picture.shape == (16, 16, 3) and both.picture.shape[1] == 2 * 16 + 3 * GAP
    assert np.array_equal(both.picture[GAP : GAP + 16, 16 + 2 * GAP : -GAP], one.picture)
    assert told == [(i, 8) for i in range(1, 9)]
    assert [unit["unit"] for unit in both.to_dict()["units"]] == [1, 2]
    assert both.to_dict()["units"][1] == one.to_dict()["units"][0]
    assert not np.array_equal(maximise_units(model(-1.0), [("3", 2)], steps=4, at="centre").picture, one.picture)


def test_what_cannot_be_is_named() -> None:
    for units, options, error, message in (
        ([], {}, InvalidOption, "at least one"),
        ([("3", 1)], {"at": "middle"}, InvalidOption, "centre"),
        ([("3", 4)], {}, UnknownName, r"0\.\.\.3"),
        ([("conv", 4)], {}, UnknownName, "no layer called 'conv'"),
    ):
        with pytest.raises(error, match=message):
            maximise_units(model(), units, **options)
    with pytest.raises(SilentUnit, match="^3:1: the unit does not fire"):
        maximise_units(model(bias=-99), [("3", 1)], steps=4)
    with pytest.raises(InvalidOption, match="nothing that net takes"):
        invert_picture(model(), IMAGE[:9], "3")


def test_the_inverted_stands_beside_the_picture() -> None:
    found = invert_picture(model(), IMAGE, "1", steps=80)
    side = enlarged(IMAGE).shape[0]
    assert side == SIDE and found.picture.shape == (side + 2 * GAP, 2 * side + 3 * GAP, 3)
    assert np.array_equal(found.picture[GAP:-GAP, GAP : GAP + side], enlarged(IMAGE))
    right = found.picture[GAP:-GAP, -GAP - side : -GAP]
    assert np.corrcoef(right.ravel(), enlarged(IMAGE).ravel())[0, 1] > 0.5
    assert 0 < found.to_dict()["error"] < 0.2


def test_the_map_lies_over_the_grey_picture() -> None:
    found = attribute_picture(model(), IMAGE, ("3", 1))
    right = found.picture[96 : 96 + drawing.SIDE, -drawing.MARGIN - drawing.SIDE : -drawing.MARGIN].astype(int)
    coloured = np.ptp(right, axis=2) > 40  # a unit sees five positions per axis: all else stays grey
    assert 0 < coloured.mean() < (7 / 16) ** 2
    assert found.to_dict()["value"] > 0 and found.to_dict()["target"] == "3:1"
    of_class = attribute_picture(model(), IMAGE, 1, method="grad-cam")
    assert of_class.to_dict()["layer"] == "3"
    assert attribute_picture(model(), IMAGE, ("1", 0), method="grad-cam").to_dict()["layer"] == "1"


@pytest.mark.parametrize(
    ("method", "ends", "signed"),
    [
        ("smooth-grad", ("brighter lowers it", "brighter raises it"), True),
        ("occlusion", ("speaks against it", "speaks for it"), True),
        ("grad-cam", ("does not count", "speaks for it"), False),
    ],
)
def test_the_sheet_says_what_it_shows(
    method: str, ends: tuple[str, str], signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(pictures, "sheet", lambda *words, **more: told.append((words, more)) or IMAGE)
    named = replace(model(), classes=("cat", "dog"))
    found = attribute_picture(named, IMAGE, "dog", method=method)
    (headline, line, (column,)), more = told[0]
    assert headline == "What class 1 (dog) answers to" and found.to_dict()["target"] == "class 1 (dog)"
    assert line.startswith(f"{method} · ") and line.endswith(" · net") and column[0] == "the picture"
    assert more == {"ends": ends, "signed": signed}


def test_a_legend_without_anything_against_begins_in_grey() -> None:
    both, one = (drawing.sheet("a", "b", [("c", IMAGE, IMAGE, "")], ends=("", "x"), signed=s) for s in (True, False))
    assert both.shape == one.shape == (542, 716, 3)
    left = [page[-48 + 10, drawing.MARGIN + 13].astype(int) for page in (both, one)]
    assert np.ptp(left[0]) > 40 and np.ptp(left[1]) < 10


def test_classes_by_name_or_number() -> None:
    named = replace(model(), classes=("cat", "dog", "dodo"))
    assert [named.output(word) for word in ("dog", "1", "7", "cat")] == [1, 1, 7, 0]
    assert replace(model(), classes=("1", "0")).output("1") == 0
    with pytest.raises(UnknownName, match="no class called 'dgo'; the nearest are 'dog', 'dodo', 'cat'"):
        named.output("dgo")
    with pytest.raises(UnknownName, match="outputs of net have no names, such as 'dog'; give a number"):
        model().output("dog")
    with pytest.raises(InvalidOption, match="no class 7"):
        attribute_picture(named, IMAGE, 7)


def test_only_grad_cam_takes_a_layer() -> None:
    for method in ("gradient", "occlusion"):
        with pytest.raises(InvalidOption, match=f"layer is '1', which {method} does not use"):
            attribute_picture(model(), IMAGE, 1, method=method, layer="1")
    assert attribute_picture(model(), IMAGE, 1, method="grad-cam", layer="1").to_dict()["layer"] == "1"


def test_full_colour_is_the_99th_percentile_of_what_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    heat = torch.zeros(1, 2, 16, 16)
    heat[0, 0].view(-1)[:201] = torch.arange(-200, 1) - 10.0  # sizes 10, 11 ... 210; zero elsewhere
    monkeypatch.setattr(pictures, "attribute", lambda *_, **__: Attribution(heat, "gradient", torch.ones(1)))
    told: list[Any] = []
    monkeypatch.setattr(pictures, "sheet", lambda *words, **_: told.append(words[2][0]) or IMAGE)
    values = heat[0, 0].numpy()
    for peak in (208.0, 1.0):  # 1 where all of it is zero
        attribute_picture(model(), IMAGE, 1)
        assert np.array_equal(told[-1][2], drawing.overlay(IMAGE, values, peak))
        heat.zero_()


def test_the_last_map_up_to_a_layer() -> None:
    net, x = model().net, torch.zeros(1, 3, 16, 16)
    assert [last_map(net, x), last_map(net, x, "5"), last_map(net, x, "1")] == ["3", "3", "1"]
    with pytest.raises(InvalidOption, match="no layer"):
        last_map(nn.Sequential(nn.Flatten()), x)


def test_tiles_are_nearly_a_square() -> None:
    tiles = [np.full((10, 12, 3), i, np.uint8) for i in range(7)]
    made = tiled(tiles, [str(i) for i in range(7)])
    assert made.shape[1] == 3 * 12 + 4 * GAP
    assert (made[GAP, GAP] == 0).all() and (made[GAP, -GAP - 1] == 2).all() and (made[0] == 255).all()
