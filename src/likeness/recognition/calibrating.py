"""One command's worth of work: from a folder of people to what an encoder's distances mean."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InvalidOption, UnreadableFile
from ..nets import catalogue
from ..progress import Progress
from ..samples.folders import read_subjects
from ..samples.images import read_image
from .calibration import Calibration, fit
from .encoder import BATCH, FaceEncoder


def calibrate_encoder(
    name: str, folder: str | os.PathLike[str], *, detector: str = "face-detector", on_progress: Progress | None = None
) -> Calibration:
    """Calibrate the user's encoder `name` on the people in `folder` (see `calibrate`) and keep it in the catalogue.

    From then on every command that takes `name` knows error rates. An older calibration is replaced.
    Raises UnknownName, InvalidOption for shipped weights (they have theirs), and what `calibrate` raises.
    """
    file = catalogue.calibration_file(name)  # refuses before the work, not after it
    calibration = calibrate(FaceEncoder.load(name, detector=detector), folder, on_progress=on_progress)
    calibration.save(file)
    return calibration


def calibrate(
    encoder: FaceEncoder, folder: str | os.PathLike[str], *, on_progress: Progress | None = None
) -> Calibration:
    """What distances of `encoder` mean, from the people in `folder`: NAME/*.jpg or NAME.jpg, unknown to the encoder.

    Pictures of exactly the encoder's input size (112 x 112) are taken for aligned crops, all others for photographs;
    those without one good face are left out. `on_progress(done, pictures, {"failed": n})`, then the fit's own.
    Raises UnreadableFile (no such folder, no pictures), InvalidOption where fewer than 20 people remain.
    """
    samples = read_subjects(folder)
    side = encoder.preprocessing.size
    aligned = [_size(sample.path) == (side, side) for sample in samples]
    crops = [sample for sample, is_crop in zip(samples, aligned, strict=True) if is_crop]
    photographs = [sample for sample, is_crop in zip(samples, aligned, strict=True) if not is_crop]
    codes: list[np.ndarray] = []
    subjects: list[str] = []
    done = failed = 0
    for start in range(0, len(crops), BATCH):
        batch = []
        for sample in crops[start : start + BATCH]:
            try:
                batch.append(read_image(sample.path))
                subjects.append(sample.subject)
            except UnreadableFile:
                failed += 1
        if batch:
            codes.extend(encoder.encode_crops(np.stack(batch)))
        done += len(crops[start : start + BATCH])
        if on_progress:
            on_progress(done, len(samples), {"failed": failed})
    for sample, encoding in zip(photographs, encoder.encode_many([s.path for s in photographs]), strict=True):
        if encoding.templates:
            codes.append(encoding.templates[0].code)
            subjects.append(sample.subject)
        else:
            failed += 1
        done += 1
        if on_progress:
            on_progress(done, len(samples), {"failed": failed})
    if not codes:
        raise InvalidOption(f"{folder}: none of its {len(samples)} pictures shows one good face")
    return fit(np.stack(codes), np.array(subjects), encoder.fingerprint, on_progress=on_progress)


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height from the picture's header; None where it cannot be read (decoding will say why)."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
