"""Reports of any net and samples, and of our nets and pictures: what they show, and that they hold together."""

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import likeness
from likeness.cli.main import main
from likeness.errors import InvalidOption, StorageError
from likeness.lens import dashboard, exhibits, unit_pages
from likeness.lens.dashboard import report
from likeness.lens.models import open_model
from likeness.lens.patches import top_patches
from likeness.nets.activations import activations
from likeness.nets.layers import conv, max_pool
from likeness.progress import Progress
from likeness.samples.images import read_image

SIZES = {1: (48,), 2: (16, 20), 3: (12, 10, 8)}
HOSTILE = "<img src=x onerror=alert(1)>\"'&#?% ../a/\udcff"
VOID = {"meta", "link", "img"}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_pages, "STEPS", 8)


class Page(HTMLParser):
    """Every tag is closed where it should be; links and pictures are kept."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))
        assert not self.open, (file, self.open)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag != "script" and not any(name.startswith("on") for name in values)
        self.targets += [value for name in ("href", "src") if (value := values.get(name))]
        self.anchors |= {value for value in [values.get("id")] if value}
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "line")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def checked(folder: Path) -> dict[str, Page]:
    """All pages of a report: well formed, every link and picture there, nothing from elsewhere, nothing unreachable."""
    pages = {file.relative_to(folder).as_posix(): Page(file) for file in folder.rglob("*.html")}
    reached = {"index.html", "style.css", "patches.json"}
    for name, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            assert not parts.scheme and not parts.netloc, target
            file = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
            assert file.is_file() and file.resolve().is_relative_to(folder.resolve()), (name, target)
            reached.add(file.resolve().relative_to(folder.resolve()).as_posix())
            if parts.fragment:
                assert parts.fragment in pages[file.resolve().relative_to(folder.resolve()).as_posix()].anchors
        assert all(image.get("alt") for image in page.images)
    for file in [*folder.rglob("*.html"), *folder.rglob("*.css"), *folder.rglob("*.svg")]:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//" not in text, file
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} == reached
    return pages


SECOND = '<b>"a/b"&'


class Coder(nn.Module):
    """Maps of two sizes, the second layer with a hostile name, then a code."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(dims)
        self.first = nn.Sequential(conv(dims, 1, 3, 3, padding=1), nn.ReLU())
        self.pool = max_pool(dims, 2)
        self.add_module(SECOND, nn.Sequential(conv(dims, 3, 4, 3, padding=1), nn.ReLU()))
        self.code = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self.get_submodule(SECOND)(self.pool(self.first(x))).flatten(2).mean(2))


