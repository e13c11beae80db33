"""`likeness style-score`: the parts of J of any picture, and its border."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as pictures

import likeness
from likeness.cli.main import main
from likeness.errors import InvalidOption
from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.samples.images import write_image
from likeness.style.pictures import stylize
from likeness.style.score import border_ratio, style_score

COST: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    torch.manual_seed(0)
    save(Vgg(Architecture(widths=(6, 8), depths=(1, 1))), folder / "vgg.safetensors")
    write_image(folder / "content.png", pictures.astronaut()[:120, :160])
    write_image(folder / "style.png", pictures.coffee()[:100, :130])
    return folder


def test_it_says_what_the_run_said(folder: Path) -> None:
    files = {"content": folder / "content.png", "style": folder / "style.png", "encoder": folder / "vgg.safetensors"}
    options = COST | {"style_weight": 50.0, "tv_weight": 0.1}
    made = stylize(*list(files.values())[:2], encoder=files["encoder"], size=64, steps=10, precision="fp32", **options)
    found = style_score(made.image, **files, **options)
    assert found.size == (48, 64) and found.fingerprint == made.run.settings["fingerprint"]
    for name in ("J", "content", "style", "tv"):  # of 8 bits here
        assert getattr(found.parts, name) == pytest.approx(getattr(made.run.parts, name), rel=0.05), name
    assert found.parts.weighted["style"] == pytest.approx(50 * found.parts.style)
    assert found.parts.layers.keys() == {"relu1_1", "relu2_1"}
    untouched = likeness.style_score(pictures.astronaut()[:120, :160], **files, **options)
    assert untouched.parts.content == 0 and untouched.border == untouched.border_content


def test_a_large_picture_is_measured_by_tiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness.style import score

    files = {"content": folder / "content.png", "style": folder / "style.png", "encoder": folder / "vgg.safetensors"}
    picture = pictures.astronaut()[50:170, :160]
    whole = style_score(picture, **files, **COST)
    monkeypatch.setattr(score, "TILE", 16)
    assert pytest.approx(whole.parts.J, rel=1e-5) == style_score(picture, **files, **COST).parts.J


@pytest.mark.parametrize("shape", [(400,), (60, 80), (24, 30, 40)])
def test_borders(shape: tuple[int, ...]) -> None:
    """An independent float64 count over 1, 2 and 3 dimensions."""
    x = np.random.default_rng(0).random((1, 3, *shape))
    x[(..., *[slice(2) for _ in shape])] *= 5
    changes = sum(
        np.abs(np.diff(x[0], axis=axis + 1)).mean(0)[tuple(slice(n - 1) for n in shape)] for axis in range(len(shape))
    )
    inside = np.ones(changes.shape, bool)
    for axis, n in enumerate(changes.shape):
        at = np.arange(n).reshape([-1 if one == axis else 1 for one in range(len(shape))])
        inside &= (at >= round(0.05 * n)) & (at < n - round(0.05 * n))
    assert border_ratio(torch.from_numpy(x)) == pytest.approx(
        changes[~inside].mean() / changes[inside].mean(), rel=1e-9
    )
    framed = torch.rand(1, 3, *shape) * 0.01
    framed[(..., *[slice(1) for _ in shape])] = 1
    assert border_ratio(framed) > 1
    assert border_ratio(torch.zeros(1, 3, *shape)) is None


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--content", str(folder / "content.png"), "--style", str(folder / "style.png")]
    files += [
        "--encoder",
        str(folder / "vgg.safetensors"),
        "--content-layers",
        "relu2_1",
        "--style-layers",
        "relu1_1=1",
    ]
    assert main(["style-score", str(folder / "content.png"), *files, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parts"]["content"] == 0 and report["parts"]["style"] > 0 and report["border"] > 0
    assert report["file"] == str(folder / "content.png")
    assert main(["style-score", str(folder / "content.png"), *files]) == 0
    out = capsys.readouterr().out
    assert "relu1_1" in out and "of the inside" in out
    assert main(["style-score", str(folder / "style.png"), *files[:1], str(folder / "nosuch.png"), *files[2:]]) == 2
    assert "nosuch.png" in capsys.readouterr().err


def test_a_content_of_another_shape(folder: Path) -> None:
    files = {"style": folder / "style.png", "encoder": folder / "vgg.safetensors"}
    with pytest.raises(InvalidOption, match="a content of 160 x 120 pixels does not have the shape of its picture"):
        style_score(np.zeros((50, 50, 3), np.uint8), content=folder / "content.png", **files, **COST)


def test_a_cost_without_layers(folder: Path) -> None:
    files = {"content": folder / "content.png", "style": folder / "style.png", "encoder": folder / "vgg.safetensors"}
    for layers in ({"style_layers": {}}, {"style_layers": {}, "content_layers": {}}):
        with pytest.raises(InvalidOption, match="style_layers names no layer"):
            style_score(folder / "content.png", **files, **COST | layers)
