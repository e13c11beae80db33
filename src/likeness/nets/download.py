"""One file from the internet: in pieces, resumed where it broke off, kept only if its SHA-256 is the expected one."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import StorageError, WeightsError
from ..progress import Progress
from ..samples.files import sha256_of

CHUNK = 1 << 16
ATTEMPTS = 3  # per address; every one resumes where the one before it stopped


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size: int | None,
    timeout: float = 30.0,
    on_progress: Progress | None = None,
) -> None:
    """Fetch `target` (`size` bytes, None: as many as the server says; hash `sha256`) from the first of `urls` that
    gives it.

    What has arrived is kept in TARGET.part, so that another try, also of another process, fetches only the rest
    (HTTP Range). While it grows it has a name of its own: two processes that fetch the same file do not write into one.
    `target` itself appears at once and only after the hash was found right.
    `on_progress(bytes so far, size, {"url": ...})`. Raises StorageError where the disk refuses, and WeightsError with
    the reasons of the network and what to do by hand.
    """
    part = target.with_name(target.name + ".part")
    own = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(part, own)
        try:
            reasons = _try(urls, own, sha256, size, timeout, on_progress)
            if not reasons:
                os.replace(own, target)
                return
        finally:
            if own.exists():  # also after Ctrl-C
                os.replace(own, part) if own.stat().st_size else own.unlink()
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}; set LIKENESS_HOME to another folder") from error
    raise WeightsError(
        f"could not download {target.name} ({'; '.join(dict.fromkeys(reasons))}). Without internet, put the file at "
        f"{target} yourself; it is checked"
    )


class _Broken(Exception):
    """The network failed; `final`: asking the same address again would not help."""

    def __init__(self, reason: object, *, final: bool = False) -> None:
        super().__init__(str(reason))
        self.final = final


def _try(
    urls: Sequence[str], part: Path, sha256: str, size: int | None, timeout: float, on_progress: Progress | None
) -> list[str]:
    """Fetch into `part`: an empty list once it is whole and right, else why each try failed. OSError: the disk."""
    reasons = []
    for url in urls:
        for _ in range(ATTEMPTS):
            if size is None and part.exists() and sha256_of(part) == sha256:
                return []  # an earlier call fetched all of it, and was interrupted before it took its name
            try:
                total = _fetch(url, part, size, timeout, on_progress)
            except _Broken as broken:
                reasons.append(f"{url}: {broken}")
                if broken.final:
                    break
                continue
            have = part.stat().st_size if part.exists() else 0
            if have < total:
                reasons.append(f"{url}: broke off after {have} of {total} bytes")
                continue
            found = sha256_of(part)
            if found == sha256:
                return []
            part.unlink()  # the first half may be another file's: begin again
            reasons.append(f"{url}: SHA-256 is {found[:16]}..., expected {sha256[:16]}...; what came was thrown away")
    return reasons or ["no address is known"]


@contextmanager
def _network() -> Iterator[None]:
    """What goes wrong inside is the network's doing, also where it is an OSError (reset, no route, TLS)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise _Broken(f"HTTP {error.code} {error.reason}", final=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(getattr(error, "reason", None) or error or type(error).__name__) from error


def _fetch(url: str, part: Path, size: int | None, timeout: float, on_progress: Progress | None) -> int:
    """Add to `part` what is missing; how many bytes it should have then."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:  # complete (the hash will tell), or left over from something else
        if have == size:
            return size
        part.unlink()
        have = 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "likeness"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    with _network():
        answer = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310 - addresses come from the catalogue
    with answer:
        if have and answer.status != 206:  # the server does not resume: it sends all of it again
            have = 0
        if size is None:
            size = have + int(answer.headers["Content-Length"] or 0)
            if size == have:
                raise _Broken("the server does not say how much it sends", final=True)
        with open(part, "ab" if have else "wb") as file:
            while chunk := _read(answer):
                if have + len(chunk) > size:
                    chunk = chunk[: size + 1 - have]  # one byte too many is enough to know that it is another file
                file.write(chunk)
                have += len(chunk)
                if on_progress:
                    on_progress(min(have, size), size, {"url": url})
                if have > size:
                    break
    if have > size:
        part.unlink()
        raise _Broken(f"sent more than the {size} bytes expected; it is another file")
    return size


def _read(answer: IO[bytes]) -> bytes:
    with _network():
        return answer.read(CHUNK)
