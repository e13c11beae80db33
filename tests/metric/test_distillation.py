"""Distillation against float64 NumPy, and the teacher's codes as they are kept."""

from pathlib import Path

import numpy as np
import torch

from likeness.metric.distillation import cut, distillation, principal_directions, teacher_codes


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_loss_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    f, t, whole = (unit(rng.standard_normal((7, d))) for d in (5, 5, 9))
    by_hand = 0.0
    for i in range(7):
        by_hand += (1 - sum(f[i, k] * t[i, k] for k in range(5))) / 7
        for j in range(7):
            by_hand += 8 * (f[i] @ f[j] - whole[i] @ whole[j]) ** 2 / 49
    ours = distillation(*(torch.from_numpy(x) for x in (f, t, whole)))
    assert abs(float(ours) - by_hand) < 1e-10


def test_a_perfect_student_has_no_loss() -> None:
    codes = torch.from_numpy(unit(np.random.default_rng(1).standard_normal((6, 4))))
    assert abs(float(distillation(codes, codes, codes))) < 1e-12


def test_principal_directions_keep_what_can_be_kept() -> None:
    """Codes that live in 3 of 10 dimensions lose nothing when cut to 3; the directions are orthonormal."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((10, 3)))[0]
    codes = unit(rng.standard_normal((50, 3)) @ basis.T).astype(np.float32)
    directions = principal_directions(codes, 3)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    short = cut(codes, directions).numpy()
    assert np.allclose(short @ short.T, codes @ codes.T, atol=1e-5)


def test_the_common_direction_of_all_codes_is_kept() -> None:
    """Inner products, not variances, are to be kept: codes that all lie near one direction keep it first. Against
    the singular vectors of the codes as they are; after centring, that direction would be the first to go."""
    rng = np.random.default_rng(4)
    common = unit(rng.standard_normal((1, 9)))
    codes = unit(4 * common + rng.standard_normal((60, 9)) * np.linspace(1, 0.2, 9)).astype(np.float32)
    for length in (1, 3):
        directions = principal_directions(codes, length)
        assert directions.shape == (9, length)
        vectors = np.linalg.svd(codes.astype(np.float64), full_matrices=False)[2][:length]
        assert np.allclose(np.abs(vectors @ directions), np.eye(length), atol=1e-5)
        short = codes @ directions
        assert np.abs(short[:, 0]).min() > 0.5
        best = (vectors @ codes.T).astype(np.float64)
        assert np.allclose(short @ short.T, best.T @ best, atol=1e-5)
        cosines = cut(codes, directions).numpy()
        assert np.allclose(cosines @ cosines.T, unit(best.T) @ unit(best.T).T, atol=1e-5)


def test_teacher_codes_are_kept_and_taken_up_again(tmp_path: Path) -> None:
    """The code is the mean of crop and mirror; a second call reads the file; an interrupted run goes on."""
    from torch import nn

    from likeness.nets.export import export_onnx

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6)).eval()
    teacher = tmp_path / "teacher.onnx"
    export_onnx(net, teacher, example_shape=(2, 3, 8, 8))
    images = np.random.default_rng(3).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)

    def by_hand(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        return unit(net(x).detach().numpy())

    expected = np.concatenate([unit(by_hand(image) + by_hand(image[:, ::-1].copy())) for image in images])
    codes = teacher_codes(images, teacher, cache=tmp_path / "cache", batch=4)
    assert np.allclose(codes, expected, atol=1e-5)
    (kept,) = (tmp_path / "cache").glob("teacher-*.npy")
    half = np.load(kept)[:4]
    kept.unlink()
    np.save(kept.with_suffix(".part.npy"), half + 1)  # recognisable: what was done before is not done again
    resumed = teacher_codes(images, teacher, cache=tmp_path / "cache", batch=4)
    assert np.allclose(resumed[:4], half + 1)
    assert np.allclose(resumed[4:], expected[4:], atol=1e-5)
    teacher_again = teacher_codes(images, teacher, cache=tmp_path / "cache", batch=4)
    assert np.array_equal(teacher_again, resumed)
