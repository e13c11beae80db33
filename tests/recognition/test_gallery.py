import io
import json
import os
import sys
import threading
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import FakeEncoder, calibrated, code_of, folder

from likeness.errors import (
    CorruptGallery,
    FingerprintMismatch,
    ForeignGallery,
    InvalidOption,
    NewerSchema,
    StorageError,
    SubjectNotFound,
    TemplateNotFound,
    UnreadableFile,
)
from likeness.recognition.calibration import Calibration
from likeness.recognition.encoder import Encoding, Template, Unusable
from likeness.recognition.gallery import Gallery
from likeness.recognition.records import Imported
from likeness.recognition.stores.sqlite import SqliteStore


@pytest.fixture(scope="module")
def encoder():
    return calibrated()


@pytest.fixture
def tmp_path():
    with folder() as path:
        yield Path(path)


@pytest.fixture
def gallery(tmp_path, encoder):
    with Gallery(tmp_path / "people.db", encoder=encoder) as opened:
        yield opened


@pytest.fixture
def peopled(gallery):
    gallery.enroll("Ada", ["ada/1", "ada/2"])
    gallery.enroll("Bob", "bob/1")
    gallery.enroll("Cyd", ["cyd/1"])
    return gallery


def names(gallery):
    return {one.subject: one.templates for one in gallery.subjects()}


def reference(templates, probe):
    """Subjects by their smallest float64 distance, nearest first: the long way."""
    best = {}
    for subject, source in templates:
        d = float(np.sum((code_of(source).astype(float) - code_of(probe).astype(float)) ** 2))
        best[subject] = min(d, best.get(subject, 9.0))
    return sorted(best.items(), key=lambda item: (item[1], item[0]))


def test_enroll_says_what_was_kept(gallery):
    enrolment = gallery.enroll("Ada", ["ada/1", "none", "ada/2", "broken", "ada/3+bob/1"])
    assert enrolment.accepted == (1, 2)
    assert enrolment.rejected == (
        ("none", "no face"),
        ("broken", "unreadable file"),
        ("ada/3+bob/1", "several faces"),
    )
    assert names(gallery) == {"Ada": 2}
    assert json.loads(json.dumps(enrolment.to_dict())) == enrolment.to_dict()
    shown = gallery.show("Ada")
    assert [record.origin for record in shown.templates] == ["ada/1", "ada/2"]
    assert shown.templates[0].region == {"box": [1.0, 2.0, 3.0, 4.0], "score": 0.9}
    assert shown.to_dict()["templates"][0]["quality"]["size"] == 100.0


def test_nobody_is_enrolled_where_no_photograph_is_good(gallery):
    enrolment = gallery.enroll("Ada", ["none", "broken"])
    assert enrolment.accepted == ()
    assert len(enrolment.rejected) == 2
    assert names(gallery) == {}
    assert gallery.stats().fingerprint is None


def test_more_photographs_may_follow(peopled):
    peopled.enroll("Ada", (source for source in ["ada/3"]))
    assert names(peopled) == {"Ada": 3, "Bob": 1, "Cyd": 1}


def test_rejected_pictures_in_memory_have_a_name(gallery):
    assert gallery.enroll("Ada", [np.str_("none")]).rejected == (("none", "no face"),)
    encoder = FakeEncoder()
    encoder._read = lambda source: "none"
    gallery._named = encoder
    assert gallery.enroll("Ada", b"123").rejected == (("<bytes>", "no face"),)


@pytest.mark.parametrize(
    "name", ["Ada Lovelace", "Ærøskøbing", "李小龍", "🙂", 'O\'Brien "x"; DROP TABLE templates;--', "a" * 200, "%_"]
)
def test_unicode_names(gallery, name):
    gallery.enroll(name, "ada/1")
    assert names(gallery) == {name: 1}
    assert gallery.identify("ada/2")[0].subject == name
    assert gallery.verify(name, "ada/2").decision == "match"
    gallery.forget(name)
    assert names(gallery) == {}


def test_a_name_typed_in_another_normal_form_is_the_same(gallery):
    gallery.enroll(unicodedata.normalize("NFD", " André "), "ada/1")
    gallery.enroll(unicodedata.normalize("NFC", "André"), "ada/2")
    assert names(gallery) == {"André": 2}
    assert len(gallery.show(unicodedata.normalize("NFD", "André")).templates) == 2


