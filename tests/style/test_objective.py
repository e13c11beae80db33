"""J against an independent NumPy implementation in float64, its gradient against finite differences, over 1, 2, 3
dimensions; conventions, statistics, masks, blends, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
from style_reference import content_cost, cost, forward, gram, style_cost

from likeness.errors import InvalidOption, UnknownName
from likeness.nets.perceptual import Architecture, Vgg
from likeness.style.objective import Objective, Style, objective

SIZES = {1: (37,), 2: (19, 14), 3: (9, 8, 11)}
OTHER = {1: (24,), 2: (16, 21), 3: (8, 10, 8)}
LAYERS: dict[str, Any] = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_1": 0.3, "relu3_1": 0.7}}


def net(dims: int, **options: Any) -> Vgg:
    torch.manual_seed(dims)
    made = Vgg(Architecture(spatial_dims=dims, widths=(4, 5, 6), depths=(1, 2, 1), order="bgr", **options)).double()
    for name, value in made.named_parameters():
        if name.endswith("bias"):
            value.data.uniform_(-0.1, 0.1)
    return made


def sample(size: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=[1, 2, 3])
def dims(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.mark.parametrize("options", [{}, {"pooling": "average", "padding": "zeros"}])
def test_activations_are_those_of_the_reference(dims: int, options: dict[str, str]) -> None:
    from likeness.nets.activations import activations

    vgg, x = net(dims, mean=(0.4, 0.5, 0.6), scale=(0.2, 0.3, 0.25), **options), sample(SIZES[dims], 0)
    layers = ["conv1_1", "pool1", "relu2_1", "relu2_2", "relu3_1"]
    expected = forward(vgg, x[0].numpy(), layers)
    for layer, a in activations(vgg, x, layers).items():
        np.testing.assert_allclose(a[0], expected[layer], atol=1e-12)


@pytest.mark.parametrize("same_size", [True, False])
def test_the_chapters_J(dims: int, same_size: bool) -> None:
    vgg, content, x = net(dims), sample(SIZES[dims], 1), sample(SIZES[dims], 3)
    style = sample((SIZES if same_size else OTHER)[dims], 2)
    J = objective(vgg, content, [Style(style)], content_weight=2.0, style_weight=50.0, convention="chapter", **LAYERS)
    c, s, g = (one[0].numpy() for one in (content, style, x))
    expected = cost(vgg, c, s, g, alpha=2.0, beta=50.0, **LAYERS)
    assert float(J(x)) == pytest.approx(expected, rel=1e-12)
    parts = J.parts(x)
    assert pytest.approx(expected, rel=1e-12) == parts.J
    assert parts.weighted["content"] == 2 * parts.content
    assert sum(parts.layers.values()) == pytest.approx(parts.style, rel=1e-12)


def test_the_other_programs_factors(dims: int) -> None:
    """What each convention's author computes, from the activations (sources: docs/explain/style.md)."""
    vgg, content, style, x = net(dims), sample(SIZES[dims], 1), sample(SIZES[dims], 2), sample(SIZES[dims], 3)
    layers = ["relu2_2", "relu1_1", "relu3_1"]
    c, s, g = (forward(vgg, one[0].numpy(), layers) for one in (content, style, x))
    d, k, m = c["relu2_2"] - g["relu2_2"], len(g["relu2_2"]), g["relu2_2"][0].size

    def styles(one: Any) -> float:
        return sum(weight * one(layer) for layer, weight in LAYERS["style_layers"].items())

    def differ(layer: str, divisor: float) -> float:
        return float((((gram(s[layer]) - gram(g[layer])) / divisor) ** 2).mean())

    def size(layer: str) -> tuple[int, int]:
        return len(g[layer]), g[layer][0].size

    expected = {
        "per-position": (content_cost(c["relu2_2"], g["relu2_2"]) / m, styles(lambda l: style_cost(s[l], g[l]))),
        "johnson": ((d**2).mean(), styles(lambda l: differ(l, size(l)[0] * size(l)[1]))),
        "gatys-notebook": ((d**2).mean(), styles(lambda l: differ(l, size(l)[1]) * 1e3 / size(l)[0] ** 2)),
    }
    assert k == d.shape[0]
    for name, (content_part, style_part) in expected.items():
        parts = objective(vgg, content, [Style(style)], convention=name, **LAYERS).parts(x)
        assert parts.content == pytest.approx(content_part, rel=1e-10)
        assert parts.style == pytest.approx(style_part, rel=1e-10)


def test_mean_and_deviation(dims: int) -> None:
    vgg, content, style, x = net(dims), sample(SIZES[dims], 1), sample(OTHER[dims], 2), sample(SIZES[dims], 3)
    s, g = (forward(vgg, one[0].numpy(), list(LAYERS["style_layers"])) for one in (style, x))
    expected = 0.0
    for layer, weight in LAYERS["style_layers"].items():
        a, b = s[layer].reshape(len(s[layer]), -1), g[layer].reshape(len(g[layer]), -1)
        spread = np.sqrt(a.var(1) + 1e-5) - np.sqrt(b.var(1) + 1e-5)
        expected += weight * (((a.mean(1) - b.mean(1)) ** 2 + spread**2).sum() / len(a))
    parts = objective(vgg, content, [Style(style)], statistic="mean-std", **LAYERS).parts(x)
    assert parts.style == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("statistic", ["gram", "mean-std"])
