"""Pictures to train a detector on: random crops over many scales, turned, mirrored, in mosaics, with pasted faces and
all kinds of light.

Every picture is a function of (seed, step, index) alone, so a resumed training sees what the uninterrupted one would
have seen.
Pillow and NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..samples.images import read_image
from .decoding import flip_landmarks
from .labels import Photo

SMALLEST, TINY = (
    7.0,
    8.0,
)  # px on the canvas: faces below SMALLEST cost nothing; anchors of a crop are drawn from TINY on


@dataclass(frozen=True)
class Canvas:
    """One training picture: image (h, w, 3) uint8; boxes (n, 4), landmarks (n, 5, 2) with NaN where unknown, sure
    (n,)."""

    image: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    sure: np.ndarray


class Pictures:
    """The training pictures, decoded once and kept in memory as uint8, and the random canvases made of them.

    plain: share of canvases that are one photograph's crop and little more, see `_plain`.
    """

    def __init__(self, photos: list[Photo], *, size: int = 256, plain: float = 0.0) -> None:
        self.size, self.plain = size, plain
        self.photos = photos
        self.images = [read_image(p.path) for p in photos]
        self.with_faces = [i for i, p in enumerate(photos) if p.sure.any()]
        self.without = [i for i, p in enumerate(photos) if not len(p.boxes)]
        # Photographs with several faces are rarer and teach more: drawn in proportion to their faces, up to 8.
        weight = np.array([min(8.0, float(photos[i].sure.sum())) for i in self.with_faces])
        self.weight = weight / weight.sum() if len(weight) else weight
        self.large = [
            (i, j)
            for i in self.with_faces
            for j, b in enumerate(photos[i].boxes)
            if photos[i].sure[j] and min(b[2:]) >= 48 and np.isfinite(photos[i].landmarks[j]).all()
        ]

    def canvas(self, rng: np.random.Generator) -> Canvas:
        """One random training picture (size, size, 3) with its faces."""
        if rng.random() < self.plain:
            return self._plain(rng)
        kind = rng.random()
        size = self.size
        if kind < 0.55 or not self.with_faces:
            made = self._crop(rng, size, size)
        elif kind < 0.85:
            made = self._mosaic(rng)
        else:
            made = self._crop(rng, size, size, negative=True) if self.without else self._crop(rng, size, size)
        if self.large and (kind >= 0.91 or rng.random() < 0.1):
            made = self._paste(rng, made)
        if rng.random() < 0.1:
            made = _cover(rng, made)
        return _photometric(rng, made)

    def _plain(self, rng: np.random.Generator) -> Canvas:
        """A crop as a photograph gives it: no mosaic, nothing pasted or covered, and mostly in its own light.

        Small nets learn more from these once they know what a face is (Ge et al. 2021, "YOLOX", table 5 and 2.2)."""
        made = self._crop(rng, self.size, self.size, negative=bool(self.without) and rng.random() < 0.15)
        return _photometric(rng, made) if rng.random() < 0.4 else made

    def _pick(self, rng: np.random.Generator, negative: bool) -> int:
        if negative or not self.with_faces:
            return int(rng.choice(self.without))
        return int(rng.choice(self.with_faces, p=self.weight))

    def _crop(self, rng: np.random.Generator, width: int, height: int, *, negative: bool = False) -> Canvas:
        """A random similarity transform of one photograph onto a canvas, usually with one of its faces inside."""
        if not negative and self.without and rng.random() < 0.06:
            negative = True
        index = self._pick(rng, negative)
        photo, image = self.photos[index], self.images[index]
        h, w = image.shape[:2]
        if photo.sure.any() and rng.random() < 0.9:
            box = photo.boxes[rng.choice(np.flatnonzero(photo.sure))]
            largest = 0.95 * min(width, height)
            target = math.exp(rng.uniform(math.log(TINY), math.log(largest)))
            scale = target / float(box[2:].mean())
            scale = min(max(scale, 0.12), 3.0, 1.2 * largest / float(box[2:].max()))
            anchor = box[:2] + box[2:] / 2
            # The face may be anywhere, now and then over the edge; whole pictures smaller than the canvas lie inside
            # it.
            where = np.array([rng.uniform(0.02, 0.98) * width, rng.uniform(0.02, 0.98) * height])
            if rng.random() < 0.25:
                where = np.array([width, height]) * rng.normal(0.5, 0.05, 2)
        else:
            scale = max(math.exp(rng.uniform(math.log(0.35), math.log(1.6))), 0.8 * min(width, height) / max(w, h))
            anchor = np.array([rng.uniform(0, w), rng.uniform(0, h)])
            where = np.array([width, height]) / 2
        if rng.random() < 0.85:  # little empty canvas: the photograph covers it, or lies inside where it is smaller
            low = where - anchor * scale  # where the photograph's corner comes to lie, but for the turn
            room = np.array([width, height]) - np.array([w, h]) * scale
            where = where + np.clip(low, np.minimum(room, 0), np.maximum(room, 0)) - low
        angle = rng.uniform(-20, 20) if rng.random() < 0.5 else rng.normal(0, 4)
        made = _similarity(
            photo,
            image,
            scale=scale,
            degrees=angle,
            anchor=anchor,
            where=where,
            width=width,
            height=height,
            fill=_fill(rng),
        )
        return _mirror(made) if rng.random() < 0.5 else made

    def _mosaic(self, rng: np.random.Generator) -> Canvas:
        """Four photographs, one in each quarter of a randomly divided canvas."""
        size = self.size
        x, y = (int(v) for v in rng.uniform(0.3, 0.7, 2) * size)
        image = np.zeros((size, size, 3), np.uint8)
        parts = []
        for left, top, right, bottom in ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)):
            part = self._crop(rng, right - left, bottom - top)
            image[top:bottom, left:right] = part.image
            parts.append((part, np.array([left, top], np.float32)))
        return Canvas(
            image,
            np.concatenate([p.boxes + np.concatenate([o, [0, 0]]) for p, o in parts]).astype(np.float32),
            np.concatenate([p.landmarks + o for p, o in parts]).astype(np.float32),
            np.concatenate([p.sure for p, _ in parts]),
        )

    def _paste(self, rng: np.random.Generator, made: Canvas) -> Canvas:
        """Large faces of other photographs, shrunk to many sizes and laid in with soft edges where no face is yet."""
        size = self.size
        image, boxes, landmarks = made.image.copy(), [made.boxes], [made.landmarks]
        taken = made.boxes.copy()
        for _ in range(int(rng.integers(1, 7))):
            index, which = self.large[int(rng.integers(len(self.large)))]
            photo, source = self.photos[index], self.images[index]
            box = photo.boxes[which]
            target = math.exp(rng.uniform(math.log(TINY), math.log(0.4 * size)))
            scale = target / float(box[2:].mean())
            context = box[2:] * rng.uniform(1.3, 2.0)  # hair, ears and neck come along
            extent = np.maximum(np.round(context * scale), 4).astype(int)
            if max(extent) >= size:
                continue
            corner = rng.integers(0, size - extent)
            where = corner + extent / 2
            region = np.array([[*(where - box[2:] * scale / 2), *(box[2:] * scale)]], np.float32)
            low, high = (
                np.maximum(region[0, :2], taken[:, :2]),
                np.minimum(region[0, :2] + region[0, 2:], taken[:, :2] + taken[:, 2:]),
            )
            if (np.clip(high - low, 0, None).prod(1) > 0).any():
                continue
            cut = _similarity(
                photo,
                source,
                scale=scale,
                degrees=rng.normal(0, 8),
                anchor=box[:2] + box[2:] / 2,
                where=extent / 2,
                width=int(extent[0]),
                height=int(extent[1]),
                fill=np.zeros(3),
            )
            if rng.random() < 0.5:
                cut = _mirror(cut)
            distance = (
                np.linalg.norm(cut.boxes[:, :2] + cut.boxes[:, 2:] / 2 - extent / 2, axis=1)
                if len(cut.boxes)
                else np.array([])
            )
            if len(cut.boxes) != 1 or distance[0] > 3 or not cut.sure[0]:
                continue  # a neighbour came along
            yy, xx = np.mgrid[0 : extent[1], 0 : extent[0]]
            radius = np.hypot((xx + 0.5) / extent[0] * 2 - 1, (yy + 0.5) / extent[1] * 2 - 1)
            alpha = np.clip((1.05 - radius) / 0.2, 0, 1)[..., None]
            spot = image[corner[1] : corner[1] + extent[1], corner[0] : corner[0] + extent[0]]
            spot[:] = (alpha * cut.image + (1 - alpha) * spot).astype(np.uint8)
            shift = corner.astype(np.float32)
            boxes.append(cut.boxes + np.concatenate([shift, [0, 0]]).astype(np.float32))
            landmarks.append(cut.landmarks + shift)
            taken = np.concatenate([taken, boxes[-1]])
        joined = np.concatenate(boxes)
        return Canvas(
            image,
            joined,
            np.concatenate(landmarks),
            np.concatenate([made.sure, np.ones(len(joined) - len(made.sure), bool)]),
        )


def _similarity(
    photo: Photo,
    image: np.ndarray,
    *,
    scale: float,
    degrees: float,
    anchor: np.ndarray,
    where: np.ndarray,
    width: int,
    height: int,
    fill: np.ndarray,
) -> Canvas:
    """The photograph scaled, turned about `anchor`, `anchor` moved to `where`, cut to width x height; and its faces."""
    h, w = image.shape[:2]
    source, shrunk = Image.fromarray(image), np.ones(2)
    if scale < 0.8:  # shrink first with antialiasing: bilinear sampling alone would skip pixels
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        source = source.resize(size, Image.Resampling.BILINEAR)
        shrunk = np.array([size[0] / w, size[1] / h])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    forward = scale * np.array([[cos, -sin], [sin, cos]])
    back = np.linalg.inv(forward)
    offset = anchor - back @ where
    matrix = np.column_stack([back * shrunk[:, None], offset * shrunk])
    canvas = source.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(matrix.ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=tuple(int(v) for v in fill),
    )
    if not len(photo.boxes):
        return Canvas(
            np.asarray(canvas), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool)
        )
    centres = (photo.boxes[:, :2] + photo.boxes[:, 2:] / 2 - anchor) @ forward.T + where
    landmarks = (photo.landmarks - anchor) @ forward.T + where
    half = photo.boxes[:, 2:] * scale / 2
    extent = np.stack(
        [np.hypot(half[:, 0] * cos, half[:, 1] * sin), np.hypot(half[:, 0] * sin, half[:, 1] * cos)], axis=1
    )  # of the turned ellipse
    boxes = np.concatenate([centres - extent, 2 * extent], axis=1)
    visible = np.clip(
        np.minimum(boxes[:, :2] + boxes[:, 2:], [width, height]) - np.maximum(boxes[:, :2], 0), 0, None
    ).prod(1) / boxes[:, 2:].prod(1)
    inside = ((centres > 0) & (centres < [width, height])).all(1)
    sure = photo.sure & inside & (visible > 0.45) & (boxes[:, 2:].min(1) >= SMALLEST)
    keep = visible > 0
    return Canvas(np.asarray(canvas), boxes[keep].astype(np.float32), landmarks[keep].astype(np.float32), sure[keep])


def _mirror(made: Canvas) -> Canvas:
    width = made.image.shape[1]
    boxes = made.boxes.copy()
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    return Canvas(np.ascontiguousarray(made.image[:, ::-1]), boxes, flip_landmarks(made.landmarks, width), made.sure)


def _fill(rng: np.random.Generator) -> np.ndarray:
    """Colour outside the photograph: black (as in detection) half of the time, else any grey or colour."""
    kind = rng.random()
    return np.zeros(3) if kind < 0.5 else np.full(3, rng.uniform(0, 255)) if kind < 0.75 else rng.uniform(0, 255, 3)


def _cover(rng: np.random.Generator, made: Canvas) -> Canvas:
    """Something in front of one face: hides up to a third of it."""
    able = [i for i in range(len(made.boxes)) if made.sure[i] and min(made.boxes[i, 2:]) >= 32]
    if not able:
        return made
    box = made.boxes[int(rng.choice(able))]
    share = rng.uniform(0.2, 0.55, 2)
    low = box[:2] + rng.uniform(-0.1, 1.1 - share) * box[2:]
    picture = Image.fromarray(made.image)
    shape = [tuple(low), tuple(low + share * box[2:])]
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(shape, fill=tuple(int(v) for v in rng.uniform(0, 255, 3)))
    return Canvas(np.asarray(picture), made.boxes, made.landmarks, made.sure)


def _photometric(rng: np.random.Generator, made: Canvas) -> Canvas:
    """Light, colour, blur, low resolution and noise; geometry stays."""
    image = made.image
    smallest = made.boxes[made.sure][:, 2:].min() if made.sure.any() else 64.0
    kind = rng.random()
    if kind < 0.12 and smallest >= 14:
        factor = rng.uniform(1.3, min(4.0, smallest / 9))
        small = Image.fromarray(image).resize(
            (max(8, int(image.shape[1] / factor)), max(8, int(image.shape[0] / factor))), Image.Resampling.BILINEAR
        )
        image = np.asarray(small.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR))
    elif kind < 0.2:
        image = np.asarray(
            Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, max(0.5, min(2.5, smallest / 20)))))
        )
    if rng.random() < 0.7:
        ramp = np.arange(256) / 255
        curves = []
        gamma, contrast, light = math.exp(rng.normal(0, 0.3)), math.exp(rng.normal(0, 0.25)), rng.normal(0, 0.1)
        for gain in np.exp(rng.normal(0, 0.08, 3)):
            curves.append(np.clip(((ramp**gamma - 0.5) * contrast + 0.5 + light) * gain * 255, 0, 255))
        table = np.stack(curves, axis=1).astype(np.uint8)
        image = np.stack([table[image[..., c], c] for c in range(3)], axis=-1)
    if rng.random() < 0.15:
        image = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2).astype(np.uint8)
    if rng.random() < 0.1:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 16)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return Canvas(np.ascontiguousarray(image), made.boxes, made.landmarks, made.sure)
