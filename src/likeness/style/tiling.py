"""J and its gradient tile by tile, exactly: memory is bounded by the tile, not by the sample.

J_style is a function of sums over positions, `J_style = f(sum_t A_t)`, where A_t is the statistic (the Gram matrix)
of tile t. By the chain rule `dJ/dx = sum_t <f'(A), dA_t/dx>`: once A is known, each tile's part of the gradient needs
that tile alone. So a first pass adds up A, `f'(A)` is taken once, and a second pass goes back through each tile from
`<f'(A), A_t>`; J_content is a sum over positions already. Tiles overlap by what their units see (`nets.tiles`), so
every value, and by linearity every gradient, is that of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..nets.activations import activations
from ..nets.tiles import Tile, release, tiles, within
from .lbfgs import CHUNK
from .objective import Objective, total
from .statistics import total_variation


def value_and_gradient(
    objective: Objective, x: Tensor, *, tile: int | None = None, low: bool = False
) -> tuple[float, Tensor]:
    """J and dJ/dx (1, c, *spatial) of x clipped to 0...1, in one pass, or with `tile` pixels per axis in two passes.
    (The gradient is that at the clipped x, also where x lies outside.)

    low: convolutions in bfloat16; sums and the gradient itself stay in float32.
    """
    if tile is None:
        x = x.detach().clamp(0, 1).requires_grad_(True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            whole = objective(x)
        return float(whole.detach()), torch.autograd.grad(whole, x)[0]
    x = x.detach()
    cuts = tiles(objective.net, tuple(x.shape[2:]), objective.layers, tile)
    sums: dict[tuple[str, int], Tensor] = {}
    for one in cuts:
        for key, value in _sums(objective, x, one, low).items():
            sums[key] = sums[key] + value if key in sums else value
    sums = {key: value.requires_grad_(True) for key, value in sums.items()}
    style = objective.beta * total(objective.style_costs(sums))
    slopes = dict(zip(sums, torch.autograd.grad(style, list(sums.values())), strict=True))
    cost, gradient = float(style.detach()), torch.zeros_like(x)
    for one in cuts:
        content, slope = _slope(objective, x, one, slopes, low)
        within(gradient, one.crop).add_(slope)
        cost += content
    if objective.gamma:
        part = x.clamp(0, 1).requires_grad_(True)
        tv = objective.gamma * total_variation(part)
        gradient += torch.autograd.grad(tv, part)[0]
        cost += float(tv.detach())
    return cost, gradient


@torch.no_grad()
def _sums(objective: Objective, x: Tensor, one: Tile, low: bool) -> dict[tuple[str, int], Tensor]:
    """A_t, by layer and region."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        found = one.of(activations(objective.net, within(x, one.crop).clamp(0, 1), objective.layers))
        return objective.style_sums(found, one.windows)


def _slope(
    objective: Objective, x: Tensor, one: Tile, slopes: dict[tuple[str, int], Tensor], low: bool
) -> tuple[float, Tensor]:
    """The tile's part of the content's cost, and the gradient of that and of `<f'(A), A_t>` by the tile's crop."""
    part = within(x, one.crop).clamp(0, 1).requires_grad_(True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        found = one.of(activations(objective.net, part, objective.layers))
        content = objective.alpha * objective.content_cost(found, one.windows)
        sums = objective.style_sums(found, one.windows)
    pull = content + torch.stack([(slopes[key] * value).sum() for key, value in sums.items()]).sum()
    return float(content.detach()), torch.autograd.grad(pull, part)[0]


def within_range(J: Objective, x: Tensor, *, tile: int | None, low: bool) -> tuple[float, Tensor]:
    """J and gradient of the sample that x stands for: x clipped to 0...1, which is what can be shown. Where x lies
    outside, the gradient counts only if it leads back in."""
    value, gradient = value_and_gradient(J, x, tile=tile, low=low)
    if tile is not None:
        release()
    gradient = gradient.contiguous()
    for g, v in zip(gradient.view(-1).split(CHUNK), x.view(-1).split(CHUNK), strict=True):
        g.masked_fill_(((v <= 0) & (g > 0)) | ((v >= 1) & (g < 0)), 0.0)
    return value, gradient
