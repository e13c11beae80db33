"""The Siamese tower: unit codes in every dimension, at every resolution, and the same after a trip to the disk."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from likeness.errors import InvalidOption, WeightsError
from likeness.nets.identity import Architecture, Tower, load, multiply_adds, save


def small(dims: int, **changes: object) -> Architecture:
    fields = {"spatial_dims": dims, "in_channels": 1, "size": 32, "widths": (4, 8), "blocks": (1, 1), "code_length": 16}
    return Architecture(**(fields | changes))  # type: ignore[arg-type]


def settled(architecture: Architecture) -> Tower:
    """A tower whose every parameter and running statistic has some value of its own."""
    torch.manual_seed(0)
    tower = Tower(architecture)
    for name, value in tower.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value) * 0.3)
    return tower.eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_codes_are_unit_and_of_the_length_asked(dims: int) -> None:
    codes = settled(small(dims))(torch.randn(3, 1, *[32] * dims))
    assert codes.shape == (3, 16)
    assert torch.allclose(codes.norm(dim=1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize(("given", "found"), [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")])
def test_codes_are_never_rounded_below_float32(given: str, found: str) -> None:
    """Nor those of a net in float64 to it: what is measured in codes is measured as finely as they were made."""
    kind = getattr(torch, given)
    tower, x = settled(small(2)), torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    codes = tower.to(kind)(x.to(kind))
    assert codes.dtype == getattr(torch, found)
    lengths = codes.double().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-15 if given == "float64" else 1e-6)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_other_resolutions_resample_the_last_kernel(dims: int) -> None:
    """On a constant sample, a kernel that keeps its sum gives (inside the borders' reach) the same code at any size."""
    tower = settled(small(dims, blocks=(0, 0)))
    low, full, high = (tower(torch.full((1, 1, *[size] * dims), 0.7)) for size in (16, 32, 64))
    assert torch.allclose(low, full, atol=1e-5)
    assert torch.allclose(high, full, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_saved_and_loaded(dims: int, tmp_path: Path) -> None:
    tower, x = settled(small(dims)), torch.randn(2, 1, *[32] * dims)
    save(tower, tmp_path / "exact.safetensors", half=False)
    assert torch.equal(load(tmp_path / "exact.safetensors")(x), tower(x))
    save(tower, tmp_path / "half.safetensors")
    half = load(tmp_path / "half.safetensors")
    assert torch.allclose(half(x), tower(x), atol=2e-2)
    save(half, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "half.safetensors").read_bytes()


def test_the_default_tower_is_as_slim_as_promised(tmp_path: Path) -> None:
    """At most 0.2 GMAC at 112x112, at most 4 MB as float16."""
    assert multiply_adds(Architecture()) <= 200e6
    save(Tower(), tmp_path / "tower.safetensors")
    assert (tmp_path / "tower.safetensors").stat().st_size <= 4 * 1024**2
    with torch.no_grad():
        assert Tower().eval()(torch.zeros(1, 3, 112, 112)).shape == (1, 128)


def test_multiply_adds_by_hand() -> None:
    """Stem 4x4x1 -> 4 at 8x8, block of two 3x3x4 -> 4, stem 2x2x4 -> 8 at 4x4, its block, whole map, linear."""
    by_hand = 64 * 4 * 16 + 2 * 64 * 4 * 36 + 16 * 8 * 16 + 2 * 16 * 8 * 72 + 8 * 16 + 8 * 16
    assert multiply_adds(small(2)) == by_hand


def test_what_is_not_an_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 10)
    with pytest.raises(WeightsError, match="junk.safetensors"):
        load(tmp_path / "junk.safetensors")
    with pytest.raises(WeightsError, match="missing.safetensors"):
        load(tmp_path / "missing.safetensors")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(WeightsError, match="not an encoder"):
        load(tmp_path / "foreign.safetensors")


def test_stages_must_pair_up() -> None:
    with pytest.raises(InvalidOption, match="same stages"):
        Architecture(widths=(4, 8), blocks=(1,))
