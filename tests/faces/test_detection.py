"""The shipped detector on real portraits that come inside installed packages, and on pictures that hold no face."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import likeness
from likeness.errors import InvalidOption, UnreadableFile, WeightsError
from likeness.faces import detection
from likeness.faces.decoding import mirrored
from likeness.faces.detection import Detector, detect
from likeness.nets.engine import Engine


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load()


def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return data.astronaut()


def hopper() -> np.ndarray:
    cbook = pytest.importorskip("matplotlib.cbook")
    return np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB"))


def near(face: likeness.Face, landmarks: list, share: float) -> bool:
    """Every landmark within a share of the distance between the eyes."""
    want = np.array(landmarks, float)
    error = np.linalg.norm(np.array(face.landmarks) - want, axis=1)
    return bool((error < share * np.linalg.norm(want[0] - want[1])).all())


def test_the_astronaut(detector: Detector) -> None:
    faces = detector.detect(astronaut())
    assert len(faces) == 1
    face = faces[0]
    x, y, w, h = face.box
    assert x == pytest.approx(180, abs=15)
    assert y == pytest.approx(65, abs=25)
    assert w == pytest.approx(85, abs=15)
    assert h == pytest.approx(115, abs=30)
    assert near(face, [[203, 104], [243, 105], [220, 126], [205, 144], [239, 145]], 0.3)
    assert face.quality.size == pytest.approx(min(w, h))
    assert 0.2 < face.quality.brightness < 0.9
    assert abs(face.quality.roll) < 15


def test_grace_hopper(detector: Detector) -> None:
    faces = detector.detect(hopper())
    assert faces[0].score > 0.9
    assert all(face.score < 0.84 and max(face.box[2:]) < 40 for face in faces[1:])  # a medal may pass for a small face
    x, y, w, h = faces[0].box
    assert 150 < x + w / 2 < 350
    assert 120 < y + h / 2 < 300
    left, right, nose, *mouth = np.array(faces[0].landmarks)
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(m[1] for m in mouth)


@pytest.mark.parametrize("scale", [0.3, 0.6, 2.5])
def test_the_same_face_at_other_sizes(detector: Detector, scale: float) -> None:
    image = Image.fromarray(astronaut())
    size = round(512 * scale)
    faces = detector.detect(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    assert faces
    base = detector.detect(astronaut())[0]
    assert np.array(faces[0].box) / scale == pytest.approx(np.array(base.box), abs=20)


def test_two_faces_come_largest_first(detector: Detector) -> None:
    canvas = np.zeros((512, 900, 3), np.uint8)
    canvas[:, :512] = astronaut()
    small = np.asarray(Image.fromarray(astronaut()).resize((300, 300), Image.Resampling.BILINEAR))
    canvas[100:400, 560:860] = small
    faces = detector.detect(canvas)
    assert len(faces) == 2
    areas = [f.box[2] * f.box[3] for f in faces]
    assert areas == sorted(areas, reverse=True)
    assert faces[0].box[0] < 400 < faces[1].box[0]
    assert len(detector.detect(canvas, min_size=60)) == 1


@pytest.mark.parametrize("side", [600, 1200])
def test_a_face_that_fills_the_picture_is_one_face(detector: Detector, side: int) -> None:
    close = (
        Image.fromarray(astronaut()).crop((165, 45, 285, 185)).resize((side, side * 7 // 6), Image.Resampling.BICUBIC)
    )
    assert len(detector.detect(np.asarray(close))) == 1


def test_nothing_to_see(detector: Detector) -> None:
    for value in (0, 128, 255):
        assert detector.detect(np.full((250, 250, 3), value, np.uint8)) == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (3000, 2), (5, 33), (31, 31), (4000, 40), (2, 3)])
def test_odd_sizes_do_no_harm(detector: Detector, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for face in detector.detect(image, min_score=0.05, min_size=1):
        assert np.isfinite(face.box).all()
        assert np.isfinite(face.landmarks).all()
        assert 0 <= face.score <= 1


def test_a_low_threshold_finds_no_less(detector: Detector) -> None:
    image = astronaut()
    counts = [len(detector.detect(image, min_score=s)) for s in (0.9, 0.5, 0.05)]
    assert counts == sorted(counts)


def test_where_a_face_is_in_doubt_the_mirror_image_counts_as_much(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, run = astronaut()[32:224, 96:320], detector._engine.run  # multiples of 32, and seen in one look
    seen: list[np.ndarray] = []

    def watched(x: np.ndarray) -> list[np.ndarray]:
        seen.append(x)
        return run(x)

    monkeypatch.setattr(detector._engine, "run", watched)
    monkeypatch.setattr(detection, "SURE", 0.0)
    once = detector.look(image, scale=1.0, min_score=0.05, twice=True)
    assert len(seen) == 1
    monkeypatch.setattr(detection, "SURE", 1.1)
    detector.look(image, scale=1.0, min_score=0.05)
    assert len(seen) == 2
    both = detector.look(image, scale=1.0, min_score=0.05, twice=True)
    assert len(seen) == 4 and np.array_equal(seen[3], seen[2][..., ::-1])
    mean = (run(seen[2])[0][0] + mirrored(run(seen[3])[0][0], 192, 224)) / 2
    scores = 1 / (1 + np.exp(-mean[:, 0]))
    np.testing.assert_allclose(both[0], scores[scores >= 0.05], rtol=1e-5)
    assert len(once[0]) != len(both[0]) or not np.allclose(once[0], both[0])
    # looked at from the other side the faces are the same, on the other side
    ours, theirs = (detector.detect(one, min_size=14) for one in (image, np.ascontiguousarray(image[:, ::-1])))
    for a, b in zip(ours, theirs, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.box[0] == pytest.approx(224 - b.box[0] - b.box[2], abs=0.05)


def test_wrong_options(detector: Detector) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    for bad in ({"min_score": 0.0}, {"min_score": 1.5}, {"min_size": 0}, {"min_size": float("nan")}):
        with pytest.raises(InvalidOption):
            detector.detect(image, **bad)  # type: ignore[arg-type]
    for wrong in (image[..., 0], image.astype(float), image[:0]):
        with pytest.raises(InvalidOption, match="uint8"):
            detector.detect(wrong)
    with pytest.raises(InvalidOption, match="not a detector"):
        Detector.load("face")


def test_sources(tmp_path: Path) -> None:
    image = Image.fromarray(astronaut())
    image.save(tmp_path / "a.png")
    from_path, from_image = detect(tmp_path / "a.png"), likeness.detect(image)
    assert from_path == from_image
    assert detection._loaded("face-detector") is detection._loaded("face-detector")
    with pytest.raises(UnreadableFile):
        detect(tmp_path / "none.png")


def test_results_are_the_same_each_time(detector: Detector) -> None:
    assert detector.detect(astronaut()) == detector.detect(astronaut())


def test_an_encoder_is_no_detector() -> None:
    from likeness.nets import catalogue

    _, data = catalogue.read("face")
    with pytest.raises(WeightsError, match="detector"):
        made = Detector(Engine(data), preprocessing=catalogue.Preprocessing(), name="face", fingerprint="")
        made.detect(np.zeros((112, 112, 3), np.uint8))


def test_a_detector_may_be_named_by_its_file(tmp_path: Path, detector: Detector) -> None:
    from likeness.nets import catalogue
    from likeness.recognition.encoder import FaceEncoder

    _, data = catalogue.read("face-detector")
    (tmp_path / "mine.onnx").write_bytes(data)
    file = str(tmp_path / "mine.onnx")
    assert detect(astronaut(), detector=file) == detector.detect(astronaut())
    coder = FaceEncoder.load("face", detector=file)
    assert coder.detector.name == "mine" and FaceEncoder.load("face", detector=file) is coder
    with pytest.raises(UnreadableFile):
        FaceEncoder.load("face", detector=str(tmp_path / "absent.onnx"))


def test_yunet_runs_in_the_same_way(data: Path) -> None:
    yunet = Detector.from_file(data / "weights" / "yunet_n_dynamic.onnx")
    (face,) = yunet.detect(astronaut(), min_score=0.6)
    assert near(face, [[203, 104], [243, 105], [220, 126], [205, 144], [239, 145]], 0.25)


def test_a_photograph_larger_than_any_look(detector: Detector) -> None:
    canvas = np.zeros((2600, 2600, 3), np.uint8)
    canvas[600:2136, 600:2136] = np.asarray(Image.fromarray(astronaut()).resize((1536, 1536)))
    faces = detector.detect(canvas)
    assert faces
    assert faces[0].box[2] == pytest.approx(3 * 85, rel=0.25)


def test_a_net_of_fixed_size_sees_large_photographs_smaller(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the YuNet of the catalogue is, whose input is 640 x 640."""
    large = np.asarray(Image.fromarray(astronaut()).resize((1200, 1200)))
    monkeypatch.setattr(detector, "_fixed", (640, 640))
    scores, boxes, _ = detector.look(large, scale=1.0, min_score=0.7)
    x, y, w, h = boxes[scores.argmax()] * 512 / 1200
    assert x + w / 2 == pytest.approx(222, abs=15) and y + h / 2 == pytest.approx(122, abs=20)
