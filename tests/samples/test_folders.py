"""Folders of pictures and of subjects."""

import unicodedata
from pathlib import Path

import pytest

from likeness.errors import UnreadableFile
from likeness.samples.folders import Sample, list_images, read_subjects


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for name in (
        "Ada/2.jpg",
        "Ada/10.JPG",
        "Ada/notes.txt",
        "Ada/.hidden.jpg",
        "Ada/holiday/beach.png",
        "Grace.webp",
        ".git/x.jpg",
        "empty/readme.md",
        "Ada.jpeg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_read_subjects(people: Path) -> None:
    samples = read_subjects(people)
    found = [(sample.subject, sample.path.relative_to(people).as_posix()) for sample in samples]
    assert found == [
        ("Ada", "Ada/10.JPG"),
        ("Ada", "Ada/2.jpg"),
        ("Ada", "Ada/holiday/beach.png"),
        ("Ada", "Ada.jpeg"),
        ("Grace", "Grace.webp"),
    ]
    assert samples[0].to_dict() == {"subject": "Ada", "path": str(people / "Ada/10.JPG")}
    assert samples[0] == Sample("Ada", people / "Ada/10.JPG")


def test_names_are_composed(tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "José")
    folder.mkdir()
    (folder / "a.jpg").touch()
    assert read_subjects(tmp_path)[0].subject == unicodedata.normalize("NFC", "José")


def test_folders_without_subjects(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no pictures found"):
        read_subjects(tmp_path)
    with pytest.raises(UnreadableFile, match="no such folder"):
        read_subjects(tmp_path / "absent")
    (tmp_path / "file.jpg").touch()
    with pytest.raises(UnreadableFile, match="is a file"):
        read_subjects(tmp_path / "file.jpg")


def test_list_images(people: Path) -> None:
    odd = people / "Ada" / "notes.txt"  # named by itself, so it is tried
    assert list_images([odd, people / "Ada", odd]) == [
        odd,
        people / "Ada/10.JPG",
        people / "Ada/2.jpg",
        people / "Ada/holiday/beach.png",
    ]
    assert list_images(str(people / "Grace.webp")) == [people / "Grace.webp"]
    assert list_images(people / "empty") == []
    with pytest.raises(UnreadableFile, match="absent: no such file"):
        list_images([people / "absent"])


def test_a_folder_that_cannot_be_listed_is_an_error(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UnreadableFile, match="Permission denied"):
        list_images(people)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UnreadableFile, match="Permission denied"):
        read_subjects(people)


def test_an_empty_name_is_not_the_present_folder() -> None:
    for paths in ("", ["", "a.jpg"]):
        with pytest.raises(UnreadableFile, match="empty name"):
            list_images(paths)
