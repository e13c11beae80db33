"""What a run will need: memory counted against measured, the tile and the history that fit, and refusals that help."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.errors import InvalidOption
from likeness.nets.perceptual import Architecture, Vgg, save
from likeness.nets.tiles import extent, tiles
from likeness.style import estimate, machine, timing
from likeness.style.estimate import Job
from likeness.style.objective import Style
from likeness.style.stylize import estimate_sample, stylize_sample

LAYERS: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}
LARGE = 400_000_000_000


def net(dims: int = 2, widths: tuple[int, ...] = (6, 8)) -> Vgg:
    torch.manual_seed(0)
    return Vgg(Architecture(spatial_dims=dims, widths=widths, depths=(1,) * len(widths)))


def job(size: tuple[int, ...] = (3072, 4096), optimizer: str = "lbfgs", **more: Any) -> Job:
    slim = Vgg(Architecture(spatial_dims=len(size), widths=(16, 32, 64, 128), depths=(2, 2, 4, 1)))
    layers = tuple(f"relu{block}_1" for block in (1, 2, 3, 4))
    return Job(slim, size, (size,), optimizer, layers[3:], layers, **more)


CHILD = """
import json, sys
import torch
from likeness.nets.perceptual import load
from likeness.style import machine
from likeness.style.objective import Style
from likeness.style.stylize import estimate_sample, stylize_sample

