"""Downloads against a server on this machine that breaks off, resumes, alters bytes and lies."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import StorageError, WeightsError
from likeness.nets import download as module
from likeness.nets.download import download

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; `plan` says for each request in turn what goes wrong: after how many bytes it breaks off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = DATA
        self.plan: list[int] = []
        self.resumes = True
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/net.onnx"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        if self.path != "/net.onnx":
            self.send_error(404)
            return
        start = 0
        if self.headers["Range"] and self.server.resumes:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        content = self.server.content
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = self.server.plan.pop(0) if self.server.plan else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def fetch(server: Server, target: Path, **more) -> None:
    download([server.url], target, sha256=SHA256, size=len(DATA), timeout=5, **more)


def test_whole_and_with_progress(server: Server, tmp_path: Path) -> None:
    seen = []
    target = tmp_path / "new" / "net.onnx"
    fetch(server, target, on_progress=lambda done, total, info: seen.append((done, total, info["url"])))
    assert target.read_bytes() == DATA
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (len(DATA), len(DATA), server.url)
    assert list(target.parent.iterdir()) == [target]


def test_an_interrupted_transfer_is_resumed_within_the_call(server: Server, tmp_path: Path) -> None:
    server.plan = [100_000, 50_000]
    fetch(server, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_and_by_the_next_call(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    server.plan = [1000] * module.ATTEMPTS
    with pytest.raises(WeightsError, match=r"broke off after 3000 of 300000 bytes.*put the file at"):
        fetch(server, target)
    assert not target.exists()
    assert (tmp_path / "net.onnx.part").read_bytes() == DATA[:3000]
    fetch(server, target)
    assert server.asked[-1] == ("/net.onnx", "bytes=3000-")
    assert target.read_bytes() == DATA


def test_a_server_that_cannot_resume_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.plan, server.resumes = [100_000], False
    fetch(server, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == DATA


@pytest.mark.parametrize("at", [0, 150_000, len(DATA) - 1])
def test_one_altered_byte_is_refused_and_nothing_is_left(server: Server, tmp_path: Path, at: int) -> None:
    altered = bytearray(DATA)
    altered[at] ^= 1
    server.content = bytes(altered)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(server, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_stale_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    for stale in (b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 5)):
        (tmp_path / "net.onnx.part").write_bytes(stale)
        fetch(server, tmp_path / "net.onnx")
        assert (tmp_path / "net.onnx").read_bytes() == DATA
        (tmp_path / "net.onnx").unlink()


def test_an_older_file_stays_until_the_new_one_is_whole(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    target.write_bytes(b"older")
    server.content = b"short"
    with pytest.raises(WeightsError):
        fetch(server, target)
    assert target.read_bytes() == b"older"


def test_more_than_expected_is_another_file(server: Server, tmp_path: Path) -> None:
    server.content = DATA + b"more"
    with pytest.raises(WeightsError, match="more than the 300000 bytes"):
        fetch(server, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_the_next_address_is_tried(server: Server, tmp_path: Path) -> None:
    gone = server.url.replace("net.onnx", "gone.onnx")
    download([gone, server.url], tmp_path / "net.onnx", sha256=SHA256, size=len(DATA))
    assert (tmp_path / "net.onnx").read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/gone.onnx", "/net.onnx"]  # a 404 is not asked for thrice


def test_no_server_and_no_such_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="404"):
        download([server.url + "x"], tmp_path / "net.onnx", sha256=SHA256, size=len(DATA))
    with pytest.raises(WeightsError, match=r"could not download net\.onnx.*refused"):
        download(["http://127.0.0.1:9/net.onnx"], tmp_path / "net.onnx", sha256=SHA256, size=len(DATA))
    assert not list(tmp_path.iterdir())


def test_the_network_is_not_the_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that fails with a plain OSError, as TLS and routes do, is no reason to look for another folder."""

    def fail(_: object, size: int) -> bytes:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(http.client.HTTPResponse, "read", fail)
    with pytest.raises(WeightsError, match=r"Network is unreachable.*put the file at"):
        fetch(server, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(StorageError, match="LIKENESS_HOME"):
        fetch(server, tmp_path / "net.onnx")


def test_a_full_disk_is_not_the_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.onnx.part").mkdir()  # a part that cannot be written
    with pytest.raises(StorageError, match="cannot write"):
        fetch(server, tmp_path / "net.onnx")
    assert len(server.asked) <= 1


def test_two_at_once_do_not_share_a_part(server: Server, tmp_path: Path) -> None:
    """The second begins while the first is in the middle, and both end with the whole file."""
    target, inner = tmp_path / "net.onnx", []

    def meanwhile(done: int, total: int, info: dict) -> None:
        if not inner:
            inner.append(1)
            fetch(server, target)
            assert target.read_bytes() == DATA

    server.plan = [100_000]
    fetch(server, target, on_progress=meanwhile)
    assert target.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, None, "bytes=100000-"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupted_call_leaves_what_came(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, info: dict) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path / "net.onnx", on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx.part"]
    fetch(server, tmp_path / "net.onnx")
    assert server.asked[-1][1] is not None and (tmp_path / "net.onnx").read_bytes() == DATA


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        fetch(server, tmp_path / "file" / "net.onnx")


def test_the_catalogue_downloads_what_it_lists(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from likeness.nets import catalogue

    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    listed = replace(catalogue.DOWNLOADS[0], url=server.url, mirrors=(), bytes=len(DATA), onnx_sha256=SHA256)
    monkeypatch.setattr(catalogue, "DOWNLOADS", (listed,))
    seen = []
    found = catalogue.path("yunet", on_progress=lambda *args: seen.append(args))
    assert found == tmp_path / "home" / "yunet.onnx" and found.read_bytes() == DATA and seen
    asked = len(server.asked)
    assert catalogue.read("yunet")[1] == DATA
    assert len(server.asked) == asked


def test_a_size_that_nobody_knows(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    seen = []
    server.plan = [100_000]
    options = {"sha256": SHA256, "size": None, "timeout": 5}
    download([server.url], target, on_progress=lambda done, total, info: seen.append((done, total)), **options)
    assert target.read_bytes() == DATA and seen[-1] == (len(DATA), len(DATA))
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"]
    target.rename(tmp_path / "net.onnx.part")  # all of it came, and it was interrupted then
    download([server.url], target, **options)
    assert target.read_bytes() == DATA and len(server.asked) == 2
