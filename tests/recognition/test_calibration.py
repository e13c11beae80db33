import dataclasses
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import people

from likeness.errors import InvalidOption, LikenessError, NewerSchema, StorageError, UnreadableFile, WeightsError
from likeness.recognition import calibration as module
from likeness.recognition.calibration import Calibration, Curve, fit, merge_twins

RATES = st.floats(1e-12, 0.999)
SIZES = st.integers(1, 10**7)


@pytest.fixture(scope="module")
def fitted():
    codes, subjects = people(400, 2, 32)
    return fit(codes, subjects, "print")


@pytest.fixture(scope="module")
def small():
    codes, subjects = people(20, 2, 16, seed=3)
    return fit(codes, subjects, "small")


def pairs_of_strangers(codes, subjects):
    codes = codes.astype(np.float64)
    distances = 2 - 2 * codes @ codes.T
    return distances[subjects[:, None] != subjects[None]]


def test_counts_every_pair_of_strangers_once(fitted, small):
    assert (fitted.subjects, fitted.samples, fitted.pairs) == (400, 800, 800 * 798 // 2)
    assert (small.subjects, small.samples, small.pairs) == (20, 40, 40 * 38 // 2)


def test_without_margin_the_counted_part_is_the_share_of_nearer_pairs(monkeypatch):
    monkeypatch.setattr(module, "MARGIN", 0.0)
    codes, subjects = people(100, 3, 16)
    result = fit(codes, subjects, "x")
    expected = pairs_of_strangers(codes, subjects)
    curve = result.curves[0]
    assert math.exp(curve.log_rates[0]) * result.subjects * (result.subjects - 1) / 2 == pytest.approx(30, rel=0.2)
    for distance, log_rate in zip(curve.distances, curve.log_rates, strict=True):
        nearer, farther = (np.mean(expected < distance + e) for e in (-1e-5, 1e-5))  # float32 products err so much
        assert nearer - 1e-10 <= math.exp(log_rate) <= farther + 1e-10


def test_search_rates_are_those_of_all_galleries_of_that_size(monkeypatch):
    """With 12 strangers per probe, every gallery of 2 and of 4 of them is enumerated."""
    monkeypatch.setattr(module, "MARGIN", 0.0)
    monkeypatch.setattr(module, "MINIMUM_SUBJECTS", 2)
    monkeypatch.setattr(module, "_trials", lambda people, size: 1000.0)
    codes, subjects = people(13, 1, 4, seed=5)
    result = fit(codes, subjects, "x")
    assert [curve.size for curve in result.curves] == [1, 2, 4, 8]
    distances = np.sum((codes[:, None].astype(float) - codes[None]) ** 2, axis=2)
    for curve, tolerance in ((result.curves[0], 1e-9), (result.curves[1], 0.03), (result.curves[2], 0.06)):
        galleries = list(itertools.combinations(range(12), curve.size))
        best = np.array([[np.delete(distances[p], p)[list(gallery)].min() for gallery in galleries] for p in range(13)])
        for distance, log_rate in zip(curve.distances[1:-1], curve.log_rates[1:-1], strict=True):
            assert math.exp(log_rate) == pytest.approx(np.mean(best < distance), abs=tolerance)


def test_search_rates_are_their_bound_by_loops(monkeypatch):
    """A stranger with c look-alikes among `others` passes a gallery of N with the smaller of (1 - c / others)^N and
    (1 - N / others)^c; people with more photographs have fewer others."""
    monkeypatch.setattr(module, "MARGIN", 0.0)
    monkeypatch.setattr(module, "MINIMUM_SUBJECTS", 2)
    monkeypatch.setattr(module, "_trials", lambda people, size: 1000.0)
    codes, subjects = people(9, 3, 4, seed=6)
    keep = (np.arange(27) % 3 == 0) | (subjects == 4)  # three photographs of one person, one of all others
    codes, subjects = codes[keep], subjects[keep]
    distances = np.sum((codes[:, None].astype(float) - codes[None]) ** 2, axis=2)

    def rate(size, limit):
        errors = comparisons = 0.0
        for probe, whose in enumerate(subjects):
            strangers = distances[probe][subjects != whose]
            others, alike = len(strangers), int(np.sum(strangers < limit))
            errors += others * (1 - min((1 - alike / others) ** size, (1 - size / others) ** alike))
            comparisons += others
        return errors / comparisons

    curves = fit(codes, subjects, "x").curves
    assert [curve.size for curve in curves] == [1, 2, 4, 8]
    for curve in curves:
        for distance, log_rate in zip(curve.distances, curve.log_rates, strict=True):
            low, high = (rate(curve.size, distance + e) for e in (-1e-5, 1e-5))
            assert low - 1e-9 <= math.exp(log_rate) <= high + 1e-9 or log_rate == 0


def test_margin_is_the_spread_between_samples_of_people():
    """The fitted FMR lies above the true one in about 19 of 20 samples of people: 1.645 standard deviations."""
    at = 1.2
    truth = np.mean(pairs_of_strangers(*people(1500, 1, 16, seed=99)) < at)
    above = [fit(*people(40, 2, 16, seed=seed), "x").fmr(at) >= truth for seed in range(100, 130)]
    assert np.mean(above) >= 0.85


def test_margin_is_that_of_a_mean_over_pairs_of_people():
    """Hoeffding (1948): the mean over pairs varies with twice the standard deviation of the mean over people."""
    codes, subjects = people(60, 2, 16)
    distances = 2 - 2 * codes.astype(np.float64) @ codes.T.astype(np.float64)
    curve = fit(codes, subjects, "x").curves[0]
    for distance, log_rate in zip(curve.distances[:-1], curve.log_rates[:-1], strict=True):
        near = (distances < distance) & (subjects[:, None] != subjects)
        of_each = near.reshape(60, 2 * 120).sum(axis=1) / (2 * 118)
        margin = 1.645 * 2 * of_each.std() / math.sqrt(60)
        if of_each.mean() + margin < 1:
            assert math.exp(log_rate) == pytest.approx(of_each.mean() + margin, rel=0.01)


def test_blocks_do_not_matter(monkeypatch):
    codes, subjects = people(60, 3, 16)
    order = np.random.default_rng(0).permutation(len(codes))
    whole = fit(codes, subjects, "x")
    seen = []
    monkeypatch.setattr(module, "BLOCK", 180 * 10)
    blocks = fit(codes[order], subjects[order], "x", on_progress=lambda *progress: seen.append(progress))
    assert len(seen) > 10
    assert seen[-1][:2] == (180, 180)
    for rate in (1e-4, 1e-2, 0.3):  # float32 rounding may move a pair over an edge
        for n in (1, 7, 100):
            expected = whole.threshold_open_set(rate, n)
            assert blocks.threshold_open_set(rate, n) == pytest.approx(expected, abs=1e-3)


def test_labels_may_be_anything(small):
    codes, subjects = people(20, 2, 16, seed=3)
    assert Calibration.fit(codes, np.array([f"é{s:02d}" for s in subjects]), "small") == small


@given(a=RATES, b=RATES)
def test_threshold_grows_with_the_rate(fitted, a, b):
    low, high = sorted((a, b))
    assert fitted.threshold(low) <= fitted.threshold(high)


@given(rate=RATES, a=SIZES, b=SIZES)
def test_threshold_falls_with_the_gallery(fitted, small, rate, a, b):
    few, many = sorted((a, b))
    for calibration in (fitted, small):
        assert calibration.threshold_open_set(rate, many) <= calibration.threshold_open_set(rate, few) + 1e-12


@given(a=RATES, b=RATES, n=SIZES)
def test_threshold_grows_with_the_rate_at_every_size(fitted, a, b, n):
    low, high = sorted((a, b))
    assert fitted.threshold_open_set(low, n) <= fitted.threshold_open_set(high, n) + 1e-12


@given(rate=RATES)
def test_fmr_is_the_inverse_of_threshold(fitted, small, rate):
    for calibration in (fitted, small):
        assert calibration.fmr(calibration.threshold(rate)) == pytest.approx(rate, rel=1e-6)


@settings(deadline=None)
@given(rate=st.floats(1e-9, 0.9), n=SIZES)
def test_fpir_is_the_inverse_of_threshold_open_set(fitted, rate, n):
    assert fitted.fpir(fitted.threshold_open_set(rate, n), n) == pytest.approx(rate, rel=1e-5)


def test_a_gallery_of_one_is_a_comparison(fitted):
    for rate in (1e-6, 1e-3, 0.3):
        assert fitted.threshold_open_set(rate, 1) == pytest.approx(fitted.threshold(rate), abs=1e-12)


def test_beyond_the_largest_size_galleries_are_independent(fitted):
    m, t = fitted.curves[-1].size, 0.6
    single = fitted.fpir(t, m)
    for times in (2, 10, 1000):
        assert fitted.fpir(t, times * m) == pytest.approx(1 - (1 - single) ** times, rel=1e-6)


def test_the_law_of_independent_comparisons_is_never_beaten_by_much(fitted):
    """Independence is the worst case: 1 - (1 - F)^N bounds FPIR, up to the margins of both curves."""
    for n in (8, 64, 256):
        for rate in (0.05, 0.2):
            t = fitted.threshold_open_set(rate, n)
            assert rate <= 1.3 * -math.expm1(n * math.log1p(-fitted.fmr(t)))


def test_what_the_data_support(fitted, small):
    assert not fitted.extrapolated(1e-3)
    assert fitted.extrapolated(1e-6)
    assert not fitted.extrapolated(0.1, 100)
    assert fitted.extrapolated(0.1, 10**6)
    assert small.extrapolated(1e-3)
    assert small.extrapolated(0.05)
    assert not small.extrapolated(0.5)


@given(rate=st.floats(1e-9, 0.9))
def test_extrapolated_is_what_lies_on_the_tail(fitted, small, rate):
    for calibration in (fitted, small):
        on_tail = calibration.threshold(rate) < calibration.curves[0].distances[0]
        assert calibration.extrapolated(rate) is on_tail


@given(rate=st.floats(1e-9, 0.9), n=st.integers(1, 3000))
def test_extrapolated_searches_too(fitted, rate, n):
    """Where it says no, the threshold is within what was counted for galleries of at least this size."""
    curves = fitted.curves
    if n > curves[-1].size:
        assert fitted.extrapolated(rate, n)
    elif not fitted.extrapolated(rate, n):
        around = [curve for curve in curves if curve.size <= n][-1:] + [curve for curve in curves if curve.size >= n][
            :1
        ]
        counted = min(curves[0].distances[0], *(curve.distances[0] for curve in around))
        assert fitted.threshold_open_set(rate, n) >= counted - 1e-9
    assert fitted.extrapolated(rate, n) or not fitted.extrapolated(0.9 + 0.1 * rate, n)


def test_errors_below_30_are_extrapolated(monkeypatch):
    monkeypatch.setattr(module, "MARGIN", 0.0)
    codes, subjects = people(100, 1, 16)
    calibration = fit(codes, subjects, "x")
    for rate, expected in ((28 / 4950, True), (34 / 4950, False)):
        assert calibration.extrapolated(rate) is expected


def test_extrapolation_is_on_the_safe_side():
    """Fitted on 100 people; the true rate of 1,500 others stays below what was asked, far beyond the data."""
    codes, subjects = people(100, 2, 32)
    calibration = fit(codes, subjects, "x")
    others, whose = people(1500, 1, 32, seed=77)
    distances = np.sort(2 - 2 * (others @ others.T)[whose[:, None] != whose[None]])
    for asked in (1e-2, 1e-3, 1e-4, 1e-5):
        measured = np.searchsorted(distances, calibration.threshold(asked), "right") / len(distances)
        assert measured <= 1.25 * asked


@pytest.fixture(scope="module")
def thousand():
    return fit(*people(1000, 1, 32), "x")


@pytest.mark.parametrize("n", [100, 1000, 4000])
def test_fpir_on_other_people_is_what_was_asked(n, thousand):
    """Calibrated on 1,000 simulated people; measured on 4,500 others."""
    rng = np.random.default_rng(n)
    calibration = thousand
    others, _ = people(4500, 1, 32, seed=9)
    asked = 0.03
    threshold = calibration.threshold_open_set(asked, n)
    hits = []
    for _ in range(8 if n < 4000 else 4):
        order = rng.permutation(len(others))
        gallery, probes = others[order[:n]], others[order[n : n + 500]]
        hits.append((2 - 2 * (probes @ gallery.T)).min(axis=1) <= threshold)
    assert np.mean(hits) <= 1.25 * asked
    if n < 4000:
        assert np.mean(hits) >= 0.4 * asked  # and the margin does not eat the benefit


def test_twins_in_the_data_are_merged():
    codes, subjects = people(40, 3, 64)
    wrong = subjects.copy()
    wrong[:3] = [0, 100, 101]  # three photographs of one person under three names
    merged = merge_twins(codes, wrong, within=0.6)
    assert len(np.unique(merged)) == 40
    assert merged[0] == merged[1] == merged[2]
    assert len(np.unique(merge_twins(codes, wrong, within=0.0))) == 42
    assert fit(codes, merged, "x").threshold(1e-4) > fit(codes, wrong, "x").threshold(1e-4)


def test_twins_make_a_heavy_tail_that_is_kept():
    codes, subjects = people(300, 2, 64)
    codes[1::60] = codes[0::60]
    split = np.arange(len(codes)) % 60 < 2
    subjects = np.where(split, np.arange(len(codes)) + 1000, subjects)
    calibration = fit(codes, subjects, "x")
    assert calibration.curves[0].shape > 0
    assert calibration.fmr(0.0) > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, s: (c[:30], s[:30]), "at least 20"),
        (lambda c, s: (c[:0], s[:0]), "at least 20"),
        (lambda c, s: (c, s[:-1]), "are needed"),
        (lambda c, s: (c[0], s), "are needed"),
        (lambda c, s: (2 * c, s), "unit length"),
        (lambda c, s: (np.where(np.arange(len(c))[:, None] == 3, np.nan, c), s), "unit length"),
    ],
)
def test_bad_input_is_refused(change, said):
    with pytest.raises(InvalidOption, match=said):
        fit(*change(*people(25, 2, 8)), "x")


