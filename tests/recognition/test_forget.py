"""No byte of a forgotten person is left: every file of the gallery is searched for every byte string of hers."""

import sqlite3
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import FakeEncoder, code_of, folder

from likeness.errors import CorruptGallery
from likeness.recognition.gallery import Gallery
from likeness.recognition.stores.mirror import Mirror
from likeness.recognition.stores.sqlite import SqliteStore

NAME = "Xanthippe Quzwyrd"


@pytest.fixture
def tmp_path():
    with folder() as path:
        yield Path(path)


def sources(photos, start=0):
    return [f"xanthippe-{start + photo}/secret-{start + photo}" for photo in range(photos)]


def needles(photos):
    """Everything that says who somebody is: name and origins as UTF-8 and UTF-16, codes whole and in pieces."""
    found = [NAME.encode(), NAME.encode("utf-16-le"), NAME.split()[1].encode(), b"xanthippe", b"secret"]
    for source in photos:
        code = code_of(source).astype("<f4").tobytes()
        found += [source.encode(), code, *(code[i : i + 8] for i in range(0, len(code), 8))]
    return found


def traces(folder, photos):
    """(file, needle) of all that is found in any file of the folder, whatever its name."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [(path.name, needle) for path, content in files.items() for needle in needles(photos) if needle in content]


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", encoder=FakeEncoder()) as opened:
        for person in range(40):
            opened.enroll(f"person {person}", [f"p{person}/{photo}" for photo in range(1 + person % 3)])
        yield opened


def test_the_scanner_finds_what_is_there(gallery, tmp_path):
    gallery.enroll(NAME, sources(3))
    found = {needle for _, needle in traces(tmp_path, sources(3))}
    assert found == {n for n in needles(sources(3)) if n != NAME.encode("utf-16-le")}


@pytest.mark.parametrize("photos", [1, 7, 60])
def test_forget_leaves_no_byte(gallery, tmp_path, photos):
    gallery.enroll(NAME, sources(photos))
    gallery.identify(sources(1)[0])
    for person in range(10, 20):  # pages that hold her are split and merged, so that copies of cells move about
        gallery.enroll(f"more {person}", [f"m{person}/{photo}" for photo in range(5)])
        gallery.forget(f"person {person}")
    gallery.enroll(NAME, sources(photos, 100))
    receipt = gallery.forget(NAME)
    assert (receipt.templates, receipt.complete) == (2 * photos, True)
    everything = [*sources(photos), *sources(photos, 100)]
    assert traces(tmp_path, everything) == []
    assert len(gallery.subjects()) == 40
    gallery.check()
    gallery.close()
    assert traces(tmp_path, everything) == []


def test_forget_rewrites_the_file_without_gaps(gallery):
    """Free pages, and gaps within pages, are where copies of moved cells stay."""
    gallery.enroll(NAME, sources(200))
    gallery._store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = gallery.path.stat().st_size
    assert gallery.forget(NAME).complete
    with sqlite3.connect(gallery.path) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    connection.close()
    assert gallery.path.stat().st_size < before


def test_what_is_deleted_is_overwritten_even_before_the_file_is_rewritten(gallery, tmp_path, monkeypatch):
    gallery.enroll(NAME, sources(1))
    gallery._store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert traces(tmp_path, sources(1))
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_wipe", lambda self, connection, *, patience: "not now")
        assert not gallery.forget(NAME).complete
    gallery._store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert traces(tmp_path, sources(1)) == []


def test_a_deletion_by_another_during_the_wipe_stays_to_be_wiped(gallery, monkeypatch):
    gallery.enroll(NAME, sources(2))
    other = SqliteStore(gallery.path)
    whole = SqliteStore._wipe

    class Interrupted:
        """A connection: just after its checkpoint somebody else deletes, and cannot wipe."""

        def __init__(self, real):
            self.real = real

        def execute(self, statement, *values):
            if "wal_checkpoint" not in statement:
                return self.real.execute(statement, *values)
            result = self.real.execute(statement).fetchone()
            assert other.forget("person 1").hindrance == "not now"
            return SimpleNamespace(fetchone=lambda: result)

    def wipe(self, connection, *, patience):
        return "not now" if self is other else whole(self, Interrupted(connection), patience=patience)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_wipe", wipe)
        gallery.forget(NAME)
    assert gallery.stats().wipe_pending
    other.close()
    assert gallery.forget("person 2").complete
    assert not gallery.stats().wipe_pending


def test_remove_leaves_no_byte_of_the_template(gallery, tmp_path):
    ids = gallery.enroll(NAME, sources(3)).accepted
    assert gallery.remove(ids[1]).complete
    code = code_of(sources(3)[1]).tobytes()
    for file in SqliteStore.files_of(gallery.path):
        content = file.read_bytes()
        assert b"secret-1" not in content
        assert code[:8] not in content
    assert [record.origin for record in gallery.show(NAME).templates] == [sources(3)[0], sources(3)[2]]


def test_memory_holds_no_code_either(gallery):
    gallery.enroll(NAME, sources(2))
    gallery.identify("p1/1")
    gallery.forget(NAME)
    assert code_of(sources(1)[0]).tobytes() not in gallery._mirror._codes.tobytes()
    assert NAME not in gallery._mirror._names


def test_a_reader_that_goes_on_delays_it_and_the_next_opening_finishes(gallery, tmp_path):
    gallery.enroll(NAME, sources(5))
    gallery._store.timeout = 0.2
    reader = sqlite3.connect(gallery.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM templates WHERE subject = ?", (NAME,)).fetchone() == (5,)
    receipt = gallery.forget(NAME)
    assert (receipt.templates, receipt.complete) == (5, False)
    assert receipt.hindrance == "another process is reading an older state"
    assert gallery.stats().wipe_pending
    assert NAME not in {one.subject for one in gallery.subjects()}  # gone for everybody at once
    reader.execute("ROLLBACK")
    reader.close()
    with Gallery(gallery.path, encoder=FakeEncoder()) as opened:
        assert not opened.stats().wipe_pending
        assert traces(tmp_path, sources(5)) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_PROTOCOL, "another process is reading an older state"),
        (sqlite3.SQLITE_IOERR, "failed"),
        (sqlite3.SQLITE_CORRUPT, "failed"),
        (None, "failed"),
    ],
)
def test_nothing_is_raised_once_the_deletion_holds(gallery, tmp_path, monkeypatch, error, said):
    gallery.enroll(NAME, sources(2))

    class Failing:
        """A connection that cannot VACUUM."""

        def __init__(self, real):
            self.real = real

        def execute(self, statement, *values):
            if statement == "VACUUM":
                failure = sqlite3.OperationalError("failed")
                if error is not None:
                    failure.sqlite_errorcode = error
                raise failure
            return self.real.execute(statement, *values)

    whole = SqliteStore._wipe
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_wipe", lambda self, connection, **more: whole(self, Failing(connection), **more))
        receipt = gallery.forget(NAME)
    assert (receipt.templates, receipt.complete, receipt.hindrance) == (2, False, said)
    assert receipt.to_dict()["hindrance"] == said
    assert gallery.stats().wipe_pending and NAME not in {one.subject for one in gallery.subjects()}
    gallery.close()
    with Gallery(gallery.path, encoder=FakeEncoder()):
        assert traces(tmp_path, sources(2)) == []


def test_a_mirror_that_cannot_catch_up_is_thrown_away(gallery, monkeypatch):
    gallery.enroll(NAME, sources(2))
    gallery.identify("p1/1")

    def damaged(self, store):
        raise CorruptGallery("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "catch_up", damaged)
        assert gallery.forget(NAME).complete
    assert code_of(sources(1)[0]).tobytes() not in gallery._mirror._codes.tobytes()
    assert len(gallery.subjects()) == 40


def test_the_next_deletion_finishes_too(gallery, tmp_path):
    gallery.enroll(NAME, sources(5))
    gallery._store.timeout = 0.2
    reader = sqlite3.connect(gallery.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM templates").fetchone()
    assert not gallery.forget(NAME).complete
    reader.execute("ROLLBACK")
    assert gallery.forget("person 1").complete
    assert traces(tmp_path, sources(5)) == []
    assert not gallery.stats().wipe_pending
    reader.close()


def test_forgetting_in_many_threads(gallery, tmp_path):
    people = {f"{NAME} {n}": sources(2, 10 * n) for n in range(6)}
    for name, photos in people.items():
        gallery.enroll(name, photos)
    galleries = [Gallery(gallery.path, encoder=FakeEncoder()) for _ in range(3)]
    receipts = []

    def work(number):
        for name in list(people)[number::3]:
            galleries[number].identify("p1/1")
            receipts.append(galleries[number].forget(name))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [receipt.templates for receipt in receipts] == [2] * 6
    for one in galleries:
        one.close()
    Gallery(gallery.path, encoder=FakeEncoder()).close()  # finishes what was left, if anything
    assert traces(tmp_path, [photo for photos in people.values() for photo in photos]) == []


def test_every_tenth_of_three_hundred_is_forgotten(tmp_path):
    """Large enough for inner pages of the table to be rebuilt."""
    with Gallery(tmp_path / "people.db", encoder=FakeEncoder()) as gallery:
        rng = np.random.default_rng(0)
        order = rng.permutation(300)
        for person in order:
            gallery.enroll(f"person-{person:04d}-name", [f"p{person}/1"])
        gone = [int(person) for person in order if person % 10 == 0]
        for person in gone:
            gallery.forget(f"person-{person:04d}-name")
        content = b"".join(file.read_bytes() for file in SqliteStore.files_of(gallery.path))
        for person in gone:
            assert f"person-{person:04d}-name".encode() not in content
            assert code_of(f"p{person}/1").tobytes()[:8] not in content
        assert len(gallery.subjects()) == 270
