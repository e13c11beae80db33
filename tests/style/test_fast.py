"""Any picture like any other in one pass: what `stylize_fast` does to pictures before and after the net."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.errors import InvalidOption, UnknownName, UnreadableFile, WeightsError
from likeness.nets.perceptual import Architecture, Vgg
from likeness.samples.images import read_image, write_image
from likeness.style.adain import Adain, save, untrained
from likeness.style.fast import stylize_fast
from likeness.style.pictures import restylize, to_image, to_sample


@pytest.fixture(scope="module")
def net() -> Adain:
    torch.manual_seed(0)
    made = untrained(Vgg(Architecture(widths=(4, 5, 6, 7), depths=(1, 1, 1, 1), mean=(0.5,))), widths=(4, 5, 6, 7))
    for weight in made.parameters():
        if weight.ndim > 1:  # so that what goes in is still seen in what comes out
            torch.nn.init.kaiming_normal_(weight)
    return made.eval()


CONTENT, STYLE = photographs.astronaut()[:200, :301], photographs.coffee()


def test_sizes_strength_and_blend_reach_the_net(net: Adain) -> None:
    made = stylize_fast(CONTENT, [STYLE, CONTENT], net=net, size=99, strength=0.4, blend=(3, 1))
    assert made.image.shape == (66, 99, 3) and made.image.dtype == np.uint8 and made.seconds > 0
    samples = [to_sample(one, 99) for one in (CONTENT, STYLE, CONTENT)]
    expected = to_image(net.stylize(samples[0], samples[1:], strength=0.4, blend=(3, 1)))
    assert np.array_equal(made.image, expected)
    assert made.to_dict()["settings"]["strength"] == 0.4


def test_luminance_keeps_the_colours_and_histogram_recolours_the_style(net: Adain) -> None:
    content = to_sample(CONTENT, 64)
    kept = to_sample(stylize_fast(CONTENT, STYLE, net=net, size=64, keep_color="luminance").image)
    weights = torch.tensor([0.5959, -0.2746, -0.3213]).view(1, 3, 1, 1)
    inside = ((kept > 0.02) & (kept < 0.98)).all(1)  # where nothing was clipped
    assert int(inside.sum()) > 100
    assert float(((kept - content) * weights).sum(1)[inside].abs().max()) < 0.01
    plain, recoloured = (
        stylize_fast(CONTENT, STYLE, net=net, size=64, keep_color=how).image for how in ("no", "histogram")
    )
    assert not np.array_equal(plain, recoloured)


def test_a_net_may_be_a_file(net: Adain, tmp_path: Path) -> None:
    save(net, tmp_path / "net.safetensors")
    write_image(tmp_path / "content.png", CONTENT)
    made = stylize_fast(tmp_path / "content.png", STYLE, net=tmp_path / "net.safetensors", size=64)
    made.save(tmp_path / "out.png")
    assert np.array_equal(read_image(tmp_path / "out.png"), made.image)
    assert len(made.settings["net"]) == 16


def test_what_cannot_be_is_refused(net: Adain, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for content, options, error, message in (
        (CONTENT, {"keep_color": "yes"}, InvalidOption, "luminance"),
        (CONTENT, {"size": 0}, InvalidOption, "size"),
        (CONTENT, {"size": 15}, InvalidOption, "this net needs 16"),
        (tmp_path / "text.png", {}, UnreadableFile, "text.png"),
        (CONTENT, {"net": "adian"}, UnknownName, "no such file"),
        (CONTENT, {"net": tmp_path / "text.png"}, WeightsError, "text.png"),
        (CONTENT, {"net": "face"}, InvalidOption, "kind encoder"),
    ):
        with pytest.raises(error, match=message):
            stylize_fast(content, STYLE, **({"net": net} | options))


def test_what_does_not_fit_is_refused_before_it_is_resized(net: Adain, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidOption, match=r"100000 x \d+ pixels would need .* choose a size of (\d+) or less"
    ) as error:
        stylize_fast(CONTENT, STYLE, net=net, size=100_000)
    assert 1000 < int(str(error.value).split("size of ")[1].split()[0]) < 100_000
    monkeypatch.setattr("likeness.style.fast.machine.available", lambda: None)  # where the system does not tell
    assert stylize_fast(CONTENT, STYLE, net=net, size=64).image.shape[1] == 64


def test_a_picture_has_a_record_and_too_few_pixels_are_told_of(net: Adain, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('{"settings": {"size": 512}}')  # of another picture of this name
    stylize_fast(CONTENT, STYLE, net=net, size=64, strength=0.5).save(tmp_path / "out.png")
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["settings"]["size"], record["settings"]["strength"]) == (64, 0.5)
    assert (record["settings"]["content"], record["settings"]["style"]) == (None, [None])  # arrays have no name
    with pytest.raises(InvalidOption, match="out.json is that of a picture made in one pass"):
        restylize(tmp_path / "out.json")
    with pytest.raises(InvalidOption, match="200 x 3 pixels are too few; this net needs 16"):
        stylize_fast(np.repeat(CONTENT[:2], 2, 0), STYLE, net=net, size=200)
