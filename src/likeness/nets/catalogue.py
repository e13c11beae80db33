"""Named weights: those that ship, those that can be downloaded, and the user's own; each with licence and fingerprint.

Shipped: `likeness/weights/NAME.onnx`, `NAME.safetensors`, `NAME.json` (the card), `NAME.calibration.json`.
The user's: the same files in `$LIKENESS_HOME` (default: the user's data folder). Nothing is used before its SHA-256 is
found to be the one on the card, and the card's fingerprint is computed again from what the card says.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidOption, StorageError, UnknownName, UnreadableFile, WeightsError
from ..samples.files import atomic_write

Kind = Literal["encoder", "detector", "reference"]
Progress = Callable[[int, int, dict], None]

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CARD, _CALIBRATION, _ONNX = ".json", ".calibration.json", ".onnx"


@dataclass(frozen=True)
class Preprocessing:
    """How a crop becomes the net's input: x = (pixel - mean) / scale, channels first, in `input_order`.

    `size`: pixels per side of the aligned crop. `mirror`: the code is the normalised mean of the codes of the crop and
    of its mirror image (twice the time, a little more accuracy).
    """

    size: int = 112
    input_order: str = "rgb"
    mean: float = 127.5
    scale: float = 127.5
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.input_order not in ("rgb", "bgr"):
            raise InvalidOption(f"input_order must be 'rgb' or 'bgr', not {self.input_order!r}")
        if not (abs(self.mean) < 1e6 and 0 < self.scale < 1e6):
            raise InvalidOption(f"scale must be above 0 and mean finite, not scale={self.scale}, mean={self.mean}")
        if not 1 <= self.size <= 4096:
            raise InvalidOption(f"size must be 1...4096 pixels, not {self.size}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "size": int(self.size),
            "input_order": self.input_order,
            "mean": float(self.mean),
            "scale": float(self.scale),
            "mirror": bool(self.mirror),
        }


@dataclass(frozen=True)
class Entry:
    """One set of weights. `path` is the ONNX file, None while it is not downloaded; `sha256` is that of the weights the
    fingerprint stands for: the safetensors of a shipped net, the ONNX file of all others. `bytes`: size of the ONNX."""

    name: str
    kind: Kind
    shipped: bool
    path: Path | None
    bytes: int
    licence: str
    fingerprint: str
    preprocessing: Preprocessing | None
    code_length: int | None
    sha256: str
    url: str | None
    calibration: Path | None
    description: str
    onnx_sha256: str = ""
    mirrors: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["path"] = str(self.path) if self.path else None
        values["calibration"] = str(self.calibration) if self.calibration else None
        values["preprocessing"] = self.preprocessing.to_dict() if self.preprocessing else None
        values["mirrors"] = list(self.mirrors)
        return values


def fingerprint(sha256: str, preprocessing: Preprocessing | None, code_length: int | None) -> str:
    """16 hex digits that name an encoder: the first of a SHA-256 over weights, preprocessing and code length (JSON)."""
    made_of = {
        "code_length": code_length,
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
        "sha256": sha256,
    }
    text = json.dumps(made_of, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"  # as in the source's Git LFS pointer

DOWNLOADS: tuple[Entry, ...] = (
    Entry(
        name="yunet",
        kind="detector",
        shipped=False,
        path=None,
        bytes=232_589,
        licence="Apache-2.0 (origin), MIT (OpenCV Zoo)",
        fingerprint=fingerprint(_YUNET_SHA256, None, None),
        preprocessing=None,
        code_length=None,
        sha256=_YUNET_SHA256,
        url="https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        calibration=None,
        description="YuNet 2023mar face detector (Wu, Peng, Yu 2023), trained on WIDER FACE; 640 x 640 BGR 0...255",
        onnx_sha256=_YUNET_SHA256,
        mirrors=("https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",),
    ),
)


def home() -> Path:
    """The user's catalogue: $LIKENESS_HOME, else likeness/ in the user's data folder. Created when first written to."""
    if given := os.environ.get("LIKENESS_HOME"):
        return Path(given).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "likeness"
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "likeness"
    return Path.home() / ".local" / "share" / "likeness"


def entries() -> tuple[Entry, ...]:
    """All weights: shipped, then downloadable, then the user's, each by name. Reads cards only, hashes nothing."""
    shipped = [_read_card(card, shipped=True) for card in _cards(SHIPPED)]
    taken = {one.name for one in shipped} | {one.name for one in DOWNLOADS}
    own = [_read_card(card, shipped=False) for card in _cards(home()) if card.name[: -len(_CARD)] not in taken]
    return (*shipped, *map(_located, DOWNLOADS), *own)


