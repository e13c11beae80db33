"""A gallery's templates in one portable file: an npz of plain arrays, with what is not a number as JSON text."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CorruptGallery, FingerprintMismatch, ForeignGallery, NewerSchema, UnreadableFile
from ..samples.files import atomic_write
from .stores.base import Row, subject_name

LATEST = 253402300799  # the last second of the year 9999, the last that a date can name

FORMAT, VERSION = "likeness gallery", 1
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_rows(path: str | os.PathLike[str], rows: Sequence[Row], fingerprint: str | None) -> None:
    """Write `rows` whole or not at all: `codes` (n, d) float32 and `manifest`, UTF-8 JSON as bytes. No pickle."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint,
        "templates": [
            {
                "subject": row.subject,
                "origin": row.origin,
                "quality": row.quality,
                "region": row.region,
                "created": row.created,
            }
            for row in rows
        ],
    }
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    codes = np.stack([row.code for row in rows]) if rows else np.zeros((0, 0))
    # Codes say who somebody is, as the gallery does: for the owner's eyes only.
    atomic_write(path, lambda file: np.savez(file, codes=codes.astype("<f4"), manifest=text), mode=0o600)


def read_rows(path: str | os.PathLike[str]) -> tuple[Row, ...]:
    """The templates of a file that `write_rows` made, every value checked.

    Raises UnreadableFile (cannot be opened), ForeignGallery (not such a file), CorruptGallery (damaged), NewerSchema,
    FingerprintMismatch (templates without a fingerprint).
    """
    manifest, codes = _contents(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ForeignGallery(f"{path} is not an exported gallery")
    if not isinstance(manifest.get("version"), int) or manifest["version"] > VERSION:
        raise NewerSchema(f"{path} was exported by a newer likeness (version {manifest.get('version')}): upgrade")
    try:
        entries: list[dict[str, Any]] = manifest["templates"]
        if codes.dtype != np.float32 or codes.ndim != 2 or len(codes) != len(entries):
            raise ValueError(f"{len(entries)} templates, but codes {codes.shape} {codes.dtype}")
        if not np.all(np.abs(np.einsum("nd,nd->n", codes, codes) - 1) < 1e-3):
            raise ValueError("codes are not of unit length")
        fingerprint = manifest["fingerprint"]
        if entries and not (isinstance(fingerprint, str) and fingerprint):
            raise FingerprintMismatch(f"{path} does not say which encoder made its templates")
        if entries and not (fingerprint.isprintable() and fingerprint.isascii()):
            raise ValueError("its fingerprint is none")
        return tuple(_row(entry, code, fingerprint) for entry, code in zip(entries, codes, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorruptGallery(f"{path} is damaged: {error}") from error


def _contents(path: str | os.PathLike[str]) -> tuple[Any, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sorted(member.filename for member in members) != ["codes.npy", "manifest.npy"]:
                raise ForeignGallery(f"{path} is not an exported gallery")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ForeignGallery(f"{path} is compressed; exported galleries are not")  # hence no zip bombs
            if sum(member.file_size for member in members) > os.path.getsize(path):
                raise ValueError("it says that it is larger than it is")
            return json.loads(_array(archive, "manifest.npy").tobytes()), _array(archive, "codes.npy")
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist") from error
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        kind = CorruptGallery if _looks_like_zip(path) else ForeignGallery
        raise kind(f"{path} is not an exported gallery, or damaged ({error})") from error
    except RecursionError as error:
        raise CorruptGallery(f"{path} is damaged: its manifest is nested too deeply") from error
    except MemoryError as error:
        raise UnreadableFile(f"{path} does not fit into this machine's memory") from error
    except OSError as error:
        raise UnreadableFile(f"cannot read {path}: {error.strerror or error}") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A member of the file; what its header promises is compared with its size before anything is made of it."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} is of version {version}")
        shape, fortran, dtype = _HEADERS[version](file)
        left = archive.getinfo(name).file_size - file.tell()
        if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{name} has {left} bytes, but {shape} {dtype} is promised")
        return np.frombuffer(file.read(), dtype=dtype).reshape(shape)


def _looks_like_zip(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _row(entry: dict[str, Any], code: np.ndarray, fingerprint: str) -> Row:
    quality, region, origin, created = (entry[name] for name in ("quality", "region", "origin", "created"))
    if not (isinstance(quality, dict | None) and isinstance(region, dict | None) and isinstance(origin, str)):
        raise ValueError("a template has an origin, a quality or a region of the wrong kind")
    if not 0 <= float(created) <= LATEST:
        raise ValueError(f"a template was made at {created}, which is no time")
    return Row(subject_name(entry["subject"]), code, fingerprint, quality, origin, region, float(created))