@pytest.mark.parametrize("name", ["", "   ", "a" * 201, "a\x00b", "a\nb", "\ud800", None, 3, b"Ada"])
def test_impossible_names_are_refused_everywhere(gallery, name):
    for call in (
        lambda: gallery.enroll(name, "ada/1"),
        lambda: gallery.verify(name, "ada/1"),
        lambda: gallery.forget(name),
        lambda: gallery.show(name),
    ):
        with pytest.raises(InvalidOption):
            call()
    assert names(gallery) == {}


def test_no_photographs_are_refused(gallery):
    with pytest.raises(InvalidOption, match="no photographs"):
        gallery.enroll("Ada", [])


def test_identify_says_who_else_is_exactly_as_near(gallery):
    """One photograph under two names: of the two, the order of names decides, which nobody should have to guess."""
    gallery.enroll("Bob", "ada/1")
    assert gallery.identify("ada/1")[0].reasons == ()
    gallery.enroll("Ada", "ada/1")
    for top in (1, 5):
        (face,) = gallery.identify("ada/1", top=top)
        assert (face.decision, face.subject, face.reasons) == ("match", "Ada", ("as near as Bob",))
        assert len(face.candidates) == min(top, 2)
    (stranger,) = gallery.identify("eve/1")
    assert stranger.decision == "no match" and stranger.reasons == ("as near as Bob",)
    gallery.enroll("Ada", "ada/2")
    assert gallery.identify("ada/2")[0].reasons == ()


def test_another_encoder_is_called_by_its_name_where_it_has_one(gallery):
    from likeness.nets import catalogue

    known = FakeEncoder(catalogue.entry("face").fingerprint)
    gallery.enroll("Ada", "ada/1")
    with pytest.raises(FingerprintMismatch, match=rf"not in the catalogue \({gallery.encoder.fingerprint}\)"):
        Gallery(gallery.path, encoder=known).identify("ada/1")
    with pytest.raises(FingerprintMismatch, match="not in the catalogue.*encoder 'face'"):
        gallery.add("Bob", known.encode("bob/1").templates)


def test_identify_finds_people_and_refuses_strangers(peopled):
    answers = peopled.identify("ada/9+zoe/1+bob/8")
    assert [answer.decision for answer in answers] == ["match", "no match", "match"]
    assert [answer.subject for answer in answers] == ["Ada", None, "Bob"]
    for answer in answers:
        assert answer.searched == 4
        assert answer.threshold == peopled.encoder.calibration.threshold_open_set(0.01, 4)
        assert answer.region == {"box": [1.0, 2.0, 3.0, 4.0], "score": 0.9}
        assert answer.fingerprint == "f" * 16
        assert {candidate.subject for candidate in answer.candidates} == {"Ada", "Bob", "Cyd"}


def test_candidates_are_those_of_the_reference(peopled):
    templates = [("Ada", "ada/1"), ("Ada", "ada/2"), ("Bob", "bob/1"), ("Cyd", "cyd/1")]
    for probe in ("ada/5", "bob/5", "cyd/5", "zoe/5"):
        candidates = peopled.identify(probe)[0].candidates
        expected = reference(templates, probe)
        assert [candidate.subject for candidate in candidates] == [subject for subject, _ in expected]
        for candidate, (_, distance) in zip(candidates, expected, strict=True):
            assert candidate.distance == pytest.approx(distance, abs=1e-10)
            assert candidate.score == pytest.approx(1 - distance / 2, abs=1e-10)
        assert len(peopled.identify(probe, top=2)[0].candidates) == 2


def test_the_threshold_follows_the_gallery(gallery):
    gallery.enroll("Ada", "ada/1")
    thresholds = [gallery.identify("ada/1")[0].threshold]
    for person in range(12):
        gallery.enroll(f"p{person}", [f"p{person}/1", f"p{person}/2"])
        thresholds.append(gallery.identify("ada/1")[0].threshold)
    assert all(a > b for a, b in zip(thresholds[:-1], thresholds[1:], strict=True))
    for person in range(12):
        gallery.forget(f"p{person}")
    assert gallery.identify("ada/1")[0].threshold == thresholds[0]


