"""Keeping the content's colours (Gatys 2016, "Preserving color in neural artistic style transfer").

Pictures are (1, 3, h, w), RGB, values 0...1.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Luminance and two differences of colour (NTSC's YIQ); the first row is what a black and white television shows.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64)


def with_colours_of(content: Tensor, picture: Tensor) -> Tensor:
    """The luminance of `picture` with the colours of `content` (section 4.2), before clipping to 0...1."""
    forward = _YIQ.to(picture.dtype)
    yiq = torch.einsum("ij,bjhw->bihw", forward, content)
    yiq[:, :1] = torch.einsum("ij,bjhw->bihw", forward[:1], picture)
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(forward), yiq)


def match_colours(style: Tensor, content: Tensor) -> Tensor:
    """`style` recoloured linearly so that mean and covariance of its pixels are those of `content` (section 4.1, with
    the symmetric root: eq. 8), before clipping."""
    a, b = (x.double().flatten(2)[0] for x in (style, content))
    mean_a, mean_b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    root_a, root_b = (_root(torch.cov(x) + 1e-9 * torch.eye(3, dtype=x.dtype)) for x in (a, b))
    matched = root_b @ torch.linalg.inv(root_a) @ (a - mean_a) + mean_b
    return matched.to(style.dtype).reshape(style.shape)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
