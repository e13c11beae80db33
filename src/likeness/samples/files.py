"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import LikenessError, StorageError


def atomic_write(path: str | os.PathLike[str], data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `data` (bytes, or a function that writes to an open binary file) so that `path` never holds half of it.

    The bytes go to a temporary name beside `path`, are flushed to the disk, and take the name in one step
    (`os.replace`). Whatever goes wrong, an older file under this name stays and the temporary file is removed.
    A symbolic link is followed. Raises StorageError where the disk or the folder refuses.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
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
        raise StorageError(f"cannot write {os.fspath(path)}: {reason} (disk full? folder read-only?)") from error


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
