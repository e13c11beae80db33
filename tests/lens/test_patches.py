"""Top patches against brute force over all samples, in 1, 2 and 3 dimensions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName, WeightsError
from likeness.lens.attribute import output
from likeness.lens.invert import invert
from likeness.lens.maximize import maximize
from likeness.lens.patches import top_patches
from likeness.nets.activations import activations
from likeness.nets.layers import conv, max_pool

SIZES = {1: (40,), 2: (13, 16), 3: (8, 7, 9)}


class Residual(nn.Module):
    """A net with a branch, a reused activation, dilation and pooling."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.first = conv(dims, 2, 5, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = max_pool(dims, 2)
        self.left, self.right = conv(dims, 5, 6, 3, padding=1), conv(dims, 5, 6, 1)
        self.last = conv(dims, 6, 4, 3)
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(x)))
        return self.last(self.relu(self.sum(self.left(x) + self.right(x))))


LAYERS = ["first", "relu", "sum", "relu#2", "last"]


def net(dims: int) -> nn.Module:
    torch.manual_seed(dims)
    return Residual(dims).eval()


def data(dims: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, *SIZES[dims], generator=torch.Generator().manual_seed(seed))


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    yield from x.split(size)


def brute_force(maps: np.ndarray, k: int) -> list[list[tuple[int, int, float]]]:
    """For every unit of maps (n, units, positions) its k best (sample, position, value), one of each sample."""
    result = []
    for unit in range(maps.shape[1]):
        best = [(-maps[i, unit].max(), i, int(maps[i, unit].argmax())) for i in range(len(maps))]
        result.append([(i, place, -value) for value, i, place in sorted(best)[:k]])
    return result


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_hits_are_those_of_brute_force_over_a_thousand_samples(dims: int) -> None:
    model, x = net(dims), data(dims, 1000)
    found = top_patches(model, batches(x, 64), layers=LAYERS)
    assert found.samples == 1000
    for layer, a in activations(model, x, LAYERS).items():
        expected = brute_force(a.detach().flatten(2).numpy(), 9)
        for unit, hits in enumerate(found.layers[layer].hits):
            shape = a.shape[2:]
            got = [(h.sample, int(np.ravel_multi_index(h.position, shape)), h.activation) for h in hits]
            assert [one[:2] for one in got] == [one[:2] for one in expected[unit]]
            assert [one[2] for one in got] == pytest.approx([one[2] for one in expected[unit]], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 12), st.integers(0, 50))
def test_neither_batches_nor_equal_activations_change_anything(n: int, size: int, k: int, seed: int) -> None:
    x = data(1, n, seed).round() * 0.5  # many equal values
    model = nn.Sequential(nn.Identity())
    found = top_patches(model, batches(x, size), layers=["0"], k=k).layers["0"]
    for unit, expected in enumerate(brute_force(x.numpy(), k)):
        assert [(h.sample, h.position[0], h.activation) for h in found.hits[unit]] == expected
        assert len(found.hits[unit]) == min(k, n)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_outside_its_window_a_unit_sees_nothing(dims: int) -> None:
    model, x = net(dims), data(dims, 20)
    for layer, patches in top_patches(model, batches(x, 8), layers=LAYERS, k=3).layers.items():
        for unit, hits in zip(patches.units, patches.hits, strict=True):
            for hit in hits:
                window = tuple(slice(*axis) for axis in hit.window)
                other = data(dims, 1, seed=99)
                other[(..., *window)] = x[hit.sample : hit.sample + 1][(..., *window)]
                a = activations(model, other, [layer])[layer]
                assert float(a[(0, unit, *hit.position)].detach()) == pytest.approx(hit.activation, abs=1e-5)


def test_several_patches_of_one_sample() -> None:
    x = data(1, 12)
    found = top_patches(nn.Identity(), batches(x, 5), layers=[""], k=6, per_sample=3).layers[""]
    for unit, hits in enumerate(found.hits):
        best = [
            (-float(v), i, int(p)) for i in range(12) for p, v in sorted(enumerate(x[i, unit]), key=lambda t: -t[1])[:3]
        ]
        assert [(-h.activation, h.sample, h.position[0]) for h in hits] == sorted(best)[:6]


