"""Films: what is written is read again, upright, at the same times, with its sound; nothing half-written."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

from likeness.errors import InvalidOption, MissingDependency, StorageError, UnreadableFile
from likeness.samples.video import Film, Frame, read_film, read_frames, write_film

av = pytest.importorskip("av")


def make(path: Path, *, frames: int = 12, rotation: int = 0, sound: str | None = None, codec: str = "libx264") -> Path:
    """A film of a photograph that moves two pixels a frame, 98 x 64, 25 frames per second."""
    image = photographs.astronaut()[:64, 100:198]
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 98, 64, "yuv420p"
        if rotation:
            video.set_display_rotation(rotation)
        if sound:
            audio = container.add_stream(sound, rate=16000)
            audio.layout = "mono"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(image, 2 * i, 1)), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound:
            tone = (np.sin(np.arange(16000 * frames // 25) * 0.1) * 9000).astype(np.int16)[None]
            for first in range(0, tone.shape[1] - 1023, 1024):
                part = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, first : first + 1024]), "s16", "mono")
                part.sample_rate, part.pts = 16000, first
                container.mux(audio.encode(part))
            container.mux(audio.encode())
    return path


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_a_film_comes_back(tmp_path: Path) -> None:
    film = read_film(make(tmp_path / "a.mp4", sound="aac"))
    assert (film.width, film.height, film.fps, film.frames, film.rotation, film.audio) == (98, 64, 25, 12, 0, "aac")
    frames = list(read_frames(film))
    assert frames[0].image.shape == (64, 98, 3) and frames[0].image.dtype == np.uint8
    report = write_film(tmp_path / "b.mp4", frames, film)
    assert report == {"width": 98, "height": 64, "frames": 12, "audio": "copied"}
    again = list(read_frames(tmp_path / "b.mp4"))
    assert [frame.time for frame in again] == [frame.time for frame in frames]
    for one, two in zip(frames, again, strict=True):
        assert np.abs(one.image.astype(int) - two.image).mean() < 4
    assert sound_of(tmp_path / "a.mp4") == sound_of(tmp_path / "b.mp4")
    write_film(tmp_path / "c.mp4", frames, film)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "c.mp4"}


def test_colours_stay(tmp_path: Path) -> None:
    film = Film("", 32, 32, Fraction(25), Fraction(1, 25), 2, 0, None)
    for colour in ((220, 40, 60), (30, 200, 90), (20, 60, 230), (255, 255, 255), (0, 0, 0)):
        image = np.full((32, 32, 3), colour, np.uint8)
        write_film(tmp_path / "a.mp4", [Frame(image, i) for i in range(2)], film)
        back = next(read_frames(tmp_path / "a.mp4")).image
        assert np.abs(back.astype(int) - image).max() <= 4


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_upright(tmp_path: Path, rotation: int) -> None:
    film = read_film(make(tmp_path / "a.mp4", rotation=rotation))
    plain = read_film(make(tmp_path / "b.mp4"))
    assert film.rotation == rotation % 360
    assert (film.width, film.height) == ((98, 64) if rotation == 180 else (64, 98))
    one, two = next(read_frames(film)).image, next(read_frames(plain)).image
    assert np.array_equal(one, np.rot90(two, rotation // 90))


def test_no_thread_of_ffmpeg_waits_for_python(tmp_path: Path) -> None:
    """A film may be closed before its end: with PyAV's log on, that hung now and then."""
    film = read_film(make(tmp_path / "a.mp4"))
    for _ in range(20):
        next(read_frames(film))
    assert av.logging.get_level() is None


def test_odd_sizes_and_irregular_times(tmp_path: Path) -> None:
    film = Film("", 33, 31, Fraction(25), Fraction(1, 1000), 3, 0, None)
    frames = [Frame(photographs.astronaut()[:31, :33], time) for time in (5, 40, 200)]
    report = write_film(tmp_path / "a.mp4", frames, film)
    assert (report["width"], report["height"], report["frames"], report["audio"]) == (32, 30, 3, "none")
    again = read_film(tmp_path / "a.mp4")
    times = [frame.time * again.time_base for frame in read_frames(again)]
    assert [float(time - times[0]) for time in times] == pytest.approx([0, 0.035, 0.195], abs=1e-3)


def test_sound_that_does_not_fit_is_named(tmp_path: Path) -> None:
    film = read_film(make(tmp_path / "a.mkv", sound="pcm_s16le"))
    report = write_film(tmp_path / "b.mp4", read_frames(film), film)
    assert report["audio"] == "left out: pcm_s16le does not fit MP4"
    assert read_film(tmp_path / "b.mp4").audio is None


def test_nothing_half_written(tmp_path: Path) -> None:
    film = read_film(make(tmp_path / "a.mp4"))

    def frames() -> Iterator[Frame]:
        for number, frame in enumerate(read_frames(film)):
            if number == 5:
                raise KeyboardInterrupt
            yield frame

    (tmp_path / "b.mp4").write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        write_film(tmp_path / "b.mp4", frames(), film)
    assert (tmp_path / "b.mp4").read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InvalidOption, match="at least one frame"):
        write_film(tmp_path / "c.mp4", [], film)
    with pytest.raises(InvalidOption, match="at least 2 x 2"):
        write_film(tmp_path / "c.mp4", [Frame(np.zeros((1, 9, 3), np.uint8), 0)], film)
    with pytest.raises(InvalidOption, match=r"\.mp4"):
        write_film(tmp_path / "c.avi", read_frames(film), film)
    with pytest.raises(StorageError, match="nowhere"):
        write_film(tmp_path / "nowhere" / "c.mp4", read_frames(film), film)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_film(tmp_path: Path) -> None:
    good = make(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "half.mp4").write_bytes(good[: len(good) // 2])
    for name in ("none.mp4", "text.mp4", "empty.mp4", "half.mp4"):
        with pytest.raises(UnreadableFile, match=name):
            list(read_frames(tmp_path / name))
    with pytest.raises(UnreadableFile):
        read_film(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(20):  # broken anywhere: frames, or that error
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 20):
            bad[place] = rng.integers(256)
        (tmp_path / "bad.mp4").write_bytes(bad)
        try:
            assert all(frame.image.ndim == 3 for frame in read_frames(tmp_path / "bad.mp4"))
        except UnreadableFile as error:
            assert "bad.mp4" in str(error)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    make(tmp_path / "a.ts")
    assert read_film(tmp_path / "a.ts").width == 98
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{tmp_path / 'a.ts'}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(UnreadableFile):
        read_film(tmp_path / "list.m3u8")


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=r"likeness\[video\]"):
        read_film(tmp_path / "a.mp4")
