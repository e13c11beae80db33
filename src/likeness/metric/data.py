"""Training samples in memory: a folder of subjects, or of faces without a name, as one array of bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InvalidOption
from ..samples.folders import list_images, read_subjects
from ..samples.images import read_image

Progress = Callable[[int, int, dict], None]
UNLABELLED = -1


@dataclass(frozen=True)
class Crops:
    """Aligned crops: `images` (n, size, size, 3) uint8 RGB; `subjects` (n,) int64, -1 where nobody knows who it is."""

    images: np.ndarray
    subjects: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def where(self, keep: np.ndarray) -> Crops:
        """The crops with index or mask `keep`; subject numbers stay as they are."""
        return Crops(self.images[keep], self.subjects[keep], self.names)


def load_crops(
    folder: str | os.PathLike[str],
    unlabelled: Sequence[str | os.PathLike[str]] = (),
    *,
    size: int = 112,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Crops:
    """Decode a folder of subjects and folders of unlabelled faces, all aligned to `size` pixels already.

    With `cache` (a folder), the decoded bytes are kept there and mapped into memory the next time.
    Raises InvalidOption where a picture is not `size` x `size` (align it first: `likeness encode` shows how).
    """
    labelled = read_subjects(folder)
    names = tuple(sorted({sample.subject for sample in labelled}))
    number = {name: i for i, name in enumerate(names)}
    paths = [sample.path for sample in labelled]
    subjects = [number[sample.subject] for sample in labelled]
    more = list_images(unlabelled)
    paths += more
    subjects += [UNLABELLED] * len(more)
    return Crops(_decode(paths, size, cache, on_progress), np.array(subjects, dtype=np.int64), names)


def held_out(subjects: np.ndarray, *, every: int = 20) -> np.ndarray:
    """Mask (n,) of the samples that training never sees: all those of every `every`-th subject, by name.

    Unlabelled samples (subject -1) are not held out.
    """
    return (subjects >= 0) & (subjects % every == 0)


def _decode(paths: Sequence[Path], size: int, cache: Path | None, on_progress: Progress | None) -> np.ndarray:
    file = None
    if cache is not None:
        listing = "\n".join(f"{path} {path.stat().st_size}" for path in paths)
        file = cache / f"crops-{size}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}.npy"
        if file.exists():
            return np.load(file, mmap_mode="r")
    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)

    def decode(i: int) -> None:
        image = read_image(paths[i])
        if image.shape != (size, size, 3):
            raise InvalidOption(
                f"{paths[i]} is {image.shape[1]}x{image.shape[0]} pixels; training wants {size}x{size} aligned crops"
            )
        images[i] = image

    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(decode, range(len(paths))), 1):
            if on_progress and (done % 500 == 0 or done == len(paths)):
                on_progress(done, len(paths), {"stage": "decoding"})
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".part.npy")
        np.save(temporary, images)
        os.replace(temporary, file)
    return images
