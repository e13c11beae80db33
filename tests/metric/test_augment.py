"""Augmentation: the same generator gives the same bytes; sizes and ranges hold; without a change nothing changes."""

import pytest
import torch

from likeness.metric.augment import augment, to_input


def crops(n: int = 12, size: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [24, 32, 48])
def test_shape_range_and_reproducibility(size: int) -> None:
    views = [augment(crops(), generator=torch.Generator().manual_seed(seed), size=size) for seed in (1, 1, 2)]
    assert views[0].shape == (12, 3, size, size)
    assert views[0].dtype == torch.float32
    assert float(views[0].abs().max()) <= 1
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_views_still_show_the_picture() -> None:
    """A smooth picture's views correlate with it, up to mirror: the augmentation does not drown the sample."""
    ramp = torch.linspace(30, 220, 48)
    image = (ramp[:, None, None] * torch.ones(48, 48, 3)).to(torch.uint8)[None].repeat(64, 1, 1, 1)
    views = augment(image, generator=torch.Generator().manual_seed(3), size=48).mean(1).flatten(1)
    plain = to_input(image).mean(1).flatten(1)
    both = torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(views, plain, strict=True)])
    assert float(both.median()) > 0.95


def test_to_input_is_the_encoders_preprocessing() -> None:
    image = crops(2)
    expected = (image.permute(0, 3, 1, 2).double() - 127.5) / 127.5
    assert torch.allclose(to_input(image).double(), expected, atol=1e-6)
    assert to_input(image, size=24).shape == (2, 3, 24, 24)