torch.set_num_threads(1)
net, options = load(sys.argv[1]), json.loads(sys.argv[2])
size = options.pop("size")
content, style = ((torch.rand(1, 3, *size) * 255).byte() for _ in range(2))
found = estimate_sample(net, content, [Style(style)], precision="fp32", scales=1, **options)
run = stylize_sample(net, content, [Style(style)], precision="fp32", scales=1, **options)
print(json.dumps({**found.to_dict(), "measured": run.peak_memory_bytes}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "options",
    [
        {"size": [384, 512], "steps": 12},
        {"size": [512, 384], "steps": 4, "optimizer": "adam"},
        {"size": [512, 768], "steps": 12, "tile": 128, "history": 3, "compact": True},
    ],
)
def test_memory_is_what_is_measured(tmp_path: Path, options: dict[str, Any]) -> None:
    save(Vgg(Architecture(widths=(16, 32, 64, 128), depths=(1, 1, 1, 1))), tmp_path / "net.safetensors")
    words = [sys.executable, "-c", CHILD, str(tmp_path / "net.safetensors"), json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert found["peak_memory_bytes"] == pytest.approx(found["measured"], rel=0.2)
    assert found["seconds"] > 0


def test_what_fits_is_chosen_from_best_to_smallest() -> None:
    base = machine.resident()
    found = [
        estimate.fit(job(), tile="auto", memory_limit=limit) for limit in (LARGE, base + 9 * 10**9, base + 13 * 10**8)
    ]
    assert (found[0].tile, found[0].history, found[0].compact) == (None, 10, False)
    assert found[1].tile is not None
    assert (found[2].compact, found[2].history < 10) == (True, True)
    for one, limit in zip(found, (LARGE, base + 9 * 10**9, base + 13 * 10**8), strict=True):
        assert one.peak_memory_bytes <= limit
    assert all(a.peak_memory_bytes >= b.peak_memory_bytes for a, b in zip(found, found[1:], strict=False))
    kept = estimate.fit(job(), tile=512, history=7, compact=False, memory_limit=LARGE)
    assert (kept.tile, kept.history, kept.compact) == (512, 7, False)


def test_a_photograph_of_12_million_pixels_fits_into_one_gigabyte_and_a_quarter() -> None:
    """1.5 GB less what torch, the encoder and the two pictures take."""
    base = machine.resident()
    found = estimate.fit(job(), tile="auto", memory_limit=base + 1_200_000_000)
    assert found.tile is not None and found.tile >= 128
    assert found.history >= 1


def with_warm_up(optimizer: str) -> Job:
    """VGG-19, with the slim net of `job` standing in."""
    slim = job()
    large = Vgg(Architecture(widths=(64, 128, 256, 512), depths=(2, 2, 4, 1)))
    return replace(slim, net=large, optimizer=optimizer, slim=slim.net)


@pytest.mark.parametrize("tile", [None, 1024, 256])
@pytest.mark.parametrize(("history", "compact"), [(10, False), (3, True)])
def test_with_l_bfgs_the_warm_up_takes_no_more_than_the_run(tile: int | None, history: int, compact: bool) -> None:
    one = with_warm_up("lbfgs")
    assert one.slim is not None
    way = tile, history, compact
    assert estimate.warm_up_memory(one, one.slim, *way) <= estimate.memory(one, *way)


def limit(need: int) -> int:
    """The least with which `need` bytes are planned."""
    return math.ceil(need / estimate.OF_LIMIT)


def test_the_warm_up_is_counted_and_left_out_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its L-BFGS keeps 10 pairs, where Adam keeps two vectors."""
    monkeypatch.setattr(machine, "resident", lambda: 0)
    one = with_warm_up("adam")
    assert one.slim is not None
    run, warm_up = estimate.memory(one, 256, 10, False), estimate.warm_up_memory(one, one.slim, 256, 10, False)
    assert warm_up > run + 10 * 12 * 3072 * 4096
    for bytes_, fits in ((warm_up, True), (warm_up - 2, False), (run, False)):
        found = estimate.fit(one, tile=256, compact=False, memory_limit=limit(bytes_))
        assert (found.warm_up, found.peak_memory_bytes) == (fits, warm_up if fits else run)
    assert not estimate.fit(replace(one, slim=None), tile=256, memory_limit=LARGE).warm_up
    tight = estimate.fit(one, tile="auto", memory_limit=limit(run))  # for the warm-up's sake the run gives nothing up
    alone = estimate.fit(replace(one, slim=None), tile="auto", memory_limit=limit(run))
    assert (tight.tile, tight.history, tight.compact) == (alone.tile, alone.history, alone.compact)


def test_the_seconds_of_the_warm_up_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_time_per_position", lambda job, *_: (1e-3 if job.slim else 1e-4, 1.0, 0.0))
    monkeypatch.setattr(timing, "_time_per_step", lambda job, _: (1e-5, 0.0))
    large, slim = net(2, (16, 32)), net()
    size = (100, 100)
    one = Job(large, size, (size,), "lbfgs", ("relu2_1",), ("relu1_1", "relu2_1"), slim=slim)
    plan = estimate.fit(one, tile=None, memory_limit=LARGE)
    assert plan.warm_up
    with_it, without = (timing.seconds(one, replace(plan, warm_up=warm_up), [size], 5, {}) for warm_up in (True, False))
    assert with_it - without == pytest.approx(10**4 * (30 * (1e-4 + 1e-5) + 0.5 * 2 * (1e-3 + 2e-4)))


@given(
    size=st.lists(st.integers(16, 4000), min_size=1, max_size=3),
    tile=st.integers(1, 100).map(lambda n: 8 * n),
    coarser=st.integers(0, 3),
)
@settings(deadline=None, max_examples=200)
def test_what_is_computed_at_once_is_what_the_memory_was_planned_for(size: list[int], tile: int, coarser: int) -> None:
    """However narrow the sample: a coarse scale is computed whole only where it is no larger than a fine crop."""
    scale = [max(1, n >> coarser) for n in size]
    planned = math.prod(extent(n, tile, 40)[0] for n in size)
    whole = estimate.tile_at(scale, tile, 40, size) is None
    assert whole == (math.prod(scale) <= planned)
    assert estimate.tile_at(scale, None, 40, size) is None


def test_a_narrow_sample_keeps_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tiles are narrow too."""
    cuts: list[int | None] = []

    def evaluated(J: Any, x: torch.Tensor, *, tile: int | None, low: bool) -> tuple[float, torch.Tensor]:
        cuts.append(tile)
        return 1.0, torch.ones_like(x)

    monkeypatch.setattr(machine, "resident", lambda: 0)
    monkeypatch.setattr("likeness.style.stylize.within_range", evaluated)
    content, style = torch.rand(1, 3, 20, 4000), torch.rand(1, 3, 20, 20)
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "scales": 1, "steps": 1}
    alone = Job(net(2, (32, 16)), (20, 4000), ((20, 20),), "lbfgs", ("relu2_1",), ("relu1_1", "relu2_1"))
    need = estimate.memory(alone, 512, 10, False)
    run = stylize_sample(net(2, (32, 16)), content, [Style(style)], memory_limit=limit(need), compact=False, **options)
    assert run.settings["tile"] == 512 and cuts == [512]


@pytest.mark.parametrize("tile", [None, 8])
def test_seconds_are_those_of_steps_tiles_and_passes(tile: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was timed: per position 1 ms in one pass, 2 ms by tiles, and 10 us for the step after it."""
    monkeypatch.setattr(timing, "_time_per_position", lambda *_: (1e-3, 2e-3, 0.5))
    monkeypatch.setattr(timing, "_time_per_step", lambda *_: (1e-5, 0.25))
    sizes, style, layers = [(50, 60), (100, 120)], (70, 80), ["relu1_1", "relu2_1"]
    one = Job(net(), sizes[-1], (style,), "lbfgs", ("relu2_1",), tuple(layers))
    plan = estimate.fit(one, tile=tile, memory_limit=LARGE)
    seconds = [timing.seconds(one, plan, sizes, steps, {}) for steps in (7, 8)]
    evaluations = 0.0
    for size in sizes:
        crops = [[cut.stop - cut.start for cut in t.crop] for t in tiles(net(), size, layers, 8)]
        evaluations += 2e-3 * sum(map(math.prod, crops)) if tile else 1e-3 * math.prod(size)
        evaluations += 1e-5 * math.prod(size)
    assert seconds[1] - seconds[0] == pytest.approx(evaluations, rel=1e-9)
    forward = 0.5e-3 * ((100 * 120 + 70 * 80) * (1 + 1 / 4) + 100 * 120)  # targets at each scale, J of the result
    assert seconds[0] - 7 * evaluations == pytest.approx(2 * 0.5 + 0.25 + forward)


def test_bytes_per_position() -> None:
    """Convolutions in bfloat16 leave half of what they do in float32; a mask makes another map of each layer it is
    of (16, 32, 64 and 128 channels, at strides of 1, 2, 4 and 8)."""
    assert estimate._per_position(job()) == pytest.approx(556, abs=1)
    assert estimate._per_position(job(low=True)) == pytest.approx(330, abs=1)
    assert estimate._per_position(with_warm_up("lbfgs")) == pytest.approx(2080, abs=1)
    assert estimate._per_position(replace(with_warm_up("lbfgs"), low=True)) == pytest.approx(1176, abs=1)
    for regions in (1, 3):
        more = estimate._per_position(job(regions=regions)) - estimate._per_position(job())
        assert more == regions * 4 * (16 + 32 / 4 + 64 / 16 + 128 / 64)


@pytest.mark.parametrize("tile", [-8, 0, 3, 100])
def test_a_tile_that_cannot_be_is_refused_before_any_work(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 is no multiple of relu4_1's stride of 8."""
    with pytest.raises(InvalidOption, match=f"tile is {tile}; it must be a multiple of 8"):
        estimate.fit(job((400, 500)), tile=tile, memory_limit=LARGE)
    monkeypatch.setattr("likeness.style.stylize.objective", None)
    sample = torch.rand(1, 3, 400, 500)
    for ask in (estimate_sample, stylize_sample):
        with pytest.raises(InvalidOption, match="it must be a multiple of 2"):
            ask(net(), sample, [Style(sample)], **LAYERS, scales=2, tile=tile - 1 + tile % 2)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
@pytest.mark.parametrize("size", [(1 << 22,), (2000, 3000), (160, 170, 180)])
def test_less_memory_never_means_more(optimizer: str, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    base = machine.resident()
    monkeypatch.setattr(machine, "resident", lambda: base)  # what other tests leave behind comes and goes
    one = Job(net(len(size)), size, (size,), optimizer, ("relu2_1",), ("relu1_1", "relu2_1"))
    before = math.inf
    for limit in (LARGE, 3 * 10**9, 10**9, 5 * 10**8, 3 * 10**8):
        try:
            found = estimate.fit(one, tile="auto", memory_limit=base + limit)
        except InvalidOption as error:
            assert "would fit" in str(error)
            break
        assert found.peak_memory_bytes - base <= min(before, limit) + 1e6
        before = found.peak_memory_bytes - base


def test_a_refusal_says_what_would_fit() -> None:
    base = machine.resident()
    with pytest.raises(InvalidOption, match="need .* MB with tiles of .*; a size of .* would fit") as refused:
        estimate.fit(job(), tile="auto", memory_limit=base + 300_000_000)
    longer = int(str(refused.value).split("a size of ")[1].split()[0])
    assert estimate.fit(job((longer * 3 // 4, longer)), tile="auto", memory_limit=base + 320_000_000)
    with pytest.raises(InvalidOption, match="with no tiles, and .* tile='auto' would take .* with tiles of"):
        estimate.fit(job(), tile=None, memory_limit=base + 2 * 10**9)
    with pytest.raises(InvalidOption, match="too little for any size"):
        estimate.fit(job(), tile="auto", memory_limit=base)
    with pytest.raises(InvalidOption, match="tile is 'big'"):
        estimate.fit(job(), tile="big")


def test_a_run_does_as_the_estimate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "resident", lambda: 300_000_000)
    sample = torch.rand(1, 3, 400, 500)
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "scales": 1, "memory_limit": 520_000_000}
    found = estimate_sample(net(2, (32, 16)), sample, [Style(sample)], steps=2, **options)
    run = stylize_sample(net(2, (32, 16)), sample, [Style(sample)], steps=2, **options)
    assert found.tile is not None
    for name in ("tile", "history", "compact"):
        assert run.settings[name] == getattr(found, name)
    assert found.seconds is not None and found.seconds > 0
    with pytest.raises(InvalidOption, match="can be had"):
        stylize_sample(net(), sample, [Style(sample)], steps=2, **options | {"memory_limit": 1})


@pytest.mark.parametrize(
    ("style", "options", "message"),
    [
        (Style(torch.rand(1, 3, 30, 30)), {"init": "bogus"}, "init is 'bogus'"),
        (Style(torch.rand(1, 3, 30, 30)), {"init": torch.rand(1, 3, 29, 30)}, "init has shape"),
        (Style(torch.rand(1, 3, 30, 30), region=torch.zeros(40, 30)), {}, "is black"),
        (Style(torch.rand(1, 3, 30, 30), region=torch.ones(7, 7)), {}, "does not fit a content"),
        (Style(torch.rand(1, 3, 30, 30), mask=torch.ones(7, 7)), {}, "does not fit a style"),
    ],
)
def test_an_estimate_refuses_what_the_run_refuses(style: Style, options: dict[str, Any], message: str) -> None:
    content = torch.rand(1, 3, 40, 30)
    for ask in (estimate_sample, stylize_sample):
        with pytest.raises(InvalidOption, match=message):
            ask(net(), content, [style], **LAYERS, **options)


def test_bytes_are_as_good_as_floats() -> None:
    content, style = ((torch.rand(1, 3, 24, 20) * 255).byte() for _ in range(2))
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "scales": 1, "steps": 5}
    for more in ({}, {"tile": 8}, {"scales": 2}):
        plain = stylize_sample(net(), content.float() / 255, [Style(style.float() / 255)], **options | more)
        small = stylize_sample(net(), content, [Style(style)], **options | more)
        assert (plain.sample == small.sample).all()


def test_half_the_memory_loses_little() -> None:
    content, style = torch.rand(1, 3, 40, 30), torch.rand(1, 3, 40, 30)
    options: dict[str, Any] = {**LAYERS, "precision": "fp32", "scales": 1, "steps": 40, "tolerance": 0}
    full, compact = (
        stylize_sample(net(), content, [Style(style)], compact=one, history=4, **options) for one in (False, True)
    )
    assert compact.parts.J < 1.1 * full.parts.J
    assert pytest.approx(min(compact.J), rel=0.01) == compact.parts.J  # its best sample is kept in float16


def test_what_the_machine_can_give(tmp_path: Path) -> None:
    assert machine.resident() > 10_000_000
    assert machine.peak_memory() >= 0.9 * machine.resident()
    left = machine.available()
    assert left is None or left > 0
    new, old = tmp_path / "a" / "b", tmp_path / "memory" / "c"
    for group, files in (
        (new, {"memory.max": "900", "memory.current": "500", "memory.stat": "anon 1\ninactive_file 100"}),
        (tmp_path, {"memory.max": "max", "memory.current": "5", "memory.stat": "anon 1"}),
        (
            old,
            {"memory.limit_in_bytes": "700", "memory.usage_in_bytes": "600", "memory.stat": "total_inactive_file 50"},
        ),
        (
            tmp_path / "memory",
            {"memory.limit_in_bytes": str(2**63), "memory.usage_in_bytes": "6", "memory.stat": "a 0"},
        ),
    ):
        group.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (group / name).write_text(text + "\n")
    (tmp_path / "listing").write_text("4:memory:/c\n1:cpu:/\n0::/a/b\n")
    assert sorted(machine._groups(tmp_path / "listing", tmp_path)) == [150, 500]
    assert list(machine._groups(tmp_path / "missing", tmp_path)) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_own_limit_counts() -> None:
    """`ulimit -v`, of addresses."""
    code = """
import resource, sys
from likeness.style import machine
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
print(machine.available())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert 290_000_000 < int(done.stdout) <= 300_000_000


def test_pairs_are_kept_in_bfloat16_before_tiles_get_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles cost time, rounded pairs next to nothing."""
    monkeypatch.setattr(machine, "resident", lambda: 0)
    most = limit(estimate.memory(job(), 1536, 10, True))
    found = estimate.fit(job(), tile="auto", memory_limit=most)
    assert (found.tile, found.history, found.compact) == (1536, 10, True)
    full = estimate.fit(job(), tile="auto", compact=False, memory_limit=most)
    assert full.tile is not None and full.tile < 1536 and not full.compact
