"""A store's codes in memory, for exact search by one matrix product; kept in step with the store by its revision."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import CorruptGallery
from ..decision import Candidate, distances, score
from .base import Changes, State, Store

_SLACK = 1e-5  # more than a float32 product of unit codes can err


class Mirror:
    """Codes (templates, d) float32 in one block, with the id and the subject of each row. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._empty()

    def _empty(self) -> None:
        self.revision = -1
        self._count = 0
        self._codes = np.zeros((0, 0), dtype=np.float32)
        self._ids = np.zeros(0, dtype=np.int64)  # ascending, as rows are added in order and kept in order
        self._owners = np.zeros(0, dtype=np.int32)  # numbers into _names
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def __contains__(self, subject: str) -> bool:
        return subject in self._numbers

    def catch_up(self, store: Store) -> State:
        """Take over what others wrote since the last time: only rows that changed. Raises CorruptGallery."""
        last = int(self._ids[self._count - 1]) if self._count else 0
        changes = store.changes(self.revision, last)
        if changes.everything:
            self._empty()
        self._apply(changes)
        if self._count != changes.state.templates:
            self._empty()  # the next one reads all again
            raise CorruptGallery(f"the gallery is damaged: {changes.state.templates} templates are said to be in it")
        return changes.state

    def search(self, probe: np.ndarray, top: int) -> tuple[Candidate, ...]:
        """The `top` nearest subjects to `probe` (d,), nearest first; a subject is as near as its nearest template.

        The float32 product preselects; distances are then computed in float64, so that they are the ones `distance`
        gives. Equally near subjects come in the order of their names.
        """
        count = self._count
        if not count:
            return ()
        similarity = self._codes[:count] @ np.asarray(probe, dtype=np.float32)
        wanted = min(top, len(self._numbers))
        take = 4 * top + 16
        while True:
            if take >= count:
                rows = np.arange(count)
            else:
                limit = np.partition(similarity, count - take)[count - take]
                rows = np.flatnonzero(similarity >= limit - _SLACK)
            if len(rows) == count or len(np.unique(self._owners[rows])) >= wanted:
                break
            take *= 8  # few subjects with many templates each: look further
        exact = distances(self._codes[rows], probe)
        best: dict[str, float] = {}
        for row, d in zip(rows, exact, strict=True):
            name = self._names[self._owners[row]]
            if d < best.get(name, np.inf):
                best[name] = float(d)
        nearest = sorted(best.items(), key=lambda item: (item[1], item[0]))[:top]
        return tuple(Candidate(name, d, score(d)) for name, d in nearest)

    def nearest(self, subject: str, probe: np.ndarray) -> tuple[float, int] | None:
        """The smallest distance of `probe` (d,) to a template of `subject`, and how many it has; None if unknown."""
        number = self._numbers.get(subject)
        if number is None:
            return None
        rows = np.flatnonzero(self._owners[: self._count] == number)
        return float(distances(self._codes[rows], probe).min()), len(rows)

    def subjects(self) -> dict[str, int]:
        """Every subject's number of templates, by name."""
        counts = np.bincount(self._owners[: self._count], minlength=len(self._names))
        return {name: int(counts[number]) for name, number in sorted(self._numbers.items())}

    def _apply(self, changes: Changes) -> None:
        self._drop(changes.removed)
        self._append(changes.ids, changes.subjects, changes.codes)
        self.revision = changes.state.revision

    def _append(self, ids: np.ndarray, subjects: Iterable[str], codes: np.ndarray) -> None:
        if not len(ids):
            return
        end = self._count + len(ids)
        if end > len(self._ids) or self._codes.shape[1] != codes.shape[1]:
            # Double, so that many small enrolments cost no more than a few copies in all.
            capacity = max(end, 2 * len(self._ids)) if self._count else end
            grown = np.zeros((capacity, codes.shape[1]), dtype=np.float32)
            if self._count:
                grown[: self._count] = self._codes[: self._count]
            self._codes = grown
            self._ids = np.resize(self._ids, capacity)
            self._owners = np.resize(self._owners, capacity)
        for offset, subject in enumerate(subjects, self._count):
            number = self._numbers.get(subject)
            if number is None:
                number = self._numbers[subject] = len(self._names)
                self._names.append(subject)
            self._owners[offset] = number
        self._codes[self._count : end] = codes
        self._ids[self._count : end] = ids
        self._count = end

    def _drop(self, removed: np.ndarray) -> None:
        """Close the gaps that removed rows leave; what is freed is zeroed, for the sake of whoever is forgotten."""
        gone = np.isin(self._ids[: self._count], removed)
        if not gone.any():
            return
        first = int(gone.argmax())
        stay = first + np.flatnonzero(~gone[first:])
        left = first + len(stay)
        for array in (self._codes, self._ids, self._owners):
            array[first:left] = array[stay]
            array[left : self._count] = 0
        self._count = left
        present = set(np.unique(self._owners[:left]).tolist())
        for name in [name for name, number in self._numbers.items() if number not in present]:
            self._names[self._numbers.pop(name)] = ""
