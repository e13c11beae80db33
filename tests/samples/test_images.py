"""Every kind of picture a user may bring, and every kind of thing that is none."""

import io
import os
import random
import re
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.errors import InvalidOption, StorageError, TooManyPixels, UnreadableFile
from likeness.samples.images import _UPRIGHT, SUFFIXES, check_output, read_image, write_image

H, W = 20, 30


@pytest.fixture(scope="module")
def upright() -> np.ndarray:
    """(h, w, 3) with four different corners: no two orientations look alike."""
    image = np.full((H, W, 3), 128, np.uint8)
    image[: H // 2, : W // 2] = (250, 0, 0)
    image[: H // 2, W // 2 :] = (0, 250, 0)
    image[H // 2 :, : W // 2] = (0, 0, 250)
    return image


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


# How a camera stores an upright scene for each EXIF orientation, written from the standard's table "where is row 0,
# where is column 0" and not from Pillow's transpositions.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(upright: np.ndarray, orientation: int, format: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    image = read_image(encoded(stored, format, exif=exif, **options))
    assert image.shape == (H, W, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - upright).max() <= 4


def test_orientation_outside_the_standard_is_ignored(upright: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(read_image(encoded(Image.fromarray(upright), "PNG", exif=exif)), upright)
    assert set(_UPRIGHT) == set(range(2, 9))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_scaled_not_cut(format: str) -> None:
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    image = read_image(encoded(Image.fromarray(grey), format))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]
    assert np.array_equal(image[..., 0], image[..., 2])


def test_16_bit_rgb_png() -> None:
    """Pillow cannot write one, so the chunks are written here; it keeps the high byte of each value."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 257, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert read_image(png).tolist() == [[[0, 128, 255], [255, 1, 0]]]


def test_12_bit_tiff_reaches_white() -> None:
    picture = Image.fromarray(np.array([[0, 4095]], np.uint16))
    picture.tag_v2 = {258: (12,)}  # what Pillow leaves on a TIFF of 12 bits per sample
    assert read_image(picture)[0, :, 0].tolist() == [0, 255]


def test_32_bit_integers_and_floats() -> None:
    whole = Image.fromarray(np.array([[0, 2**31 - 1]], np.int32))
    assert read_image(encoded(whole, "TIFF"))[0, :, 0].tolist() == [0, 127]
    assert read_image(Image.fromarray(np.array([[0, -1]], np.int32)))[0, :, 0].tolist() == [0, 255]
    assert read_image(Image.fromarray(np.array([[0, 65535]], np.int32)))[0, :, 0].tolist() == [0, 255]
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert read_image(encoded(unit, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(UnreadableFile, match="0…1"):
        read_image(encoded(Image.fromarray(np.array([[0, 3.0]], np.float32)), "TIFF"))


def test_transparency_lies_over_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]
    assert read_image(encoded(Image.fromarray(rgba), "PNG")).tolist() == expected
    assert read_image(rgba).tolist() == expected
    la = Image.fromarray(rgba).convert("LA")
    assert read_image(encoded(la, "PNG"))[0, 1].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    assert read_image(encoded(palette, "PNG")).tolist() == [[[200, 0, 0], [0, 200, 0]]]
    assert read_image(encoded(palette, "PNG", transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    assert read_image(encoded(palette, "GIF", transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    rgb = Image.new("RGB", (1, 1), (1, 2, 3))
    assert read_image(encoded(rgb, "PNG", transparency=(1, 2, 3))).tolist() == [[[255, 255, 255]]]
    assert read_image(Image.fromarray(rgba).convert("RGBa"))[0, 1].tolist() == [255, 255, 255]


def test_other_modes(upright: np.ndarray) -> None:
    picture = Image.fromarray(upright)
    cmyk = read_image(encoded(picture.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(cmyk.astype(int) - upright).max() <= 8
    assert read_image(encoded(picture.convert("L"), "PNG")).shape == (H, W, 3)
    bits = read_image(encoded(picture.convert("1"), "PNG"))
    assert set(np.unique(bits)) == {0, 255}
    for mode in ("YCbCr", "HSV", "LAB", "RGBX", "La", "PA"):
        assert read_image(Image.new(mode, (3, 2))).shape == (2, 3, 3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert read_image(data)[4, 4].tolist() == [255, 0, 0]


def test_sources(upright: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "Žofie 写真 🙂.png"
    write_image(path, upright)
    data = path.read_bytes()
    picture = Image.open(path)
    stream = io.BytesIO(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), stream, picture, upright):
        assert np.array_equal(read_image(source), upright)
    assert not stream.closed and picture.size == (W, H)  # what belongs to the caller stays open
    with path.open("rb") as file:
        assert np.array_equal(read_image(file), upright)
        assert not file.closed


def test_arrays(upright: np.ndarray) -> None:
    image = read_image(upright)
    image[0, 0] = 7
    assert upright[0, 0, 0] == 250  # a copy: the caller's array is not written to
    assert np.array_equal(read_image(upright / 255.0), upright)
    assert np.array_equal(read_image(upright.astype(np.uint16) * 257), upright)
    assert read_image(upright[:, :, 0]).shape == read_image(upright[:, :, :1]).shape == (H, W, 3)
    assert read_image(np.array([[True, False]]))[0, :, 1].tolist() == [255, 0]
    assert np.array_equal(read_image(upright[::-1, ::2]), upright[::-1, ::2])  # not contiguous


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3, 5), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((2, 2), np.int64),
        np.full((2, 2), 1.5),
        np.full((2, 2), np.nan),
        np.zeros((2, 2), complex),
        np.array([["a"]], dtype=object),
    ],
)
def test_arrays_that_are_no_pictures(bad: np.ndarray) -> None:
    with pytest.raises(InvalidOption):
        read_image(bad)


def test_other_objects_are_refused() -> None:
    for bad in (None, 3, ["a.jpg"]):
        with pytest.raises(InvalidOption, match="not "):
            read_image(bad)  # type: ignore[arg-type]


def test_pixel_limit_is_checked_before_decoding(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 6_000)).save(bomb)  # 120 million pixels in a few kilobytes
    assert bomb.stat().st_size < 100_000
    with pytest.raises(TooManyPixels, match=r"bomb\.png.*20000×6000"):
        read_image(bomb)
    with pytest.raises(TooManyPixels):
        read_image(np.zeros((4, 4), np.uint8), max_pixels=15)
    assert read_image(np.zeros((4, 4), np.uint8), max_pixels=16).shape == (4, 4, 3)


def test_pillows_own_limit_becomes_our_error(monkeypatch: pytest.MonkeyPatch, upright: np.ndarray) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TooManyPixels):
        read_image(encoded(Image.fromarray(upright), "PNG"))


def test_files_that_cannot_be_read(tmp_path: Path, upright: np.ndarray) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is not a picture at all")
    whole = encoded(Image.fromarray(upright).resize((200, 200)), "JPEG")
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "eps.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "folder.jpg").mkdir()
    for name, words in {
        "empty.jpg": "empty",
        "text.jpg": "not a picture",
        "short.jpg": "truncated",
        "eps.eps": "not a picture",
        "folder.jpg": "folder",
        "absent.jpg": "no such file",
        "nul\0.jpg": "cannot be opened",
        "x" * 300: "cannot be opened",
    }.items():
        with pytest.raises(UnreadableFile, match=words) as caught:
            read_image(tmp_path / name)
        assert name.strip("\0")[:3] in str(caught.value)
    with pytest.raises(UnreadableFile, match="<bytes>: the file is empty"):
        read_image(b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableFile, match="pipe"):
        read_image(tmp_path / "pipe.jpg")


def test_permission_denied(tmp_path: Path, upright: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    write_image(path, upright)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything: refuse as the system would
        real = open

        def refuse(name: object, *rest: object, **more: object) -> object:
            if str(name) == str(path):
                raise PermissionError(13, "Permission denied", str(name))
            return real(name, *rest, **more)  # type: ignore[call-overload]

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UnreadableFile, match=r"secret\.png: permission denied"):
        read_image(path)


def test_a_stream_that_fails(upright: np.ndarray) -> None:
    class Broken(io.BytesIO):
        name = "broken.png"

        def read(self, *_: object) -> bytes:
            raise OSError("disk gone")

        seek = read  # type: ignore[assignment]

    with pytest.raises(UnreadableFile, match=r"broken\.png"):
        read_image(Broken())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_stream_that_is_read_but_once(upright: np.ndarray, format: str) -> None:
    """As a pipe or a download is."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation("seek")

    data = encoded(Image.fromarray(upright), format)
    np.testing.assert_array_equal(read_image(Pipe(data)), read_image(data))


def test_write(tmp_path: Path, upright: np.ndarray) -> None:
    suffixes = [".jpg", ".png", ".webp", *([".avif"] if "AVIF" in Image.SAVE else [])]
    for suffix in suffixes:
        write_image(tmp_path / f"a{suffix}", upright)
        assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - upright).mean() < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"a{suffix}" for suffix in suffixes)
    for suffix in (".xbm", ".msp", ".blp"):  # formats of two colours, or of palettes
        with pytest.raises(InvalidOption, match=rf"a\{suffix}: cannot write"):
            write_image(tmp_path / f"a{suffix}", upright)
    with pytest.raises(InvalidOption, match="cannot write"):
        write_image(tmp_path / "a.xyz", upright)
    with pytest.raises(InvalidOption, match="uint8"):
        write_image(tmp_path / "a.png", upright / 255)


def _seeds() -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    picture = Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9003] = 6, "maker", "2024:01:01 00:00:00"
    frames = [picture.convert("P"), picture.rotate(90).convert("P")]
    return {
        "jpeg": encoded(picture, "JPEG", exif=exif),
        "progressive": encoded(picture.convert("CMYK"), "JPEG", progressive=True),
        "png": encoded(picture, "PNG", exif=exif),
        "palette": encoded(picture.convert("P"), "PNG", transparency=bytes(range(256))),
        "grey16": encoded(Image.fromarray(rng.integers(0, 65535, (30, 30), dtype=np.uint16)), "PNG"),
        "gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp": encoded(picture, "WEBP", exif=exif),
        "tiff": encoded(picture, "TIFF", compression="tiff_lzw", exif=exif),
        "tiff16": encoded(Image.fromarray(rng.integers(0, 65535, (30, 30), dtype=np.uint16)), "TIFF"),
        "bmp": encoded(picture, "BMP"),
        "ppm": encoded(picture, "PPM"),
        **({"avif": encoded(picture, "AVIF")} if "AVIF" in Image.SAVE else {}),
        **({"jp2": encoded(picture, "JPEG2000")} if "JPEG2000" in Image.SAVE else {}),
    }


