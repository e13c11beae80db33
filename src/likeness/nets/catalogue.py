"""Named weights: those that ship, those that can be downloaded, and the user's own; each with licence and fingerprint.

Shipped: `likeness/weights/NAME.onnx`, `NAME.safetensors`, `NAME.json` (the card), `NAME.calibration.json`; perceptual
nets (for style) and classifiers (to look into) have no ONNX file, since gradients have to flow through them, and no
calibration.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from ..errors import InvalidOption, StorageError, UnknownName, UnreadableFile, WeightsError
from ..progress import Progress
from ..samples.files import atomic_write
from .entries import DOWNLOADS, Entry, Kind, Preprocessing, fingerprint, suffix

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CARD, _CALIBRATION, _ONNX, _SAFETENSORS = ".json", ".calibration.json", ".onnx", ".safetensors"
_MUST_SHIP = ("vgg-slim",)  # what defaults name, so that its absence is not taken for a slip of the pen


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
    if name in _MUST_SHIP:
        raise WeightsError(f"{name!r} belongs to likeness, but {SHIPPED} does not hold it; reinstall likeness")
    names = [card.name[: -len(_CARD)] for folder in (SHIPPED, home()) for card in _cards(folder)]
    names += [download.name for download in DOWNLOADS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
    raise UnknownName(f"no weights are called {name!r}; {hint}")


def path(name: str, *, on_progress: Progress | None = None) -> Path:
    """The file of `name`, checked against its SHA-256; downloaded first where it is only listed.

    Raises UnknownName, WeightsError (altered, damaged, missing, or the download failed).
    """
    one = entry(name)
    if one.path is None:
        from .download import download

        target = home() / (name + suffix(one.kind))
        urls = (one.url or "", *one.mirrors)
        download(urls, target, sha256=one.file_sha256, size=one.bytes, on_progress=on_progress)
        return target
    with _opened(one) as file:
        _compare(one, hashlib.file_digest(file, "sha256").hexdigest())
    return one.path


def read(name: str) -> tuple[Entry, bytes]:
    """The entry and the bytes of its ONNX file, which were just checked: nobody can change them in between.

    Raises as `path` does, and InvalidOption for weights that have no ONNX file.
    """
    one = entry(name)
    if suffix(one.kind) != _ONNX:
        raise InvalidOption(
            f"{name!r} is of the kind {one.kind}, neither encoder nor detector; see `likeness weights list`"
        )
    if one.path is None:
        path(name)
        one = entry(name)
    return one, check(one)


def check(one: Entry) -> bytes:
    """The bytes of the entry's file. Raises WeightsError where their SHA-256 is not the one on the card."""
    with _opened(one) as file:
        data = file.read()
    _compare(one, hashlib.sha256(data).hexdigest())
    return data


@contextmanager
def _opened(one: Entry) -> Iterator[BufferedReader]:
    assert one.path is not None
    try:
        with open(one.path, "rb") as file:
            yield file
    except OSError as error:
        raise WeightsError(f"weights {one.name!r}: cannot read {one.path}: {error.strerror}; {_again(one)}") from error


def _compare(one: Entry, found: str) -> None:
    if found != one.file_sha256:
        raise WeightsError(
            f"weights {one.name!r}: {one.path} was altered or damaged (SHA-256 {found[:16]}..., "
            f"the catalogue says {one.file_sha256[:16]}...); {_again(one)}"
        )


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

    _check_free(name)
    preprocessing = Preprocessing(input_order=input_order, mean=float(mean), scale=float(scale), mirror=mirror)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{file}: {error.strerror}") from error
    try:
        code_length = probe_encoder(data, preprocessing, label=str(file))
    except WeightsError as error:
        raise WeightsError(f"{file}: {str(error).removeprefix('these bytes: ')}") from error
    atomic_write(_own_folder(name) / (name + _ONNX), data)
    return write_card(
        home(),
        name,
        kind="encoder",
        licence=licence,
        description=f"added from {Path(file).name}",
        preprocessing=preprocessing,
        code_length=code_length,
    )


