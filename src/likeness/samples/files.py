"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import LikenessError, StorageError, WeightsError


def atomic_write(
    path: str | os.PathLike[str], data: bytes | Callable[[BinaryIO], object], *, mode: int | None = None
) -> None:
    """Write `data` (bytes, or a function that writes to an open binary file) so that `path` never holds half of it.

    The bytes go to a temporary name beside `path`, are flushed to the disk, and take the name in one step
    (`os.replace`). Whatever goes wrong, an older file under this name stays and the temporary file is removed.
    A symbolic link is followed. `mode`: the file's permission bits (0o600: for its owner only); by default those of the
    file that it replaces, or what is usual for a new one. Raises StorageError where the disk or the folder refuses.
    """
    target = Path(os.path.realpath(path))
    _check_kind(path)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            if mode is None and target.is_file():
                mode = stat.S_IMODE(target.stat().st_mode)
            # Made for its owner only, where it is not for everybody: nobody can open it before the mode is set.
            first = 0o666 if mode is None else 0o600
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, first)) as file:
                if mode is not None:
                    with contextlib.suppress(OSError):  # a file system without permissions
                        os.chmod(temporary, mode)
                if callable(data):
                    data(file)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except LikenessError:  # some are OSErrors too, from `data`: they say best what happened
        raise
    except OSError as error:
        reason = error.strerror or error
        hint = "" if target.parent.is_dir() else "; there is no folder " + os.fspath(target.parent)
        raise StorageError(f"cannot write {os.fspath(path)}: {reason}{hint}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises StorageError, before long work, where a file could not be written to `path`."""
    _check_kind(path)
    if not os.access(Path(os.path.realpath(path)).parent, os.W_OK):
        raise StorageError(f"cannot write {os.fspath(path)}: there is no such folder, or it is read-only")


def writable(path: str | os.PathLike[str]) -> Path:
    """`path`, whose folder is there now and lets a file be written. Raises StorageError, before long work."""
    out = Path(path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder of {out}: {error.strerror or error}") from error
    check_writable(out)
    return out


def overwritten(
    targets: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]
) -> str | os.PathLike[str] | None:
    """The first of `targets` that is the same file as one of `inputs`, by whatever name or link; None where none is."""
    taken = {_identity(path) for path in inputs}
    return next((path for path in targets if _identity(path) in taken), None)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Of the bytes of a file, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_kind(path: str | os.PathLike[str]) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise StorageError(f"cannot write {os.fspath(path)}: it is {what}, not a file")


def _identity(path: str | os.PathLike[str]) -> object:
    try:
        found = os.stat(path)
    except OSError:  # not there yet
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut; not every system lets a folder be opened (Windows does not)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


@contextlib.contextmanager
def reading_safetensors(path: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong within, while the safetensors file `path` is read, is a WeightsError."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
