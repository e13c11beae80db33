"""What the five layers of a small classifier answer to, as in the figures of Zeiler & Fergus (2014): of each layer nine
units, of each unit the nine patches of the photographs inside scikit-image and matplotlib that excite it most, found by
`likeness lens patches`.

These photographs are in the public domain, CC0 or without known restrictions (what their docstrings say).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from demo_report import Layer
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data

from likeness.cli.main import main as likeness

NET, LAYERS, SIDE, GAP = "alexnet-slim", ("relu1", "relu2", "relu3", "relu4", "relu5"), 136, 8
SQUARE = 128  # pixels: what this net is shown
NAMES = "astronaut brick camera cat coffee coins grass gravel hubble_deep_field immunohistochemistry retina rocket text"


def photographs() -> Iterator[Image.Image]:
    for name in NAMES.split():
        yield Image.fromarray(getattr(data, name)()).convert("RGB")
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
        yield portrait.convert("RGB")


def squares(side: int) -> Iterator[np.ndarray]:
    """Squares of `side` pixels beside one another, of every photograph at three sizes, so that little is seen twice."""
    for photograph in photographs():
        for rows in (1, 2, 4):
            ratio = rows * side / min(photograph.size)
            if ratio <= 1:
                width, height = (max(rows * side, round(n * ratio)) for n in photograph.size)
                picture = np.asarray(photograph.resize((width, height), Image.Resampling.LANCZOS))
                for top in range(0, height - side + 1, side):
                    for left in range(0, width - side + 1, side):
                        yield picture[top : top + side, left : left + side]


def layers(out: Path) -> list[Layer]:
    """The grids of `likeness lens patches`, whose pages are left in out/layers; what it sees is in out/squares."""
    (out / "squares").mkdir()
    for number, square in enumerate(squares(SQUARE)):
        Image.fromarray(square).save(out / "squares" / f"{number:03}.png")
    patches = told("patches", NET, out / "squares", "--layers", ",".join(LAYERS), "-o", out / "layers")
    sees = {row["layer"]: row["size"] for row in told("layers", NET)}
    return [
        Layer(
            f"Layer {number}",
            f"Each unit sees {sees[name][0]} × {sees[name][1]} pixels.",
            [grid(out / "layers" / "pictures" / f"{number}-{name}-{unit}.webp") for unit in patches["shown"][name]],
        )
        for number, name in enumerate(LAYERS, 1)
    ]


def told(*words: object) -> dict | list:
    """What `likeness lens ...` prints as JSON."""
    with redirect_stdout(io.StringIO()) as printed:
        status = likeness(["lens", *map(str, words), "--json"])
    if status:
        raise SystemExit(status)
    return json.loads(printed.getvalue())


def grid(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def figure(rows: list[Layer]) -> Image.Image:
    """All grids of all layers as one picture, a layer per row."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (9 * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, one in enumerate(row.grids):
            sheet.paste(one, (x * step, y * step))
    return sheet
