"""Calibrating a user's own encoder on a folder of people, by one call."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import InvalidOption, UnknownName, UnreadableFile
from likeness.nets import catalogue
from likeness.recognition import calibrating
from likeness.recognition import encoder as module
from likeness.recognition.calibrating import calibrate, calibrate_encoder
from likeness.recognition.encoder import FaceEncoder
from likeness.recognition.verification import verify

from .conftest import BOXES, KnownFaces, photograph


class Known:
    """Loads the detector of these tests, whatever its name."""

    @classmethod
    def load(cls, name: str) -> KnownFaces:
        catalogue.entry(name)
        return KnownFaces(BOXES)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("onnx")
    from ..nets.encoders import encoder_bytes

    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "Detector", Known)
    (tmp_path / "mine.onnx").write_bytes(encoder_bytes())
    return catalogue.add(tmp_path / "mine.onnx", name="mine").name


def people(folder: Path, *, crops: int, photographs: int) -> Path:
    """`crops` people with two aligned crops each, `photographs` with two photographs each."""
    for i in range(crops + photographs):
        (folder / f"p{i:03d}").mkdir(parents=True)
        for k in range(2):
            image = photograph(i, (112, 112), noise=12 + k) if i < crops else photograph(i, noise=12 + k)
            Image.fromarray(image).save(folder / f"p{i:03d}" / f"{k}.png")
    return folder


def test_afterwards_the_encoder_decides(mine: str, tmp_path: Path) -> None:
    before = verify(photograph(1), photograph(1), encoder=FaceEncoder.load(mine, detector="yunet"))
    assert before.reasons == ("no calibration",)
    folder = people(tmp_path / "people", crops=30, photographs=15)
    (folder / "p000" / "broken.png").write_bytes(b"\x89PNG no")
    Image.fromarray(photograph(0, (50, 50))).save(folder / "p001" / "noface.png")
    half = (folder / "p002" / "0.png").read_bytes()
    (folder / "p002" / "half.png").write_bytes(half[: len(half) // 2])  # a crop by its header, unreadable by its body
    seen = []
    calibration = calibrate_encoder(mine, folder, detector="yunet", on_progress=lambda *args: seen.append(args))
    assert calibration.fingerprint == catalogue.entry(mine).fingerprint
    assert catalogue.entry(mine).calibration == tmp_path / "home" / "mine.calibration.json"
    encoded = [step for step in seen if "failed" in step[2]]
    assert encoded[-1] == (93, 93, {"failed": 3})
    assert [step[0] for step in encoded] == sorted(step[0] for step in encoded)
    after = verify(photograph(1), photograph(1), max_fmr=0.01, encoder=FaceEncoder.load(mine, detector="yunet"))
    assert after.decision == "match"


def test_crops_and_photographs_become_the_codes_that_the_fit_sees(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = people(tmp_path / "people", crops=2, photographs=2)
    seen = {}
    monkeypatch.setattr(calibrating, "fit", lambda codes, subjects, fingerprint, **_: seen.update(locals()))
    encoder = FaceEncoder.load(mine, detector="yunet")
    calibrate(encoder, folder)
    assert list(seen["subjects"]) == [f"p{i:03d}" for i in range(4) for _ in range(2)]
    assert seen["fingerprint"] == encoder.fingerprint
    crop = encoder.encode_crops(photograph(0, (112, 112), noise=12)[None])[0]
    np.testing.assert_allclose(seen["codes"][0], crop, atol=1e-6)
    whole = encoder.encode_one(photograph(2, noise=12)).templates[0].code
    np.testing.assert_allclose(seen["codes"][4], whole, atol=1e-5)


def test_what_cannot_be_calibrated(mine: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        calibrate_encoder("other", tmp_path, detector="yunet")
    with pytest.raises(UnreadableFile):
        calibrate_encoder(mine, tmp_path / "nowhere", detector="yunet")
    with pytest.raises(InvalidOption, match="people"):
        calibrate_encoder(mine, people(tmp_path / "few", crops=3, photographs=0), detector="yunet")
    Image.fromarray(photograph(0, (50, 50))).save(tmp_path / "noface.png")
    (tmp_path / "none" / "x").mkdir(parents=True)
    (tmp_path / "noface.png").rename(tmp_path / "none" / "x" / "noface.png")
    with pytest.raises(InvalidOption, match="good face"):
        calibrate_encoder(mine, tmp_path / "none", detector="yunet")
    assert catalogue.entry(mine).calibration is None
