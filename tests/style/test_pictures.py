"""`likeness.stylize` and `likeness stylize`: pictures, masks, colours, files, and what goes wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as pictures

from likeness.cli.main import main
from likeness.errors import FingerprintMismatch, InvalidOption, StorageError, UnreadableFile, WeightsError
from likeness.nets.perceptual import Architecture, Vgg, load, save
from likeness.samples.images import read_image, write_image
from likeness.style.objective import Style, objective
from likeness.style.pictures import StylizedPicture, estimate_stylize, restylize, stylize

FAST: dict[str, Any] = {
    "size": 64,
    "steps": 8,
    "content_layers": {"relu2_1": 1.0},
    "style_layers": {"relu1_1": 1.0},
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("encoder") / "vgg.safetensors"
    save(Vgg(Architecture(widths=(6, 8), depths=(1, 1))), file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_image(folder / "content.png", pictures.astronaut()[:300, :400])
    write_image(folder / "style.png", pictures.coffee()[:200, :260])
    write_image(folder / "other.png", pictures.cat()[:200, :200])
    half = np.zeros((300, 400, 3), np.uint8)
    half[:, :200] = 255
    write_image(folder / "left.png", half)
    write_image(folder / "right.png", 255 - half)
    write_image(folder / "all.png", np.full((200, 260, 3), 255, np.uint8))
    write_image(folder / "all2.png", np.full((200, 200, 3), 255, np.uint8))
    return folder


def test_a_picture_of_the_right_size(encoder: Path, folder: Path, tmp_path: Path) -> None:
    picture = stylize(folder / "content.png", folder / "style.png", encoder=encoder, **FAST)
    assert picture.image.shape == (48, 64, 3)
    assert picture.image.dtype == np.uint8
    picture.save(tmp_path / "out.png")
    assert np.array_equal(read_image(tmp_path / "out.png"), picture.image)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["J"] == list(picture.run.J) == list(picture.trace)
    assert record["settings"]["content"] == str(folder / "content.png")
    assert min(picture.run.J) < picture.run.J[0]


def test_styles_blend_and_masks_divide(encoder: Path, folder: Path) -> None:
    styles = [folder / "style.png", folder / "other.png"]
    alone = stylize(folder / "content.png", styles[0], encoder=encoder, **FAST).image
    blended = stylize(folder / "content.png", styles, encoder=encoder, blend=(1, 0), **FAST).image
    assert np.array_equal(alone, blended)
    masks = [(folder / "left.png", folder / "all.png"), (folder / "right.png", folder / "all2.png")]
    divided = stylize(folder / "content.png", styles, encoder=encoder, masks=masks, content_weight=0, **FAST).image
    assert not np.array_equal(divided, alone)
    with pytest.raises(InvalidOption, match="does not have the shape"):
        stylize(folder / "content.png", styles[0], encoder=encoder, masks=[(folder / "all2.png", folder / "all.png")])
    with pytest.raises(InvalidOption, match="blend has 1"):
        stylize(folder / "content.png", styles, encoder=encoder, blend=(1,), **FAST)


def test_masks_and_blends_are_those_of_J(encoder: Path, folder: Path, tmp_path: Path) -> None:
    """Pictures of masks become the regions and masks of `objective`, each where it belongs, and gray is half."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for name in ("content", "one", "two")}
    gray = {name: rng.integers(1, 256, (48, 64, 1), dtype=np.uint8).repeat(3, 2) for name in ("c1", "s1", "c2", "s2")}
    for name, image in (images | gray).items():
        write_image(tmp_path / f"{name}.png", image)
    file = {name: tmp_path / f"{name}.png" for name in images | gray}
    options: dict[str, Any] = {"content_weight": 0.0, "style_weight": 1.0}
    layers = {name: FAST[name] for name in ("content_layers", "style_layers")}

    def found(styles: list[str], **more: Any) -> float:
        run = {**FAST, **options, "steps": 1, "scales": 1, **more}
        return stylize(file["content"], [file[one] for one in styles], encoder=encoder, **run).run.parts.J

    def expected(*styles: Style) -> float:
        content = torch.from_numpy(images["content"] / np.float32(255)).permute(2, 0, 1)[None]
        return objective(load(encoder), content, styles, **options, **layers).parts(content).J

    def style(name: str, region: str | None = None, mask: str | None = None, weight: float = 1.0) -> Style:
        sample = torch.from_numpy(images[name] / np.float32(255)).permute(2, 0, 1)[None]
        masks = {one: torch.from_numpy(image[:, :, 0] / np.float32(255)) for one, image in gray.items()}
        return Style(sample, weight, region and masks[region], mask and masks[mask])

    one, two = expected(style("one")), expected(style("two"))
    assert abs(one - two) > 0.02 * one
    assert found(["one", "two"], blend=(0.7, 0.3)) == pytest.approx(0.7 * one + 0.3 * two, rel=1e-5)
    part = expected(style("one", "c1"))
    assert found(["one"], masks=[(file["c1"],)]) == pytest.approx(part, rel=1e-5)
    for wrong_kind in ([file["c1"]], [()], [(file["c1"], file["s1"], file["s1"])]):
        with pytest.raises(InvalidOption, match="each entry of masks must be"):
            found(["one"], masks=wrong_kind)
    both = expected(style("one", "c1", "s1"), style("two", "c2", "s2"))
    masks = [(file["c1"], file["s1"]), (file["c2"], file["s2"])]
    assert found(["one", "two"], masks=masks) == pytest.approx(both, rel=1e-5)
    for others in ([("c1", "c1"), ("c2", "s2")], [("s1", "c1"), ("s2", "c2")], [("c2", "s2"), ("c1", "s1")]):
        wrong = expected(*(style(name, *pair) for name, pair in zip(("one", "two"), others, strict=True)))
        assert abs(wrong - both) > 1e-3 * both  # the check above tells them apart
    with pytest.raises(InvalidOption, match="wide.png of 64 x 36 pixels does not have the shape of its style, 64 x 48"):
        write_image(tmp_path / "wide.png", gray["s1"][:36])
        found(["one"], masks=[(file["c1"], tmp_path / "wide.png")])


