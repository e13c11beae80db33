"""`likeness train classifier`: it learns, never from what is held out, goes on where it stopped, says what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from likeness.cli.main import main
from likeness.errors import InvalidOption, StorageError, UnreadableFile, WeightsError
from likeness.metric import classification
from likeness.metric.augment import to_input
from likeness.metric.classification import read_classes, top1, train_classifier
from likeness.nets.classifier import load
from likeness.samples.images import write_image

SMALL: dict[str, Any] = {
    "widths": (8, 8, 8, 8, 8),
    "side": 32,
    "sizes": (24, 32),
    "shares": (0.5, 0.5),
    "batch": 16,
    "warmup": 5,
    "precision": "fp32",
}


def drawn(kind: str, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """Stripes across, stripes along, or a board of both; two colours, width and place by chance."""
    width, (y, x) = rng.integers(4, 7), np.indices((side, side)) + rng.integers(0, 20, (2, 1, 1))
    across, along = y // width % 2, x // width % 2
    which = {"across": across, "along": along, "board": across ^ along}[kind]
    return rng.integers([0, 140], [110, 255], (3, 2)).T[which].astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for kind in ("across", "along", "board"):
        for i in range(40):
            (folder / kind).mkdir(exist_ok=True)
            write_image(folder / kind / f"{i:02}.png", drawn(kind, rng))
    return folder


def plain(folder: Path, counts: dict[str, int], *, start: int = 0) -> int:
    """Pictures of one grey each, that is different from all others' of the same call chain."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            write_image(folder / name / f"{i:02}.png", np.full((9, 9, 3), start, np.uint8))
            start += 1
    return start


def test_it_learns_what_the_held_out_pictures_show(pictures: Path, tmp_path: Path) -> None:
    result = train_classifier(pictures, out=tmp_path / "new" / "net.safetensors", steps=60, every=60, **SMALL)
    assert (result.classes, result.pictures, result.held_out) == (("across", "along", "board"), 108, 12)
    assert result.top1 >= 0.9
    net = load(result.out)
    assert net.architecture.classes == result.classes and net.architecture.size == 32
    rng = np.random.default_rng(1)
    new = [drawn(kind, rng) for kind in result.classes for _ in range(10)]
    found = net(to_input(torch.from_numpy(np.stack(new)))).argmax(1).reshape(3, 10)
    assert float((found == torch.arange(3)[:, None]).float().mean()) >= 0.9


def test_a_resumed_run_ends_in_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if "loss" in info and done == 5:
            raise KeyboardInterrupt

    options = SMALL | {"steps": 8, "every": 4}
    train_classifier(pictures, out=tmp_path / "whole.safetensors", **options)
    options["checkpoint"] = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_classifier(pictures, out=tmp_path / "half.safetensors", on_progress=stop, **options)
    train_classifier(pictures, out=tmp_path / "half.safetensors", **options)
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    for other in ({"smoothing": 0.2}, {"widths": (8, 8, 8, 8, 9)}, {"side": 40}, {"sizes": (24, 40)}):
        with pytest.raises(WeightsError, match="other options"):
            train_classifier(pictures, out=tmp_path / "half.safetensors", **(options | other))


