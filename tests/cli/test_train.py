"""`likeness train`: options are the arguments of the function that trains, whatever they are."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from likeness.cli import common, train
from likeness.cli.train import add_options, described, options_of

Cli = Callable[..., Any]
seen: dict[str, Any] = {}


@dataclass(frozen=True)
class Report:
    steps: int
    figures: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "figures": self.figures, "out": "x"}


def trainer(
    folder: "Path",
    *,
    out: "Path",
    loss: "Literal['triplet', 'arcface']" = "triplet",
    margin: "float" = 0.2,
    sizes: "tuple[int, ...]" = (64, 112),
    labels: "Sequence[str | os.PathLike[str]] | None" = None,  # noqa: F821
    teacher: "Path | None" = None,
    minutes: "float | None" = None,
    mirror: "bool" = True,
    architecture: "Architecture | None" = None,  # noqa: F821
    on_progress: "Callable[[int, int, dict], None] | None" = None,
) -> Report:
    """Train.

    Arguments:
        folder: people,
            one folder each.
        loss, margin: what is minimised, 50 % of it.

    Not an argument: this line.
    """
    seen.clear()
    seen.update(locals())
    assert on_progress is not None
    on_progress(1, 1, {"loss": 0.5})
    return Report(7, {"tar": 0.5})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "trainer", lambda what: trainer)


def test_docstring() -> None:
    assert described(trainer) == {
        "folder": "people, one folder each.",
        "loss": "what is minimised, 50 % of it.",
        "margin": "what is minimised, 50 % of it.",
    }


def test_options_are_the_arguments() -> None:
    assert "architecture" not in options_of(trainer) and "on_progress" not in options_of(trainer)
    parser = argparse.ArgumentParser()
    add_options(parser, trainer)
    options = parser.parse_args(
        "people -o e.st --sizes 32 64 --labels a.json b.json --teacher t.onnx --minutes 1.5 --no-mirror".split()
    )
    assert options.folder == Path("people") and options.out == Path("e.st")
    assert options.sizes == [32, 64] and options.labels == [Path("a.json"), Path("b.json")]
    assert options.teacher == Path("t.onnx") and options.minutes == 1.5 and options.mirror is False
    assert (options.loss, options.margin) == ("triplet", 0.2)
    help = parser.format_help()
    assert "(default: 64 112)" in help and "50 % of it" in help
    with pytest.raises(SystemExit):
        parser.parse_args(["people", "-o", "x", "--loss", "nonsense"])


@pytest.mark.usefixtures("fake")
def test_values_arrive(cli: Cli) -> None:
    result = cli("train", "recognition", "people", "-o", "e.st", "--margin", "0.3", "--sizes", "48", "64", "--json")
    assert result.status == 0 and result.json == {"output": "e.st", "steps": 7, "figures": {"tar": 0.5}, "out": "x"}
    assert (seen["folder"], seen["out"], seen["margin"], seen["sizes"]) == (Path("people"), Path("e.st"), 0.3, (48, 64))
    result = cli("train", "recognition", "people", "-o", "e.st")
    assert result.out.splitlines() == ["trained: e.st", "steps: 7", "figures: tar 0.5", "out: x"]
    assert seen["sizes"] == (64, 112) and seen["labels"] is None


@pytest.mark.usefixtures("fake")
def test_wrong_usage(cli: Cli) -> None:
    for words in (["train"], ["train", "recognition"], ["train", "recognition", "people"], ["train", "nonsense"]):
        assert cli(*words).status == 2


def test_without_torch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    for words in (["train"], ["train", "recognition", "people", "-o", "e.st"]):
        result = cli(*words)
        assert result.status == 2 and "pip install 'likeness[torch]'" in result.err
    assert cli("train", "--help").status == 0


def test_the_real_functions_have_the_promised_options() -> None:
    pytest.importorskip("torch")
    recognition = options_of(train.trainer("recognition"))
    assert {"folder", "out", "loss", "miner", "margin"} <= set(recognition)
    assert recognition["loss"].default == "triplet" and recognition["miner"].default == "semi-hard"
    assert {"folder", "out"} <= set(options_of(train.trainer("detector")))


@pytest.mark.slow
def test_from_a_folder_to_an_encoder_with_a_name(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    """The tutorial's last chapter, in small: train, export, add, verify."""
    pytest.importorskip("torch")
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for subject in range(45):
        (tmp_path / "people" / f"p{subject:02}").mkdir(parents=True)
        colour = rng.integers(60, 200, 3)
        for i in range(4):
            crop = np.clip(colour + rng.normal(0, 25, (112, 112, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(crop).save(tmp_path / "people" / f"p{subject:02}" / f"{i}.png")
    enc = tmp_path / "new" / "folder" / "enc.safetensors"
    options = "--steps 6 --every 3 --batch 16 --widths 8 16 --blocks 1 0 --sizes 32 --shares 1 --warmup 2 --margin 0.3"
    result = cli(
        "train", "recognition", tmp_path / "people", "-o", enc, *options.split(), "--precision", "fp32", "--json"
    )
    assert result.status == 0, result.err
    assert result.json["steps"] == 6 and result.json["figures"] and enc.is_file()
    assert cli("weights", "export", enc, "-o", tmp_path / "enc.onnx").status == 0
    assert cli("weights", "add", tmp_path / "enc.onnx", "--name", "mine").status == 0
    pair = photos / "people" / "Eileen Collins.jpg", photos / "people" / "Grace Hopper" / "1.jpg"
    result = cli("verify", *pair, "--encoder", "mine", "--json")
    assert result.status == 2 and result.json["reasons"] == ["no calibration"] and result.json["distance"] is not None
    result = cli("weights", "calibrate", "mine", tmp_path / "people", "--json")
    assert result.status == 0, result.err
    assert cli("verify", *pair, "--encoder", "mine").status in (0, 1)  # six steps make no encoder, but now it decides


@pytest.mark.usefixtures("fake")
def test_photographs_are_aligned(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that can use an aligner of photographs gets the one that ships; nothing is printed of what is none."""
    from likeness.faces.cropping import crop_of_one

    def aligning(folder: "Path", *, out: "Path", align: "Align | None" = None, on_progress: Any = None) -> Report:  # noqa: F821
        seen.clear()
        seen.update(locals())
        return Report(1, {})

    monkeypatch.setattr(train, "trainer", lambda what: aligning)
    result = cli("train", "recognition", "people", "-o", "e.st")
    assert result.status == 0 and seen["align"] is crop_of_one
    assert "figures: none" in result.out


@pytest.mark.usefixtures("fake")
def test_an_output_that_is_read_is_found_before_the_work(cli: Cli, tmp_path: Path) -> None:
    seen.clear()
    (tmp_path / "teacher.npz").write_bytes(b"a teacher")
    same = cli("train", "recognition", "people", "-o", tmp_path / "teacher.npz", "--teacher", tmp_path / "teacher.npz")
    assert same.status == 2 and "would be replaced" in same.err
    assert not seen and (tmp_path / "teacher.npz").read_bytes() == b"a teacher"