def entry(name: str) -> Entry:
    """The weights called `name`. Raises UnknownName with the nearest name, WeightsError where the card is damaged."""
    if _is_name(name):
        if (card := SHIPPED / (name + _CARD)).is_file():
            return _read_card(card, shipped=True)
        for download in DOWNLOADS:
            if download.name == name:
                return _located(download)
        if (card := home() / (name + _CARD)).is_file():
            return _read_card(card, shipped=False)
    names = [card.name[: -len(_CARD)] for folder in (SHIPPED, home()) for card in _cards(folder)]
    names += [download.name for download in DOWNLOADS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
    raise UnknownName(f"no weights are called {name!r}; {hint}")


def path(name: str, *, on_progress: Progress | None = None) -> Path:
    """The ONNX file of `name`, checked against its SHA-256; downloaded first where it is only listed.

    Raises UnknownName, WeightsError (altered, damaged, missing, or the download failed).
    """
    one = entry(name)
    if one.path is None:
        from .download import download

        target = home() / (name + _ONNX)
        download((one.url or "", *one.mirrors), target, sha256=one.onnx_sha256, size=one.bytes, on_progress=on_progress)
        return target
    check(one)
    return one.path


def read(name: str) -> tuple[Entry, bytes]:
    """The entry and the bytes of its ONNX file, which were just checked: nobody can change them in between."""
    one = entry(name)
    if one.path is None:
        path(name)
        one = entry(name)
    return one, check(one)


def check(one: Entry) -> bytes:
    """The bytes of the entry's ONNX file. Raises WeightsError where their SHA-256 is not the one on the card."""
    assert one.path is not None
    try:
        data = one.path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights {one.name!r}: cannot read {one.path}: {error.strerror}; {_again(one)}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != one.onnx_sha256:
        raise WeightsError(
            f"weights {one.name!r}: {one.path} was altered or damaged (SHA-256 {found[:16]}..., "
            f"the catalogue says {one.onnx_sha256[:16]}...); {_again(one)}"
        )
    return data


def calibration(name: str) -> Path | None:
    """The file with the calibration of `name`'s scores; None where it was never calibrated."""
    return entry(name).calibration


def calibration_file(name: str) -> Path:
    """Where a calibration of the user's encoder `name` is kept. Raises InvalidOption for shipped weights."""
    if entry(name).shipped:
        raise InvalidOption(
            f"{name!r} ships with its calibration; to make another, `likeness weights add` a copy of it"
        )
    return home() / (name + _CALIBRATION)


def add(
    file: str | os.PathLike[str],
    *,
    name: str,
    input_order: str = "rgb",
    mean: float = 127.5,
    scale: float = 127.5,
    mirror: bool = False,
    licence: str = "user's own",
) -> Entry:
    """Register an ONNX encoder of aligned 112 x 112 crops, of any code length, as `name` in the user's catalogue.

    The net is run: one input (batch, 3, 112, 112), one output (batch, d) that is finite and differs between pictures.
    A net whose batch is fixed at 1 is taken too. Codes are brought to unit length when used.
    Raises InvalidOption (name, preprocessing, or what the net takes and gives), UnreadableFile, WeightsError
    (no ONNX), StorageError.
    """
    from .probing import probe_encoder

    if not NAME.fullmatch(name):
        raise InvalidOption(f"a name is 1...64 of A-Z a-z 0-9 . _ -, starting with a letter or digit, not {name!r}")
    if name.endswith((".calibration", ".json", ".onnx")):  # NAME.json must not be another entry's file
        raise InvalidOption(f"{name!r}: leave the file's ending out of the name")
    taken = [card.name[: -len(_CARD)] for folder in (SHIPPED, home()) for card in _cards(folder)]
    if name.lower() in {other.lower() for other in [*taken, *(one.name for one in DOWNLOADS)]}:
        raise InvalidOption(
            f"the name {name!r} is taken; choose another, or `likeness weights remove {name}` if it is yours"
        )
    preprocessing = Preprocessing(input_order=input_order, mean=float(mean), scale=float(scale), mirror=mirror)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{file}: {error.strerror}") from error
    try:
        code_length = probe_encoder(data, preprocessing, label=str(file))
    except WeightsError as error:
        raise WeightsError(f"{file}: {str(error).removeprefix('these bytes: ')}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    card = {
        "name": name,
        "kind": "encoder",
        "licence": licence,
        "description": f"added from {Path(file).name}",
        "code_length": code_length,
        "preprocessing": preprocessing.to_dict(),
        "sha256": sha256,
        "onnx_sha256": sha256,
        "bytes": len(data),
        "fingerprint": fingerprint(sha256, preprocessing, code_length),
        "url": None,
    }
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; set LIKENESS_HOME to a folder of yours") from error
    (folder / (name + _CALIBRATION)).unlink(missing_ok=True)  # of an entry that was removed by hand
    atomic_write(folder / (name + _ONNX), data)
    atomic_write(folder / (name + _CARD), _to_json(card))  # last: without its card the entry does not exist
    return entry(name)


def remove(name: str) -> None:
    """Take the user's own weights `name`, or the downloaded file of a listed entry, off the disk with its calibration.

    Raises UnknownName, InvalidOption for shipped weights.
    """
    if not _is_name(name) or not (home() / (name + _CARD)).is_file():
        one = entry(name)
        if one.shipped:
            raise InvalidOption(f"{name!r} ships with likeness and cannot be removed")
    try:
        for suffix in (_CARD, _CALIBRATION, _ONNX):  # the card first: half an entry is no entry
            (home() / (name + suffix)).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {name!r} from {home()}: {error.strerror}") from error


def write_card(
    folder: str | os.PathLike[str],
    name: str,
    *,
    kind: Kind,
    licence: str,
    description: str,
    preprocessing: Preprocessing | None = None,
    code_length: int | None = None,
    **more: Any,
) -> Entry:
    """Write NAME.json for NAME.onnx and NAME.safetensors in `folder`; what makes weights ready to ship.

    Size, hashes and fingerprint are taken from the files; `more` (recipe, metrics: plain JSON) goes onto the card.
    """
    folder = Path(folder)
    onnx = (folder / (name + _ONNX)).read_bytes()
    safetensors = folder / f"{name}.safetensors"
    onnx_sha256 = hashlib.sha256(onnx).hexdigest()
    sha256 = hashlib.sha256(safetensors.read_bytes()).hexdigest() if safetensors.is_file() else onnx_sha256
    card = {
        "name": name,
        "kind": kind,
        "licence": licence,
        "description": description,
        "code_length": code_length,
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
        "sha256": sha256,
        "onnx_sha256": onnx_sha256,
        "bytes": len(onnx),
        "fingerprint": fingerprint(sha256, preprocessing, code_length),
        "url": None,
        **more,
    }
    atomic_write(folder / (name + _CARD), _to_json(card))
    return _read_card(folder / (name + _CARD), shipped=folder.resolve() == SHIPPED)


def _is_name(name: str) -> bool:
    """NAME.calibration names no entry: NAME.calibration.json is the calibration of NAME, not a card."""
    return bool(NAME.fullmatch(name)) and not (name + _CARD).endswith(_CALIBRATION)


def _to_json(card: dict[str, Any]) -> bytes:
    return (json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _cards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file for file in folder.glob("*" + _CARD) if not file.name.endswith(_CALIBRATION) and file.name[0] != "."
    )


def _read_card(card: Path, *, shipped: bool) -> Entry:
    name = card.name[: -len(_CARD)]
    try:
        values = json.loads(card.read_text(encoding="utf-8"))
        preprocessing = Preprocessing(**values["preprocessing"]) if values["preprocessing"] else None
        calibrated = card.with_name(name + _CALIBRATION)
        one = Entry(
            name=values["name"],
            kind=values["kind"],
            shipped=shipped,
            path=card.with_name(name + _ONNX),
            bytes=int(values["bytes"]),
            licence=str(values["licence"]),
            fingerprint=values["fingerprint"],
            preprocessing=preprocessing,
            code_length=values["code_length"],
            sha256=values["sha256"],
            url=values.get("url"),
            calibration=calibrated if calibrated.is_file() else None,
            description=str(values["description"]),
            onnx_sha256=values["onnx_sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{card} is not a card of weights ({type(error).__name__}: {error}); {_mend(name, shipped)}"
        ) from error
    if one.name != name or one.fingerprint != fingerprint(one.sha256, preprocessing, one.code_length):
        raise WeightsError(
            f"{card} was altered: its fingerprint does not follow from what it says; {_mend(name, shipped)}"
        )
    return one


def _mend(name: str, shipped: bool) -> str:
    return "reinstall likeness" if shipped else f"`likeness weights remove {name}` and add it again"


def _again(one: Entry) -> str:
    return f"`likeness weights remove {one.name}` and fetch it again" if one.url else _mend(one.name, one.shipped)


def _located(download: Entry) -> Entry:
    file = home() / (download.name + _ONNX)
    return replace(download, path=file) if file.is_file() else download