def test_what_cannot_be_decided_says_why(gallery, tmp_path):
    (answer,) = gallery.identify("ada/1")
    assert (answer.decision, answer.reasons, answer.searched) == ("cannot decide", ("empty gallery",), 0)
    assert gallery.verify("Ada", "ada/1").reasons == ("unknown subject",)
    gallery.enroll("Ada", "ada/1")
    (answer,) = gallery.identify("none")
    assert (answer.decision, answer.reasons, answer.candidates) == ("cannot decide", ("no face",), ())
    assert gallery.verify("Ada", "none").reasons == ("no face",)
    assert gallery.verify("Ada", "ada/1+bob/1").reasons == ("several faces",)
    assert gallery.verify("Bob", "ada/1").decision == "cannot decide"
    with Gallery(gallery.path, encoder=FakeEncoder()) as uncalibrated:
        (answer,) = uncalibrated.identify("ada/1")
        assert (answer.decision, answer.reasons) == ("cannot decide", ("no calibration",))
        assert answer.candidates[0].subject == "Ada"
        decision = uncalibrated.verify("Ada", "ada/1")
        assert (decision.decision, decision.reasons) == ("cannot decide", ("no calibration",))
        assert decision.fingerprint == "f" * 16
        assert uncalibrated.stats().threshold_verify is None


def test_verify_uses_the_nearest_template_and_its_chances(peopled):
    decision = peopled.verify("Ada", "ada/9", max_fmr=1e-2)
    expected = reference([("Ada", "ada/1"), ("Ada", "ada/2")], "ada/9")[0][1]
    assert decision.decision == "match"
    assert decision.distance == pytest.approx(expected, abs=1e-10)
    assert decision.threshold == peopled.encoder.calibration.threshold_open_set(1e-2, 2)
    assert peopled.verify("Bob", "ada/9").decision == "no match"


@pytest.mark.parametrize("value", [0, 1, -1, "x", None])
def test_bad_options_are_refused(peopled, value):
    with pytest.raises(InvalidOption, match="max_fpir"):
        peopled.identify("ada/1", max_fpir=value)
    with pytest.raises(InvalidOption, match="max_fmr"):
        peopled.verify("Ada", "ada/1", max_fmr=value)
    with pytest.raises(InvalidOption, match="top"):
        peopled.identify("ada/1", top=0)


def test_unreadable_probes_are_errors(peopled):
    with pytest.raises(UnreadableFile):
        peopled.identify("broken")
    with pytest.raises(UnreadableFile):
        peopled.verify("Ada", "broken")


def test_remove_takes_one_template(peopled):
    receipt = peopled.remove(1)
    assert (receipt.templates, receipt.complete) == (1, True)
    assert names(peopled) == {"Ada": 1, "Bob": 1, "Cyd": 1}
    peopled.remove(2)
    assert names(peopled) == {"Bob": 1, "Cyd": 1}
    for missing in (1, 99, -1):
        with pytest.raises(TemplateNotFound):
            peopled.remove(missing)
    assert peopled.enroll("Ada", "ada/3").accepted == (5,)  # numbers are not used again


def test_forget_and_its_receipt(peopled):
    receipt = peopled.forget("Ada")
    assert (receipt.templates, receipt.complete) == (2, True)
    assert "Ada" not in json.dumps(receipt.to_dict())
    for call in (peopled.forget, peopled.show):
        with pytest.raises(SubjectNotFound):
            call("Ada")
    assert peopled.identify("ada/1")[0].subject is None
    assert names(peopled) == {"Bob": 1, "Cyd": 1}


def test_enroll_a_folder(gallery, tmp_path):
    for name, photos in {"Ada": ["ada/1", "ada/2", "none"], "Bob": ["bob/1"], "Nobody": ["none"]}.items():
        folder = tmp_path / "people" / name
        folder.mkdir(parents=True)
        for number, text in enumerate(photos):
            (folder / f"{number}.jpg").write_text(text)
    (tmp_path / "people" / "Cyd.jpg").write_text("cyd/1")
    seen = []
    enrolments = gallery.enroll_folder(tmp_path / "people", on_progress=lambda *progress: seen.append(progress))
    assert {one.subject: len(one.accepted) for one in enrolments} == {"Ada": 2, "Bob": 1, "Cyd": 1, "Nobody": 0}
    assert [reason for one in enrolments for _, reason in one.rejected] == ["no face", "no face"]
    assert names(gallery) == {"Ada": 2, "Bob": 1, "Cyd": 1}
    assert [done for done, _, _ in seen][-1] == 6
    assert {total for _, total, _ in seen} == {6}
    with pytest.raises(UnreadableFile):
        gallery.enroll_folder(tmp_path / "missing")
    odd = tmp_path / "people" / ("x" * 201 + ".png")
    odd.write_bytes(b"")
    with pytest.raises(InvalidOption, match=r"x\.png'.*at most 200 characters.*rename"):
        gallery.enroll_folder(tmp_path / "people")


