"""One file from the internet: in pieces, resumed where it broke off, kept only if its SHA-256 is the expected one."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import StorageError, WeightsError

Progress = Callable[[int, int, dict], None]

CHUNK = 1 << 16
ATTEMPTS = 3  # per address; every one resumes where the one before it stopped


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size: int,
    timeout: float = 30.0,
    on_progress: Progress | None = None,
) -> None:
    """Fetch `target` (`size` bytes, hash `sha256`) from the first of `urls` that gives it.

    What has arrived is kept in TARGET.part, so that another try, also of another process, fetches only the rest
    (HTTP Range). `target` itself appears at once and only after the hash was found right.
    `on_progress(bytes so far, size, {"url": ...})`. Raises StorageError, and WeightsError with the
    reason and what to do by hand.
    """
    part = target.with_name(target.name + ".part")
    reasons = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            for _ in range(ATTEMPTS):
                try:
                    _fetch(url, part, size, timeout, on_progress)
                except urllib.error.HTTPError as error:
                    reasons.append(f"{url}: HTTP {error.code} {error.reason}")
                    break  # asking the same address again would not help
                except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                    reasons.append(f"{url}: {getattr(error, 'reason', error)}")
                    continue
                if part.stat().st_size < size:
                    reasons.append(f"{url}: broke off after {part.stat().st_size} of {size} bytes")
                    continue
                found = hashlib.sha256(part.read_bytes()).hexdigest()
                if found == sha256:
                    os.replace(part, target)
                    return
                part.unlink()  # the first half may be another file's: begin again
                reasons.append(
                    f"{url}: SHA-256 is {found[:16]}..., expected {sha256[:16]}...; what came was thrown away"
                )
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}; set LIKENESS_HOME to another folder") from error
    last = "; ".join(dict.fromkeys(reasons))
    raise WeightsError(
        f"could not download {target.name} ({last}). Without internet, put the file at {target} yourself; it is checked"
    )


def _fetch(url: str, part: Path, size: int, timeout: float, on_progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= size:  # complete (the hash will tell), or left over from something else
        if have == size:
            return
        part.unlink()
        have = 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "likeness"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - addresses come from the catalogue
        if have and answer.status != 206:  # the server does not resume: it sends all of it again
            have = 0
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
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
        raise http.client.HTTPException(f"sent more than the {size} bytes expected; it is another file")
