"""Films painted: calmer with smoothing, no ghosts, resumed to the byte, nothing half-written."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.cli.main import main
from likeness.errors import InvalidOption
from likeness.samples.video import Film, Frame, read_frames, write_film
from likeness.style import video as module
from likeness.style.transform import Architecture, Transform, save
from likeness.style.video import Flicker, stillness, stylize_video

pytest.importorskip("av")
HEIGHT, WIDTH, SIDE, FRAMES = 64, 96, 16, 10


def frames_of() -> list[np.ndarray]:
    """A bright square that moves four pixels a frame over a photograph that stands still, all with a sensor's noise."""
    rng = np.random.default_rng(0)
    background = photographs.astronaut()[40 : 40 + HEIGHT, 150 : 150 + WIDTH].astype(float)
    frames = []
    for i in range(FRAMES):
        frame = background.copy()
        frame[24 : 24 + SIDE, 8 + 4 * i : 8 + 4 * i + SIDE] = (250, 240, 30)
        frames.append(np.clip(frame + rng.normal(0, 2.5, frame.shape), 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    about = Film("", WIDTH, HEIGHT, Fraction(25), Fraction(1, 25), FRAMES, 0, None)
    write_film(path, [Frame(image, i) for i, image in enumerate(frames_of())], about, quality=1)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    made = Transform(Architecture(widths=(4, 6, 8), blocks=1))
    for stage in (made.last,):
        stage.conv.get_parameter("weight").data.mul_(4)  # contrast, so that noise shows
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save(made, path)
    return path


def painted(net: Path, film: Path, out: Path, **options: Any) -> Any:
    return stylize_video(net, film, out, **options)


def test_smoothing_calms_and_leaves_no_ghost(net: Path, film: Path, tmp_path: Path) -> None:
    rough = painted(net, film, tmp_path / "rough.mp4", smoothing=0.0)
    calm = painted(net, film, tmp_path / "calm.mp4")
    assert calm.flicker < 0.5 * rough.flicker
    # where the square is and where it was, each frame is that of the net by itself
    single, smooth = (
        [f.image.astype(int) for f in read_frames(tmp_path / f"{name}.mp4")] for name in ("rough", "calm")
    )
    for i in range(1, FRAMES):
        place = slice(26, 22 + SIDE), slice(8 + 4 * i + SIDE - 4, 8 + 4 * i + SIDE)  # newly covered
        left = slice(26, 22 + SIDE), slice(8 + 4 * i - 4, 8 + 4 * i)  # newly uncovered
        for part in (place, left):
            change = np.abs(single[i][part] - single[i - 1][part]).mean()
            assert np.abs(smooth[i][part] - single[i][part]).mean() < 0.2 * change + 3


def test_stillness() -> None:
    a, b, *_ = frames_of()
    still = stillness(a, b)
    assert still.dtype == np.float32 and still.shape == (HEIGHT, WIDTH)
    assert still[:12].mean() > 0.8 and still[54:].mean() > 0.8  # noise alone
    assert still[26 : 22 + SIDE, 8:12].max() < 0.01  # what the square left
    assert still[18 : 30 + SIDE, 2:18].max() < 0.01  # and as far around it as strokes reach
    assert stillness(a, a).min() == 1
    # against a direct mean over the window, in float64
    change = (((a / 255.0) - (b / 255.0)) ** 2).mean(2)
    padded = np.pad(change, 2, mode="edge")
    window = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((2, 3))
    reach = np.lib.stride_tricks.sliding_window_view(np.pad(window, 8), (17, 17)).max((2, 3))
    np.testing.assert_allclose(still, np.exp(-reach / 0.06**2), atol=1e-4)


def test_flicker_is_a_ratio() -> None:
    a, b, *_ = frames_of()
    same, double = Flicker(), Flicker()
    same.add(a, b, a, b)
    assert same.value == pytest.approx(1)
    double.add(a[:16], b[:16], 2 * (a[:16] // 4), 2 * (b[:16] // 4))
    assert 0.3 < double.value < 0.9
    silent = Flicker()
    silent.add(a, a, a, a)
    assert silent.value == 0 and Flicker().value == 0


def test_a_resumed_film_has_the_same_bytes(
    net: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if done == 6:
            raise KeyboardInterrupt

    painted(net, film, tmp_path / "whole.mp4")
    work = tmp_path / "work"
    (tmp_path / "half.mp4").write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        painted(net, film, tmp_path / "half.mp4", checkpoint=work, on_progress=stop)
    assert (tmp_path / "half.mp4").read_bytes() == b"older"
    assert len(list(work.glob("*.png"))) == 6
    with pytest.raises(InvalidOption, match="another smoothing"):
        painted(net, film, tmp_path / "half.mp4", checkpoint=work, smoothing=0.5)
    calls = []
    one = module._painted
    monkeypatch.setattr(module, "_painted", lambda *args: calls.append(1) or one(*args))  # type: ignore[func-returns-value]
    seen: list[int] = []
    result = painted(net, film, tmp_path / "half.mp4", checkpoint=work, on_progress=lambda done, *_: seen.append(done))
    assert len(calls) == FRAMES - 6 and seen == list(range(1, FRAMES + 1)) and result.frames == FRAMES
    assert (tmp_path / "half.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not work.exists()


def test_a_folder_of_ones_own_is_left_alone(net: Path, film: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("000001.png", "1.png", "letter.txt"):
        (own / name).write_bytes(b"mine")
    for record in (None, '{"theme": "dark"}', "[]"):  # a settings.json of another program, too
        if record:
            (own / "settings.json").write_text(record)
        with pytest.raises(InvalidOption, match="name a new or an empty folder|name another folder"):
            painted(net, film, tmp_path / "out.mp4", checkpoint=own)
    with pytest.raises(InvalidOption, match="name a new or an empty folder"):
        painted(net, film, tmp_path / "out.mp4", checkpoint=own / "letter.txt")
    assert sorted(file.name for file in own.iterdir()) == ["000001.png", "1.png", "letter.txt", "settings.json"]
    assert (own / "000001.png").read_bytes() == b"mine" and not (tmp_path / "out.mp4").exists()


def test_only_frames_that_were_painted_are_deleted(net: Path, film: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def add(done: int, *_: Any) -> None:
        for name in ("1.png", f"{FRAMES:06}.png", "000001x.png"):
            (work / name).write_bytes(b"mine")

    painted(net, film, tmp_path / "out.mp4", checkpoint=work, on_progress=add)
    assert sorted(file.name for file in work.iterdir()) == ["000001x.png", f"{FRAMES:06}.png", "1.png"]


def test_a_size_and_what_is_refused(net: Path, film: Path, tmp_path: Path) -> None:
    result = painted(net, film, tmp_path / "small.mp4", size=49)
    assert (result.width, result.height, result.audio) == (48, 32, "none")
    for options, message in (
        ({"smoothing": 1.0}, "below 1"),
        ({"smoothing": float("nan")}, "below 1"),
        ({"size": 3}, "too few"),
        ({"max_memory": 1000}, "would need"),
    ):
        with pytest.raises(InvalidOption, match=message):
            painted(net, film, tmp_path / "x.mp4", **options)
    with pytest.raises(InvalidOption, match="would be replaced"):
        painted(net, film, film)
    assert not (tmp_path / "x.mp4").exists()


def test_the_command(net: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    assert main(["apply", str(net), str(film), "-o", str(out), "--size", "48", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == FRAMES and report["out"] == str(out) and report["flicker"] > 0
    assert main(["apply", str(net), str(film), "-o", str(out), "--size", "48", "--smoothing", "0"]) == 0
    assert "10 frames of 48 x 32, sound none, flicker" in capsys.readouterr().out
