"""Templates in one SQLite file that several processes may read and write at once.

One table holds the people, one row per template, so that nothing about a person is anywhere else (no index, no second
table to keep in step). Every row has a checksum; the number of rows and a revision are in a table of one row, which
each write transaction updates. WAL lets readers go on while somebody writes; a commit is on the disk when the call
returns.

Deleting leaves traces in an ordinary SQLite file. Here: `secure_delete` overwrites what is deleted, VACUUM rewrites the
pages (moving cells about leaves copies in the gaps of pages, which secure_delete does not reach), and a truncating
checkpoint empties the write-ahead log. Where another process keeps that from finishing, the file remembers, and
whoever opens it next, or deletes again, finishes the work.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import (
    CorruptGallery,
    FingerprintMismatch,
    ForeignGallery,
    GalleryError,
    NewerSchema,
    StorageError,
    SubjectNotFound,
    TemplateNotFound,
)
from .base import Changes, Row, State
from .schema import APPLICATION_ID, COLUMNS, MIGRATIONS, checksum, from_values, intact, to_values

BATCH = 4096
KEPT_REMOVALS = 100_000  # numbers of removed templates kept for mirrors to catch up; an older mirror reads all again
_TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class SqliteStore:
    """The store in the file `path`, made (for its owner's eyes only) if it does not exist.

    Threads may share it; so may forked processes. `timeout`: seconds to wait for other processes before StorageError.
    Raises ForeignGallery (not a gallery), NewerSchema, CorruptGallery, StorageError (cannot be opened, read-only).
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._inherited: list[sqlite3.Connection] = []
        with self._use() as connection:
            if self._read_state(connection).pending:
                self._wipe(connection, patience=min(1.0, timeout))

    def state(self) -> State:
        with self._use() as connection:
            return self._read_state(connection)

    def add(self, rows: Sequence[Row]) -> tuple[tuple[int, ...], int]:
        prepared = [to_values(row) for row in rows]  # outside of the transaction: it must be short
        prints = {(row.fingerprint, len(row.code)) for row in rows}
        with self._write() as connection:
            state = self._read_state(connection)
            if state.fingerprint is not None:
                prints.add((state.fingerprint, int(state.code_length or 0)))
            if len(prints) > 1:
                names = " and ".join(sorted(f"{name} (codes of {length})" for name, length in prints))
                raise FingerprintMismatch(
                    f"{self.path}: templates of two encoders cannot be compared: {names}. "
                    "Use the encoder that the gallery was made with, or start a new gallery."
                )
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
            ids = tuple(range(last + 1, last + 1 + len(rows)))
            connection.executemany(
                f"INSERT INTO templates ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((id, *values, checksum(id, *values)) for id, values in zip(ids, prepared, strict=True)),
            )
            for fingerprint, length in prints:  # one at most
                connection.execute(
                    "UPDATE state SET revision = revision + 1, templates = templates + ?, "
                    "fingerprint = ?, code_length = ?",
                    (len(ids), fingerprint, length),
                )
            revision = self._read_state(connection).revision
        return ids, revision

    def rows(self, subject: str | None = None) -> Iterator[Row]:
        where, wanted = ("1", ()) if subject is None else ("subject = ?", (subject,))
        with self._use() as connection:  # one statement, hence one snapshot
            found = connection.execute(f"SELECT {COLUMNS} FROM templates WHERE {where} ORDER BY id", wanted).fetchall()
        for values in found:
            try:
                yield from_values(values)
            except ValueError:
                raise self._altered(values[0]) from None

    def changes(self, revision: int, last_id: int) -> Changes:
        with self._use() as connection, _transaction(connection, "BEGIN"):  # one snapshot for all reads
            state = self._read_state(connection)
            (known_from,) = connection.execute("SELECT forgotten_to FROM state").fetchone()
            everything = revision < known_from or revision > state.revision
            empty = np.zeros(0, dtype=np.int64)
            if revision == state.revision:
                return Changes(state, False, empty, [], np.zeros((0, state.code_length or 0), np.float32), empty)
            removed = connection.execute("SELECT template FROM removed WHERE revision > ?", (revision,)).fetchall()
            ids, subjects, codes = self._added(connection, 0 if everything else last_id, state)
        gone = np.array([id for (id,) in removed], dtype=np.int64)
        return Changes(state, everything, ids, subjects, codes, empty if everything else gone)

    def forget(self, subject: str) -> tuple[int, bool, int]:
        missing = SubjectNotFound(f"{self.path}: nobody called {subject!r} is enrolled")
        return self._delete("subject = ?", subject, missing)

    def remove(self, id: int) -> tuple[int, bool, int]:
        return self._delete("id = ?", id, TemplateNotFound(f"{self.path}: there is no template {id}"))

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files_of(self.path) if file.exists())

    @staticmethod
    def files_of(path: Path) -> tuple[Path, ...]:
        """The file, and the two that SQLite keeps beside it while it is open."""
        return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))

    def check(self) -> None:
        with self._use() as connection:
            complaints = [line for (line,) in connection.execute("PRAGMA integrity_check")]
            if complaints != ["ok"]:
                said = "; ".join(complaints[:3])
                raise CorruptGallery(f"{self.path} is damaged: {said}. Restore it from an export.")
        self.changes(-1, 0)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._process == os.getpid():
                with self._named_errors():
                    connection.close()

    # Below: connections, transactions, errors.

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; opened again after a fork."""
        with self._lock, self._named_errors():
            if self._connection is None or self._process != os.getpid():
                if self._connection is not None:
                    # The parent's: SQLite forbids to use it here, and even to close it. Keep it from the collector.
                    self._inherited.append(self._connection)
                self._connection, self._process = self._open(), os.getpid()
            yield self._connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._use() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _named(error, self.path) from error

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StorageError(f"{self.path} is a folder, not a gallery")
        with contextlib.suppress(OSError):  # what is wrong with the path, SQLite says itself
            if 0 < self.path.stat().st_size < 512:  # less than any page; SQLite would take it for empty
                raise ForeignGallery(f"{self.path} is not a gallery, or was cut off")
        with contextlib.suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        try:
            self._recognise(connection)
            for pragma in ("secure_delete = ON", "foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _recognise(self, connection: sqlite3.Connection) -> None:
        """Refuse files that are not ours, before a byte of them is changed."""
        application, version, tables = self._identity(connection)
        if application != APPLICATION_ID and (application or version or tables):
            raise ForeignGallery(f"{self.path} is an SQLite database, but not a gallery of likeness")
        if version > len(MIGRATIONS):
            raise NewerSchema(
                f"{self.path} has schema {version}, this likeness knows up to {len(MIGRATIONS)}: upgrade likeness"
            )

    def _identity(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return application, version, tables

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the schema up to date in one transaction; several processes may try at once."""
        patience = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait by itself where the mode is to change
                if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                    raise
                time.sleep(0.01)
        application, version, _ = self._identity(connection)
        if application == APPLICATION_ID and version == len(MIGRATIONS):
            return
        with _transaction(connection, "BEGIN IMMEDIATE"):
            self._recognise(connection)
            _, version, _ = self._identity(connection)
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _read_state(self, connection: sqlite3.Connection) -> State:
        columns = "revision, templates, pending, coalesce(code_length, 0), fingerprint"
        found = connection.execute(f"SELECT {columns} FROM state").fetchone()
        if found is None or not all(isinstance(value, int) for value in found[:4]):
            raise CorruptGallery(f"{self.path} is damaged: its state is missing. Restore it from an export.")
        revision, templates, pending, length, fingerprint = found
        return State(fingerprint, length or None, revision, templates, bool(pending))

    def _delete(self, where: str, value: Any, missing: GalleryError) -> tuple[int, bool, int]:
        with self._write() as connection:
            ids = connection.execute(f"SELECT id FROM templates WHERE {where}", (value,)).fetchall()
            if not ids:
                raise missing
            connection.executemany("DELETE FROM templates WHERE id = ?", ids)
            connection.execute(
                "UPDATE state SET revision = revision + 1, templates = templates - ?, pending = revision + 1",
                (len(ids),),
            )
            revision = self._read_state(connection).revision
            connection.executemany("INSERT INTO removed VALUES (?, ?)", [(id, revision) for (id,) in ids])
            self._prune(connection)
        with self._use() as connection:
            complete = self._wipe(connection, patience=min(5.0, self.timeout))
        return len(ids), complete, revision

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Keep the list of removals short: drop the older half, with the revision up to which it no longer speaks."""
        (count,) = connection.execute("SELECT count(*) FROM removed").fetchone()
        if count > KEPT_REMOVALS:
            (middle,) = connection.execute(
                "SELECT revision FROM removed ORDER BY revision LIMIT 1 OFFSET ?", (count // 2,)
            ).fetchone()
            connection.execute("DELETE FROM removed WHERE revision <= ?", (middle,))
            connection.execute("UPDATE state SET forgotten_to = ?", (middle,))

    def _wipe(self, connection: sqlite3.Connection, *, patience: float) -> bool:
        """Get deleted bytes out of the file and its log; False where somebody reads an older state and goes on."""
        connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        try:
            (pending,) = connection.execute("SELECT pending FROM state").fetchone()
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                return False
            # Whoever deleted something meanwhile has written a newer revision here, and wipes for himself.
            connection.execute("UPDATE state SET pending = 0 WHERE pending <= ?", (pending,))
        except sqlite3.OperationalError as error:
            if _primary(error) in _TRANSIENT:
                return False  # the deletion itself is committed; only its traces are still to go
            raise
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self.timeout * 1000)}")
        return True

    def _altered(self, id: int) -> CorruptGallery:
        return CorruptGallery(f"{self.path} is damaged: template {id} was altered. Restore it from an export.")

    def _added(
        self, connection: sqlite3.Connection, after: int, state: State
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Ids, subjects and codes of the rows after an id; every row's checksum is looked at."""
        ids: list[int] = []
        subjects: list[str] = []
        blocks = [np.zeros((0, state.code_length or 0), dtype=np.float32)]
        cursor = connection.execute(f"SELECT {COLUMNS} FROM templates WHERE id > ? ORDER BY id", (after,))
        width = 4 * (state.code_length or 0)
        while found := cursor.fetchmany(BATCH):
            for values in found:
                if not intact(values) or values[3] != state.fingerprint or len(values[2]) != width:
                    raise self._altered(values[0])
                ids.append(values[0])
                subjects.append(values[1])
            codes = np.frombuffer(b"".join(values[2] for values in found), dtype="<f4")
            blocks.append(codes.astype(np.float32).reshape(len(found), -1))
        if after == 0 and len(ids) != state.templates:
            raise CorruptGallery(
                f"{self.path} is damaged: {len(ids)} templates found of {state.templates}. Restore it from an export."
            )
        return np.array(ids, dtype=np.int64), subjects, np.concatenate(blocks)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; Python's own errors (a closed connection) have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _named(error: sqlite3.Error, path: Path) -> GalleryError:
    """What an error of SQLite means to the user."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return CorruptGallery(f"{path} is damaged: it ends too early. Restore it from an export.")
    said = {
        sqlite3.SQLITE_BUSY: "stays locked by another process",
        sqlite3.SQLITE_LOCKED: "stays locked by another process",
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
    return CorruptGallery(f"{path} is damaged ({error}). Restore it from an export.")