def samples(dims: int, n: int = 12) -> Tensor:
    return torch.randn(n, 1, *SIZES[dims], generator=torch.Generator().manual_seed(dims))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_any_net_and_samples(dims: int, tmp_path: Path) -> None:
    x, seen = samples(dims), []
    made = report(
        Coder(dims).eval(),
        list(x),
        tmp_path,
        units=[0, 2],
        k=4,
        names=[f"{HOSTILE} {i}" for i in range(12)],
        subjects=[f"s{i // 2}" for i in range(12)],
        on_progress=lambda done, total, info: seen.append((done, total)),
    )
    assert seen == [(12, 12), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert made.shown == {"first": (0, 2), SECOND: (0, 2)} and made.page == tmp_path / "index.html"
    pages = checked(tmp_path)
    assert SECOND in pages["index.html"].words and len(pages) == 1 + 4 + 6
    unit = next(page for name, page in pages.items() if name.startswith("units/2-"))
    assert HOSTILE.replace("\udcff", "?") in unit.words and "What it looks for" in unit.words
    assert sum("histogram" in name for name in ("", *_labels(tmp_path))) == 4
    ending = "svg" if dims == 1 else "webp"
    assert {file.suffix for file in (tmp_path / "pictures").iterdir()} == {f".{ending}"}
    best = made.patches.layers["first"].hits[0][0]
    assert f"at {' × '.join(f'{a}–{b - 1}' for a, b in best.window)}" in pages["units/1-first-0.html"].words
    assert json.loads((tmp_path / "patches.json").read_text())["files"][3] == f"{HOSTILE} 3"


def _labels(folder: Path) -> list[str]:
    return [
        file.read_text() for file in (folder / "units").glob("*.html") if 'aria-label="histogram' in file.read_text()
    ]


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_pairs_are_the_most_and_the_least_alike_and_their_maps_add_up(dims: int, tmp_path: Path) -> None:
    net, x = Coder(dims).eval(), samples(dims)
    subjects = [f"s{i // 3}" for i in range(12)]  # of three samples each, of which two are looked at
    report(net, x, tmp_path, layers=["first"], units=[0], k=1, subjects=subjects)
    with torch.no_grad():
        codes = nn.functional.normalize(net(x)).double().numpy()
    looked = [i for i in range(12) if i % 3 < 2]
    distance = {(a, b): 2 - 2 * codes[a] @ codes[b] for a in looked for b in looked if a < b}
    pages = [Page(tmp_path / "pairs" / f"{i}.html").words for i in range(1, 7)]
    for kind, shown in ((True, pages[:3]), (False, pages[3:])):
        own = sorted(d for (a, b), d in distance.items() if (subjects[a] == subjects[b]) == kind)
        expected = [own[0], own[round((len(own) - 1) / 2)], own[-1]]
        assert all(f"{d:.3f}" in words for d, words in zip(expected, shown, strict=True))
        assert all(("same subject" if kind else "two subjects") in words for words in shown)
    assert all("accounted for" in words for words in pages)


def test_without_subjects_or_codes_there_are_no_pairs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"layers": ["first"], "units": [0], "k": 1}
    report(Coder(2).eval(), samples(2), tmp_path / "a", **options)
    maps = nn.Sequential(conv(2, 1, 2, 3), nn.ReLU()).eval()
    report(maps, samples(2), tmp_path / "b", layers=["1"], units=[0], k=1, subjects=["s"] * 6 + ["t"] * 6)
    assert not any((tmp_path / name / "pairs").exists() for name in "ab")
    assert all("pairs" not in checked(tmp_path / name)["index.html"].anchors for name in "ab")


def test_a_silent_unit_says_so(tmp_path: Path) -> None:
    net = nn.Sequential(conv(1, 1, 2, 3), nn.ReLU()).eval()
    net[0].weight.data.zero_(), net[0].bias.data.fill_(-1)  # type: ignore[operator,union-attr]
    report(net, samples(1), tmp_path, k=1)
    assert "does not fire" in checked(tmp_path)["units/1-1-0.html"].words
    assert "never fires" in Page(tmp_path / "index.html").words


def test_a_unit_that_fires_once_does_fire(tmp_path: Path) -> None:
    x = -torch.ones(6, 1, 200)
    x[3, 0, 100] = 5  # between the positions that are counted
    made = report(nn.Sequential(nn.Identity()), x, tmp_path, layers=["0"], k=1, patches_only=True)
    assert made.patches.layers["0"].deviation == (0,)
    assert "up to 5" in Page(tmp_path / "index.html").words and "never" not in Page(tmp_path / "index.html").words


def test_an_interrupted_report_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhibits, "BATCH", 1)
    monkeypatch.setattr(dashboard, "top_patches", partial(top_patches, every=0))
    net, x, told = Coder(1).eval(), samples(1, 30), []
    options: dict[str, Any] = {"layers": ["first"], "units": [0, 1], "k": 1, "patches_only": True}

    def stop(when: tuple[int, int]) -> Progress:
        def on_progress(done: int, total: int, info: dict[str, Any]) -> None:
            told.append((done, total))
            if (done, total) == when:
                raise KeyboardInterrupt

        return on_progress

    for when, expected in (
        ((20, 30), [(i, 30) for i in range(1, 21)]),
        ((1, 2), [*((i, 30) for i in range(21, 31)), (1, 2)]),  # while pages are made, after the pass
        ((0, 0), [(1, 2), (2, 2)]),
    ):
        told.clear()
        with contextlib.suppress(KeyboardInterrupt):
            made = report(net, x, tmp_path / "a", on_progress=stop(when), **options)
        assert told == expected
        assert (tmp_path / "a/.patches").exists() == (when != (0, 0))
    assert made.patches == report(net, x, tmp_path / "b", **options).patches
    assert not list(tmp_path.rglob(".patches*"))


