"""How near do pictures that `vgg-slim` painted come to those of full VGG-19?

    python benchmarks/contact_sheet.py [--out out/sheet] [--data FOLDER] [--size 384] [--steps 75] [--contents FILE...]
        [--styles FILE...] [--encoders NAME|FILE...] [--judge FILE] [--betas NUMBER...] [--front-pairs 3]

Every photograph is painted like every painting by every encoder, with the default settings of `likeness stylize`, but
that `vgg-slim` stands in for none of them first; the first few pairs also with other style weights. Each finished
picture is kept in OUT/pictures with its record: the same command goes on where it was ended, and paints again what was
made with other settings. Then it writes into OUT, E being the first encoder:

E-sheet.webp        the pictures of the first two encoders, one above the other
E-front.svg         style error against content error over the style weights
contact_sheet.md    both, and the table of errors and borders, to be pasted into a page
contact_sheet.json  every figure

Errors are those of `references.Judge`, under SqueezeNet 1.1, which no picture was optimised for. Photographs: free ones
inside scikit-image and matplotlib, cropped to 4:3. Paintings and weights: style/ and weights/ of FOLDER (default:
$LIKENESS_DATA).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from PIL import Image
from references import Judge, levelled, read_compressed, read_squeezenet
from sheet_figures import DEFAULT_BETA, PAINTING, PHOTOGRAPH, Row, fronts_of, markdown, ratios_of, summary
from sheet_page import page, plot, save_page
from targets import data_folder
from torch import nn

from likeness.nets.opening import open_net
from likeness.nets.perceptual import save
from likeness.samples.images import read_image
from likeness.style.pictures import record_of, stylize, to_sample
from likeness.style.score import border_ratio
from likeness.style.stylize import stylize_sample
from style import cropped

PAINTINGS = (
    "hokusai_great_wave_1831",
    "vangogh_starry_night_1889",
    "munch_scream_1893",
    "delaunay_portrait_metzinger_1906",
    "kandinsky_composition_vii_1913",
    "monet_water_lilies_1919",
)
CENTRES = {"astronaut": (0.5, 0.0), "grace_hopper": (0.5, 0.25)}  # where the 4:3 of a portrait is cut out
COMPRESSED = "vgg19_16x_relu5_1"
LABELS = {"vgg19_normalised_relu4_1": "VGG-19", COMPRESSED: "VGG-19 compressed 16x"}


@dataclass(frozen=True)
class Encoder:
    """What it is called on the page; a name of the catalogue or a file; the fingerprint of its weights."""

    label: str
    source: str
    fingerprint: str

    @property
    def slug(self) -> str:
        return self.label.lower().replace(" ", "-")


@dataclass(frozen=True)
class Pair:
    """A photograph, cropped, and a painting: `painter` and `year` in words."""

    content: Path
    style: Path
    painter: str
    year: str

    def __str__(self) -> str:
        return f"{self.content.stem.replace('_', ' ')} × {self.painter} {self.year}".rstrip()


@dataclass(frozen=True)
class Job:
    """A picture to paint: `beta` is its style weight."""

    pair: Pair
    encoder: Encoder
    beta: float

    @property
    def name(self) -> str:
        return f"{self.pair.content.stem}--{self.pair.style.stem}--{self.encoder.slug}--{self.beta:g}.png"


def paint(jobs: Sequence[Job], folder: Path, size: int, steps: int) -> None:
    """Paint what is not there yet with these settings; a line for each picture."""
    missing = [job for job in jobs if not is_kept(job, folder, size, steps)]
    print(f"{len(jobs)} pictures, {len(jobs) - len(missing)} kept from before", flush=True)
    began = time.monotonic()
    for number, job in enumerate(missing, 1):
        picture = stylize(
            job.pair.content,
            job.pair.style,
            encoder=job.encoder.source,
            size=size,
            steps=steps,
            style_weight=job.beta,
            warm_up=False,  # or a large net's pictures would begin as those of `vgg-slim`
        )
        picture.save(folder / job.name)
        left = (time.monotonic() - began) / number * (len(missing) - number) / 60
        what = f"{job.pair}, {job.encoder.label}, style weight {job.beta:g}"
        took = f"{picture.run.seconds:.0f} s, {picture.run.steps} evaluations"
        print(f"{number}/{len(missing)} {what}: {took}; about {left:.0f} min left", flush=True)


def is_kept(job: Job, folder: Path, size: int, steps: int) -> bool:
    """Whether the record beside the picture tells of these settings."""
    path = folder / job.name
    if not path.exists() or not record_of(path).exists():
        return False
    settings = json.loads(record_of(path).read_bytes())["settings"]
    wanted = {
        "content": str(job.pair.content),
        "style": [str(job.pair.style)],
        "fingerprint": job.encoder.fingerprint,
        "size": size,
        "steps": steps,
        "style_weight": job.beta,
        "warm_up": False,
    }
    return all(settings.get(name) == value for name, value in wanted.items())


def measure(net: nn.Module, pair: Pair, pictures: Mapping[Job, Path], folder: Path) -> list[Row]:
    """Rows of the photograph, of the painting and of the pictures of this pair. folder: for the cropped painting."""
    content = to_sample(read_image(pair.content))
    height, width = content.shape[2:]
    fitted = to_sample(read_image(cropped(pair.style, folder / f"{pair.style.stem}.png", (width, height))))
    judge = Judge(net, content, to_sample(read_image(pair.style), max(height, width)), fitted)
    samples: list[tuple[str, float | None, Any]] = [(PHOTOGRAPH, None, content), (PAINTING, None, fitted)]
    samples += [(job.encoder.label, job.beta, to_sample(read_image(path))) for job, path in pictures.items()]
    return [Row(str(pair), name, beta, **asdict(judge(x)), border=border_ratio(x)) for name, beta, x in samples]


def free_photographs() -> list[Path]:
    """Six inside scikit-image and matplotlib: NASA's and the US Navy's and SpaceX's, in the public domain, and CC0."""
    import skimage.data
    from matplotlib.cbook import get_sample_data

    inside = Path(skimage.data.__file__).parent
    hopper = Path(get_sample_data("grace_hopper.jpg", asfileobj=False))
    names = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg")
    return [*(inside / name for name in names), hopper, inside / "hubble_deep_field.jpg"]


