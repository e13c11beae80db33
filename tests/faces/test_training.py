"""Training on drawn faces: the loss falls, a resumed run gives the same bytes, weights survive the way to ONNX."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from likeness.errors import InvalidOption, WeightsError  # noqa: E402
from likeness.faces import net, training  # noqa: E402
from likeness.faces.decoding import priors  # noqa: E402
from likeness.faces.detection import Detector  # noqa: E402
from likeness.faces.net import DetectorArchitecture, DetectorNet  # noqa: E402
from likeness.faces.training import train_detector  # noqa: E402
from likeness.metric.processes import Processes  # noqa: E402
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
        out=tmp_path / "new" / "d.safetensors",
        steps=40,
        optimizer="adamw",
        lr=5e-3,
        on_progress=lambda done, total, info: seen.append((done, total, info)),
        **SMALL,
    )
    assert out.exists()
    assert [done for done, _, _ in seen] == list(range(1, 41))
    losses = [info["loss"] for _, _, info in seen]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert {"score", "box", "landmarks", "lr", "steps_per_s", "eta_s"} <= set(seen[0][2])
    loaded = net.load(out)
    assert loaded.architecture == DetectorArchitecture((8, 8, 16, 16, 16), (0, 0, 0), 16)
    again = train_detector(folder, out=tmp_path / "e.safetensors", init=out, steps=1, batch=2, size=64)
    assert net.load(again).architecture == loaded.architecture
    onnx = tmp_path / "d.onnx"
    assert net.export(out, onnx) <= 1e-5
    assert isinstance(
        Detector.from_file(onnx, threads=1).detect(np.zeros((40, 70, 3), np.uint8), min_score=0.01), tuple
    )


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_gives_the_same_bytes(folder: Path, tmp_path: Path, optimizer: str) -> None:
    options = SMALL | {"optimizer": optimizer, "precision": "fp32"}
    whole = train_detector(folder, out=tmp_path / "whole.safetensors", steps=6, every=100, **options)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, info: dict) -> None:
        if done == 4:
            raise Stop

    parts = tmp_path / "parts.safetensors"
    options |= {"checkpoint": tmp_path / "run", "every": 3}
    with pytest.raises(Stop):
        train_detector(folder, out=parts, steps=6, on_progress=stop, **options)
    train_detector(folder, out=parts, steps=6, **options)
    assert parts.read_bytes() == whole.read_bytes()
    parts.unlink()
    train_detector(folder, out=parts, steps=6, **options)  # a finished run stays as it is
    assert parts.read_bytes() == whole.read_bytes()


def test_other_options_do_not_continue(folder: Path, tmp_path: Path) -> None:
    options = SMALL | {"steps": 1, "checkpoint": tmp_path / "run"}
    train_detector(folder, out=tmp_path / "a.safetensors", **options)
    for other in ({"seed": 1}, {"batch": 2}, {"size": 64}, {"plain": 0.5}, {"init": tmp_path / "a.safetensors"}):
        with pytest.raises(WeightsError, match=next(iter(other))):
            train_detector(folder, out=tmp_path / "b.safetensors", **(options | other))


def test_wrong_options(folder: Path, tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    out = tmp_path / "a.safetensors"
    for bad in (
        {"size": 100},
        {"steps": 0},
        {"widths": (1, 2)},
        {"blocks": (0, 0, -1)},
        {"plain": 1.5},
        {"seed": -1},
        {"lr": -1.0},
    ):
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


def test_a_new_net_expects_few_faces_of_four_strides() -> None:
    """Before training: scores about 0.01, boxes of four strides about the prior, landmarks on it."""
    torch.manual_seed(0)
    with torch.no_grad():
        out = DetectorNet().eval()(torch.randn(1, 3, 64, 96))[0]
    expected = np.zeros(15)
    expected[0], expected[3:5] = np.log(0.01 / 0.99), np.log(4)
    np.testing.assert_allclose(out.mean(0), expected, atol=0.2)
    assert float(out[:, 0].sigmoid().mean()) == pytest.approx(0.01, abs=0.003)


def test_outputs_come_in_the_order_of_the_priors() -> None:
    """Where the picture changes, the answers of the priors near it change most: at stride 8, row by row."""
    torch.manual_seed(1)
    net_, at = DetectorNet().eval(), priors(128, 192)
    with torch.no_grad():
        plain = net_(torch.zeros(1, 3, 128, 192))[0]
        for x, y in ((20, 100), (100, 20), (164, 60), (92, 116)):
            changed = torch.zeros(1, 3, 128, 192)
            changed[..., y - 4 : y + 4, x - 4 : x + 4] = 1
            moved = (net_(changed)[0] - plain).abs().sum(1).numpy()
            for stride in (8, 16, 32):
                of_it = np.where(at[:, 2] == stride, moved, 0)
                middle = (of_it[:, None] ** 2 * at[:, :2]).sum(0) / (of_it**2).sum()
                assert np.abs(middle - [x, y]).max() < 2 * stride, (x, y, stride)


def test_batches_are_pictures_in_the_nets_units(folder: Path) -> None:
    pictures = training.Pictures(training.read_labels(folder), size=64)
    nothing = torch.Generator()
    seen = []
    for steps in ([0, 1, 2, 3], [2, 3], [0, 0, 3, 2]):  # from the start, resumed at the third step, in any order
        with training.batches(pictures, 5, 3) as batch:
            seen.append({step: batch(step, nothing) for step in steps})
    for step in range(4):
        images, (numbers, canvases) = seen[0][step]
        assert numbers.tolist() == [0, 1, 2]
        expected = (np.stack([canvases[i].image for i in range(3)]).astype(np.float64) - 127.5) / 127.5
        np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=1e-6)
        for others in seen[1:]:
            assert step not in others or torch.equal(images, others[step][0])
    every = {image.numpy().tobytes() for images, _ in seen[0].values() for image in images}
    assert len(every) == 12


def test_of_several_processes_each_makes_its_own_canvases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they make together is what one process makes alone."""
    pictures = training.Pictures(training.read_labels(folder), size=64)
    nothing = torch.Generator()
    with training.batches(pictures, 5, 4) as batch:
        whole, _ = batch(0, nothing)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        with training.batches(pictures, 5, 4) as batch:
            images, (_, canvases) = Processes(rank=rank, world=2).share(batch(0, nothing))
        assert torch.equal(images, whole[2 * rank : 2 * rank + 2])
        assert sorted(canvases) == [2 * rank, 2 * rank + 1]


