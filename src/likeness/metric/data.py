"""Training samples in memory: a folder of subjects, or of faces without a name, as one array of bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import InvalidOption, UnreadableFile
from ..nets.engine import cpu_quota
from ..progress import Progress
from ..samples.files import atomic_write
from ..samples.folders import list_images, read_subjects
from ..samples.images import read_image

Align = Callable[[np.ndarray], "np.ndarray | None"]
"""From a photograph (h, w, 3) uint8 RGB to the aligned crop of the one it is of; None where that is not clear."""
UNLABELLED = -1


@dataclass(frozen=True)
class Crops:
    """Aligned crops: `images` (n, size, size, 3) uint8 RGB; `subjects` (n,) int64, -1 where nobody knows who it is.

    `images` may be a file mapped into memory. `skipped`: photographs without one clear face, which are not among them.
    """

    images: np.ndarray
    subjects: np.ndarray
    names: tuple[str, ...]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def where(self, keep: np.ndarray) -> Crops:
        """The crops with index or mask `keep`, copied into memory; subject numbers stay as they are.

        For a large part of a mapped file, keep its row numbers instead and index `images` with some at a time.
        """
        return Crops(self.images[keep], self.subjects[keep], self.names)


def load_crops(
    folder: str | os.PathLike[str],
    unlabelled: Sequence[str | os.PathLike[str]] = (),
    *,
    size: int = 112,
    align: Align | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Crops:
    """Decode a folder of subjects and folders of unlabelled faces.

    A picture of `size` x `size` pixels is taken as an aligned crop. Any other goes through `align`
    (`likeness.faces.cropping.crop_of_one`); photographs for which that gives None are skipped and counted. With
    `cache` (a folder), the crops are kept there and mapped into memory the next time.
    Raises InvalidOption where a picture has another size and there is no `align`, or where all were skipped.
    """
    labelled = read_subjects(folder)
    names = tuple(sorted({sample.subject for sample in labelled}))
    number = {name: i for i, name in enumerate(names)}
    paths = [sample.path for sample in labelled]
    subjects = [number[sample.subject] for sample in labelled]
    more = list_images(unlabelled)
    paths += more
    subjects += [UNLABELLED] * len(more)
    images, kept = _decode(paths, size, align, cache, on_progress)
    if not len(kept):
        raise InvalidOption(f"none of the {len(paths)} photographs in {folder} shows one clear face")
    return Crops(images, np.array(subjects, dtype=np.int64)[kept], names, len(paths) - len(kept))


def content_key(images: np.ndarray, model: Path) -> str:
    """16 hex digits that change with any byte of `images` or of the file `model`: names of files of what it made of
    them. Reads everything: seconds per GB."""
    digest = hashlib.sha256(model.read_bytes())
    digest.update(f"{images.shape} {images.dtype}".encode())
    for first in range(0, len(images), 1024):  # not all at once: they may be a file larger than the memory
        digest.update(np.ascontiguousarray(images[first : first + 1024]).data)
    return digest.hexdigest()[:16]


def held_out(subjects: np.ndarray, *, every: int = 20) -> np.ndarray:
    """Mask (n,) of the samples that training never sees: all those of every `every`-th subject, by name.

    Unlabelled samples (subject -1) are not held out.
    """
    return (subjects >= 0) & (subjects % every == 0)


def _decode(
    paths: Sequence[Path], size: int, align: Align | None, cache: Path | None, on_progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Crops (n, size, size, 3) and which of `paths` they are of (n,)."""
    file = rows = None
    if cache is not None:
        maker = f"{__version__} {getattr(align, '__module__', '')}.{getattr(align, '__qualname__', '')}"
        listing = "\n".join([maker, *(f"{path} {_state(path)}" for path in paths)])
        file = cache / f"crops-{size}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}.npy"
        rows = file.with_suffix(".rows.npy")  # only where some were skipped
        if file.exists():
            images = np.load(file, mmap_mode="r")
            kept = np.load(rows) if rows.exists() else np.arange(len(paths))
            if len(images) == len(kept):
                return images, kept
    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)

    def decode(i: int) -> bool:
        crop = _crop(paths[i], size, align)
        if crop is not None:
            images[i] = crop
        return crop is not None

    found = np.zeros(len(paths), dtype=bool)
    with ThreadPoolExecutor(cpu_quota(), thread_name_prefix="likeness-read") as pool:
        for i, one in enumerate(pool.map(decode, range(len(paths)))):
            found[i] = one
            if on_progress and ((i + 1) % 500 == 0 or i + 1 == len(paths)):
                skipped = i + 1 - int(found[: i + 1].sum())
                on_progress(i + 1, len(paths), {"stage": "decoding", "skipped": skipped})
    kept = np.flatnonzero(found)
    if not found.all():
        images = images[kept]
    if file is not None and rows is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.unlink(missing_ok=True)
        if not found.all():
            atomic_write(rows, lambda stream: np.save(stream, kept))
        atomic_write(file, lambda stream: np.save(stream, images))
    return images, kept


def _state(path: Path) -> str:
    """What changes with a file's content."""
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror or error}") from error
    return f"{found.st_size} {found.st_mtime_ns}"


def _crop(path: Path, size: int, align: Align | None) -> np.ndarray | None:
    image = read_image(path)
    if image.shape == (size, size, 3):
        return image
    if align is None:
        raise InvalidOption(
            f"{path} is {image.shape[1]}x{image.shape[0]} pixels; training wants aligned crops of {size}x{size}. "
            "To cut photographs to such crops, pass align=likeness.faces.cropping.crop_of_one"
        )
    crop = align(image)
    if crop is not None and crop.shape != (size, size, 3):
        raise InvalidOption(f"align made {crop.shape[1]}x{crop.shape[0]} pixels of {path}; they must be {size}x{size}")
    return crop
