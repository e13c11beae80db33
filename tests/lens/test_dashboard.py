"""Nets by name or file, pictures as they take them, and the page of patches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.cli.main import main
from likeness.errors import InvalidOption, UnknownName, WeightsError
from likeness.lens.models import batches, open_model
from likeness.lens.patches import Hit
from likeness.lens.report import PATCH, framed, layer_table, montage, patch, report_patches
from likeness.nets.activations import activations
from likeness.nets.identity import Architecture as TowerArchitecture
from likeness.nets.identity import Tower
from likeness.nets.identity import save as save_tower
from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.samples.images import read_image, write_image


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "vgg.safetensors"
    save(Vgg(Architecture(widths=(4, 5), depths=(1, 2), mean=(0.5,))), file)
    return file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        write_image(folder / f"{i:02}.png", photographs.coffee()[30 * i : 30 * i + 50, 40 * i : 40 * i + 70])
    (folder / "text.png").write_text("no picture")
    return folder


def test_pictures_become_what_a_net_takes(vgg: Path, pictures: Path, tmp_path: Path) -> None:
    model, skipped = open_model(vgg, size=32), []
    parts = list(batches(model, sorted(pictures.iterdir()), size=5, skipped=skipped))
    assert [len(x) for x, _ in parts] == [5, 5, 2] and skipped == [pictures / "text.png"]
    x, files = parts[0]
    assert x.shape[1:] == (3, 32, 32) and float(x.max()) <= 1 and float(x.min()) >= 0
    assert np.array_equal(x[1].permute(1, 2, 0).mul(255).round().byte().numpy(), model.picture(read_image(files[1])))
    save_tower(Tower(TowerArchitecture(size=48, widths=(4, 4, 4))), tmp_path / "tower.safetensors")
    tower = open_model(tmp_path / "tower.safetensors")
    crop = photographs.astronaut()[:48, :48]
    shown = tower.picture(crop)
    assert shown is crop and float(tower.tensor(crop).min()) < 0 and tower.tensor(crop).shape == (3, 48, 48)
    assert tower.picture(np.zeros((60, 60, 3), np.uint8)) is None  # no face


def test_the_names_of_the_catalogue(tmp_path: Path) -> None:
    assert open_model("face").size == 112
    (tmp_path / "text.safetensors").write_text("no net")
    for model, options, error in (
        ("fase", {}, UnknownName),
        (tmp_path / "text.safetensors", {}, WeightsError),
        ("face-detector", {}, WeightsError),
        ("face", {"size": 64}, InvalidOption),
    ):
        with pytest.raises(error):
            open_model(model, **options)


def test_the_page_shows_the_patches_that_were_found(vgg: Path, pictures: Path, tmp_path: Path) -> None:
    model = open_model(vgg, size=32)
    report = report_patches(model, sorted(pictures.iterdir()), tmp_path / "out", layers=["relu1_1", "relu2_2"], k=4)
    assert report.skipped == (pictures / "text.png",) and report.patches.samples == 12
    assert report.shown["relu2_2"] == report.patches.layers["relu2_2"].selective(9)
    page = report.page.read_text()
    assert "http" not in page  # nothing from the network
    for layer, units in report.shown.items():
        for unit in units:
            assert f'src="{layer}-{unit}.png"' in page
            assert read_image(tmp_path / "out" / f"{layer}-{unit}.png").shape[0] > 2 * PATCH
    stored = json.loads((tmp_path / "out/patches.json").read_text())
    hit = stored["layers"]["relu2_2"]["units"]["3"]["hits"][0]
    x = model.tensor(model.picture(read_image(stored["files"][hit["sample"]])))[None]
    a = activations(model.net, x, ["relu2_2"])["relu2_2"][0, 3]
    assert float(a[tuple(hit["position"])]) == pytest.approx(hit["activation"], abs=1e-5)
    assert float(a.max()) == pytest.approx(hit["activation"], abs=1e-5)


def test_a_patch_is_the_window_and_grey_beyond_the_border() -> None:
    image = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
    inside = patch(image, Hit(0, (0, 0), 1.0, ((4, 4 + PATCH // 3), (6, 6 + PATCH // 3))), (PATCH // 3, PATCH // 3))
    assert np.array_equal(inside[1::3, 1::3], image[4 : 4 + PATCH // 3, 6 : 6 + PATCH // 3])
    corner = patch(image, Hit(0, (0, 0), 1.0, ((0, 8), (0, 12))), (12, 12))  # 4 rows lie above the picture
    assert (corner[: PATCH // 3 - 1] == 128).all() and np.array_equal(corner[-3, 3], image[7, 0])
    sheet = montage([inside] * 3, 2)
    assert np.array_equal(sheet[-PATCH:, :PATCH], inside) and (sheet[-PATCH:, -PATCH:] == 255).all()
    assert np.array_equal(framed(image, Hit(0, (0, 0), 1.0, ((5, 9), (5, 9))))[5, 5], (255, 64, 32))


def test_the_table_of_layers(vgg: Path) -> None:
    rows = {row["layer"]: row for row in layer_table(open_model(vgg, size=32))}
    assert rows["relu2_2"] == {
        "layer": "relu2_2",
        "units": 5,
        "positions": [16, 16],
        "size": [12, 12],
        "stride": [2, 2],
        "offset": [-5, -5],
    }


def test_the_command_line(vgg: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "layers", str(vgg), "--size", "32"]) == 0
    assert "relu2_2" in capsys.readouterr().out
    out = tmp_path / "report"
    words = ["lens", "patches", str(vgg), str(pictures), "--size", "32", "-o", str(out)]
    assert main([*words, "--layers", "relu1_1,relu2_1", "--units", "0-1,3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shown"]["relu2_1"] == [0, 1, 3] and told["samples"] == 12 and Path(told["page"]).is_file()
    for more, message in (
        (["--layers", "relu9"], "relu"),
        (["--layers", "relu1_1", "--k", "5"], "square"),
        (["--layers", "relu1_1", "--units", "x"], "0-8"),
    ):
        try:
            status = main([*words, *more])
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert message in capsys.readouterr().err
