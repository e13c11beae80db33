"""Fisher's discriminant against scipy's generalised eigenproblem in plain loops, and the encoder that it makes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigh

from likeness.errors import InvalidOption, WeightsError
from likeness.metric.data import held_out, load_crops
from likeness.metric.discriminant import discriminant, train_discriminant
from likeness.nets import identity


def people_of(seed: int, d: int, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(len(sizes)) * 7, sizes)
    means, spread = rng.normal(2, 3, (len(sizes), d)), rng.uniform(0.2, 4, d)
    x = np.repeat(means, sizes, axis=0) + rng.normal(size=(len(subjects), d)) * spread
    order = rng.permutation(len(x))
    return x[order], subjects[order]


def by_hand(x: np.ndarray, subjects: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """S_T and S_W + r I, photograph by photograph."""
    d = x.shape[1]
    within, seen, total = np.zeros((d, d)), 0, np.zeros((d, d))
    for one in range(len(x)):
        total += np.outer(x[one] - x.mean(0), x[one] - x.mean(0)) / len(x)
        mine = x[subjects == subjects[one]]
        if len(mine) > 1:
            within += np.outer(x[one] - mine.mean(0), x[one] - mine.mean(0)) * len(mine) / (len(mine) - 1)
            seen += 1
    within /= seen
    return total, within + ridge * np.trace(within) / d * np.eye(d)


@given(
    seed=st.integers(0, 99),
    d=st.integers(2, 7),
    sizes=st.lists(st.integers(1, 5), min_size=3, max_size=8),
    ridge=st.floats(0.01, 3),
)
def test_it_solves_the_generalised_eigenproblem(seed: int, d: int, sizes: list[int], ridge: float) -> None:
    x, subjects = people_of(seed, d, [*sizes, 3])
    length = max(1, d - 1)
    w, b = discriminant(x, subjects, length, ridge=ridge)
    total, within = by_hand(x, subjects, ridge)
    values = eigh(total, within, eigvals_only=True)
    np.testing.assert_allclose(w @ within @ w.T, np.eye(length), atol=1e-9)  # scaled to what one person varies
    np.testing.assert_allclose(w @ total @ w.T, np.diag(values[::-1][:length]), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(w @ x.mean(0) + b, 0, atol=1e-9)


def test_a_direction_that_does_not_tell_people_apart_hardly_counts() -> None:
    """Ten numbers that are the person's, and pose, which varies ten times as much."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(50), 4)
    who, pose = np.repeat(rng.normal(size=(50, 10)), 4, axis=0), rng.normal(0, 10, (200, 1))
    x = np.hstack([who + rng.normal(0, 0.3, who.shape), pose])
    w, b = discriminant(x, subjects, 10, ridge=0.01)
    assert np.abs(w[:, 10]).max() < 0.02 * np.abs(w[:, :10]).max()
    codes = x @ w.T + b
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    nearest = np.argsort(codes @ codes.T - 2 * np.eye(200), axis=1)[:, -1]
    assert (subjects[nearest] == subjects).mean() > 0.9
    plain = np.argsort(-((x[:, None] - x[None]) ** 2).sum(2) - 1e9 * np.eye(200), axis=1)[:, -1]
    assert (subjects[plain] == subjects).mean() < 0.5


def test_what_cannot_be() -> None:
    x = np.zeros((4, 3))
    with pytest.raises(InvalidOption, match="nobody has two photographs"):
        discriminant(x, np.arange(4), 2)
    with pytest.raises(InvalidOption, match="a code of 4 numbers"):
        discriminant(x, np.zeros(4, int), 4)
    for same, ridge in ((x, 0.3), (np.eye(4)[:, :3] * [1, 1, 0], 0.0)):  # one photograph four times; a flat direction
        with pytest.raises(InvalidOption, match="do not differ at all"):
            discriminant(same, np.zeros(4, int), 2, ridge=ridge)


def test_an_encoder_with_another_last_layer(people: Path, tmp_path: Path) -> None:
    """Solved for on the people that are not held out, from crops and their mirror images; all else stays."""
    start, out = tmp_path / "start.safetensors", tmp_path / "new" / "net.safetensors"
    torch.manual_seed(0)
    tower = identity.Tower(identity.Architecture(widths=(8, 16), blocks=(1, 1), code_length=8)).eval()
    identity.save(tower, start)
    tower, seen = identity.load(start), []
    result = train_discriminant(people, init=start, out=out, ridge=0.5, on_progress=lambda *call: seen.append(call))
    made = identity.load(out)
    for (name, old), new in zip(tower.state_dict().items(), made.state_dict().values(), strict=True):
        assert torch.equal(old, new) == (not name.startswith("code.")), name

    crops = load_crops(people)
    rows = ~held_out(crops.subjects)
    x = torch.from_numpy(crops.images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        features = sum(tower.norm(tower._whole(tower.stages(one))).flatten(1) for one in (x, x.flip(3))) / 2
    weight, bias = discriminant(features.numpy(), crops.subjects[rows], 8, ridge=0.5)
    np.testing.assert_allclose(made.code.weight.detach(), weight, rtol=5e-3, atol=1e-3 * np.abs(weight).max())
    np.testing.assert_allclose(made.code.bias.detach(), bias, rtol=5e-3, atol=2e-3 * np.abs(bias).max())
    assert result.samples == rows.sum() and result.figures["held_out_tar@0.01"] > 0.05
    assert seen[-1][:2] == (rows.sum(), rows.sum())


def test_named_errors(people: Path, tmp_path: Path) -> None:
    good = tmp_path / "start.safetensors"
    identity.save(identity.Tower(identity.Architecture(widths=(4,), blocks=(0,), code_length=8)), good)
    with pytest.raises(InvalidOption, match="a code of 8 numbers cannot be made of 4"):
        train_discriminant(people, init=good, out=tmp_path / "o")
    with pytest.raises(InvalidOption, match="ridge is 0"):
        train_discriminant(people, init=good, out=tmp_path / "o", ridge=0)
    (tmp_path / "bad.safetensors").write_bytes(b"none")
    with pytest.raises(WeightsError):
        train_discriminant(people, init=tmp_path / "bad.safetensors", out=tmp_path / "o")
    flat = tmp_path / "signals.safetensors"
    identity.save(identity.Tower(identity.Architecture(spatial_dims=1, widths=(4,), blocks=(0,))), flat)
    with pytest.raises(InvalidOption, match="no encoder of colour pictures"):
        train_discriminant(people, init=flat, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()
