"""What a gallery asks of the place where templates are kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...errors import InvalidOption

LONGEST_NAME = 200


@dataclass(frozen=True, eq=False)
class Row:
    """One template as it is kept. `code`: (d,) float32; `created`: seconds since 1970; `id` 0 until it is stored."""

    subject: str
    code: np.ndarray
    fingerprint: str
    quality: dict[str, Any] | None = None
    origin: str = ""
    region: dict[str, Any] | None = None
    created: float = 0.0
    id: int = 0


@dataclass(frozen=True)
class State:
    """What holds for a store as a whole. `revision` grows by one with every write; `templates`: how many there are.

    `pending`: bytes of somebody forgotten may still be in the file, as another process was reading it.
    """

    fingerprint: str | None
    code_length: int | None
    revision: int
    templates: int
    pending: bool


@dataclass(frozen=True)
class Changes:
    """What happened since some revision: templates added (`ids` (n,) int64, `subjects`, `codes` (n, d) float32) and
    the ids `removed` (m,). `everything`: start again, what is added is all there is.
    """

    state: State
    everything: bool
    ids: np.ndarray
    subjects: list[str]
    codes: np.ndarray
    removed: np.ndarray


@dataclass(frozen=True)
class Added:
    """What became of rows that were to be kept: `ids` of the new ones, in order; `known`: for each of the others the id
    of its equal (same subject, code and fingerprint); `revision`: the store's, one more where anything is new."""

    ids: tuple[int, ...]
    known: tuple[int, ...]
    revision: int


@dataclass(frozen=True)
class Deleted:
    """How many templates went, the revision that this made, and what kept their bytes in the file ("": nothing)."""

    templates: int
    revision: int
    hindrance: str = ""


class Store(Protocol):
    """A place that keeps templates. Every method either happens altogether or raises a GalleryError and did nothing."""

    def state(self) -> State: ...

    def add(self, rows: Sequence[Row]) -> Added:
        """Keep `rows`, all or none; those that are there already are not kept twice.

        Raises FingerprintMismatch where they come from another encoder than the templates kept.
        """
        ...

    def rows(self, subject: str | None = None) -> Iterator[Row]:
        """The templates of `subject`, or all, in the order in which they were added."""
        ...

    def changes(self, revision: int, last_id: int) -> Changes:
        """What a mirror must do that knows this revision and the templates up to `last_id`."""
        ...

    def forget(self, subject: str) -> Deleted:
        """Delete a subject and every byte of it. Raises SubjectNotFound.

        Nothing raises once the deletion holds: what then keeps bytes in the file is in the answer.
        """
        ...

    def remove(self, ids: Sequence[int]) -> Deleted:
        """Delete templates in the same way, all or none; raises TemplateNotFound."""
        ...

    def bytes(self) -> int:
        """How much room the store takes."""
        ...

    def check(self) -> None:
        """Look at every byte; raises CorruptGallery."""
        ...

    def close(self) -> None: ...


def subject_name(name: str) -> str:
    """`name` as it is kept: Unicode NFC (an accent typed in one or two characters is the same name), no outer spaces.

    Raises InvalidOption for an empty name, more than 200 characters, or characters that cannot be shown.
    """
    if not isinstance(name, str):
        raise InvalidOption(f"a subject's name is a text, not {type(name).__name__}")
    kept = unicodedata.normalize("NFC", name).strip()
    if not kept:
        raise InvalidOption("a subject needs a name; this one is empty")
    if len(kept) > LONGEST_NAME:
        raise InvalidOption(f"a subject's name has at most {LONGEST_NAME} characters; this one has {len(kept)}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in kept):
        raise InvalidOption(f"a subject's name cannot hold control characters or halves of characters: {kept!a}")
    return kept
