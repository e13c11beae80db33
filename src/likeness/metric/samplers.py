"""Which samples make a batch. Pure functions of (seed, step), so that a resumed training sees the batches of the
uninterrupted one.
"""

from __future__ import annotations

import numpy as np

from ..errors import InvalidOption


class SubjectsTimesSamples:
    """Batches of P subjects x K samples (FaceNet, Schroff 2015, section 3.2; Hermans 2017, "PK batches").

    Every batch has `subjects_per_batch` different subjects, and of each `samples_per_subject` samples, next to one
    another. Within an epoch every subject comes at most once, in an order drawn anew; the last subjects that do not
    fill a batch wait for another epoch. A subject with fewer than K samples shows each of them before any is repeated
    (augmentation makes the repeats differ); a subject with one sample can form no mated pair and is left out, and so
    are samples of negative subject (unlabelled).

    Arguments:
        subjects: (n,) whole numbers, one per sample.
        seed: of everything that is drawn.

    The only state is the step number: `batch(step)` is the same array whenever it is asked for. Of w processes the
    training loop gives each one of w contiguous parts of it: whole subjects, where w divides P. Raises InvalidOption
    where fewer than P subjects have two samples.
    """

    def __init__(
        self, subjects: np.ndarray, *, subjects_per_batch: int = 32, samples_per_subject: int = 4, seed: int = 0
    ) -> None:
        if subjects_per_batch < 2 or samples_per_subject < 2:
            raise InvalidOption(
                f"subjects_per_batch ({subjects_per_batch}) and samples_per_subject ({samples_per_subject}) must be "
                "at least 2: a triplet needs a mated and a non-mated pair"
            )
        subjects = np.asarray(subjects)
        if subjects.ndim != 1 or not np.issubdtype(subjects.dtype, np.integer):
            raise InvalidOption(f"subjects must be (n,) whole numbers; they are {subjects.shape} {subjects.dtype}")
        order = np.argsort(subjects, kind="stable")
        order = order[subjects[order] >= 0]
        _, first = np.unique(subjects[order], return_index=True)
        groups = np.split(order, first[1:]) if len(order) else []
        self.groups = [group for group in groups if len(group) > 1]
        if len(self.groups) < subjects_per_batch:
            raise InvalidOption(
                f"only {len(self.groups)} subjects have two samples or more; "
                f"a batch wants {subjects_per_batch} (subjects_per_batch)"
            )
        self.subjects_per_batch, self.samples_per_subject, self.seed = subjects_per_batch, samples_per_subject, seed
        self.steps_per_epoch = len(self.groups) // subjects_per_batch

    def batch(self, step: int) -> np.ndarray:
        """Indices (P * K,) of the samples of training step `step` = 0, 1, ..., those of a subject together."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.groups))
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = order[place * self.subjects_per_batch :][: self.subjects_per_batch]
        return np.concatenate([self._draw(self.groups[i], rng) for i in chosen])

    def _draw(self, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.resize(rng.permutation(group), self.samples_per_subject)
