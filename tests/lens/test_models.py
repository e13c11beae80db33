"""Nets by name or file, and pictures as they take them."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

from likeness.errors import InvalidOption, UnknownName, WeightsError
from likeness.lens.models import batches, open_model
from likeness.nets.identity import Architecture as TowerArchitecture
from likeness.nets.identity import Tower
from likeness.nets.identity import save as save_tower
from likeness.samples.images import read_image


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
