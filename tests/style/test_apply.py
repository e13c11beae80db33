"""`likeness apply` on pictures: any size, safetensors and ONNX alike, one clear error for all else."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.cli.main import main
from likeness.errors import InvalidOption, MissingDependency, UnreadableFile, WeightsError
from likeness.samples.images import read_image, write_image
from likeness.style import apply as module
from likeness.style.apply import apply, check, open_net, resized
from likeness.style.transform import Architecture, Transform, export, memory, onnx_bytes, save


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "net.safetensors"
    save(Transform(Architecture(widths=(4, 6, 8), blocks=1)), file)
    return file


@pytest.fixture(scope="module")
def onnx(net: Path) -> Path:
    report = export(net, net.with_name("net.onnx"))
    assert report["max_difference"] <= 1e-4 and report["input"] == [None, 3, None, None]
    return net.with_name("net.onnx")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    write_image(tmp_path / "photo.png", photographs.astronaut()[:60, 150:237])
    return tmp_path / "photo.png"


def test_both_files_paint_alike_at_any_size(net: Path, onnx: Path) -> None:
    image = photographs.astronaut()
    a, b = open_net(net), open_net(onnx)
    for height, width in ((60, 87), (61, 86), (5, 5), (9, 90), (97, 101)):
        x = image[100 : 100 + height, 150 : 150 + width]
        one, two = (apply(opened, x) for opened in (a, b))
        assert one.shape == two.shape == x.shape and one.dtype == np.uint8
        assert np.abs(one.astype(int) - two).max() <= 1
    assert apply(net, image, size=64).shape == (64, 64, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_picture(value: float) -> None:
    """As a net with a damaged file may give it."""
    broken = module.Net(lambda x: np.full_like(x, value), lambda spatial: 0, 1)
    with pytest.raises(WeightsError, match="its file is damaged"):
        apply(broken, photographs.astronaut()[:20, :20])


def test_resized() -> None:
    image = photographs.astronaut()[:100, :201]
    assert resized(image, None) is image
    assert resized(image, 50).shape == (25, 50, 3) and resized(image[:, :1], 200).shape == (200, 2, 3)
    with pytest.raises(InvalidOption, match="at least 1"):
        resized(image, 0)


def test_too_large_and_too_small(net: Path) -> None:
    opened = open_net(net)
    a = Architecture(widths=(4, 6, 8), blocks=1)
    needed = memory(a, (3000, 4000))
    check(opened, (3000, 4000), max_memory=needed)
    with pytest.raises(InvalidOption, match=r"4000 x 3000 pixels would need .* choose --size \d+"):
        check(opened, (3000, 4000), max_memory=needed - 1)
    with pytest.raises(InvalidOption, match="needs 5"):
        apply(net, photographs.astronaut()[:4])


def test_what_is_too_large_is_refused_before_it_is_resized(net: Path) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidOption, match="12000 x 12000 pixels would need"):
        apply(net, photographs.astronaut(), size=12_000)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_the_size_that_is_advised_is_taken(net: Path, onnx: Path) -> None:
    for file, allowed in ((net, 200_000_000), (net, 134_500_000), (onnx, 10_000_000)):
        opened = open_net(file)
        for height, width in ((3000, 4000), (4000, 3000), (2000, 2000), (401, 9000)):
            with pytest.raises(InvalidOption, match="choose --size") as error:
                check(opened, (height, width), max_memory=allowed)
            longer = int(str(error.value).split("--size ")[1].split()[0])
            for more in (-0.49, 0.0, 0.49):  # of a pixel, which scaling took from the picture's own shorter side
                own = [n + more * (n < max(height, width)) for n in (height, width)]
                check(opened, [round(n * longer / max(own)) for n in own], max_memory=allowed)
            assert opened.memory([n * 1.1 * longer / max(height, width) for n in (height, width)]) > allowed
    with pytest.raises(InvalidOption, match="would need .* needs more for a picture of any size"):
        check(open_net(net), (300, 400), max_memory=100_000_000)


def test_an_onnx_file_says_what_it_needs(net: Path, onnx: Path, tmp_path: Path) -> None:
    from onnx import helper
    from onnx import load as load_onnx
    from onnx import save as save_onnx

    assert open_net(onnx).smallest == 5
    assert open_net(onnx).memory((30, 40)) == 1200 * onnx_bytes(Architecture(widths=(4, 6, 8), blocks=1))
    save(Transform(Architecture(widths=(32, 48, 8, 8, 8), blocks=0)), tmp_path / "wide.safetensors")
    export(tmp_path / "wide.safetensors", tmp_path / "wide.onnx")
    wide = open_net(tmp_path / "wide.onnx")
    assert wide.smallest == 17 and wide.memory((30, 40)) > 2 * open_net(onnx).memory((30, 40))
    model = load_onnx(str(onnx))
    for said, memory_of, smallest in (({}, 2100, 17), ({"likeness.smallest": "9"}, 2100, 9)):
        helper.set_model_props(model, said)
        save_onnx(model, str(tmp_path / "other.onnx"))
        other = open_net(tmp_path / "other.onnx")
        assert (other.memory((1, 1)), other.smallest) == (memory_of, smallest)
    helper.set_model_props(model, {"likeness.smallest": "few"})
    save_onnx(model, str(tmp_path / "other.onnx"))
    with pytest.raises(WeightsError, match="other.onnx is damaged.*few"):
        open_net(tmp_path / "other.onnx")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("file", ["net.safetensors", "net.onnx"])
def test_memory_is_what_is_said(file: str, tmp_path: Path) -> None:
    """The peak of a 3-megapixel picture through the default net, against `memory`."""
    import subprocess
    import sys

    torch.manual_seed(0)
    save(Transform(), tmp_path / "net.safetensors")
    export(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    code = """
