"""Training pictures: landmarks stay on what they mark, whatever happens to the picture."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from likeness.faces import augment as module
from likeness.faces.augment import Canvas, Pictures, _cover, _fill, _mirror, _photometric, _similarity
from likeness.faces.decoding import iou
from likeness.faces.labels import Photo, read_labels


def dotted() -> tuple[Photo, np.ndarray]:
    """A grey picture with five soft coloured dots where its landmarks are."""
    points = np.array([[70.0, 60], [110, 62], [88, 85], [74, 105], [104, 107]], np.float32)
    image = np.full((160, 200, 3), 90, np.float32)
    y, x = np.mgrid[0:160, 0:200] + 0.5
    for i, (u, v) in enumerate(points):
        image[..., i % 3] += 160 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18)
    photo = Photo("a", Path("a"), np.array([[55, 40, 70, 85]], np.float32), points[None], np.array([True]))
    return photo, np.clip(image, 0, 255).astype(np.uint8)


def peak(image: np.ndarray, point: np.ndarray, channel: int) -> np.ndarray:
    """Centre of brightness about a point."""
    x0, y0 = (int(v) for v in np.round(point))
    window = image[max(0, y0 - 8) : y0 + 9, max(0, x0 - 8) : x0 + 9, channel].astype(float)
    window = np.clip(window - 110, 0, None)
    ys, xs = np.mgrid[0 : window.shape[0], 0 : window.shape[1]]
    centre = np.array([(window * xs).sum(), (window * ys).sum()]) / max(window.sum(), 1e-9)
    return centre + [max(0, x0 - 8), max(0, y0 - 8)] + 0.5


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (0.6, 15), (1.7, -20), (0.75, -5)])
def test_landmarks_move_with_the_picture(scale: float, degrees: float) -> None:
    photo, image = dotted()
    made = _similarity(
        photo, image, scale=scale, degrees=degrees, anchor=np.array([90.0, 80]), where=np.array([130.0, 120]),
        width=256, height=240, fill=np.full(3, 90),
    )  # fmt: skip
    assert made.image.shape == (240, 256, 3)
    for turned in (made, _mirror(made)):
        order = (0, 1, 2, 3, 4) if turned is made else (1, 0, 2, 4, 3)
        for i, point in enumerate(turned.landmarks[0]):
            assert peak(turned.image, point, order[i] % 3) == pytest.approx(point, abs=0.6)
        inside = (turned.landmarks[0] >= turned.boxes[0, :2]) & (
            turned.landmarks[0] <= turned.boxes[0, :2] + turned.boxes[0, 2:]
        )
        assert inside.all()
    assert made.boxes[0, 2:].mean() == pytest.approx(77.5 * scale, rel=0.06)


def test_faces_outside_or_too_small_are_not_asked_for() -> None:
    photo, image = dotted()
    common = {
        "image": image,
        "degrees": 0.0,
        "anchor": np.array([90.0, 80]),
        "width": 100,
        "height": 100,
        "fill": np.zeros(3),
    }
    tiny = _similarity(photo, scale=0.08, where=np.array([50.0, 50]), **common)
    assert tiny.sure.tolist() == [False]
    edge = _similarity(photo, scale=1.0, where=np.array([130.0, 50]), **common)
    assert edge.sure.tolist() == [False]
    gone = _similarity(photo, scale=1.0, where=np.array([500.0, 50]), **common)
    assert len(gone.boxes) == 0


def test_canvases_depend_on_the_seed_alone(tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    pictures = Pictures(read_labels(make_faces(tmp_path)), size=96)
    for i in range(40):
        first, second = (pictures.canvas(np.random.default_rng([0, i])) for _ in range(2))
        assert first.image.shape == (96, 96, 3)
        assert first.image.dtype == np.uint8
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.boxes, second.boxes)
        n = len(first.boxes)
        assert first.boxes.shape == (n, 4)
        assert first.landmarks.shape == (n, 5, 2)
        assert first.sure.shape == (n,)
        assert (first.boxes[first.sure][:, 2:] >= 7).all()
        assert first.boxes.dtype == first.landmarks.dtype == np.float32


def test_pictures_without_faces_alone(tmp_path: Path, make_faces: Callable[..., Path]) -> None:
    pictures = Pictures(read_labels(make_faces(tmp_path, count=0)), size=64)
    assert not any(pictures.canvas(np.random.default_rng(i)).sure.any() for i in range(10))


def test_plain_canvases_are_crops_in_their_own_light(
    tmp_path: Path, make_faces: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as asked for; of these two in five in another light, and none a mosaic, with pasted or covered faces."""
    photos = read_labels(make_faces(tmp_path))
    calls: dict[str, int] = dict.fromkeys(("_crop", "_mosaic", "_paste", "_photometric", "_cover"), 0)

    def counted(name: str, of: object) -> None:
        inner = getattr(of, name)

        def call(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return inner(*args, **options)

        monkeypatch.setattr(of, name, call)

    for name in ("_photometric", "_cover"):
        counted(name, module)
    for name in ("_crop", "_mosaic", "_paste"):
        counted(name, Pictures)
    pictures = Pictures(photos, size=64, plain=1.0)
    for i in range(200):
        pictures.canvas(np.random.default_rng(i))
    assert calls["_crop"] == 200 and not calls["_mosaic"] and not calls["_paste"] and not calls["_cover"]
    assert 55 < calls["_photometric"] < 105
    some = Pictures(photos, size=64, plain=0.5)
    for i in range(200):
        some.canvas(np.random.default_rng(i))
    assert 15 < calls["_mosaic"] < 50  # 30 % of the other half


def test_light_leaves_faces_alone() -> None:
    photo, image = dotted()
    canvas = Canvas(image, photo.boxes, photo.landmarks, photo.sure)
    for i in range(60):
        lit = _photometric(np.random.default_rng(i), canvas)
        assert lit.image.shape == image.shape
        assert lit.image.dtype == np.uint8
        assert lit.boxes is canvas.boxes


# --- each part of the augmentation ------------------------------------------------------------------------------------


class Dice(np.random.Generator):
    """A generator whose `random()` gives the numbers that it is told to; all else is drawn as usual."""

    def __init__(self, *rolls: float, seed: int = 0) -> None:
        super().__init__(np.random.PCG64(seed))
        self.rolls = list(rolls)

    def random(self, *_: Any, **__: Any) -> Any:
        return self.rolls.pop(0)


NO = 0.99  # a roll at which the parts of `_photometric` (resolution or blur, light, grey, noise) do nothing


def textured(seed: int = 0) -> Canvas:
    """A coloured canvas full of fine detail, with a large, a small and a doubtful face."""
    image = np.random.default_rng(seed).integers(20, 236, (96, 128, 3), dtype=np.uint8)
    boxes = np.array([[10, 12, 60, 72], [90, 20, 20, 25], [80, 50, 40, 44]], np.float32)
    return Canvas(image, boxes, np.zeros((3, 5, 2), np.float32), np.array([True, True, False]))


def detail(image: np.ndarray) -> float:
    """How much neighbouring pixels differ."""
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def test_without_any_chance_the_light_changes_nothing() -> None:
    made = textured()
    lit = _photometric(Dice(NO, NO, NO, NO), made)
    np.testing.assert_array_equal(lit.image, made.image)


@pytest.mark.parametrize(("roll", "share"), [(0.0, 0.5), (0.15, 0.7)], ids=["low resolution", "blur"])
def test_unsharp_pictures_lose_detail_and_no_light(roll: float, share: float) -> None:
    made = textured()
    for seed in range(5):
        unsharp = _photometric(Dice(roll, NO, NO, NO, seed=seed), made)
        assert unsharp.image.shape == made.image.shape
        assert detail(unsharp.image) < share * detail(made.image)
        np.testing.assert_allclose(unsharp.image.mean((0, 1)), made.image.mean((0, 1)), atol=2)


def test_small_faces_keep_their_pixels() -> None:
    """At 12 pixels a low resolution or a strong blur would leave nothing of a face to find: it is blurred slightly.
    Doubtful faces do not count."""
    made = textured()
    tiny = made.boxes * np.array([1, 1, 0.2, 0.2], np.float32)
    slight = detail(np.asarray(Image.fromarray(made.image).filter(ImageFilter.GaussianBlur(0.65))))
    only_doubtful = np.where(made.sure[:, None], made.boxes, tiny)
    for boxes, spared in ((tiny, True), (only_doubtful, False)):
        for roll in (0.0, 0.15):
            canvas = Canvas(made.image, boxes, made.landmarks, made.sure)
            found = [_photometric(Dice(roll, NO, NO, NO, seed=seed), canvas).image for seed in range(8)]
            assert (min(map(detail, found)) > slight) is spared


def test_light_is_a_curve_per_channel() -> None:
    """Every value of a channel becomes one other value, brighter ones never darker; grey pictures turn coloured only a
    little."""
    made = textured()
    different = 0
    for seed in range(10):
        lit = _photometric(Dice(NO, 0.0, NO, NO, seed=seed), made)
        curves = np.zeros((3, 256))
        for channel in range(3):
            before, after = made.image[..., channel].ravel(), lit.image[..., channel].ravel()
            for value in range(20, 236):
                (curves[channel, value],) = set(after[before == value].tolist())
            assert (np.diff(curves[channel, 20:236]) >= 0).all()
        different += bool(np.abs(curves[:, 20:236] - np.arange(20, 236)).max() > 10)
        middle = curves[:, 100:150].mean(1)
        assert middle.max() < 2 * middle.min() + 10
    assert different > 7


def test_light_is_its_formula() -> None:
    """The curve of each channel, from the numbers that the same generator draws."""
    made, rng = textured(), np.random.default_rng(3)
    lit = _photometric(Dice(NO, 0.0, NO, NO, seed=3), made)
    rng = np.random.Generator(np.random.PCG64(3))
    gamma, contrast, light = np.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.25)), rng.normal(0, 0.1)
    gains = np.exp(rng.normal(0, 0.08, 3))
    x = made.image.astype(np.float64) / 255
    expected = (((x**gamma - 0.5) * contrast + 0.5 + light) * gains * 255).clip(0, 255)
    assert (expected - lit.image).min() >= 0 and (expected - lit.image).max() < 1 + 1e-9  # cut to whole numbers


