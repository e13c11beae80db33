"""Training on drawn faces: the loss falls, a resumed run gives the same bytes, weights survive the way to ONNX."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from likeness.errors import InvalidOption, WeightsError  # noqa: E402
from likeness.faces import net, training  # noqa: E402
from likeness.faces.detection import Detector  # noqa: E402
from likeness.faces.net import DetectorArchitecture, DetectorNet  # noqa: E402
from likeness.faces.training import train_detector  # noqa: E402
from likeness.nets import weights_file  # noqa: E402

SMALL = {"batch": 4, "size": 96, "widths": (8, 8, 16, 16, 16), "blocks": (0, 0, 0), "pyramid": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_faces: Callable[..., Path]) -> Path:
    return make_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    seen: list = []
    out = train_detector(
        folder,
        out=tmp_path / "d.safetensors",
        steps=40,
        learning_rate=5e-3,
        on_progress=lambda done, total, info: seen.append((done, total, info)),
        **SMALL,
    )
    assert out.exists()
    assert [done for done, _, _ in seen] == list(range(1, 41))
    losses = [info["loss"] for _, _, info in seen]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert {"score", "box", "landmarks", "learning_rate", "images_per_second"} <= set(seen[0][2])
    loaded = net.load(out)
    assert loaded.architecture == DetectorArchitecture((8, 8, 16, 16, 16), (0, 0, 0), 16)
    again = train_detector(folder, out=tmp_path / "e.safetensors", init=out, steps=1, batch=2, size=64)
    assert net.load(again).architecture == loaded.architecture
    onnx = tmp_path / "d.onnx"
    assert net.export(out, onnx) <= 1e-5
    assert isinstance(
        Detector.from_file(onnx, threads=1).detect(np.zeros((40, 70, 3), np.uint8), min_score=0.01), tuple
    )


def test_a_resumed_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    whole = train_detector(folder, out=tmp_path / "whole.safetensors", steps=6, checkpoint_every=100, **SMALL)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, info: dict) -> None:
        if done == 4:
            raise Stop

    parts = tmp_path / "parts.safetensors"
    with pytest.raises(Stop):
        train_detector(folder, out=parts, steps=6, checkpoint_every=3, on_progress=stop, **SMALL)
    train_detector(folder, out=parts, steps=6, checkpoint_every=3, **SMALL)
    assert parts.read_bytes() == whole.read_bytes()
    # a finished run stays as it is; minutes=0 stops after one step and can be continued
    train_detector(folder, out=parts, steps=6, checkpoint_every=3, **SMALL)
    assert parts.read_bytes() == whole.read_bytes()
    timed = tmp_path / "timed.safetensors"
    for _ in range(6):
        train_detector(folder, out=timed, steps=6, minutes=0, **SMALL)
    assert timed.read_bytes() == whole.read_bytes()


def test_other_options_do_not_continue(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    train_detector(folder, out=out, steps=1, **SMALL)
    with pytest.raises(WeightsError, match="seed"):
        train_detector(folder, out=out, steps=1, seed=1, **SMALL)
    out.with_suffix(".checkpoint").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="checkpoint cannot be read"):
        train_detector(folder, out=out, steps=1, **SMALL)
    train_detector(folder, out=out.with_name("b.safetensors"), steps=1, **SMALL)
    written = out.with_name("b.checkpoint")
    tensors, metadata = weights_file.read(written)
    for wrong in ({"options": "{"}, {"options": "[]"}, {"step": "many"}):
        weights_file.write(written, tensors, metadata | wrong)
        with pytest.raises(WeightsError, match="damaged"):
            train_detector(folder, out=out.with_name("b.safetensors"), steps=1, **SMALL)
    weights_file.write(written, dict(list(tensors.items())[1:]), metadata)
    with pytest.raises(WeightsError, match="damaged"):
        train_detector(folder, out=out.with_name("b.safetensors"), steps=1, **SMALL)


def test_wrong_options(folder: Path, tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    out = tmp_path / "a.safetensors"
    for bad in ({"size": 100}, {"steps": 0}, {"widths": (1, 2)}, {"blocks": (0, 0, -1)}):
        with pytest.raises(InvalidOption):
            train_detector(folder, out=out, **{**SMALL, "steps": 1, **bad})  # type: ignore[arg-type]
    empty = make_faces(tmp_path / "empty", count=0)
    with pytest.raises(InvalidOption, match="no photograph"):
        train_detector(empty, out=out, steps=1)


def test_the_net_says_fifteen_numbers_per_prior(tmp_path: Path) -> None:
    made = DetectorNet().eval()
    assert sum(p.numel() for p in made.parameters()) <= 300_000
    with torch.no_grad():
        out = made(torch.zeros(2, 3, 64, 96))
    assert out.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 15)
    net.save(made, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size <= 600_000
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        assert torch.allclose(net.load(tmp_path / "a.safetensors")(x), made(x), atol=2e-2)


def test_files_that_are_no_detector(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(WeightsError, match="cannot be read"):
        net.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not a detector"):
        net.load(path)
    save_file(
        {"a": torch.zeros(1)}, path,
        {"kind": "likeness.detector", "architecture": '{"widths": [8, 8, 8, 8, 8], "blocks": [0, 0, 0], "pyramid": 8}'},
    )  # fmt: skip
    with pytest.raises(WeightsError, match="does not fit"):
        net.load(path)


def test_the_schedule_warms_up_and_decays() -> None:
    rates = [training._schedule(step, 1000) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] < 0.02
    assert rates[500] == pytest.approx(0.5, abs=0.05)
