"""The VGG family: its layers by name, its files, torchvision's and Caffe's weights."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption, WeightsError
from likeness.nets import digest
from likeness.nets.activations import activations, layer_shapes
from likeness.nets.perceptual import (
    VGG16,
    VGG19,
    Architecture,
    Vgg,
    from_caffe_arrays,
    from_torchvision,
    load,
    save,
    smallest,
    stride,
    until,
)

SLIM = Architecture(widths=(4, 6, 8), depths=(2, 1, 2))


def test_vgg19_has_the_layers_of_the_literature() -> None:
    names = [name for name, _ in Vgg(Architecture(widths=(2, 2, 2, 2, 2))).named_children()]
    assert names[:7] == ["input", "conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1"]
    assert names[-1] == "relu5_4"
    assert sum(name.startswith("conv") for name in names) == 16
    assert sum(name.startswith("conv") for name, _ in Vgg(Architecture(depths=VGG16)).named_children()) == 13


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_strides_and_smallest_samples(dims: int) -> None:
    net = Vgg(Architecture(spatial_dims=dims, widths=(2, 3, 4), depths=(1, 1, 1)))
    x = torch.rand(1, 3, *[17] * dims)
    for layer, shape in layer_shapes(net, x).items():
        if layer not in ("", "input"):
            assert shape[2:] == (17 // stride(layer),) * dims
    least = smallest(net.architecture, "relu3_1")
    assert least == 8
    assert activations(net, torch.rand(1, 3, *[least] * dims), ["relu3_1"])["relu3_1"].shape[2:] == (2,) * dims
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 3, *[least - 1] * dims))


def test_files(tmp_path: Path) -> None:
    net, x = Vgg(SLIM), torch.rand(1, 3, 20, 20)
    save(net, tmp_path / "net.safetensors", half=False)
    assert torch.equal(load(tmp_path / "net.safetensors")(x), net(x))
    average = load(tmp_path / "net.safetensors", pooling="average", padding="zeros")
    assert (average.architecture.pooling, average.architecture.padding) == ("average", "zeros")
    save(net, tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * (tmp_path / "net.safetensors").stat().st_size
    assert torch.allclose(load(tmp_path / "half.safetensors")(x), net(x), atol=1e-2)
    for content in (b"", b"no weights", (tmp_path / "half.safetensors").read_bytes()[:-40]):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match="bad.safetensors"):
            load(tmp_path / "bad.safetensors")


def test_maps_of_pictures_have_their_channels_last_in_memory() -> None:
    net = Vgg(Architecture(widths=(4, 6), depths=(1, 1)))
    for a in activations(net, torch.rand(1, 3, 12, 14), ["relu1_1", "pool1", "relu2_1"]).values():
        assert a.is_contiguous(memory_format=torch.channels_last) and not a.is_contiguous()


def test_a_shorter_net_shares_the_weights() -> None:
    net, x = Vgg(SLIM), torch.rand(1, 3, 20, 20)
    short = until(net, "relu2_1")
    assert torch.equal(short(x), activations(net, x, ["relu2_1"])["relu2_1"])
    assert short.conv1_1 is net.conv1_1


def test_a_shorter_net_ends_at_the_layer_itself() -> None:
    net, x = Vgg(Architecture(widths=(3, 4, 5, 6, 6), depths=VGG19)), torch.rand(1, 3, 36, 36)
    for layer, depths in (
        ("relu4_1", (2, 2, 4, 1)),
        ("relu3_3", (2, 2, 3)),
        ("conv1_2", (2,)),
        ("relu5_4", VGG19),
        ("relu5_9", VGG19),
        ("relu6_1", VGG19),
    ):
        short = until(net, layer)
        assert short.architecture.depths == depths
        if depths != VGG19:
            relu = layer.replace("conv", "relu")
            assert [name for name, _ in short.named_children()][-1] == relu
            assert torch.equal(short(x), activations(net, x, [relu])[relu])


@pytest.mark.parametrize("depths", [VGG16, (2, 2, 4, 4, 4)])
def test_torchvisions_weights(depths: tuple[int, ...]) -> None:
    """torchvision's `features` are convolution, ReLU and max pooling in a row, with zeros around."""
    layers: list[nn.Module] = []
    channels = 3
    for block, depth in enumerate(depths):
        width = (4, 5, 6, 7, 8)[block]
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(2, 2)
    net = from_torchvision(state)
    x = torch.rand(1, 3, 32, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = features[:-1]((x - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    assert torch.allclose(net(x), expected, atol=1e-6)
    with pytest.raises(WeightsError, match="12 kernels"):
        from_torchvision(
            {k: v for k, v in state.items() if not k.startswith("features.0.")}
            if depths == VGG16
            else {f"features.{i}.weight": torch.zeros(1) for i in range(12)}
        )


def test_caffes_weights(tmp_path: Path) -> None:
    net = Vgg(SLIM)
    np.savez(tmp_path / "vgg.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
    again = from_caffe_arrays(tmp_path / "vgg.npz")
    assert (again.architecture.widths, again.architecture.depths) == (SLIM.widths, SLIM.depths)
    x = torch.rand(1, 3, 20, 20)
    caffe = x.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    assert torch.allclose(again(x), net(caffe), atol=1e-4)
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no.npz"):
        from_caffe_arrays(tmp_path / "no.npz")
    np.savez(tmp_path / "short.npz", **{"conv1_1.weight": np.zeros((4, 3, 3, 3))})
    with pytest.raises(WeightsError, match="missing"):
        from_caffe_arrays(tmp_path / "short.npz")


def test_caffes_classifier_is_not_read(tmp_path: Path) -> None:
    net, more = Vgg(SLIM), {"fc6.weight": np.zeros((2, 8)), "fc6.bias": np.zeros(2), "prob": np.array("none")}
    np.savez(tmp_path / "vgg.npz", **{k: v.numpy() for k, v in net.state_dict().items()}, **more)
    assert from_caffe_arrays(tmp_path / "vgg.npz").architecture.depths == SLIM.depths


def test_npz_files_that_hold_no_vgg_are_named(tmp_path: Path) -> None:
    arrays = {k: v.numpy() for k, v in Vgg(SLIM).state_dict().items()}
    np.savez(tmp_path / "whole.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **{k: np.random.default_rng(0).normal(size=99) for k in arrays})
    whole, packed = ((tmp_path / f"{name}.npz").read_bytes() for name in ("whole", "packed"))
    for content in (b"", b"PK", whole[:2000], whole[: len(whole) // 2], packed[:90] + b"\xff" * 99 + packed[189:]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(WeightsError, match="bad.npz cannot be read as npz"):
            from_caffe_arrays(tmp_path / "bad.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(WeightsError, match="array.npz cannot be read as npz"):
        from_caffe_arrays(tmp_path / "array.npz")
    kernel = np.zeros((4, 3, 3, 3))
    for names, message in (
        ({}, "it holds nothing"),
        ({"conv1.weight": kernel, "conv1.bias": kernel[:, 0, 0, 0]}, "called conv1_1.weight.* it holds conv1.weight"),
        ({"conv1_2.weight": kernel}, "damaged: KeyError: 'conv1_1.weight'"),
        ({"conv1_1.weight": np.array(1.0)}, "damaged"),
        ({"conv1_1.weight": np.array("text")}, "cannot be read"),
    ):
        np.savez(tmp_path / "odd.npz", **names)
        with pytest.raises(WeightsError, match=f"odd.npz .*{message}"):
            from_caffe_arrays(tmp_path / "odd.npz")


def test_the_normalised_vgg19() -> None:
    """Its name: every channel's mean activation over pictures is about 1 (Gatys)."""
    data = Path(os.environ.get("LIKENESS_DATA", "../shared/data"))
    file = data / "weights" / "vgg19_normalised_relu4_1.npz"
    if not file.exists():
        pytest.skip("needs the reference weights (LIKENESS_DATA)")
    from likeness.samples.images import read_image

    net = from_caffe_arrays(file)
    pictures = sorted((data / "style" / "content").iterdir())[:4]
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    means: dict[str, list[float]] = {layer: [] for layer in layers}
    for picture in pictures:
        x = torch.from_numpy(read_image(picture)).permute(2, 0, 1)[None].float()[..., :256, :256] / 255
        for layer, a in activations(net, x, layers).items():
            means[layer].append(float(a.mean()))
    for layer in layers:
        assert 0.4 < np.mean(means[layer]) < 2, (layer, means[layer])


@pytest.mark.parametrize(
    "fields", [{"pooling": "median"}, {"padding": "wrap"}, {"order": "grb"}, {"widths": (3,)}, {"spatial_dims": 4}]
)
def test_architectures_are_checked(fields: dict) -> None:
    with pytest.raises(InvalidOption):
        Architecture(**fields)


def test_nets_that_see_their_input_otherwise_are_told_apart() -> None:
    plain = Architecture(widths=(4,), depths=(1,))
    nets = []
    for more in ({}, {"order": "bgr"}, {"mean": (0.5,)}, {"scale": (0.25,)}):
        torch.manual_seed(0)
        nets.append(Vgg(replace(plain, **more)))  # type: ignore[arg-type]
    assert len({digest.of_net(net) for net in nets}) == 4