def test_codes_that_do_not_differ_are_refused():
    """Such a calibration could not be read again: no rate but 1 is in it."""
    codes = np.tile(people(1, 1, 16)[0], (40, 1))
    with pytest.raises(InvalidOption, match="do not differ"):
        fit(codes, np.arange(40) // 2, "x")


@pytest.mark.parametrize("seed", range(6))
def test_what_was_fitted_can_be_read_again(seed):
    """Few people, crowded into a few directions: sizes about which nothing can be said get no curve."""
    codes, subjects = people(25 + 40 * seed, 1, 2, seed=seed)
    calibration = fit(np.round(codes) / np.linalg.norm(np.round(codes), axis=1, keepdims=True), subjects, "x")
    assert Calibration.from_json(json.dumps(calibration.to_dict())) == calibration


@pytest.mark.parametrize("n", [0, -1, 0.5, math.nan])
def test_bad_gallery_sizes_are_refused(fitted, n):
    for call in (fitted.threshold_open_set, fitted.fpir, fitted.extrapolated):
        with pytest.raises(InvalidOption, match="at least 1"):
            call(0.1, n)


def test_save_and_load_give_the_same(fitted, small, tmp_path):
    for calibration in (fitted, small):
        calibration.save(tmp_path / "c.json")
        assert Calibration.load(tmp_path / "c.json") == calibration
        assert (tmp_path / "c.json").stat().st_size < 40_000


def test_files_that_are_no_calibrations(fitted, tmp_path):
    path = tmp_path / "c.json"
    with pytest.raises(UnreadableFile):
        Calibration.load(path)
    with pytest.raises(StorageError):
        fitted.save(tmp_path / "missing" / "c.json")
    fitted.save(path)
    text = path.read_bytes()
    other = text.replace(b"curves", b"cuves")
    for damaged in (text[:100], b"", b"[]", b"{}", b"\xff\xfe", b'{"format": "other"}', other):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            Calibration.load(path)
    path.write_bytes(text.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(NewerSchema):
        Calibration.load(path)


def _changed(calibration, **changes):
    plain = json.loads(json.dumps(calibration.to_dict()))
    curve = plain["curves"][0]
    for name, change in changes.items():
        curve[name] = change(curve[name])
    return json.dumps(plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"distances": lambda d: d[::-1]},
        {"distances": lambda d: d[:-1]},
        {"log_rates": lambda r: [*r[:-1], -0.1]},
        {"log_rates": lambda r: r[:1] * len(r)},
        {"log_rates": lambda r: ["x"] * len(r)},
        {"scale": lambda s: 0.0},
        {"shape": lambda s: -0.5},
        {"size": lambda s: 2},
        {"distances": lambda d: [], "log_rates": lambda r: []},
        {"trials": lambda t: 10**400},
    ],
)
def test_numbers_that_cannot_be_are_refused(fitted, changes):
    with pytest.raises(WeightsError):
        Calibration.from_json(_changed(fitted, **changes))


