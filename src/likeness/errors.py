"""The named errors of likeness. Each message says what was wrong, where, and what to do about it.

An *expected* outcome (no face in the picture, a stranger at the door) is a value with a reason code, not one of these.
"""


class LikenessError(Exception):
    """Base of every error that this library raises on purpose. `code` is stable; CLI and REST print it."""

    code = "error"


class InvalidOption(LikenessError, ValueError):
    """An argument is outside its domain; the message names the argument, its value and what is allowed."""

    code = "invalid option"


class UnknownName(LikenessError, KeyError):
    """No weights, layer or method has this name; the message suggests the nearest one."""

    code = "unknown name"

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class SilentUnit(LikenessError):
    """A unit never fires, whatever sample it is shown: there is nothing that excites it most."""

    code = "silent unit"


class MissingDependency(LikenessError, ImportError):
    """An optional package is needed; the message says which, what for, and the command that installs it."""

    code = "missing dependency"


class UnreadableFile(LikenessError, OSError):
    """A file is missing, truncated, or not of a kind that can be read; the message names it."""

    code = "unreadable file"


class TooManyPixels(UnreadableFile):
    """A picture declares more pixels than the limit (a decompression bomb, or simply too large)."""

    code = "too many pixels"


class WeightsError(LikenessError):
    """A weights file is damaged, was altered, or does not fit the net it is loaded into."""

    code = "weights error"


class FingerprintMismatch(LikenessError):
    """Codes of two different encoders would be compared; their distance means nothing."""

    code = "fingerprint mismatch"


class GalleryError(LikenessError):
    """Base of the gallery's errors."""

    code = "gallery error"


class CorruptGallery(GalleryError):
    """The database is damaged."""

    code = "corrupt gallery"


class ForeignGallery(GalleryError):
    """The file is not a gallery of likeness."""

    code = "foreign gallery"


class NewerSchema(GalleryError):
    """The gallery was written by a newer version of likeness."""

    code = "newer schema"


class SubjectNotFound(GalleryError):
    """Nobody of this name is enrolled."""

    code = "subject not found"


class TemplateNotFound(GalleryError):
    """No template has this number."""

    code = "template not found"


class StorageError(GalleryError, OSError):
    """The disk is full, the folder cannot be written, or the gallery stays locked by another process."""

    code = "storage error"


class Collapse(LikenessError):
    """Training stopped: all codes are meeting in one point, so that every distance goes to zero."""

    code = "collapse"


def at_least(least: int, **options: int) -> None:
    """Raises InvalidOption where one of the options is lower."""
    for name, value in options.items():
        if not value >= least:
            raise InvalidOption(f"{name} is {value}; it must be at least {least}")
