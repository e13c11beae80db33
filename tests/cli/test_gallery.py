"""`likeness gallery`, `identify`, `encode` on a real gallery, with an encoder whose answers are easy to foresee."""

import contextlib
import csv
import io
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from likeness.cli import common
from likeness.errors import UnknownName, UnreadableFile
from likeness.recognition import encoder as encoder_module
from likeness.recognition.calibration import Calibration
from likeness.recognition.encoder import Encoding, Template
from likeness.samples.images import read_image

Cli = Callable[..., Any]
PRINT = "0123456789abcdef"
COLOURS = {"Ada": (200, 30, 30), "Grace": (30, 200, 30), "Joan": (30, 30, 200)}


class ColourEncoder:
    """A picture's colour is the person in it: one face per picture, none in black ones, two in white ones."""

    name, fingerprint, code_length = "face", PRINT, 16

    def __init__(self, calibration: Calibration | None) -> None:
        self.calibration = calibration

    def encode(self, source: Any) -> Encoding:
        image = read_image(source).astype(float)
        r, g, b = image.mean((0, 1))
        if r + g + b < 3:
            return Encoding((), ("no face",))
        rng = np.random.default_rng([int(r > 100), int(g > 100), int(b > 100)])
        code = rng.standard_normal(16) + 0.05 * np.random.default_rng(int(image.sum()) % 997).standard_normal(16)
        code = (code / np.linalg.norm(code)).astype(np.float32)
        region = {"box": [1.0, 2.0, 30.0, 40.0], "landmarks": [[1.0, 2.0]] * 5, "score": 0.9}
        one = Template(code, PRINT, {"size": 30.0}, str(source), region)
        return Encoding((one, one) if min(r, g, b) > 250 else (one,))

    def encode_one(self, source: Any) -> Encoding:
        found = self.encode(source)
        return Encoding((), ("several faces",)) if len(found.templates) > 1 else found

    def encode_many(
        self, sources: Sequence[Any], on_progress: Callable[[int, int, dict], None] | None = None
    ) -> Iterator[Encoding]:
        for done, source in enumerate(sources, 1):
            try:
                found = self.encode_one(source)
            except UnreadableFile:
                found = Encoding((), ("unreadable file",))
            if on_progress:
                on_progress(done, len(sources), {})
            yield found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    codes = np.random.default_rng(3).standard_normal((400, 16))
    codes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)
    return Calibration.fit(codes, np.arange(400) // 2, PRINT)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch, calibration: Calibration) -> ColourEncoder:
    coder = ColourEncoder(calibration)

    def load(name: str = "face", **_: Any) -> ColourEncoder:
        if name != "face":
            raise UnknownName(f"no weights are called {name!r}")
        return coder

    monkeypatch.setattr(encoder_module, "resolve", load)
    monkeypatch.setattr(encoder_module.FaceEncoder, "load", load)
    return coder


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """people/NAME/{0,1}.png, and beside them black.png, white.png, broken.jpg."""
    folder = tmp_path / "people"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40 + i, 40), colour).save(folder / name / f"{i}.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture
def db(cli: Cli, people: Path, tmp_path: Path) -> Path:
    path = tmp_path / "people.db"
    assert cli("gallery", "enroll", path, "--folder", people).status == 0
    return path


def test_enroll_one_person(cli: Cli, people: Path, tmp_path: Path) -> None:
    db = tmp_path / "new.db"
    bad = [tmp_path / "black.png", tmp_path / "white.png", tmp_path / "broken.jpg"]
    result = cli("gallery", "enroll", db, "Ada", people / "Ada", *bad, "--json")
    assert result.status == 2 and "broken.jpg: unreadable file" in result.err  # the others are kept
    assert result.json["subject"] == "Ada" and len(result.json["accepted"]) == 2
    reasons = [reason for _, reason in result.json["rejected"]]
    assert reasons == ["no face", "several faces", "unreadable file"]
    result = cli("gallery", "enroll", db, "Nobody", tmp_path / "black.png")
    assert result.status == 2 and result.out.splitlines()[1].split() == ["Nobody", "0", "0", "1"]
    assert f"{tmp_path / 'black.png'}: no face" in result.err
    again = cli("gallery", "enroll", db, "Ada", people / "Ada")
    assert again.status == 0 and again.out.splitlines()[1].split() == ["Ada", "0", "2", "0"]
    assert [one["templates"] for one in cli("gallery", "list", db, "--json").json] == [2]


def test_a_failed_beginning_leaves_no_gallery(cli: Cli, people: Path, tmp_path: Path) -> None:
    db, black = tmp_path / "new.db", tmp_path / "black.png"
    (tmp_path / "nobody").mkdir()
    for words in (
        ("enroll", db, "Ada", tmp_path / "absent.png"),
        ("enroll", db, "Ada", black),
        ("enroll", db, "Ada", tmp_path / "nobody"),
        ("enroll", db, "a" * 201, people / "Ada"),
        ("enroll", db, "Ada", people / "Ada", "--encoder", "mine"),
        ("enroll", db, "--folder", tmp_path / "absent"),
        ("enroll", db, "--folder", tmp_path / "nobody"),
        ("import", db, tmp_path / "absent.npz"),
        ("import", db, black),
    ):
        assert cli("gallery", *words).status == 2
        assert not list(tmp_path.glob("new.db*")), words


def test_enrolling_shows_progress(cli: Cli, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "LINE_EVERY", 0.0)
    for words in (("Ada", people / "Ada"), ("--folder", people)):
        assert "enroll: 2 of " in cli("gallery", "enroll", tmp_path / "a.db", *words).err


def test_enroll_a_folder(cli: Cli, people: Path, tmp_path: Path) -> None:
    result = cli("gallery", "enroll", tmp_path / "a.db", "--folder", people, "--json")
    assert [entry["subject"] for entry in result.json] == ["Ada", "Grace", "Joan"]
    assert all(len(entry["accepted"]) == 2 for entry in result.json)


@pytest.mark.parametrize("words", [[], ["Ada"], ["Ada", "x.png", "--folder", "people"]])
def test_enroll_needs_a_person_or_a_folder(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    result = cli("gallery", "enroll", tmp_path / "a.db", *words)
    assert result.status == 2 and "--folder" in result.err and not (tmp_path / "a.db").exists()


def test_verify_a_claim(cli: Cli, db: Path, people: Path, tmp_path: Path) -> None:
    assert cli("gallery", "verify", db, "Ada", people / "Ada" / "1.png").out.startswith("match  distance 0.0")
    result = cli("gallery", "verify", db, "Ada", people / "Joan" / "1.png", "--json", "--max-fmr", "0.01")
    assert result.status == 1 and result.json["decision"] == "no match" and result.json["max_fmr"] == 0.01
    result = cli("gallery", "verify", db, "Zoe", people / "Joan" / "1.png")
    assert result.status == 2 and result.out == "cannot decide  unknown subject\n"
    assert cli("gallery", "verify", db, "Ada", tmp_path / "broken.jpg").status == 2


def test_identify_json(cli: Cli, db: Path, people: Path, tmp_path: Path) -> None:
    result = cli("identify", db, people / "Ada", tmp_path / "black.png", "--json", "--top", "2")
    assert result.status == 0 and [entry["file"][-9:] for entry in result.json] == [
        "Ada/0.png",
        "Ada/1.png",
        "black.png",
    ]
    face = result.json[0]["faces"][0]
    assert (face["decision"], face["subject"], face["searched"]) == ("match", "Ada", 6)
    assert [set(candidate) for candidate in face["candidates"]] == [{"subject", "distance", "score"}] * 2
    assert face["threshold"] > face["candidates"][0]["distance"]
    nobody = result.json[2]["faces"][0]
    assert nobody["decision"] == "cannot decide" and nobody["reasons"] == ["no face"]


def test_identify_strangers_and_broken_files(cli: Cli, db: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 200, 30)).save(tmp_path / "stranger.png")
    result = cli("identify", db, tmp_path / "stranger.png", tmp_path / "broken.jpg")
    lines = result.out.splitlines()
    assert result.status == 2 and "broken.jpg" in result.err and lines[2].endswith("cannot decide  (unreadable file)")
    assert "no match (nearest: Ada) 1." in " ".join(lines[1].split()) and "then " in lines[1]
    printed = cli("identify", db, tmp_path / "broken.jpg", "--json").json
    assert printed[0]["faces"] == [] and "damaged" in printed[0]["error"]
    assert cli("identify", db, tmp_path / "stranger.png", "--max-fpir", "2").status == 2


def test_a_missing_file_does_not_stop_the_others(cli: Cli, db: Path, people: Path, tmp_path: Path) -> None:
    ada, absent, out = people / "Ada" / "0.png", tmp_path / "absent.png", tmp_path / "codes.npz"
    result = cli("identify", db, absent, ada)
    assert result.status == 2 and "absent.png: no such file" in result.err
    assert result.out.splitlines()[1].endswith("cannot decide  (unreadable file)") and " match " in result.out
    rows = list(csv.DictReader(io.StringIO(cli("identify", db, absent, ada, "--csv").out)))
    assert (rows[0]["file"], rows[0]["decision"]) == (str(absent), "cannot decide")
    assert rows[0]["reasons"] == "unreadable file" and rows[1]["subject"] == "Ada"
    assert cli("encode", absent, ada, "-o", out, "--json").json["codes"] == 1
    enrolled = cli("gallery", "enroll", db, "Zoe", absent, tmp_path / "black.png", people / "Joan" / "0.png", "--json")
    assert enrolled.status == 2 and len(enrolled.json["accepted"]) == 1 and len(enrolled.json["rejected"]) == 2
    assert "absent.png: " in enrolled.err and "black.png: " in enrolled.err
    again = cli("gallery", "enroll", db, "Zoe", tmp_path / "black.png", people / "Joan" / "1.png")
    assert again.status == 0 and "black.png: " in again.err  # it could be read, and the other one was kept


def test_identify_names_ties(cli: Cli, db: Path, people: Path) -> None:
    photo = people / "Ada" / "0.png"
    assert cli("gallery", "enroll", db, "Abe", photo).status == 0
    assert "Abe" in cli("identify", db, photo).out and "as near as Ada" in cli("identify", db, photo).out


def test_check(cli: Cli, db: Path) -> None:
    assert cli("gallery", "check", db).out == f"{db} is sound: 6 templates of 3 people\n"
    found = cli("gallery", "check", db, "--json")
    assert found.status == 0 and found.json["sound"] is True and found.json["fingerprint"] == PRINT
    with contextlib.closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE templates SET origin = 'elsewhere' WHERE id = 4")
    result = cli("gallery", "check", db)
    assert result.status == 2 and "template 4 was altered" in result.err
    found = cli("gallery", "check", db, "--json")
    assert found.status == 2 and found.json["sound"] is False and "template 4" in found.json["error"]
    assert cli("gallery", "check", db.parent / "absent.db").status == 2


def test_identify_says_what_is_extrapolated(cli: Cli, db: Path, people: Path) -> None:
    photo = people / "Ada" / "0.png"
    assert "extrapolated" not in cli("identify", db, photo, "--max-fpir", "0.3").out
    assert "(extrapolated)  then " in cli("identify", db, photo, "--max-fpir", "1e-6").out
    assert cli("identify", db, photo, "--max-fpir", "1e-6", "--json").json[0]["faces"][0]["extrapolated"] is True
    assert cli("gallery", "verify", db, "Ada", photo, "--max-fmr", "1e-7").out.endswith("(extrapolated)\n")


def test_identify_csv(cli: Cli, db: Path, people: Path, tmp_path: Path) -> None:
    out = cli("identify", db, people / "Ada" / "0.png", tmp_path / "black.png", "--csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["candidate"] for row in rows} == {"Ada", "Grace", "Joan", ""}
    assert rows[0]["subject"] == rows[0]["candidate"] == "Ada" and rows[0]["rank"] == "1"
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""] and rows[3]["reasons"] == "no face"
    assert cli("identify", db, people, "--csv", "--json").status == 2


def test_list_show_stats(cli: Cli, db: Path, people: Path) -> None:
    assert cli("gallery", "list", db).out.splitlines() == [
        "subject  templates",
        "Ada              2",
        "Grace            2",
        "Joan             2",
    ]
    assert cli("gallery", "list", db, "--json").json[0] == {"subject": "Ada", "templates": 2}
    shown = cli("gallery", "show", db, "Ada", "--json").json
    assert [template["origin"] for template in shown["templates"]] == [str(people / "Ada" / f"{i}.png") for i in (0, 1)]
    assert str(people / "Ada" / "1.png") in cli("gallery", "show", db, "Ada").out
    stats = cli("gallery", "stats", db, "--json").json
    assert (stats["subjects"], stats["templates"], stats["fingerprint"]) == (3, 6, PRINT)
    text = cli("gallery", "stats", db).out
    assert PRINT in text and "people       3\n" in text and "identify     matches up to distance" in text
    assert "{" not in text and "None" not in text
    result = cli("gallery", "show", db, "Zoe")
    assert result.status == 2 and "Zoe" in result.err


def test_remove_and_forget(cli: Cli, db: Path, people: Path) -> None:
    ids = [template["id"] for template in cli("gallery", "show", db, "Ada", "--json").json["templates"]]
    for missing in (999, 10**30):
        result = cli("gallery", "remove", db, ids[0], missing, ids[1])
        assert result.status == 2 and f"no template {missing}" in result.err
    assert len(cli("gallery", "show", db, "Ada", "--json").json["templates"]) == 2
    assert cli("gallery", "remove", db, ids[0]).out == f"removed: 1 templates; no byte of them is left in {db}\n"
    removed = cli("gallery", "remove", db, ids[1], "--json").json
    assert (removed["templates"], removed["complete"], removed["hindrance"]) == (1, True, "")
    assert cli("gallery", "remove", db, ids[1]).status == 2
    assert "Ada" not in cli("gallery", "list", db).out
    assert "no byte of them is left" in cli("gallery", "forget", db, "Joan").out
    assert cli("gallery", "forget", db, "Grace", "--json").json["complete"] is True
    assert b"Joan" not in db.read_bytes()
    (found,) = cli("identify", db, people / "Joan" / "0.png", "--json").json
    assert found["faces"][0]["subject"] is None
    assert cli("gallery", "forget", db, "Joan").status == 2


def test_forgetting_while_somebody_reads(cli: Cli, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness.recognition.gallery import Gallery, Receipt

    receipt = Receipt(2, False, 7, 0.0, "the disk is full")
    monkeypatch.setattr(Gallery, "forget", lambda self, name: receipt)
    monkeypatch.setattr(Gallery, "remove", lambda self, ids: receipt)
    for words in (("forget", db, "Joan"), ("remove", db, 1)):
        out = cli("gallery", *words).out
        assert "(the disk is full); the next one to open it wipes them" in out
    assert cli("gallery", "remove", db, 1, "--json").json == receipt.to_dict()


def test_export_and_import(cli: Cli, db: Path, people: Path, tmp_path: Path) -> None:
    file = tmp_path / "people.npz"
    assert cli("gallery", "export", db, file).out == f"exported 6 templates to {file}\n"
    assert cli("gallery", "export", db, file, "--json").json == {"file": str(file), "templates": 6}
    other = tmp_path / "other.db"
    assert cli("gallery", "import", other, file).out == f"imported 6 templates from {file}\n"
    assert cli("gallery", "list", other).out == cli("gallery", "list", db).out
    again = cli("gallery", "import", other, file)
    assert again.out == f"imported 0 templates from {file}; 6 were there already\n"
    assert cli("gallery", "import", other, file, "--json").json["known"] == 6
    for target in (db, f"{db}-wal"):
        result = cli("gallery", "export", db, target)
        assert result.status == 2 and "the gallery itself" in result.err
    assert cli("gallery", "list", db).out == cli("gallery", "list", other).out
    assert cli("gallery", "import", other, people / "Ada" / "0.png", "--json").status == 2


@pytest.mark.parametrize("verb", ["list", "stats"])
def test_a_gallery_that_is_not_there(cli: Cli, tmp_path: Path, verb: str) -> None:
    result = cli("gallery", verb, tmp_path / "absent.db")
    assert result.status == 2 and "no such gallery" in result.err and not (tmp_path / "absent.db").exists()
    (tmp_path / "notes.txt").write_text("this is not a database, but long enough to be one" * 100)
    result = cli("gallery", verb, tmp_path / "notes.txt")
    assert result.status == 2 and "notes.txt" in result.err


def test_another_encoder_is_refused(cli: Cli, db: Path, people: Path, encoder: ColourEncoder) -> None:
    encoder.fingerprint = "fedcba9876543210"
    result = cli("identify", db, people / "Ada" / "0.png")
    assert result.status == 2 and PRINT in result.err and encoder.fingerprint in result.err
    assert cli("identify", db, people / "Ada" / "0.png", "--encoder", "mine").status == 2


def test_encode(cli: Cli, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes.npz"
    assert cli("encode", people, tmp_path / "black.png", "-o", out).status == 0
    result = cli("encode", people, tmp_path / "black.png", tmp_path / "broken.jpg", "-o", out, "--json")
    assert result.status == 2 and result.json["codes"] == 6
    assert [skip["reasons"] for skip in result.json["skipped"]] == [["no face"], ["unreadable file"]]
    with np.load(out) as npz:
        assert npz["codes"].shape == (6, 16) and npz["codes"].dtype == np.float32
        assert npz["files"].tolist()[0] == str(people / "Ada" / "0.png")
        assert npz["boxes"][0].tolist() == [1, 2, 30, 40] and npz["scores"].shape == (6,)
        assert str(npz["fingerprint"]) == PRINT
    every = cli("encode", tmp_path / "white.png", tmp_path / "broken.jpg", "-o", out, "--all-faces")
    assert (
        every.status == 2
        and every.out == f"2 codes of 2 photographs in {out}, 1 skipped\n"
        and "broken.jpg" in every.err
    )
    assert cli("encode", tmp_path / "black.png", "-o", out, "--json").json["codes"] == 0
    with np.load(out) as npz:
        assert npz["codes"].shape == (0, 16) and npz["boxes"].shape == (0, 4)
    assert cli("encode", people, "-o", tmp_path / "absent" / "codes.npz").status == 2
    assert out.stat().st_mode & 0o077 == 0 or os.name != "posix"


def test_encode_never_replaces_a_photograph(cli: Cli, people: Path, tmp_path: Path) -> None:
    photo = people / "Ada" / "0.png"
    content = photo.read_bytes()
    (tmp_path / "link.npz").symlink_to(photo)
    for target in (photo, tmp_path / "link.npz"):
        result = cli("encode", people, "-o", target)
        assert result.status == 2 and "would be replaced" in result.err
    assert photo.read_bytes() == content
