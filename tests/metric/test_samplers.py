"""P subjects x K samples: what each batch holds, that an epoch is fair, and that a resumed run sees the same
batches.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.metric.samplers import SubjectsTimesSamples

SUBJECTS = np.random.default_rng(0).integers(0, 60, 300)


@settings(max_examples=40, deadline=None)
@given(p=st.integers(2, 8), k=st.integers(2, 6), seed=st.integers(0, 999), step=st.integers(0, 50))
def test_a_batch_has_p_subjects_and_k_samples_of_each(p: int, k: int, seed: int, step: int) -> None:
    subjects = np.random.default_rng(seed).integers(-1, 25, 120)
    sampler = SubjectsTimesSamples(subjects, subjects_per_batch=p, samples_per_subject=k, seed=seed)
    batch = sampler.batch(step)
    rows = subjects[batch].reshape(p, k)
    assert (rows == rows[:, :1]).all() and len(set(rows[:, 0])) == p and rows.min() >= 0
    for row in batch.reshape(p, k):
        held = (subjects == subjects[row[0]]).sum()
        assert held >= 2
        counts = np.bincount(row)[np.unique(row)]
        assert len(counts) == min(k, held)  # every sample once before any comes again
        assert counts.max() - counts.min() <= 1


def test_an_epoch_shows_each_subject_at_most_once_and_all_but_a_remainder() -> None:
    sampler = SubjectsTimesSamples(SUBJECTS, subjects_per_batch=7, samples_per_subject=2, seed=1)
    eligible = {s for s in SUBJECTS if (s == SUBJECTS).sum() >= 2}
    assert sampler.steps_per_epoch == len(eligible) // 7
    epochs = []
    for epoch in range(2):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        seen = [int(s) for step in steps for s in SUBJECTS[sampler.batch(step)[::2]]]
        assert len(set(seen)) == len(seen) == sampler.steps_per_epoch * 7 and set(seen) <= eligible
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_every_step_draws_its_samples_anew() -> None:
    """Also within an epoch: which of a subject's samples come is not the same for all of its batches."""
    sampler = SubjectsTimesSamples(np.repeat(np.arange(40), 8), subjects_per_batch=4, samples_per_subject=2)
    assert sampler.steps_per_epoch == 10
    assert len({tuple(sampler.batch(step) % 8) for step in range(30)}) == 30


def test_all_subjects_come_over_the_epochs() -> None:
    sampler = SubjectsTimesSamples(SUBJECTS, subjects_per_batch=7, samples_per_subject=2)
    seen = {int(s) for step in range(5 * sampler.steps_per_epoch) for s in SUBJECTS[sampler.batch(step)]}
    assert seen == {int(s) for s in SUBJECTS if (s == SUBJECTS).sum() >= 2}


def test_resuming_gives_the_uninterrupted_batches() -> None:
    sampler = SubjectsTimesSamples(SUBJECTS, subjects_per_batch=5, seed=3)
    whole = [sampler.batch(step) for step in range(30)]
    other = SubjectsTimesSamples(SUBJECTS, subjects_per_batch=5, seed=4)
    assert (other.batch(0) != whole[0]).any()
    again = SubjectsTimesSamples(SUBJECTS, subjects_per_batch=5, seed=3)
    assert (again.batch(29) == whole[29]).all() and (again.batch(2) == whole[2]).all()  # in any order


@pytest.mark.parametrize(
    ("subjects", "options", "message"),
    [
        (np.arange(40), {}, "only 0 subjects"),
        (np.array([0, 0, 1]), {"subjects_per_batch": 2}, "only 1 subjects"),
        (np.full(9, -1), {"subjects_per_batch": 2}, "only 0 subjects"),
        (np.array([], dtype=np.int64), {}, "only 0 subjects"),
        (np.zeros(4), {}, "whole numbers"),
        (np.zeros((2, 2), dtype=int), {}, "whole numbers"),
        (SUBJECTS, {"samples_per_subject": 1}, "samples_per_subject"),
        (SUBJECTS, {"subjects_per_batch": 1}, "subjects_per_batch"),
    ],
)
def test_what_cannot_be_sampled_is_named(subjects: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        SubjectsTimesSamples(subjects, **options)
