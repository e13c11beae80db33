"""From photographs to templates: which face, which reason, in which order, and always the same code."""

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import FingerprintMismatch, InvalidOption, UnknownName, UnreadableFile, WeightsError
from likeness.faces.alignment import TEMPLATE, align
from likeness.faces.types import Face, Quality
from likeness.nets import catalogue
from likeness.recognition import encoder as module
from likeness.recognition.calibration import fit
from likeness.recognition.encoder import Encoding, FaceEncoder, Limits, Template, central, dominating

from .conftest import BOXES, PORTRAIT, photograph


def face(x: float, y: float, w: float, h: float) -> Face:
    return Face((x, y, w, h), 0.9, tuple(map(tuple, TEMPLATE)), Quality(min(w, h), 0.5, 0.5, 0, 0, 0))


def test_a_template_says_where_it_comes_from(encoder: FaceEncoder, tmp_path: Path) -> None:
    image = photograph(1)
    path = tmp_path / "ada.png"
    Image.fromarray(image).save(path)
    found = encoder.encode_one(path)
    (template,) = found.templates
    assert found.reasons == ()
    assert template.code.shape == (16,) and template.code.dtype == np.float32
    assert np.linalg.norm(template.code) == pytest.approx(1, abs=1e-6)
    assert template.fingerprint == encoder.fingerprint
    assert template.origin == str(path)
    assert template.region["box"] == [30, 40, 100, 110] and len(template.region["landmarks"]) == 5
    assert template.quality["size"] == 100
    assert json.loads(json.dumps(found.to_dict()))["templates"][0]["fingerprint"] == encoder.fingerprint
    # The same by hand: align, then the net.
    crop = align(image, TEMPLATE / 112 * [100, 110] + [30, 40])
    np.testing.assert_allclose(encoder.encode_crops(crop[None])[0], template.code, atol=1e-6)


def test_every_kind_of_source_gives_the_same_code(encoder: FaceEncoder, tmp_path: Path) -> None:
    image = photograph(2)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    sources = [path, str(path), path.read_bytes(), image, Image.fromarray(image), io.BytesIO(path.read_bytes())]
    found = [encoder.encode_one(source).templates[0] for source in sources]
    for template in found:
        np.testing.assert_array_equal(template.code, found[0].code)
    assert [template.origin for template in found[2:]] == ["<bytes>", "<ndarray>", "<Image>", "<BytesIO>"]


