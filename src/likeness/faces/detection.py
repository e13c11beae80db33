"""From a photograph to its faces: NumPy and ONNX Runtime only."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InvalidOption, WeightsError
from ..nets import catalogue
from ..nets.catalogue import Preprocessing
from ..nets.engine import Engine
from ..samples.images import ImageSource, read_image
from .decoding import MULTIPLE, NUMBERS, decode, decode_yunet, fuse, mirrored, nms, outermost, priors
from .quality import face_of
from .types import Face

MIN_SCORE = 0.58  # chosen on training photographs, held out or without a face: see docs/models/face-detector.md
# px: the smallest faces asked for are shown to the net at least this large. Of 10, 14 and 20, landmarks of held-out
# training photographs were most exact (0.122, 0.127 of the distance of the eyes at 14 and 20) and looks cheap at 14.
SEEN_AT = 14.0
POSSIBLE, SURE = 0.6, 0.85  # of min_score, and of 1: between them a face is in doubt, and looked at twice
LARGEST = 200.0  # px: up to this size a face is sure to be found in one look
LONGEST = 1280  # px: no look is larger; smaller faces in larger photographs are given up for speed

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores (n,), boxes (n, 4) x y w h, landmarks (n, 5, 2)


class Detector:
    """A face detector, ready to run; several threads may use one at once.

    `Detector.load()` gives the one that ships; `Detector.load("yunet")` and `Detector.from_file` take YuNet, too.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        preprocessing: Preprocessing,
        name: str,
        fingerprint: str,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._engine, self._preprocessing = engine, preprocessing
        self._yunet = "cls_8" in engine.output_names
        height, width = engine.input_shape[2:] if len(engine.input_shape) == 4 else (0, 0)
        self._fixed = (int(height), int(width)) if height and width else None
        if len(engine.input_shape) != 4 or (not self._yunet and len(engine.output_names) != 1):
            raise WeightsError(f"{name!r} is not a face detector: neither the shipped kind of net nor YuNet")

    @classmethod
    def load(cls, name: str = "face-detector") -> Detector:
        """A detector of the catalogue (downloaded first where it is only listed), or that of a file, NAME.onnx.

        Raises UnknownName, WeightsError, UnreadableFile.
        """
        if name.endswith(".onnx"):  # no name of the catalogue does
            return cls.from_file(name)
        entry = catalogue.entry(name)
        if entry.kind != "detector":
            raise InvalidOption(f"{name!r} is an {entry.kind}, not a detector")
        entry, data = catalogue.read(name)
        preprocessing = entry.preprocessing or Preprocessing(input_order="bgr", mean=0.0, scale=1.0)
        return cls(Engine(data), preprocessing=preprocessing, name=name, fingerprint=entry.fingerprint)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> Detector:
        """A detector's ONNX file: one exported from our training, or YuNet (told apart by its outputs)."""
        engine = Engine(Path(path), threads=threads)
        yunet = "cls_8" in engine.output_names
        preprocessing = Preprocessing(input_order="bgr", mean=0.0, scale=1.0) if yunet else Preprocessing()
        return cls(engine, preprocessing=preprocessing, name=Path(path).stem, fingerprint="")

    def detect(self, image: np.ndarray, *, min_score: float = MIN_SCORE, min_size: float = 20.0) -> tuple[Face, ...]:
        """The faces of a photograph (h, w, 3) uint8 RGB, largest first.

        min_score: faces below it are left out, 0…1. min_size: px of the photograph; faces whose box has a shorter
        side are left out.
        Small values cost time: the photograph is enlarged (up to 2 times) until such a face measures 14 px.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InvalidOption(f"image must be (h, w, 3) uint8, not {image.shape} {image.dtype}")
        if not 0 < min_score <= 1:
            raise InvalidOption(f"min_score must be above 0 and at most 1, not {min_score}")
        if not min_size > 0:
            raise InvalidOption(f"min_size must be above 0 pixels, not {min_size}")
        looks = [
            self.look(image, scale=scale, min_score=min_score, twice=True)
            for scale in self._scales(image.shape[:2], min_size)
        ]
        scores, boxes, landmarks = (np.concatenate(part) for part in zip(*looks, strict=True))
        kept = nms(boxes, scores)
        if not len(kept):
            return ()
        kept = kept[outermost(boxes[kept], scores[kept])]
        boxes, landmarks = fuse(boxes, landmarks, scores, kept)
        scores = scores[kept]
        faces = []
        for score, box, points in zip(scores, boxes, landmarks, strict=True):
            if min(box[2:]) >= min_size and np.ptp(points, axis=0).max() > 1e-3:
                faces.append(face_of(image, box, score, points))
        return tuple(sorted(faces, key=lambda face: -face.box[2] * face.box[3]))

    def _scales(self, shape: tuple[int, ...], min_size: float) -> list[float]:
        """The looks that find faces from `min_size` px to the whole photograph: each finds a range of sizes of one to
        ten."""
        longest = max(shape)
        scale = min(max(SEEN_AT / min_size, 32 / longest), 2.0, LONGEST / longest)
        scales = [self._possible(scale, shape)]
        while LARGEST / scales[-1] < 0.9 * min(shape):
            scales.append(scales[-1] / 4)
        return scales

    def _possible(self, scale: float, shape: tuple[int, ...]) -> float:
        """`scale`, or the largest at which a picture of this shape goes into a net of fixed size."""
        rows, columns = self._fixed or (math.inf, math.inf)
        return min(scale, rows / shape[0], columns / shape[1])

    def look(self, image: np.ndarray, *, scale: float, min_score: float, twice: bool = False) -> Found:
        """What the net says of the photograph at one scale, in px of the photograph, before suppression: scores,
        boxes, landmarks. `twice`: where it is in doubt about a face, it is shown the mirror image, too, and the mean of
        both counts (of our net, not of YuNet)."""
        height, width = image.shape[:2]
        scale = self._possible(scale, image.shape[:2])
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != (width, height):
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        rows, columns = self._fixed or (
            math.ceil(size[1] / MULTIPLE) * MULTIPLE,
            math.ceil(size[0] / MULTIPLE) * MULTIPLE,
        )
        p = self._preprocessing
        padded = np.full((1, 3, rows, columns), -p.mean / p.scale, np.float32)
        channels = image[:, :, :: -1 if p.input_order == "bgr" else 1].transpose(2, 0, 1)
        np.multiply(channels, np.float32(1 / p.scale), out=padded[0, :, : size[1], : size[0]])
        padded[0, :, : size[1], : size[0]] -= np.float32(p.mean / p.scale)
        outputs = self._engine.run(padded)
        if self._yunet:
            scores, boxes, landmarks = decode_yunet(
                dict(zip(self._engine.output_names, outputs, strict=True)), rows, columns
            )
            keep = scores >= min_score
            scores, boxes, landmarks = scores[keep], boxes[keep], landmarks[keep]
        else:
            raw = outputs[0][0]
            if raw.ndim != 2 or raw.shape[1] != NUMBERS:
                raise WeightsError(
                    f"{self.name!r} is not a face detector of likeness: its output is {outputs[0].shape}"
                )
            at = priors(rows, columns)
            if twice and _in_doubt(raw, at, min_score):
                other = self._engine.run(np.ascontiguousarray(padded[..., ::-1]))[0][0]
                raw = (raw + mirrored(other, rows, columns)) / 2
            keep = raw[:, 0] >= _logit(min_score)
            scores, boxes, landmarks = decode(raw[keep], at[keep])
        ratio = np.array([width / size[0], height / size[1]])
        return scores, boxes * np.tile(ratio, 2), landmarks * ratio


def _in_doubt(raw: np.ndarray, at: np.ndarray, min_score: float) -> bool:
    """Whether a face is seen that a second look could add or take away."""
    keep = raw[:, 0] >= _logit(POSSIBLE * min_score)
    scores, boxes, _ = decode(raw[keep], at[keep])
    return bool((scores[nms(boxes, scores)] < SURE).any())


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability)) if probability < 1 else 30.0


@functools.lru_cache(maxsize=4)
def _loaded(name: str) -> Detector:
    return Detector.load(name)


def detect(
    source: ImageSource, *, min_score: float = MIN_SCORE, min_size: float = 20.0, detector: str = "face-detector"
) -> tuple[Face, ...]:
    """The faces of a photograph (a path, bytes, an array or a PIL image), largest first.

    `detector` names weights of the catalogue, or an ONNX file; they are loaded once. See `Detector.detect`.
    Raises UnreadableFile.
    """
    return _loaded(detector).detect(read_image(source), min_score=min_score, min_size=min_size)