def add_perceptual(file: str | os.PathLike[str], *, name: str, licence: str = "user's own") -> Entry:
    """Register a net for style as `name`: safetensors of `nets.perceptual.save` or of torchvision's VGG-16 or VGG-19,
    or an npz of Caffe's arrays (see `nets.perceptual.read_net`). Kept as safetensors of ours, in float32.

    Raises InvalidOption (name), WeightsError, StorageError.
    """
    from dataclasses import asdict

    from .perceptual import read_net, save

    _check_free(name)
    net = read_net(file)
    save(net, _own_folder(name) / (name + _SAFETENSORS), half=False)
    return write_card(
        home(),
        name,
        kind="perceptual",
        licence=licence,
        description=f"added from {Path(file).name}",
        architecture=asdict(net.architecture),
    )


def _check_free(name: str) -> None:
    """Raises InvalidOption unless `name` is a name, and nobody else's."""
    if not NAME.fullmatch(name):
        raise InvalidOption(f"a name is 1...64 of A-Z a-z 0-9 . _ -, starting with a letter or digit, not {name!r}")
    if name.endswith((_CALIBRATION[:-5], _CARD, _ONNX, _SAFETENSORS)):  # NAME.json must not be another entry's file
        raise InvalidOption(f"{name!r}: leave the file's ending out of the name")
    taken = [card.name[: -len(_CARD)] for folder in (SHIPPED, home()) for card in _cards(folder)]
    taken += [*(one.name for one in DOWNLOADS), *_MUST_SHIP]
    if name.lower() in {other.lower() for other in taken}:
        raise InvalidOption(
            f"the name {name!r} is taken; choose another, or `likeness weights remove {name}` if it is yours"
        )


def _own_folder(name: str) -> Path:
    """The user's catalogue, made if need be, without what an entry of this name left that was removed by hand."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; set LIKENESS_HOME to a folder of yours") from error
    for left in (_CALIBRATION, _ONNX, _SAFETENSORS):
        (folder / (name + left)).unlink(missing_ok=True)
    return folder


def remove(name: str) -> None:
    """Take the user's own weights `name`, or the downloaded file of a listed entry, off the disk with its calibration.

    Raises UnknownName, InvalidOption for shipped weights.
    """
    if not _is_name(name) or not (home() / (name + _CARD)).is_file():
        one = entry(name)
        if one.shipped:
            raise InvalidOption(f"{name!r} ships with likeness and cannot be removed")
    try:
        for ending in (_CARD, _CALIBRATION, _ONNX, _SAFETENSORS):  # the card first: half an entry is no entry
            (home() / (name + ending)).unlink(missing_ok=True)
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
    architecture: dict[str, Any] | None = None,
    **more: Any,
) -> Entry:
    """Write NAME.json for NAME.onnx and NAME.safetensors (of perceptual nets and classifiers only this one) in
    `folder`: without its card an entry does not exist.

    Size, hashes and fingerprint are taken from the files; `more` (recipe, metrics: plain JSON) goes onto the card.
    """
    folder = Path(folder)
    used = (folder / (name + suffix(kind))).read_bytes()
    safetensors = folder / (name + _SAFETENSORS)
    sha256 = hashlib.sha256(safetensors.read_bytes() if safetensors.is_file() else used).hexdigest()
    card = {
        "name": name,
        "kind": kind,
        "licence": licence,
        "description": description,
        "code_length": code_length,
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
        "sha256": sha256,
        "onnx_sha256": hashlib.sha256(used).hexdigest() if suffix(kind) == _ONNX else "",
        "bytes": len(used),
        "fingerprint": fingerprint(sha256, preprocessing, code_length),
        "url": None,
        **({"architecture": architecture} if architecture else {}),
        **more,
    }
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(folder / (name + _CARD), text.encode())
    return _read_card(folder / (name + _CARD), shipped=folder.resolve() == SHIPPED)


def _is_name(name: str) -> bool:
    """NAME.calibration names no entry: NAME.calibration.json is the calibration of NAME, not a card."""
    return bool(NAME.fullmatch(name)) and not (name + _CARD).endswith(_CALIBRATION)


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
            path=card.with_name(name + suffix(values["kind"])),
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
            architecture=values.get("architecture"),
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
    file = home() / (download.name + suffix(download.kind))
    return replace(download, path=file) if file.is_file() else download
