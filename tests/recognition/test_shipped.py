"""The weights that ship, on real portraits that come inside installed packages, and on LFW where it is."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from likeness.errors import UnknownName
from likeness.nets import catalogue
from likeness.recognition.encoder import FaceEncoder, central
from likeness.recognition.verification import verify
from likeness.samples.images import read_image


@pytest.fixture(scope="module")
def face() -> FaceEncoder:
    try:
        return FaceEncoder.load()
    except UnknownName as error:
        pytest.skip(f"not shipped yet: {error}")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def hopper() -> np.ndarray:
    cbook = pytest.importorskip("matplotlib.cbook")
    return read_image(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def worse(image: np.ndarray) -> np.ndarray:
    """Half the size, a little turned, blurred and darker."""
    picture = Image.fromarray(image).rotate(8, Image.Resampling.BICUBIC)
    picture = picture.resize((picture.width // 2, picture.height // 2)).filter(ImageFilter.GaussianBlur(0.7))
    return (np.asarray(picture) * 0.7).astype(np.uint8)


def test_they_are_calibrated_and_as_their_card_says(face: FaceEncoder) -> None:
    assert face.calibration is not None and face.calibration.fingerprint == face.fingerprint
    assert face.code_length == 128 and catalogue.entry("face").bytes <= 4_000_000


def test_a_degraded_copy_is_nearer_than_a_stranger(
    face: FaceEncoder, astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    same, other = verify(astronaut, worse(astronaut)), verify(astronaut, hopper)
    assert same.reasons == other.reasons == ()
    assert (same.decision, other.decision) == ("match", "no match")
    assert same.distance < 0.7 * other.distance


def test_all_orientations_of_a_real_photograph_give_one_template(face: FaceEncoder, astronaut: np.ndarray) -> None:
    image = Image.fromarray(astronaut)
    turn = dict(zip(range(2, 9), (0, 3, 1, 5, 2, 6, 4), strict=True))  # the inverse of what the tag asks for
    codes = []
    for orientation in range(1, 9):
        stored = image if orientation == 1 else image.transpose(Image.Transpose(turn[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        stored.save(buffer, "JPEG", quality=95, exif=exif)
        (template,) = face.encode_one(buffer.getvalue()).templates
        codes.append(template.code)
    assert (np.stack(codes) @ codes[0] > 0.995).all()  # JPEG's blocks lie differently in each orientation


def test_one_photograph_and_many_give_the_same_codes(
    face: FaceEncoder, astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    sources = [astronaut, hopper, worse(astronaut)] * 3
    for source, many in zip(sources, face.encode_many(sources), strict=True):
        np.testing.assert_allclose(many.templates[0].code, face.encode_one(source).templates[0].code, atol=1e-5)


def test_lfw_photographs_pass_every_limit(face: FaceEncoder, data: Path) -> None:
    photographs = sorted((data / "faces" / "lfw").glob("*/*.webp"))
    sample = random.Random(0).sample(photographs, 60)
    reasons = [one.reasons for one in face.encode_many(sample, choose=central)]
    assert reasons == [()] * 60