import sys, numpy as np
from likeness.style.apply import open_net, apply
from likeness.style.machine import peak_memory
net = open_net(sys.argv[1])
apply(net, np.zeros((64, 64, 3), np.uint8))
before = peak_memory()
apply(net, np.zeros((1500, 2000, 3), np.uint8))
print(peak_memory() - before, net.memory((1500, 2000)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / file)], capture_output=True, text=True, check=True
    )
    used, said = map(int, done.stdout.split())
    assert 0.5 * said < used < 1.1 * said


def test_what_is_no_net(net: Path, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness.nets.perceptual import Architecture as VggArchitecture
    from likeness.nets.perceptual import Vgg
    from likeness.nets.perceptual import save as save_vgg

    save_vgg(Vgg(VggArchitecture(widths=(4,), depths=(1,))), tmp_path / "vgg.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "text.onnx").write_text("no")
    for name, message in (
        ("vgg.safetensors", "likeness.perceptual"),
        ("text.safetensors", "safetensors"),
        ("none.safetensors", "safetensors"),
        ("text.onnx", "not a working"),
    ):
        with pytest.raises(WeightsError, match=message):
            open_net(tmp_path / name)
    with pytest.raises(UnreadableFile, match="none.onnx"):
        open_net(tmp_path / "none.onnx")
    from likeness.nets.catalogue import path as shipped

    with pytest.raises(WeightsError, match="not a net that paints"):
        open_net(shipped("face"))

    def no_torch(path: object) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setitem(module.KINDS, "likeness.transform", no_torch)
    with pytest.raises(MissingDependency, match=r"likeness\[torch\]"):
        open_net(net)
    open_net(onnx)


def test_an_onnx_net_paints_without_torch(onnx: Path, photo: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; sys.modules['torch'] = None\nfrom likeness.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    words = ["apply", str(onnx), str(photo), "-o", str(tmp_path / "out.png")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "out.png").shape == (60, 87, 3)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command(net: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    status, out, _ = run(capsys, "apply", net, photo, "-o", tmp_path / "out.jpg", "--size", "50")
    assert status == 0 and "50 x 34" in out
    assert read_image(tmp_path / "out.jpg").shape == (34, 50, 3)
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    write_image(folder / "one.png", photographs.astronaut()[:40, :50])
    write_image(folder / "below" / "two.gif", photographs.astronaut()[:40, :50])
    (folder / "broken.jpg").write_bytes(b"no")
    status, out, err = run(capsys, "apply", net, folder, "-o", tmp_path / "painted", "--json")
    assert status == 2 and "broken.jpg" in err and err.count("\n") == 1
    assert [one.get("error") is None for one in json.loads(out)] == [True, False, True]
    assert {p.name for p in (tmp_path / "painted").rglob("*.*")} == {"one.png", "two.gif.png"}


def test_what_the_command_refuses(
    net: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    before = photo.read_bytes()
    refused: list[tuple[list[object], str]] = [
        ([net, photo, "-o", photo], "would be replaced"),
        ([net, photo, "-o", net], "would be replaced"),
        ([net, tmp_path / "none.jpg", "-o", tmp_path / "x.png"], "none.jpg"),
        ([net, photo, "-o", tmp_path / "x.mp3"], "cannot write"),
        ([net, photo, "-o", tmp_path / "x.png", "--resume", tmp_path], "are for films"),
        ([net, tmp_path / "empty", "-o", tmp_path / "x"], "no picture"),
    ]
    for words, message in refused:
        status, out, err = run(capsys, "apply", *words)
        assert status == 2 and out == "" and message in err and err.count("\n") == 1, err
    assert photo.read_bytes() == before and not (tmp_path / "x.png").exists()


def test_export_through_the_command(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "weights", "export", net, "-o", tmp_path / "net.onnx")
    assert status == 0, err
    check(open_net(tmp_path / "net.onnx"), (100, 100))