def test_chosen_units_mean_deviation_and_the_selective_ones() -> None:
    model, x = net(2), data(2, 50)[..., :8, :8]  # small enough that every position is counted
    x[17] += 20
    some = top_patches(model, batches(x, 16), layers=["relu", "last"], units={"relu": [3, 1]}).layers["relu"]
    everything = top_patches(model, batches(x, 16), layers=["relu"]).layers["relu"]
    a = activations(model, x, ["relu"])["relu"].detach().double().transpose(0, 1).flatten(1)
    assert some.units == (3, 1) and some.hits == (everything.hits[3], everything.hits[1])
    assert everything.mean == pytest.approx(a.mean(1).tolist(), rel=1e-5)
    assert everything.deviation == pytest.approx(a.std(1, unbiased=False).tolist(), rel=1e-5)
    top = torch.tensor([[hit.activation for hit in hits] for hits in everything.hits]).double().mean(1)
    order = ((top - a.mean(1)) / a.std(1, unbiased=False)).argsort(descending=True)
    assert everything.selective(3) == tuple(order[:3].tolist())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_maps_laid_out_by_position_have_the_same_hits(dims: int) -> None:
    """Also where the channels of a position lie side by side in memory."""
    x = data(dims, 20)
    by_position = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert not by_position.is_contiguous()
    plain, other = (top_patches(nn.Identity(), batches(one, 7), layers=[""]).layers[""] for one in (x, by_position))
    assert plain.hits == other.hits and plain.mean == pytest.approx(other.mean)
    assert [[hit.activation for hit in hits[:1]] for hits in plain.hits] == x.flatten(2).amax((0, 2))[:, None].tolist()


def test_an_interrupted_run_goes_on_and_ends_alike(tmp_path: Path) -> None:
    model, x = net(2), data(2, 60)
    options: dict[str, Any] = {"layers": ["relu", "last"], "checkpoint": tmp_path / "state", "every": 0}

    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        top_patches(model, batches(x, 8), on_progress=stop, **options)
    with pytest.raises(KeyboardInterrupt):  # before the time for a checkpoint has come
        top_patches(model, batches(x, 8), on_progress=stop, **options | {"checkpoint": tmp_path / "none", "every": 60})
    assert not (tmp_path / "none").exists()
    whole = top_patches(model, batches(x, 8), layers=["relu", "last"])
    for expected in ([48, 56, 60], []):  # the checkpoint was written at 40, and at the end
        told: list[int] = []
        assert whole == top_patches(
            model, batches(x, 8), on_progress=lambda done, total, info, told=told: told.append(done), **options
        )
        assert told == expected


def test_a_run_of_another_net_options_or_samples_is_not_gone_on_with(tmp_path: Path) -> None:
    model, x = net(2), data(2, 40)
    options: dict[str, Any] = {"layers": ["last"], "checkpoint": tmp_path / "state"}
    whole = top_patches(model, batches(x, 8), **options)
    other_weights, other_kind, changed = net(2), net(2), x.clone()
    other_weights.last.bias.data[0] += 1  # type: ignore[operator,union-attr]
    other_kind.pool = nn.AvgPool2d(2)
    changed[35] += 1
    for run, parts, more, message in (
        (other_weights, batches(x, 8), {}, "another net"),
        (other_kind, batches(x, 8), {}, "another net"),
        (model, batches(x, 8), {"k": 4}, "another net, layers, units or k"),
        (model, batches(changed, 8), {}, "other samples"),
        (model, batches(torch.cat([changed, x]), 8), {}, "other samples"),
        (model, batches(x[:32], 8), {}, "other samples"),
        (model, batches(torch.cat([x, x]), 16), {}, "other samples"),
        (model, batches(x.transpose(2, 3).reshape(x.shape), 8), {}, "other samples"),
        (model, batches(x.reshape(40, 2, 16, 13), 8), {}, "other samples"),
    ):
        with pytest.raises(WeightsError, match=message):
            top_patches(run, parts, **options | more)
    assert top_patches(model, batches(torch.cat([x, x]), 8), **options).samples == 80  # more of them are
    (tmp_path / "state").unlink()
    assert top_patches(model, batches(x, 8), **options) == whole


