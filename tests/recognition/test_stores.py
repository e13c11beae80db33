"""Files that are damaged, foreign, newer, full, read-only or locked; migrations; the mirror."""

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import FakeEncoder, calibrated, code_of, folder, people

from likeness.errors import (
    CorruptGallery,
    ForeignGallery,
    GalleryError,
    InvalidOption,
    NewerSchema,
    StorageError,
)
from likeness.recognition.gallery import Gallery
from likeness.recognition.stores import opening, schema, sqlite
from likeness.recognition.stores.base import Row
from likeness.recognition.stores.failures import named
from likeness.recognition.stores.mirror import Mirror
from likeness.recognition.stores.sqlite import SqliteStore

PRINT = "f" * 16


@pytest.fixture
def tmp_path():
    with folder() as path:
        yield Path(path)


@pytest.fixture
def path(tmp_path):
    """A gallery of ten people with three templates each, closed."""
    with Gallery(tmp_path / "people.db", encoder=FakeEncoder()) as gallery:
        for person in range(10):
            gallery.enroll(f"person {person}", [f"p{person}/{photo}" for photo in range(3)])
    return tmp_path / "people.db"


def row(subject="Ada", source="ada/1", **fields):
    return Row(subject, code_of(source), PRINT, **fields)


def everything(path):
    """All that can be asked of a gallery's file."""
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        candidates = gallery.identify("p3/7", top=10)[0].candidates
        rows = [(*vars(row).values(), row.code.tobytes()) for row in gallery._store.rows()]
        rows = [[value for value in values if not isinstance(value, np.ndarray)] for values in rows]
        return candidates, rows, gallery.subjects()


def test_a_flipped_byte_anywhere_is_noticed_or_harmless(path):
    original, expected = path.read_bytes(), everything(path)
    rng = np.random.default_rng(1)
    places = np.concatenate([np.arange(0, 100, 3), rng.integers(0, len(original), 150)])
    noticed = 0
    for place in places:
        damaged = bytearray(original)
        damaged[place] ^= int(rng.integers(1, 256))
        for file in SqliteStore.files_of(path):
            file.unlink(missing_ok=True)
        path.write_bytes(damaged)
        try:
            found = everything(path)
        except GalleryError:
            noticed += 1
        else:
            assert found == expected, f"byte {place}"
    assert noticed > 20


def test_a_flipped_bit_in_a_code_is_noticed(path):
    content = path.read_bytes()
    start = content.index(code_of("p3/1").tobytes())
    path.write_bytes(content[: start + 5] + bytes([content[start + 5] ^ 4]) + content[start + 6 :])
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        for call in (lambda: gallery.identify("p1/1"), gallery.subjects, gallery.stats, gallery.check):
            with pytest.raises(CorruptGallery, match="template 11"):
                call()
        with pytest.raises(CorruptGallery, match="template 11"):
            list(gallery._store.rows())


def test_truncated_files(path):
    original, expected = path.read_bytes(), everything(path)
    for length in [*range(1, len(original), 1777), len(original) - 1]:
        for file in SqliteStore.files_of(path):
            file.unlink(missing_ok=True)
        path.write_bytes(original[:length])
        try:
            assert everything(path) == expected
        except GalleryError:
            continue


def test_check_finds_damage_that_nobody_read_yet(path):
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        gallery.check()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE templates SET subject = 'Eve' WHERE id = 4")
    with Gallery(path, encoder=FakeEncoder()) as gallery, pytest.raises(CorruptGallery, match="template 4"):
        gallery.check()


def test_lost_rows_are_noticed(path):
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM templates WHERE id = 4")
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        for _ in range(2):
            with pytest.raises(CorruptGallery, match="29 templates found of 30"):
                gallery.subjects()