def test_colours(encoder: Path, folder: Path) -> None:
    def chroma(image: np.ndarray) -> np.ndarray:
        return (image.astype(float) @ np.array([[0.5959, 0.2115], [-0.2746, -0.5227], [-0.3213, 0.3112]])).mean((0, 1))

    content = read_image(folder / "content.png")
    options = FAST | {"content_weight": 0.0, "steps": 30}
    made = {
        keep: stylize(folder / "content.png", folder / "style.png", encoder=encoder, keep_color=keep, **options).image
        for keep in ("no", "luminance", "histogram")
    }
    away = {keep: np.abs(chroma(image) - chroma(content)).max() for keep, image in made.items()}
    assert away["luminance"] < 0.5 * away["no"]
    assert away["histogram"] < away["no"]
    with pytest.raises(InvalidOption, match="keep_color"):
        stylize(folder / "content.png", folder / "style.png", encoder=encoder, keep_color="hue")


def test_the_record_makes_the_same_picture_again(encoder: Path, folder: Path, tmp_path: Path) -> None:
    masks = [(folder / "left.png", folder / "all.png"), (folder / "right.png",)]
    options = FAST | {"init": "noise", "seed": 3, "masks": masks, "blend": (0.3, 0.7), "scales": 1, "tile": 16}
    picture = stylize(folder / "content.png", [folder / "style.png", folder / "other.png"], encoder=encoder, **options)
    picture.save(tmp_path / "out.png")
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert settings["masks"] == [[str(one) for one in pair] for pair in masks]
    assert (settings["precision"], settings["tile"], settings["history"]) == ("fp32", 16, 10)
    again = restylize(tmp_path / "out.json")
    assert np.array_equal(again.image, picture.image)
    assert again.run.J == picture.run.J
    assert again.run.settings == settings
    assert np.array_equal(stylize(**settings).image, picture.image)
    other = restylize(tmp_path / "out.json", seed=4)
    assert not np.array_equal(other.image, picture.image)
    torch.manual_seed(5)
    save(Vgg(Architecture(widths=(6, 8), depths=(1, 1))), tmp_path / "other.safetensors")
    renamed = restylize(tmp_path / "out.json", encoder=tmp_path / "other.safetensors", size=80)
    assert renamed.image.shape == (60, 80, 3) and renamed.run.settings["fingerprint"] != settings["fingerprint"]
    assert renamed.run.settings["tile"] is None and renamed.run.settings["scales"] > 0  # chosen anew
    write_image(tmp_path / "narrow.png", pictures.coffee()[:30, :300])
    plain = stylize(
        folder / "content.png", folder / "style.png", encoder=encoder, **FAST | {"size": 200, "scales": None}
    )
    plain.save(tmp_path / "scales.png")
    assert plain.run.settings["scales"] == 1
    (tmp_path / "scales.json").write_text((tmp_path / "scales.json").read_text().replace('"scales": 1', '"scales": 4'))
    narrow = restylize(tmp_path / "scales.json", style=tmp_path / "narrow.png")  # whose own shape allows fewer
    assert narrow.run.settings["scales"] == 1
    record = (tmp_path / "out.json").read_text().replace(str(encoder), str(tmp_path / "other.safetensors"))
    (tmp_path / "altered.json").write_text(record)
    with pytest.raises(FingerprintMismatch, match="is asked for"):
        restylize(tmp_path / "altered.json")


