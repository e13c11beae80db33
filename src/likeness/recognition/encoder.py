"""A photograph to templates: faces found, looked at, aligned and coded; what is not good enough gives a reason instead.

An expected outcome (no face, too small a face) is a value: an `Encoding` without templates that says why.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import FingerprintMismatch, InvalidOption, UnreadableFile, WeightsError
from ..faces import cropping
from ..faces.alignment import align
from ..faces.detection import Detector
from ..faces.turning import either_way, upright
from ..faces.types import Face, Quality
from ..nets import catalogue
from ..nets.engine import Engine, cpu_quota
from ..nets.probing import encode_batch
from ..progress import Progress
from ..samples.images import ImageSource, read_image

if TYPE_CHECKING:
    from .calibration import Calibration


BATCH = 16  # crops per run of the net: larger ones gain nothing on a CPU and cost memory
_END: Any = object()  # None may be among the sources, and is then refused like any other thing that is no picture


@dataclass(frozen=True)
class Limits:
    """What a face must reach to be coded; below it there is a reason instead of a template.

    `size`: px of the shorter side of its box; `sharpness`, `darkest`, `brightest`: see `faces.types.Quality`, 0...1.
    Chosen where a good encoder begins to miss one mated pair in fifty to one in ten (docs/models/face.md has the
    table); every LFW photograph passes.
    """

    size: float = 24.0
    sharpness: float = 0.08
    darkest: float = 0.03
    brightest: float = 0.93

    def reasons(self, quality: Quality) -> tuple[str, ...]:
        """The reason codes of all limits that a face misses, in a fixed order."""
        found = (
            (quality.size < self.size, "face too small"),
            (quality.sharpness < self.sharpness, "face too blurred"),
            (quality.brightness < self.darkest, "too dark"),
            (quality.brightness > self.brightest, "too bright"),
        )
        return tuple(reason for missed, reason in found if missed)


@dataclass(frozen=True, eq=False)
class Template:
    """A code and where it came from.

    `code`: (d,) float32, unit length. `fingerprint`: of the encoder that made it; codes of another mean nothing beside
    it. `origin`: path of the photograph, or what it was. `region`: {"box", "landmarks", "score"} of the face in it.
    """

    code: np.ndarray
    fingerprint: str
    quality: dict[str, Any] | None = None
    origin: str = ""
    region: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": [float(x) for x in self.code],
            "fingerprint": self.fingerprint,
            "quality": self.quality,
            "origin": self.origin,
            "region": self.region,
        }


@dataclass(frozen=True)
class Unusable:
    """A face that was found but not coded: the reason codes, its region and quality as in `Template`.

    `place`: which one it is among all faces of the sample, coded or not, from 0.
    """

    reasons: tuple[str, ...]
    region: dict[str, Any] | None
    quality: dict[str, Any] | None
    place: int

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Encoding:
    """The templates of one sample, the reason codes for what gave none, and the faces that they are about."""

    templates: tuple[Template, ...]
    reasons: tuple[str, ...] = ()
    unusable: tuple[Unusable, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "templates": [template.to_dict() for template in self.templates],
            "reasons": list(self.reasons),
            "unusable": [face.to_dict() for face in self.unusable],
        }


class Encoder(Protocol):
    """What a gallery needs of an encoder; it need not know what a face is."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def code_length(self) -> int: ...
    @property
    def calibration(self) -> Calibration | None: ...
    def encode(self, source: Any) -> Encoding: ...
    def encode_one(self, source: Any) -> Encoding: ...
    def encode_many(self, sources: Sequence[Any], on_progress: Progress | None = None) -> Iterator[Encoding]: ...


Choice = Callable[[Sequence[Face], tuple[int, ...]], "Face | str"]
"""From the faces of a photograph, largest first and at least one, and its shape: the one meant, or a reason code."""


def dominating(faces: Sequence[Face], shape: tuple[int, ...]) -> Face | str:
    """The face that is the photograph's subject (`faces.cropping.dominating`); otherwise "several faces"."""
    return cropping.dominating(faces) or "several faces"


