"""Hints against NumPy in float64, and the teacher's maps against the teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption, UnknownName
from likeness.metric.augment import draw_moves, move
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


def by_hand(
    tower: Tower,
    hints: Hints,
    x: torch.Tensor,
    maps: list[np.ndarray],
    index: list[int],
    standard_of: list[np.ndarray] | None = None,
) -> list[float]:
    """The errors of `maps`, standardised by mean and deviation of themselves or of `standard_of`."""
    errors = []
    for stage, head, wanted, known in zip((0, 1), hints.heads, maps, standard_of or maps, strict=True):
        with torch.no_grad():
            seen = tower.stages[: stage + 1](x).double().numpy()
        weight, bias = (p.detach().double().numpy() for p in head.parameters())
        predicted = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], seen) + bias[:, None, None]
        every = known.astype(np.float64)
        mean, deviation = every.mean((0, 2, 3))[:, None, None], every.std((0, 2, 3), ddof=1)[:, None, None]
        standard = (wanted.astype(np.float64) - mean) / deviation
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


def warped(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """A map (c, h, w) moved, in plain loops: the value at a place p of the view is that at `move @ (p, 1)` of the map,
    both in -1...1 from edge to edge of the outermost positions; bilinear between the centres of positions; beyond
    the outermost centres, what lies there."""
    _, h, w = image.shape
    out = np.empty(image.shape, np.float64)
    for i in range(h):
        for j in range(w):
            x, y = move @ [(2 * j + 1) / w - 1, (2 * i + 1) / h - 1, 1]
            u, v = np.clip(((x + 1) * w - 1) / 2, 0, w - 1), np.clip(((y + 1) * h - 1) / 2, 0, h - 1)
            left, top = min(int(u), w - 2), min(int(v), h - 2)
            a, b = u - left, v - top
            upper = (1 - a) * image[:, top, left] + a * image[:, top, left + 1]
            lower = (1 - a) * image[:, top + 1, left] + a * image[:, top + 1, left + 1]
            out[:, i, j] = (1 - b) * upper + b * lower
    return out


MOVES = {
    "shift": [[1, 0, 0.3], [0, 1, -0.2]],
    "scale": [[0.8, 0, 0], [0, 0.8, 0]],
    "beyond the border": [[1.4, 0, 0.5], [0, 1.4, 0]],
    "rotation": [[0.8, -0.6, 0], [0.6, 0.8, 0]],
    "all and a mirror": [[-0.9, -0.3, 0.1], [-0.3, 0.9, 0.25]],
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_maps_are_moved_like_a_loop_moves_them(tower: Tower, maps: list[np.ndarray], move: list) -> None:
    hints, x, index = Hints(tower, maps), torch.randn(3, 3, 32, 32), [4, 0, 7]
    with hints.listening(tower):
        tower(x)
        errors = hints(torch.tensor(index), torch.tensor(move).expand(3, 2, 3))
    moved = [np.stack([warped(one, np.array(move)) for one in wanted.astype(np.float64)]) for wanted in maps]
    still = by_hand(tower, hints, x, maps, index, standard_of=maps)
    expected = by_hand(tower, hints, x, moved, index, standard_of=maps)
    np.testing.assert_allclose(errors.detach(), expected, rtol=1e-4)
    assert np.abs(np.array(still) / expected - 1).max() > 1e-2, "the move changes nothing: it tests nothing"


def test_views_are_moved_like_their_maps() -> None:
    """What `augment` does to a view of as many pixels as a map has positions, `Hints` does to the map."""
    x = torch.rand(len(MOVES), 3, 12, 12, generator=torch.Generator().manual_seed(0))
    moves = torch.tensor(list(MOVES.values()))
    expected = [warped(one, np.array(move)) for one, move in zip(x.double().numpy(), MOVES.values(), strict=True)]
    np.testing.assert_allclose(move(x, moves), np.stack(expected), atol=1e-5)


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


def test_heads_start_at_least_squares(tower: Tower, maps: list[np.ndarray]) -> None:
    """Also in parts, also of a tower that is in training, which it stays."""
    images = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    index = np.array([0, 2, 3, 5, 7, 8])
    hints = Hints(tower, maps)
    tower.train()
    hints.solve(tower, images, index, batch=4)
    assert tower.training
    tower.eval()
    x = torch.from_numpy(images[index]).permute(0, 3, 1, 2) / 127.5 - 1
    for stage, head, every in zip((0, 1), hints.heads, maps, strict=True):
        with torch.no_grad():
            seen = tower.stages[: stage + 1](x).double().numpy()
        known = every.astype(np.float64)
        standard = (known - known.mean((0, 2, 3))[:, None, None]) / known.std((0, 2, 3), ddof=1)[:, None, None]
        rows = seen.transpose(0, 2, 3, 1).reshape(-1, seen.shape[1])
        rows = np.hstack([rows, np.ones((len(rows), 1))])
        wanted = standard[index].transpose(0, 2, 3, 1).reshape(len(rows), -1)
        expected = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        np.testing.assert_allclose(head.weight.detach()[:, :, 0, 0].T, expected[:-1], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(head.bias.detach(), expected[-1], rtol=1e-3, atol=1e-4)


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
