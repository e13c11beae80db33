"""Comparisons of two samples and of three, in 1, 2 and 3 dimensions."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.lens.attribute import attribute
from likeness.lens.comparing import compare_samples, last_map, score_with
from likeness.lens.comparison import METHODS, Share
from likeness.nets.identity import Architecture, Tower

SIZE = {1: 32, 2: 16, 3: 8}


def tower(dims: int) -> Tower:
    """Drawn, with blocks that are not the identity and the batch norms' statistics those of samples."""
    shape = Architecture(spatial_dims=dims, in_channels=2, size=SIZE[dims], stem=2, widths=(6, 8), blocks=(1, 1))
    torch.manual_seed(dims)
    net = Tower(shape).double().train()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    with torch.no_grad():
        net(torch.cat([sample(dims, seed) for seed in range(20, 36)]))  # the statistics of 16 samples
    net.eval()
    return net


def sample(dims: int, seed: int) -> Tensor:
    shape = (1, 2, *[SIZE[dims]] * dims)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def code(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)[0]


@pytest.mark.parametrize("layer", (None, "stages.0", "stages.0.2"))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_linear_maps_add_up_to_the_score(dims: int, layer: str | None) -> None:
    net, a, b = tower(dims), sample(dims, 1), sample(dims, 2)
    found = compare_samples(net, a, b, layer=layer)
    score = float(code(net, a) @ code(net, b))
    assert found.score == pytest.approx(score, abs=1e-7)
    assert found.distance == pytest.approx(float((code(net, a) - code(net, b)).square().sum()), abs=1e-6)
    assert found.b is not None
    for share in (found.a, found.b):
        assert share.rest is not None and share.map.ndim == dims and share.map.std() > 0
        assert float(share.map.sum()) + share.rest == pytest.approx(score, abs=1e-6)
        assert share.explained == pytest.approx(1, abs=1e-5)
    assert found.layer == (layer or last_map(net, a))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_at_the_last_map_it_is_the_linear_map_written_by_hand(dims: int) -> None:
    """Depthwise convolution, batch norm and linear map of a tower, with NumPy: the code is sums over positions."""
    net, a, b = tower(dims), sample(dims, 1), sample(dims, 2)
    found = compare_samples(net, a, b, baseline=0.0)
    with torch.no_grad():
        last, first = net.stages(a)[0].numpy(), net.stages(torch.zeros_like(a))[0].numpy()
    norm = net.norm
    assert isinstance(norm.weight, Tensor) and isinstance(norm.running_var, Tensor)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()  # type: ignore[operator]
    into = net.code.weight.detach().numpy() * scale  # (code, channels)
    kernel = net.whole.weight.detach().numpy()[:, 0]  # type: ignore[union-attr, operator]  # (channels, *positions)
    raw = (net.code(net.norm(net.whole(net.stages(a))).flatten(1)))[0].detach().numpy()
    parts = np.einsum("dk,k...->d...", into, kernel * (last - first))
    expected = np.einsum("d,d...->...", code(net, b).numpy(), parts) / np.linalg.norm(raw)
    assert found.layer is not None and found.layer.startswith("stages")
    assert np.abs(found.a.map - expected).max() < 1e-6