def test_what_is_held_out_is_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture is of one grey, so that what reaches the augmentation tells which pictures were used."""
    plain(tmp_path, {"a": 21, "b": 3})
    seen: set[int] = set()

    def look(images: torch.Tensor, *, generator: torch.Generator, size: int) -> torch.Tensor:
        seen.update(images[:, 0, 0, 0].tolist())
        return to_input(images, size=size)

    monkeypatch.setattr(classification, "augment_things", look)
    options = SMALL | {"batch": 4}
    result = train_classifier(tmp_path, out=tmp_path / "net.safetensors", steps=12, every=12, **options)
    held = {0, 10, 20, 21}  # the first and every tenth of each class
    assert seen == set(range(24)) - held and result.held_out == 4


def test_labels_are_smoothed(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is the cross-entropy against `(1 - s)` for the class plus `s / 3` for each of the three."""
    losses: list[Any] = []
    monkeypatch.setattr(classification, "fit", lambda net, make_batch, objective, **_: losses.append(objective))
    logits, labels = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    logs = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))
    for smoothing in (0.0, 0.3):
        train_classifier(pictures, out=tmp_path / "net.safetensors", **SMALL, smoothing=smoothing)
        targets = (1 - smoothing) * np.eye(3)[labels.numpy()] + smoothing / 3
        found = losses[-1](logits, labels, torch.Generator())
        assert float(found.loss) == pytest.approx(-(targets * logs).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("held", ["val", "test"])
def test_folders_may_say_what_is_held_out(held: str, tmp_path: Path) -> None:
    last = plain(tmp_path / "one" / "train", {"cat": 2, "dog": 1})
    last = plain(tmp_path / "one" / held, {"dog": 2}, start=last)
    plain(tmp_path / "two", {"ant": 2, "dog": 3}, start=last)
    train, rest = read_classes([tmp_path / "one", tmp_path / "two"], side=8)
    assert train.names == rest.names == ("ant", "cat", "dog")
    found = dict(zip(train.images[:, 0, 0, 0].tolist(), train.subjects.tolist(), strict=True))
    assert found == {0: 1, 1: 1, 2: 2, 6: 0, 8: 2, 9: 2}
    found = dict(zip(rest.images[:, 0, 0, 0].tolist(), rest.subjects.tolist(), strict=True))
    assert found == {3: 2, 4: 2, 5: 0, 7: 2}
    assert train.images.shape[1:] == (8, 8, 3)


def test_the_share_that_is_named_right(pictures: Path) -> None:
    """A net whose logits are the picture's first three pixels: counted by hand, over more than one part."""

    class Told(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0, 0, :3]

    rng = np.random.default_rng(3)
    crops = classification.Crops(
        rng.integers(0, 256, (150, 8, 8, 3), np.uint8), rng.integers(0, 3, 150), ("a", "b", "c")
    )
    expected = (crops.images[:, 0, :3, 0].argmax(1) == crops.subjects).mean()
    assert top1(Told(), crops) == pytest.approx(expected)  # type: ignore[arg-type]


def test_what_is_wrong_is_said(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    (tmp_path / "empty").mkdir()
    plain(tmp_path / "lonely", {"only": 4})
    plain(tmp_path / "few", {"a": 4, "b": 1})
    plain(tmp_path / "flat", {".": 3})
    plain(tmp_path / "strange" / "train", {"a": 2, "b": 2})
    plain(tmp_path / "strange" / "val", {"a": 2, "c": 2})
    plain(tmp_path / "broken", {"a": 4, "b": 4})
    (tmp_path / "broken" / "b" / "01.png").write_text("no picture")
    (tmp_path / "file").write_text("")
    for folder, error, message in (
        ("empty", UnreadableFile, "no pictures"),
        ("missing", UnreadableFile, "missing"),
        ("lonely", InvalidOption, "only one class, 'only'"),
        ("few", InvalidOption, "only one picture of 'b'"),
        ("flat", InvalidOption, "DIR/CLASS"),
        ("strange", InvalidOption, "'c' are held out"),
        ("broken", UnreadableFile, r"01\.png"),
    ):
        with pytest.raises(error, match=message):
            train_classifier(tmp_path / folder, out=out, **SMALL)
    for wrong, message in (
        ({"smoothing": 1.0}, "smoothing"),
        ({"shares": (0.5, 0.6)}, "shares"),
        ({"sizes": (6, 32)}, "size is 6"),
        ({"steps": 0}, "steps"),
        ({"batch": 1}, "batch"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"every": 0}, "every"),
        ({"seed": -1}, "seed"),
        ({"lr": -1.0}, "lr"),
    ):
        with pytest.raises(InvalidOption, match=message):
            train_classifier(pictures, out=out, **(SMALL | wrong))
    with pytest.raises(StorageError):
        train_classifier(pictures, out=tmp_path / "file" / "net.safetensors", **SMALL)
    assert not out.exists()


def test_the_command_line(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = tmp_path / "net.safetensors"
    words = ["train", "classifier", str(pictures), "-o", str(net), "--widths", "4", "4", "4", "4", "4", "--side", "32"]
    words += ["--sizes", "32", "--shares", "1", "--steps", "2", "--precision", "fp32", "--batch", "8", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["across", "along", "board"] and told["held_out"] == 12 and 0 <= told["top1"] <= 1
    assert main(["lens", "layers", str(net), "--json"]) == 0
    rows = {row["layer"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["relu5"]["positions"] == [3, 3] and rows["relu1"]["size"] == [7, 7]
    assert main(["train", "classifier", str(tmp_path), "-o", str(net)]) == 2
    assert "no pictures" in capsys.readouterr().err
