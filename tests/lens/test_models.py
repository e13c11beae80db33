"""Nets by name or file, and pictures as they take them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.errors import InvalidOption, UnknownName, WeightsError
from likeness.lens.models import batches, open_model
from likeness.metric.augment import to_input
from likeness.nets import weights_file
from likeness.nets.classifier import Architecture, Classifier, save
from likeness.nets.identity import Architecture as TowerArchitecture
from likeness.nets.identity import Tower
from likeness.nets.identity import save as save_tower
from likeness.nets.perceptual import Architecture as VggArchitecture
from likeness.nets.perceptual import Vgg
from likeness.nets.perceptual import save as save_vgg
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


def test_a_net_opened_in_inference_mode_has_gradients(vgg: Path) -> None:
    with torch.inference_mode():
        net = open_model(vgg, size=32).net
    assert not any(weight.is_inference() for weight in net.state_dict().values())


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


@pytest.mark.parametrize("size", [None, 64])
def test_a_classifier_is_shown_what_it_learnt_from(size: int | None, tmp_path: Path) -> None:
    """The lens and the training make the same input of the same picture."""
    save(Classifier(Architecture(("a", "b"), size=48, widths=(4,) * 5)), tmp_path / "net.safetensors")
    model = open_model(tmp_path / "net.safetensors", size=size)
    assert model.size == (size or 48)
    assert model.classes == ("a", "b")
    shown = model.picture(photographs.coffee())
    assert shown is not None and shown.shape == (model.size, model.size, 3)
    expected = to_input(torch.from_numpy(np.array(shown))[None])[0]
    torch.testing.assert_close(model.tensor(shown), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_vggs_of_others(suffix: str, tmp_path: Path) -> None:
    """torchvision's names, with a classifier that is not read, or Caffe's arrays; as `stylize` takes them."""
    net = Vgg(VggArchitecture(widths=(2, 3, 4, 5, 6)))
    state, file = net.state_dict(), tmp_path / f"vgg19.{suffix}"
    if suffix == "npz":
        np.savez(file, **{name: value.numpy() for name, value in state.items()})
    else:
        convs = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
        named = {f"features.{2 * i}.{p}": state[f"{c}.{p}"] for i, c in enumerate(convs) for p in ("weight", "bias")}
        weights_file.write(file, named | {"classifier.0.weight": torch.zeros(2, 2)}, {})
    model = open_model(file, size=64)
    assert (model.size, model.low) == (64, 0.0) and torch.equal(model.net.conv5_4.weight, net.conv5_4.weight)
    weights_file.write(tmp_path / "alexnet.safetensors", {"features.0.weight": torch.zeros(2, 3, 11, 11)}, {})
    with pytest.raises(WeightsError, match="neither VGG-16"):
        open_model(tmp_path / "alexnet.safetensors")


def test_what_no_picture_fits_is_refused(tmp_path: Path) -> None:
    save_vgg(Vgg(VggArchitecture(spatial_dims=3, widths=(4,), depths=(1,))), tmp_path / "volume.safetensors")
    save_vgg(Vgg(VggArchitecture(in_channels=1, widths=(4,), depths=(1,))), tmp_path / "grey-vgg.safetensors")
    save_tower(Tower(TowerArchitecture(in_channels=1, size=48, widths=(4, 4, 4))), tmp_path / "grey-tower.safetensors")
    for name, message in (("volume", "3 dim"), ("grey-vgg", "1 channel"), ("grey-tower", "1 channel")):
        with pytest.raises(InvalidOption, match=message):
            open_model(tmp_path / f"{name}.safetensors")
    save(Classifier(Architecture(("a", "b"), spatial_dims=1, widths=(4,) * 5)), tmp_path / "signal.safetensors")
    save(Classifier(Architecture(("a", "b"), in_channels=1, widths=(4,) * 5)), tmp_path / "grey.safetensors")
    save(Classifier(Architecture(("a", "b"), widths=(4,) * 5)), tmp_path / "net.safetensors")
    for name, size, message in (("signal", None, "1 dim"), ("grey", None, "1 channel"), ("net", 6, "size is 6")):
        with pytest.raises(InvalidOption, match=message):
            open_model(tmp_path / f"{name}.safetensors", size=size)
