"""The net of one style: any size in, the same size out, in strips or whole; files; what does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from likeness.errors import InvalidOption, WeightsError
from likeness.style.transform import STRIP, Architecture, Stage, Transform, load, memory, onnx_bytes, save

SIZES = {1: (37,), 2: (22, 13), 3: (7, 9, 6)}


def net(dims: int = 2, **options: object) -> Transform:
    torch.manual_seed(dims)
    made = Transform(Architecture(spatial_dims=dims, **({"widths": (4, 6, 8), "blocks": 2} | options)))  # type: ignore[arg-type]
    for name, value in made.named_parameters():
        if "norm" in name:
            value.data.uniform_(-1, 1)
    return made.eval().requires_grad_(False)


def sample(size: tuple[int, ...], channels: int = 3) -> torch.Tensor:
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_stage_is_that_of_numpy(dims: int) -> None:
    """Doubling, reflected border, convolution, instance normalisation and ReLU by hand, in float64."""
    torch.manual_seed(0)
    for stride, grow, kernel in ((1, 1, 5), (2, 1, 3), (1, 2, 3)):
        stage = Stage(dims, 3, 4, kernel, stride=stride, grow=grow).double()
        assert stage.norm is not None
        stage.norm.weight.data.uniform_(-1, 1)
        stage.norm.bias.data.uniform_(-1, 1)
        x = sample(SIZES[dims]).double()
        a = x[0].numpy()
        for axis in range(1, dims + 1):
            a = a.repeat(grow, axis)
        half = kernel // 2
        padded = np.pad(a, [(0, 0)] + [(half, half)] * dims, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel,) * dims, tuple(range(1, dims + 1)))
        windows = windows[(slice(None), *[slice(None, None, stride)] * dims)]
        weight = stage.conv.weight.detach().numpy()
        y = np.tensordot(weight, windows, ((1, *range(2, dims + 2)), (0, *range(dims + 1, 2 * dims + 1))))
        axes, shape = tuple(range(1, dims + 1)), (-1,) + (1,) * dims
        y = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + 1e-5)
        y = y * stage.norm.weight.detach().numpy().reshape(shape) + stage.norm.bias.detach().numpy().reshape(shape)
        with torch.no_grad():
            np.testing.assert_allclose(stage(x)[0], np.maximum(y, 0), atol=1e-12)
            for strip in (1, 3000, STRIP):
                np.testing.assert_allclose(stage.in_strips(x, strip)[0], np.maximum(y, 0), atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_any_size_gives_the_same_size(dims: int) -> None:
    made = net(dims)
    for size in (SIZES[dims], (made.architecture.smallest,) * dims, (8,) * dims, (11, *(6,) * (dims - 1))):
        x = sample(size)
        painted = made(x)
        assert painted.shape == x.shape and float(painted.min()) >= 0 and float(painted.max()) <= 1
        torch.testing.assert_close(made.paint(x), painted, atol=1e-5, rtol=0)
    batch = torch.cat([sample(SIZES[dims]), sample(SIZES[dims]).flip(2)])
    torch.testing.assert_close(made(batch)[:1], made(batch[:1]))


def test_contrast_and_brightness_of_the_whole_change_little() -> None:
    """What instance normalisation is for: behind the first convolution a factor on the sample is gone."""
    made = net()
    x = sample((32, 24))
    first = made.first(x), made.first(0.5 * x)
    torch.testing.assert_close(*first, atol=1e-2, rtol=0)


def test_what_does_not_fit() -> None:
    made = net()
    for x in (sample((4, 30)), sample((30,)), sample((30, 30), 1)):
        with pytest.raises(InvalidOption, match="at least 5"):
            made.paint(x)
    for options in ({"kernel": 4}, {"widths": ()}, {"blocks": -1}, {"spatial_dims": 4}):
        with pytest.raises(InvalidOption):
            Architecture(**options)  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    made, file = net(3), tmp_path / "net.safetensors"
    save(made, file, more={"style": "starry"})
    again = load(file)
    assert again.architecture == made.architecture
    torch.testing.assert_close(again.paint(sample(SIZES[3])), made.paint(sample(SIZES[3])), atol=2e-2, rtol=0)
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(WeightsError):
        load(tmp_path / "bad.safetensors")
    from likeness.nets.perceptual import Architecture as VggArchitecture
    from likeness.nets.perceptual import Vgg
    from likeness.nets.perceptual import save as save_vgg

    save_vgg(Vgg(VggArchitecture(widths=(4,), depths=(1,))), tmp_path / "vgg.safetensors")
    with pytest.raises(WeightsError, match="not a transform net"):
        load(tmp_path / "vgg.safetensors")


def test_memory_counts_the_widest_neighbours() -> None:
    a = Architecture(widths=(10, 16), blocks=1)
    assert memory(a, (1000, 1001)) == 4 * (10 * 1_001_000 + 16 * 500 * 501 + 6 * 1_001_000) + 8 * STRIP


def test_what_onnx_runtime_needs_grows_with_the_widths() -> None:
    """Measured over sizes of 0.8 to 4 megapixels: 419 to 541, 1,625 to 1,696, 685, 425 to 525."""
    for widths, least, most in (
        ((16, 32, 64), 541, 600),
        ((64, 128, 256), 1696, 2100),
        ((16, 64), 685, 1100),
        ((16, 16, 128), 525, 600),
    ):
        assert least <= onnx_bytes(Architecture(widths=widths)) <= most
    assert onnx_bytes(Architecture(widths=(16,))) < onnx_bytes(Architecture(widths=(32,)))
