"""Put a trained encoder into the package: `python tools/ship_face.py ENC.safetensors TRAINING_FOLDER TEACHER.onnx`.

Copies the safetensors, exports the ONNX file (checked to 1e-5), writes the card, and calibrates on the people of
TRAINING_FOLDER that `likeness train recognition` held out (every 20th, never trained on). Held-out
names that the teacher takes for one person are merged first: the same face under two names is not a false match.
"""

import argparse
import shutil
from pathlib import Path

from likeness.metric.data import held_out, load_crops
from likeness.metric.distillation import teacher_codes
from likeness.nets import catalogue
from likeness.nets.catalogue import SHIPPED, Preprocessing, write_card
from likeness.nets.engine import Engine
from likeness.nets.export import export_encoder
from likeness.recognition.calibration import fit, merge_twins
from likeness.recognition.encoder import FaceEncoder

LICENCE = (
    "code and recipe as the project; trained on CelebA and other research sets and distilled from EdgeFace-XS "
    "(BSD-3): non-commercial research use, see docs/models/face.md"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    options = parser.parse_args()

    SHIPPED.mkdir(exist_ok=True)
    calibrated = SHIPPED / "face.calibration.json"
    calibrated.unlink(missing_ok=True)
    shutil.copyfile(options.encoder, SHIPPED / "face.safetensors")
    report = export_encoder(SHIPPED / "face.safetensors", SHIPPED / "face.onnx")
    entry = write_card(
        SHIPPED,
        "face",
        kind="encoder",
        licence=LICENCE,
        description="the Siamese tower of likeness: aligned 112x112 face -> 128-d unit code",
        preprocessing=Preprocessing(mirror=True),
        code_length=report["code_length"],
        recipe="docs/recipes/face.md",
    )
    crops = load_crops(options.folder, cache=options.cache)
    strangers = crops.where(held_out(crops.subjects))
    codes = FaceEncoder(entry, Engine(catalogue.check(entry)), detector=None).encode_crops(strangers.images)
    people = merge_twins(teacher_codes(strangers.images, options.teacher), strangers.subjects, within=0.8)
    calibration = fit(codes, people, entry.fingerprint)
    calibration.save(calibrated)
    print(f"fingerprint {entry.fingerprint}, {report['bytes']} bytes, torch differs by {report['max_difference']:.1e}")
    print(f"calibrated on {len(strangers)} crops of {len(set(people.tolist()))} held-out people")
    print(f"thresholds: FMR 1e-2 {calibration.threshold(1e-2):.3f}, 1e-3 {calibration.threshold(1e-3):.3f}")


if __name__ == "__main__":
    main()
