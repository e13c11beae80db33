"""Hints against NumPy in float64, and the teacher's maps against the teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption, UnknownName
from likeness.metric.augment import draw_moves
from likeness.metric.hints import Hints, teacher_maps
from likeness.nets.identity import Architecture, Tower

IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
MIRROR = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(0)
    return Tower(Architecture(size=32, widths=(4, 6), blocks=(1, 1), code_length=8)).eval()


@pytest.fixture
def maps() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(2, 3, (9, 5, 8, 8)).astype(np.float16), rng.normal(size=(9, 7, 4, 4)).astype(np.float16)]


def by_hand(tower: Tower, hints: Hints, x: torch.Tensor, maps: list[np.ndarray], index: list[int]) -> list[float]:
    errors = []
    for stage, head, wanted in zip((0, 1), hints.heads, maps, strict=True):
        with torch.no_grad():
            seen = tower.stages[: stage + 1](x).double().numpy()
        weight, bias = (p.detach().double().numpy() for p in head.parameters())
        predicted = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], seen) + bias[:, None, None]
        every = wanted.astype(np.float64)
        standard = (every - every.mean((0, 2, 3))[:, None, None]) / every.std((0, 2, 3), ddof=1)[:, None, None]
        errors.append(((predicted - standard[index]) ** 2).mean())
    return errors


def test_the_error_is_its_formula(tower: Tower, maps: list[np.ndarray]) -> None:
    hints, x, index = Hints(tower, maps), torch.randn(3, 3, 32, 32), [4, 0, 7]
    assert hints.stages == [0, 1]
    with hints.listening(tower):
        tower(x)
        errors = hints(torch.tensor(index), IDENTITY.expand(3, 2, 3))
        flipped = hints(torch.tensor(index), MIRROR.expand(3, 2, 3))
    np.testing.assert_allclose(errors.detach(), by_hand(tower, hints, x, maps, index), rtol=1e-4)
    mirrored = [one[..., ::-1] for one in maps]
    np.testing.assert_allclose(flipped.detach(), by_hand(tower, hints, x, mirrored, index), rtol=1e-4)


def test_at_a_low_resolution_the_maps_are_averaged(tower: Tower, maps: list[np.ndarray]) -> None:
    hints = Hints(tower, maps)
    with hints.listening(tower):
        x = torch.randn(9, 3, 16, 16)
        tower(x)
        errors = hints(torch.arange(9), IDENTITY.expand(9, 2, 3))
        seen = hints.heads[0](tower.stages[0](x))
    mean, deviation = hints.get_buffer("mean0"), hints.get_buffer("deviation0")
    wanted = ((torch.from_numpy(maps[0].astype(np.float32)) - mean) / deviation).reshape(9, 5, 4, 2, 4, 2).mean((3, 5))
    assert errors[0].item() == pytest.approx((seen - wanted).square().mean().item(), rel=1e-4)


def test_a_moved_view_and_its_map_show_the_same_places() -> None:
    """A picture and its map of block means, moved alike, still belong together."""
    generator = torch.Generator().manual_seed(3)
    picture = torch.nn.functional.interpolate(
        torch.rand(20, 1, 6, 6, generator=generator), size=(96, 96), mode="bicubic"
    )
    moves = draw_moves(20, generator)

    def moved(x: torch.Tensor) -> torch.Tensor:
        grid = nn.functional.affine_grid(moves, list(x.shape), align_corners=False)
        return nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def means(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 12)

    apart = (moved(means(picture)) - means(moved(picture))).square().mean()
    unmoved = (means(picture) - means(moved(picture))).square().mean()
    assert apart < 0.05 * unmoved


def test_no_hook_stays_behind(tower: Tower, maps: list[np.ndarray]) -> None:
    hints = Hints(tower, maps)
    with pytest.raises(ZeroDivisionError), hints.listening(tower):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in tower.modules())


def test_a_map_without_a_stage(tower: Tower) -> None:
    with pytest.raises(InvalidOption, match="5 positions"):
        Hints(tower, [np.zeros((9, 5, 5, 5), np.float16)])


def test_maps_are_the_teachers_own(tmp_path: Path) -> None:
    import onnx

    from likeness.nets.export import export_onnx

    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    file = tmp_path / "teacher.onnx"
    export_onnx(teacher, file, example_shape=(2, 3, 16, 16))
    name = next(node.output[0] for node in onnx.load(str(file)).graph.node if node.op_type == "Relu")
    images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
    (maps,) = teacher_maps(images, file, [name], cache=tmp_path / "cache", batch=4)
    with torch.no_grad():
        expected = teacher[:2](torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    np.testing.assert_allclose(maps, expected, atol=2e-3)
    stamp = next((tmp_path / "cache").iterdir()).stat().st_mtime_ns
    (again,) = teacher_maps(images, file, [name], cache=tmp_path / "cache")
    assert np.array_equal(maps, again)
    assert next((tmp_path / "cache").iterdir()).stat().st_mtime_ns == stamp
    with pytest.raises(UnknownName, match="nosuch"):
        teacher_maps(images, file, ["nosuch"], cache=tmp_path / "cache")
    flat = onnx.load(str(file)).graph.output[0].name
    with pytest.raises(InvalidOption, match="a hint is a map"):
        teacher_maps(images, file, [flat], cache=tmp_path / "cache")