def test_grey_is_the_eyes_brightness() -> None:
    made = textured()
    grey = _photometric(Dice(NO, NO, 0.0, NO), made).image
    assert (grey == grey[..., :1]).all()
    luma = made.image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1


def test_noise_has_no_mean_and_its_own_strength() -> None:
    made = Canvas(np.full((96, 96, 3), 128, np.uint8), np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, bool))
    strengths = []
    for seed in range(20):
        noisy = _photometric(Dice(NO, NO, NO, 0.0, seed=seed), made).image.astype(float)
        assert abs(noisy.mean() - 128) < 1
        strengths.append(noisy.std())
    assert min(strengths) > 1.5 and max(strengths) < 17 and max(strengths) - min(strengths) > 5


def test_what_covers_a_face_lies_on_one_large_sure_face_and_leaves_the_rest() -> None:
    made = textured()
    shapes = set()
    for roll in (0.0, 0.99):  # an ellipse, a rectangle
        for seed in range(20):
            before = made.image.copy()
            covered = _cover(Dice(roll, seed=seed), made)
            np.testing.assert_array_equal(made.image, before)  # the given canvas stays as it is
            changed = (covered.image != made.image).any(2)
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            x, y, w, h = made.boxes[0]
            assert x - 0.1 * w - 1 <= columns[0] and columns[-1] <= x + 1.1 * w + 1
            assert y - 0.1 * h - 1 <= rows[0] and rows[-1] <= y + 1.1 * h + 1
            assert 0.03 * w * h < changed.sum() <= 0.56**2 * w * h + w + h
            assert (covered.image[changed] == covered.image[changed][0]).all(), "one colour"
            extent = (columns[-1] - columns[0] + 1) * (rows[-1] - rows[0] + 1)
            shapes.add((roll, round(float(changed.sum() / extent), 1)))
            assert covered.boxes is made.boxes and covered.landmarks is made.landmarks and covered.sure is made.sure
    assert shapes == {(0.0, 0.8), (0.99, 1.0)}
    nobody = Canvas(made.image, made.boxes, made.landmarks, np.array([False, True, False]))  # 20 px wide, or doubtful
    assert _cover(Dice(0.0), nobody) is nobody