def test_records_that_cannot_be_used(encoder: Path, folder: Path, tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"settings": {}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UnreadableFile, match="bad.json"):
            restylize(tmp_path / "bad.json")
    content = read_image(folder / "content.png")
    stylize(content, folder / "style.png", encoder=encoder, **FAST | {"steps": 1}).save(tmp_path / "out.png")
    with pytest.raises(InvalidOption, match="not all of its pictures were files"):
        restylize(tmp_path / "out.json")
    assert restylize(tmp_path / "out.json", content=folder / "content.png").image.shape == (48, 64, 3)
    named = {"content": content, "style": read_image(folder / "style.png")}  # whatever `stylize` takes
    for style in (named["style"], folder / "style.png", [named["style"]]):
        assert restylize(tmp_path / "out.json", **named | {"style": style}).image.shape == (48, 64, 3)


def test_numbers_of_numpy_are_numbers(encoder: Path, folder: Path, tmp_path: Path) -> None:
    options = FAST | {"size": np.int64(64), "style_weight": np.float32(3), "blend": np.array([0.5, 0.5])}
    styles = [folder / "style.png", folder / "other.png"]
    picture = stylize(folder / "content.png", styles, encoder=encoder, checkpoint=str(tmp_path / "run"), **options)
    picture.save(tmp_path / "out.png")
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert (settings["size"], settings["style_weight"], settings["blend"]) == (64, 3.0, [0.5, 0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": []}, "at least one style"),
        ({"style_layers": {}}, "style_layers names no layer"),
        ({"style_layers": {}, "content_layers": {}}, "style_layers names no layer"),
        ({"blend": (0,)}, "weights of all styles are 0"),
        ({"blend": (-1,)}, "weight of style 1 is -1"),
        ({"checkpoint": "run.safetensors", "checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    encoder: Path, folder: Path, options: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"style": folder / "style.png", "encoder": encoder, **FAST} | options
    with pytest.raises(InvalidOption, match=message):
        stylize(folder / "content.png", **given)
    if "checkpoint_every" not in options:
        with pytest.raises(InvalidOption, match=message):
            estimate_stylize(folder / "content.png", **given)


def test_bad_files(encoder: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="missing.png"):
        stylize(folder / "missing.png", folder / "style.png", encoder=encoder, **FAST)
    bytes_ = bytearray(encoder.read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(bytes_[:-10])
    with pytest.raises(WeightsError, match="cut.safetensors"):
        stylize(folder / "content.png", folder / "style.png", encoder=tmp_path / "cut.safetensors", **FAST)


def words(folder: Path, encoder: Path, out: Path, *more: str) -> list[str]:
    plain = "--size 64 --steps 6 --content-layers relu2_1 --style-layers relu1_1=.5,relu2_1=.5 --precision fp32"
    files = [str(folder / "content.png"), str(folder / "style.png"), "-o", str(out), "--encoder", str(encoder)]
    return ["stylize", *files, *plain.split(), *more]


def test_the_command_line(encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview = tmp_path / "previews"
    assert main(words(folder, encoder, tmp_path / "out.png", "--json", "--preview", str(preview))) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"J", "parts", "seconds", "steps", "peak_memory_bytes", "settings"} <= report.keys()
    assert len(report["J"]) == 6
    assert [file.name for file in preview.iterdir()] == ["out-00005.jpg"]
    stored = (preview / "out-00005.jpg").read_bytes()
    mine = words(folder, encoder, tmp_path / "out.png", "--preview", str(preview))
    mine[1] = str(preview / "out-00005.jpg")  # a preview of before is the content now
    assert main(mine) == 2 and "would be replaced" in capsys.readouterr().err
    assert (preview / "out-00005.jpg").read_bytes() == stored
    assert main(words(folder, encoder, Path("."))) == 2
    assert "the name must end in" in capsys.readouterr().err
    assert read_image(tmp_path / "out.png").shape == (48, 64, 3)
    assert main(words(folder, encoder, tmp_path / "out.jpg", "--tile", "16", "--keep-color", "luminance")) == 0
    assert "evaluations" in capsys.readouterr().out


def test_a_run_is_kept_until_its_picture_is_saved(
    encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = tmp_path / "run.safetensors", tmp_path / "out.png"
    assert main(words(folder, encoder, tmp_path / "whole.png")) == 0

    def full(*_: object) -> None:
        raise StorageError("cannot write out.png: disk full")

    with monkeypatch.context() as patch:
        patch.setattr(StylizedPicture, "save", full)
        assert main(words(folder, encoder, out, "--resume", str(store))) == 2
    assert "disk full" in capsys.readouterr().err
    assert store.exists() and not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr("likeness.style.stylize.within_range", full)  # nothing is left to be evaluated
        assert main(words(folder, encoder, out, "--resume", str(store))) == 0
    assert out.read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert not store.exists()
    again = restylize(tmp_path / "out.json")
    assert np.array_equal(again.image, read_image(out))


@pytest.mark.parametrize("name", ["out.png", "out.json"])
def test_a_run_is_not_kept_where_its_result_goes(
    name: str, encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be deleted with the run."""
    assert main(words(folder, encoder, tmp_path / "out.png", "--resume", str(tmp_path / name))) == 2
    assert name in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_estimate_counts_the_warm_up(encoder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.style.pictures.SLIM", str(encoder))
    torch.manual_seed(1)
    large = folder / "large.safetensors"
    save(Vgg(Architecture(widths=(32, 48), depths=(1, 1))), large)
    for wanted in (True, False):
        found = estimate_stylize(
            folder / "content.png", folder / "style.png", encoder=large, warm_up=wanted, **FAST, memory_limit=10**12
        )
        assert found.warm_up is wanted


def test_an_estimate_does_nothing(
    encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, encoder, tmp_path / "out.png", "--estimate", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size"] == [48, 64] and report["tile"] is None and report["seconds"] > 0
    assert main(words(folder, encoder, tmp_path / "out.png", "--estimate", "--tile", "16")) == 0
    assert "64 x 48 pixels, 1 scales, tiles of 16, 10 L-BFGS pairs:" in capsys.readouterr().out
    assert main(words(folder, encoder, tmp_path / "out.png", "--estimate", "--memory-limit", "0.001")) == 2
    assert "MB can be had" in capsys.readouterr().err
    assert main(words(folder, encoder, tmp_path / "out.png", "--estimate", "--optimizer", "adam")) == 0
    assert "1 scales, no tiles: " in capsys.readouterr().out
    assert main(words(folder, encoder, tmp_path / "out.png", "--tile", "abc")) == 2
    assert "'abc' is not auto, off or a number of pixels" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--style-layers", "relu1_9=1"), "relu1_"),
        (("--style-layers", "relu1_1=x"), "relu1_1=x"),
        (("--style-layers", "relu1_1=.2,relu1_1=.8"), "named twice"),
        (("--style-layers", "relu1_1=.2,"), "without a name"),
        (("--statistic", "foo"), "there are gram, mean-std"),
        (("--blend", "1,a"), "list of numbers"),
        (("--mask", ":s.png"), "CONTENT_MASK:STYLE_MASK"),
        (("--mask", "only.png"), "only.png"),
        (("--tile", "big"), "--tile"),
        (("--tile", "3"), "multiple of 2"),
        (("--tile", "-8"), "tile is -8; it must be a multiple of 2"),
        (("--tile", "0", "--estimate"), "tile is 0; it must be a multiple of 2"),
        (("--memory-limit", "nan"), "--memory-limit: 'nan' is not a number of gigabytes"),
        (("--memory-limit", "inf", "--estimate"), "--memory-limit: 'inf' is not"),
        (("--memory-limit", "-1"), "'-1' is not"),
        (("--memory-limit", "lots"), "'lots' is not"),
        (("--size", "2"), "positions"),
        (("--init", "nosuch.png"), "nosuch.png"),
    ],
)
def test_errors_are_one_line(
    encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple, message: str
) -> None:
    assert main(words(folder, encoder, tmp_path / "out.png", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert "Traceback" not in error and "internal error" not in error
    assert not (tmp_path / "out.png").exists()


def test_pictures_that_do_not_fit_are_refused_before_they_are_made(encoder: Path, folder: Path) -> None:
    files = folder / "content.png", folder / "style.png"
    for call in (stylize, estimate_stylize):
        with pytest.raises(InvalidOption, match=r"would take more than .* GB can be had; choose a size below \d+"):
            call(*files, encoder=encoder, **FAST | {"size": 1_000_000})
        with pytest.raises(InvalidOption, match=r"and 1\.0 GB can be had; choose a size below 5\d{3}$"):
            call(*files, encoder=encoder, memory_limit=10**9, **FAST | {"size": 30_000})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "nois"}, "did you mean 'noise'"),
        ({"init": "xyz"}, "no file is called so$"),
        ({"seed": 10**30}, "seed is 1000"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_starts_and_seeds_that_cannot_be(encoder: Path, folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        stylize(folder / "content.png", folder / "style.png", encoder=encoder, **FAST | options)


def test_a_black_mask_is_a_mistake(encoder: Path, folder: Path) -> None:
    write_image(folder / "black.png", np.zeros((300, 400, 3), np.uint8))
    masks = [(folder / "black.png", folder / "all.png")]
    with pytest.raises(InvalidOption, match="mask of the content is black"):
        stylize(folder / "content.png", folder / "style.png", encoder=encoder, masks=masks, **FAST)


def test_a_record_is_good_in_every_folder(
    encoder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    picture = stylize("content.png", "style.png", encoder=encoder, init="other.png", **FAST)
    picture.save(tmp_path / "out.png")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(restylize("out.json").image, picture.image)


def test_a_picture_without_its_record_is_told_of(
    encoder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = stylize(folder / "content.png", folder / "style.png", encoder=encoder, **FAST | {"steps": 1})
    (tmp_path / "out.json").mkdir()
    with pytest.raises(StorageError, match="out.png is written, but not its record: .*out.json: it is a folder"):
        picture.save(tmp_path / "out.png")


def test_a_picture_never_replaces_what_it_was_made_from(encoder: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("content.png", "style.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    files = tmp_path / "content.png", tmp_path / "style.png"
    made = stylize(*files, encoder=encoder, masks=[(folder / "left.png",)], **FAST | {"steps": 1})
    assert list(made.sources) == [str(one) for one in (*files, folder / "left.png")]
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    for one in files:
        with pytest.raises(StorageError, match="the picture was made from"):
            made.save(one)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    made.save(tmp_path / "out.png")
    write_image(files[0], pictures.cat()[:300, :400])  # another picture takes the content's name
    with pytest.raises(InvalidOption, match="content.png is not the file that .*out.json tells of"):
        restylize(tmp_path / "out.json")
    assert restylize(tmp_path / "out.json", content=files[0]).image.shape == made.image.shape


def test_a_record_never_tells_of_another_picture(
    encoder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full after the picture, the record of the one before goes with it."""
    picture = stylize(folder / "content.png", folder / "style.png", encoder=encoder, **FAST | {"steps": 1})
    picture.save(tmp_path / "out.png")

    def full(*_: object) -> None:
        raise StorageError("cannot write out.json: No space left on device")

    monkeypatch.setattr("likeness.style.pictures.atomic_write", full)
    with pytest.raises(StorageError, match="out.png is written, but not its record"):
        picture.save(tmp_path / "out.png")
    assert [one.name for one in tmp_path.iterdir()] == ["out.png"]


def test_where_no_picture_can_go_is_found_before_the_work(
    encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likeness.style.pictures.stylize_sample", None)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/null")
    for name, message in (
        ("folder.png", "is not a file"),
        ("device.png", "is not a file"),
        ("noext", "the name must end in"),
        ("out.xyz", "cannot write pictures that end in '.xyz'"),
    ):
        assert main(words(folder, encoder, tmp_path / name)) == 2
        assert message in capsys.readouterr().err
    assert main(words(folder, encoder, tmp_path / "a.png", "--preview", str(tmp_path / "a.png"))) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert {one.name for one in tmp_path.iterdir()} == {"folder.png", "device.png"}


def test_who_interrupts_hears_how_to_go_on(
    encoder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, checkpoint: Path | None, **__: object) -> None:
        if checkpoint:
            checkpoint.write_bytes(b"a run")
        raise KeyboardInterrupt

    monkeypatch.setattr("likeness.style.pictures.stylize_sample", stop)
    assert main(words(folder, encoder, tmp_path / "out.png")) == 130
    assert "interrupted; nothing is kept" in capsys.readouterr().err
    assert main(words(folder, encoder, tmp_path / "out.png", "--resume", str(tmp_path / "run"))) == 130
    assert f"goes on from {tmp_path / 'run'}" in capsys.readouterr().err