def test_of_several_processes_each_learns_from_its_own_canvases(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels that reach the loss are those of the pictures that reached the net, when a batch is shared."""
    seen: list[tuple[torch.Tensor, tuple]] = []

    def fit(net: object, batch: training.Batch, objective: Callable[..., object], **options: object) -> None:
        images, context = Processes(rank=1, world=2).share(batch(0, torch.Generator()))
        objective(torch.zeros(len(images), len(priors(96, 96)), 15, requires_grad=True), context, torch.Generator())

    def loss(raw: torch.Tensor, at: torch.Tensor, boxes: list, landmarks: list, sure: list) -> tuple:
        seen.append((raw, (boxes, landmarks, sure)))
        return raw.sum(), {}

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(training, "detection_loss", loss)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    train_detector(folder, out=tmp_path / "a.safetensors", steps=1, **SMALL)
    raw, (boxes, _, _) = seen[0]
    assert len(raw) == len(boxes) == 2
    pictures = training.Pictures([p for p in training.read_labels(folder) if not training.held_out(p)], size=96)
    for i, ours in enumerate(boxes):
        assert np.array_equal(ours, pictures.canvas(np.random.default_rng([0, 0, 2 + i])).boxes)


def test_kernels_decay_and_vectors_do_not(folder: Path, tmp_path: Path) -> None:
    """One step with a rate of 1e-3 and a decay of 500 halves a kernel; AdamW's own step changes it by 1e-3."""
    options = SMALL | {"optimizer": "adamw", "precision": "fp32", "checkpoint": tmp_path}
    train_detector(folder, out=tmp_path / "d.safetensors", steps=1, lr=1e-3, weight_decay=500, **options)
    after, _ = weights_file.read(tmp_path / "checkpoint.safetensors")
    before = training._new_net(None, DetectorArchitecture((8, 8, 16, 16, 16), (0, 0, 0), 16), 0)
    for name, value in before.named_parameters():
        factor = 0.5 if value.ndim > 1 else 1.0
        torch.testing.assert_close(after[f"net.{name}"], factor * value.detach(), atol=1.1e-3, rtol=0)
