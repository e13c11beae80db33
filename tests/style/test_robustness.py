"""What goes wrong while a picture is stylised, through the real command line; kill -9; and 200 random tasks."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as pictures

from likeness.cli.main import main
from likeness.errors import InvalidOption
from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.samples.images import read_image, write_image
from likeness.style import stylize as module
from likeness.style.descent import Descent
from likeness.style.objective import Style
from likeness.style.stylize import stylize_sample

LAYERS: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}
SHORT = "--content-layers relu2_1 --style-layers relu1_1=.5,relu2_1=.5 --precision fp32 --scales 1".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    save(Vgg(Architecture(widths=(6, 8), depths=(1, 1))), folder / "vgg.safetensors")
    write_image(folder / "content.png", pictures.astronaut()[:300, :400])
    write_image(folder / "strip.png", pictures.astronaut()[:40, :400])
    write_image(folder / "style.png", pictures.coffee()[:260, :260])
    (folder / "text.png").write_text("no picture")
    return folder


def words(folder: Path, out: Path, *more: str, content: str = "content.png") -> list[str]:
    files = [str(folder / content), str(folder / "style.png"), "-o", str(out)]
    return ["stylize", *files, "--encoder", str(folder / "vgg.safetensors"), *SHORT, *more]


@pytest.mark.parametrize(
    ("content", "size", "shape"),
    [
        ("content.png", "7", (5, 7)),
        ("content.png", "61", (46, 61)),
        ("content.png", "5", (4, 5)),
        ("strip.png", "40", (4, 40)),
        ("strip.png", "97", (10, 97)),
    ],
)
def test_odd_prime_and_narrow_sizes(folder: Path, tmp_path: Path, content: str, size: str, shape: tuple) -> None:
    out = tmp_path / "out.png"
    assert main(words(folder, out, "--size", size, "--steps", "3", content=content)) == 0
    assert read_image(out).shape == (*shape, 3)
    assert main(words(folder, out, "--size", size, "--steps", "2", "--tile", "4", content=content)) == 0


@pytest.mark.parametrize(
    ("more", "content", "message"),
    [
        (("--size", "39"), "strip.png", "has 4 x 39"),
        (("--size", "30"), "strip.png", "has 3 x 30 positions; these layers need 4"),
        (("--size", "0"), "content.png", "size is 0"),
        ((), "text.png", "text.png: not a picture"),
        (("--style-layers", "relu1_7"), "content.png", "did you mean 'relu1_1'"),
        (("--content-layers", "relux"), "content.png", "did you mean"),
        (("--mask", "STRIP:STRIP"), "content.png", "does not have the shape of its content"),
        (("--memory-limit", "0.001"), "content.png", "can be had"),
        (("--resume", "NOWHERE/run"), "content.png", "no such folder"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple, content: str, message: str
) -> None:
    names = {
        "STRIP:STRIP": f"{folder / 'strip.png'}:{folder / 'strip.png'}",
        "NOWHERE/run": str(tmp_path / "no" / "run"),
    }
    more = tuple(names.get(one, one) for one in more)
    if message == "has 4 x 39":  # the shortest that works
        assert main(words(folder, tmp_path / "out.png", *more, "--steps", "1", content=content)) == 0
        return
    assert main(words(folder, tmp_path / "out.png", *more, content=content)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_place_is_tried_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("likeness.style.pictures.stylize_sample", never)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "no" / "out.png", tmp_path / "file" / "out.png", tmp_path / "out.xyz"):
        assert main(words(folder, out)) == 2
        assert f"{out}: " in capsys.readouterr().err
    record = tmp_path / "content.json"
    write_image(tmp_path / "content.png", np.zeros((40, 40, 3), np.uint8))
    assert main(words(folder, tmp_path / "x.png", "--resume", str(folder / "content.png"))) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert not record.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content.png", "file"]


def test_when_memory_runs_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 99 bytes")

    monkeypatch.setattr(module, "within_range", full)
    x = torch.rand(1, 3, 20, 20)
    with pytest.raises(InvalidOption, match="the memory was used up while 20 x 20 positions.*smaller size or tile"):
        stylize_sample(Vgg(Architecture(widths=(4, 4), depths=(1, 1))), x, [Style(x)], precision="fp32", **LAYERS)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(module, "within_range", broken)
    with pytest.raises(RuntimeError, match="something else"):
        stylize_sample(Vgg(Architecture(widths=(4, 4), depths=(1, 1))), x, [Style(x)], precision="fp32", **LAYERS)


def process(arguments: list[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "likeness", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=before)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
def test_a_full_disk_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    """The largest file that the process may write is 2 kB: the trial fits, the picture does not."""
    child = process(
        words(folder, tmp_path / "out.png", "--size", "64", "--steps", "2"),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    _, error = child.communicate(timeout=300)
    assert child.returncode == 2 and "cannot write" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_kill_and_resume_end_in_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    more = ("--size", "64", "--steps", "60", "--init", "noise")
    assert main(words(folder, tmp_path / "whole.png", *more)) == 0
    store = tmp_path / "run.safetensors"
    child = process(
        words(folder, tmp_path / "out.png", *more[:2], "--steps", "60000", *more[4:], "--resume", str(store))
    )
    for _ in range(3000):
        if store.exists():
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert store.exists() and not (tmp_path / "out.png").exists()
    walk, beside = Descent.load(store)  # a whole file, whenever the kill came
    assert len(walk.trace) % 25 == 0 and walk.best.shape == (1, 3, 48, 64) and beside["settings"]["steps"] == 60000
    store.unlink()  # of another number of steps
    code = f"""