def test_a_mirror_swaps_left_and_right_and_nothing_else() -> None:
    image = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    landmarks = np.array([[[2, 3], [6, 3.5], [4, 4], [2.5, 6], [5.5, 6.5]]], np.float32)
    made = Canvas(image, np.array([[1, 2, 6, 5]], np.float32), landmarks, np.array([True]))
    mirrored = _mirror(made)
    np.testing.assert_array_equal(mirrored.image, image[:, ::-1])
    np.testing.assert_array_equal(mirrored.boxes, [[3, 2, 6, 5]])
    np.testing.assert_array_equal(mirrored.landmarks, [[[4, 3.5], [8, 3], [6, 4], [4.5, 6.5], [7.5, 6]]])
    np.testing.assert_array_equal(_mirror(mirrored).landmarks, landmarks)
    np.testing.assert_array_equal(_mirror(mirrored).boxes, made.boxes)


def test_the_colour_beyond_the_photograph() -> None:
    """Black half of the time, else a grey or a colour."""
    assert (_fill(Dice(0.49)) == 0).all()
    grey, colour = _fill(Dice(0.74)), _fill(Dice(0.75))
    assert len(set(grey)) == 1 and 0 < grey[0] < 255
    assert len(set(colour)) == 3


def test_turned_boxes_hold_the_turned_face() -> None:
    """A face is an ellipse in its box: after a quarter turn width and height have changed places, after an eighth both
    are the root of the mean square."""
    photo, image = dotted()  # 70 x 85, its centre 10 to the right of the anchor and 20 below
    for degrees, (x, y), (w, h) in (
        (0, (10, 20), (70, 85)),
        (90, (-20, 10), (85, 70)),
        (45, (-7.071, 21.213), (77.862, 77.862)),
        (-45, (21.213, 7.071), (77.862, 77.862)),
    ):
        made = _similarity(
            photo, image, scale=1.0, degrees=degrees, anchor=np.array([80.0, 62.5]), where=np.array([128.0, 120]),
            width=256, height=240, fill=np.zeros(3),
        )  # fmt: skip
        np.testing.assert_allclose(made.boxes[0], [128 + x - w / 2, 120 + y - h / 2, w, h], atol=0.01)