@pytest.mark.parametrize("what", ("weights", "kind", "samples", "layers"))
def test_a_report_of_something_else_does_not_go_on(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhibits, "BATCH", 1)
    monkeypatch.setattr(dashboard, "top_patches", partial(top_patches, every=0))
    net, x = Coder(1).eval(), samples(1, 30)
    options: dict[str, Any] = {"layers": ["first"], "units": [0], "k": 1, "patches_only": True}

    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report(net, x, tmp_path / "a", on_progress=stop, **options)
    if what == "weights":
        net.get_submodule("first.0").weight.data.neg_()  # type: ignore[operator,union-attr]
    elif what == "kind":
        net.first[1] = nn.Tanh()
    elif what == "samples":
        x[10] *= 9
    else:
        options["layers"] = [SECOND]
    again = report(net, x, tmp_path / "a", **options)
    assert again.patches == report(net, x, tmp_path / "b", **options).patches


def test_pictures_and_the_patches_that_were_found(vgg: Path, pictures: Path, tmp_path: Path) -> None:
    model = open_model(vgg, size=32)
    made = report(model, pictures, tmp_path / "out", layers=["relu1_1", "relu2_2"], k=4, patches_only=True)
    assert made.skipped == (pictures / "text.png",) and made.patches.samples == 12
    assert made.shown["relu2_2"] == made.patches.layers["relu2_2"].selective(9)
    pages = checked(tmp_path / "out")
    assert "00.png" in "".join(page.words for page in pages.values())
    assert "What it looks for" not in pages["units/1-relu1_1-0.html"].words
    stored = json.loads((tmp_path / "out/patches.json").read_text())
    unit = stored["layers"]["relu2_2"]["units"]["3"]
    hit = unit["hits"][0]
    x = torch.stack([model.tensor(model.picture(read_image(file))) for file in stored["files"]])
    a = activations(model.net, x, ["relu2_2"])["relu2_2"][:, 3].double().numpy()
    assert a[hit["sample"]][tuple(hit["position"])] == pytest.approx(hit["activation"], abs=1e-5)
    assert a.max() == pytest.approx(hit["activation"], abs=1e-5)
    a, reach = a[:, ::2, ::2], unit["histogram"]["reach"]  # 64 of 16 x 16 positions are counted
    counts = np.histogram(a, 128, (-reach, reach))[0]
    assert counts.sum() == 12 * 64 and np.abs(counts - unit["histogram"]["counts"]).sum() <= 4
    assert unit["histogram"]["firing"] == pytest.approx((a > 0).mean(), abs=1e-3)


def test_faces_are_compared_by_their_folders(tmp_path: Path) -> None:
    from likeness.nets.identity import Architecture, Tower, save
    from likeness.samples.images import write_image

    save(Tower(Architecture(size=48, widths=(4, 4, 4), stem=2, blocks=(1, 1, 1))), tmp_path / "tower.safetensors")
    for i in range(4):
        (tmp_path / "people" / f"p{i // 2}").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        write_image(tmp_path / "people" / f"p{i // 2}" / f"{i}.png", noise)
    made = likeness.lens.report(
        tmp_path / "tower.safetensors", tmp_path / "people", tmp_path / "out", layers=["stages.0"], units=[0], k=1
    )
    pages = checked(tmp_path / "out")
    assert made.patches.samples == 4 and "p0/0.png" in pages["pairs/1.html"].words + pages["pairs/2.html"].words