@settings(deadline=None)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_harmless(small, at, value):
    text = bytearray(json.dumps(small.to_dict()).encode())
    text[at % len(text)] = value
    try:
        loaded = Calibration.from_json(bytes(text))
    except LikenessError:
        return
    assert loaded.threshold(1e-3) <= loaded.threshold(1e-2)


def test_the_tail_is_generalised_pareto():
    for shape in (0.0, 0.2):
        curve = Curve(1, 100.0, (1.0, 2.0), (math.log(0.01), 0.0), shape, 0.1)
        for y in (0.0, 0.1, 0.5):
            expected = 0.01 * (math.exp(-y / 0.1) if shape == 0 else (1 + shape * y / 0.1) ** (-1 / shape))
            assert math.exp(curve.log_rate(1.0 - y)) == pytest.approx(expected, rel=1e-10)
            assert curve.distance(math.log(expected)) == pytest.approx(1.0 - y, abs=1e-10)


def test_the_tail_is_that_of_the_fit_seen_from_the_anchor_and_widened():
    """The law itself as rates: below `u`, excess y survives as (1 + 0.2 y / 0.05)^-5."""
    u, shape, scale, trials = 3.0, 0.2, 0.05, 1e4
    rates = 0.5 * (1 + shape * np.maximum(u - module._EDGES, 0) / scale) ** (-1 / shape)
    rates[u < module._EDGES] = 1.0
    curve = module._fit_curve(1, trials, rates, np.zeros_like(rates))
    anchor = curve.distances[0]
    assert math.exp(curve.log_rates[0]) == pytest.approx(30 / trials, rel=0.05)
    assert curve.shape == pytest.approx(shape, abs=0.01)
    at_anchor = scale + shape * (u - anchor)
    assert curve.scale == pytest.approx(at_anchor * (1 + 1.645 / math.sqrt(300)), rel=0.02)  # 300 errors fitted