def test_all_eight_orientations_give_one_template(encoder: FaceEncoder) -> None:
    image = Image.fromarray(photograph(3))
    upright = encoder.encode_one(image).templates[0].code
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation in range(1, 9):
        stored = image if orientation == 1 else image.transpose(turn[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        stored.save(buffer, "JPEG", quality=95, exif=exif)
        code = encoder.encode_one(buffer.getvalue()).templates[0].code
        assert float(code @ upright) > 0.999, orientation


@pytest.mark.parametrize(
    ("shape", "reasons"),
    [((50, 50), ("no face",)), ((210, 300), ("several faces",)), ((230, 300), ("face too small",))],
)
def test_what_cannot_be_one_face_has_a_reason(encoder: FaceEncoder, shape: tuple[int, int], reasons: tuple) -> None:
    assert encoder.encode_one(photograph(4, shape)) == Encoding((), reasons)


def test_a_dominating_face_is_the_subject(encoder: FaceEncoder) -> None:
    (template,) = encoder.encode_one(photograph(5, (220, 300))).templates
    assert template.region["box"] == [20, 20, 120, 120]


def test_dark_bright_and_blurred(make_encoder: Callable[..., FaceEncoder]) -> None:
    encoder = make_encoder(limits=Limits(sharpness=0.2))
    black = np.full((*PORTRAIT, 3), 3, np.uint8)
    white = np.full((*PORTRAIT, 3), 253, np.uint8)
    assert encoder.encode_one(black).reasons == ("face too blurred", "too dark")
    assert encoder.encode_one(white).reasons == ("face too blurred", "too bright")
    assert encoder.encode_one(photograph(6, noise=0)).reasons == ("face too blurred",)
    assert encoder.encode_one(photograph(6, noise=30)).reasons == ()


def test_limits_are_inclusive() -> None:
    at = Limits(size=40, sharpness=0.1, darkest=0.2, brightest=0.8)
    assert at.reasons(Quality(40, 0.1, 0.2, 0, 0, 0)) == () == at.reasons(Quality(40, 0.1, 0.8, 0, 0, 0))
    assert at.reasons(Quality(39.9, 0.09, 0.81, 0, 0, 0)) == ("face too small", "face too blurred", "too bright")


def test_encode_gives_all_good_faces_largest_first_and_says_what_is_missing(encoder: FaceEncoder) -> None:
    two = encoder.encode(photograph(7, (210, 300)))
    assert [template.region["box"][0] for template in two.templates] == [20, 150] and two.reasons == ()
    one = encoder.encode(photograph(7, (240, 300)))
    assert len(one.templates) == 1 and one.reasons == ("face too small",)
    assert encoder.encode(photograph(7, (50, 50))) == Encoding((), ("no face",))
    (face,) = one.unusable
    assert (face.reasons, face.place, face.region["box"]) == (("face too small",), 1, [200, 90, 15, 15])
    assert face.quality["size"] == 15 and json.loads(json.dumps(one.to_dict()))["unusable"] == [face.to_dict()]
    none = encoder.encode(photograph(7, (230, 300)))
    assert (none.templates, none.reasons, len(none.unusable)) == ((), ("face too small",), 1)


def test_dominating_and_central() -> None:
    shape = (250, 250, 3)
    large, middle, edge = face(75, 75, 100, 100), face(85, 85, 80, 80), face(0, 0, 100, 100)
    assert dominating([large], shape) is large
    assert dominating([large, face(0, 0, 63, 63)], shape) is large  # 2.52 times the area
    assert dominating([large, face(0, 0, 64, 64)], shape) == "several faces"
    assert dominating([face(0, 0, 40, 100), large], shape) is large  # exactly 2.5 times
    assert central([edge, middle], shape) is middle
    assert central([large, face(110, 110, 30, 30)], shape) is large  # a small one inside is not the subject
    assert central([face(-4000, 0, 10, 10), face(-4100, 0, 10, 10)], shape).box[0] == -4000  # far off is still a choice


def test_many_are_one_after_the_other(encoder: FaceEncoder, tmp_path: Path) -> None:
    sources: list = [photograph(i) for i in range(70)]
    sources[10] = photograph(10, (50, 50))
    sources[20] = tmp_path / "missing.jpg"
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    sources[69] = tmp_path / "broken.jpg"
    seen = []
    found = list(encoder.encode_many(sources, lambda *args: seen.append(args)))
    assert len(found) == 70
    assert [found[i].reasons for i in (10, 20, 69)] == [("no face",), ("unreadable file",), ("unreadable file",)]
    for i, one in enumerate(found):
        if i not in (10, 20, 69):
            np.testing.assert_allclose(
                one.templates[0].code, encoder.encode_one(sources[i]).templates[0].code, atol=1e-5
            )
    assert [done for done, _, _ in seen] == list(range(1, 71))
    assert seen[-1] == (70, 70, {"failed": 3})
    assert list(encoder.encode_many([])) == []


def test_another_choice_of_face(encoder: FaceEncoder) -> None:
    (one,) = encoder.encode_many([photograph(8, (210, 300))], choose=central)
    assert len(one.templates) == 1


def test_many_keeps_few_photographs_at_a_time_and_stops_early(
    make_encoder: Callable[..., FaceEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder()
    read = []
    whole = encoder._find
    monkeypatch.setattr(encoder, "_find", lambda source, choose: (read.append(1), whole(source, choose))[1])
    iterator = encoder.encode_many([photograph(1, (50, 50))] * 1000)
    next(iterator)
    iterator.close()
    time.sleep(0.05)
    assert len(read) <= 3 * module.BATCH


def test_what_is_no_photograph_is_refused_and_does_not_end_the_others(encoder: FaceEncoder) -> None:
    for sources in ([None], [photograph(1), None, photograph(2)]):
        with pytest.raises(InvalidOption, match="NoneType"):
            list(encoder.encode_many(sources))


def test_an_unexpected_error_is_not_swallowed(make_encoder: Callable[..., FaceEncoder], monkeypatch) -> None:
    encoder = make_encoder()

    def fail(image: np.ndarray) -> None:
        raise RuntimeError("the detector broke")

    monkeypatch.setattr(encoder.detector, "detect", fail)
    with pytest.raises(RuntimeError, match="broke"):
        list(encoder.encode_many([photograph(1)] * 5))


def test_unreadable_files_raise_for_one(encoder: FaceEncoder, tmp_path: Path) -> None:
    for call in (encoder.encode, encoder.encode_one):
        with pytest.raises(UnreadableFile, match=r"missing\.jpg"):
            call(tmp_path / "missing.jpg")


def test_threads_share_an_encoder(encoder: FaceEncoder) -> None:
    expected = [encoder.encode_one(photograph(i)).templates[0].code for i in range(8)]
    wrong = []

    def work(i: int) -> None:
        for _ in range(5):
            if not np.allclose(encoder.encode_one(photograph(i)).templates[0].code, expected[i], atol=1e-6):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_crops_are_checked(encoder: FaceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoder.encode_crops(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 16)
    for bad in (np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 112, 112, 3)), np.zeros((112, 112, 3), np.uint8)):
        with pytest.raises(InvalidOption, match="crops must be"):
            encoder.encode_crops(bad)
    encoder.code_length = 17
    with pytest.raises(WeightsError, match="its card says 17"):
        encoder.encode_crops(np.zeros((1, 112, 112, 3), np.uint8) + np.arange(112, dtype=np.uint8)[:, None])


def some_calibration(fingerprint: str):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((120, 16))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return fit(codes.astype(np.float32), np.arange(120), fingerprint)


def test_the_calibration_is_the_encoders_own(make_encoder: Callable[..., FaceEncoder], tmp_path: Path) -> None:
    plain = make_encoder()
    assert plain.calibration is None
    file = tmp_path / "tiny.calibration.json"
    some_calibration(plain.fingerprint).save(file)
    calibrated = make_encoder(calibration=file)
    assert calibrated.calibration.fingerprint == plain.fingerprint
    assert calibrated.calibration is calibrated.calibration
    with pytest.raises(FingerprintMismatch, match="tiny-1"):
        _ = make_encoder(1, calibration=file).calibration


class NoDetector:
    """What a load gives where the test has no detector's weights."""

    @classmethod
    def load(cls, name: str) -> None:
        catalogue.entry(name)


@pytest.fixture
def loadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's catalogue with the encoder "mine"; the detector is listed as "yunet", never run."""
    pytest.importorskip("onnx")
    from ..nets.encoders import encoder_bytes

    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "Detector", NoDetector)
    (tmp_path / "mine.onnx").write_bytes(encoder_bytes())
    catalogue.add(tmp_path / "mine.onnx", name="mine")
    return tmp_path


def test_loading_is_kept_until_the_files_change(loadable: Path) -> None:
    from ..nets.encoders import encoder_bytes

    first = FaceEncoder.load("mine", detector="yunet")
    assert FaceEncoder.load("mine", detector="yunet") is first
    assert (first.name, first.code_length, first.calibration) == ("mine", 16, None)
    some_calibration(first.fingerprint).save(catalogue.calibration_file("mine"))
    second = FaceEncoder.load("mine", detector="yunet")
    assert second is not first and second.calibration is not None
    catalogue.remove("mine")
    (loadable / "mine.onnx").write_bytes(encoder_bytes(seed=9))
    catalogue.add(loadable / "mine.onnx", name="mine")
    assert FaceEncoder.load("mine", detector="yunet").fingerprint != first.fingerprint


def test_loading_what_is_no_encoder(loadable: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'mine'"):
        FaceEncoder.load("mime", detector="yunet")
    with pytest.raises(InvalidOption, match="not an encoder"):
        FaceEncoder.load("yunet", detector="yunet")
    data = bytearray((loadable / "home" / "mine.onnx").read_bytes())
    data[-1] ^= 1
    (loadable / "home" / "mine.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match="altered"):
        FaceEncoder.load("mine", detector="yunet")


def test_the_short_way(encoder: FaceEncoder) -> None:
    found = module.encode(photograph(1), encoder=encoder)
    assert isinstance(found.templates[0], Template)
    assert module.resolve(encoder) is encoder


def test_the_boxes_of_these_tests_are_inside_their_pictures() -> None:
    for (height, width), boxes in BOXES.items():
        assert all(x + w <= width and y + h <= height for x, y, w, h in boxes)
