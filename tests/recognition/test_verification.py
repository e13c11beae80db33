"""verify: two photographs to a decision of three values."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import InvalidOption, UnknownName, UnreadableFile
from likeness.recognition.calibration import fit
from likeness.recognition.encoder import FaceEncoder
from likeness.recognition.verification import verify

from .conftest import photograph


@pytest.fixture
def calibrated(make_encoder: Callable[..., FaceEncoder], tmp_path: Path) -> FaceEncoder:
    codes = np.random.default_rng(0).standard_normal((100, 16))
    codes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)
    fit(codes, np.arange(100), make_encoder().fingerprint).save(tmp_path / "c.json")
    return make_encoder(calibration=tmp_path / "c.json")


def test_a_photograph_matches_itself_and_not_another(calibrated: FaceEncoder) -> None:
    same = verify(photograph(1), photograph(1), max_fmr=0.01, encoder=calibrated)
    assert (same.decision, same.reasons) == ("match", ())
    assert same.distance == pytest.approx(0, abs=1e-9) and same.score == pytest.approx(1)
    other = verify(photograph(1), photograph(2), max_fmr=0.01, encoder=calibrated)
    assert other.decision == "no match" and other.distance > other.threshold
    a, b = (calibrated.encode_one(photograph(i)).templates[0].code.astype(float) for i in (1, 2))
    assert other.distance == pytest.approx(((a - b) ** 2).sum())
    assert other.score == pytest.approx(a @ b, abs=1e-6)
    assert other.fingerprint == calibrated.fingerprint
    wanted = {"decision", "distance", "score", "threshold", "max_fmr", "reasons", "fingerprint"}
    assert wanted <= set(json.loads(json.dumps(other.to_dict(), allow_nan=False)))


def test_a_stricter_rate_has_a_stricter_threshold(calibrated: FaceEncoder) -> None:
    strict, loose = (verify(photograph(1), photograph(2), max_fmr=rate, encoder=calibrated) for rate in (1e-3, 0.2))
    assert strict.threshold < loose.threshold and strict.distance == loose.distance


def test_without_a_calibration_the_distance_is_told_and_nothing_decided(encoder: FaceEncoder) -> None:
    found = verify(photograph(1), photograph(1), encoder=encoder)
    assert (found.decision, found.reasons, found.threshold) == ("cannot decide", ("no calibration",), None)
    assert found.distance == pytest.approx(0, abs=1e-9) and found.score == pytest.approx(1)
    assert found.fingerprint == encoder.fingerprint


@pytest.mark.parametrize("swapped", [False, True])
def test_reasons_of_either_photograph(calibrated: FaceEncoder, swapped: bool) -> None:
    pair = [photograph(1), photograph(1, (50, 50))]
    found = verify(*(pair[::-1] if swapped else pair), encoder=calibrated)
    assert (found.decision, found.reasons, found.distance) == ("cannot decide", ("no face",), None)
    both = verify(photograph(1, (50, 50)), photograph(1, (210, 300)), encoder=calibrated)
    assert both.reasons == ("no face", "several faces")
    assert (both.reasons_a, both.reasons_b) == (("no face",), ("several faces",))
    empty = (found.reasons_a, found.reasons_b)
    assert empty == (((), ("no face",)) if not swapped else (("no face",), ()))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert verify(pair[1], pair[1], encoder=calibrated).reasons == ("no face",)


def test_bad_input_is_named(calibrated: FaceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableFile, match=r"none\.jpg"):
        verify(photograph(1), tmp_path / "none.jpg", encoder=calibrated)
    for pair in ((None, photograph(1)), (photograph(1), None)):
        with pytest.raises(InvalidOption, match="picture"):
            verify(*pair, encoder=calibrated)
    for rate in (0, 1, -1, float("nan")):
        with pytest.raises(InvalidOption, match="max_fmr"):
            verify(tmp_path / "none.jpg", tmp_path / "none.jpg", max_fmr=rate, encoder=calibrated)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(UnknownName, match="xyz"):
        verify(photograph(1), photograph(1), encoder="xyz")