def test_a_shrunk_photograph_has_no_aliases() -> None:
    """A fine checkerboard, four times smaller, is grey."""
    photo = replace(dotted()[0], boxes=np.zeros((0, 4), np.float32))
    y, x = np.mgrid[0:160, 0:200]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for anchor in (102.0, 102.5):  # a bilinear sample between four pixels would be grey, too; one on a pixel is not
        made = _similarity(
            photo, board, scale=0.25, degrees=0, anchor=np.array([anchor, anchor - 20]), where=np.array([20.5, 15.5]),
            width=40, height=30, fill=np.zeros(3),
        )  # fmt: skip
        assert made.image.std() < 10
        assert made.image.mean() == pytest.approx(127.5, abs=5)


def test_how_much_of_a_face_must_be_seen() -> None:
    """A box of 70 x 85 is asked for while more than 45 % of it and its centre lie on the canvas."""
    photo, image = dotted()
    for x, y, sure in (
        (1, 80, True),
        (-1, 80, False),
        (80, 1, True),
        (80, -1, False),
        (159, 80, True),
        (161, 80, False),
    ):
        made = _similarity(
            photo, image, scale=1.0, degrees=0, anchor=np.array([90.0, 82.5]), where=np.array([x, y], float),
            width=160, height=160, fill=np.zeros(3),
        )  # fmt: skip
        assert made.sure.tolist() == [sure], (x, y)
    corner = {"anchor": np.array([90.0, 82.5]), "where": np.array([3.0, 3]), "width": 160, "height": 160}
    made = _similarity(photo, image, scale=1.0, degrees=0, fill=np.zeros(3), **corner)
    assert made.sure.tolist() == [False]  # a good quarter of it
    doubtful = replace(photo, sure=np.array([False]))
    assert _similarity(
        doubtful, image, scale=1.0, degrees=0, fill=np.zeros(3), **corner | {"where": np.full(2, 80.0)}
    ).sure.tolist() == [False]


@pytest.mark.parametrize("way", ["_mosaic", "_paste", "_crop"])
def test_faces_in_composed_pictures_are_where_their_landmarks_say(tmp_path: Path, way: str) -> None:
    photo, image = dotted()
    Image.fromarray(image).save(tmp_path / "a.png")
    pictures = Pictures([replace(photo, path=tmp_path / "a.png")], size=256)
    off, faces = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if way == "_paste":
            empty = Canvas(np.zeros((256, 256, 3), np.uint8), np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, bool))
            made = pictures._paste(rng, empty)
        else:
            made = pictures._mosaic(rng) if way == "_mosaic" else pictures._crop(rng, 256, 256)
        assert made.image.shape == (256, 256, 3)
        for box, points in zip(made.boxes[made.sure], made.landmarks[made.sure], strict=True):
            if box[2] > 45 and (box[:2] > 0).all() and (box[:2] + box[2:] < 256).all():
                faces += 1
                apart = points.mean(0) - (box[:2] + box[2:] / 2)  # 0.8 and 1.3 of 70 x 85 in the photograph
                assert np.abs(apart).max() < 0.04 * box[2:].mean()
                orders = ((0, 1, 2, 3, 4), (1, 0, 2, 4, 3))  # as it is, or mirrored
                errors = [[np.abs(peak(made.image, p, k % 3) - p).max() for k, p in zip(o, points)] for o in orders]
                off.append(min(map(max, errors)))
    assert faces > 20
    assert np.median(off) < 1.0


