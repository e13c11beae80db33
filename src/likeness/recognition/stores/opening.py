"""A connection to a gallery's file: found to be ours, brought up to date, or only read where nothing can be written."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ForeignGallery, NewerSchema, StorageError
from .failures import LOCKED, primary
from .schema import APPLICATION_ID, MIGRATIONS

PRAGMAS = ("secure_delete = ON", "foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY")


def connect(path: Path, *, timeout: float, place: Path | str | None = None) -> sqlite3.Connection:
    """The gallery `path` for reading and writing; `place`: what stands in for a file that does not exist yet."""
    with _closed_on_failure(sqlite3.connect(path if place is None else place, **_options(timeout))) as connection:
        _recognise(connection, path)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _migrate(connection, path, timeout)
    return connection


def connect_read_only(path: Path, *, timeout: float) -> sqlite3.Connection:
    """The gallery `path` in a folder where nothing can be written.

    A log needs two files beside the database. Where a writer keeps them there, they are used. Otherwise SQLite is told
    that the file does not change, and reads it alone; whether that is still true, `seen` tells.
    Raises StorageError where the file would have to be migrated.
    """
    alone = "" if _log(path) else "&immutable=1"
    place = f"{path.absolute().as_uri()}?mode=ro{alone}"
    with _closed_on_failure(sqlite3.connect(place, uri=True, **_options(timeout))) as connection:
        _recognise(connection, path)
        _, version, _ = _identity(connection)
        if version < len(MIGRATIONS):
            raise StorageError(
                f"{path} was written by an older likeness and its folder is read-only: copy it to another folder, "
                "where it can be brought up to date"
            )
    return connection


def seen(path: Path) -> object:
    """Something that changes when the file does, or when somebody begins to write."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, _log(path)


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _log(path: Path) -> bool:
    """Whether there is a write-ahead log beside the file with something in it."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except OSError:
        return False


def _options(timeout: float) -> dict:
    return {"timeout": timeout, "isolation_level": None, "check_same_thread": False}


@contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse files that are not ours, before a byte of them is changed."""
    application, version, tables = _identity(connection)
    if application != APPLICATION_ID and (application or version or tables):
        raise ForeignGallery(f"{path} is an SQLite database, but not a gallery of likeness")
    if version > len(MIGRATIONS):
        raise NewerSchema(f"{path} has schema {version}, this likeness knows up to {len(MIGRATIONS)}: upgrade likeness")


def _identity(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Application, schema version, number of tables: of one moment, though another process may just be making the
    file (read one by one, half of a new gallery would look like somebody else's database)."""
    moment = contextlib.nullcontext() if connection.in_transaction else transaction(connection, "BEGIN")
    with moment:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version, tables


def _migrate(connection: sqlite3.Connection, path: Path, timeout: float) -> None:
    """Bring the schema up to date in one transaction; several processes may try at once."""
    patience = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:  # SQLite does not wait by itself where the mode is to change
            if primary(error) not in LOCKED or time.monotonic() > patience:
                raise
            time.sleep(0.01)
    application, version, _ = _identity(connection)
    if application == APPLICATION_ID and version == len(MIGRATIONS):
        return
    with transaction(connection, "BEGIN IMMEDIATE"):
        _recognise(connection, path)
        _, version, _ = _identity(connection)
        for steps in MIGRATIONS[version:]:
            for step in steps:
                step(connection) if callable(step) else connection.execute(step)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
