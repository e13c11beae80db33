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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...errors import (
    CorruptGallery,
    FingerprintMismatch,
    ForeignGallery,
    GalleryError,
    InvalidOption,
    StorageError,
    SubjectNotFound,
    TemplateNotFound,
)
from ..naming import encoder_called
from .base import Added, Changes, Deleted, Row, State
from .failures import LOCKED, named, primary
from .opening import connect, connect_read_only, seen, transaction
from .schema import COLUMNS, checksum, from_values, intact, to_values

BATCH = 4096
KEPT_REMOVALS = 100_000  # numbers of removed templates kept for mirrors to catch up; an older mirror reads all again
_MEMORY = ":memory:"  # SQLite's word for a database without a file


class SqliteStore:
    """The store in the file `path`, made (for its owner's eyes only) if it does not exist.

    Threads may share it; so may forked processes. `timeout`: seconds to wait for other processes before StorageError.
    `create_empty=False`: a file that does not exist is made when the first template is kept, and not before.
    In a folder that cannot be written the file can still be read; writing then raises StorageError.
    Raises ForeignGallery (not a gallery), NewerSchema, CorruptGallery, StorageError (cannot be opened),
    InvalidOption (":memory:": SQLite would keep nothing).
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0, create_empty: bool = True) -> None:
        self.path = Path(path)
        self.timeout = timeout
        if str(self.path) == _MEMORY:
            raise InvalidOption(
                f"a gallery is a file; {_MEMORY} is not one: give a path, in a temporary folder if need be"
            )
        self._create = create_empty
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._seen: object = None  # of a file in a folder that cannot be written: what it was when it was opened
        self._process = 0
        self._inherited: list[sqlite3.Connection] = []
        with self._use() as connection:
            if self._read_state(connection).pending:
                self._wipe(connection, patience=min(1.0, timeout))

    def state(self) -> State:
        with self._use() as connection:
            return self._read_state(connection)

    def add(self, rows: Sequence[Row]) -> Added:
        prepared = [to_values(row) for row in rows]  # outside of the transaction: it must be short
        prints = {(row.fingerprint, len(row.code)) for row in rows}
        with self._lock:
            if not self._create:
                self.close()  # what stood in for the missing file
                self._create = True
        with self._write() as connection:
            state = self._read_state(connection)
            if state.fingerprint is not None:
                prints.add((state.fingerprint, int(state.code_length or 0)))
            if len(prints) > 1:
                names = " and ".join(sorted(f"{encoder_called(name)}, codes of {length}" for name, length in prints))
                raise FingerprintMismatch(
                    f"{self.path}: templates of two encoders cannot be compared: {names}. "
                    "Use the encoder that the gallery was made with, or start a new gallery."
                )
            present = self._present(connection, prepared)
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
            new: list[tuple] = []
            known: list[int] = []
            for values in prepared:
                if (id := present.get(values[:3])) is not None:
                    known.append(id)
                    continue
                last += 1
                present[values[:3]] = last  # a row given twice is new once
                new.append((last, *values, checksum(last, *values)))
            if not new:
                return Added((), tuple(known), state.revision)
            connection.executemany(
                f"INSERT INTO templates ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                new,
            )
            ((fingerprint, length),) = prints
            connection.execute(
                "UPDATE state SET revision = revision + 1, templates = templates + ?, fingerprint = ?, code_length = ?",
                (len(new), fingerprint, length),
            )
            return Added(tuple(values[0] for values in new), tuple(known), self._read_state(connection).revision)

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
        with self._use() as connection, transaction(connection, "BEGIN"):  # one snapshot for all reads
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

    def forget(self, subject: str) -> Deleted:
        def find(connection: sqlite3.Connection) -> list[int]:
            found = connection.execute("SELECT id FROM templates WHERE subject = ?", (subject,)).fetchall()
            if not found:
                raise SubjectNotFound(f"{self.path}: nobody called {subject!r} is enrolled")
            return [id for (id,) in found]

        return self._delete(find)

    def remove(self, ids: Sequence[int]) -> Deleted:
        def find(connection: sqlite3.Connection) -> list[int]:
            look = "SELECT 1 FROM templates WHERE id = ?"
            wanted = list(dict.fromkeys(ids))
            # SQLite's integers have 64 bits; no template has a larger number.
            missing = [id for id in wanted if id.bit_length() > 63 or not connection.execute(look, (id,)).fetchone()]
            if missing:
                named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                raise TemplateNotFound(f"{self.path}: there is no template {named}; nothing was removed")
            return wanted

        return self._delete(find)

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
            connection, self._connection, self._seen = self._connection, None, None
            if connection is not None and self._process != os.getpid():
                self._inherited.append(connection)  # the parent's, as in `_use`
            elif connection is not None:
                with self._named_errors():
                    connection.close()

    # Below: connections, transactions, errors.

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; opened again after a fork."""
        with self._lock, self._named_errors():
            if self._seen is not None and self._seen != seen(self.path):  # somebody else can write, and did
                self.close()
            if self._connection is None or self._process != os.getpid():
                if self._connection is not None:
                    # The parent's: SQLite forbids to use it here, and even to close it. Keep it from the collector.
                    self._inherited.append(self._connection)
                self._connection, self._process = self._open(), os.getpid()
            yield self._connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._use() as connection, transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise named(error, self.path) from error

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StorageError(f"{self.path} is a folder, not a gallery")
        if not self._create and not self.path.exists():
            if not self.path.parent.is_dir():
                raise StorageError(f"{self.path} cannot be made: there is no folder {self.path.parent}")
            return connect(self.path, place=_MEMORY, timeout=self.timeout)  # empty, until something is to be kept
        with contextlib.suppress(OSError):  # what is wrong with the path, SQLite says itself
            if 0 < self.path.stat().st_size < 512:  # less than any page; SQLite would take it for empty
                raise ForeignGallery(f"{self.path} is not a gallery, or was cut off")
        if self.path.exists() and not os.access(self.path.parent, os.W_OK):
            self._seen = seen(self.path)
            return connect_read_only(self.path, timeout=self.timeout)
        with contextlib.suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        return connect(self.path, timeout=self.timeout)

    def _read_state(self, connection: sqlite3.Connection) -> State:
        columns = "revision, templates, pending, coalesce(code_length, 0), fingerprint"
        found = connection.execute(f"SELECT {columns} FROM state").fetchone()
        if found is None or not all(isinstance(value, int) for value in found[:4]):
            raise CorruptGallery(f"{self.path} is damaged: its state is missing. Restore it from an export.")
        revision, templates, pending, length, fingerprint = found
        return State(fingerprint, length or None, revision, templates, bool(pending))

    def _present(self, connection: sqlite3.Connection, prepared: Sequence[tuple]) -> dict[tuple, int]:
        """Ids of templates with the subject, code and fingerprint of one of `prepared`.

        There is no index that would hold a person's data a second time, so this looks at the whole table: some
        milliseconds per ten thousand templates.
        """
        wanted = {values[:3] for values in prepared}
        subjects = {values[0] for values in prepared}
        only = subjects.pop() if len(subjects) == 1 else None
        found = connection.execute(
            "SELECT id, subject, code, fingerprint FROM templates WHERE ?1 IS NULL OR subject = ?1 ORDER BY id DESC",
            (only,),
        )
        return {
            key: id for id, *values in found if (key := tuple(values)) in wanted
        }  # the oldest, if several are equal

    def _delete(self, find: Callable[[sqlite3.Connection], list[int]]) -> Deleted:
        with self._write() as connection:
            ids = [(id,) for id in find(connection)]
            connection.executemany("DELETE FROM templates WHERE id = ?", ids)
            connection.execute(
                "UPDATE state SET revision = revision + 1, templates = templates - ?, pending = revision + 1",
                (len(ids),),
            )
            revision = self._read_state(connection).revision
            connection.executemany("INSERT INTO removed VALUES (?, ?)", [(id, revision) for (id,) in ids])
            self._prune(connection)
        try:
            with self._use() as connection:
                hindrance = self._wipe(connection, patience=min(5.0, self.timeout))
        except GalleryError as error:  # the deletion holds; only its traces are still to go
            hindrance = str(error)
        return Deleted(len(ids), revision, hindrance)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Keep the list of removals short: drop the older half, with the revision up to which it no longer speaks."""
        (count,) = connection.execute("SELECT count(*) FROM removed").fetchone()
        if count > KEPT_REMOVALS:
            (middle,) = connection.execute(
                "SELECT revision FROM removed ORDER BY revision LIMIT 1 OFFSET ?", (count // 2,)
            ).fetchone()
            connection.execute("DELETE FROM removed WHERE revision <= ?", (middle,))
            connection.execute("UPDATE state SET forgotten_to = ?", (middle,))

    def _wipe(self, connection: sqlite3.Connection, *, patience: float) -> str:
        """Get deleted bytes out of the file and its log; what kept it from that, "" where nothing did."""
        reading = "another process is reading an older state"
        connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        try:
            (pending,) = connection.execute("SELECT pending FROM state").fetchone()
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                return reading
            # Whoever deleted something meanwhile has written a newer revision here, and wipes for himself.
            connection.execute("UPDATE state SET pending = 0 WHERE pending <= ?", (pending,))
        except sqlite3.Error as error:
            if primary(error) in LOCKED:
                return reading
            return "the disk is full" if primary(error) == sqlite3.SQLITE_FULL else str(error)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self.timeout * 1000)}")
        return ""

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
