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
    seen = []
    for first in (0, 2):  # from the start, and resumed at the third step
        with training._batches(pictures, 5, 3, first, 4) as stream:
            seen.append([(images.clone(), [c.image for c in canvases]) for images, canvases in stream])
    assert [len(part) for part in seen] == [4, 2]
    for (images, shown), (again, _) in zip(seen[0][2:], seen[1], strict=True):
        assert torch.equal(images, again)
        expected = (np.stack(shown).astype(np.float64) - 127.5) / 127.5
        np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=1e-6)
    every = {image.numpy().tobytes() for images, _ in seen[0] for image in images}
    assert len(every) == 12


def test_the_moving_average_by_hand() -> None:
    """The n-th update keeps (1 + n) / (10 + n) of what was, never more than `average`."""
    architecture = DetectorArchitecture((2, 2, 2, 2, 2), (0, 0, 0), 2)
    state = training._State(training._new_net(None, architecture, 0), {})
    mean = state.averaged.stem[0][0].weight.double().clone()
    for state.step in range(1, 6):
        with torch.no_grad():
            state.net.stem[0][0].weight.add_(float(state.step))
        state.net.stem[0][1].num_batches_tracked += 1
        state.update_average(0.4)
        keep = min(0.4, (1 + state.step) / (10 + state.step))
        mean = keep * mean + (1 - keep) * state.net.stem[0][0].weight.detach().double()
    torch.testing.assert_close(state.averaged.stem[0][0].weight.double(), mean, rtol=1e-5, atol=1e-6)
    assert int(state.averaged.stem[0][1].num_batches_tracked) == 5


def test_kernels_decay_and_vectors_do_not(folder: Path, tmp_path: Path) -> None:
    """One step with a rate of 1e-3 and a decay of 500 halves a kernel; AdamW's own step changes it by 1e-3."""
    out = tmp_path / "d.safetensors"
    train_detector(folder, out=out, steps=1, learning_rate=1e-3, weight_decay=500, **SMALL)
    after, _ = weights_file.read(out.with_suffix(".checkpoint"))
    before = training._new_net(None, DetectorArchitecture((8, 8, 16, 16, 16), (0, 0, 0), 16), 0)
    for name, value in before.named_parameters():
        factor = 0.5 if value.ndim > 1 else 1.0
        torch.testing.assert_close(after[f"net.{name}"], factor * value.detach(), atol=1.1e-3, rtol=0)


def test_the_schedule_warms_up_and_decays() -> None:
    """By hand, of 1000 steps: 30 to warm up, then a cosine from 1 down to 0.01, at a half of it after 485 more."""
    assert [training._schedule(step, 1000) for step in (0, 14, 29, 30)] == pytest.approx([1 / 30, 0.5, 1, 1])
    assert training._schedule(515, 1000) == pytest.approx(0.505)
    assert training._schedule(1000, 1000) == pytest.approx(0.01)
    assert training._schedule(0, 1) == 1
    rates = [training._schedule(step, 1000) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] < 0.02
    assert rates[500] == pytest.approx(0.5, abs=0.05)
