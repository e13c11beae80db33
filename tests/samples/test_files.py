import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from likeness.errors import StorageError, UnreadableFile
from likeness.samples.files import atomic_write, check_writable, overwritten, writable


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_bytes_and_what_a_function_writes(tmp_path):
    atomic_write(tmp_path / "a", b"one")
    atomic_write(str(tmp_path / "b"), lambda file: file.write(b"two"))
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"one", b"two"]
    atomic_write(tmp_path / "a", b"three")
    assert (tmp_path / "a").read_bytes() == b"three"
    assert left(tmp_path) == ["a", "b"]


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    atomic_write(tmp_path / "a", b"old")

    def fails(file):
        file.write(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        atomic_write(tmp_path / "a", fails)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert left(tmp_path) == ["a"]


def test_named_errors_of_the_writer_keep_their_name(tmp_path):
    def fails(file):
        raise UnreadableFile("x")

    with pytest.raises(UnreadableFile):
        atomic_write(tmp_path / "a", fails)


@pytest.mark.parametrize("name", ["missing/a", "file/a"])
def test_a_folder_that_is_none_is_a_storage_error(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        atomic_write(tmp_path / name, b"x")


def test_a_place_is_checked_before_the_work(tmp_path):
    """`check_writable` leaves everything as it is; `writable` makes the folder."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="no such folder"):
        check_writable(tmp_path / "new" / "a")
    assert left(tmp_path) == ["file"]
    for check in (check_writable, writable):
        check(tmp_path / "a")
        with pytest.raises(StorageError, match="it is a folder"):
            check(tmp_path)
        with pytest.raises(StorageError, match="device"):
            check("/dev/null")
    with pytest.raises(StorageError, match="cannot make the folder"):
        writable(tmp_path / "file" / "a")
    assert writable(tmp_path / "new" / "er" / "a") == tmp_path / "new" / "er" / "a"
    assert left(tmp_path / "new" / "er") == []


def test_a_folder_that_is_read_only_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == tmp_path / "locked"))
    (tmp_path / "locked").mkdir()
    for check in (check_writable, writable):
        with pytest.raises(StorageError, match="read-only"):
            check(tmp_path / "locked" / "a")


def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    """The bytes are on the disk before they take the name, and the name is when the function returns."""
    done = []
    sync, replace = os.fsync, os.replace

    def noted_sync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else os.fstat(handle).st_size)
        sync(handle)

    def noted_replace(*names):
        done.append("replaced")
        replace(*names)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    atomic_write(tmp_path / "a", b"seven..")
    assert done == [7, "replaced", "folder"]


def test_follows_a_symbolic_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="permission bits of POSIX")
def test_permissions(tmp_path):
    def mode(name):
        return (tmp_path / name).stat().st_mode & 0o777

    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "new", b"x")
        assert mode("new") == 0o640  # as the umask has it
        atomic_write(tmp_path / "secret", b"x", mode=0o600)
        assert mode("secret") == 0o600
        for bits in (0o600, 0o666, 0o751):
            (tmp_path / "new").chmod(bits)
            atomic_write(tmp_path / "new", b"y")
            assert mode("new") == bits
        seen = []
        atomic_write(tmp_path / "secret", lambda file: seen.append(os.fstat(file.fileno()).st_mode & 0o777), mode=0o600)
        assert seen == [0o600]  # never more than that, also while it is written
        atomic_write(tmp_path / "new", b"z", mode=0o600)
        assert mode("new") == 0o600
    finally:
        os.umask(old)


def test_which_target_is_one_of_the_inputs(tmp_path):
    inputs = [tmp_path / "a", tmp_path / "b", tmp_path / "missing"]
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    assert overwritten([tmp_path / "c", tmp_path / "new"], inputs) is None
    assert overwritten([tmp_path / "c", tmp_path / "folder" / ".." / "b"], inputs) == tmp_path / "folder" / ".." / "b"
    assert overwritten([str(tmp_path / "missing")], inputs) == str(tmp_path / "missing")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.link(tmp_path / "b", tmp_path / "hard")
    for name in ("link", "hard"):
        assert overwritten([tmp_path / name], inputs) == tmp_path / name


def test_a_long_unicode_name(tmp_path):
    path = tmp_path / ("é" * 100 + ".json")
    atomic_write(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    atomic_write(tmp_path / "a", b"old")
    script = (
        "import resource, sys\n"
        "from likeness.samples.files import atomic_write\n"
        "from likeness.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    atomic_write(sys.argv[1], b'x' * 100_000)\n"
        "except StorageError:\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")]).returncode == 7
    assert (tmp_path / "a").read_bytes() == b"old"
    assert left(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_leaves_the_old_file_or_the_new_one(tmp_path):
    path = Path(tmp_path / "a")
    atomic_write(path, b"0" * 1_000_000)
    script = (
        "import sys\nfrom likeness.samples.files import atomic_write\n"
        "for i in range(100000):\n    atomic_write(sys.argv[1], str(i % 10).encode() * 1_000_000)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)])
    time.sleep(1.0)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    content = path.read_bytes()
    assert len(content) == 1_000_000
    assert len(set(content)) == 1


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(StorageError, match=f"{name}: it is a device or a pipe"):
            atomic_write(tmp_path / name, b"data")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