def test_the_nearer_estimate_to_the_truth_is_taken():
    """Both err on the safe side: of the searches fitted and independent comparisons, the larger threshold holds."""
    logs = (math.log(1e-4), 0.0)
    single = Curve(1, 1e6, (1.0, 2.0), logs, 0.0, 0.1)
    for shift in (-0.5, 0.5):
        double = Curve(2, 1e6, (0.9 + shift, 1.9 + shift), logs, 0.0, 0.1)
        calibration = Calibration("x", 100, 100, 4950, (single, double))
        independent = single.distance(math.log(1 - math.sqrt(1 - 0.01)))  # of two, with the rate 0.01 together
        searched = min(single.distance(math.log(0.01)), double.distance(math.log(0.01)))
        assert (searched < independent) is (shift < 0)
        assert calibration.threshold_open_set(0.01, 2) == pytest.approx(max(searched, independent), abs=1e-9)
        assert calibration.fpir(max(searched, independent), 2) == pytest.approx(0.01, rel=1e-5)


def test_between_two_sizes_the_threshold_is_linear_in_the_logarithm():
    """By hand: at 3 templates between curves of 1 and of 4, log 3 / log 4 = 0.79 of the way to the second one."""
    logs = (math.log(1e-4), 0.0)
    single, four = Curve(1, 1e6, (1.0, 2.0), logs, 0.0, 0.1), Curve(4, 1e6, (0.95, 1.95), logs, 0.0, 0.1)
    calibration = Calibration("x", 100, 100, 4950, (single, four))
    at_one = 2 - math.log(100) / math.log(1e4)  # where the first curve reaches 0.01: half-way
    for n, share in ((1, 0.0), (2, 0.5), (3, math.log(3) / math.log(4)), (4, 1.0)):
        assert calibration.threshold_open_set(0.01, n) == pytest.approx(at_one - 0.05 * share, abs=1e-9)


