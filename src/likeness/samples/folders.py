"""Folders of pictures, and folders of subjects: `people/NAME/*.jpg` or `people/NAME.jpg`."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnreadableFile
from .images import SUFFIXES


@dataclass(frozen=True)
class Sample:
    """One picture of one subject."""

    subject: str
    path: Path

    def to_dict(self) -> dict[str, str]:
        return {"subject": self.subject, "path": str(self.path)}


def list_images(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str], *, must_exist: bool = True
) -> list[Path]:
    """The pictures that `paths` name: files as they are, in the order given; folders with all below them, sorted.

    In folders, files whose names end in one of `SUFFIXES` count; hidden files and folders do not. A picture named twice
    comes once. A path that does not exist raises `UnreadableFile`, unless `must_exist` is False: then it is kept, for
    the reader to complain of, and the others are not lost. A folder without a picture gives nothing.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    paths = list(paths)
    if any(
        str(path) == "" for path in paths
    ):  # an unset variable in a shell; Path("") would be the whole present folder
        raise UnreadableFile("an empty name is not a picture (an unset variable?); the present folder is '.'")
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found.update(dict.fromkeys(_below(path)))
        elif os.path.lexists(path) or not must_exist:
            found[path] = None
        else:
            raise UnreadableFile(f"{path}: no such file or folder")
    return list(found)


def read_subjects(folder: str | os.PathLike[str]) -> list[Sample]:
    """Every picture of a folder of subjects, sorted by subject, then by path.

    `folder/NAME/…` (at any depth) belongs to NAME, and so does `folder/NAME.jpg`. Names are brought to Unicode's
    composed form (NFC), so that "José" copied from a Mac is the same person. A folder without any picture raises
    `UnreadableFile`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise UnreadableFile(f"{folder}: {what}; subjects are folder/NAME/*.jpg or folder/NAME.jpg")
    samples = []
    for path in _visible(folder):
        if path.is_dir():
            samples += [Sample(_name(path.name), picture) for picture in _below(path)]
        elif is_picture(path):
            samples.append(Sample(_name(path.stem), path))
    if not samples:
        raise UnreadableFile(f"{folder}: no pictures found; subjects are folder/NAME/*.jpg or folder/NAME.jpg")
    return sorted(samples, key=lambda sample: (sample.subject, sample.path))


def _below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:  # a folder that cannot be listed must not look like an empty one
        raise UnreadableFile(f"{error.filename}: {error.strerror}") from None

    pictures = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        pictures += [Path(parent, name) for name in files if is_picture(Path(name))]
    return sorted(pictures)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UnreadableFile(f"{folder}: {error.strerror}") from None


def is_picture(path: Path) -> bool:
    """By its name: one of `SUFFIXES`, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _name(text: str) -> str:
    return unicodedata.normalize("NFC", text)
