"""Two real portraits, sixteen degraded copies, a gallery, strangers, and pictures without a face: out/demo/report.html.

The portraits come inside scikit-image (the astronaut Eileen Collins, NASA) and matplotlib (Rear Admiral Grace Hopper,
US Navy), both in the public domain, so that nothing is downloaded. Only public calls of likeness are used here.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from demo_layers import figure, layers
from demo_report import Card, Section, write_report
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

import likeness

T = TypeVar("T")
EILEEN, GRACE = "Eileen Collins", "Grace Hopper"
MARK = ".made-by-the-demo"
MADE = ("photos", "people.db", "people.db-wal", "people.db-shm", "squares", "layers", "layers.jpg", "report.html")


def portraits() -> dict[str, Image.Image]:
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    return {
        EILEEN: Image.fromarray(astronaut()),
        GRACE: Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)),
    }


def other_pictures() -> dict[str, Image.Image]:
    from skimage import data

    return {"a cat": data.chelsea(), "coffee": data.coffee(), "a rocket": data.rocket()}


def stranger() -> Image.Image:
    """The only other face of some size inside these packages."""
    from skimage.data import camera

    return Image.fromarray(camera())


def noisy(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture).astype(np.float32)
    pixels += np.random.default_rng(0).normal(0, 25, pixels.shape).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def recompressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=10)
    return Image.open(buffer)


def small(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 3, picture.height // 3), Image.Resampling.LANCZOS)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
    "noisy": noisy,
    "a third of the size": small,
    "JPEG quality 10": recompressed,
    "turned 15°": lambda picture: picture.rotate(15, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90)),
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.3),
    "mirrored": ImageOps.mirror,
    "lying, upright by EXIF": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
}


def save(picture: Image.Image, path: Path, *, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path, quality=92, exif=exif)
    return path


def make_photos(folder: Path) -> tuple[dict[str, Path], dict[tuple[str, str], Path], dict[str, Path], Path]:
    """The portraits, their copies, pictures without a face, and a portrait in which the face is too small."""
    originals: dict[str, Path] = {}
    copies: dict[tuple[str, str], Path] = {}
    for name, picture in portraits().items():
        file = name.split()[0].lower()
        picture = picture.convert("RGB")
        originals[name] = save(picture, folder / f"{file}.jpg")
        for number, (what, change) in enumerate(COPIES.items(), 1):
            turned = 6 if "EXIF" in what else 1
            copies[name, what] = save(change(picture), folder / f"{file}-{number}.jpg", orientation=turned)
    others = {
        what: save(Image.fromarray(array), folder / f"{what.split()[-1]}.jpg")
        for what, array in other_pictures().items()
    }
    tiny = save(portraits()[EILEEN].resize((132, 132), Image.Resampling.LANCZOS), folder / "tiny.jpg")  # 22 px of face
    return originals, copies, others, tiny


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What `call` returns and the milliseconds it took."""
    start = time.perf_counter()
    result = call()
    return result, 1000 * (time.perf_counter() - start)


def verify_cards(originals: dict[str, Path], copies: dict[tuple[str, str], Path], max_fmr: float) -> list[Card]:
    cards = []
    for (name, what), path in copies.items():
        decision, ms = timed(lambda path=path, name=name: likeness.verify(originals[name], path, max_fmr=max_fmr))
        title = f"{name.split()[0]} × {name.split()[0]}, {what}"
        cards.append(card(title, path, decision, decision.decision == "match", ms))
    for what in COPIES:
        path = copies[GRACE, what]
        decision, ms = timed(lambda path=path: likeness.verify(originals[EILEEN], path, max_fmr=max_fmr))
        cards.append(card(f"Eileen × Grace, {what}", path, decision, decision.decision == "no match", ms))
    return cards


def card(title: str, path: Path, decision: likeness.Decision, expected: bool, ms: float) -> Card:
    return Card(
        title,
        path,
        boxes_of(path),
        decision.decision,
        "; ".join(decision.reasons),
        decision.distance,
        decision.threshold,
        expected,
        ms,
    )


def identify_cards(
    gallery: likeness.Gallery,
    pictures: dict[tuple[str, str], Path],
    expected: Callable[[str], str | None],
    max_fpir: float,
) -> list[Card]:
    """One card per picture; `expected(name)`: the subject that should be found, None for a stranger."""
    cards = []
    for (name, what), path in pictures.items():
        faces, ms = timed(lambda path=path: gallery.identify(path, max_fpir=max_fpir))
        title = f"{name}, {what}" if name else what
        face = faces[0]
        best = face.candidates[0] if face.candidates else None
        verdict = f"match: {face.subject}" if face.subject else face.decision
        nearest = f"nearest: {best.subject}" if best and not face.subject else ""
        note = "; ".join([*face.reasons, nearest]).strip("; ")
        right = face.subject == expected(name)  # of a stranger, "no match" and "cannot decide" are both right
        boxes = [list(f.region["box"]) for f in faces if f.region]
        cards.append(
            Card(title, path, boxes, verdict, note, best.distance if best else None, face.threshold, right, ms)
        )
    return cards