def test_what_cannot_be_is_refused(vgg: Path, pictures: Path, tmp_path: Path) -> None:
    net, x = Coder(1).eval(), samples(1)
    (tmp_path / "empty").mkdir()
    for arguments, options, message in (
        ((net, x), {"k": 5}, "square"),
        ((net, x), {"k": -4}, "k is -4.*square"),
        ((net, x), {"units": "all"}, "selective"),
        ((net, x), {"units": ()}, "at least one"),
        ((net, x), {"units": [0, 7, 9], "layers": ["first"]}, "units 0...2, not 7, 9"),
        ((net, x), {"layers": []}, "name at least one"),
        ((net, x), {"names": ["a"]}, "1 names for 12"),
        ((net, iter(x)), {}, "length"),
        ((net, x[:0]), {}, "none of the 0 samples"),
        ((net, torch.zeros(3, 4)), {}, "spatial axes"),
        ((net, [x[0], x[1], x[2][:, :5]]), {}, "sample 2 is"),
        ((vgg, tmp_path / "empty"), {}, "no picture"),
        ((vgg, pictures), {"names": ["a"]}, "called by their files"),
    ):
        with pytest.raises(InvalidOption, match=message):
            report(*arguments, tmp_path / "out", **options)


class Folded(nn.Module):
    """An operation whose receptive field is not known."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)


class Placed(nn.Module):
    """Samples of one size only."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.place, self.last = nn.Parameter(torch.ones(1, 1, *SIZES[dims])), conv(dims, 1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.place)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_what_cannot_be_made_is_left_away(dims: int, tmp_path: Path) -> None:
    x, parts = samples(dims), [conv(dims, 1, 2, 3), nn.ReLU()]
    made = report(nn.Sequential(*parts, Folded(), nn.ReLU()).eval(), x, tmp_path / "folded", units=[0], k=1)
    assert list(made.shown) == ["1"]
    report(Placed(dims).eval(), x, tmp_path / "placed", layers=["last"], units=[0], k=1)
    words = checked(tmp_path / "placed")["units/1-last-0.html"].words
    assert f"No sample of {' × '.join(['3'] * dims)} could be made for it" in words and "What excites it most" in words


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_pairs_of_which_there_are_no_maps(dims: int, tmp_path: Path) -> None:
    class Beside(Coder):
        def __init__(self, dims: int) -> None:
            super().__init__(dims)
            self.beside = conv(dims, 1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.beside(x)
            return super().forward(x)

    options: dict[str, Any] = {"units": [0], "k": 1, "subjects": [f"s{i // 2}" for i in range(12)]}
    report(Beside(dims).eval(), samples(dims), tmp_path, layers=["beside"], **options)
    pages = checked(tmp_path)
    assert "There are no maps of what counts: the target does not depend" in pages["pairs/1.html"].words
    assert "accounted for" not in pages["pairs/1.html"].words and "pairs" in pages["index.html"].anchors


def test_layers_come_in_the_order_of_computation(tmp_path: Path) -> None:
    options: dict[str, Any] = {"units": [1, 0, 1], "k": 1, "subjects": [f"s{i // 2}" for i in range(12)]}
    made = report(Coder(1).eval(), samples(1), tmp_path, layers=[SECOND, "first", SECOND], **options)
    assert list(made.shown.items()) == [("first", (1, 0)), (SECOND, (1, 0))]
    words = checked(tmp_path)["index.html"].words
    assert words.index("first") < words.index(SECOND)
    assert f"maps of{SECOND}" in Page(tmp_path / "pairs/1.html").words  # the deepest: 24 positions


def test_the_field_drawn_is_that_of_the_unit_in_the_middle(tmp_path: Path) -> None:
    net = nn.Sequential(conv(1, 1, 1, 9, padding=4)).eval()
    report(net, samples(1), tmp_path, layers=["0"], units=[0], k=1, patches_only=True)
    (frame,) = re.findall(
        r'<rect x="([\d.]+)" width="([\d.]+)"[^>]*stroke-width', (tmp_path / "pictures/field-1.svg").read_text()
    )
    left, width = (float(value) / exhibits.SIDE * 48 for value in frame)
    assert (left, width) == pytest.approx((20, 9), abs=0.05)  # position 24 and four on each side


def test_the_sample_of_the_overview_is_no_extreme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = samples(2, 5)
    x[:, 0, 3, 3] = torch.tensor([9.0, 8, 7, 6, 5])
    x = torch.cat(
        [x.roll(i, 0) for i in range(3)], 1
    )  # of the three units 9 at another sample each, in other strengths
    x *= torch.tensor([1.0, 5, 2])[:, None, None]
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        exhibits, "write", lambda stem, drawing: drawn.setdefault(stem.name, drawing) is None or stem.name
    )
    monkeypatch.setattr(exhibits, "draw", lambda shown, **_: shown[0].sample)
    report(nn.Sequential(nn.Identity()), x, tmp_path, layers=["0"], k=1, patches_only=True)
    low, high = float(x.min()), float(x.max())
    assert drawn["depth"] == pytest.approx(((x[2] - low) / (high - low)).numpy())  # unit 2: 18, between 9 and 45


