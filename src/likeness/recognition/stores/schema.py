"""The tables of a gallery's file, and templates to and from their rows."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Row

APPLICATION_ID = 0x4C494B45  # "LIKE": tells our files from other SQLite databases

COLUMNS = "id, subject, code, fingerprint, quality, origin, region, created, checksum"


def checksum(id: int, subject: str, code: bytes, *rest: Any) -> int:
    """CRC-32 of a row: SQLite notices damaged pages, but not a flipped bit within a value.

    Taken over ASCII JSON, which is the same text in every Python: `repr` shows or escapes a letter as the interpreter's
    Unicode tables know it or not.
    """
    return zlib.crc32(code, zlib.crc32(json.dumps((id, subject, *rest), ensure_ascii=True).encode()))


def _checksum_1(id: int, subject: str, code: bytes, *rest: Any) -> int:
    """The checksum of schema 1."""
    return zlib.crc32(code, zlib.crc32(repr((id, subject, *rest)).encode()))


def _new_checksums(connection: sqlite3.Connection) -> None:
    """Schema 1 to 2. A row that is not what was written keeps its checksum, so that it is still found to be damaged."""
    after = 0
    while rows := connection.execute(
        f"SELECT {COLUMNS} FROM templates WHERE id > ? ORDER BY id LIMIT 4096", (after,)
    ).fetchall():
        after = rows[-1][0]
        connection.executemany(
            "UPDATE templates SET checksum = ? WHERE id = ?",
            [(checksum(*row[:-1]), row[0]) for row in rows if _matches(row, _checksum_1)],
        )


def _matches(values: tuple, function: Callable[..., int]) -> bool:
    try:
        return isinstance(values[2], bytes) and function(*values[:-1]) == values[-1]
    except TypeError:  # bytes where text was written
        return False


# One entry per schema version, each a list of statements or functions; a file is brought up to date in one transaction.
MIGRATIONS: list[tuple[str | Callable[[sqlite3.Connection], None], ...]] = [
    (
        """CREATE TABLE state (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            fingerprint TEXT,
            code_length INTEGER,
            revision INTEGER NOT NULL,
            templates INTEGER NOT NULL,
            forgotten_to INTEGER NOT NULL,  -- removals up to this revision are no longer listed in `removed`
            pending INTEGER NOT NULL  -- revision of the last deletion whose bytes may still be in the file, or 0
        )""",
        "INSERT INTO state VALUES (1, NULL, NULL, 0, 0, 0, 0)",
        """CREATE TABLE templates (
            id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, so that a mirror can trust it
            subject TEXT NOT NULL,
            code BLOB NOT NULL,  -- float32, little endian
            fingerprint TEXT NOT NULL,
            quality TEXT,
            origin TEXT NOT NULL,
            region TEXT,
            created REAL NOT NULL,
            checksum INTEGER NOT NULL
        )""",
        "CREATE TABLE removed (template INTEGER PRIMARY KEY, revision INTEGER NOT NULL)",
    ),
    (_new_checksums,),
]


def to_values(row: Row) -> tuple[str, bytes, str, str | None, str, str | None, float]:
    """The columns from `subject` to `created`."""
    code = np.ascontiguousarray(row.code, dtype="<f4").tobytes()
    origin = row.origin.encode("utf-8", "backslashreplace").decode()  # file names need not be valid Unicode
    return row.subject, code, row.fingerprint, _to_json(row.quality), origin, _to_json(row.region), float(row.created)


def from_values(values: tuple) -> Row:
    """The template of a row of `COLUMNS`; ValueError where it is not what was written."""
    if not intact(values):
        raise ValueError
    id, subject, code, fingerprint, quality, origin, region, created, _ = values
    numbers = np.frombuffer(code, dtype="<f4").astype(np.float32)
    numbers.flags.writeable = False
    return Row(subject, numbers, fingerprint, _from_json(quality), origin, _from_json(region), created, id)


def intact(values: tuple) -> bool:
    """Whether a row of `COLUMNS` is what was written."""
    return _matches(values, checksum)


def _to_json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)


def _from_json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
