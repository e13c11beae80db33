"""What `likeness stylize --fast` makes.

    python benchmarks/fast_sheet.py [--net adain] [--out out/fast] [--data FOLDER]

Photographs that come inside scikit-image, each painted in one pass like paintings of style/ of FOLDER (default:
$LIKENESS_DATA); written as one page, OUT/adain-sheet.webp. How long one takes: `python benchmarks/style.py fast`.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sheet_page import INK, MARGIN, SOFT, save_page, write
from skimage import data as photographs
from targets import data_folder

from likeness.nets.opening import locate
from likeness.samples.images import read_image, squared
from likeness.style import adain
from likeness.style.fast import stylize_fast

PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")
PAINTINGS = {
    "hokusai_great_wave_1831": ("Hokusai", "Great Wave"),
    "vangogh_starry_night_1889": ("van Gogh", "Starry Night"),
    "munch_scream_1893": ("Munch", "The Scream"),
    "kandinsky_composition_vii_1913": ("Kandinsky", "Composition VII"),
    "monet_water_lilies_1919": ("Monet", "Water Lilies"),
    "picabia_udnie_1913": ("Picabia", "Udnie"),
}
SIDE, GAP, HEAD = 236, 10, 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="adain")
    parser.add_argument("--out", type=Path, default=Path("out/fast"))
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.data / "style" / "paintings_pd"
    net = adain.load(locate(options.net, kind="adain", example="adain")[0])
    paintings = {name: read_image(folder / f"{name}.jpg") for name in PAINTINGS}

    step = SIDE + GAP
    page = Image.new(
        "RGB", (2 * MARGIN + step * (1 + len(paintings)), HEAD + MARGIN + step * len(PHOTOGRAPHS)), "white"
    )
    draw = ImageDraw.Draw(page)
    for column, (painter, title) in enumerate(PAINTINGS.values(), 1):
        write(draw, (MARGIN + column * step, 18), painter, 18, INK)
        write(draw, (MARGIN + column * step, 42), title, 15, SOFT)
    for row, name in enumerate(PHOTOGRAPHS):
        photograph = squared(np.asarray(getattr(photographs, name)()), 512)
        made = [photograph, *(stylize_fast(photograph, one, net=net).image for one in paintings.values())]
        for column, image in enumerate(made):
            small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(small, (MARGIN + column * step, HEAD + row * step))
    save_page(page, options.out / "adain-sheet.webp")


if __name__ == "__main__":
    main()