@settings(max_examples=12, deadline=None)
@given(dims=st.integers(1, 3), seeds=st.tuples(*[st.integers(0, 10**6)] * 3), blank=st.floats(-2, 2))
@example(dims=1, seeds=(3110, 65, 84834), blank=1.6484375)  # two maps that nearly cancel
def test_a_triplet_shows_what_speaks_for_one_and_against_the_other(
    dims: int, seeds: tuple[int, int, int], blank: float
) -> None:
    """The map of a margin is the difference of two maps: one may look at either."""
    net, (a, p, n) = tower(dims), [sample(dims, seed) for seed in seeds]
    both = compare_samples(net, a, p, against=n, baseline=blank)
    to_p, to_n = (compare_samples(net, a, other, baseline=blank) for other in (p, n))
    assert both.against is not None and both.b is not None and both.n is not None
    assert np.allclose(both.a.map, to_p.a.map - to_n.a.map, atol=1e-9)
    assert both.a.value == pytest.approx(both.score - both.against, abs=1e-6)
    assert both.n.value == pytest.approx(both.against, abs=1e-6)
    assert float(both.n.map.sum()) + (both.n.rest or 0) == pytest.approx(both.against, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_a_code_may_stand_for_the_other_sample(dims: int, method: str) -> None:
    net, a, b = tower(dims), sample(dims, 1), sample(dims, 2)
    window = {"window": 4, "stride": 4}
    whole = compare_samples(net, a, b, method=method, **window)
    alone = compare_samples(net, a, 3 * code(net, b), method=method, **window)  # of any length
    assert alone.b is None and alone.score == pytest.approx(whole.score, abs=1e-6)
    assert np.allclose(alone.a.map, whole.a.map, atol=1e-6)
    twice = compare_samples(net, a, code(net, b), against=code(net, sample(dims, 3)), method=method, **window)
    assert twice.n is None and twice.against is not None


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_grad_cam_and_occlusion_are_those_of_attribute(dims: int) -> None:
    net, a, b = tower(dims), sample(dims, 1), sample(dims, 2)
    cam = compare_samples(net, a, b, method="grad-cam", layer="stages.0")
    target = score_with(code(net, b))
    with_relu = attribute(net, a, target, method="grad-cam", layer="stages.0").map[0, 0]
    assert np.allclose(Share(cam.a.map.clip(0), 1.0).heat(a.shape[2:]), with_relu, atol=1e-9)
    assert cam.a.explained is None and (cam.a.map < 0).any()
    cover = compare_samples(net, a, b, method="occlusion", window=4, stride=2)
    blank = a.mean(tuple(range(2, a.ndim)), keepdim=True)
    expected = attribute(net, a, target, method="occlusion", window=4, stride=2, baseline=blank.expand_as(a))
    assert np.allclose(cover.a.map, expected.map[0, 0], atol=1e-6) and cover.layer is None
    hidden = a.clone()
    hidden[(..., *[slice(0, 4)] * dims)] = blank
    with torch.no_grad():
        fall = float(target(net, a) - target(net, hidden))
    assert float(cover.a.map.flatten()[0]) == pytest.approx(fall, abs=1e-6)


def test_a_net_that_is_not_affine_after_the_layer_says_so() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Softmax(1), nn.Flatten(), nn.Linear(4 * 49, 3)).double()
    found = compare_samples(net, sample(2, 1), sample(2, 2), layer="0")
    assert found.a.explained is not None and abs(found.a.explained - 1) > 1e-3


def test_a_map_brought_to_the_sample_keeps_its_mean() -> None:
    share = Share(np.arange(8.0).reshape(2, 4), 1.0)
    assert share.heat((8, 16)).shape == (8, 16)
    assert float(share.heat((8, 16)).mean()) == pytest.approx(3.5)


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_changes_nothing(method: str) -> None:
    net = tower(2)
    expected = compare_samples(net, sample(2, 1), sample(2, 2), method=method).to_dict()
    with torch.inference_mode():
        assert compare_samples(net, sample(2, 1), sample(2, 2), method=method).to_dict() == expected


def test_plain_numbers() -> None:
    net = tower(2)
    for other in (sample(2, 2), torch.ones(128)):
        found = compare_samples(net, sample(2, 1), other)
        plain = json.loads(json.dumps(found.to_dict()))
        assert plain["score"] == found.score and plain["n"] is None
        assert np.array(plain["a"]["map"]).shape == found.a.map.shape


def test_what_cannot_be_is_refused() -> None:
    net, a, b = tower(2), sample(2, 1), sample(2, 2)
    for one, other, options, error, message in (
        (a, b, {"method": "liner"}, UnknownName, "linear"),
        (a, b, {"layer": "stages.7"}, UnknownName, "stages"),
        (torch.cat([a, a]), b, {}, InvalidOption, "one sample"),
        (a, torch.cat([b, b]), {}, InvalidOption, "a sample like"),
        (a, sample(1, 1), {}, InvalidOption, "a sample like"),
        (a, torch.ones(5), {}, InvalidOption, "128 numbers"),
        (a, b, {"layer": "code"}, InvalidOption, "does not pass"),
    ):
        with pytest.raises(error, match=message):
            compare_samples(net, one, other, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="codes are"):
        compare_samples(nn.Conv2d(2, 3, 3).double(), a, b)
    with pytest.raises(InvalidOption, match="no layer"):
        compare_samples(nn.Sequential(nn.Flatten(), nn.Linear(512, 3)).double(), a, b)


@pytest.mark.parametrize("method", METHODS)
def test_no_hook_is_left_also_after_an_error(method: str) -> None:
    net, calls = tower(2), 0

    def forward(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        y = Tower.forward(net, x)
        if calls == 3:  # both codes are known: the method is at work
            raise ZeroDivisionError
        return y

    compare_samples(net, sample(2, 1), sample(2, 2), method=method, layer="stages.0")
    object.__setattr__(net, "forward", forward)
    with pytest.raises(ZeroDivisionError):
        compare_samples(net, sample(2, 1), sample(2, 2), method=method, layer="stages.0")
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.relu(torch.tensor([-1.0])), torch.tensor([0.0])) and net.training is False
