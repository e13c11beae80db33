"""Pair heads against loops in float64 NumPy; the fit against the condition that defines it; files that lie."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from likeness.errors import InvalidOption, WeightsError
from likeness.metric import heads
from likeness.metric.heads import KINDS, Kind, PairHead

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def make_pairs(m: int = 40, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Non-negative unit codes; mated pairs are nearer to each other, with overlap."""
    rng = np.random.default_rng(seed)
    same = rng.random(m) < 0.4
    a = rng.uniform(0, 1, (m, d))
    b = np.where(same[:, None], a + rng.normal(0, 0.25, (m, d)), rng.uniform(0, 1, (m, d)))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, np.abs(b)))
    return torch.tensor(a), torch.tensor(b), torch.tensor(same)


def reference_probability(kind: str, a: np.ndarray, b: np.ndarray, w: np.ndarray, bias: float, epsilon: float) -> float:
    z = bias
    for x, y, wk in zip(a, b, w, strict=True):
        z += wk * (abs(x - y) if kind == "absolute" else (x - y) ** 2 / (x + y + epsilon))
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_head_equals_the_loop(kind: Kind, spatial_dims: int) -> None:
    """On codes, or on flattened maps of signals, images and volumes."""
    rng = np.random.default_rng(spatial_dims)
    shape = (12, 2) + (3,) * spatial_dims
    a, b = (torch.tensor(rng.uniform(0, 1, shape)).flatten(1) for _ in range(2))
    head = PairHead(kind, a.shape[1], epsilon=1e-3).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor(rng.normal(size=a.shape[1])))
        head.bias.fill_(0.4)
    w = head.weight.detach().numpy()
    expected = [reference_probability(kind, x, y, w, 0.4, 1e-3) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(head.predict(a, b), expected, **EXACT)
    np.testing.assert_allclose(head.predict(b, a), expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind: Kind) -> None:
    a, b, _ = make_pairs(4, 3)
    head = PairHead(kind, 3).double()
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))

    def logits(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return head(x, y)

    assert torch.autograd.gradcheck(logits, (a.requires_grad_(), b.requires_grad_()))


def test_chi_square_refuses_negative_codes() -> None:
    a, b, _ = make_pairs(4, 6)
    with pytest.raises(InvalidOption, match="non_negative"):
        heads.chi_square(a, -b)
    with pytest.raises(InvalidOption, match="non_negative"):
        PairHead("chi-square", 6).double()(a - 0.5, b)
    PairHead("absolute", 6).double()(a - 0.5, b)


@pytest.mark.parametrize("by", ["softplus", "relu"])
def test_non_negative_codes_are_unit_and_fit_for_chi_square(by: str) -> None:
    codes = torch.nn.functional.normalize(torch.randn(9, 16, generator=torch.Generator().manual_seed(0)))
    made = heads.non_negative(codes, by=by)  # type: ignore[arg-type]
    assert made.min() >= 0
    torch.testing.assert_close(made.norm(dim=1), torch.ones(9))
    values = heads.chi_square(made, made.flip(0))
    assert torch.isfinite(values).all() and values.min() >= 0


def test_both_components_zero_count_as_equal() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    value = heads.chi_square(zero, torch.zeros(1, 3, dtype=torch.float64))
    value.sum().backward()
    assert not value.any() and not zero.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_fit_finds_the_minimum(kind: Kind) -> None:
    """At the minimum of a convex function its gradient, here written as a loop, is zero."""
    a, b, same = make_pairs()
    head = heads.fit(kind, a, b, same, l2=0.001).double()
    w, bias = head.weight.detach().numpy(), head.bias.item()
    gradient, bias_gradient = 0.001 * w, 0.0
    for x, y, s in zip(a.numpy(), b.numpy(), same.tolist(), strict=True):
        error = reference_probability(kind, x, y, w, bias, head.epsilon) - s
        feature = np.abs(x - y) if kind == "absolute" else (x - y) ** 2 / (x + y + head.epsilon)
        gradient, bias_gradient = gradient + error * feature / len(a), bias_gradient + error / len(a)
    assert np.abs(gradient).max() < 1e-6 and abs(bias_gradient) < 1e-6  # weights are kept in float32
    accuracy = float(((head.predict(a, b) > 0.5) == same).double().mean())
    assert accuracy > 0.75


def test_fit_of_separable_pairs_stays_finite() -> None:
    a = torch.eye(4).double()
    head = heads.fit("absolute", torch.cat([a, a]), torch.cat([a, a.flip(0)]), torch.arange(8) < 4)
    assert torch.isfinite(head.weight).all() and head.weight.abs().max() < 100
    assert (head.predict(a.float(), a.float()) > 0.9).all() and (head.predict(a.float(), a.flip(0).float()) < 0.1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_survives_the_disk(kind: Kind, tmp_path: Path) -> None:
    a, b, same = make_pairs()
    head = heads.fit(kind, a, b, same, epsilon=1e-4)
    heads.save(head, tmp_path / "head.safetensors")
    again = heads.load(tmp_path / "head.safetensors")
    assert (again.kind, again.epsilon, again.training) == (kind, 1e-4, False)
    assert torch.equal(again(a, b), head(a, b))
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_files_that_are_no_heads_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "noise").write_bytes(b"\0" * 50)
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    kind = {"kind": "likeness.pair-head"}
    save_file({"weight": torch.zeros(3)}, tmp_path / "bare", kind)
    save_file({"weight": torch.zeros(3)}, tmp_path / "half", {**kind, "head": '{"kind": "absolute", "epsilon": 1e-6}'})
    save_file({"weight": torch.zeros(3)}, tmp_path / "odd", {**kind, "head": '{"kind": "cubic", "epsilon": 1e-6}'})
    for name in ("noise", "foreign", "bare", "half", "odd", "missing"):
        with pytest.raises(WeightsError, match=name):
            heads.load(tmp_path / name)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b, same: PairHead("cubic"),  # type: ignore[arg-type]
        lambda a, b, same: PairHead("absolute", 0),
        lambda a, b, same: PairHead("chi-square", epsilon=0),
        lambda a, b, same: PairHead("absolute", 5)(a, b),
        lambda a, b, same: PairHead("absolute", 6)(a, b[:3]),
        lambda a, b, same: heads.fit("absolute", a, b, same | True),
        lambda a, b, same: heads.fit("absolute", a, b, same & False),
        lambda a, b, same: heads.fit("absolute", a, b, same[:5]),
        lambda a, b, same: heads.fit("absolute", a, b, same, l2=0),
        lambda a, b, same: heads.non_negative(a, by="square"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_are_named(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidOption):
        wrong(*make_pairs())
