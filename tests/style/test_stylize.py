"""Stylising samples of 1, 2 and 3 dimensions: J falls, from any start, by any optimiser; runs are repeatable and can be
taken up again."""

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption, WeightsError
from likeness.nets.perceptual import Architecture, Vgg
from likeness.style.descent import Descent
from likeness.style.objective import Style, objective
from likeness.style.stylize import Stylized, stylize_sample

LAYERS: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}
SIZES = {1: (64,), 2: (24, 17), 3: (8, 10, 9)}


def net(dims: int = 2) -> Vgg:
    torch.manual_seed(dims)
    return Vgg(Architecture(spatial_dims=dims, widths=(6, 8), depths=(1, 1)))


def sample(size: tuple[int, ...], seed: int) -> torch.Tensor:
    """Smooth noise."""
    x = torch.rand(1, 3, *[max(2, n // 3) for n in size], generator=torch.Generator().manual_seed(seed))
    mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
    return torch.nn.functional.interpolate(x, size=size, mode=mode)


def run(dims: int = 2, **options: Any) -> Stylized:
    settings = {"steps": 30, "style_weight": 100.0, "precision": "fp32", **LAYERS} | options
    return stylize_sample(net(dims), sample(SIZES[dims], 0), [Style(sample(SIZES[dims], 1))], **settings)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
@pytest.mark.parametrize("init", ["content", "noise"])
def test_J_falls_by_half(dims: int, optimizer: str, init: str) -> None:
    result = run(dims, optimizer=optimizer, init=init, steps=50)
    assert min(result.J) < 0.5 * result.J[0]
    assert result.sample.shape == (3, *SIZES[dims])
    assert result.sample.min() >= 0
    assert result.sample.max() <= 1
    assert result.steps == len(result.J)


def test_the_report_is_J_of_the_sample_returned() -> None:
    result = run()
    J = objective(
        net(),
        sample(SIZES[2], 0),
        [Style(sample(SIZES[2], 1))],
        style_weight=100.0,
        convention="per-position",
        **LAYERS,
    )
    again = J.parts(torch.from_numpy(result.sample)[None])
    assert result.parts == again
    assert pytest.approx(min(result.J), rel=1e-5) == result.parts.J  # nothing is lost by clipping at the end
    assert result.to_dict()["parts"]["weighted"]["style"] == pytest.approx(100 * again.style)
    assert result.peak_memory_bytes > 10_000_000


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second, other = (run(init="noise", seed=seed).sample for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_start_of_ones_own() -> None:
    start = sample(SIZES[2], 5)
    assert np.abs(run(init=start, steps=1).sample - start[0].numpy()).max() == 0
    with pytest.raises(InvalidOption, match="init has shape"):
        run(init=start[..., 1:])


@given(exponent=st.integers(-6, 6))
@settings(deadline=None, max_examples=6)
def test_scaling_all_weights_changes_nothing_visible(exponent: int) -> None:
    factor = 10.0**exponent
    plain, scaled = run(steps=25), run(steps=25, content_weight=factor, style_weight=100 * factor)
    assert np.abs(plain.sample - scaled.sample).max() < 2 / 255


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_coarse_to_fine(dims: int) -> None:
    result = run(dims, scales=2, steps=20, tolerance=0)
    assert result.steps == 40
    assert len(result.J) == 20
    assert min(result.J) < 0.5 * run(dims, steps=1).J[0]
    unchanged = run(dims, scales=2, steps=1).sample  # a coarse run that moves nothing adds nothing to the fine start
    assert np.array_equal(unchanged, sample(SIZES[dims], 0)[0].numpy())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_at_a_coarse_scale_everything_is_coarse(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents, styles and masks, all by as much: strokes keep their size relative to the picture."""
    fine, other = SIZES[dims], tuple(2 * n for n in SIZES[dims])
    seen: list[tuple[Any, Style]] = []

    def noted(net: Vgg, content: torch.Tensor, styles: list[Style], **options: Any) -> Any:
        seen.append((content.shape[2:], styles[0]))
        return objective(net, content, styles, **options)

    monkeypatch.setattr("likeness.style.stylize.objective", noted)
    region, mask = torch.ones(fine), torch.ones(other)
    region[: fine[0] // 2], mask[: fine[0]] = 0, 0
    style = Style(sample(other, 1), region=region, mask=mask)
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "steps": 1, "scales": 2}
    stylize_sample(net(dims), sample(fine, 0), [style], **options)
    (small, coarse), (large, whole) = seen
    assert tuple(small) == tuple(round(n / 2) for n in fine) and tuple(large) == fine
    assert whole.region is not None and torch.equal(whole.region, region) and torch.equal(whole.sample, style.sample)
    assert coarse.region is not None and coarse.mask is not None
    assert coarse.region.shape == small
    assert coarse.sample.shape[2:] == coarse.mask.shape == tuple(round(n * small[0] / fine[0]) for n in other)
    for one in (coarse.region, coarse.mask):
        assert one[0].max() == 0 and one[-1].min() == 1
    assert float(coarse.sample.mean()) == pytest.approx(float(style.sample.mean()), rel=0.02)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_what_the_coarse_run_changed_is_added_to_the_fine_start(dims: int) -> None:
    size = (32, 16, 24)[:dims]
    start, walked = 0.4 + 0.2 * sample(size, 0), {}

    def watch(done: int, total: int, info: dict[str, Any]) -> None:
        walked[done] = info["sample"]()

    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "steps": 6, "scales": 2, "tolerance": 0}
    stylize_sample(net(dims), start, [Style(sample(size, 1))], on_progress=watch, **options)
    pool = (torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)[dims - 1]
    change = walked[6] - pool(start, 2)
    assert walked[6].min() > 0 and walked[6].max() < 1 and change.abs().max() > 0.05
    mode = ("linear", "bilinear", "trilinear")[dims - 1]
    expected = start + torch.nn.functional.interpolate(change, scale_factor=2, mode=mode)
    torch.testing.assert_close(walked[7], expected.clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_noise_is_gray_and_of_deviation_a_tenth(dims: int) -> None:
    start = stylize_sample(
        net(dims),
        sample({1: (5000,), 2: (70, 80), 3: (17, 18, 19)}[dims], 0),
        [Style(sample(SIZES[dims], 1))],
        init="noise", steps=1, scales=1, precision="fp32", **LAYERS,
    ).sample  # fmt: skip
    assert start.mean() == pytest.approx(0.5, abs=0.005) and start.std() == pytest.approx(0.1, abs=0.003)
    flat = start.reshape(3, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(3)).max() < 0.1
    assert abs(np.corrcoef(flat[0, 1:], flat[0, :-1])[0, 1]) < 0.1


def test_tiles_change_nothing() -> None:
    whole, tiled = run(steps=15), run(steps=15, tile=8)
    assert np.abs(whole.sample - tiled.sample).max() < 1e-3


@pytest.mark.parametrize("stop", [4, 10, 27])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, stop: int) -> None:
    options: dict[str, Any] = {"scales": 2, "steps": 15, "tolerance": 0, "init": "noise"}
    whole = run(**options)
    seen: list[tuple[int, int]] = []

    def killed(done: int, total: int, info: dict[str, Any]) -> None:
        seen.append((done, total))
        if len(seen) == stop:
            raise KeyboardInterrupt

    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(**options, checkpoint=file, checkpoint_every=3, on_progress=killed)
    assert file.exists()
    with pytest.raises(InvalidOption, match="other settings \\(seed\\)"):
        run(**options, checkpoint=file, seed=3)
    again: list[int] = []
    for _ in range(2):  # a run that was finished stays so until its file is deleted
        resumed = run(**options, checkpoint=file, on_progress=lambda done, *_: again.append(done))
        assert np.array_equal(resumed.sample, whole.sample)
        assert resumed.J == whole.J
        assert resumed.steps == whole.steps
        assert resumed.to_dict().keys() == whole.to_dict().keys() and resumed.settings == whole.settings
    assert again == list(range(max(1, stop - stop % 3 + 1), 31))
    assert seen[-1][1] == 30


def test_a_finished_run_that_came_to_rest_stays_as_it_is(tmp_path: Path) -> None:
    """Where there is nowhere to go, a walk ends before its steps: its last evaluation is not made twice."""
    x = sample(SIZES[2], 0)
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "checkpoint": tmp_path / "run"}
    first, again = (stylize_sample(net(), x, [Style(x)], **options) for _ in range(2))
    assert first.steps == again.steps == 1 and first.J == again.J
    assert np.array_equal(first.sample, again.sample)


def test_a_checkpoint_that_lacks_something_is_damaged(tmp_path: Path) -> None:
    Descent(sample(SIZES[2], 0)).save(tmp_path / "run", settings={})
    with pytest.raises(WeightsError, match="run is damaged: KeyError: 'number'"):
        run(checkpoint=tmp_path / "run")


def test_a_run_goes_on_only_from_what_it_was_made_of(tmp_path: Path) -> None:
    size = SIZES[2]
    x, half = sample(size, 0), torch.zeros(size)
    half[:12] = 1
    given: dict[str, Any] = {"net": net(), "content": x, "styles": [Style(sample(size, 1), 2.0, half, half)]}
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "steps": 2, "scales": 1, "init": sample(size, 5)}
    file = tmp_path / "run"
    settings = stylize_sample(**given, **options, checkpoint=file).settings
    stored = file.read_bytes()
    torch.manual_seed(9)
    a = given["net"].architecture
    smaller = Architecture(spatial_dims=2, widths=(6, 7), depths=(1, 1))
    others: list[tuple[dict[str, Any], str]] = [
        ({"content": sample(size, 4)}, "content"),
        (
            {"content": sample((24, 18), 0), "init": "content", "styles": [Style(x, 2.0)]},
            "content, init, masks, size, styles",
        ),
        ({"styles": [Style(sample(size, 2), 2.0, half, half)]}, "styles"),
        ({"styles": [Style(sample(size, 1), 1.0, half, half)]}, "blend"),
        ({"styles": [Style(sample(size, 1), 2.0, 1 - half, half)]}, "masks"),
        ({"styles": [Style(sample(size, 1), 2.0, half, 1 - half)]}, "masks"),
        ({"init": "content"}, "init"),
        ({"init": sample(size, 6)}, "init"),
        ({"net": Vgg(a)}, "encoder"),
        ({"net": Vgg(smaller)}, "encoder"),
        ({"warm_up": Vgg(smaller)}, "warm-up encoder, warm_up"),
    ]
    for other, names in others:
        with pytest.raises(InvalidOption, match=rf"other settings \({names}\)"):
            stylize_sample(**{**given, **options, **other}, checkpoint=file)
    same = {"net": net(), "content": x.clone(), "styles": [Style(sample(size, 1), 2.0, half.clone(), half.clone())]}
    assert stylize_sample(**same, **options, checkpoint=file).settings == settings
    assert file.read_bytes() == stored
    assert "content" not in settings  # they are arguments: what the run was made from has no name here


def test_styles_of_equal_regions_are_blended() -> None:
    """Masks are as often files of equal content as one and the same tensor."""

    def cost(*weights: float) -> float:
        size = SIZES[2]
        region = torch.zeros(size)
        region[:, :8] = 1
        styles = [Style(sample(size, seed), weight, region.clone()) for seed, weight in enumerate(weights, 1)]
        options: dict[str, Any] = {**LAYERS, "precision": "fp32", "steps": 1, "scales": 1, "content_weight": 0.0}
        return stylize_sample(net(), sample(size, 0), styles, **options).J[0]

    first, second = cost(1, 0), cost(0, 1)
    assert cost(7, 3) == pytest.approx(0.7 * first + 0.3 * second, rel=1e-5)
    assert first != pytest.approx(second, rel=0.01)


def test_previews_are_samples_and_change_nothing() -> None:
    previews = []

    def watch(done: int, total: int, info: dict[str, Any]) -> None:
        previews.append(info["sample"]())

    options: dict[str, Any] = {"steps": 12, "scales": 2, "style_weight": 1e6, "tolerance": 0}
    result = run(on_progress=watch, **options)
    assert len(previews) == 24
    assert previews[0].shape == (1, 3, 12, 8) and previews[-1].shape == (1, 3, *SIZES[2])
    assert not torch.equal(previews[12], previews[-1]) and np.array_equal(previews[-1][0], result.sample)
    assert np.array_equal(run(**options).sample, result.sample)


def test_what_cannot_be_asked() -> None:
    for options, words in (
        ({"steps": 0}, "steps"),
        ({"precision": "fp8"}, "precision"),
        ({"init": "style"}, "init"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"scales": 9}, "at most"),
        ({"scales": 0}, "scales"),
    ):
        with pytest.raises(InvalidOption, match=words):
            run(**options)


def test_only_a_lack_of_memory_is_called_so() -> None:
    def card(*_: object) -> None:
        raise RuntimeError("cannot write to the memory card")

    with pytest.raises(RuntimeError, match="memory card"):
        run(on_progress=card)

    def lacking(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    with pytest.raises(InvalidOption, match="the memory was used up while 24 x 17 positions"):
        run(on_progress=lacking)


def test_the_record_costs_no_copy_of_the_sample_and_is_json() -> None:
    result = replace(run(steps=2), sample=np.zeros((3, 1000, 1000), np.float32), J=(2.0, math.inf, 1.0))
    tracemalloc.start()
    record = result.to_dict()
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert json.loads(json.dumps(record, allow_nan=False))["J"] == [2.0, None, 1.0]
    assert record.keys() == {"J", "parts", "seconds", "steps", "peak_memory_bytes", "settings"}
