"""`likeness lens maximize`, `invert` and `attribute` with the nets that ship."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from likeness.samples.images import read_image

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def nobody_elses_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))


def test_maximize(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    words = ["lens", "maximize", "vgg-slim", "--unit", "relu3_1:17", "--size", 48, "--steps", 20, "-o"]
    found = cli(*words, out, "--json").json
    (unit,) = found.pop("units")
    assert found == {"output": str(out), "model": "vgg-slim", "at": "mean", "steps": 20, "seed": 0}
    assert (unit["layer"], unit["unit"]) == ("relu3_1", 17) and unit["activation"] > 0.5
    picture = read_image(out)
    assert picture.shape == (48, 48, 3) and picture.std() > 20  # never grey
    assert cli(*words, tmp_path / "again.png").status == 0
    assert (tmp_path / "again.png").read_bytes() == out.read_bytes()
    assert cli(*words, tmp_path / "other.png", "--seed", 1).out.startswith(f"{tmp_path / 'other.png'}: relu3_1:17 ")
    assert (tmp_path / "other.png").read_bytes() != out.read_bytes()
    assert cli(*words, tmp_path / "two.png", "--unit", "relu2_1:3", "--at", "centre").status == 0
    assert read_image(tmp_path / "two.png").shape[1] > 2 * 48


def test_invert(cli: Cli, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    photo = photos / "people" / "Eileen Collins.jpg"
    found = cli("lens", "invert", "face", photo, "--layer", "stages.0", "--steps", 30, "-o", out, "--json").json
    assert found["layer"] == "stages.0" and found["error"] < 0.05
    picture = read_image(out).astype(float)
    left, right = picture[8:-8, 8:344], picture[8:-8, -344:-8]
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9  # it is the same face
    words = ["lens", "invert", "vgg-slim", photos / "cat.jpg", "--layer", "relu2_1", "--size", 48, "--steps", 10]
    assert "relative error" in cli(*words, "-o", out).out


def test_attribute(cli: Cli, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    photo = photos / "people" / "Eileen Collins.jpg"
    found = cli("lens", "attribute", "face", photo, "--class", 5, "--method", "grad-cam", "-o", out, "--json").json
    assert (found["method"], found["layer"]) == ("grad-cam", "stages") and read_image(out).shape == (542, 716, 3)
    words = ["lens", "attribute", "vgg-slim", photos / "cat.jpg", "--size", 64, "--unit", "relu3_1:17"]
    assert cli(*words, "--method", "guided-backprop", "-o", out).out.startswith(
        f"{out}: relu3_1:17, guided-backprop, target "
    )
    words = ["lens", "attribute", "alexnet-slim", photos / "cat.jpg", "--class", "golf_ball", "-o", out]
    assert cli(*words).out.startswith(f"{out}: class ") and "(golf_ball), gradient" in cli(*words).out


def test_mistakes_are_one_line_that_helps(cli: Cli, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    cat = tmp_path / "cat.png"
    cat.write_bytes((photos / "cat.jpg").read_bytes())
    for words, message in (
        (["maximize", "vgg-slam", "--unit", "relu3_1:1"], "vgg-slim"),
        (["maximize", "vgg-slim", "--unit", "relu3_9:1"], "did you mean 'relu3_"),
        (["maximize", "vgg-slim", "--unit", "relu3_1:64"], "0...63"),
        (["maximize", "face", "--unit", "stages.1:1", "--size", 64], "112"),
        (["invert", "vgg-slim", cat, "--layer", "relu31"], "did you mean 'relu3_1'"),
        (["invert", "vgg-slim", cat, "--layer", "relu3_1", "-o", cat], "would be replaced"),
        (["attribute", "vgg-slim", cat, "--class", 3], "no class 3"),
        (["attribute", "vgg-slim", cat, "--class", "cat"], "have no names"),
        (["attribute", "alexnet-slim", cat, "--class", "golfball"], "'golf_ball'"),
        (["attribute", "face", cat, "--class", 3], "nothing that face takes"),
        (["attribute", "vgg-slim", cat, "--unit", "relu3_1:1", "--method", "grad"], "gradient"),
        (["attribute", "vgg-slim", cat, "--unit", "relu3_1:1", "--layer", "relu2_1"], "choose grad-cam"),
        (["maximize", "vgg-slim", "--unit", "relu3_1:1", "-o", tmp_path / "out.doc"], "cannot write"),
    ):
        result = cli("lens", *words[:1], "-o", out, *words[1:])
        assert result.status == 2 and message in result.err and len(result.err.splitlines()) == 1, result.err
    assert not out.exists()
    assert "such as relu3_1:17" in cli("lens", "maximize", "vgg-slim", "--unit", "relu3_1", "-o", out).err
    assert "one of the arguments --unit --class" in cli("lens", "attribute", "vgg-slim", cat, "-o", out).err