def test_stats(peopled, encoder):
    stats = peopled.stats()
    assert (stats.subjects, stats.templates, stats.code_length, stats.schema) == (3, 4, 32, 2)
    assert (stats.fingerprint, stats.revision, stats.wipe_pending) == ("f" * 16, 3, False)
    assert stats.bytes >= os.path.getsize(peopled.path)
    assert stats.threshold_verify == encoder.calibration.threshold(1e-3)
    assert stats.threshold_identify == encoder.calibration.threshold_open_set(0.01, 4)
    assert stats.fpir_unadjusted == pytest.approx(encoder.calibration.fpir(stats.threshold_verify, 4))
    assert 1e-3 < stats.fpir_unadjusted <= 4.5e-3
    assert json.loads(json.dumps(stats.to_dict())) == stats.to_dict()


def test_looking_at_a_gallery_needs_no_encoder(peopled):
    with Gallery(peopled.path, encoder="no such encoder") as gallery:
        assert names(gallery) == {"Ada": 2, "Bob": 1, "Cyd": 1}
        assert gallery.stats().threshold_verify is None
        assert len(gallery.show("Ada").templates) == 2
        gallery.forget("Ada")


def test_another_encoder_is_a_named_error(peopled):
    other = FakeEncoder("e" * 16, 64)
    with Gallery(peopled.path, encoder=other) as gallery:
        for call in (
            lambda: gallery.enroll("Dee", "dee/1"),
            lambda: gallery.identify("ada/1"),
            lambda: gallery.verify("Ada", "ada/1"),
        ):
            with pytest.raises(FingerprintMismatch, match="e{16}") as error:
                call()
            assert "f" * 16 in str(error.value)
        assert gallery.stats().threshold_verify is None
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


def test_a_candidate_exactly_at_the_threshold_is_a_match(peopled, monkeypatch):
    (found,) = peopled.identify("ada/9")
    nearest = found.candidates[0].distance
    for threshold, verdict in ((nearest, "match"), (np.nextafter(nearest, 0), "no match")):
        monkeypatch.setattr(Calibration, "threshold_open_set", lambda *_, at=threshold: float(at))
        assert peopled.identify("ada/9")[0].decision == verdict


def test_a_code_may_miss_unit_length_by_a_thousandth(gallery):
    code = code_of("ada/1").astype(np.float64)
    gallery.add("Ada", [Template((code * 1.0009).astype(np.float32), "f" * 16)])
    for factor in (1.0012, 0.9988):
        with pytest.raises(InvalidOption, match="unit length"):
            gallery.add("Ada", [Template((code * factor).astype(np.float32), "f" * 16)])


@pytest.mark.parametrize(("fingerprint", "length"), [("e" * 16, 32), ("f" * 16, 64), ("F" * 16, 32), ("", 32)])
def test_templates_of_another_encoder_never_get_in(peopled, fingerprint, length):
    template = Template(code_of("dee/1", length), fingerprint)
    with pytest.raises(FingerprintMismatch):
        peopled.add("Dee", [template])
    with pytest.raises(FingerprintMismatch):
        peopled.add("Dee", [Template(code_of("dee/1"), "f" * 16), template])
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


@pytest.mark.parametrize("code", [np.zeros(32), np.full(32, np.nan), np.full(32, 1.0)])
def test_codes_that_are_none_never_get_in(peopled, code):
    with pytest.raises(InvalidOption, match="unit length"):
        peopled.add("Dee", [Template(code.astype(np.float32), "f" * 16)])


def test_a_code_is_one_row_of_numbers(gallery):
    """A slice of codes (1, d) would say that codes have the length 1, for good."""
    with pytest.raises(InvalidOption, match=r"\(1, 32\)"):
        gallery.add("Dee", [Template(code_of("dee/1")[None], "f" * 16)])
    assert gallery.add("Dee", [Template(code_of("dee/1"), "f" * 16)]).accepted