def test_rows_lost_behind_a_mirror_are_noticed(path):
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        gallery.subjects()
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM templates WHERE id = 4")
            connection.execute("UPDATE state SET revision = revision + 1, templates = templates + 5")
        with pytest.raises(CorruptGallery):
            gallery.subjects()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM state", "DROP TABLE templates", "DROP TABLE state", "UPDATE state SET revision = 'x'"]
)
def test_a_mutilated_schema_is_corrupt(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    with pytest.raises(CorruptGallery), Gallery(path, encoder=FakeEncoder()) as gallery:
        gallery.subjects()


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"\x89PNG\r\n\x1a\n" + bytes(2000), b"SQLite format 3\0"])
def test_files_that_are_no_databases(tmp_path, content):
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(GalleryError):
        Gallery(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE users (name)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"]
)
def test_databases_of_others_are_left_alone(tmp_path, statement):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    content = path.read_bytes()
    with pytest.raises(ForeignGallery, match="not a gallery of likeness"):
        Gallery(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_gallery(tmp_path):
    """What a process killed at the very first moment leaves."""
    (tmp_path / "x.db").touch()
    with Gallery(tmp_path / "x.db", encoder=FakeEncoder()) as gallery:
        assert gallery.enroll("Ada", "ada/1").accepted == (1,)


def test_a_newer_schema_is_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    content = path.read_bytes()
    with pytest.raises(NewerSchema, match="upgrade"):
        Gallery(path)
    assert path.read_bytes() == content


def test_an_older_schema_is_brought_up_to_date(path, monkeypatch):
    added = [*schema.MIGRATIONS, ("ALTER TABLE templates ADD COLUMN note TEXT",)]
    monkeypatch.setattr(opening, "MIGRATIONS", added)
    expected = everything(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(added),)
        assert connection.execute("SELECT count(note), count(*) FROM templates").fetchone() == (0, 30)
    assert everything(path) == expected


def test_checksums_do_not_depend_on_the_interpreters_unicode_tables():
    """Written down, as another Python must find them: an emoji of Unicode 16, a letter that `repr` shows or escapes."""
    values = (7, "Ada \U0001fae9é", b"code", PRINT, None, "日本.jpg", '{"x": 1.5}', 1.25)
    text = '[7, "Ada \\ud83e\\udee9\\u00e9", "ffffffffffffffff", null, "\\u65e5\\u672c.jpg", "{\\"x\\": 1.5}", 1.25]'
    assert schema.checksum(*values) == zlib.crc32(b"code", zlib.crc32(text.encode("ascii")))


def test_the_checksums_of_schema_1_are_made_anew(path):
    expected = everything(path)
    with sqlite3.connect(path) as connection:
        for id, *values, _ in connection.execute(f"SELECT {schema.COLUMNS} FROM templates").fetchall():
            subject, code, *rest = values
            old = zlib.crc32(code, zlib.crc32(repr((id, subject, *rest)).encode()))
            connection.execute("UPDATE templates SET checksum = ? WHERE id = ?", (old, id))
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    damaged = path.with_suffix(".damaged")
    shutil.copy(path, damaged)
    assert everything(path) == expected
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        assert gallery.stats().schema == 2
        gallery.check()
    with sqlite3.connect(damaged) as connection:
        connection.execute("UPDATE templates SET subject = 'Eve' WHERE id = 4")
    connection.close()
    for _ in range(2):  # damage is not made good by the migration
        with Gallery(damaged, encoder=FakeEncoder()) as gallery, pytest.raises(CorruptGallery, match="template 4"):
            gallery.check()


def error_of(statement, code=None, name="x"):
    """An error of SQLite: a real one, or one with a result code that is hard to come by."""
    if code is None:
        with pytest.raises(sqlite3.Error) as caught:
            sqlite3.connect(":memory:").execute(statement).fetchall()
        return caught.value
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (error_of("SELECT x FROM missing"), CorruptGallery, "export"),
        (error_of("", sqlite3.SQLITE_CORRUPT), CorruptGallery, "export"),
        (error_of("SELECT CAST(x'ff' AS TEXT)"), CorruptGallery, "export"),
        (error_of("", sqlite3.SQLITE_PROTOCOL), StorageError, "locked"),
        (error_of("", sqlite3.SQLITE_LOCKED), StorageError, "locked"),
        (error_of("SELEC"), GalleryError, "syntax error"),
        (error_of("", sqlite3.SQLITE_TOOBIG, "too big"), GalleryError, "too big"),
        (sqlite3.ProgrammingError("closed"), GalleryError, "closed"),
    ],
)
def test_only_damage_is_called_damage(error, kind, said):
    found = named(error, Path("x.db"))
    assert type(found) is kind
    assert said in str(found)
    assert ("export" in str(found)) is (kind is CorruptGallery)