def test_subjects_with_several_samples_come_first(tmp_path: Path) -> None:
    """Where two subjects have several samples, others are left out; else all are in."""
    net, x = Coder(1).eval(), samples(1, 6)
    options: dict[str, Any] = {"layers": ["first"], "units": [0], "k": 1}
    report(net, x, tmp_path / "several", subjects=["a", "a", "b", "b", "lone", "other"], **options)
    words = "".join(page.words for name, page in checked(tmp_path / "several").items() if name.startswith("pairs"))
    assert all(f"sample {i}" in words for i in range(4)) and "sample 4" not in words and "sample 5" not in words
    report(net, x, tmp_path / "one", subjects=["a", "a", "a", "b", "c", "d"], **options)
    pages = checked(tmp_path / "one")
    kinds = [pages[f"pairs/{i}.html"].words for i in range(1, 5)]
    assert ["same subject" in words for words in kinds] == [True, False, False, False]


def test_pages_of_an_earlier_report_go_and_nobody_elses(tmp_path: Path) -> None:
    net, x, out = Coder(1).eval(), samples(1), tmp_path / "out"
    options: dict[str, Any] = {"k": 1, "subjects": [f"s{i // 2}" for i in range(12)]}
    report(net, x, out, layers=["first", SECOND], units=[0, 2], **options)
    others = [out / "units/mine.html", out / "pictures/mine.svg", out / "notes.txt", tmp_path / "outside.html"]
    for file in others:
        file.write_text("mine")
    record = json.loads((out / "patches.json").read_text())
    record["pages"] += ["../outside.html", "units/../../outside.html", "notes.txt", str(tmp_path / "outside.html")]
    (out / "patches.json").write_text(json.dumps(record))
    report(net, x, out, layers=["first"], units=[1], patches_only=True, **options)
    assert all(file.read_text() == "mine" for file in others)
    for file in others:
        file.unlink()
    assert set(checked(out)) == {"index.html", "units/1-first-1.html"} and not (out / "pairs").exists()


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "units").write_text("a file")
    with pytest.raises(StorageError, match="cannot be a report's folder"):
        report(Coder(1).eval(), samples(1), tmp_path, layers=["first"], units=[0])


