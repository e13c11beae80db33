"""`likeness weights`: a trained net goes out as ONNX, comes in as the user's own, and leaves again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from likeness.nets import catalogue

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with enc.safetensors and det.safetensors, untrained and small."""
    torch = pytest.importorskip("torch")
    from likeness.faces import net
    from likeness.nets import identity

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = identity.Tower(identity.Architecture(widths=(8, 16), blocks=(1, 0), code_length=16)).eval()
        identity.save(tower, folder / "enc.safetensors")
        net.save(net.DetectorNet().eval(), folder / "det.safetensors")
    return folder


def test_from_training_to_a_name(cli: Cli, exported: Path, tmp_path: Path, home: Path) -> None:
    onnx = tmp_path / "enc.onnx"
    report = cli("weights", "export", exported / "enc.safetensors", "-o", onnx, "--json").json
    assert report["bytes"] == onnx.stat().st_size and report["max_difference"] <= 1e-5 and report["code_length"] == 16
    result = cli("weights", "add", onnx, "--name", "mine", "--licence", "CC0")
    assert result.status == 0 and "added mine" in result.out and "calibrate mine" in result.out
    listed = {entry["name"]: entry for entry in cli("weights", "list", "--json").json}
    assert {"name", "kind", "shipped", "bytes", "licence", "fingerprint"} <= set(listed["mine"])
    assert listed["mine"]["kind"] == "encoder" and listed["mine"]["shipped"] is False
    shown = cli("weights", "show", "mine", "--json").json
    assert shown["fingerprint"] == listed["mine"]["fingerprint"] and shown["licence"] == "CC0"
    text = cli("weights", "show", "mine").out
    assert "fingerprint" in text and "input order rgb" in text and "{" not in text and "None" not in text
    assert cli("weights", "path", "mine").out.strip() == str(home / "mine.onnx")
    assert cli("weights", "path", "mine", "--json").json == {"name": "mine", "path": str(home / "mine.onnx")}
    text = cli("weights", "list").out.splitlines()
    assert text[0].split() == ["name", "kind", "shipped", "bytes", "licence", "fingerprint"]
    assert any(line.split()[:3] == ["mine", "encoder", "no"] for line in text)
    assert cli("weights", "remove", "mine").out == "removed mine\n"
    result = cli("weights", "show", "mine")
    assert result.status == 2 and "no weights are called 'mine'" in result.err


def test_options_of_add_make_the_fingerprint(cli: Cli, exported: Path, tmp_path: Path) -> None:
    onnx = tmp_path / "enc.onnx"
    assert "max difference" in cli("weights", "export", exported / "enc.safetensors", "-o", onnx).out
    prints = set()
    for number, options in enumerate(([], ["--input-order", "bgr"], ["--mean", "0", "--scale", "255"], ["--mirror"])):
        prints.add(cli("weights", "add", onnx, "--name", f"e{number}", *options, "--json").json["fingerprint"])
    assert len(prints) == 4
    assert cli("weights", "show", "e2", "--json").json["preprocessing"]["scale"] == 255
    assert cli("weights", "remove", "e2", "--json").json == {"removed": "e2"}
    assert cli("weights", "add", onnx, "--name", "e9", "--input-order", "gbr").status == 2


def test_a_detector_is_exported_too(cli: Cli, exported: Path, tmp_path: Path) -> None:
    report = cli("weights", "export", exported / "det.safetensors", "-o", tmp_path / "det.onnx", "--json").json
    assert report["bytes"] == (tmp_path / "det.onnx").stat().st_size and report["max_difference"] <= 1e-5


def test_an_export_never_replaces_what_it_reads(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "enc.safetensors").write_bytes(b"weights")
    result = cli("weights", "export", tmp_path / "enc.safetensors", "-o", tmp_path / "enc.safetensors")
    assert result.status == 2 and "would be replaced" in result.err
    assert (tmp_path / "enc.safetensors").read_bytes() == b"weights"


def test_files_that_are_no_weights(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for file in ("x.safetensors", "absent.safetensors"):
        result = cli("weights", "export", tmp_path / file, "-o", tmp_path / "x.onnx")
        assert result.status == 2 and file in result.err
    assert cli("weights", "add", tmp_path / "x.safetensors", "--name", "x").status == 2


def test_calibrate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness.recognition import calibrating
    from likeness.recognition.calibration import Calibration

    codes = np.random.default_rng(0).standard_normal((80, 32)).astype(np.float32)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    fitted = Calibration.fit(codes, np.arange(80) // 2, "0123456789abcdef")

    def calibrate(name: str, folder: str, *, on_progress: Callable[..., None]) -> Calibration:
        assert (name, folder) == ("mine", "people")
        on_progress(1, 1, {})
        return fitted

    monkeypatch.setattr(calibrating, "calibrate_encoder", calibrate)
    assert cli("weights", "calibrate", "mine", "people", "--json").json["fingerprint"] == "0123456789abcdef"
    lines = cli("weights", "calibrate", "mine", "people").out.splitlines()
    assert lines[0].startswith("calibrated mine (0123456789abcdef) on 80 photographs of 40 people")
    assert [line.split()[0] for line in lines[1:]] == ["FMR", "0.01", "0.001", "0.0001", "1e-05"]
    assert float(lines[2].split()[1]) == pytest.approx(fitted.threshold(0.01), abs=1e-4)


def test_downloads_are_listed_not_fetched(cli: Cli) -> None:
    listed = {entry["name"]: entry for entry in cli("weights", "list", "--json").json}
    assert {"yunet"} <= set(listed) and not catalogue.home().exists()


def test_a_net_for_style_of_ones_own(cli: Cli, tmp_path: Path, home: Path) -> None:
    pytest.importorskip("torch")
    from likeness.nets.perceptual import Architecture, Vgg, save

    save(Vgg(Architecture(widths=(4,), depths=(1,))), tmp_path / "vgg.safetensors")
    result = cli("weights", "add", tmp_path / "vgg.safetensors", "--kind", "perceptual", "--name", "brush")
    assert result.status == 0 and "added brush" in result.out
    listed = {entry["name"]: entry for entry in cli("weights", "list", "--json").json}
    assert listed["brush"]["kind"] == listed["vgg19"]["kind"] == "perceptual"
    assert cli("weights", "show", "brush", "--json").json["architecture"]["widths"] == [4]
    assert cli("weights", "path", "brush").out.strip() == str(home / "brush.safetensors")
    Image.new("RGB", (64, 64)).save(tmp_path / "x.jpg")
    result = cli("encode", tmp_path / "x.jpg", "-o", tmp_path / "x.npz", "--encoder", "brush")
    assert result.status == 2 and "'brush' is of the kind perceptual" in result.err
    assert cli("weights", "remove", "brush").status == 0 and not list(home.iterdir())
