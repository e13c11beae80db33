"""What the five layers of a small classifier answer to, as in the figures of Zeiler & Fergus (2014): of each layer nine
units, of each unit the nine patches of the photographs inside scikit-image and matplotlib that excite it most.

These photographs are in the public domain, CC0 or without known restrictions (what their docstrings say).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from demo_report import Layer
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data

from likeness.lens.models import open_model
from likeness.lens.patches import Hit, top_patches
from likeness.nets.receptive_field import ReceptiveField

NET, LAYERS, SIDE, GAP = "alexnet-slim", ("relu1", "relu2", "relu3", "relu4", "relu5"), 44, 2
NAMES = "astronaut brick camera cat coffee coins grass gravel hubble_deep_field immunohistochemistry retina rocket text"


def photographs() -> Iterator[Image.Image]:
    for name in NAMES.split():
        yield Image.fromarray(getattr(data, name)()).convert("RGB")
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
        yield portrait.convert("RGB")


def tiles(side: int) -> list[np.ndarray]:
    """Squares of `side` pixels beside one another, of every photograph at three sizes, so that little is seen twice."""
    found = []
    for photograph in photographs():
        for rows in (1, 2, 4):
            ratio = rows * side / min(photograph.size)
            if ratio <= 1:
                width, height = (max(rows * side, round(n * ratio)) for n in photograph.size)
                picture = np.asarray(photograph.resize((width, height), Image.Resampling.LANCZOS))
                for top in range(0, height - side + 1, side):
                    found += [picture[top : top + side, x : x + side] for x in range(0, width - side + 1, side)]
    return found


def layers() -> list[Layer]:
    model = open_model(NET)
    samples = tiles(model.size)
    batches = (torch.stack([model.tensor(one) for one in samples[i : i + 32]]) for i in range(0, len(samples), 32))
    found = top_patches(model.net, batches, layers=LAYERS).layers
    return [
        Layer(
            f"Layer {number}",
            f"Each unit sees {found[name].field.size[0]} × {found[name].field.size[1]} pixels.",
            [grid(samples, found[name].hits[unit], found[name].field) for unit in found[name].selective(9)],
        )
        for number, name in enumerate(LAYERS, 1)
    ]


def figure(rows: list[Layer]) -> Image.Image:
    """All grids of all layers as one picture, a layer per row."""
    side, apart = rows[0].grids[0].width, 4 * GAP
    sheet = Image.new("RGB", (9 * (side + apart) - apart, len(rows) * (side + apart) - apart), "white")
    for y, row in enumerate(rows):
        for x, one in enumerate(row.grids):
            sheet.paste(one, (x * (side + apart), y * (side + apart)))
    return sheet


def grid(samples: list[np.ndarray], hits: tuple[Hit, ...], field: ReceptiveField) -> Image.Image:
    """Up to 3 x 3 patches, the most exciting one first; grey lies beyond a picture's border."""
    step, (height, width) = SIDE + GAP, field.size
    sheet = Image.new("RGB", (3 * step - GAP, 3 * step - GAP), "white")
    for i, hit in enumerate(hits):
        around = ((height, height), (width, width), (0, 0))
        picture = Image.fromarray(np.pad(samples[hit.sample], around, constant_values=128))
        top, left = (o + s * at + n for o, s, at, n in zip(field.offset, field.stride, hit.position, field.size))
        patch = picture.crop((left, top, left + width, top + height))
        how = Image.Resampling.NEAREST if width < SIDE else Image.Resampling.LANCZOS
        sheet.paste(patch.resize((SIDE, SIDE), how), (i % 3 * step, i // 3 * step))
    return sheet
