"""A slim net that stands in for a large one: its maps by least squares, its J, and the start that it finds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from likeness.nets.activations import activations
from likeness.nets.perceptual import Architecture, Vgg
from likeness.style import machine, stylize
from likeness.style import stand_in as module
from likeness.style.descent import Descent
from likeness.style.objective import CONVENTIONS, Style, cost_options, objective
from likeness.style.stand_in import can_stand_in, stand_in, warmed
from likeness.style.stylize import estimate_sample, stylize_sample

LAYERS = ("relu1_1", "relu2_1")
COST: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}
SIZES = {1: (60,), 2: (24, 20), 3: (10, 8, 12)}


def vgg(dims: int, widths: tuple[int, int], seed: int = 0) -> Vgg:
    torch.manual_seed(seed)
    net = Vgg(Architecture(dims, widths=widths, depths=(1, 1), mean=(0.5,), scale=(0.25,)))
    for weight in net.parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
    return net


def samples(dims: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(dims)
    return [torch.rand(1, 3, *SIZES[dims], generator=generator) for _ in range(2)]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("tiled", [False, True])
def test_maps_are_those_of_least_squares_in_numpy(dims: int, tiled: bool) -> None:
    """L'L = M'M, with M by ridge regression over all positions of all samples."""
    slim, large, shown = vgg(dims, (3, 4)), vgg(dims, (6, 9), 1), samples(dims)
    net = stand_in(slim, large, shown, LAYERS, 8 if tiled else None)
    for layer in LAYERS:
        a, t = (
            np.concatenate([activations(n, x, [layer])[layer].flatten(2)[0].double().numpy() for x in shown], 1)
            for n in (slim, large)
        )
        a = np.concatenate([a, np.ones_like(a[:1])])
        ridge = 1e-4 * np.mean(np.sum(a**2, 1)) * np.eye(len(a))
        M = t @ a.T @ np.linalg.inv(a @ a.T + ridge)
        head = net.get_submodule(layer)
        L = np.concatenate([head.weight.flatten(1).double().numpy(), head.bias[:, None].double().numpy()], 1)
        np.testing.assert_allclose(L.T @ L, M.T @ M, rtol=1e-3, atol=1e-5 * np.abs(M.T @ M).max())
        assert net.widths[len(L)] == len(M)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_a_net_that_can_be_mapped_exactly_measures_the_same_j(
    dims: int, convention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slim net is the large one less the channels that repeat others: J through the maps is J, and so the start
    that it finds is the one that the large net would have found."""
    monkeypatch.setattr(module, "RIDGE", 1e-9)
    monkeypatch.setattr(module, "EVALUATIONS", 4)
    slim = vgg(dims, (3, 4))
    large = vgg(dims, (6, 8), 1)
    for name in ("conv1_1", "conv2_1"):
        ours, theirs = slim.get_submodule(name), large.get_submodule(name)
        kernel = torch.cat([ours.weight, 2 * ours.weight])
        theirs.weight.data = kernel if name == "conv1_1" else torch.cat([kernel, 0 * kernel], 1)
        theirs.bias.data = torch.cat([ours.bias, 2 * ours.bias])
    content, style = samples(dims)
    cost = cost_options(**COST, convention=convention, style_weight=100.0)
    seen: list[float] = []
    found = warmed(
        slim, large, Descent(content), content, [Style(style)], tile=None, low=False,
        on_step=lambda walk: seen.append(walk.trace[-1]), **cost,
    )  # fmt: skip
    J = objective(large, content, [Style(style)], **cost)
    assert seen[0] == pytest.approx(J.parts(content).J, rel=2e-3)
    assert pytest.approx(min(seen), rel=2e-3) == J.parts(found.clamp(0, 1)).J
    assert min(seen) < 0.95 * seen[0]


def test_which_nets_can_stand_in() -> None:
    large = vgg(2, (16, 32))
    assert can_stand_in(vgg(2, (4, 5)), large, LAYERS)
    assert not can_stand_in(vgg(2, (12, 30)), large, LAYERS)  # hardly smaller
    assert not can_stand_in(vgg(2, (4, 5)), large, [*LAYERS, "relu2_2"])
    assert not can_stand_in(vgg(1, (4, 5)), large, LAYERS)