def test_a_unit_that_fires_off_the_counted_positions_comes_before_those_that_never_do() -> None:
    x = torch.zeros(6, 4, 200)
    x[:, 0], x[2, 1, 100], x[:, 3] = -1, 5, torch.rand(6, 200, generator=torch.Generator().manual_seed(0)) - 2
    x[2, 2, ::5] = 1
    found = top_patches(nn.Identity(), batches(x, 4), layers=[""]).layers[""]
    assert found.deviation[1] == 0 and found.deviation[3] > 0 and found.hits[3][0].activation < 0
    assert [found.fires(i) for i in range(4)] == [False, True, True, False]
    assert found.selective(4) == (2, 1, 3, 0)


def test_data_loaders_with_workers_and_labels() -> None:
    x = data(2, 30)
    dataset = torch.utils.data.TensorDataset(x, torch.arange(30))
    # Spawned, for a forked child of a process with threads, as those of a test run are, may wait for ever.
    loader = torch.utils.data.DataLoader(dataset, 7, num_workers=2, multiprocessing_context="spawn")
    totals = []
    found = top_patches(net(2), loader, layers=["last"], on_progress=lambda done, total, info: totals.append(total))
    assert found == top_patches(net(2), batches(x, 7), layers=["last"])
    assert set(totals) == {30}


def test_no_hook_stays_and_what_cannot_be_is_refused() -> None:
    model, x = net(2), data(2, 4)
    for options, error, message in (
        ({"layers": ["relux"]}, UnknownName, "relu"),
        ({"layers": ["relu"], "units": {"relu": [5, 1, 9]}}, InvalidOption, "0...4, not 5, 9"),
        ({"layers": ["relu"], "k": 0}, InvalidOption, "at least 1"),
        ({"layers": ["relu"], "k": 4.0}, InvalidOption, r"k is 4\.0"),
        ({"layers": ["relu"], "per_sample": 2.0}, InvalidOption, r"per_sample 2\.0"),
    ):
        with pytest.raises(error, match=message):
            top_patches(model, [x], **options)
    with pytest.raises(InvalidOption, match="one size"):
        top_patches(model, [x, x[..., :8]], layers=["relu"])
    with pytest.raises(InvalidOption, match="no samples"):
        top_patches(model, [], layers=["relu"])
    with pytest.raises(InvalidOption, match="tuple"):
        top_patches(model, ["a"], layers=["relu"])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_window_is_no_larger_than_what_a_unit_sees(dims: int) -> None:
    """The gradient reaches from the first to the last position of the window along each axis: of a convolution
    always, after pooling (which lets one of two through) for most hits."""
    model, x = net(dims), data(dims, 30)
    found = top_patches(model, batches(x, 10), layers=["first", "last"])
    reached: dict[str, list[bool]] = {}
    for layer, result in found.layers.items():
        for unit, hits in enumerate(result.hits):
            for hit in hits:
                leaf = x[hit.sample : hit.sample + 1].clone().requires_grad_()
                activation = activations(model, leaf, [layer])[layer][(0, unit, *hit.position)]
                (slope,) = torch.autograd.grad(activation, leaf)
                places = slope[0].abs().sum(0).nonzero()
                box = tuple((int(a), int(b) + 1) for a, b in zip(places.amin(0), places.amax(0), strict=True))
                reached.setdefault(layer, []).append(box == tuple(tuple(axis) for axis in hit.window))
    assert all(reached["first"]) and np.mean(reached["last"]) > 0.2


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError


def looked_into(name: str, model: nn.Module, x: Tensor) -> None:
    if name == "top_patches":
        top_patches(model, [x], layers=["1", "3"])
    elif name == "invert":
        invert(model, x[:1], "3", steps=20)
    else:
        maximize(model, output(0), tuple(x.shape[1:]), steps=20)


@pytest.mark.parametrize("name", ("top_patches", "invert", "maximize"))
def test_no_hook_stays_when_the_net_itself_fails(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), Fails(), nn.Conv2d(3, 3, 3))
    with pytest.raises(ZeroDivisionError):
        looked_into(name, model, data(2, 2))
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in model.modules() for kind in kinds)
