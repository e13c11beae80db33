import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import calibrated, people

from likeness.errors import InvalidOption
from likeness.recognition.decision import (
    Candidate,
    Decision,
    Identification,
    decide,
    distance,
    distances,
    rate,
    score,
    undecided,
)


@pytest.fixture(scope="module")
def calibration():
    return calibrated().calibration


def reference(a, b):
    """The chapter's d, term by term, with exactly rounded summation."""
    return math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("length", [1, 2, 128, 512])
def test_distances_agree_with_the_reference(length):
    rng = np.random.default_rng(length)
    codes = rng.standard_normal((50, length)).astype(np.float32)
    probe = rng.standard_normal(length).astype(np.float32)
    expected = [reference(code, probe) for code in codes]
    np.testing.assert_allclose(distances(codes, probe), expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose([distance(code, probe) for code in codes], expected, rtol=1e-12, atol=1e-10)


def test_distances_are_the_same_numbers_across_blocks():
    codes, _ = people(9000, 1, 8)
    found = distances(codes, codes[5])
    assert found[5] == 0
    assert found[8999] == distances(codes[8999:], codes[5])[0]


def test_score_is_the_cosine_of_unit_codes():
    codes, _ = people(20, 2, 16)
    for a, b in zip(codes[:-1], codes[1:], strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert score(distance(a / np.linalg.norm(a), b / np.linalg.norm(b))) == pytest.approx(cosine, abs=1e-10)


@given(st.floats(0, 4))
def test_score_is_one_minus_half_the_distance(d):
    assert score(d) == 1 - d / 2
    assert -1 <= score(d) <= 1


@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((2, 2), (2, 2)), ((), ())])
def test_codes_of_other_shapes_are_refused(a, b):
    with pytest.raises(InvalidOption, match="same length"):
        distance(np.zeros(a), np.zeros(b))
    with pytest.raises(InvalidOption):
        distances(np.zeros(a), np.zeros((7,)))


@pytest.mark.parametrize("value", [0, 1, -1e-3, 2, math.nan, math.inf, "x", None, [0.1]])
def test_rates_outside_of_0_to_1_are_refused(value, calibration):
    with pytest.raises(InvalidOption, match="max_fmr"):
        rate("max_fmr", value)
    with pytest.raises(InvalidOption):
        decide(0.5, calibration, max_fmr=value)
    with pytest.raises(InvalidOption):
        calibration.threshold(value)


def test_a_match_is_a_distance_up_to_and_including_the_threshold(calibration):
    threshold = calibration.threshold(1e-2)
    at = decide(threshold, calibration, max_fmr=1e-2)
    above = decide(np.nextafter(threshold, 4), calibration, max_fmr=1e-2)
    assert (at.decision, above.decision) == ("match", "no match")
    assert at.threshold == threshold
    assert at.score == 1 - threshold / 2
    assert at.fingerprint == calibration.fingerprint
    assert at.reasons == ()


def test_several_templates_are_several_chances(calibration):
    one, five = (decide(1.0, calibration, max_fmr=1e-2, templates=n).threshold for n in (1, 5))
    assert five < one
    assert five == calibration.threshold_open_set(1e-2, 5)


def test_without_a_calibration_nothing_is_decided():
    decision = decide(0.1, None, max_fmr=1e-3, fingerprint="abc")
    assert decision.decision == "cannot decide"
    assert decision.reasons == ("no calibration",)
    assert (decision.distance, decision.score, decision.threshold) == (0.1, 0.95, None)
    assert decision.fingerprint == "abc"


def test_undecided():
    decision = undecided("no face", "too dark", max_fmr=1e-3, fingerprint="abc")
    assert decision == Decision("cannot decide", None, None, None, 1e-3, ("no face", "too dark"), "abc")


def test_dictionaries_are_plain_json(calibration):
    fields = {"decision", "distance", "score", "threshold", "max_fmr", "reasons", "fingerprint"}
    plain = decide(0.5, calibration, max_fmr=1e-3).to_dict()
    assert fields <= set(plain)
    assert json.loads(json.dumps(plain)) == plain
    answer = Identification(
        "match", "Ada", (Candidate("Ada", 0.5, 0.75),), 1.0, 3, 0.01, (), "f", {"box": [1, 2, 3, 4]}
    )
    plain = answer.to_dict()
    assert {"decision", "subject", "candidates", "threshold", "searched"} <= set(plain)
    assert plain["candidates"] == [{"subject": "Ada", "distance": 0.5, "score": 0.75}]
    assert json.loads(json.dumps(plain)) == plain