def _mutated(data: bytes, dice: random.Random) -> bytes:
    broken = bytearray(data)
    kind = dice.randrange(4)
    if kind == 0:
        del broken[dice.randrange(len(broken)) :]
    elif kind == 1:  # headers are where the numbers stand
        for _ in range(dice.randint(1, 4)):
            broken[dice.randrange(min(len(broken), 128))] = dice.randrange(256)
    elif kind == 2:
        for _ in range(dice.randint(1, 12)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
    else:
        start = dice.randrange(len(broken))
        end = start + dice.randint(1, 40)
        broken[start:end] = dice.choice([b"", b"\xff" * 8, b"\0" * 60, data[:30]])
    return bytes(broken)


def _fuzz(trials: int, seed: int) -> tuple[int, int]:
    Image.init()
    dice = random.Random(seed)
    good = refused = 0
    for name, data in _seeds().items():
        assert read_image(data).ndim == 3, name
        for _ in range(trials):
            broken = _mutated(data, dice)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    image = read_image(broken, max_pixels=4_000_000)
                except UnreadableFile as error:
                    assert str(error).startswith("<bytes>: ")
                    refused += 1
                else:
                    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
                    good += 1
    return good, refused


def test_fuzz_gives_a_picture_or_a_named_error() -> None:
    good, refused = _fuzz(40, seed=1)
    assert good > 50 and refused > 150


@pytest.mark.slow
def test_fuzz_long() -> None:
    _fuzz(1000, seed=2)


def test_threads_do_not_leak_warning_filters(upright: np.ndarray) -> None:
    data = encoded(Image.fromarray(upright), "PNG")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_image(data) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_suffixes_are_lower_case() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif"} <= set(SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


def test_heic_without_pillow_heif_says_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # an import of it fails
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(UnreadableFile, match="HEIC.*pip install pillow-heif"):
        read_image(HEIC)
    with pytest.raises(UnreadableFile, match="not a picture.*HEIC with the package pillow-heif"):
        read_image(b"this is not a picture at all")


def test_heic_is_read_where_pillow_heif_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(Image, "OPEN", {name: one for name, one in Image.OPEN.items() if name != "HEIF"})
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    asked: list[str] = []

    def register() -> None:
        asked.append("registered")
        Image.OPEN["HEIF"] = (lambda stream, name: picture, lambda prefix: prefix[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    for _ in range(2):
        assert read_image(HEIC).tolist() == [[[10, 20, 30]] * 3] * 2
    assert asked == ["registered"]


def test_whether_a_picture_can_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    """The error names the file that was asked for; nothing is left behind, and what is there already stays."""
    (tmp_path / "old.png").write_bytes(b"kept")
    check_output(tmp_path / "old.png")
    check_output(tmp_path / "new.jpg")
    for name, error in (("new.xyz", InvalidOption), ("missing/new.png", StorageError)):
        with pytest.raises(error, match=re.escape(str(tmp_path / name))):
            check_output(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"kept"
