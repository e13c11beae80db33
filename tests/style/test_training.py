"""`likeness train perceptual`: a slim VGG explains a large one; scaling its channels changes factors only."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.errors import InvalidOption, UnreadableFile, WeightsError
from likeness.nets.activations import activations
from likeness.nets.perceptual import Architecture, Vgg, load, save
from likeness.samples.images import write_image
from likeness.style.training import LAYERS, left_over, normalised, read_pictures, train_perceptual, unexplained


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "coffee", "cat"):
        image = getattr(photographs, name)()
        for i in range(8):
            write_image(folder / f"{name}{i}.png", image[30 * i : 30 * i + 64, 30 * i : 30 * i + 64])
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("teacher") / "vgg.safetensors"
    save(Vgg(Architecture(widths=(6, 8, 8, 10), depths=(1, 1, 1, 2), mean=(0.5,), scale=(0.25,))), file)
    return file


SMALL: dict[str, Any] = {"widths": (6, 8, 8, 10), "size": 32, "batch": 4, "warmup": 5, "precision": "fp32", "lr": 1e-2}


def test_the_student_explains_the_teacher(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    result = train_perceptual(
        pictures, out=tmp_path / "new" / "slim.safetensors", teacher=teacher, steps=80, every=40, **SMALL
    )
    torch.manual_seed(0)
    tests = [torch.rand(1, 3, 32, 32) for _ in range(3)]
    untrained = unexplained(Vgg(Architecture(widths=(6, 8, 8, 10), depths=(1, 1, 1, 1))), load(teacher), tests)
    assert set(result.unexplained) == set(LAYERS)
    assert result.unexplained["relu1_1"] < 0.15
    assert result.unexplained["relu4_1"] < 0.9 * untrained["relu4_1"]
    slim = load(tmp_path / "new" / "slim.safetensors")
    assert [name for name, _ in slim.named_children()][-1] == "relu4_1"


def test_what_is_left_over_is_that_of_least_squares_and_so_is_its_gradient() -> None:
    rng = np.random.default_rng(0)
    a, t = rng.normal(size=(4, 60)), rng.normal(size=(7, 60)) + 3
    t[:3] += a[:3]

    def share(a: np.ndarray) -> float:
        x = np.vstack([a, np.ones(60)])
        error = t - np.linalg.lstsq(x.T, t.T, rcond=None)[0].T @ x
        return float((error**2).mean() / ((t - t.mean(1, keepdims=True)) ** 2).mean())

    tensor = torch.tensor(a, requires_grad=True)
    value = left_over(tensor, torch.tensor(t))
    assert float(value.detach()) == pytest.approx(share(a), rel=1e-6)
    (gradient,) = torch.autograd.grad(value, tensor)
    for i, j in ((0, 0), (3, 59), (1, 20)):
        step = np.zeros_like(a)
        step[i, j] = 1e-5
        assert float(gradient[i, j]) == pytest.approx((share(a + step) - share(a - step)) / 2e-5, rel=1e-3, abs=1e-9)


def test_a_resumed_run_ends_in_the_same_bytes(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if "loss" in info and done == 5:
            raise KeyboardInterrupt

    options = SMALL | {"steps": 8, "every": 4, "teacher": teacher}
    train_perceptual(pictures, out=tmp_path / "whole.safetensors", **options)
    options["checkpoint"] = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_perceptual(pictures, out=tmp_path / "half.safetensors", on_progress=stop, **options)
    train_perceptual(pictures, out=tmp_path / "half.safetensors", **options)
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_net_explains_itself_and_noise_explains_nothing() -> None:
    torch.manual_seed(0)
    net = Vgg(Architecture(widths=(4, 5, 6, 7), depths=(1, 1, 1, 1)))
    samples = [torch.rand(1, 3, 40, 40) for _ in range(4)]
    assert max(unexplained(net, net, samples).values()) < 1e-3
    dead = Vgg(Architecture(widths=(1, 1, 1, 1), depths=(1, 1, 1, 1)))
    dead.load_state_dict({name: torch.zeros_like(value) for name, value in dead.state_dict().items()})
    assert min(unexplained(dead, net, samples).values()) > 0.999


def test_scaling_channels_changes_factors_only() -> None:
    torch.manual_seed(1)
    net = Vgg(Architecture(widths=(4, 5, 6, 7), depths=(2, 1, 2, 1))).double()
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            value.data.uniform_(0.02, 0.1)
    samples = [torch.rand(1, 3, 40, 40, dtype=torch.float64) for _ in range(3)]
    scaled = normalised(net, samples)
    names = ["relu1_1", "relu1_2", "relu2_1", "relu3_2", "relu4_1"]
    before, after = (activations(one, samples[0], names) for one in (net, scaled))
    for name in names:
        mean = torch.stack([activations(scaled, x, [name])[name].mean((0, 2, 3)) for x in samples]).mean(0)
        fired = before[name].amax((0, 2, 3)) > 1e-3
        assert torch.allclose(mean[fired], torch.ones_like(mean[fired]), atol=1e-4)
        ratio = (after[name] / before[name].clamp_min(1e-9)).amax((0, 2, 3)).view(1, -1, 1, 1)
        assert torch.allclose(after[name], before[name] * ratio, atol=1e-4)


def test_pictures_of_folders_and_zips(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as file:
        for picture in sorted(pictures.iterdir()):
            file.write(picture, f"set/{picture.name}")
        file.writestr("readme.txt", "no picture")
    for a, b in zip(read_pictures([pictures]), read_pictures([tmp_path / "pictures.zip"]), strict=True):
        assert np.array_equal(a, b)
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(UnreadableFile, match="bad.zip"):
        read_pictures([tmp_path / "bad.zip"])
    out = tmp_path / "slim.safetensors"
    for options, message in (
        ({"size": 128}, "24|only"),
        ({"size": 33}, "multiple of 8"),
        ({"widths": (4,)}, "4 blocks"),
    ):
        with pytest.raises(InvalidOption, match=message):
            train_perceptual(pictures, out=out, teacher=teacher, **(SMALL | {"steps": 1} | options))


def test_a_zip_of_a_mac_and_damaged_ones(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    write_image(good, photographs.coffee()[:40, :50])
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as file:
        file.write(good, "photos/a.png")
        file.writestr("__MACOSX/photos/._a.png", b"resource fork")
        file.writestr("photos/.hidden.png", b"no picture")
    assert [image.shape for image in read_pictures([tmp_path / "mac.zip"])] == [(40, 50, 3)]
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("photos/b.png", b"no picture")
    with pytest.raises(UnreadableFile, match=r"bad\.zip, photos/b\.png"):
        read_pictures([tmp_path / "bad.zip"])
    data = bytearray((tmp_path / "mac.zip").read_bytes())
    data[6] |= 1  # says that it is encrypted, here and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"locked\.zip, photos/a\.png"):
        read_pictures([tmp_path / "locked.zip"])


def test_a_checkpoint_belongs_to_its_teacher_pictures_and_sizes(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = tmp_path / "other.safetensors"
    save(Vgg(Architecture(widths=(6, 8, 8, 10), depths=(1, 1, 1, 2), mean=(0.5,), scale=(0.25,))), other)
    (tmp_path / "more").mkdir()
    write_image(tmp_path / "more" / "one.png", photographs.coffee()[:64, :64])
    given = SMALL | {
        "teacher": teacher,
        "out": tmp_path / "out",
        "checkpoint": tmp_path / "run",
        "steps": 2,
        "every": 1,
    }
    train_perceptual(pictures, **given)
    for change, name in (
        ({"teacher": other}, "teacher"),
        ({"more_pictures": [str(tmp_path / "more")]}, "pictures"),
        ({"batch": 2}, "batch"),
        ({"size": 40}, "size"),
    ):
        with pytest.raises(WeightsError, match=f"other options .*{name}"):
            train_perceptual(pictures, **given | change)
    with pytest.raises(InvalidOption, match="batch is 0"):
        train_perceptual(pictures, **given | {"batch": 0})