def test_a_run_begins_where_the_stand_in_ends_and_resumes_to_the_byte(tmp_path: Path) -> None:
    slim, large = vgg(2, (4, 5)), vgg(2, (16, 32), 1)
    content, style = (torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
    options: dict[str, Any] = {**COST, "steps": 6, "scales": 2, "tolerance": 0.0, "precision": "fp32", "warm_up": slim}
    told: list[str] = []
    warm = stylize_sample(
        large, content, [Style(style)], on_progress=lambda done, total, info: told.append(info["scale"]), **options
    )
    assert told == ["warm-up"] * module.EVALUATIONS + ["1/2"] * 6 + ["2/2"] * 6
    assert warm.settings["warm_up"] is True
    cold = stylize_sample(large, content, [Style(style)], **(options | {"warm_up": None}))
    assert cold.settings["warm_up"] is False and warm.J[0] < cold.J[0]

    for number, place in enumerate([("1/2", 4), ("2/2", 10)]):
        again = options | {"checkpoint": tmp_path / f"run{number}", "checkpoint_every": 2}
        with pytest.raises(KeyboardInterrupt):
            stylize_sample(large, content, [Style(style)], on_progress=stop_at(place), **again)
        resumed = stylize_sample(large, content, [Style(style)], **again)
        assert np.array_equal(resumed.sample, warm.sample)


def test_the_warm_up_keeps_to_the_plan_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    slim, large = vgg(2, (4, 5)), vgg(2, (16, 32), 1)
    content, style = (torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
    options: dict[str, Any] = {**COST, "steps": 2, "scales": 1, "precision": "fp32", "warm_up": slim}
    walks: list[Descent] = []

    def noted(slim: Vgg, large: Vgg, walk: Descent, *more: Any, **options: Any) -> torch.Tensor:
        walks.append(walk)
        return warmed(slim, large, walk, *more, **options)

    monkeypatch.setattr(stylize, "warmed", noted)
    stylize_sample(large, content, [Style(style)], history=3, compact=True, **options)
    (walk,) = walks
    assert len(walk.trace) == module.EVALUATIONS
    assert (walk.history, walk.compact, walk.best.dtype) == (3, True, torch.float16)
    assert len(walk.state["pairs"]) < 3


def test_a_warm_up_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam fits where 10 pairs of L-BFGS, which the warm-up would keep, do not."""
    monkeypatch.setattr(machine, "resident", lambda: 0)
    slim, large = vgg(2, (2, 2)), vgg(2, (4, 6), 1)
    content, style = (torch.rand(1, 3, 800, 900, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
    options: dict[str, Any] = {**COST, "steps": 1, "scales": 1, "precision": "fp32", "optimizer": "adam"}
    options |= {"tile": None, "compact": False}
    options["memory_limit"] = estimate_sample(large, content, [Style(style)], **options).peak_memory_bytes
    left_out = stylize_sample(large, content, [Style(style)], warm_up=slim, **options)
    assert left_out.settings["warm_up"] is False
    assert np.array_equal(left_out.sample, stylize_sample(large, content, [Style(style)], **options).sample)


def stop_at(place: tuple[str, int]) -> Any:
    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if (info["scale"], done) == place:
            raise KeyboardInterrupt

    return stop


def test_the_factors_of_the_large_net_count() -> None:
    """Of a layer of 6 channels mapped from 3 the convention is asked for 6."""
    slim, large = vgg(2, (3, 4)), vgg(2, (6, 9), 1)
    content, style = samples(2)
    cost = cost_options(**COST, convention="johnson")
    asked: list[int] = []
    real = CONVENTIONS["johnson"]
    noted = replace(real, style=lambda channels: asked.append(channels) or real.style(channels))  # type: ignore[func-returns-value]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONVENTIONS, "johnson", noted)  # type: ignore[arg-type]
        walk = Descent(content)
        warmed(slim, large, walk, content, [Style(style)], tile=None, low=False, on_step=lambda _: None, **cost)
    assert set(asked) == {6, 9}


def test_layers_of_equal_width_that_stand_for_different_ones_are_refused() -> None:
    """The factors of J are found by a head's width."""
    assert can_stand_in(vgg(2, (4, 5)), vgg(2, (16, 64)), LAYERS)
    assert not can_stand_in(vgg(2, (4, 4)), vgg(2, (16, 64)), LAYERS)
    assert can_stand_in(vgg(2, (4, 4)), vgg(2, (16, 64)), ["relu1_1"])
    assert can_stand_in(vgg(2, (4, 4)), vgg(2, (32, 32)), LAYERS)
