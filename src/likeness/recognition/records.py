"""What a gallery answers when it is not asked who somebody is: enrolments, receipts, records, figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Enrolment:
    """What became of one person's photographs: ids of the templates kept, (origin, reason) of those that gave none.

    `known`: ids of templates that were in the gallery already, for photographs that gave the very same code again; they
    are not kept twice. `revision`: the gallery's, after this (None if it did not change).
    """

    subject: str
    accepted: tuple[int, ...]
    rejected: tuple[tuple[str, str], ...]
    revision: int | None = None
    known: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        lists = {"accepted": list(self.accepted), "rejected": [list(one) for one in self.rejected]}
        return {**asdict(self), **lists, "known": list(self.known)}


@dataclass(frozen=True)
class Imported:
    """What an import did: templates added, and `known`: how many of the file's were in the gallery already."""

    templates: int
    known: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Receipt:
    """That `templates` were deleted. It does not say whose: a receipt is kept, and the person is to be forgotten.

    `complete`: no byte of them is left in the gallery's files. Otherwise they are gone for everybody, but `hindrance`
    says what kept their bytes there (another process reading an older state, a full disk); the next one to open the
    gallery finishes.
    """

    templates: int
    complete: bool
    revision: int
    deleted: float
    hindrance: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SubjectSummary:
    """A person in the gallery, and how many templates there are of them."""

    subject: str
    templates: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TemplateRecord:
    """One template without its code: a code is not needed to look at a gallery, and says who somebody is."""

    id: int
    origin: str
    created: float
    fingerprint: str
    quality: dict[str, Any] | None
    region: dict[str, Any] | None


@dataclass(frozen=True)
class SubjectRecord:
    """All about a person that the gallery keeps, but the codes."""

    subject: str
    templates: tuple[TemplateRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"subject": self.subject, "templates": [asdict(template) for template in self.templates]}


@dataclass(frozen=True)
class GalleryStats:
    """The gallery in figures. Thresholds are those of the default operating points at the present size; they are None
    without a calibration. `fpir_unadjusted`: how often a stranger would be taken for somebody if identify used the
    threshold of verify (max_fmr = 1e-3), as programs with one fixed threshold do. `bytes` counts the files on disk."""

    path: str
    subjects: int
    templates: int
    fingerprint: str | None
    code_length: int | None
    schema: int
    revision: int
    bytes: int
    wipe_pending: bool
    threshold_verify: float | None
    threshold_identify: float | None
    fpir_unadjusted: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
