"""The linear method of `lens.compare` for encoders of faces: as `lens.differences`, in NumPy alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InvalidOption, WeightsError
from ..nets.entries import Preprocessing
from ..recognition.encoder import FaceEncoder
from . import plain_tower
from .comparison import Share

LATE = 2  # stages of a tower after the maps that are looked at: 14 x 14 positions of a face of 112 pixels


@dataclass(frozen=True, eq=False)
class FaceShares:
    """An encoder of aligned crops (size, size, 3) uint8. Where it also looks at the mirror image, the maps of that are
    turned back, so that a position means the same place of a face."""

    tower: plain_tower.PlainTower
    preprocessing: Preprocessing

    def code(self, crop: np.ndarray) -> np.ndarray:
        """The unit code (d,)."""
        codes = [self.tower.codes(self.tower.maps(view, LATE), LATE)[0][0] for view in self._views(crop[None])]
        return _unit(np.sum([_unit(code) for code in codes], 0))

    def share(self, crop: np.ndarray, code: np.ndarray) -> Share:
        """What each position adds to `<f(crop), code>`, against a blank sample of the crop's mean colour."""
        blank = np.broadcast_to(crop.mean((0, 1), dtype=np.float32), crop.shape)
        both = np.zeros((2, len(code)), np.float32)  # codes of the blank sample and this one, under this one's norms
        parts = []
        for view in self._views(np.stack([blank, crop])):
            maps = self.tower.maps(view, LATE)
            codes, back = self.tower.codes(maps, LATE)
            norm = np.linalg.norm(codes[1])
            both += codes / norm
            parts.append((maps[1] - maps[0], back, norm))
        length = np.linalg.norm(both[1])
        shares = [(change * back(code / (norm * length))).sum(0) for change, back, norm in parts]
        shares[1:] = [share[:, ::-1] for share in shares[1:]]  # of the mirror image: turned back
        rest, value = (float(one @ code / length) for one in both)
        return Share(np.sum(shares, 0), value, rest)

    def _views(self, crops: np.ndarray) -> list[np.ndarray]:
        """Crops (b, h, w, 3) as the net takes them (b, 3, h, w); and turned, where the encoder looks at that."""
        x = (crops.astype(np.float32) - self.preprocessing.mean) / self.preprocessing.scale
        x = np.moveaxis(x[..., ::-1] if self.preprocessing.input_order == "bgr" else x, -1, 1)
        return [x, x[..., ::-1]] if self.preprocessing.mirror else [x]


def face_shares(encoder: FaceEncoder) -> FaceShares:
    """Of an encoder of the catalogue. Raises InvalidOption where there is an ONNX file only, WeightsError."""
    return FaceShares(plain_tower.read(weights_of(encoder)), encoder.preprocessing)


def weights_of(encoder: FaceEncoder) -> Path:
    """The safetensors file of an encoder. Raises InvalidOption where there is none, WeightsError where it is not what
    the encoder's fingerprint stands for."""
    file = encoder.entry.path and encoder.entry.path.with_suffix(".safetensors")
    if not file or not file.is_file():
        raise InvalidOption(
            f"{encoder.name!r} is an ONNX file only, through which no gradient flows: use method='occlusion'"
        )
    if hashlib.sha256(file.read_bytes()).hexdigest() != encoder.entry.sha256:
        raise WeightsError(f"{file} was altered, or belongs to another encoder: its SHA-256 is not {encoder.name!r}'s")
    return file


def _unit(code: np.ndarray) -> np.ndarray:
    return code / np.linalg.norm(code)
