"""Films in and out, frame by frame, with PyAV (the extra `likeness[video]`): upright (h, w, 3) uint8 RGB, with times.

Written is H.264 in MP4, which everything plays, whole or not at all; the sound is copied as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import InvalidOption, MissingDependency, UnreadableFile
from .files import atomic_write

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"})
"""Endings (lower case) of files that are taken for films."""

# Sound that MP4 can hold and players understand; other sound is left out, and the report says so.
_SOUNDS = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
# What the file refers to (playlists name other files and addresses) is not fetched.
_ALONE = {"protocol_whitelist": "none"}
_BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}


class Frame(NamedTuple):
    """One picture (h, w, 3) uint8 RGB, upright, and when it is shown, in units of the film's `time_base`."""

    image: np.ndarray
    time: int


@dataclass(frozen=True)
class Film:
    """What a file says of itself. width, height: upright, in pixels. fps: frames per second, on average. frames: how
    many, as far as the file knows (0: it does not). rotation: degrees by which its frames are turned to be upright.
    audio: the codec of its sound."""

    path: str
    width: int
    height: int
    fps: Fraction
    time_base: Fraction
    frames: int
    rotation: int
    audio: str | None


def read_film(path: str | os.PathLike[str]) -> Film:
    """What the file says of itself, after a look at its first frame. Raises UnreadableFile for what is no film,
    MissingDependency without PyAV."""
    with _opened(path) as container:
        stream = _video(container, path)
        with _damaged(path):
            first = next(iter(container.decode(stream)), None)
        if first is None:
            raise UnreadableFile(f"{path}: no frame can be decoded")
        rotation = first.rotation % 360
        width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
        fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        frames = int(stream.frames)
        if not frames and container.duration:
            frames = round(container.duration / 1_000_000 * fps)
        audio = container.streams.audio[0].codec_context.name if container.streams.audio else None
        return Film(os.fspath(path), width, height, fps, Fraction(stream.time_base), frames, rotation, audio)


def read_frames(film: Film | str | os.PathLike[str]) -> Iterator[Frame]:
    """The frames, one after the other. Raises as `read_film` does, in the middle where the file is damaged there."""
    film = film if isinstance(film, Film) else read_film(film)
    with _opened(film.path) as container:
        stream = _video(container, film.path)
        stream.thread_type = "AUTO"
        step = 1 / (film.fps * film.time_base)
        last = None
        frames = iter(container.decode(stream))
        while True:
            with _damaged(film.path):
                frame = next(frames, None)
            if frame is None:
                return
            time = frame.pts if frame.pts is not None else (0 if last is None else last + round(step))
            if (
                last is not None and time <= last
            ):  # two frames at one time: broken files have them, no player shows both
                continue
            last = time
            image = frame.to_ndarray(format="rgb24")
            # FFmpeg's angle is that of the frame as it lies, counter-clockwise: so much it is turned back.
            yield Frame(np.ascontiguousarray(np.rot90(image, frame.rotation // 90 % 4)), time)


def write_film(
    path: str | os.PathLike[str], frames: Iterable[Frame], film: Film, *, quality: int = 18
) -> dict[str, Any]:
    """Write `frames`, all of one size, as H.264 in MP4; odd sizes lose their last row or column.

    film: where they come from: their time base, and the sound.
    quality: x264's constant rate factor; 18 is hardly told from the original.
    Returns {"width", "height", "frames", "audio"}: audio is "copied", "none", or why it was left out. The file is there
    whole or not at all, whatever `frames` raises. Raises InvalidOption for a name that does not end in .mp4 or where
    there is no frame, StorageError.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InvalidOption(f"{path}: films are written as .mp4")
    report: dict[str, Any] = {}
    atomic_write(path, lambda file: report.update(_write(file, frames, film, quality)))
    return report


def _write(file: BinaryIO, frames: Iterable[Frame], film: Film, quality: int) -> dict[str, Any]:
    av = _av()
    count, size = 0, (0, 0)
    with av.open(file, "w", format="mp4") as container, _sound(film) as (sound, audio):
        # One thread and what all processors compute alike: the bytes do not depend on the machine. (With AVX-512
        # x264 was seen to write one film in two ways.)
        options = {"crf": str(quality), "threads": "1", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=film.fps, options=options)
        copy = container.add_stream_from_template(sound.streams.audio[0]) if sound else None
        packets = _packets(sound) if sound else iter(())
        waiting = next(packets, None)
        for image, time in frames:
            if not count:
                size = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
                if not min(size):
                    raise InvalidOption(f"a film needs at least 2 x 2 pixels, not {image.shape[1]} x {image.shape[0]}")
                stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
                stream.codec_context.time_base = film.time_base
                for name, value in _BT709.items():
                    setattr(stream.codec_context, name, value)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: size[0], : size[1]]), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = time, film.time_base
            container.mux(stream.encode(frame))
            while waiting is not None and waiting.dts * waiting.time_base <= time * film.time_base:
                waiting.stream = copy
                container.mux(waiting)
                waiting = next(packets, None)
            count += 1
        if not count:
            raise InvalidOption("a film needs at least one frame")
        container.mux(stream.encode())
        while waiting is not None:
            waiting.stream = copy
            container.mux(waiting)
            waiting = next(packets, None)
    return {"width": size[1], "height": size[0], "frames": count, "audio": audio}


@contextmanager
def _sound(film: Film) -> Iterator[tuple[Any, str]]:
    """The opened source of the sound (None where there is none to copy), and a word on it."""
    if film.audio is None:
        yield None, "none"
    elif film.audio not in _SOUNDS:
        yield None, f"left out: {film.audio} does not fit MP4"
    else:
        with _opened(film.path) as container:
            yield container, "copied"


def _packets(sound: Any) -> Iterator[Any]:
    return (packet for packet in sound.demux(sound.streams.audio[0]) if packet.dts is not None)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    av = _av()
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UnreadableFile(f"{os.fspath(path)}: {error.strerror or error}") from None
    with file:
        with _damaged(path):
            container = av.open(file, options=_ALONE)
        with container:
            yield container


def _video(container: Any, path: str | os.PathLike[str]) -> Any:
    if not container.streams.video:
        raise UnreadableFile(
            f"{path}: holds no pictures, only {', '.join(s.type for s in container.streams) or 'nothing'}"
        )
    return container.streams.video[0]


@contextmanager
def _damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (_av().error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise UnreadableFile(f"{os.fspath(path)}: not a film, or damaged: {error}") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependency(
            "reading films needs PyAV, which is not installed: pip install 'likeness[video]'"
        ) from error
    # Its log stays off, as PyAV leaves it: with any level set, FFmpeg's threads ask for Python's lock to log, and wait
    # for ever when a film is closed before its end by the thread that holds it.
    return av