def signed(style: Path) -> tuple[str, str]:
    """Painter and year as the MANIFEST.json of the folder above says; else the file's name and nothing."""
    manifest = style.parent.parent / "MANIFEST.json"
    entries = json.loads(manifest.read_bytes()) if manifest.exists() else []
    for entry in entries:
        if Path(entry["file"]).name == style.name and "artist" in entry:
            return entry["artist"], str(entry["year"])
    return style.stem.replace("_", " "), ""


def encoder_of(word: str, folder: Path, photographs: Sequence[Path]) -> Encoder:
    """The encoder of this name in the catalogue or in this file. The compressed VGG-19 is written to `folder` in our
    form, its layers levelled over the photographs."""
    file = Path(word)
    if file.stem == COMPRESSED:
        net = levelled(read_compressed(file), [to_sample(read_image(photograph)) for photograph in photographs])
        word = str(folder / f"{COMPRESSED}.safetensors")
        save(net, word, half=False)
    elif file.exists():
        word = str(file.resolve())
    return Encoder(LABELS.get(file.stem, file.stem), word, open_net(word).fingerprint)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/sheet"))
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--size", type=int, default=384, help="longer side in pixels")
    parser.add_argument("--steps", type=int, default=signature(stylize_sample).parameters["steps"].default)
    parser.add_argument("--contents", type=Path, nargs="+", metavar="FILE", help="default: six free photographs")
    parser.add_argument("--styles", type=Path, nargs="+", metavar="FILE", help="default: six paintings of FOLDER")
    parser.add_argument("--encoders", nargs="+", metavar="NAME|FILE", help="two or more, the one in question first")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="SqueezeNet 1.1 as npz")
    parser.add_argument("--betas", type=float, nargs="+", default=[1e3, 3e3, 1e4, 3e4, 1e5], help="style weights")
    parser.add_argument("--front-pairs", type=int, default=3)
    options = parser.parse_args()
    weights = options.data / "weights"
    options.out = options.out.resolve()
    options.contents = options.contents or free_photographs()
    paintings = [options.data / "style" / "paintings_pd" / f"{name}.jpg" for name in PAINTINGS]
    options.styles = [style.resolve() for style in options.styles or paintings]
    options.encoders = options.encoders or ["vgg-slim", *(str(weights / f"{stem}.npz") for stem in LABELS)]
    options.judge = options.judge or weights / "squeezenet1_1.npz"
    if len(options.encoders) < 2:
        parser.error("two encoders at least are needed: they are compared")
    if options.front_pairs < 1:
        parser.error("a front needs a pair")
    for files in (options.contents, options.styles, [Path(word) for word in options.encoders]):
        if len({file.stem for file in files}) < len(files):
            parser.error("two contents, styles or encoders have the same name")
    return options


