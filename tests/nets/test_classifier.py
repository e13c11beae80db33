"""The classifier to be looked into: its layers in every dimension, its size, and the same after a trip to the disk."""

import hashlib
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from likeness.errors import InvalidOption, WeightsError
from likeness.nets.activations import activations, layer_shapes
from likeness.nets.classifier import Architecture, Classifier, load, save
from likeness.nets.receptive_field import receptive_fields
from likeness.samples.images import read_image

LAYERS = tuple(f"relu{i}" for i in range(1, 6))
TOOL = Path(__file__).parents[2] / "tools" / "ship_classifier.py"
PLACES = ("town", "wood", "São Paulo")


def small(dims: int) -> Architecture:
    return Architecture(PLACES, spatial_dims=dims, in_channels=2, size=24, widths=(4, 5, 6, 7, 8))


def settled(architecture: Architecture) -> Classifier:
    """A net whose every parameter and running statistic has some value of its own."""
    torch.manual_seed(0)
    net = Classifier(architecture)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value) * 0.3)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_five_layers_and_the_mean_of_the_last(dims: int) -> None:
    """Maps are as large as the architecture says, and a logit is linear in the mean of relu5 over positions."""
    net = settled(small(dims))
    x = torch.randn(2, 2, *[24] * dims)
    maps = activations(net, x, LAYERS)
    assert [tuple(maps[name].shape[2:]) for name in LAYERS] == [(size,) * dims for size in net.architecture.map_sizes]
    assert [maps[name].shape[1] for name in LAYERS] == [4, 5, 6, 7, 8]
    mean = maps["relu5"].double().flatten(2).numpy().mean(2)
    weight, bias = net.head.weight.double().numpy(), net.head.bias.double().numpy()
    np.testing.assert_allclose(net(x).numpy(), mean @ weight.T + bias, atol=1e-5)
    assert {"conv1", "norm1", "relu1", "pool1", "pool2"} <= set(layer_shapes(net, x))


def test_what_the_layers_see_grows_to_most_of_the_picture() -> None:
    """7 pixels in steps of 2; pooled to 11; 5 kernels of 4 pixels: 27; pooled to 35; three times 2 of 8 pixels more."""
    fields = receptive_fields(Classifier(Architecture(PLACES)), torch.zeros(1, 3, 128, 128), LAYERS)
    assert [fields[name].size for name in LAYERS] == [(7, 7), (27, 27), (51, 51), (67, 67), (83, 83)]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 40), st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=3), st.data()
)
def test_any_architecture_that_is_accepted_runs(dims: int, size: int, kernels: list[int], data: st.DataObject) -> None:
    n = len(kernels)
    strides = data.draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    pooled = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    size = min(size, 16) if dims == 3 else size
    fields = {"kernels": tuple(kernels), "strides": tuple(strides), "pooled": tuple(pooled), "widths": (3,) * n}
    try:
        a = Architecture(PLACES, spatial_dims=dims, in_channels=1, size=size, **fields)
    except InvalidOption as error:
        assert any(pooled) and "too small" in str(error)
        return
    net, x = Classifier(a).eval(), torch.randn(2, 1, *[size] * dims)
    assert net(x).shape == (2, 3)
    assert layer_shapes(net, x)[f"conv{n}"][2:] == (a.map_sizes[-1],) * dims


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_saved_and_loaded(dims: int, tmp_path: Path) -> None:
    net, x = settled(small(dims)), torch.randn(2, 2, *[24] * dims)
    save(net, tmp_path / "exact.safetensors", half=False)
    again = load(tmp_path / "exact.safetensors")
    assert torch.equal(again(x), net(x)) and again.architecture == net.architecture and not again.training
    save(net, tmp_path / "half.safetensors")
    half = load(tmp_path / "half.safetensors")
    torch.testing.assert_close(half(x), net(x), atol=2e-2, rtol=2e-2)
    save(half, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "half.safetensors").read_bytes()


def test_first_kernels_begin_small_and_the_rest_does_not_mind() -> None:
    """Normalised over a batch, maps are the same as those of kernels of the usual scale, but for what keeps the
    normalisation from dividing by 0."""
    torch.manual_seed(0)
    net, x = Classifier(Architecture(PLACES)).train(), torch.randn(8, 3, 64, 64)
    weight = net.get_submodule("conv1").get_parameter("weight")
    usual = (1 / (3 * 49)) ** 0.5  # the bound of torch's own
    assert float(weight.detach().abs().max()) < 0.06 * usual
    small = activations(net, x, ["relu1"])["relu1"]
    with torch.no_grad():
        weight.mul_(20)
    torch.testing.assert_close(small, activations(net, x, ["relu1"])["relu1"], atol=0.05, rtol=0.02)


def test_the_default_is_as_slim_as_promised(tmp_path: Path) -> None:
    net = Classifier(Architecture(tuple(map(str, range(20)))))
    assert sum(p.numel() for p in net.parameters()) <= 1_000_000
    save(net, tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_size <= 2_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"spatial_dims": 4},
        {"widths": (4, 4)},
        {"kernels": (7, 4, 3, 3, 3)},
        {"strides": (0, 1, 1, 1, 1)},
        {"classes": ("one",)},
        {"classes": ("one", "one")},
        {"size": 6},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Architecture(**({"classes": PLACES} | wrong))  # type: ignore[arg-type]


def test_shipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool writes float16 kernels, a card that fits them, and a drawing in which no weight is grey."""
    net = settled(Architecture(PLACES, widths=(9, 4, 4, 4, 4)))
    save(net, tmp_path / "net.safetensors", half=False)
    (tmp_path / "told.json").write_text('{"output": "/here/net", "out": "/here/net", "classes": ["a"], "top1": 0.5}')
    words = ["ship", str(tmp_path / "net.safetensors"), "--folder", str(tmp_path / "weights")]
    words += ["--metrics", str(tmp_path / "told.json")]
    monkeypatch.setattr(sys, "argv", [*words, "--drawing", str(tmp_path / "kernels.png")])
    runpy.run_path(str(TOOL), run_name="__main__")
    card = json.loads((tmp_path / "weights" / "alexnet-slim.json").read_text())
    shipped = tmp_path / "weights" / "alexnet-slim.safetensors"
    assert (card["kind"], card["sha256"]) == ("classifier", hashlib.sha256(shipped.read_bytes()).hexdigest())
    assert card["metrics"] == {"top1": 0.5}
    assert tuple(card["architecture"]["classes"]) == PLACES and card["onnx_sha256"] == ""
    drawing = read_image(tmp_path / "kernels.png").astype(float)
    assert drawing.shape == (2 * 72 - 9, 8 * 72 - 9, 3)  # nine kernels of 63 pixels, eight in a row, 9 apart
    weight = load(shipped).get_submodule("conv1").get_parameter("weight")[8].detach().numpy()
    expected = 127.5 + 127.5 * weight.transpose(1, 2, 0) / np.abs(weight).max()
    np.testing.assert_allclose(drawing[72 + 4 :: 9, 4:63:9], expected, atol=0.7)


def test_what_is_not_a_classifier_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(WeightsError, match="not a classifier"):
        load(tmp_path / "foreign.safetensors")
    net = settled(small(2))
    weights = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    for metadata in ('{"classes": ["a"]}', "[]", '{"class": 1}'):
        save_file(weights, str(tmp_path / "damaged.safetensors"), {"likeness.classifier": metadata})
        with pytest.raises(WeightsError, match="damaged"):
            load(tmp_path / "damaged.safetensors")