def test_adding_nothing_changes_nothing(peopled):
    assert peopled.add("Dee", []).accepted == ()
    assert peopled.stats().revision == 3


def test_codes_are_kept_bit_by_bit(peopled):
    rows = {row.origin: row for row in peopled._store.rows()}
    for source in ("ada/1", "bob/1"):
        assert rows[source].code.tobytes() == code_of(source).astype("<f4").tobytes()


def test_export_and_import_lose_nothing(peopled, tmp_path, encoder):
    assert peopled.export(tmp_path / "a.npz") == 4
    with Gallery(tmp_path / "copy.db", encoder=encoder) as copy:
        assert copy.import_(tmp_path / "a.npz") == Imported(4, 0)
        assert copy.import_(tmp_path / "a.npz") == Imported(0, 4)
        assert names(copy) == names(peopled)
        for subject in names(copy):
            for a, b in zip(copy.show(subject).templates, peopled.show(subject).templates, strict=True):
                assert (a.origin, a.created, a.quality, a.region) == (b.origin, b.created, b.quality, b.region)
        copy.export(tmp_path / "b.npz")
        assert copy.identify("ada/7") == peopled.identify("ada/7")
    for name in ("codes", "manifest"):
        with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
            assert a[name].tobytes() == b[name].tobytes()


def test_an_empty_gallery_travels_too(gallery, tmp_path):
    gallery.export(tmp_path / "a.npz")
    assert gallery.import_(tmp_path / "a.npz").to_dict() == {"templates": 0, "known": 0}
    assert gallery.stats().revision == 0


def test_import_refuses_other_encoders(peopled, tmp_path):
    with Gallery(tmp_path / "other.db", encoder=FakeEncoder("e" * 16)) as other:
        other.enroll("Zoe", "zoe/1")
        other.export(tmp_path / "other.npz")
    with pytest.raises(FingerprintMismatch, match=r"other\.npz.*e{16}.*f{16}"):
        peopled.import_(tmp_path / "other.npz")
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


def save(path, codes, manifest):
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    np.savez(path, codes=codes, manifest=np.frombuffer(text, np.uint8))


ENTRY = {"subject": "Ada", "origin": "", "quality": None, "region": None, "created": 0.0}
GOOD = {"format": "likeness gallery", "version": 1, "fingerprint": "f" * 16, "templates": [ENTRY]}


