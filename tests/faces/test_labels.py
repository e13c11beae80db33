"""Label files, and making them with a reference detector."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import InvalidOption, UnreadableFile
from likeness.faces.decoding import flip_landmarks
from likeness.faces.labels import at_scales, held_out, label_faceless, label_photographs, read_labels


def entry(**changes: object) -> dict:
    face = {"box": [10, 10, 20, 25], "score": 0.9, "landmarks": [[14, 18], [24, 18], [19, 22], [15, 28], [23, 28]]}
    return {"kind": "scene", "split": "train", "size": [64, 64], "faces": [face], "given_boxes": None, **changes}


def write(folder: Path, content: object) -> Path:
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def test_splits_and_doubtful_faces(tmp_path: Path) -> None:
    doubtful = dict(entry()["faces"][0], score=0.6)
    write(
        tmp_path, {"a.png": entry(), "b.png": entry(split="test"), "c.png": entry(faces=[doubtful, *entry()["faces"]])}
    )
    photos = read_labels(tmp_path)
    assert [p.name for p in photos] == ["a.png", "c.png"]
    assert photos[1].sure.tolist() == [False, True]
    assert photos[0].path == tmp_path / "a.png"
    assert photos[0].boxes.shape == (1, 4)
    assert photos[0].landmarks.shape == (1, 5, 2)
    assert len(read_labels(tmp_path, split=None)) == 3
    assert [p.name for p in read_labels(tmp_path, [tmp_path / "labels.json"], split="test")] == ["b.png"]


def test_given_boxes(tmp_path: Path) -> None:
    """Boxes drawn by hand make a doubtful face sure, and add the faces that were missed; of other sets they are only
    not background."""
    doubtful = dict(entry()["faces"][0], score=0.55)
    given = [[11, 10, 19, 25, "face"], [40, 40, 15, 15, "face"]]
    write(
        tmp_path,
        {
            "wider_val/a.png": entry(faces=[doubtful], given_boxes=given),
            "other/a.png": entry(faces=[doubtful], given_boxes=given),
            "wider_val/b.png": entry(faces=[], given_boxes=given),
        },
    )
    trusted, other, missed = read_labels(tmp_path)
    assert trusted.sure.tolist() == [True, True]
    assert np.isnan(trusted.landmarks[1]).all()
    assert other.sure.tolist() == [False, False]
    assert missed.sure.tolist() == [True, True]


def test_bad_label_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no label file"):
        read_labels(tmp_path)
    for content in ([1, 2], {"a.png": {"faces": [{"box": [1, 2, 3, 4]}]}}, {"a.png": 3}):
        write(tmp_path, content)
        with pytest.raises(UnreadableFile, match="labels.json"):
            read_labels(tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(UnreadableFile):
        read_labels(tmp_path)


def test_a_tenth_is_held_out_whatever_the_machine(tmp_path: Path) -> None:
    write(tmp_path, {f"{i}.png": entry() for i in range(500)})
    out = [p.name for p in read_labels(tmp_path) if held_out(p)]
    assert 30 < len(out) < 70
    assert out == [p.name for p in read_labels(tmp_path) if held_out(p)]


def test_flipping_twice_changes_nothing() -> None:
    points = np.random.default_rng(0).uniform(0, 50, (3, 5, 2))
    flipped = flip_landmarks(points, 50)
    np.testing.assert_allclose(flipped[:, 0, 0], 50 - points[:, 1, 0])  # the other eye is now on the left
    np.testing.assert_allclose(flip_landmarks(flipped, 50), points)


def look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A detector that finds the white square, and believes in it less in small pictures."""
    ys, xs = np.nonzero(image[..., 0] > 200)
    if not len(ys):
        return np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2))
    x, y, w, h = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
    inner = np.array([[0.3, 0.4], [0.7, 0.4], [0.45, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return np.array([min(0.95, w / 50)]), np.array([[x, y, w, h]], float), (inner * [w, h] + [x, y])[None]


def test_scales_and_mirror_images_are_merged() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[40:70, 30:60] = 255
    (face,) = at_scales(look, image, scales=(1.0, 2.0), mirror=True)
    np.testing.assert_allclose(face["box"], [30, 40, 30, 30], atol=1)
    assert face["score"] == 0.95
    # the nose of this "detector" leans to the left, in the mirror image to the right: the mean is in the middle
    assert face["landmarks"][2][0] == pytest.approx(45, abs=0.6)
    assert at_scales(look, np.zeros((20, 20, 3), np.uint8), scales=(1.0,)) == []
    assert at_scales(look, image, scales=(0.5,), min_score=0.5) == []


def test_labelling_writes_a_label_file(tmp_path: Path) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[10:50, 20:50] = 255
    (tmp_path / "photos").mkdir()
    Image.fromarray(image).save(tmp_path / "photos" / "b.png")
    Image.fromarray(image * 0).save(tmp_path / "photos" / "a.png")
    seen: list = []
    label_photographs(
        tmp_path,
        (tmp_path / "photos").iterdir(),
        look,
        out=tmp_path / "photos.json",
        scales=(1.0, 1.5),
        on_progress=lambda done, total, info: seen.append((done, total, info["faces"])),
    )
    assert seen == [(1, 2, 0), (2, 2, 1)]
    first, second = read_labels(tmp_path)
    assert first.name == "photos/a.png"
    assert len(first.boxes) == 0
    np.testing.assert_allclose(second.boxes[0], [20, 10, 30, 40], atol=1)


def test_pictures_in_which_two_detectors_agree_on_a_face_are_not_faceless(tmp_path: Path) -> None:
    """A lone opinion is no face. Both see the mirror image too, so one that looks at the left alone misses nothing."""

    def left(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores, boxes, landmarks = look(image)
        keep = boxes[:, 0] + boxes[:, 2] / 2 < image.shape[1] / 2
        return scores[keep], boxes[keep], landmarks[keep]

    def nobody(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return look(image * 0)

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, at in (("left", 5), ("right", 60), ("none", None)):
        image = np.zeros((60, 120, 3), np.uint8)
        if at is not None:
            image[10:50, at : at + 45] = 255
        Image.fromarray(image).save(pictures / f"{name}.png")
    mirrored = [(left, look), (look, left)]
    for looks in mirrored:
        out = label_faceless(tmp_path / "faces", pictures.iterdir(), looks, out=tmp_path / "faceless.json")
        assert sorted(json.loads(out.read_text())) == ["../pictures/none.png"]
    out = label_faceless(tmp_path / "faces", pictures.iterdir(), (look, nobody), out=tmp_path / "faceless.json")
    photos = read_labels(tmp_path / "faces", [out])
    assert len(photos) == 3 and not any(len(p.boxes) for p in photos)
    assert all(p.path.resolve().parent == pictures for p in photos)
