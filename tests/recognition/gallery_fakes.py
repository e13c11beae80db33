"""An encoder without a net: the code of a source is a fixed function of its text, so that tests know every answer.

A source "ada/3" is the third photograph of Ada: her own direction plus a little of the photograph's. "none" has no
face, "broken" cannot be read, "ada/1+bob/2" shows two people.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from likeness.errors import UnreadableFile
from likeness.recognition.calibration import Calibration, fit
from likeness.recognition.encoder import Encoding, Template

RAM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where a commit does not wait for a disk


def folder() -> tempfile.TemporaryDirectory:
    """A new folder for galleries, in memory if there is such a place: hundreds of commits are tested."""
    return tempfile.TemporaryDirectory(prefix="likeness-", dir=RAM)


def direction(text: str, length: int = 32) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "little")
    code = np.random.default_rng(seed).standard_normal(length)
    return code / np.linalg.norm(code)


def code_of(text: str, length: int = 32) -> np.ndarray:
    """The unit code (length,) float32 of one photograph."""
    person, _, photo = text.partition("/")
    code = direction(person, length) + 0.3 * direction(f"{person}/{photo}", length)
    return (code / np.linalg.norm(code)).astype(np.float32)


class FakeEncoder:
    name = "fake"

    def __init__(
        self, fingerprint: str = "f" * 16, code_length: int = 32, calibration: Calibration | None = None
    ) -> None:
        self.fingerprint = fingerprint
        self.code_length = code_length
        self.calibration = calibration

    def encode(self, source: Any) -> Encoding:
        text = self._read(source)
        if text == "none":
            return Encoding((), ("no face",))
        return Encoding(tuple(self._template(part, str(source)) for part in text.split("+")))

    def encode_one(self, source: Any) -> Encoding:
        encoding = self.encode(source)
        return Encoding((), ("several faces",)) if len(encoding.templates) > 1 else encoding

    def encode_many(self, sources: Sequence[Any], on_progress: Any = None) -> Iterator[Encoding]:
        for source in sources:
            try:
                yield self.encode_one(source)
            except UnreadableFile:
                yield Encoding((), ("unreadable file",))

    def _read(self, source: Any) -> str:
        text = source.read_text() if isinstance(source, Path) else str(source)
        if text == "broken":
            raise UnreadableFile(f"{source} cannot be read")
        return text

    def _template(self, text: str, origin: str) -> Template:
        code = code_of(text, self.code_length)
        quality = {"size": 100.0, "sharpness": float(abs(code[0]))}
        return Template(code, self.fingerprint, quality, origin, {"box": [1.0, 2.0, 3.0, 4.0], "score": 0.9})


def people(count: int, photos: int, length: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes (count * photos, length) float32 of random people, and whose they are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, length))
    codes = np.repeat(centres, photos, axis=0) + 0.5 * rng.standard_normal((count * photos, length))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return codes.astype(np.float32), np.repeat(np.arange(count), photos)


def calibrated(fingerprint: str = "f" * 16, length: int = 32) -> FakeEncoder:
    """A fake encoder with a calibration on 300 people."""
    codes, subjects = people(300, 2, length)
    return FakeEncoder(fingerprint, length, fit(codes, subjects, fingerprint))