def boxes_of(path: Path) -> list[list[float]]:
    return [list(face.box) for face in likeness.detect(path)]


def fresh(out: Path) -> None:
    """An empty folder `out`: what an earlier run left is removed, but nothing that the demo did not make."""
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SystemExit(f"demo: {out} was not made by this demo: choose another folder with --out, or remove it")
    for name in MADE:
        place = out / name
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def run(out: Path, *, max_fmr: float, max_fpir: float) -> tuple[Path, list[Section]]:
    fresh(out)
    originals, copies, others, tiny = make_photos(out / "photos")
    start = time.perf_counter()
    first = likeness.verify(*originals.values(), max_fmr=max_fmr)
    cold = time.perf_counter() - start
    sections = []
    with likeness.Gallery(out / "people.db") as gallery:
        enrolled = [
            Card(
                name,
                path,
                boxes_of(path),
                "enrolled",
                f"{len(done.accepted)} template from one photograph",
                None,
                None,
                bool(done.accepted),
                ms,
            )
            for name, path in originals.items()
            for done, ms in [timed(lambda name=name, path=path: gallery.enroll(name, [path]))]
        ]
        sections.append(Section("Enrolled", "One photograph of each is enough.", enrolled))
        sections.append(
            Section(
                "Verify: the same person?",
                f"1:1, at a false match rate of {max_fmr:g}. Each degraded copy against the "
                "person's own portrait, then Grace Hopper's copies against Eileen Collins.",
                verify_cards(originals, copies, max_fmr),
            )
        )
        sections.append(
            Section(
                "Identify: who is it?",
                f"1:N in the gallery of both, at a false positive rate of {max_fpir:g}.",
                identify_cards(gallery, copies, lambda name: name, max_fpir),
            )
        )
        strangers = []
        for leaving in (GRACE, EILEEN):
            gallery.forget(leaving)
            pictures = {key: path for key, path in copies.items() if key[0] == leaving}
            pictures = {(leaving, "portrait"): originals[leaving], **pictures}
            strangers += identify_cards(gallery, pictures, lambda name: None, max_fpir)
            gallery.enroll(leaving, [originals[leaving]])
        cameraman = {("The cameraman", "in profile"): save(stranger(), out / "photos" / "cameraman.jpg")}
        strangers += identify_cards(gallery, cameraman, lambda name: None, max_fpir)
        sections.append(
            Section(
                "Strangers",
                "Each woman is forgotten in turn: what the gallery then says to her pictures must not be the other's "
                "name. The man at the camera was never in it.",
                strangers,
            )
        )
        nobody = {("", what): path for what, path in {**others, "a face of 22 pixels": tiny}.items()}
        sections.append(
            Section(
                "Nobody to recognise",
                "No face, or one too small to decide: the third value of a decision.",
                identify_cards(gallery, nobody, lambda name: None, max_fpir),
            )
        )
    facts: dict[str, Any] = {
        "likeness": likeness.__version__,
        "encoder fingerprint": first.fingerprint,
        "first verify, nets loaded": f"{cold:.2f} s",
        "verify, median": f"{np.median([one.ms for one in sections[1].cards]):.0f} ms",
        "identify, median": f"{np.median([one.ms for one in sections[2].cards]):.0f} ms",
    }
    rows = layers(out)
    figure(rows).save(out / "layers.jpg", quality=88)
    return write_report(out / "report.html", sections, facts, rows), sections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="default: %(default)s")
    parser.add_argument("--max-fmr", type=float, default=1e-3)
    parser.add_argument("--max-fpir", type=float, default=1e-3)
    options = parser.parse_args()
    report, sections = run(options.out, max_fmr=options.max_fmr, max_fpir=options.max_fpir)
    for section in sections:
        right = sum(one.expected for one in section.cards)
        print(f"{section.title:28} {right:3} of {len(section.cards)} as expected")
        for one in section.cards:
            if not one.expected:
                print(f"    not expected: {one.title}: {one.verdict} {one.note}")
    print(f"\nReport: {report}  ({report.resolve().as_uri()})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