def test_a_database_in_memory_is_no_gallery(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (":memory:", Path(":memory:"), "./:memory:"):
        with pytest.raises(InvalidOption, match="path"):
            Gallery(place)
    assert not list(tmp_path.iterdir())


def test_a_file_can_be_made_only_when_somebody_is_put_in(tmp_path):
    with Gallery(tmp_path / "x.db", encoder=FakeEncoder(), create_empty=False) as gallery:
        assert gallery.subjects() == () and gallery.stats().templates == 0
        assert gallery.enroll("Ada", ["none"]).accepted == ()
        assert not list(tmp_path.iterdir())
        assert gallery.enroll("Ada", ["ada/1"]).accepted == (1,)
        assert gallery.identify("ada/1")[0].candidates[0].subject == "Ada"
    assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0
    with Gallery(tmp_path / "x.db", encoder=FakeEncoder(), create_empty=False) as gallery:
        assert [one.subject for one in gallery.subjects()] == ["Ada"]
    with pytest.raises(StorageError, match="no folder"):
        Gallery(tmp_path / "missing" / "x.db", create_empty=False)


def test_another_process_may_make_the_file_meanwhile(tmp_path):
    late = Gallery(tmp_path / "x.db", encoder=FakeEncoder(), create_empty=False)
    with Gallery(tmp_path / "x.db", encoder=FakeEncoder()) as first:
        first.enroll("Ada", "ada/1")
    assert late.enroll("Ada", ["ada/1", "ada/2"]).known == (1,)
    assert [one.templates for one in late.subjects()] == [2]
    late.close()


def test_a_failing_migration_changes_nothing(path, monkeypatch):
    expected = everything(path)
    broken = [*schema.MIGRATIONS, ("CREATE TABLE more (x)", "ALTER TABLE missing ADD COLUMN note TEXT")]
    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", broken)
        with pytest.raises(CorruptGallery):
            Gallery(path)
    assert everything(path) == expected


def test_places_where_no_file_can_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path, tmp_path / "missing" / "x.db", tmp_path / "file" / "x.db"):
        with pytest.raises(StorageError):
            Gallery(place)


def test_a_read_only_file_is_a_storage_error(path):
    """Opened through a read-only handle, as the superuser may write to any file."""
    store = SqliteStore(path)
    store._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="read-only"):
        store.add([row()])
    with pytest.raises(StorageError, match="read-only"):
        store.forget("person 1")
    assert len(list(store.rows())) == 30
    store.close()
    assert len(everything(path)[1]) == 30


