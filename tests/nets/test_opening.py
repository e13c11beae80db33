"""Nets for style by name or file: what ships, what is fetched, what users bring; nothing altered is used."""

import hashlib
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from likeness.errors import InvalidOption, UnknownName, WeightsError  # noqa: E402
from likeness.nets import catalogue, download, perceptual  # noqa: E402
from likeness.nets.opening import open_net  # noqa: E402

TOOL = Path(__file__).parents[2] / "tools" / "ship_style.py"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty catalogue of the user, and a package that ships nothing."""
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalogue, "SHIPPED", tmp_path / "weights")
    return tmp_path / "home"


@pytest.fixture
def net() -> perceptual.Vgg:
    torch.manual_seed(0)
    return perceptual.Vgg(perceptual.Architecture(widths=(4, 6), depths=(1, 1), mean=(0.5,), scale=(0.25,)))


@pytest.fixture
def file(tmp_path: Path, net: perceptual.Vgg) -> Path:
    perceptual.save(net, tmp_path / "net.safetensors", half=False)
    return tmp_path / "net.safetensors"


def torchvision(path: Path) -> None:
    """A file as torchvision's VGG-16 saved by timm, with narrow layers."""
    state, channels, place = {}, 3, 0
    for width, depth in zip((2, 3, 4, 5, 6), perceptual.VGG16, strict=True):
        for _ in range(depth):
            state |= {f"features.{place}.weight": torch.randn(width, channels, 3, 3)}
            state |= {f"features.{place}.bias": torch.randn(width)}
            channels, place = width, place + 2
        place += 1
    save_file(state | {"head.fc.weight": torch.zeros(2, 2)}, path)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, net: perceptual.Vgg) -> None:
    with pytest.raises(WeightsError, match="'vgg-slim' belongs to likeness.*reinstall"):
        open_net("vgg-slim")
    (tmp_path / "figures.json").write_text('{"unexplained": {"relu1_1": 0.1}}')
    words = ["ship", str(file), "--folder", str(tmp_path / "weights"), "--metrics", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(TOOL), run_name="__main__")
    one = catalogue.entry("vgg-slim")
    assert (one.kind, one.shipped, one.bytes) == ("perceptual", True, one.path.stat().st_size)
    assert one.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest() and one.onnx_sha256 == ""
    assert one.architecture["widths"] == [4, 6] and one.architecture["scale"] == [0.25]
    assert [entry.name for entry in catalogue.entries()][0] == "vgg-slim"
    opened = open_net("vgg-slim")
    assert opened.fingerprint == one.fingerprint == open_net(one.path).fingerprint
    x = torch.rand(1, 3, 9, 9)
    assert torch.allclose(opened.net(x), net(x), atol=0.05)  # float16 kernels
    with pytest.raises(InvalidOption, match="ships"):
        catalogue.remove("vgg-slim")
    flip_a_bit(one.path)
    with pytest.raises(WeightsError, match="altered or damaged.*reinstall"):
        open_net("vgg-slim")


def test_what_users_bring(home: Path, tmp_path: Path, file: Path, net: perceptual.Vgg) -> None:
    one = catalogue.add_perceptual(file, name="mine", licence="CC0")
    assert (one.kind, one.licence, one.preprocessing) == ("perceptual", "CC0", None)
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(open_net("mine").net(x), net(x))
    np.savez(tmp_path / "caffe.npz", **{name: value.numpy() for name, value in net.state_dict().items()})
    catalogue.add_perceptual(tmp_path / "caffe.npz", name="caffe")
    assert open_net("caffe").net.architecture.order == "bgr"
    torchvision(tmp_path / "tv.safetensors")
    catalogue.add_perceptual(tmp_path / "tv.safetensors", name="tv")
    assert open_net("tv").net.architecture == open_net(tmp_path / "tv.safetensors").net.architecture
    flip_a_bit(home / "mine.safetensors")
    with pytest.raises(WeightsError, match="altered"):
        open_net("mine")
    with pytest.raises(WeightsError, match="altered"):
        catalogue.path("mine")
    catalogue.remove("mine")
    assert sorted(path.name for path in home.iterdir()) == [
        f"{n}.{e}" for n in ("caffe", "tv") for e in ("json", "safetensors")
    ]
    for name in ("vgg-slim", "vgg19", "caffe", "x.safetensors"):
        with pytest.raises(InvalidOption):
            catalogue.add_perceptual(file, name=name)


def test_what_is_fetched(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the server's eyes: tests/nets/test_download.py."""
    source = tmp_path / "vgg.safetensors"
    torchvision(source)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    listed = replace(next(one for one in catalogue.DOWNLOADS if one.name == "vgg16"), sha256=sha256)
    monkeypatch.setattr(catalogue, "DOWNLOADS", (listed,))
    asked = []

    def fetch(urls: object, target: Path, **options: object) -> None:
        asked.append(options)
        target.parent.mkdir()
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(download, "download", fetch)
    opened = open_net("vgg16", on_progress=print)
    assert opened.net.architecture.depths == perceptual.VGG16 and opened.net.architecture.padding == "zeros"
    assert asked == [{"sha256": sha256, "size": None, "on_progress": print}]
    open_net("vgg16")
    assert len(asked) == 1
    flip_a_bit(home / "vgg16.safetensors")
    with pytest.raises(WeightsError, match="altered.*fetch it again"):
        open_net("vgg16")
    catalogue.remove("vgg16")
    assert not list(home.iterdir())


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'vgg19'"):
        open_net("vgg91")
    for name in ("nosuch.safetensors", "nosuch.npz", str(tmp_path / "nosuch")):
        with pytest.raises(WeightsError, match="nosuch.*: no such file"):
            open_net(name)
    with pytest.raises(WeightsError):
        open_net(tmp_path / "nosuch")
    with pytest.raises(InvalidOption, match="'yunet' is of the kind detector"):
        open_net("yunet")
    with pytest.raises(InvalidOption, match="'vgg19' is of the kind perceptual"):
        catalogue.read("vgg19")


def test_the_largest_files_are_read_in_part(tmp_path: Path) -> None:
    """What a classifier's file holds beside its convolutions is most of it."""
    torchvision(tmp_path / "tv.safetensors")
    from likeness.nets import weights_file

    assert not any(n.startswith("head") for n in weights_file.read(tmp_path / "tv.safetensors", prefix="features.")[0])
