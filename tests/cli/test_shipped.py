"""The whole way with the weights that ship, on two real portraits; and what a cold start costs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def nobody_elses_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))


def test_verify(cli: Cli, photos: Path) -> None:
    grace, eileen = photos / "people" / "Grace Hopper", photos / "people" / "Eileen Collins.jpg"
    result = cli("verify", grace / "1.jpg", grace / "2.jpg", "--json")
    assert result.status == 0 and result.json["decision"] == "match"
    keys = {"decision", "distance", "score", "threshold", "max_fmr", "reasons", "fingerprint"}
    assert keys <= set(result.json) and result.json["distance"] <= result.json["threshold"]
    assert cli("verify", grace / "1.jpg", eileen).status == 1
    assert cli("verify", grace / "1.jpg", photos / "cat.jpg").out == f"cannot decide  {photos / 'cat.jpg'}: no face\n"
    broken = cli("verify", grace / "1.jpg", photos / "broken.jpg")
    assert broken.status == 2 and "broken.jpg" in broken.err


def test_detect(cli: Cli, photos: Path) -> None:
    found = {Path(entry["file"]).name: entry["faces"] for entry in cli("detect", photos, "--json").json}
    assert {name for name, faces in found.items() if faces} == {"Eileen Collins.jpg", "1.jpg", "2.jpg"}
    face = found["Eileen Collins.jpg"][0]  # the largest; how many false alarms there are is measured elsewhere
    assert face["score"] == max(other["score"] for other in found["Eileen Collins.jpg"])
    x, y, w, h = face["box"]
    assert x < 225 < x + w and y < 120 < y + h and 60 < w < 130  # where her face is
    assert (
        len(face["landmarks"]) == 5 and 0 < face["score"] <= 1 and set(face["quality"]) >= {"size", "sharpness", "yaw"}
    )


def test_gallery(cli: Cli, photos: Path, tmp_path: Path) -> None:
    db = tmp_path / "people.db"
    result = cli("gallery", "enroll", db, "--folder", photos / "people")
    assert result.status == 0 and result.out.splitlines()[1].split() == ["Eileen", "Collins", "1", "0", "0"]
    (entry,) = cli("identify", db, photos / "people" / "Grace Hopper" / "2.jpg", "--json").json
    face = entry["faces"][0]
    assert (face["decision"], face["subject"], face["searched"]) == ("match", "Grace Hopper", 3)
    assert cli("gallery", "verify", db, "Eileen Collins", photos / "people" / "Grace Hopper" / "1.jpg").status == 1
    cli("gallery", "forget", db, "Grace Hopper")
    (entry,) = cli("identify", db, photos / "people" / "Grace Hopper" / "2.jpg", "--json").json
    assert entry["faces"][0]["subject"] is None
    assert b"Grace" not in b"".join(file.read_bytes() for file in tmp_path.glob("people.db*"))


def test_encode(cli: Cli, photos: Path, tmp_path: Path) -> None:
    assert cli("encode", photos / "people", "-o", tmp_path / "codes.npz").status == 0
    with np.load(tmp_path / "codes.npz") as npz:
        np.testing.assert_allclose(np.linalg.norm(npz["codes"], axis=1), 1, atol=1e-5)
        assert len(npz["files"]) == 3


def test_what_ships(cli: Cli) -> None:
    listed = {entry["name"]: entry for entry in cli("weights", "list", "--json").json}
    assert (listed["face"]["kind"], listed["face"]["shipped"]) == ("encoder", True)
    assert (listed["face-detector"]["kind"], listed["face-detector"]["shipped"]) == ("detector", True)
    assert listed["face"]["bytes"] <= 4_500_000 and listed["face-detector"]["bytes"] <= 600_000
    assert Path(cli("weights", "path", "face").out.strip()).is_file()


# Run by a small process of its own: a child starts with the peak memory of the one that makes it, and pytest is large.
MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_a_cold_start_is_small_and_quick(photos: Path) -> None:
    """At most 180 MB, and at most 1.5 s of processor time (on a busy machine wall time would say nothing)."""
    grace = photos / "people" / "Grace Hopper"
    command = [sys.executable, "-m", "likeness", "verify", str(grace / "1.jpg"), str(grace / "2.jpg"), "--json"]
    seconds, megabytes = [], []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True)
        status, out, processor, peak = json.loads(done.stdout)
        assert status == 0 and json.loads(out)["decision"] == "match"
        seconds.append(processor)
        megabytes.append(peak / (1e6 if sys.platform == "darwin" else 1e3))
    assert min(megabytes) <= 180, megabytes
    assert min(seconds) <= 1.5, seconds