@pytest.mark.parametrize(
    ("codes", "manifest", "error"),
    [
        (code_of("a")[None], {**GOOD, "version": 2}, NewerSchema),
        (code_of("a")[None], {**GOOD, "version": None}, NewerSchema),
        (code_of("a")[None], {**GOOD, "format": "x"}, ForeignGallery),
        (code_of("a")[None], [], ForeignGallery),
        (code_of("a")[None], b"{", CorruptGallery),
        (code_of("a")[None], {**GOOD, "fingerprint": None}, FingerprintMismatch),
        (code_of("a")[None], {**GOOD, "templates": []}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": None}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "subject": ""}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "quality": 3}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "created": "x"}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "created": float("nan")}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "created": float("inf")}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "created": 10**400}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "templates": [{**ENTRY, "created": 1e300}]}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "fingerprint": "\ud800"}, CorruptGallery),
        (code_of("a")[None], {**GOOD, "fingerprint": "a\nb"}, CorruptGallery),
        (code_of("a")[None], b"[" * 200_000, CorruptGallery),
        (code_of("a")[None].astype(float), GOOD, CorruptGallery),
        (2 * code_of("a")[None], GOOD, CorruptGallery),
        (code_of("a"), GOOD, CorruptGallery),
        (np.full((1, 32), np.nan, np.float32), GOOD, CorruptGallery),
    ],
)
def test_import_checks_every_value(peopled, tmp_path, codes, manifest, error):
    save(tmp_path / "x.npz", codes, manifest)
    with pytest.raises(error, match=r"x\.npz"):
        peopled.import_(tmp_path / "x.npz")
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


def test_import_of_files_that_are_no_exports(peopled, tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UnreadableFile):
        peopled.import_(path)
    with pytest.raises(UnreadableFile):
        peopled.import_(tmp_path)
    for content in (b"", b"hello", b"PK", b"\x89PNG\r\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises((ForeignGallery, CorruptGallery)):
            peopled.import_(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ForeignGallery):
        peopled.import_(path)
    np.savez_compressed(path, codes=np.zeros((1000, 32), np.float32), manifest=np.zeros(3, np.uint8))
    with pytest.raises(ForeignGallery, match="compressed"):
        peopled.import_(path)
    np.savez(path, codes=np.array([{"a": 1}], dtype=object), manifest=np.zeros(3, np.uint8))
    with pytest.raises(CorruptGallery):  # pickled objects are not read
        peopled.import_(path)


def test_a_truncated_or_flipped_export_is_noticed(peopled, tmp_path):
    peopled.export(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "b.npz"
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole), 30):
        path.write_bytes(whole[:length])
        with pytest.raises((ForeignGallery, CorruptGallery)):
            peopled.import_(path)
    start = whole.index(code_of("ada/1").tobytes())
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    with pytest.raises(CorruptGallery):
        peopled.import_(path)
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


@pytest.mark.parametrize("shape", [(2**40, 128), (2**62, 2**62), (3, 32), (0, 32)])
def test_a_header_that_promises_more_than_there_is(peopled, tmp_path, shape):
    header, manifest = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    np.save(manifest, np.frombuffer(json.dumps(GOOD).encode(), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("codes.npy", header.getvalue() + code_of("a").tobytes())
        archive.writestr("manifest.npy", manifest.getvalue())
    with pytest.raises(CorruptGallery, match="promised"):
        peopled.import_(tmp_path / "x.npz")


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_an_export_is_for_its_owner_and_never_the_gallery_itself(peopled, tmp_path):
    (tmp_path / "a.npz").touch(0o644)
    peopled.export(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(peopled.path)
    os.link(peopled.path, tmp_path / "second name")
    for target in (peopled.path, tmp_path / "link", tmp_path / "second name", *SqliteStore.files_of(peopled.path)):
        with pytest.raises(InvalidOption, match="gallery itself"):
            peopled.export(target)
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}
    peopled.check()


def test_the_same_photograph_is_kept_once(gallery):
    assert gallery.enroll("Ada", ["ada/1", "ada/2"]).known == ()
    again = gallery.enroll("Ada", ["ada/2", "ada/3", "ada/3", "none"])
    assert (again.accepted, again.known, len(again.rejected)) == ((3,), (2, 3), 1)
    assert json.loads(json.dumps(again.to_dict())) == again.to_dict()
    revision = gallery.stats().revision
    nothing = gallery.enroll("Ada", "ada/1")
    assert (nothing.accepted, nothing.known, nothing.revision) == ((), (1,), None)
    assert gallery.stats().revision == revision
    assert gallery.enroll("Bob", "ada/1").accepted == (4,)  # another's: his own affair
    assert names(gallery) == {"Ada": 3, "Bob": 1}
    gallery.remove(1)
    assert gallery.enroll("Ada", "ada/1").accepted == (5,)


def test_a_killed_enrolment_run_again_ends_like_an_uninterrupted_one(tmp_path, encoder):
    for person in ("Ada", "Bob", "Cyd"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for photo in range(3):
            (tmp_path / "people" / person / f"{photo}.jpg").write_text(f"{person}/{photo}")

    class Killed(Exception):
        pass

    def kill(done, total, info):
        if done >= 6:
            raise Killed

    found = []
    for name in ("once.db", "twice.db"):
        with Gallery(tmp_path / name, encoder=encoder) as gallery:
            if name == "twice.db":
                with pytest.raises(Killed):
                    gallery.enroll_folder(tmp_path / "people", on_progress=kill)
                assert names(gallery) == {"Ada": 3, "Bob": 3}
            enrolments = gallery.enroll_folder(tmp_path / "people")
            found.append([(row.id, row.subject, row.origin, row.code.tobytes()) for row in gallery._store.rows()])
    assert found[0] == found[1]
    assert [(len(one.accepted), len(one.known)) for one in enrolments] == [(0, 3), (0, 3), (3, 0)]


def test_every_face_found_has_an_answer(peopled, encoder, monkeypatch):
    def encode(source):
        whole = FakeEncoder.encode(encoder, source)
        bad = [Unusable((f"bad {place}",), {"box": [place] * 4}, None, place) for place in (0, 2, 3)]
        return Encoding(whole.templates, ("bad 0", "bad 2", "bad 3"), tuple(bad))

    monkeypatch.setattr(encoder, "encode", encode)
    answers = peopled.identify("ada/9+bob/8")
    assert [answer.subject for answer in answers] == [None, "Ada", None, None, "Bob"]
    assert [answer.reasons for answer in answers] == [("bad 0",), (), ("bad 2",), ("bad 3",), ()]
    assert [answer.decision for answer in answers][::2] == ["cannot decide", "cannot decide", "match"]
    assert answers[2].region == {"box": [2, 2, 2, 2]} and answers[2].candidates == () and answers[2].searched == 4
    assert json.loads(json.dumps(answers[2].to_dict())) == answers[2].to_dict()


def test_progress_of_one_persons_photographs(gallery):
    seen = []

    class Telling(FakeEncoder):
        def encode_many(self, sources, on_progress=None):
            for done, found in enumerate(super().encode_many(sources), 1):
                on_progress(done, len(sources), {})
                yield found

    gallery._named = Telling()
    gallery.enroll("Ada", ["ada/1", "ada/2"], on_progress=lambda *progress: seen.append(progress))
    assert seen == [(1, 2, {}), (2, 2, {})]


def test_several_templates_are_removed_all_or_none(peopled):
    revision = peopled.stats().revision
    for ids in ([1, 999, 3], [1, 2**63], [2**200], [-(2**63)], 10**30):
        with pytest.raises(TemplateNotFound, match="nothing was removed"):
            peopled.remove(ids)
    for ids in (["x"], "1", [], None, [1.0]):
        with pytest.raises(InvalidOption, match="template"):
            peopled.remove(ids)
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1} and peopled.stats().revision == revision
    receipt = peopled.remove([1, np.int64(3), 1])
    assert (receipt.templates, receipt.complete, receipt.revision) == (2, True, revision + 1)
    assert names(peopled) == {"Ada": 1, "Cyd": 1}


def test_export_to_a_place_that_is_none(peopled, tmp_path):
    with pytest.raises(StorageError):
        peopled.export(tmp_path / "missing" / "a.npz")


def test_closed_galleries_open_again(peopled):
    peopled.close()
    peopled.close()
    assert names(peopled) == {"Ada": 2, "Bob": 1, "Cyd": 1}


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["enroll", "forget", "remove"]), st.integers(0, 5), st.integers(0, 8)), max_size=25
)


