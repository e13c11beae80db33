"""`make demo`: the page on made-up decisions, and (slow) the whole demo with the weights that ship."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import demo_report

    return demo_report


def self_contained(page: str) -> bool:
    return not re.search(r"(src|href)\s*=\s*[\"'](?!data:|#)", page) and "@import" not in page


def test_page(report, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "navy").save(tmp_path / "a.jpg", exif=exif)
    cards = [
        report.Card("<b>Ada</b>", tmp_path / "a.jpg", [[1, 2, 10, 12]], "match: Ada", "", 0.5, 1.0, True, 12.3),
        report.Card("nobody", tmp_path / "a.jpg", [], "cannot decide", "no face", None, None, False, 4.0),
    ]
    layer = report.Layer("Layer <1>", "sees", [Image.new("RGB", (9, 9), "red")] * 2)
    sections = [report.Section("Who", "text", cards)]
    path = report.write_report(tmp_path / "out" / "r.html", sections, {"version": "1"}, [layer])
    page = path.read_text(encoding="utf-8")
    assert "<b>Ada</b>" not in page and "&lt;b&gt;Ada" in page
    assert 'viewBox="0 0 20 40"' in page  # upright by EXIF
    assert page.count('class="card wrong"') == 1 and "1 of 2 as expected" in page
    assert "Layer &lt;1&gt;" in page and page.count("<img") == 2
    assert "width:25.0%" in page and "left:50.0%" in page
    assert self_contained(page)


def test_only_what_the_demo_made_is_replaced(report, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import demo

    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    (mine / "photos" / "holiday.jpg").write_bytes(b"x")
    for place in (mine, mine / "photos" / "holiday.jpg"):
        with pytest.raises(SystemExit, match="not made by this demo"):
            demo.fresh(place)
    assert (mine / "photos" / "holiday.jpg").read_bytes() == b"x"
    out = tmp_path / "out"
    for _ in range(2):
        demo.fresh(out)
        (out / "photos").mkdir()
        (out / "report.html").write_text("old")
    (out / "notes.txt").write_text("mine")
    demo.fresh(out)
    assert sorted(path.name for path in out.iterdir()) == [demo.MARK, "notes.txt"]


@pytest.mark.slow
def test_demo_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--out", tmp_path / "demo"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert self_contained(page) and page.count("<figure") == 65 and page.count("<img") == 45
    assert (tmp_path / "demo" / "layers.jpg").is_file()
    counts = dict(re.findall(r"^(\w+).*?(\d+) of \d+ as expected$", done.stdout, re.MULTILINE))
    assert counts["Enrolled"] == "2" and counts["Strangers"] == "19"
    assert int(counts["Verify"]) >= 20 and int(counts["Identify"]) >= 12
