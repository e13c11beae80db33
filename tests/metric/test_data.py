"""Crops in memory: held-out people, photographs that are aligned or skipped, caches that know their content."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import InvalidOption, UnreadableFile
from likeness.metric.data import content_key, held_out, load_crops


def test_held_out_people_are_never_trained_on(people: Path, tmp_path: Path) -> None:
    crops = load_crops(people, [people / "03"], cache=tmp_path)
    again = load_crops(people, [people / "03"], cache=tmp_path)
    assert np.array_equal(crops.images, again.images)
    mask = held_out(crops.subjects)
    train, held = crops.where(~mask), crops.where(mask)
    assert set(held.subjects) == {0, 20, 40}
    assert not set(train.subjects) & set(held.subjects)
    assert (train.subjects == -1).sum() == 3
    assert len(train) + len(held) == len(crops)


@pytest.fixture
def mixed(people: Path, tmp_path: Path) -> Path:
    """Two people with crops and photographs of 90 x 80 pixels; the dark ones show nobody."""
    folder = tmp_path / "mixed"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i, brightness in enumerate((0, 200, 100)):
            Image.new("RGB", (90, 80), (brightness,) * 3).save(folder / name / f"photo{i}.png")
        os.symlink(people / "00" / "0.png", folder / name / "crop.png")
    return folder


def enlarged(image: np.ndarray) -> np.ndarray | None:
    """In the place of a detector: nobody is seen in the dark."""
    return np.asarray(Image.fromarray(image).resize((112, 112))) if image.mean() > 50 else None


@pytest.mark.parametrize("cached", [True, False])
def test_photographs_are_aligned_and_those_without_a_face_skipped(mixed: Path, tmp_path: Path, cached: bool) -> None:
    infos: list[dict] = []
    for _ in range(2):
        crops = load_crops(
            mixed,
            [mixed / "a"],
            align=enlarged,
            cache=tmp_path if cached else None,
            on_progress=lambda done, total, info: infos.append(info),
        )
        assert crops.images.shape == (9, 112, 112, 3) and crops.skipped == 3
        assert crops.subjects.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1]
        assert sorted(crops.images[:3].mean((1, 2, 3)))[-1] == 200
    assert infos[-1] == {"stage": "decoding", "skipped": 3}
    assert len(infos) == (1 if cached else 2)


def test_photographs_without_an_aligner_are_named(people: Path, mixed: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 112)).save(tmp_path / "narrow.png")
    with pytest.raises(InvalidOption, match=r"narrow.png is 60x112 .*crop_of_one"):
        load_crops(people, [tmp_path / "narrow.png"])
    with pytest.raises(InvalidOption, match="they must be 112x112"):
        load_crops(mixed, align=lambda image: image)
    with pytest.raises(InvalidOption, match="none of the"):
        load_crops(mixed / "a", align=lambda image: None, size=64)


def test_a_key_knows_every_byte(tmp_path: Path) -> None:
    """Of 3000 crops one value is changed: no sample of them would notice."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights")
    images = np.zeros((3000, 2, 2, 3), np.uint8)
    keys = {content_key(images, model)}
    for place in (0, 1, 1023, 1024, 2999):
        other = images.copy()
        other[place, 1, 0, 2] = 1
        keys.add(content_key(other, model))
    keys |= {content_key(images[:2999], model), content_key(images.reshape(1500, 4, 2, 3), model)}
    model.write_bytes(b"weightz")
    keys.add(content_key(images, model))
    assert len(keys) == 9
    np.save(tmp_path / "images.npy", images)
    assert content_key(np.load(tmp_path / "images.npy", mmap_mode="r"), model) == content_key(images, model)


def test_a_cache_is_of_its_files_and_of_what_cut_them(mixed: Path, tmp_path: Path) -> None:
    """Another way to cut, or a file with as many bytes but others in it, is read anew."""

    def darker(image: np.ndarray) -> np.ndarray | None:
        crop = enlarged(image)
        return None if crop is None else crop // 2

    def of_photographs(align: object) -> np.ndarray:
        return load_crops(mixed, align=align, cache=tmp_path / "cache").images[1:3].mean((1, 2, 3))

    first = of_photographs(enlarged)
    np.testing.assert_allclose(of_photographs(darker), first // 2, atol=1)
    np.testing.assert_array_equal(of_photographs(enlarged), first)
    changed = mixed / "a" / "photo1.bmp"
    Image.new("RGB", (90, 80), (200,) * 3).save(changed)
    before = of_photographs(enlarged)
    Image.new("RGB", (90, 80), (150,) * 3).save(changed)
    os.utime(changed, ns=(0, 10**18))
    assert not np.array_equal(of_photographs(enlarged), before)


def test_a_file_that_is_gone_is_named(mixed: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere.png", mixed / "a" / "gone.png")
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(UnreadableFile, match=r"gone\.png"):
            load_crops(mixed, align=enlarged, cache=cache)
