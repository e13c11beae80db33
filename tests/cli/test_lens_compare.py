"""`likeness lens compare`, with the encoder that ships and portraits from installed packages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("torch", reason="looking inside needs torch")
Cli = Callable[..., Any]


def test_compare(cli: Cli, photos: Path, tmp_path: Path) -> None:
    people = photos / "people"
    a, b, n = people / "Grace Hopper" / "1.jpg", people / "Grace Hopper" / "2.jpg", people / "Eileen Collins.jpg"
    out = tmp_path / "why.png"
    done = cli("lens", "compare", a, b, "-o", out)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{out}: match: distance 0.")
    with Image.open(out) as picture:
        assert picture.size[0] > 600
    found = cli("lens", "compare", a, b, "--against", n, "--method", "grad-cam", "-o", out, "--json").json
    assert found["method"] == "grad-cam" and found["against"] < found["score"]
    assert found["a"]["value"] == pytest.approx(found["score"] - found["against"], abs=1e-5)
    assert found["names"] == {"a": str(a), "b": str(b), "n": str(n)} and found["max_fmr"] == 0.001


def test_errors_are_one_line(cli: Cli, photos: Path, tmp_path: Path) -> None:
    a = photos / "people" / "Eileen Collins.jpg"
    for words, message in (
        ((a, tmp_path / "no.png", "-o", tmp_path / "why.png"), "no.png: no such file"),
        ((a, a, "-o", a), "is one of the files that are read"),
        ((a, a, "-o", tmp_path / "why.png", "--encoder", "fase"), "'face'"),
        ((a, a, "-o", tmp_path / "why.txt"), "cannot write pictures"),
    ):
        done = cli("lens", "compare", *words)
        assert done.status == 2 and message in done.err and len(done.err.splitlines()) == 1
