"""A small VGG, and a folder of pictures with one file that is none."""

from pathlib import Path

import pytest
import torch
from skimage import data as photographs

from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.samples.images import write_image


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