import os, signal
from likeness.cli import common, main
from contextlib import contextmanager
def kill(done, total, info):
    if done == 33:
        os.kill(os.getpid(), signal.SIGKILL)
@contextmanager
def bar(label):
    yield kill
import likeness.cli.stylize
likeness.cli.stylize.progress_bar = bar
main.main({words(folder, tmp_path / "out.png", *more, "--resume", str(store))!r})
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.exists() and not (tmp_path / "out.png").exists()
    child = process(words(folder, tmp_path / "out.png", *more, "--resume", str(store)))
    assert child.wait(timeout=300) == 0
    child.communicate()
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    whole, resumed = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "out"))
    assert whole["J"] == resumed["J"]
    assert not store.exists()


def random_sample(chance: random.Random, generator: torch.Generator, dims: int, least: int) -> torch.Tensor:
    """Noise of some smoothness, contrast and brightness, of some odd shape."""
    longest = {1: 300, 2: 40, 3: 14}[dims]
    size = [chance.randint(least, longest) for _ in range(dims)]
    coarse = [max(1, round(n * chance.choice([0.05, 0.3, 1.0]))) for n in size]
    x = torch.rand(1, 3, *coarse, generator=generator)
    x = torch.nn.functional.interpolate(x, size=size, mode=("linear", "bilinear", "trilinear")[dims - 1])
    return (chance.random() * (1 - (spread := chance.choice([0.05, 0.5, 1.0]))) + spread * x).clamp(0, 1)


def fall(number: int) -> tuple[float, dict[str, Any]]:
    """J of the result over J of the start after 50 steps of a random task, and what the task was."""
    chance, generator = random.Random(number), torch.Generator().manual_seed(number)
    dims = chance.choice([1, 2, 2, 2, 3])
    torch.manual_seed(number)
    net = Vgg(
        Architecture(spatial_dims=dims, widths=(6, 8), depths=(1, 1), padding=chance.choice(["reflect", "zeros"]))
    )
    content, style = (random_sample(chance, generator, dims, 6) for _ in range(2))
    weights = 10.0 ** chance.uniform(-8, 8)
    options: dict[str, Any] = {
        "init": chance.choice(["noise", "noise", "content"]),
        "style_weight": weights * 1e4,  # as by default; where the content counts more, the least J may be above a half
        "content_weight": weights,
        "statistic": chance.choice(["gram", "mean-std"]),
        "optimizer": "lbfgs",
        "seed": number,
    }
    run = stylize_sample(
        net, content, [Style(style)], steps=50, scales=1, tolerance=0, precision="fp32", **LAYERS, **options
    )
    assert np.isfinite(run.sample).all() and np.isfinite(run.J).all() and np.isfinite(run.parts.J), options
    assert run.sample.min() >= 0 and run.sample.max() <= 1
    return run.parts.J / run.J[0], options | {"content": content.shape, "style": style.shape, "number": number}


def test_J_falls_by_half_in_50_steps_whatever_the_weights() -> None:
    assert max(fall(number)[0] for number in range(8)) < 0.5


@pytest.mark.slow
def test_J_falls_by_half_in_50_steps_in_200_random_tasks() -> None:
    falls = [fall(number) for number in range(200)]
    assert not [one for one in falls if not one[0] < 0.5]
