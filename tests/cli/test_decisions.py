"""`likeness verify`, `detect`, `evaluate`: what is printed and which exit code, with the library's answers given."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from likeness.faces import detection
from likeness.faces.types import Face, Quality
from likeness.recognition import verification
from likeness.recognition.decision import Decision

Cli = Callable[..., Any]
FACE = Face(
    box=(4.0, 5.0, 20.0, 24.0),
    score=0.93,
    landmarks=((9.0, 14.0), (19.0, 14.0), (14.0, 19.0), (10.0, 24.0), (18.0, 24.0)),
    quality=Quality(size=20.0, sharpness=0.5, brightness=0.4, yaw=3.0, pitch=-2.0, roll=1.0),
)


def answer(decision: str, *reasons: str, distance: float | None = None, threshold: float | None = None) -> Decision:
    score = None if distance is None else 1 - distance / 2
    return Decision(decision, distance, score, threshold, 1e-3, reasons, "0123456789abcdef")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "status", "line"),
    [
        (answer("match", distance=0.5, threshold=1.0), 0, "match  distance 0.5000  (threshold 1.0000 at FMR 0.001)"),
        (
            answer("no match", distance=1.5, threshold=1.0),
            1,
            "no match  distance 1.5000  (threshold 1.0000 at FMR 0.001)",
        ),
        (answer("cannot decide", "no face", "too dark"), 2, "cannot decide  no face; too dark"),
        (
            replace(answer("no match", distance=1.5, threshold=1.0), extrapolated=True),
            1,
            "no match  distance 1.5000  (threshold 1.0000 at FMR 0.001)  (extrapolated)",
        ),
        (
            replace(answer("cannot decide", "no face", "too dark"), reasons_b=("no face", "too dark")),
            2,
            "cannot decide  b.jpg: no face, too dark",
        ),
        (
            replace(answer("cannot decide", "no face"), reasons_a=("no face",), reasons_b=("no face",)),
            2,
            "cannot decide  a.jpg: no face; b.jpg: no face",
        ),
        (answer("cannot decide", "no calibration", distance=0.5), 2, "cannot decide  distance 0.5000  no calibration"),
    ],
)
def test_verify(cli: Cli, monkeypatch: pytest.MonkeyPatch, given: Decision, status: int, line: str) -> None:
    asked: list[Any] = []

    def verify(a: Any, b: Any, *, max_fmr: float = 0.25, encoder: str = "own") -> Decision:
        asked.append((a, b, max_fmr, encoder))
        return given

    monkeypatch.setattr(verification, "verify", verify)
    result = cli("verify", "a.jpg", "b.jpg")
    assert (result.status, result.out, result.err) == (status, line + "\n", "")
    result = cli("verify", "a.jpg", "b.jpg", "--json", "--max-fmr", "1e-4", "--encoder", "mine")
    assert result.status == status and result.json == given.to_dict()
    assert asked == [("a.jpg", "b.jpg", 0.25, "own"), ("a.jpg", "b.jpg", 1e-4, "mine")]


def test_verify_refuses_an_unreadable_file_with_2(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").touch()
    for a in ("absent.jpg", "b.jpg"):
        result = cli("verify", tmp_path / a, tmp_path / "b.jpg", "--json")
        assert result.status == 2 and result.out == "" and a in result.err and result.err.count("\n") == 1
    assert cli("verify", "a", "b", "--max-fmr", "7").status == 2
    assert "max-fmr" in cli("verify", "a", "b", "--max-fmr", "x").err


class FakeDetector:
    """Finds one face in pictures wider than high, none in others."""

    asked: list[dict[str, Any]] = []

    @classmethod
    def load(cls, name: str) -> "FakeDetector":
        cls.asked.append({"name": name})
        return cls()

    def detect(self, image: np.ndarray, **options: Any) -> tuple[Face, ...]:
        self.asked.append(options)
        return (FACE,) if image.shape[1] > image.shape[0] else ()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(detection, "Detector", FakeDetector)
    FakeDetector.asked = []
    (tmp_path / "in" / "more").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(tmp_path / "in" / "face.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "in" / "more" / "face.png")
    Image.new("RGB", (40, 60)).save(tmp_path / "in" / "none.png")
    return tmp_path


def test_detect(cli: Cli, pictures: Path) -> None:
    result = cli("detect", pictures / "in", "--json", "--min-score", "0.25", "--min-size", "9")
    assert result.status == 0 and [len(entry["faces"]) for entry in result.json] == [1, 1, 0]
    assert result.json[0] == {"file": str(pictures / "in" / "face.png"), "faces": [FACE.to_dict()]}
    assert FakeDetector.asked[:2] == [{"name": "face-detector"}, {"min_score": 0.25, "min_size": 9.0}]
    text = cli("detect", pictures / "in").out.splitlines()
    assert text[1].split()[1:4] == ["4,5", "20×24", "0.9300"] and text[3].endswith("no face")


def test_detect_goes_on_after_an_unreadable_file(cli: Cli, pictures: Path) -> None:
    (pictures / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = cli("detect", pictures / "in", "--json")
    assert result.status == 2 and len(result.json) == 4 and result.err.count("broken.jpg") == 1
    broken = result.json[0]
    assert broken["faces"] == [] and "damaged" in broken["error"]
    assert "unreadable" in cli("detect", pictures / "in").out
    assert cli("detect", pictures / "absent.jpg").status == 2


def test_detect_draws(cli: Cli, pictures: Path) -> None:
    source, out = pictures / "in" / "face.png", pictures / "seen.png"
    assert cli("detect", source, "--draw", out).status == 0
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == (40, 60, 3) and tuple(drawn[5, 14]) == (0, 200, 83) and tuple(drawn[14, 9]) == (255, 214, 0)
    assert not np.asarray(Image.open(source)).any()  # the photograph itself is left alone
    for _ in range(2):  # again: the same names
        assert cli("detect", pictures / "in", "--draw", pictures / "seen").status == 0
        assert sorted(path.name for path in (pictures / "seen").iterdir()) == ["face-2.png", "face.png", "none.png"]
    result = cli("detect", pictures / "in", "--draw", pictures / "one.png")
    assert result.status == 2 and "folder" in result.err


def test_drawings_never_replace_photographs(cli: Cli, pictures: Path) -> None:
    source = pictures / "in" / "face.png"
    content = {path: path.read_bytes() for path in (pictures / "in").rglob("*.png")}
    (pictures / "other").symlink_to(pictures / "in")
    (pictures / "hard.png").hardlink_to(source)
    for photo, target in (
        (source, source),
        (source, pictures / "in"),
        (source, pictures / "other"),
        (source, pictures / "hard.png"),
        (pictures / "other" / "face.png", source),
        (pictures / "in", pictures / "in"),
        (pictures / "in", pictures / "in" / "more"),
    ):
        result = cli("detect", photo, "--draw", target)
        assert result.status == 2 and "would be replaced" in result.err and result.err.count("\n") == 1
    assert {path: path.read_bytes() for path in (pictures / "in").rglob("*.png")} == content


def test_evaluate_lfw(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness.evaluation import lfw
    from likeness.evaluation.rates import TarAtFar

    folds = tuple(lfw.Fold(i, 0.95 + i / 1000, 1.1, 0) for i in range(1, 11))
    result = lfw.LfwResult(
        accuracy=0.9555,
        standard_error=0.002,
        failed=3,
        failed_pairs=4,
        pairs=6000,
        photographs=7701,
        folds=folds,
        tar_at_far=TarAtFar(1e-3, 0.8, 0.7, 0.9, 0.9, 3000, 2990),
        failures=(("a.jpg", "no face"),),
        seconds=61.0,
        encoder="face",
        fingerprint="0123456789abcdef",
    )
    asked: list[Any] = []

    def evaluate(
        folder: Any, *, encoder: str = "face", lists: Any = None, on_progress: Callable[..., None]
    ) -> lfw.LfwResult:
        asked.append((folder, encoder, lists))
        on_progress(1, 2, {"failed": 0})
        return result

    monkeypatch.setattr(lfw, "evaluate_lfw", evaluate)
    printed = cli("evaluate", "lfw", "pictures", "--json", "--lists", "lists").json
    assert printed == result.to_dict() and {"accuracy", "standard_error", "failed", "folds"} <= set(printed)
    text = cli("evaluate", "lfw", "pictures", "--encoder", "mine").out
    assert "95.55 % ± 0.20" in text and "3 of 7701 photographs" in text and len(text.splitlines()) == 15
    assert asked == [("pictures", "face", "lists"), ("pictures", "mine", None)]
    assert cli("evaluate").status == 2
