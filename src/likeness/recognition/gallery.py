"""The people one knows: enrol, verify, identify, remove, forget. A gallery does not know what a face is.

It asks an `Encoder` for templates, keeps them in a store, and decides by the encoder's calibration.
`docs/how-to/gallery.md` shows it in use.
"""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FingerprintMismatch, InvalidOption, LikenessError, SubjectNotFound
from ..progress import Progress
from ..samples.files import overwritten
from .decision import (
    CANNOT_DECIDE,
    EMPTY_GALLERY,
    MATCH,
    NO_CALIBRATION,
    NO_MATCH,
    TIE,
    UNKNOWN_SUBJECT,
    Decision,
    Identification,
    decide,
    rate,
    undecided,
)
from .exchange import read_rows, write_rows
from .naming import encoder_called
from .records import Enrolment, GalleryStats, Imported, Receipt, SubjectRecord, SubjectSummary, TemplateRecord
from .stores.base import Deleted, Row, State, Store, subject_name
from .stores.mirror import Mirror
from .stores.schema import MIGRATIONS
from .stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from .calibration import Calibration
    from .encoder import Encoder, Encoding, Template


class Gallery:
    """The templates of people in one file, `path`, made if it does not exist; a context manager.

    `encoder`: a name in the catalogue, or an object that encodes; it is loaded when first needed. Once somebody is
    enrolled, the gallery is bound to the encoder's fingerprint: another one raises FingerprintMismatch. Threads may
    share a gallery, and processes the file. `create_empty=False`: a new file is made only when somebody is put in, so
    that a failed enrolment leaves none.
    Raises ForeignGallery, CorruptGallery, NewerSchema, StorageError, InvalidOption (":memory:").
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        encoder: str | Encoder = "face",
        timeout: float = 30.0,
        create_empty: bool = True,
    ) -> None:
        self.path = Path(path)
        self._named = encoder
        self._lock = threading.RLock()
        self._mirror = Mirror()
        self._store: Store = SqliteStore(self.path, timeout=timeout, create_empty=create_empty)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the gallery opens it again if it is used again."""
        self._store.close()

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded and found to be the one that the gallery was made with (else FingerprintMismatch)."""
        encoder = self._load()
        self._bound(self._store.state(), encoder)
        return encoder

    @property
    def revision(self) -> int:
        """Which state of the gallery the last answer of this object was about; each write makes a new one."""
        return self._mirror.revision

    def enroll(self, subject: str, photos: Any, *, on_progress: Progress | None = None) -> Enrolment:
        """Keep the templates of one person's photographs (a list, or a single one): one template per photograph.

        Photographs that cannot be used are rejected with the reason, the others kept: all of them or, in a crash, none.
        More of the same person may follow later; the same photograph again is known, and not kept twice.
        `on_progress(done, photographs, {"failed": n})`. Raises InvalidOption for an impossible name or an empty list.
        """
        subject = subject_name(subject)
        several = isinstance(photos, (list, tuple, Iterator)) and not hasattr(photos, "read")
        sources = list(photos) if several else [photos]
        if not sources:
            raise InvalidOption(f"no photographs of {subject!r} were given")
        encoder = self.encoder
        return self._keep(subject, sources, list(encoder.encode_many(sources, on_progress=on_progress)))

    def enroll_folder(
        self, folder: str | os.PathLike[str], *, on_progress: Progress | None = None
    ) -> tuple[Enrolment, ...]:
        """Enrol everybody in a folder of subjects, FOLDER/NAME/*.jpg or FOLDER/NAME.jpg, one person after another.

        Interrupted, it leaves the people done so far, none of them halfway; run again, it ends as if it had not been.
        Raises InvalidOption (impossible name), UnreadableFile (no such folder).
        """
        from ..samples.folders import read_subjects

        people = []
        for name, samples in groupby(read_subjects(folder), key=lambda sample: sample.subject):
            paths = [sample.path for sample in samples]
            people.append((_subject_of(paths[0], name), paths))
        sources = [path for _, paths in people for path in paths]
        encodings = self.encoder.encode_many(sources)
        enrolments = []
        done = 0
        for subject, paths in people:
            enrolments.append(self._keep(subject, paths, [next(encodings) for _ in paths]))
            done += len(paths)
            if on_progress is not None:
                on_progress(done, len(sources), {"subject": subject, "subjects": len(enrolments)})
        return tuple(enrolments)

    def add(self, subject: str, templates: Sequence[Template]) -> Enrolment:
        """Keep templates encoded before, each once: one with the same code of the same subject is `known`.

        Raises FingerprintMismatch, InvalidOption (code not of unit length).
        """
        subject = subject_name(subject)
        for template in templates:
            if np.ndim(template.code) != 1 or not abs(float(np.linalg.norm(template.code)) - 1) <= 1e-3:  # or NaN
                shape = np.shape(template.code)
                raise InvalidOption(f"a template's code must be (d,), finite and of unit length; this one is {shape}")
        if not templates:
            return Enrolment(subject, (), ())
        now = time.time()
        rows = [Row(subject, t.code, t.fingerprint, t.quality, t.origin, t.region, now) for t in templates]
        added = self._store.add(rows)
        return Enrolment(subject, added.ids, (), added.revision if added.ids else None, added.known)

    def verify(self, subject: str, photo: Any, *, max_fmr: float = 1e-3) -> Decision:
        """Is this a photograph of `subject`? (1:1) The distance is the smallest to one of the subject's templates.

        "cannot decide" where nobody has this name or the photograph cannot be used.
        Raises UnreadableFile, InvalidOption, FingerprintMismatch.
        """
        subject, max_fmr = subject_name(subject), rate("max_fmr", max_fmr)
        encoder = self.encoder
        with self._lock:
            self._mirror.catch_up(self._store)
            known = subject in self._mirror
        if not known:
            return undecided(UNKNOWN_SUBJECT, max_fmr=max_fmr, fingerprint=encoder.fingerprint)
        encoding = encoder.encode_one(photo)
        if not encoding.templates:
            return undecided(*encoding.reasons, max_fmr=max_fmr, fingerprint=encoder.fingerprint)
        with self._lock:
            self._bound(self._mirror.catch_up(self._store), encoder)
            found = self._mirror.nearest(subject, encoding.templates[0].code)
        if found is None:  # forgotten just now, by somebody else
            return undecided(UNKNOWN_SUBJECT, max_fmr=max_fmr, fingerprint=encoder.fingerprint)
        return decide(
            found[0], encoder.calibration, max_fmr=max_fmr, templates=found[1], fingerprint=encoder.fingerprint
        )

    def identify(self, photo: Any, *, max_fpir: float = 0.01, top: int = 5) -> tuple[Identification, ...]:
        """Who is this? (1:N) One answer per face found, the largest first; one "cannot decide" where there is none.

        A face that is not good enough has a "cannot decide", too, with the reasons and its region.

        At most `max_fpir` of the strangers are taken for somebody: the threshold follows the number of templates
        searched. `top`: how many candidates to list. Where two people are exactly as near, the reasons say so.
        Raises UnreadableFile, InvalidOption.
        """
        max_fpir = rate("max_fpir", max_fpir)
        if not isinstance(top, int) or top < 1:
            raise InvalidOption(f"top is a number of candidates, at least 1, not {top!r}")
        encoder = self.encoder
        encoding = encoder.encode(photo)
        with self._lock:
            state = self._mirror.catch_up(self._store)
            self._bound(state, encoder)
            # The second is looked at even where one is asked for: is it as near?
            searches = [(template, self._mirror.search(template.code, max(top, 2))) for template in encoding.templates]

        def undecidable(reasons: tuple[str, ...], region: dict[str, Any] | None = None) -> Identification:
            searched, print = state.templates, encoder.fingerprint
            return Identification(CANNOT_DECIDE, None, (), None, searched, max_fpir, reasons, print, region)

        calibration = encoder.calibration
        answers: list[Identification] = []
        for template, candidates in searches:
            verdict, threshold, reasons, extrapolated = _judge(candidates, calibration, max_fpir, state.templates)
            subject = candidates[0].subject if verdict == MATCH else None
            answers.append(
                Identification(
                    verdict, subject, candidates[:top], threshold, state.templates, max_fpir, reasons,
                    encoder.fingerprint, template.region, extrapolated,
                )
            )  # fmt: skip
        for face in encoding.unusable:
            answers.insert(face.place, undecidable(face.reasons, face.region))
        return tuple(answers) or (undecidable(encoding.reasons),)

    def remove(self, template_ids: int | Sequence[int]) -> Receipt:
        """Delete one template, or several, all or none, so that no byte of them is left in the gallery's files.

        Raises TemplateNotFound, InvalidOption.
        """
        try:
            several = template_ids if isinstance(template_ids, Sequence) else [template_ids]
            ids = [operator.index(id) for id in several]
        except TypeError:
            raise InvalidOption(f"a template is named by its number (see `show`), not {template_ids!r}") from None
        if not ids:
            raise InvalidOption("no template was named")
        return self._receipt(self._store.remove(ids))

    def forget(self, subject: str) -> Receipt:
        """Delete a person so that no byte of name, codes or origins is left in the gallery's files.

        What lies outside (exports, backups, the disk's own copies of old blocks) is out of reach.
        Raises SubjectNotFound.
        """
        return self._receipt(self._store.forget(subject_name(subject)))

    def subjects(self) -> tuple[SubjectSummary, ...]:
        """Everybody enrolled, by name."""
        with self._lock:
            self._mirror.catch_up(self._store)
            return tuple(SubjectSummary(name, count) for name, count in self._mirror.subjects().items())

    def show(self, subject: str) -> SubjectRecord:
        """The templates of one person, oldest first. Raises SubjectNotFound."""
        subject = subject_name(subject)
        records = tuple(
            TemplateRecord(row.id, row.origin, row.created, row.fingerprint, row.quality, row.region)
            for row in self._store.rows(subject)
        )
        if not records:
            raise SubjectNotFound(f"{self.path}: nobody called {subject!r} is enrolled; see `likeness gallery list`")
        return SubjectRecord(subject, records)

    def stats(self) -> GalleryStats:
        """Figures about the gallery; see GalleryStats."""
        with self._lock:
            state = self._mirror.catch_up(self._store)
            people = len(self._mirror.subjects())
        verify = identify = unadjusted = None
        calibration = self._calibration(state)
        if calibration is not None:
            verify = calibration.threshold(1e-3)
            if state.templates:
                identify = calibration.threshold_open_set(0.01, state.templates)
                unadjusted = calibration.fpir(verify, state.templates)
        return GalleryStats(
            os.fspath(self.path), people, state.templates, state.fingerprint, state.code_length, len(MIGRATIONS),
            state.revision, self._store.bytes(), state.pending, verify, identify, unadjusted,
        )  # fmt: skip

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all templates to one npz file (arrays and JSON, no pickle), for its owner's eyes; returns how many.

        Raises StorageError, InvalidOption where `path` is the gallery itself.
        """
        if overwritten([path], SqliteStore.files_of(self.path)):
            raise InvalidOption(f"{os.fspath(path)} is the gallery itself: export it to another file")
        rows = list(self._store.rows())
        write_rows(path, rows, rows[0].fingerprint if rows else None)
        return len(rows)

    def import_(self, path: str | os.PathLike[str]) -> Imported:
        """Add the templates of an exported file, all or none, but those that are in the gallery already.

        Raises FingerprintMismatch (made by another encoder than the gallery's), ForeignGallery, CorruptGallery,
        NewerSchema, UnreadableFile.
        """
        rows = read_rows(path)
        if not rows:
            return Imported(0, 0)
        try:
            added = self._store.add(rows)
        except FingerprintMismatch as error:
            raise FingerprintMismatch(f"{os.fspath(path)} cannot be imported: {error}") from error
        return Imported(len(added.ids), len(added.known))

    def check(self) -> None:
        """Look at every byte of the file: SQLite's own check, and each template's checksum. Raises CorruptGallery."""
        self._store.check()

    def _load(self) -> Encoder:
        with self._lock:
            if isinstance(self._named, str):
                from .encoder import resolve

                self._named = resolve(self._named)
            return self._named

    def _bound(self, state: State, encoder: Encoder) -> None:
        """FingerprintMismatch unless the gallery's templates come from `encoder`, or there are none yet."""
        if state.fingerprint not in (None, encoder.fingerprint):
            raise FingerprintMismatch(
                f"{self.path} was made with {encoder_called(state.fingerprint)}, but {encoder.name!r} is "
                f"{encoder.fingerprint}: their codes cannot be compared. Use the gallery's encoder, or enrol the "
                "photographs in a new gallery."
            )

    def _calibration(self, state: State) -> Calibration | None:
        """The calibration, where the encoder is at hand and is the gallery's; figures need not fail without it."""
        try:
            encoder = self._load()
            return encoder.calibration if state.fingerprint in (None, encoder.fingerprint) else None
        except LikenessError:
            return None

    def _keep(self, subject: str, sources: Sequence[Any], encodings: Sequence[Encoding]) -> Enrolment:
        rejected = tuple(
            (_origin(source), ", ".join(encoding.reasons))
            for source, encoding in zip(sources, encodings, strict=True)
            if not encoding.templates
        )
        kept = self.add(subject, [template for encoding in encodings for template in encoding.templates])
        return Enrolment(subject, kept.accepted, rejected, kept.revision, kept.known)

    def _receipt(self, done: Deleted) -> Receipt:
        with self._lock:
            try:
                self._mirror.catch_up(self._store)  # no code of theirs stays in memory either
            except LikenessError:  # the deletion holds; what is wrong now, the next question will say
                self._mirror = Mirror()
        return Receipt(done.templates, not done.hindrance, done.revision, time.time(), done.hindrance)


def _judge(
    candidates: Sequence[Any], calibration: Calibration | None, max_fpir: float, searched: int
) -> tuple[Any, float | None, tuple[str, ...], bool]:
    """Verdict, threshold, reasons, and whether the threshold is extrapolated, of one search."""
    if not candidates:
        return CANNOT_DECIDE, None, (EMPTY_GALLERY,), False
    if calibration is None:
        return CANNOT_DECIDE, None, (NO_CALIBRATION,), False
    threshold = calibration.threshold_open_set(max_fpir, searched)
    verdict = MATCH if candidates[0].distance <= threshold else NO_MATCH
    tie = len(candidates) > 1 and candidates[0].distance == candidates[1].distance
    reasons = (f"{TIE} {candidates[1].subject}",) if tie else ()
    return verdict, threshold, reasons, calibration.extrapolated(max_fpir, searched)


def _origin(source: Any) -> str:
    """What to call a photograph that gave no template."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"<{type(source).__name__}>"


def _subject_of(path: Any, name: str) -> str:
    """The name of a folder's subject. Raises InvalidOption, which says where it stands."""
    try:
        return subject_name(name)
    except InvalidOption as error:
        raise InvalidOption(f"{os.fspath(path)!a}: {error}; rename it (nobody is enrolled yet)") from error