def test_pasted_faces_do_not_lie_on_others(tmp_path: Path) -> None:
    photo, image = dotted()
    Image.fromarray(image).save(tmp_path / "a.png")
    pictures = Pictures([replace(photo, path=tmp_path / "a.png")], size=128)
    given = Canvas(
        np.full((128, 128, 3), 7, np.uint8),
        np.array([[30, 40, 50, 60]], np.float32),
        np.full((1, 5, 2), np.nan, np.float32),
        np.array([False]),
    )
    most = 0
    for seed in range(40):
        made = pictures._paste(np.random.default_rng(seed), given)
        assert made.sure[0] == False and made.sure[1:].all()  # noqa: E712
        assert (given.image == 7).all()
        overlaps = iou(made.boxes, made.boxes) - np.eye(len(made.boxes))
        assert overlaps.max(initial=0) < 0.02  # the box wanted lay on none; the turned one is a little larger
        most = max(most, len(made.boxes))
    assert most >= 4


def pictures_of(tmp_path: Path, photos: list[Photo], images: list[np.ndarray], size: int) -> Pictures:
    files = [tmp_path / f"{i}.png" for i in range(len(photos))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    return Pictures([replace(photo, path=file) for photo, file in zip(photos, files, strict=True)], size=size)


def test_a_face_with_a_neighbour_is_not_pasted(tmp_path: Path) -> None:
    """The neighbour would come along, cut off by the soft edge."""
    photo, image = dotted()
    two = replace(
        photo,
        boxes=np.array([[20, 40, 70, 85], [95, 40, 60, 75]], np.float32),
        landmarks=np.repeat(photo.landmarks, 2, 0),
        sure=np.array([True, True]),
    )
    pictures = pictures_of(tmp_path, [two], [image], 256)
    assert len(pictures.large) == 2
    empty = Canvas(np.zeros((256, 256, 3), np.uint8), np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, bool))
    assert not any(len(pictures._paste(np.random.default_rng(seed), empty).boxes) for seed in range(30))


def test_photographs_with_several_faces_come_more_often(tmp_path: Path) -> None:
    """By their sure faces, eight times as often at most."""
    photo, image = dotted()
    photos = []
    for sure, doubtful in ((1, 3), (4, 0), (36, 0)):
        n = sure + doubtful
        boxes, points = np.repeat(photo.boxes, n, 0), np.repeat(photo.landmarks, n, 0)
        photos.append(replace(photo, boxes=boxes, landmarks=points, sure=np.arange(n) < sure))
    pictures = pictures_of(tmp_path, photos, [image] * 3, 64)
    np.testing.assert_allclose(pictures.weight, [1 / 13, 4 / 13, 8 / 13])
    drawn = [pictures._pick(np.random.default_rng(i), False) for i in range(400)]
    np.testing.assert_allclose(np.bincount(drawn) / 400, [1 / 13, 4 / 13, 8 / 13], atol=0.07)


def test_crops_show_little_beside_the_photograph_and_enlarge_it_threefold_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned photographs leave corners empty; more than that only now and then."""
    photo, image = dotted()
    monkeypatch.setattr(module, "_fill", lambda rng: np.array([255, 0, 255]))
    pictures = pictures_of(tmp_path, [photo], [image], 96)
    empty = []
    for seed in range(150):
        made = pictures._crop(np.random.default_rng(seed), 96, 96)
        scale = made.boxes[:, 2:].prod(1) ** 0.5 / np.sqrt(70 * 85)
        if len(scale) and scale[0] > 0.7:  # large enough to cover the canvas
            empty.append(float((made.image == [255, 0, 255]).all(2).mean()))
    assert len(empty) > 15
    assert np.mean(empty) < 0.04
    small = replace(photo, boxes=np.array([[80, 75, 20, 20]], np.float32), landmarks=photo.landmarks * np.nan)
    pictures = pictures_of(tmp_path, [small], [image], 224)
    widths = [pictures._crop(np.random.default_rng(seed), 224, 224).boxes[:, 2] for seed in range(150)]
    assert 50 < np.concatenate(widths).max() <= 60.01
