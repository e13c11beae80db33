"""Pictures in and out: whatever a user brings becomes an (h, w, 3) uint8 RGB array, or one named error with its path.

Decoding is Pillow's work (and pillow-heif's, where it is installed). What is decided here: which formats are opened at
all (those that hold pixels; none that would start another program, as EPS starts Ghostscript), how many pixels are too
many, and what happens to everything that is not plain 8-bit RGB.
"""

from __future__ import annotations

import io
import os
import secrets
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from ..errors import InvalidOption, StorageError, TooManyPixels, UnreadableFile

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | np.ndarray | Image.Image"

SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings (lower case) that count as pictures when a folder is read. A file named by itself may be called anything."""

FORMATS = "JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF and JPEG 2000; HEIC with the package pillow-heif"

_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # Pillow knows these without loading its other thirty plugins
_OTHERS = ("WEBP", "TIFF", "MPO", "AVIF", "HEIF", "JPEG2000", "DIB")

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # ISO/IEC 23008-12

# EXIF orientation -> how the stored pixels are brought upright (EXIF 2.3, tag 0x0112)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: ImageSource, *, max_pixels: int = 100_000_000) -> np.ndarray:
    """The picture as an (h, w, 3) uint8 RGB array, upright.

    Arguments:
        source: a path; the bytes of a file; a binary stream; a PIL image; or an array: grey (h, w) or (h, w, 1),
            RGB (h, w, 3) or RGBA (h, w, 4), of uint8, uint16 (0…65535), bool, or floats in 0…1.
        max_pixels: pictures that declare more are refused before they are decoded. Pillow's own limit
            (`PIL.Image.MAX_IMAGE_PIXELS`, twice of which it refuses: 179 million) stands above it.

    What happens to pictures that are not 8-bit RGB: EXIF orientation is applied; 16 bits are scaled to 8 (65535 → 255),
    not cut; transparency is laid over white; grey, palette, CMYK and 1-bit become RGB; of an animation the first frame
    is taken. Colour profiles are ignored.

    Raises `UnreadableFile` (missing, empty, truncated, not a picture; the message names the file), `TooManyPixels`, or
    `InvalidOption` for an array of another shape, type or range.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, "<PIL image>", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(source), "<bytes>", max_pixels)
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            raise InvalidOption(f"a picture is a path, bytes, an array or a PIL image, not {type(source).__name__}")
        name = str(getattr(source, "name", "<stream>"))
        if not source.seekable():  # a pipe: decoders try one after the other, each from the start
            source = io.BytesIO(source.read())
        return _from_stream(source, name, max_pixels)
    name = os.fspath(source)
    with _open_file(name) as stream:
        return _from_stream(stream, name, max_pixels)