def test_the_gradient(dims: int, statistic: str) -> None:
    vgg, content, x = net(dims), sample(SIZES[dims], 1), sample(SIZES[dims], 3)
    J = objective(vgg, content, [Style(sample(OTHER[dims], 2))], tv_weight=3.0, statistic=statistic, **LAYERS)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(J(x), x)
    rng, x = np.random.default_rng(0), x.detach()
    for place in zip(*(rng.integers(0, n, 12) for n in x.shape), strict=True):
        high, low = x.clone(), x.clone()
        high[place] += 1e-6
        low[place] -= 1e-6
        slope = (float(J(high)) - float(J(low))) / 2e-6
        assert float(gradient[place]) == pytest.approx(slope, abs=1e-6 * max(1.0, float(gradient.abs().max())))


def test_a_sample_has_no_distance_to_itself(dims: int) -> None:
    x = sample(SIZES[dims], 0)
    assert float(objective(net(dims), x, [Style(x)], **LAYERS)(x)) < 1e-20


def test_a_volume_one_pixel_deep_is_a_picture() -> None:
    """With kernels that are one pixel deep in effect and depth 1 there is nothing a third dimension adds: a signal
    repeated along a second axis has the J of the signal."""
    flat, wide = net(1), net(2)
    for (_, a), (_, b) in zip(flat.named_parameters(), wide.named_parameters(), strict=True):
        b.data = (a.data[:, :, None, :] / 3).expand_as(b).clone() if a.ndim == 3 else a.data.clone()
    content, style, x = (sample((24,), i) for i in range(3))
    one = objective(flat, content, [Style(style)], **LAYERS)(x)
    content, style, x = (v[:, :, None, :].expand(1, 3, 24, 24).clone() for v in (content, style, x))
    assert float(objective(wide, content, [Style(style)], **LAYERS)(x)) == pytest.approx(float(one), rel=1e-10)


def blended(vgg: Vgg, dims: int, weights: tuple[float, float]) -> Objective:
    styles = [Style(sample(OTHER[dims], seed), weight) for seed, weight in zip((5, 6), weights, strict=True)]
    return objective(vgg, sample(SIZES[dims], 1), styles, content_weight=0, **LAYERS)


def test_blending_mixes_costs(dims: int) -> None:
    vgg, x = net(dims), sample(SIZES[dims], 3)
    first, second = (float(blended(vgg, dims, w)(x)) for w in ((1, 0), (0, 1)))
    assert float(blended(vgg, dims, (7, 3))(x)) == pytest.approx(0.7 * first + 0.3 * second, rel=1e-12)
    alone = objective(vgg, sample(SIZES[dims], 1), [Style(sample(OTHER[dims], 5))], content_weight=0, **LAYERS)
    assert float(alone(x)) == pytest.approx(first, rel=1e-12)


def test_a_region_is_compared_alone(dims: int) -> None:
    """With its left half in region A and its right half in B, each half meets its own style's statistic."""
    vgg, size = net(dims), tuple(24 for _ in range(dims))
    left = torch.zeros(size, dtype=torch.float64)
    left[..., :8] = 1
    a, b, x = sample(size, 5), sample(size, 6), sample(size, 3)
    J = objective(
        vgg,
        x,
        [Style(a, region=left), Style(b, region=1 - left, mask=left)],
        content_weight=0,
        style_weight=1,
        **LAYERS,
    )
    expected = 0.0
    for layer, weight in LAYERS["style_layers"].items():
        g, s, t = (forward(vgg, one[0].numpy(), [layer])[layer] for one in (x, a, b))
        cut = 8 if layer == "relu1_1" else 2
        parts = ((s, g[..., :cut], 1 / 3), (t[..., :cut], g[..., cut:], 2 / 3))
        for wanted, have, share in parts:
            difference = gram(wanted) / wanted[0].size - gram(have) / have[0].size
            expected += weight * share * (difference**2).sum() / (4 * len(g) ** 2)
    assert float(J(x)) == pytest.approx(expected, rel=1e-10)


def test_what_cannot_be_asked() -> None:
    vgg, x = net(2), sample((19, 14), 0)

    def ask(content: torch.Tensor = x, styles: Any = None, **options: Any) -> Objective:
        return objective(vgg, content, [Style(x)] if styles is None else styles, **(LAYERS | options))

    with pytest.raises(UnknownName, match="'relu3_1'"):
        ask(style_layers={"relu3_l": 1.0})
    with pytest.raises(UnknownName, match="'gram'"):
        ask(statistic="gramm")
    with pytest.raises(UnknownName, match="'johnson'"):
        ask(convention="jonson")
    for options in (
        {"style_weight": -1.0},
        {"content_weight": float("nan")},
        {"style_layers": {"relu1_1": float("inf")}},
        {"content_layers": {"relu1_1": -1.0}, "style_layers": {"relu1_1": 1.0}},  # a layer of both
        {"content_layers": {"relu1_1": float("nan")}, "style_layers": {"relu1_1": 1.0}},
    ):
        with pytest.raises(InvalidOption, match="at least 0"):
            ask(**options)
    with pytest.raises(InvalidOption, match="at least one style"):
        ask(styles=[])
    with pytest.raises(InvalidOption, match="need 8"):
        ask(styles=[Style(sample((19, 7), 0))])
    with pytest.raises(InvalidOption, match="takes"):
        ask(content=sample((19,), 0))
    with pytest.raises(InvalidOption, match="does not fit a content"):
        ask(styles=[Style(x, region=torch.ones(14, 19))])
    with pytest.raises(InvalidOption, match="does not fit a style"):
        ask(styles=[Style(x, mask=torch.ones(14, 19))])
    with pytest.raises(InvalidOption, match="leaves nothing"):
        ask(styles=[Style(x, mask=torch.zeros(19, 14))])
