"""One set of weights in the catalogue: what is known of it, and the sets that can be downloaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidOption

Kind = Literal["encoder", "detector", "reference", "perceptual", "adain", "classifier"]


def suffix(kind: Kind) -> str:
    """The ending of the file that is used: ONNX, but safetensors where gradients have to flow through the net, or its
    layers are looked into."""
    return ".safetensors" if kind in ("perceptual", "adain", "classifier") else ".onnx"


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
    """One set of weights. `path` is the file that is used (see `suffix`), None while it is not downloaded; `bytes` its
    size (None: nobody tells). `sha256` is that of the weights the fingerprint stands for: the safetensors of a
    shipped or perceptual net, the ONNX file of all others. `onnx_sha256`: "" where there is no ONNX file.
    `architecture`: of a perceptual net or a classifier, as its module's `Architecture` takes it, preprocessing
    included."""

    name: str
    kind: Kind
    shipped: bool
    path: Path | None
    bytes: int | None
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
    architecture: dict[str, Any] | None = None

    @property
    def file_sha256(self) -> str:
        """Of the file that is used."""
        return self.onnx_sha256 or self.sha256

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

# SHA-256 as in the source's Git LFS pointers; the size of the second stands nowhere.
_VGGS: tuple[tuple[str, list[int], int | None, str, str], ...] = (
    (
        "vgg19",
        [2, 2, 4, 4, 4],
        574_672_302,
        "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
        "128d4708565b3a414bcbb9bbad440b2fe37b9f18",
    ),
    (
        "vgg16",
        [2, 2, 3, 3, 3],
        None,
        "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
        "3394518cba29aee1ea82a49d971be90d2dd1dab7",
    ),
)

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
    *(
        Entry(
            name=name,
            kind="perceptual",
            shipped=False,
            path=None,
            bytes=size,
            licence="BSD-3-Clause (torchvision); trained on ImageNet-1k (non-commercial research)",
            fingerprint=fingerprint(sha256, None, None),
            preprocessing=None,
            code_length=None,
            sha256=sha256,
            url=f"https://huggingface.co/timm/{name}.tv_in1k/resolve/{revision}/model.safetensors",
            calibration=None,
            description=f"{name.upper().replace('VGG', 'VGG-')} (Simonyan & Zisserman 2014), torchvision's weights",
            mirrors=(f"https://huggingface.co/timm/{name}.tv_in1k/resolve/main/model.safetensors",),
            architecture={
                "widths": [64, 128, 256, 512, 512],
                "depths": depths,
                "pooling": "max",
                "padding": "zeros",
                "order": "rgb",
                "mean": [0.485, 0.456, 0.406],
                "scale": [0.229, 0.224, 0.225],
            },
        )
        for name, depths, size, sha256, revision in _VGGS
    ),
)