@pytest.fixture
def nothing_can_be_written(monkeypatch):
    """What permissions and read-only disks say; permission bits alone do not stop the superuser."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda place, mode, **more: mode != os.W_OK and real(place, mode, **more))


def test_a_gallery_in_a_read_only_folder_can_be_read(path, nothing_can_be_written):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with Gallery(path, encoder=calibrated()) as gallery:
        assert gallery.stats().templates == 30 and len(gallery.show("person 1").templates) == 3
        assert gallery.verify("person 1", "p1/9").decision == "match"
        assert gallery.identify("p2/9")[0].subject == "person 2"
        gallery.check()
        for write in (lambda: gallery.enroll("Ada", "ada/1"), lambda: gallery.forget("person 1")):
            with pytest.raises(StorageError, match="read-only"):
                write()
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_reader_who_cannot_write_sees_what_a_writer_does(path, monkeypatch):
    writer = SqliteStore(path)
    assert writer.state().templates == 30
    real = os.access
    monkeypatch.setattr(os, "access", lambda place, mode, **more: mode != os.W_OK and real(place, mode, **more))
    reader = SqliteStore(path)
    for number in range(3):  # into the log, and out of it
        writer.add([row(source=f"ada/{number}")])
        assert reader.state().templates == 31 + number
        assert len(list(reader.rows())) == 31 + number
    writer.close()
    assert reader.state().templates == 33
    reader.close()


def test_what_cannot_be_read_in_a_read_only_folder(path, nothing_can_be_written, monkeypatch):
    with pytest.raises(StorageError, match="no folder|cannot be opened"):
        Gallery(path.parent / "missing" / "x.db").stats()
    monkeypatch.setattr(opening, "MIGRATIONS", [*schema.MIGRATIONS, ("ALTER TABLE templates ADD COLUMN note TEXT",)])
    with pytest.raises(StorageError, match="older likeness.*read-only"):
        Gallery(path)


def test_a_database_that_is_full_loses_nothing(path):
    expected = everything(path)
    store = SqliteStore(path)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="disk is full"):
        store.add([row(source=f"ada/{photo}") for photo in range(200)])
    assert store.state().templates == 30
    store.close()
    assert everything(path) == expected


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_full_disk_loses_nothing(path):
    expected = everything(path)
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from gallery_fakes import FakeEncoder
from likeness.errors import StorageError
from likeness.recognition.gallery import Gallery
with Gallery(sys.argv[1], encoder=FakeEncoder()) as gallery:
    gallery.subjects()
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        gallery.enroll("Ada", [f"ada/{{photo}}" for photo in range(300)])
    except StorageError as error:
        assert "full" in str(error), error
        assert len(gallery.subjects()) == 10
        sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == 7
    assert everything(path) == expected


def test_a_gallery_that_stays_locked_says_so(path):
    with Gallery(path, encoder=FakeEncoder(), timeout=0.2) as gallery:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StorageError, match="locked by another process"):
            gallery.enroll("Ada", "ada/1")
        assert 0.15 < time.monotonic() - started < 5
        assert len(gallery.subjects()) == 10  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert gallery.enroll("Ada", "ada/1").accepted == (31,)


def test_opening_waits_for_a_writer(path, tmp_path):
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: (other.execute("ROLLBACK"), other.close())).start()
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        assert gallery.enroll("Ada", "ada/1").accepted == (31,)


def test_a_new_gallery_is_for_its_owner(tmp_path):
    with Gallery(tmp_path / "x.db"):
        assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0


def test_a_store_that_never_moved_past_a_revision_reads_all_again(path, monkeypatch):
    monkeypatch.setattr(sqlite, "KEPT_REMOVALS", 4)
    reader, writer = SqliteStore(path), SqliteStore(path)
    mirror, follower = Mirror(), Mirror()
    mirror.catch_up(reader)
    for person in range(4):
        writer.forget(f"person {person}")
        follower.catch_up(reader)
    assert reader.changes(mirror.revision, 30).everything
    assert not reader.changes(follower.revision, 30).everything
    for one in (mirror, follower):
        one.catch_up(reader)
        assert one.subjects() == {f"person {person}": 3 for person in range(4, 10)}
    reader.close(), writer.close()


def test_an_older_copy_put_back_is_read_again(path):
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    mirror = Mirror()
    with_more, older = SqliteStore(path), SqliteStore(copy)
    with_more.add([row()])
    mirror.catch_up(with_more)
    assert "Ada" in mirror
    mirror.catch_up(older)
    assert "Ada" not in mirror
    assert len(mirror) == 30
    with_more.close(), older.close()


def test_strange_origins_are_kept(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    strange = row(origin="日本/'\".jpg", quality={"x": float("inf")})
    store.add(
        [row(origin="caf\udce9.jpg"), row(origin="\x00", source="ada/2"), replace(strange, code=code_of("ada/3"))]
    )
    assert [r.origin for r in store.rows()] == ["caf\\udce9.jpg", "\x00", "日本/'\".jpg"]
    assert [r.quality for r in store.rows()] == [None, None, {"x": float("inf")}]
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_connection(path):
    with Gallery(path, encoder=FakeEncoder()) as gallery:
        gallery.subjects()
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=lambda n=n: gallery.enroll(f"child {n}", "ada/1")) for n in range(3)]
        for child in children:
            child.start()
        gallery.enroll("parent", "ada/2")
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert len(gallery.subjects()) == 14
        gallery.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_the_parents_connection_from_the_collector(path):
    store = SqliteStore(path)
    connection = store._connection
    store._process = -1  # as it is after a fork
    store.close()
    assert connection.execute("SELECT count(*) FROM templates").fetchone() == (30,)  # not closed
    assert store.state().templates == 30
    store.close()
    connection.close()


class Block:
    """A store that hands out blocks of rows, for the mirror alone."""

    def __init__(self, path):
        self.store = SqliteStore(path)

    def add(self, codes, subjects):
        return self.store.add([Row(f"s{s}", code, PRINT) for code, s in zip(codes, subjects, strict=True)])


@pytest.mark.parametrize(("count", "photos"), [(1, 1), (3, 40), (500, 1), (60, 10), (2, 300)])
def test_search_agrees_with_looking_at_everybody(tmp_path, count, photos):
    codes, subjects = people(count, photos, 16)
    order = np.random.default_rng(0).permutation(len(codes))
    block, mirror = Block(tmp_path / "x.db"), Mirror()
    for part in np.array_split(order, 7):
        if len(part):
            block.add(codes[part], subjects[part])
        mirror.catch_up(block.store)
    assert len(mirror) == len(codes)
    probes, _ = people(5, 1, 16, seed=8)
    for probe in [*probes, codes[0]]:
        exact = np.sum((codes.astype(float) - probe.astype(float)) ** 2, axis=1)
        best = sorted((exact[subjects == s].min(), f"s{s}") for s in range(count))
        for top in (1, 5, 1000):
            found = mirror.search(probe, top)
            assert [candidate.subject for candidate in found] == [name for _, name in best[:top]]
            np.testing.assert_allclose([c.distance for c in found], [d for d, _ in best[:top]], atol=1e-10)
        nearest = mirror.nearest("s0", probe)
        assert nearest[0] == pytest.approx(exact[subjects == 0].min(), abs=1e-10)
        assert nearest[1] == photos
    assert mirror.nearest("nobody", probes[0]) is None
    block.store.close()


def test_equal_codes_come_in_the_order_of_names(tmp_path):
    block, mirror = Block(tmp_path / "x.db"), Mirror()
    code = code_of("ada/1", 16)
    block.add([code] * 100, [(7 * i) % 100 for i in range(100)])
    mirror.catch_up(block.store)
    found = mirror.search(code, 100)
    assert [c.subject for c in found] == sorted(f"s{i}" for i in range(100))
    assert {c.distance for c in found} == {0.0}
    block.store.close()


def test_a_mirror_zeroes_what_is_forgotten(path):
    store, mirror = SqliteStore(path), Mirror()
    mirror.catch_up(store)
    needle = code_of("p3/1").tobytes()
    assert needle in mirror._codes.tobytes()
    store.forget("person 3")
    mirror.catch_up(store)
    assert needle not in mirror._codes.tobytes()
    assert "person 3" not in mirror._names
    store.close()