def resized(image: np.ndarray, size: int | None) -> np.ndarray:
    """(h, w, 3) uint8 with so many pixels along the longer side; as it is where `size` is None."""
    if size is None:
        return image
    height, width = resized_shape(image.shape[:2], size)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def resized_shape(shape: Sequence[int], size: int | None) -> tuple[int, int]:
    """(height, width) of what `resized` makes of a picture of such a shape. Raises InvalidOption for a size below 1."""
    height, width = shape
    if size is None:
        return height, width
    if size < 1:
        raise InvalidOption(f"size is {size}; it must be at least 1 pixel")
    ratio = size / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def squared(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of a picture (h, w, 3) uint8, scaled to (side, side, 3)."""
    return np.asarray(ImageOps.fit(Image.fromarray(image), (side, side), Image.Resampling.LANCZOS))


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write `array` (h, w, 3) uint8 RGB to `path`, atomically; the ending chooses the format (JPEG: quality 95)."""
    from .files import atomic_write

    Image.preinit()
    suffix = Path(path).suffix.lower()
    if suffix not in Image.EXTENSION:  # rarer ones: a quarter of a second
        Image.init()
    format_name = Image.EXTENSION.get(suffix)
    if format_name not in Image.SAVE:
        raise InvalidOption(f"{path}: cannot write pictures that end in {suffix!r}; use .png, .jpg or .webp")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InvalidOption(f"a picture to write is (h, w, 3) uint8, not {array.shape} {array.dtype}")
    buffer = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(buffer, format=format_name, quality=95, subsampling="4:4:4")
    except (OSError, ValueError) as error:  # formats of two colours, or of palettes
        raise InvalidOption(f"{path}: cannot write colour pictures as {suffix!r}; use .png, .jpg or .webp") from error
    atomic_write(path, buffer.getvalue())


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises InvalidOption or StorageError, before the long work, where a picture could not be written to `path`."""
    target = Path(path)
    if not target.suffix:
        raise InvalidOption(f"{target}: the name must end in what kind of picture it is: .png, .jpg or .webp")
    if target.exists() and not target.is_file():
        raise StorageError(f"cannot write {target}: it is there, and is not a file")
    trial = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(6)}{target.suffix}")
    try:
        write_image(trial, np.zeros((1, 1, 3), np.uint8))
    except (InvalidOption, OSError) as error:
        raise type(error)(str(error).replace(str(trial), str(target))) from error
    finally:
        with suppress(OSError):
            trial.unlink()


def _open_file(name: str) -> IO[bytes]:
    """Open a regular file, or say in one sentence why not."""
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableFile(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile(f"{name}: is a device or a pipe, not a file")
        return open(name, "rb")
    except UnreadableFile:
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"{name}: no such file") from None
    except PermissionError:
        raise UnreadableFile(f"{name}: permission denied") from None
    except (OSError, ValueError) as error:  # ValueError: a null character inside the name
        raise UnreadableFile(f"{name!r}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _from_stream(stream: IO[bytes], name: str, max_pixels: int) -> np.ndarray:
    with _without_pillow_warnings():
        try:
            picture = _open_picture(stream)
        except Image.DecompressionBombError:
            raise TooManyPixels(f"{name}: more pixels than Pillow opens (twice MAX_IMAGE_PIXELS)") from None
        except Image.UnidentifiedImageError:
            raise UnreadableFile(f"{name}: {_what_it_is(stream)}") from None
        except Exception as error:  # decoders fail in every way there is; only the file is to blame
            raise UnreadableFile(f"{name}: damaged picture: {_words(error)}") from error
    with picture:
        return _decode(picture, name, max_pixels)


def _open_picture(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream, formats=_COMMON)
    except Image.UnidentifiedImageError:
        Image.init()
        _register_heif()
        return Image.open(stream, formats=[name for name in _OTHERS if name in Image.OPEN])


def _register_heif() -> None:
    """HEIC, as telephones write it: Pillow reads it where pillow-heif is installed and has been registered."""
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:  # also where its libraries do not load
            return
        register_heif_opener()


def _what_it_is(stream: IO[bytes]) -> str:
    try:
        stream.seek(0)
        start = stream.read(12)
        if not start:
            return "the file is empty"
        if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
            return "a HEIC picture, which pillow-heif reads: pip install pillow-heif, or export it as JPEG"
    except (OSError, ValueError):
        pass
    return f"not a picture, or damaged (what is read: {FORMATS})"


def _decode(picture: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """Pixels of an opened picture: checked, loaded, 8 bits, RGB, upright."""
    width, height = picture.size
    _check_pixels(width, height, name, max_pixels)
    with _without_pillow_warnings():
        try:
            picture.load()
            upright = _UPRIGHT.get(_orientation(picture))
            rgb = _to_rgb(picture)
            if upright is not None:
                rgb = rgb.transpose(upright)
            array = np.array(rgb)
        except UnreadableFile as error:
            raise UnreadableFile(f"{name}: {error}") from None
        except Exception as error:  # as above
            raise UnreadableFile(f"{name}: damaged picture: {_words(error)}") from error
    _check_pixels(array.shape[1], array.shape[0], name, max_pixels)
    return array


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none. Damaged EXIF data do not make the pixels unreadable."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    if mode.startswith("I;16") or mode == "I":
        return _grey(_scale_integers(np.asarray(picture), _bits(picture)))
    if mode == "F":
        try:
            return _grey(_scale_floats(np.asarray(picture)))
        except InvalidOption as error:
            raise UnreadableFile(str(error)) from None
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        if mode in ("La", "RGBa"):  # Pillow un-multiplies to the plain mode only
            picture = picture.convert(mode[:-1] + "A")
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _bits(picture: Image.Image) -> int:
    """How many bits of a wide grey picture are used; TIFF can hold 12-bit greys, which would come out nearly black."""
    tags: Any = getattr(picture, "tag_v2", None)
    declared = tags.get(258) if tags is not None else None
    bits = declared[0] if isinstance(declared, tuple) and declared else 16
    return bits if 8 < bits <= 32 else 16


def _scale_integers(array: np.ndarray, bits: int) -> np.ndarray:
    """(h, w) unsigned integers of `bits` bits as (h, w) uint8, rounded; full scale goes to 255."""
    wide = array.astype(np.float64)
    if wide.min(initial=0.0) < 0:  # mode I is signed: a 32-bit picture of large values arrives wrapped around
        wide = np.where(wide < 0, wide + 2.0**32, wide)
    if bits <= 16 and wide.max(initial=0.0) > 65535:
        bits = 32
    return np.rint(wide * (255.0 / (2.0**bits - 1))).clip(0, 255).astype(np.uint8)


def _scale_floats(array: np.ndarray) -> np.ndarray:
    """Floats in 0…1 as uint8, rounded; anything else is refused: guessing the range would change what is recognised."""
    if not np.isfinite(array).all() or array.min(initial=0.0) < 0 or array.max(initial=0.0) > 1:
        raise InvalidOption("a picture of floats must lie in 0…1; divide it by its full scale first")
    return np.rint(array * 255.0).astype(np.uint8)


def _grey(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array).convert("RGB")


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise InvalidOption(f"a picture is an array (h, w), (h, w, 3) or (h, w, 4), not {array.shape}")
    _check_pixels(array.shape[1], array.shape[0], "<array>", max_pixels)
    if array.dtype == np.uint16:
        array = _scale_integers(array, 16)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = _scale_floats(array)
    elif array.dtype != np.uint8:
        raise InvalidOption(f"a picture is an array of uint8, uint16, bool or floats in 0…1, not {array.dtype}")
    return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(array))))


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(f"{name}: {width}×{height} pixels are more than max_pixels={max_pixels:,}; shrink it")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


_quiet_lock = threading.Lock()
_quiet: list[Any] = []  # the open `catch_warnings`, then one entry for every further thread inside


@contextmanager
def _without_pillow_warnings() -> Iterator[None]:
    """Silence what Pillow warns about odd files: a result or a named error is our answer, also under `-W error`.

    `warnings.catch_warnings` alone is not safe when several threads decode at once (filters would be restored in the
    wrong order and stay), so the first thread in opens it and the last one out closes it.
    """
    with _quiet_lock:
        if not _quiet:
            keeper = warnings.catch_warnings()
            keeper.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
            _quiet.append(keeper)
        else:
            _quiet.append(None)
    try:
        yield
    finally:
        with _quiet_lock:
            if len(_quiet) == 1:
                _quiet[0].__exit__(None, None, None)
            _quiet.pop()
