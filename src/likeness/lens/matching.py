"""Why two photographs match, or do not: the parts of the faces that bring their codes together, as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FingerprintMismatch, InvalidOption
from ..faces.alignment import align
from ..recognition.encoder import FaceEncoder, Template, resolve
from ..samples.images import ImageSource, read_image, write_image
from .comparison import Comparison, Share, check_method, compared
from .drawing import overlay, sheet
from .face_shares import face_shares


@dataclass(frozen=True, eq=False)
class PhotoComparison:
    """A comparison of faces. `names` and `pictures`: of "a", "b" and, of a triplet, "n": what each is called, and the
    aligned crop (size, size, 3) uint8 that the encoder saw; a template has no picture. `threshold`: the largest
    distance of a match at `max_fmr`, None where the encoder was never calibrated."""

    comparison: Comparison
    names: dict[str, str]
    pictures: dict[str, np.ndarray]
    threshold: float | None
    max_fmr: float
    encoder: str
    fingerprint: str

    @property
    def shares(self) -> dict[str, Share]:
        """The maps of all that have a picture."""
        return {name: getattr(self.comparison, name) for name in self.pictures}

    @property
    def decision(self) -> str | None:
        """match or no match; None where the encoder was never calibrated."""
        if self.threshold is None:
            return None
        return "match" if self.comparison.distance <= self.threshold else "no match"

    def headline(self) -> str:
        """The decision in one line: `match: distance 0.61, threshold 1.02 at FMR 0.001`."""
        distance = self.comparison.distance
        if self.threshold is None:
            return f"distance {distance:.3f} (not calibrated)"
        return f"{self.decision}: distance {distance:.3f}, threshold {self.threshold:.3f} at FMR {self.max_fmr:g}"

    def image(self) -> np.ndarray:
        """The faces, and below them in two colours what brings the codes together and what drives them apart, as an
        (h, w, 3) uint8 picture."""
        heats = {name: share.heat(self.pictures[name].shape[:2]) for name, share in self.shares.items()}
        peak = max(float(np.abs(heat).max()) for heat in heats.values())
        columns = [
            (self.names[name], picture, overlay(picture, heats[name], peak), self._sum(name))
            for name, picture in self.pictures.items()
        ]
        one = self.comparison
        figures = f"score {one.score:.3f}" + (
            f", against the third {one.against:.3f}" if one.against is not None else ""
        )
        return sheet(self.headline(), f"{figures} · {one.method} · encoder {self.encoder}", columns)

    def _sum(self, name: str) -> str:
        share = self.shares[name]
        what = "margin" if name == "a" and self.comparison.against is not None else "score"
        if share.rest is None:
            return f"{what} {share.value:.3f}"
        return f"{what} {share.value:.3f} = {float(share.map.sum()):.3f} from here, {share.rest:.3f} from a blank"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `image()`; the ending chooses the format. Raises InvalidOption, StorageError."""
        write_image(path, self.image())

    def to_dict(self) -> dict[str, Any]:
        about = {"names": self.names, "encoder": self.encoder, "fingerprint": self.fingerprint}
        made = {"decision": self.decision, "threshold": self.threshold, "max_fmr": self.max_fmr}
        return made | self.comparison.to_dict() | about


def compare(
    a: ImageSource,
    b: ImageSource | Template,
    *,
    against: ImageSource | Template | None = None,
    encoder: str | FaceEncoder = "face",
    method: str = "linear",
    max_fmr: float = 1e-3,
) -> PhotoComparison:
    """Which parts of two photographs of faces bring their codes together, and which drive them apart.

    a: a photograph (path, bytes, array, PIL image) of one person; a picture of exactly the encoder's size is taken for
    an aligned crop. b: another, or a template, such as one of a gallery. against: a third that a is to be told from,
    see `compare_samples`. encoder: its name in the catalogue; of one that is an ONNX file only, method="occlusion" is
    the one that works. method: see `compare_samples`.

    Raises UnreadableFile, TooManyPixels, UnknownName, WeightsError; InvalidOption where a photograph has no single good
    face, or no gradient flows through the encoder; FingerprintMismatch for a template of another encoder.
    """
    check_method(method)
    if not 0 < max_fmr < 1:
        raise InvalidOption(f"max_fmr is {max_fmr}; it must lie between 0 and 1")
    coder = resolve(encoder)
    assert isinstance(coder, FaceEncoder)
    sources = {"a": a, "b": b} | ({} if against is None else {"n": against})
    names, pictures, codes = {}, {}, {}
    for key, source in sources.items():
        names[key] = source.origin if isinstance(source, Template) else _name(source)
        if isinstance(source, Template):
            if source.fingerprint != coder.fingerprint:
                raise FingerprintMismatch(
                    f"{names[key]} is a template of encoder {source.fingerprint}, but {coder.name!r} is "
                    f"{coder.fingerprint}; encode its photograph again"
                )
            if key == "a":
                raise InvalidOption("a is a photograph: a template has a code, but nothing to look at")
            codes[key] = source.code / np.linalg.norm(source.code)
        else:
            pictures[key] = _crop(source, names[key], coder)
    found = _comparison(coder, method, sources, pictures, codes)
    calibration = coder.calibration
    threshold = None if calibration is None else calibration.threshold_open_set(max_fmr, 1)
    return PhotoComparison(found, names, pictures, threshold, max_fmr, coder.name, coder.fingerprint)


def _comparison(
    encoder: FaceEncoder, method: str, keys: Iterable[str], crops: dict[str, np.ndarray], codes: dict[str, np.ndarray]
) -> Comparison:
    """Of a, b and perhaps n (keys), of each the crop, or the code alone."""
    if method == "linear":
        net = face_shares(encoder)
        known = [codes[key] if key in codes else net.code(crops[key]) for key in keys]
        return compared(method, "maps", [crops.get(key) for key in keys], known, net.share)
    from .face_nets import compare_crops

    return compare_crops(encoder, method, *((crops | codes)[key] for key in keys))


def _crop(source: ImageSource, name: str, encoder: FaceEncoder) -> np.ndarray:
    image, side = read_image(source), encoder.preprocessing.size
    if image.shape[:2] == (side, side):
        return image
    found = encoder.encode_one(image)
    if not found.templates:
        raise InvalidOption(f"{name}: cannot be compared: {', '.join(found.reasons)}")
    region = found.templates[0].region
    assert region is not None
    return align(image, np.array(region["landmarks"]), size=side)


def _name(source: ImageSource) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "a photograph"
