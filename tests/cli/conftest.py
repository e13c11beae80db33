"""What the CLI tests share: a call of `main` in this process, portraits that come inside installed packages."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from likeness.cli.main import main


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`cli("verify", "a.jpg", "b.jpg")` runs the command line here and gives its status, stdout and stderr."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people/Eileen Collins.jpg, people/Grace Hopper/{1,2}.jpg, cat.jpg, broken.jpg: real portraits, public domain."""
    cbook = pytest.importorskip("matplotlib.cbook")
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    grace = folder / "people" / "Grace Hopper"
    grace.mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(folder / "people" / "Eileen Collins.jpg", quality=92)
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
        portrait.save(grace / "1.jpg", quality=92)
        portrait.resize((400, 469)).save(grace / "2.jpg", quality=70)  # accuracy on worse copies: benchmarks
    Image.fromarray(data.chelsea()).save(folder / "cat.jpg")
    (folder / "broken.jpg").write_bytes((grace / "1.jpg").read_bytes()[:3000])
    return folder
