"""What `likeness.stylize` does when nothing is asked for: the net that ships, and the chapter's layers."""

from pathlib import Path

import numpy as np
import pytest
from style_reference import cost

from likeness.cli.main import main
from likeness.errors import InvalidOption
from likeness.nets.opening import open_net
from likeness.samples.images import read_image, write_image
from likeness.style.pictures import restylize, stylize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("content", (16, 21, 3)), ("style", (18, 21, 3))):
        write_image(folder / f"{name}.png", rng.integers(0, 256, size, dtype=np.uint8))
    return folder


def test_J_of_the_shipped_net_is_that_of_the_reference(folder: Path) -> None:
    """Content relu4_1, style relu1_1 to relu4_1 alike, alpha 1, beta 1e4; J_content per position."""
    content, style = (read_image(folder / f"{name}.png") for name in ("content", "style"))
    made = stylize(content, style, size=21, steps=2, precision="fp32")
    net = open_net("vgg-slim").net.double()
    positions = 2 * 2  # of relu4_1
    c, s = (one.transpose(2, 0, 1) / 255 for one in (content, style))
    layers = {f"relu{block}_1": 0.25 for block in (1, 2, 3, 4)}
    weights = {"content_layers": {"relu4_1": 1 / positions}, "style_layers": layers}
    for x, found in ((c, made.run.J[0]), (made.run.sample.astype(float), made.run.parts.J)):
        assert found == pytest.approx(cost(net, c, s, x, alpha=1.0, beta=1e4, **weights), rel=1e-5)
    assert made.run.J[0] > made.run.parts.J


def test_the_smallest_picture_from_end_to_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / name) for name in ("content.png", "style.png")]
    assert main(["stylize", *files, "-o", str(tmp_path / "out.png"), "--size", "21", "--steps", "30"]) == 0
    assert read_image(tmp_path / "out.png").shape == (16, 21, 3)
    again = restylize(tmp_path / "out.json")
    assert np.array_equal(again.image, read_image(tmp_path / "out.png"))
    assert 0.5 * again.run.J[0] > again.run.parts.J
    capsys.readouterr()
    assert main(["stylize", *files, "-o", str(tmp_path / "small.png"), "--size", "20"]) == 2
    assert "15 x 20 positions; these layers need 16" in capsys.readouterr().err
    with pytest.raises(InvalidOption, match="need 16 along each axis"):
        stylize(*files, size=20)