def test_pictures_of_several_places(vgg: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    model, places = open_model(vgg, size=32), ["00.png", pictures.resolve() / "01.png"]
    for name in ("nets/vgg-v1.5", "nets/vgg-v1.5.safetensors"):
        report(replace(model, name=name), places, tmp_path / "out", layers=["relu1_1"], units=[0], patches_only=True)
        pages = checked(tmp_path / "out")
        assert "What vgg-v1.5 sees" in pages["index.html"].words
        assert all(f"· {i:02}.png ·" in pages["units/1-relu1_1-0.html"].words for i in range(2))


def test_a_report_among_its_pictures_is_none_of_them(vgg: Path, pictures: Path, tmp_path: Path) -> None:
    for place, inner in ((tmp_path / "a", "report"), (tmp_path / "b", "")):
        place.mkdir()
        for i in range(3):
            (place / f"{i}.png").write_bytes((pictures / f"{i:02}.png").read_bytes())
        for _ in range(2):
            options: dict[str, Any] = {"layers": ["relu1_1"], "units": [0], "patches_only": True}
            made = report(open_model(vgg, size=32), place, place / inner, **options)
            assert list((place / inner).glob("pictures/*.webp")) and made.patches.samples == 3
    with pytest.raises(InvalidOption, match="no picture in .* besides those of the report"):
        report(open_model(vgg, size=32), tmp_path / "b" / "pictures", tmp_path / "b")


def test_each_sample_is_asked_for_once_in_a_pass() -> None:
    class Counted(list[Tensor]):
        asked: ClassVar[list[int]] = []

        def __getitem__(self, i: Any) -> Any:
            self.asked.append(i)
            return super().__getitem__(i)

    kept = exhibits.of_samples(Counted(samples(1, 40)), None, None)
    assert [len(x) for x in kept.batches()] == [32, 8] and Counted.asked == list(range(40))


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    net, x, mine = Coder(1).eval(), samples(1), tmp_path / "mine" / "index.html"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InvalidOption, match="would be replaced"):
        report(net, x, mine.parent, layers=["first"], units=[0], patches_only=True)
    assert mine.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]
    with pytest.raises(StorageError, match=r"index\.html cannot be a report's folder"):
        report(net, x, mine, layers=["first"], units=[0], patches_only=True)
    for _ in range(2):  # its own pages are
        report(net, x, tmp_path / "out", layers=["first"], units=[0], patches_only=True)


def test_the_command_line(vgg: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "layers", str(vgg), "--size", "32"]) == 0
    assert "relu2_2" in capsys.readouterr().out
    for verb in ("patches", "report"):
        out = tmp_path / verb
        words = ["lens", verb, str(vgg), str(pictures), "--size", "32", "-o", str(out)]
        assert main([*words, "--layers", "relu1_1,relu2_1", "--units", "0-1,3", "--k", "1", "--json"]) == 2
        said = capsys.readouterr()  # one of the pictures is a text, which a script has to hear of
        assert "text.png: cannot be read" in said.err
        told = json.loads(said.out)
        assert told["shown"]["relu2_1"] == [0, 1, 3] and told["samples"] == 12 and Path(told["page"]).is_file()
        assert len(told["skipped"]) == 1
    for more, message in (
        (["--layers", "relu9"], "relu"),
        (["--layers", "relu1_1", "--k", "5"], "square"),
        (["--layers", "relu1_1", "--units", "x"], "0-8"),
        (["--layers", "relu1_1", "--units", "5-3"], "0-8"),
        (["--layers", "relu1_1", "--units", "7"], "0...3"),
    ):
        try:
            status = main([*words, *more])
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert message in capsys.readouterr().err


def test_an_interrupted_command_says_that_it_can_go_on(
    vgg: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dashboard, "top_patches", interrupted)
    for verb in ("patches", "report"):
        words = ["lens", verb, str(vgg), str(pictures), "--layers", "relu1_1", "-o", str(tmp_path)]
        assert main(words) == 130
        said = capsys.readouterr()
        assert said.out == "" and said.err == "likeness: interrupted; the same command goes on where it was\n"


def test_hearts_and_heads(data: Path, tmp_path: Path) -> None:
    """An ECG and a CT, with nets that have learnt nothing."""
    ecg = np.load(data / "ecg" / "ecgid90.npz")["filtered"][:8, None, :1000].astype(np.float32) / 200
    head = np.load(data / "volume" / "ct_headsq_93x64x64.npz")["volume"].astype(np.float32)
    parts = np.stack([head[None, i : i + 24, 8:56, 8:56] for i in range(0, 64, 8)]) / head.max()
    for dims, x in ((1, ecg), (3, parts)):
        made = report(Coder(dims).eval(), x, tmp_path / str(dims), units=[0], patches_only=True)
        assert len(checked(tmp_path / str(dims))) == 3
        assert made.patches.samples == 8
