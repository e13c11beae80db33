"""Learn, use and explain distances inside a ConvNet.

The public names; nothing is defined here. Each is loaded when it is first used, so `import likeness` costs nothing:
recognition brings numpy, Pillow and ONNX Runtime, training brings torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import lens as lens
from .errors import (
    Collapse,
    CorruptGallery,
    FingerprintMismatch,
    ForeignGallery,
    GalleryError,
    InvalidOption,
    LikenessError,
    MissingDependency,
    NewerSchema,
    StorageError,
    SubjectNotFound,
    TemplateNotFound,
    TooManyPixels,
    UnknownName,
    UnreadableFile,
    WeightsError,
)
from .lazy import load

if TYPE_CHECKING:
    from .evaluation.lfw import evaluate_lfw as evaluate_lfw
    from .faces.detection import Detector as Detector
    from .faces.detection import detect as detect
    from .faces.types import Face as Face
    from .faces.types import Quality as Quality
    from .metric.training import train_recognition as train  # noqa: F401
    from .recognition.decision import Candidate as Candidate
    from .recognition.decision import Decision as Decision
    from .recognition.decision import Identification as Identification
    from .recognition.encoder import FaceEncoder as FaceEncoder
    from .recognition.encoder import Template as Template
    from .recognition.encoder import encode as encode
    from .recognition.gallery import Gallery as Gallery
    from .recognition.verification import verify as verify
    from .samples.images import read_image as read_image
    from .style.pictures import stylize as stylize
    from .style.score import style_score as style_score

__version__ = "0.1.0"

# public name -> (module, name there)
_LAZY = {
    "verify": ("recognition.verification", "verify"),
    "detect": ("faces.detection", "detect"),
    "encode": ("recognition.encoder", "encode"),
    "train": ("metric.training", "train_recognition"),
    "stylize": ("style.pictures", "stylize"),
    "style_score": ("style.score", "style_score"),
    "evaluate_lfw": ("evaluation.lfw", "evaluate_lfw"),
    "read_image": ("samples.images", "read_image"),
    "Gallery": ("recognition.gallery", "Gallery"),
    "Detector": ("faces.detection", "Detector"),
    "FaceEncoder": ("recognition.encoder", "FaceEncoder"),
    "Decision": ("recognition.decision", "Decision"),
    "Identification": ("recognition.decision", "Identification"),
    "Candidate": ("recognition.decision", "Candidate"),
    "Template": ("recognition.encoder", "Template"),
    "Face": ("faces.types", "Face"),
    "Quality": ("faces.types", "Quality"),
}

__all__ = [
    "Candidate",
    "Collapse",
    "CorruptGallery",
    "Decision",
    "Detector",
    "Face",
    "FaceEncoder",
    "FingerprintMismatch",
    "ForeignGallery",
    "Gallery",
    "GalleryError",
    "Identification",
    "InvalidOption",
    "LikenessError",
    "MissingDependency",
    "NewerSchema",
    "Quality",
    "StorageError",
    "SubjectNotFound",
    "Template",
    "TemplateNotFound",
    "TooManyPixels",
    "UnknownName",
    "UnreadableFile",
    "WeightsError",
    "detect",
    "encode",
    "evaluate_lfw",
    "lens",
    "read_image",
    "verify",
]  # without `train` and `stylize`, which need torch: `from likeness import *` must work where it is not installed


def __getattr__(name: str) -> Any:
    value = load(__name__, _LAZY, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
