"""Films painted frame by frame, with rest where nothing moves: smoothing over time without optical flow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, WeightsError
from ..progress import Progress
from ..samples.files import atomic_write, overwritten
from ..samples.images import read_image, resized, resized_shape, write_image
from ..samples.video import Frame, read_film, read_frames, write_film
from .apply import MEMORY, Net, check, open_net, to_image, to_sample

SAME = 0.06  # a change of the input by so much (0...1) counts as movement: noise lies below, edges that move above
AROUND = 2  # pixels on each side over which a change is averaged, so that noise evens out
STROKE = 8  # pixels on each side of a change that are painted anew with it: strokes reach beyond what they show


@dataclass(frozen=True)
class StylizedVideo:
    """What `stylize_video` made. audio: "copied", "none" or why it was left out. flicker: the mean change of the
    painted picture from frame to frame where the film stands still, as a multiple of the film's own change there."""

    out: str
    width: int
    height: int
    frames: int
    audio: str
    flicker: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def stylize_video(
    net: str | os.PathLike[str],
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | None = None,
    smoothing: float = 0.8,
    checkpoint: Path | None = None,
    max_memory: int = MEMORY,
    on_progress: Progress | None = None,
) -> StylizedVideo:
    """Paint the film `path` with the net in the file `net`; write it to `out` (.mp4), with the film's sound.

    Each frame is painted by itself, then pulled towards the painted frame before it by
    `smoothing * exp(-|dI|^2 / s^2)`, dI the change of the film around that pixel, s = 0.06: all of the pull where
    nothing moves, none where something does, so that nothing leaves a ghost.

    size: the longer side of the result in pixels (default: that of the film).
    smoothing: 0 (each frame by itself) to below 1.
    checkpoint: a folder, new or empty, where painted frames are kept until the film is whole; an interrupted run goes
        on from them and ends in the bytes of the uninterrupted one. At the end they are deleted, and nothing else.
    max_memory: bytes; larger frames are refused before any work.
    on_progress: called with (done, total, {"flicker"}) after each frame; what it raises ends the run (cancel), and
        nothing half-written stays.

    Raises UnreadableFile, WeightsError, InvalidOption, StorageError, MissingDependency.
    """
    if not 0 <= smoothing < 1:
        raise InvalidOption(f"smoothing is {smoothing}; it must be from 0 to below 1")
    if found := overwritten([out], [net, path]):
        raise InvalidOption(f"{found} is one of the files that are read and would be replaced: choose another place")
    began = time.monotonic()
    opened, film = open_net(net), read_film(path)
    check(opened, resized_shape((film.height, film.width), size), max_memory)
    kept = _Kept(checkpoint, {"net": _digest(net), "film": _digest(path), "size": size, "smoothing": smoothing})
    flicker = Flicker()

    def painted() -> Iterator[Frame]:
        before: tuple[np.ndarray, np.ndarray] | None = None
        for number, frame in enumerate(read_frames(film)):
            image = resized(frame.image, size)
            result = kept.get(number)
            if result is None:
                result = _painted(opened, image, before, smoothing)
                kept.put(number, result)
            if before is not None:
                flicker.add(before[0], image, before[1], result)
            before = image, result
            yield Frame(result, frame.time)
            if on_progress:
                on_progress(number + 1, max(film.frames, number + 1), {"flicker": flicker.value})

    report = write_film(out, painted(), film)
    kept.clear(report["frames"])
    return StylizedVideo(
        str(out), **report, flicker=flicker.value if flicker.seen else None, seconds=time.monotonic() - began
    )


def _painted(net: Net, image: np.ndarray, before: tuple[np.ndarray, np.ndarray] | None, smoothing: float) -> np.ndarray:
    """The frame as the net paints it, pulled towards what was painted before where the film stands still."""
    result = net.paint(to_sample(image))
    if before is not None and smoothing:
        pull = np.float32(smoothing) * stillness(before[0], image)
        result = result + pull * (to_sample(before[1]) - result)
    return to_image(result)


def stillness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 where two frames (h, w, 3) uint8 are alike around a pixel, towards 0 where they differ: `exp(-|dI|^2/s^2)`,
    |dI|^2 the largest within a stroke's reach of the squared differences (0...1), each a mean over colours and a
    window; (h, w) float32."""
    change = _window_mean(np.square(to_sample(b) - to_sample(a)).mean((0, 1)), AROUND)
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (STROKE, STROKE)
        change = np.lib.stride_tricks.sliding_window_view(np.pad(change, width), 2 * STROKE + 1, axis).max(-1)
    return np.exp(-change / SAME**2).astype(np.float32)


def _window_mean(x: np.ndarray, reach: int) -> np.ndarray:
    """The mean of (h, w) over `reach` places on each side along both axes, by running sums; the border is repeated."""
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (reach + 1, reach)
        sums = np.pad(x, width, mode="edge").astype(np.float64).cumsum(axis)
        n = x.shape[axis]
        x = (sums.take(range(2 * reach + 1, 2 * reach + 1 + n), axis) - sums.take(range(n), axis)) / (2 * reach + 1)
    return x


@dataclass
class Flicker:
    """Adds up, frame by frame, how much film and painting change where the film stands still."""

    painting: float = 0.0
    film: float = 0.0
    seen: int = 0

    def add(self, film_a: np.ndarray, film_b: np.ndarray, painted_a: np.ndarray, painted_b: np.ndarray) -> None:
        still = stillness(film_a, film_b)[:, :, None]
        self.film += float((still * np.abs(film_b.astype(np.float32) - film_a)).mean())
        self.painting += float((still * np.abs(painted_b.astype(np.float32) - painted_a)).mean())
        self.seen += 1

    @property
    def value(self) -> float:
        """Change of the painting over change of the film; a film that stands still to the bit counts as changing by
        a tenth of a level (1/255) from frame to frame."""
        return self.painting / max(self.film, 0.1 * self.seen) if self.seen else 0.0


class _Kept:
    """Painted frames in a folder, until the film is whole; in none where `folder` is None."""

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        record = folder / "settings.json"
        if record.exists():
            theirs = _settings(record)
            if theirs.keys() != settings.keys():
                raise InvalidOption(f"{record} is not of a film that is being painted; name another folder")
            if differing := sorted(name for name in settings if theirs[name] != settings[name]):
                raise InvalidOption(
                    f"{folder} belongs to a run with another {', '.join(differing)}; delete it or name another folder"
                )
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):  # what is in it is somebody's own
            raise InvalidOption(f"{folder} holds no film that is being painted; name a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(record, json.dumps(settings).encode())

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:06}.png"

    def get(self, number: int) -> np.ndarray | None:
        return read_image(self._file(number)) if self.folder and self._file(number).exists() else None

    def put(self, number: int, image: np.ndarray) -> None:
        if self.folder:
            write_image(self._file(number), image)

    def clear(self, frames: int) -> None:
        """Delete what was kept of so many frames. The settings go last: without them the frames are nobody's."""
        if self.folder:
            for file in [*map(self._file, range(frames)), self.folder / "settings.json"]:
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is something else in it
                self.folder.rmdir()


def _settings(record: Path) -> dict[str, Any]:
    try:
        theirs = json.loads(record.read_text())
    except ValueError as error:
        raise WeightsError(f"{record} is damaged: {error}; delete it, or name another folder") from error
    return theirs if isinstance(theirs, dict) else {}


def _digest(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