@pytest.mark.parametrize(("shape", "scale"), [(0.0, 0.2), (0.15, 0.1), (0.3, 0.05)])
def test_probability_weighted_moments_find_the_tail(shape, scale):
    y = np.arange(0, 40, 0.0005)[::-1]
    survival = np.exp(-y / scale) if shape == 0 else (1 + shape * y / scale) ** (-1 / shape)
    found = module._pareto(survival, 0.0005)
    assert found == pytest.approx((shape, scale), abs=0.01)


def test_a_tail_that_ends_is_taken_for_an_exponential_one():
    y = np.arange(0, 1, 0.001)[::-1]
    shape, scale = module._pareto((1 - y) ** 2, 0.001)  # shape -1/2
    assert shape == 0.0
    assert scale == pytest.approx(1 / 3, rel=0.01)  # the mean excess


def test_a_tail_that_is_too_heavy_is_cut():
    """Beyond 0.9 the mean excess, of which the scale follows, would no longer be known from any data."""
    shape, scale = module._pareto(np.append(np.full(100_000, 1e-4), 1.0), 0.01)
    a0 = 0.01 * (100_000 * 1e-4 + 0.5)  # the moments say 0.95
    assert (shape, scale) == pytest.approx((0.9, 0.1 * a0))


def test_a_curve_has_a_point_for_every_tenth_of_an_e_fold():
    curve = module._fit_curve(1, 1e6, np.exp(3 * (module._EDGES - 4)), np.zeros(len(module._EDGES)))
    gaps = np.diff(curve.log_rates)
    assert gaps[:-1].min() >= 0.1 - 1e-9 and gaps.max() <= 0.1 + 3 * (module._EDGES[1] - module._EDGES[0]) + 1e-9


def test_twins_are_nearer_than_the_distance_asked_for():
    """Three people in a row, 0.5 from one to the next; the first and the last are 1.75 apart, and one with both."""
    codes = np.eye(24)
    codes[1] = 0.75 * codes[0] + math.sqrt(1 - 0.75**2) * np.eye(24)[23]
    codes[2] = 2 * 0.75 * codes[1] - codes[0]  # the first one mirrored in the second
    codes, subjects = codes[:23], np.arange(23)
    assert np.sum((codes[2] - codes[0]) ** 2) == pytest.approx(1.75)
    assert len(np.unique(merge_twins(codes, subjects, within=0.49))) == 23
    merged = merge_twins(codes, subjects, within=0.51)
    assert len(np.unique(merged)) == 21 and merged[0] == merged[1] == merged[2]


def test_is_frozen(fitted):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.fingerprint = "other"
