"""Error rates against plain loops over pairs."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.evaluation import rates

DISTANCES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0]), min_size=1, max_size=12)


def reference_threshold(non_mated: list[float], far: float) -> float:
    """The largest of the candidate thresholds (just below each distance, and infinity) that keeps to `far`."""
    candidates = [float(np.nextafter(d, -np.inf)) for d in non_mated] + [math.inf]
    return max(t for t in candidates if sum(d <= t for d in non_mated) <= far * len(non_mated) + 1e-9)


@given(DISTANCES, st.lists(st.floats(-1, 5), min_size=1, max_size=5))
def test_fmr_and_fnmr_are_shares(distances: list[float], thresholds: list[float]) -> None:
    matching = [sum(d <= t for d in distances) / len(distances) for t in thresholds]
    np.testing.assert_allclose(rates.fmr(np.array(distances), np.array(thresholds)), matching, atol=1e-15)
    rest = [1 - share for share in matching]
    np.testing.assert_allclose(rates.fnmr(np.array(distances), np.array(thresholds)), rest, atol=1e-15)


def test_a_distance_equal_to_the_threshold_matches() -> None:
    assert rates.fmr(np.array([0.5, 1.0]), 0.5) == 0.5
    assert rates.fnmr(np.array([0.5, 1.0]), 0.5) == 0.5


@given(DISTANCES, st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.999, 1.0]))
def test_threshold_at_far(non_mated: list[float], far: float) -> None:
    assert rates.threshold_at_far(np.array(non_mated), far) == reference_threshold(non_mated, far)


def test_one_in_a_thousand_of_three_thousand_is_three() -> None:
    non_mated = np.arange(3000) / 3000
    threshold = rates.threshold_at_far(non_mated, 1e-3)
    assert (non_mated <= threshold).sum() == 3
    assert rates.threshold_at_far(np.array([1.0, 2.0]), 1.0) == math.inf


@given(DISTANCES, DISTANCES)
def test_best_threshold(mated: list[float], non_mated: list[float]) -> None:
    threshold, accuracy = rates.best_threshold(np.array(mated), np.array(non_mated))
    total = len(mated) + len(non_mated)

    def at(t: float) -> float:
        return (sum(d <= t for d in mated) + sum(d > t for d in non_mated)) / total

    every = sorted({*mated, *non_mated})
    assert accuracy == pytest.approx(max(at(t) for t in [every[0] - 1, *every]), abs=1e-12)
    assert at(threshold) == pytest.approx(accuracy, abs=1e-12)


def test_best_threshold_lies_in_the_middle_of_the_widest_gap() -> None:
    assert rates.best_threshold(np.array([0.1, 0.4]), np.array([1.4, 2.0])) == (pytest.approx(0.9), 1.0)


@given(DISTANCES, DISTANCES)
def test_roc_holds_every_operating_point(mated: list[float], non_mated: list[float]) -> None:
    curve = rates.roc(np.array(mated), np.array(non_mated))
    for t, false_match, false_non_match in zip(curve.thresholds, curve.fmr, curve.fnmr, strict=True):
        assert false_match == pytest.approx(sum(d <= t for d in non_mated) / len(non_mated))
        assert false_non_match == pytest.approx(sum(d > t for d in mated) / len(mated))
    assert (np.diff(curve.fmr) >= 0).all() and (np.diff(curve.fnmr) <= 0).all()
    assert json.loads(json.dumps(curve.to_dict()))["fmr"][-1] == 1


def test_equal_error_rate() -> None:
    rng = np.random.default_rng(0)
    mated, non_mated = rng.normal(0.5, 0.25, 20000), rng.normal(1.5, 0.25, 20000)
    assert rates.equal_error_rate(mated, non_mated) == pytest.approx(0.0228, abs=0.003)  # 2 standard deviations
    assert rates.equal_error_rate(np.array([0.1]), np.array([1.0])) == pytest.approx(0.0)


def test_equal_error_rate_between_two_steps_is_the_mean_of_both() -> None:
    """At 2, where they are nearest, one of three strangers matches and one of two mated pairs does not."""
    found = rates.equal_error_rate(np.array([1.0, 3.0]), np.array([2.0, 4.0, 5.0]))
    assert found == pytest.approx((1 / 3 + 1 / 2) / 2)


def reference_bootstrap(mated, non_mated, mated_subjects, non_mated_subjects, far, resamples, seed):
    """One resample after the other, one pair after the other: pairs repeated as often as their subjects were drawn."""
    names = sorted({*mated_subjects, *[name for pair in non_mated_subjects for name in pair]})
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), [1 / len(names)] * len(names), resamples)
    found = []
    for draw in draws:
        often = dict(zip(names, draw, strict=True))
        again = [d for d, name in zip(mated, mated_subjects, strict=True) for _ in range(often[name])]
        others = [
            d for d, (a, b) in zip(non_mated, non_mated_subjects, strict=True) for _ in range(often[a] * often[b])
        ]
        if not again or not others:
            continue
        threshold = reference_threshold(others, far)
        found.append(sum(d <= threshold for d in again) / len(again))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_the_bootstrap_repeats_subjects_with_all_their_pairs(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    people = np.array(list("abcdef"))
    mated, non_mated = rng.random(9).round(1), rng.random(11).round(1) + 0.3
    mated_subjects = rng.choice(people, 9)
    non_mated_subjects = np.array([rng.choice(people, 2, replace=False) for _ in range(11)])
    result = rates.tar_at_far(
        mated,
        non_mated,
        far,
        mated_subjects=mated_subjects,
        non_mated_subjects=non_mated_subjects,
        resamples=60,
        seed=seed,
    )
    found = reference_bootstrap(mated, non_mated, mated_subjects, non_mated_subjects, far, 60, seed)
    low, high = np.quantile(found, [0.025, 0.975])
    assert result.tar == np.mean(mated <= reference_threshold(list(non_mated), far))
    assert result.low == pytest.approx(min(low, result.tar))
    assert result.high == pytest.approx(max(high, result.tar))


def test_the_interval_is_reproducible_and_wider_where_pairs_share_subjects() -> None:
    rng = np.random.default_rng(4)
    shift = rng.normal(0, 0.3, 40)
    who = np.repeat(np.arange(40), 25)  # 25 pairs of each of 40 people, alike within a person
    mated = 0.8 + shift[who] + rng.normal(0, 0.05, 1000)
    others = rng.integers(0, 40, (3000, 2))
    non_mated = rng.normal(1.6, 0.2, 3000)
    options = {"mated_subjects": who, "non_mated_subjects": others, "resamples": 300}
    a, b = (rates.tar_at_far(mated, non_mated, 1e-2, **options) for _ in range(2))
    assert a == b
    assert a.low < a.tar < a.high
    naive = rates.tar_at_far(mated, non_mated, 1e-2, resamples=300)
    assert naive.tar == a.tar
    assert a.high - a.low > 2 * (naive.high - naive.low)
    assert rates.tar_at_far(mated, non_mated, 1e-2, **{**options, "confidence": 0.5}).high < a.high


def test_failed_pairs_are_infinitely_far_and_json_stays_json() -> None:
    result = rates.tar_at_far(np.array([0.1, np.inf]), np.array([1.0, 2.0]), 1e-3, resamples=10)
    assert result.tar == 0.5 and result.threshold < 1
    everything = rates.tar_at_far(np.array([0.1]), np.array([1.0]), 1.0, resamples=10).to_dict()
    assert json.loads(json.dumps(everything, allow_nan=False))["threshold"] is None


def test_wilson_at_known_values_and_at_the_ends() -> None:
    interval = rates.wilson(8, 10)  # 0.4902, 0.9433: a textbook value (Newcombe 1998)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.4902, 0.9433)
    none = rates.wilson(0, 100)
    assert none.low == 0 and none.high == pytest.approx(0.0370, abs=5e-4)
    assert rates.wilson(100, 100).high == 1
    assert set(none.to_dict()) == {"value", "low", "high"}


def test_bad_input_is_named() -> None:
    good = np.array([0.5])
    for bad in (np.array([]), np.array([np.nan]), np.zeros((2, 2))):
        with pytest.raises(InvalidOption):
            rates.fmr(bad, 0.5)
    with pytest.raises(InvalidOption, match="far"):
        rates.threshold_at_far(good, 1.5)
    with pytest.raises(InvalidOption, match="both"):
        rates.tar_at_far(good, good, mated_subjects=np.array([1]))
    with pytest.raises(InvalidOption, match="subjects"):
        rates.tar_at_far(good, good, mated_subjects=np.array([1]), non_mated_subjects=np.array([1]))
    with pytest.raises(InvalidOption, match="confidence"):
        rates.tar_at_far(good, good, confidence=1)
    with pytest.raises(InvalidOption, match="count"):
        rates.wilson(3, 2)
