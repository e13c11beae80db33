"""`likeness train style`: J falls, rest grows, a resumed run ends in the same bytes; a batch's J is the mean of J."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.errors import InvalidOption, WeightsError
from likeness.nets.activations import activations
from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.samples.images import write_image
from likeness.style.objective import Style, objective
from likeness.style.transform import load
from likeness.style.transform_training import shift, train_style, undisturbed, unrest, with_disturbed

SMALL: dict[str, Any] = {"widths": (4, 6, 8), "blocks": 1, "size": 32, "batch": 2, "style_size": 48, "warmup": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "set").mkdir()
    for name in ("astronaut", "coffee", "cat"):
        image = getattr(photographs, name)()
        for i in range(8):
            write_image(folder / "set" / f"{name}{i}.png", image[30 * i : 30 * i + 48, 30 * i : 30 * i + 48])
    write_image(folder / "style.png", photographs.rocket()[:100, :120])
    torch.manual_seed(3)
    net = Vgg(Architecture(widths=(6, 8, 8, 10), depths=(1, 1, 1, 1), mean=(0.5,), scale=(0.25,)))
    save(net, folder / "vgg.safetensors")
    return folder


def train(folder: Path, out: Path, **options: Any) -> Any:
    options = SMALL | {"encoder": str(folder / "vgg.safetensors")} | options
    return train_style(folder / "style.png", [folder / "set"], out=out, **options)


def test_J_falls_and_stability_calms(folder: Path, tmp_path: Path) -> None:
    first = train(folder, tmp_path / "new" / "a.safetensors", steps=2, every=2)
    trained = train(folder, tmp_path / "b.safetensors", steps=60, every=60, stability_weight=0.0, lr=1e-2)
    calm = train(folder, tmp_path / "c.safetensors", steps=60, every=60, stability_weight=300.0, lr=1e-2)
    assert trained.J < 0.7 * first.J and trained.J < 1
    assert calm.unrest < 0.7 * trained.unrest
    assert load(tmp_path / "b.safetensors").architecture.widths == (4, 6, 8)


def test_a_resumed_run_ends_in_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    vgg = str(folder / "vgg.safetensors")

    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if "loss" in info and done == 5:
            raise KeyboardInterrupt

    options = {"steps": 8, "every": 4}
    train(folder, tmp_path / "whole.safetensors", **options)
    options["checkpoint"] = tmp_path / "run"  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "half.safetensors", on_progress=stop, **options)
    train(folder, tmp_path / "half.safetensors", **options)
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    again = train(folder, tmp_path / "again.safetensors", **options)  # nothing is left to do
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert again.steps == 8 and again.J > 0
    torch.manual_seed(4)
    save(Vgg(Architecture(widths=(6, 8, 8, 10), depths=(1, 1, 1, 1))), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other options .*encoder"):
        train(folder, tmp_path / "x", encoder=str(tmp_path / "other.safetensors"), **options)
    with pytest.raises(WeightsError, match="other options .*style"):
        train_style(folder / "set" / "cat0.png", [folder / "set"], out=tmp_path / "x", **SMALL, encoder=vgg, **options)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_small_batches(batch: int, folder: Path, tmp_path: Path) -> None:
    trained = train(folder, tmp_path / "net.safetensors", batch=batch, steps=2, every=1)
    assert trained.J > 0 and trained.unrest > 0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_J_of_a_batch_is_the_mean_of_J(dims: int) -> None:
    torch.manual_seed(dims)
    size = (16,) * dims
    vgg = Vgg(Architecture(spatial_dims=dims, widths=(4, 5), depths=(1, 1))).double()
    options: dict[str, Any] = {"content_layers": {"relu2_1": 2.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}
    contents, x = (torch.rand(3, 3, *size, dtype=torch.float64) for _ in range(2))
    styles = [Style(torch.rand(1, 3, *size, dtype=torch.float64))]
    each = [objective(vgg, contents[i : i + 1], styles, tv_weight=3.0, **options)(x[i : i + 1]) for i in range(3)]
    J = objective(vgg, torch.zeros_like(x[:1]), styles, tv_weight=3.0, **options)
    parts = J.of_batch(x, activations(vgg, contents, ["relu2_1"]))
    assert float(sum(parts)) == pytest.approx(float(torch.stack(each).mean()), rel=1e-12)


def test_shifting_is_linear_interpolation() -> None:
    x = torch.arange(40, dtype=torch.float64).reshape(1, 1, 5, 8)
    torch.testing.assert_close(shift(x, (2.0, 0.0))[:, :, 2:], x[:, :, :3])
    torch.testing.assert_close(shift(x, (0.0, -1.0))[..., :-1], x[..., 1:])
    row = x[0, 0, 0].numpy()
    for d in (0.3, -1.6, 1.25):
        expected = np.interp(np.arange(8) - d, np.arange(8), row)
        np.testing.assert_allclose(shift(x, (0.0, d))[0, 0, 0], expected)


def test_disturbed_copies_stand_behind_their_groups_and_a_shifting_net_has_no_unrest() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 3, 20, 24, generator=generator)
    both, shifts = with_disturbed(x, 4, generator)
    assert both.shape == (10, 3, 20, 24) and shifts.shape == (2, 2) and float(shifts.abs().max()) <= 2
    assert torch.equal(undisturbed(both, 4), x)
    for i in (0, 1):
        moved = shift(x[4 * i : 4 * i + 1], shifts[i].tolist())
        assert float((moved - both[5 * i + 4]).abs().max()) < 0.12  # the noise
    assert float(unrest(both, shifts, 4)) < 1.2 * 0.02**2  # of a net that changes nothing: the noise alone
    assert float(unrest(both.flip(0), shifts, 4)) > 0.05


def test_options(folder: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"batch": 6}, "multiple of 4"),
        ({"size": 33}, "multiple of 8"),
        ({"size": 64}, "only 0"),
        ({"stability_weight": -1.0}, "at least 0"),
    ):
        with pytest.raises(InvalidOption, match=message):
            train(folder, tmp_path / "net.safetensors", steps=1, **options)
