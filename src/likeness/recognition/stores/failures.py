"""What SQLite's errors mean to the user."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...errors import CorruptGallery, ForeignGallery, GalleryError, StorageError

LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
DAMAGE = ("no such table", "no such column", "Could not decode to UTF-8")


def primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; Python's own errors (a closed connection) have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def named(error: sqlite3.Error, path: Path) -> GalleryError:
    """What an error of SQLite means to the user."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return CorruptGallery(f"{path} is damaged: it ends too early. Restore it from an export.")
    if code & 0xFF in LOCKED:
        return StorageError(f"{path} stays locked by another process")
    said = {
        sqlite3.SQLITE_READONLY: "cannot be written: the file or its folder is read-only",
        sqlite3.SQLITE_PERM: "cannot be opened: permission denied",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: does its folder exist, and may you write to it?",
        sqlite3.SQLITE_FULL: "cannot grow: the disk is full. Nothing was changed",
        sqlite3.SQLITE_IOERR: f"cannot be read or written ({error}): is the disk full? Nothing was changed",
    }.get(code & 0xFF)
    if said:
        return StorageError(f"{path} {said}")
    if code & 0xFF == sqlite3.SQLITE_NOTADB:
        return ForeignGallery(f"{path} is not a gallery: it is not even an SQLite database")
    # A table that is gone has SQLite's general code, text that is none has no code: the words tell.
    if code & 0xFF == sqlite3.SQLITE_CORRUPT or str(error).startswith(DAMAGE):
        return CorruptGallery(f"{path} is damaged ({error}). Restore it from an export.")
    return GalleryError(f"{path}: SQLite says: {error}")
