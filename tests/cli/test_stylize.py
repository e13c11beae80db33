"""`likeness stylize`: what it refuses before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


def test_the_result_never_replaces_what_is_read(cli: Callable[..., Any], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("content.jpg", "one.jpg", "two.jpg", "vgg.safetensors")]
    for file in files:
        file.write_bytes(b"kept")
    for target in files:
        result = cli("stylize", *files[:3], "--encoder", files[3], "-o", target)
        assert result.status == 2 and "would be replaced" in result.err
    assert {file.read_bytes() for file in files} == {b"kept"}


def test_every_option_arrives(cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import wraps

    from likeness.style import pictures

    seen: list[tuple[tuple, dict[str, Any]]] = []

    def caught(real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def call(*given: Any, **options: Any) -> None:
            seen.append((given, options))
            raise KeyboardInterrupt

        return call

    for name in ("stylize", "estimate_stylize"):
        monkeypatch.setattr(pictures, name, caught(getattr(pictures, name)))
    words = """--encoder e.st --size 77 --steps 8 --content-weight 2 --style-weight 3 --tv-weight 4 --seed 5
        --style-layers relu1_1=.2,relu2_1 --content-layers relu3_1=.5 --statistic mean-std --convention johnson
        --init noise --optimizer adam --blend .7,.3 --mask c.png --mask d:\\e.png:t.png --keep-color luminance
        --scales 2 --tile 64 --memory-limit 1.5 --precision bf16""".split()
    files = ["a.png", "b.png", "c.jpg"]
    expected = {
        "encoder": "e.st",
        "size": 77,
        "steps": 8,
        "content_weight": 2.0,
        "style_weight": 3.0,
        "tv_weight": 4.0,
        "seed": 5,
        "style_layers": {"relu1_1": 0.2, "relu2_1": 1.0},
        "content_layers": {"relu3_1": 0.5},
        "statistic": "mean-std",
        "convention": "johnson",
        "init": "noise",
        "optimizer": "adam",
        "blend": (0.7, 0.3),
        "masks": [("c.png",), ("d:\\e.png", "t.png")],
        "keep_color": "luminance",
        "scales": 2,
        "tile": 64,
        "memory_limit": 1_500_000_000,
        "precision": "bf16",
    }
    out, run = tmp_path / "o.png", tmp_path / "run"
    assert cli("stylize", *files, "-o", out, *words, "--estimate").status == 130
    assert cli("stylize", *files, "-o", out, *words, "--resume", run).status == 130
    assert cli("stylize", *files, "-o", out, "--tile", "off").status == 130
    assert [given for given, _ in seen] == [("a.png", ["b.png", "c.jpg"])] * 3
    (_, estimated), (_, made), (_, plain) = seen
    assert estimated == expected
    assert made.pop("checkpoint") == run and callable(made.pop("on_progress"))
    assert made == expected
    assert plain["tile"] is None and "memory_limit" not in plain and "style_layers" not in plain


def test_fast_paints_in_one_pass_and_refuses_what_it_would_not_use(cli: Callable[..., Any], tmp_path: Path) -> None:
    import torch
    from skimage import data as photographs

    from likeness.nets.perceptual import Architecture, Vgg
    from likeness.samples.images import read_image, write_image
    from likeness.style.adain import save, untrained
    from likeness.style.fast import stylize_fast

    torch.manual_seed(0)
    net, content, style = (tmp_path / name for name in ("net.safetensors", "content.png", "style.png"))
    save(untrained(Vgg(Architecture(widths=(4, 5), depths=(1, 1))), widths=(4, 5)), net)
    write_image(content, photographs.coffee()[:80, :100])
    write_image(style, photographs.astronaut()[:90, :70])
    words = ["stylize", "--fast", content, style, "--net", net, "--size", "64", "-o", tmp_path / "out.png"]
    result = cli(*words, "--strength", "0.7", "--json")
    assert result.status == 0 and result.json["settings"]["strength"] == 0.7 and result.json["seconds"] > 0
    expected = stylize_fast(content, style, net=net, size=64, strength=0.7).image
    assert (read_image(tmp_path / "out.png") == expected).all()
    for more, message in (
        (["--steps", "7"], "--steps: not with --fast"),
        (["--mask", "a:b", "--tile", "64"], "--mask, --tile: not with --fast"),
        (["--strength", "2"], "strength"),
    ):
        result = cli(*words, *more)
        assert result.status == 2 and message in result.err
    assert cli("stylize", "--fast", content, style, "-o", tmp_path / "out.png").status == 0  # by the net that ships
    assert (read_image(tmp_path / "out.png") != stylize_fast(content, style, net=net).image).any()
    result = cli(*words[:4], "--net", "adains", "-o", tmp_path / "out.png")
    assert result.status == 2 and "'adain'" in result.err
    result = cli("stylize", content, style, "-o", tmp_path / "out.png", "--strength", "0.5")
    assert result.status == 2 and "--strength: only with --fast" in result.err