def page_of(grid: Sequence[Pair], encoders: Sequence[Encoder], folder: Path, setting: str) -> Image.Image:
    """The pictures of the first two encoders. grid: all pairs, those of the first content first."""
    contents = list(dict.fromkeys(pair.content for pair in grid))
    across = len(grid) // len(contents)
    cells = {
        (*divmod(i, across), which): folder / Job(pair, encoder, DEFAULT_BETA).name
        for i, pair in enumerate(grid)
        for which, encoder in enumerate(encoders[:2])
    }
    above, below = (encoder.label for encoder in encoders[:2])
    title = f"Painted by {above} (above) and by {below} (below)", setting
    return page(title, contents, [(pair.painter, pair.year) for pair in grid[:across]], (above, below), cells)


def write_figures(
    rows: Sequence[Row], chosen: Sequence[Pair], encoders: Sequence[Encoder], out: Path, files: Sequence[str], said: str
) -> None:
    """The plot, the Markdown (printed too) and the JSON. chosen: the pairs of the front. said: size and steps."""
    makers = [encoder.label for encoder in encoders]
    lines, fronts = summary(rows, makers), fronts_of(rows, [str(pair) for pair in chosen], makers)
    plot(fronts, out / files[1])
    text = markdown(makers, lines, fronts, files, said)
    (out / "contact_sheet.md").write_text(text)
    found = {
        "setting": said,
        "encoders": [asdict(encoder) for encoder in encoders],
        "pictures": [asdict(row) for row in rows],
        "summary": {name: {figure: asdict(mean) for figure, mean in line.items()} for name, line in lines.items()},
        "fronts": {pair: {m: [asdict(p) for p in c] for m, c in curves.items()} for pair, curves in fronts.items()},
        "at_equal_content": ratios_of(fronts, makers),
    }
    (out / "contact_sheet.json").write_text(json.dumps(found, indent=1) + "\n")
    print(text)


def main() -> int:
    options = parsed()
    out, size = options.out, options.size
    inputs, weights, pictures = (out / name for name in ("inputs", "encoders", "pictures"))
    for folder in (inputs, weights, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    shape = size, round(size * 3 / 4)
    contents = [
        cropped(file, inputs / f"{file.stem}.png", shape, CENTRES.get(file.stem, (0.5, 0.5)))
        for file in options.contents
    ]
    encoders = [encoder_of(word, weights, contents) for word in options.encoders]
    grid = [Pair(content, style, *signed(style)) for content, style in itertools.product(contents, options.styles)]
    chosen = grid[:: len(options.styles) + 1][: min(options.front_pairs, len(options.styles))]  # along the diagonal
    jobs = [Job(pair, encoder, DEFAULT_BETA) for pair in grid for encoder in encoders]
    jobs += [Job(pair, encoder, beta) for pair in chosen for beta in options.betas for encoder in encoders]
    jobs = list(dict.fromkeys(jobs))
    paint(jobs, pictures, size, options.steps)

    files = f"{encoders[0].slug}-sheet.webp", f"{encoders[0].slug}-front.svg"
    said = f"{size} pixels, up to {options.steps} evaluations a scale, style weight {DEFAULT_BETA:g}"
    quality = save_page(page_of(grid, encoders, pictures, said), out / files[0])
    print(f"{out / files[0]}: quality {quality}", flush=True)
    judge = read_squeezenet(options.judge)
    rows: list[Row] = []
    for pair in grid:
        mine = [job for job in jobs if job.pair == pair]
        rows += measure(judge, pair, {job: pictures / job.name for job in mine}, inputs)
    write_figures(rows, chosen, encoders, out, files, said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