@settings(max_examples=20, deadline=None)
@given(OPERATIONS)
def test_two_views_of_a_file_agree_with_a_dictionary(encoder, operations):
    """Write through one gallery, read through another (incremental catch-up) and a fresh one (full read)."""
    kept = {}
    with (
        folder() as root,
        Gallery(Path(root) / "x.db", encoder=encoder) as writer,
        Gallery(Path(root) / "x.db", encoder=encoder) as reader,
    ):
        path = writer.path
        for action, person, photo in operations:
            if action == "enroll":
                for id in writer.enroll(f"p{person}", [f"p{person}/{photo}"]).accepted:
                    kept[id] = (f"p{person}", f"p{person}/{photo}")
            elif action == "forget" and any(subject == f"p{person}" for subject, _ in kept.values()):
                writer.forget(f"p{person}")
                kept = {id: value for id, value in kept.items() if value[0] != f"p{person}"}
            elif action == "remove" and kept:
                id = sorted(kept)[photo % len(kept)]
                writer.remove(id)
                del kept[id]
            (answer,) = reader.identify("p1/99", top=3)
            expected = reference(kept.values(), "p1/99")[:3]
            assert [c.subject for c in answer.candidates] == [subject for subject, _ in expected]
            np.testing.assert_allclose([c.distance for c in answer.candidates], [d for _, d in expected], atol=1e-10)
            assert answer.searched == len(kept)
        with Gallery(path, encoder=encoder) as fresh:
            assert fresh.identify("p1/99") == reader.identify("p1/99")
            assert fresh.subjects() == reader.subjects() == writer.subjects()


def test_threads_share_a_gallery(gallery):
    errors = []

    def work(number):
        try:
            for turn in range(6):
                gallery.enroll(f"p{number}", [f"p{number}/{turn}"])
                (answer,) = gallery.identify(f"p{number}/77")
                assert answer.subject == f"p{number}"
                assert gallery.verify(f"p{number}", f"p{number}/78").decision == "match"
            gallery.enroll(f"gone{number}", f"gone{number}/1")
            gallery.forget(f"gone{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(gallery) == {f"p{number}": 6 for number in range(6)}