def central(faces: Sequence[Face], shape: tuple[int, ...]) -> Face:
    """The face that a portrait is of: large and near the centre of the picture, as benchmark photographs have it.

    Largest of: area times a bell of the distance between the centres (its width: a quarter of the picture's shorter
    side). A face half a side away from the centre must be seven times as large as one in the middle.
    """
    height, width = shape[:2]
    spread = min(height, width) / 4

    def weight(face: Face) -> float:
        x, y, w, h = face.box
        off = ((x + w / 2 - width / 2) ** 2 + (y + h / 2 - height / 2) ** 2) / spread**2
        return float(np.log(max(w * h, 1e-9)) - off / 2)  # the logarithm: a far face must not underflow to a tie

    return max(faces, key=weight)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A face ready for the net: its aligned crop (size, size, 3) uint8 and what the template says about it."""

    crop: np.ndarray
    face: Face
    origin: str


class FaceEncoder:
    """Photographs to templates of faces, with an encoder of the catalogue and a detector. Safe to share by threads.

    Get one with `FaceEncoder.load`. `limits`: which faces are good enough.
    """

    def __init__(
        self,
        entry: catalogue.Entry,
        engine: Engine,
        detector: Any,
        *,
        limits: Limits = Limits(),
        calibration: Path | None = None,
    ) -> None:
        if entry.preprocessing is None or entry.code_length is None:
            raise InvalidOption(f"{entry.name!r} is a {entry.kind}, not an encoder; see `likeness weights list`")
        self.entry = entry
        self.detector = detector
        self.limits = limits
        self.preprocessing = entry.preprocessing
        self.code_length: int = entry.code_length
        self._engine = engine
        self._calibration_file = calibration or entry.calibration
        self._calibration: Calibration | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str = "face", *, detector: str = "face-detector") -> FaceEncoder:
        """The encoder and detector of these names, checked against their SHA-256; kept, so that asking twice is free.

        `detector` may also be an ONNX file, NAME.onnx.
        Raises UnknownName, WeightsError, InvalidOption where `name` is not an encoder.
        """
        return _load(name, detector, _state(name), _state(detector))

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def fingerprint(self) -> str:
        return self.entry.fingerprint

    @property
    def calibration(self) -> Calibration | None:
        """What distances between codes mean; None where the encoder was never calibrated.

        Raises FingerprintMismatch where the file belongs to another encoder.
        """
        with self._lock:
            if self._calibration is None and self._calibration_file is not None:
                from .calibration import Calibration

                loaded = Calibration.load(self._calibration_file)
                if loaded.fingerprint != self.fingerprint:
                    raise FingerprintMismatch(
                        f"{self._calibration_file} calibrates encoder {loaded.fingerprint}, but {self.name!r} is "
                        f"{self.fingerprint}; run `likeness weights calibrate {self.name} FOLDER` again"
                    )
                self._calibration = loaded
            return self._calibration

    def encode_crops(self, crops: np.ndarray) -> np.ndarray:
        """Unit codes (n, d) float32 of aligned crops (n, size, size, 3) uint8 RGB."""
        side = self.preprocessing.size
        if crops.ndim != 4 or crops.shape[1:] != (side, side, 3) or crops.dtype != np.uint8:
            raise InvalidOption(f"crops must be (n, {side}, {side}, 3) uint8, not {crops.shape} {crops.dtype}")
        codes = [
            encode_batch(self._engine, crops[i : i + BATCH], self.preprocessing) for i in range(0, len(crops), BATCH)
        ]
        found = np.concatenate(codes) if codes else np.zeros((0, self.code_length), np.float32)
        if found.shape[1] != self.code_length:
            raise WeightsError(
                f"{self.name!r} gave codes of {found.shape[1]} numbers, its card says {self.code_length}"
            )
        return found

    def encode(self, source: ImageSource) -> Encoding:
        """Templates of all faces that are good enough, largest first, and those that are not, with the reasons why.

        Raises UnreadableFile, TooManyPixels.
        """
        image = read_image(source)
        faces = either_way(self.detector, image)
        if not faces:
            return Encoding((), ("no face",))
        good: list[_Prepared] = []
        unusable: list[Unusable] = []
        for place, found in enumerate(faces):
            face, missed = self._judge(image, found)
            if missed:
                unusable.append(Unusable(missed, _region(face), face.quality.to_dict(), place))
            else:
                good.append(self._prepare(image, face, _origin(source)))
        reasons = dict.fromkeys(reason for one in unusable for reason in one.reasons)
        return Encoding(self._templates(good), tuple(reasons), tuple(unusable))

    def encode_one(self, source: ImageSource, *, choose: Choice = dominating) -> Encoding:
        """The template of the one face the photograph is of, or none and the reasons. `choose`: which face that is.

        Raises UnreadableFile, TooManyPixels.
        """
        found = self._find(source, choose)
        return Encoding(self._templates([found])) if isinstance(found, _Prepared) else found

    def encode_many(
        self, sources: Sequence[ImageSource], on_progress: Progress | None = None, *, choose: Choice = dominating
    ) -> Iterator[Encoding]:
        """`encode_one` of many, in order: photographs are read side by side and coded in batches.

        A file that cannot be read gives the reason "unreadable file". `on_progress(done, len(sources), {"failed": n})`.
        Only some `BATCH`es of photographs are in memory at any time, however many `sources` there are.
        """
        sources = list(sources)
        done = failed = 0
        with ThreadPoolExecutor(cpu_quota(), thread_name_prefix="likeness-read") as pool:
            ahead: deque[Future[_Prepared | Encoding]] = deque()
            following = iter(sources)

            def refill() -> None:
                while len(ahead) < 2 * BATCH and (source := next(following, _END)) is not _END:
                    ahead.append(pool.submit(self._find_or_reason, source, choose))

            try:
                refill()
                while ahead:
                    batch = [ahead.popleft().result() for _ in range(min(BATCH, len(ahead)))]
                    refill()  # the pool goes on reading while the net runs
                    templates = iter(self._templates([one for one in batch if isinstance(one, _Prepared)]))
                    for one in batch:
                        encoding = Encoding((next(templates),)) if isinstance(one, _Prepared) else one
                        done += 1
                        failed += not encoding.templates
                        if on_progress:
                            on_progress(done, len(sources), {"failed": failed})
                        yield encoding
            finally:  # the caller stopped early
                for waiting in ahead:
                    waiting.cancel()

    def _find_or_reason(self, source: ImageSource, choose: Choice) -> _Prepared | Encoding:
        try:
            return self._find(source, choose)
        except UnreadableFile:
            return Encoding((), ("unreadable file",))

    def _find(self, source: ImageSource, choose: Choice) -> _Prepared | Encoding:
        image = read_image(source)
        faces = either_way(self.detector, image)
        if not faces:
            return Encoding((), ("no face",))
        face = choose(faces, image.shape)
        if isinstance(face, str):
            return Encoding((), (face,))
        face, missed = self._judge(image, face)
        return Encoding((), missed) if missed else self._prepare(image, face, _origin(source))

    def _judge(self, image: np.ndarray, face: Face) -> tuple[Face, tuple[str, ...]]:
        """The face with the landmarks that it has the right way up, and the reasons not to code it."""
        if face.quality.size >= self.limits.size:  # too small a face is none the better for another look
            face = upright(self.detector, image, face)
        return face, self.limits.reasons(face.quality)

    def _prepare(self, image: np.ndarray, face: Face, origin: str) -> _Prepared:
        return _Prepared(align(image, face.landmarks, size=self.preprocessing.size), face, origin)

    def _templates(self, found: Sequence[_Prepared]) -> tuple[Template, ...]:
        if not found:
            return ()
        codes = self.encode_crops(np.stack([one.crop for one in found]))
        return tuple(
            Template(code, self.fingerprint, one.face.quality.to_dict(), one.origin, _region(one.face))
            for code, one in zip(codes, found, strict=True)
        )


def encode(source: ImageSource, *, encoder: str | Encoder = "face") -> Encoding:
    """Templates of all faces in a photograph, largest first. Raises UnreadableFile, UnknownName, WeightsError."""
    return resolve(encoder).encode(source)


def resolve(encoder: str | Encoder) -> Encoder:
    """An encoder by its name in the catalogue; an encoder object as it is."""
    return FaceEncoder.load(encoder) if isinstance(encoder, str) else encoder


def _state(name: str) -> tuple[Any, ...]:
    """Something that changes when the entry's files do: a new file under an old name is not served from memory."""
    if name.endswith(".onnx"):  # a detector's file
        file = Path(name)
        return (str(file.resolve()), (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None)
    one = catalogue.entry(name)
    files = [one.path, one.calibration]
    stats = [(file.stat().st_mtime_ns, file.stat().st_size) if file and file.is_file() else None for file in files]
    return (one.fingerprint, str(one.path), *stats)


@lru_cache(maxsize=4)
def _load(name: str, detector: str, *states: tuple[Any, ...]) -> FaceEncoder:
    if (kind := catalogue.entry(name).kind) == "detector":  # before it would be downloaded
        raise InvalidOption(f"{name!r} is a {kind}, not an encoder; see `likeness weights list`")
    one, data = catalogue.read(name)
    return FaceEncoder(one, Engine(data), Detector.load(detector))


def _region(face: Face) -> dict[str, Any]:
    values = face.to_dict()
    return {
        "box": list(values["box"]),
        "landmarks": [list(point) for point in values["landmarks"]],
        "score": values["score"],
    }


def _origin(source: ImageSource) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or f"<{type(source).__name__}>")
